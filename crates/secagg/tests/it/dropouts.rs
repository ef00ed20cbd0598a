//! Losses at every step: the sum of the survivors or a typed problem, never a wrong sum.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use secagg::graph::{Graph, neighbours};
use secagg::lom::{Attestation, Revelation};
use secagg::mask::Modulus;
use secagg::party::PartyId;
use secagg::problem::Problem;
use secagg::session::{Rules, SessionSpec};

use crate::world::{Losses, TERMS, World, id, identity_of, sum, vector};

/// Walks a session and tells whether it ended; a wrong sum or an unexpected problem fails the test.
fn check_session(world: &mut World, spec: &SessionSpec, losses: &Losses, modulus: Modulus, note: &str) -> bool {
    let values = world.values(modulus);
    let least = spec.threshold.max(spec.min_parties) as usize;
    let n = spec.parties.len();
    let left = |steps: &[&Vec<bool>]| (0..n).filter(|index| steps.iter().all(|step| !step[*index])).count();
    let prepared = left(&[&losses.prepare]);
    let survivors = left(&[&losses.prepare, &losses.mask]);
    let signers = left(&[&losses.prepare, &losses.mask, &losses.attest]);
    let revealers = left(&[&losses.prepare, &losses.mask, &losses.attest, &losses.reveal]);
    let (mut researcher, contributions) = match world.mask(spec, losses, &values, modulus) {
        Ok(masked) => masked,
        Err(Problem::TooFewParties { .. }) if prepared < least => return false,
        Err(Problem::TooFewSurvivors { .. }) if prepared >= least && survivors < least => return false,
        Err(problem) => panic!("{note}: {problem}"),
    };
    assert!(survivors >= least, "{note}");
    let mut total = sum(contributions.values(), modulus);
    let expected = sum(contributions.keys().map(|id| &values[id]), modulus);
    assert_ne!(total, expected, "{note}: masked");
    match world.unmask(&mut researcher, losses) {
        Ok(unmasker) => {
            assert!(revealers >= spec.threshold as usize, "{note}");
            assert!(unmasker.liars().is_empty(), "{note}");
            unmasker.subtract(vector(0), modulus, 0, &mut total).unwrap();
            assert_eq!(total, expected, "{note}");
            true
        }
        Err(Problem::TooFewSignatures { .. }) if signers < spec.threshold as usize => false,
        Err(Problem::TooFewShares { .. }) if signers >= spec.threshold as usize && revealers < spec.threshold as usize => {
            false
        }
        Err(problem) => panic!("{note}: {problem}"),
    }
}

/// Lists the subsets of a set of parties, given as bits.
fn subsets(of: u32) -> impl Iterator<Item = u32> {
    (0..=of).filter(move |subset| subset & !of == 0)
}

fn flags(bits: u32, n: usize) -> Vec<bool> {
    (0..n).map(|index| bits >> index & 1 == 1).collect()
}

/// Walks the tree of all subsets that may be left after each step: 5^n leaves, each of which ends in the sum of its survivors or in
/// the problem that its counts ask for. Steps that do not differ are walked once.
#[test]
fn all_losses_at_all_steps_up_to_six_nodes() {
    for n in 2..=6_usize {
        let world = World::new(n, Rules { min_parties: 2, max_colluders: None }, n as u64);
        let colluders = secagg::threshold::default_colluders(u32::try_from(n).unwrap());
        let spec = world.spec(1, colluders, if n == 2 { 2 } else { 3 });
        let all = (1_u32 << n) - 1;
        let (mut leaves, mut ended) = (0, 0);
        for prepared in subsets(all) {
            for masked in subsets(prepared) {
                let (more_leaves, more_ended) = check_all_endings(&mut world.clone(), &spec, prepared, masked);
                leaves += more_leaves;
                ended += more_ended;
            }
        }
        assert_eq!(leaves, 5_u32.pow(u32::try_from(n).unwrap()), "every case of n = {n}");
        assert!(ended > 0, "{n}");
    }
}

