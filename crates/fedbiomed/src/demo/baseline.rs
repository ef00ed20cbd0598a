//! What the federated model is compared with, trained in the demo's own process on all hospitals' files: a model of each
//! hospital alone, and one on all rows in one place, by the same plan and for as many passes.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use data::{ColumnChoice, CsvParameters, Description, Parameters, Place, RawDescription};
use learning::{Assignment, Metrics, Split, Standardisation, Stream, Table, Validated};
use protocol::{Metric, Missing, NodeId, Tags, TrainingPlan};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::demo::hospital::{FEATURES, HOSPITALS, SPLIT, TARGET};
use crate::error::Failure;

/// The metrics of the table; a reason where one is not defined.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Scores {
    pub auc: Option<f64>,
    pub accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Scores {
    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self { auc: None, accuracy: None, reason: Some(reason.into()) }
    }

    fn of(metrics: &Metrics) -> Self {
        let reason = metrics.undefined().find(|(metric, _)| matches!(metric, Metric::Auc | Metric::Accuracy));
        Self {
            auc: metrics.get(Metric::Auc),
            accuracy: metrics.get(Metric::Accuracy),
            reason: reason.map(|(_, why)| why.to_string()),
        }
    }
}

/// With fewer held-out rows of a class than this, an AUC ranks next to nobody and means nothing.
const FEWEST_OF_A_CLASS: usize = 2;

/// One hospital's part of the comparison.
pub(super) struct SiteBaseline {
    pub n_train: u64,
    pub n_test: u64,
    pub local: Scores,
    /// The model on pooled data, measured on this hospital's held-out rows.
    pub pooled: Scores,
    /// Why no AUC on this hospital's held-out rows means anything, if so.
    pub no_auc: Option<String>,
}

/// The whole comparison.
pub(super) struct Baseline {
    pub sites: Vec<SiteBaseline>,
    /// The model on pooled data, measured on all held-out rows.
    pub pooled: Scores,
}

/// Rows of one or more hospitals.
#[derive(Default)]
struct Rows {
    columns: Vec<Vec<f64>>,
    target: Vec<f64>,
    train: Vec<u32>,
    test: Vec<u32>,
}

/// Trains both kinds of model: `rounds` times what the plan trains in a round.
pub(super) fn train(plan: &TrainingPlan, rounds: u32, folder: &Path) -> Result<Baseline, Failure> {
    let hospitals: Vec<Rows> =
        HOSPITALS.iter().map(|hospital| Rows::read(&folder.join(hospital.file))).collect::<Result<_, _>>()?;
    let together = Rows::stack(&hospitals)?;
    let pooled_model = Model::train(plan, rounds, &together)?;
    let mut sites = Vec::new();
    for rows in &hospitals {
        let local = if learning::has_one_class(plan.model().outcome(), &rows.training_targets()) {
            Scores::missing("its training rows are all of one class, so it has no model of its own")
        } else {
            Model::train(plan, rounds, rows)?.measure(plan, rows)?
        };
        let pooled = pooled_model.measure(plan, rows)?;
        let (n_train, n_test) = (rows.train.len() as u64, rows.test.len() as u64);
        sites.push(SiteBaseline { n_train, n_test, local, pooled, no_auc: rows.no_auc() });
    }
    Ok(Baseline { sites, pooled: pooled_model.measure(plan, &together)? })
}

