//! Generalised linear models are those of a pooled computation.

use analytics::analysis::AnalysisError;
use analytics::glm::{Glm, GlmAnswer};
use proptest::prelude::*;
use protocol::statistic::{Errors, Link};
use protocol::{Category, Confidence, GlmFamily, Level};

use crate::world::frame::sites;
use crate::world::reference::{numbers, texts};
use crate::world::{Frame, Worst, answer, reference, split};

fn plan(formula: &str, family: GlmFamily) -> protocol::Glm {
    protocol::Glm {
        formula: formula.parse().unwrap(),
        family,
        link: None,
        weights: None,
        categories: Vec::new(),
        errors: Errors::Model,
        confidence: Confidence::default(),
    }
}

fn fit(formula: &str, family: GlmFamily, sites: &[Frame]) -> Result<GlmAnswer, AnalysisError> {
    answer(&Glm::new(plan(formula, family))?, sites)
}

/// `y ~ …` over the terms of a reference entry.
fn formula(response: &str, entry: &str) -> String {
    let terms = texts(reference(&format!("{entry}/terms")));
    let terms: Vec<String> = terms.iter().filter(|term| **term != "const").map(|term| format!("\"{term}\"")).collect();
    format!("\"{response}\" ~ {}", terms.join(" + "))
}

fn number(entry: &str, key: &str) -> Option<f64> {
    let entry = reference(entry);
    entry.get(key).map(|value| value.as_f64().unwrap())
}

/// Compares coefficients and their errors to 1e-6, and what else the entry has.
fn check(entry: &str, found: &GlmAnswer) {
    let mut worst = Worst::new(entry, 1e-6);
    let of = |key: &str| numbers(reference(&format!("{entry}/{key}")));
    let (coef, se) = (of("coef"), of("se"));
    assert_eq!(
        found.terms.iter().map(|term| term.name.as_str()).collect::<Vec<_>>(),
        texts(reference(&format!("{entry}/terms")))
    );
    assert!(found.converged && found.aliased.is_empty() && found.notes.is_empty(), "{found:?}");
    let has_t = reference(entry).get("t").is_some();
    let p = of("p");
    for (index, term) in found.terms.iter().enumerate() {
        worst.check_to_scale(&term.name, term.estimate, coef[index], se[index]);
        worst.check(&format!("error of {}", term.name), term.std_error, se[index]);
        if has_t || reference(entry).get("loglik_null").is_some() {
            worst.check(&format!("p of {}", term.name), term.p, p[index]);
        }
    }
    assert_eq!(Some(found.n as f64), number(entry, "n"));
    let mut worst = Worst::new(&format!("{entry} fit"), 1e-9);
    worst.check("log likelihood", found.log_likelihood, number(entry, "loglik").unwrap());
    if let Some(deviance) = number(entry, "deviance").or(number(entry, "rss")) {
        worst.check("deviance", found.deviance, deviance);
    }
    if let Some(null) = number(entry, "null_deviance").or(number(entry, "loglik_null").map(|null| -2.0 * null)) {
        worst.check("null deviance", found.null_deviance, null);
    }
    if let Some(dispersion) = number(entry, "sigma2").or(number(entry, "scale")) {
        worst.check("dispersion", found.dispersion, dispersion);
    }
    if let Some(events) = number(entry, "events") {
        assert_eq!(found.events.map(|events| events as f64), Some(events));
    }
}

fn check_set(entry: &str, response: &str, family: GlmFamily, sites: &[Frame]) {
    check(entry, &fit(&formula(response, entry), family, sites).unwrap());
}

#[test]
fn heart_disease_is_that_of_all_hospitals() {
    let heart = sites("heart");
    check_set("/heart/logit", "target", GlmFamily::Binomial, &heart);
    check_set("/heart/logit_sites/cleveland", "target", GlmFamily::Binomial, &heart[..1]);
    check_set("/heart/logit_sites/hungarian", "target", GlmFamily::Binomial, &heart[1..2]);
    let dummies = |frame: Frame| {
        let frame = frame.derive("hungarian", "site = 'hungarian'").derive("switzerland", "site = 'switzerland'");
        frame.derive("va", "site = 'va'")
    };
    let with_dummies: Vec<Frame> = heart.into_iter().map(dummies).collect();
    check_set("/heart/logit_site_intercepts", "target", GlmFamily::Binomial, &with_dummies);
}

