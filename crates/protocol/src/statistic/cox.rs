//! Cox's proportional hazards model (Cox 1972).

use serde::{Deserialize, Serialize};

use super::{Category, Confidence, TimeResolution};
use crate::formula::Formula;

/// A proportional hazards model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cox {
    /// `Surv(time, event) ~ …`; an intercept is part of the baseline.
    pub formula: Formula,
    #[serde(default)]
    pub ties: Ties,
    #[serde(default)]
    pub strata: Strata,
    /// How finely times are told apart when risk sets are pooled; within a site they always are.
    #[serde(default)]
    pub resolution: TimeResolution,
    /// The levels of the formula's categories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Category>,
    /// Half of this times the squared norm of the coefficients is taken off the log likelihood.
    #[serde(default)]
    pub ridge: f64,
    #[serde(default)]
    pub confidence: Confidence,
}

/// What events at the same time count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// Efron 1977.
    #[default]
    Efron,
    /// Breslow 1974.
    Breslow,
}

/// Among whom the one with the event is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strata {
    /// Each site has a baseline of its own.
    #[default]
    Site,
    /// All sites share one baseline.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_site_has_its_own_baseline_unless_said_otherwise() {
        let plan: Cox = serde_json::from_str(r#"{"formula":"Surv(t, d) ~ age"}"#).unwrap();
        assert_eq!((plan.ties, plan.strata, plan.resolution), (Ties::Efron, Strata::Site, TimeResolution::Events(5)));
        let plan: Cox =
            serde_json::from_str(r#"{"formula":"Surv(t, d) ~ age","ties":"breslow","strata":"none","resolution":"exact"}"#)
                .unwrap();
        assert_eq!((plan.ties, plan.strata, plan.resolution), (Ties::Breslow, Strata::None, TimeResolution::Exact));
        let plan: Cox = serde_json::from_str(r#"{"formula":"Surv(t, d) ~ age","resolution":{"events":10}}"#).unwrap();
        assert_eq!(plan.resolution, TimeResolution::Events(10));
    }
}
