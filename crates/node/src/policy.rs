//! The one gate in: whether a task may run here. It is asked before any data is opened, and writes the audit log.
//!
//! Only [`Policy::admit`] makes a [`Permit`], and the executor works only with one.

mod question;

use std::collections::BTreeSet;

use protocol::{
    Plan, PlanKind, Purpose, Refusal, RefusalCode, ResearcherId, SecureMessage, SecureStep, StatisticPlan, Task, VectorSpec,
    Width, Work, layout_byte_len,
};
use serde_json::json;

use crate::config::{DisclosureRules, NegotiationRule, NodeConfig, SecureAggregation, SecureRules};
use crate::handle::NodeHandle;
use crate::ledger::Reservation;
use crate::memory;
use crate::store::{Dataset, Enrolment, StoreError};

/// The mark that stands while the hospital has paused the node.
pub(crate) const PAUSED: &str = "paused";

/// The rules of one node.
#[derive(Debug, Clone)]
pub struct Policy {
    allowed_plan_kinds: BTreeSet<PlanKind>,
    /// `None`: all that are enrolled.
    allowed_researchers: Option<BTreeSet<ResearcherId>>,
    minimum_samples: u64,
    secure: SecureRules,
    disclosure: DisclosureRules,
    /// The most that one contribution or one model may take, in bytes.
    largest_bytes: u64,
    /// The most memory that a task may need, in bytes.
    memory_bytes: u64,
}

/// A task that may run, with the dataset it may read; none for an exchange around a hidden sum.
#[derive(Debug)]
pub struct Permit {
    researcher: ResearcherId,
    task: Task,
    dataset: Option<Dataset>,
    reservation: Reservation,
}

impl Permit {
    pub fn researcher(&self) -> &ResearcherId {
        &self.researcher
    }

    pub fn task(&self) -> &Task {
        &self.task
    }

    pub fn dataset(&self) -> Option<&Dataset> {
        self.dataset.as_ref()
    }

    /// Ends the permit; what it reserved is for the disclosure gate to commit or to release.
    pub(crate) fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

fn refuse<T>(code: RefusalCode, sentence: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, sentence))
}

/// Whether the enrolled researcher asked exactly this, and of this node: a task for one node cannot be carried to another.
fn check_origin(node: &NodeHandle, enrolment: &Enrolment, task: &Task, signature: &[u8]) -> Result<(), Refusal> {
    if enrolment.task_key.verify(task, signature).is_err() {
        return refuse(RefusalCode::SignatureInvalid, "the task is not signed with the key of the enrolled researcher");
    }
    if task.node != *node.id() {
        return refuse(RefusalCode::OtherNode, "the task is signed for another node");
    }
    Ok(())
}

/// Whether the work is a pass of the statistic.
fn statistic_has(plan: &Plan, work: &Work) -> bool {
    match plan {
        Plan::Statistic(StatisticPlan::Moments { .. }) => matches!(work, Work::Sums | Work::SquaredDifferences { .. }),
        Plan::Statistic(StatisticPlan::Question { .. }) => matches!(work, Work::Pass { .. }),
        Plan::Training(_) => false,
    }
}

/// Whether the work is one that the plan has.
fn work_fits_plan(task: &Task) -> bool {
    let Plan::Training(plan) = &task.plan else {
        return task.model.is_none() && statistic_has(&task.plan, &task.work);
    };
    match task.work {
        // Refused before: see `check_exchange`.
        Work::Secure { .. } | Work::Pass { .. } => false,
        Work::Sums | Work::SquaredDifferences { .. } => {
            (plan.standardise() || task.masking.is_some()) && task.model.is_none()
        }
        Work::Train { .. } | Work::Validate => task.model.is_some(),
    }
}

/// Whether an exchange around a hidden sum asks for nothing else: no data, no model, no contribution.
fn check_exchange(task: &Task, step: SecureStep) -> Result<(), Refusal> {
    let is_bare = task.model.is_none() && task.layout.is_empty() && task.masking.is_none();
    if is_bare && task.key.phase == step.phase() {
        return Ok(());
    }
    refuse(RefusalCode::PlanInvalid, "an exchange of secure aggregation has its own phase, and no model, layout or masking")
}

