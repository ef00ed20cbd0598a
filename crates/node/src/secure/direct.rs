//! Direct key negotiation: this node brings its channel key to the other parties itself, and hears theirs from them.
//!
//! That changes who carries the keys, not what they are: what the researcher gives with the next step is compared with what was
//! heard. Where the others are and which keys they show was registered by hand before.

mod shares;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use component::parties::{PartyError, Registration};
use protocol::{NodeId, Refusal, RefusalCode, ResearcherId, SecureStep, Task, Work};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secagg::channel::{Offer, Roster};
use secagg::exchange::{AgreeAnswer, DirectRequest, ShareKeysRequest, decode, encode};
use secagg::party::{Experiment, Parties, PartyId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use transport::identity::Fingerprint;
use transport::matrix;
use transport::negotiation::{
    Identity, Notice, Office, Outcome, Part, Party, Peer, Pin, Place, Take, Taking, Topic, Trouble,
};

use super::{Desk, DeskError, failed};
use crate::config::NegotiationRule;
use crate::enrolment::EnrolmentError;
use crate::handle::NodeHandle;
use crate::policy::{Permit, work_name};
use crate::store::{Enrolment, StoreError};
use crate::workshop::Workshop;

/// Under which name an experiment's state keeps what was heard.
const STATE: &str = "negotiation";

/// What the parties said, the own words included.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heard {
    /// The round and the attempt of the last negotiation.
    last: (u32, u32),
    answers: BTreeMap<PartyId, AgreeAnswer>,
}

impl Heard {
    /// The first party of which the researcher says something else than the party itself, and what that is.
    fn difference<'a>(&self, roster: &Roster, offers: &'a BTreeMap<PartyId, Offer>) -> Option<(&'a PartyId, &'static str)> {
        offers.iter().find_map(|(party, offer)| match self.answers.get(party) {
            None => Some((party, "has not negotiated with this node directly")),
            Some(answer) if answer.offer != *offer || roster.get(party) != Some(&answer.identity) => {
                Some((party, "gave this node other keys directly than the researcher says"))
            }
            Some(_) => None,
        })
    }
}

impl From<PartyError> for DeskError {
    fn from(error: PartyError) -> Self {
        tracing::error!(%error, "the registered parties cannot be read");
        Self::Refused(Refusal::new(RefusalCode::Unavailable, "the node cannot read its registered parties"))
    }
}

/// What is negotiated.
#[derive(Clone)]
enum Subject {
    Keys(DirectRequest),
    /// Of the node's key for Joye-Libert.
    Shares(Box<ShareKeysRequest>),
}

/// Everything a negotiation needs of a task, apart from its permit.
#[derive(Clone)]
struct Errand {
    node: Arc<NodeHandle>,
    researcher: ResearcherId,
    task: Task,
    subject: Subject,
}

/// Negotiates with the parties that a permitted task names, if it is one that asks for that. After a restart nothing is said again if
/// all was heard.
pub(crate) async fn negotiate(node: &Arc<NodeHandle>, workshop: &Workshop, permit: &Permit) -> Result<(), DeskError> {
    let Work::Secure { step, message } = &permit.task().work else { return Ok(()) };
    let subject = match step {
        // A question for a relayed key is empty.
        SecureStep::Agree if !message.as_bytes().is_empty() => Subject::Keys(decode("request", message.as_bytes())?),
        SecureStep::ShareKeys => Subject::Shares(Box::new(decode("request", message.as_bytes())?)),
        _ => return Ok(()),
    };
    let (researcher, task) = (permit.researcher().clone(), permit.task().clone());
    let errand = Errand { node: node.clone(), researcher, task, subject };
    let first = errand.clone();
    let Some(part) = workshop.run(move || first.part()).await?? else { return Ok(()) };
    let outcome = node.office().negotiate(part).await.map_err(|error| {
        tracing::error!(%error, "a direct negotiation cannot begin");
        failed("this node cannot listen for the other parties; its log says why")
    })?;
    workshop.run(move || errand.keep(outcome)).await?
}

