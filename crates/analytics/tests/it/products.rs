//! Correlations, covariances and principal components equal those of the pooled rows.

use analytics::correlation::{CorrelationAnswer, Counts};
use analytics::pca::PcaAnswer;
use proptest::prelude::*;
use protocol::Expression;
use protocol::statistic::{Blanks, Correlation, NumberColumns, Pca, PcaOf};
use serde_json::Value;

use crate::world::federation::answer_in_batches;
use crate::world::frame::sites;
use crate::world::reference::{numbers, texts};
use crate::world::{Frame, Worst, answer, reference, split};

const HEART: [&str; 13] = [
    "age",
    "sex",
    "trestbps",
    "chol",
    "fbs",
    "thalach",
    "exang",
    "oldpeak",
    "cp_2",
    "cp_3",
    "cp_4",
    "restecg_1",
    "restecg_2",
];

fn columns(names: &[&str]) -> NumberColumns {
    NumberColumns::new(names.iter().map(|name| Expression::column(*name)).collect()).unwrap()
}

fn correlation(names: &[&str], blanks: Blanks) -> Correlation {
    Correlation { columns: columns(names), blanks }
}

fn check_matrix(worst: &mut Worst, what: &str, found: &[Vec<Option<f64>>], expected: &Value) {
    for (row, expected) in found.iter().zip(expected.as_array().unwrap()) {
        for (found, expected) in row.iter().zip(numbers(expected)) {
            // A correlation of nearly 0 is a difference of large sums: its error is relative to 1.
            worst.check_to_scale(what, found.unwrap(), expected, 1.0);
        }
    }
}

#[test]
fn correlations_of_heart_patients() {
    let found: CorrelationAnswer = answer(&correlation(&HEART, Blanks::Listwise), &sites("heart")).unwrap();
    let expected = reference("/heart/correlation");
    assert_eq!(found.columns, texts(&expected["terms"]));
    let mut worst = Worst::new("heart correlation", 1e-12);
    check_matrix(&mut worst, "r", &found.correlation, &expected["matrix"]);
    // There are no blank cells, so that both ways agree.
    let pairwise: CorrelationAnswer = answer(&correlation(&HEART, Blanks::Pairwise), &sites("heart")).unwrap();
    check_matrix(&mut worst, "pairwise r", &pairwise.correlation, &expected["matrix"]);
    assert_eq!(pairwise.n, Counts::Pairwise(vec![vec![740; 13]; 13]));
}

#[test]
fn correlations_of_births_without_blank_cells() {
    let expected = reference("/opt/correlation");
    let names = texts(&expected["terms"]);
    let found: CorrelationAnswer = answer(&correlation(&names, Blanks::Listwise), &sites("opt")).unwrap();
    assert_eq!(found.n, Counts::Listwise(809));
    let mut worst = Worst::new("opt correlation", 1e-9);
    check_matrix(&mut worst, "r", &found.correlation, &expected["pearson"]);
    for (i, row) in found.covariance.iter().enumerate() {
        for (j, covariance) in row.iter().enumerate() {
            worst.check("covariance", covariance.unwrap(), expected["covariance"][i][j].as_f64().unwrap());
        }
    }
}

#[test]
fn each_pair_uses_the_rows_where_both_have_a_value() {
    let names = ["age", "bmi", "birthweight_g", "gestation_days"];
    let found: CorrelationAnswer = answer(&correlation(&names, Blanks::Pairwise), &sites("opt")).unwrap();
    let Counts::Pairwise(n) = &found.n else { panic!("pairwise") };
    let mut worst = Worst::new("opt pairwise correlation", 1e-9);
    for i in 0..names.len() {
        for j in 0..i {
            let complete: Vec<Frame> = sites("opt")
                .iter()
                .map(|site| site.filter(&format!("{} is not missing and {} is not missing", names[i], names[j])))
                .collect();
            assert_eq!(n[i][j], complete.iter().map(|site| site.rows as u64).sum::<u64>());
            let pair: CorrelationAnswer = answer(&correlation(&[names[i], names[j]], Blanks::Listwise), &complete).unwrap();
            worst.check("r", found.correlation[i][j].unwrap(), pair.correlation[0][1].unwrap());
            worst.check("covariance", found.covariance[i][j].unwrap(), pair.covariance[0][1].unwrap());
            worst.check("p", found.p[i][j].unwrap(), pair.p[0][1].unwrap());
        }
    }
}

