//! Answers to local commands, from the folder alone. A running daemon answers with the same functions, and adds what it knows.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

use component::audit::AuditLog;
use component::database::Durability;
use protocol::{DatasetId, Refusal, RefusalCode, TaskId};
use serde_json::{Value, json};

use crate::command::{AuditRow, ConfigRow, Reply, Request, Status, TaskRow};
use crate::datasets::DatasetError;
use crate::enrolment::EnrolmentError;
use crate::handle::NodeHandle;
use crate::participant::{Action, Event, Participant, State};
use crate::policy::{PAUSED, work_name};
use crate::store::{Enrolment, StoreError, TaskRecord};

/// An error with its causes, as one sentence for the person who gave the command.
pub(crate) fn failed(error: &dyn Error) -> Reply {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !sentence.ends_with(&text) {
            let _ = write!(sentence, ": {text}");
        }
        source = cause.source();
    }
    Reply::Failed { sentence }
}

fn done(sentence: impl Into<String>) -> Reply {
    Reply::Done { sentence: sentence.into() }
}

fn or_failed<E: Error>(result: Result<Reply, E>) -> Reply {
    result.unwrap_or_else(|error| failed(&error))
}

/// So many tasks, in words.
pub(crate) fn tasks(count: usize) -> String {
    if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") }
}

/// What came of enrolling, by token or by file.
pub(crate) fn enrolled(enrolment: &Result<Enrolment, EnrolmentError>) -> Reply {
    match enrolment {
        Ok(Enrolment { researcher, address, authority, .. }) => {
            let authority = authority.key_fingerprint();
            done(format!("enrolled with {researcher} at {address}; its certificate authority is\n  {authority}"))
        }
        Err(error) => failed(error),
    }
}

pub(crate) fn stopped_one(task: &TaskId, count: usize) -> Reply {
    match count {
        0 => Reply::Failed { sentence: format!("{task} is not an open task that could be stopped") },
        _ => done(format!("{task} is stopped")),
    }
}

/// What a stopped task's researcher hears.
pub(crate) fn stopped_by_hospital() -> Refusal {
    Refusal::new(RefusalCode::StoppedByHospital, "stopped by the hospital")
}

/// Datasets whose tasks stop, for what was computed is of data that the hospital does not offer so any more.
pub(crate) struct Withdrawn(Option<DatasetId>);

impl Withdrawn {
    pub(crate) fn is_of(&self, dataset: &DatasetId) -> bool {
        self.0.as_ref().is_none_or(|withdrawn| withdrawn == dataset)
    }
}

/// The datasets that a request takes away, or changes in what they hold or who sees them.
pub(crate) fn stops_tasks_of(request: &Request) -> Option<Withdrawn> {
    match request {
        Request::DeleteAllDatasets => Some(Withdrawn(None)),
        Request::DeleteDataset { dataset } | Request::RefreshDataset { dataset } => Some(Withdrawn(Some(dataset.clone()))),
        Request::UpdateDataset { dataset, changes } if changes.path.is_some() || changes.visible_to.is_some() => {
            Some(Withdrawn(Some(dataset.clone())))
        }
        _ => None,
    }
}

/// What a hospital's person changed; questions are not written down.
fn changes(request: &Request) -> Option<Value> {
    Some(match request {
        Request::Stop => json!({ "command": "stop" }),
        Request::Pause => json!({ "command": "pause" }),
        Request::Resume => json!({ "command": "resume" }),
        Request::Enrol { .. } => json!({ "command": "enrol" }),
        Request::Allow { researcher, allowed } => {
            json!({ "command": "allow", "researcher": researcher, "allowed": allowed })
        }
        Request::Forget { researcher } => json!({ "command": "forget", "researcher": researcher }),
        Request::RequestCertificate => json!({ "command": "request_certificate" }),
        Request::Register { .. } => json!({ "command": "register" }),
        Request::ForgetRequest { key } => json!({ "command": "forget_request", "key": key }),
        Request::CancelTask { task } => json!({ "command": "cancel_task", "task": task }),
        Request::CancelAllTasks => json!({ "command": "cancel_all_tasks" }),
        Request::AddDataset { dataset } => json!({ "command": "add_dataset", "path": dataset.path }),
        Request::UpdateDataset { dataset, .. } => json!({ "command": "update_dataset", "dataset": dataset }),
        Request::RefreshDataset { dataset } => json!({ "command": "refresh_dataset", "dataset": dataset }),
        Request::DeleteDataset { dataset } => json!({ "command": "delete_dataset", "dataset": dataset }),
        Request::DeleteAllDatasets => json!({ "command": "delete_all_datasets" }),
        Request::TrustPeer { researcher, node, fingerprint, .. } => {
            json!({ "command": "trust_peer", "researcher": researcher, "node": node, "fingerprint": fingerprint })
        }
        Request::DistrustPeer { researcher, node } => {
            json!({ "command": "distrust_peer", "researcher": researcher, "node": node })
        }
        Request::RegisterParty { researcher, party, fingerprint, address, .. } => json!({
            "command": "register_party", "researcher": researcher, "party": party, "fingerprint": fingerprint, "address": address,
        }),
        Request::RemoveParty { researcher, party } => {
            json!({ "command": "remove_party", "researcher": researcher, "party": party })
        }
        Request::Status
        | Request::Peers
        | Request::Parties
        | Request::ExportCertificate { .. }
        | Request::Results { .. }
        | Request::Enrolments
        | Request::Certificates
        | Request::Tasks { .. }
        | Request::Datasets
        | Request::Dataset { .. }
        | Request::Config
        | Request::AuditTail { .. }
        | Request::AuditVerify => return None,
    })
}

