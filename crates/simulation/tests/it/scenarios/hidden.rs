//! Secure aggregation: the sums are those of the plain run, and a lost node leaves exactly the sum of the others.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use component::database::CommitSide;
use protocol::{Family, OnFailure, Patience, Precision, RawExperimentSpec, Secagg, SecureSpec};
use researcher::command::{ExperimentState, NodeProgress, RoundKind};
use simulation::life::{Fuse, LifePlan};
use simulation::template::Template;
use simulation::world::{Place, World};

use crate::experiments::{Kind, hidden, patient, plan, sgd, spec, template, training};
use crate::federation::{Detail, Finished, play, tell, undisturbed};

/// Of four hospitals one may be lost.
const FOUR: [(&str, u64); 4] = [("north", 24), ("south", 31), ("west", 40), ("east", 28)];
const EAST: Place = Place::Site(3);

fn four() -> Arc<Template> {
    static TEMPLATE: OnceLock<Arc<Template>> = OnceLock::new();
    TEMPLATE.get_or_init(|| Arc::new(Template::make(&FOUR))).clone()
}

/// What the sums of a round give.
fn sums(finished: &Finished, kind: RoundKind) -> Vec<String> {
    let rounds = finished.rounds(kind).into_iter();
    rounds.map(|round| format!("{} {:?} {:?} {:?}", round.train_rows, round.loss, round.metrics, round.confusion)).collect()
}

#[test]
fn hidden_sums_are_the_plain_sums() {
    for (plain, hidden) in [
        // 128-bit integers on one scale: the model is the same to the last bit.
        (Kind::PerceptronAdam64, Kind::HiddenPerceptron64),
        (Kind::Moments, Kind::HiddenMoments),
        (Kind::Moments, Kind::EncryptedMoments),
    ] {
        let [plain, hidden] = [plain, hidden].map(|kind| undisturbed(&template(), &kind.raw()));
        assert_eq!(hidden.outcome.state, ExperimentState::Finished, "{:?}\n{}", hidden.outcome.reason, hidden.log());
        assert_eq!(hidden.outcome.model, plain.outcome.model);
        assert_eq!(hidden.outcome.moments, plain.outcome.moments);
        for kind in [RoundKind::Sums, RoundKind::SquaredDifferences, RoundKind::Training, RoundKind::Validation] {
            assert_eq!(sums(&hidden, kind), sums(&plain, kind));
        }
    }
}

#[test]
fn no_record_of_a_hidden_round_holds_a_value_of_one_node() {
    for kind in Kind::HIDDEN {
        let finished = undisturbed(&template(), &kind.raw());
        for node in finished.records.iter().flat_map(|record| &record.nodes) {
            assert_eq!(node.state, NodeProgress::Contributed);
            let numbers = [node.train_rows, node.test_rows, node.dropped_rows];
            assert_eq!((numbers, node.loss), ([None; 3], None), "{kind:?}");
            assert!(node.measured.is_empty() && node.remarks.is_empty(), "{kind:?}");
        }
    }
}

/// One round of training from a fixed model by these hospitals. It asks for nothing before, so that its sum is that of those who gave.
fn one_round(names: &[&str], secagg: Secagg) -> RawExperimentSpec {
    let raw = training(Family::Logistic, Precision::Float64, sgd(0.05));
    let raw = protocol::RawTrainingPlan {
        standardise: false,
        validation: protocol::Validation { on_global: false, on_local: false },
        ..raw
    };
    let patience = Patience { node_timeout_ms: 20_000, min_nodes: 3, on_failure: OnFailure::Drop, ..patient() };
    let nodes = names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let secure = SecureSpec { secagg, ..SecureSpec::default() };
    RawExperimentSpec { nodes: Some(nodes), patience, secure, ..spec(plan(raw), 1) }
}

