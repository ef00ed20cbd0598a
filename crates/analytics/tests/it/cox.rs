//! Cox's model is that of a pooled computation.

use analytics::analysis::AnalysisError;
use analytics::cox::{Cox, CoxAnswer};
use proptest::prelude::*;
use protocol::Confidence;
use protocol::statistic::{Strata, Ties, TimeResolution};

use crate::world::frame::sites;
use crate::world::reference::{numbers, texts};
use crate::world::{Frame, Worst, answer, reference, split};

fn plan(formula: &str, ties: Ties, strata: Strata) -> protocol::Cox {
    protocol::Cox {
        formula: formula.parse().unwrap(),
        ties,
        strata,
        resolution: TimeResolution::Exact,
        categories: Vec::new(),
        ridge: 0.0,
        confidence: Confidence::default(),
    }
}

fn fit(plan: protocol::Cox, sites: &[Frame]) -> Result<CoxAnswer, AnalysisError> {
    answer(&Cox::new(plan)?, sites)
}

const BREAST: &str = "age + meno + size_20_50 + size_gt50 + grade3 + nodes + pgr + er + hormon";

fn breast() -> Vec<Frame> {
    let derive = |frame: Frame| {
        let frame = frame.derive("size_20_50", "size_class = 1").derive("size_gt50", "size_class = 2");
        frame.derive("grade3", "grade = 3")
    };
    sites("breast").into_iter().map(derive).collect()
}

fn check(entry: &str, found: &CoxAnswer) {
    let of = |key: &str| numbers(reference(&format!("{entry}/{key}")));
    let (coef, se, p) = (of("coef"), of("se"), of("p"));
    assert!(found.converged && found.notes.is_empty() && found.aliased.is_empty(), "{:?}", found.notes);
    assert_eq!(
        found.terms.iter().map(|term| term.name.as_str()).collect::<Vec<_>>(),
        texts(reference(&format!("{entry}/terms")))
    );
    let mut worst = Worst::new(entry, 1e-6);
    for (index, term) in found.terms.iter().enumerate() {
        worst.check_to_scale(&term.name, term.estimate, coef[index], se[index]);
        worst.check(&format!("error of {}", term.name), term.std_error, se[index]);
        worst.check(&format!("p of {}", term.name), term.p, p[index]);
    }
    let number = |key: &str| reference(&format!("{entry}/{key}")).as_f64().unwrap();
    assert_eq!((found.n as f64, found.events as f64), (number("n"), number("events")));
    let mut worst = Worst::new(&format!("{entry} fit"), 1e-9);
    worst.check("log likelihood", found.log_likelihood, number("loglik"));
    worst.check("null log likelihood", found.log_likelihood_null, number("loglik_null"));
}

#[test]
fn breast_cancer_is_that_of_both_countries() {
    let all = breast();
    let formula = format!("Surv(time_days, event) ~ {BREAST}");
    for (name, ties) in [("efron", Ties::Efron), ("breslow", Ties::Breslow)] {
        let fit = |strata, sites: &[Frame]| fit(plan(&formula, ties, strata), sites).unwrap();
        check(&format!("/breast/cox/pooled_{name}"), &fit(Strata::None, &all));
        check(&format!("/breast/cox/stratified_by_site_{name}"), &fit(Strata::Site, &all));
        check(&format!("/breast/cox/rotterdam_{name}"), &fit(Strata::Site, &all[..1]));
        check(&format!("/breast/cox/gbsg_{name}"), &fit(Strata::None, &all[1..]));
    }
}

#[test]
fn the_baseline_hazard_is_breslow_s() {
    let found = fit(plan(&format!("Surv(time_days, event) ~ {BREAST}"), Ties::Breslow, Strata::None), &breast()).unwrap();
    let baseline = found.baseline.unwrap();
    let entry = "/breast/cox/baseline_hazard_breslow";
    let mut worst = Worst::new(entry, 1e-6);
    let of = |key: &str| numbers(reference(&format!("{entry}/{key}")));
    for (time, cumulative) in of("times").into_iter().zip(of("cumulative")) {
        let at = baseline.time.iter().rposition(|step| *step <= time).unwrap();
        worst.check(&format!("at {time}"), baseline.cumulative_hazard[at], cumulative);
    }
}

#[test]
fn node_positive_patients_up_to_84_months_are_those_of_the_reference() {
    let derive = |frame: Frame| {
        // Seven years of 365.25 days; beyond it, nobody is followed.
        let frame = frame.derive("is_within", "time_days <= 2556.75");
        frame.derive("event84", "event * is_within").derive("time84", "time_days * is_within + 2556.75 * (1 - is_within)")
    };
    let patients: Vec<Frame> = breast()[..1].iter().map(|frame| derive(frame.filter("nodes > 0"))).collect();
    assert_eq!(patients[0].rows, 1546, "published by Royston and Altman");
    let formula = format!("Surv(time84, event84) ~ {BREAST}");
    for strata in [Strata::Site, Strata::None] {
        let halves = split(&patients[0], if strata == Strata::Site { 1 } else { 3 }, &[0, 1, 2, 2]);
        let found = fit(plan(&formula, Ties::Efron, strata), &halves).unwrap();
        check("/breast/rotterdam_node_positive/cox_84_months_efron", &found);
    }
}

