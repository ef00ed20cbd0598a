//! What the researcher keeps in SQLite: invitations, enrolled nodes, experiments and their closed rounds. SQL stays here.

mod access;
mod experiments;

use std::path::Path;

use component::database::{self, CommitWatch, DatabaseError};
use protocol::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use access::{EnrolledNode, Enrolment, Invitation};
pub use experiments::{Saved, SmallModel};

/// Schema i to i + 1, in order. Never edited once released: a change is a new entry.
const MIGRATIONS: &[&str] = &["
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
"];

/// The schema of an experiment's `state`, written beside it. An older one is migrated when it is read.
pub const STATE_SCHEMA: u32 = 1;

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a stored {what} cannot be read: {source}")]
    Content { what: &'static str, source: serde_json::Error },
    #[error("a stored experiment has schema {found}, this build reads up to {STATE_SCHEMA}; update this software")]
    Newer { found: u32 },
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

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the loss of power.
    Durable,
    /// It survives the end of the process; the next durable one takes it to the disk. For what nobody has been told.
    Lazy,
}

/// The researcher's database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    watch: Option<CommitWatch>,
    /// What durable commits get; less in a simulation, where processes die and machines do not.
    durable: Durability,
    /// What commits get now.
    current: Durability,
}

impl Store {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(database::open(path, MIGRATIONS)?))
    }

    /// Opens the file without ever waiting for the disk: in a simulation processes die, and machines do not.
    pub fn open_for_simulation(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self { durable: Durability::Lazy, ..Self::open(path)? };
        store.set_durability(Durability::Lazy)?;
        Ok(store)
    }

    /// A store that is gone when dropped, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self::new(database::open_in_memory(MIGRATIONS)?))
    }

    fn new(connection: Connection) -> Self {
        Self { connection, watch: None, durable: Durability::Durable, current: Durability::Durable }
    }

    /// Sets what the commits that follow get.
    fn set_durability(&mut self, durability: Durability) -> Result<(), StoreError> {
        let wanted = if durability == Durability::Durable { self.durable } else { durability };
        if wanted != self.current {
            // With a write-ahead log NORMAL does not wait at commits, and never damages the file.
            let synchronous = if wanted == Durability::Durable { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", synchronous)?;
            self.current = wanted;
        }
        Ok(())
    }

    /// Lets a simulation have its hand on each commit of an experiment's state from here on.
    pub fn watch_commits(&mut self, watch: CommitWatch) {
        self.watch = Some(watch);
    }

    fn before_commit(&self) -> Result<(), rusqlite::Error> {
        self.watch.as_ref().map_or(Ok(()), CommitWatch::before)
    }

    fn after_commit(&self) {
        self.watch.as_ref().inspect(|watch| watch.after());
    }
}

fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Content { what, source })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("rows have no map with keys other than text")
}

fn millis(timestamp: Timestamp) -> i64 {
    i64::try_from(timestamp.as_millis()).expect("the last timestamp is below 2^63 ms")
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests;
