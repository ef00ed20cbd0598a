//! From computed values to the bytes that leave, a block at a time: weighted, clipped where the sum is hidden, rounded, masked.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use protocol::{EncodingError, Purpose, Rounding, Scalars, VectorSpec};

use super::{Outcome, Values};
use crate::secure::LomMasks;

/// Elements that are encoded at a time: few enough to stay near the processor.
const BLOCK: usize = 1 << 13;
/// Bytes that are masked and written at a time, at least, before the end.
const WRITE_BYTES: usize = 256 << 10;

/// How a contribution is hidden.
#[derive(Clone, Copy)]
pub(super) struct Hiding<'a> {
    /// Added to the elements; absent where they are encrypted afterwards.
    pub masks: Option<&'a LomMasks>,
    /// The range of each model vector, per unit of weight.
    pub clipping: &'a BTreeMap<String, f64>,
}

/// What encoding a whole contribution came to.
pub(super) enum Written {
    All {
        /// How many elements were moved to the edge of their range.
        clipped: u64,
    },
    /// Exponents that fit.
    OutOfRange(Vec<i16>),
    /// The vector of this name has a value that is not a finite number.
    NotFinite(String),
}

/// Weights differences, within ±`range`; says whether all are finite and how many were outside. Written so that several elements are
/// worked on at once: into a buffer of known length, counted without a branch and without a check for the 2⁶⁴th.
fn weighted<T: Copy + Into<f64>>(
    trained: &[T],
    global: &[T],
    weight: f64,
    range: Option<f64>,
    out: &mut Vec<f64>,
) -> (bool, u64) {
    out.resize(trained.len(), 0.0);
    let pairs = out.iter_mut().zip(trained.iter().zip(global));
    let Some(range) = range else {
        pairs.for_each(|(out, (trained, global))| *out = ((*trained).into() - (*global).into()) * weight);
        return (true, 0);
    };
    let (mut outside, mut odd) = (0_u64, 0_u64);
    for (out, (trained, global)) in pairs {
        let difference = (*trained).into() - (*global).into();
        outside = outside.wrapping_add(u64::from(difference.abs() > range));
        odd = odd.wrapping_add(u64::from(!difference.is_finite()));
        let raised = if difference < -range { -range } else { difference };
        *out = if raised > range { range } else { raised } * weight;
    }
    (odd == 0, outside)
}

impl Values {
    /// Copies elements as reals, moved into ±`range` before they are weighted. What is infinite stays so, to be found.
    fn block(&self, block: Range<usize>, range: Option<f64>, out: &mut Vec<f64>) -> u64 {
        out.clear();
        let (trained, global, weight) = match self {
            Self::Reals(values) => {
                out.extend_from_slice(&values[block]);
                return 0;
            }
            Self::Differences { trained, global, weight } => (&**trained, &**global, weight),
        };
        let (are_finite, clipped) = match (trained, global) {
            (Scalars::F32(trained), Scalars::F32(global)) => {
                weighted(&trained[block.clone()], &global[block], *weight, range, out)
            }
            (Scalars::F64(trained), Scalars::F64(global)) => {
                weighted(&trained[block.clone()], &global[block], *weight, range, out)
            }
            _ => unreachable!("`fits` compared the types"),
        };
        if !are_finite && let Some(first) = out.first_mut() {
            *first = f64::NAN;
        }
        clipped
    }
}

/// Bytes on their way to the disk.
struct Outgoing<'a, W> {
    masks: Option<&'a LomMasks>,
    write: W,
    bytes: Vec<u8>,
    /// The bytes that are masked already.
    masked: usize,
    /// Elements of the present vector before `masked`.
    elements: u64,
    /// Once a value did not fit nothing is written any more.
    all_fit: bool,
}

