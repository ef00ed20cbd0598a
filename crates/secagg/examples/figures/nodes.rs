//! What a session costs one node of 30 and of 100, a fifth of them lost after masking.

use rand_core::Rng as _;
use secagg::exchange::encode;
use secagg::graph::neighbours;
use secagg::lom::ResearcherSession;
use secagg::mask::Modulus;
use secagg::session::Rules;
use secagg::threshold::default_colluders;

use crate::clock::{median, timed};
use crate::federation::{Federation, TERMS, UPDATE, id};
use crate::tell;

const ELEMENTS: usize = 1_000_000;

pub(crate) fn measure() {
    let small = session(30, None);
    let large = session(100, None);
    let sparse = session(100, Some(10));
    tell("node of 30", small);
    tell("node of 100", large);
    tell("node of 100 with c = 10", sparse);
}

/// Walks a session to its sum, checks it, and gives the median of the processor time of the survivors, in seconds: preparation, mask,
/// signature and revelation.
fn session(parties: usize, colluders: Option<u32>) -> f64 {
    let count = u32::try_from(parties).unwrap();
    let mut federation = Federation::new(parties, Rules { min_parties: 3, max_colluders: colluders });
    let lost = parties / 5;
    let c = colluders.unwrap_or_else(|| default_colluders(count));
    // Of a graph that nobody stated anything about, the complete one.
    let sparse = colluders.and_then(|c| neighbours(count, c, u32::try_from(lost).unwrap()));
    let spec = federation.spec(1, c, sparse);
    tell(&format!("neighbours of {parties} with c = {c}"), f64::from(sparse.unwrap_or(count - 1)));
    let session = spec.id();
    let mut seconds = vec![0.0; parties];
    // What the last node sends.
    let mut sent = 0;
    let mut researcher = ResearcherSession::new(spec.clone(), &federation.roster).unwrap();
    for (index, node) in federation.nodes.iter_mut().enumerate() {
        let (preparation, time) = timed(|| node.prepare(&spec, &mut federation.rng).unwrap());
        seconds[index] += time;
        sent = encode(&preparation).len() + 4 * ELEMENTS;
        researcher.accept_preparation(&id(index), preparation).unwrap();
    }
    let inbound = researcher.close_preparations().unwrap();
    let (mut plain, mut masked) = (vec![0_u32; ELEMENTS], vec![0_u32; ELEMENTS]);
    let mut vector = vec![0_u8; 4 * ELEMENTS];
    for (index, node) in federation.nodes.iter_mut().enumerate() {
        federation.rng.fill_bytes(&mut vector);
        // Every fifth vanishes when it has masked.
        let survives = index % 5 != 0;
        if survives {
            add(&mut plain, &vector);
        }
        let ((), time) = timed(|| {
            let masker = node.masker(&session, TERMS, &inbound[&id(index)]).unwrap();
            masker.add(UPDATE, Modulus::Bits32, 0, &mut vector).unwrap();
        });
        seconds[index] += time;
        if survives {
            add(&mut masked, &vector);
        }
    }
    let survivors: Vec<usize> = (0..parties).filter(|index| index % 5 != 0).collect();
    let list = researcher.fix_survivors(survivors.iter().map(|index| id(*index))).unwrap().to_vec();
    for index in &survivors {
        let (attestation, time) =
            timed(|| federation.nodes[*index].attest(&session, &list, &federation.keys[*index]).unwrap());
        seconds[*index] += time;
        sent += if *index == parties - 1 { encode(&attestation).len() } else { 0 };
        researcher.accept_attestation(&id(*index), attestation).unwrap();
    }
    let attestations = researcher.shown_attestations().unwrap();
    tell(&format!("signatures shown of {parties} with c = {c}"), attestations.len() as f64);
    for index in &survivors {
        let (revelation, time) = timed(|| federation.nodes[*index].reveal(&session, &list, &attestations).unwrap());
        seconds[*index] += time;
        sent += if *index == parties - 1 { encode(&revelation).len() } else { 0 };
        researcher.accept_revelation(&id(*index), revelation).unwrap();
    }
    let mut sum: Vec<u8> = masked.iter().flat_map(|element| element.to_le_bytes()).collect();
    let ((), time) = timed(|| {
        researcher.unmasker(TERMS).unwrap().subtract(UPDATE, Modulus::Bits32, 0, &mut sum).unwrap();
    });
    tell(&format!("bytes for each parameter of {parties}"), sent as f64 / ELEMENTS as f64);
    tell(&format!("researcher's unmasking of {parties} with c = {c}"), time);
    assert!(sum == plain.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>(), "the sum of the survivors");
    median(survivors.iter().map(|index| seconds[*index]).collect())
}

fn add(sum: &mut [u32], vector: &[u8]) {
    for (sum, element) in sum.iter_mut().zip(vector.as_chunks::<4>().0) {
        *sum = sum.wrapping_add(u32::from_le_bytes(*element));
    }
}
