//! What people at a hospital or at the researcher do while an experiment runs.

use std::time::Duration;

use node::agent::Order;
use node::command::{Reply, Request};
use protocol::{OnFailure, Patience, RawExperimentSpec, Refusal, RefusalCode};
use researcher::command::{ExperimentState, NodeProgress, RoundKind};
use simulation::world::{Place, World};
use tokio::sync::oneshot;

use crate::experiments::{Kind, patient, template};
use crate::federation::{details, node, start_with_work, tell, undisturbed};

/// What the daemon does on `pause`: the mark, then all open tasks.
async fn pause(world: &World, site: usize) {
    let running = world.node(site).unwrap();
    assert!(matches!(running.handle.answer(Request::Pause, "eve").await, Reply::Done { .. }));
    let refusal = Refusal::new(RefusalCode::StoppedByHospital, "stopped by the hospital");
    let (stopped, answer) = oneshot::channel();
    running.agent.order(Order::Stop { task: None, refusal, stopped }).await;
    assert_eq!(answer.await, Ok(1));
}

#[test]
fn a_paused_hospital_stops_at_once_and_is_left_out() {
    for on_failure in [OnFailure::Drop, OnFailure::Retry] {
        let patience = Patience { min_nodes: 2, on_failure, ..patient() };
        let finished = tell(
            &template(),
            RawExperimentSpec { patience, ..Kind::LogisticSgd32.raw() },
            |world| start_with_work(world, &[10.0; 3]),
            |world, _| async move {
                tokio::time::sleep(Duration::from_secs(25)).await;
                pause(&world, 1).await;
            },
        );
        assert_eq!(finished.ended.state, ExperimentState::Finished, "{:?}", finished.ended.reason);
        let rounds = finished.rounds(RoundKind::Training);
        let south = node(rounds[0], "south");
        assert_eq!(south.state, NodeProgress::StoppedByHospital, "{}", finished.log());
        assert_eq!(south.code, Some(RefusalCode::StoppedByHospital));
        assert_eq!(rounds[0].train_rows, 18 + 30);
        assert!(
            finished.rounds(RoundKind::Validation)[0]
                .nodes
                .iter()
                .all(|node| node.name != "south" || node.state == NodeProgress::Dropped)
        );
    }
}

#[test]
fn a_paused_hospital_fails_an_experiment_that_must_not_go_on_without_it() {
    let patience = Patience { on_failure: OnFailure::Fail, ..patient() };
    let finished = tell(
        &template(),
        RawExperimentSpec { patience, ..Kind::LogisticSgd32.raw() },
        |world| start_with_work(world, &[10.0; 3]),
        |world, _| async move {
            tokio::time::sleep(Duration::from_secs(25)).await;
            pause(&world, 1).await;
        },
    );
    assert_eq!(finished.ended.state, ExperimentState::Failed);
    let reason = finished.ended.reason.unwrap();
    assert!(reason.contains("south") && reason.contains("stopped by the hospital"), "{reason}");
}

#[test]
fn a_cancelled_experiment_ends_on_all_nodes_and_goes_on_with_the_same_bits() {
    let spec = Kind::LogisticSgd32.raw();
    let expected = undisturbed(&template(), &spec);
    let finished = tell(
        &template(),
        spec,
        |world| start_with_work(world, &[10.0; 3]),
        |world, id| async move {
            tokio::time::sleep(Duration::from_secs(35)).await;
            let wanted = id.clone();
            world.try_with(|researcher| async move { researcher.cancel(&wanted, "ada").await }).await.unwrap().unwrap();
            world.settle().await;
            assert_eq!(details(&world, &id).await.experiment.state, ExperimentState::Cancelled);
            let spool = world.folder(Place::Researcher).spool();
            assert!(spool.read_dir().unwrap().next().is_none(), "a contribution is left of a cancelled round");
            let wanted = id.clone();
            world.try_with(|researcher| async move { researcher.resume(&wanted, "ada").await }).await.unwrap().unwrap();
        },
    );
    let differences = expected.outcome.differences(&finished.outcome);
    assert!(differences.is_empty(), "{differences:#?}\n{}", finished.log());
}
