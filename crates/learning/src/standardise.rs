//! Centring and scaling of features by means and deviations over all nodes' training rows.

use protocol::{Scalars, Tensor, Tensors};
use thiserror::Error;

const MEAN: &str = "standardise.mean";
const SCALE: &str = "standardise.scale";

/// Why a standardisation cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StandardisationError {
    #[error("{means} means and {deviations} deviations were given, expected as many of both")]
    Length { means: usize, deviations: usize },
    #[error("a mean or deviation is not a finite number, or a deviation is negative")]
    Value,
}

/// What is taken off each feature, and what the rest is divided by.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardisation {
    means: Vec<f64>,
    scales: Vec<f64>,
}

impl Standardisation {
    /// Takes means and standard deviations (divisor n).
    ///
    /// A constant column is divided by 1: one whose deviation is at most ten rounding errors of its mean, the bound that
    /// scikit-learn's `_handle_zeros_in_scale` uses.
    pub fn new(means: Vec<f64>, deviations: &[f64]) -> Result<Self, StandardisationError> {
        if means.len() != deviations.len() {
            return Err(StandardisationError::Length { means: means.len(), deviations: deviations.len() });
        }
        if !means.iter().chain(deviations).all(|value| value.is_finite()) || deviations.iter().any(|value| *value < 0.0) {
            return Err(StandardisationError::Value);
        }
        let is_constant = |mean: f64, deviation: f64| deviation <= 10.0 * f64::EPSILON * mean.abs();
        let scales = means.iter().zip(deviations);
        let scales = scales.map(|(mean, deviation)| if is_constant(*mean, *deviation) { 1.0 } else { *deviation }).collect();
        Ok(Self { means, scales })
    }

    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// What the columns are divided by; never 0.
    pub fn scales(&self) -> &[f64] {
        &self.scales
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.means.len()
    }

    pub fn is_empty(&self) -> bool {
        self.means.is_empty()
    }

    /// Standardises one row.
    pub(crate) fn apply(&self, row: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
        row.zip(self.means.iter().zip(&self.scales)).map(|(value, (mean, scale))| (value - mean) / scale)
    }

    /// Adds the standardisation to a model's parameters, so that one file predicts from raw values.
    #[must_use]
    pub fn attach(&self, parameters: Tensors) -> Tensors {
        let vector = |name: &str, values: &[f64]| {
            Tensor::new(name, vec![values.len()], Scalars::F64(values.to_vec())).expect("the shape is the length")
        };
        let own = [vector(MEAN, &self.means), vector(SCALE, &self.scales)];
        Tensors::new(parameters.into_tensors().into_iter().chain(own).collect())
            .expect("no model has parameters of these names")
    }

    /// Takes the standardisation out again, if there is one.
    pub fn detach(tensors: Tensors) -> Result<(Tensors, Option<Self>), StandardisationError> {
        let mut found = [None, None];
        let mut rest = Vec::new();
        for tensor in tensors.into_tensors() {
            match tensor.name() {
                MEAN => found[0] = Some(tensor.scalars().to_f64()),
                SCALE => found[1] = Some(tensor.scalars().to_f64()),
                _ => rest.push(tensor),
            }
        }
        let standardisation = match found {
            [Some(means), Some(scales)] => Some(Self::new(means, &scales)?),
            [None, None] => None,
            [means, scales] => {
                let (means, deviations) = (means.map_or(0, |it| it.len()), scales.map_or(0, |it| it.len()));
                return Err(StandardisationError::Length { means, deviations });
            }
        };
        Ok((Tensors::new(rest).expect("names that differed before differ still"), standardisation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_columns_are_divided_by_one() {
        let means = vec![3.0, 0.1, 0.0, 5.0];
        let standardisation = Standardisation::new(means, &[0.0, 1e-17, 0.0, 2.0]).unwrap();
        assert_eq!(standardisation.scales(), [1.0, 1.0, 1.0, 2.0]);
        let row: Vec<f64> = standardisation.apply([3.0, 0.1, 0.0, 9.0].into_iter()).collect();
        assert_eq!(row, [0.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn not_a_number_negative_and_unequal_lengths_are_refused() {
        assert_eq!(Standardisation::new(vec![0.0], &[f64::NAN]), Err(StandardisationError::Value));
        assert_eq!(Standardisation::new(vec![0.0], &[-1.0]), Err(StandardisationError::Value));
        assert_eq!(Standardisation::new(vec![0.0], &[]), Err(StandardisationError::Length { means: 1, deviations: 0 }));
    }

    #[test]
    fn what_was_attached_is_detached() {
        let parameters = Tensors::new(vec![Tensor::new("bias", vec![1], Scalars::F32(vec![0.5])).unwrap()]).unwrap();
        let standardisation = Standardisation::new(vec![1.0, 2.0], &[0.0, 3.0]).unwrap();
        let attached = Tensors::from_bytes(&standardisation.attach(parameters.clone()).to_bytes()).unwrap();
        assert_eq!(Standardisation::detach(attached), Ok((parameters.clone(), Some(standardisation))));
        assert_eq!(Standardisation::detach(parameters.clone()), Ok((parameters, None)));
    }
}