/// Counts the cases below these two subsets, and those that ended in a sum.
fn check_all_endings(world: &mut World, spec: &SessionSpec, prepared: u32, masked: u32) -> (u32, u32) {
    let n = spec.parties.len();
    let all = (1_u32 << n) - 1;
    let below = 3_u32.pow(masked.count_ones());
    let modulus = [Modulus::Bits32, Modulus::Bits64, Modulus::Bits128][(prepared + masked) as usize % 3];
    let losses = Losses {
        prepare: flags(all & !prepared, n),
        mask: flags(prepared & !masked, n),
        attest: flags(0, n),
        reveal: flags(0, n),
    };
    let values = world.values(modulus);
    let least = spec.threshold.max(spec.min_parties);
    let (researcher, contributions) = match world.mask(spec, &losses, &values, modulus) {
        Ok(result) => result,
        Err(Problem::TooFewParties { .. }) if prepared.count_ones() < least => return (below, 0),
        Err(Problem::TooFewSurvivors { .. }) if masked.count_ones() < least => return (below, 0),
        Err(problem) => panic!("{losses:?}: {problem}"),
    };
    assert!(masked.count_ones() >= least);
    let masked_sum = sum(contributions.values(), modulus);
    let expected = sum(contributions.keys().map(|id| &values[id]), modulus);
    let session = spec.id();
    let survivors: Vec<PartyId> = contributions.keys().cloned().collect();
    let signed: Vec<Option<Attestation>> =
        world.nodes.iter_mut().map(|(id, node)| node.attest(&session, &survivors, &identity_of(id)).ok()).collect();
    let (mut leaves, mut ended) = (0, 0);
    for signers in subsets(masked) {
        let mut world = world.clone();
        let mut researcher = researcher.clone();
        for index in (0..n).filter(|index| signers >> index & 1 == 1) {
            researcher.accept_attestation(&id(index), signed[index].unwrap()).unwrap();
        }
        if signers.count_ones() < spec.threshold {
            let (got, least) = (signers.count_ones(), spec.threshold);
            assert_eq!(researcher.attestations(), Err(Problem::TooFewSignatures { got, least }));
            leaves += 2_u32.pow(signers.count_ones());
            continue;
        }
        let attestations = researcher.shown_attestations().unwrap();
        assert_eq!(attestations.len(), spec.threshold as usize, "no more than it takes");
        let revealed: Vec<Option<Revelation>> =
            world.nodes.values_mut().map(|node| node.reveal(&session, &survivors, &attestations).ok()).collect();
        for revealers in subsets(signers) {
            let mut researcher = researcher.clone();
            for index in (0..n).filter(|index| revealers >> index & 1 == 1) {
                researcher.accept_revelation(&id(index), revealed[index].clone().unwrap()).unwrap();
            }
            leaves += 1;
            match researcher.unmasker(TERMS) {
                Ok(unmasker) => {
                    assert!(revealers.count_ones() >= spec.threshold && unmasker.liars().is_empty());
                    let mut total = masked_sum.clone();
                    unmasker.subtract(vector(0), modulus, 0, &mut total).unwrap();
                    assert_eq!(total, expected);
                    ended += 1;
                }
                Err(problem) => {
                    assert!(revealers.count_ones() < spec.threshold, "{problem}");
                    assert!(matches!(problem, Problem::TooFewShares { .. }), "{problem}");
                }
            }
        }
    }
    (leaves, ended)
}

#[test]
fn random_losses_of_forty_nodes() {
    for seed in 0..6 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut world = World::new(40, Rules::default(), seed);
        let spec = world.spec(1, 13, 3);
        let rate = [0, 2, 4, 6, 8, 12][usize::try_from(seed).unwrap()];
        let mut lost = || (0..40).map(|_| rng.next_u32() % 100 < rate).collect::<Vec<bool>>();
        let losses = Losses { prepare: lost(), mask: lost(), attest: lost(), reveal: lost() };
        check_session(&mut world, &spec, &losses, Modulus::Bits32, &format!("seed {seed}"));
    }
}

/// 60 nodes of which 4 may collude and 10 may be lost: fewer neighbours suffice, and losses within the stated ones end in the sum.
#[test]
fn a_sparse_graph_survives_the_stated_losses() {
    let rules = Rules { min_parties: 3, max_colluders: Some(4) };
    let mut world = World::new(60, rules, 5);
    let k = neighbours(60, 4, 10).unwrap();
    assert!(k < 40, "{k}");
    let spec = world.spec(1, 4, 3);
    let spec = world.sparse(spec, k);
    assert!(matches!(spec.graph, Graph::Sparse { .. }));
    let every = |step: usize, from: usize| (0..60).map(|index| index % step == from).collect::<Vec<bool>>();
    let losses = Losses { prepare: every(30, 1), mask: every(15, 2), attest: every(30, 4), reveal: every(30, 5) };
    let values = world.values(Modulus::Bits64);
    let (mut researcher, contributions) = world.mask(&spec, &losses, &values, Modulus::Bits64).unwrap();
    let mut total = sum(contributions.values(), Modulus::Bits64);
    let unmasker = world.unmask(&mut researcher, &losses).unwrap();
    unmasker.subtract(vector(0), Modulus::Bits64, 0, &mut total).unwrap();
    assert_eq!(total, sum(contributions.keys().map(|id| &values[id]), Modulus::Bits64));
}
