//! One row, put in or taken out, moves the sums of a pass by no more than the statistic says.

use analytics::analysis::{Analysis, Answered, Input, Next};
use analytics::survey::Scales;
use protocol::statistic::{
    Against, Anova, Blanks, Confidence, Correlation, Describe, DescribedNumber, NumberColumns, RawDescribe, TTest, Table,
    TableTest,
};
use protocol::{Category, Expression, Level, Pass};

use crate::world::Frame;
use crate::world::federation::{batches, contribute, passes};
use crate::world::frame::sites;

fn levels(column: &str, levels: &[f64]) -> Category {
    Category::new(column.to_owned(), levels.iter().copied().map(Level::Number).collect()).unwrap()
}

/// Takes each of some rows out of the data, and compares every pass.
fn check_neighbours<A: Analysis>(analysis: &A, site: &Frame, ranges: &[Option<f64>]) -> Vec<Answered> {
    let (_, history): (_, Vec<Answered>) =
        passes(analysis, std::slice::from_ref(site), 50).unwrap_or_else(|error| panic!("{error}"));
    let inputs: Vec<Input> = analysis.inputs();
    let values = |frame: &Frame, pass: &Pass| contribute(analysis, pass, &batches(frame, &inputs, 50)).unwrap().vectors;
    for Answered { pass, .. } in &history {
        let sensitivity = analysis.sensitivity(pass, ranges).unwrap();
        let layout = analysis.layout(pass).unwrap();
        assert_eq!(sensitivity.len(), layout.len(), "{}", pass.step);
        let whole = values(site, pass);
        for left_out in (0..site.rows).step_by(7) {
            let rows: Vec<usize> = (0..site.rows).filter(|row| *row != left_out).collect();
            let without = values(&site.take(&rows), pass);
            for ((whole, without), bound) in whole.iter().zip(&without).zip(&sensitivity) {
                let squares = whole.values.iter().zip(&without.values).map(|(a, b)| (a - b) * (a - b));
                let moved = squares.sum::<f64>().sqrt();
                assert!(moved <= bound * (1.0 + 1e-9), "{} {}: {moved} > {bound}", pass.step, whole.name);
            }
        }
    }
    history
}

/// [`check_neighbours`], and that without a declared range nothing bounds a sum.
pub(crate) fn check<A: Analysis>(analysis: &A, site: &Frame, ranges: &[Option<f64>]) {
    let history = check_neighbours(analysis, site, ranges);
    let unbounded = vec![None; ranges.len()];
    for Answered { pass, .. } in history.iter().filter(|answered| Scales::of(&answered.pass, ranges.len()).is_ok()) {
        let sums = analysis.layout(pass).unwrap().iter().any(|spec| spec.encoding != protocol::Encoding::COUNT);
        let bounds = analysis.sensitivity(pass, &unbounded).unwrap();
        assert_eq!(sums && !ranges.is_empty(), bounds.iter().any(|bound| bound.is_infinite()), "{}", pass.step);
    }
    assert!(matches!(analysis.next(&[]), Ok(Next::Ask(_))));
}

fn cleveland() -> Frame {
    sites("heart").swap_remove(0)
}

#[test]
fn of_tables() {
    let plan = Table::new(levels("sex", &[0.0, 1.0]), levels("target", &[0.0, 1.0]), TableTest::Chi2).unwrap();
    check(&plan, &cleveland(), &[]);
}

#[test]
fn of_comparisons() {
    let groups = Against::Welch(levels("sex", &[0.0, 1.0]));
    let chol = Expression::column("chol");
    check(&TTest::new(chol.clone(), groups, Confidence::default()).unwrap(), &cleveland(), &[Some(603.0)]);
    check(&TTest::new(chol.clone(), Against::Mean(200.0), Confidence::default()).unwrap(), &cleveland(), &[Some(603.0)]);
    let plan = Anova::new(chol, levels("cp_4", &[0.0, 1.0])).unwrap();
    check(&plan, &cleveland(), &[Some(603.0)]);
}

#[test]
fn of_products() {
    let columns = ["age", "chol", "thalach"].map(Expression::column);
    for blanks in [Blanks::Listwise, Blanks::Pairwise] {
        let plan = Correlation { columns: NumberColumns::new(columns.to_vec()).unwrap(), blanks };
        check(&plan, &cleveland(), &[Some(100.0), Some(603.0), Some(220.0)]);
    }
}

#[test]
fn of_descriptions() {
    let numbers = ["age", "chol", "thalach"].map(|name| DescribedNumber::new(Expression::column(name))).to_vec();
    let categories = vec![levels("sex", &[0.0, 1.0])];
    let plan = Describe::new(RawDescribe { numbers, categories, minimum_rows: 1, ..RawDescribe::default() }).unwrap();
    check(&plan, &cleveland(), &[Some(100.0), Some(603.0), Some(220.0)]);
}

#[test]
fn of_generalised_linear_models() {
    use protocol::statistic::{Errors, GlmFamily};
    let check_model = |formula: &str, family, errors, ranges: &[Option<f64>]| {
        let plan = protocol::Glm {
            formula: formula.parse().unwrap(),
            family,
            link: None,
            weights: None,
            categories: vec![levels("sex", &[0.0, 1.0])],
            errors,
            confidence: Confidence::default(),
        };
        check(&analytics::glm::Glm::new(plan).unwrap(), &cleveland(), ranges);
    };
    let ranges = [Some(1.0), Some(100.0), Some(603.0)];
    check_model("target ~ age + chol", GlmFamily::Binomial, Errors::Model, &ranges);
    check_model("target ~ age + chol", GlmFamily::Binomial, Errors::Hc0, &ranges);
    check_model("target ~ age + chol", GlmFamily::Binomial, Errors::ClusterBy("sex".to_owned()), &ranges);
    check_model("thalach ~ age * C(sex)", GlmFamily::Gaussian, Errors::Hc1, &[Some(220.0), Some(100.0)]);
    check_model("thalach ~ age + chol", GlmFamily::Poisson, Errors::Model, &[Some(220.0), Some(100.0), Some(603.0)]);
}

/// All that leaves a site is counts, but for a label's sum of times, which are below their unit.
#[test]
fn of_survival_curves() {
    use protocol::statistic::{SurvivalInterval, TimeResolution};
    for resolution in [TimeResolution::Exact, TimeResolution::Events(5)] {
        let plan = protocol::Survival {
            time: "T".parse().unwrap(),
            event: "E".parse().unwrap(),
            by: None,
            resolution,
            confidence: Confidence::default(),
            interval: SurvivalInterval::default(),
            horizon: None,
        };
        check_neighbours(&analytics::survival::Survival::new(plan).unwrap(), &sites("tcga")[0], &[]);
    }
}

#[test]
fn of_hazards_with_a_pooled_baseline() {
    use protocol::statistic::{Strata, Ties, TimeResolution};
    for ties in [Ties::Efron, Ties::Breslow] {
        let plan = protocol::Cox {
            formula: "Surv(T, E) ~ age_at_index".parse().unwrap(),
            ties,
            strata: Strata::None,
            resolution: TimeResolution::Exact,
            categories: Vec::new(),
            ridge: 0.0,
            confidence: Confidence::default(),
        };
        let cox = analytics::cox::Cox::new(plan).unwrap();
        check_neighbours(&cox, &sites("tcga")[0], &[Some(10_000.0), Some(1.0), Some(100.0)]);
    }
}