#[test]
fn birthweights_are_those_of_all_clinics() {
    let opt = sites("opt");
    let live: Vec<Frame> = opt.iter().map(|site| site.filter("birth_outcome = 'live'")).collect();
    check_set("/opt/ols_birthweight", "birthweight_g", GlmFamily::Gaussian, &live);
    for (index, site) in ["ny", "mn", "ky", "ms"].iter().enumerate() {
        check_set(&format!("/opt/ols_birthweight_sites/{site}"), "birthweight_g", GlmFamily::Gaussian, &live[index..=index]);
    }
    let dummies = |frame: Frame| frame.derive("mn", "site = 'mn'").derive("ms", "site = 'ms'").derive("ny", "site = 'ny'");
    let with_dummies: Vec<Frame> = live.into_iter().map(dummies).collect();
    check_set("/opt/ols_birthweight_site_intercepts", "birthweight_g", GlmFamily::Gaussian, &with_dummies);
    check_set("/opt/logit_preterm", "preterm", GlmFamily::Binomial, &opt);
    check_set("/opt/poisson_visits", "visits_attended", GlmFamily::Poisson, &opt);
    check_set("/opt/poisson_previous_pregnancies", "previous_pregnancies", GlmFamily::Poisson, &opt);
}

#[test]
fn other_sets_are_those_of_all_sites() {
    check_set("/diabetes/ols", "target", GlmFamily::Gaussian, &sites("diabetes"));
    check_set("/pseudo_adni/ols_mmse", "MMSE.bl", GlmFamily::Gaussian, &sites("pseudo_adni"));
    check_set("/omop/poisson_conditions", "conditions", GlmFamily::Poisson, &sites("omop"));
    check_set("/omop/logit_gi_bleed", "gi_bleed", GlmFamily::Binomial, &sites("omop"));
    check_set("/omop/ols_systolic", "systolic", GlmFamily::Gaussian, &sites("omop"));
}

#[test]
fn simulated_cohorts_are_those_published() {
    let cnsim: Vec<Frame> =
        sites("cnsim").into_iter().map(|site| site.derive("GENDER_x_BMI", "GENDER * PM_BMI_CONTINUOUS")).collect();
    check_set("/datashield/cnsim_binomial", "DIS_DIAB", GlmFamily::Binomial, &cnsim);
    check_set("/datashield/cnsim_gaussian", "LAB_TSC", GlmFamily::Gaussian, &cnsim);
    check_set("/datashield/survival_poisson", "survtime", GlmFamily::Poisson, &sites("survival"));
    // As an interaction of the formula.
    let found = fit("DIS_DIAB ~ GENDER * PM_BMI_CONTINUOUS + LAB_HDL", GlmFamily::Binomial, &cnsim).unwrap();
    assert!((found.deviance - 1036.031).abs() < 0.001, "published by DataSHIELD: {}", found.deviance);
    assert_eq!(found.terms[4].name, "GENDER:PM_BMI_CONTINUOUS");
}

fn opt() -> Vec<Frame> {
    sites("opt")
}

fn check_numbers(of: &str, found: &[f64], expected: &[f64]) {
    let mut worst = Worst::new(of, 1e-6);
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        worst.check(&index.to_string(), *found, *expected);
    }
}

fn estimates(found: &GlmAnswer) -> Vec<f64> {
    found.terms.iter().map(|term| term.estimate).collect()
}

fn std_errors(found: &GlmAnswer) -> Vec<f64> {
    found.terms.iter().map(|term| term.std_error).collect()
}

