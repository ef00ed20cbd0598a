//! A daemon's SQLite file: write-ahead log, migrated at start, one way to write. Its tables are the daemon's.

use std::path::Path;
use std::time::Duration;

use protocol::Timestamp;
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
    fn before(&self) -> Result<(), rusqlite::Error> {
        if (self.0)(CommitSide::Before) {
            return Ok(());
        }
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None))
    }

    /// Notes that a commit is done.
    fn after(&self) {
        (self.0)(CommitSide::After);
    }
}

impl std::fmt::Debug for CommitWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CommitWatch")
    }
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the loss of power. For what somebody is told afterwards.
    Durable,
    /// It survives the end of the process; the next durable one takes it to the disk.
    Lazy,
}

impl Durability {
    /// With a write-ahead log NORMAL does not wait at commits, and never damages the file.
    fn synchronous(self) -> &'static str {
        match self {
            Self::Durable => "FULL",
            Self::Lazy => "NORMAL",
        }
    }
}

/// A daemon's database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    watch: Option<CommitWatch>,
    /// What durable commits get; less in a simulation, where processes die and machines do not.
    durable: Durability,
    /// What commits get now.
    current: Durability,
}

impl Database {
    /// Opens the file and brings it to the newest schema. `migrations[i]` takes schema i to i + 1, each in one transaction.
    pub fn open(path: &Path, migrations: &[&str]) -> Result<Self, DatabaseError> {
        Self::on_disk(path, migrations, Durability::Durable)
    }

    /// The same without ever waiting for the disk.
    pub fn open_for_simulation(path: &Path, migrations: &[&str]) -> Result<Self, DatabaseError> {
        Self::on_disk(path, migrations, Durability::Lazy)
    }

    /// A database that is gone when dropped, for tests.
    pub fn in_memory(migrations: &[&str]) -> Result<Self, DatabaseError> {
        Self::prepared(Connection::open_in_memory()?, migrations, Durability::Lazy)
    }

    fn on_disk(path: &Path, migrations: &[&str], durable: Durability) -> Result<Self, DatabaseError> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        Self::prepared(connection, migrations, durable)
    }

    fn prepared(mut connection: Connection, migrations: &[&str], durable: Durability) -> Result<Self, DatabaseError> {
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "synchronous", durable.synchronous())?;
        connection.pragma_update(None, "foreign_keys", true)?;
        migrate(&mut connection, migrations)?;
        Ok(Self { connection, watch: None, durable, current: durable })
    }

    /// Lets a simulation have its hand on each commit from here on.
    pub fn watch_commits(&mut self, watch: CommitWatch) {
        self.watch = Some(watch);
    }

    /// The connection, for reading and for its settings.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs one transaction; an error leaves no trace of it.
    pub fn write<T, E: From<rusqlite::Error>>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let wanted = if durability == Durability::Durable { self.durable } else { durability };
        if wanted != self.current {
            self.connection.pragma_update(None, "synchronous", wanted.synchronous())?;
            self.current = wanted;
        }
        let transaction = self.connection.transaction()?;
        let result = work(&transaction)?;
        self.watch.as_ref().map_or(Ok(()), CommitWatch::before)?;
        transaction.commit()?;
        self.watch.as_ref().inspect(|watch| watch.after());
        Ok(result)
    }
}

/// A timestamp as a column holds it: milliseconds from 1970-01-01T00:00:00Z. SQLite's integers are signed.
pub fn millis(timestamp: Timestamp) -> i64 {
    i64::try_from(timestamp.as_millis()).unwrap_or(i64::MAX)
}

/// The timestamp that a column holds.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), DatabaseError> {
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
    Ok(())
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
        drop(Database::open(&path, &[first]).unwrap());
        let database = Database::open(&path, &[first, second]).unwrap();
        let sum: i64 = database.connection().query_row("SELECT x + y FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(sum, 8);
        drop(database);
        assert!(matches!(Database::open(&path, &[first]), Err(DatabaseError::Newer { found: 2, known: 1 })));
    }

    /// What commits wait for, by SQLite's number: 1 is NORMAL, 2 is FULL.
    fn synchronous(connection: &Connection) -> Result<i64, rusqlite::Error> {
        connection.pragma_query_value(None, "synchronous", |row| row.get(0))
    }

    #[test]
    fn a_durable_commit_waits_for_the_disk_and_a_lazy_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let waits = [Durability::Durable, Durability::Lazy, Durability::Durable];
        let mut real = Database::open(&dir.path().join("real.sqlite"), &[]).unwrap();
        assert_eq!(waits.map(|durability| real.write(durability, synchronous).unwrap()), [2, 1, 2]);
        let mut simulated = Database::open_for_simulation(&dir.path().join("simulated.sqlite"), &[]).unwrap();
        assert_eq!(waits.map(|durability| simulated.write(durability, synchronous).unwrap()), [1, 1, 1]);
    }

    #[test]
    fn a_transaction_that_fails_or_finds_the_disk_full_leaves_no_trace() {
        let mut database = Database::in_memory(&["CREATE TABLE a (x INTEGER NOT NULL)"]).unwrap();
        let insert = |connection: &Connection| connection.execute("INSERT INTO a VALUES (1)", []);
        let late = database.write(Durability::Durable, |connection| {
            insert(connection)?;
            connection.execute("INSERT INTO nowhere VALUES (1)", [])
        });
        assert!(late.is_err());
        database.watch_commits(CommitWatch::new(|_| false));
        let full = database.write(Durability::Durable, insert).unwrap_err();
        assert_eq!(full.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
        let rows: i64 = database.connection().query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }
}
