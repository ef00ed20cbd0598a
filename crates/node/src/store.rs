//! What a node remembers: enrolments, datasets, the journal of tasks, the state of experiments. SQL does not leave this module.
//!
//! Verbs that promise something to the other side commit durably before they return; verbs whose loss a restart repairs
//! (a settlement is said again) do not wait for the disk.

pub(crate) mod cohorts;
mod datasets;
mod enrolments;
mod journal;
mod peers;
mod results;
mod secure;
mod state;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use component::database::{self, CommitWatch, Database, DatabaseError, Durability, millis};
use protocol::Timestamp;
use rusqlite::types::{FromSql, Type};
use rusqlite::{Connection, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use datasets::Dataset;
pub use enrolments::Enrolment;
pub use journal::{NewTask, TaskRecord};
pub use peers::{Peer, Trust};
pub use results::{OwnNumbers, OwnResult};

/// Takes schema i to i + 1. Never edited once released: a change is a new entry. `format` is the version of the JSON documents
/// in a row; it changes with a migration only, so that all rows of an open file have the newest.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE enrolment (
    researcher TEXT PRIMARY KEY, address TEXT NOT NULL, authority TEXT NOT NULL, certificate TEXT NOT NULL,
    task_key BLOB NOT NULL, allowed INTEGER NOT NULL, enrolled INTEGER NOT NULL
) STRICT;
CREATE TABLE dataset (
    id TEXT PRIMARY KEY, format INTEGER NOT NULL DEFAULT 1, description TEXT NOT NULL, visible_to TEXT NOT NULL,
    scan TEXT NOT NULL, registered INTEGER NOT NULL
) STRICT;
CREATE TABLE task (
    researcher TEXT NOT NULL, id TEXT NOT NULL, format INTEGER NOT NULL DEFAULT 1, experiment TEXT NOT NULL,
    document TEXT NOT NULL, signature BLOB NOT NULL, state TEXT NOT NULL, is_open INTEGER NOT NULL, content BLOB,
    accepted INTEGER NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY (researcher, id)
) STRICT;
CREATE INDEX task_open ON task (researcher, accepted) WHERE is_open = 1;
CREATE INDEX task_by_experiment ON task (researcher, experiment);
CREATE TABLE experiment_state (
    researcher TEXT NOT NULL, experiment TEXT NOT NULL, name TEXT NOT NULL, format INTEGER NOT NULL DEFAULT 1,
    content BLOB NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY (researcher, experiment, name)
) STRICT;
CREATE TABLE mark (name TEXT PRIMARY KEY, set_at INTEGER NOT NULL) STRICT;
",
    "
ALTER TABLE task ADD COLUMN starts INTEGER NOT NULL DEFAULT 0;
",
    // A task of format 1 does not say whom it asked. What was computed goes out; what was not is refused, as another node's.
    "
UPDATE task SET document = json_insert(document, '$.node', 'NODE_00000000-0000-4000-8000-000000000000'), format = 2;
",
    // Secure aggregation: sealed secrets of each experiment, keys of other nodes, and what a round gave here.
    "
CREATE TABLE secure_state (
    researcher TEXT NOT NULL, experiment TEXT NOT NULL, format INTEGER NOT NULL DEFAULT 1, content BLOB NOT NULL,
    updated INTEGER NOT NULL, PRIMARY KEY (researcher, experiment)
) STRICT;
CREATE TABLE peer (
    researcher TEXT NOT NULL, node TEXT NOT NULL, name TEXT, fingerprint BLOB NOT NULL, key BLOB, trust TEXT NOT NULL,
    since INTEGER NOT NULL, PRIMARY KEY (researcher, node)
) STRICT;
CREATE TABLE own_result (
    researcher TEXT NOT NULL, task TEXT NOT NULL, experiment TEXT NOT NULL, format INTEGER NOT NULL DEFAULT 1,
    document TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (researcher, task)
) STRICT;
CREATE INDEX own_result_by_experiment ON own_result (experiment, created);
",
    // Whether the researcher has said that the keys are not needed any more.
    "
ALTER TABLE secure_state ADD COLUMN is_over INTEGER NOT NULL DEFAULT 0;
",
    // Questions of statistics: which rows each was about.
    "
CREATE TABLE cohort (
    researcher TEXT NOT NULL, dataset TEXT NOT NULL, version BLOB NOT NULL, rows BLOB NOT NULL, asked INTEGER NOT NULL
) STRICT;
CREATE INDEX cohort_by_data ON cohort (researcher, dataset, version);
",
];

/// The node's database cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(transparent)]
    Open(#[from] DatabaseError),
    #[error("the node's database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a row of the node's database cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
}

/// A node's database.
#[derive(Debug)]
pub struct Store {
    database: Mutex<Database>,
}

impl Store {
    /// Opens the file and brings it to the newest schema.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::new(Database::open(path, MIGRATIONS)?)
    }

    /// Opens the file without ever waiting for the disk, for a simulation.
    pub fn open_for_simulation(path: &Path) -> Result<Self, StoreError> {
        Self::new(Database::open_for_simulation(path, MIGRATIONS)?)
    }

    /// A store that is gone when dropped, for tests.
    pub fn open_in_memory() -> Result<Self, StoreError> {
        Self::new(Database::in_memory(MIGRATIONS)?)
    }

    fn new(database: Database) -> Result<Self, StoreError> {
        // A node's tables are small; SQLite's own default would keep 2 MB of pages.
        database.connection().pragma_update(None, "cache_size", -256)?;
        // What is deleted or written over is zeros in the file: secrets of sums that are over, and contributions.
        database.connection().pragma_update(None, "secure_delete", true)?;
        database.connection().set_prepared_statement_cache_capacity(16);
        Ok(Self { database: Mutex::new(database) })
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a simulation have its hand on each commit from here on.
    pub fn watch_commits(&self, watch: CommitWatch) {
        self.database().watch_commits(watch);
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(self.database().connection())
    }

    /// Runs one transaction.
    fn write<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.database().write(durability, work)
    }

    /// Whether a mark stands, such as `paused`.
    pub fn has_mark(&self, name: &str) -> Result<bool, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM mark WHERE name = ?1")?;
            Ok(statement.exists([name])?)
        })
    }

    /// Sets a mark; false if it stood already.
    pub fn set_mark(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.write(Durability::Durable, |connection| {
            let rows = connection.execute("INSERT OR IGNORE INTO mark VALUES (?1, ?2)", (name, millis(now)))?;
            Ok(rows == 1)
        })
    }

    /// Takes a mark away; false if there was none.
    pub fn clear_mark(&self, name: &str) -> Result<bool, StoreError> {
        self.write(
            Durability::Durable,
            |connection| Ok(connection.execute("DELETE FROM mark WHERE name = ?1", [name])? == 1),
        )
    }
}

fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

fn timestamp(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    row.get(column).map(database::timestamp)
}

fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    let text = row.get_ref(index)?.as_str()?;
    serde_json::from_str(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into()))
}

/// A column with a parser.
fn converted<Raw: FromSql, T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(Raw) -> Result<T, E>,
) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(column)?;
    parse(row.get(index)?).map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}