impl Errand {
    fn desk(&self) -> Desk<'_> {
        Desk { node: &self.node, researcher: &self.researcher, task: &self.task, _turn: self.node.desk_turn() }
    }

    /// What this node says and to whom; `None` if that is over, or not wanted.
    fn part(self) -> Result<Option<Part>, DeskError> {
        let desk = self.desk();
        match &self.subject {
            Subject::Keys(request) => self.keys(&desk, request),
            Subject::Shares(request) => self.shares(&desk, request),
        }
    }

    fn keys(&self, desk: &Desk<'_>, request: &DirectRequest) -> Result<Option<Part>, DeskError> {
        let own = desk.own_offer()?;
        let heard =
            desk.heard()?.filter(|heard| heard.last == self.turn() && heard.answers.values().any(|said| *said == own));
        if heard.is_some_and(|heard| request.parties.iter().all(|party| heard.answers.contains_key(party))) {
            return Ok(None);
        }
        let said: Bytes = encode(&own).into();
        let mut peers = self.peers(&request.parties, |_| Ok(said.clone()))?;
        let pins: BTreeMap<Party, Pin> = peers.iter().map(|peer| (peer.party.clone(), peer.pin.clone())).collect();
        let researcher = Party::Researcher(self.researcher.clone());
        let address = self.registered(&researcher)?.address;
        let authority = self.enrolment()?.authority;
        peers.push(Peer { party: researcher, pin: Pin::ServerOf(authority), address, told: said });
        let (experiment, expected) = (desk.experiment()?, encode(request));
        let take = move |party: Party, said: Bytes| -> Taking {
            Box::pin(std::future::ready(look_at(&experiment, pins.get(&party), &party, &said, &expected)))
        };
        self.begin(0, peers, Arc::new(take)).map(Some)
    }

    /// Which negotiation of the experiment it is.
    fn turn(&self) -> (u32, u32) {
        (self.task.key.round, self.task.key.attempt)
    }

    fn enrolment(&self) -> Result<Enrolment, DeskError> {
        let enrolment = self.node.store().enrolment(&self.researcher)?;
        Ok(enrolment.ok_or_else(|| EnrolmentError::Unknown(self.researcher.clone()))?)
    }

    /// The other nodes among the parties, and what each is told.
    fn peers(&self, parties: &Parties, told: impl Fn(&PartyId) -> Result<Bytes, DeskError>) -> Result<Vec<Peer>, DeskError> {
        let own = PartyId::new(self.node.id().as_str())?;
        if !parties.contains(&own) {
            return Err(failed("this node is not among the parties that are to negotiate"));
        }
        let others = parties.iter().filter(|party| **party != own);
        let peer = |id: &PartyId| {
            let node: NodeId = id.as_str().parse().map_err(|_| failed("a party of the negotiation has no node id"))?;
            let party = Party::Node(node);
            let Registration { fingerprint, address, .. } = self.registered(&party)?;
            Ok(Peer { party, pin: Pin::Key(fingerprint), address, told: told(id)? })
        };
        others.map(peer).collect()
    }

    /// Where a party is, and what it shows.
    fn registered(&self, party: &Party) -> Result<Registration, DeskError> {
        let known = self.node.parties().find(&self.researcher, party)?;
        known.ok_or_else(|| {
            failed(format!(
                "{party} is not registered at this node for direct negotiation; its hospital runs `node certificate register \
                 --party-id {party} --public-key FILE --address HOST:PORT`, or the experiment asks for key_negotiation = \"relay\""
            ))
        })
    }

    /// Writes down that a negotiation begins.
    fn begin(&self, series: u32, peers: Vec<Peer>, take: Take) -> Result<Part, DeskError> {
        let key = &self.task.key;
        let facts = json!({
            "researcher": self.researcher, "experiment": key.experiment, "round": key.round, "attempt": key.attempt,
            "step": work_name(&self.task.work), "parties": peers.iter().map(|peer| &peer.party).collect::<Vec<_>>(),
        });
        self.node.audit("negotiation.begun", facts)?;
        Ok(Part {
            topic: Topic {
                researcher: self.researcher.clone(),
                experiment: key.experiment.clone(),
                round: key.round,
                attempt: key.attempt,
                series,
            },
            own: Party::Node(self.node.id().clone()),
            identity: Identity::of_node(&self.node.identity(&self.enrolment()?)?),
            peers,
            take,
            patience: self.node.config().negotiation.timeout,
        })
    }

    /// Writes down what was heard.
    fn keep(self, outcome: Outcome) -> Result<(), DeskError> {
        let Outcome { heard, troubles } = outcome;
        for (party, trouble) in &troubles {
            tracing::warn!(%party, ?trouble, "a direct negotiation with a party failed");
        }
        let named = |(party, trouble): (&Party, &Trouble)| match trouble {
            Trouble::Unreached(_) => format!("{party} could not be reached where it is registered"),
            Trouble::Silent => format!("{party} has not come"),
            Trouble::Refused(refusal) => format!("{party} refused: {}", refusal.sentence),
        };
        let named: Vec<String> = troubles.iter().map(named).collect();
        let key = &self.task.key;
        let facts = json!({
            "researcher": self.researcher, "experiment": key.experiment, "round": key.round, "attempt": key.attempt,
            "step": work_name(&self.task.work), "heard": heard.keys().collect::<Vec<_>>(), "troubles": named,
        });
        self.node.audit("negotiation.ended", facts)?;
        let nothing = || failed(format!("the direct negotiation came to nothing: {}", named.join("; ")));
        let (desk, mut said) = (self.desk(), BTreeMap::new());
        for (party, bytes) in heard.into_iter().filter(|(party, _)| !troubles.contains_key(party)) {
            if let Party::Node(node) = party {
                said.insert(PartyId::new(node.as_str())?, bytes);
            }
        }
        match &self.subject {
            // Without all of them there is no key.
            Subject::Shares(_) if !troubles.is_empty() => Err(nothing()),
            Subject::Shares(request) => desk.keep_shares(request, &said),
            Subject::Keys(request) => {
                let is_enough = self.keep_keys(&desk, request, &said)?;
                let knows_researcher = !troubles.contains_key(&Party::Researcher(self.researcher.clone()));
                if is_enough && knows_researcher { Ok(()) } else { Err(nothing()) }
            }
        }
    }

    /// Keeps the keys of those that were heard. Says whether they are enough: who was not is left out of what follows.
    fn keep_keys(
        &self,
        desk: &Desk<'_>,
        request: &DirectRequest,
        said: &BTreeMap<PartyId, Bytes>,
    ) -> Result<bool, DeskError> {
        let (own_id, own) = (PartyId::new(self.node.id().as_str())?, desk.own_offer()?);
        let mut heard = desk.heard()?.unwrap_or_default();
        if heard.answers.get(&own_id).is_some_and(|before| *before != own) {
            // The others have heard keys that are gone.
            heard = Heard::default();
        }
        heard.last = self.turn();
        heard.answers.insert(own_id, own);
        for (party, bytes) in said {
            heard.answers.insert(party.clone(), decode("offer", bytes)?);
        }
        desk.keep_heard(&heard)?;
        let count = request.parties.iter().filter(|party| heard.answers.contains_key(party)).count();
        Ok(count >= usize::try_from(desk.rules().min_parties).unwrap_or(usize::MAX))
    }
}

