//! Training and validation of native models.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use component::folder::write_atomically;
use learning::{
    Assignment, Checkpoint, Standardisation, Stream, Table, TrainingError, ValidationSums, Watcher, check_layout, rows_used,
    train, training_layout, validate, validation_layout,
};
use protocol::{
    Measured, Metric, Progress, Purpose, Refusal, RefusalCode, Report, Tensors, Timestamp, TrainingPlan, ValidatedOn,
    VectorSpec,
};

use super::tables::Ready;
use super::{Job, Tables, WorkError};
use crate::disclosure::{Computed, Outcome, Values};
use crate::handle::NodeHandle;
use crate::policy::Permit;
use crate::spool::read_if_there;
use crate::store::Dataset;

/// The least time between two checkpoints, and between two reports of progress.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);

/// Held-out rows of each class that a node's own AUC needs.
const FEWEST_OF_A_CLASS: u64 = 2;

fn plan_invalid(error: impl std::fmt::Display) -> WorkError {
    WorkError::refused(RefusalCode::PlanInvalid, error.to_string())
}

/// Global parameters, and how features are standardised.
fn read_model(plan: &TrainingPlan, model: Option<Tensors>) -> Result<(Tensors, Option<Standardisation>), WorkError> {
    let tensors = model.ok_or_else(|| plan_invalid("the task has no model"))?;
    let (parameters, standardisation) = Standardisation::detach(tensors).map_err(plan_invalid)?;
    if plan.standardise() != standardisation.is_some() {
        return Err(plan_invalid("the model has a standardisation if and only if the plan asks for one"));
    }
    Ok((parameters, standardisation))
}

/// Looks on for the executor: cancels, reports, writes checkpoints.
struct TrainingWatcher<'a> {
    node: &'a NodeHandle,
    cancel: Arc<AtomicBool>,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    path: PathBuf,
    permit: &'a Permit,
    checkpointed: Timestamp,
    reported: Timestamp,
}

