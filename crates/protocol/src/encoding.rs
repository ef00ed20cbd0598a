//! The one encoding of a contribution: reals become integers on a scale that is fixed before the round.
//!
//! An element `x` is sent as `q = round(x · 2^exponent)`, ties to even. Integers add without rounding, so the sum is the same
//! bits for any order of arrival, and masking modulo a power of two (secure aggregation) is the same encoding.
//! A power of two as scale makes the multiplication exact; the only rounding is the one named above.
//!
//! Model vectors of 32-bit elements are rounded by chance instead ([`Encoding::encode_stochastically`]), so that the mean of many is not biased
//! by steps as coarse as theirs: up with the probability of the fraction.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::NodeId;

/// The most contributions that one sum takes; widths leave room for it.
pub const MAX_CONTRIBUTIONS: u32 = 1 << 16;

/// How wide an element is on the wire, and what it is summed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// 32-bit elements, |q| < 2^31, summed in 64 bits: float32 models.
    Bits32,
    /// 64-bit elements, |q| < 2^47, summed in 64 bits: counts.
    Bits64,
    /// 128-bit elements, |q| < 2^111, summed in 128 bits: float64 models and statistics.
    Bits128,
}

impl Width {
    /// Bytes of one element on the wire (little-endian two's complement).
    pub fn bytes(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
            Self::Bits128 => 16,
        }
    }

    /// |q| stays below two to this power, so that [`MAX_CONTRIBUTIONS`] of them cannot overflow the sum.
    fn magnitude_bits(self) -> i32 {
        match self {
            Self::Bits32 => 31,
            Self::Bits64 => 47,
            Self::Bits128 => 111,
        }
    }
}

/// Why values cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodingError {
    /// The scale is too fine; `exponent` is the largest that fits the values.
    #[error("a value is outside the range of the round's scale")]
    OutOfRange { exponent: i16 },
    #[error("a value is not a finite number")]
    NotFinite,
}

/// Width and scale of one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    pub width: Width,
    /// Two to this power is the scale. Between -1000 and 1000 for a scale that is an f64.
    pub exponent: i16,
}

impl Encoding {
    /// Counts: whole numbers below 2^47.
    pub const COUNT: Self = Self { width: Width::Bits64, exponent: 0 };
    /// Sums of float64 values: steps of 2^-64, up to 2^47 in absolute value.
    pub const REAL: Self = Self { width: Width::Bits128, exponent: 64 };

    /// Whether the exponent is one that [`encode`](Self::encode) can work with.
    pub fn is_valid(self) -> bool {
        self.exponent.unsigned_abs() <= 1000
    }

    fn scale(self) -> f64 {
        f64::from(self.exponent).exp2()
    }

    /// The largest exponent with which a value of this absolute size still fits.
    fn largest_exponent(self, largest: f64) -> i16 {
        // |x| < 2^(k+1) where k is the binary exponent of x, so |x|·2^e ≤ 2^bits - 1 holds for e = bits - k - 2.
        let mut exponent = 0;
        let mut size = largest;
        while size >= 1.0 {
            size /= 2.0;
            exponent -= 1;
        }
        i16::try_from(self.width.magnitude_bits() - 1 + exponent).unwrap_or(i16::MIN).min(self.exponent)
    }

