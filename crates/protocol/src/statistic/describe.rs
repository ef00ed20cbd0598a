//! Summaries of columns: counts, moments, quantiles, histograms, categories.

use serde::{Deserialize, Serialize};

use super::{Category, Range};
use crate::expression::Expression;
use crate::plan::{MAX_STATISTIC_COLUMNS, PlanError, value};

/// The most quantiles that are asked for at once.
pub const MAX_QUANTILES: usize = 101;
/// The most bins of a histogram.
pub const MAX_BINS: usize = 1_000;

/// Summaries of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawDescribe", into = "RawDescribe")]
pub struct Describe {
    raw: RawDescribe,
}

/// What [`Describe::new`] checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDescribe {
    #[serde(default)]
    pub numbers: Vec<DescribedNumber>,
    #[serde(default)]
    pub categories: Vec<Category>,
    /// Above 0 and below 1.
    #[serde(default = "quartiles")]
    pub quantiles: Vec<f64>,
    /// Bins of each histogram; 0 for none.
    #[serde(default = "ten")]
    pub bins: usize,
    /// Whether the smallest and the largest value are asked for, which nodes must allow.
    #[serde(default)]
    pub minmax: bool,
    /// The fewest rows that an interval may hold which is named as the place of a quantile.
    #[serde(default = "five")]
    pub minimum_rows: u64,
}

/// A column of numbers, or what an expression makes of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedNumber {
    pub column: Expression,
    /// What values are expected, by which quantiles are found more finely, and histograms are drawn. Values outside are counted as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// The histogram's edges, each above the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<Vec<f64>>,
    /// Whether all values are whole numbers, so that a quantile can be found exactly.
    #[serde(default)]
    pub whole: bool,
}

impl DescribedNumber {
    pub fn new(column: Expression) -> Self {
        Self { column, range: None, edges: None, whole: false }
    }
}

fn quartiles() -> Vec<f64> {
    vec![0.25, 0.5, 0.75]
}

fn ten() -> usize {
    10
}

fn five() -> u64 {
    5
}

impl Default for RawDescribe {
    fn default() -> Self {
        Self {
            numbers: Vec::new(),
            categories: Vec::new(),
            quantiles: quartiles(),
            bins: ten(),
            minmax: false,
            minimum_rows: five(),
        }
    }
}

impl Describe {
    pub fn new(raw: RawDescribe) -> Result<Self, PlanError> {
        let columns = raw.numbers.len() + raw.categories.len();
        if columns == 0 || columns > MAX_STATISTIC_COLUMNS {
            return Err(value("columns", "1 to 4096 columns", columns));
        }
        let names = raw.numbers.iter().map(|number| number.column.to_string());
        let mut names: Vec<String> =
            names.chain(raw.categories.iter().map(|category| category.column().to_owned())).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(PlanError::Twice { key: "columns", name: twice[0].clone() });
        }
        if raw.quantiles.len() > MAX_QUANTILES {
            return Err(value("quantiles", "at most 101 quantiles", raw.quantiles.len()));
        }
        if let Some(quantile) = raw.quantiles.iter().find(|quantile| !(**quantile > 0.0 && **quantile < 1.0)) {
            return Err(value("quantiles", "above 0 and below 1", quantile));
        }
        if raw.bins > MAX_BINS {
            return Err(value("bins", "at most 1000", raw.bins));
        }
        for edges in raw.numbers.iter().filter_map(|number| number.edges.as_deref()) {
            let are_rising = edges.windows(2).all(|pair| pair[0] < pair[1]) && edges.iter().all(|edge| edge.is_finite());
            if !are_rising || !(2..=MAX_BINS + 1).contains(&edges.len()) {
                return Err(value("edges", "2 to 1001 finite numbers, each above the one before", format!("{edges:?}")));
            }
        }
        Ok(Self { raw })
    }

    pub fn numbers(&self) -> &[DescribedNumber] {
        &self.raw.numbers
    }

    pub fn categories(&self) -> &[Category] {
        &self.raw.categories
    }

    pub fn quantiles(&self) -> &[f64] {
        &self.raw.quantiles
    }

    pub fn bins(&self) -> usize {
        self.raw.bins
    }

    pub fn minmax(&self) -> bool {
        self.raw.minmax
    }

    pub fn minimum_rows(&self) -> u64 {
        self.raw.minimum_rows
    }

    pub(super) fn columns(&self) -> Vec<&str> {
        let numbers = self.raw.numbers.iter().flat_map(|number| number.column.columns());
        numbers.chain(self.raw.categories.iter().map(Category::column)).collect()
    }
}

impl TryFrom<RawDescribe> for Describe {
    type Error = PlanError;

    fn try_from(raw: RawDescribe) -> Result<Self, PlanError> {
        Self::new(raw)
    }
}

impl From<Describe> for RawDescribe {
    fn from(describe: Describe) -> Self {
        describe.raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, message: Option<&str>) {
        let found = serde_json::from_str::<Describe>(json).err().map(|error| error.to_string());
        // JSON's own errors end with a place.
        let found = found.as_ref().map(|found| found.split(" at line").next().unwrap());
        assert_eq!(found, message, "{json}");
    }

    #[test]
    fn columns_are_named_once_and_numbers_are_possible() {
        check(
            r#"{"numbers":[{"column":"age"},{"column":"log(chol)","range":[0,10]}],"categories":[{"column":"sex","levels":[0,1]}]}"#,
            None,
        );
        check("{}", Some("`columns` must be 1 to 4096 columns, found 0"));
        check(r#"{"numbers":[{"column":"age"},{"column":"age"}]}"#, Some("`columns` names \"age\" twice"));
        check(r#"{"numbers":[{"column":"age"}],"quantiles":[1]}"#, Some("`quantiles` must be above 0 and below 1, found 1"));
        check(
            r#"{"numbers":[{"column":"age","range":[1,1]}]}"#,
            Some("`range` must be two finite numbers, the first below the second, found 1, 1"),
        );
        check(
            r#"{"numbers":[{"column":"age","edges":[1]}]}"#,
            Some("`edges` must be 2 to 1001 finite numbers, each above the one before, found [1.0]"),
        );
    }

    #[test]
    fn a_plan_is_written_as_it_is_read() {
        let plan: Describe = serde_json::from_str(r#"{"numbers":[{"column":"age"}]}"#).unwrap();
        let again: Describe = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(plan, again);
        assert_eq!(
            (plan.quantiles(), plan.bins(), plan.minmax(), plan.minimum_rows()),
            (&[0.25, 0.5, 0.75][..], 10, false, 5)
        );
    }
}
