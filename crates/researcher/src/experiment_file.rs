//! The experiment file: TOML that a person writes, read into an [`ExperimentSpec`].
//!
//! One complete example, with every key; [`EXAMPLE`] is the same text:
//!
//! ```toml
#![doc = include_str!("experiment_file/example.toml")]
//! ```
//!
//! A section that is absent is the same as an empty one. Anything unknown, of the wrong type or out of range is refused with
//! its line, what was found, what was expected and, for a slip of the pen, the name that was probably meant. The first
//! problem ends the reading.

mod error;
mod nearest;
mod section;

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::experiment::ExperimentError;
use protocol::model::ModelError;
use protocol::plan::PlanError;
use protocol::{
    Activation, Clipping, DatasetId, ExperimentSpec, Family, KeyNegotiation, Missing, ModelSpec, NodeId, OnFailure,
    OptimizerSpec, Outcome, Patience, Plan, Precision, RawExperimentSpec, RawTrainingPlan, Secagg, SecureSpec, Selection,
    StatisticPlan, Tags, TrainingArguments, TrainingPlan, Validation,
};
use toml::de::DeTable;

use error::Complaint;
pub use error::{ExperimentFileError, Position, Problem};
use section::{Keys, Section};

/// A complete experiment file with every key, to start from.
pub const EXAMPLE: &str = include_str!("experiment_file/example.toml");

/// What the sections may hold. The example shows every one of these keys; a test holds it to that.
const SECTIONS: [Keys; 6] = [
    Keys {
        section: "the experiment file",
        keys: &[
            "name",
            "tags",
            "datasets",
            "nodes",
            "rounds",
            "round_timeout",
            "min_nodes",
            "node_timeout",
            "on_failure",
            "secagg",
            "min_parties",
            "max_colluders",
            "max_losses",
            "clipping",
            "key_negotiation",
            "plan",
            "optimizer",
            "training",
            "validation",
        ],
    },
    Keys { section: "[plan]", keys: &["statistic", "columns", "features", "target", "precision", "standardise", "model"] },
    Keys { section: "[plan.model]", keys: &["type", "l2", "hidden", "activation", "outcome", "classes"] },
    Keys { section: "[optimizer]", keys: &["type", "learning_rate", "momentum", "beta1", "beta2", "epsilon"] },
    Keys {
        section: "[training]",
        keys: &[
            "epochs",
            "num_updates",
            "batch_size",
            "batch_maxnum",
            "dry_run",
            "shuffle",
            "seed",
            "test_ratio",
            "split_column",
            "missing",
        ],
    },
    Keys { section: "[validation]", keys: &["on_global", "on_local"] },
];

/// Reads an experiment file.
pub fn parse(text: &str) -> Result<ExperimentSpec, ExperimentFileError> {
    let document = DeTable::parse(text).map_err(|error| {
        let problem = Problem::Syntax(error.message().trim().replace('\n', "; "));
        ExperimentFileError::new(text, Complaint { span: error.span(), problem })
    })?;
    let read = Sections::open(document.get_ref()).and_then(|sections| sections.experiment());
    read.map_err(|complaint| ExperimentFileError::new(text, complaint))
}

struct Sections<'a> {
    top: Section<'a>,
    plan: Section<'a>,
    /// Absent where `model` is one word.
    model: Section<'a>,
    optimizer: Section<'a>,
    training: Section<'a>,
    validation: Section<'a>,
}

impl<'a> Sections<'a> {
    fn open(table: &'a DeTable<'a>) -> Result<Self, Complaint> {
        let top = Section::top(table);
        top.allow(SECTIONS[0].keys, &SECTIONS)?;
        let plan = top.open("plan", "[plan]")?;
        plan.allow(SECTIONS[1].keys, &SECTIONS)?;
        let model = match plan.get("model") {
            Some(entry) if entry.is_table() => plan.open("model", "[plan.model]")?,
            _ => Section::absent("[plan.model]"),
        };
        let (optimizer, training) = (top.open("optimizer", "[optimizer]")?, top.open("training", "[training]")?);
        let sections = Self { validation: top.open("validation", "[validation]")?, top, plan, model, optimizer, training };
        let below = [&sections.model, &sections.optimizer, &sections.training, &sections.validation];
        for (section, keys) in below.into_iter().zip(&SECTIONS[2..]) {
            section.allow(keys.keys, &SECTIONS)?;
        }
        Ok(sections)
    }

