//! The node's own numbers of what it computed. They are for the hospital: under secure aggregation nobody else has them.

use protocol::{DatasetId, Report, ResearcherId, RoundKey, TaskId, Timestamp};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::{Durability, Store, StoreError, converted, from_json, millis, timestamp, to_json};

/// What one task gave here.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnResult {
    pub researcher: ResearcherId,
    pub task: TaskId,
    pub numbers: OwnNumbers,
    pub created: Timestamp,
}

/// The numbers themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnNumbers {
    pub key: RoundKey,
    /// The work's name.
    pub work: String,
    /// Absent where nothing was trained.
    pub training_round: Option<u32>,
    pub dataset: DatasetId,
    /// Whether the contribution was masked.
    pub is_hidden: bool,
    /// How many elements of model vectors were moved into the range of a hidden sum; absent where none would be.
    pub clipped: Option<u64>,
    pub report: Report,
}

fn own_result(row: &Row<'_>) -> rusqlite::Result<OwnResult> {
    Ok(OwnResult {
        researcher: converted(row, "researcher", |id: String| id.parse())?,
        task: converted(row, "task", |id: String| id.parse())?,
        numbers: from_json(row, "document")?,
        created: timestamp(row, "created")?,
    })
}

impl Store {
    /// Keeps what a task gave here, in the place of what it gave before. What the power takes is not needed by anybody else.
    pub fn save_result(&self, result: &OwnResult) -> Result<(), StoreError> {
        self.write(Durability::Lazy, |connection| {
            let sql = "INSERT OR REPLACE INTO own_result (researcher, task, experiment, document, created)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut statement = connection.prepare_cached(sql)?;
            let experiment = result.numbers.key.experiment.as_str();
            let (researcher, task) = (result.researcher.as_str(), result.task.as_str());
            statement.execute((researcher, task, experiment, to_json(&result.numbers)?, millis(result.created)))?;
            Ok(())
        })
    }

    /// The own numbers of all experiments, oldest first.
    pub fn results(&self) -> Result<Vec<OwnResult>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT * FROM own_result ORDER BY created, rowid")?;
            let rows = statement.query_map([], own_result)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}
