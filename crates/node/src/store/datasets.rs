//! The datasets that the hospital registered.

use std::collections::BTreeSet;

use data::{Description, Scan};
use protocol::{DatasetId, ResearcherId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::{Durability, Store, StoreError, converted, from_json, millis, timestamp, to_json};

/// A registered dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    pub id: DatasetId,
    /// Researchers that see it; empty: all that are enrolled.
    pub visible_to: BTreeSet<ResearcherId>,
    /// What its owner says about it: name, tags, where the data is.
    pub description: Description,
    /// What was learned when it was registered or refreshed.
    pub scan: Scan,
    pub registered: Timestamp,
}

impl Dataset {
    /// Whether a researcher may know of it.
    pub fn is_visible_to(&self, researcher: &ResearcherId) -> bool {
        self.visible_to.is_empty() || self.visible_to.contains(researcher)
    }
}

fn dataset(row: &Row<'_>) -> rusqlite::Result<Dataset> {
    Ok(Dataset {
        id: converted(row, "id", |id: String| id.parse())?,
        description: from_json(row, "description")?,
        visible_to: from_json(row, "visible_to")?,
        scan: from_json(row, "scan")?,
        registered: timestamp(row, "registered")?,
    })
}

impl Store {
    /// Adds a dataset or takes the place of the one with the same id, if `check` agrees with all others.
    pub fn save_dataset<E>(
        &self,
        new: &Dataset,
        check: impl FnOnce(&[Dataset]) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        self.write(Durability::Durable, |connection| {
            let mut statement = connection.prepare("SELECT * FROM dataset WHERE id <> ?1 ORDER BY registered, id")?;
            let others = statement.query_map([new.id.as_str()], dataset)?.collect::<Result<Vec<_>, _>>()?;
            if let Err(refused) = check(&others) {
                return Ok(Err(refused));
            }
            connection.execute(
                "INSERT OR REPLACE INTO dataset (id, description, visible_to, scan, registered)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    new.id.as_str(),
                    to_json(&new.description)?,
                    to_json(&new.visible_to)?,
                    to_json(&new.scan)?,
                    millis(new.registered),
                ),
            )?;
            Ok(Ok(()))
        })
    }

    /// Keeps what a file system says of files whose content is the same. False if the scan is not the one `before` any more:
    /// the hospital has read the data anew meanwhile, and that stands.
    pub fn touch_dataset(&self, id: &DatasetId, before: &Scan, now: &Scan) -> Result<bool, StoreError> {
        self.write(Durability::Lazy, |connection| {
            let rows = connection.execute(
                "UPDATE dataset SET scan = ?3 WHERE id = ?1 AND scan = ?2",
                (id.as_str(), to_json(before)?, to_json(now)?),
            )?;
            Ok(rows == 1)
        })
    }

    /// All datasets, oldest first.
    pub fn datasets(&self) -> Result<Vec<Dataset>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM dataset ORDER BY registered, id")?;
            let rows = statement.query_map([], dataset)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn dataset(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM dataset WHERE id = ?1")?;
            Ok(statement.query_row([id.as_str()], dataset).optional()?)
        })
    }

    /// Forgets a dataset; the data itself stays where it is. False if there is none.
    pub fn delete_dataset(&self, id: &DatasetId) -> Result<bool, StoreError> {
        self.write(Durability::Durable, |connection| {
            Ok(connection.execute("DELETE FROM dataset WHERE id = ?1", [id.as_str()])? == 1)
        })
    }
}
