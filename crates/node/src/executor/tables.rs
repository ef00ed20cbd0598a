//! Loading a plan's columns, and keeping them between the rounds of an experiment.
//!
//! A round of a small model takes a few milliseconds, reading its data from a file again would take longer. What was loaded is
//! kept until another plan or other data is asked for, or [`Tables::forget_unused`] finds it idle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use data::{ColumnChoice, Comparison, DataError, Depth, Fingerprint, Source, Table as DataTable, open};
use learning::{Split, Standardisation, Stream, Table, has_one_class};
use protocol::{DatasetId, Missing, ModelSpec, Outcome, Precision, RefusalCode, Timestamp, TrainingPlan};

use super::{Job, WorkError};
use crate::store::Dataset;

/// Which rows are held out.
#[derive(Debug, Clone, PartialEq)]
enum SplitRule {
    None,
    Ratio { ratio: f64, stream: Stream },
    Column(String),
}

/// What a loaded table depends on.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    dataset: DatasetId,
    data: Fingerprint,
    features: Vec<String>,
    target: Option<String>,
    split: SplitRule,
    missing: Missing,
}

/// What a table ready for training depends on besides.
#[derive(Debug, Clone, PartialEq)]
struct ReadyKey {
    key: Key,
    outcome: Outcome,
    precision: Precision,
    standardisation: Option<Standardisation>,
}

/// Columns as they are in the data.
#[derive(Debug)]
pub(super) struct Loaded {
    names: Vec<String>,
    /// Without a target: each column's own values, blank cells left out.
    pub(super) columns: Vec<Vec<f64>>,
    target: Vec<f64>,
    /// Which rows are trained on; absent for a statistic of its own.
    pub(super) split: Option<Split>,
    pub(super) rows: u64,
    pub(super) dropped: u64,
}

/// Rows as the model sees them.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) names: Vec<String>,
    pub(super) train: Table,
    pub(super) test: Table,
    pub(super) dropped: u64,
}

#[derive(Debug, Default)]
struct Kept {
    loaded: Option<(Key, Arc<Loaded>)>,
    ready: Option<(ReadyKey, Arc<Ready>)>,
    used: Option<Timestamp>,
}

/// The tables of the experiments that run now.
#[derive(Debug, Default)]
pub struct Tables {
    kept: Mutex<Kept>,
}

impl Tables {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees what was not used for so long. True if something is still kept.
    pub fn forget_unused(&self, now: Timestamp, longest: Duration) -> bool {
        let mut kept = self.kept();
        if kept.used.is_some_and(|used| now.since(used) >= longest) {
            *kept = Kept::default();
        }
        kept.used.is_some()
    }
}

impl Job<'_> {
    fn plan_key(&self, plan: &TrainingPlan, dataset: &Dataset) -> Key {
        let arguments = plan.arguments();
        let split = match plan.split_column() {
            Some(column) => SplitRule::Column(column.to_owned()),
            None if arguments.test_ratio > 0.0 => {
                SplitRule::Ratio { ratio: arguments.test_ratio, stream: Stream::split(arguments.seed, self.node.id()) }
            }
            None => SplitRule::None,
        };
        Key {
            dataset: dataset.id.clone(),
            data: dataset.scan.fingerprint.clone(),
            features: plan.features().to_vec(),
            target: Some(plan.target().to_owned()),
            split,
            missing: arguments.missing,
        }
    }

    /// The columns of a plan, with the rows that are trained on.
    pub(super) fn training_rows(
        &self,
        plan: &TrainingPlan,
        dataset: &Dataset,
        tables: &Tables,
    ) -> Result<Arc<Loaded>, WorkError> {
        let loaded = self.load(self.plan_key(plan, dataset), dataset, tables)?;
        check_target(plan.model(), &loaded)?;
        Ok(loaded)
    }

    /// All rows of some columns.
    pub(super) fn all_rows(&self, columns: &[String], dataset: &Dataset, tables: &Tables) -> Result<Arc<Loaded>, WorkError> {
        let key = Key {
            dataset: dataset.id.clone(),
            data: dataset.scan.fingerprint.clone(),
            features: columns.to_vec(),
            target: None,
            split: SplitRule::None,
            missing: Missing::Drop,
        };
        self.load(key, dataset, tables)
    }

    /// Reads the columns of a key, or takes the ones that are in memory still.
    fn load(&self, key: Key, dataset: &Dataset, tables: &Tables) -> Result<Arc<Loaded>, WorkError> {
        {
            let mut kept = tables.kept();
            kept.used = Some(self.now());
            if let Some((_, loaded)) = kept.loaded.as_ref().filter(|(other, _)| *other == key) {
                return Ok(loaded.clone());
            }
            // Two tables need not be in memory at once.
            kept.loaded = None;
        }
        let stop = self.observer.cancel.as_ref();
        go_on(stop)?;
        let source = open(&dataset.description, &dataset.scan)?;
        let loaded = if key.target.is_some() {
            read_rows(&key, source.as_ref(), stop)?
        } else {
            read_columns(&key.features, source.as_ref(), stop)?
        };
        // What was read while somebody wrote is not what was registered.
        if dataset.scan.compare(&dataset.description, Depth::Quick, stop)? == Comparison::Changed {
            return Err(DataError::Changed { path: dataset.description.path.clone() }.into());
        }
        let loaded = Arc::new(loaded);
        tables.kept().loaded = Some((key, loaded.clone()));
        Ok(loaded)
    }

    /// The rows of a plan as its model sees them: split, standardised, in its precision.
    pub(super) fn ready(
        &self,
        plan: &TrainingPlan,
        dataset: &Dataset,
        tables: &Tables,
        standardisation: Option<Standardisation>,
    ) -> Result<Arc<Ready>, WorkError> {
        let key = self.plan_key(plan, dataset);
        let (outcome, precision) = (plan.model().outcome(), plan.precision());
        let key = ReadyKey { key, outcome, precision, standardisation };
        {
            let mut kept = tables.kept();
            kept.used = Some(self.now());
            if let Some((_, ready)) = kept.ready.as_ref().filter(|(other, _)| *other == key) {
                return Ok(ready.clone());
            }
            kept.ready = None;
        }
        let loaded = self.training_rows(plan, dataset, tables)?;
        let columns: Vec<&[f64]> = loaded.columns.iter().map(Vec::as_slice).collect();
        let make = |rows: &[u32]| {
            go_on(&self.observer.cancel)?;
            let made =
                Table::from_columns((outcome, precision), &columns, &loaded.target, rows, key.standardisation.as_ref());
            made.map_err(|error| {
                let code = if matches!(error, learning::TableError::Target(_)) {
                    RefusalCode::TargetInvalid
                } else {
                    RefusalCode::PlanInvalid
                };
                WorkError::refused(code, error.to_string())
            })
        };
        let split =
            loaded.split.as_ref().ok_or_else(|| WorkError::refused(RefusalCode::Internal, "the rows were not split"))?;
        let (train, test) = (make(&split.train)?, make(&split.test)?);
        let ready = Arc::new(Ready { names: loaded.names.clone(), train, test, dropped: loaded.dropped });
        let mut kept = tables.kept();
        // The sums for standardising come before the first training; afterwards the raw columns are not asked for.
        kept.loaded = None;
        kept.ready = Some((key, ready.clone()));
        Ok(ready)
    }
}

