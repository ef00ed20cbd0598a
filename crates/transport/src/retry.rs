//! How long to wait before trying again: exponential back-off with jitter.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(200);

/// Waiting times that double from 0.2 s up to a limit; each is between half of its nominal value and all of it, so that
/// nodes that lost their researcher together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    limit: Duration,
}

impl Backoff {
    /// For reconnecting: up to 5 s, so that the nodes of a researcher that restarted are back before a selection ends (10 s).
    pub fn patient() -> Self {
        Self { next: FIRST, limit: Duration::from_secs(5) }
    }

    /// For a transfer that is under way: up to 1 s.
    pub fn transfer() -> Self {
        Self { next: FIRST, limit: Duration::from_secs(1) }
    }

    /// How long to wait this time.
    pub fn wait(&mut self, rng: &mut impl rand::Rng) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.limit);
        nominal.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_to_the_limit_and_differ() {
        let mut rng = StdRng::seed_from_u64(1);
        for (mut backoff, limit) in [(Backoff::patient(), 5_000), (Backoff::transfer(), 1_000)] {
            for nominal in [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400] {
                let nominal = Duration::from_millis(nominal.min(limit));
                let wait = backoff.wait(&mut rng);
                assert!((nominal / 2..=nominal).contains(&wait), "{wait:?} of {nominal:?}");
            }
            assert_ne!(backoff.wait(&mut rng), backoff.wait(&mut rng));
            backoff.reset();
            assert!(backoff.wait(&mut rng) <= FIRST);
        }
    }
}