impl Watcher for TrainingWatcher<'_> {
    fn is_cancelled(&mut self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn progress(&mut self, progress: Progress) {
        let now = self.node.now();
        if now.since(self.reported) >= PROGRESS_PAUSE {
            self.reported = now;
            (self.progress)(progress);
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        let now = self.node.now();
        if now.since(self.checkpointed) < CHECKPOINT_PAUSE {
            return;
        }
        self.checkpointed = now;
        if let Err(error) = self.write(&checkpoint) {
            tracing::warn!(%error, "a checkpoint was not written; a restart would begin after the one before");
            return;
        }
        if let Err(error) = self.node.store().forgive_starts(self.permit.researcher(), &self.permit.task().id) {
            tracing::warn!(%error, "the journal does not know of a checkpoint");
        }
    }
}

impl TrainingWatcher<'_> {
    fn write(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let bytes = checkpoint.to_tensors().to_bytes();
        if !self.node.has_room_for(bytes.len() as u64)? {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        write_atomically(&self.path, &bytes)
    }
}

impl Job<'_> {
    pub(super) fn train(
        &mut self,
        plan: &TrainingPlan,
        training_round: u32,
        dataset: &Dataset,
        tables: &Tables,
        model: Option<Tensors>,
    ) -> Result<Outcome, WorkError> {
        let (global, standardisation) = read_model(plan, model)?;
        let ready = self.ready(plan, dataset, tables, standardisation)?;
        let used = self.check_training_rows(plan, &ready.train)?;
        let mut layout = training_layout(plan, ready.names.len(), None).map_err(plan_invalid)?;
        if self.permit.task().masking.is_some() {
            // After the vectors that are clipped: how many of their elements were.
            layout.push(VectorSpec::clipped());
        }
        check_layout(&self.permit.task().layout, &layout).map_err(plan_invalid)?;
        let validates = plan.holds_out_rows() && self.may_measure(&ready.test);
        let mut report = self.new_report(&ready);
        let on_global = (validates && plan.validation().on_global)
            .then(|| self.measure(plan, &global, &ready.test, ValidatedOn::Global, &mut report))
            .flatten();
        let trained = self.fit(plan, training_round, &ready.train, &global)?;
        let on_local = (validates && plan.validation().on_local)
            .then(|| self.measure(plan, &trained.parameters, &ready.test, ValidatedOn::Local, &mut report))
            .flatten();
        report.loss = trained.loss;
        let n_rows = ready.train.len() as f64;
        let mut trained_tensors = trained.parameters.into_tensors();
        let mut global_tensors = global.into_tensors();
        let mut vectors = Vec::with_capacity(layout.len());
        let mut sums = [on_global, on_local]
            .map(|sums| sums.unwrap_or_else(|| ValidationSums::new(plan.model().outcome())).vectors().into_iter());
        for spec in layout {
            let values = match spec.purpose {
                Purpose::Weight => Values::Reals(vec![n_rows]),
                Purpose::Loss => Values::Reals(vec![trained.loss.unwrap_or(0.0) * n_rows]),
                Purpose::Model => {
                    let take = |tensors: &mut Vec<protocol::Tensor>| {
                        let at = tensors.iter().position(|tensor| tensor.name() == spec.name);
                        let tensor =
                            at.map(|at| tensors.swap_remove(at)).ok_or_else(|| plan_invalid("a parameter is missing"));
                        tensor.map(protocol::Tensor::into_scalars)
                    };
                    Values::Differences {
                        trained: take(&mut trained_tensors)?,
                        global: take(&mut global_tensors)?,
                        weight: n_rows,
                    }
                }
                Purpose::ValidationGlobal => Values::Reals(sums[0].next().unwrap_or_default()),
                Purpose::ValidationLocal => Values::Reals(sums[1].next().unwrap_or_default()),
                // Counted while the model's vectors are encoded.
                Purpose::Clipped => Values::Reals(vec![0.0]),
                Purpose::Statistic => return Err(plan_invalid("a training has no such vector")),
            };
            vectors.push(computed(spec, values));
        }
        Ok(Outcome { vectors, report, samples: vec![used], ..Outcome::default() })
    }

    pub(super) fn validate(
        &mut self,
        plan: &TrainingPlan,
        dataset: &Dataset,
        tables: &Tables,
        model: Option<Tensors>,
    ) -> Result<Outcome, WorkError> {
        let (global, standardisation) = read_model(plan, model)?;
        let ready = self.ready(plan, dataset, tables, standardisation)?;
        let layout = validation_layout(plan);
        check_layout(&self.permit.task().layout, &layout).map_err(plan_invalid)?;
        let mut report = self.new_report(&ready);
        let sums = self
            .may_measure(&ready.test)
            .then(|| self.measure(plan, &global, &ready.test, ValidatedOn::Global, &mut report))
            .flatten();
        let sums = sums.unwrap_or_else(|| ValidationSums::new(plan.model().outcome())).vectors();
        let vectors = layout.into_iter().zip(sums).map(|(spec, values)| computed(spec, Values::Reals(values))).collect();
        Ok(Outcome { vectors, report, ..Outcome::default() })
    }

    /// Refuses a round that few rows decide, whatever the size of the dataset. Returns how many rows the updates use.
    fn check_training_rows(&self, plan: &TrainingPlan, rows: &Table) -> Result<u64, WorkError> {
        let used = rows_used(plan.arguments(), rows.len()) as u64;
        let policy = self.node.policy();
        if !policy.has_enough_rows(rows.len() as u64) {
            return Err(too_few("the plan leaves fewer rows to train on than the hospital allows"));
        }
        if !policy.allows_rows(used) {
            return Err(too_few("the updates of a round use fewer rows than the hospital allows"));
        }
        Ok(used)
    }

    /// Whether the held-out rows are enough to be measured on; if not, that is a remark.
    fn may_measure(&mut self, rows: &Table) -> bool {
        let may = self.node.policy().allows_rows(rows.len() as u64);
        if !may {
            self.remarks
                .push("fewer rows are held out than the hospital allows computing on; nothing is measured".to_owned());
        }
        may
    }

    /// What the report says of rows. Numbers of rows that are too few stay here.
    fn new_report(&self, ready: &Ready) -> Report {
        let shown =
            |table: &Table| Some(table.len() as u64).filter(|rows| self.node.policy().allows_rows(*rows)).unwrap_or(0);
        Report {
            train_rows: shown(&ready.train),
            test_rows: shown(&ready.test),
            dropped_rows: ready.dropped,
            ..Report::default()
        }
    }

    /// Trains, from the last checkpoint of this task if there is one.
    fn fit(
        &mut self,
        plan: &TrainingPlan,
        training_round: u32,
        rows: &Table,
        global: &Tensors,
    ) -> Result<learning::Trained, WorkError> {
        let stream = Stream::training(plan.arguments().seed, self.node.id(), training_round);
        let assignment = Assignment { plan, table: rows, start: global, stream };
        let path = self.checkpoint_path();
        let checkpoint = read_if_there(&path)
            .map_err(WorkError::Hindered)?
            .and_then(|bytes| Checkpoint::from_tensors(Tensors::from_bytes(&bytes).ok()?).ok());
        let begun = self.now();
        let mut watcher = TrainingWatcher {
            node: self.node,
            cancel: self.observer.cancel.clone(),
            progress: self.observer.progress.as_mut(),
            path,
            permit: self.permit,
            checkpointed: begun,
            // The first report is due at once: it ends the reading of data.
            reported: Timestamp::from_millis(0),
        };
        let mut result = train(assignment, checkpoint.as_ref(), &mut watcher);
        if checkpoint.is_some() && matches!(result, Err(TrainingError::Checkpoint | TrainingError::Optimizer(_))) {
            tracing::warn!("a checkpoint does not fit its training, which begins anew");
            result = train(assignment, None, &mut watcher);
        }
        result.map_err(|error| match error {
            TrainingError::Cancelled => WorkError::Cancelled,
            error => WorkError::Refused(Refusal::from(&error)),
        })
    }

    /// Measures parameters on held-out rows. What fails is a remark: a validation never fails the round.
    fn measure(
        &mut self,
        plan: &TrainingPlan,
        parameters: &Tensors,
        rows: &Table,
        on: ValidatedOn,
        report: &mut Report,
    ) -> Option<ValidationSums> {
        let side = match on {
            ValidatedOn::Global => "global",
            ValidatedOn::Local => "local",
        };
        let validated = match validate(plan.model(), parameters, rows) {
            Ok(validated) => validated,
            Err(error) => {
                self.remarks.push(format!("the validation of the {side} parameters failed: {error}"));
                return None;
            }
        };
        let few = few_of_a_class(&validated.metrics.rows_per_class);
        for (metric, value) in validated.metrics.defined() {
            if metric == Metric::Auc && few {
                self.remarks.push(format!(
                    "{} of the {side} parameters is not shown: fewer than {FEWEST_OF_A_CLASS} held-out rows of a class",
                    metric.name()
                ));
            } else if value.is_finite() {
                report.measured.push(Measured { on, metric, value });
            } else {
                self.remarks.push(format!("{} of the {side} parameters is no finite number", metric.name()));
            }
        }
        for (metric, reason) in validated.metrics.undefined() {
            self.remarks.push(format!("{} of the {side} parameters is not defined: {reason}", metric.name()));
        }
        Some(validated.sums)
    }
}

/// Whether an AUC would say how one row ranks.
fn few_of_a_class(rows_per_class: &[u64]) -> bool {
    rows_per_class.iter().any(|rows| *rows < FEWEST_OF_A_CLASS)
}

fn too_few(sentence: &str) -> WorkError {
    WorkError::refused(RefusalCode::TooFewSamples, sentence)
}

fn computed(spec: VectorSpec, values: Values) -> Computed {
    Computed { purpose: spec.purpose, name: spec.name, shape: spec.shape, values }
}