/// Whether each vector that would be clipped has a range.
fn has_clipping(task: &Task) -> bool {
    let Some(masking) = &task.masking else { return true };
    // Wider sums have room for any difference.
    let is_narrow = |spec: &&VectorSpec| spec.purpose == Purpose::Model && spec.encoding.width == Width::Bits32;
    let mut models = task.layout.iter().filter(is_narrow);
    models.all(|spec| masking.clipping.get(&spec.name).is_some_and(|range| range.is_finite() && *range > 0.0))
}

impl Policy {
    pub fn of(config: &NodeConfig) -> Self {
        Self {
            allowed_plan_kinds: config.allowed_plan_kinds.clone(),
            allowed_researchers: config.allowed_researchers.clone(),
            minimum_samples: config.minimum_samples,
            secure: config.secure,
            disclosure: config.disclosure,
            largest_bytes: config.storage.quota_bytes,
            memory_bytes: memory::limit(config.memory_bytes),
        }
    }

    /// What the hospital demands of hidden sums.
    pub fn secure(&self) -> &SecureRules {
        &self.secure
    }

    /// Whether sums may be hidden as asked, or must be.
    fn check_secure(&self, task: &Task) -> Result<(), Refusal> {
        let is_exchange = matches!(task.work, Work::Secure { .. });
        match (self.secure.mode, &task.masking) {
            (SecureAggregation::Off, masking) if masking.is_some() || is_exchange => refuse(
                RefusalCode::SecureAggregationNotAllowed,
                "this node does not take part in secure aggregation; ask without it, or have the hospital set \
                 secure_aggregation = \"allowed\"",
            ),
            (SecureAggregation::Required, None) if !is_exchange => refuse(
                RefusalCode::SecureAggregationRequired,
                format!(
                    "this node gives nothing but hidden sums, of statistics too; ask with secagg = \"lom\" or \"joye-libert\" and at \
                     least {} nodes",
                    self.secure.min_parties
                ),
            ),
            (_, Some(_)) if task.key.phase != 0 || !has_clipping(task) => refuse(
                RefusalCode::PlanInvalid,
                "a hidden contribution is of phase 0, and has a range above zero for each float32 vector of the model",
            ),
            _ => Ok(()),
        }
    }

    /// Whether one contribution or one model may take so many bytes.
    pub(crate) fn allows_bytes(&self, bytes: u64) -> bool {
        bytes <= self.largest_bytes
    }

    /// Whether the node registers a dataset of so many rows, or trains on so many.
    pub fn has_enough_rows(&self, rows: u64) -> bool {
        rows >= self.minimum_samples
    }

    /// What statistics may say of few people.
    pub fn disclosure(&self) -> DisclosureRules {
        self.disclosure
    }

    /// The least number of rows that the hospital allows computing on.
    pub fn minimum_samples(&self) -> u64 {
        self.minimum_samples
    }

    /// Whether numbers computed on so many rows may leave. Those of no row at all tell of nobody.
    pub fn allows_rows(&self, rows: u64) -> bool {
        rows == 0 || self.has_enough_rows(rows)
    }

    /// Whether this researcher may ask anything at all.
    pub fn allows(&self, enrolment: &Enrolment) -> bool {
        let is_listed = self.allowed_researchers.as_ref().is_none_or(|allowed| allowed.contains(&enrolment.researcher));
        enrolment.allowed && is_listed
    }

    /// Says whether the task may run here, and writes that down. A task of the journal is asked about again after a restart,
    /// for the rules may be others now.
    pub fn admit(&self, node: &NodeHandle, enrolment: &Enrolment, task: &Task, signature: &[u8]) -> Result<Permit, Refusal> {
        let failed = |error: StoreError| {
            tracing::error!(%error, "the database failed");
            Refusal::new(RefusalCode::Unavailable, "the node cannot read its database")
        };
        let dataset = node.store().dataset(&task.dataset).map_err(failed)?;
        let is_paused = node.is_paused().map_err(failed)?;
        let decision = if is_paused {
            refuse(RefusalCode::PausedByHospital, "the hospital has paused this node")
        } else if node.halt().forbids(&enrolment.researcher) {
            refuse(RefusalCode::ResearcherNotAllowed, "the hospital does not allow this researcher to give work")
        } else {
            check_origin(node, enrolment, task, signature).and_then(|()| self.decide(enrolment, task, dataset))
        };
        let word = decision.as_ref().err().map_or_else(|| "admitted".to_owned(), |refusal| refusal.code.name());
        let event = if decision.is_ok() { "task.admitted" } else { "task.refused" };
        let facts = json!({
            "researcher": enrolment.researcher, "requester": task.requester.user, "task": task.id,
            "experiment": task.key.experiment, "round": task.key.round, "attempt": task.key.attempt,
            "plan": task.plan.kind(), "work": work_name(&task.work), "dataset": task.dataset, "decision": word,
        });
        node.audit(event, facts)?;
        let dataset = decision?;
        let reservation = node.ledger().reserve(&enrolment.researcher, &task.id);
        Ok(Permit { researcher: enrolment.researcher.clone(), task: task.clone(), dataset, reservation })
    }

