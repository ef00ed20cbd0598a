//! Records for tests: smooth curves, no randomness.

use protocol::{
    Family, Measured, ModelSpec, OptimizerSpec, Patience, Precision, RawExperimentSpec, RawTrainingPlan, Selection, Tags,
    TrainingArguments, Validation,
};

use super::*;

const NAMES: [&str; 4] = ["Cleveland", "Budapest", "Zurich and Basel", "Long Beach"];

fn node(index: usize) -> NodeId {
    format!("NODE_{index:08x}-6a3c-4d7e-9a55-0c1d2e3f4a5b").parse().unwrap()
}

fn spec(rounds: u32) -> ExperimentSpec {
    let plan = TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Logistic, 0.01).unwrap(),
        precision: Precision::Float64,
        features: vec!["age".into(), "chol".into()],
        target: "num".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.9 },
        arguments: TrainingArguments { test_ratio: 0.25, ..TrainingArguments::default() },
        standardise: true,
        validation: Validation::default(),
    });
    let raw = RawExperimentSpec {
        name: "Heart disease in four hospitals".into(),
        selection: Selection::Tags(Tags::new(["heart-disease"]).unwrap()),
        nodes: None,
        plan: Plan::Training(plan.unwrap()),
        rounds,
        patience: Patience::default(),
        secure: protocol::SecureSpec::NONE,
    };
    ExperimentSpec::new(raw).unwrap()
}

/// Log loss and AUC after some rounds; each site a little different.
fn curve(rounds: u32, site: usize) -> (f64, f64) {
    let learnt = 1.0 - (-f64::from(rounds) / 5.0).exp();
    let offset = (site as f64 * 1.7).sin();
    (std::f64::consts::LN_2 - learnt * (0.32 + 0.08 * offset), 0.5 + learnt * (0.36 + 0.07 * offset))
}

fn report(round: u32, site: usize, is_last: bool) -> Report {
    let (log_loss, auc) = curve(round - 1, site);
    let on = ValidatedOn::Global;
    let measured = [(Metric::Auc, auc), (Metric::LogLoss, log_loss)];
    Report {
        train_rows: 227,
        test_rows: 76,
        dropped_rows: 6,
        loss: (!is_last).then_some(if round == 1 { 0.5 } else { curve(round, site).0 }),
        measured: measured.map(|(metric, value)| Measured { on, metric, value }).to_vec(),
        remarks: vec![],
        work_ms: 10,
    }
}

/// A record of some sites and training rounds, with the validation after the last.
pub(crate) fn record(sites: usize, rounds: u32) -> Record {
    let name = |index: usize| NAMES.get(index).map_or_else(|| format!("Hospital {}", index + 1), ToString::to_string);
    let facts = |index| SiteFacts { node: node(index), name: name(index), rows: RowCount::Rounded(300) };
    let round = |round: u32| {
        let is_last = round > rounds;
        let (log_loss, auc) = curve(round - 1, 0);
        let pooled = [(Metric::Auc, auc, Some(0.0002)), (Metric::LogLoss, log_loss, None)];
        let pooled = pooled.map(|(metric, value, error_bound)| PooledMetric {
            on: ValidatedOn::Global,
            metric,
            value: Some(value),
            error_bound,
            remark: None,
        });
        RoundRecord {
            round,
            sites: (0..sites).map(|site| (node(site), SiteRound::Reported(report(round, site, is_last)))).collect(),
            loss: report(round, 0, is_last).loss,
            pooled: pooled.to_vec(),
            ended: Timestamp::from_millis(1_764_000_000_000 + u64::from(round) * 120),
            seconds: 0.12,
            hidden: None,
        }
    };
    Record {
        experiment: ExperimentFacts {
            id: "exper_9d3e5c7a-1b2f-4e6d-8c9b-a0b1c2d3e4f5".parse().unwrap(),
            spec: spec(rounds),
            requester: Requester { user: "ada".into() },
            software: "0.1.0".into(),
            started: Timestamp::from_millis(1_764_000_000_000),
            ended: Timestamp::from_millis(1_764_000_003_200),
            stopped: None,
            standardisation: vec![
                Standardised { feature: "age".into(), mean: 53.5, deviation: 9.4 },
                Standardised { feature: "chol".into(), mean: 199.1, deviation: 110.2 },
            ],
            intended_use: IntendedUse::default(),
        },
        sites: (0..sites).map(facts).collect(),
        rounds: (1..=rounds + 1).map(round).collect(),
    }
}
