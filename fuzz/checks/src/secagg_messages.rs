//! What nodes and researcher say around a masked sum, given to real roles at every step.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use secagg::channel::Roster;
use secagg::exchange::{
    AgreeAnswer, AttestRequest, MaskRequest, PrepareRequest, RevealAnswer, RevealRequest, decode, encode,
};
use secagg::identity::IdentityKey;
use secagg::joye_libert::{KeyShares, KeySpec, SumShare};
use secagg::lom::{Attestation, NodeRole, Preparation, ResearcherSession, Revelation};
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment, Parties, PartyId};
use secagg::session::{Context, Rules, SessionSpec, Terms};
use secagg::wire::Fixed;
use serde::Serialize;
use serde::de::DeserializeOwned;

const TERMS: Terms = Terms(Fixed([5; 32]));
const VECTOR: VectorName<'_> = VectorName { index: 0, purpose: "model", name: "w" };

/// Reads JSON as each message, and gives what was understood to a node and to a researcher at each step of a session.
pub fn check(json: &[u8]) {
    read::<AgreeAnswer>(json);
    read::<KeyShares>(json);
    read::<SumShare>(json);
    read::<KeySpec>(json);
    WORLD.with(|world| {
        for node in &world.nodes {
            ask(node, json);
        }
        for researcher in &world.researchers {
            tell(researcher, &world.other, json);
        }
    });
}

/// What is understood is written, and understood as the same.
pub(crate) fn read<T: Serialize + DeserializeOwned>(json: &[u8]) -> Option<T> {
    let value: T = decode("message", json).ok()?;
    let written = encode(&value);
    let again: T = decode("message", &written).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(encode(&again) == written, "a message that was written reads back as it was");
    Some(value)
}

/// Whatever a role refuses leaves it as it was; whatever it answered it answers again.
fn unchanged<R: Serialize + Clone, T: Serialize, P>(role: &R, call: impl Fn(&mut R) -> Result<T, P>) {
    let mut copy = role.clone();
    match call(&mut copy) {
        Ok(answer) => {
            let Ok(again) = call(&mut copy) else { panic!("what was answered is answered again") };
            assert!(encode(&again) == encode(&answer), "it is the same answer");
        }
        Err(_) => assert!(encode(&copy) == encode(role), "a refusal changes nothing"),
    }
}

fn ask(node: &NodeRole, json: &[u8]) {
    let rng = || StdRng::seed_from_u64(3);
    let identity = identity(0);
    if let Some(request) = read::<PrepareRequest>(json) {
        unchanged(node, |node| node.agree(&request.roster, &request.offers));
        unchanged(node, |node| node.prepare(&request.spec, &mut rng()));
    }
    if let Some(request) = read::<MaskRequest>(json) {
        unchanged(node, |node| {
            let masker = node.masker(&request.session, TERMS, &request.inbound)?;
            let mut data = vec![0; 64];
            masker.add(VECTOR, Modulus::Bits32, 3, &mut data).map(|()| data)
        });
    }
    if let Some(request) = read::<AttestRequest>(json) {
        unchanged(node, |node| node.attest(&request.session, &request.survivors, &identity));
    }
    if let Some(request) = read::<RevealRequest>(json) {
        unchanged(node, |node| node.reveal(&request.session, &request.survivors, &request.attestations));
        if let Some(next) = &request.next {
            unchanged(node, |node| node.prepare(next, &mut rng()));
        }
    }
}

fn tell(researcher: &ResearcherSession, from: &PartyId, json: &[u8]) {
    if let Some(preparation) = read::<Preparation>(json) {
        unchanged(researcher, |researcher| researcher.accept_preparation(from, preparation.clone()));
    }
    if let Some(attestation) = read::<Attestation>(json) {
        unchanged(researcher, |researcher| researcher.accept_attestation(from, attestation));
    }
    let answer = read::<RevealAnswer>(json).map(|answer| answer.revelation);
    if let Some(revelation) = answer.or_else(|| read::<Revelation>(json)) {
        unchanged(researcher, |researcher| researcher.accept_revelation(from, revelation.clone()));
        let mut researcher = researcher.clone();
        if researcher.accept_revelation(from, revelation).is_ok() {
            drop(researcher.unmasker(TERMS));
        }
    }
}

