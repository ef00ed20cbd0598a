//! The passes of questions: rows become batches, batches add up in tallies.

use analytics::analysis::{AnalysisError, Tally};
use analytics::question::asked;
use data::{Comparison, DataError, Depth, Effort, Folding, Inputs, fold, open};
use learning::check_layout;
use protocol::statistic::Question;
use protocol::{Pass, RefusalCode, Report};

use super::tables::go_on;
use super::{Job, WorkError};
use crate::cohort::CohortBuilder;
use crate::disclosure::{Computed, Outcome, Values};
use crate::store::Dataset;

/// What the threads that read one dataset may hold of it together.
const READING_BYTES: u64 = 256 << 20;
/// More threads than this wait for each other's memory.
const MOST_THREADS: usize = 16;

/// What is made of a part of the data: the sums so far, and which rows they are of.
type Part = (Option<Box<dyn Tally>>, CohortBuilder);

/// How many threads read one dataset.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST_THREADS)
}

impl From<AnalysisError> for WorkError {
    fn from(error: AnalysisError) -> Self {
        Self::refused(RefusalCode::PlanInvalid, error.to_string())
    }
}

impl Job<'_> {
    /// One pass over the rows that a question is about.
    pub(super) fn pass(&mut self, question: &Question, pass: &Pass, dataset: &Dataset) -> Result<Outcome, WorkError> {
        let task = self.permit.task();
        let statistic = asked(&question.statistic);
        let layout = statistic.layout(pass)?;
        check_layout(&task.layout, &layout)
            .map_err(|error| WorkError::refused(RefusalCode::PlanInvalid, error.to_string()))?;
        let stop = self.observer.cancel.as_ref();
        go_on(stop)?;
        let inputs = Inputs::new(&dataset.scan.schema, &statistic.inputs(), question.filter.as_ref())?;
        let source = open(&dataset.description, &dataset.scan)?;
        let tally = statistic.tally(pass)?;
        // Parts are joined in their order: the number of threads does not show in the sums.
        let folding = Folding {
            make: || (statistic.tally(pass).ok(), CohortBuilder::default()),
            add: |(tally, cohort): &mut Part, batch| {
                let kept = inputs.kept(&batch);
                cohort.add(batch.num_rows(), kept.as_ref());
                if let Some(tally) = tally {
                    tally.add(&inputs.read_kept(&batch, kept.as_ref()));
                }
            },
            merge: |(all, rows): &mut Part, (part, next): Part| {
                rows.join(next);
                if let (Some(all), Some(part)) = (all, part) {
                    all.merge(part);
                }
            },
        };
        let effort = Effort { threads: threads(), memory_bytes: READING_BYTES };
        let (folded, cohort) = fold(source.as_ref(), &inputs.columns(), effort, stop, folding)?;
        let tally = folded.unwrap_or(tally);
        // What was read while somebody wrote is not what was registered.
        if dataset.scan.compare(&dataset.description, Depth::Quick, stop)? == Comparison::Changed {
            return Err(DataError::Changed { path: dataset.description.path.clone() }.into());
        }
        let tallied = tally.finish()?;
        let vectors = layout.into_iter().zip(tallied.vectors).map(|(spec, vector)| Computed {
            purpose: vector.purpose,
            name: vector.name,
            shape: spec.shape,
            values: Values::Reals(vector.values),
        });
        let report = Report { train_rows: tallied.rows, ..Report::default() };
        Ok(Outcome {
            vectors: vectors.collect(),
            report,
            samples: vec![tallied.rows],
            cells: tallied.cells,
            cohort: Some(cohort.finish()),
        })
    }
}
