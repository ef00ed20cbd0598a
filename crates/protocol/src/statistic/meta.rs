//! Meta-analysis of models that each site fits for itself.

use serde::{Deserialize, Serialize};

use super::{Cox, Glm};

/// A model that each site fits alone, and whose coefficients are combined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    pub model: MetaModel,
    #[serde(default)]
    pub between: BetweenSites,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaModel {
    Glm(Glm),
    Cox(Cox),
}

/// How the variance between sites is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetweenSites {
    /// DerSimonian and Laird 1986.
    #[default]
    DersimonianLaird,
    /// Hedges and Olkin 1985.
    Hedges,
}

impl Meta {
    pub(super) fn columns(&self) -> Vec<&str> {
        match &self.model {
            MetaModel::Glm(glm) => glm.columns(),
            MetaModel::Cox(cox) => cox.formula.columns(),
        }
    }
}
