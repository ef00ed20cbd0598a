//! What a researcher keeps for sums that are hidden from it: the nodes' keys, and the sessions whose masks hide the sums.
//!
//! This is where messages of nodes meet crate `secagg`, which knows the scheme. When what is asked is decided in `phases`.

use std::collections::BTreeMap;
use std::fmt;

use protocol::{
    Clipping, ExperimentId, Masking, NodeId, Purpose, ResearcherId, Scheme, SecureMessage, SecureSpec, SecureStep,
    VectorSpec, Width,
};
use secagg::channel::{Offer, Roster};
use secagg::exchange::{
    AgreeAnswer, AttestRequest, MaskRequest, PrepareRequest, RevealAnswer, RevealRequest, decode, encode,
};
use secagg::lom::{InboundPreparation, ResearcherSession, Unmasker};
use secagg::party::{Experiment as Name, Parties, PartyId};
use secagg::problem::Problem;
use secagg::session::{Context, SessionSpec, Terms};
use secagg::threshold::{default_colluders, threshold};
use secagg::wire::Fixed;
use serde::{Deserialize, Serialize};
use transport::identity::Fingerprint;

use super::scale;

/// A session, which is compared and shown as rarely as it can be: it holds shares of secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Session(ResearcherSession);

impl Session {
    fn spec(&self) -> &SessionSpec {
        self.0.spec()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Session({:?})", self.spec().context)
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        encode(self) == encode(other)
    }
}

/// What masks of one sum are handed to each party.
pub(super) type Inbound = BTreeMap<PartyId, BTreeMap<PartyId, InboundPreparation>>;

/// Everything that hidden sums of one experiment need. Its sessions are those of the open round and, once the nodes have prepared
/// it, of the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secure {
    scheme: Scheme,
    name: Name,
    min_parties: u32,
    max_colluders: Option<u32>,
    clip: Clipping,
    /// The identity keys of the nodes that have agreed, each the one it enrolled with.
    roster: Roster,
    offers: BTreeMap<PartyId, Offer>,
    session: Option<Session>,
    /// Whose contributions the open session sums, once that is fixed; sorted.
    survivors: Vec<PartyId>,
    next: Option<Session>,
    /// Earlier sessions of the open round, which ended without a sum.
    abandoned: Vec<SessionSpec>,
    /// Set before the first node is asked to reveal: from then on the round ends with this session or not at all.
    is_revealing: bool,
    /// At least the number of training rows of all nodes, a power of two; absent until they are counted.
    row_bound: Option<u64>,
    /// The ranges that earlier aggregates suggest, by name of the tensor.
    ranges: BTreeMap<String, f64>,
    /// The ranges of the open round.
    clipping: BTreeMap<String, f64>,
}

fn party(node: &NodeId) -> PartyId {
    PartyId::new(node.as_str()).expect("the id of a node is short")
}

fn message(content: &impl Serialize) -> Result<SecureMessage, String> {
    SecureMessage::new(encode(content))
        .map_err(|_| "a message of secure aggregation would be too long: there are too many nodes".into())
}

