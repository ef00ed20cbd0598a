//! Descriptions equal those of the pooled rows.

use std::collections::BTreeMap;

use analytics::describe::{ColumnSummary, DescribeAnswer};
use proptest::prelude::*;
use protocol::statistic::{Describe, DescribedNumber, Range, RawDescribe};
use protocol::{Category, Expression, Level};
use serde_json::Value;

use crate::world::federation::answer_in_batches;
use crate::world::frame::{site_names, sites};
use crate::world::reference::numbers;
use crate::world::{Frame, Worst, answer, reference, split};

const ORDERS: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

fn summaries(answer: DescribeAnswer) -> BTreeMap<String, ColumnSummary> {
    answer.columns.into_iter().collect()
}

/// The plan that the reference's description of a set corresponds to; the ranges are those of the data where `is_declared`.
fn plan(numeric: &serde_json::Map<String, Value>, is_declared: bool) -> Describe {
    let number = |(name, expected): (&String, &Value)| {
        let mut edges = numbers(&expected["edges"]);
        // The reference's reader leaves the last digits of some values out.
        edges[0] -= 1e-13 * edges[0].abs();
        edges[10] += 1e-13 * edges[10].abs();
        DescribedNumber {
            range: if is_declared {
                Range::new(edges[0], edges[10]).ok().filter(|_| range_of(expected).is_some())
            } else {
                None
            },
            edges: Some(edges),
            ..DescribedNumber::new(Expression::column(name.as_str()))
        }
    };
    Describe::new(RawDescribe {
        numbers: numeric.iter().map(number).collect(),
        quantiles: ORDERS.to_vec(),
        minmax: true,
        minimum_rows: 1,
        ..RawDescribe::default()
    })
    .unwrap()
}

/// `range` is that of the declared ranges, if there are any.
fn check_summary(worst: &mut Worst, name: &str, found: &ColumnSummary, expected: &Value, range: Option<f64>) {
    let number = |key: &str| expected[key].as_f64().unwrap();
    assert_eq!(
        (Some(found.count), Some(found.missing)),
        (expected["count"].as_u64(), expected["missing"].as_u64()),
        "{name}"
    );
    if found.count == 0 {
        assert_eq!(found.mean, None);
        return;
    }
    // A mean near 0 is a difference of large sums.
    let scale = (number("sum_of_squares") / number("count")).sqrt();
    worst.check_to_scale(&format!("mean of {name}"), found.mean.unwrap(), number("mean"), 1e-6 * scale);
    if let Some(variance) = expected["variance"].as_f64() {
        worst.check(&format!("variance of {name}"), found.variance.unwrap(), variance);
        worst.check(&format!("sd of {name}"), found.sd.unwrap(), variance.sqrt());
    }
    for order in ORDERS {
        let key = order.to_string();
        let (value, error) = (found.quantiles[&key], found.quantile_errors[&key]);
        let expected = expected["quantiles"][&key].as_f64().unwrap();
        check_place(&format!("{name} {key}"), value, error, expected, range);
    }
    for (key, value) in [("min", found.min.unwrap()), ("max", found.max.unwrap())] {
        check_place(&format!("{name} {key}"), value, found.quantile_errors[key], number(key), range);
    }
}

/// A place holds what is expected, and is as narrow as three steps make it.
fn check_place(what: &str, value: f64, error: f64, expected: f64, range: Option<f64>) {
    // The ends of intervals are rounded, and the reference rounds its interpolation.
    let rounding = 1e-13 * (expected.abs() + error);
    assert!((value - expected).abs() <= error + rounding, "{what}: {value} ± {error}, expected {expected}");
    // Half of 2^-30 of a range; 2^-20 of an eighth of a power of two, which is at most 2^-23 of a value.
    let widest = range.map_or(0.5 * expected.abs() / 8_388_608.0 * 1.01, |range| 0.5 * range / 1_073_741_824.0);
    assert!(error <= widest * (1.0 + 1e-4) + 1e-18 + rounding, "{what}: {value} ± {error}, wider than {widest}");
}

