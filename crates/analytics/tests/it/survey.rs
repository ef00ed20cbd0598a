//! The survey of values counts exactly and bounds every value.

use analytics::analysis::{Input, Tally};
use analytics::survey::{Survey, Surveyed};
use proptest::prelude::*;
use protocol::{Category, Expression, Level};

use crate::world::Frame;
use crate::world::federation::batches;
use crate::world::frame::sites;

fn survey(inputs: &[Input], sites: &[Frame]) -> Surveyed {
    let survey = Survey::new(inputs.to_vec());
    let mut sums: Vec<Vec<f64>> = survey.layout().iter().map(|spec| vec![0.0; spec.elements().unwrap()]).collect();
    for site in sites {
        let mut tally: Box<dyn Tally> = survey.tally();
        for batch in batches(site, inputs, 10) {
            tally.add(&batch);
        }
        for (sum, vector) in sums.iter_mut().zip(tally.finish().unwrap().vectors) {
            sum.iter_mut().zip(vector.values).for_each(|(sum, value)| *sum += value);
        }
    }
    survey.read(&sums).unwrap()
}

#[test]
fn rows_values_and_levels_are_counted() {
    let thal = Category::new("thal".to_owned(), vec![Level::Number(3.0), Level::Number(7.0)]).unwrap();
    let inputs = [Input::Number(Expression::column("chol")), Input::Levels(thal)];
    let surveyed = survey(&inputs, &sites("heart_raw"));
    assert_eq!(surveyed.rows, 920);
    let all = Frame::stack(&sites("heart_raw"));
    let present = all.numbers("chol").iter().filter(|value| !value.is_nan()).count() as u64;
    assert_eq!(surveyed.numbers[0].present, present);
    // The largest is 603: exponents 0 to 15 share a bucket.
    assert_eq!(surveyed.numbers[0].bits, 16);
    let count = |level: f64| all.numbers("thal").iter().filter(|value| **value == level).count() as u64;
    let levels = &surveyed.levels[0];
    assert_eq!(levels.counts, [count(3.0), count(7.0)]);
    assert_eq!(levels.other, count(6.0));
    assert_eq!(levels.missing + levels.other + levels.counts[0] + levels.counts[1], 920);
}

#[test]
fn infinite_values_are_refused_by_the_node() {
    let inputs = vec![Input::Number(Expression::column("x"))];
    for value in [f64::INFINITY, f64::NEG_INFINITY, 1e200] {
        let mut tally = Survey::new(inputs.clone()).tally();
        for batch in batches(&Frame::new(vec![("x", vec![1.0, value])]), &inputs, 10) {
            tally.add(&batch);
        }
        assert_eq!(tally.finish().unwrap_err().to_string(), "a value of x is too large, or infinite");
    }
}

proptest! {
    #[test]
    fn the_bits_bound_every_value(values in proptest::collection::vec(-1e9_f64..1e9, 0..40), power in -300_i32..120) {
        let values: Vec<f64> = values.iter().map(|value| value * f64::from(power).exp2()).collect();
        let (left, right) = values.split_at(values.len() / 2);
        let frames = [left, right].map(|values| Frame::new(vec![("x", values.to_vec())]));
        let surveyed = survey(&[Input::Number(Expression::column("x"))], &frames);
        let limit = f64::from(surveyed.numbers[0].bits).exp2();
        prop_assert!(values.iter().all(|value| value.abs() < limit));
        let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        prop_assert!(largest == 0.0 || largest >= limit / 131_072.0);
    }
}