impl Secure {
    pub(super) fn new(scheme: Scheme, researcher: &ResearcherId, experiment: &ExperimentId, spec: SecureSpec) -> Self {
        let name = Name::new(format!("{researcher}/{experiment}")).expect("two ids are short");
        Self {
            scheme,
            name,
            min_parties: spec.min_parties,
            max_colluders: spec.max_colluders,
            clip: spec.clipping,
            roster: Roster::new(),
            offers: BTreeMap::new(),
            session: None,
            survivors: Vec::new(),
            next: None,
            abandoned: Vec::new(),
            is_revealing: false,
            row_bound: None,
            ranges: BTreeMap::new(),
            clipping: BTreeMap::new(),
        }
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(super) fn min_parties(&self) -> usize {
        self.min_parties as usize
    }

    pub(super) fn is_revealing(&self) -> bool {
        self.is_revealing
    }

    /// Parties, threshold and colluders of the open session.
    pub(super) fn numbers(&self) -> Option<&SessionSpec> {
        self.session.as_ref().map(Session::spec)
    }

    /// How many survivors the open session needs.
    pub(super) fn least_survivors(&self) -> usize {
        self.numbers().map_or(self.min_parties(), |spec| spec.least_survivors() as usize)
    }

    /// How many of these nodes a sum needs, by the experiment's own rules.
    pub(super) fn least_of(&self, nodes: usize) -> usize {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        threshold(nodes, self.colluders(nodes)).max(self.min_parties) as usize
    }

    fn colluders(&self, nodes: u32) -> u32 {
        self.max_colluders.unwrap_or_else(|| default_colluders(nodes))
    }

    // Keys.

    pub(super) fn has_agreed(&self, node: &NodeId) -> bool {
        self.offers.contains_key(&party(node))
    }

    // Sessions.

    /// Begins the session of a round among these nodes, or takes up the one that they prepared with the last revelations. Gives its
    /// attempt: later than any that a node may have prepared for.
    pub(super) fn begin(&mut self, round: u32, attempt: u32, nodes: &[NodeId]) -> Result<u32, String> {
        let parties = Parties::new(nodes.iter().map(party)).map_err(|problem| problem.to_string())?;
        if self.is_revealing {
            return Err(REVEALED.into());
        }
        self.abandon(round);
        if let Some(next) = self.next.take().filter(|next| next.spec().context.round == round) {
            if next.spec().parties == parties && next.spec().context.attempt >= attempt && self.abandoned.is_empty() {
                let attempt = next.spec().context.attempt;
                self.session = Some(next);
                return Ok(attempt);
            }
            self.abandoned.push(next.spec().clone());
        }
        let later = self.abandoned.iter().map(|spec| spec.context.attempt + 1).max().unwrap_or(0);
        let attempt = attempt.max(later);
        let spec = self.spec(round, attempt, parties)?;
        let session = ResearcherSession::new(spec, &self.roster).map_err(|problem| problem.to_string())?;
        self.session = Some(Session(session));
        Ok(attempt)
    }

    /// Gives the open session up; a later attempt takes its place.
    fn abandon(&mut self, round: u32) {
        if let Some(session) = self.session.take().filter(|session| session.spec().context.round == round) {
            self.abandoned.push(session.spec().clone());
        } else {
            self.abandoned.retain(|spec| spec.context.round == round);
        }
    }

    /// The numbers of a session. At most one attempt of a round may end, so the threshold meets that of the earlier ones in an honest
    /// node (specification of `secagg`, §7).
    fn spec(&self, round: u32, attempt: u32, parties: Parties) -> Result<SessionSpec, String> {
        let count = parties.count();
        let colluders = self.colluders(count);
        let context = Context { experiment: self.name.clone(), round, attempt, phase: 0 };
        let mut spec = SessionSpec::new(context, parties, colluders, self.min_parties);
        for earlier in &self.abandoned {
            let joining = spec.parties.iter().filter(|party| !earlier.parties.contains(party)).count();
            let all = earlier.parties.len() + joining;
            let least = all + colluders.max(earlier.colluders) as usize + 1;
            let least = u32::try_from(least).unwrap_or(u32::MAX).saturating_sub(earlier.threshold);
            spec.threshold = spec.threshold.max(least);
        }
        if colluders > count - 2 || spec.threshold > count {
            return Err(format!(
                "with {count} nodes, of which {colluders} may collude with the researcher, {} would have to take part in the end; \
                 ask more nodes, or lower `max_colluders`",
                spec.threshold
            ));
        }
        spec.check().map(|()| spec).map_err(|problem| problem.to_string())
    }

    /// Whether this node has prepared for the open session.
    pub(super) fn has_prepared(&self, node: &NodeId) -> bool {
        let party = party(node);
        self.session.as_ref().is_some_and(|session| session.0.prepared().any(|prepared| *prepared == party))
    }

    /// Ends the preparations; what each party that prepared masks with.
    pub(super) fn close_preparations(&mut self) -> Result<Inbound, Problem> {
        self.open()?.0.close_preparations()
    }

    /// Fixes whose contributions are summed; for good.
    pub(super) fn fix_survivors<'nodes>(&mut self, nodes: impl Iterator<Item = &'nodes NodeId>) -> Result<(), Problem> {
        let survivors: Vec<PartyId> = nodes.map(party).collect();
        self.survivors = self.open()?.0.fix_survivors(survivors)?.to_vec();
        Ok(())
    }

