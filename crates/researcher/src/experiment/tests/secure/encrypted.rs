//! Under Joye-Libert, which survives no loss.

use protocol::StatisticPlan;

use super::*;

const SHARE: Phase = Phase::Secure(SecureStep::ShareKeys);
const SUM: Phase = Phase::Secure(SecureStep::SumKeys);

pub(super) fn moments() -> Plan {
    Plan::Statistic(StatisticPlan::Moments { columns: vec!["a".into(), "b".into()] })
}

/// The rounds in which nodes were asked for a step, and how often in all.
fn asked(federation: &Federation, phase: Phase) -> Vec<(u32, usize)> {
    let all = federation.asked.iter().filter(|((.., asked), _)| *asked == phase.number());
    all.map(|((round, ..), count)| (*round, *count)).collect()
}

#[test]
fn an_encrypted_experiment_ends_with_the_same_bits_as_a_plain_one() {
    let mut plain = Federation::begun(standardised(), 2, SecureSpec::NONE, 3);
    plain.finish();
    let mut hidden = Federation::begun(standardised(), 2, joye_libert(), 3);
    hidden.finish();
    hidden.check_finished();
    assert_eq!(hidden.model(), plain.model());
    assert_eq!(hidden.experiment.moments(), plain.experiment.moments());
    for (hidden, plain) in hidden.records.iter().zip(&plain.records) {
        assert_eq!((hidden.round, hidden.train_rows, hidden.loss), (plain.round, plain.train_rows, plain.loss));
        let how = hidden.hidden.as_ref().unwrap();
        assert_eq!((how.scheme, how.parties, how.survivors), (Scheme::JoyeLibert, 3, 3));
        assert!(hidden.nodes.iter().all(|node| (node.train_rows, node.loss, node.work_ms) == (None, None, None)));
    }
    // Keys once, and nothing beside the contributions later.
    assert_eq!(
        (asked(&hidden, AGREE), asked(&hidden, SHARE), asked(&hidden, SUM)),
        (vec![(0, 3)], vec![(0, 3)], vec![(0, 3)])
    );
    assert!([PREPARE, ATTEST, REVEAL].into_iter().all(|phase| asked(&hidden, phase).is_empty()));
    assert_eq!(asked(&hidden, CONTRIBUTE), (0..5).map(|round| (round, 3)).collect::<Vec<_>>());
}

#[test]
fn clipped_elements_are_counted_over_all_nodes() {
    let mut federation = Federation::begun(float32(), 1, joye_libert(), 3);
    federation.finish();
    federation.check_finished();
    let training = &federation.records[1];
    assert_eq!((training.train_rows, training.hidden.as_ref().unwrap().clipped), (33, Some(6)));
}

#[test]
fn a_node_that_is_lost_while_keys_are_made_is_left_out_and_others_are_made() {
    for phase in [AGREE, SHARE, SUM] {
        for answered in [0, 3] {
            let mut federation = Federation::begun(moments(), 1, joye_libert(), 4);
            federation.until(|federation| federation.is_at(0, phase));
            for _ in 0..answered {
                federation.step();
            }
            let node = federation.open.back().unwrap().node.clone();
            federation.lose(&node);
            federation.finish();
            federation.check_finished();
            let rounds: Vec<u32> = federation.records.iter().map(|record| record.round).collect();
            assert_eq!(rounds, [0, 1], "{phase:?} {answered}: nothing had been encrypted");
            assert!(federation.records.iter().all(|record| record.hidden.as_ref().unwrap().survivors == 3));
        }
    }
}

#[test]
fn a_node_that_is_missing_from_a_sum_ends_the_round_which_begins_again_with_new_keys_and_another_number() {
    for answered in [0, 3] {
        let mut federation = Federation::begun(moments(), 1, joye_libert(), 4);
        federation.until(|federation| federation.is_at(1, CONTRIBUTE));
        for _ in 0..answered {
            federation.step();
        }
        let node = federation.open.back().unwrap().node.clone();
        federation.lose(&node);
        federation.finish();
        federation.check_finished();
        let sums: Vec<_> =
            federation.records.iter().map(|record| (record.round, record.hidden.as_ref().unwrap().survivors)).collect();
        assert_eq!(sums, [(0, 4), (2, 3)]);
        assert_eq!((asked(&federation, SHARE), asked(&federation, SUM)), (vec![(0, 4), (2, 3)], vec![(0, 4), (2, 3)]));
        assert_eq!(federation.experiment.row().round, 2, "rounds without a sum are not counted");
    }
}

