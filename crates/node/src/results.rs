//! The node's own numbers of each round, for its own people.

use protocol::{ExperimentId, Report};

use crate::command::ResultRow;
use crate::handle::NodeHandle;
use crate::store::{OwnNumbers, OwnResult, StoreError};

fn row(OwnResult { researcher, numbers, created, .. }: OwnResult) -> ResultRow {
    let OwnNumbers { key, work, training_round, dataset, is_hidden, clipped, report } = numbers;
    let Report { train_rows, test_rows, dropped_rows, loss, measured, remarks, work_ms } = report;
    ResultRow {
        researcher,
        experiment: key.experiment,
        round: key.round,
        attempt: key.attempt,
        work,
        training_round,
        dataset,
        hidden: is_hidden,
        train_rows,
        test_rows,
        dropped_rows,
        loss,
        clipped,
        measured,
        remarks,
        work_ms,
        time: created.to_string(),
    }
}

impl NodeHandle {
    pub(crate) fn result_rows(&self, experiment: Option<&ExperimentId>) -> Result<Vec<ResultRow>, StoreError> {
        let results = self.store().results()?;
        let is_meant = |result: &OwnResult| experiment.is_none_or(|experiment| *experiment == result.numbers.key.experiment);
        Ok(results.into_iter().filter(is_meant).map(row).collect())
    }
}
