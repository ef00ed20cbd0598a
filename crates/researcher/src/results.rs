//! What an experiment leaves behind: artefacts for people, and where they lie.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

use component::blocking::caught;
use protocol::{Plan, Refusal, RefusalCode, Report, Tensors};

use crate::artifact::{
    self, Artifacts, ExperimentFacts, IntendedUse, PooledMetric, Record, SiteFacts, SiteRound, Standardised,
};
use crate::command::{Ended, ExperimentState, NodeProgress, NodeRecord, Pooled, RoundKind, RoundRecord};
use crate::desk::Desk;
use crate::driver::RETRY;
use crate::experiment::Experiment;
use crate::files::Files;
use crate::store::{Store, StoreError};

/// This software's version, as artefacts and peers see it.
pub(crate) const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// Writes the artefacts and notes where they are. Done again after a crash, the same files come out.
pub(crate) async fn write(desk: &Desk, experiment: Experiment) -> Result<Ended, StoreError> {
    let id = experiment.id().clone();
    let records = match desk.store(move |store| store.records(&id, 0)).await {
        Ok(records) => records,
        Err(error) => return Ok(without_artifacts(&desk.files, &experiment, &error.to_string())),
    };
    let files = desk.files.clone();
    let (ended, is_written) = desk
        .blocking
        .run(move || match caught(|| write_files(&files, &experiment, &records)).flatten() {
            Ok(artifacts) => (with_artifacts(&files, &experiment, artifacts), true),
            Err(error) => (without_artifacts(&files, &experiment, &error), false),
        })
        .await;
    if is_written {
        note_end(desk, &ended).await?;
    }
    Ok(ended)
}

