//! Work that keeps a thread busy: sums, models, and tidying up at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use component::blocking::caught;
use component::folder::write_atomically;
use protocol::{ExperimentId, Plan, TaskId, Timestamp};

use crate::computation;
use crate::driver::Mail;
use crate::experiment::{Event, Experiment, Round, SeatState, Stage};
use crate::files::Files;
use crate::fold::{Ahead, FoldError, FoldJob, Opening, WrittenModel, fold, write_model};
use crate::store::SmallModel;

/// Does what the experiment waits for: the first model, or the sum of its round. Always answers: an experiment would wait for
/// good otherwise.
pub(crate) fn work(files: &Files, experiment: &Experiment, ahead: Arc<Ahead>) -> Mail {
    let outcome = caught(|| match experiment.stage() {
        Stage::Folding(round) => sum(files, experiment, round, ahead),
        _ => first_model(files, experiment),
    });
    let (event, small) = outcome.unwrap_or_else(|reason| (Event::Broken { reason }, None));
    let digest = match &event {
        Event::Initialised { model } => Some(model.digest),
        Event::Folded { folded, .. } => folded.model.map(|model| model.digest),
        _ => None,
    };
    let small_model = digest.zip(small).map(|(digest, bytes)| SmallModel { digest, bytes });
    Mail::Job { experiment: experiment.id().clone(), event, small_model }
}

/// What became of the work, and the bytes of a small model.
type Outcome = (Event, Option<Vec<u8>>);

fn first_model(files: &Files, experiment: &Experiment) -> Outcome {
    let Plan::Training(plan) = experiment.spec().plan() else {
        return (Event::Broken { reason: "a statistic has no model".into() }, None);
    };
    match computation::initial_model(plan, experiment.moments()) {
        Err(error) => (Event::Broken { reason: error.to_string() }, None),
        Ok(model) => match write_model(&files.models(experiment.id()), &model) {
            Ok(WrittenModel { blob, small }) => (Event::Initialised { model: blob }, small),
            Err(error) => (Event::Stalled { reason: format!("the researcher's disk: {error}") }, None),
        },
    }
}

/// Begins to compute what opens the sum of the open round; if that fails, the fold computes it.
pub(crate) fn compute_ahead(experiment: &Experiment) -> Option<Ahead> {
    let begun = Ahead::begin(experiment.decryption()?, experiment.round()?.layout.clone());
    begun.inspect_err(|error| tracing::warn!(%error, "what opens a hidden sum is not computed ahead")).ok()
}

fn sum(files: &Files, experiment: &Experiment, round: &Round, ahead: Arc<Ahead>) -> Outcome {
    let unmasking = experiment.unmasking(ahead);
    let is_hidden = experiment.scheme().is_some();
    if is_hidden && unmasking.is_none() {
        return (Event::Broken { reason: "the masks of a round's sum are not known".into() }, None);
    }
    if let Some(Opening::Lom(unmasker)) = unmasking.as_ref().map(|unmasking| &unmasking.opening) {
        for liar in unmasker.liars() {
            tracing::warn!(experiment = %experiment.id(), node = %liar, "a node revealed wrong shares; the sum is right all the same");
        }
    }
    let contributions: Vec<_> = round.contributions().collect();
    let job = FoldJob {
        layout: round.layout.clone(),
        contributions: contributions.iter().map(|(_, task, ..)| files.contribution(task)).collect(),
        model: experiment.model().map(|model| files.model(experiment.id(), model)),
        models: files.models(experiment.id()),
        unmasking,
    };
    match fold(&job) {
        Ok((folded, small)) => (Event::Folded { round: round.number, attempt: round.attempt, folded }, small),
        Err(FoldError::Spoiled(index)) => {
            let (node, task, ..) = contributions[index];
            // Its length was right when it came, and nothing else can be wrong with what is hidden.
            if is_hidden {
                return (Event::Lost { task: task.clone() }, None);
            }
            (Event::Spoiled { node: node.clone(), task: task.clone() }, None)
        }
        Err(FoldError::Ciphertexts(index)) => {
            let (node, task, ..) = contributions[index];
            (Event::Spoiled { node: node.clone(), task: task.clone() }, None)
        }
        Err(error @ FoldError::Io(_)) => (Event::Stalled { reason: error.to_string() }, None),
        Err(error) => (Event::Broken { reason: error.to_string() }, None),
    }
}

/// Writes the file of a small model from the database, if it is not on the disk as it was.
pub(crate) fn restore_model(files: &Files, experiment: &Experiment, model: &SmallModel) -> io::Result<()> {
    let Some(blob) = experiment.model().filter(|blob| blob.digest == model.digest) else { return Ok(()) };
    let path = files.model(experiment.id(), blob);
    if is_whole(&path, blob.digest, blob.bytes) {
        return Ok(());
    }
    fs::create_dir_all(files.models(experiment.id()))?;
    write_atomically(&path, &model.bytes)
}

/// Removes what a crash left over, and finds the contributions that a loss of power took from the disk though the store has
/// them: they are asked for again, the nodes have them still.
pub(crate) fn tidy(files: &Files, experiments: &[Experiment]) -> BTreeMap<ExperimentId, Vec<TaskId>> {
    let mut wanted = BTreeSet::new();
    let mut lost: BTreeMap<ExperimentId, Vec<TaskId>> = BTreeMap::new();
    for experiment in experiments {
        for seat in experiment.round().iter().flat_map(|round| round.contribution_seats().values()) {
            match &seat.state {
                SeatState::Contributed { digest, bytes, .. } => {
                    if is_whole(&files.contribution(&seat.task), *digest, *bytes) {
                        wanted.insert(files.contribution(&seat.task));
                    } else {
                        tracing::warn!(task = %seat.task, "a contribution is not on the disk; it is asked for again");
                        lost.entry(experiment.id().clone()).or_default().push(seat.task.clone());
                    }
                }
                SeatState::Open => {
                    wanted.insert(files.contribution(&seat.task));
                }
                _ => {}
            }
        }
        let model = experiment.model().map(|model| files.model(experiment.id(), model));
        remove_all_but(&files.models(experiment.id()), |path| model.as_deref() == Some(path));
    }
    remove_all_but(&files.spool, |path| wanted.contains(path));
    lost
}

/// Removes the models between rounds of experiments that ended long ago and have not been resumed.
pub(crate) fn forget(files: &Files, experiments: &[Experiment], now: Timestamp, retention: Duration) {
    for experiment in experiments {
        let is_old = experiment.end().is_some_and(|(at, _)| now.since(at) > retention);
        let folder = files.models(experiment.id());
        if is_old && folder.exists() {
            tracing::info!(experiment = %experiment.id(), "its models between rounds are removed; it cannot be resumed any more");
            drop(fs::remove_dir_all(folder));
        }
    }
}

fn is_whole(path: &Path, digest: protocol::Digest, bytes: u64) -> bool {
    let mut hasher = blake3::Hasher::new();
    let read = fs::File::open(path).and_then(|file| hasher.update_reader(file).map(|hasher| hasher.count()));
    read.is_ok_and(|count| count == bytes) && protocol::Digest::from(hasher.finalize()) == digest
}

fn remove_all_but(folder: &Path, is_wanted: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| !is_wanted(path)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a left-over file cannot be removed");
        }
    }
}
