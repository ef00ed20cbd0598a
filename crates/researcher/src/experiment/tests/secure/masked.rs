//! Under low-overhead masking.

use super::*;

#[test]
fn a_hidden_experiment_ends_with_the_same_bits_as_a_plain_one() {
    for nodes in [3, 4, 7] {
        let mut plain = Federation::begun(standardised(), 3, SecureSpec::NONE, nodes);
        plain.finish();
        plain.check_finished();
        let mut hidden = Federation::begun(standardised(), 3, lom(), nodes);
        hidden.finish();
        hidden.check_finished();
        assert_eq!(hidden.model(), plain.model());
        assert_eq!(hidden.experiment.moments(), plain.experiment.moments());
        let pooled = |federation: &Federation| -> Vec<_> {
            federation.records.iter().map(|record| (record.round, record.train_rows, record.loss)).collect()
        };
        assert_eq!(pooled(&hidden), pooled(&plain));
        for record in &hidden.records {
            let how = record.hidden.as_ref().unwrap();
            let clipped = (record.kind == RoundKind::Training).then(|| 2 * u64::from(nodes));
            assert_eq!((how.parties, how.survivors, how.clipped), (nodes.into(), nodes.into(), clipped));
            for node in &record.nodes {
                assert_eq!((node.train_rows, node.loss, node.work_ms), (None, None, None));
                assert_eq!(node.hidden.as_deref(), Some("hidden by secure aggregation"));
            }
        }
    }
}

#[test]
fn keys_are_agreed_once_and_every_later_session_is_prepared_with_the_revelation_before() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 4);
    federation.finish();
    federation.check_finished();
    let asked =
        |phase: u16| federation.asked.keys().filter(|(.., asked)| *asked == phase).map(|(round, ..)| *round).collect();
    let rounds: Vec<u32> = (0..5).collect();
    assert_eq!((asked(1), asked(2)), (vec![0], vec![0]));
    for phase in [0, 3, 4] {
        assert_eq!(asked(phase), rounds);
    }
    assert!(federation.asked.values().all(|count| *count == 4));
}

#[test]
fn rows_are_counted_first_where_float32_sums_need_their_number() {
    let mut federation = Federation::begun(float32(), 2, lom(), 3);
    federation.finish();
    federation.check_finished();
    let kinds: Vec<RoundKind> = federation.records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [RoundKind::Sums, RoundKind::Training, RoundKind::Training]);
    let training = &federation.records[1];
    assert_eq!((training.train_rows, training.hidden.as_ref().unwrap().clipped), (33, Some(6)));
    assert_eq!(federation.experiment.row().rounds, 3);
}

#[test]
fn a_range_follows_the_aggregates_under_auto() {
    let auto = SecureSpec { clipping: Clipping::Auto, ..lom() };
    let mut federation = Federation::begun(float32(), 3, auto, 3);
    let ranges = |federation: &Federation| -> BTreeMap<String, f64> {
        let node = &federation.nodes()[0];
        federation.experiment.task(node).unwrap().masking.unwrap().clipping
    };
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    assert!(ranges(&federation).values().all(|range| *range == 3.0));
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    let second = ranges(&federation);
    assert!(second.values().all(|range| *range > 0.0 && *range < 3.0), "{second:?}");
    federation.finish();
    federation.check_finished();
}

#[test]
fn no_sum_of_differences_in_range_leaves_its_modulus() {
    for range in [1e-6, 0.5, 3.0, 4.0, 1e6] {
        for rows in [1_u64, 2, 1024, 1 << 20, 1 << 40] {
            let exponent = scale::hidden_32(range, rows);
            let largest = range * rows as f64 * f64::from(exponent).exp2() + 65_536.0;
            assert!(largest < 31_f64.exp2() && largest > 29_f64.exp2(), "{range} {rows}: {largest}");
        }
    }
}

#[test]
fn one_of_four_may_be_lost_at_any_phase() {
    for round in [0, 2] {
        for phase in [AGREE, PREPARE, CONTRIBUTE, ATTEST, REVEAL] {
            if round > 0 && matches!(phase, AGREE | PREPARE) {
                continue;
            }
            for answered in 0..4 {
                let mut federation = Federation::begun(standardised(), 2, lom(), 4);
                federation.until(|federation| federation.is_at(round, phase));
                for _ in 0..answered {
                    federation.step();
                }
                if !federation.is_at(round, phase) {
                    continue;
                }
                let node = federation.open.back().unwrap().node.clone();
                federation.lose(&node);
                let before = federation.now;
                if matches!(phase, ATTEST | REVEAL) {
                    federation.until(|federation| federation.records.len() > round as usize);
                    assert_eq!(federation.now, before, "a loss after the contribution costs no time");
                    assert_eq!(federation.records[round as usize].hidden.as_ref().unwrap().survivors, 4);
                }
                federation.finish();
                federation.check_finished();
                let last = federation.records.last().unwrap().hidden.clone().unwrap();
                assert_eq!(last.survivors, 3, "round {round} {phase:?} {answered}");
                assert!(federation.records.iter().all(|record| record.attempt == 0) || round == 0);
            }
        }
    }
}