/// Notes where the artefacts are; tries until the disk takes it.
async fn note_end(desk: &Desk, ended: &Ended) -> Result<(), StoreError> {
    loop {
        let (noted, files) = (ended.clone(), desk.files.clone());
        let note = move |store: &mut Store| {
            store.set_ended(&noted)?;
            if noted.state == ExperimentState::Finished {
                // Nothing goes on from here, and the artefacts are not made again: the last model is among them.
                drop(fs::remove_dir_all(files.models(&noted.experiment_id)));
            }
            Ok(())
        };
        match desk.store(note).await {
            Err(error) if error.may_pass() => {
                tracing::error!(%error, "the end of an experiment cannot be noted; trying again");
            }
            noted => return noted,
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Appends a closed round to the experiment's metrics, so that they can be looked at while it runs. The end writes all anew.
pub(crate) fn append(files: &Files, experiment: &Experiment, record: &RoundRecord) -> io::Result<()> {
    let Some(round) = round(experiment, record) else { return Ok(()) };
    let folder = files.experiment(experiment.id());
    fs::create_dir_all(&folder)?;
    let mut out = OpenOptions::new().append(true).create(true).open(folder.join("metrics.csv"))?;
    if out.metadata()?.len() == 0 {
        artifact::metrics::write_header(&mut out)?;
    }
    artifact::metrics::write_round(&mut out, &sites(experiment), &round)
}

fn write_files(files: &Files, experiment: &Experiment, records: &[RoundRecord]) -> Result<Artifacts, String> {
    let model = match experiment.model() {
        None => None,
        Some(blob) => {
            let bytes = fs::read(files.model(experiment.id(), blob)).map_err(|error| format!("the model: {error}"))?;
            Some(Tensors::from_bytes(&bytes).map_err(|error| format!("the model: {error}"))?)
        }
    };
    let record = record(experiment, records);
    let date = record.experiment.ended;
    let artifacts = artifact::write_all(&files.experiment(experiment.id()), &record, model.as_ref(), date)
        .map_err(|error| format!("{error}: {}", error.source))?;
    Ok(artifacts)
}

/// The artefacts' view of an experiment.
fn record(experiment: &Experiment, records: &[RoundRecord]) -> Record {
    let (ended, reason) = experiment.end().unwrap_or((experiment.created(), None));
    let code = match experiment.state() {
        ExperimentState::Cancelled => RefusalCode::Cancelled,
        _ => RefusalCode::Unavailable,
    };
    let standardises = matches!(experiment.spec().plan(), Plan::Training(plan) if plan.standardise());
    let moments = experiment.moments().filter(|_| standardises).unwrap_or_default();
    Record {
        experiment: ExperimentFacts {
            id: experiment.id().clone(),
            spec: experiment.spec().clone(),
            requester: experiment.requester().clone(),
            software: SOFTWARE.to_owned(),
            started: experiment.created(),
            ended,
            stopped: reason.map(|reason| Refusal::new(code, reason)),
            standardisation: moments
                .iter()
                .map(|column| Standardised {
                    feature: column.column.clone(),
                    mean: column.mean,
                    deviation: column.deviation,
                })
                .collect(),
            intended_use: IntendedUse::default(),
        },
        sites: sites(experiment),
        rounds: records.iter().filter_map(|record| round(experiment, record)).collect(),
    }
}

fn sites(experiment: &Experiment) -> Vec<SiteFacts> {
    let participants = experiment.participants().iter();
    let facts = participants.map(|(node, participant)| SiteFacts {
        node: node.clone(),
        name: participant.name.clone(),
        rows: participant.rows,
    });
    let mut sites: Vec<SiteFacts> = facts.collect();
    sites.sort_by(|a, b| a.name.cmp(&b.name));
    sites
}

/// A training round or the last validation; the passes of a statistic are not among the artefacts' rounds.
fn round(experiment: &Experiment, record: &RoundRecord) -> Option<artifact::RoundRecord> {
    let round = match record.kind {
        RoundKind::Training => record.training_round?,
        RoundKind::Validation => experiment.spec().rounds() + 1,
        _ => return None,
    };
    Some(artifact::RoundRecord {
        round,
        sites: record.nodes.iter().map(|node| (node.id.clone(), site_round(node))).collect::<BTreeMap<_, _>>(),
        loss: record.loss,
        pooled: record.metrics.iter().map(pooled).collect(),
        ended: record.ended,
        seconds: record.seconds,
        hidden: record.hidden.clone(),
    })
}

fn pooled(pooled: &Pooled) -> PooledMetric {
    PooledMetric {
        on: pooled.measured.on,
        metric: pooled.measured.metric,
        value: Some(pooled.measured.value),
        error_bound: pooled.error_bound,
        remark: None,
    }
}

fn site_round(node: &NodeRecord) -> SiteRound {
    if node.state == NodeProgress::Contributed && node.hidden.is_some() {
        return SiteRound::Contributed;
    }
    if node.state == NodeProgress::Contributed {
        return SiteRound::Reported(Report {
            train_rows: node.train_rows.unwrap_or(0),
            test_rows: node.test_rows.unwrap_or(0),
            dropped_rows: node.dropped_rows.unwrap_or(0),
            loss: node.loss,
            measured: node.measured.clone(),
            remarks: node.remarks.clone(),
            work_ms: node.work_ms.unwrap_or(0),
        });
    }
    let code = node.code.unwrap_or(match node.state {
        NodeProgress::Late => RefusalCode::Late,
        _ => RefusalCode::Unavailable,
    });
    SiteRound::Refused(Refusal::new(code, node.reason.clone().unwrap_or_else(|| node.state.name().to_owned())))
}

/// How an experiment ended, without where its artefacts lie.
pub(crate) fn without_files(files: &Files, experiment: &Experiment) -> Ended {
    let (at, reason) = experiment.end().unwrap_or((experiment.created(), None));
    let is_statistic = matches!(experiment.spec().plan(), Plan::Statistic(_));
    Ended {
        experiment_id: experiment.id().clone(),
        name: experiment.spec().name().to_owned(),
        state: experiment.state(),
        reason,
        rounds: experiment.training_rounds(),
        seconds: at.since(experiment.created()).as_secs_f64(),
        folder: files.experiment(experiment.id()),
        model: None,
        card: None,
        metrics_csv: None,
        report: None,
        tensorboard: None,
        metrics: experiment.metrics().to_vec(),
        moments: experiment.moments().filter(|_| is_statistic).unwrap_or_default().to_vec(),
        answer: experiment.answer(),
    }
}

fn with_artifacts(files: &Files, experiment: &Experiment, artifacts: Artifacts) -> Ended {
    let Artifacts { model, model_card, metrics, report, tensorboard } = artifacts;
    let some = |path: PathBuf| Some(path);
    Ended {
        model,
        card: model_card,
        metrics_csv: some(metrics),
        report: some(report),
        tensorboard: some(tensorboard),
        ..without_files(files, experiment)
    }
}

fn without_artifacts(files: &Files, experiment: &Experiment, error: &str) -> Ended {
    tracing::error!(experiment = %experiment.id(), error, "the artefacts cannot be written; the next start tries again");
    let mut ended = without_files(files, experiment);
    let note = format!("the artefacts cannot be written: {error}");
    ended.reason = Some(ended.reason.map_or(note.clone(), |reason| format!("{reason}; {note}")));
    ended
}
