//! The closed set of optimizers: how parameters move along the gradient, and what they remember between steps.

mod adam;
mod sgd;

use protocol::{OptimizerSpec, Scalars, Tensor, Tensors};
use thiserror::Error;

use self::adam::Adam;
use self::sgd::Sgd;
use crate::scalar::Scalar;

/// What begins the names of an optimizer's tensors in files.
pub(crate) const PREFIX: &str = "optimizer.";

/// Tensors are not the state of this optimizer for this model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the optimizer's state lacks {expected:?} of {elements} elements in the plan's precision")]
pub struct StateError {
    expected: String,
    elements: usize,
}

/// An optimizer and its memory, for as many parameters as it was made for.
#[derive(Debug, Clone)]
pub(crate) enum Optimizer<T> {
    Sgd(Sgd<T>),
    Adam(Adam<T>),
}

impl<T: Scalar> Optimizer<T> {
    pub(crate) fn new(spec: OptimizerSpec, elements: usize) -> Self {
        match spec {
            OptimizerSpec::Sgd { learning_rate, momentum } => Self::Sgd(Sgd::new(learning_rate, momentum, elements)),
            OptimizerSpec::Adam { learning_rate, beta1, beta2, epsilon } => {
                Self::Adam(Adam::new(learning_rate, [beta1, beta2], epsilon, elements))
            }
        }
    }

    /// Moves the parameters by one step against the gradient.
    pub(crate) fn step(&mut self, parameters: &mut [T], gradient: &[T]) {
        match self {
            Self::Sgd(sgd) => sgd.step(parameters, gradient),
            Self::Adam(adam) => adam.step(parameters, gradient),
        }
    }

    /// The learning rate, if a step is that times the gradient and nothing more.
    pub(crate) fn plain_rate(&self) -> Option<f64> {
        match self {
            Self::Sgd(sgd) => sgd.plain_rate(),
            Self::Adam(_) => None,
        }
    }

    /// The memory as tensors, for a checkpoint; none for plain gradient descent.
    pub(crate) fn state(&self) -> Tensors {
        let tensors = match self {
            Self::Sgd(sgd) => sgd.state(),
            Self::Adam(adam) => adam.state(),
        };
        Tensors::new(tensors).expect("an optimizer's tensors have different names")
    }

    /// Takes up the memory that [`state`](Self::state) gave.
    pub(crate) fn restore(&mut self, state: &Tensors) -> Result<(), StateError> {
        match self {
            Self::Sgd(sgd) => sgd.restore(state),
            Self::Adam(adam) => adam.restore(state),
        }
    }
}

/// One vector of an optimizer's memory as a tensor.
fn to_tensor(name: &str, scalars: Scalars) -> Tensor {
    Tensor::new(format!("{PREFIX}{name}"), vec![scalars.len()], scalars).expect("the shape is the length")
}

/// One vector of an optimizer's memory out of its tensor.
fn from_tensor<T: Scalar>(state: &Tensors, name: &str, elements: usize) -> Result<Vec<T>, StateError> {
    let expected = format!("{PREFIX}{name}");
    let found = state.get(&expected).ok().and_then(|tensor| T::unwrap(tensor.scalars()));
    found.filter(|values| values.len() == elements).map(<[T]>::to_vec).ok_or(StateError { expected, elements })
}
