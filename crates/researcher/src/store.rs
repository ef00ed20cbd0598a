//! What the researcher keeps in SQLite: invitations, enrolled nodes, experiments and their closed rounds. SQL stays here.

mod access;
mod experiments;

use std::path::Path;

use component::database::{CommitWatch, Database, DatabaseError, Durability};
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use access::{EnrolledNode, Enrolment, Invitation};
pub use experiments::{Saved, SmallModel};

/// Schema i to i + 1, in order. Never edited once released: a change is a new entry.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE invitations (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        secret_hash TEXT NOT NULL UNIQUE,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        used_by TEXT,
        revoked INTEGER
    ) STRICT;
    CREATE TABLE nodes (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        key_fingerprint BLOB NOT NULL,
        certificate_expires INTEGER NOT NULL,
        enrolled INTEGER NOT NULL,
        revoked INTEGER,
        last_seen INTEGER,
        software TEXT
    ) STRICT;
    CREATE TABLE experiments (
        id TEXT PRIMARY KEY,
        schema INTEGER NOT NULL,
        created INTEGER NOT NULL,
        requester TEXT NOT NULL,
        is_over INTEGER NOT NULL,
        state TEXT NOT NULL,
        ended TEXT
    ) STRICT;
    CREATE INDEX experiments_not_over ON experiments (is_over) WHERE is_over = 0;
    CREATE TABLE records (
        experiment TEXT NOT NULL REFERENCES experiments (id),
        position INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (experiment, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE models (
        experiment TEXT PRIMARY KEY REFERENCES experiments (id),
        digest TEXT NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    ",
    "ALTER TABLE records ADD COLUMN schema INTEGER NOT NULL DEFAULT 1;",
    // The state of hidden sums, which `state` held before, and the answers since it was written.
    "
    CREATE TABLE secure_states (
        experiment TEXT PRIMARY KEY REFERENCES experiments (id),
        state TEXT NOT NULL
    ) STRICT;
    CREATE TABLE secure_answers (
        position INTEGER PRIMARY KEY,
        experiment TEXT NOT NULL REFERENCES experiments (id),
        answer TEXT NOT NULL
    ) STRICT;
    CREATE INDEX secure_answers_by_experiment ON secure_answers (experiment, position);
    ",
];

/// The schema of an experiment's `state`, and of what lies beside it for hidden sums, written with it. An older one is migrated when
/// it is read: the first held all in one document.
pub const STATE_SCHEMA: u32 = 2;

/// The schema of a closed round's `record`, written beside it.
const RECORD_SCHEMA: u32 = 1;

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a stored {what} cannot be read: {source}")]
    Content { what: &'static str, source: serde_json::Error },
    #[error("a stored {what} has schema {found}, this build reads up to {known}; update this software")]
    Newer { what: &'static str, found: u32, known: u32 },
    #[error("no experiment begins with {0:?}; `experiments list` shows all")]
    NoExperiment(String),
    #[error("{0:?} is too short; give at least {fewest} digits of the id", fewest = experiments::FEWEST_DIGITS)]
    ShortExperiment(String),
    #[error("several experiments begin with {0:?}; give more of the id")]
    SeveralExperiments(String),
    #[error("no node is called {0:?}; `nodes` shows all")]
    NoNode(String),
    #[error("several nodes are called {0:?}; give the id")]
    SeveralNodes(String),
    #[error("{0:?} has been revoked; only a new component can enrol")]
    RevokedNode(String),
    #[error("this node is enrolled as {0:?} with another key; under the same name, --upsert takes the new one in its place")]
    OtherKey(String),
}

impl StoreError {
    /// Whether it may be different the next time: the disk is full or fails, or somebody else has the file.
    pub fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let (Self::Sqlite(error) | Self::Database(DatabaseError::Sqlite(error))) = self else { return false };
        let code = error.sqlite_error_code();
        code.is_some_and(|code| matches!(code, DiskFull | DatabaseBusy | DatabaseLocked | SystemIoFailure))
    }
}

/// The researcher's database.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { database: Database::open(path, MIGRATIONS)? })
    }

    /// Opens the file without ever waiting for the disk: in a simulation processes die, and machines do not.
    pub fn open_for_simulation(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { database: Database::open_for_simulation(path, MIGRATIONS)? })
    }

    /// A store that is gone when dropped, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self { database: Database::in_memory(MIGRATIONS)? })
    }

    /// Lets a simulation have its hand on each commit from here on.
    pub fn watch_commits(&mut self, watch: CommitWatch) {
        self.database.watch_commits(watch);
    }

    fn connection(&self) -> &Connection {
        self.database.connection()
    }

    /// Runs one transaction whose result somebody is told.
    fn write<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.database.write(Durability::Durable, work)
    }
}

fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Content { what, source })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("rows have no map with keys other than text")
}

#[cfg(test)]
mod tests;
