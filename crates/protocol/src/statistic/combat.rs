//! Harmonisation of measurements over sites: ComBat (Johnson, Li and Rabinovic 2007) with federated estimates.

use serde::{Deserialize, Serialize};

use super::Category;

/// What is harmonised, and what must be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combat {
    /// The numeric columns that are harmonised, each once.
    pub measures: Vec<String>,
    /// Columns whose effects are kept: numbers, or categories if they are among `categories`.
    #[serde(default)]
    pub covariates: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Category>,
    /// Whether a site's effects on the measures are drawn towards what they have in common. Needs two measures.
    #[serde(default = "yes")]
    pub empirical_bayes: bool,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_share_a_prior_unless_said_otherwise() {
        let plan: Combat = serde_json::from_str(r#"{"measures":["a","b"],"covariates":["age"]}"#).unwrap();
        assert!(plan.empirical_bayes && plan.categories.is_empty());
        assert!(serde_json::from_str::<Combat>(r#"{"measures":["a"],"sites":1}"#).is_err());
    }
}
