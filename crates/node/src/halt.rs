//! What the hospital stopped, in memory: it holds at once, also where the disk cannot take it down.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use protocol::{ResearcherId, TaskId};

/// What is stopped until the daemon ends, beside what the database says.
#[derive(Debug, Default)]
pub(crate) struct Halt {
    is_paused: AtomicBool,
    stopped: Mutex<Stopped>,
}

#[derive(Debug, Default)]
struct Stopped {
    researchers: BTreeSet<ResearcherId>,
    tasks: BTreeSet<TaskId>,
}

impl Halt {
    fn stopped<T>(&self, work: impl FnOnce(&mut Stopped) -> T) -> T {
        work(&mut self.stopped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::SeqCst);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::SeqCst)
    }

    pub(crate) fn allow(&self, researcher: &ResearcherId, allowed: bool) {
        self.stopped(|stopped| {
            if allowed {
                stopped.researchers.remove(researcher);
            } else {
                stopped.researchers.insert(researcher.clone());
            }
        });
    }

    pub(crate) fn forbids(&self, researcher: &ResearcherId) -> bool {
        self.stopped(|stopped| stopped.researchers.contains(researcher))
    }

    pub(crate) fn stop_task(&self, task: TaskId) {
        self.stopped(|stopped| stopped.tasks.insert(task));
    }

    pub(crate) fn has_stopped(&self, task: &TaskId) -> bool {
        self.stopped(|stopped| stopped.tasks.contains(task))
    }
}