    fn experiment(&self) -> Result<ExperimentSpec, Complaint> {
        let name = self.top.require("name", "a text")?.text("a text")?.to_owned();
        let selection = self.selection()?;
        let nodes = match self.top.get("nodes") {
            None => None,
            Some(entry) => Some(entry.texts("a list of names or ids of nodes")?.into_iter().map(str::to_owned).collect()),
        };
        let (plan, rounds) = self.plan()?;
        let raw =
            RawExperimentSpec { name, selection, nodes, plan, rounds, patience: self.patience()?, secure: self.secure()? };
        ExperimentSpec::new(raw).map_err(|error| {
            let key = match error {
                ExperimentError::Name => "name",
                ExperimentError::NoDatasets => "datasets",
                ExperimentError::Rounds(_) => "rounds",
                ExperimentError::MinNodes(_) => "min_nodes",
                ExperimentError::MinParties(_) => "min_parties",
                ExperimentError::MaxColluders(_) => "max_colluders",
                ExperimentError::Clipping(_) => "clipping",
            };
            self.place(key, Problem::Experiment(error))
        })
    }

    fn selection(&self) -> Result<Selection, Complaint> {
        const TAGS: &str = "a list of tags, such as [\"heart\", \"uci\"]";
        let datasets = self.top.open("datasets", "[datasets]")?;
        if !datasets.is_present() {
            let entry = self.top.require("tags", &format!("{TAGS} (or a section [datasets])"))?;
            let tags = Tags::new(entry.texts(TAGS)?);
            return tags.map(Selection::Tags).map_err(|error| Complaint { span: Some(entry.span()), problem: error.into() });
        }
        if let Some(entry) = self.top.get("tags") {
            let problem = Problem::Together {
                key: "`tags`",
                with: "cannot stand beside [datasets]",
                instead: "give the one or the other",
            };
            return Err(Complaint { span: Some(entry.span()), problem });
        }
        let mut chosen = BTreeMap::new();
        for entry in datasets.entries() {
            let node: NodeId = entry.key().parse().map_err(|_| entry.unexpected_key("the id of a node, NODE_<uuid>"))?;
            let expected = "the id of a dataset, \"dataset_<uuid>\"";
            let dataset: DatasetId = entry.text(expected)?.parse().map_err(|_| entry.unexpected(expected))?;
            chosen.insert(node, dataset);
        }
        Ok(Selection::Datasets(chosen))
    }

    fn patience(&self) -> Result<Patience, Complaint> {
        const ON_FAILURE: [(&str, OnFailure); 3] =
            [("fail", OnFailure::Fail), ("drop", OnFailure::Drop), ("retry", OnFailure::Retry)];
        let mut patience = Patience::default();
        if let Some(entry) = self.top.get("round_timeout") {
            patience.round_timeout_ms = Some(millis(entry.duration()?));
        }
        if let Some(entry) = self.top.get("min_nodes") {
            patience.min_nodes = entry.whole_u32(1..=65_536)?;
        }
        if let Some(entry) = self.top.get("node_timeout") {
            patience.node_timeout_ms = millis(entry.duration()?);
        }
        if let Some(entry) = self.top.get("on_failure") {
            patience.on_failure = entry.choice(&ON_FAILURE)?;
        }
        Ok(patience)
    }

    fn secure(&self) -> Result<SecureSpec, Complaint> {
        const SCHEMES: [(&str, Secagg); 3] =
            [("lom", Secagg::Lom), ("joye-libert", Secagg::JoyeLibert), ("none", Secagg::None)];
        let mut secure = SecureSpec::default();
        if let Some(entry) = self.top.get("secagg") {
            secure.secagg = entry.choice(&SCHEMES)?;
        }
        if let Some(entry) = self.top.get("min_parties") {
            secure.min_parties = entry.whole_u32(2..=65_536)?;
        }
        if let Some(entry) = self.top.get("max_colluders") {
            secure.max_colluders = Some(entry.whole_u32(0..=65_534)?);
        }
        if let Some(entry) = self.top.get("max_losses") {
            secure.max_losses = Some(entry.whole_u32(0..=65_534)?);
        }
        if let Some(entry) = self.top.get("clipping") {
            secure.clipping = if entry.is_text() {
                entry.choice(&[("auto", Clipping::Auto)])?
            } else {
                Clipping::Range(entry.real_or("a number above 0, or \"auto\"")?)
            };
        }
        if let Some(entry) = self.top.get("key_negotiation") {
            secure.key_negotiation =
                entry.choice(&[("relay", KeyNegotiation::Relay), ("direct", KeyNegotiation::Direct)])?;
        }
        Ok(secure)
    }