#[test]
fn a_column_that_does_not_vary_has_no_correlation() {
    let frame = Frame::new(vec![("x", vec![1.0, 2.0, 4.0]), ("c", vec![7.1; 3])]);
    let found: CorrelationAnswer = answer(&correlation(&["x", "c"], Blanks::Listwise), &split(&frame, 2, &[0, 1])).unwrap();
    assert_eq!((found.correlation[0][1], found.correlation[1][1], found.correlation[0][0]), (None, None, Some(1.0)));
    assert_eq!(found.covariance[0][1], Some(0.0));
    let pca = Pca { columns: columns(&["x", "c"]), components: None, of: PcaOf::Correlation };
    assert_eq!(answer(&pca, &[frame]).unwrap_err().to_string(), "c has the same value in all rows");
}

fn check_pca(set: &str, of: PcaOf, names: &[&str], expected: &Value) {
    let n_components = expected["eigenvalues"].as_array().unwrap().len();
    let plan = Pca { columns: columns(names), components: Some(n_components), of };
    let found: PcaAnswer = answer(&plan, &sites(set)).unwrap();
    assert_eq!(found.n, expected["n"].as_u64().unwrap());
    let mut worst = Worst::new(&format!("{set} pca"), 1e-9);
    for (key, found) in [
        ("mean", &found.mean),
        ("std", &found.sd),
        ("eigenvalues", &found.eigenvalues),
        ("explained_ratio", &found.explained_ratio),
    ] {
        let expected = numbers(&expected[key]);
        assert_eq!(found.len(), expected.len(), "{key}");
        found.iter().zip(expected).for_each(|(found, expected)| worst.check(key, *found, expected));
    }
    for (found, expected) in found.components.iter().zip(expected["components"].as_array().unwrap()) {
        for (found, expected) in found.iter().zip(numbers(expected)) {
            worst.check_to_scale("component", *found, expected, 1.0);
        }
    }
}

#[test]
fn components_of_heart_patients() {
    check_pca("heart", PcaOf::Correlation, &HEART, reference("/heart/pca_scaled"));
}

#[test]
fn components_of_diabetes_patients() {
    let names = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"];
    check_pca("diabetes", PcaOf::Correlation, &names, reference("/diabetes/pca_scaled"));
}

#[test]
fn components_of_digits() {
    let names: Vec<String> = (0..64).map(|pixel| format!("p{pixel}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check_pca("digits", PcaOf::Covariance, &names, reference("/images/digits/pca"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_split_gives_the_same_matrix(
        n_sites in 1_usize..12,
        deal in proptest::collection::vec(0_usize..12, 1..30),
        rows in 1_usize..200,
        is_pairwise: bool,
    ) {
        let all = Frame::stack(&sites("opt"));
        let blanks = if is_pairwise { Blanks::Pairwise } else { Blanks::Listwise };
        let plan = correlation(&["age", "bmi", "birthweight_g"], blanks);
        let whole: CorrelationAnswer = answer(&plan, std::slice::from_ref(&all)).unwrap();
        let parts: CorrelationAnswer = answer_in_batches(&plan, &split(&all, n_sites, &deal), rows).unwrap();
        prop_assert_eq!(&whole.n, &parts.n);
        for (a, b) in whole.covariance.iter().flatten().zip(parts.covariance.iter().flatten()) {
            prop_assert!((a.unwrap() - b.unwrap()).abs() <= 1e-12 * a.unwrap().abs());
        }
    }
}