#[test]
fn the_sum_is_that_of_the_survivors() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    let node = federation.open.back().unwrap().node.clone();
    let weight = federation.hospitals[&node].weight;
    federation.lose(&node);
    federation.finish();
    federation.check_finished();
    let all: f64 = federation.hospitals.values().map(|hospital| hospital.weight).sum();
    assert_eq!(federation.records[2].train_rows as f64, all - weight);
    assert_eq!(federation.records[2].hidden.as_ref().unwrap().survivors, 3);
}

#[test]
fn a_node_that_comes_back_takes_part_again_with_new_masks() {
    let mut federation = Federation::begun(standardised(), 4, lom(), 4);
    federation.until(|federation| federation.is_at(1, ATTEST));
    let node = federation.open.back().unwrap().node.clone();
    federation.lose(&node);
    federation.until(|federation| federation.experiment.round().is_some_and(|round| round.number == 2));
    federation.bring_back(&node);
    federation.finish();
    federation.check_finished();
    let survivors: Vec<u32> = federation.records.iter().map(|record| record.hidden.as_ref().unwrap().survivors).collect();
    assert_eq!(survivors, [4; 7]);
}

#[test]
fn with_three_nodes_none_may_be_lost_and_that_is_said() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 3);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    let warning = federation.experiment.snapshot(|_| Live::default()).warning.unwrap();
    assert!(warning.contains("survives the loss of none") && warning.contains("with 4 nodes one may be lost"), "{warning}");
    assert!(federation.records[0].remarks.contains(&warning));
    let node = federation.nodes()[0].clone();
    federation.lose(&node);
    federation.finish();
    assert_eq!(federation.experiment.state(), ExperimentState::Failed);
    assert!(federation.reason().contains("secure aggregation needs 3"), "{}", federation.reason());
}

#[test]
fn two_nodes_need_their_requesters_word() {
    let federation = Federation::begun(standardised(), 1, lom(), 2);
    let mut federation = federation;
    federation.finish();
    assert!(federation.reason().contains("min_parties"), "{}", federation.reason());
    let two = SecureSpec { min_parties: 2, ..lom() };
    let mut federation = Federation::begun(standardised(), 1, two, 2);
    federation.finish();
    federation.check_finished();
    let auto = SecureSpec::default();
    let mut federation = Federation::begun(standardised(), 1, auto, 2);
    let warning = federation.experiment.snapshot(|_| Live::default()).warning.unwrap();
    assert!(warning.contains("seen by this researcher"), "{warning}");
    federation.finish();
    federation.check_finished();
    assert_eq!(federation.records[0].hidden, None);
    let mut federation = Federation::begun(standardised(), 1, auto, 3);
    federation.finish();
    assert!(federation.records[0].hidden.is_some(), "hidden from three nodes on");
}

#[test]
fn five_nodes_that_lose_two_repeat_the_round_with_new_masks() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 5);
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    for _ in 0..2 {
        let node = federation.open.back().unwrap().node.clone();
        federation.lose(&node);
    }
    federation.finish();
    federation.check_finished();
    let record = &federation.records[2];
    let how = record.hidden.as_ref().unwrap();
    assert_eq!((record.attempt, how.parties, how.survivors), (1, 3, 3));
}

#[test]
fn values_out_of_range_repeat_the_round_with_new_masks() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 4);
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    let task = federation.open.pop_front().unwrap();
    let narrower = |spec: &VectorSpec| spec.encoding.exponent - if spec.encoding == Encoding::COUNT { 0 } else { 5 };
    let exponents = task.layout.iter().map(narrower).collect();
    federation.apply(Event::OutOfRange { node: task.node.clone(), task: task.id.clone(), exponents });
    federation.finish();
    federation.check_finished();
    assert_eq!((federation.records[2].attempt, federation.records[2].hidden.as_ref().unwrap().survivors), (1, 4));
}

