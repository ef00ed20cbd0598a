//! Secrets of secure aggregation, one sealed document for each experiment. What is in it is the business of `crate::secure`.

use protocol::{ExperimentId, ResearcherId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::{Durability, Store, StoreError, converted, millis};

impl Store {
    /// Reads the sealed secrets of an experiment.
    pub(crate) fn secure_state(
        &self,
        researcher: &ResearcherId,
        experiment: &ExperimentId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT content FROM secure_state WHERE researcher = ?1 AND experiment = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row((researcher.as_str(), experiment.as_str()), |row| row.get(0)).optional()?)
        })
    }

    /// Whether the keys of an experiment are kept and not over.
    pub(crate) fn is_keyed(&self, researcher: &ResearcherId, experiment: &ExperimentId) -> Result<bool, StoreError> {
        self.read(|connection| {
            let sql = "SELECT 1 FROM secure_state WHERE researcher = ?1 AND experiment = ?2 AND is_over = 0";
            Ok(connection.prepare_cached(sql)?.exists((researcher.as_str(), experiment.as_str()))?)
        })
    }

    /// The experiments of a researcher whose keys are kept and not over, the latest first; so many at most.
    pub fn keyed_experiments(&self, researcher: &ResearcherId, most: u32) -> Result<Vec<ExperimentId>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT experiment FROM secure_state WHERE researcher = ?1 AND is_over = 0
                       ORDER BY updated DESC, experiment LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let id = |row: &Row<'_>| converted(row, "experiment", |id: String| id.parse());
            let rows = statement.query_map((researcher.as_str(), most), id)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Writes in the place of an experiment's secrets what stays of them when it is over.
    pub(crate) fn end_secure_state(
        &self,
        researcher: &ResearcherId,
        experiment: &ExperimentId,
        content: &[u8],
    ) -> Result<(), StoreError> {
        self.write(Durability::Durable, |connection| {
            let sql = "UPDATE secure_state SET content = ?3, is_over = 1 WHERE researcher = ?1 AND experiment = ?2";
            connection.execute(sql, (researcher.as_str(), experiment.as_str(), content))?;
            Ok(())
        })
    }

    /// Writes the sealed secrets of an experiment. Lazily, they are on the disk once the journal says durably what came of the task.
    pub(crate) fn save_secure_state(
        &self,
        researcher: &ResearcherId,
        experiment: &ExperimentId,
        content: &[u8],
        now: Timestamp,
        durability: Durability,
    ) -> Result<(), StoreError> {
        self.write(durability, |connection| {
            let sql =
                "INSERT OR REPLACE INTO secure_state (researcher, experiment, content, updated) VALUES (?1, ?2, ?3, ?4)";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute((researcher.as_str(), experiment.as_str(), content, millis(now)))?;
            Ok(())
        })
    }
}