/// statsmodels 0.15.0: `OLS(…).fit(cov_type=…)` and `GLM(…, Binomial()).fit(cov_type=…)`.
#[test]
fn robust_errors_are_those_of_statsmodels() {
    let texts = |names: &[&str]| names.iter().map(|name| Level::Text((*name).to_owned())).collect();
    let site = Category::new("site".to_owned(), texts(&["ny", "mn", "ky", "ms"])).unwrap();
    let condition = "birth_outcome = 'live' and tobacco is not missing and preterm is not missing";
    let live: Vec<Frame> = opt().iter().map(|frame| frame.filter(condition)).collect();
    let check = |formula: &str, family, errors: Errors, sites: &[Frame], expected: &[f64]| {
        let plan = protocol::Glm { errors: errors.clone(), categories: vec![site.clone()], ..plan(formula, family) };
        let found = answer(&Glm::new(plan).unwrap(), sites).unwrap();
        check_numbers(&format!("{errors:?}"), &std_errors(&found), expected);
    };
    let ols = |errors, expected: &[f64]| {
        check("birthweight_g ~ treated + age + bmi + black", GlmFamily::Gaussian, errors, &live, expected);
    };
    ols(
        Errors::Hc0,
        &[
            125.805_110_583_794_63,
            42.774_446_064_512_28,
            4.295_445_197_474_02,
            3.016_519_612_942_425_4,
            45.905_735_171_248_71,
        ],
    );
    ols(
        Errors::Hc1,
        &[126.252_339_546_986_99, 42.926_506_430_548_19, 4.310_715_225_004_71, 3.027_243_143_430_856, 46.068_927_065_838_29],
    );
    ols(
        Errors::Hc2,
        &[
            126.434_019_265_548_06,
            42.932_538_087_417_086,
            4.316_386_440_093_819,
            3.035_992_812_743_053,
            46.083_904_975_332_196,
        ],
    );
    ols(
        Errors::Hc3,
        &[
            127.068_417_478_165_77,
            43.091_465_161_023_66,
            4.337_461_329_425_082,
            3.055_681_461_036_789_5,
            46.263_015_700_698_11,
        ],
    );
    let by_site = [
        142.569_270_618_771_84,
        45.727_815_038_930_01,
        7.111_588_979_117_648_5,
        2.541_215_044_010_342,
        22.772_681_305_987_348,
    ];
    ols(Errors::ClusterBySite, &by_site);
    ols(Errors::ClusterBy("site".to_owned()), &by_site);
    let all: Vec<Frame> = opt().iter().map(|frame| frame.filter("visits_attended is not missing")).collect();
    let logit =
        |errors, expected: &[f64]| check("preterm ~ treated + age + black", GlmFamily::Binomial, errors, &all, expected);
    logit(
        Errors::Hc0,
        &[0.532_095_982_245_553_9, 0.212_888_196_332_320_37, 0.018_223_395_930_385_782, 0.214_294_054_539_863_64],
    );
    logit(
        Errors::ClusterBySite,
        &[0.989_056_149_969_925_2, 0.220_328_384_065_672_8, 0.042_514_794_670_913_67, 0.181_488_309_443_454_18],
    );
}

