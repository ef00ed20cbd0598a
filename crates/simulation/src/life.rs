//! The life of one daemon, from its start until it is killed: what it asks from outside comes from here, and that is where it dies.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use component::database::{CommitSide, CommitWatch};
use protocol::Timestamp;
use tokio::sync::Notify;
use transport::clock::Clock;

use crate::log::Log;

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub fn dawn() -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000)
}

/// What unwinds the stack of a daemon that is killed from within.
pub(crate) struct Killed;

/// When a daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuse {
    Never,
    /// So long after its start.
    After(Duration),
    /// When it reads its clock for the n-th time, from 1.
    Reading(u64),
    /// On one side of its n-th commit, from 1.
    Commit(u64, CommitSide),
}

/// How one life of a daemon goes.
#[derive(Debug, Clone, PartialEq)]
pub struct LifePlan {
    pub fuse: Fuse,
    /// How long it stays away afterwards.
    pub away: Duration,
    /// How long a task's work takes; for nodes.
    pub work: Duration,
    /// By how much its clock jumps ahead at each reading, so that time passes within work too, in milliseconds.
    pub haste_ms: u64,
    /// The commits, counted from 1, that find the disk full.
    pub disk_full: Range<u64>,
}

impl Default for LifePlan {
    fn default() -> Self {
        Self { fuse: Fuse::Never, away: Duration::ZERO, work: Duration::ZERO, haste_ms: 0, disk_full: 0..0 }
    }
}

impl LifePlan {
    /// The same life, but nothing happens in it.
    pub(crate) fn without_end(&self) -> Self {
        Self { work: self.work, ..Self::default() }
    }
}

type End = Box<dyn FnOnce() + Send>;

/// One life.
pub(crate) struct Life {
    name: String,
    plan: LifePlan,
    log: Log,
    readings: AtomicU64,
    commits: AtomicU64,
    /// Set once all is to end well: nobody is killed any more.
    calm: Arc<AtomicBool>,
    is_over: AtomicBool,
    over: Notify,
    /// Cuts the daemon off from all others, at once.
    end: Mutex<Option<End>>,
}

impl Life {
    pub(crate) fn new(name: String, plan: LifePlan, log: Log, calm: Arc<AtomicBool>) -> Arc<Self> {
        log.write(format!("{name} starts"));
        let (readings, commits) = (AtomicU64::new(0), AtomicU64::new(0));
        let (is_over, over, end) = (AtomicBool::new(false), Notify::new(), Mutex::new(None));
        Arc::new(Self { name, plan, log, readings, commits, calm, is_over, over, end })
    }

    pub(crate) fn plan(&self) -> &LifePlan {
        &self.plan
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Returns when the daemon is dead.
    pub(crate) async fn over(&self) {
        // Listening begins here, before the look.
        let over = self.over.notified();
        if !self.is_over() {
            over.await;
        }
    }

    /// Says how the daemon is cut off. If it is dead already, that is done now.
    pub(crate) fn on_end(&self, end: impl FnOnce() + Send + 'static) {
        if self.is_over() {
            end();
        } else {
            *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(end));
        }
    }

    /// Ends the daemon, from outside.
    pub(crate) fn kill(&self, why: &str) {
        if self.is_over.swap(true, Ordering::SeqCst) {
            return;
        }
        self.over.notify_waiters();
        self.log.write(format!("{} is killed: {why}", self.name));
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end {
            end();
        }
    }

    /// Kills the daemon when its time has come; for whoever keeps it.
    pub(crate) async fn burn_down(&self) {
        if let Fuse::After(lasts) = self.plan.fuse {
            tokio::time::sleep(lasts).await;
            if !self.is_calm() {
                self.kill("its time had come");
            }
        }
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    fn die(&self, why: &str) -> ! {
        self.kill(why);
        resume_unwind(Box::new(Killed))
    }

    /// What still runs of a dead daemon ends at its next step.
    fn step(&self) {
        if self.is_over() && !std::thread::panicking() {
            resume_unwind(Box::new(Killed));
        }
    }

    fn read_clock(&self) -> u64 {
        self.step();
        let reading = self.readings.fetch_add(1, Ordering::SeqCst) + 1;
        if self.plan.fuse == Fuse::Reading(reading) && !self.is_calm() && !std::thread::panicking() {
            self.die(&format!("at reading {reading} of its clock"));
        }
        reading
    }

    fn commit(&self, side: CommitSide) -> bool {
        self.step();
        let commit = match side {
            CommitSide::Before => self.commits.fetch_add(1, Ordering::SeqCst) + 1,
            CommitSide::After => self.commits.load(Ordering::SeqCst),
        };
        if self.plan.fuse == Fuse::Commit(commit, side) && !self.is_calm() {
            self.die(&format!("{side:?} commit {commit}"));
        }
        let is_full = side == CommitSide::Before && self.plan.disk_full.contains(&commit) && !self.is_calm();
        if is_full {
            self.log.write(format!("{} finds the disk full at commit {commit}", self.name));
        }
        !is_full
    }

    /// The daemon's hand on its store.
    pub(crate) fn commit_watch(self: &Arc<Self>) -> CommitWatch {
        let life = self.clone();
        CommitWatch::new(move |side| life.commit(side))
    }

    /// The daemon's clock.
    pub(crate) fn clock(self: &Arc<Self>) -> Arc<dyn Clock> {
        Arc::new(LifeClock(self.clone()))
    }
}

struct LifeClock(Arc<Life>);

impl Clock for LifeClock {
    fn now(&self) -> Timestamp {
        let reading = self.0.read_clock();
        let ahead = Duration::from_millis(self.0.plan.haste_ms.saturating_mul(reading));
        dawn().saturating_add(self.0.log.elapsed() + ahead)
    }
}
