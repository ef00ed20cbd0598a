//! The loop around experiments: one transaction around one step.
//!
//! Events come in by [`Mail`], in order. All that waits is applied, what changed is written in one transaction, and only then are
//! the actions carried out, so that nothing has an effect which a crash could take back. What keeps a thread busy, a fold or a
//! model, runs apart and comes back as mail. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use component::database::Durability;
use protocol::{
    DatasetFace, ExperimentId, ExperimentSpec, NodeId, Refusal, RefusalCode, RequestId, Requester, ResearcherMessage,
    SecureMessage, TaskId, Timestamp, UploadHeader,
};
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use transport::identity::Fingerprint;

use crate::board::TaskPlace;
use crate::command::Ended;
use crate::desk::Desk;
use crate::experiment::{Action, Event, Experiment, SecureChange};
use crate::fold::Ahead;
use crate::negotiation::Negotiations;
use crate::sessions::Asker;
use crate::store::{Saved, SmallModel, Store, StoreError};
use crate::{jobs, results};

/// Mail that may wait; whoever sends more waits.
pub(crate) const MAILBOX: usize = 4096;
/// Events that share a transaction at most.
const BATCH: usize = 256;
/// A sleep is not longer than this, so that a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// How long to wait before a transaction that the disk refused is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// What a local command gets back: done, or a sentence that says why not.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, String>>;