#[test]
fn with_fewer_than_the_least_number_of_parties_nothing_begins_again() {
    let mut federation = Federation::begun(moments(), 1, joye_libert(), 3);
    let warning = federation.experiment.snapshot(|_| Live::default()).warning.unwrap();
    assert!(warning.contains("survives the loss of no node"), "{warning}");
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    let node = federation.nodes()[0].clone();
    federation.lose(&node);
    federation.finish();
    assert_eq!(federation.experiment.state(), ExperimentState::Failed);
    assert!(federation.reason().contains("secure aggregation needs 3"), "{}", federation.reason());
    assert_eq!(federation.records.len(), 1);
}

#[test]
fn a_failed_experiment_goes_on_with_other_nodes_in_another_round() {
    let mut federation = Federation::begun(moments(), 1, joye_libert(), 4);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    federation.step();
    federation.apply(Event::Cancelled { by: "ada".into() });
    let node = federation.nodes()[0].clone();
    federation.lose(&node);
    federation.apply(Event::Resumed { connected: federation.connected() });
    federation.finish();
    federation.check_finished();
    let last = federation.records.last().unwrap();
    assert_eq!((last.round, last.hidden.as_ref().unwrap().survivors), (2, 3));
}

#[test]
fn who_is_late_is_left_out_of_one_round() {
    let patience = Patience { round_timeout_ms: Some(60_000), ..Patience::default() };
    let mut federation = Federation::patient(standardised(), 1, joye_libert(), 4, patience);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    let late = federation.open.pop_back().unwrap();
    federation.until(|federation| federation.open.is_empty());
    federation.wait();
    federation.until(|federation| federation.records.len() == 2);
    assert_eq!((federation.records[1].round, federation.records[1].hidden.as_ref().unwrap().survivors), (2, 3));
    federation.finish();
    federation.check_finished();
    assert_eq!(federation.records.last().unwrap().hidden.as_ref().unwrap().survivors, 4, "{} is back", late.node);
}

#[test]
fn values_out_of_range_repeat_the_round_with_the_same_keys() {
    let mut federation = Federation::begun(moments(), 1, joye_libert(), 3);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    let task = federation.open.pop_front().unwrap();
    let narrower = |spec: &VectorSpec| spec.encoding.exponent - if spec.encoding == Encoding::COUNT { 0 } else { 5 };
    let exponents = task.layout.iter().map(narrower).collect();
    federation.apply(Event::OutOfRange { node: task.node.clone(), task: task.id.clone(), exponents });
    federation.finish();
    federation.check_finished();
    assert_eq!((federation.records[1].round, federation.records[1].attempt), (1, 1));
    assert_eq!(asked(&federation, SHARE), [(0, 3)]);
}

#[test]
fn a_node_whose_bytes_are_no_ciphertexts_is_left_out() {
    let mut federation = Federation::begun(moments(), 1, joye_libert(), 4);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    let task = federation.open.front().unwrap().clone();
    let bytes = usize::try_from(federation.experiment.contribution_bytes().unwrap()).unwrap();
    let hospital = federation.hospitals.get_mut(&task.node).unwrap();
    hospital.answers.insert(task.id.clone(), Answer::Contribution(vec![255; bytes]));
    federation.finish();
    federation.check_finished();
    assert!(federation.experiment.participants()[&task.node].dropped.is_some());
    let last = federation.records.last().unwrap();
    assert_eq!((last.round, last.hidden.as_ref().unwrap().survivors), (2, 3));
}

#[test]
fn a_crash_between_any_two_events_changes_nothing() {
    let begun = || Federation::begun(moments(), 1, joye_libert(), 3);
    let mut undisturbed = begun();
    let mut steps = 0;
    while !undisturbed.experiment.is_over() {
        assert!(undisturbed.step());
        steps += 1;
    }
    for at in 0..steps {
        let mut federation = begun();
        for _ in 0..at {
            federation.step();
        }
        federation.crash();
        federation.finish();
        federation.check_finished();
        assert_eq!(federation.experiment.moments(), undisturbed.experiment.moments(), "a crash after step {at}");
        assert!(federation.records.iter().all(|record| record.attempt == 0));
    }
}

#[test]
fn a_contribution_whose_file_a_loss_of_power_took_is_sent_again() {
    let mut federation = Federation::begun(moments(), 1, joye_libert(), 3);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    federation.step();
    let file = std::fs::read_dir(&federation.files.spool).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(file).unwrap();
    federation.crash();
    federation.finish();
    federation.check_finished();
    assert_eq!((federation.records[1].round, federation.records[1].attempt), (1, 0));
}
