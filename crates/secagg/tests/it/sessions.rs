//! Whole sessions in the form of the vectors: from inputs, published or random, to outputs that the reference can compute too.

use std::collections::BTreeMap;

use rand::{Rng as _, RngExt as _, TryCryptoRng, TryRng};
use rand_chacha::ChaCha20Rng;
use secagg::channel::{Offer, Roster};
use secagg::graph::Graph;
use secagg::identity::IdentityKey;
use secagg::lom::{Attestation, InboundPreparation, NodeRole, ResearcherSession};
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Parties, PartyId};
use secagg::session::{Context, Rules, SessionSpec, Terms};
use secagg::threshold::{default_colluders, threshold};
use secagg::wire::Fixed;
use serde::Deserialize;
use serde_json::{Value, json};

/// Is random bytes that are an input.
pub(crate) struct Draws(std::vec::IntoIter<u8>);

impl Draws {
    pub(crate) fn new(parts: &[&str]) -> Self {
        Self(parts.iter().flat_map(|part| unhex(part)).collect::<Vec<u8>>().into_iter())
    }
}

impl TryRng for Draws {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill_with(|| self.0.next().expect("a vector has as many random bytes as are drawn"));
        Ok(())
    }
}

impl TryCryptoRng for Draws {}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub(crate) fn random_hex(rng: &mut ChaCha20Rng, length: usize) -> String {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    hex(&bytes)
}

/// Is a vector of a contribution as vectors describe it.
#[derive(Deserialize)]
pub(crate) struct Described {
    pub(crate) purpose: String,
    pub(crate) name: String,
    w: u32,
    pub(crate) length: usize,
}

impl Described {
    pub(crate) fn name(&self, index: usize) -> VectorName<'_> {
        VectorName { index: u32::try_from(index).unwrap(), purpose: &self.purpose, name: &self.name }
    }

    pub(crate) fn modulus(&self) -> Modulus {
        match self.w {
            32 => Modulus::Bits32,
            64 => Modulus::Bits64,
            128 => Modulus::Bits128,
            other => panic!("{other} bits"),
        }
    }

    /// Writes signed numbers as little-endian elements.
    pub(crate) fn bytes(&self, numbers: &[String]) -> Vec<u8> {
        let element = |number: &String| number.parse::<i128>().unwrap().to_le_bytes()[..self.modulus().bytes()].to_vec();
        numbers.iter().flat_map(element).collect()
    }

    /// Reads little-endian elements as signed numbers.
    pub(crate) fn numbers(&self, bytes: &[u8]) -> Vec<String> {
        let signed = |element: &[u8]| match self.modulus() {
            Modulus::Bits32 => i32::from_le_bytes(element.try_into().unwrap()).to_string(),
            Modulus::Bits64 => i64::from_le_bytes(element.try_into().unwrap()).to_string(),
            Modulus::Bits128 => i128::from_le_bytes(element.try_into().unwrap()).to_string(),
        };
        bytes.chunks_exact(self.modulus().bytes()).map(signed).collect()
    }

    fn add(&self, total: &mut [u8], other: &[u8]) {
        let bytes = self.modulus().bytes();
        for (total, other) in total.chunks_exact_mut(bytes).zip(other.chunks_exact(bytes)) {
            let mut carry = 0;
            for (total, other) in total.iter_mut().zip(other) {
                let sum = u16::from(*total) + u16::from(*other) + carry;
                *total = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
        }
    }
}

/// Is what a session's vector gives; unknown fields are for other kinds.
#[derive(Deserialize)]
struct Inputs {
    #[serde(flatten)]
    context: Contextual,
    terms: Fixed<32>,
    t: u32,
    c: u32,
    min_parties: u32,
    k: u32,
    seed: Fixed<32>,
    parties: Vec<PartyId>,
    vectors: Vec<Described>,
    nodes: Vec<NodeInputs>,
    survivors: Vec<PartyId>,
    shown: Vec<PartyId>,
}

/// Is a context among other fields.
#[derive(Deserialize)]
pub(crate) struct Contextual {
    experiment: secagg::party::Experiment,
    round: u32,
    attempt: u32,
    phase: u16,
}

impl Contextual {
    pub(crate) fn context(&self) -> Context {
        Context { experiment: self.experiment.clone(), round: self.round, attempt: self.attempt, phase: self.phase }
    }
}

#[derive(Deserialize)]
struct NodeInputs {
    party: PartyId,
    identity_secret: Fixed<32>,
    channel_secret: String,
    graph_seed: String,
    draws: String,
    values: Vec<Vec<String>>,
}

/// Holds the nodes of a session that have agreed on channels.
struct Begun {
    identities: BTreeMap<PartyId, IdentityKey>,
    roster: Roster,
    offers: BTreeMap<PartyId, Offer>,
    roles: BTreeMap<PartyId, NodeRole>,
}

