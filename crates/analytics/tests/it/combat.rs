//! Harmonised measures are those that all rows in one place would give.

use analytics::analysis::{Analysis, AnalysisError};
use analytics::combat::{Combat, CombatAnswer};
use proptest::prelude::*;
use serde_json::Value;

use crate::world::federation::batches;
use crate::world::frame::{site_names, sites};
use crate::world::reference::{numbers, texts};
use crate::world::{Frame, Worst, answer};

fn expected() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/combat.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn plan(empirical_bayes: bool) -> protocol::Combat {
    let expected = expected();
    let names = |key: &str| texts(&expected[key]).into_iter().map(str::to_owned).collect();
    protocol::Combat {
        measures: names("measures"),
        covariates: names("covariates"),
        categories: Vec::new(),
        empirical_bayes,
    }
}

/// What the reference is relative to: a measure's deviation.
fn check_estimates(found: &CombatAnswer) {
    let expected = expected();
    let mut worst = Worst::new("combat estimates", 1e-9);
    assert_eq!(found.n, 1000);
    for (index, measure) in found.measures.iter().enumerate() {
        let of = |key: &str| numbers(&expected[key])[index];
        worst.check("deviation", measure.deviation, of("sigma"));
        worst.check_to_scale("intercept", measure.intercept, of("intercept"), measure.deviation);
        for (found, expected) in measure.coefficients.iter().zip(numbers(&expected["coefficients"][index])) {
            worst.check_to_scale("coefficient", *found, expected, measure.deviation);
        }
    }
}

fn check(empirical_bayes: bool, key: &str) {
    let combat = Combat::new(plan(empirical_bayes)).unwrap();
    let frames = sites("pseudo_adni");
    let found = answer(&combat, &frames).unwrap();
    check_estimates(&found);
    let expected = expected();
    let mut worst = Worst::new(&format!("combat {key}"), 1e-9);
    let mut sums = vec![0.0; found.measures.len()];
    let mut squares = sums.clone();
    for (site, (name, frame)) in site_names("pseudo_adni").iter().zip(&frames).enumerate() {
        let (effects, columns) = combat.apply(&found, &batches(frame, &combat.inputs(), 50)).unwrap();
        for (index, measure) in found.measures.iter().enumerate() {
            worst.check_to_scale("shift", effects.shifts[index], numbers(&expected[key]["gamma"][site])[index], 1.0);
            worst.check("variance", effects.variances[index], numbers(&expected[key]["delta2"][site])[index]);
            for row in 0..4 {
                let expected = numbers(&expected[key]["first_rows"][*name][row])[index];
                worst.check_to_scale("row", columns[0][index][row], expected, measure.deviation);
            }
            for value in columns.iter().flat_map(|batch| &batch[index]) {
                sums[index] += value;
                squares[index] += value * value;
            }
        }
    }
    for index in 0..sums.len() {
        worst.check("sum", sums[index], numbers(&expected[key]["sum"])[index]);
        worst.check("sum of squares", squares[index], numbers(&expected[key]["sum_of_squares"])[index]);
    }
}

#[test]
fn measures_are_harmonised_as_in_one_place() {
    check(true, "empirical_bayes");
    check(false, "plain");
}

#[test]
fn blank_cells_stay_blank() {
    let combat = Combat::new(plan(true)).unwrap();
    let frames = sites("pseudo_adni");
    let found = answer(&combat, &frames).unwrap();
    let mut batch = batches(&frames[0], &combat.inputs(), 400).swap_remove(0);
    // The covariates come first, then the measures.
    for (input, row) in [(0, 3), (2, 5)] {
        let analytics::analysis::Column::Numbers(values) = &mut batch.columns[input] else { panic!("numbers") };
        values[row] = f64::NAN;
    }
    let (_, columns) = combat.apply(&found, &[batch]).unwrap();
    assert!(columns[0].iter().all(|column| column[3].is_nan()), "without a covariate");
    assert!(columns[0][0][5].is_nan() && columns[0][1..].iter().all(|column| column[5].is_finite()), "without a measure");
}

#[test]
fn what_cannot_be_harmonised_is_said() {
    let error = |plan: protocol::Combat| Combat::new(plan).unwrap_err().to_string();
    assert_eq!(error(protocol::Combat { measures: Vec::new(), ..plan(true) }), "there is nothing to harmonise");
    assert_eq!(
        error(protocol::Combat { covariates: plan(true).measures, ..plan(true) }),
        "\"WholeBrain.bl\" is named twice"
    );
    let one = protocol::Combat { measures: vec!["x".to_owned()], covariates: Vec::new(), ..plan(true) };
    assert!(error(one.clone()).starts_with("empirical Bayes needs two measures"));
    let combat = Combat::new(protocol::Combat { empirical_bayes: false, ..one }).unwrap();
    let constant = Frame::new(vec![("x", vec![2.0; 5])]);
    let found = answer(&combat, std::slice::from_ref(&constant)).unwrap();
    assert_eq!(
        combat.apply(&found, &batches(&constant, &combat.inputs(), 5)).unwrap_err(),
        AnalysisError::Data("x does not vary around its covariates".to_owned())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    /// Rows may come in any batches; sites are what is harmonised.
    #[test]
    fn the_order_of_rows_does_not_matter(turn in 0_usize..300) {
        let turned = |frame: &Frame| {
            let rows: Vec<usize> = (0..frame.rows).map(|row| (row + turn) % frame.rows).collect();
            frame.take(&rows)
        };
        let frames: Vec<Frame> = sites("pseudo_adni").iter().map(turned).collect();
        check_estimates(&answer(&Combat::new(plan(true)).unwrap(), &frames).unwrap());
    }
}