/// A set by its sites, with the columns that its reference derives.
fn frames(set: &str) -> Vec<Frame> {
    let derive = |site: Frame| match set {
        "breast" => {
            site.derive("size_20_50", "size_class = 1").derive("size_gt50", "size_class = 2").derive("grade3", "grade = 3")
        }
        _ => site,
    };
    sites(set).into_iter().map(derive).collect()
}

fn check_set(set: &str, pointer: &str) {
    let expected = reference(pointer);
    let numeric = expected["numeric"].as_object().unwrap();
    let mut worst = Worst::new(&format!("{set} describe"), 1e-9);
    for is_declared in [true, false] {
        let plan = plan(numeric, is_declared);
        let found = summaries(answer(&plan, &frames(set)).unwrap());
        for (name, expected) in numeric {
            let range = range_of(expected).filter(|_| is_declared);
            check_summary(&mut worst, name, &found[name], &expected["pooled"], range);
            let histogram = found[name].histogram.as_ref().unwrap();
            let counts: Vec<Option<u64>> = serde_json::from_value(expected["pooled"]["histogram"].clone()).unwrap();
            assert_eq!((&histogram.counts, histogram.below, histogram.above), (&counts, Some(0), Some(0)), "{name}");
        }
    }
    // Each site alone.
    for (site, frame) in site_names(set).iter().zip(frames(set)) {
        let found = summaries(answer(&plan(numeric, true), &[frame]).unwrap());
        for (name, expected) in numeric {
            check_summary(&mut worst, name, &found[name], &expected["sites"][site], range_of(expected));
            if found[name].count > 0 {
                let histogram = found[name].histogram.as_ref().unwrap();
                assert_eq!(serde_json::json!(histogram.counts), expected["sites"][site]["histogram"], "{name} {site}");
            }
        }
    }
    for (name, expected) in expected["categorical"].as_object().unwrap() {
        check_categories(set, name, &expected["pooled"]);
    }
}

/// The width of the range that [`plan`] declares; a column that does not vary has none.
fn range_of(expected: &Value) -> Option<f64> {
    let range = expected["pooled"]["max"].as_f64().unwrap() - expected["pooled"]["min"].as_f64().unwrap();
    (range > 0.0).then_some(range)
}

fn check_categories(set: &str, name: &str, expected: &Value) {
    let expected: BTreeMap<String, u64> = serde_json::from_value(expected.clone()).unwrap();
    let levels = expected.keys().filter(|level| *level != "missing").map(|level| Level::Text(level.clone())).collect();
    let categories = vec![Category::new(name.to_owned(), levels).unwrap()];
    let plan = Describe::new(RawDescribe { categories, ..RawDescribe::default() }).unwrap();
    let found = summaries(answer(&plan, &sites(set)).unwrap()).remove(name).unwrap();
    assert_eq!(found.missing, expected.get("missing").copied().unwrap_or(0));
    assert!(found.other.is_none());
    for (level, count) in expected.iter().filter(|(level, _)| *level != "missing") {
        assert!(found.categories.contains(&(level.clone(), Some(*count))), "{name} = {level}");
    }
}

#[test]
fn heart_patients_with_blank_cells() {
    check_set("heart_raw", "/heart/describe");
}

#[test]
fn heart_patients() {
    check_set("heart", "/heart/describe_flamby");
}

#[test]
fn births() {
    check_set("opt", "/opt/describe");
}

#[test]
fn diabetes_patients() {
    check_set("diabetes", "/diabetes/describe");
}

#[test]
fn breast_cancer_patients() {
    check_set("breast", "/breast/describe");
}

#[test]
fn outcomes_of_tcga() {
    check_set("tcga", "/tcga/describe_outcome");
}

#[test]
fn simulated_patients() {
    check_set("cnsim", "/datashield/describe_cnsim");
    check_set("survival", "/datashield/describe_survival");
}

