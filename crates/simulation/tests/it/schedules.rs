//! Thousands of schedules of kills, cuts, silence, delays, damage and full disks, each drawn from a seed.
//!
//! `FEDBIOMED_SEED=123 cargo nextest run -p simulation --no-capture the_seed_of_the_environment` plays one again, with its whole
//! log; `FEDBIOMED_SEED=2000..9000` tries others than the tests do.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use protocol::ExperimentId;
use researcher::command::{Ended, ExperimentState};
use simulation::outcome::{self, Outcome};
use simulation::schedule::Schedule;
use simulation::time::{Stuck, in_time, in_virtual_time};
use simulation::world::World;

use crate::experiments::{Kind, template};
use crate::federation::Detail;

/// From this seed on, experiments are long.
const LONG: u64 = 1_000_000;

/// From this seed on, sums are hidden; then those of long experiments.
const HIDDEN: u64 = 2_000_000;
const LONG_HIDDEN: u64 = 3_000_000;

/// Which experiment a seed tries.
fn kind(seed: u64) -> Kind {
    match seed {
        LONG_HIDDEN.. => Kind::HiddenTwentyRounds,
        HIDDEN.. => Kind::HIDDEN[usize::try_from(seed % 3).unwrap()],
        LONG.. => Kind::HundredRounds,
        _ => Kind::SHORT[usize::try_from(seed % 4).unwrap()],
    }
}

fn schedule(seed: u64) -> Schedule {
    let is_long = matches!(kind(seed), Kind::HundredRounds | Kind::HiddenTwentyRounds);
    Schedule::draw(seed, template().sites.len(), if is_long { 60 } else { 3 })
}

/// Runs one experiment of a world to its end; one that could not begin is resumed, as a person would.
async fn run(world: &World, kind: Kind) -> (ExperimentId, Ended) {
    let id = world.run(&kind.spec()).await;
    loop {
        let ended = world.end(&id).await;
        let could_not_begin = ended.reason.as_ref().is_some_and(|reason| reason.contains("connected"));
        if ended.rounds > 0 || !could_not_begin {
            return (id, ended);
        }
        let wanted = id.clone();
        let resumed = world.with(move |researcher| {
            let wanted = wanted.clone();
            async move { researcher.resume(&wanted, "ada").await }
        });
        if let Err(sentence) = resumed.await {
            world.log().write(format!("not resumed: {sentence}"));
        }
    }
}

/// What a run came to.
struct Played {
    /// Absent if there was no end.
    outcome: Option<Outcome>,
    violations: Vec<String>,
    log: String,
}

/// Plays a schedule, or none.
fn play(seed: u64, kind: Kind, schedule: Option<&Schedule>, detail: Detail) -> Played {
    in_virtual_time(async {
        let world = World::new(&template(), seed);
        let _listening = (detail == Detail::All).then(|| world.log().listen());
        match schedule {
            Some(schedule) => schedule.apply(&world),
            None => world.start_all(),
        }
        let played = async {
            let (id, ended) = in_time("the experiment is over", run(&world, kind)).await?;
            world.calm_down();
            in_time("the nodes have let go of all tasks", world.settle()).await?;
            Ok::<_, Stuck>((id, ended))
        };
        let played = played.await;
        world.stop();
        match played {
            Err(stuck) => Played { outcome: None, violations: vec![stuck.to_string()], log: world.log().text() },
            Ok((id, ended)) => {
                let (outcome, records) = outcome::read(&world, &ended);
                let violations = outcome::violations(&world, &id, &records);
                Played { outcome: Some(outcome), violations, log: world.log().text() }
            }
        }
    })
}

/// What the experiment gives when nothing goes wrong.
fn undisturbed(kind: Kind) -> Arc<Outcome> {
    static KNOWN: OnceLock<Mutex<BTreeMap<Kind, Arc<Outcome>>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap();
    let play = || {
        let Played { outcome, violations, log } = play(0, kind, None, Detail::Little);
        assert!(violations.is_empty(), "{violations:#?}\n{log}");
        let outcome = outcome.unwrap();
        assert_eq!(outcome.state, ExperimentState::Finished, "{:?}\n{log}", outcome.reason);
        Arc::new(outcome)
    };
    known.entry(kind).or_insert_with(play).clone()
}

