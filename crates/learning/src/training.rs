//! One round of training on one node: from the global parameters to the node's own.
//!
//! The same inputs give the same bits on one machine: arithmetic is single-threaded and its order is fixed. A training that is
//! resumed from a [`Checkpoint`] gives the bits of one that was never interrupted.

use protocol::{Precision, Progress, Refusal, RefusalCode, Tensors, TrainingArguments, TrainingPlan};
use thiserror::Error;

pub use crate::checkpoint::Checkpoint;
use crate::engine::Engine;
use crate::optimizer::{Optimizer, StateError};
use crate::parameters::{Layout, ParameterError};
use crate::scalar::Scalar;
use crate::stream::Stream;
use crate::table::{Rows, Table, Values};

/// Multiply-adds between two looks at the watcher: about a millisecond to ten.
const WORK_BETWEEN_REPORTS: usize = 1 << 22;

/// Why a training did not end. Sentences hold no data value; they may travel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrainingError {
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    #[error(transparent)]
    Optimizer(#[from] StateError),
    #[error("the table was made for another outcome or precision than the plan's")]
    OtherTable,
    #[error("there is no row to train on")]
    NoRows,
    #[error("the checkpoint is not of this training")]
    Checkpoint,
    #[error(
        "the loss or a parameter is no finite number after {updates} updates; a smaller learning rate or standardised features may help"
    )]
    Diverged { updates: u64 },
    #[error("the training was cancelled")]
    Cancelled,
}

impl From<&TrainingError> for Refusal {
    fn from(error: &TrainingError) -> Self {
        let code = match error {
            TrainingError::Parameters(_) => RefusalCode::PlanInvalid,
            TrainingError::NoRows => RefusalCode::TooFewSamples,
            TrainingError::Diverged { .. } => RefusalCode::TrainingDiverged,
            TrainingError::Cancelled => RefusalCode::Cancelled,
            TrainingError::Optimizer(_) | TrainingError::OtherTable | TrainingError::Checkpoint => RefusalCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Who looks on while a model is trained. `()` looks away.
pub trait Watcher {
    /// Asked every few milliseconds of work; the training ends soon after it says yes.
    fn is_cancelled(&mut self) -> bool {
        false
    }

    /// Told every few milliseconds of work, and after the last update.
    fn progress(&mut self, _progress: Progress) {}

    /// Handed a state to resume from after every pass over the rows but the last.
    fn checkpoint(&mut self, _checkpoint: Checkpoint) {}
}

impl Watcher for () {}

/// What a node trains in a round.
#[derive(Debug, Clone, Copy)]
pub struct Assignment<'a> {
    pub plan: &'a TrainingPlan,
    /// The node's training rows, standardised if the plan says so.
    pub table: &'a Table,
    /// The global parameters.
    pub start: &'a Tensors,
    /// Orders the rows: [`Stream::training`] of the plan's seed, the node and the round.
    pub stream: Stream,
}

/// What a round's training made.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    pub parameters: Tensors,
    /// Mean loss, without the penalty, over the rows of the last pass, each before its update. `None` without updates.
    pub loss: Option<f64>,
    pub updates: u64,
}

/// Trains for one round, from the start or from a checkpoint of the same assignment.
pub fn train(
    assignment: Assignment<'_>,
    checkpoint: Option<&Checkpoint>,
    watcher: &mut dyn Watcher,
) -> Result<Trained, TrainingError> {
    let Assignment { plan, table, .. } = assignment;
    if table.outcome() != plan.model().outcome() {
        return Err(TrainingError::OtherTable);
    }
    match (plan.precision(), table.values()) {
        (Precision::Float32, Values::F32(rows)) => train_in(assignment, rows, checkpoint, watcher),
        (Precision::Float64, Values::F64(rows)) => train_in(assignment, rows, checkpoint, watcher),
        _ => Err(TrainingError::OtherTable),
    }
}

fn train_in<T: Scalar>(
    assignment: Assignment<'_>,
    rows: &Rows<T>,
    checkpoint: Option<&Checkpoint>,
    watcher: &mut dyn Watcher,
) -> Result<Trained, TrainingError> {
    let Assignment { plan, start, .. } = assignment;
    if updates(plan.arguments(), 1) == 0 {
        // A round that only moves the model: no memory for a training that is not one.
        Layout::new(plan.model(), rows.n_features())?.check::<T>(start)?;
        return Ok(Trained { parameters: start.clone(), loss: None, updates: 0 });
    }
    if rows.len() == 0 {
        return Err(TrainingError::NoRows);
    }
    Run::new(assignment, rows, checkpoint)?.finish(watcher)
}

/// How many updates a round has. `num_updates` wins over `epochs` and is not cut by `batch_maxnum`, as in Fed-BioMed.
pub fn updates(arguments: &TrainingArguments, n_rows: usize) -> u64 {
    Schedule::new(arguments, n_rows).total
}

/// How many different rows a round surely uses: those of its first pass. 0 without updates.
pub fn rows_used(arguments: &TrainingArguments, n_rows: usize) -> usize {
    let schedule = Schedule::new(arguments, n_rows);
    let updates = usize::try_from(schedule.total.min(schedule.updates_per_pass)).unwrap_or(usize::MAX);
    n_rows.min(schedule.batch_rows.saturating_mul(updates))
}

/// Which rows each update uses, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    batch_rows: usize,
    updates_per_pass: u64,
    total: u64,
}

