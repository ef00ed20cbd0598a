//! Following an experiment: its past from the store, its present from the board.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use protocol::{ExperimentId, Timestamp};
use tokio::sync::watch;

use crate::board::Shown;
use crate::command::{Reply, Snapshot};
use crate::desk::Desk;
use crate::results;
use crate::store::StoreError;

/// Snapshots are not sent more often than this.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(100);

/// The lines of a stream, one after the other.
pub struct Follower {
    desk: Arc<Desk>,
    id: ExperimentId,
    /// Absent once the experiment is over.
    shown: Option<watch::Receiver<Shown>>,
    queue: VecDeque<Reply>,
    /// Closed rounds that have been queued.
    records: usize,
    last: Option<(Timestamp, Snapshot)>,
    is_over: bool,
}

impl Follower {
    pub(crate) async fn new(desk: Arc<Desk>, id: ExperimentId) -> Result<Self, StoreError> {
        // Before the store is read, so that nothing falls between the two.
        let shown = desk.board.follow(&id);
        let wanted = id.clone();
        let experiment = desk.store(move |store| store.experiment(&wanted)).await?;
        let started = Reply::Started { experiment_id: id.clone(), name: experiment.spec().name().to_owned() };
        Ok(Self { desk, id, shown, queue: VecDeque::from([started]), records: 0, last: None, is_over: false })
    }

    /// The next line; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Reply>, StoreError> {
        loop {
            if let Some(reply) = self.queue.pop_front() {
                return Ok(Some(reply));
            }
            if self.is_over {
                return Ok(None);
            }
            match &mut self.shown {
                None => self.finish().await?,
                Some(shown) => {
                    let Shown { snapshot, records, ended } = shown.borrow_and_update().clone();
                    if self.has_untold_warning(&snapshot) {
                        self.tell(snapshot);
                    } else if records > self.records {
                        self.fetch().await?;
                    } else if let Some(ended) = ended {
                        self.is_over = true;
                        self.queue.push_back(Reply::Ended { ended: Box::new(ended) });
                    } else {
                        self.look(snapshot).await;
                    }
                }
            }
        }
    }

    /// Queues the rounds that were closed since.
    async fn fetch(&mut self) -> Result<(), StoreError> {
        let (id, from) = (self.id.clone(), self.records);
        let records = self.desk.store(move |store| store.records(&id, from)).await?;
        self.records += records.len();
        self.queue.extend(records.into_iter().map(|record| Reply::RoundEnded { record: Box::new(record) }));
        Ok(())
    }

    /// Whether the snapshot warns of something that no line has said: an experiment of milliseconds warns too.
    fn has_untold_warning(&self, snapshot: &Snapshot) -> bool {
        let told = self.last.as_ref().and_then(|(_, last)| last.warning.as_ref());
        snapshot.warning.is_some() && snapshot.warning.as_ref() != told
    }

    fn tell(&mut self, snapshot: Snapshot) {
        self.last = Some((self.desk.clock.now(), snapshot.clone()));
        self.queue.push_back(Reply::Snapshot { snapshot });
    }

    /// Queues a changed snapshot if the last is old enough, or waits for a change.
    async fn look(&mut self, snapshot: Snapshot) {
        let now = self.desk.clock.now();
        let pause = match &self.last {
            Some((_, last)) if *last == snapshot => None,
            Some((at, _)) => Some(SNAPSHOT_PAUSE.saturating_sub(now.since(*at))),
            None => Some(Duration::ZERO),
        };
        let Some(shown) = &mut self.shown else { return };
        let is_gone = match pause {
            Some(Duration::ZERO) => return self.tell(snapshot),
            Some(pause) => matches!(tokio::time::timeout(pause, shown.changed()).await, Ok(Err(_))),
            None => shown.changed().await.is_err(),
        };
        // The board lets go of an experiment with its last word; a watcher may have missed only the closing.
        if is_gone && shown.borrow().ended.is_none() {
            self.shown = None;
        }
    }

    /// Queues what an experiment that is over has left in the store.
    async fn finish(&mut self) -> Result<(), StoreError> {
        self.fetch().await?;
        let id = self.id.clone();
        let (experiment, ended) = self.desk.store(move |store| Ok((store.experiment(&id)?, store.ended(&id)?))).await?;
        let ended = ended.unwrap_or_else(|| results::without_files(&self.desk.files, &experiment));
        self.is_over = true;
        self.queue.push_back(Reply::Ended { ended: Box::new(ended) });
        Ok(())
    }
}
