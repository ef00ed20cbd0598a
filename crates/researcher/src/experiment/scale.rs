//! The scales of a round: an exponent for each vector, fixed before the round from what is public by then.
//!
//! Float64 vectors have one scale that fits nearly everything. Float32 models have 31 bits only, so their scale follows the
//! size of the last aggregate. A value outside repeats the round with a wider scale; the choice never depends on who was first.

use std::collections::BTreeMap;

use protocol::encoding::MAX_CONTRIBUTIONS;
use protocol::{Purpose, VectorSpec, Width};

/// One node's value may be 2 to this power times the largest of the last aggregate. 25 bits below remain: float32 has 24.
const HEADROOM_BITS: i16 = 6;
/// What a repetition adds to what was asked for, so that a slightly different training fits too.
const REPEAT_BITS: i16 = 1;

/// The exponents of model vectors, by name.
pub(super) type Scales = BTreeMap<String, i16>;

/// The smallest whole number b with |value| < 2^b; for a finite value that is not 0.
fn bits(value: f64) -> i16 {
    let mut bits = 0;
    let mut size = value.abs();
    while size >= 1.0 {
        size /= 2.0;
        bits += 1;
    }
    while size < 0.5 {
        size *= 2.0;
        bits -= 1;
    }
    bits
}

fn fits_32(bits: i16) -> i16 {
    (31 - bits).clamp(-1000, 1000)
}

/// The finest scale with which the hidden sum of 32-bit elements cannot leave its modulus: rows weigh at most `range` each, and every
/// node rounds by less than one.
pub(super) fn hidden_32(range: f64, rows: u64) -> i16 {
    let most = range * rows as f64;
    let exponent = fits_32(bits(most));
    let fits = most * f64::from(exponent).exp2() + f64::from(MAX_CONTRIBUTIONS) < f64::from(31).exp2();
    if fits { exponent } else { exponent - 1 }
}

/// The range of the next round's differences, from the largest of the last mean difference.
pub(super) fn range(mean: f64) -> f64 {
    f64::from(bits(mean) + HEADROOM_BITS).exp2()
}

/// Puts the scales that earlier rounds left into a layout.
pub(super) fn apply(layout: &mut [VectorSpec], scales: &Scales) {
    for spec in layout.iter_mut().filter(|spec| spec.purpose == Purpose::Model) {
        if let Some(exponent) = scales.get(&spec.name) {
            spec.encoding.exponent = *exponent;
        }
    }
}

/// The scales for the next round, from the largest absolute value of each model vector's aggregate.
pub(super) fn follow(scales: &mut Scales, layout: &[VectorSpec], largest: &BTreeMap<String, f64>) {
    for spec in layout.iter().filter(|spec| spec.purpose == Purpose::Model) {
        let size = largest.get(&spec.name).copied().unwrap_or(0.0);
        let exponent = match spec.encoding.width {
            Width::Bits32 if size > 0.0 => fits_32(bits(size) + HEADROOM_BITS),
            _ => spec.encoding.exponent,
        };
        scales.insert(spec.name.clone(), exponent);
    }
}

/// The smallest exponent that a node may ask for; below it values are larger than any training or statistic of f32 (2^128 times
/// 2^32 rows) or f64 data gives, and everybody else's would be lost in the rounding.
fn floor(width: Width) -> i16 {
    match width {
        Width::Bits32 => 31 - 160,
        // Counts are exact.
        Width::Bits64 => 0,
        Width::Bits128 => -900,
    }
}

/// Whether exponents are an answer to a layout's scales: as many, none finer or below the floor, at least one wider.
pub(super) fn is_answer(layout: &[VectorSpec], exponents: &[i16]) -> bool {
    let each = || layout.iter().map(|spec| spec.encoding).zip(exponents);
    layout.len() == exponents.len()
        && each()
            .all(|(asked, exponent)| *exponent == asked.exponent || (floor(asked.width)..asked.exponent).contains(exponent))
        && each().any(|(asked, exponent)| *exponent < asked.exponent)
}