#[test]
fn pseudo_adni() {
    check_set("pseudo_adni", "/pseudo_adni/describe");
}

#[test]
fn persons_of_omop() {
    check_set("omop", "/omop/describe_per_person");
}

#[test]
fn published_moments() {
    let plan = Describe::new(RawDescribe {
        numbers: vec![DescribedNumber::new(Expression::column("LAB_TSC"))],
        ..RawDescribe::default()
    });
    let found = summaries(answer(&plan.unwrap(), &sites("cnsim")).unwrap()).remove("LAB_TSC").unwrap();
    // DataSHIELD's client tests.
    assert!((found.mean.unwrap() - 5.851_924_856_230_03).abs() <= 1e-13);
    assert!((found.variance.unwrap() - 1.158_384).abs() <= 1e-6);
}

#[test]
fn the_default_description_names_no_place_with_fewer_than_five_rows() {
    let ages = DescribedNumber { whole: true, ..DescribedNumber::new(Expression::column("age")) };
    let chol = DescribedNumber::new(Expression::column("chol"));
    let plan = Describe::new(RawDescribe { numbers: vec![ages, chol], ..RawDescribe::default() }).unwrap();
    let all = Frame::stack(&sites("heart"));
    let found = summaries(answer(&plan, &sites("heart")).unwrap());
    for (name, summary) in &found {
        assert_eq!((summary.min, summary.max), (None, None));
        let values = all.numbers(name);
        for (key, value) in &summary.quantiles {
            let error = summary.quantile_errors[key];
            let inside = values.iter().filter(|other| (*other - value).abs() <= error).count();
            assert!(inside >= 5, "{name} {key}: {inside} rows within {value} ± {error}");
        }
        let histogram = summary.histogram.as_ref().unwrap();
        let counts = histogram.counts.iter().chain([&histogram.below, &histogram.above]);
        assert_eq!(counts.copied().flatten().sum::<u64>(), summary.count);
        assert!((5..=14).contains(&histogram.counts.len()), "{histogram:?}");
        assert!(histogram.edges.iter().all(|edge| edge.fract() == 0.0), "{histogram:?}");
    }
    // Of whole numbers that many people have, quantiles are exact.
    assert_eq!(found["age"].quantiles["0.5"], 54.0);
    assert_eq!(found["age"].quantile_errors["0.5"], 0.0);
    let json = serde_json::to_value(answer(&plan, &sites("heart")).unwrap()).unwrap();
    let mut keys: Vec<&String> = json["columns"]["age"].as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["count", "histogram", "mean", "missing", "quantile_errors", "quantiles", "sd", "variance"]);
}

#[test]
fn values_outside_a_declared_range_are_found() {
    let number = DescribedNumber { range: Range::new(0.0, 1.0).ok(), ..DescribedNumber::new(Expression::column("x")) };
    let raw = RawDescribe { numbers: vec![number], minmax: true, minimum_rows: 1, ..RawDescribe::default() };
    let frame = Frame::new(vec![("x", vec![-7.0, 0.0, 0.25, 0.5, 1.0, 1e6])]);
    let found = summaries(answer(&Describe::new(raw).unwrap(), &split(&frame, 2, &[0, 1])).unwrap()).remove("x").unwrap();
    for (key, value, expected) in
        [("min", found.min, -7.0), ("max", found.max, 1e6), ("0.5", Some(found.quantiles["0.5"]), 0.375)]
    {
        let error = found.quantile_errors[key];
        assert!((value.unwrap() - expected).abs() <= error && error <= 1e-3 * expected.abs(), "{key}: {value:?} ± {error}");
    }
    let histogram = found.histogram.unwrap();
    assert_eq!((histogram.below, histogram.above, histogram.counts[9]), (Some(1), Some(1), Some(1)));
}