fn begin(inputs: &Inputs) -> Begun {
    let experiment = &inputs.context.experiment;
    let rules = Rules { min_parties: inputs.min_parties, max_colluders: Some(inputs.c) };
    let (mut identities, mut roles) = (BTreeMap::new(), BTreeMap::new());
    for node in &inputs.nodes {
        identities.insert(node.party.clone(), IdentityKey::from_scalar(&node.identity_secret.0).unwrap());
        let mut draws = Draws::new(&[&node.channel_secret, &node.graph_seed]);
        roles.insert(node.party.clone(), NodeRole::new(experiment.clone(), node.party.clone(), rules, &mut draws));
    }
    let roster: Roster = identities.iter().map(|(party, identity)| (party.clone(), identity.public())).collect();
    let offers: BTreeMap<PartyId, Offer> =
        roles.iter().map(|(party, role)| (party.clone(), role.offer(&identities[party]))).collect();
    for role in roles.values_mut() {
        role.agree(&roster, &offers).unwrap();
    }
    Begun { identities, roster, offers, roles }
}

fn open_seeds(roles: &mut BTreeMap<PartyId, NodeRole>, parties: &Parties) -> Fixed<32> {
    let opened = roles.iter_mut().map(|(party, role)| (party.clone(), role.open_seed(parties).unwrap())).collect();
    let seeds: Vec<Fixed<32>> = roles.values_mut().map(|role| role.accept_seeds(&opened).unwrap()).collect();
    assert!(seeds.iter().all(|seed| *seed == seeds[0]));
    seeds[0]
}

/// Is a session whose nodes have all masked, and what each gave by then.
pub(crate) struct Masked {
    pub(crate) spec: SessionSpec,
    pub(crate) terms: Terms,
    pub(crate) identities: BTreeMap<PartyId, IdentityKey>,
    pub(crate) roles: BTreeMap<PartyId, NodeRole>,
    pub(crate) researcher: ResearcherSession,
    pub(crate) inbound: BTreeMap<PartyId, BTreeMap<PartyId, InboundPreparation>>,
    outputs: BTreeMap<PartyId, Value>,
    contributions: BTreeMap<PartyId, Vec<Vec<u8>>>,
}

/// Plays a session up to the masks; `skipped` does not mask.
pub(crate) fn mask(inputs: &Value, skipped: Option<&PartyId>) -> Masked {
    let inputs: Inputs = serde_json::from_value(inputs.clone()).unwrap();
    let parties = Parties::new(inputs.parties.clone()).unwrap();
    let mut spec = SessionSpec::new(inputs.context.context(), parties.clone(), inputs.c, inputs.min_parties);
    assert_eq!(spec.threshold, inputs.t);
    let Begun { identities, roster, offers, mut roles } = begin(&inputs);
    if parties.count() - 1 != inputs.k {
        assert_eq!(open_seeds(&mut roles, &parties), inputs.seed);
        spec.graph = Graph::Sparse { neighbours: inputs.k, seed: inputs.seed };
    }

    let session = spec.id();
    let mut researcher = ResearcherSession::new(spec.clone(), &roster).unwrap();
    let mut outputs: BTreeMap<PartyId, Value> = BTreeMap::new();
    for node in &inputs.nodes {
        let role = roles.get_mut(&node.party).unwrap();
        let preparation = role.prepare(researcher.spec(), &mut Draws::new(&[&node.draws])).unwrap();
        researcher.accept_preparation(&node.party, preparation.clone()).unwrap();
        let mut output = serde_json::to_value(preparation).unwrap();
        output["party"] = json!(node.party);
        output["offer"] = serde_json::to_value(&offers[&node.party]).unwrap();
        outputs.insert(node.party.clone(), output);
    }
    let inbound = researcher.close_preparations().unwrap();
    let terms = Terms(inputs.terms);
    let mut contributions: BTreeMap<PartyId, Vec<Vec<u8>>> = BTreeMap::new();
    for node in inputs.nodes.iter().filter(|node| Some(&node.party) != skipped) {
        let masker = roles.get_mut(&node.party).unwrap().masker(&session, terms, &inbound[&node.party]).unwrap();
        let rows = inputs.vectors.iter().zip(&node.values).enumerate().map(|(index, (vector, values))| {
            let mut row = vector.bytes(values);
            masker.add(vector.name(index), vector.modulus(), 0, &mut row).unwrap();
            row
        });
        let rows: Vec<Vec<u8>> = rows.collect();
        outputs.get_mut(&node.party).unwrap()["masked"] = rows.iter().map(|row| hex(row)).collect();
        contributions.insert(node.party.clone(), rows);
    }
    Masked { spec, terms, identities, roles, researcher, inbound, outputs, contributions }
}

