//! Survival curves (Kaplan and Meier 1958) and the log-rank test (Mantel 1966).

use serde::{Deserialize, Serialize};

use super::{Category, Confidence};
use crate::expression::Expression;

/// Survival curves, compared if there are groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survival {
    /// The time to the event or to the end of observation, at least 0.
    pub time: Expression,
    /// 1 where the event happened, 0 where the time is censored.
    pub event: Expression,
    /// One curve for each level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Category>,
    #[serde(default)]
    pub resolution: TimeResolution,
    #[serde(default)]
    pub confidence: Confidence,
    #[serde(default)]
    pub interval: SurvivalInterval,
    /// Where the restricted mean ends; the end of the curve by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<f64>,
}

/// How finely times are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeResolution {
    /// Every time on its own.
    Exact,
    /// In steps that hold at least this many events in each group that has any.
    Events(u32),
}

impl Default for TimeResolution {
    fn default() -> Self {
        Self::Events(5)
    }
}

/// On which scale the interval of a survival probability is symmetric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SurvivalInterval {
    /// log(-log S), as lifelines does; it stays within 0 and 1.
    #[default]
    LogLog,
    /// log S, as R's survfit does.
    Log,
    /// S itself, cut off at 0 and 1.
    Plain,
}

impl Survival {
    pub(super) fn columns(&self) -> Vec<&str> {
        let mut columns = [self.time.columns(), self.event.columns()].concat();
        columns.extend(self.by.iter().map(Category::column));
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_come_in_steps_unless_said_otherwise() {
        let json = r#"{"time":"t","event":"status = 2","by":{"column":"arm","levels":["a","b"]}}"#;
        let plan: Survival = serde_json::from_str(json).unwrap();
        assert_eq!((plan.resolution, plan.interval), (TimeResolution::Events(5), SurvivalInterval::LogLog));
        assert_eq!(plan.columns(), ["t", "status", "arm"]);
        assert_eq!(serde_json::from_str::<Survival>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    }
}
