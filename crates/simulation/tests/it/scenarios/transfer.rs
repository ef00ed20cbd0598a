//! Transfers of more than one chunk that break.

use std::time::Duration;

use protocol::model::Activation;
use protocol::{Family, Outcome, Precision, RawExperimentSpec, RawTrainingPlan, TrainingArguments};
use simulation::world::World;
use transport::memory::Faults;

use crate::experiments::{plan, sgd, spec, template, training};
use crate::federation::{tell, undisturbed};

/// A model of 300,001 parameters: 1.14 MiB, two chunks each way.
fn large() -> RawExperimentSpec {
    let family = Family::Mlp { hidden: vec![60_000], activation: Activation::Relu, outcome: Outcome::Binary };
    let base = training(family, Precision::Float32, sgd(0.001));
    let arguments = TrainingArguments { epochs: None, num_updates: Some(1), ..base.arguments.clone() };
    spec(plan(RawTrainingPlan { arguments, standardise: false, ..base }), 1)
}

#[test]
fn a_link_cut_in_mid_upload_goes_on_from_the_last_good_chunk() {
    let spec = large();
    let expected = undisturbed(&template(), &spec);
    let slow_upload = |world: &World| {
        world.set_faults(0, Faults { delay_ms: Some(1_000..=1_000), ..Faults::default() });
        world.start_all();
    };
    let finished = tell(&template(), spec, slow_upload, |world, _| async move {
        // Until the first chunk of north's contribution has been written at the researcher, and not the second.
        let spool = world.folder(simulation::world::Place::Researcher).spool();
        let has_one = || {
            let files = std::fs::read_dir(&spool).unwrap().flatten();
            files.into_iter().any(|file| file.metadata().is_ok_and(|metadata| metadata.len() == 1 << 20))
        };
        while !has_one() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        world.cut(0);
    });
    let differences = expected.outcome.differences(&finished.outcome);
    assert!(differences.is_empty(), "{differences:#?}\n{}", finished.log());
    assert!(finished.world.log().has("goes on at byte 1048576"), "{}", finished.log());
}

#[test]
fn damaged_chunks_are_sent_again() {
    let spec = large();
    let expected = undisturbed(&template(), &spec);
    let damage = |world: &World| {
        for site in 0..3 {
            world.set_faults(site, Faults { damaged_per_mille: 400, ..Faults::default() });
        }
        world.start_all();
    };
    let finished = tell(&template(), spec, damage, |_, _| async {});
    let differences = expected.outcome.differences(&finished.outcome);
    assert!(differences.is_empty(), "{differences:#?}\n{}", finished.log());
    assert!(finished.world.log().has("a chunk is damaged"), "{}", finished.log());
}