    /// Encodes values to bytes, appended to `out`.
    ///
    /// On error nothing is appended. [`EncodingError::OutOfRange`] names an exponent with which these values fit.
    pub fn encode(self, values: impl ExactSizeIterator<Item = f64> + Clone, out: &mut Vec<u8>) -> Result<(), EncodingError> {
        let scale = self.scale();
        let limit = f64::from(self.width.magnitude_bits()).exp2();
        // Without a branch, so that several are looked at at once.
        let (largest, are_finite) = values.clone().fold((0.0_f64, true), |(largest, are_finite), value| {
            (largest.max(value.abs()), are_finite & value.is_finite())
        });
        if !are_finite {
            return Err(EncodingError::NotFinite);
        }
        // Rounding can carry to the limit itself, hence the comparison after rounding.
        if (largest * scale).round_ties_even() >= limit {
            return Err(EncodingError::OutOfRange { exponent: self.largest_exponent(largest) });
        }
        let start = out.len();
        out.resize(start + values.len() * self.width.bytes(), 0);
        let elements = &mut out[start..];
        match self.width {
            Width::Bits32 => {
                for (element, value) in elements.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *element = round_i32(value * scale).to_le_bytes();
                }
            }
            Width::Bits64 => {
                for (element, value) in elements.as_chunks_mut::<8>().0.iter_mut().zip(values) {
                    *element = round_i64(value * scale).to_le_bytes();
                }
            }
            Width::Bits128 => {
                for (element, value) in elements.as_chunks_mut::<16>().0.iter_mut().zip(values) {
                    *element = round_i128(value * scale).to_le_bytes();
                }
            }
        }
        Ok(())
    }

    /// Encodes values as [`encode`](Self::encode) does, but 32-bit elements are rounded up with the probability of their
    /// fraction, in steps of 2^-32: their expectation is `x · 2^exponent` (Gupta et al. 2015, §4). A whole number stays what it is.
    pub fn encode_stochastically(
        self,
        values: &[f64],
        rounding: &mut Rounding,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodingError> {
        if self.width != Width::Bits32 {
            return self.encode(values.iter().copied(), out);
        }
        let scale = self.scale();
        let limit = f64::from(self.width.magnitude_bits()).exp2();
        let (largest, are_finite) = extent(values);
        if !are_finite {
            return Err(EncodingError::NotFinite);
        }
        // Rounding up by chance can carry to the limit itself.
        if largest * scale > limit - 1.0 {
            return Err(EncodingError::OutOfRange { exponent: self.largest_exponent(largest) });
        }
        let start = out.len();
        out.resize(start + values.len() * 4, 0);
        // Drawn into the place of the elements, so that drawing and rounding are two plain loops.
        let elements = &mut out[start..];
        rounding.0.fill_bytes(elements);
        for (element, value) in elements.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *element = round_by_chance(value * scale, i32::from_le_bytes(*element)).to_le_bytes();
        }
        Ok(())
    }

    /// Turns a sum back into a real; rounds to nearest once.
    pub fn decode(self, sum: i128) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "rounding to the nearest f64 is what decoding means")]
        let value = sum as f64;
        value * f64::from(-self.exponent).exp2()
    }
}

/// The largest absolute value, and whether all are finite numbers. Several lanes, each without a branch, are looked at at once.
pub fn extent(values: &[f64]) -> (f64, bool) {
    const LANES: usize = 8;
    let (mut largest, mut odd) = ([0.0_f64; LANES], [0_u64; LANES]);
    let mut look = |lane: usize, value: f64| {
        let size = value.abs();
        largest[lane] = if size > largest[lane] { size } else { largest[lane] };
        odd[lane] = odd[lane].wrapping_add(u64::from(!value.is_finite()));
    };
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, value) in block.iter().enumerate() {
            look(lane, *value);
        }
    }
    for value in rest {
        look(0, *value);
    }
    (largest.into_iter().fold(0.0, f64::max), odd.iter().all(|odd| *odd == 0))
}

/// Rounds to even for |value| < 2^31 without a library call: adding 1.5 · 2^52 leaves the rounded integer, in two's complement,
/// in the low bits of the mantissa (Hacker's Delight, 2nd ed., §17-4).
#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the integer")]
fn round_i32(value: f64) -> i32 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    ((value + MAGIC).to_bits() as u32).cast_signed()
}

/// Rounds |value| ≤ 2^31 - 1 to one of its neighbours: away from the nearest with the probability of the distance to it, for a
/// `chance` that is uniform in 32 bits. Without a branch, as [`round_i32`].
#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the integer")]
fn round_by_chance(value: f64, chance: i32) -> i32 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    const STEP: f64 = 1.0 / 4_294_967_296.0;
    let nearest = value + MAGIC;
    // Exact: both are multiples of the value's last digit, and close to each other.
    let distance = value - (nearest - MAGIC);
    let threshold = (f64::from(chance) + 2_147_483_648.5) * STEP;
    let away = if threshold < distance.abs() { 1.0_f64.copysign(distance) } else { 0.0 };
    ((nearest + away).to_bits() as u32).cast_signed()
}

#[expect(clippy::cast_possible_truncation, reason = "the caller checked the magnitude; `as` from a float saturates")]
fn round_i64(value: f64) -> i64 {
    value.round_ties_even() as i64
}

#[expect(clippy::cast_possible_truncation, reason = "the caller checked the magnitude; `as` from a float saturates")]
fn round_i128(value: f64) -> i128 {
    value.round_ties_even() as i128
}

/// The chance with which one contribution is rounded: the same for every attempt of one node at one training round.
///
/// Nobody is protected by it, so that it may be known: who runs an experiment again with its seed gets the same bits.
#[derive(Debug, Clone)]
pub struct Rounding(Xoshiro256PlusPlus);

impl Rounding {
    /// The chance of a node in a training round of a plan with this seed.
    pub fn new(seed: u64, training_round: u32, node: &NodeId) -> Self {
        let mut bytes = seed.to_le_bytes().to_vec();
        bytes.extend(training_round.to_le_bytes());
        bytes.extend(node.as_str().as_bytes());
        Self(Xoshiro256PlusPlus::from_seed(blake3::derive_key("fedbiomed 2026-11 rounding of model differences v1", &bytes)))
    }
}

