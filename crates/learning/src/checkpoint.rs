//! Where a training stood after a pass over its rows.

use protocol::{Scalars, Tensor, Tensors};
use thiserror::Error;

use crate::optimizer;

/// What a checkpoint holds, and what it means. One of another schema is not used: the training begins anew.
const SCHEMA: u64 = 1;
const SCHEMA_NAME: &str = "checkpoint.schema";
const PASSES: &str = "checkpoint.passes";
const UPDATES: &str = "checkpoint.updates";

/// Tensors are not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the checkpoint lacks the whole number {expected:?}, or another version of this software wrote it")]
pub struct CheckpointError {
    expected: &'static str,
}

/// A state from which the same training can be resumed. Whose it is, the caller must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub(crate) parameters: Tensors,
    pub(crate) optimizer: Tensors,
    pub(crate) passes: u64,
    pub(crate) updates: u64,
}

impl Checkpoint {
    /// How many passes over the rows were done.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// How many updates were done.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The checkpoint as one set of tensors, for a file.
    pub fn to_tensors(&self) -> Tensors {
        let number = |name: &str, value: u64| {
            Tensor::new(name, vec![1], Scalars::F64(vec![value as f64])).expect("one element has shape [1]")
        };
        let numbers = [number(SCHEMA_NAME, SCHEMA), number(PASSES, self.passes), number(UPDATES, self.updates)];
        let tensors = self.parameters.iter().chain(self.optimizer.iter()).cloned().chain(numbers).collect();
        Tensors::new(tensors).expect("parameters, optimizer and counts have names of their own")
    }

    /// Reads what [`to_tensors`](Self::to_tensors) gave. Whether it suits a training is seen when that is resumed.
    pub fn from_tensors(tensors: Tensors) -> Result<Self, CheckpointError> {
        if whole_number(&tensors, SCHEMA_NAME)? != SCHEMA {
            return Err(CheckpointError { expected: SCHEMA_NAME });
        }
        let (passes, updates) = (whole_number(&tensors, PASSES)?, whole_number(&tensors, UPDATES)?);
        let others =
            tensors.into_tensors().into_iter().filter(|tensor| ![SCHEMA_NAME, PASSES, UPDATES].contains(&tensor.name()));
        let (optimizer, parameters) = others.partition(|tensor| tensor.name().starts_with(optimizer::PREFIX));
        let set = |tensors| Tensors::new(tensors).expect("names that differed before differ still");
        Ok(Self { parameters: set(parameters), optimizer: set(optimizer), passes, updates })
    }
}

fn whole_number(tensors: &Tensors, expected: &'static str) -> Result<u64, CheckpointError> {
    let values = tensors.get(expected).map(|tensor| tensor.scalars().to_f64()).unwrap_or_default();
    match values[..] {
        [value] if (0.0..9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0 => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 2^53")]
            let value = value as u64;
            Ok(value)
        }
        _ => Err(CheckpointError { expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_another_schema_is_refused() {
        let set = || Tensors::new(Vec::new()).unwrap();
        let checkpoint = Checkpoint { parameters: set(), optimizer: set(), passes: 2, updates: 7 };
        assert_eq!(Checkpoint::from_tensors(checkpoint.to_tensors()).unwrap(), checkpoint);
        let next = |tensor: Tensor| match tensor.name() {
            SCHEMA_NAME => Tensor::new(SCHEMA_NAME, vec![1], Scalars::F64(vec![2.0])).unwrap(),
            _ => tensor,
        };
        let newer = Tensors::new(checkpoint.to_tensors().into_tensors().into_iter().map(next).collect()).unwrap();
        assert!(Checkpoint::from_tensors(newer).is_err());
        let nameless = checkpoint.to_tensors().into_tensors().into_iter().filter(|tensor| tensor.name() != SCHEMA_NAME);
        assert!(Checkpoint::from_tensors(Tensors::new(nameless.collect()).unwrap()).is_err());
    }
}
