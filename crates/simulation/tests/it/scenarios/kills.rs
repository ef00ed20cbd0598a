//! Each component killed once, at each step it has.

use std::cell::Cell;
use std::time::Duration;

use component::database::CommitSide;
use researcher::experiment::Stage;
use researcher::store::Store;
use simulation::life::{Fuse, LifePlan};
use simulation::world::Place;

use crate::experiments::{Kind, template};
use crate::federation::{Detail, play, undisturbed};

/// How often the victim was killed, and what it left each time.
#[derive(Default)]
struct Kills {
    all: u64,
    /// A node had a checkpoint to go on from.
    with_checkpoint: u64,
    /// The researcher had not yet stored the sum of a round that had all contributions.
    while_folding: u64,
}

/// Kills the victim at the first step of its kind, then at the second, until there is none any more.
fn kill_at_each(kind: Kind, victim: Place, fuse: impl Fn(u64) -> Fuse) -> Kills {
    let expected = undisturbed(&template(), &kind.raw());
    let mut kills = Kills::default();
    for step in 1.. {
        // Its clock runs ahead, so that checkpoints are due between two steps of a training.
        let life = LifePlan { fuse: fuse(step), away: Duration::from_secs(2), haste_ms: 1_000, ..LifePlan::default() };
        let is_folding = Cell::new(false);
        let finished = play(
            Detail::Little,
            &template(),
            kind.raw(),
            |world| {
                for place in world.places() {
                    world.keep(place, if place == victim { vec![life.clone()] } else { Vec::new() });
                }
            },
            |world, id| {
                let is_folding = &is_folding;
                async move {
                    // The victim is dead by now, and not yet back.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let store = Store::open_for_simulation(&world.folder(Place::Researcher).database_file()).unwrap();
                    is_folding.set(store.experiment(&id).is_ok_and(|it| matches!(it.stage(), Stage::Folding(_))));
                }
            },
        );
        let differences = expected.outcome.differences(&finished.outcome);
        assert!(differences.is_empty(), "{kind:?}, {:?}: {differences:#?}\n{}", life.fuse, finished.log());
        let log = finished.world.log();
        if !["at reading", "Before commit", "After commit"].iter().any(|place| log.has(&format!("is killed: {place}"))) {
            return kills;
        }
        kills.all += 1;
        kills.with_checkpoint += u64::from(log.has("finds a checkpoint"));
        kills.while_folding += u64::from(is_folding.get());
    }
    unreachable!("an experiment has a last step")
}

#[test]
fn a_researcher_killed_before_any_commit_ends_with_the_same_bits() {
    let kills = kill_at_each(Kind::LogisticSgd32, Place::Researcher, |step| Fuse::Commit(step, CommitSide::Before));
    assert!(kills.all > 15, "only {} commits", kills.all);
    assert!(kills.while_folding >= 4, "killed only {} times between a fold and its commit", kills.while_folding);
}

#[test]
fn a_researcher_killed_after_any_commit_ends_with_the_same_bits() {
    let kills = kill_at_each(Kind::LogisticSgd32, Place::Researcher, |step| Fuse::Commit(step, CommitSide::After));
    assert!(kills.all > 15, "only {} commits", kills.all);
}

#[test]
fn a_node_killed_on_either_side_of_any_commit_ends_with_the_same_bits() {
    for side in [CommitSide::Before, CommitSide::After] {
        let kills = kill_at_each(Kind::LinearSgd32, Place::Site(1), |step| Fuse::Commit(step, side));
        assert!(kills.all > 15, "only {} commits", kills.all);
    }
}

#[test]
fn a_node_killed_at_any_reading_of_its_clock_ends_with_the_same_bits() {
    let kills = kill_at_each(Kind::PerceptronAdam64, Place::Site(2), Fuse::Reading);
    assert!(kills.all > 30, "only {} readings", kills.all);
    assert!(kills.with_checkpoint > 3, "only {} times with a checkpoint", kills.with_checkpoint);
}

/// What leaves a node was stored before: keys, shares of keys, and what was encrypted with them.
#[test]
fn a_node_killed_on_either_side_of_any_commit_of_an_encrypted_sum_ends_with_the_same_bits() {
    for side in [CommitSide::Before, CommitSide::After] {
        let kills = kill_at_each(Kind::EncryptedMoments, Place::Site(1), |step| Fuse::Commit(step, side));
        assert!(kills.all > 15, "only {} commits", kills.all);
    }
}

#[test]
fn a_researcher_killed_before_any_commit_of_an_encrypted_sum_ends_with_the_same_bits() {
    let kills = kill_at_each(Kind::EncryptedMoments, Place::Researcher, |step| Fuse::Commit(step, CommitSide::Before));
    assert!(kills.all > 10, "only {} commits", kills.all);
}
