//! Whole runs of Joye and Libert's scheme in the form of the vectors, from random inputs to outputs that the reference can compute too.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use rand::{Rng as _, RngExt as _};
use rand_chacha::ChaCha20Rng;
use secagg::channel::{Channels, Offer, Roster};
use secagg::identity::IdentityKey;
use secagg::joye_libert::{Fold, Group, KeySpec, Masker, Masks, Node, Researcher, Vector};
use secagg::party::{Parties, PartyId};
use secagg::session::{Rules, Terms};
use secagg::threshold::threshold;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::sessions::{Contextual, Described, Draws, hex, random_hex, random_values, random_vectors};

/// Counts the bytes of a ciphertext.
const CIPHERTEXT: usize = 512;

#[derive(Deserialize)]
struct Inputs {
    #[serde(flatten)]
    context: Contextual,
    generation: u32,
    terms: Terms,
    t: u32,
    parties: Vec<PartyId>,
    vectors: Vec<Described>,
    nodes: Vec<NodeInputs>,
}

#[derive(Deserialize)]
struct NodeInputs {
    party: PartyId,
    key: String,
    draws: String,
    values: Vec<Vec<String>>,
}

/// Draws the inputs of a run.
pub(crate) fn random_inputs(rng: &mut ChaCha20Rng) -> Value {
    let n: u32 = rng.random_range(3..=5);
    let vectors = random_vectors(rng, 40);
    let parties: Vec<String> = (0..n).map(|index| format!("n{index}-{}", rng.next_u32())).collect();
    let mut node = |party: &String| {
        json!({
            "party": party,
            "key": random_hex(rng, 528),
            // Each coefficient takes two draws on average, of 531 bytes: by far enough.
            "draws": random_hex(rng, 1 << 16),
            "values": random_values(rng, &vectors),
        })
    };
    let nodes: Vec<Value> = parties.iter().map(&mut node).collect();
    json!({
        "experiment": format!("federation/{}", rng.next_u64()), "generation": rng.next_u32(), "round": rng.next_u32(),
        "attempt": rng.next_u32(), "phase": rng.random::<u16>(), "terms": random_hex(rng, 32), "t": threshold(n, 0),
        "modulus": modulus(), "parties": parties, "vectors": vectors, "nodes": nodes,
    })
}

/// Reads the default modulus from the published vectors.
fn modulus() -> String {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/joye_libert.json")).unwrap();
    let content: Value = serde_json::from_str(&file).unwrap();
    content["cases"][0]["inputs"]["modulus"].as_str().unwrap().to_owned()
}

fn compute(masker: &Masker, label: &secagg::joye_libert::Label, ciphertexts: usize) -> Masks {
    let mut masks = masker.begin(label);
    masker.extend(label, &mut masks, ciphertexts, NonZeroUsize::MIN, &|| true).unwrap();
    masks
}

/// Plays a run with this crate and gives the outputs that matter.
pub(crate) fn play(inputs: &Value, rng: &mut ChaCha20Rng) -> Value {
    let inputs: Inputs = serde_json::from_value(inputs.clone()).unwrap();
    let (context, group, generation) = (inputs.context.context(), Group::rsa_2048(), inputs.generation);
    let experiment = context.experiment.clone();
    let parties = Parties::new(inputs.parties.clone()).unwrap();
    let spec = KeySpec { experiment: experiment.clone(), generation, parties, threshold: inputs.t, colluders: 0 };
    let rules = Rules { min_parties: 3, max_colluders: Some(0) };
    let identity = |index: usize| IdentityKey::from_scalar(&[u8::try_from(index + 1).unwrap(); 32]).unwrap();
    let roster: Roster =
        inputs.parties.iter().enumerate().map(|(index, party)| (party.clone(), identity(index).public())).collect();
    let mut channels: Vec<Channels> =
        inputs.parties.iter().map(|party| Channels::new(experiment.clone(), party.clone(), rng)).collect();
    let offers: BTreeMap<PartyId, Offer> =
        channels.iter().enumerate().map(|(index, own)| (own.party().clone(), own.offer(&identity(index)))).collect();

    let mut researcher = Researcher::new(experiment);
    let keys_id = researcher.begin(&group, &spec).unwrap();
    let mut nodes = Vec::new();
    for (node, own) in inputs.nodes.iter().zip(&mut channels) {
        own.agree(&roster, &offers).unwrap();
        let mut role = Node::new();
        let mut draws = Draws::new(&[&node.key, &node.draws]);
        let shares = role.share_keys(own, &group, &spec, &rules, &mut draws).unwrap();
        researcher.accept_shares(generation, &node.party, shares).unwrap();
        nodes.push(role);
    }
    let mut share_sums = BTreeMap::new();
    for ((node, own), role) in inputs.nodes.iter().zip(&mut channels).zip(&mut nodes) {
        let sum = role.take_shares(own, generation, &researcher.inbound(generation, &node.party).unwrap()).unwrap();
        share_sums.insert(&node.party, serde_json::to_value(&sum.share).unwrap());
        researcher.accept_sum(generation, &node.party, sum).unwrap();
    }
    let server_key = researcher.server_key(generation).unwrap();

    let mut vectors = Vec::new();
    for (index, vector) in inputs.vectors.iter().enumerate() {
        let (name, modulus) = (vector.name(index), vector.modulus());
        let mut fold = Fold::new(&group, &server_key, &context, inputs.terms, name, modulus, vector.length).unwrap();
        let (label, count) = (fold.label().clone(), fold.ciphertexts());
        let mut details = vec![json!({ "ciphertexts": [] }); count];
        for (node, role) in inputs.nodes.iter().zip(&mut nodes) {
            let elements = vector.bytes(&node.values[index]);
            let masks = compute(&role.masker(&group, generation).unwrap(), &label, count);
            let plain = Vector { name, modulus, elements: &elements };
            let bytes = role.encrypt(&group, generation, &context, inputs.terms, plain, &masks).unwrap();
            for (detail, ciphertext) in details.iter_mut().zip(bytes.chunks(CIPHERTEXT)) {
                detail["ciphertexts"].as_array_mut().unwrap().push(json!(hex(ciphertext)));
            }
            fold.add(&node.party, &bytes).unwrap();
        }
        let opened = fold.finish(&compute(&server_key.masker(&group).unwrap(), &label, count)).unwrap();
        vectors.push(json!({ "ciphertexts": details, "sums": vector.numbers(&opened) }));
    }
    json!({ "keys_id": keys_id, "share_sums": share_sums, "vectors": vectors })
}
