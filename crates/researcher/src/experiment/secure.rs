//! What a researcher keeps for sums that are hidden from it: the nodes' keys, and the sessions whose masks hide the sums.
//!
//! This is where messages of nodes meet crate `secagg`, which knows the scheme. When what is asked is decided in `phases`.

mod direct;
mod keys;
mod messages;
mod ring;

use std::collections::BTreeMap;
use std::fmt;

use protocol::{
    Clipping, ExperimentId, KeyNegotiation, NodeId, Purpose, ResearcherId, Scheme, SecureMessage, SecureSpec, VectorSpec,
    Width,
};
use secagg::channel::{Offer, Roster};
use secagg::exchange::encode;
use secagg::joye_libert::{Group, KeySpec};
use secagg::lom::{InboundPreparation, ResearcherSession, Unmasker};
use secagg::party::{Experiment as Name, Parties, PartyId};
use secagg::problem::Problem;
use secagg::session::{Context, SessionSpec, Terms};
use secagg::threshold::{default_colluders, threshold};
use secagg::wire::Fixed;
use serde::{Deserialize, Serialize};

use super::scale;
use direct::Direct;
use keys::Keys;
use ring::Ring;

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
    #[serde(default)]
    max_losses: Option<u32>,
    #[serde(default)]
    ring: Ring,
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
    /// Present under Joye-Libert.
    #[serde(default)]
    keys: Option<Keys>,
    /// Present where the nodes bring their keys themselves.
    #[serde(default)]
    direct: Option<Direct>,
    /// At least the number of training rows of all nodes, a power of two; absent until they are counted.
    row_bound: Option<u64>,
    /// The ranges that earlier aggregates suggest, by name of the tensor.
    ranges: BTreeMap<String, f64>,
    /// The ranges of the open round.
    clipping: BTreeMap<String, f64>,
}

/// The numbers of the open round's sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) parties: usize,
    pub(super) threshold: u32,
    pub(super) colluders: u32,
    pub(super) least_survivors: usize,
}

impl From<&SessionSpec> for Numbers {
    fn from(spec: &SessionSpec) -> Self {
        let SessionSpec { parties, threshold, colluders, .. } = spec;
        let least_survivors = spec.least_survivors() as usize;
        Self { parties: parties.len(), threshold: *threshold, colluders: *colluders, least_survivors }
    }
}

impl From<&KeySpec> for Numbers {
    fn from(spec: &KeySpec) -> Self {
        let KeySpec { parties, threshold, colluders, .. } = spec;
        Self { parties: parties.len(), threshold: *threshold, colluders: *colluders, least_survivors: parties.len() }
    }
}

pub(super) fn party(node: &NodeId) -> PartyId {
    PartyId::new(node.as_str()).expect("the id of a node is short")
}

fn message(content: &impl Serialize) -> Result<SecureMessage, String> {
    SecureMessage::new(encode(content))
        .map_err(|_| "a message of secure aggregation would be too long: there are too many nodes".into())
}

impl Secure {
    pub(super) fn new(
        scheme: Scheme,
        (researcher, experiment): (&ResearcherId, &ExperimentId),
        spec: SecureSpec,
        group: &Group,
    ) -> Self {
        let name = Name::new(format!("{researcher}/{experiment}")).expect("two ids are short");
        Self {
            scheme,
            keys: (scheme == Scheme::JoyeLibert).then(|| Keys::new(group.clone(), name.clone())),
            name,
            direct: (spec.key_negotiation == KeyNegotiation::Direct).then(Direct::default),
            min_parties: spec.min_parties,
            max_colluders: spec.max_colluders,
            max_losses: spec.max_losses,
            ring: Ring::default(),
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

    /// Whether a sum needs the contributions of all that began it.
    pub(super) fn needs_all(&self) -> bool {
        self.scheme == Scheme::JoyeLibert
    }

    /// Parties, threshold and colluders of the open session, or of the keys.
    pub(super) fn numbers(&self) -> Option<Numbers> {
        match &self.keys {
            Some(keys) => keys.spec().map(Numbers::from),
            None => self.session.as_ref().map(|session| session.spec().into()),
        }
    }

    /// How many survivors the open session needs.
    pub(super) fn least_survivors(&self) -> usize {
        self.numbers().map_or(self.min_parties(), |numbers| numbers.least_survivors)
    }

    /// How many of these nodes a sum needs, by the experiment's own rules.
    pub(super) fn least_of(&self, nodes: usize) -> usize {
        if self.needs_all() {
            return nodes.max(self.min_parties());
        }
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

    /// Whether these nodes, and no others, have keys of Joye-Libert.
    pub(super) fn has_keys(&self, nodes: &[NodeId]) -> bool {
        let parties = Parties::new(nodes.iter().map(party));
        self.keys.as_ref().zip(parties.ok()).is_some_and(|(keys, parties)| keys.are_of(&parties))
    }

    /// Begins a negotiation of keys among these nodes.
    pub(super) fn begin_keys(&mut self, nodes: &[NodeId]) -> Result<(), String> {
        let parties = Parties::new(nodes.iter().map(party)).map_err(|problem| problem.to_string())?;
        let (name, colluders) = (self.name.clone(), self.colluders(parties.count()));
        let Some(keys) = &mut self.keys else { return Ok(()) };
        keys.begin(name, parties, colluders).map_err(|problem| problem.to_string())
    }

    /// Ends a negotiation in which all have answered.
    pub(super) fn finish_keys(&mut self) -> Result<(), String> {
        self.keys.as_mut().map_or(Ok(()), Keys::finish).map_err(|problem| problem.to_string())
    }

    /// Decides among whom is masked once all have agreed. True: these nodes are to open their seeds for that.
    pub(super) fn begin_ring(&mut self, nodes: &[NodeId]) -> bool {
        let Ok(parties) = Parties::new(nodes.iter().map(party)) else { return false };
        let numbers = (self.colluders(parties.count()), self.max_losses);
        self.ring.begin(&parties, numbers)
    }

    pub(super) fn finish_ring(&mut self) {
        self.ring.finish(&self.name);
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
            let (listed, _) = self.ring.session(parties.clone());
            if next.spec().parties == listed && next.spec().context.attempt >= attempt && self.abandoned.is_empty() {
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
    fn spec(&self, round: u32, attempt: u32, nodes: Parties) -> Result<SessionSpec, String> {
        let (parties, graph) = self.ring.session(nodes);
        let count = parties.count();
        let colluders = self.colluders(count);
        let context = Context { experiment: self.name.clone(), round, attempt, phase: 0 };
        let mut spec = SessionSpec { graph, ..SessionSpec::new(context, parties, colluders, self.min_parties) };
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

    /// The experiment is over: who goes on with it agrees on other keys. That shares of the open round were asked for is kept.
    pub(super) fn end(&mut self) {
        self.roster.clear();
        self.offers.clear();
        self.ring = Ring::default();
        // The nodes remember that they prepared these: who goes on begins later attempts.
        let prepared = self.session.take().into_iter().chain(self.next.take());
        self.abandoned.extend(prepared.map(|session| session.spec().clone()));
        self.survivors.clear();
        if let Some(keys) = &mut self.keys {
            keys.end();
        }
        if let Some(direct) = &mut self.direct {
            *direct = Direct::default();
        }
    }

    fn open(&mut self) -> Result<&mut Session, Problem> {
        self.session.as_mut().ok_or(Problem::UnknownSession)
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