impl NodeHandle {
    /// Writes down who gave a command that changes something.
    pub(crate) fn audit_command(&self, request: &Request, user: &str) -> Result<(), Refusal> {
        let Some(mut facts) = changes(request) else { return Ok(()) };
        facts["user"] = user.into();
        self.audit("command.given", facts)
    }

    /// Does what is asked without a daemon. `user` is who asks.
    pub async fn answer(&self, request: Request, user: &str) -> Reply {
        if let Err(refusal) = self.audit_command(&request, user) {
            return failed(&refusal);
        }
        match request {
            Request::Enrol { token } => enrolled(&self.enrol(&token).await),
            Request::Register { answer, address, replaces } => {
                enrolled(&self.enrol_by_file(&answer, address.as_deref(), replaces))
            }
            Request::Stop => Reply::Failed { sentence: "no daemon runs".to_owned() },
            Request::CancelTask { task } => {
                or_failed(self.stop_stored(|record| record.task.id == task).map(|count| stopped_one(&task, count)))
            }
            Request::CancelAllTasks => {
                or_failed(self.stop_stored(|_| true).map(|count| done(format!("stopped {}", tasks(count)))))
            }
            // The agents stop what is open when they start.
            request => {
                let stops = stops_tasks_of(&request);
                let reply = self.answer_now(request, &AtomicBool::default());
                match stops {
                    Some(datasets) if !matches!(reply, Reply::Failed { .. }) => {
                        or_failed(self.stop_stored(|record| datasets.is_of(&record.task.dataset)).map(|_| reply))
                    }
                    _ => reply,
                }
            }
        }
    }

    /// Answers what needs neither the network nor an agent. May take as long as reading a dataset does, unless `stop` is set.
    pub(crate) fn answer_now(&self, request: Request, stop: &AtomicBool) -> Reply {
        match request {
            Request::Status => or_failed(self.status().map(|status| Reply::Status { status: Box::new(status) })),
            Request::Pause => or_failed(self.pause()),
            Request::Resume => or_failed(self.resume()),
            Request::Enrolments => or_failed(self.store().enrolments().map(|enrolments| Reply::Enrolments {
                rows: enrolments.iter().map(|enrolment| self.enrolment_row(enrolment, "not running")).collect(),
            })),
            Request::Allow { researcher, allowed } => or_failed(self.allow(&researcher, allowed).map(|()| {
                done(if allowed {
                    format!("{researcher} may give work")
                } else {
                    format!("{researcher} may not give work any more")
                })
            })),
            Request::Forget { researcher } => {
                or_failed(self.forget(&researcher).map(|()| done(format!("left the federation of {researcher}"))))
            }
            Request::Certificates => or_failed(self.certificate_rows().map(|rows| Reply::Certificates { rows })),
            Request::RequestCertificate => or_failed(self.request_certificate().map(|request| Reply::SigningRequest {
                text: request.to_text(self.name()),
                key_fingerprint: request.key_fingerprint().to_string(),
            })),
            Request::ForgetRequest { key } => {
                or_failed(self.forget_request(&key).map(|key| done(format!("dropped the request with the key {key}"))))
            }
            Request::Tasks { all } => or_failed(
                self.store().tasks(all).map(|records| Reply::Tasks { rows: records.iter().map(task_row).collect() }),
            ),
            Request::Peers => or_failed(self.peer_rows().map(|rows| Reply::Peers { rows })),
            Request::TrustPeer { researcher, node, name, fingerprint } => {
                or_failed(self.trust_peer(researcher, &node, name, &fingerprint).map(done))
            }
            Request::DistrustPeer { researcher, node } => or_failed(self.distrust_peer(researcher, &node).map(done)),
            Request::Parties => or_failed(self.parties().list().map(|rows| Reply::Parties { rows })),
            Request::RegisterParty { researcher, party, fingerprint, address, replaces } => {
                or_failed(self.register_party(researcher, party, &fingerprint, &address, replaces).map(done))
            }
            Request::RemoveParty { researcher, party } => {
                or_failed(self.remove_party(researcher.as_ref(), &party).map(done))
            }
            Request::ExportCertificate { researcher } => {
                or_failed(self.export_certificate(researcher).map(|pem| Reply::Certificate { pem }))
            }
            Request::Results { experiment } => {
                or_failed(self.result_rows(experiment.as_ref()).map(|rows| Reply::Results { rows }))
            }
            Request::Config => Reply::Config { rows: self.config_rows() },
            Request::AuditTail { lines } => or_failed(AuditLog::tail(&self.folder().audit_file(), lines).map(|entries| {
                let rows =
                    entries.into_iter().map(|entry| AuditRow { time: entry.time, event: entry.event, facts: entry.facts });
                Reply::Audit { rows: rows.collect() }
            })),
            Request::AuditVerify => {
                or_failed(AuditLog::verify(&self.folder().audit_file()).map(|lines| Reply::AuditVerified { lines }))
            }
            request => or_failed(self.answer_about_datasets(request, stop)),
        }
    }

