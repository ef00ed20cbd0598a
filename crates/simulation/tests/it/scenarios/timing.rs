//! Nodes that are slow or away, and the three settings of patience.

use std::time::Duration;

use protocol::{OnFailure, Patience, RawExperimentSpec};
use researcher::command::{ExperimentState, NodeProgress, RoundKind};
use simulation::world::Place;

use crate::experiments::{Kind, patient, template};
use crate::federation::{details, node, start_with_work, states, tell, undisturbed, working};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spec(patience: Patience) -> RawExperimentSpec {
    RawExperimentSpec { patience, ..Kind::LogisticSgd32.raw() }
}

/// Kills the third site while it works in the first training round, and starts it again.
async fn leave_for(world: simulation::world::World, away: Duration) {
    tokio::time::sleep(seconds(25)).await;
    world.kill(Place::Site(2));
    tokio::time::sleep(away).await;
    world.start(Place::Site(2), working(10.0));
}

#[test]
fn a_node_away_for_less_than_node_timeout_goes_on_where_it_was() {
    let spec = spec(Patience { node_timeout_ms: 60_000, ..patient() });
    let finished = tell(
        &template(),
        spec.clone(),
        |world| start_with_work(world, &[10.0; 3]),
        |world, _| leave_for(world, seconds(25)),
    );
    let differences = undisturbed(&template(), &spec).outcome.differences(&finished.outcome);
    assert!(differences.is_empty(), "{differences:#?}\n{}", finished.log());
}

#[test]
fn a_node_away_for_longer_than_node_timeout_is_dropped_whatever_on_failure_says() {
    for on_failure in [OnFailure::Drop, OnFailure::Retry, OnFailure::Fail] {
        let spec = spec(Patience { node_timeout_ms: 60_000, min_nodes: 2, on_failure, ..patient() });
        let finished =
            tell(&template(), spec, |world| start_with_work(world, &[10.0; 3]), |world, _| leave_for(world, seconds(90)));
        assert_eq!(finished.ended.state, ExperimentState::Finished, "{:?}\n{}", finished.ended.reason, finished.log());
        let rounds = finished.rounds(RoundKind::Training);
        assert_eq!(rounds.len(), 3);
        assert_eq!(node(rounds[0], "west").state, NodeProgress::Dropped);
        assert!(node(rounds[0], "west").reason.as_ref().unwrap().contains("node_timeout"));
        assert_eq!(rounds[0].train_rows, 18 + 24);
        for round in &rounds[1..] {
            assert!(round.nodes.iter().all(|node| node.name != "west" || node.state == NodeProgress::Dropped));
        }
    }
}

#[test]
fn an_experiment_whose_nodes_leave_below_min_nodes_fails_and_says_why() {
    let spec = spec(Patience { node_timeout_ms: 60_000, min_nodes: 3, ..patient() });
    let finished =
        tell(&template(), spec, |world| start_with_work(world, &[10.0; 3]), |world, _| leave_for(world, seconds(90)));
    assert_eq!(finished.ended.state, ExperimentState::Failed);
    let reason = finished.ended.reason.unwrap();
    assert!(reason.contains("`min_nodes` is 3") && reason.contains("west") && reason.contains("node_timeout"), "{reason}");
}

#[test]
fn a_round_closes_at_round_timeout_with_min_nodes_and_the_late_node_takes_part_in_the_next() {
    let patience = Patience { round_timeout_ms: Some(60_000), min_nodes: 2, ..patient() };
    let finished = tell(
        &template(),
        spec(patience),
        |world| start_with_work(world, &[1.0, 1.0, 1.0]),
        |world, _| async move {
            // Slow in one round only.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            world.kill(Place::Site(2));
            world.start(Place::Site(2), working(100.0));
            tokio::time::sleep(seconds(61)).await;
            world.kill(Place::Site(2));
            world.start(Place::Site(2), working(1.0));
        },
    );
    assert_eq!(finished.ended.state, ExperimentState::Finished, "{:?}\n{}", finished.ended.reason, finished.log());
    let rounds = finished.rounds(RoundKind::Training);
    let contributed = NodeProgress::Contributed;
    assert_eq!(
        states(rounds[0]),
        [("north", contributed), ("south", contributed), ("west", NodeProgress::Late)],
        "{}",
        finished.log()
    );
    assert_eq!(rounds[0].train_rows, 18 + 24);
    assert_eq!(states(rounds[1]), [("north", contributed), ("south", contributed), ("west", contributed)]);
}