#[test]
fn columns_without_values_and_tables_without_rows_are_described() {
    let frame = Frame::new(vec![("x", vec![f64::NAN; 3]), ("y", vec![1.0, f64::NAN, f64::NAN])]);
    let numbers = ["x", "y"].map(|name| DescribedNumber::new(Expression::column(name))).to_vec();
    let plan = Describe::new(RawDescribe { numbers, ..RawDescribe::default() }).unwrap();
    let found = summaries(answer(&plan, &[frame.clone(), frame.take(&[])]).unwrap());
    assert_eq!((found["x"].count, found["x"].missing, found["x"].mean), (0, 3, None));
    assert_eq!((found["y"].count, found["y"].missing, found["y"].mean, found["y"].variance), (1, 2, Some(1.0), None));
    // One value has no place with five.
    assert!(found["y"].quantiles.is_empty());
    let nothing = summaries(answer(&plan, &[frame.take(&[])]).unwrap());
    assert_eq!((nothing["y"].count, nothing["y"].missing), (0, 0));
}

#[test]
fn quantiles_of_each_site_average_to_the_published_median() {
    let number = DescribedNumber::new(Expression::column("LAB_HDL"));
    let raw = RawDescribe { numbers: vec![number], minimum_rows: 1, bins: 0, ..RawDescribe::default() };
    let plan = Describe::new(raw).unwrap();
    let (mut weights, mut sum) = (0.0, 0.0);
    for site in sites("cnsim") {
        let found = summaries(answer(&plan, &[site]).unwrap()).remove("LAB_HDL").unwrap();
        weights += found.count as f64;
        sum += found.count as f64 * found.quantiles["0.5"];
        assert_eq!(found.histogram, None);
    }
    // DataSHIELD's client tests.
    assert!((sum / weights - 1.578_719_3).abs() <= 1e-6);
}

#[test]
fn node_positive_patients_of_rotterdam() {
    let expected = reference("/breast/rotterdam_node_positive");
    let positive = sites("breast")[0].filter("nodes > 0");
    let numbers = ["age", "nodes"].map(|name| DescribedNumber::new(Expression::column(name))).to_vec();
    let levels = |of: &[f64]| of.iter().copied().map(Level::Number).collect();
    let categories = vec![
        Category::new("size_class".to_owned(), levels(&[0.0, 1.0, 2.0])).unwrap(),
        Category::new("meno".to_owned(), levels(&[0.0, 1.0])).unwrap(),
        Category::new("hormon".to_owned(), levels(&[0.0, 1.0])).unwrap(),
    ];
    let plan = Describe::new(RawDescribe { numbers, categories, ..RawDescribe::default() }).unwrap();
    let found = summaries(answer(&plan, &split(&positive, 3, &[0, 1, 2])).unwrap());
    // Royston and Altman's derivation sample.
    assert_eq!((found["age"].count, expected["n"].as_u64()), (1546, Some(1546)));
    let mut worst = Worst::new("rotterdam", 1e-9);
    for name in ["age", "nodes"] {
        worst.check(name, found[name].mean.unwrap(), expected[format!("{name}_mean")].as_f64().unwrap());
        worst.check(name, found[name].sd.unwrap(), expected[format!("{name}_sd")].as_f64().unwrap());
    }
    for name in ["size_class", "meno", "hormon"] {
        for (level, count) in &found[name].categories {
            assert_eq!(*count, expected[name][level].as_u64(), "{name} = {level}");
        }
    }
}