/// Widens the scales so that all nodes' values fit; false if nothing would change or no scale is wide enough.
pub(super) fn widen<'asked>(layout: &mut [VectorSpec], asked: impl Iterator<Item = &'asked Vec<i16>>) -> bool {
    let mut narrowest: Vec<i16> = layout.iter().map(|spec| spec.encoding.exponent).collect();
    for exponents in asked.filter(|exponents| exponents.len() == layout.len()) {
        for (least, exponent) in narrowest.iter_mut().zip(exponents) {
            *least = (*least).min(*exponent);
        }
    }
    let mut is_wider = false;
    for (spec, least) in layout.iter_mut().zip(narrowest) {
        if least < spec.encoding.exponent {
            spec.encoding.exponent = least.saturating_sub(REPEAT_BITS);
            is_wider = true;
        }
    }
    is_wider && layout.iter().all(|spec| spec.encoding.is_valid())
}

/// How many bits the 32-bit vectors of a layout have become wider.
pub(super) fn widening(before: &[VectorSpec], after: &[VectorSpec]) -> u32 {
    let pairs = before.iter().zip(after).filter(|(before, _)| before.encoding.width == Width::Bits32);
    let bits = pairs.map(|(before, after)| before.encoding.exponent.saturating_sub(after.encoding.exponent));
    bits.filter_map(|bits| u32::try_from(bits).ok()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use protocol::Encoding;

    use super::*;

    fn layout(width: Width, exponent: i16) -> Vec<VectorSpec> {
        let encoding = Encoding { width, exponent };
        vec![VectorSpec { purpose: Purpose::Model, name: "w".into(), shape: vec![2], encoding }]
    }

    #[test]
    fn bits_bound_the_value_from_above() {
        for (value, expected) in [(1.0, 1), (0.5, 0), (0.25, -1), (3.0, 2), (4.0, 3), (-1000.0, 10), (1.5e-300, -995)] {
            assert_eq!(bits(value), expected, "{value}");
        }
    }

    #[test]
    fn the_next_scale_leaves_headroom_and_24_bits() {
        let mut scales = Scales::new();
        let layout = layout(Width::Bits32, 3);
        follow(&mut scales, &layout, &BTreeMap::from([("w".to_owned(), 100.0)]));
        let exponent = scales["w"];
        assert!(100.0 * 64.0 * f64::from(exponent).exp2() < 31_f64.exp2());
        assert!(100.0 * f64::from(exponent).exp2() >= 24_f64.exp2());
        follow(&mut scales, &layout, &BTreeMap::from([("w".to_owned(), 0.0)]));
        assert_eq!(scales["w"], 3, "an aggregate of zeros says nothing");
    }

    #[test]
    fn an_answer_is_wider_within_bounds_and_leaves_counts_alone() {
        let of = |encoding| VectorSpec { purpose: Purpose::Model, name: "w".into(), shape: vec![2], encoding };
        let narrow = Encoding { width: Width::Bits32, exponent: 20 };
        let layout = [of(Encoding::COUNT), of(Encoding::REAL), of(narrow)];
        for exponents in [[0, 40, 20], [0, 64, -129], [0, -900, 3]] {
            assert!(is_answer(&layout, &exponents), "{exponents:?}");
        }
        for exponents in [[0, 64, 20], [-1, 40, 20], [0, 40, 21], [0, -901, 20], [0, 64, -130], [0, i16::MIN, 20]] {
            assert!(!is_answer(&layout, &exponents), "{exponents:?}");
        }
        assert!(!is_answer(&layout, &[0, 40]) && !is_answer(&layout, &[]) && !is_answer(&layout, &[0, 40, 20, 1]));
    }

    #[test]
    fn widening_takes_the_widest_that_was_asked_for() {
        let mut layout = layout(Width::Bits128, 64);
        assert!(widen(&mut layout, [vec![40], vec![50]].iter()));
        assert_eq!(layout[0].encoding.exponent, 39);
        assert!(!widen(&mut layout, [vec![64]].iter()));
        assert!(!widen(&mut layout, [vec![-2000]].iter()));
    }
}