/// Kills the fourth hospital for good at each step that it has, and says how often its numbers were in the sum and how often not.
fn lose_east_at_each(secagg: Secagg, fuse: impl Fn(u64) -> Fuse) -> (u64, u64) {
    let names = FOUR.map(|(name, _)| name);
    let with = undisturbed(&four(), &one_round(&names, Secagg::None)).outcome.model;
    let without = undisturbed(&four(), &one_round(&names[..3], Secagg::None)).outcome.model;
    assert!(with.is_some() && without.is_some() && with != without);
    let (mut in_it, mut not_in_it) = (0, 0);
    for step in 1.. {
        let away = Duration::from_mins(10);
        let life = LifePlan { fuse: fuse(step), away, haste_ms: 100, ..LifePlan::default() };
        let set_up = |world: &World| {
            for place in world.places() {
                world.keep(place, if place == EAST { vec![life.clone()] } else { Vec::new() });
            }
        };
        let finished = play(Detail::Little, &four(), one_round(&names, secagg), set_up, |_, _| async {});
        let (state, reason) = (finished.outcome.state, &finished.outcome.reason);
        assert_eq!(state, ExperimentState::Finished, "{:?}: {reason:?}\n{}", life.fuse, finished.log());
        let model = &finished.outcome.model;
        if !["at reading", "Before commit", "After commit"].iter().any(|place| finished.world.log().has(place)) {
            assert_eq!(*model, with, "nobody was lost\n{}", finished.log());
            return (in_it, not_in_it);
        }
        if *model == with {
            in_it += 1;
        } else if *model == without {
            not_in_it += 1;
        } else {
            panic!("{:?}: neither the sum of all nor that of the survivors\n{}", life.fuse, finished.log());
        }
    }
    unreachable!("an experiment has a last step")
}

#[test]
fn a_node_lost_at_any_commit_leaves_the_sum_of_all_or_that_of_the_others() {
    for side in [CommitSide::Before, CommitSide::After] {
        let (in_it, not_in_it) = lose_east_at_each(Secagg::Lom, |step| Fuse::Commit(step, side));
        assert!(in_it >= 2 && not_in_it >= 4, "{side:?}: {in_it} and {not_in_it}");
    }
}

#[test]
fn a_node_lost_at_any_reading_of_its_clock_leaves_the_sum_of_all_or_that_of_the_others() {
    let (in_it, not_in_it) = lose_east_at_each(Secagg::Lom, Fuse::Reading);
    assert!(in_it >= 2 && not_in_it >= 4, "{in_it} and {not_in_it}");
}

/// Under Joye-Libert the round has no sum then, and is begun again by the others.
#[test]
fn a_node_lost_at_any_commit_under_joye_libert_leaves_the_sum_of_all_or_that_of_the_others() {
    let (in_it, not_in_it) = lose_east_at_each(Secagg::JoyeLibert, |step| Fuse::Commit(step, CommitSide::After));
    assert!(in_it >= 1 && not_in_it >= 4, "{in_it} and {not_in_it}");
}

#[test]
fn of_three_none_may_be_lost_and_the_reason_says_so() {
    let spec = RawExperimentSpec {
        patience: Patience { node_timeout_ms: 20_000, min_nodes: 2, on_failure: OnFailure::Drop, ..patient() },
        ..hidden(Kind::LogisticSgd32.raw())
    };
    let finished = tell(
        &template(),
        spec,
        |world| crate::federation::start_with_work(world, &[10.0; 3]),
        |world, _| async move {
            tokio::time::sleep(Duration::from_secs(25)).await;
            world.kill(Place::Site(2));
            tokio::time::sleep(Duration::from_mins(10)).await;
            world.start(Place::Site(2), LifePlan::default());
        },
    );
    assert_eq!(finished.ended.state, ExperimentState::Failed, "{}", finished.log());
    let reason = finished.ended.reason.unwrap();
    assert!(reason.contains("secure aggregation needs 3 nodes"), "{reason}");
}
