//! One pass of a statistic over the rows of all nodes.

use serde::{Deserialize, Serialize};

/// A pass: which one, and the pooled numbers that it needs. What its contribution holds follows from the statistic and the pass
/// alone, so that both sides know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// The name of the step in the statistic's own words, as `sums` or `newton`.
    pub step: String,
    /// Pooled numbers of earlier passes, or of the plan; all finite.
    #[serde(default)]
    pub given: Vec<Given>,
}

/// Named numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    pub name: String,
    pub values: Vec<f64>,
}

impl Pass {
    pub fn new(step: &str) -> Self {
        Self { step: step.to_owned(), given: Vec::new() }
    }

    /// Adds numbers.
    #[must_use]
    pub fn with(mut self, name: &str, values: Vec<f64>) -> Self {
        self.given.push(Given { name: name.to_owned(), values });
        self
    }

    /// The numbers of that name.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.given.iter().find(|given| given.name == name).map(|given| given.values.as_slice())
    }
}
