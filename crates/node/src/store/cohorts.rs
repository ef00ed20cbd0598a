//! The rows of questions that were answered.

use protocol::{DatasetId, ResearcherId, Timestamp};

use super::{Durability, Store, StoreError, millis};

/// Who asked about which version of which dataset.
pub(crate) type Asked<'a> = (&'a ResearcherId, &'a DatasetId, &'a [u8]);

impl Store {
    /// The rows of all questions that were answered, a bit for each row of the data.
    pub(crate) fn cohorts(&self, (researcher, dataset, version): Asked<'_>) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT rows FROM cohort WHERE researcher = ?1 AND dataset = ?2 AND version = ?3")?;
            let found = statement.query_map((researcher.as_str(), dataset.as_str(), version), |row| row.get(0))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// Keeps the rows of a question, before its answer leaves.
    pub(crate) fn add_cohort(
        &self,
        (researcher, dataset, version): Asked<'_>,
        rows: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(Durability::Durable, |connection| {
            connection.execute(
                "INSERT INTO cohort (researcher, dataset, version, rows, asked) VALUES (?1, ?2, ?3, ?4, ?5)",
                (researcher.as_str(), dataset.as_str(), version, rows, millis(now)),
            )?;
            Ok(())
        })
    }
}
