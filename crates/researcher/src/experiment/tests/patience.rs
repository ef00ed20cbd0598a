//! The three settings of patience and the three ways to take a failure.

use super::selecting::world_like;
use super::*;

fn patience(change: impl FnOnce(&mut Patience)) -> Patience {
    let mut patience = Patience { node_timeout_ms: 60_000, ..Patience::default() };
    change(&mut patience);
    patience
}

fn states(world: &World, record: usize) -> Vec<NodeProgress> {
    world.nodes.iter().map(|node| world.records()[record].nodes.iter().find(|it| it.id == *node).unwrap().state).collect()
}

#[test]
fn round_timeout_closes_a_round_early_with_enough_nodes_and_the_late_one_takes_part_in_the_next() {
    let patience = patience(|patience| {
        patience.round_timeout_ms = Some(30_000);
        patience.min_nodes = 2;
    });
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 3);
    world.contribute(0);
    world.contribute(1);
    let late = world.task(2);
    world.wait(seconds(30));
    let is_cancel = |action: &&Action| matches!(action, Action::Cancel { task, refusal, .. } if *task == late && refusal.code == RefusalCode::Late);
    assert_eq!(world.log.iter().filter(is_cancel).count(), 1);
    assert_eq!((world.round(), world.tasks.len()), (1, 3));
    assert_eq!(states(&world, 0), [NodeProgress::Contributed, NodeProgress::Contributed, NodeProgress::Late]);
}

#[test]
fn round_timeout_with_too_few_nodes_fails_and_names_who_was_missing() {
    let patience = patience(|patience| {
        patience.round_timeout_ms = Some(30_000);
        patience.min_nodes = 2;
    });
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 2);
    world.contribute(0);
    world.wait(seconds(30));
    assert_eq!(world.state(), ExperimentState::Failed);
    let missing = name(&world.nodes[1]);
    let expected = "when `round_timeout` had passed in training round 1, only 1 node had contributed; `min_nodes` is 2";
    assert_eq!(world.reason(), format!("{missing}: no contribution yet; {expected}"));
    assert!(world.tasks.is_empty());
}

#[test]
fn without_round_timeout_a_round_lasts_as_long_as_nodes_are_there() {
    let mut world = World::begun(spec(training(|_| {}), 1, patience(|_| {})), 2);
    world.contribute(0);
    assert_eq!(world.experiment.wake_at(), None);
    world.now = world.now.saturating_add(seconds(1_000_000));
    world.apply(Event::Tick);
    assert_eq!((world.state(), world.round()), (ExperimentState::Running, 0));
}

#[test]
fn a_node_that_is_away_too_long_is_dropped_for_good() {
    let mut world = World::begun(spec(training(|_| {}), 2, patience(|_| {})), 2);
    world.contribute(0);
    world.disconnect(1);
    world.wait(seconds(60));
    assert_eq!(states(&world, 0), [NodeProgress::Contributed, NodeProgress::Dropped]);
    world.connect(1);
    assert_eq!((world.round(), world.tasks.len()), (1, 1));
}

#[test]
fn a_node_that_comes_back_in_time_gets_its_task_again_and_goes_on() {
    let mut world = World::begun(spec(training(|_| {}), 1, patience(|_| {})), 2);
    world.contribute(0);
    let task = world.task(1);
    world.disconnect(1);
    world.now = world.now.saturating_add(seconds(59));
    world.apply(Event::Tick);
    let asked = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::Ask { task: asked, .. } if asked.id == task))
    };
    let actions = world.connect(1);
    assert!(asked(&actions), "{actions:?}");
    world.now = world.now.saturating_add(seconds(1_000));
    world.apply(Event::Tick);
    world.contribute(1);
    assert_eq!(states(&world, 0), [NodeProgress::Contributed; 2]);
}

#[test]
fn a_node_that_is_away_after_it_contributed_counts_and_is_dropped_from_the_next_round() {
    let mut world = World::begun(spec(training(|_| {}), 2, patience(|_| {})), 2);
    world.contribute(1);
    world.disconnect(1);
    world.wait(seconds(60));
    assert_eq!(world.round(), 0);
    world.contribute(0);
    assert_eq!(states(&world, 0), [NodeProgress::Contributed; 2]);
    assert_eq!((world.round(), world.tasks.len()), (1, 1));
}

