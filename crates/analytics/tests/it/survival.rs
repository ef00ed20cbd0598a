//! Survival curves are those of a pooled computation, exactly and in steps.

use analytics::survival::{Group, Survival, SurvivalAnswer};
use proptest::prelude::*;
use protocol::statistic::{SurvivalInterval, TimeResolution};
use protocol::{Category, Confidence, Level};

use crate::world::frame::{site_names, sites};
use crate::world::reference::numbers;
use crate::world::{Frame, Worst, answer, reference, split};

fn plan(time: &str, event: &str, by: Option<Category>) -> protocol::Survival {
    protocol::Survival {
        time: time.parse().unwrap(),
        event: event.parse().unwrap(),
        by,
        resolution: TimeResolution::Exact,
        confidence: Confidence::default(),
        interval: SurvivalInterval::default(),
        horizon: None,
    }
}

fn curves(plan: protocol::Survival, sites: &[Frame]) -> SurvivalAnswer {
    answer(&Survival::new(plan).unwrap(), sites).unwrap()
}

fn category(column: &str, levels: &[f64]) -> Category {
    Category::new(column.to_owned(), levels.iter().map(|level| Level::Number(*level)).collect()).unwrap()
}

fn category_of_sites(set: &str) -> Category {
    Category::new("site".to_owned(), site_names(set).iter().map(|site| Level::Text((*site).to_owned())).collect()).unwrap()
}

/// The last event time up to `time`.
fn step(group: &Group, time: f64) -> Option<usize> {
    group.time.iter().rposition(|step| *step <= time)
}

fn check_curve(entry: &str, group: &Group) {
    let mut worst = Worst::new(entry, 1e-9);
    // What does not exist is null.
    let of = |key: &str| -> Vec<f64> {
        let list = reference(&format!("{entry}/{key}")).as_array().unwrap();
        list.iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
    };
    assert_eq!(
        [group.n as f64, group.events as f64],
        ["n", "events"].map(|key| reference(&format!("{entry}/{key}")).as_f64().unwrap())
    );
    for ((time, survival), error) in of("times").into_iter().zip(of("survival")).zip(of("greenwood_se")) {
        let at = step(group, time);
        worst.check(&format!("survival at {time}"), at.map_or(1.0, |at| group.survival[at]), survival);
        if !error.is_nan() {
            worst.check(&format!("error at {time}"), at.map_or(0.0, |at| group.std_error[at]), error);
        }
    }
    assert_eq!(group.median, reference(&format!("{entry}/median")).as_f64());
    worst.check("restricted mean", group.restricted_mean.value, reference(&format!("{entry}/rmst/value")).as_f64().unwrap());
}

fn check_set(set: &str, entry: &str, plan: &protocol::Survival) {
    let all = sites(set);
    let horizon = *numbers(reference(&format!("{entry}/pooled/times"))).last().unwrap();
    let plan = protocol::Survival { horizon: Some(horizon), ..plan.clone() };
    check_curve(&format!("{entry}/pooled"), &curves(plan.clone(), &all).groups[0]);
    let by_site = curves(protocol::Survival { by: Some(category_of_sites(set)), ..plan }, &all);
    for (site, group) in site_names(set).iter().zip(&by_site.groups) {
        check_curve(&format!("{entry}/{site}"), group);
    }
}

fn check_logrank(entry: &str, found: &SurvivalAnswer) {
    let mut worst = Worst::new(entry, 1e-9);
    let found = found.logrank.unwrap();
    worst.check("chi2", found.chi2, reference(&format!("{entry}/chi2")).as_f64().unwrap());
    worst.check("p", found.p, reference(&format!("{entry}/p")).as_f64().unwrap());
    if let Some(df) = reference(entry).get("df") {
        assert_eq!(df.as_u64(), Some(u64::from(found.df)));
    }
}

#[test]
fn breast_cancer_curves_are_those_of_both_countries() {
    let plan = plan("time_days", "event", None);
    check_set("breast", "/breast/km", &plan);
    let all = sites("breast");
    let by = |category: Category| curves(protocol::Survival { by: Some(category), ..plan.clone() }, &all);
    let hormon = protocol::Survival { by: Some(category("hormon", &[0.0, 1.0])), horizon: Some(2555.0), ..plan.clone() };
    let hormon = curves(hormon, &all);
    check_curve("/breast/km/hormon_0", &hormon.groups[0]);
    check_curve("/breast/km/hormon_1", &hormon.groups[1]);
    check_logrank("/breast/logrank/hormon", &hormon);
    check_logrank("/breast/logrank/site", &by(category_of_sites("breast")));
    check_logrank("/breast/logrank/size_class", &by(category("size_class", &[0.0, 1.0, 2.0])));
}

#[test]
fn every_step_of_a_curve_is_that_of_the_reference() {
    let found = curves(plan("time_days", "event", None), &sites("breast")[1..]);
    let group = &found.groups[0];
    let mut worst = Worst::new("/breast/km/gbsg/steps", 1e-9);
    let steps: Vec<Vec<f64>> = reference("/breast/km/gbsg/steps").as_array().unwrap().iter().map(numbers).collect();
    let steps: Vec<&Vec<f64>> = steps.iter().filter(|step| step[2] > 0.0).collect();
    assert_eq!(group.time, steps.iter().map(|step| step[0]).collect::<Vec<_>>());
    for (index, step) in steps.iter().enumerate() {
        assert_eq!([group.n_risk[index] as f64, group.n_event[index] as f64], [step[1], step[2]]);
        worst.check(&format!("survival at {}", step[0]), group.survival[index], step[3]);
    }
}