#[test]
fn too_few_that_can_reveal_fail_the_experiment_with_the_reason() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 4);
    federation.until(|federation| federation.is_at(2, REVEAL));
    federation.step();
    for node in federation.nodes() {
        federation.lose(&node);
    }
    federation.finish();
    assert_eq!(federation.experiment.state(), ExperimentState::Failed);
    assert!(federation.reason().contains("cannot be repeated"), "{}", federation.reason());
    // Going on says the same, and no node is asked for a second sum.
    for hospital in federation.hospitals.values_mut() {
        hospital.is_away = false;
    }
    federation.apply(Event::Resumed { connected: federation.connected() });
    federation.finish();
    assert!(federation.reason().contains("cannot be repeated"), "{}", federation.reason());
}

#[test]
fn a_node_that_signs_with_another_key_than_it_enrolled_with_is_left_out() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    let task = federation.open.pop_front().unwrap();
    let answer = federation.hospitals.get_mut(&task.node).unwrap().answer(&task, &federation.name, &mut federation.rng);
    let Answer::Message(answer) = answer else { panic!("an offer") };
    let key = Fingerprint::from_bytes([9; 32]);
    federation.apply(Event::Answered { node: task.node.clone(), task: task.id.clone(), answer, key });
    federation.finish();
    federation.check_finished();
    let dropped = federation.experiment.participants()[&task.node].dropped.clone().unwrap();
    assert!(dropped.reason.contains("enrolled with"), "{}", dropped.reason);
    assert_eq!(federation.records[0].hidden.as_ref().unwrap().parties, 3);
}

#[test]
fn a_crash_between_any_two_events_changes_nothing() {
    let mut undisturbed = Federation::begun(standardised(), 1, lom(), 4);
    let mut steps = 0;
    while !undisturbed.experiment.is_over() {
        assert!(undisturbed.step());
        steps += 1;
    }
    for at in 0..steps {
        let mut federation = Federation::begun(standardised(), 1, lom(), 4);
        for _ in 0..at {
            federation.step();
        }
        federation.crash();
        federation.finish();
        federation.check_finished();
        assert_eq!(federation.model(), undisturbed.model(), "a crash after step {at}");
        assert!(federation.records.iter().all(|record| record.attempt == 0));
    }
}

#[test]
fn a_contribution_whose_file_a_loss_of_power_took_is_sent_again() {
    for phase in [CONTRIBUTE, ATTEST, REVEAL] {
        let mut federation = Federation::begun(standardised(), 2, lom(), 4);
        federation.until(|federation| federation.is_at(2, phase));
        for _ in 0..2 {
            federation.step();
        }
        let file = std::fs::read_dir(&federation.files.spool).unwrap().next().unwrap().unwrap().path();
        std::fs::remove_file(file).unwrap();
        federation.crash();
        federation.finish();
        federation.check_finished();
        assert_eq!(federation.records[2].hidden.as_ref().unwrap().survivors, 4);
    }
}

#[test]
fn keys_are_over_with_the_experiment_and_whoever_goes_on_agrees_on_others() {
    let mut undisturbed = Federation::begun(standardised(), 3, lom(), 4);
    undisturbed.finish();
    undisturbed.check_finished();
    assert!(undisturbed.hospitals.values().all(|hospital| !hospital.is_keyed));

    // Cancelled in every exchange from which one may go on, with one hospital that does not hear of it, and comes back before or after
    // the others go on.
    for (round, phase) in [(0, AGREE), (0, PREPARE), (2, CONTRIBUTE), (2, ATTEST), (3, CONTRIBUTE)] {
        for comes_back_first in [true, false] {
            let mut federation = Federation::begun(standardised(), 3, lom(), 4);
            federation.until(|federation| federation.is_at(round, phase));
            federation.step();
            let away = federation.nodes()[1].clone();
            let hospital = federation.hospitals.get_mut(&away).unwrap();
            let was_keyed = hospital.is_keyed;
            hospital.is_away = true;
            federation.apply(Event::Cancelled { by: "ada".into() });
            federation.open.clear();
            let keyed = |federation: &Federation| federation.hospitals.values().filter(|hospital| hospital.is_keyed).count();
            assert_eq!(keyed(&federation), usize::from(was_keyed), "only who is away has not heard of it");
            if comes_back_first {
                federation.bring_back(&away);
                assert_eq!(keyed(&federation), 0);
            }
            federation.apply(Event::Resumed { connected: federation.connected() });
            if !comes_back_first {
                federation.bring_back(&away);
                assert!(!federation.hospitals[&away].is_keyed || !was_keyed);
            }
            federation.finish();
            federation.check_finished();
            // Who is late for the choice of datasets is not of the rest.
            assert!(!comes_back_first || federation.model() == undisturbed.model(), "round {round} {phase:?}");
            assert_eq!(keyed(&federation), 0);
        }
    }
}
