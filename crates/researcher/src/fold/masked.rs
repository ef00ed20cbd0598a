//! Sums of contributions that are hidden: modulo two to the elements' width, until the masks are taken off.

use std::fmt;
use std::sync::Arc;

use protocol::{Encoding, Integers, Purpose, VectorSpec, Width};
use secagg::lom::Unmasker;
use secagg::mask::{Modulus, VectorName};

use super::FoldError;
use super::encrypted::{Ahead, Decryption};

/// What opens a sum, by scheme.
pub enum Opening {
    Lom(Unmasker),
    /// With what was computed ahead.
    JoyeLibert(Box<Decryption>, Arc<Ahead>),
}

/// What takes the masks off a sum.
pub struct Unmasking {
    pub opening: Opening,
    /// The weight up to which the scales of float32 sums are good; absent where no sum depends on it.
    pub most_weight: Option<u64>,
}

impl fmt::Debug for Unmasking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Unmasking")
    }
}

/// What a vector's elements are summed modulo.
pub(crate) fn modulus(spec: &VectorSpec) -> Modulus {
    Modulus::of_bytes(spec.encoding.width.bytes()).expect("elements have 4, 8 or 16 bytes")
}

/// What `secagg` calls a vector of a layout.
pub(super) fn vector_name(index: usize, spec: &VectorSpec) -> VectorName<'_> {
    let index = u32::try_from(index).expect("a layout has fewer vectors");
    VectorName { index, purpose: spec.purpose.name(), name: &spec.name }
}

/// Reads elements as signed numbers.
pub(super) fn signed(width: Width, sum: &[u8]) -> Integers {
    match width {
        Width::Bits32 => Integers::Wide64(sum.as_chunks().0.iter().map(|sum| i32::from_le_bytes(*sum).into()).collect()),
        Width::Bits64 => Integers::Wide64(sum.as_chunks().0.iter().map(|sum| i64::from_le_bytes(*sum)).collect()),
        Width::Bits128 => Integers::Wide128(sum.as_chunks().0.iter().map(|sum| i128::from_le_bytes(*sum)).collect()),
    }
}

/// Adds elements modulo two to their width. Any bytes are good: what is masked has no magnitude.
pub(super) fn add(width: Width, sum: &mut [u8], elements: &[u8]) {
    macro_rules! words {
        ($word:ty, $bytes:literal) => {
            for (sum, element) in sum.as_chunks_mut::<$bytes>().0.iter_mut().zip(elements.as_chunks::<$bytes>().0) {
                *sum = <$word>::from_le_bytes(*sum).wrapping_add(<$word>::from_le_bytes(*element)).to_le_bytes();
            }
        };
    }
    match width {
        Width::Bits32 => words!(u32, 4),
        Width::Bits64 => words!(u64, 8),
        Width::Bits128 => words!(u128, 16),
    }
}

impl Unmasking {
    /// Whether a sum can be one of honest nodes: none counts below 0, and no scale was made for more rows.
    pub(super) fn is_possible(&self, spec: &VectorSpec, sum: &Integers) -> bool {
        let Integers::Wide64(sums) = sum else { return true };
        let most = match spec.purpose {
            Purpose::Weight => self.most_weight.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX),
            _ => i64::MAX,
        };
        spec.encoding != Encoding::COUNT || sums.iter().all(|sum| (0..=most).contains(sum))
    }
}

/// Takes the masks off elements `start…` of the sum of the layout's vector `index`.
pub(super) fn unmask(
    unmasker: &Unmasker,
    (index, spec): (usize, &VectorSpec),
    start: usize,
    mut sum: Vec<u8>,
) -> Result<Integers, FoldError> {
    let subtracted = unmasker.subtract(vector_name(index, spec), modulus(spec), start as u64, &mut sum);
    subtracted.map_err(|_| FoldError::Unmask(spec.name.clone()))?;
    Ok(signed(spec.encoding.width, &sum))
}
