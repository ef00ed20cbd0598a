//! The desk of secure aggregation: this node's part of hidden sums, with the secrets that belong to it.
//!
//! `secagg` says what may be done; here its state is taken from the disk, moved on, and written back before an answer leaves. The
//! methods of `secagg` are idempotent, so that a task that is done again after a crash gives the same bytes. The hospital's rules and
//! its roster are asked at every step, as they are then.

pub(crate) mod direct;
mod error;
mod joye_libert;
mod lom;
mod roster;
mod seal;

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use component::database::Durability;
use protocol::{
    ExperimentId, Refusal, RefusalCode, ResearcherId, Scheme, SecureMessage, SecureStep, Task, TaskId, VectorSpec, Work,
    layout_byte_len,
};
use secagg::channel::Roster;
use secagg::exchange::{AgreeAnswer, decode, encode};
use secagg::identity::{IdentityKey, IdentityPublic};
use secagg::lom::NodeRole;
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment, Parties, PartyId};
use secagg::problem::Problem;
use secagg::session::{Rules, SessionId, SessionSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::enrolment::EnrolmentError;
use crate::handle::NodeHandle;
use crate::participant::State;
use crate::policy::Permit;
use crate::store::StoreError;
pub(crate) use error::DeskError;
use error::failed;
pub(crate) use lom::Masks as LomMasks;
pub(crate) use roster::PeerError;

/// What this node keeps of one experiment. Secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    role: NodeRole,
    /// The keys with which channels were agreed.
    identities: Roster,
    sessions: BTreeMap<SessionId, Session>,
    /// The keys of Joye-Libert, in experiments that use it.
    #[serde(default)]
    keys: secagg::joye_libert::Node,
}

/// What is kept of a session beside the secrets themselves.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    spec: SessionSpec,
    /// The one task whose contribution these masks hide.
    contribution: Option<TaskId>,
}

/// What hides one contribution.
pub(crate) enum Masks {
    Lom(lom::Masks),
    JoyeLibert(joye_libert::Cipher),
}

impl Masks {
    /// The session, or the keys, for the audit log.
    pub(crate) fn session(&self) -> String {
        match self {
            Self::Lom(masks) => masks.session(),
            Self::JoyeLibert(cipher) => cipher.keys(),
        }
    }

    /// The number of bytes that a hidden contribution of this layout has.
    pub(crate) fn byte_len(&self, layout: &[VectorSpec]) -> Option<u64> {
        match self {
            Self::Lom(_) => layout_byte_len(layout),
            Self::JoyeLibert(cipher) => cipher.byte_len(layout),
        }
    }
}

/// What `secagg` calls a vector of a layout, and what its elements are summed modulo.
fn vector(index: usize, spec: &VectorSpec) -> (VectorName<'_>, Modulus) {
    let index = u32::try_from(index).expect("a layout has fewer vectors");
    let modulus = Modulus::of_bytes(spec.encoding.width.bytes()).expect("elements have 4, 8 or 16 bytes");
    (VectorName { index, purpose: spec.purpose.name(), name: &spec.name }, modulus)
}

/// What the audit log says of a sum.
struct Sum<'a> {
    id: String,
    parties: &'a Parties,
    threshold: u32,
    colluders: u32,
}

impl<'a> From<&'a SessionSpec> for Sum<'a> {
    fn from(spec: &'a SessionSpec) -> Self {
        Self { id: spec.id().to_string(), parties: &spec.parties, threshold: spec.threshold, colluders: spec.colluders }
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
        SecureStep::ShareKeys => desk.share_keys(&decode("request", request)?).map(|shares| encode(&shares)),
        SecureStep::SumKeys => desk.sum_keys(&decode("request", request)?).map(|sum| encode(&sum)),
        SecureStep::OpenSeeds => desk.open_seeds(&decode("request", request)?).map(|seed| encode(&seed)),
        SecureStep::Prepare => desk.prepare(&decode("request", request)?),
        SecureStep::Attest => desk.attest(&decode("request", request)?),
        SecureStep::Reveal => desk.reveal(&decode("request", request)?),
    };
    let bytes = answer?;
    SecureMessage::new(bytes).map_err(|error| DeskError::Refused(Refusal::new(RefusalCode::TooLarge, error.to_string())))
}