/// Plays a seed. What differs from the undisturbed run is a violation, too.
fn disturbed(seed: u64, detail: Detail) -> Played {
    let expected = undisturbed(kind(seed));
    let mut played = play(seed, kind(seed), Some(&schedule(seed)), detail);
    let differences = played.outcome.iter().flat_map(|outcome| expected.differences(outcome));
    played.violations.extend(differences);
    played
}

fn check(seeds: Range<u64>) {
    for seed in seeds {
        let Played { violations, .. } = disturbed(seed, Detail::Little);
        if !violations.is_empty() {
            let Played { log, .. } = disturbed(seed, Detail::All);
            let (kind, schedule) = (kind(seed), schedule(seed));
            panic!("{schedule:#?}\n{log}\nseed {seed}, {kind:?}: {violations:#?}\nplay it again with FEDBIOMED_SEED={seed}");
        }
    }
}

#[test]
fn undisturbed_experiments_finish() {
    for kind in Kind::SHORT.into_iter().chain(Kind::HIDDEN).chain([Kind::HundredRounds, Kind::HiddenTwentyRounds]) {
        assert!(!undisturbed(kind).rounds.is_empty());
    }
}

/// Plays the seed of `FEDBIOMED_SEED`, or a range of them; nothing without it.
#[test]
fn the_seed_of_the_environment() {
    let Ok(text) = std::env::var("FEDBIOMED_SEED") else { return };
    if let Some((first, end)) = text.split_once("..") {
        return check(first.parse().unwrap()..end.parse().unwrap());
    }
    let seed = text.parse().unwrap();
    let Played { violations, log, .. } = disturbed(seed, Detail::All);
    println!("{:#?}\n{log}", schedule(seed));
    assert!(violations.is_empty(), "seed {seed}, {:?}: {violations:#?}", kind(seed));
}

#[test]
fn the_same_seed_writes_the_same_log() {
    for seed in [0, 1, 2, 3, 50, 51, 52, 53, HIDDEN, HIDDEN + 1, HIDDEN + 2] {
        let [one, other] = [(); 2].map(|()| disturbed(seed, Detail::All).log);
        for (one, other) in one.lines().zip(other.lines()) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(one.lines().count(), other.lines().count(), "seed {seed}");
    }
}

/// The same in several tests, so that they run beside each other.
macro_rules! random_schedules_give_the_bits_of_the_undisturbed_run {
    ($($name:ident: $seeds:expr;)*) => {$(
        #[test]
        fn $name() {
            check($seeds);
        }
    )*};
}

random_schedules_give_the_bits_of_the_undisturbed_run! {
    random_schedules_give_the_bits_of_the_undisturbed_run_1: 0..250;
    random_schedules_give_the_bits_of_the_undisturbed_run_2: 250..500;
    random_schedules_give_the_bits_of_the_undisturbed_run_3: 500..750;
    random_schedules_give_the_bits_of_the_undisturbed_run_4: 750..1_000;
    random_schedules_give_the_bits_of_the_undisturbed_run_5: 1_000..1_250;
    random_schedules_give_the_bits_of_the_undisturbed_run_6: 1_250..1_500;
    random_schedules_give_the_bits_of_the_undisturbed_run_7: 1_500..1_750;
    random_schedules_give_the_bits_of_the_undisturbed_run_8: 1_750..2_000;
    kills_in_a_hundred_rounds_give_the_bits_of_the_undisturbed_run: LONG..LONG + 6;
    hidden_sums_survive_random_schedules_with_the_same_bits_1: HIDDEN..HIDDEN + 150;
    hidden_sums_survive_random_schedules_with_the_same_bits_2: HIDDEN + 150..HIDDEN + 300;
    hidden_sums_survive_random_schedules_with_the_same_bits_3: HIDDEN + 300..HIDDEN + 450;
    kills_in_twenty_hidden_rounds_give_the_bits_of_the_undisturbed_run: LONG_HIDDEN..LONG_HIDDEN + 6;
}
