//! Where work is done: whose turn it is, on which thread, with which tables in memory. All agents of a node share one.

use std::sync::Arc;
use std::time::Duration;

use component::blocking::Blocking;
use protocol::{Refusal, RefusalCode, Work};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::executor::Tables;

/// The machine's time and memory for work.
#[derive(Debug)]
pub struct Workshop {
    blocking: Blocking,
    /// Trainings queue here, in the order in which they came; by default one runs at a time.
    trainings: Arc<Semaphore>,
    /// Statistics do not wait for trainings.
    statistics: Arc<Semaphore>,
    /// Exchanges of secure aggregation wait for neither: others wait for their answers.
    exchanges: Arc<Semaphore>,
    tables: Tables,
    /// How long each work waits before it begins; for simulations, in which work itself takes no time.
    delay: Duration,
}

/// The right to work now. Dropped when the work ends.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>);

impl Workshop {
    /// Opens a workshop in which so many trainings run at once.
    pub fn new(blocking: Blocking, trainings: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            blocking,
            trainings: semaphore(trainings.max(1)),
            statistics: semaphore(1),
            exchanges: semaphore(1),
            tables: Tables::default(),
            delay: Duration::ZERO,
        }
    }

    /// Opens the workshop of a simulation, in which each work takes so long on the runtime's clock.
    pub fn for_simulation(delay: Duration) -> Self {
        Self { delay, ..Self::new(Blocking::Inline, 1) }
    }

    /// Runs work to its end, so that searches and cancellations are answered meanwhile. A panic in it is an error of that work
    /// only.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        self.blocking.run_apart(work).await.map_err(|error| {
            tracing::error!(%error, "the work ended unexpectedly");
            Refusal::new(RefusalCode::Internal, "the work ended unexpectedly; the node's log says more")
        })
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Lets the time pass that work takes in a simulation.
    pub(crate) async fn pass_time(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
    }

    /// Waits until this kind of work may begin.
    pub async fn turn(&self, work: &Work) -> Turn {
        let lane = match work {
            Work::Train { .. } | Work::Validate => &self.trainings,
            Work::Sums | Work::SquaredDifferences { .. } | Work::Pass { .. } => &self.statistics,
            Work::Secure { .. } => &self.exchanges,
        };
        // A lane is never closed.
        Turn(lane.clone().acquire_owned().await.ok())
    }
}
