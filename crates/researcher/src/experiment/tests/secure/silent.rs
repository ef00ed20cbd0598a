//! Nodes that are connected and say nothing.

use super::super::super::phases::EXCHANGE_WAIT;
use super::*;

/// So many of the nodes that are asked never answer what they are asked now.
fn silence(federation: &mut Federation, count: usize) {
    federation.open.drain(..count);
    federation.until(|federation| federation.open.is_empty());
}

#[test]
fn a_connected_node_that_says_nothing_holds_an_exchange_up_for_so_long_and_no_longer() {
    for phase in [AGREE, PREPARE, ATTEST, REVEAL] {
        let mut federation = Federation::begun(standardised(), 1, lom(), 4);
        federation.until(|federation| federation.is_at(0, phase));
        silence(&mut federation, 1);
        assert!(federation.is_at(0, phase), "it is waited for in {phase:?}");
        let begun = federation.now;
        federation.wait();
        assert!(!federation.is_at(0, phase), "the others go on after {phase:?}");
        assert!(federation.now.since(begun) <= EXCHANGE_WAIT);
        federation.finish();
        federation.check_finished();
    }
}

#[test]
fn too_few_that_say_anything_begin_anew_until_secrets_are_out() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    federation.until(|federation| federation.is_at(0, ATTEST));
    silence(&mut federation, 2);
    federation.wait();
    assert_eq!(federation.experiment.round().unwrap().attempt, 1, "with new masks");
    federation.until(|federation| federation.is_at(0, REVEAL));
    silence(&mut federation, 2);
    federation.wait();
    assert_eq!(federation.experiment.state(), ExperimentState::Failed);
    assert!(federation.reason().contains("cannot be repeated"), "{}", federation.reason());
}

#[test]
fn who_is_away_and_who_says_nothing_end_both() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    federation.until(|federation| federation.is_at(0, ATTEST));
    let away = federation.open.back().unwrap().node.clone();
    federation.lose(&away);
    silence(&mut federation, 1);
    federation.finish();
    federation.check_finished();
    assert_eq!(federation.records[0].hidden.as_ref().unwrap().survivors, 3);
}
