//! Columns with few different values.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::expression::Literal;
use crate::expression::display::Short;
use crate::plan::{PlanError, check_name, value};

/// The most levels of a column in a plan.
pub const MAX_LEVELS: usize = 1_024;

/// A value of a column with few different values. As JSON it is the number or the text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Level {
    /// Finite.
    Number(f64),
    Text(String),
}

impl Level {
    /// The level as expressions and formulas write it: texts in quotes.
    pub(crate) fn written(&self) -> String {
        match self {
            Self::Number(number) => Short(*number).to_string(),
            Self::Text(text) => Literal::Text(text.clone()).to_string(),
        }
    }
}

/// As tables and the names of terms show it.
impl Display for Level {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{}", Short(*number)),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// A column, and the levels that are told apart in it; the first is the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawCategory")]
pub struct Category {
    column: String,
    levels: Vec<Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCategory {
    column: String,
    levels: Vec<Level>,
}

impl Category {
    /// Fails unless there are 1 to [`MAX_LEVELS`] different levels, all numbers or all texts.
    pub fn new(column: String, levels: Vec<Level>) -> Result<Self, PlanError> {
        check_name("column", &column)?;
        if levels.is_empty() || levels.len() > MAX_LEVELS {
            return Err(value("levels", "1 to 1024 levels", levels.len()));
        }
        let numbers = levels.iter().filter(|level| matches!(level, Level::Number(_))).count();
        if numbers > 0 && numbers < levels.len() {
            return Err(value("levels", "numbers only or texts only", "both"));
        }
        for (index, level) in levels.iter().enumerate() {
            if matches!(level, Level::Number(number) if !number.is_finite()) {
                return Err(value("levels", "finite numbers", level));
            }
            if levels[..index].contains(level) {
                return Err(PlanError::Twice { key: "levels", name: level.to_string() });
            }
        }
        Ok(Self { column, levels })
    }

    pub fn column(&self) -> &str {
        &self.column
    }

    pub fn levels(&self) -> &[Level] {
        &self.levels
    }
}

impl TryFrom<RawCategory> for Category {
    type Error = PlanError;

    fn try_from(raw: RawCategory) -> Result<Self, PlanError> {
        Self::new(raw.column, raw.levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, message: Option<&str>) {
        let found = serde_json::from_str::<Category>(json);
        assert_eq!(found.err().map(|error| error.to_string()).as_deref(), message, "{json}");
    }

    #[test]
    fn levels_are_different_and_of_one_kind() {
        check(r#"{"column":"cp","levels":[1,2.5,-3]}"#, None);
        check(r#"{"column":"cp","levels":["a","b"]}"#, None);
        check(r#"{"column":"cp","levels":[]}"#, Some("`levels` must be 1 to 1024 levels, found 0"));
        check(r#"{"column":"cp","levels":["a",1]}"#, Some("`levels` must be numbers only or texts only, found both"));
        check(r#"{"column":"cp","levels":[1,1.0]}"#, Some("`levels` names \"1\" twice"));
        check(
            r#"{"column":"","levels":[1]}"#,
            Some("`column` must be a column name of 1 to 256 characters, found an empty text"),
        );
    }
}