#[test]
fn small_bins_and_categories_are_hidden_with_others() {
    let chol = DescribedNumber { range: Range::new(0.0, 700.0).ok(), ..DescribedNumber::new(Expression::column("chol")) };
    let cp = Category::new("num".to_owned(), [0.0, 1.0, 2.0, 3.0, 4.0].map(Level::Number).to_vec()).unwrap();
    let raw = RawDescribe { numbers: vec![chol], categories: vec![cp], ..RawDescribe::default() };
    let whole = answer(&Describe::new(raw).unwrap(), &sites("heart_raw")).unwrap();
    assert_eq!(whole.clone().suppressed(0), whole);
    let counts = |answer: &DescribeAnswer| {
        let found = summaries(answer.clone());
        let categories = found["num"].categories.iter().map(|(_, count)| *count).collect::<Vec<_>>();
        (found["chol"].histogram.clone().unwrap().counts, categories)
    };
    let (shown, categories) = counts(&whole.clone().suppressed(40));
    let (all_bins, all_categories) = counts(&whole);
    for (shown, all) in [(shown, all_bins), (categories, all_categories)] {
        let hidden = all.iter().zip(&shown).filter(|(_, shown)| shown.is_none()).map(|(all, _)| all.unwrap());
        let small = all.iter().flatten().filter(|count| (1..40).contains(*count)).count();
        assert!(small > 0 && hidden.count() > 1);
        assert!(shown.iter().flatten().all(|count| *count == 0 || *count >= 40));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn columns_of_very_different_size_keep_their_digits(
        values in proptest::collection::vec(0.5_f64..1.5, 3..60),
        power in -250_i32..250,
        offset in -1e4_f64..1e4,
    ) {
        let scale = f64::from(power).exp2();
        let small: Vec<f64> = values.iter().map(|value| (value + offset) * scale).collect();
        // Exact sums of multiples of 2^-20 around a multiple of it.
        let rounded: Vec<f64> = values.iter().map(|value| (value * 1_048_576.0).round()).collect();
        let frame = Frame::new(vec![("x", small.clone()), ("large", vec![1e100; values.len()]), ("whole", rounded.clone())]);
        let numbers = ["x", "large", "whole"].map(|name| DescribedNumber::new(Expression::column(name))).to_vec();
        let plan = Describe::new(RawDescribe { numbers, bins: 0, quantiles: Vec::new(), ..RawDescribe::default() }).unwrap();
        let found = summaries(answer(&plan, &split(&frame, 3, &[0, 1, 2, 1])).unwrap());
        for (name, values) in [("x", &small), ("whole", &rounded)] {
            let n = values.len() as f64;
            let first = values[0];
            // Around a value, so that nothing cancels.
            let shift = values.iter().map(|value| value - first).sum::<f64>() / n;
            let square = values.iter().map(|value| (value - first - shift).powi(2)).sum::<f64>() / (n - 1.0);
            let size = values.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
            prop_assert!((found[name].mean.unwrap() - first - shift).abs() <= 1e-15 * 4.0 * size);
            prop_assert!((found[name].variance.unwrap() - square).abs() <= 1e-10 * square, "{name}: {:?} {square}", found[name].variance);
        }
        prop_assert_eq!(found["large"].variance, Some(0.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_split_gives_the_same_description(n_sites in 1_usize..12, deal in proptest::collection::vec(0_usize..12, 1..30), rows in 1_usize..200) {
        let all = Frame::stack(&sites("heart_raw"));
        let numbers = ["age", "chol", "oldpeak", "ca"].map(|name| DescribedNumber::new(Expression::column(name))).to_vec();
        let plan = Describe::new(RawDescribe { numbers, ..RawDescribe::default() }).unwrap();
        let whole = summaries(answer(&plan, std::slice::from_ref(&all)).unwrap());
        let parts = summaries(answer_in_batches(&plan, &split(&all, n_sites, &deal), rows).unwrap());
        for (name, whole) in &whole {
            let parts = &parts[name];
            prop_assert_eq!((whole.count, whole.missing), (parts.count, parts.missing));
            prop_assert_eq!((&whole.quantiles, &whole.histogram), (&parts.quantiles, &parts.histogram));
            let (mean, variance) = (whole.mean.unwrap(), whole.variance.unwrap());
            prop_assert!((mean - parts.mean.unwrap()).abs() <= 1e-14 * variance.sqrt());
            prop_assert!((variance - parts.variance.unwrap()).abs() <= 1e-14 * variance);
        }
    }
}
