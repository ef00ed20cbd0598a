//! Federated averaging (McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data",
//! Algorithm 1): w ← w + Σ nₖΔₖ / Σ nₖ over nodes k with nₖ training rows and parameters w + Δₖ.

use protocol::{Scalars, Tensor, Tensors};
use thiserror::Error;

/// Why there is no average.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AverageError {
    #[error("the nodes' weights sum to no positive number")]
    NoWeight,
    #[error("expected sums for {expected} tensors, found {found}")]
    Tensors { expected: usize, found: usize },
    #[error("tensor {name:?} has {expected} elements, its sum {found}")]
    Elements { name: String, expected: usize, found: usize },
    #[error("the average of tensor {name:?} is no finite number")]
    NotFinite { name: String },
}

/// A node's weighted difference nₖΔₖ for one tensor, element by element: the trained parameters less the global ones, times the
/// weight, in f64. Both tensors have the same elements, as those of one plan have.
pub fn weighted_difference<'a>(
    trained: &'a Tensor,
    global: &'a Tensor,
    weight: u64,
) -> impl ExactSizeIterator<Item = f64> + Clone + 'a {
    let len = trained.scalars().len().min(global.scalars().len());
    let weight = weight as f64;
    (0..len).map(move |index| (element(trained.scalars(), index) - element(global.scalars(), index)) * weight)
}

fn element(scalars: &Scalars, index: usize) -> f64 {
    match scalars {
        Scalars::F32(values) => f64::from(values[index]),
        Scalars::F64(values) => values[index],
    }
}

/// The new global parameters, from decoded sums Σ nₖΔₖ for each tensor in order, and Σ nₖ.
///
/// The sum is divided and added in f64, each rounded to nearest; float32 parameters are then rounded to the nearest f32. One
/// tensor at a time is changed in place.
pub fn average<S>(global: Tensors, weight: f64, sums: impl IntoIterator<Item = S>) -> Result<Tensors, AverageError>
where
    S: IntoIterator<Item = f64>,
{
    if !(weight.is_finite() && weight > 0.0) {
        return Err(AverageError::NoWeight);
    }
    let expected = global.len();
    let mut averaged = Vec::with_capacity(expected);
    let mut sums = sums.into_iter();
    for tensor in global.into_tensors() {
        let Some(sum) = sums.next() else {
            return Err(AverageError::Tensors { expected, found: averaged.len() });
        };
        averaged.push(average_tensor(tensor, weight, sum)?);
    }
    if sums.next().is_some() {
        return Err(AverageError::Tensors { expected, found: expected + 1 });
    }
    Ok(Tensors::new(averaged).expect("the names are those of the global parameters"))
}

fn average_tensor(tensor: Tensor, weight: f64, sum: impl IntoIterator<Item = f64>) -> Result<Tensor, AverageError> {
    let (name, shape, expected) = (tensor.name().to_owned(), tensor.shape().to_vec(), tensor.scalars().len());
    let mut sum = sum.into_iter().fuse();
    let mut found = 0;
    let mut next = |old: f64| {
        let value = sum.next()?;
        found += 1;
        Some(old + value / weight)
    };
    let mut scalars = tensor.into_scalars();
    let is_finite = match &mut scalars {
        Scalars::F32(values) => values.iter_mut().all(|old| {
            *old = next(f64::from(*old)).map_or(*old, round);
            old.is_finite()
        }),
        Scalars::F64(values) => values.iter_mut().all(|old| {
            *old = next(*old).unwrap_or(*old);
            old.is_finite()
        }),
    };
    if !is_finite {
        return Err(AverageError::NotFinite { name });
    }
    let found = found + sum.count();
    if found != expected {
        return Err(AverageError::Elements { name, expected, found });
    }
    Ok(Tensor::new(name, shape, scalars).expect("shape and elements are those of the global tensor"))
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32, ties to even")]
fn round(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(scalars: Scalars) -> Tensors {
        Tensors::new(vec![Tensor::new("w", vec![scalars.len()], scalars).unwrap()]).unwrap()
    }

    #[test]
    fn the_average_weighs_nodes_by_their_rows() {
        let global = tensors(Scalars::F64(vec![1.0, -1.0]));
        let first = tensors(Scalars::F64(vec![2.0, -1.0]));
        let second = tensors(Scalars::F64(vec![1.0, 3.0]));
        let difference = |trained: &Tensors, weight| -> Vec<f64> {
            weighted_difference(trained.get("w").unwrap(), global.get("w").unwrap(), weight).collect()
        };
        let (first, second) = (difference(&first, 30), difference(&second, 10));
        let sum: Vec<f64> = first.iter().zip(&second).map(|(first, second)| first + second).collect();
        assert_eq!(average(global, 40.0, [sum]), Ok(tensors(Scalars::F64(vec![1.75, 0.0]))));
    }

    #[test]
    fn float32_parameters_stay_float32() {
        let averaged = average(tensors(Scalars::F32(vec![0.1])), 3.0, [[1.0]]).unwrap();
        let expected = round(f64::from(0.1_f32) + 1.0 / 3.0);
        assert_eq!(averaged, tensors(Scalars::F32(vec![expected])));
    }

    #[test]
    fn sums_that_do_not_fit_the_parameters_are_refused() {
        let global = || tensors(Scalars::F32(vec![0.0, 0.0]));
        let found = |result: Result<Tensors, AverageError>| result.unwrap_err();
        assert_eq!(found(average(global(), 0.0, [vec![1.0, 1.0]])), AverageError::NoWeight);
        assert_eq!(found(average(global(), 1.0, Vec::<Vec<f64>>::new())), AverageError::Tensors { expected: 1, found: 0 });
        for sum in [vec![1.0], vec![1.0; 3]] {
            let found_elements = sum.len();
            let error = AverageError::Elements { name: "w".into(), expected: 2, found: found_elements };
            assert_eq!(found(average(global(), 1.0, [sum])), error);
        }
        assert_eq!(found(average(global(), 1.0, [vec![1e300, 0.0]])), AverageError::NotFinite { name: "w".into() });
    }
}