/// Plays a session with this crate and gives the outputs that matter.
pub(crate) fn play(inputs: &Value) -> Value {
    let Masked { spec, terms, identities, mut roles, mut researcher, outputs, contributions, .. } = mask(inputs, None);
    let inputs: Inputs = serde_json::from_value(inputs.clone()).unwrap();
    let (session, survivors) = (spec.id(), &inputs.survivors);
    researcher.fix_survivors(survivors.clone()).unwrap();
    let mut attestations: BTreeMap<PartyId, Attestation> = BTreeMap::new();
    for party in survivors {
        let attestation = roles.get_mut(party).unwrap().attest(&session, survivors, &identities[party]).unwrap();
        researcher.accept_attestation(party, attestation).unwrap();
        attestations.insert(party.clone(), attestation);
    }
    let shown: BTreeMap<PartyId, Attestation> =
        inputs.shown.iter().map(|party| (party.clone(), attestations[party])).collect();
    let mut revealed = BTreeMap::new();
    for party in survivors {
        let revelation = roles.get_mut(party).unwrap().reveal(&session, survivors, &shown).unwrap();
        revealed.insert(party, json!({ "self": revelation.self_shares, "mask": revelation.pair_shares }));
        researcher.accept_revelation(party, revelation).unwrap();
    }
    let unmasker = researcher.unmasker(terms).unwrap();
    let sums = inputs.vectors.iter().enumerate().map(|(index, vector)| {
        let mut total = vec![0; vector.length * vector.modulus().bytes()];
        for party in survivors {
            vector.add(&mut total, &contributions[party][index]);
        }
        unmasker.subtract(vector.name(index), vector.modulus(), 0, &mut total).unwrap();
        vector.numbers(&total)
    });
    json!({
        "session": session,
        "signatures": attestations.iter().map(|(party, signed)| (party, signed.signature)).collect::<BTreeMap<_, _>>(),
        "sums": sums.collect::<Vec<_>>(),
        "nodes": outputs.values().collect::<Vec<_>>(),
        "revealed": revealed,
    })
}

/// Draws the inputs of a session of a complete graph with random parties, values and losses.
pub(crate) fn random_inputs(rng: &mut ChaCha20Rng) -> Value {
    let n: u32 = rng.random_range(3..=7);
    let colluders = default_colluders(n);
    let lost = rng.random_range(0..=n - threshold(n, colluders).max(3));
    inputs_of(rng, n, colluders, lost)
}

/// Draws the inputs of a session of a sparse graph, two of whose parties are lost.
pub(crate) fn random_sparse_inputs(rng: &mut ChaCha20Rng) -> Value {
    let n = rng.random_range(33..=36);
    let mut inputs = inputs_of(rng, n, 1, 2);
    inputs["k"] = json!(24);
    let given: Inputs = serde_json::from_value(inputs.clone()).unwrap();
    let mut parties = begin(&given);
    inputs["seed"] = json!(open_seeds(&mut parties.roles, &Parties::new(given.parties.clone()).unwrap()));
    inputs
}

fn inputs_of(rng: &mut ChaCha20Rng, n: u32, colluders: u32, lost: u32) -> Value {
    let t = threshold(n, colluders);
    let vectors = random_vectors(rng, 40);
    let mut parties: Vec<String> = (0..n).map(|index| format!("n{}-{index}", rng.next_u32())).collect();
    parties.sort();
    let mut survivors = parties.clone();
    for _ in 0..lost {
        survivors.remove(rng.random_range(0..survivors.len()));
    }
    let mut node = |party: &String| {
        json!({
            "party": party,
            // Below the order of the group, which begins with ff.
            "identity_secret": format!("7f{}", random_hex(rng, 31)),
            "channel_secret": random_hex(rng, 32),
            "graph_seed": random_hex(rng, 32),
            // Each coefficient takes two draws on average, of 33 bytes: by far enough.
            "draws": random_hex(rng, 1 << 15),
            "values": random_values(rng, &vectors),
        })
    };
    let nodes: Vec<Value> = parties.iter().map(&mut node).collect();
    json!({
        "experiment": format!("federation/{}", rng.next_u64()), "round": rng.next_u32(), "attempt": rng.next_u32(),
        "phase": rng.random::<u16>(), "terms": random_hex(rng, 32), "t": t, "c": colluders, "min_parties": 3, "k": n - 1,
        "seed": hex(&[0; 32]), "parties": parties, "vectors": vectors, "nodes": nodes, "survivors": survivors,
        "shown": survivors,
    })
}

/// Draws one vector of each width.
pub(crate) fn random_vectors(rng: &mut ChaCha20Rng, most: usize) -> Value {
    let mut vector =
        |w: u32, name: &str| json!({ "purpose": "p", "name": name, "w": w, "length": rng.random_range(0..most) });
    json!([vector(32, "coef"), vector(64, "größe"), vector(128, "")])
}

pub(crate) fn random_values(rng: &mut ChaCha20Rng, vectors: &Value) -> Vec<Vec<String>> {
    let vectors: Vec<Described> = serde_json::from_value(vectors.clone()).unwrap();
    let mut row = |vector: &Described| {
        let bytes = unhex(&random_hex(rng, vector.length * vector.modulus().bytes()));
        vector.numbers(&bytes)
    };
    vectors.iter().map(&mut row).collect()
}