/// Whether what a party says is its own.
fn look_at(experiment: &Experiment, pin: Option<&Pin>, party: &Party, said: &[u8], expected: &[u8]) -> Result<(), Refusal> {
    let refuse = |sentence: &str| Refusal::new(RefusalCode::RosterMismatch, sentence);
    match (party, pin) {
        (Party::Researcher(_), _) if *said == *expected => Ok(()),
        (Party::Researcher(_), _) => Err(refuse("the researcher names other parties than its task does")),
        (Party::Node(node), Some(Pin::Key(pinned))) => {
            let malformed = |_| refuse("what this party says is no offer of a channel key");
            let AgreeAnswer { identity, offer } = decode("offer", said).map_err(malformed)?;
            if Fingerprint::of_point(identity.as_bytes()) != *pinned {
                return Err(refuse("the offer is signed with another key than the party shows"));
            }
            let id = PartyId::new(node.as_str()).map_err(malformed)?;
            offer.check(experiment, &id, &identity).map_err(|problem| refuse(&problem.to_string()))
        }
        (Party::Node(_), _) => Err(refuse("the party is not registered")),
    }
}

impl Desk<'_> {
    fn heard(&self) -> Result<Option<Heard>, DeskError> {
        let bytes = self.node.store().experiment_state(self.researcher, self.experiment_id(), STATE)?;
        let read = bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(StoreError::from)).transpose();
        Ok(read?)
    }

    fn keep_heard(&self, heard: &Heard) -> Result<(), DeskError> {
        let store = self.node.store();
        Ok(store.save_experiment_state(self.researcher, self.experiment_id(), STATE, &encode(heard), self.node.now())?)
    }

    /// Compares what the researcher says of the parties with what they said themselves.
    pub(super) fn compare_with_heard(&self, roster: &Roster, offers: &BTreeMap<PartyId, Offer>) -> Result<(), DeskError> {
        let Some(heard) = self.heard()? else {
            if self.node.policy().secure().negotiation == NegotiationRule::Direct {
                return Err(failed("this node takes part with keys that were negotiated directly only, and these were not"));
            }
            return Ok(());
        };
        let Some((party, how)) = heard.difference(roster, offers) else { return Ok(()) };
        let sentence = format!("{party} {how}");
        tracing::error!(researcher = %self.researcher, %party, "{sentence}");
        let facts = json!({ "researcher": self.researcher, "node": party.as_str(), "reason": sentence });
        self.node.audit("peer.refused", facts)?;
        Err(Refusal::new(RefusalCode::RosterMismatch, sentence).into())
    }
}