#[test]
fn fewer_nodes_left_than_min_nodes_fail_at_once() {
    let patience = patience(|patience| patience.min_nodes = 3);
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 3);
    world.contribute(0);
    world.refuse(1, RefusalCode::ColumnUnknown);
    assert_eq!(world.state(), ExperimentState::Failed);
    let refusing = name(&world.nodes[1]);
    let expected = "in training round 1 only 2 nodes can still contribute; `min_nodes` is 3";
    assert_eq!(world.reason(), format!("{refusing}: no (column_unknown); {expected}"));
}

#[test]
fn the_last_nodes_reason_comes_first_and_the_round_is_named_by_its_kind() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Drop);
    let mut world = World::begun(spec(training(|raw| raw.standardise = true), 2, patience), 2);
    world.refuse(0, RefusalCode::MissingValues);
    let mut early = World { log: Vec::new(), tasks: world.tasks.clone(), ..world_like(&world) };
    early.refuse(1, RefusalCode::ColumnUnknown);
    let (first, second) = (name(&world.nodes[0]), name(&world.nodes[1]));
    let mut reasons = [format!("{first}: no (missing_values)"), format!("{second}: no (column_unknown)")];
    reasons.sort_by_key(|reason| world.nodes.iter().filter(|node| reason.contains(&name(node))).min().cloned());
    assert_eq!(early.reason(), format!("{}; while standardising no node can contribute any more", reasons.join("; ")));
    world.contribute(1);
    world.contribute(1);
    world.contribute(1);
    world.refuse(1, RefusalCode::ColumnUnknown);
    let reasons = reasons.join("; ");
    assert_eq!(world.reason(), format!("{reasons}; in training round 2 no node can contribute any more"));
}

#[test]
fn a_node_that_the_hospital_stopped_is_shown_as_such_in_later_rounds_whatever_its_sentence_says() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Drop);
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 3);
    world.refuse(0, RefusalCode::PausedByHospital);
    let (node, task) = (world.nodes[1].clone(), world.task(1));
    let refusal = Refusal::new(RefusalCode::Internal, "stopped by the hospital, or so it says");
    world.apply(Event::Refused { node, task, refusal });
    world.contribute(2);
    let shown = world.experiment.snapshot(|_| Live::default());
    let state = |node: usize| shown.nodes.iter().find(|shown| shown.id == world.nodes[node]).unwrap().state;
    assert_eq!((world.round(), state(0), state(1)), (1, NodeProgress::StoppedByHospital, NodeProgress::Dropped));
}

#[test]
fn nobody_is_shown_as_waiting_once_the_experiment_is_over() {
    for event in [None, Some(Event::Cancelled { by: "ada".into() })] {
        let patience = patience(|patience| patience.on_failure = OnFailure::Drop);
        let mut world = World::begun(spec(training(|_| {}), 1, patience), 3);
        world.refuse(0, RefusalCode::MissingValues);
        world.disconnect(2);
        match event {
            None => {
                world.contribute(1);
                world.connect(2);
                world.contribute(2);
                assert_eq!(world.state(), ExperimentState::Finished);
                world.disconnect(1);
            }
            Some(event) => drop(world.apply(event)),
        }
        let shown = world.experiment.snapshot(|_| Live::default());
        let state = |node: usize| shown.nodes.iter().find(|shown| shown.id == world.nodes[node]).unwrap().state;
        assert_eq!([0, 1, 2].map(state).map(NodeProgress::name), ["dropped", "over", "over"], "{:?}", world.state());
    }
}

#[test]
fn on_failure_fail_ends_the_experiment_with_the_nodes_words() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Fail);
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 3);
    world.refuse(1, RefusalCode::MissingValues);
    assert_eq!(world.state(), ExperimentState::Failed);
    assert_eq!(world.reason(), format!("{}, in training round 1: no (missing_values)", name(&world.nodes[1])));
    assert!(world.tasks.is_empty(), "the others' work is cancelled");
}

#[test]
fn on_failure_drop_goes_on_without_the_node() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Drop);
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 3);
    world.refuse(1, RefusalCode::MissingValues);
    world.contribute_all();
    assert_eq!(states(&world, 0), [NodeProgress::Contributed, NodeProgress::Refused, NodeProgress::Contributed]);
    assert_eq!((world.round(), world.tasks.len()), (1, 2));
    world.contribute_all();
    assert_eq!(world.state(), ExperimentState::Finished);
}

#[test]
fn on_failure_retry_asks_that_node_three_times_more_and_then_drops_it() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Retry);
    let mut world = World::begun(spec(training(|_| {}), 2, patience), 2);
    world.contribute(0);
    let mut tasks = BTreeSet::new();
    for attempt in 0..=3 {
        assert_eq!(world.tasks[&world.nodes[1]].key.attempt, attempt);
        tasks.insert(world.task(1));
        world.refuse(1, RefusalCode::DatasetUnreadable);
    }
    assert_eq!(tasks.len(), 4, "every attempt is a task of its own");
    assert_eq!((world.round(), world.tasks.len()), (1, 1));
}