#[test]
fn cancer_genome_curves_are_those_of_all_regions() {
    let plan = plan("T", "E", None);
    check_set("tcga", "/tcga/km", &plan);
    let found = curves(protocol::Survival { by: Some(category_of_sites("tcga")), ..plan }, &sites("tcga"));
    check_logrank("/tcga/logrank_site", &found);
}

/// lifelines 0.30.3, `KaplanMeierFitter().fit(T, E)` and R's survfit(conf.type = "log" or "plain") formulas in numpy.
#[test]
fn intervals_are_those_of_their_scale() {
    let frame = Frame::new(vec![("t", vec![1.0, 2.0, 2.0, 3.0, 5.0, 8.0]), ("d", vec![1.0, 1.0, 0.0, 1.0, 0.0, 1.0])]);
    let check = |interval, expected: [[f64; 2]; 2]| {
        let found = curves(protocol::Survival { interval, ..plan("t", "d", None) }, std::slice::from_ref(&frame));
        let mut worst = Worst::new("interval", 1e-9);
        for (index, expected) in expected.into_iter().enumerate() {
            worst.check("low", found.groups[0].ci_low[index], expected[0]);
            worst.check("high", found.groups[0].ci_high[index], expected[1]);
        }
    };
    check(
        SurvivalInterval::LogLog,
        [[0.273_122_849_928_355_67, 0.974_712_426_690_893_5], [0.194_616_636_806_234_62, 0.904_434_164_322_516_6]],
    );
    check(SurvivalInterval::Log, [[0.582_654_795_477_139_5, 1.0], [0.378_606_460_887_095_04, 1.0]]);
    check(SurvivalInterval::Plain, [[0.535_134_309_380_473_8, 1.0], [0.289_471_421_974_609_34, 1.0]]);
}

/// Steps: at least five events in each, and a curve that stays close to the exact one.
#[test]
fn steps_hold_the_minimum_and_follow_the_exact_curve() {
    let all = sites("breast");
    let by = Some(category("hormon", &[0.0, 1.0]));
    let exact = curves(plan("time_days", "event", by.clone()), &all);
    let stepped =
        curves(protocol::Survival { resolution: TimeResolution::Events(5), ..plan("time_days", "event", by) }, &all);
    assert_eq!((stepped.resolution, stepped.minimum_events), ("steps", Some(5)));
    for (exact, stepped) in exact.groups.iter().zip(&stepped.groups) {
        assert_eq!((exact.n, exact.events), (stepped.n, stepped.events));
        assert!(stepped.n_event.iter().all(|events| *events >= 5), "{:?}", stepped.n_event);
        assert!(stepped.time.len() > 20, "{}", stepped.time.len());
        // Few are left at the end, where a step is long.
        for index in (0..stepped.time.len()).filter(|index| stepped.n_risk[*index] >= 100) {
            let (time, survival) = (stepped.time[index], stepped.survival[index]);
            let expected = exact.survival[step(exact, time).unwrap()];
            assert!((survival - expected).abs() < 0.01, "{time}: {survival} {expected}");
        }
    }
    let (exact, stepped) = (exact.logrank.unwrap(), stepped.logrank.unwrap());
    assert!((exact.chi2 - stepped.chi2).abs() < 0.05 * exact.chi2, "{exact:?} {stepped:?}");
}

#[test]
fn times_with_fractions_are_told_apart() {
    let all: Vec<Frame> = sites("survival");
    let found = curves(plan("survtime", "cens", None), &all);
    let pooled = Frame::stack(&all);
    let (times, events) = (pooled.numbers("survtime"), pooled.numbers("cens"));
    let rows: Vec<usize> = (0..pooled.rows).filter(|row| !times[*row].is_nan() && !events[*row].is_nan()).collect();
    let mut distinct: Vec<f64> = rows.iter().filter(|row| events[**row] == 1.0).map(|row| times[*row]).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    let group = &found.groups[0];
    assert_eq!(group.time.len(), distinct.len());
    let mut survival = 1.0;
    let mut worst = Worst::new("survival with fractions", 1e-9);
    for (index, time) in distinct.into_iter().enumerate() {
        let at_risk = rows.iter().filter(|row| times[**row] >= time).count();
        let died = rows.iter().filter(|row| times[**row] == time && events[**row] == 1.0).count();
        survival *= 1.0 - died as f64 / at_risk as f64;
        worst.check("time", group.time[index], time);
        assert_eq!((group.n_risk[index], group.n_event[index]), (at_risk as u64, died as u64));
        worst.check("survival", group.survival[index], survival);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_split_does_not_change_a_curve(n_sites in 1_usize..6, deal in proptest::collection::vec(0_usize..6, 1..30), steps in proptest::bool::ANY) {
        let all = Frame::stack(&sites("tcga"));
        let resolution = if steps { TimeResolution::Events(5) } else { TimeResolution::Exact };
        let plan = protocol::Survival { resolution, by: Some(category_of_sites("tcga")), ..plan("T", "E", None) };
        let whole = curves(plan.clone(), std::slice::from_ref(&all));
        // As text: a number that does not exist is null, and null is null.
        let text = |answer: &SurvivalAnswer| serde_json::to_string(answer).unwrap();
        prop_assert!(text(&whole) == text(&curves(plan, &split(&all, n_sites, &deal))));
    }
}
