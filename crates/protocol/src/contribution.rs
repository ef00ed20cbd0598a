//! What a node gives to a round: a list of named vectors, already weighted by the node, its weight being one of them.
//!
//! The researcher fixes the list (the layout) in the task, the node fills exactly that, and its disclosure gate compares
//! the two: nothing that was not asked for can leave. On the wire the elements follow each other in the layout's order.

use serde::{Deserialize, Serialize};

use crate::encoding::Encoding;

/// What a vector is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The number of training rows, by which the node multiplied its model vectors.
    Weight,
    /// The difference between the node's trained parameters and the global ones, times the weight.
    Model,
    /// How many elements of the model vectors were outside the range of a hidden sum, and were moved to its edge.
    Clipped,
    /// The sum of the training loss over training rows.
    Loss,
    /// Sums from which the metrics of the global parameters are computed.
    ValidationGlobal,
    /// Sums from which the metrics of the local parameters are computed.
    ValidationLocal,
    /// Sums of a statistic.
    Statistic,
}

impl Purpose {
    /// The name in messages, and in what a vector's masks are bound to.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Model => "model",
            Self::Clipped => "clipped",
            Self::Loss => "loss",
            Self::ValidationGlobal => "validation_global",
            Self::ValidationLocal => "validation_local",
            Self::Statistic => "statistic",
        }
    }
}

/// Name, shape and encoding of one vector of a contribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSpec {
    pub purpose: Purpose,
    pub name: String,
    pub shape: Vec<usize>,
    pub encoding: Encoding,
}

impl VectorSpec {
    /// The last vector of a hidden training round whose differences are clipped.
    pub fn clipped() -> Self {
        Self { purpose: Purpose::Clipped, name: "clipped".to_owned(), shape: vec![1], encoding: Encoding::COUNT }
    }

    /// The number of elements; `None` if it exceeds what this machine can address.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
    }

    /// The number of bytes on the wire.
    pub fn byte_len(&self) -> Option<usize> {
        self.elements()?.checked_mul(self.encoding.width.bytes())
    }
}

/// The number of bytes that a contribution of this layout has.
pub fn layout_byte_len(layout: &[VectorSpec]) -> Option<u64> {
    layout.iter().try_fold(0_u64, |sum, spec| sum.checked_add(spec.byte_len()? as u64))
}

/// A vector before encoding: what a node computed, or after decoding: the sum over nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    pub purpose: Purpose,
    pub name: String,
    pub values: Vec<f64>,
}

/// A node's values, one for each entry of the layout, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contribution {
    pub vectors: Vec<Vector>,
}
