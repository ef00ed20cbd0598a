//! The desk of secure aggregation: this node's part of hidden sums, with the secrets that belong to it.
//!
//! `secagg` says what may be done; here its state is taken from the disk, moved on, and written back before an answer leaves. The
//! methods of `secagg` are idempotent, so that a task that is done again after a crash gives the same bytes. The hospital's rules and
//! its roster are asked at every step, as they are then.

mod roster;
mod seal;

use std::collections::BTreeMap;
use std::io;
use std::sync::MutexGuard;

use component::keystore::KeyStoreError;
use protocol::{
    ExperimentId, Refusal, RefusalCode, ResearcherId, SecureMessage, SecureStep, Task, TaskId, VectorSpec, Width, Work,
};
use secagg::channel::Roster;
use secagg::exchange::{
    AgreeAnswer, AttestRequest, MaskRequest, PrepareRequest, RevealAnswer, RevealRequest, decode, encode,
};
use secagg::identity::{IdentityKey, IdentityPublic};
use secagg::lom::{Masker, NodeRole, Preparation};
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment, PartyId};
use secagg::problem::Problem;
use secagg::session::{Rules, SessionId, SessionSpec, Terms};
use secagg::wire::Fixed;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::enrolment::EnrolmentError;
use crate::handle::NodeHandle;
use crate::policy::Permit;
use crate::store::StoreError;

/// Why the desk gives nothing.
#[derive(Debug)]
pub(crate) enum DeskError {
    Refused(Refusal),
    /// The own disk failed; to be tried again.
    Hindered(io::Error),
}

impl From<Refusal> for DeskError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for DeskError {
    fn from(error: StoreError) -> Self {
        Self::Hindered(io::Error::other(error))
    }
}

impl From<KeyStoreError> for DeskError {
    fn from(error: KeyStoreError) -> Self {
        tracing::error!(%error, "a key of this node cannot be used");
        Self::Refused(Refusal::new(RefusalCode::Unavailable, "the node cannot use its keys"))
    }
}

impl From<EnrolmentError> for DeskError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::Store(error) => error.into(),
            error => {
                tracing::error!(%error, "the identity of this node cannot be used");
                Self::Refused(Refusal::new(RefusalCode::Unavailable, "the node cannot use its identity"))
            }
        }
    }
}

impl From<Problem> for DeskError {
    fn from(problem: Problem) -> Self {
        let code = match &problem {
            Problem::TooFewParties { .. } | Problem::TooFewSurvivors { .. } | Problem::MinParties { .. } => {
                RefusalCode::TooFewParties
            }
            Problem::NotInRoster { .. } => RefusalCode::RosterMismatch,
            _ => RefusalCode::SecureAggregationFailed,
        };
        // A problem names parties, steps and numbers of parties, and nothing of data or of secrets.
        Self::Refused(Refusal::new(code, problem.to_string()))
    }
}

fn failed(sentence: impl Into<String>) -> DeskError {
    DeskError::Refused(Refusal::new(RefusalCode::SecureAggregationFailed, sentence))
}

/// What this node keeps of one experiment. Secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    role: NodeRole,
    /// The keys with which channels were agreed.
    identities: Roster,
    sessions: BTreeMap<SessionId, Session>,
}

/// What is kept of a session beside the secrets themselves.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    spec: SessionSpec,
    /// The one task whose contribution these masks hide.
    contribution: Option<TaskId>,
}

/// The masks of one contribution.
pub(crate) struct Masks {
    masker: Masker,
    session: SessionId,
}

impl Masks {
    /// The session, for the audit log.
    pub(crate) fn session(&self) -> String {
        self.session.to_string()
    }

