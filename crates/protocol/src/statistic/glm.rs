//! Generalised linear models (McCullagh and Nelder 1989).

use serde::{Deserialize, Serialize};

use super::{Category, Confidence};
use crate::expression::Expression;
use crate::formula::Formula;

/// A generalised linear model. That the formula, family, link and categories fit together is checked by the crate `analytics`, on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Glm {
    pub formula: Formula,
    pub family: GlmFamily,
    /// The family's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// How much each row counts, as the precision of its response; rows of weight 0 are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Expression>,
    /// The levels of the formula's categories and of the column of clusters, taken from the datasets' faces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Category>,
    #[serde(default)]
    pub errors: Errors,
    #[serde(default)]
    pub confidence: Confidence,
}

/// How the response is distributed around its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GlmFamily {
    /// Constant variance; linear regression.
    Gaussian,
    /// 0 or 1, or a share with the number of trials as weight; logistic regression.
    Binomial,
    /// Counts, whose variance is their mean.
    Poisson,
    /// Above 0, with a standard deviation that is a share of the mean.
    Gamma,
}

/// What of the mean the terms add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    Identity,
    Logit,
    Log,
    Inverse,
}

impl GlmFamily {
    /// The canonical link, which R and statsmodels take by default too.
    pub fn default_link(self) -> Link {
        match self {
            Self::Gaussian => Link::Identity,
            Self::Binomial => Link::Logit,
            Self::Poisson => Link::Log,
            Self::Gamma => Link::Inverse,
        }
    }
}

/// How standard errors are computed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errors {
    /// Of the model, by its information matrix.
    #[default]
    Model,
    /// Robust to a variance that is not the model's (White 1980; MacKinnon and White 1985).
    Hc0,
    Hc1,
    Hc2,
    Hc3,
    /// Robust to correlation within each site (Liang and Zeger 1986).
    ClusterBySite,
    /// Robust to correlation within each level of a column.
    ClusterBy(String),
}

impl Glm {
    pub(super) fn columns(&self) -> Vec<&str> {
        let mut columns = self.formula.columns();
        columns.extend(self.weights.iter().flat_map(Expression::columns));
        if let Errors::ClusterBy(column) = &self.errors {
            columns.push(column);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_needs_a_formula_and_a_family() {
        let json = r#"{"formula":"target ~ age + C(cp)","family":"binomial"}"#;
        let plan: Glm = serde_json::from_str(json).unwrap();
        assert_eq!((plan.link, plan.errors.clone(), plan.confidence.level()), (None, Errors::Model, 0.95));
        assert_eq!(plan.columns(), ["target", "age", "cp"]);
        let full = r#"{"formula":"y ~ x","family":"gamma","link":"log","weights":"w","errors":{"cluster_by":"clinic"},"confidence":0.9}"#;
        let plan: Glm = serde_json::from_str(full).unwrap();
        assert_eq!(plan.columns(), ["y", "x", "w", "clinic"]);
        assert_eq!(serde_json::to_string(&plan).unwrap(), full);
        for wrong in [
            r#"{"formula":"target","family":"binomial"}"#,
            r#"{"formula":"y ~ x","family":"normal"}"#,
            r#"{"formula":"y ~ x","family":"gaussian","confidence":1.0}"#,
            r#"{"formula":"y ~ x","family":"gaussian","power":1}"#,
        ] {
            assert!(serde_json::from_str::<Glm>(wrong).is_err(), "{wrong}");
        }
    }
}
