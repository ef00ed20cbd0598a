//! With many nodes each masks with a few neighbours in a ring that nobody chose.

use secagg::graph::neighbours;

use super::encrypted::moments;
use super::*;

const OPEN: Phase = Phase::Secure(SecureStep::OpenSeeds);

/// So much stated lets fewer neighbours do than there are others.
fn begun(nodes: u8, rounds: u32, losses: u32) -> Federation {
    assert!(neighbours(nodes.into(), 1, losses).is_some(), "the ring is sparse");
    let sparse = SecureSpec { max_colluders: Some(1), max_losses: Some(losses), ..lom() };
    Federation::begun(if rounds == 0 { moments() } else { standardised() }, rounds.max(1), sparse, nodes)
}

fn survivors(federation: &Federation) -> Vec<u32> {
    federation.records.iter().map(|record| record.hidden.as_ref().unwrap().survivors).collect()
}

/// From how many others a node was given what it masks with.
fn neighbours_of_one(federation: &Federation) -> usize {
    let masking = federation.open.front().unwrap().masking.as_ref().unwrap();
    decode::<MaskRequest>("request", masking.message.as_bytes()).unwrap().inbound.len()
}

fn lose(federation: &mut Federation, count: usize) {
    for _ in 0..count {
        let node = federation.open.back().unwrap().node.clone();
        federation.lose(&node);
    }
}

#[test]
fn sixty_nodes_mask_with_sixteen_neighbours_and_losses_leave_the_sum_of_the_others() {
    let mut federation = begun(60, 0, 6);
    federation.until(|federation| federation.is_at(0, CONTRIBUTE));
    assert_eq!(neighbours_of_one(&federation), 16);
    // Three before and three after they have contributed.
    lose(&mut federation, 3);
    federation.until(|federation| federation.open.is_empty());
    federation.wait();
    federation.until(|federation| federation.is_at(0, ATTEST));
    lose(&mut federation, 3);
    federation.finish();
    federation.check_finished();
    // The later session is of the same list, and the six are missing from it.
    assert_eq!(survivors(&federation), [57, 54]);
    let all: f64 = federation.hospitals.values().filter(|hospital| !hospital.is_away).map(|hospital| hospital.weight).sum();
    assert_eq!(federation.experiment.moments().unwrap()[0].count as f64, all);
    assert!(federation.records.iter().all(|record| record.hidden.as_ref().unwrap().parties == 60));
    let asked: Vec<_> = federation.asked.keys().filter(|(.., phase)| *phase == OPEN.number()).collect();
    assert_eq!(asked, [&(0, 0, OPEN.number())], "seeds are opened once");
}

#[test]
fn a_ring_gives_the_bits_of_the_plain_run() {
    let mut ring = begun(12, 2, 1);
    ring.until(|federation| federation.is_at(3, CONTRIBUTE));
    assert_eq!(neighbours_of_one(&ring), 6, "prepared with the revelation before");
    ring.finish();
    ring.check_finished();
    let mut plain = Federation::begun(standardised(), 2, SecureSpec::NONE, 12);
    plain.finish();
    assert_eq!(ring.model(), plain.model());
    assert_eq!(survivors(&ring), [12; 5]);
}

#[test]
fn if_one_does_not_open_its_seed_all_mask_with_all() {
    let mut federation = begun(12, 0, 1);
    federation.until(|federation| federation.is_at(0, OPEN));
    lose(&mut federation, 1);
    federation.until(|federation| federation.open.is_empty());
    federation.wait();
    federation.until(|federation| federation.is_at(0, CONTRIBUTE));
    assert_eq!(neighbours_of_one(&federation), 10);
    federation.finish();
    federation.check_finished();
    assert_eq!(survivors(&federation), [11; 2]);
}

#[test]
fn if_more_are_away_than_was_stated_the_others_mask_with_all() {
    let mut federation = begun(12, 2, 1);
    federation.until(|federation| federation.is_at(1, ATTEST));
    lose(&mut federation, 2);
    federation.until(|federation| federation.is_at(2, PREPARE));
    federation.until(|federation| federation.open.is_empty());
    federation.wait();
    federation.finish();
    federation.check_finished();
    let last = federation.records.last().unwrap().hidden.as_ref().unwrap();
    assert_eq!((last.parties, last.survivors), (10, 10));
}

#[test]
fn a_crash_between_any_two_events_before_the_masks_leaves_the_ring_as_it_was() {
    let mut undisturbed = begun(8, 0, 1);
    undisturbed.finish();
    // Keys, seeds and preparations of eight nodes.
    for at in (7..=24).step_by(2) {
        let mut federation = begun(8, 0, 1);
        for _ in 0..at {
            federation.step();
        }
        federation.crash();
        federation.finish();
        federation.check_finished();
        assert_eq!(federation.experiment.moments(), undisturbed.experiment.moments(), "a crash after step {at}");
    }
}