#[test]
fn cancer_genome_patients_are_those_of_all_regions() {
    let all = sites("tcga");
    let few = texts(reference("/tcga/cox_five_terms_efron/terms"));
    let quoted = |terms: &[&str]| terms.iter().map(|term| format!("\"{term}\"")).collect::<Vec<_>>().join(" + ");
    let formula = format!("Surv(T, E) ~ {}", quoted(&few));
    check("/tcga/cox_five_terms_efron", &fit(plan(&formula, Ties::Efron, Strata::None), &all).unwrap());
    check("/tcga/cox_five_terms_efron_stratified", &fit(plan(&formula, Ties::Efron, Strata::Site), &all).unwrap());
    // With a ridge, over all 39 columns.
    let train: Vec<Frame> = all.iter().map(|site| site.filter("split = 'train'")).collect();
    let formula = format!("Surv(T, E) ~ {}", quoted(&texts(reference("/tcga/features"))));
    for (name, ties) in [("efron", Ties::Efron), ("breslow", Ties::Breslow)] {
        let entry = format!("/tcga/ridge_cox_{name}");
        let found = fit(protocol::Cox { ridge: 1.0, ..plan(&formula, ties, Strata::None) }, &train).unwrap();
        let mut worst = Worst::new(&entry, 1e-6);
        for (term, expected) in found.terms.iter().zip(numbers(reference(&format!("{entry}/coef")))) {
            worst.check_to_scale(&term.name, term.estimate, expected, term.std_error);
        }
        worst.check("log likelihood", found.log_likelihood, reference(&format!("{entry}/loglik")).as_f64().unwrap());
    }
}

#[test]
fn steps_stay_close_to_exact_times() {
    let (all, formula) = (breast(), format!("Surv(time_days, event) ~ {BREAST}"));
    let exact = fit(plan(&formula, Ties::Efron, Strata::None), &all).unwrap();
    let steps = protocol::Cox { resolution: TimeResolution::Events(5), ..plan(&formula, Ties::Efron, Strata::None) };
    let stepped = fit(steps, &all).unwrap();
    assert_eq!((exact.resolution, stepped.resolution), ("exact", "steps"));
    for (exact, stepped) in exact.terms.iter().zip(&stepped.terms) {
        assert!((exact.estimate - stepped.estimate).abs() < 0.1 * exact.std_error, "{exact:?} {stepped:?}");
    }
}

#[test]
fn a_monotone_likelihood_is_said() {
    // Everyone with x = 1 has the event before anyone with x = 0.
    let x: Vec<f64> = (0..40).map(|row| f64::from(u8::from(row < 20))).collect();
    let noise: Vec<f64> = (0..40).map(|row| f64::from(row * 7 % 11)).collect();
    let time: Vec<f64> = (0..40).map(|row| f64::from(row + 1)).collect();
    let frame = Frame::new(vec![("x", x), ("noise", noise), ("t", time), ("d", vec![1.0; 40])]);
    let found = fit(plan("Surv(t, d) ~ noise + x", Ties::Efron, Strata::Site), &[frame]).unwrap();
    assert!(!found.converged);
    assert_eq!(found.notes, ["no finite estimate exists: the likelihood is monotone in x"]);
}

#[test]
fn columns_that_repeat_others_are_named_and_left_out() {
    let all: Vec<Frame> = breast().into_iter().map(|site| site.derive("age_in_months", "age * 12")).collect();
    let found = fit(plan("Surv(time_days, event) ~ age + nodes + age_in_months", Ties::Efron, Strata::None), &all).unwrap();
    assert_eq!((found.aliased.as_slice(), found.terms.len(), found.converged), (&["age_in_months".to_owned()][..], 2, true));
}

#[test]
fn what_cannot_be_computed_is_said() {
    let check = |plan: Result<Cox, AnalysisError>, message: &str| assert_eq!(plan.unwrap_err().to_string(), message);
    check(Cox::new(plan("y ~ x", Ties::Efron, Strata::Site)), "Cox's model needs a response Surv(time, event)");
    check(Cox::new(plan("Surv(t, d) ~ 1", Ties::Efron, Strata::Site)), "the formula has no terms");
    let frame = |times: [f64; 2], events: [f64; 2]| {
        [Frame::new(vec![("t", times.to_vec()), ("d", events.to_vec()), ("x", vec![1.0, 2.0])])]
    };
    let error = |frames: &[Frame]| fit(plan("Surv(t, d) ~ x", Ties::Efron, Strata::Site), frames).unwrap_err().to_string();
    assert_eq!(error(&frame([1.0, 2.0], [0.0, 0.0])), "no complete row has an event");
    assert_eq!(error(&frame([1.0, -2.0], [0.0, 1.0])), "a time is negative, or an event is neither 0 nor 1");
    assert_eq!(error(&frame([1.0, 2.0], [2.0, 1.0])), "a time is negative, or an event is neither 0 nor 1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn a_split_does_not_change_a_pooled_baseline(n_sites in 1_usize..6, deal in proptest::collection::vec(0_usize..6, 1..30), steps in proptest::bool::ANY) {
        let all = Frame::stack(&sites("tcga"));
        let resolution = if steps { TimeResolution::Events(5) } else { TimeResolution::Exact };
        let plan = protocol::Cox { resolution, ..plan("Surv(T, E) ~ age_at_index + \"ajcc_pathologic_stage_Stage IIA\"", Ties::Efron, Strata::None) };
        let whole = fit(plan.clone(), std::slice::from_ref(&all)).unwrap();
        let parts = fit(plan, &split(&all, n_sites, &deal)).unwrap();
        for (whole, parts) in whole.terms.iter().zip(&parts.terms) {
            prop_assert!((whole.estimate - parts.estimate).abs() <= 1e-9 * whole.std_error);
            prop_assert!((whole.std_error / parts.std_error - 1.0).abs() <= 1e-9);
        }
    }
}