/// One session of three, at each of its steps.
struct World {
    nodes: Vec<NodeRole>,
    researchers: Vec<ResearcherSession>,
    /// Whose messages the researchers wait for.
    other: PartyId,
    seeds: Vec<(&'static str, Vec<u8>)>,
}

thread_local! {
    static WORLD: World = walk();
}

/// Gives each message of that session.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    WORLD.with(|world| world.seeds.clone())
}

/// Gives the states of a node and of the researcher at each step.
pub(crate) fn states() -> Vec<Vec<u8>> {
    WORLD.with(|world| world.nodes.iter().map(encode).chain(world.researchers.iter().map(encode)).collect())
}

fn identity(index: u8) -> IdentityKey {
    IdentityKey::from_scalar(&[index + 1; 32]).expect("a small number")
}

fn walk() -> World {
    let mut rng = StdRng::seed_from_u64(5);
    let experiment = Experiment::new("e").expect("a short text");
    let ids = ["a", "b", "c"].map(|id| PartyId::new(id).expect("a short text"));
    let keys = [0, 1, 2].map(identity);
    let roster: Roster = ids.iter().cloned().zip(keys.iter().map(IdentityKey::public)).collect();
    let mut new = |id: &PartyId| NodeRole::new(experiment.clone(), id.clone(), Rules::default(), &mut rng);
    let mut nodes = [new(&ids[0]), new(&ids[1]), new(&ids[2])];
    let offers: BTreeMap<_, _> =
        ids.iter().cloned().zip(nodes.iter().zip(&keys).map(|(node, key)| node.offer(key))).collect();
    let context = |round| Context { experiment: experiment.clone(), round, attempt: 0, phase: 0 };
    let parties = Parties::new(ids.clone()).expect("three different ones");
    let spec = SessionSpec::new(context(1), parties.clone(), 0, 3);
    let next = SessionSpec::new(context(2), parties, 0, 3);
    let session = spec.id();
    let mut researcher = ResearcherSession::new(spec.clone(), &roster).expect("a good session");
    let good = "a session of honest nodes";
    let (mut steps, mut researchers) = (vec![nodes[0].clone()], vec![researcher.clone()]);
    let mut preparations = Vec::new();
    for (id, node) in ids.iter().zip(&mut nodes) {
        node.agree(&roster, &offers).expect(good);
        let preparation = node.prepare(&spec, &mut rng).expect(good);
        researcher.accept_preparation(id, preparation.clone()).expect(good);
        preparations.push(preparation);
    }
    steps.push(nodes[0].clone());
    let inbound = researcher.close_preparations().expect(good);
    for (id, node) in ids.iter().zip(&mut nodes) {
        node.masker(&session, TERMS, &inbound[id]).expect(good);
    }
    steps.push(nodes[0].clone());
    let survivors = researcher.fix_survivors(ids.clone()).expect(good).to_vec();
    researchers.push(researcher.clone());
    let signed = |(node, key): (&mut NodeRole, &IdentityKey)| node.attest(&session, &survivors, key).expect(good);
    let attestations: Vec<Attestation> = nodes.iter_mut().zip(&keys).map(signed).collect();
    steps.push(nodes[0].clone());
    for (id, attestation) in ids.iter().zip(&attestations) {
        researcher.accept_attestation(id, *attestation).expect(good);
    }
    researchers.push(researcher.clone());
    let shown = researcher.attestations().expect(good).clone();
    let revelations: Vec<Revelation> =
        nodes.iter_mut().map(|node| node.reveal(&session, &survivors, &shown).expect(good)).collect();
    steps.push(nodes[0].clone());
    let prepared = nodes[1].prepare(&next, &mut rng).expect(good);
    let seeds = vec![
        ("agree_answer", encode(&AgreeAnswer { identity: keys[1].public(), offer: offers[&ids[1]].clone() })),
        ("prepare_request", encode(&PrepareRequest { roster, offers, spec, seeds: BTreeMap::new() })),
        ("preparation", encode(&preparations[1])),
        ("mask_request", encode(&MaskRequest { session, inbound: inbound[&ids[0]].clone() })),
        ("attest_request", encode(&AttestRequest { session, survivors: survivors.clone() })),
        ("attestation", encode(&attestations[1])),
        ("reveal_request", encode(&RevealRequest { session, survivors, attestations: shown, next: Some(next) })),
        ("reveal_answer", encode(&RevealAnswer { revelation: revelations[1].clone(), next: Some(prepared) })),
    ];
    let [_, other, _] = ids;
    World { nodes: steps, researchers, other, seeds }
}