    fn plan(&self) -> Result<(Plan, u32), Complaint> {
        if self.plan.get("statistic").is_some() {
            return Ok((self.statistic()?, 1));
        }
        let rounds = self.top.require("rounds", "a whole number from 1 to 1000000")?.whole_u32(1..=1_000_000)?;
        if let Some(entry) = self.plan.get("columns") {
            let problem = Problem::Together {
                key: "`columns`",
                with: "goes with `statistic`",
                instead: "a training plan names its columns in `features` and `target`",
            };
            return Err(Complaint { span: Some(entry.span()), problem });
        }
        let raw = RawTrainingPlan {
            target: self.plan.require("target", "the name of a column")?.text("the name of a column")?.to_owned(),
            model: self.model()?,
            precision: match self.plan.get("precision") {
                None => Precision::default(),
                Some(entry) => entry.choice(&[("float32", Precision::Float32), ("float64", Precision::Float64)])?,
            },
            features: match self.plan.get("features") {
                None => Vec::new(),
                Some(entry) => entry.texts("a list of column names")?.into_iter().map(str::to_owned).collect(),
            },
            optimizer: self.optimizer()?,
            arguments: self.arguments()?,
            standardise: flag(&self.plan, "standardise", false)?,
            validation: self.validation()?,
        };
        let plan = TrainingPlan::new(raw).map_err(|error| {
            let key = match &error {
                PlanError::Value { key, .. } | PlanError::Twice { key, .. } => key,
                PlanError::TargetIsFeature(_) => "target",
                PlanError::NoAmount => "training",
            };
            self.place(key, Problem::Plan(error))
        })?;
        Ok((Plan::Training(plan), rounds))
    }

    fn statistic(&self) -> Result<Plan, Complaint> {
        const INSTEAD: [(&str, &str, &str); 4] = [
            ("rounds", "`rounds`", "a statistic takes as many rounds as it needs"),
            ("optimizer", "[optimizer]", "a statistic trains nothing"),
            ("training", "[training]", "a statistic trains nothing"),
            ("validation", "[validation]", "a statistic has no model to validate"),
        ];
        let with = "cannot stand beside `statistic`";
        for (key, shown, instead) in INSTEAD {
            if let Some(entry) = self.top.get(key) {
                return Err(Complaint {
                    span: Some(entry.span()),
                    problem: Problem::Together { key: shown, with, instead },
                });
            }
        }
        let plan = self.plan.named("[plan] with a `statistic`");
        plan.allow(&["statistic", "columns"], &[])?;
        plan.require("statistic", "\"moments\"")?.choice(&[("moments", ())])?;
        let columns = plan.require("columns", "a list of column names")?.texts("a list of column names")?;
        let columns = columns.into_iter().map(str::to_owned).collect();
        let statistic = StatisticPlan::moments(columns);
        statistic.map(Plan::Statistic).map_err(|error| self.place("columns", Problem::Plan(error)))
    }

    fn model(&self) -> Result<ModelSpec, Complaint> {
        let l2 = self.model.get("l2").map_or(Ok(0.0), |entry| entry.real())?;
        ModelSpec::new(self.family()?, l2).map_err(|error| {
            let key = match error {
                ModelError::Classes(_) => "classes",
                ModelError::Hidden => "hidden",
                ModelError::L2(_) => "l2",
            };
            self.place(key, Problem::Model(error))
        })
    }

    fn family(&self) -> Result<Family, Complaint> {
        const TYPES: [(&str, Shape); 4] = [
            ("linear", Shape::Linear),
            ("logistic", Shape::Logistic),
            ("multinomial", Shape::Multinomial),
            ("mlp", Shape::Mlp),
        ];
        let expected = "\"linear\" or \"logistic\", or a section [plan.model]";
        let word = match self.plan.require("model", expected)? {
            entry if entry.is_table() => {
                self.model.require("type", "\"linear\", \"logistic\", \"multinomial\" or \"mlp\"")?
            }
            entry => entry,
        };
        match word.choice(&TYPES)? {
            Shape::Linear => {
                self.model.named("[plan.model] of the type \"linear\"").allow(&["type", "l2"], &[])?;
                Ok(Family::Linear)
            }
            Shape::Logistic => {
                self.model.named("[plan.model] of the type \"logistic\"").allow(&["type", "l2"], &[])?;
                Ok(Family::Logistic)
            }
            Shape::Multinomial => {
                let section = self.model.named("[plan.model] of the type \"multinomial\"");
                section.allow(&["type", "l2", "classes"], &[])?;
                Ok(Family::Multinomial { classes: classes(&section)? })
            }
            Shape::Mlp => self.perceptron(),
        }
    }

