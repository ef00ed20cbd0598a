//! What is not needed any more goes: settled tasks, the state of old experiments, stray files. An open task stays whatever the
//! clock says, for clocks are set wrong.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use protocol::Timestamp;

use crate::executor::checkpoint_path;
use crate::handle::NodeHandle;
use crate::participant::State;
use crate::spool::bytes_below;
use crate::store::{StoreError, TaskRecord};

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

    /// Forgets the records that the configuration says are old, and tells of contributions that nobody fetched for long.
    pub(crate) fn tidy_records(&self) -> Result<(), StoreError> {
        let (now, limits) = (self.now(), self.config().storage);
        self.store().forget_settled_tasks(before(now, limits.journal_retention))?;
        self.store().forget_experiments(before(now, limits.state_retention))?;
        let limit = before(now, limits.spool_retention);
        for TaskRecord { task, state, updated, .. } in self.store().tasks(false)? {
            if matches!(state, State::Computed(_) | State::Delivered(_)) && updated < limit {
                tracing::warn!(task = %task.id, since = %updated, "nobody fetches this contribution; `tasks cancel` drops it");
            }
        }
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
}