#[test]
fn on_failure_retry_takes_the_contribution_of_a_later_attempt() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Retry);
    let mut world = World::begun(spec(training(|_| {}), 1, patience), 2);
    world.contribute(0);
    world.refuse(1, RefusalCode::DatasetUnreadable);
    world.contribute(1);
    assert_eq!(states(&world, 0), [NodeProgress::Contributed; 2]);
    assert_eq!(world.state(), ExperimentState::Finished);
}

#[test]
fn a_hospitals_stop_is_shown_as_such_and_not_asked_again() {
    let patience = patience(|patience| patience.on_failure = OnFailure::Retry);
    let mut world = World::begun(spec(training(|_| {}), 1, patience), 2);
    world.refuse(1, RefusalCode::PausedByHospital);
    let shown = world.experiment.snapshot(|_| Live::default());
    let shown = shown.nodes.iter().find(|node| node.id == world.nodes[1]).unwrap().clone();
    assert_eq!(shown.state.name(), "stopped by the hospital");
    world.contribute(0);
    assert_eq!(world.state(), ExperimentState::Finished);
}

#[test]
fn a_revoked_node_is_out_at_once() {
    let mut world = World::begun(spec(training(|_| {}), 1, patience(|_| {})), 2);
    let node = world.nodes[1].clone();
    world.apply(Event::Revoked { node });
    world.contribute(0);
    assert_eq!(states(&world, 0), [NodeProgress::Contributed, NodeProgress::Dropped]);
}

#[test]
fn nothing_that_happens_in_the_last_validation_fails_the_experiment() {
    let patience = patience(|patience| {
        patience.on_failure = OnFailure::Fail;
        patience.min_nodes = 2;
    });
    let plan = training(|raw| raw.arguments.test_ratio = 0.5);
    let mut world = World::begun(spec(plan, 1, patience), 2);
    world.contribute_all();
    assert_eq!(world.experiment.round().unwrap().work, Work::Validate);
    world.refuse(0, RefusalCode::Internal);
    world.disconnect(1);
    world.wait(seconds(60));
    assert_eq!(world.state(), ExperimentState::Finished, "{}", world.reason());
    assert_eq!(world.records().len(), 2);
}

#[test]
fn the_last_validation_is_asked_again_for_too() {
    let plan = training(|raw| raw.arguments.test_ratio = 0.5);
    let mut world = World::begun(spec(plan, 1, patience(|patience| patience.on_failure = OnFailure::Retry)), 2);
    world.contribute_all();
    world.refuse(0, RefusalCode::Internal);
    world.contribute_all();
    assert_eq!(states(&world, 1), [NodeProgress::Contributed; 2]);
    assert_eq!(world.state(), ExperimentState::Finished, "{}", world.reason());
}

#[test]
fn after_a_restart_absence_and_time_count_from_then() {
    let patience = patience(|patience| patience.round_timeout_ms = Some(10_000));
    let mut world = World::begun(spec(training(|_| {}), 1, patience), 2);
    world.contribute(0);
    world.now = world.now.saturating_add(seconds(1_000));
    world.apply(Event::Restarted);
    assert_eq!(world.state(), ExperimentState::Running, "the daemon was off longer than both");
    world.connect(0);
    let actions = world.connect(1);
    assert!(actions.iter().any(|action| matches!(action, Action::Ask { .. })));
    world.contribute(1);
    assert_eq!(world.state(), ExperimentState::Finished);
}

#[test]
fn a_restart_in_a_fold_folds_again() {
    let mut world = World::begun(spec(training(|_| {}), 1, patience(|_| {})), 1);
    let (node, task) = (world.nodes[0].clone(), world.task(0));
    world.apply_only(Event::Contributed { node, task: task.clone(), digest: Digest::of(b"c"), bytes: 1, report: None });
    world.experiment = stored(&world.experiment);
    assert!(world.apply_only(Event::Restarted).contains(&Action::Fold));
    world.apply_only(Event::Lost { task });
    world.connect(0);
    assert_eq!(
        world.experiment.round().unwrap().tally().open,
        1,
        "a contribution that is not on the disk is asked for again"
    );
    world.contribute(0);
    assert_eq!(world.state(), ExperimentState::Finished);
}
