//! The hash of a label into Z*_{N²} (Joye-Libert 2013, §3: `H: Z → Z*_{N²}`, here over its full width), and labels.

use sha2::{Digest, Sha256};

use super::group::{Element, Full, Group, Half};
use super::keys::KeysId;
use crate::mask::VectorName;
use crate::session::{Context, Terms};
use crate::wire::Joined;

/// Blocks of SHA-256 of a hash: 4352 bits, 256 more than an element has, so that reducing leaves a bias below 2⁻²⁵⁵.
const BLOCKS: u32 = 17;

/// What one vector is encrypted under: keys, context, number, purpose and name. One vector is ever encrypted under one label.
#[derive(Clone)]
pub struct Label(Sha256);

impl Label {
    /// Joins what tells one vector from all others; the terms are what all nodes must agree on for the sum to have a meaning.
    pub fn new(keys: KeysId, context: &Context, terms: Terms, vector: VectorName<'_>) -> Self {
        let joined =
            super::name(Joined::label("jl hash").raw(&keys.0.0).raw(context.joined().as_ref()).raw(&terms.0.0), vector);
        Self(Sha256::new_with_prefix(joined.as_ref()))
    }

    /// Returns 32 bytes that tell this label from others.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }

    /// Hashes the label and the number of a ciphertext into Z*_{N²}.
    pub(super) fn hash(&self, group: &Group, ciphertext: u64) -> Element {
        for attempt in 0..=u32::MAX {
            let element = group.reduce_wide(&self.wide(ciphertext, attempt));
            // Anything else is a factor of N, and will not be seen.
            if element.low.gcd_vartime(group.modulus().as_ref()) == Half::ONE {
                return element;
            }
        }
        unreachable!("2^32 hashes in a row divide a number of two large primes")
    }

    /// Returns the 4352 bits before they are reduced, as (the highest 256, the others).
    pub(super) fn wide(&self, ciphertext: u64, attempt: u32) -> (Half, Full) {
        let mut state = self.0.clone();
        state.update(ciphertext.to_be_bytes());
        state.update(attempt.to_be_bytes());
        let seed = state.finalize();
        let block = |number: u32| Sha256::new().chain_update(seed).chain_update(number.to_be_bytes()).finalize();
        let first = Half::from_be_slice_truncated(&block(0), Half::BITS);
        let others: Vec<u8> = (1..BLOCKS).flat_map(block).collect();
        (first, Full::from_be_slice(&others))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::party::Experiment;
    use crate::wire::Fixed;

    fn context(round: u32, attempt: u32, phase: u16) -> Context {
        Context { experiment: Experiment::new("e").unwrap(), round, attempt, phase }
    }

    fn terms(byte: u8) -> Terms {
        Terms(Fixed([byte; 32]))
    }

    fn label(number: u8) -> Label {
        let name = VectorName { index: u32::from(number), purpose: "update", name: "w" };
        Label::new(KeysId(Fixed([number; 32])), &context(1, 0, 0), terms(9), name)
    }

    #[test]
    fn keys_experiments_rounds_attempts_phases_terms_vectors_purposes_and_names_are_told_apart() {
        let name = |index, purpose, name| VectorName { index, purpose, name };
        let keys = |byte| KeysId(Fixed([byte; 32]));
        let other = Context { experiment: Experiment::new("f").unwrap(), ..context(1, 0, 0) };
        let labels = [
            Label::new(keys(0), &context(1, 0, 0), terms(0), name(0, "update", "w")),
            Label::new(keys(1), &context(1, 0, 0), terms(0), name(0, "update", "w")),
            Label::new(keys(0), &context(1, 0, 0), terms(1), name(0, "update", "w")),
            Label::new(keys(0), &other, terms(0), name(0, "update", "w")),
            Label::new(keys(0), &context(2, 0, 0), terms(0), name(0, "update", "w")),
            Label::new(keys(0), &context(1, 1, 0), terms(0), name(0, "update", "w")),
            Label::new(keys(0), &context(1, 0, 1), terms(0), name(0, "update", "w")),
            Label::new(keys(0), &context(1, 0, 0), terms(0), name(1, "update", "w")),
            Label::new(keys(0), &context(1, 0, 0), terms(0), name(0, "loss", "w")),
            Label::new(keys(0), &context(1, 0, 0), terms(0), name(0, "update", "b")),
            Label::new(keys(0), &context(1, 0, 0), terms(0), name(0, "updatew", "")),
            Label::new(keys(0), &context(1, 0, 0), terms(0), name(0, "", "updatew")),
        ];
        let group = Group::rsa_2048();
        let mut hashes = BTreeSet::new();
        for label in &labels {
            for ciphertext in [0, 1, u64::from(u32::MAX) + 1] {
                hashes.insert(group.bytes(&label.hash(&group, ciphertext)));
            }
        }
        assert_eq!(hashes.len(), 3 * labels.len());
        assert_eq!(labels.iter().map(Label::digest).collect::<BTreeSet<_>>().len(), labels.len());
    }

    /// Chi-square on every one of the 512 bytes of 2,048 hashes. N² begins with the bits of 0.608…, so that the highest byte is not
    /// uniform; it and the next are compared with what N² makes of them. 255 degrees of freedom: a value above 400 has a
    /// probability of 1.4e-8, for 512 bytes together 7e-6 were the labels drawn anew; they are fixed.
    #[test]
    fn hashes_fill_the_whole_width_uniformly() {
        const SAMPLES: u64 = 2048;
        let group = Group::rsa_2048();
        let label = label(7);
        let samples: Vec<_> = (0..SAMPLES).map(|number| group.bytes(&label.hash(&group, number))).collect();
        let (low, high) = group.modulus().as_ref().widening_square();
        let square = low.concat(&high).to_be_bytes();
        let top = f64::from(u16::from_be_bytes([square.as_ref()[0], square.as_ref()[1]])) / 256.0;
        for place in 0..512 {
            let mut counts = [0.0; 256];
            for sample in &samples {
                counts[usize::from(sample[place])] += 1.0;
            }
            let probability = |byte: f64| if place == 0 { (top - byte).clamp(0.0, 1.0) / top } else { 1.0 / 256.0 };
            let mut chi_square = 0.0;
            for (byte, count) in (0_u16..).zip(counts) {
                let expected = probability(f64::from(byte)) * SAMPLES as f64;
                if expected == 0.0 {
                    assert_eq!(count, 0.0, "byte {byte} at {place} is above N²");
                } else if expected > 1.0 {
                    chi_square += (count - expected) * (count - expected) / expected;
                }
            }
            assert!(chi_square < 400.0, "byte {place}: {chi_square}");
        }
    }

    #[test]
    fn the_hash_is_4352_bits_of_sha_256_reduced_once() {
        let (group, label) = (Group::rsa_2048(), label(3));
        let (first, others) = label.wide(5, 0);
        assert!(first.bit_width_vartime() > 200 && first.bit_width_vartime() <= 256);
        assert!(others.bit_width_vartime() > 4000);
        assert_ne!(label.wide(5, 0), label.wide(5, 1), "another try is another number");
        let (low, high) = group.modulus().as_ref().widening_square();
        let square = crypto_bigint::NonZero::new(low.concat(&high).resize::<96>()).unwrap();
        let whole = first.resize::<96>().shl_vartime(4096).wrapping_add(&others.resize());
        let expected = whole.rem_vartime(&square).resize::<64>();
        assert_eq!(group.bytes(&label.hash(&group, 5))[..], *expected.to_be_bytes().as_ref());
    }
}