#[test]
fn a_round_that_has_not_min_nodes_at_round_timeout_fails_the_experiment() {
    let patience = Patience { round_timeout_ms: Some(60_000), min_nodes: 3, ..patient() };
    let finished = tell(&template(), spec(patience), |world| start_with_work(world, &[1.0, 1.0, 100.0]), |_, _| async {});
    assert_eq!(finished.ended.state, ExperimentState::Failed);
    let reason = finished.ended.reason.clone().unwrap();
    assert!(reason.contains("round_timeout") && reason.contains("`min_nodes` is 3"), "{reason}\n{}", finished.log());
}

#[test]
fn a_late_contribution_of_an_old_round_is_refused_and_logged() {
    let patience = Patience { round_timeout_ms: Some(60_000), min_nodes: 2, ..patient() };
    let finished = tell(
        &template(),
        spec(patience),
        |world| start_with_work(world, &[1.0; 3]),
        |world, _| async move {
            // It has trained in the first round and its way is blocked before it can say so.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            world.block(2, true);
            tokio::time::sleep(seconds(70)).await;
            world.block(2, false);
        },
    );
    assert_eq!(finished.ended.state, ExperimentState::Finished, "{:?}\n{}", finished.ended.reason, finished.log());
    let rounds = finished.rounds(RoundKind::Training);
    assert_eq!(node(rounds[0], "west").state, NodeProgress::Late, "{}", finished.log());
    assert!(finished.world.log().has("a late contribution is refused"), "{}", finished.log());
    let audit = std::fs::read_to_string(finished.world.folder(Place::Researcher).audit_file()).unwrap();
    assert!(audit.contains("contribution.late"));
}

#[test]
fn the_order_of_arrival_does_not_change_a_bit() {
    let spec = Kind::LinearSgd32.raw();
    let expected = undisturbed(&template(), &spec);
    for order in [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0]] {
        let finished = tell(&template(), spec.clone(), |world| start_with_work(world, &order), |_, _| async {});
        let differences = expected.outcome.differences(&finished.outcome);
        assert!(differences.is_empty(), "{order:?}: {differences:#?}\n{}", finished.log());
    }
}

#[test]
fn values_out_of_range_repeat_the_round_on_a_wider_scale() {
    let finished = undisturbed(&template(), &Kind::LinearSgd32.raw());
    let rounds = finished.rounds(RoundKind::Training);
    assert!(rounds[0].attempt > 0, "the first round should not fit its first scale\n{}", finished.log());
    assert_eq!(rounds[0].train_rows, 72);
}

#[test]
fn searches_are_answered_while_all_nodes_train() {
    tell(
        &template(),
        Kind::LogisticSgd32.raw(),
        |world| start_with_work(world, &[100.0; 3]),
        |world, id| async move {
            tokio::time::sleep(seconds(250)).await;
            let before = world.log().elapsed();
            let (rows, silent) = world.try_with(|researcher| async move { researcher.datasets(None).await }).await.unwrap();
            assert!(silent.is_empty(), "{silent:?}");
            assert_eq!(rows.iter().map(|row| row.node.as_str()).collect::<Vec<_>>(), ["north", "south", "west"]);
            assert!(world.log().elapsed().saturating_sub(before) < seconds(1));
            let snapshot = details(&world, &id).await.snapshot;
            assert_eq!(snapshot.kind, RoundKind::Training);
            assert!(snapshot.nodes.iter().all(|node| node.state == NodeProgress::Working), "{snapshot:?}");
        },
    );
}