/// Gives what hides a permitted contribution; `None` if it is not to be hidden. Masks are for this task alone, until
/// [`give_back`].
pub(crate) fn masks(node: &NodeHandle, permit: &Permit) -> Result<Option<Masks>, DeskError> {
    let Some(masking) = &permit.task().masking else { return Ok(None) };
    let (desk, request) = (Desk::open(node, permit), masking.message.as_bytes());
    let masks = match masking.scheme {
        Scheme::Lom => Masks::Lom(desk.masks(&decode("request", request)?)?),
        Scheme::JoyeLibert => Masks::JoyeLibert(desk.cipher(&decode("request", request)?)?),
    };
    let bytes = masks.byte_len(&permit.task().layout);
    if bytes.is_none_or(|bytes| !node.policy().allows_bytes(bytes)) {
        return Err(Refusal::new(RefusalCode::TooLarge, "the hidden contribution exceeds what the hospital allows").into());
    }
    Ok(Some(masks))
}

/// Lets another task have the masks of one whose contribution does not leave.
pub(crate) fn give_back(node: &NodeHandle, permit: &Permit, masks: &Masks) -> Result<(), DeskError> {
    match masks {
        Masks::Lom(masks) => Desk::open(node, permit).give_back(masks),
        // Nothing was encrypted.
        Masks::JoyeLibert(_) => Ok(()),
    }
}

