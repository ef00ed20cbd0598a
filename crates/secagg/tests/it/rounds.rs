//! What one round shows says nothing about another; and a restart between any two calls changes no answer.

use std::collections::{BTreeMap, BTreeSet};

use secagg::lom::{NodeRole, ResearcherSession};
use secagg::mask::{Modulus, VectorName};
use secagg::party::PartyId;
use secagg::session::{Rules, Terms};
use secagg::wire::Fixed;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::world::{Losses, TERMS, World, id, identity_of, sum, vector};

fn none(n: usize) -> Losses {
    Losses { prepare: vec![false; n], mask: vec![false; n], attest: vec![false; n], reveal: vec![false; n] }
}

fn restart<State: Serialize + DeserializeOwned>(state: &State) -> State {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// Asks on a copy restored from storage, then on the node itself, and then the node again: three times the same answer.
fn asked<Answer: Serialize>(node: &mut NodeRole, ask: impl Fn(&mut NodeRole) -> Answer) -> Answer {
    let written = |answer: &Answer| serde_json::to_string(answer).unwrap();
    let mut copy = restart(node);
    let from_copy = written(&ask(&mut copy));
    let answer = ask(node);
    assert_eq!(from_copy, written(&answer), "a restart before");
    *node = restart(node);
    assert_eq!(written(&ask(node)), written(&answer), "asked again after a restart");
    answer
}

#[test]
fn a_restart_between_any_two_calls_changes_no_answer() {
    let mut world = World::new(4, Rules::default(), 3);
    let spec = world.spec(1, 1, 3);
    let session = spec.id();
    let values = world.values(Modulus::Bits64);
    let mut researcher = ResearcherSession::new(spec.clone(), &world.roster).unwrap();
    for (id, node) in &mut world.nodes {
        let rng = world.rng.clone();
        let preparation = asked(node, |node| node.prepare(&spec, &mut rng.clone()).unwrap());
        world.rng.set_stream(world.rng.get_stream() + 1);
        researcher = restart(&researcher);
        researcher.accept_preparation(id, preparation).unwrap();
    }
    let inbound = researcher.close_preparations().unwrap();
    researcher = restart(&researcher);
    let mut contributions = BTreeMap::new();
    for (party, node) in world.nodes.iter_mut().filter(|(party, _)| **party != id(2)) {
        let masked = asked(node, |node| {
            let mut bytes = values[party].clone();
            let masker = node.masker(&session, TERMS, &inbound[party]).unwrap();
            masker.add(vector(0), Modulus::Bits64, 0, &mut bytes).unwrap();
            bytes
        });
        contributions.insert(party.clone(), masked);
    }
    let list = researcher.fix_survivors(contributions.keys().cloned()).unwrap().to_vec();
    for party in &list {
        let node = world.nodes.get_mut(party).unwrap();
        let attestation = asked(node, |node| node.attest(&session, &list, &identity_of(party)).unwrap());
        researcher = restart(&researcher);
        researcher.accept_attestation(party, attestation).unwrap();
    }
    let attestations = researcher.attestations().unwrap().clone();
    for party in &list {
        let node = world.nodes.get_mut(party).unwrap();
        let revelation = asked(node, |node| node.reveal(&session, &list, &attestations).unwrap());
        researcher = restart(&researcher);
        researcher.accept_revelation(party, revelation).unwrap();
    }
    let mut total = sum(contributions.values(), Modulus::Bits64);
    researcher.unmasker(TERMS).unwrap().subtract(vector(0), Modulus::Bits64, 0, &mut total).unwrap();
    assert_eq!(total, sum(contributions.keys().map(|party| &values[party]), Modulus::Bits64));
}

/// Gives every secret of a session that a node's state holds: masking key, self mask, all shares held.
fn secrets(node: &NodeRole, session: &str) -> BTreeSet<String> {
    fn collect(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    if ["mask_secret", "self_secret", "pair", "itself"].contains(&name.as_str()) {
                        found.insert(value.as_str().unwrap().to_owned());
                    } else {
                        collect(value, found);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let state = serde_json::to_value(node).unwrap();
    let mut found = BTreeSet::new();
    collect(&state["records"][session], &mut found);
    assert!(!found.is_empty());
    found
}

/// Rounds 1, 2, 3 with the same values. Everything of round 2 is given away, the nodes' own secrets included: no secret of it
/// appears in its neighbours, and what unmasks round 2 leaves what was sent in the others masked.
#[test]
fn all_of_a_round_says_nothing_of_its_neighbours() {
    let n = 4;
    let mut world = World::new(n, Rules::default(), 12);
    let values = world.values(Modulus::Bits32);
    let mut sent = Vec::new();
    let mut kept: Vec<BTreeSet<String>> = Vec::new();
    for round in 1..=3 {
        let spec = world.spec(round, 1, 3);
        let (researcher, contributions) = world.mask(&spec, &none(n), &values, Modulus::Bits32).unwrap();
        kept.push(world.nodes.values().flat_map(|node| secrets(node, &spec.id().to_string())).collect());
        sent.push((researcher, contributions));
    }
    for other in [0, 2] {
        assert!(kept[1].is_disjoint(&kept[other]), "no secret or share of one round appears in another");
    }
    let (researcher, _) = &mut sent[1];
    let unmasker = world.unmask(researcher, &none(n)).unwrap();
    for (round, (_, contributions)) in sent.iter().enumerate() {
        let mut total = sum(contributions.values(), Modulus::Bits32);
        unmasker.subtract(vector(0), Modulus::Bits32, 0, &mut total).unwrap();
        let plain = sum(values.values(), Modulus::Bits32);
        let equal = total.chunks(4).zip(plain.chunks(4)).filter(|(total, plain)| total == plain).count();
        // 37 words: that a single one agrees by chance has probability 37/2^32 < 1e-8.
        assert_eq!(equal, if round == 1 { 37 } else { 0 }, "round {}", round + 1);
        for (party, bytes) in contributions {
            assert!(bytes.chunks(4).zip(values[party].chunks(4)).all(|(sent, plain)| sent != plain), "{party}");
        }
    }
}

/// The first 16 bytes of all masks of 12 sessions, 3 vectors, 2 purposes and 4 nodes differ.
#[test]
fn first_blocks_differ_over_rounds_attempts_phases_purposes_vectors_and_nodes() {
    let mut world = World::new(4, Rules::default(), 4);
    let mut seen = BTreeSet::new();
    for code in 0..12 {
        let mut spec = world.spec(1 + code / 4, 1, 3);
        spec.context.attempt = code / 2 % 2;
        spec.context.phase = u16::try_from(code % 2).unwrap();
        let mut researcher = ResearcherSession::new(spec.clone(), &world.roster).unwrap();
        for (id, node) in &mut world.nodes {
            researcher.accept_preparation(id, node.prepare(&spec, &mut world.rng).unwrap()).unwrap();
        }
        let inbound = researcher.close_preparations().unwrap();
        for (party, node) in &mut world.nodes {
            let masker = node.masker(&spec.id(), TERMS, &inbound[party]).unwrap();
            for index in 0..3 {
                for purpose in ["training", "validation"] {
                    let mut block = [0; 16];
                    masker.add(VectorName { index, purpose, name: "w" }, Modulus::Bits32, 0, &mut block).unwrap();
                    assert!(seen.insert(block));
                }
            }
        }
    }
    assert_eq!(seen.len(), 12 * 4 * 6);
}

#[test]
fn masks_of_a_part_are_the_part_of_the_masks() {
    let mut world = World::new(3, Rules::default(), 6);
    let spec = world.spec(1, 0, 3);
    let mut researcher = ResearcherSession::new(spec.clone(), &world.roster).unwrap();
    for (id, node) in &mut world.nodes {
        researcher.accept_preparation(id, node.prepare(&spec, &mut world.rng).unwrap()).unwrap();
    }
    let inbound = researcher.close_preparations().unwrap();
    let masker = world.nodes.get_mut(&id(1)).unwrap().masker(&spec.id(), TERMS, &inbound[&id(1)]).unwrap();
    for modulus in [Modulus::Bits32, Modulus::Bits64, Modulus::Bits128] {
        let width = modulus.bytes();
        let mut whole = vec![0; 3000 * width];
        masker.add(vector(0), modulus, 0, &mut whole).unwrap();
        for (first, last) in [(0, 1), (1, 2), (1, 3000), (3, 1027), (1023, 1025), (2047, 3000), (2999, 3000), (5, 5)] {
            let mut part = vec![0; (last - first) * width];
            masker.add(vector(0), modulus, first as u64, &mut part).unwrap();
            assert_eq!(part, whole[first * width..last * width], "{modulus:?} from {first} to {last}");
        }
        assert!(width == 1 || masker.add(vector(0), modulus, 0, &mut vec![0; width + 1]).is_err());
    }
}

/// Nodes that were asked different things do not unmask each other.
#[test]
fn other_terms_give_no_sum() {
    let mut world = World::new(3, Rules::default(), 8);
    let spec = world.spec(1, 0, 3);
    let values = world.values(Modulus::Bits32);
    let mut researcher = ResearcherSession::new(spec.clone(), &world.roster).unwrap();
    for (id, node) in &mut world.nodes {
        researcher.accept_preparation(id, node.prepare(&spec, &mut world.rng).unwrap()).unwrap();
    }
    let inbound = researcher.close_preparations().unwrap();
    let mut contributions: BTreeMap<PartyId, Vec<u8>> = values.clone();
    for (party, bytes) in &mut contributions {
        let terms = if *party == id(2) { Terms(Fixed([1; 32])) } else { TERMS };
        let masker = world.nodes.get_mut(party).unwrap().masker(&spec.id(), terms, &inbound[party]).unwrap();
        masker.add(vector(0), Modulus::Bits32, 0, bytes).unwrap();
    }
    researcher.fix_survivors(contributions.keys().cloned()).unwrap();
    let unmasker = world.unmask(&mut researcher, &none(3)).unwrap();
    let mut total = sum(contributions.values(), Modulus::Bits32);
    unmasker.subtract(vector(0), Modulus::Bits32, 0, &mut total).unwrap();
    let plain = sum(values.values(), Modulus::Bits32);
    assert!(total.chunks(4).zip(plain.chunks(4)).all(|(total, plain)| total != plain));
}
