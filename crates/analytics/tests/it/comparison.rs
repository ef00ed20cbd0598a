//! t-tests and the analysis of variance equal those of the pooled rows.

use analytics::analysis::AnalysisError;
use analytics::anova::AnovaAnswer;
use analytics::ttest::TTestAnswer;
use proptest::prelude::*;
use protocol::statistic::{Against, Anova, Confidence, TTest};
use protocol::{Category, Expression, Level};
use serde_json::Value;

use crate::world::federation::answer_in_batches;
use crate::world::frame::{site_names, sites};
use crate::world::reference::numbers;
use crate::world::{Frame, Worst, answer, reference, split};

fn levels(column: &str, levels: &[f64]) -> Category {
    Category::new(column.to_owned(), levels.iter().copied().map(Level::Number).collect()).unwrap()
}

fn ttest(value: &str, against: Against, sites: &[Frame]) -> Result<TTestAnswer, AnalysisError> {
    answer(&TTest::new(value.parse().unwrap(), against, Confidence::default()).unwrap(), sites)
}

fn check_two_samples(set: &str, value: &str, groups: &Category, sites: &[Frame], expected: &Value) {
    let mut worst = Worst::new(set, 1e-9);
    let number = |pointer: &str| expected.pointer(pointer).unwrap().as_f64().unwrap();
    for (name, against) in [("student", Against::Student(groups.clone())), ("welch", Against::Welch(groups.clone()))] {
        let found = ttest(value, against, sites).unwrap();
        assert_eq!(found.test, name);
        worst.check("t", found.statistic, number(&format!("/{name}/t")));
        worst.check("df", found.df, number(&format!("/{name}/df")));
        worst.check("p", found.p, number(&format!("/{name}/p")));
        worst.check("difference", found.difference, number("/difference"));
        for (index, group) in found.groups.iter().enumerate() {
            assert_eq!(group.count, expected["n"][index].as_u64().unwrap());
            worst.check("mean", group.mean, number(&format!("/mean/{index}")));
            worst.check("variance", group.variance.unwrap(), number(&format!("/variance/{index}")));
        }
        assert!(found.ci_low < found.difference && found.difference < found.ci_high);
    }
}

#[test]
fn heart_rates_with_and_without_disease() {
    let expected = reference("/heart/ttest_thalach_by_target");
    check_two_samples("heart ttest", "thalach", &levels("target", &[1.0, 0.0]), &sites("heart"), expected);
}

#[test]
fn birth_weights_with_and_without_treatment() {
    let live: Vec<Frame> = sites("opt").iter().map(|site| site.filter("birth_outcome = 'live'")).collect();
    let expected = reference("/opt/ttest_live_birthweight_treated_vs_control");
    // The trial's report: 3239 g with treatment, 3258 g without.
    assert!((expected["mean"][0].as_f64().unwrap() - 3239.0).abs() <= 1.5);
    assert!((expected["mean"][1].as_f64().unwrap() - 3258.0).abs() <= 1.5);
    check_two_samples("opt ttest", "birthweight_g", &levels("treated", &[1.0, 0.0]), &live, expected);
}

#[test]
fn birth_weights_of_four_clinics() {
    let names = site_names("opt").iter().map(|name| Level::Text((*name).to_owned())).collect();
    let plan = Anova::new(Expression::column("birthweight_g"), Category::new("site".to_owned(), names).unwrap()).unwrap();
    let found: AnovaAnswer = answer(&plan, &sites("opt")).unwrap();
    let expected = reference("/opt/anova_birthweight_by_clinic");
    let mut worst = Worst::new("opt anova", 1e-9);
    worst.check("F", found.statistic, expected["f"].as_f64().unwrap());
    worst.check("p", found.p, expected["p"].as_f64().unwrap());
    assert_eq!(found.df.as_slice(), numbers(&expected["df"]));
}

#[test]
fn one_mean_is_compared_with_a_number_and_pairs_with_one_another() {
    // R 4: t.test(c(5.1, 4.9, 5.6, 5.8, 6.0), mu = 5): t = 2.2155, df = 4, p = 0.0911.
    let frame = Frame::new(vec![("a", vec![5.1, 4.9, 5.6, 5.8, 6.0]), ("b", vec![5.0, 5.0, 5.0, 5.0, 5.0])]);
    let parts = split(&frame, 2, &[0, 1]);
    let one = ttest("a", Against::Mean(5.0), &parts).unwrap();
    let paired = ttest("a - b", Against::Mean(0.0), &parts).unwrap();
    let mean = 27.4 / 5.0;
    let variance = [5.1_f64, 4.9, 5.6, 5.8, 6.0].iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 4.0;
    let t = (mean - 5.0) / (variance / 5.0).sqrt();
    assert!((one.statistic - t).abs() < 1e-12 && one.df == 4.0);
    assert!((paired.statistic - t).abs() < 1e-12 && (one.p - paired.p).abs() < 1e-12);
}

#[test]
fn groups_without_values_are_named() {
    let error = ttest("thalach", Against::Welch(levels("target", &[1.0, 7.0])), &sites("heart")).unwrap_err();
    assert_eq!(error.to_string(), "target = 7 has fewer than two values");
    let constant = Frame::new(vec![("x", vec![3.0; 9])]);
    let error = ttest("x", Against::Mean(1.0), &[constant]).unwrap_err();
    assert_eq!(error.to_string(), "all values of x are the same");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_split_gives_the_same_test(n_sites in 1_usize..12, deal in proptest::collection::vec(0_usize..12, 1..30), rows in 1_usize..200) {
        let all = Frame::stack(&sites("heart"));
        let plan = TTest::new(
            Expression::column("chol"),
            Against::Welch(levels("sex", &[0.0, 1.0])),
            Confidence::default(),
        ).unwrap();
        let whole = answer(&plan, std::slice::from_ref(&all)).unwrap();
        let parts = answer_in_batches(&plan, &split(&all, n_sites, &deal), rows).unwrap();
        prop_assert_eq!(whole.groups[0].count, parts.groups[0].count);
        for (a, b) in [(whole.statistic, parts.statistic), (whole.df, parts.df), (whole.p, parts.p)] {
            prop_assert!((a - b).abs() <= 1e-12 * a.abs());
        }
    }
}
