//! The passes of statistics, over training rows when they serve a training, over all rows when they are asked for themselves.

use analytics::moments::{MomentsError, contribute, layout};
use learning::check_layout;
use protocol::{RefusalCode, Report};

use super::tables::Loaded;
use super::{Job, WorkError};
use crate::disclosure::{Computed, Outcome, Values};

impl From<MomentsError> for WorkError {
    fn from(error: MomentsError) -> Self {
        Self::refused(RefusalCode::PlanInvalid, error.to_string())
    }
}

impl Job<'_> {
    /// The pass that the task asks for.
    pub(super) fn moments(&self, loaded: &Loaded) -> Result<Outcome, WorkError> {
        let task = self.permit.task();
        let layout = layout(&task.work, loaded.columns.len())?;
        check_layout(&task.layout, &layout)
            .map_err(|error| WorkError::refused(RefusalCode::PlanInvalid, error.to_string()))?;
        let contribution = if let Some(split) = loaded.split.as_ref().filter(|split| !split.test.is_empty()) {
            let rows = |column: &Vec<f64>| split.train.iter().map(|row| column[*row as usize]).collect();
            let columns: Vec<Vec<f64>> = loaded.columns.iter().map(rows).collect();
            contribute(&task.work, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>())?
        } else {
            contribute(&task.work, &loaded.columns.iter().map(Vec::as_slice).collect::<Vec<_>>())?
        };
        let samples: Vec<u64> = match &loaded.split {
            Some(split) => vec![split.train.len() as u64],
            None => loaded.columns.iter().map(|column| column.len() as u64).collect(),
        };
        if !samples.iter().all(|rows| self.node.policy().allows_rows(*rows)) {
            let sentence = "a column has fewer values than the hospital allows computing on";
            return Err(WorkError::refused(RefusalCode::TooFewSamples, sentence));
        }
        let vectors = layout.into_iter().zip(contribution.vectors).map(|(spec, vector)| Computed {
            purpose: vector.purpose,
            name: vector.name,
            shape: spec.shape,
            values: Values::Reals(vector.values),
        });
        let rows = loaded.split.as_ref().map_or(loaded.rows, |split| split.train.len() as u64);
        let report = Report { train_rows: rows, dropped_rows: loaded.dropped, ..Report::default() };
        Ok(Outcome { vectors: vectors.collect(), report, samples, ..Outcome::default() })
    }
}
