//! Models that are trained natively, as words: what they are, not how they are computed (`learning` knows that).

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The type of a model's parameters and of the arithmetic that trains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    Float32,
    Float64,
}

/// What follows each hidden layer of a perceptron.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    #[default]
    Relu,
    Tanh,
}

/// What the last layer predicts, and so the loss and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Outcome {
    /// A real number; half the squared error.
    Real,
    /// 0 or 1; log loss of the logistic function.
    Binary,
    /// 0 to `classes` - 1; log loss of the softmax.
    Class { classes: u32 },
}

/// Why a model cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelError {
    #[error("`classes` must be between 2 and 10000, found {0}")]
    Classes(u32),
    #[error("`hidden` must hold 1 to 16 layers of 1 to 100000 units")]
    Hidden,
    #[error("`l2` must be a finite number of at least 0, found {0}")]
    L2(String),
}

/// A model and its penalty.
///
/// Parameters by name and shape, `p` features, row-major:
/// linear and logistic `weight` (p), `bias` (1); multinomial `weight` (classes, p), `bias` (classes);
/// mlp `layer<i>.weight` (units, inputs), `layer<i>.bias` (units) from i = 0, the last layer being the outcome's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawModelSpec", into = "RawModelSpec")]
pub struct ModelSpec {
    family: Family,
    l2: f64,
}

/// The shape of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Family {
    Linear,
    Logistic,
    Multinomial { classes: u32 },
    Mlp { hidden: Vec<u32>, activation: Activation, outcome: Outcome },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
enum RawModelSpec {
    Linear {
        #[serde(default)]
        l2: f64,
    },
    Logistic {
        #[serde(default)]
        l2: f64,
    },
    Multinomial {
        classes: u32,
        #[serde(default)]
        l2: f64,
    },
    Mlp {
        hidden: Vec<u32>,
        #[serde(default)]
        activation: Activation,
        outcome: Outcome,
        #[serde(default)]
        l2: f64,
    },
}

impl ModelSpec {
    /// `l2` is λ of the penalty λ/2·‖weights‖² added to the mean loss; biases are not penalised.
    pub fn new(family: Family, l2: f64) -> Result<Self, ModelError> {
        if !l2.is_finite() || l2 < 0.0 {
            return Err(ModelError::L2(l2.to_string()));
        }
        let classes = match &family {
            Family::Multinomial { classes } | Family::Mlp { outcome: Outcome::Class { classes }, .. } => Some(*classes),
            _ => None,
        };
        if let Some(classes) = classes.filter(|classes| !(2..=10_000).contains(classes)) {
            return Err(ModelError::Classes(classes));
        }
        if let Family::Mlp { hidden, .. } = &family
            && (hidden.is_empty() || hidden.len() > 16 || hidden.iter().any(|units| !(1..=100_000).contains(units)))
        {
            return Err(ModelError::Hidden);
        }
        Ok(Self { family, l2 })
    }

    pub fn family(&self) -> &Family {
        &self.family
    }

    pub fn l2(&self) -> f64 {
        self.l2
    }

    /// What is predicted.
    pub fn outcome(&self) -> Outcome {
        match &self.family {
            Family::Linear => Outcome::Real,
            Family::Logistic => Outcome::Binary,
            Family::Multinomial { classes } => Outcome::Class { classes: *classes },
            Family::Mlp { outcome, .. } => *outcome,
        }
    }
}

impl TryFrom<RawModelSpec> for ModelSpec {
    type Error = ModelError;

    fn try_from(raw: RawModelSpec) -> Result<Self, ModelError> {
        match raw {
            RawModelSpec::Linear { l2 } => Self::new(Family::Linear, l2),
            RawModelSpec::Logistic { l2 } => Self::new(Family::Logistic, l2),
            RawModelSpec::Multinomial { classes, l2 } => Self::new(Family::Multinomial { classes }, l2),
            RawModelSpec::Mlp { hidden, activation, outcome, l2 } => {
                Self::new(Family::Mlp { hidden, activation, outcome }, l2)
            }
        }
    }
}

impl From<ModelSpec> for RawModelSpec {
    fn from(model: ModelSpec) -> Self {
        let l2 = model.l2;
        match model.family {
            Family::Linear => Self::Linear { l2 },
            Family::Logistic => Self::Logistic { l2 },
            Family::Multinomial { classes } => Self::Multinomial { classes, l2 },
            Family::Mlp { hidden, activation, outcome } => Self::Mlp { hidden, activation, outcome, l2 },
        }
    }
}