impl Rows {
    fn read(path: &Path) -> Result<Self, Failure> {
        let raw = RawDescription {
            name: "demo".into(),
            path: path.to_string_lossy().into_owned(),
            tags: Tags::new(["heart"])?,
            description: String::new(),
            parameters: Parameters::Csv(CsvParameters::default()),
        };
        let root = path.parent().unwrap_or(Path::new("."));
        let description = Description::new(raw, Place { root, lookup: &|_| None })?;
        let scan = data::scan(&description, None, &AtomicBool::default())?;
        let source = data::open(&description, &scan)?;
        let features = FEATURES.map(str::to_owned);
        let choice =
            ColumnChoice { features: &features, target: Some(TARGET), split: Some(SPLIT), missing: Missing::Refuse };
        let table = data::Table::load(source.as_ref(), choice, &AtomicBool::default())?;
        let columns = (0..FEATURES.len()).map(|column| (0..table.rows()).map(|row| table.row(row)[column]).collect());
        let words = table.split().ok_or_else(|| Failure::new("the demo's data have no split"))?;
        let split = Split::by_words(words.iter().map(Some))?;
        Ok(Self { columns: columns.collect(), target: table.target().to_vec(), train: split.train, test: split.test })
    }

    fn stack(parts: &[Self]) -> Result<Self, Failure> {
        let mut all = Self { columns: vec![Vec::new(); FEATURES.len()], ..Self::default() };
        for part in parts {
            let offset = u32::try_from(all.target.len())?;
            all.train.extend(part.train.iter().map(|row| row + offset));
            all.test.extend(part.test.iter().map(|row| row + offset));
            all.target.extend(&part.target);
            all.columns.iter_mut().zip(&part.columns).for_each(|(all, part)| all.extend(part));
        }
        Ok(all)
    }

    fn no_auc(&self) -> Option<String> {
        let sick = self.test.iter().filter(|row| self.target[**row as usize] > 0.5).count();
        let healthy = self.test.len() - sick;
        let few = [(healthy, "healthy"), (sick, "sick")].into_iter().find(|(rows, _)| *rows < FEWEST_OF_A_CLASS)?;
        Some(format!("{} {} patient among {} held-out rows: an AUC would mean nothing", few.0, few.1, self.test.len()))
    }

    fn training_targets(&self) -> Vec<f64> {
        self.train.iter().map(|row| self.target[*row as usize]).collect()
    }

    /// Means and standard deviations (divisor n) of the training rows.
    fn standardisation(&self) -> Result<Standardisation, Failure> {
        let n = self.train.len() as f64;
        let mut means = Vec::new();
        let mut deviations = Vec::new();
        for column in &self.columns {
            let values = || self.train.iter().map(|row| column[*row as usize]);
            let mean = values().sum::<f64>() / n;
            means.push(mean);
            deviations.push((values().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt());
        }
        Ok(Standardisation::new(means, &deviations)?)
    }

    fn table(&self, plan: &TrainingPlan, rows: &[u32], standardisation: &Standardisation) -> Result<Table, Failure> {
        let columns: Vec<&[f64]> = self.columns.iter().map(Vec::as_slice).collect();
        let kind = (plan.model().outcome(), plan.precision());
        Ok(Table::from_columns(kind, &columns, &self.target, rows, Some(standardisation))?)
    }
}

struct Model {
    parameters: protocol::Tensors,
    standardisation: Standardisation,
}

impl Model {
    fn train(plan: &TrainingPlan, rounds: u32, rows: &Rows) -> Result<Self, Failure> {
        let standardisation = rows.standardisation()?;
        let table = rows.table(plan, &rows.train, &standardisation)?;
        let seed = plan.arguments().seed;
        let mut parameters = learning::initial(plan.model(), plan.precision(), FEATURES.len(), seed)?;
        let node = NodeId::random(&mut StdRng::seed_from_u64(seed));
        for round in 1..=rounds {
            let stream = Stream::training(seed, &node, round);
            let assignment = Assignment { plan, table: &table, start: &parameters, stream };
            parameters = learning::train(assignment, None, &mut ())?.parameters;
        }
        Ok(Self { parameters, standardisation })
    }

    fn measure(&self, plan: &TrainingPlan, rows: &Rows) -> Result<Scores, Failure> {
        let table = rows.table(plan, &rows.test, &self.standardisation)?;
        let Validated { metrics, .. } = learning::validate(plan.model(), &self.parameters, &table)?;
        Ok(Scores::of(&metrics))
    }
}