/// statsmodels 0.15.0 with the tolerance 1e-15; the gamma log likelihood by R's formula in scipy.
#[test]
fn gamma_offsets_weights_and_the_log_link_are_those_of_statsmodels() {
    let visits: Vec<Frame> =
        opt().iter().map(|frame| frame.filter("visits_attended > 0 and preterm is not missing")).collect();
    let gamma = |link| {
        let plan = protocol::Glm { link, ..plan("visits_attended ~ treated + age + black", GlmFamily::Gamma) };
        answer(&Glm::new(plan).unwrap(), &visits).unwrap()
    };
    let inverse = gamma(None);
    let expected =
        [0.216_499_788_327_512_15, 0.010_650_744_458_664_78, 0.000_430_492_746_259_332_3, 0.028_396_037_759_972_004];
    check_numbers("gamma", &estimates(&inverse), &expected);
    let expected =
        [0.012_793_213_156_711_161, 0.005_199_958_389_892_076, 0.000_467_764_457_699_986_65, 0.005_350_353_076_895_903];
    check_numbers("gamma errors", &std_errors(&inverse), &expected);
    let fit = |found: &GlmAnswer| [found.deviance, found.null_deviance, found.dispersion, found.log_likelihood];
    check_numbers(
        "gamma fit",
        &fit(&inverse),
        &[98.267_794_353_977_34, 101.138_744_210_063_58, 0.085_380_566_934_287_46, -1_323.135_530_600_135_8],
    );
    let log = gamma(Some(Link::Log));
    let expected = [1.523_082_131_916_248_4, -0.042_374_408_453_161_19, -0.001_742_293_927_213_92, -0.114_167_309_495_031_7];
    check_numbers("gamma with log", &estimates(&log), &expected);
    check_numbers(
        "gamma with log fit",
        &fit(&log),
        &[98.299_288_140_250_97, 101.138_744_210_063_58, 0.085_361_661_335_609_23, -1_323.259_116_034_934_3],
    );

    let found = answer(
        &Glm::new(plan("visits_attended ~ treated + black + offset(log(age)) + I(0 * age)", GlmFamily::Poisson)).unwrap(),
        &visits,
    )
    .unwrap();
    assert_eq!(found.aliased, ["I(0 * age)"]);
    check_numbers(
        "offset",
        &estimates(&found),
        &[-1.780_525_825_658_714_2, -0.058_708_131_774_096_436, -0.104_828_413_427_575_76],
    );
    check_numbers(
        "offset errors",
        &std_errors(&found),
        &[0.029_053_449_541_772_827, 0.036_007_280_956_236_33, 0.036_644_190_346_649_95],
    );
    check_numbers(
        "offset fit",
        &[found.deviance, found.null_deviance, found.log_likelihood],
        &[453.994_018_341_539_34, 464.870_420_418_257_8, -1_445.756_587_577_004_7],
    );

    let weighted = protocol::Glm {
        weights: Some("age / 30".parse().unwrap()),
        ..plan("visits_attended ~ treated + black", GlmFamily::Gaussian)
    };
    let found = answer(&Glm::new(weighted).unwrap(), &visits).unwrap();
    check_numbers("weights", &estimates(&found), &[4.385_973_323_029_807, -0.226_027_796_340_19, -0.440_016_384_473_993_94]);
    check_numbers(
        "weights errors",
        &std_errors(&found),
        &[0.070_598_897_124_894_37, 0.085_314_031_337_431_58, 0.086_142_300_564_066_53],
    );
    check_numbers(
        "weights fit",
        &[found.deviance, found.log_likelihood],
        &[898.911_385_548_507_8, -1_198.080_419_043_499_2],
    );

    let ratio = protocol::Glm { link: Some(Link::Log), ..plan("preterm ~ treated", GlmFamily::Binomial) };
    let found = answer(&Glm::new(ratio).unwrap(), &visits).unwrap();
    check_numbers("risk ratio", &estimates(&found), &[-2.122_001_156_098_628_7, -0.033_000_790_815_241_425]);
    check_numbers("risk ratio errors", &std_errors(&found), &[0.138_329_186_248_296_76, 0.199_236_944_194_211_29]);
}

/// Switzerland and va have no finite fit alone, as the data's own notes say.
#[test]
fn separated_outcomes_are_said() {
    let heart = sites("heart");
    let formula = formula("target", "/heart/logit");
    for (site, term) in [(2, "cp_2"), (3, "cp_2")] {
        let found = fit(&formula, GlmFamily::Binomial, &heart[site..=site]).unwrap();
        assert!(!found.converged, "{site}: {found:?}");
        assert!(found.notes[0].starts_with("no finite estimate exists: "), "{site} {term}: {:?}", found.notes);
    }
    // One column tells all outcomes.
    let x: Vec<f64> = (0..30).map(f64::from).collect();
    let y = x.iter().map(|x| f64::from(u8::from(*x > 14.0))).collect();
    let found = fit("y ~ x", GlmFamily::Binomial, &[Frame::new(vec![("x", x), ("y", y)])]).unwrap();
    assert!(!found.converged && found.notes[0].contains("separate the outcomes"), "{:?}", found.notes);
}

