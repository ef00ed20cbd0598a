//! What a model says about rows, and how good that is.

use protocol::{ModelSpec, Tensors};
use thiserror::Error;

use crate::engine::Engine;
use crate::metric::{Metrics, SumsError, ValidationSums};
use crate::parameters::ParameterError;
use crate::scalar::Scalar;
use crate::table::{Rows, Table, Values};

/// Rows that are predicted at once; bounds the memory, whatever the table's size.
const BLOCK: usize = 1024;

/// Why a model cannot be used on a table. Sentences hold no data value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PredictionError {
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    #[error(transparent)]
    Sums(#[from] SumsError),
    #[error("the table was made for another outcome than the model's")]
    OtherTable,
}

/// A validation of parameters on one node's held-out rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    /// What the node contributes.
    pub sums: ValidationSums,
    /// The node's own metrics, exact.
    pub metrics: Metrics,
}

/// Scores of every row, row after row: a prediction (real outcomes), the logit of class 1 (binary), or one logit per class.
pub fn scores(model: &ModelSpec, parameters: &Tensors, table: &Table) -> Result<Vec<f64>, PredictionError> {
    let mut all = Vec::with_capacity(table.len());
    for_each_row(model, parameters, table, &mut |scores, _| {
        all.extend_from_slice(scores);
        Ok(())
    })?;
    Ok(all)
}

/// Measures parameters on held-out rows. The table is in the parameters' precision.
pub fn validate(model: &ModelSpec, parameters: &Tensors, table: &Table) -> Result<Validated, PredictionError> {
    if table.outcome() != model.outcome() {
        return Err(PredictionError::OtherTable);
    }
    let mut sums = ValidationSums::new(model.outcome());
    let mut ranked = Vec::new();
    for_each_row(model, parameters, table, &mut |scores, target| {
        if model.outcome() == protocol::Outcome::Binary {
            ranked.push((scores[0], target > 0.0));
        }
        sums.add(scores, target)
    })?;
    let metrics = sums.exact_metrics(ranked);
    Ok(Validated { sums, metrics })
}

type Visit<'a> = &'a mut dyn FnMut(&[f64], f64) -> Result<(), SumsError>;

fn for_each_row(model: &ModelSpec, parameters: &Tensors, table: &Table, visit: Visit<'_>) -> Result<(), PredictionError> {
    match table.values() {
        Values::F32(rows) => for_each_row_in(model, parameters, rows, visit),
        Values::F64(rows) => for_each_row_in(model, parameters, rows, visit),
    }
}

fn for_each_row_in<T: Scalar>(
    model: &ModelSpec,
    parameters: &Tensors,
    rows: &Rows<T>,
    visit: Visit<'_>,
) -> Result<(), PredictionError> {
    let mut engine = Engine::<T>::new(model, rows.n_features())?;
    let parameters = engine.flatten(parameters)?;
    let numbers: Vec<u32> = (0_u32..).take(rows.len()).collect();
    let (mut block_scores, mut row_scores) = (Vec::new(), Vec::with_capacity(engine.width()));
    for block in numbers.chunks(BLOCK) {
        block_scores.clear();
        engine.append_scores(&parameters, rows, block, &mut block_scores);
        for (number, scores) in block.iter().zip(block_scores.chunks_exact(engine.width())) {
            row_scores.clear();
            row_scores.extend(scores.iter().map(|score| score.to_f64()));
            visit(&row_scores, rows.target(*number).to_f64())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::{Family, Metric, Outcome, Precision, Scalars, Tensor};

    use super::*;

    fn table(features: &[f64], targets: &[f64]) -> Table {
        let numbers: Vec<u32> = (0_u32..).take(targets.len()).collect();
        Table::from_columns((Outcome::Binary, Precision::Float64), &[features], targets, &numbers, None).unwrap()
    }

    fn parameters(weight: f64) -> Tensors {
        let tensor = |name: &str, value: f64| Tensor::new(name, vec![1], Scalars::F64(vec![value])).unwrap();
        Tensors::new(vec![tensor("weight", weight), tensor("bias", -1.0)]).unwrap()
    }

    #[test]
    fn scores_are_in_the_order_of_rows_over_many_blocks() {
        let features: Vec<f64> = (0..2500).map(f64::from).collect();
        let targets: Vec<f64> = features.iter().map(|value| f64::from(*value > 0.0)).collect();
        let model = ModelSpec::new(Family::Logistic, 0.0).unwrap();
        let scores = scores(&model, &parameters(2.0), &table(&features, &targets)).unwrap();
        assert!(scores.iter().zip(&features).all(|(score, value)| *score == 2.0 * value - 1.0));
        let validated = validate(&model, &parameters(2.0), &table(&features, &targets)).unwrap();
        assert_eq!((validated.metrics.rows, validated.metrics.get(Metric::Auc)), (2500, Some(1.0)));
        assert_eq!(validated.metrics.rows_per_class, [1, 2499]);
    }

    #[test]
    fn a_score_that_overflows_fails_the_validation() {
        let model = ModelSpec::new(Family::Logistic, 0.0).unwrap();
        let table = table(&[1e300, 1.0], &[1.0, 0.0]);
        assert_eq!(validate(&model, &parameters(1e300), &table), Err(PredictionError::Sums(SumsError::NotFinite)));
    }

    #[test]
    fn a_model_of_another_outcome_is_refused() {
        let model = ModelSpec::new(Family::Linear, 0.0).unwrap();
        assert_eq!(validate(&model, &parameters(1.0), &table(&[1.0], &[1.0])), Err(PredictionError::OtherTable));
    }
}
