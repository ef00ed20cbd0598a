//! Joye and Libert's scheme among three nodes: what is left to do when training has ended, and what all of it costs beside the powers
//! of the library.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroUsize;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, Uint};
use rand_core::Rng as _;
use secagg::channel::Channels;
use secagg::joye_libert::{Fold, Group, KEY_BITS, KeySpec, Masker, Masks, Node, Researcher, ServerKey, Vector};
use secagg::mask::Modulus;
use secagg::session::{Context, Rules};
use secagg::threshold::threshold;

use crate::clock::{median, of_program, timed};
use crate::federation::{Federation, TERMS, UPDATE, id};
use crate::tell;

const PARTIES: usize = 3;
const GENERATION: u32 = 1;

pub(crate) fn measure(parameters: usize) {
    let rules = Rules { min_parties: 3, max_colluders: Some(0) };
    let mut federation = Federation::new(PARTIES, rules);
    let group = Group::rsa_2048();
    let (mut nodes, key) = negotiate(&mut federation, &group, &rules);
    let context = Context { experiment: federation.experiment.clone(), round: 1, attempt: 0, phase: 0 };
    let mut fold = Fold::new(&group, &key, &context, TERMS, UPDATE, Modulus::Bits32, parameters).unwrap();
    let (label, ciphertexts) = (fold.label().clone(), fold.ciphertexts());
    let powers = ((PARTIES + 1) * ciphertexts) as f64;

    let mut library = power_of_the_library(&mut federation);
    let begin = of_program();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let compute = |masker: Masker| {
        let mut masks: Masks = masker.begin(&label);
        masker.extend(&label, &mut masks, ciphertexts, threads, &|| true).unwrap();
        masks
    };
    let masks: Vec<Masks> = nodes.iter().map(|node| compute(node.masker(&group, GENERATION).unwrap())).collect();
    let opening = compute(key.masker(&group).unwrap());
    let ahead = of_program() - begin;
    let mut vector = vec![0; 4 * parameters];
    let mut plain = vec![0_u32; parameters];
    let (mut left, mut bytes) = (0.0, 0);
    for (index, (node, masks)) in nodes.iter_mut().zip(&masks).enumerate() {
        federation.rng.fill_bytes(&mut vector);
        for (sum, element) in plain.iter_mut().zip(vector.as_chunks::<4>().0) {
            *sum = sum.wrapping_add(u32::from_le_bytes(*element));
        }
        let ((), time) = timed(|| {
            let vector = Vector { name: UPDATE, modulus: Modulus::Bits32, elements: &vector };
            let ciphertexts = node.encrypt(&group, GENERATION, &context, TERMS, vector, masks).unwrap();
            bytes = ciphertexts.len();
            fold.add(&id(index), &ciphertexts).unwrap();
        });
        left += time;
    }
    let (sum, time) = timed(|| fold.finish(&opening).unwrap());
    left += time;
    assert!(sum == plain.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>(), "the sum of all");
    library.extend(power_of_the_library(&mut federation));
    let library = median(library);
    tell("powers", powers);
    tell("power of the library", library);
    tell("masks", ahead);
    tell("from the end of training to the sum", left);
    tell("total beside powers", (ahead + left) / (powers * library));
    tell("bytes for each parameter", bytes as f64 / parameters as f64);
}

/// Gives the processor time of one power modulo a number as wide as N² with an exponent as wide as a key, in seconds, some times.
fn power_of_the_library(federation: &mut Federation) -> Vec<f64> {
    let mut draw = |bytes: &mut [u8]| {
        federation.rng.fill_bytes(bytes);
        bytes[0] |= 128;
    };
    let (mut modulus, mut base, mut exponent) = ([0; 512], [0; 512], [0; 528]);
    draw(&mut modulus);
    draw(&mut exponent);
    federation.rng.fill_bytes(&mut base);
    modulus[511] |= 1;
    let modulus = Odd::new(Uint::<64>::from_be_slice(&modulus)).expect("its lowest bit is set");
    let parameters = FixedMontyParams::new(modulus);
    let base = FixedMontyForm::new(&Uint::<64>::from_be_slice(&base), &parameters);
    let exponent = Uint::<66>::from_be_slice(&exponent);
    (0..21).map(|_| timed(|| black_box(base.pow_bounded_exp(&exponent, KEY_BITS))).1).collect()
}

fn negotiate(federation: &mut Federation, group: &Group, rules: &Rules) -> (Vec<Node>, ServerKey) {
    let experiment = federation.experiment.clone();
    let mut channels: Vec<Channels> =
        (0..PARTIES).map(|index| Channels::new(experiment.clone(), id(index), &mut federation.rng)).collect();
    let offers: BTreeMap<_, _> =
        (0..PARTIES).map(|index| (id(index), channels[index].offer(&federation.keys[index]))).collect();
    let parties = federation.parties.clone();
    let threshold = threshold(parties.count(), 0);
    let spec = KeySpec { experiment: experiment.clone(), generation: GENERATION, parties, threshold, colluders: 0 };
    let mut researcher = Researcher::new(experiment);
    researcher.begin(group, &spec).unwrap();
    let mut nodes = vec![Node::new(); PARTIES];
    for (index, (node, own)) in nodes.iter_mut().zip(&mut channels).enumerate() {
        own.agree(&federation.roster, &offers).unwrap();
        let shares = node.share_keys(own, group, &spec, rules, &mut federation.rng).unwrap();
        researcher.accept_shares(GENERATION, &id(index), shares).unwrap();
    }
    for (index, (node, own)) in nodes.iter_mut().zip(&mut channels).enumerate() {
        let inbound = researcher.inbound(GENERATION, &id(index)).unwrap();
        researcher.accept_sum(GENERATION, &id(index), node.take_shares(own, GENERATION, &inbound).unwrap()).unwrap();
    }
    (nodes, researcher.server_key(GENERATION).unwrap())
}