impl<W: FnMut(&[u8]) -> io::Result<()>> Outgoing<'_, W> {
    /// Masks what has been added of a vector.
    fn mask(&mut self, index: usize, spec: &VectorSpec) {
        let new = &mut self.bytes[self.masked..];
        if let Some(masks) = self.masks
            && self.all_fit
            && !new.is_empty()
        {
            masks.add(index, spec, self.elements, new);
            self.elements += (new.len() / spec.encoding.width.bytes()) as u64;
        }
        self.masked = self.bytes.len();
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.all_fit {
            (self.write)(&self.bytes)?;
        }
        self.bytes.clear();
        self.masked = 0;
        Ok(())
    }
}

/// Encodes all vectors in the layout's order; `write` is not called any more once a value is out of range. Differences of the model are
/// rounded by chance where there is `rounding`.
pub(super) fn encode(
    layout: &[VectorSpec],
    outcome: &Outcome,
    hiding: Option<Hiding<'_>>,
    mut rounding: Option<Rounding>,
    write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Written> {
    let mut exponents: Vec<i16> = layout.iter().map(|spec| spec.encoding.exponent).collect();
    let masks = hiding.and_then(|hiding| hiding.masks);
    let mut out = Outgoing { masks, write, bytes: Vec::new(), masked: 0, elements: 0, all_fit: true };
    let (mut reals, mut clipped) = (Vec::new(), 0);
    for (index, ((spec, vector), exponent)) in layout.iter().zip(&outcome.vectors).zip(&mut exponents).enumerate() {
        let is_model = spec.purpose == Purpose::Model;
        let range = hiding.filter(|_| is_model).and_then(|hiding| hiding.clipping.get(&spec.name).copied());
        out.elements = 0;
        let len = vector.values.len();
        for start in (0..len).step_by(BLOCK) {
            clipped += vector.values.block(start..len.min(start + BLOCK), range, &mut reals);
            if spec.purpose == Purpose::Clipped {
                reals.fill(clipped as f64);
            }
            let encoded = match &mut rounding {
                Some(rounding) if is_model => spec.encoding.encode_stochastically(&reals, rounding, &mut out.bytes),
                _ => spec.encoding.encode(reals.iter().copied(), &mut out.bytes),
            };
            match encoded {
                Ok(()) if out.bytes.len() < WRITE_BYTES => {}
                Ok(()) => {
                    out.mask(index, spec);
                    out.flush()?;
                }
                Err(EncodingError::OutOfRange { exponent: fitting }) => {
                    out.all_fit = false;
                    *exponent = fitting.min(*exponent);
                }
                Err(EncodingError::NotFinite) => return Ok(Written::NotFinite(spec.name.clone())),
            }
        }
        out.mask(index, spec);
    }
    if !out.all_fit {
        return Ok(Written::OutOfRange(exponents));
    }
    out.flush()?;
    Ok(Written::All { clipped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(trained: &[f32], range: Option<f64>) -> (Vec<f64>, u64) {
        let global = Scalars::F32(vec![1.0; trained.len()]);
        let values =
            Values::Differences { trained: Scalars::F32(trained.to_vec()).into(), global: global.into(), weight: 10.0 };
        let mut out = Vec::new();
        let clipped = values.block(0..trained.len(), range, &mut out);
        (out, clipped)
    }

    #[test]
    fn differences_are_clipped_before_they_are_weighted() {
        assert_eq!(block(&[1.5, 4.0, -9.0], Some(2.0)), (vec![5.0, 20.0, -20.0], 2));
        assert_eq!(block(&[3.0, -1.0], Some(2.0)), (vec![20.0, -20.0], 0), "the edge is inside");
        assert_eq!(block(&[1.5, 4.0, -9.0], None), (vec![5.0, 30.0, -100.0], 0));
    }

    #[test]
    fn clipping_does_not_hide_what_is_no_finite_number() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (out, _) = block(&[1.0, wrong, 1.0], Some(2.0));
            assert!(out.iter().any(|value| !value.is_finite()), "{wrong}");
        }
    }
}