impl Schedule {
    fn new(arguments: &TrainingArguments, n_rows: usize) -> Self {
        let all = n_rows.max(1);
        let batch_rows = match arguments.batch_size {
            0 => all,
            size => all.min(size as usize),
        };
        let batches = n_rows.div_ceil(batch_rows) as u64;
        let (updates_per_pass, total) = match (arguments.num_updates, arguments.epochs) {
            (Some(updates), _) => (batches, u64::from(updates)),
            (None, epochs) => {
                let batches = arguments.batch_maxnum.map_or(batches, |most| batches.min(u64::from(most)));
                // A plan without either is a dry run.
                (batches, epochs.map_or(1, |epochs| batches.saturating_mul(u64::from(epochs))))
            }
        };
        Self { batch_rows, updates_per_pass, total: if arguments.dry_run { total.min(1) } else { total } }
    }
}

/// A training under way.
struct Run<'a, T> {
    rows: &'a Rows<T>,
    engine: Engine<T>,
    optimizer: Optimizer<T>,
    schedule: Schedule,
    shuffle: bool,
    stream: Stream,
    parameters: Vec<T>,
    gradient: Vec<T>,
    passes: u64,
    updates: u64,
    rows_between_reports: usize,
    rows_since_report: usize,
}

impl<'a, T: Scalar> Run<'a, T> {
    fn new(assignment: Assignment<'_>, rows: &'a Rows<T>, checkpoint: Option<&Checkpoint>) -> Result<Self, TrainingError> {
        let Assignment { plan, start, stream, .. } = assignment;
        let engine = Engine::new(plan.model(), rows.n_features())?;
        let schedule = Schedule::new(plan.arguments(), rows.len());
        let mut optimizer = Optimizer::new(plan.optimizer(), engine.layout().len());
        let (mut parameters, mut passes, mut updates) = (start, 0, 0);
        if let Some(checkpoint) = checkpoint {
            optimizer.restore(&checkpoint.optimizer)?;
            (parameters, passes, updates) = (&checkpoint.parameters, checkpoint.passes, checkpoint.updates);
        }
        if passes.checked_mul(schedule.updates_per_pass) != Some(updates) || updates > schedule.total {
            return Err(TrainingError::Checkpoint);
        }
        let parameters: Vec<T> = engine.flatten(parameters)?;
        Ok(Self {
            rows,
            optimizer,
            schedule,
            shuffle: plan.arguments().shuffle,
            stream,
            gradient: vec![T::zero(); parameters.len()],
            passes,
            updates,
            rows_between_reports: (WORK_BETWEEN_REPORTS / parameters.len().max(1)).max(1),
            rows_since_report: 0,
            parameters,
            engine,
        })
    }