    /// Whether keys may go the way that is asked: a question for a relayed key is empty.
    fn check_way(&self, step: SecureStep, message: &SecureMessage) -> Result<(), Refusal> {
        let is_direct = !message.as_bytes().is_empty();
        match self.secure.negotiation {
            NegotiationRule::Relay if step == SecureStep::Agree && is_direct => refuse(
                RefusalCode::SecureAggregationNotAllowed,
                "this node listens nowhere, so its keys go by way of the researcher; ask with key_negotiation = \"relay\", or have the \
                 hospital set security.negotiation = \"both\"",
            ),
            NegotiationRule::Direct if step == SecureStep::Agree && !is_direct => refuse(
                RefusalCode::SecureAggregationNotAllowed,
                "this node brings its keys to the other parties itself; ask with key_negotiation = \"direct\", or have the hospital set \
                 security.negotiation = \"both\"",
            ),
            _ => Ok(()),
        }
    }

    /// The rules for a task whose origin is known, in the order of who asks, what is asked, of which data.
    fn decide(&self, enrolment: &Enrolment, task: &Task, dataset: Option<Dataset>) -> Result<Option<Dataset>, Refusal> {
        if !self.allows(enrolment) {
            return refuse(RefusalCode::ResearcherNotAllowed, "the hospital does not allow this researcher to give work");
        }
        if !self.allowed_plan_kinds.contains(&task.plan.kind()) {
            return refuse(RefusalCode::PlanKindNotAllowed, "the hospital does not allow plans of this kind");
        }
        self.check_secure(task)?;
        if let Work::Secure { step, message } = &task.work {
            self.check_way(*step, message)?;
            return check_exchange(task, *step).map(|()| None);
        }
        if !work_fits_plan(task) {
            return refuse(RefusalCode::PlanInvalid, "the work does not belong to the plan");
        }
        if let Plan::Statistic(StatisticPlan::Question { question }) = &task.plan {
            question::check(self.disclosure, question, task.masking.is_some())?;
        }
        let model_bytes = task.model.map_or(0, |model| model.bytes);
        if !self.allows_bytes(model_bytes) || layout_byte_len(&task.layout).is_none_or(|bytes| !self.allows_bytes(bytes)) {
            return refuse(RefusalCode::TooLarge, "the model or the contribution exceeds what the hospital allows");
        }
        // A dataset that the researcher may not see is as unknown as one that does not exist.
        let Some(dataset) = dataset.filter(|dataset| dataset.is_visible_to(&enrolment.researcher)) else {
            return refuse(RefusalCode::DatasetUnknown, "the node has no such dataset");
        };
        if !self.has_enough_rows(dataset.scan.rows) {
            return refuse(RefusalCode::TooFewSamples, "the dataset has fewer rows than the hospital allows computing on");
        }
        let columns = dataset.scan.schema.columns().len() as u64;
        if memory::estimate(task, dataset.scan.rows, columns) > self.memory_bytes {
            return refuse(RefusalCode::TooLarge, "the task needs more memory than the hospital allows");
        }
        Ok(Some(dataset))
    }
}

/// The work's name in tables and logs.
pub(crate) fn work_name(work: &Work) -> &'static str {
    match work {
        Work::Sums => "sums",
        Work::SquaredDifferences { .. } => "squared_differences",
        Work::Pass { .. } => "pass",
        Work::Train { .. } => "train",
        Work::Validate => "validate",
        Work::Secure { step, .. } => step.name(),
    }
}
