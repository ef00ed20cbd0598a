//! What is not needed any more goes: contributions nobody fetches, settled tasks, the state of old experiments, stray files.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use protocol::Timestamp;

use crate::executor::checkpoint_path;
use crate::handle::NodeHandle;
use crate::spool::bytes_below;
use crate::store::StoreError;

fn before(now: Timestamp, kept: Duration) -> Timestamp {
    let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(kept))
}

impl NodeHandle {
    /// Bytes of contributions and node state on disk.
    pub fn storage_bytes(&self) -> io::Result<u64> {
        Ok(bytes_below(self.spool().folder())? + bytes_below(&self.folder().experiments())?)
    }

    /// Whether so many bytes more are within the quota.
    pub(crate) fn has_room_for(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.storage_bytes()?.saturating_add(bytes) <= self.config().storage.quota_bytes)
    }

    /// Forgets the records that the configuration says are old.
    pub(crate) fn tidy_records(&self) -> Result<(), StoreError> {
        let (now, limits) = (self.now(), self.config().storage);
        self.store().forget_settled_tasks(before(now, limits.journal_retention))?;
        self.store().forget_experiments(before(now, limits.state_retention))?;
        Ok(())
    }

    /// Forgets old records, and the files that belong to no open task: what a crash between two steps left. For the start,
    /// when nobody writes files yet.
    pub fn tidy(&self) -> Result<(), StoreError> {
        self.tidy_records()?;
        let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
        for record in self.store().tasks(false)? {
            wanted.insert(self.spool().path(&record.researcher, &record.task.id));
            wanted.insert(checkpoint_path(self, &record.researcher, &record.task));
        }
        let swept =
            self.spool().sweep(|path| wanted.contains(path)).and_then(|count| Ok(count + self.sweep_checkpoints(&wanted)?));
        match swept {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed stray files"),
            Err(error) => tracing::warn!(%error, "stray files could not be removed"),
        }
        Ok(())
    }

    fn sweep_checkpoints(&self, wanted: &BTreeSet<PathBuf>) -> io::Result<usize> {
        let mut removed = 0;
        for folder in std::fs::read_dir(self.folder().experiments())? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&folder)? {
                let file = file?.path();
                if !wanted.contains(&file) {
                    std::fs::remove_file(&file)?;
                    removed += 1;
                }
            }
            // It stays while checkpoints are in it.
            let _ = std::fs::remove_dir(&folder);
        }
        Ok(removed)
    }

    /// The tasks whose contributions wait for longer than the configuration keeps them.
    pub(crate) fn abandoned(&self) -> Result<Vec<(protocol::ResearcherId, protocol::TaskId)>, StoreError> {
        let limit = before(self.now(), self.config().storage.spool_retention);
        let tasks = self.store().tasks(false)?.into_iter();
        Ok(tasks.filter(|record| record.updated < limit).map(|record| (record.researcher, record.task.id)).collect())
    }
}
