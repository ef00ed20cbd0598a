//! What tasks spend: reserved when the policy lets one in, committed when its contribution leaves, released when it does not.
//!
//! Nothing has a price yet. The two gates go through these three steps all the same, so that privacy budgets have their place.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{ResearcherId, TaskId};

type Reserved = BTreeSet<(ResearcherId, TaskId)>;

/// Who spends what.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    reserved: Arc<Mutex<Reserved>>,
}

/// What is set aside for one task. Dropping it gives it back.
#[derive(Debug)]
pub struct Reservation {
    ledger: Ledger,
    key: (ResearcherId, TaskId),
}

impl Ledger {
    fn reserved(&self) -> MutexGuard<'_, Reserved> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets aside what a task will spend.
    pub fn reserve(&self, researcher: &ResearcherId, task: &TaskId) -> Reservation {
        let key = (researcher.clone(), task.clone());
        self.reserved().insert(key.clone());
        Reservation { ledger: self.clone(), key }
    }

    /// How many reservations are open.
    pub fn open_reservations(&self) -> usize {
        self.reserved().len()
    }
}

impl Reservation {
    /// Spends what was set aside: the contribution is about to leave.
    pub fn commit(self) {
        drop(self);
    }

    /// Gives back what was set aside: nothing will leave.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.reserved().remove(&self.key);
    }
}
