//! Random draws: every stream is derived from the plan's seed with a label, so that any draw can be repeated from words alone.
//!
//! A stream's key is BLAKE3 of the label, a zero byte, the seed (eight bytes, little-endian) and the parts that the label asks
//! for, each text followed by a zero byte. The key seeds `ChaCha12`. The draws themselves are written out here, because
//! libraries may change theirs from version to version.

use protocol::{Digest, NodeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// The key of one stream of random draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream([u8; 32]);

impl Stream {
    fn derive(label: &str, seed: u64, parts: &[&[u8]]) -> Self {
        let mut bytes = [label.as_bytes(), &[0], &seed.to_le_bytes()].concat();
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Self(*Digest::of(&bytes).as_bytes())
    }

    /// The stream of a model's first parameters: the same for all nodes.
    pub fn initial(seed: u64) -> Self {
        Self::derive("fedbiomed learning initial parameters v1", seed, &[])
    }

    /// The stream that orders the rows in one training round of one node.
    pub fn training(seed: u64, node: &NodeId, training_round: u32) -> Self {
        let parts = [node.as_str().as_bytes(), &[0], &training_round.to_le_bytes()];
        Self::derive("fedbiomed learning row order v1", seed, &parts)
    }

    /// The stream that draws the held-out rows of one node: the same in every round, and in an experiment that repeats the plan.
    pub fn split(seed: u64, node: &NodeId) -> Self {
        Self::derive("fedbiomed learning held-out rows v1", seed, &[node.as_str().as_bytes(), &[0]])
    }

    /// The generator of part `number` of the stream; parts do not overlap.
    pub(crate) fn part(self, number: u64) -> Draws {
        let mut generator = ChaCha12Rng::from_seed(self.0);
        generator.set_stream(number);
        Draws(generator)
    }
}

/// Draws from one part of a stream.
pub(crate) struct Draws(ChaCha12Rng);

impl Draws {
    /// Draws a whole number below `bound` without bias (Lemire 2019, "Fast random integer generation in an interval", Algorithm 5).
    fn below(&mut self, bound: u32) -> u32 {
        let bound = u64::from(bound);
        let mut product = u64::from(self.0.next_u32()) * bound;
        if low(product) < bound {
            let reject = (1_u64 << 32) % bound;
            while low(product) < reject {
                product = u64::from(self.0.next_u32()) * bound;
            }
        }
        u32::try_from(product >> 32).expect("a product of two 32-bit numbers has 64 bits")
    }

    /// Puts the elements in a random order, each order as likely as any other (Durstenfeld 1964, "Algorithm 235").
    pub(crate) fn shuffle(&mut self, elements: &mut [u32]) {
        for last in (1..elements.len()).rev() {
            let bound = u32::try_from(last + 1).expect("tables have fewer than 2^32 rows");
            elements.swap(last, self.below(bound) as usize);
        }
    }

    /// Draws from the interval from `-limit` to `limit`, in steps of `limit`·2⁻⁵².
    pub(crate) fn symmetric(&mut self, limit: f64) -> f64 {
        let share = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        limit * (2.0 * share - 1.0)
    }
}

/// The low 32 bits.
fn low(product: u64) -> u64 {
    product & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;

    use super::*;

    fn node() -> NodeId {
        NodeId::random(&mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn streams_differ_by_label_seed_node_round_and_part() {
        let other = NodeId::random(&mut StdRng::seed_from_u64(2));
        let streams = [
            Stream::initial(0),
            Stream::initial(1),
            Stream::training(0, &node(), 0),
            Stream::training(0, &node(), 1),
            Stream::training(0, &other, 0),
            Stream::training(1, &node(), 0),
            Stream::split(0, &node()),
            Stream::split(0, &other),
        ];
        for (index, stream) in streams.iter().enumerate() {
            assert!(!streams[..index].contains(stream), "{index}");
        }
        assert_ne!(streams[0].part(0).0.next_u64(), streams[0].part(1).0.next_u64());
    }

    #[test]
    fn draws_never_change_from_version_to_version() {
        let mut order: Vec<u32> = (0..10).collect();
        Stream::initial(7).part(0).shuffle(&mut order);
        assert_eq!(order, [4, 6, 3, 0, 5, 1, 7, 2, 8, 9]);
    }

    #[test]
    fn every_order_of_three_is_as_likely() {
        // 60,000 draws of six orders: counts have mean 10,000 and deviation 91; outside ±600 (6.5 deviations) by chance in
        // fewer than one of 10^9 runs.
        let mut counts = std::collections::BTreeMap::new();
        let mut draws = Stream::initial(11).part(0);
        for _ in 0..60_000 {
            let mut order = [0, 1, 2];
            draws.shuffle(&mut order);
            *counts.entry(order).or_insert(0_i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (count - 10_000).abs() < 600), "{counts:?}");
    }

    #[test]
    fn symmetric_draws_stay_in_their_interval_and_fill_it() {
        let mut draws = Stream::initial(5).part(0);
        let values: Vec<f64> = (0..10_000).map(|_| draws.symmetric(0.5)).collect();
        assert!(values.iter().all(|value| value.abs() <= 0.5));
        assert!(values.iter().any(|value| *value > 0.49) && values.iter().any(|value| *value < -0.49));
    }
}
