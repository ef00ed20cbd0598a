//! What goes wrong when, drawn from a seed.

use std::ops::RangeInclusive;
use std::time::Duration;

use component::database::CommitSide;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use transport::memory::Faults;

use crate::life::{Fuse, LifePlan};
use crate::world::{Place, World};

/// The longest that a daemon stays away, in milliseconds.
pub const LONGEST_AWAY_MS: u64 = 30_000;

/// One component's lives before the one that has no end, and its way to the researcher.
#[derive(Debug, Clone)]
pub struct Fate {
    pub place: Place,
    pub lives: Vec<LifePlan>,
    pub faults: Faults,
}

/// What goes wrong in one run.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub fates: Vec<Fate>,
}

/// A number whose size is as likely to be small as large.
fn log_uniform(range: RangeInclusive<u64>, rng: &mut StdRng) -> u64 {
    let (least, most) = ((*range.start()).max(1), *range.end());
    let exponent = rng.random_range(0..=most.ilog2() - least.ilog2());
    let low = least << exponent;
    rng.random_range(low..=(low * 2 - 1).min(most).max(low))
}

fn fuse(rng: &mut StdRng) -> Fuse {
    match rng.random_range(0..4) {
        0 => Fuse::After(Duration::from_millis(log_uniform(1..=20_000, rng))),
        1 => Fuse::Reading(log_uniform(1..=500, rng)),
        2 => Fuse::Commit(log_uniform(1..=60, rng), CommitSide::Before),
        _ => Fuse::Commit(log_uniform(1..=60, rng), CommitSide::After),
    }
}

fn life(rng: &mut StdRng) -> LifePlan {
    let first = log_uniform(1..=60, rng);
    LifePlan {
        fuse: fuse(rng),
        away: Duration::from_millis(log_uniform(1..=LONGEST_AWAY_MS, rng)),
        work: Duration::from_millis(rng.random_range(0..1_000)),
        haste_ms: if rng.random_ratio(1, 2) { log_uniform(1..=500, rng) } else { 0 },
        disk_full: if rng.random_ratio(1, 4) { first..first + rng.random_range(1..5) } else { 0..0 },
    }
}

fn faults(rng: &mut StdRng) -> Faults {
    let some = |share: u32, rng: &mut StdRng| rng.random_ratio(share, 10);
    Faults {
        delay_ms: some(8, rng).then(|| 0..=log_uniform(1..=300, rng)),
        cut_after: some(4, rng).then(|| rng.random_range(1..8)..=rng.random_range(16..80)),
        silent_ms: some(3, rng).then(|| 0..=log_uniform(1..=20_000, rng)),
        damaged_per_mille: if some(3, rng) { rng.random_range(1..60) } else { 0 },
        unreachable_per_mille: if some(3, rng) { rng.random_range(1..500) } else { 0 },
    }
}

impl Schedule {
    /// Draws a schedule for a researcher and so many sites, each of which dies so many times at most.
    pub fn draw(seed: u64, sites: usize, most_deaths: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let places = [Place::Researcher].into_iter().chain((0..sites).map(Place::Site));
        let fates = places.map(|place| {
            let deaths = log_uniform(1..=most_deaths + 1, &mut rng) - 1;
            Fate { place, lives: (0..deaths).map(|_| life(&mut rng)).collect(), faults: faults(&mut rng) }
        });
        Self { fates: fates.collect() }
    }

    /// Lets everybody live as drawn.
    pub fn apply(&self, world: &World) {
        for fate in &self.fates {
            if let Place::Site(site) = fate.place {
                world.set_faults(site, fate.faults.clone());
            }
            world.keep(fate.place, fate.lives.clone());
        }
    }
}
