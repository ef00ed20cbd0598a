//! The questions that researchers ask of data: which statistic, of which rows.
//!
//! A statistic is one file below this folder, with a plan that only its constructor makes, and one arm of [`Statistic`]. What
//! nodes contribute to it and what the sums mean is a file of the same name in the crate `analytics`.

mod combat;
mod comparison;
mod confidence;
mod correlation;
mod count;
mod cox;
mod describe;
mod glm;
mod input;
mod level;
mod meta;
mod pca;
mod range;
mod survival;
mod table;

use serde::{Deserialize, Serialize};

pub use combat::Combat;
pub use comparison::{Against, Anova, TTest};
pub use confidence::Confidence;
pub use correlation::{Blanks, Correlation, MAX_PRODUCT_COLUMNS, NumberColumns};
pub use count::Count;
pub use cox::{Cox, Strata, Ties};
pub use describe::{Describe, DescribedNumber, MAX_BINS, MAX_QUANTILES, RawDescribe};
pub use glm::{Errors, Glm, GlmFamily, Link};
pub use input::{Batch, Column, Input, MISSING, OTHER};
pub use level::{Category, Level, MAX_LEVELS};
pub use meta::{BetweenSites, Meta, MetaModel};
pub use pca::{Pca, PcaOf};
pub use range::Range;
pub use survival::{Survival, SurvivalInterval, TimeResolution};
pub use table::{MAX_CELLS, Table, TableTest};

use crate::expression::Expression;

/// A statistic of the rows for which a condition holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub statistic: Statistic,
    /// Rows are left out unless this is true; absent: all rows.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Expression>,
    /// Pooled counts above 0 and below it are hidden in the answer, with others from which they would follow. Hospitals refuse a
    /// question that asks for less than they want.
    #[serde(default = "five", skip_serializing_if = "is_five")]
    pub minimum: u64,
}

fn five() -> u64 {
    Question::MINIMUM
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_five(minimum: &u64) -> bool {
    *minimum == Question::MINIMUM
}

/// A statistic and what it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum Statistic {
    Count(Count),
    Describe(Describe),
    Table(Table),
    Correlation(Correlation),
    #[serde(rename = "ttest")]
    TTest(TTest),
    Anova(Anova),
    Pca(Pca),
    Glm(Glm),
    Survival(Survival),
    Cox(Cox),
    Meta(Meta),
    Combat(Combat),
}

impl Statistic {
    /// The name on the command line and in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Count(_) => "count",
            Self::Describe(_) => "describe",
            Self::Table(_) => "table",
            Self::Correlation(_) => "correlation",
            Self::TTest(_) => "ttest",
            Self::Anova(_) => "anova",
            Self::Pca(_) => "pca",
            Self::Glm(_) => "glm",
            Self::Survival(_) => "survival",
            Self::Cox(_) => "cox",
            Self::Meta(_) => "meta",
            Self::Combat(_) => "combat",
        }
    }

    /// The columns that it reads, without those of the filter; a column may occur more than once.
    fn columns(&self) -> Vec<&str> {
        match self {
            Self::Count(_) => Vec::new(),
            Self::Describe(describe) => describe.columns(),
            Self::Table(table) => table.names(),
            Self::Correlation(correlation) => correlation.names(),
            Self::TTest(test) => test.names(),
            Self::Anova(anova) => anova.names(),
            Self::Pca(pca) => pca.names(),
            Self::Glm(glm) => glm.columns(),
            Self::Survival(survival) => survival.columns(),
            Self::Cox(cox) => cox.formula.columns(),
            Self::Meta(meta) => meta.columns(),
            Self::Combat(combat) => combat.measures.iter().chain(&combat.covariates).map(String::as_str).collect(),
        }
    }
}

impl Question {
    /// The least pooled count that is told, unless something else is asked for.
    pub const MINIMUM: u64 = 5;

    /// The columns that are read, each once.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns = Vec::new();
        for column in self.statistic.columns().into_iter().chain(self.filter.iter().flat_map(Expression::columns)) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_written_with_their_condition_as_text() {
        let json = r#"{"statistic":{"name":"count"},"where":"age > 50 and sex = 1"}"#;
        let question: Question = serde_json::from_str(json).unwrap();
        assert_eq!(question.columns(), ["age", "sex"]);
        assert_eq!(serde_json::to_string(&question).unwrap(), json);
        for wrong in [
            r#"{"statistic":{"name":"count"},"where":"age >"}"#,
            r#"{"statistic":{"name":"count","by":1}}"#,
            r#"{"statistic":{"name":"count"},"rows":1}"#,
            r#"{"statistic":{"name":"sum"}}"#,
        ] {
            assert!(serde_json::from_str::<Question>(wrong).is_err(), "{wrong}");
        }
    }
}