/// The running sum of one vector over contributions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integers {
    /// Sums of 32-bit and 64-bit elements.
    Wide64(Vec<i64>),
    /// Sums of 128-bit elements.
    Wide128(Vec<i128>),
}

impl Integers {
    pub fn zeros(width: Width, len: usize) -> Self {
        match width {
            Width::Bits32 | Width::Bits64 => Self::Wide64(vec![0; len]),
            Width::Bits128 => Self::Wide128(vec![0; len]),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Wide64(sums) => sums.len(),
            Self::Wide128(sums) => sums.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the elements of one contribution. False, with nothing added, if the bytes are not exactly as many elements of
    /// this width within its magnitude.
    #[must_use]
    pub fn add(&mut self, width: Width, bytes: &[u8]) -> bool {
        if bytes.len() != self.len() * width.bytes() {
            return false;
        }
        match (self, width) {
            (Self::Wide64(sums), Width::Bits32) => {
                for (sum, element) in sums.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *sum += i64::from(i32::from_le_bytes(*element));
                }
                true
            }
            (Self::Wide64(sums), Width::Bits64) => {
                let elements = bytes.as_chunks::<8>().0;
                let fits = |element: &[u8; 8]| i64::from_le_bytes(*element).unsigned_abs() < 1 << 47;
                if !elements.iter().all(fits) {
                    return false;
                }
                for (sum, element) in sums.iter_mut().zip(elements) {
                    *sum += i64::from_le_bytes(*element);
                }
                true
            }
            (Self::Wide128(sums), Width::Bits128) => {
                let elements = bytes.as_chunks::<16>().0;
                let fits = |element: &[u8; 16]| i128::from_le_bytes(*element).unsigned_abs() < 1 << 111;
                if !elements.iter().all(fits) {
                    return false;
                }
                for (sum, element) in sums.iter_mut().zip(elements) {
                    *sum += i128::from_le_bytes(*element);
                }
                true
            }
            _ => false,
        }
    }

    /// The sums one by one.
    pub fn sums(&self) -> Box<dyn Iterator<Item = i128> + '_> {
        match self {
            Self::Wide64(sums) => Box::new(sums.iter().map(|sum| i128::from(*sum))),
            Self::Wide128(sums) => Box::new(sums.iter().copied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(encoding: Encoding, values: &[f64]) -> Result<Vec<u8>, EncodingError> {
        let mut out = Vec::new();
        encoding.encode(values.iter().copied(), &mut out).map(|()| out)
    }

    #[test]
    fn ties_round_to_even() {
        let encoding = Encoding { width: Width::Bits32, exponent: 0 };
        let bytes = encode(encoding, &[0.5, 1.5, 2.5, -0.5, -1.5]).unwrap();
        let integers: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
        assert_eq!(integers, [0, 2, 2, 0, -2]);
    }

    #[test]
    fn not_a_number_and_infinity_are_refused() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(encode(Encoding::REAL, &[1.0, value]), Err(EncodingError::NotFinite));
        }
    }

    #[test]
    fn the_limit_of_each_width_is_refused_and_one_below_is_taken() {
        for (width, bits) in [(Width::Bits32, 31), (Width::Bits64, 47)] {
            let encoding = Encoding { width, exponent: 0 };
            let limit = f64::from(bits).exp2();
            assert!(encode(encoding, &[limit - 1.0]).is_ok());
            assert!(matches!(encode(encoding, &[limit]), Err(EncodingError::OutOfRange { .. })));
            assert!(matches!(encode(encoding, &[-limit]), Err(EncodingError::OutOfRange { .. })));
        }
    }

    fn rounding(seed: u64) -> Rounding {
        Rounding::new(seed, 1, &"NODE_00000000-0000-4000-8000-000000000001".parse().unwrap())
    }

    fn rounded(rounding: &mut Rounding, values: &[f64]) -> Vec<i32> {
        let mut bytes = Vec::new();
        Encoding { width: Width::Bits32, exponent: 0 }.encode_stochastically(values, rounding, &mut bytes).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
    }

    /// A mean of n draws of a step of probability f has the standard deviation sqrt(f (1 - f) / n); 5.33 of them are exceeded once in
    /// 10^7 by chance (normal, two-sided), which over 12 fractions is a false alarm in 10^6 seeds. The seed is fixed.
    #[test]
    fn rounding_by_chance_is_not_biased() {
        let n = 1 << 18;
        for (index, fraction) in [0.5, 0.25, 0.1, 0.01, 0.75, 0.999].into_iter().enumerate() {
            for whole in [3.0, -70_000.0] {
                let value = whole + fraction;
                let values = vec![value; n];
                let sum: f64 = rounded(&mut rounding(index as u64), &values).iter().map(|q| f64::from(*q)).sum();
                let deviation = (fraction * (1.0 - fraction) / n as f64).sqrt();
                assert!((sum / n as f64 - value).abs() <= 5.33 * deviation, "{value}: {}", sum / n as f64);
            }
        }
    }

    #[test]
    fn rounding_by_chance_is_the_same_for_the_same_round_and_goes_to_neighbours_only() {
        let values: Vec<f64> = (0..1000).map(|i| (f64::from(i) - 500.0) * 0.37).collect();
        let first = rounded(&mut rounding(1), &values);
        assert_eq!(first, rounded(&mut rounding(1), &values));
        assert_ne!(first, rounded(&mut rounding(2), &values));
        for (q, value) in first.iter().zip(&values) {
            assert!(f64::from(*q) == value.floor() || f64::from(*q) == value.ceil(), "{value} became {q}");
        }
        // In one piece or in blocks.
        let mut blocks = rounding(1);
        let pieces: Vec<i32> = values.chunks(256).flat_map(|block| rounded(&mut blocks, block)).collect();
        assert_eq!(first, pieces);
        // As it was when contributions of this version were first summed.
        assert_eq!(first[..8], [-185, -185, -184, -184, -183, -183, -183, -182]);
    }

    #[test]
    fn what_chance_could_carry_over_the_limit_is_refused() {
        let encoding = Encoding { width: Width::Bits32, exponent: 0 };
        let limit = 31_f64.exp2();
        let encode = |value: f64| encoding.encode_stochastically(&[value], &mut rounding(1), &mut Vec::new());
        assert!(encode(limit - 1.0).is_ok());
        assert!(encode(1.0 - limit).is_ok());
        assert!(matches!(encode(limit - 0.9), Err(EncodingError::OutOfRange { .. })));
        assert_eq!(encode(f64::NAN), Err(EncodingError::NotFinite));
    }

    #[test]
    fn the_extent_of_any_number_of_values_is_that_of_each() {
        let values: Vec<f64> = (0..40).map(|i| (f64::from(i) * 1.7).sin() * 1e3).collect();
        for len in 0..values.len() {
            let largest = values[..len].iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            assert_eq!(extent(&values[..len]), (largest, true));
            for (at, wrong) in (0..len).zip([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().cycle()) {
                let mut values = values[..len].to_vec();
                values[at] = wrong;
                assert!(!extent(&values).1, "{wrong} at {at} of {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_not_rounded(whole in -2_147_483_647_i32..i32::MAX, seed in 0_u64..9) {
            prop_assert_eq!(rounded(&mut rounding(seed), &[f64::from(whole)]), [whole]);
        }

        #[test]
        fn the_exponent_named_by_out_of_range_fits(value in 1e-3_f64..1e30, exponent in 0_i16..200) {
            for width in [Width::Bits32, Width::Bits64, Width::Bits128] {
                if let Err(EncodingError::OutOfRange { exponent }) = encode(Encoding { width, exponent }, &[value]) {
                    let wider = Encoding { width, exponent };
                    prop_assert!(encode(wider, &[value, -value]).is_ok());
                }
            }
        }

        #[test]
        fn the_sum_does_not_depend_on_the_order(values in proptest::collection::vec(-1e6_f64..1e6, 2..40), turn in 0_usize..40) {
            let encoding = Encoding { width: Width::Bits128, exponent: 64 };
            let sum = |values: &[f64]| {
                let mut sums = Integers::zeros(encoding.width, 1);
                for value in values {
                    assert!(sums.add(encoding.width, &encode(encoding, &[*value]).unwrap()));
                }
                sums
            };
            let mut turned = values.clone();
            turned.rotate_left(turn % values.len());
            prop_assert_eq!(sum(&values), sum(&turned));
        }

        #[test]
        fn the_fast_rounding_is_round_ties_even(value in -2_147_483_647.0_f64..2_147_483_647.0, half in -1_000_000_i32..1_000_000) {
            for value in [value, f64::from(half) / 2.0] {
                prop_assert_eq!(f64::from(round_i32(value)), value.round_ties_even());
            }
        }

        #[test]
        fn decoding_is_within_half_a_step(value in -1e3_f64..1e3) {
            let encoding = Encoding { width: Width::Bits32, exponent: 20 };
            let bytes = encode(encoding, &[value]).unwrap();
            let q = i32::from_le_bytes(bytes.as_slice().try_into().unwrap());
            prop_assert!((encoding.decode(i128::from(q)) - value).abs() <= 0.5 / 20_f64.exp2());
        }
    }
}