/// Fails if somebody stopped the work.
pub(super) fn go_on(stop: &AtomicBool) -> Result<(), WorkError> {
    if stop.load(Ordering::Relaxed) { Err(WorkError::Cancelled) } else { Ok(()) }
}

/// Rows with a target, for training.
fn read_rows(key: &Key, source: &dyn Source, stop: &AtomicBool) -> Result<Loaded, WorkError> {
    let choice = ColumnChoice {
        features: &key.features,
        target: key.target.as_deref(),
        split: if let SplitRule::Column(column) = &key.split { Some(column) } else { None },
        missing: key.missing,
    };
    let table = DataTable::load(source, choice, stop)?;
    go_on(stop)?;
    let split = split(&key.split, &table)?;
    Ok(Loaded {
        names: table.names().to_vec(),
        columns: columns(&table, stop)?,
        rows: table.rows() as u64,
        dropped: table.dropped().len() as u64,
        target: table.into_parts().1,
        split: Some(split),
    })
}

/// Which rows are trained on.
fn split(rule: &SplitRule, table: &DataTable) -> Result<Split, WorkError> {
    let split = match (rule, table.split()) {
        (SplitRule::Ratio { ratio, stream }, _) => Split::by_ratio(table.rows(), *ratio, *stream),
        (SplitRule::Column(_), Some(words)) => Split::by_words(words.iter().map(Some)),
        _ => Split::by_ratio(table.rows(), 0.0, Stream::initial(0)),
    };
    split.map_err(|error| WorkError::refused(RefusalCode::TargetInvalid, error.to_string()))
}

/// The features column by column.
fn columns(table: &DataTable, stop: &AtomicBool) -> Result<Vec<Vec<f64>>, WorkError> {
    let width = table.names().len();
    let column = |column: usize| {
        go_on(stop)?;
        Ok(table.features().iter().skip(column).step_by(width).copied().collect())
    };
    (0..width).map(column).collect()
}

/// Each column's own values.
fn read_columns(names: &[String], source: &dyn Source, stop: &AtomicBool) -> Result<Loaded, WorkError> {
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let schema = source.schema();
    let text = schema.positions(&wanted)?.into_iter().find(|position| !schema.columns()[*position].kind.is_numeric());
    if let Some(position) = text {
        return Err(DataError::ColumnNotNumeric { name: schema.columns()[position].name.clone() }.into());
    }
    let mut columns = vec![Vec::new(); wanted.len()];
    for batch in source.batches(&wanted)? {
        go_on(stop)?;
        for (column, array) in columns.iter_mut().zip(batch?.columns()) {
            if let Some(reals) = array.as_primitive_opt::<Float64Type>() {
                column.extend(reals.iter().flatten().filter(|value| !value.is_nan()));
            } else if let Some(integers) = array.as_primitive_opt::<Int64Type>() {
                column.extend(integers.iter().flatten().map(|value| value as f64));
            }
        }
    }
    Ok(Loaded { names: names.to_vec(), columns, target: Vec::new(), split: None, rows: source.rows(), dropped: 0 })
}

/// Refuses targets that the model cannot learn from.
fn check_target(model: &ModelSpec, loaded: &Loaded) -> Result<(), WorkError> {
    let outcome = model.outcome();
    learning::check_targets(outcome, loaded.target.iter().copied())
        .map_err(|error| WorkError::refused(RefusalCode::TargetInvalid, error.to_string()))?;
    if has_one_class(outcome, &loaded.target) {
        return Err(WorkError::refused(RefusalCode::OneClass, "all rows of the dataset have the same target class"));
    }
    Ok(())
}
