//! Reading the parts of a source at once, and putting together in a fixed order what was made of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use arrow_array::RecordBatch;
use protocol::statistic::Batch;

use crate::error::DataError;
use crate::inputs::Inputs;
use crate::scan::go_on;
use crate::source::Source;

/// How much of a machine reading may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// At most so many threads; at least one reads.
    pub threads: usize,
    /// What all threads together may hold of the data, in bytes. One thread reads whatever it needs.
    pub memory_bytes: u64,
}

/// What is made of a part: begun, given its batches in their order, and joined with those of the parts before.
pub struct Folding<Make, Add, Merge> {
    pub make: Make,
    pub add: Add,
    /// Takes the parts in their order, whichever was read first.
    pub merge: Merge,
}

/// Reads columns of all parts of a source. The answer does not depend on the number of threads: parts are those of the data, and are
/// joined from the first to the last. Fails soon after `stop` is set.
pub fn fold<T: Send>(
    source: &dyn Source,
    columns: &[&str],
    effort: Effort,
    stop: &AtomicBool,
    folding: Folding<impl Fn() -> T + Sync, impl Fn(&mut T, RecordBatch) + Sync, impl FnMut(&mut T, T)>,
) -> Result<T, DataError> {
    let parts = source.parts().max(1);
    let fitting = effort.memory_bytes / source.part_bytes(columns.len()).max(1);
    let threads = effort.threads.min(usize::try_from(fitting).unwrap_or(usize::MAX)).min(parts).max(1);
    let Folding { make, add, mut merge } = folding;
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let read = |part: usize| -> Result<T, DataError> {
        let mut made = make();
        for batch in source.part(part, columns)? {
            go_on(stop)?;
            if has_failed.load(Ordering::Relaxed) {
                return Err(DataError::Stopped);
            }
            add(&mut made, batch?);
        }
        Ok(made)
    };
    if threads == 1 {
        let mut all = read(0)?;
        for part in 1..parts {
            go_on(stop)?;
            merge(&mut all, read(part)?);
        }
        return Ok(all);
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, read, next, has_failed) = (sender.clone(), &read, &next, &has_failed);
            scope.spawn(move || {
                while !has_failed.load(Ordering::Relaxed) {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= parts || sender.send((part, read(part))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut all, mut waiting, mut failed) = (None, BTreeMap::new(), None);
        let mut joined = 0;
        for (part, made) in receiver {
            match made {
                Ok(made) => {
                    waiting.insert(part, made);
                }
                // The first error is the reason; others stopped because of it.
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
            }
            while let Some(made) = waiting.remove(&joined) {
                joined += 1;
                match &mut all {
                    None => all = Some(made),
                    Some(all) => merge(all, made),
                }
            }
        }
        match (failed, all) {
            (Some(error), _) => go_on(stop).and(Err(error)),
            (None, all) => all.ok_or(DataError::Stopped),
        }
    })
}

impl Inputs {
    /// Reads these inputs of all rows of a source, in parts.
    pub fn fold<T: Send>(
        &self,
        source: &dyn Source,
        effort: Effort,
        stop: &AtomicBool,
        folding: Folding<impl Fn() -> T + Sync, impl Fn(&mut T, Batch) + Sync, impl FnMut(&mut T, T)>,
    ) -> Result<T, DataError> {
        let Folding { make, add, merge } = folding;
        let add = |made: &mut T, batch: RecordBatch| add(made, self.read(&batch));
        fold(source, &self.columns(), effort, stop, Folding { make, add, merge })
    }
}