    fn perceptron(&self) -> Result<Family, Complaint> {
        const OUTCOMES: [(&str, Target); 3] = [("real", Target::Real), ("binary", Target::Binary), ("class", Target::Class)];
        const LAYERS: &str = "a list with the units of each hidden layer (1 to 100000), such as [16, 8]";
        let section = self.model.named("[plan.model] of the type \"mlp\"");
        let hidden = section.require("hidden", LAYERS)?.wholes_u32(LAYERS, &(1..=100_000))?;
        let activation = match section.get("activation") {
            None => Activation::default(),
            Some(entry) => entry.choice(&[("relu", Activation::Relu), ("tanh", Activation::Tanh)])?,
        };
        let outcome = match section.require("outcome", "\"real\", \"binary\" or \"class\"")?.choice(&OUTCOMES)? {
            Target::Class => Outcome::Class { classes: classes(&section)? },
            other => {
                let section = section.named("[plan.model] with this `outcome`");
                section.allow(&["type", "l2", "hidden", "activation", "outcome"], &[])?;
                if matches!(other, Target::Real) { Outcome::Real } else { Outcome::Binary }
            }
        };
        Ok(Family::Mlp { hidden, activation, outcome })
    }

    fn optimizer(&self) -> Result<OptimizerSpec, Complaint> {
        let number = |key: &str, absent: f64| self.optimizer.get(key).map_or(Ok(absent), |entry| entry.real());
        let is_adam = self.optimizer.require("type", "\"sgd\" or \"adam\"")?.choice(&[("sgd", false), ("adam", true)])?;
        let learning_rate = self.optimizer.require("learning_rate", "a number above 0")?.real()?;
        if is_adam {
            let section = self.optimizer.named("[optimizer] of the type \"adam\"");
            section.allow(&["type", "learning_rate", "beta1", "beta2", "epsilon"], &[])?;
            let (beta1, beta2, epsilon) = (number("beta1", 0.9)?, number("beta2", 0.999)?, number("epsilon", 1e-8)?);
            Ok(OptimizerSpec::Adam { learning_rate, beta1, beta2, epsilon })
        } else {
            let section = self.optimizer.named("[optimizer] of the type \"sgd\"");
            section.allow(&["type", "learning_rate", "momentum"], &[])?;
            Ok(OptimizerSpec::Sgd { learning_rate, momentum: number("momentum", 0.0)? })
        }
    }

    fn arguments(&self) -> Result<TrainingArguments, Complaint> {
        let section = &self.training;
        let whole = |key: &str, least: u32| section.get(key).map(|entry| entry.whole_u32(least..=u32::MAX)).transpose();
        let absent = TrainingArguments::default();
        Ok(TrainingArguments {
            epochs: whole("epochs", 0)?,
            num_updates: whole("num_updates", 0)?,
            batch_size: whole("batch_size", 0)?.unwrap_or(absent.batch_size),
            batch_maxnum: whole("batch_maxnum", 1)?,
            dry_run: flag(section, "dry_run", absent.dry_run)?,
            shuffle: flag(section, "shuffle", absent.shuffle)?,
            seed: section.get("seed").map_or(Ok(absent.seed), |entry| entry.whole(0..=u64::MAX))?,
            test_ratio: section.get("test_ratio").map_or(Ok(absent.test_ratio), |entry| entry.real())?,
            split_column: match section.get("split_column") {
                None => None,
                Some(entry) => Some(entry.text("the name of a column")?.to_owned()),
            },
            missing: match section.get("missing") {
                None => absent.missing,
                Some(entry) => entry.choice(&[("refuse", Missing::Refuse), ("drop", Missing::Drop)])?,
            },
        })
    }

    fn validation(&self) -> Result<Validation, Complaint> {
        let absent = Validation::default();
        Ok(Validation {
            on_global: flag(&self.validation, "on_global", absent.on_global)?,
            on_local: flag(&self.validation, "on_local", absent.on_local)?,
        })
    }

    /// Points at the value of `key`, in whichever section it is; its name is in one section only.
    fn place(&self, key: &str, problem: Problem) -> Complaint {
        let sections = [&self.training, &self.optimizer, &self.model, &self.plan, &self.top];
        let entry = sections.into_iter().find_map(|section| section.get(key));
        Complaint { span: entry.map(|entry| entry.span()), problem }
    }
}

/// The types of model, before their settings are read.
#[derive(Clone, Copy)]
enum Shape {
    Linear,
    Logistic,
    Multinomial,
    Mlp,
}

/// The outcomes of a perceptron, before `classes` is read.
#[derive(Clone, Copy)]
enum Target {
    Real,
    Binary,
    Class,
}

fn classes(section: &Section<'_>) -> Result<u32, Complaint> {
    section.require("classes", "a whole number from 2 to 10000")?.whole_u32(2..=10_000)
}

fn flag(section: &Section<'_>, key: &str, absent: bool) -> Result<bool, Complaint> {
    section.get(key).map_or(Ok(absent), |entry| entry.flag())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
