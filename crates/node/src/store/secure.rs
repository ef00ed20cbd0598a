//! Secrets of secure aggregation, one sealed document for each experiment. What is in it is the business of `crate::secure`.

use protocol::{ExperimentId, ResearcherId, Timestamp};
use rusqlite::OptionalExtension;

use super::{Durability, Store, StoreError, millis};

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

    /// Writes the sealed secrets of an experiment: they are on the disk when this returns.
    pub(crate) fn save_secure_state(
        &self,
        researcher: &ResearcherId,
        experiment: &ExperimentId,
        content: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(Durability::Durable, |connection| {
            let sql =
                "INSERT OR REPLACE INTO secure_state (researcher, experiment, content, updated) VALUES (?1, ?2, ?3, ?4)";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute((researcher.as_str(), experiment.as_str(), content, millis(now)))?;
            Ok(())
        })
    }
}