    /// Adds the masks to elements `first_element…` of a vector of the layout, in place.
    pub(crate) fn add(&self, index: usize, spec: &VectorSpec, first_element: u64, elements: &mut [u8]) {
        let modulus = match spec.encoding.width {
            Width::Bits32 => Modulus::Bits32,
            Width::Bits64 => Modulus::Bits64,
            Width::Bits128 => Modulus::Bits128,
        };
        let index = u32::try_from(index).expect("a layout has fewer vectors");
        let name = VectorName { index, purpose: spec.purpose.name(), name: &spec.name };
        self.masker.add(name, modulus, first_element, elements).expect("whole elements are masked");
    }
}

/// One task at the desk. Others wait until it is dropped.
struct Desk<'a> {
    node: &'a NodeHandle,
    researcher: &'a ResearcherId,
    task: &'a Task,
    _turn: MutexGuard<'a, ()>,
}

/// Answers an exchange around a hidden sum. What it says holds after a restart: it is on the disk.
pub(crate) fn answer(node: &NodeHandle, permit: &Permit) -> Result<SecureMessage, DeskError> {
    let Work::Secure { step, message } = &permit.task().work else {
        return Err(failed("the task is no exchange of secure aggregation"));
    };
    let desk = Desk::open(node, permit);
    let request = message.as_bytes();
    let answer = match step {
        SecureStep::Agree => desk.agree(),
        SecureStep::Prepare => desk.prepare(&decode("request", request)?),
        SecureStep::Attest => desk.attest(&decode("request", request)?),
        SecureStep::Reveal => desk.reveal(&decode("request", request)?),
    };
    let bytes = answer?;
    SecureMessage::new(bytes).map_err(|error| DeskError::Refused(Refusal::new(RefusalCode::TooLarge, error.to_string())))
}

/// Gives the masks of a permitted contribution; `None` if it is not to be hidden. They are for this task alone, until
/// [`give_back`].
pub(crate) fn masks(node: &NodeHandle, permit: &Permit) -> Result<Option<Masks>, DeskError> {
    let Some(masking) = &permit.task().masking else { return Ok(None) };
    let request = decode("request", masking.message.as_bytes())?;
    Desk::open(node, permit).masks(&request).map(Some)
}

/// Lets another task have the masks of one whose contribution does not leave.
pub(crate) fn give_back(node: &NodeHandle, permit: &Permit, masks: &Masks) -> Result<(), DeskError> {
    let desk = Desk::open(node, permit);
    let mut secrets = desk.load()?;
    match secrets.sessions.get_mut(&masks.session) {
        Some(session) if session.contribution.as_ref() == Some(&desk.task.id) => session.contribution = None,
        _ => return Ok(()),
    }
    desk.save(&secrets)
}

impl<'a> Desk<'a> {
    fn open(node: &'a NodeHandle, permit: &'a Permit) -> Self {
        Self { node, researcher: permit.researcher(), task: permit.task(), _turn: node.desk_turn() }
    }