    /// Whether enough survivors have signed their list.
    pub(super) fn is_attested(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.0.attestations().is_ok())
    }

    /// From here on secrets of the open session leave the nodes. With `next` they prepare the following round.
    pub(super) fn begin_revelation(&mut self, next: Option<(u32, &[NodeId])>) {
        self.is_revealing = true;
        // What cannot be prepared now is prepared, or refused with a reason, when the round begins.
        let begin = |(round, nodes): (u32, &[NodeId])| {
            let parties = Parties::new(nodes.iter().map(party)).ok()?;
            let fresh = Self { abandoned: Vec::new(), session: None, next: None, ..self.clone() };
            let spec = fresh.spec(round, 0, parties).ok()?;
            ResearcherSession::new(spec, &self.roster).ok().map(Session)
        };
        if self.next.is_none() {
            self.next = next.and_then(begin);
        }
    }

    /// What takes the masks off the survivors' sum, once enough have revealed.
    pub(super) fn unmasker(&self, terms: [u8; 32]) -> Result<Unmasker, Problem> {
        let session = self.session.as_ref().ok_or(Problem::UnknownSession)?;
        session.0.unmasker(Terms(Fixed(terms)))
    }

    /// The round is closed.
    pub(super) fn close(&mut self) {
        self.session = None;
        self.survivors.clear();
        self.abandoned.clear();
        self.is_revealing = false;
        self.clipping.clear();
    }

    fn open(&mut self) -> Result<&mut Session, Problem> {
        self.session.as_mut().ok_or(Problem::UnknownSession)
    }

    // Messages.

    /// What a node is asked at a step.
    pub(super) fn request(&self, step: SecureStep, node: &NodeId) -> Result<SecureMessage, String> {
        let Some(session) = &self.session else {
            return SecureMessage::new(Vec::new()).map_err(|error| error.to_string());
        };
        let spec = session.spec();
        let survivors = || self.survivors.clone();
        match step {
            SecureStep::Agree => SecureMessage::new(Vec::new()).map_err(|error| error.to_string()),
            SecureStep::Prepare => {
                let of_parties = |party: &PartyId| spec.parties.contains(party);
                let roster = self.roster.iter().filter(|(party, _)| of_parties(party));
                let offers = self.offers.iter().filter(|(party, _)| of_parties(party));
                message(&PrepareRequest {
                    roster: roster.map(|(party, identity)| (party.clone(), *identity)).collect(),
                    offers: offers.map(|(party, offer)| (party.clone(), offer.clone())).collect(),
                    spec: spec.clone(),
                })
            }
            SecureStep::Attest => message(&AttestRequest { session: spec.id(), survivors: survivors() }),
            SecureStep::Reveal => {
                let attestations = session.0.attestations().cloned().map_err(|problem| problem.to_string())?;
                let next = self.next.as_ref().map(Session::spec);
                let next = next.filter(|next| next.parties.contains(&party(node))).cloned();
                message(&RevealRequest { session: spec.id(), survivors: survivors(), attestations, next })
            }
        }
    }

    /// What a node needs to hide its contribution.
    pub(super) fn mask_request(&self, node: &NodeId, inbound: &Inbound) -> Result<SecureMessage, String> {
        let session = self.session.as_ref().ok_or_else(|| Problem::UnknownSession.to_string())?;
        let inbound = inbound.get(&party(node)).cloned().unwrap_or_default();
        message(&MaskRequest { session: session.spec().id(), inbound })
    }

    /// What is handed to the parties of the open session, again.
    pub(super) fn inbound(&self) -> Inbound {
        let session = self.session.clone();
        session.and_then(|mut session| session.0.close_preparations().ok()).unwrap_or_default()
    }

    /// How a task's contribution is hidden.
    pub(super) fn masking(&self, message: SecureMessage) -> Masking {
        Masking { scheme: self.scheme, message, clipping: self.clipping.clone() }
    }

    /// Takes a node's answer. `key` is the fingerprint of the key that it is enrolled with.
    pub(super) fn accept(
        &mut self,
        step: SecureStep,
        node: &NodeId,
        answer: &SecureMessage,
        key: &Fingerprint,
    ) -> Result<(), String> {
        let (from, bytes) = (party(node), answer.as_bytes());
        let accepted =
            match step {
                SecureStep::Agree => return self.accept_offer(from, bytes, key),
                SecureStep::Prepare => decode("preparation", bytes)
                    .and_then(|preparation| self.open()?.0.accept_preparation(&from, preparation)),
                SecureStep::Attest => decode("attestation", bytes)
                    .and_then(|attestation| self.open()?.0.accept_attestation(&from, attestation)),
                SecureStep::Reveal => decode("revelation", bytes).and_then(|answer: RevealAnswer| {
                    self.open()?.0.accept_revelation(&from, answer.revelation)?;
                    // Who prepared something else is asked once more when the next round begins.
                    if let (Some(next), Some(preparation)) = (&mut self.next, answer.next) {
                        drop(next.0.accept_preparation(&from, preparation));
                    }
                    Ok(())
                }),
            };
        accepted.map_err(|problem| problem.to_string())
    }

    fn accept_offer(&mut self, from: PartyId, bytes: &[u8], key: &Fingerprint) -> Result<(), String> {
        let AgreeAnswer { identity, offer } = decode("offer", bytes).map_err(|problem| problem.to_string())?;
        if Fingerprint::of_point(identity.as_bytes()) != *key {
            return Err("the key that it signs with is not the one that it is enrolled with".into());
        }
        offer.check(&self.name, &from, &identity).map_err(|problem| problem.to_string())?;
        self.roster.insert(from.clone(), identity);
        self.offers.insert(from, offer);
        Ok(())
    }

    // Scales.

    /// Whether float32 sums lack a bound of the number of rows.
    pub(super) fn lacks_row_bound(&self) -> bool {
        self.row_bound.is_none()
    }

    pub(super) fn row_bound(&self) -> Option<u64> {
        self.row_bound
    }

    pub(super) fn forget_rows(&mut self) {
        self.row_bound = None;
    }

    pub(super) fn set_rows(&mut self, rows: u64) {
        self.row_bound = rows.max(1).checked_next_power_of_two();
    }

    /// Fixes ranges and scales of a training round: no sum of float32 differences can leave 32 bits. Float64 sums have room for any
    /// difference and are not clipped.
    pub(super) fn fit(&mut self, layout: &mut Vec<VectorSpec>) {
        self.clipping.clear();
        let rows = self.row_bound.unwrap_or(1);
        for spec in layout.iter_mut().filter(|spec| spec.purpose == Purpose::Model && spec.encoding.width == Width::Bits32) {
            let range = match self.clip {
                Clipping::Range(range) => range,
                Clipping::Auto => self.ranges.get(&spec.name).copied().unwrap_or(Clipping::DEFAULT_RANGE),
            };
            spec.encoding.exponent = scale::hidden_32(range, rows);
            self.clipping.insert(spec.name.clone(), range);
        }
        layout.push(VectorSpec::clipped());
    }

    /// After a repetition on wider scales: rows weigh so many bits more.
    pub(super) fn widen(&mut self, bits: u32) {
        self.row_bound = self.row_bound.and_then(|rows| rows.checked_mul(1_u64.checked_shl(bits)?));
    }

    pub(super) fn clipping(&self) -> &BTreeMap<String, f64> {
        &self.clipping
    }

    /// Learns ranges from the mean differences of a round, by name of the tensor.
    pub(super) fn learn(&mut self, largest: &BTreeMap<String, f64>, weight: f64) {
        for (name, sum) in largest.iter().filter(|(_, sum)| **sum > 0.0 && weight > 0.0) {
            self.ranges.insert(name.clone(), scale::range(sum / weight));
        }
    }
}

/// Why a round cannot be repeated.
pub(super) const REVEALED: &str = "nodes have been asked to reveal what hides this round's sum, so that it cannot be repeated; \
                                   begin the experiment anew";