impl NodeHandle {
    /// The node's place for direct negotiations; nothing is open until one runs.
    fn office(self: &Arc<Self>) -> Arc<Office> {
        let make = || {
            let settings = &self.config().negotiation;
            let place = Place {
                host: settings.host.clone(),
                port: settings.port,
                incoming: &matrix::NODE_FROM_PARTIES,
                outgoing: &matrix::NODE_TO_PARTIES,
            };
            let node: Weak<Self> = Arc::downgrade(self);
            let note = Arc::new(move |notice| {
                if let Some(node) = node.upgrade() {
                    node.noticed(&notice);
                }
            });
            Arc::new(Office::new(place, note, self.draw(StdRng::from_rng)))
        };
        self.own_office().get_or_init(make).clone()
    }

    fn noticed(&self, notice: &Notice) {
        let (event, facts) = match notice {
            Notice::Opened { address } => {
                tracing::info!(address, "listening for a direct negotiation");
                ("negotiation.opened", json!({ "address": address }))
            }
            Notice::Closed { address } => {
                tracing::info!(address, "the direct negotiation is over; the port is closed");
                ("negotiation.closed", json!({ "address": address }))
            }
            Notice::Rejected { from, reason } => {
                tracing::warn!(from, reason, "not let in");
                ("negotiation.rejected", json!({ "peer": from, "reason": reason }))
            }
        };
        // What has happened has happened; that it cannot be written down is in the other log.
        let _ = self.audit(event, facts);
    }
}

