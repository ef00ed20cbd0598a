//! Nodes that refuse, and disks that fail.

use std::sync::Arc;
use std::time::Duration;

use protocol::{OnFailure, Patience, RawExperimentSpec, RefusalCode};
use researcher::command::{ExperimentState, NodeProgress, RoundKind};
use simulation::template::Template;
use simulation::world::{Place, World};
use transport::memory::Faults;

use crate::experiments::{Kind, own_template, patient};
use crate::federation::{Finished, node, tell, undisturbed};

/// Every message and chunk takes a second, so that something can happen between a task and the next.
fn slowly(world: &World) {
    for site in 0..world.template().sites.len() {
        world.set_faults(site, Faults { delay_ms: Some(1_000..=1_000), ..Faults::default() });
    }
    world.start_all();
}

fn spec(on_failure: OnFailure, min_nodes: u32) -> RawExperimentSpec {
    RawExperimentSpec { patience: Patience { on_failure, min_nodes, ..patient() }, ..Kind::LogisticSgd32.raw() }
}

/// Runs the experiment while the second site's data is gone for so long.
fn without_data(template: &Arc<Template>, spec: RawExperimentSpec, lasts: Duration) -> Finished {
    let data = template.data_file(&template.sites[1]);
    let hidden = data.with_extension("hidden");
    tell(template, spec, slowly, |_, _| async move {
        std::fs::rename(&data, &hidden).unwrap();
        tokio::time::sleep(lasts).await;
        std::fs::rename(&hidden, &data).unwrap();
    })
}

#[test]
fn on_failure_retry_asks_again_and_gives_the_same_bits() {
    let template = own_template();
    let spec = spec(OnFailure::Retry, 3);
    let expected = undisturbed(&template, &spec);
    // Long enough for the first attempt and some, not for all.
    let finished = without_data(&template, spec, Duration::from_secs(9));
    let differences = expected.outcome.differences(&finished.outcome);
    assert!(differences.is_empty(), "{differences:#?}\n{}", finished.log());
    assert!(finished.world.log().has("a node refused a task"), "{}", finished.log());
}

#[test]
fn on_failure_retry_asks_three_times_and_then_goes_on_without() {
    let template = own_template();
    let finished = without_data(&template, spec(OnFailure::Retry, 2), Duration::from_mins(10));
    assert_eq!(finished.ended.state, ExperimentState::Finished, "{:?}\n{}", finished.ended.reason, finished.log());
    let south = node(&finished.records[0], "south");
    assert_eq!((south.state, south.code), (NodeProgress::Refused, Some(RefusalCode::DatasetUnreadable)));
    assert_eq!(finished.log().matches("a node refused a task").count(), 4, "{}", finished.log());
    assert!(finished.rounds(RoundKind::Training).iter().all(|round| round.train_rows == 18 + 30));
}

#[test]
fn on_failure_drop_goes_on_without_the_node() {
    let template = own_template();
    let finished = without_data(&template, spec(OnFailure::Drop, 2), Duration::from_mins(10));
    assert_eq!(finished.ended.state, ExperimentState::Finished, "{:?}\n{}", finished.ended.reason, finished.log());
    assert_eq!(finished.log().matches("a node refused a task").count(), 1, "{}", finished.log());
    assert_eq!(node(&finished.records[0], "south").state, NodeProgress::Refused);
    assert!(finished.rounds(RoundKind::Training).iter().all(|round| round.train_rows == 18 + 30));
}

#[test]
fn on_failure_fail_ends_the_experiment_with_the_nodes_reason() {
    let template = own_template();
    let finished = without_data(&template, spec(OnFailure::Fail, 1), Duration::from_mins(10));
    assert_eq!(finished.ended.state, ExperimentState::Failed);
    let reason = finished.ended.reason.clone().unwrap();
    assert!(reason.contains("south") && reason.contains("dataset_unreadable"), "{reason}");
    let path = template.data_file(&template.sites[1]);
    assert!(!reason.contains(path.file_name().unwrap().to_str().unwrap()), "a path reached the researcher: {reason}");
}

#[test]
fn a_spool_that_fails_for_a_while_costs_time_only() {
    let template = own_template();
    // No failure of a node's is meant to be seen at all.
    let spec = spec(OnFailure::Fail, 3);
    let expected = undisturbed(&template, &spec);
    for place in [Place::Site(1), Place::Researcher] {
        let finished = tell(&template, spec.clone(), slowly, |world, _| async move {
            tokio::time::sleep(Duration::from_secs(7)).await;
            world.lose_spool(place, Duration::from_secs(40)).await;
        });
        let differences = expected.outcome.differences(&finished.outcome);
        assert!(differences.is_empty(), "{place:?}: {differences:#?}\n{}", finished.log());
    }
}