/// Forgets the keys and secrets of an experiment that is over, or goes on with others. What stays is which sums this node took part
/// in: the same rounds are not summed again. An experiment without secrets is none of this researcher's here, or forgotten already.
pub(crate) fn end(node: &NodeHandle, researcher: &ResearcherId, experiment: &ExperimentId) -> Result<(), StoreError> {
    let _turn = node.desk_turn();
    if !node.store().is_keyed(researcher, experiment)? {
        return Ok(());
    }
    let Some(sealed) = node.store().secure_state(researcher, experiment)? else { return Ok(()) };
    let place = (researcher, experiment);
    let written = seal::open(node, place, &sealed).and_then(|opened| {
        // What does not open here is of no use to anybody; nothing of it is kept.
        let Some(mut secrets) = opened.and_then(|bytes| serde_json::from_slice::<Secrets>(&bytes).ok()) else {
            return Ok(Vec::new());
        };
        node.draw(|rng| secrets.role.renew(rng));
        secrets.keys.forget_all();
        secrets.identities.clear();
        secrets.sessions.clear();
        let bytes = Zeroizing::new(serde_json::to_vec(&secrets).expect("what was read can be written"));
        seal::seal(node, place, &bytes)
    });
    let content = match written {
        Ok(content) => content,
        Err(error) => {
            tracing::error!(%error, %experiment, "a key of this node cannot be used: the experiment's secrets stay for now");
            return Ok(());
        }
    };
    node.store().end_secure_state(researcher, experiment, &content)?;
    tracing::info!(%researcher, %experiment, "the experiment is over: its keys and secrets are forgotten");
    let facts = json!({ "researcher": researcher, "experiment": experiment });
    if let Err(refusal) = node.audit("secure.ended", facts) {
        tracing::error!(%refusal, "the audit log does not have that an experiment's secrets were forgotten");
    }
    Ok(())
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
        // A step that was under way when the experiment ended does not bring its keys back.
        let is_keyed = self.node.store().is_keyed(self.researcher, self.experiment_id())?;
        self.find()?
            .filter(|_| is_keyed)
            .ok_or_else(|| failed("this node has no channel key for the experiment, or not any more"))
    }

    /// Writes the secrets; they are on the disk when this returns.
    fn save(&self, secrets: &Secrets) -> Result<(), DeskError> {
        self.write(secrets, Durability::Durable)
    }

    /// Writes the secrets of a step whose outcome leaves through the journal only: what the journal then says durably takes them to
    /// the disk with it, before anything of them leaves.
    fn save_before_journal(&self, secrets: &Secrets) -> Result<(), DeskError> {
        self.write(secrets, Durability::Lazy)
    }

    fn write(&self, secrets: &Secrets, durability: Durability) -> Result<(), DeskError> {
        let bytes = Zeroizing::new(serde_json::to_vec(secrets).map_err(StoreError::from)?);
        let sealed = seal::seal(self.node, (self.researcher, self.experiment_id()), &bytes)?;
        let (store, now) = (self.node.store(), self.node.now());
        Ok(store.save_secure_state(self.researcher, self.experiment_id(), &sealed, now, durability)?)
    }

    /// Writes a step down, before its answer leaves.
    fn audit(&self, event: &str, sum: Option<&Sum<'_>>, survivors: Option<&[PartyId]>) -> Result<(), DeskError> {
        let lost: Option<Vec<&str>> = sum.zip(survivors).map(|(sum, survivors)| {
            sum.parties.iter().filter(|party| !survivors.contains(party)).map(PartyId::as_str).collect()
        });
        let facts = json!({
            "researcher": self.researcher, "requester": self.task.requester.user, "task": self.task.id,
            "experiment": self.experiment_id(), "round": self.task.key.round, "attempt": self.task.key.attempt,
            "session": sum.map(|sum| &sum.id), "parties": sum.map(|sum| sum.parties.len()),
            "threshold": sum.map(|sum| sum.threshold), "colluders": sum.map(|sum| sum.colluders),
            "survivors": survivors.map(<[PartyId]>::len), "lost": lost,
        });
        Ok(self.node.audit(event, facts)?)
    }

    /// Whether the journal still waits for what this task gives.
    fn is_wanted(&self) -> Result<bool, DeskError> {
        let record = self.node.store().task(self.researcher, &self.task.id)?;
        Ok(record.is_some_and(|record| matches!(record.state, State::Accepted | State::Running)))
    }

    fn agree(&self) -> Result<Vec<u8>, DeskError> {
        let answer = self.own_offer()?;
        self.audit("secure.agreed", None, None)?;
        Ok(encode(&answer))
    }

    /// What this node offers for channels; the same every time.
    fn own_offer(&self) -> Result<AgreeAnswer, DeskError> {
        let identity = self.identity()?;
        let is_keyed = self.node.store().is_keyed(self.researcher, self.experiment_id())?;
        // The experiment may have ended while this task waited for its turn at the desk.
        if !is_keyed && !self.is_wanted()? {
            return Err(failed("the task is over"));
        }
        let secrets = if let Some(secrets) = self.find()? {
            // An experiment that was over goes on, with the key that was drawn then.
            if !is_keyed {
                self.save(&secrets)?;
            }
            secrets
        } else {
            let party = PartyId::new(self.node.id().as_str())?;
            let experiment = self.experiment()?;
            let rules = Rules { min_parties: 2, max_colluders: Some(0) };
            let role = self.node.draw(|rng| NodeRole::new(experiment, party, rules, rng));
            let keys = secagg::joye_libert::Node::new();
            let secrets = Secrets { role, identities: Roster::new(), sessions: BTreeMap::new(), keys };
            self.save(&secrets)?;
            secrets
        };
        Ok(AgreeAnswer { identity: identity.public(), offer: secrets.role.offer(&identity) })
    }

    /// Whether the hospital's roster has the parties of a sum, with the keys with which channels were agreed.
    fn check_parties(
        &self,
        secrets: &Secrets,
        own: &IdentityPublic,
        parties: &Parties,
        with_new: bool,
    ) -> Result<(), DeskError> {
        let mut roster = Roster::new();
        for party in parties {
            let identity = secrets.identities.get(party).ok_or_else(|| Problem::NotInRoster { party: party.clone() })?;
            roster.insert(party.clone(), *identity);
        }
        let new = roster::check(self.node, self.researcher, own, &roster)?;
        if with_new && !new.is_empty() {
            roster::remember(self.node, self.researcher, &new)?;
        }
        Ok(())
    }
}