/// What the driver is told.
#[derive(Debug)]
pub(crate) enum Mail {
    Connected {
        node: NodeId,
        name: String,
        held: Vec<TaskId>,
        keyed: Vec<ExperimentId>,
    },
    Disconnected {
        node: NodeId,
    },
    Revoked {
        node: NodeId,
    },
    Found {
        experiment: ExperimentId,
        node: NodeId,
        datasets: Vec<DatasetFace>,
    },
    Refused {
        node: NodeId,
        task: TaskId,
        refusal: Refusal,
    },
    OutOfRange {
        node: NodeId,
        task: TaskId,
        exponents: Vec<i16>,
    },
    Answered {
        node: NodeId,
        task: TaskId,
        answer: SecureMessage,
        key: Fingerprint,
    },
    /// A node brought its keys itself; answered once that is in the store.
    Heard {
        experiment: ExperimentId,
        node: NodeId,
        said: SecureMessage,
        key: Fingerprint,
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// The file is in the spool; answered once that is in the store.
    Contributed {
        node: NodeId,
        header: UploadHeader,
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Work that ran apart is over.
    Job {
        experiment: ExperimentId,
        event: Event,
        small_model: Option<SmallModel>,
    },
    Ended {
        ended: Box<Ended>,
    },
    /// The store takes nothing any more: the daemon ends.
    StoreFailed {
        error: StoreError,
    },
    Run {
        spec: Box<ExperimentSpec>,
        requester: Requester,
        answer: Answer<ExperimentId>,
    },
    Resume {
        experiment: ExperimentId,
        answer: Answer<()>,
    },
    Cancel {
        experiment: ExperimentId,
        by: String,
        answer: Answer<()>,
    },
    Stop,
}

/// An answer that waits for the transaction.
enum Waiting {
    Upload(oneshot::Sender<Result<(), Refusal>>),
    Heard(oneshot::Sender<Result<(), Refusal>>),
    Run(Answer<ExperimentId>, ExperimentId),
    Command(Answer<()>),
}

/// What one batch changed.
#[derive(Default)]
struct Batch {
    /// Something else happened than that nodes answered or contributed.
    is_large: bool,
    changed: BTreeSet<ExperimentId>,
    actions: Vec<(ExperimentId, Action)>,
    waiting: Vec<Waiting>,
    /// What changed of the state of hidden sums.
    secure: BTreeMap<ExperimentId, SecureChange>,
    /// Models to be written with the experiments.
    models: BTreeMap<ExperimentId, SmallModel>,
    /// Files that nobody needs once the batch is stored.
    outdated: Vec<PathBuf>,
    is_last: bool,
    failure: Option<StoreError>,
}

impl Batch {
    /// What nobody is told about need not wait for the disk: after a loss of power it is said again. Nodes keep their
    /// contributions until they are settled, and a contribution that is not in the store is asked for again.
    fn durability(&self) -> Durability {
        let is_silent = |(_, action): &(ExperimentId, Action)| matches!(action, Action::Fold | Action::Keep(_));
        let tells_nobody = self.actions.iter().all(is_silent);
        let only_uploads = self.waiting.iter().all(|waiting| matches!(waiting, Waiting::Upload(_)));
        if tells_nobody && only_uploads { Durability::Lazy } else { Durability::Durable }
    }

    /// Takes out the settlements of answers, if nothing else is to be said: a node keeps its answer until it is settled, and says it
    /// again after each connection, so that it can be told with the next batch that waits for the disk, which ends the exchange.
    fn take_settlements(&mut self) -> Vec<(ExperimentId, Action)> {
        let is_settlement = |action: &Action| matches!(action, Action::Settle { .. });
        let is_silent = |action: &Action| matches!(action, Action::Fold | Action::Keep(_)) || is_settlement(action);
        if self.is_large || !self.actions.iter().all(|(_, action)| is_silent(action)) {
            return Vec::new();
        }
        self.actions.extract_if(.., |(_, action)| is_settlement(action)).collect()
    }
}

pub(crate) struct Driver {
    desk: Arc<Desk>,
    rng: StdRng,
    /// The experiments that are not over.
    experiments: BTreeMap<ExperimentId, Experiment>,
    wakes: BTreeMap<ExperimentId, Timestamp>,
    /// What opens the sums of open rounds, as far as it can be computed before nodes have answered.
    ahead: BTreeMap<ExperimentId, Arc<Ahead>>,
    /// Experiments that are over and whose artefacts are being written.
    ending: BTreeSet<ExperimentId>,
    /// Settlements that are told with the next batch that waits for the disk.
    unsaid: Vec<(ExperimentId, Action)>,
    /// Who wants to go on with one of these.
    resumptions: Vec<(ExperimentId, Answer<()>)>,
    negotiations: Negotiations,
}

impl Driver {
    pub(crate) fn new(desk: Arc<Desk>, rng: StdRng) -> Self {
        let (experiments, wakes, ahead) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (ending, unsaid, resumptions) = (BTreeSet::new(), Vec::new(), Vec::new());
        let negotiations = Negotiations::default();
        Self { desk, rng, experiments, wakes, ahead, ending, unsaid, resumptions, negotiations }
    }

    /// Takes up what an earlier process left, before any node is let in.
    pub(crate) async fn take_up(&mut self) -> Result<(), StoreError> {
        let load = |store: &mut Store| {
            let counted = |store: &Store, experiment: Experiment| Ok((store.record_count(experiment.id())?, experiment));
            let unfinished = store.unfinished()?.into_iter().map(|experiment| counted(store, experiment));
            let unfinished = unfinished.collect::<Result<Vec<_>, StoreError>>()?;
            let unwritten = store.over_without_end()?.into_iter().map(|experiment| counted(store, experiment));
            Ok((unfinished, unwritten.collect::<Result<Vec<_>, StoreError>>()?))
        };
        let (unfinished, unwritten) = self.desk.store(load).await?;
        let files = self.desk.files.clone();
        let experiments: Vec<Experiment> = unfinished.iter().map(|(_, experiment)| experiment.clone()).collect();
        for experiment in experiments.iter().chain(unwritten.iter().map(|(_, experiment)| experiment)) {
            self.restore_model(experiment);
        }
        let lost = self.desk.blocking.run(move || jobs::tidy(&files, &experiments)).await;
        let mut batch = Batch::default();
        for (records, experiment) in unfinished {
            tracing::info!(experiment = %experiment.id(), name = experiment.spec().name(), "goes on");
            self.desk.board.show(&experiment, records);
            let id = experiment.id().clone();
            self.experiments.insert(id.clone(), experiment);
            for task in lost.get(&id).into_iter().flatten() {
                self.apply(&id, Event::Lost { task: task.clone() }, &mut batch);
            }
            self.apply(&id, Event::Restarted, &mut batch);
        }
        for (records, experiment) in unwritten {
            // Who follows it waits for its end.
            self.desk.board.show(&experiment, records);
            self.write_results(experiment);
        }
        self.finish(batch).await
    }

    /// Works until it is told to stop, or the store fails for good.
    pub(crate) async fn run(mut self, mut mailbox: mpsc::Receiver<Mail>) -> Result<(), StoreError> {
        loop {
            let mut batch = Batch::default();
            tokio::select! {
                // Time first: much mail does not hold up what is due.
                biased;
                () = tokio::time::sleep(self.until_wake()) => self.tick(&mut batch),
                mail = mailbox.recv() => match mail {
                    Some(mail) => self.take(mail, &mut batch),
                    None => return Ok(()),
                },
            }
            for _ in 0..BATCH {
                match mailbox.try_recv() {
                    Ok(mail) => self.take(mail, &mut batch),
                    Err(_) => break,
                }
            }
            let (is_last, failure) = (batch.is_last, batch.failure.take());
            self.finish(batch).await?;
            if is_last || failure.is_some() {
                return failure.map_or(Ok(()), Err);
            }
        }
    }

    fn until_wake(&self) -> Duration {
        let now = self.desk.clock.now();
        self.wakes.values().min().map_or(LONGEST_SLEEP, |wake| wake.since(now).min(LONGEST_SLEEP))
    }

    fn tick(&mut self, batch: &mut Batch) {
        let now = self.desk.clock.now();
        let due: Vec<ExperimentId> = self.wakes.iter().filter(|(_, wake)| **wake <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.apply(&id, Event::Tick, batch);
        }
    }

    /// Turns mail into events of experiments.
    fn take(&mut self, mail: Mail, batch: &mut Batch) {
        match mail {
            Mail::Connected { node, name, held, keyed } => {
                self.settle_strangers(&node, &held);
                self.end_keys(&node, keyed);
                self.apply_to_all(&Event::Connected { node, name }, batch);
            }
            Mail::Disconnected { node } => self.apply_to_all(&Event::Disconnected { node }, batch),
            Mail::Revoked { node } => self.apply_to_all(&Event::Revoked { node }, batch),
            Mail::Found { experiment, node, datasets } => self.apply(&experiment, Event::Found { node, datasets }, batch),
            Mail::Refused { node, task, refusal } => {
                self.desk.note_refusal(&node, &task, &refusal);
                let event = Event::Refused { node: node.clone(), task: task.clone(), refusal };
                self.apply_to_task(&node, &task, event, batch);
            }
            Mail::OutOfRange { node, task, exponents } => {
                let event = Event::OutOfRange { node: node.clone(), task: task.clone(), exponents };
                self.apply_to_task(&node, &task, event, batch);
            }
            Mail::Answered { node, task, answer, key } => {
                let event = Event::Answered { node: node.clone(), task: task.clone(), answer, key };
                self.apply_to_task(&node, &task, event, batch);
            }
            Mail::Heard { experiment, node, said, key, answer } => {
                let checked = self.experiments.get(&experiment).map(|known| known.check_heard(&node, &said, &key));
                match checked.unwrap_or_else(|| Err(Refusal::new(RefusalCode::Late, "the experiment is over"))) {
                    Ok(()) => {
                        self.apply(&experiment, Event::Heard { node, said, key }, batch);
                        batch.waiting.push(Waiting::Heard(answer));
                    }
                    refused => drop(answer.send(refused)),
                }
            }
            Mail::Contributed { node, header, answer } => self.contributed(node, header, answer, batch),
            Mail::Job { experiment, event, small_model } => {
                batch.models.extend(small_model.map(|model| (experiment.clone(), model)));
                self.apply(&experiment, event, batch);
            }
            Mail::Ended { ended } => {
                self.ending.remove(&ended.experiment_id);
                let is_meant = |(id, _): &mut (ExperimentId, _)| *id == ended.experiment_id;
                let resumptions: Vec<_> = self.resumptions.extract_if(.., is_meant).collect();
                self.desk.board.end(*ended);
                for (id, answer) in resumptions {
                    self.resume(&id, answer, batch);
                }
            }
            Mail::Run { spec, requester, answer } => {
                let now = self.desk.clock.now();
                let experiment = Experiment::new(ExperimentId::random(&mut self.rng), *spec, requester, now);
                let experiment =
                    experiment.of_researcher(self.desk.researcher.clone()).with_modulus(self.desk.modulus.clone());
                let id = experiment.id().clone();
                self.experiments.insert(id.clone(), experiment);
                self.apply(&id, Event::Begun { connected: self.desk.sessions.names() }, batch);
                batch.waiting.push(Waiting::Run(answer, id));
            }
            Mail::Resume { experiment, answer } => self.resume(&experiment, answer, batch),
            Mail::Cancel { experiment, by, answer } => {
                if self.experiments.contains_key(&experiment) {
                    self.apply(&experiment, Event::Cancelled { by }, batch);
                    batch.waiting.push(Waiting::Command(answer));
                } else {
                    let _ = answer.send(Err("the experiment is over already".into()));
                }
            }
            Mail::StoreFailed { error } => batch.failure = Some(error),
            Mail::Stop => batch.is_last = true,
        }
    }

    fn apply_to_all(&mut self, event: &Event, batch: &mut Batch) {
        for id in self.experiments.keys().cloned().collect::<Vec<_>>() {
            self.apply(&id, event.clone(), batch);
        }
    }

    /// A word about a task of no open round is answered so that the node lets go of it.
    fn apply_to_task(&mut self, node: &NodeId, task: &TaskId, event: Event, batch: &mut Batch) {
        match self.desk.board.task(task).filter(|open| open.node == *node) {
            Some(open) => self.apply(&open.experiment, event, batch),
            None => self.desk.sessions.send(node, ResearcherMessage::Settled { task: task.clone() }),
        }
    }

    /// Tells a node that has come back which of its tasks nobody waits for.
    fn settle_strangers(&self, node: &NodeId, held: &[TaskId]) {
        for task in held {
            if self.desk.board.task(task).is_none_or(|open| open.node != *node) {
                self.desk.sessions.send(node, ResearcherMessage::Settled { task: task.clone() });
            }
        }
    }

    /// Tells a node that has come back for which experiments it keeps keys that nobody needs.
    fn end_keys(&self, node: &NodeId, keyed: Vec<ExperimentId>) {
        for experiment in keyed {
            if self.experiments.get(&experiment).is_none_or(|known| known.has_no_use_for_keys_of(node)) {
                tracing::debug!(%node, %experiment, "the node keeps keys that nobody needs any more");
                self.desk.sessions.send(node, ResearcherMessage::Over { experiment });
            }
        }
    }

    fn contributed(
        &mut self,
        node: NodeId,
        header: UploadHeader,
        answer: oneshot::Sender<Result<(), Refusal>>,
        batch: &mut Batch,
    ) {
        let UploadHeader { task, digest, bytes, report } = header;
        match self.desk.board.task(&task).filter(|open| open.node == node) {
            Some(open) if open.place == TaskPlace::Contributed => {
                let _ = answer.send(Ok(()));
            }
            Some(open) => {
                self.apply(&open.experiment, Event::Contributed { node, task, digest, bytes, report }, batch);
                batch.waiting.push(Waiting::Upload(answer));
            }
            None => {
                self.desk.remove_contribution(&task);
                let _ = answer.send(Err(self.desk.late(&node, &task)));
            }
        }
    }

    fn resume(&mut self, id: &ExperimentId, answer: Answer<()>, batch: &mut Batch) {
        if self.experiments.contains_key(id) {
            let _ = answer.send(Err("the experiment is running; follow it instead".into()));
            return;
        }
        if self.ending.contains(id) {
            self.resumptions.push((id.clone(), answer));
            return;
        }
        let loaded = self.desk.store_now(|store| Ok((store.record_count(id)?, store.experiment(id)?)));
        match loaded {
            Err(error) => {
                let _ = answer.send(Err(error.to_string()));
            }
            Ok((_, experiment)) if experiment.is_finished() => {
                let _ = answer.send(Err("the experiment is finished; there is nothing to go on with".into()));
            }
            Ok((_, experiment)) if self.has_lost_model(&experiment) => {
                let sentence =
                    "its models between rounds are gone: `experiments.retention` has passed, or somebody removed them";
                let _ = answer.send(Err(sentence.into()));
            }
            Ok((records, experiment)) => {
                self.desk.board.show(&experiment, records);
                self.experiments.insert(id.clone(), experiment);
                self.apply(id, Event::Resumed { connected: self.desk.sessions.names() }, batch);
                batch.waiting.push(Waiting::Command(answer));
            }
        }
    }

    /// Writes the file of a small model again if a loss of power took it.
    fn restore_model(&self, experiment: &Experiment) {
        let restored = self
            .desk
            .store_now(|store| store.small_model(experiment.id()))
            .map(|model| model.map_or(Ok(()), |model| jobs::restore_model(&self.desk.files, experiment, &model)));
        match restored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the model of an experiment cannot be written"),
            Err(error) => tracing::error!(%error, "the model of an experiment cannot be read"),
        }
    }

    /// Whether the model to go on with is not there, even after its file was written again from the database.
    fn has_lost_model(&self, experiment: &Experiment) -> bool {
        self.restore_model(experiment);
        experiment.model().is_some_and(|blob| !self.desk.files.model(experiment.id(), blob).exists())
    }

    fn apply(&mut self, id: &ExperimentId, event: Event, batch: &mut Batch) {
        let Some(experiment) = self.experiments.get_mut(id) else { return };
        let model = experiment.model();
        let is_small = SecureChange::is_small(&event);
        let mut actions = experiment.apply(event, self.desk.clock.now(), &mut self.rng);
        if let Some(reason) = too_large(&actions, experiment, self.desk.spool_quota_bytes) {
            actions.retain(|action| !matches!(action, Action::Ask { .. }));
            actions.extend(experiment.apply(Event::Broken { reason }, self.desk.clock.now(), &mut self.rng));
        }
        batch.changed.insert(id.clone());
        batch.is_large |= !is_small;
        let change = SecureChange::of(is_small, &actions);
        let change = match batch.secure.remove(id) {
            Some(earlier) => earlier.and(change),
            None => change,
        };
        batch.secure.insert(id.clone(), change);
        self.wakes.remove(id);
        for action in actions {
            match action {
                Action::WakeAt(at) => {
                    self.wakes.insert(id.clone(), at);
                }
                action => batch.actions.push((id.clone(), action)),
            }
        }
        if let Some(old) = model.filter(|old| experiment.model() != Some(*old)) {
            batch.outdated.push(self.desk.files.model(id, old));
        }
    }

    /// Stores a batch, then carries it out.
    async fn finish(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        let settlements = batch.take_settlements();
        self.unsaid.extend(settlements);
        let durability = batch.durability();
        let saved = Self::saved(&self.experiments, &batch);
        let closed: Vec<usize> = saved.iter().map(|saved| saved.records.len()).collect();
        self.commit(saved, durability).await?;
        let Batch { changed, mut actions, waiting, mut outdated, .. } = batch;
        if durability == Durability::Durable && !changed.is_empty() {
            actions.append(&mut self.unsaid);
        }
        for (id, closed) in changed.iter().zip(closed) {
            self.desk.board.show(&self.experiments[id], closed);
            self.negotiations.follow(&self.desk, id, self.experiments[id].negotiation());
        }
        // Nodes first: they work while the rest is done.
        let is_record = |(_, action): &(ExperimentId, Action)| matches!(action, Action::Record(_));
        let (records, actions): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_record);
        for (id, action) in actions.into_iter().chain(records) {
            self.carry_out(&id, action, &mut outdated);
        }
        for waiting in waiting {
            // Who does not listen any more needs no answer.
            let _ = match waiting {
                Waiting::Upload(answer) | Waiting::Heard(answer) => answer.send(Ok(())).is_ok(),
                Waiting::Run(answer, id) => answer.send(Ok(id)).is_ok(),
                Waiting::Command(answer) => answer.send(Ok(())).is_ok(),
            };
        }
        self.desk.remove_files(outdated);
        Ok(())
    }

