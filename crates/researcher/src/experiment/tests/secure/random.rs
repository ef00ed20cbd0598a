//! Any schedule of losses, returns, crashes and failures ends with a right sum or a clear no. `PROPTEST_CASES` says how many are
//! tried; a failure prints its moves, which `proptest` keeps to be played again.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Move {
    Step,
    /// Another open task first.
    Turn,
    Lose(usize),
    BringBack(usize),
    Refuse,
    OutOfRange,
    Crash,
    Later(u64),
    Again,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        24 => Just(Move::Step),
        8 => Just(Move::Turn),
        1 => (0_usize..5).prop_map(Move::Lose),
        3 => (0_usize..5).prop_map(Move::BringBack),
        1 => Just(Move::Refuse),
        1 => Just(Move::OutOfRange),
        1 => Just(Move::Crash),
        1 => (0_u64..20_000).prop_map(Move::Later),
        1 => Just(Move::Again),
    ];
    proptest::collection::vec(one, 0..160)
}

fn make(federation: &mut Federation, action: Move, old: &mut Vec<Task>) {
    let nodes = federation.nodes();
    match action {
        Move::Step => {
            old.extend(federation.open.front().cloned());
            federation.step();
        }
        Move::Turn => {
            if let Some(task) = federation.open.pop_front() {
                federation.open.push_back(task);
            }
        }
        Move::Lose(node) => federation.lose(&nodes[node % nodes.len()]),
        Move::BringBack(node) => federation.bring_back(&nodes[node % nodes.len()]),
        Move::Refuse => {
            if let Some(task) = federation.open.pop_front() {
                let refusal = Refusal::new(RefusalCode::Internal, "no");
                let hospital = federation.hospitals.get_mut(&task.node).unwrap();
                hospital.answers.insert(task.id.clone(), Answer::Refused(refusal));
                federation.answer(&task);
            }
        }
        Move::OutOfRange => {
            if let Some(task) = federation.open.pop_front() {
                let wider = |spec: &VectorSpec| spec.encoding.exponent - i16::from(spec.encoding != Encoding::COUNT);
                let exponents = task.layout.iter().map(wider).collect();
                federation.apply(Event::OutOfRange { node: task.node.clone(), task: task.id.clone(), exponents });
            }
        }
        Move::Crash => federation.crash(),
        Move::Later(millis) => {
            federation.now = federation.now.saturating_add(Duration::from_millis(millis));
            federation.apply(Event::Tick);
        }
        // A node says something again that was heard long ago.
        Move::Again => {
            if let Some(task) = old.pop().filter(|task| task.key.phase > 0) {
                federation.answer(&task);
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn any_schedule_ends_with_the_survivors_sum_or_a_clear_no(
        moves in moves(),
        nodes in 3_u8..6,
        is_float32 in any::<bool>(),
        on_failure in prop_oneof![Just(OnFailure::Drop), Just(OnFailure::Retry)],
    ) {
        let patience = Patience { node_timeout_ms: 10_000, on_failure, ..Patience::default() };
        let plan = if is_float32 { float32() } else { standardised() };
        let mut federation = Federation::patient(plan, 2, lom(), nodes, patience);
        let mut old = Vec::new();
        for action in moves {
            if federation.experiment.is_over() {
                break;
            }
            make(&mut federation, action, &mut old);
        }
        for node in federation.nodes() {
            if federation.hospitals[&node].is_away {
                federation.bring_back(&node);
            }
        }
        federation.finish();
        if federation.experiment.state() == ExperimentState::Finished {
            federation.check_finished();
        } else {
            prop_assert!(!federation.reason().is_empty());
        }
        for record in &federation.records {
            // The weights of the nodes that contributed, and of nobody else.
            let survivors = record.nodes.iter().filter(|node| node.state == NodeProgress::Contributed);
            let rows: f64 = survivors.map(|node| federation.hospitals[&node.id].weight).sum();
            if record.kind != RoundKind::Validation {
                prop_assert_eq!(record.train_rows as f64, rows);
            }
            prop_assert!(record.nodes.iter().all(|node| node.train_rows.is_none() && node.measured.is_empty()));
        }
        let kept = federation.experiment.secure_state().unwrap_or_default();
        prop_assert!(!(serde_json::to_string(&federation.experiment).unwrap() + &kept).contains("train_rows"));
    }
}
