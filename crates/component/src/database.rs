//! A daemon's SQLite file: write-ahead log, every commit on the disk before it returns, migrated at start.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use thiserror::Error;

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error("the folder was written by a newer version (schema {found}, this build knows {known}); update this software")]
    Newer { found: usize, known: usize },
    #[error("the database cannot be used")]
    Sqlite(#[from] rusqlite::Error),
}

/// The two sides of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitSide {
    Before,
    After,
}

/// A simulation's hand on a store. It is asked on both sides of each commit: it says before one whether the disk has room, and
/// ends the daemon there by unwinding.
pub struct CommitWatch(Box<dyn Fn(CommitSide) -> bool + Send + Sync>);

impl CommitWatch {
    pub fn new(watch: impl Fn(CommitSide) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(watch))
    }

    /// Lets a commit begin, or fails as a full disk does.
    pub fn before(&self) -> Result<(), rusqlite::Error> {
        if (self.0)(CommitSide::Before) {
            return Ok(());
        }
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None))
    }

    /// Notes that a commit is done.
    pub fn after(&self) {
        (self.0)(CommitSide::After);
    }
}

impl std::fmt::Debug for CommitWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CommitWatch")
    }
}

/// Opens the file and brings it to the newest schema. `migrations[i]` takes schema i to i + 1, each in one transaction.
pub fn open(path: &Path, migrations: &[&str]) -> Result<Connection, DatabaseError> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    prepare(connection, migrations)
}

/// A database that is gone with the connection, for tests and simulation.
pub fn open_in_memory(migrations: &[&str]) -> Result<Connection, DatabaseError> {
    prepare(Connection::open_in_memory()?, migrations)
}

fn prepare(mut connection: Connection, migrations: &[&str]) -> Result<Connection, DatabaseError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    // FULL: a commit survives the loss of power, so what was acknowledged is on disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > migrations.len() {
        return Err(DatabaseError::Newer { found, known: migrations.len() });
    }
    for (index, migration) in migrations.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_migrates_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        let first = "CREATE TABLE a (x INTEGER NOT NULL); INSERT INTO a VALUES (7);";
        let second = "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 1;";
        drop(open(&path, &[first]).unwrap());
        let connection = open(&path, &[first, second]).unwrap();
        let sum: i64 = connection.query_row("SELECT x + y FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(sum, 8);
        drop(connection);
        assert!(matches!(open(&path, &[first]), Err(DatabaseError::Newer { found: 2, known: 1 })));
    }
}
