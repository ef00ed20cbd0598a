//! What a node keeps of an experiment between its tasks.

use protocol::{ExperimentId, ResearcherId, Timestamp};
use rusqlite::OptionalExtension;

use super::{Durability, Store, StoreError, millis};

impl Store {
    /// Reads one piece of an experiment's state.
    pub fn experiment_state(
        &self,
        researcher: &ResearcherId,
        experiment: &ExperimentId,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT content FROM experiment_state WHERE researcher = ?1 AND experiment = ?2 AND name = ?3",
            )?;
            let ids = (researcher.as_str(), experiment.as_str(), name);
            Ok(statement.query_row(ids, |row| row.get(0)).optional()?)
        })
    }

    /// Writes one piece of an experiment's state. What the power takes with it is learned again.
    pub fn save_experiment_state(
        &self,
        researcher: &ResearcherId,
        experiment: &ExperimentId,
        name: &str,
        content: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(Durability::Lazy, |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO experiment_state (researcher, experiment, name, content, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (researcher.as_str(), experiment.as_str(), name, content, millis(now)),
            )?;
            Ok(())
        })
    }

    /// Forgets the state, the secrets and the own numbers of experiments none of whose tasks was touched since `before`.
    pub fn forget_experiments(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.write(Durability::Lazy, |connection| {
            let mut forgotten = 0;
            for (table, touched) in [("experiment_state", "updated"), ("secure_state", "updated"), ("own_result", "created")]
            {
                let sql = format!(
                    "DELETE FROM {table} WHERE {touched} < ?1 AND NOT EXISTS (
                         SELECT 1 FROM task WHERE task.researcher = {table}.researcher
                         AND task.experiment = {table}.experiment AND (is_open = 1 OR task.updated >= ?1))"
                );
                forgotten += connection.execute(&sql, [millis(before)])?;
            }
            Ok(forgotten)
        })
    }
}