    fn finish(mut self, watcher: &mut dyn Watcher) -> Result<Trained, TrainingError> {
        let mut order = Vec::new();
        let mut loss = None;
        while self.updates < self.schedule.total {
            self.order_rows(&mut order);
            let updates = self.schedule.updates_per_pass.min(self.schedule.total - self.updates);
            let n_rows = usize::try_from(updates).map_or(order.len(), |it| order.len().min(it * self.schedule.batch_rows));
            loss = Some(self.pass(&order[..n_rows], watcher)? / n_rows as f64);
            self.passes += 1;
            if !self.parameters.iter().all(|parameter| parameter.is_finite()) {
                return Err(TrainingError::Diverged { updates: self.updates });
            }
            if self.updates < self.schedule.total {
                watcher.checkpoint(self.checkpoint());
            }
        }
        Ok(Trained { parameters: self.engine.layout().to_tensors(self.parameters), loss, updates: self.updates })
    }

    /// The order of the rows in this pass: drawn anew for each pass, from its own part of the stream.
    fn order_rows(&self, order: &mut Vec<u32>) {
        order.clear();
        order.extend((0_u32..).take(self.rows.len()));
        if self.shuffle {
            self.stream.part(self.passes).shuffle(order);
        }
    }

    /// One pass over these rows; returns the sum of their losses.
    fn pass(&mut self, order: &[u32], watcher: &mut dyn Watcher) -> Result<f64, TrainingError> {
        if self.schedule.batch_rows == 1
            && self.engine.descends_row_by_row()
            && let Some(learning_rate) = self.optimizer.plain_rate()
        {
            return self.pass_row_by_row(order, learning_rate, watcher);
        }
        let mut sum = 0.0;
        for batch in order.chunks(self.schedule.batch_rows) {
            self.gradient.fill(T::zero());
            let mut loss = 0.0;
            for block in batch.chunks(self.engine.block_rows()) {
                loss += self.engine.add_gradient(&self.parameters, self.rows, block, &mut self.gradient);
                self.rows_since_report += block.len();
                if self.is_report_due() && watcher.is_cancelled() {
                    return Err(TrainingError::Cancelled);
                }
            }
            self.engine.finish_gradient(&self.parameters, batch.len(), &mut self.gradient);
            self.optimizer.step(&mut self.parameters, &self.gradient);
            self.updates += 1;
            sum += loss;
            self.report(loss / batch.len() as f64, watcher)?;
        }
        Ok(sum)
    }

    /// The same for single rows and plain gradient descent, where one step is so short that all else would cost more than it.
    fn pass_row_by_row(&mut self, order: &[u32], rate: f64, watcher: &mut dyn Watcher) -> Result<f64, TrainingError> {
        let mut sum = 0.0;
        for segment in order.chunks(self.rows_between_reports) {
            if watcher.is_cancelled() {
                return Err(TrainingError::Cancelled);
            }
            let loss = self.engine.descend_row_by_row(&mut self.parameters, self.rows, segment, rate).unwrap_or(f64::NAN);
            self.updates += segment.len() as u64;
            self.rows_since_report += segment.len();
            sum += loss;
            self.report(loss / segment.len() as f64, watcher)?;
        }
        Ok(sum)
    }

    fn is_report_due(&self) -> bool {
        self.rows_since_report >= self.rows_between_reports || self.updates == self.schedule.total
    }

    fn report(&mut self, loss: f64, watcher: &mut dyn Watcher) -> Result<(), TrainingError> {
        if !loss.is_finite() {
            return Err(TrainingError::Diverged { updates: self.updates });
        }
        if self.is_report_due() {
            self.rows_since_report = 0;
            watcher.progress(Progress { done: self.updates, total: self.schedule.total, loss: Some(loss) });
        }
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            parameters: self.engine.layout().to_tensors(self.parameters.clone()),
            optimizer: self.optimizer.state(),
            passes: self.passes,
            updates: self.updates,
        }
    }
}

#[cfg(test)]
mod tests;
