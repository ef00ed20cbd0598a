//! The list of vectors that a round of training or validation asks of every node.

use protocol::{Encoding, Precision, Purpose, TrainingPlan, VectorSpec, Width};
use thiserror::Error;

use crate::metric::validation_specs;
use crate::parameters::{ParameterError, parameters};

/// A task asks for other vectors than its plan and work have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LayoutError {
    #[error("the layout has {found} vectors, the plan has {expected}")]
    Count { expected: usize, found: usize },
    #[error("vector {index} of the layout is not the plan's {expected:?}")]
    Vector { index: usize, expected: String },
}

/// Rows that are assumed where the researcher does not know the number yet.
const UNKNOWN_ROWS: u64 = 1024;

/// The vectors of a training round: weight, loss (unless the plan has no updates), the parameters' weighted differences, and
/// the sums of the validations that the plan asks for.
///
/// `training_rows` over all nodes, where known, sets the scale of float32 differences: they are counted in steps of at most
/// 2⁻²⁶ of the average and fit while no parameter of the average moves by 32. Wider ones make nodes answer with an exponent
/// that fits.
pub fn training_layout(
    plan: &TrainingPlan,
    n_features: usize,
    training_rows: Option<u64>,
) -> Result<Vec<VectorSpec>, ParameterError> {
    let single = |purpose, name: &str, encoding| VectorSpec { purpose, name: name.to_owned(), shape: vec![1], encoding };
    let mut layout = vec![single(Purpose::Weight, "weight", Encoding::COUNT)];
    if has_updates(plan) {
        layout.push(single(Purpose::Loss, "loss", Encoding::REAL));
    }
    let encoding = model_encoding(plan.precision(), training_rows.unwrap_or(UNKNOWN_ROWS));
    for parameter in parameters(plan.model(), n_features) {
        parameter.elements()?;
        layout.push(VectorSpec { purpose: Purpose::Model, name: parameter.name, shape: parameter.shape, encoding });
    }
    if plan.holds_out_rows() && plan.validation().on_global {
        layout.extend(validation_specs(plan.model().outcome(), Purpose::ValidationGlobal));
    }
    if plan.holds_out_rows() && plan.validation().on_local {
        layout.extend(validation_specs(plan.model().outcome(), Purpose::ValidationLocal));
    }
    Ok(layout)
}

/// The vectors of a round that only validates the global parameters.
pub fn validation_layout(plan: &TrainingPlan) -> Vec<VectorSpec> {
    validation_specs(plan.model().outcome(), Purpose::ValidationGlobal)
}

/// Whether a round of the plan changes parameters, and so has a loss.
fn has_updates(plan: &TrainingPlan) -> bool {
    crate::training::updates(plan.arguments(), 1) > 0
}

fn model_encoding(precision: Precision, training_rows: u64) -> Encoding {
    match precision {
        Precision::Float64 => Encoding::REAL,
        Precision::Float32 => {
            let magnitude = i16::try_from(training_rows.max(1).ilog2()).expect("below 64");
            Encoding { width: Width::Bits32, exponent: 26 - magnitude }
        }
    }
}

/// Checks that a task's layout asks for exactly the plan's vectors; only exponents may differ.
pub fn check_layout(layout: &[VectorSpec], expected: &[VectorSpec]) -> Result<(), LayoutError> {
    if layout.len() != expected.len() {
        return Err(LayoutError::Count { expected: expected.len(), found: layout.len() });
    }
    for (index, (found, expected)) in layout.iter().zip(expected).enumerate() {
        let same = (found.purpose, &found.name, &found.shape) == (expected.purpose, &expected.name, &expected.shape);
        if !same || found.encoding.width != expected.encoding.width || !found.encoding.is_valid() {
            return Err(LayoutError::Vector { index, expected: expected.name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::{Family, ModelSpec, OptimizerSpec, RawTrainingPlan, TrainingArguments, Validation};

    use super::*;

    fn plan(precision: Precision, arguments: TrainingArguments) -> TrainingPlan {
        TrainingPlan::new(RawTrainingPlan {
            model: ModelSpec::new(Family::Logistic, 0.0).unwrap(),
            precision,
            features: Vec::new(),
            target: "target".into(),
            optimizer: OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.0 },
            arguments,
            standardise: false,
            validation: Validation { on_global: true, on_local: true },
        })
        .unwrap()
    }

    fn names(layout: &[VectorSpec]) -> Vec<(Purpose, &str)> {
        layout.iter().map(|spec| (spec.purpose, spec.name.as_str())).collect()
    }

    #[test]
    fn the_layout_follows_the_plan() {
        let plain = plan(Precision::Float32, TrainingArguments::default());
        let model = [(Purpose::Model, "weight"), (Purpose::Model, "bias")];
        let layout = training_layout(&plain, 3, None).unwrap();
        assert_eq!(names(&layout), [&[(Purpose::Weight, "weight"), (Purpose::Loss, "loss")], &model[..]].concat());
        assert_eq!(layout[2].encoding, Encoding { width: Width::Bits32, exponent: 16 });

        let moved = TrainingArguments { num_updates: Some(0), ..TrainingArguments::default() };
        let layout = training_layout(&plan(Precision::Float64, moved), 3, None).unwrap();
        assert_eq!(names(&layout), [&[(Purpose::Weight, "weight")], &model[..]].concat());
        assert_eq!(layout[1].encoding, Encoding::REAL);

        let held_out = plan(Precision::Float32, TrainingArguments { test_ratio: 0.2, ..TrainingArguments::default() });
        let layout = training_layout(&held_out, 3, None).unwrap();
        let expected = [(Purpose::ValidationGlobal, "confusion"), (Purpose::ValidationLocal, "confusion")];
        assert!(expected.iter().all(|vector| names(&layout).contains(vector)));
        assert_eq!(validation_layout(&held_out), layout[4..7]);
    }

    #[test]
    fn a_step_of_the_average_is_finer_than_2_to_the_minus_26_and_a_move_of_32_fits() {
        for rows in [1, 2, 100, 1024, 999_999_u64] {
            let encoding = model_encoding(Precision::Float32, rows);
            assert!(f64::from(-encoding.exponent).exp2() / rows as f64 <= (-26.0_f64).exp2());
            // One node has all rows.
            let mut out = Vec::new();
            assert_eq!(encoding.encode([31.9 * rows as f64 / 2.0].into_iter(), &mut out), Ok(()), "{rows}");
        }
    }

    #[test]
    fn a_layout_that_asks_for_more_or_other_than_the_plan_is_refused() {
        let plan = plan(Precision::Float32, TrainingArguments::default());
        let expected = training_layout(&plan, 1, None).unwrap();
        let changed = |change: &dyn Fn(&mut Vec<VectorSpec>)| {
            let mut layout = expected.clone();
            change(&mut layout);
            check_layout(&layout, &expected)
        };
        let more = changed(&|layout| layout.push(expected[0].clone()));
        assert_eq!(more, Err(LayoutError::Count { expected: 4, found: 5 }));
        let other = |index: usize, name: &str| Err(LayoutError::Vector { index, expected: name.into() });
        assert_eq!(changed(&|layout| layout[1].purpose = Purpose::Statistic), other(1, "loss"));
        assert_eq!(changed(&|layout| layout[2].shape = vec![9]), other(2, "weight"));
        assert_eq!(changed(&|layout| layout[3].encoding = Encoding::REAL), other(3, "bias"));
        assert_eq!(changed(&|layout| layout[3].encoding.exponent = 2000), other(3, "bias"));
        assert_eq!(changed(&|layout| layout[3].encoding.exponent -= 20), Ok(()), "a wider scale");
    }
}
