//! Tables and their tests equal those of the pooled rows.

use analytics::table::TableAnswer;
use proptest::prelude::*;
use protocol::statistic::{Table, TableTest};
use protocol::{Category, Level};
use serde_json::Value;

use crate::world::federation::answer_in_batches;
use crate::world::frame::{site_names, sites};
use crate::world::{Frame, Worst, answer, reference, split};

fn numbers(column: &str, levels: &[f64]) -> Category {
    Category::new(column.to_owned(), levels.iter().copied().map(Level::Number).collect()).unwrap()
}

fn names(column: &str, mut levels: Vec<&str>) -> Category {
    levels.sort_unstable();
    Category::new(column.to_owned(), levels.into_iter().map(|level| Level::Text(level.to_owned())).collect()).unwrap()
}

fn check(of: &str, rows: Category, columns: Category, sites: &[Frame], expected: &Value) {
    let found: TableAnswer = answer(&Table::new(rows, columns, TableTest::Chi2).unwrap(), sites).unwrap();
    let mut worst = Worst::new(of, 1e-9);
    let counts: Vec<Vec<u64>> = serde_json::from_value(expected["table"].clone()).unwrap();
    let shown: Vec<Vec<u64>> = found.counts.iter().map(|row| row.iter().map(|count| count.unwrap()).collect()).collect();
    assert_eq!(shown, counts);
    let expected_counts: Vec<Vec<f64>> = serde_json::from_value(expected["expected"].clone()).unwrap();
    for (found, expected) in found.expected.iter().flatten().flatten().zip(expected_counts.iter().flatten()) {
        worst.check("expected", *found, *expected);
    }
    for (name, test) in [("pearson", found.pearson.unwrap()), ("yates", found.yates.unwrap())] {
        worst.check(name, test.statistic, expected[name]["chi2"].as_f64().unwrap());
        worst.check(name, test.p, expected[name]["p"].as_f64().unwrap());
        assert_eq!(test.df, expected[name]["dof"].as_f64().unwrap());
    }
    assert_eq!(found.fisher.is_some(), expected.get("fisher_p").is_some());
    if let Some(fisher) = found.fisher {
        worst.check("fisher", fisher.p, expected["fisher_p"].as_f64().unwrap());
        worst.check("odds ratio", fisher.odds_ratio.unwrap(), expected["odds_ratio"].as_f64().unwrap());
    }
    assert_eq!((found.statistic, found.p), (found.pearson.map(|test| test.statistic), found.pearson.map(|test| test.p)));
}

#[test]
fn heart_disease_by_sex() {
    let expected = reference("/heart/chi2_sex_by_target");
    check("heart table", numbers("sex", &[0.0, 1.0]), numbers("target", &[0.0, 1.0]), &sites("heart"), expected);
}

#[test]
fn heart_disease_by_hospital() {
    let expected = reference("/heart/chi2_site_by_target");
    let hospitals = names("site", site_names("heart").to_vec());
    check("heart table by site", hospitals, numbers("target", &[0.0, 1.0]), &sites("heart"), expected);
}

#[test]
fn preterm_births_by_treatment() {
    let counted: Vec<Frame> = sites("opt").iter().map(|site| site.filter("birth_outcome in ('live', 'non-live')")).collect();
    let expected = reference("/opt/chi2_preterm_by_treated");
    // The trial's report: 52 preterm births without treatment, 49 with it.
    assert_eq!((&expected["table"][0][1], &expected["table"][1][1]), (&serde_json::json!(52), &serde_json::json!(49)));
    check("opt table", numbers("treated", &[0.0, 1.0]), numbers("preterm", &[0.0, 1.0]), &counted, expected);
}

#[test]
fn preterm_births_by_clinic() {
    let expected = reference("/opt/chi2_preterm_by_clinic");
    let clinics = names("site", site_names("opt").to_vec());
    check("opt table by site", clinics, numbers("preterm", &[0.0, 1.0]), &sites("opt"), expected);
}

#[test]
fn bleeding_by_drug() {
    let expected = reference("/omop/chi2_gi_bleed_by_celecoxib");
    check("omop table", numbers("celecoxib", &[0.0, 1.0]), numbers("gi_bleed", &[0.0, 1.0]), &sites("omop"), expected);
}

#[test]
fn what_small_cells_follow_from_is_hidden_with_them() {
    let frame = Frame::new(vec![
        ("a", [vec![0.0; 53], vec![1.0; 90]].concat()),
        ("b", [vec![0.0; 3], vec![1.0; 50], vec![0.0; 40], vec![1.0; 50]].concat()),
    ]);
    let plan = Table::new(numbers("a", &[0.0, 1.0]), numbers("b", &[0.0, 1.0]), TableTest::Fisher).unwrap();
    let whole: TableAnswer = answer(&plan, &split(&frame, 3, &[0, 1, 2])).unwrap();
    assert!(whole.p.is_some() && whole.statistic.is_none());
    assert_eq!(whole.clone().suppressed(3), whole);
    let shown = whole.suppressed(5);
    assert_eq!(shown.counts, vec![vec![None; 2]; 2]);
    assert_eq!(shown.row_totals, [Some(53), Some(90)]);
    assert_eq!((shown.p, shown.pearson, shown.expected), (None, None, None));
}

#[test]
fn blank_cells_and_other_levels_are_left_out_and_counted() {
    let plan = Table::new(numbers("thal", &[3.0, 7.0]), numbers("sex", &[0.0, 1.0]), TableTest::Yates).unwrap();
    let found: TableAnswer = answer(&plan, &sites("heart_raw")).unwrap();
    assert_eq!(found.total + found.left_out.unwrap(), 920);
    assert_eq!(found.statistic, found.yates.map(|test| test.statistic));
    // A level that never occurs does not enter the tests.
    let plan = Table::new(numbers("thal", &[3.0, 7.0, 99.0]), numbers("sex", &[0.0, 1.0]), TableTest::Yates).unwrap();
    let with_empty: TableAnswer = answer(&plan, &sites("heart_raw")).unwrap();
    assert_eq!((with_empty.pearson, with_empty.yates, with_empty.fisher), (found.pearson, found.yates, found.fisher));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_split_gives_the_same_table(n_sites in 1_usize..12, deal in proptest::collection::vec(0_usize..12, 1..30), rows in 1_usize..200) {
        let all = Frame::stack(&sites("heart_raw"));
        let plan = Table::new(numbers("cp", &[1.0, 2.0, 3.0, 4.0]), numbers("num", &[0.0, 1.0, 2.0, 3.0, 4.0]), TableTest::Chi2).unwrap();
        let whole: TableAnswer = answer(&plan, std::slice::from_ref(&all)).unwrap();
        let parts: TableAnswer = answer_in_batches(&plan, &split(&all, n_sites, &deal), rows).unwrap();
        prop_assert_eq!(whole, parts);
    }
}