    fn answer_about_datasets(&self, request: Request, stop: &AtomicBool) -> Result<Reply, DatasetError> {
        let detail = match request {
            Request::AddDataset { dataset } => self.add_dataset(&dataset, stop)?,
            Request::Dataset { dataset } => self.dataset_detail(&dataset, stop)?,
            Request::UpdateDataset { dataset, changes } => self.update_dataset(&dataset, &changes, stop)?,
            Request::RefreshDataset { dataset } => self.refresh_dataset(&dataset, stop)?,
            Request::Datasets => return Ok(Reply::Datasets { rows: self.dataset_rows(stop)? }),
            Request::DeleteDataset { dataset } => {
                self.delete_dataset(&dataset)?;
                return Ok(done(format!("{dataset} is not offered any more; its files stay")));
            }
            Request::DeleteAllDatasets => {
                let datasets = self.store().datasets()?;
                for dataset in &datasets {
                    self.delete_dataset(&dataset.id)?;
                }
                return Ok(done(format!("{} datasets are not offered any more; their files stay", datasets.len())));
            }
            other => unreachable!("answered elsewhere: {other:?}"),
        };
        Ok(Reply::Dataset { detail: Box::new(detail) })
    }

    fn pause(&self) -> Result<Reply, StoreError> {
        self.halt().set_paused(true);
        Ok(done(if self.store().set_mark(PAUSED, self.now())? { "paused" } else { "was paused already" }))
    }

    fn resume(&self) -> Result<Reply, StoreError> {
        let was_marked = self.store().clear_mark(PAUSED)?;
        let was_paused = was_marked || self.halt().is_paused();
        self.halt().set_paused(false);
        Ok(done(if was_paused { "takes work again" } else { "was not paused" }))
    }

    /// Stops tasks in the journal; the researchers hear of it at the next connection.
    fn stop_stored(&self, is_meant: impl Fn(&TaskRecord) -> bool) -> Result<usize, StoreError> {
        let mut stopped = 0;
        for record in self.store().tasks(false)?.into_iter().filter(is_meant) {
            let TaskRecord { researcher, task, state, updated, .. } = record;
            let mut participant = Participant::restored(task.id.clone(), state, updated);
            let actions = self.draw(|rng| participant.apply(Event::Stopped(stopped_by_hospital()), self.now(), rng));
            if actions.iter().any(|action| matches!(action, Action::Store { .. })) {
                self.store().update_task(&researcher, &participant, None, Durability::Durable)?;
                if let Err(error) = self.spool().remove(&researcher, &task.id) {
                    tracing::warn!(%error, "a contribution's file stays until the next start");
                }
                stopped += 1;
            }
        }
        Ok(stopped)
    }

    pub(crate) fn status(&self) -> Result<Status, StoreError> {
        let enrolments = self.store().enrolments()?;
        let open = self.store().tasks(false)?;
        Ok(Status {
            id: self.id().clone(),
            name: self.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: None,
            since: None,
            paused: self.is_paused()?,
            running: None,
            waiting: open.iter().filter(|record| record.state == State::Accepted).count() as u64,
            datasets: self.store().datasets()?.len() as u64,
            researchers: enrolments.iter().map(|enrolment| self.enrolment_row(enrolment, "not running")).collect(),
            storage_bytes: self.storage_bytes().unwrap_or(0),
            storage_quota: self.config().storage.quota_bytes,
        })
    }

    fn config_rows(&self) -> Vec<ConfigRow> {
        let rows = self.config().layers().entries().map(|(setting, value, origin)| ConfigRow {
            key: format!("{}.{}", setting.section, setting.key),
            value: serde_json::to_value(value).unwrap_or(Value::Null),
            source: origin.to_string(),
            meaning: setting.doc.to_owned(),
        });
        rows.collect()
    }
}

pub(crate) fn task_row(record: &TaskRecord) -> TaskRow {
    let TaskRecord { researcher, task, state, accepted, updated, .. } = record;
    TaskRow {
        task: task.id.clone(),
        researcher: researcher.clone(),
        requester: task.requester.user.clone(),
        experiment: task.key.experiment.clone(),
        round: task.key.round,
        attempt: task.key.attempt,
        work: work_name(&task.work).to_owned(),
        dataset: task.dataset.clone(),
        state: state.name().to_owned(),
        refusal: if let State::Refused(refusal) = state { Some(refusal.code) } else { None },
        bytes: if let State::Computed(held) | State::Delivered(held) = state { Some(held.bytes) } else { None },
        accepted: accepted.to_string(),
        updated: updated.to_string(),
    }
}
