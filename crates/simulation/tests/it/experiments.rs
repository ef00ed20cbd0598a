//! What is asked for in these tests, and of whom.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use protocol::model::Activation;
use protocol::{
    ExperimentSpec, Family, ModelSpec, OnFailure, OptimizerSpec, Outcome, Patience, Plan, Precision, RawExperimentSpec,
    RawTrainingPlan, Secagg, SecureSpec, Selection, StatisticPlan, TrainingArguments, TrainingPlan, Validation,
};
use simulation::template::{TAG, Template};

/// Hospitals and their rows. A quarter, rounded down, is held out: they train on 18, 24 and 30.
const SITES: [(&str, u64); 3] = [("north", 24), ("south", 31), ("west", 40)];

/// Three hospitals; made once in a process.
pub(crate) fn template() -> Arc<Template> {
    static TEMPLATE: OnceLock<Arc<Template>> = OnceLock::new();
    TEMPLATE.get_or_init(|| Arc::new(Template::make(&SITES))).clone()
}

/// The same three hospitals for one test alone, which may do something to their data.
pub(crate) fn own_template() -> Arc<Template> {
    Arc::new(Template::make(&SITES))
}

/// Waits long, and asks again.
pub(crate) fn patient() -> Patience {
    Patience { round_timeout_ms: None, min_nodes: 3, node_timeout_ms: 3_600_000, on_failure: OnFailure::Retry }
}

/// An experiment that all three must take part in, and that waits long for them.
pub(crate) fn spec(plan: Plan, rounds: u32) -> RawExperimentSpec {
    RawExperimentSpec {
        name: "simulated".to_owned(),
        selection: Selection::Tags(vec![TAG.to_owned()].try_into().unwrap()),
        nodes: Some(SITES.map(|(name, _)| name.to_owned()).into_iter().collect::<BTreeSet<_>>()),
        plan,
        rounds,
        patience: patient(),
        secure: SecureSpec::NONE,
    }
}

/// The same, and no node's contribution can be read.
pub(crate) fn hidden(spec: RawExperimentSpec) -> RawExperimentSpec {
    RawExperimentSpec { secure: SecureSpec { secagg: Secagg::Lom, ..SecureSpec::default() }, ..spec }
}

/// A small training; what is not given here is the same in all.
pub(crate) fn training(family: Family, precision: Precision, optimizer: OptimizerSpec) -> RawTrainingPlan {
    let is_real = matches!(family, Family::Linear);
    RawTrainingPlan {
        model: ModelSpec::new(family, 0.001).unwrap(),
        precision,
        features: ["x1", "x2", "x3"].map(str::to_owned).to_vec(),
        target: if is_real { "outcome" } else { "class" }.to_owned(),
        optimizer,
        arguments: TrainingArguments {
            epochs: Some(3),
            batch_size: 8,
            test_ratio: 0.25,
            seed: 7,
            ..TrainingArguments::default()
        },
        standardise: true,
        validation: Validation::default(),
    }
}

pub(crate) fn sgd(learning_rate: f64) -> OptimizerSpec {
    OptimizerSpec::Sgd { learning_rate, momentum: 0.9 }
}

pub(crate) fn adam() -> OptimizerSpec {
    OptimizerSpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
}

pub(crate) fn plan(raw: RawTrainingPlan) -> Plan {
    Plan::Training(TrainingPlan::new(raw).unwrap())
}

/// The kinds of experiment that schedules are tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    LogisticSgd32,
    PerceptronAdam64,
    /// Values of a size that makes float32 scales repeat the first round.
    LinearSgd32,
    Moments,
    /// The longest: a hundred rounds of training.
    HundredRounds,
    // Under secure aggregation.
    HiddenLogistic32,
    HiddenPerceptron64,
    HiddenMoments,
    HiddenTwentyRounds,
    /// By Joye-Libert.
    EncryptedMoments,
}

impl Kind {
    pub(crate) const SHORT: [Self; 4] = [Self::LogisticSgd32, Self::PerceptronAdam64, Self::LinearSgd32, Self::Moments];

    pub(crate) const HIDDEN: [Self; 3] = [Self::HiddenLogistic32, Self::HiddenPerceptron64, Self::HiddenMoments];

    pub(crate) fn spec(self) -> ExperimentSpec {
        ExperimentSpec::new(self.raw()).unwrap()
    }

    pub(crate) fn raw(self) -> RawExperimentSpec {
        match self {
            Self::LogisticSgd32 => spec(plan(training(Family::Logistic, Precision::Float32, sgd(0.05))), 3),
            Self::PerceptronAdam64 => {
                let family = Family::Mlp { hidden: vec![4], activation: Activation::Tanh, outcome: Outcome::Binary };
                let base = training(family, Precision::Float64, adam());
                let arguments = TrainingArguments { test_ratio: 0.0, ..base.arguments.clone() };
                spec(plan(RawTrainingPlan { arguments, standardise: false, ..base }), 3)
            }
            Self::LinearSgd32 => {
                let base = training(Family::Linear, Precision::Float32, sgd(0.01));
                let validation = Validation { on_global: true, on_local: true };
                spec(plan(RawTrainingPlan { standardise: false, validation, ..base }), 2)
            }
            Self::HundredRounds => {
                let base = training(Family::Logistic, Precision::Float32, adam());
                let arguments = TrainingArguments { test_ratio: 0.0, ..base.arguments.clone() };
                spec(plan(RawTrainingPlan { arguments, ..base }), 100)
            }
            Self::HiddenLogistic32 => hidden(Self::LogisticSgd32.raw()),
            Self::HiddenPerceptron64 => hidden(Self::PerceptronAdam64.raw()),
            Self::HiddenMoments => hidden(Self::Moments.raw()),
            Self::EncryptedMoments => {
                let secure = SecureSpec { secagg: Secagg::JoyeLibert, ..SecureSpec::default() };
                RawExperimentSpec { secure, ..Self::Moments.raw() }
            }
            Self::HiddenTwentyRounds => RawExperimentSpec { rounds: 20, ..hidden(Self::HundredRounds.raw()) },
            Self::Moments => {
                let columns = ["x1", "x2", "x3", "outcome"].map(str::to_owned).to_vec();
                spec(Plan::Statistic(StatisticPlan::Moments { columns }), 1)
            }
        }
    }
}