#[test]
fn combinations_of_other_terms_are_named_and_left_out() {
    let heart: Vec<Frame> = sites("heart").into_iter().map(|site| site.derive("months", "age * 12 + 1")).collect();
    let found = fit("target ~ age + chol + months", GlmFamily::Binomial, &heart).unwrap();
    let without = fit("target ~ age + chol", GlmFamily::Binomial, &heart).unwrap();
    assert_eq!(found.aliased, ["months"]);
    check_numbers("without the alias", &estimates(&found), &estimates(&without));
}

#[test]
fn models_that_cannot_be_are_refused() {
    let frame = |y: &[f64]| [Frame::new(vec![("y", y.to_vec()), ("x", (0..y.len()).map(|x| x as f64).collect())])];
    let check = |formula: &str, family, sites: &[Frame], message: &str| {
        assert_eq!(fit(formula, family, sites).unwrap_err().to_string(), message, "{formula}");
    };
    check("Surv(t, d) ~ x", GlmFamily::Gaussian, &[], "a survival response needs Cox's model");
    check("y ~ C(x)", GlmFamily::Gaussian, &[], "the levels of \"x\" are not known");
    check("y ~ x", GlmFamily::Gaussian, &frame(&[]), "there are no rows");
    check("y ~ x", GlmFamily::Gaussian, &frame(&[f64::NAN; 3]), "no row has a value in every column of the formula");
    check("y ~ x", GlmFamily::Gaussian, &frame(&[1.0, 2.0]), "there are no more rows than terms");
    let impossible = "a response is none that the family can have, or a weight is negative";
    check("y ~ x", GlmFamily::Binomial, &frame(&[0.0, 2.0, 1.0]), impossible);
    check("y ~ x", GlmFamily::Poisson, &frame(&[0.0, -2.0, 1.0]), impossible);
    check("y ~ x", GlmFamily::Gamma, &frame(&[0.0, 2.0, 1.0]), impossible);
    check(
        "y ~ x",
        GlmFamily::Binomial,
        &frame(&[1.0; 4]),
        "every response is the same, at the edge of what the family can have",
    );
}

#[test]
fn large_and_small_columns_do_not_lose_digits() {
    let heart = sites("heart");
    let scaled: Vec<Frame> = heart
        .iter()
        .map(|site| site.clone().derive("far", "age * 1000000 + 1000000000").derive("near", "chol / 100000000"))
        .collect();
    let found = fit("target ~ far + near", GlmFamily::Binomial, &scaled).unwrap();
    let plain = fit("target ~ age + chol", GlmFamily::Binomial, &heart).unwrap();
    let back = [
        found.terms[1].estimate * 1e6,
        found.terms[2].estimate / 1e8,
        found.terms[1].std_error * 1e6,
        found.terms[2].std_error / 1e8,
    ];
    check_numbers(
        "scaled",
        &back,
        &[plain.terms[1].estimate, plain.terms[2].estimate, plain.terms[1].std_error, plain.terms[2].std_error],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_split_does_not_change_a_model(n_sites in 1_usize..6, deal in proptest::collection::vec(0_usize..6, 1..30), family in 0_usize..3) {
        let all = Frame::stack(&sites("heart"));
        let (formula, family) = [
            ("target ~ age + chol * sex", GlmFamily::Binomial),
            ("thalach ~ age + chol", GlmFamily::Gaussian),
            ("thalach ~ age + chol", GlmFamily::Poisson),
        ][family];
        let whole = fit(formula, family, std::slice::from_ref(&all)).unwrap();
        let parts = fit(formula, family, &split(&all, n_sites, &deal)).unwrap();
        prop_assert_eq!(whole.iterations, parts.iterations);
        for (whole, parts) in whole.terms.iter().zip(&parts.terms) {
            prop_assert!((whole.estimate - parts.estimate).abs() <= 1e-9 * whole.std_error);
            prop_assert!((whole.std_error / parts.std_error - 1.0).abs() <= 1e-9);
        }
    }
}