    fn experiment_id(&self) -> &'a ExperimentId {
        &self.task.key.experiment
    }

    /// The name to which all keys are bound: two federations never share one.
    fn experiment(&self) -> Result<Experiment, DeskError> {
        Ok(Experiment::new(format!("{}/{}", self.researcher, self.experiment_id()))?)
    }

    fn identity(&self) -> Result<IdentityKey, DeskError> {
        let enrolment = self.node.store().enrolment(self.researcher)?;
        let enrolment = enrolment.ok_or_else(|| EnrolmentError::Unknown(self.researcher.clone()))?;
        Ok(IdentityKey::from_pkcs8_der(&self.node.node_identity(&enrolment)?.key_der())?)
    }

    /// The hospital's rules, as they are now. The role itself is held to the least of all rules, for they may be eased.
    fn rules(&self) -> Rules {
        let rules = self.node.policy().secure();
        Rules { min_parties: rules.min_parties, max_colluders: rules.max_colluders }
    }

    fn find(&self) -> Result<Option<Secrets>, DeskError> {
        let Some(sealed) = self.node.store().secure_state(self.researcher, self.experiment_id())? else { return Ok(None) };
        let opened = seal::open(self.node, (self.researcher, self.experiment_id()), &sealed)?;
        let secrets = opened.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if secrets.is_none() {
            tracing::warn!(
                experiment = %self.experiment_id(),
                "the secrets of an experiment were sealed in another folder, or by another version; they are not used"
            );
        }
        Ok(secrets)
    }

    fn load(&self) -> Result<Secrets, DeskError> {
        self.find()?.ok_or_else(|| failed("this node has no channel key for the experiment, or not any more"))
    }

    fn save(&self, secrets: &Secrets) -> Result<(), DeskError> {
        let bytes = Zeroizing::new(serde_json::to_vec(secrets).map_err(StoreError::from)?);
        let sealed = seal::seal(self.node, (self.researcher, self.experiment_id()), &bytes)?;
        Ok(self.node.store().save_secure_state(self.researcher, self.experiment_id(), &sealed, self.node.now())?)
    }

    /// Writes a step down, before its answer leaves.
    fn audit(&self, event: &str, session: Option<&SessionSpec>, survivors: Option<&[PartyId]>) -> Result<(), DeskError> {
        let parties = session.map(|spec| spec.parties.len());
        let lost: Option<Vec<&str>> = session.zip(survivors).map(|(spec, survivors)| {
            spec.parties.iter().filter(|party| !survivors.contains(party)).map(PartyId::as_str).collect()
        });
        let facts = json!({
            "researcher": self.researcher, "requester": self.task.requester.user, "task": self.task.id,
            "experiment": self.experiment_id(), "round": self.task.key.round, "attempt": self.task.key.attempt,
            "session": session.map(|spec| spec.id().to_string()), "parties": parties,
            "threshold": session.map(|spec| spec.threshold), "colluders": session.map(|spec| spec.colluders),
            "survivors": survivors.map(<[PartyId]>::len), "lost": lost,
        });
        Ok(self.node.audit(event, facts)?)
    }

    fn agree(&self) -> Result<Vec<u8>, DeskError> {
        let identity = self.identity()?;
        let secrets = if let Some(secrets) = self.find()? {
            secrets
        } else {
            let party = PartyId::new(self.node.id().as_str())?;
            let experiment = self.experiment()?;
            let rules = Rules { min_parties: 2, max_colluders: Some(0) };
            let role = self.node.draw(|rng| NodeRole::new(experiment, party, rules, rng));
            let secrets = Secrets { role, identities: Roster::new(), sessions: BTreeMap::new() };
            self.save(&secrets)?;
            secrets
        };
        self.audit("secure.agreed", None, None)?;
        Ok(encode(&AgreeAnswer { identity: identity.public(), offer: secrets.role.offer(&identity) }))
    }

    fn prepare(&self, request: &PrepareRequest) -> Result<Vec<u8>, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        request.spec.check_rules(&self.rules())?;
        let new = roster::check(self.node, self.researcher, &own, &request.roster)?;
        secrets.role.agree(&request.roster, &request.offers)?;
        secrets.identities.extend(request.roster.iter().map(|(party, identity)| (party.clone(), *identity)));
        let preparation = self.prepare_session(&mut secrets, &own, &request.spec)?;
        roster::remember(self.node, self.researcher, &new)?;
        self.save(&secrets)?;
        self.audit("secure.prepared", Some(&request.spec), None)?;
        Ok(encode(&preparation))
    }

    /// Prepares for a session, and forgets those of rounds that are over.
    fn prepare_session(
        &self,
        secrets: &mut Secrets,
        own: &IdentityPublic,
        spec: &SessionSpec,
    ) -> Result<Preparation, DeskError> {
        self.check_session(secrets, own, spec, false)?;
        let preparation = self.node.draw(|rng| secrets.role.prepare(spec, rng))?;
        let round = spec.context.round;
        secrets.role.close_rounds_before(round.saturating_sub(1));
        secrets.sessions.retain(|_, session| session.spec.context.round >= round.saturating_sub(1));
        secrets.sessions.entry(spec.id()).or_insert_with(|| Session { spec: spec.clone(), contribution: None });
        Ok(preparation)
    }

    /// Whether the hospital agrees to a sum with these nodes: its rules, and its roster unless that has just been asked.
    fn check_session(
        &self,
        secrets: &Secrets,
        own: &IdentityPublic,
        spec: &SessionSpec,
        with_new: bool,
    ) -> Result<(), DeskError> {
        spec.check_rules(&self.rules())?;
        let mut roster = Roster::new();
        for party in &spec.parties {
            let identity = secrets.identities.get(party).ok_or_else(|| Problem::NotInRoster { party: party.clone() })?;
            roster.insert(party.clone(), *identity);
        }
        let new = roster::check(self.node, self.researcher, own, &roster)?;
        if with_new && !new.is_empty() {
            roster::remember(self.node, self.researcher, &new)?;
        }
        Ok(())
    }

    /// Finds a session that is known here and that the hospital still agrees to.
    fn session<'s>(
        &self,
        secrets: &'s Secrets,
        own: &IdentityPublic,
        session: &SessionId,
    ) -> Result<&'s SessionSpec, DeskError> {
        let spec = &secrets.sessions.get(session).ok_or(Problem::UnknownSession)?.spec;
        self.check_session(secrets, own, spec, true)?;
        if spec.context.round != self.task.key.round
            || spec.context.phase != 0
            || spec.context.attempt > self.task.key.attempt
        {
            return Err(failed("the session belongs to another round than the task"));
        }
        Ok(spec)
    }

    fn masks(&self, request: &MaskRequest) -> Result<Masks, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        self.session(&secrets, &own, &request.session)?;
        let masker = secrets.role.masker(&request.session, Terms(Fixed(self.task.terms())), &request.inbound)?;
        let session = secrets.sessions.get_mut(&request.session).ok_or(Problem::UnknownSession)?;
        if session.contribution.as_ref().is_some_and(|task| *task != self.task.id) {
            return Err(failed(
                "the masks of this session hide a contribution already; another one needs a session of its own",
            ));
        }
        session.contribution = Some(self.task.id.clone());
        let spec = session.spec.clone();
        self.save(&secrets)?;
        self.audit("secure.masked", Some(&spec), None)?;
        Ok(Masks { masker, session: request.session })
    }

    /// Whether enough nodes survived by the hospital's own rule.
    fn check_survivors(&self, survivors: &[PartyId]) -> Result<(), DeskError> {
        let (got, least) = (u32::try_from(survivors.len()).unwrap_or(u32::MAX), self.rules().min_parties);
        if got < least { Err(Problem::TooFewSurvivors { got, least }.into()) } else { Ok(()) }
    }

    fn attest(&self, request: &AttestRequest) -> Result<Vec<u8>, DeskError> {
        let mut secrets = self.load()?;
        let identity = self.identity()?;
        let spec = self.session(&secrets, &identity.public(), &request.session)?.clone();
        self.check_survivors(&request.survivors)?;
        let attestation = secrets.role.attest(&request.session, &request.survivors, &identity)?;
        self.save(&secrets)?;
        self.audit("secure.attested", Some(&spec), Some(&request.survivors))?;
        Ok(encode(&attestation))
    }

    fn reveal(&self, request: &RevealRequest) -> Result<Vec<u8>, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        let spec = self.session(&secrets, &own, &request.session)?.clone();
        self.check_survivors(&request.survivors)?;
        let revelation = secrets.role.reveal(&request.session, &request.survivors, &request.attestations)?;
        // A next session that is not agreed to does not keep this one from its end: asked for by itself, it is refused with a reason.
        let next = request.next.as_ref().and_then(|next| match self.prepare_session(&mut secrets, &own, next) {
            Ok(preparation) => Some(preparation),
            Err(error) => {
                tracing::info!(?error, "the next session is not prepared yet");
                None
            }
        });
        self.save(&secrets)?;
        self.audit("secure.revealed", Some(&spec), Some(&request.survivors))?;
        Ok(encode(&RevealAnswer { revelation, next }))
    }
}