    /// What a batch writes.
    fn saved(experiments: &BTreeMap<ExperimentId, Experiment>, batch: &Batch) -> Vec<Saved> {
        let saved = |id: &ExperimentId| {
            let records = batch.actions.iter().filter_map(|(owner, action)| match action {
                Action::Record(record) if owner == id => Some((**record).clone()),
                _ => None,
            });
            let is_present = |model: &&SmallModel| experiments[id].model().is_some_and(|it| it.digest == model.digest);
            let model = batch.models.get(id).filter(is_present).cloned();
            Saved::changed(&experiments[id], &batch.secure[id], records.collect(), model)
        };
        batch.changed.iter().map(saved).collect()
    }

    /// Writes what changed. A disk that is full holds everything up, but nothing is lost or done twice.
    async fn commit(&self, saved: Vec<Saved>, durability: Durability) -> Result<(), StoreError> {
        if saved.is_empty() {
            return Ok(());
        }
        let saved = Arc::new(saved);
        loop {
            let steps = saved.clone();
            match self.desk.store(move |store| store.save(&steps, durability)).await {
                Err(error) if error.may_pass() => {
                    tracing::error!(%error, "the state of experiments cannot be written; trying again");
                }
                written => return written,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn carry_out(&mut self, id: &ExperimentId, action: Action, outdated: &mut Vec<PathBuf>) {
        let desk = &self.desk;
        match action {
            Action::Search { node, tags } => {
                desk.sessions.search(&node, RequestId::random(&mut self.rng), tags, Asker::Experiment(id.clone()));
            }
            Action::Ask { node, task } => {
                let signature = desk.task_key.sign_task(&task);
                desk.sessions.send(&node, ResearcherMessage::Task { task, signature });
            }
            Action::Cancel { node, task, refusal } => {
                outdated.push(desk.files.contribution(&task));
                desk.sessions.send(&node, ResearcherMessage::Cancel { task, refusal });
            }
            Action::Over { node } => desk.sessions.send(&node, ResearcherMessage::Over { experiment: id.clone() }),
            Action::Settle { node, task } => {
                outdated.push(desk.files.contribution(&task));
                desk.sessions.send(&node, ResearcherMessage::Settled { task });
            }
            Action::Initialise | Action::Fold => {
                let Some(experiment) = self.experiments.get(id).cloned() else { return };
                let desk = desk.clone();
                let ahead = self.ahead.remove(id).unwrap_or_default();
                tokio::spawn(async move {
                    let files = desk.files.clone();
                    let mail = desk.blocking.run(move || jobs::work(&files, &experiment, ahead)).await;
                    desk.mail(mail).await;
                });
            }
            Action::ComputeAhead => {
                let ahead = self.experiments.get(id).and_then(jobs::compute_ahead);
                self.ahead.extend(ahead.map(|ahead| (id.clone(), Arc::new(ahead))));
            }
            Action::Record(record) => {
                let (round, kind, seconds) = (record.round, record.kind.name(), record.seconds);
                tracing::info!(experiment = %id, round, kind, seconds, "round closed");
                // Of an experiment that is over, all metrics are being written.
                let appended = self.experiments.get(id).map(|experiment| results::append(&desk.files, experiment, &record));
                if let Some(Err(error)) = appended {
                    tracing::warn!(%error, "a round cannot be appended to the metrics; the end writes them anew");
                }
            }
            // Stored with the step; kept in `wakes` when it was said.
            Action::Keep(_) | Action::WakeAt(_) => {}
            Action::End => {
                self.wakes.remove(id);
                self.ahead.remove(id);
                if let Some(experiment) = self.experiments.remove(id) {
                    desk.note_end(&experiment);
                    self.write_results(experiment);
                }
            }
        }
    }

    fn write_results(&mut self, experiment: Experiment) {
        self.ending.insert(experiment.id().clone());
        let desk = self.desk.clone();
        tokio::spawn(async move {
            let mail = match results::write(&desk, experiment).await {
                Ok(ended) => Mail::Ended { ended: Box::new(ended) },
                Err(error) => Mail::StoreFailed { error },
            };
            desk.mail(mail).await;
        });
    }
}

/// Why a round's contributions can never be summed: its tasks ask for more than the spool may hold.
fn too_large(actions: &[Action], experiment: &Experiment, quota: u64) -> Option<String> {
    const MEGABYTE: u64 = 1_000_000;
    let asks = |action: &Action| matches!(action, Action::Ask { task, .. } if !task.layout.is_empty());
    let bytes = actions.iter().any(asks).then(|| experiment.contribution_bytes())??;
    let nodes = u64::from(experiment.spec().patience().min_nodes.max(1));
    let needed = bytes.saturating_mul(nodes);
    let contributions = if nodes == 1 { "a contribution".to_owned() } else { format!("the contributions of {nodes} nodes") };
    (needed > quota).then(|| {
        let (needed, quota) = (needed.div_ceil(MEGABYTE), quota / MEGABYTE);
        format!("{contributions} to a round would take {needed} MB, and `experiments.spool_quota_mb` is {quota}; raise it")
    })
}

#[cfg(test)]
mod tests;