#[cfg(test)]
mod tests {
    use secagg::channel::Channels;
    use secagg::identity::IdentityKey;

    use super::*;

    const EXPERIMENT: &str = "RESEARCHER_00000000-0000-4000-8000-000000000001/exper";

    fn id(number: u8) -> NodeId {
        format!("NODE_00000000-0000-4000-8000-00000000000{number}").parse().unwrap()
    }

    fn party(number: u8) -> PartyId {
        PartyId::new(id(number).as_str()).unwrap()
    }

    fn key(number: u8) -> IdentityKey {
        IdentityKey::from_scalar(&[number; 32]).unwrap()
    }

    /// What a node says; another seed gives another channel key.
    fn answer(number: u8, seed: u64) -> AgreeAnswer {
        let mut rng = StdRng::seed_from_u64(seed);
        let channels = Channels::new(Experiment::new(EXPERIMENT).unwrap(), party(number), &mut rng);
        AgreeAnswer { identity: key(number).public(), offer: channels.offer(&key(number)) }
    }

    #[test]
    fn what_the_researcher_says_otherwise_names_the_party() {
        let heard = Heard { last: (0, 0), answers: (1..=3).map(|number| (party(number), answer(number, 1))).collect() };
        let said = |answers: &[(u8, AgreeAnswer)]| -> (Roster, BTreeMap<PartyId, Offer>) {
            let roster = answers.iter().map(|(number, answer)| (party(*number), answer.identity)).collect();
            (roster, answers.iter().map(|(number, answer)| (party(*number), answer.offer.clone())).collect())
        };
        let same: Vec<_> = (1..=3).map(|number| (number, answer(number, 1))).collect();
        let (roster, offers) = said(&same);
        assert_eq!(heard.difference(&roster, &offers), None);
        // Fewer may take part; others may not.
        let (roster, offers) = said(&same[1..]);
        assert_eq!(heard.difference(&roster, &offers), None);
        let (roster, offers) = said(&[same[0].clone(), (4, answer(4, 1))]);
        assert_eq!(heard.difference(&roster, &offers).unwrap().0, &party(4));
        // Another channel key, signed by the same node; the same one with another identity.
        let (roster, offers) = said(&[same[0].clone(), (2, answer(2, 2))]);
        assert_eq!(heard.difference(&roster, &offers).unwrap().0, &party(2));
        let (mut roster, offers) = said(&same);
        roster.insert(party(3), key(9).public());
        assert_eq!(heard.difference(&roster, &offers).unwrap().0, &party(3));
    }

    #[test]
    fn only_an_offer_that_is_signed_with_the_registered_key_is_taken() {
        let experiment = Experiment::new(EXPERIMENT).unwrap();
        let pin = Pin::Key(Fingerprint::of_point(key(1).public().as_bytes()));
        let node = Party::Node(id(1));
        let look = |party: &Party, pin: Option<&Pin>, said: &[u8]| look_at(&experiment, pin, party, said, b"parties");
        look(&node, Some(&pin), &encode(&answer(1, 1))).unwrap();
        assert!(look(&node, None, &encode(&answer(1, 1))).is_err(), "not registered");
        assert!(look(&node, Some(&pin), &encode(&answer(2, 1))).is_err(), "another key");
        let stolen = AgreeAnswer { identity: key(1).public(), ..answer(2, 1) };
        assert!(look(&node, Some(&pin), &encode(&stolen)).is_err(), "not signed with it");
        assert!(look(&Party::Node(id(2)), Some(&pin), &encode(&answer(1, 1))).is_err(), "of another party");
        assert!(look(&node, Some(&pin), b"parties").is_err() && look(&node, Some(&pin), b"").is_err());
        let researcher = Party::Researcher("RESEARCHER_00000000-0000-4000-8000-000000000001".parse().unwrap());
        look(&researcher, None, b"parties").unwrap();
        assert!(look(&researcher, None, b"other parties").is_err());
    }
}
