//! Meta-analyses are those of the sites' own estimates.

use analytics::analysis::Analysis;
use analytics::meta::{Meta, MetaAnswer};
use protocol::statistic::{BetweenSites, Errors, MetaModel, Strata, Ties, TimeResolution};
use protocol::{Confidence, GlmFamily};

use crate::world::federation::{batches, contribute, passes};
use crate::world::frame::{site_names, sites};
use crate::world::reference::numbers;
use crate::world::{Frame, Worst, answer, reference};

fn glm(formula: &str, family: GlmFamily) -> MetaModel {
    MetaModel::Glm(protocol::Glm {
        formula: formula.parse().unwrap(),
        family,
        link: None,
        weights: None,
        categories: Vec::new(),
        errors: Errors::Model,
        confidence: Confidence::default(),
    })
}

fn birthweight(between: BetweenSites) -> Meta {
    Meta::new(protocol::Meta { model: glm("birthweight_g ~ treated + age + bmi + black", GlmFamily::Gaussian), between })
        .unwrap()
}

fn live() -> Vec<Frame> {
    sites("opt").iter().map(|site| site.filter("birth_outcome = 'live'")).collect()
}

/// statsmodels 0.15.0, `combine_effects(…, method_re="dl")` of the reference's estimates by site; the prediction interval and Hedges's variance
/// by their formulas in numpy. Fixed effect, its error, variance between sites, Q, random effect, its error, prediction; Hedges's variance,
/// random effect and error.
#[test]
fn effects_are_those_of_statsmodels() {
    let expected = [
        (
            "age",
            [
                0.567_956_622_143_055_8,
                3.950_266_365_026_150_7,
                174.793_799_273_249_62,
                11.204_924_597_765_43,
                2.571_789_679_174_742,
                7.752_520_078_253_242,
                -63.371_942_134_743_28,
                68.515_521_493_092_76,
                150.660_842_041_580_54,
                2.494_381_076_460_146_4,
                7.350_870_751_789_631,
            ],
        ),
        (
            "black",
            [
                -46.770_013_066_973_32,
                56.848_208_482_029_27,
                3_030.669_072_231_06,
                3.694_114_732_435_112,
                -44.940_016_570_272_55,
                63.360_219_103_036_35,
                -406.085_793_214_319_1,
                316.205_760_063_773_94,
                965.790_881_371_083_7,
                -46.102_461_684_609_51,
                59.009_612_114_798_81,
            ],
        ),
    ];
    let (laird, hedges) = (birthweight(BetweenSites::DersimonianLaird), birthweight(BetweenSites::Hedges));
    let answer = |meta: &Meta| -> MetaAnswer { answer(meta, &live()).unwrap() };
    let (laird, hedges) = (answer(&laird), answer(&hedges));
    let mut worst = Worst::new("meta", 1e-6);
    for (name, expected) in expected {
        let of = |answer: &MetaAnswer| answer.terms.iter().find(|term| term.name == name).unwrap().clone();
        let (laird, hedges) = (of(&laird), of(&hedges));
        let (fixed, random) = (laird.fixed, laird.random);
        let prediction = [random.prediction_low.unwrap(), random.prediction_high.unwrap()];
        let found = [
            fixed.estimate,
            fixed.std_error,
            laird.tau2,
            laird.q,
            random.estimate,
            random.std_error,
            prediction[0],
            prediction[1],
            hedges.tau2,
            hedges.random.estimate,
            hedges.random.std_error,
        ];
        for (index, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            worst.check(&format!("{name} {index}"), found, expected);
        }
        assert_eq!((laird.sites, laird.q_df), (4, 3));
        worst.check("I2", laird.i2, ((laird.q - 3.0) / laird.q).max(0.0));
    }
    // One that does not differ between sites more than by chance.
    assert_eq!(laird.terms[3].tau2, 0.0);
    assert_eq!((laird.sites_fitted, laird.sites_not_fitted), (4, 0));
}

#[test]
fn a_forest_shows_each_site_s_own_estimates() {
    let (meta, live) = (birthweight(BetweenSites::DersimonianLaird), live());
    let (_, history) = passes(&meta, &live, 64).unwrap();
    let pass = &history[2].pass;
    let own = |site: &Frame| {
        let tallied = contribute(&meta, pass, &batches(site, &meta.inputs(), 64)).unwrap();
        tallied.vectors.into_iter().map(|vector| vector.values).collect()
    };
    let names = site_names("opt").iter().map(|name| (*name).to_owned());
    let forest = meta.forest(pass, &names.zip(live.iter().map(own)).collect::<Vec<_>>()).unwrap();
    let mut worst = Worst::new("forest", 1e-6);
    for site in forest {
        let of = |key: &str| numbers(reference(&format!("/opt/ols_birthweight_sites/{}/{key}", site.site)));
        for ((term, coef), se) in site.terms.iter().zip(of("coef")).zip(of("se")) {
            worst.check_to_scale(&term.name, term.estimate, coef, se);
            worst.check(&term.name, term.std_error, se);
        }
    }
}

/// Switzerland and va have no finite logistic fit alone.
#[test]
fn sites_that_cannot_fit_the_model_are_counted_and_left_out() {
    let formula = "target ~ age + sex + trestbps + chol + fbs + thalach + exang + oldpeak + cp_2 + cp_3 + cp_4 + restecg_1 + restecg_2";
    let meta =
        Meta::new(protocol::Meta { model: glm(formula, GlmFamily::Binomial), between: BetweenSites::default() }).unwrap();
    let found = answer(&meta, &sites("heart")).unwrap();
    assert_eq!((found.sites_fitted, found.sites_not_fitted, found.n), (2, 2, 564));
    assert!(found.terms.iter().all(|term| term.sites == 2 && term.random.prediction_low.is_none()));
}

#[test]
fn hazards_are_combined_too() {
    let model = MetaModel::Cox(protocol::Cox {
        formula: "Surv(time_days, event) ~ age + nodes + hormon".parse().unwrap(),
        ties: Ties::Efron,
        strata: Strata::None,
        resolution: TimeResolution::Exact,
        categories: Vec::new(),
        ridge: 0.0,
        confidence: Confidence::default(),
    });
    let meta = Meta::new(protocol::Meta { model, between: BetweenSites::default() }).unwrap();
    let found = answer(&meta, &sites("breast")).unwrap();
    assert_eq!((found.sites_fitted, found.n), (2, 3668));
    assert!(
        found
            .terms
            .iter()
            .all(|term| term.fixed.std_error > 0.0 && term.random.std_error >= term.fixed.std_error * 0.999_999)
    );
}
