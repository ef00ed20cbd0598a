//! DICOM series of uncompressed slices.
//!
//! Only the elements of [`KEPT`] are ever decoded; every other one, the patient's among them, is passed over unread, so that
//! none can leave the node. The crate `dicom-object` decodes all of them, and brings a set of character tables that nobody keeps.
//!
//! Format: DICOM PS3.5 (encoding), PS3.10 (files), PS3.3 sections C.7.6.2 (image plane) and C.11.1 (rescaling).

mod element;
mod series;
mod table;

use std::io::{self, BufReader, Read};
use std::path::Path;

use thiserror::Error;

use element::{Found, Syntax, read_elements};
pub use element::{KEPT, Tag};
pub use series::{Series, find_series, read_series};
pub use table::DicomParameters;
pub(crate) use table::{DicomSource, files, scan, thumbnails};

use crate::error::DataError;
use crate::scan::open_file;
use crate::volume::VolumeError;

/// Why bytes are no slice, or slices no volume.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DicomError {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("this is no DICOM file: the letters DICM are missing at byte 128")]
    NotDicom,
    #[error("the file ends too early; copy it again")]
    Truncated,
    #[error(
        "the transfer syntax {uid} ({name}) is not supported; convert the files to uncompressed ones, as with `dcmdjpeg` or `gdcmconv --raw`"
    )]
    TransferSyntax { uid: String, name: &'static str },
    #[error("the element {0} has an impossible length")]
    Length(Tag),
    #[error("sequences are nested more deeply than 16 levels")]
    Nested,
    #[error("the element {tag} ({name}) is missing")]
    Missing { tag: Tag, name: &'static str },
    #[error("the element {tag} ({name}): expected {expected}, found {found:?}")]
    Value { tag: Tag, name: &'static str, expected: &'static str, found: String },
    #[error("expected {expected} bytes of pixels, found {found}")]
    Pixels { expected: u64, found: u64 },
    #[error("the slices differ in {0}; they are not one series")]
    Differ(&'static str),
    #[error("two slices lie at the same place")]
    SamePlace,
    #[error("the slices are {smallest:.3} to {largest:.3} mm apart: some are missing")]
    Gap { smallest: f64, largest: f64 },
    #[error("more than {0} slices")]
    TooMany(usize),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// One slice, and what of its file is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub modality: String,
    pub rows: usize,
    pub columns: usize,
    /// Millimetres between rows and between columns.
    pub spacing_mm: [f64; 2],
    /// Millimetres between slices, or their thickness, where the file says so.
    pub depth_mm: Option<f64>,
    /// The centre of the first pixel, and the directions of rows and columns: left, posterior and superior positive.
    pub plane: Option<Plane>,
    pub instance: Option<i64>,
    /// Rescaled, row by row.
    pub values: Vec<f32>,
    /// Tells series apart; says nothing else.
    series: [u8; 32],
}

/// Where a slice lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plane {
    pub position: [f64; 3],
    pub along_row: [f64; 3],
    pub along_column: [f64; 3],
}

/// Reads the slice of a file.
pub fn read_file(path: &Path) -> Result<Slice, DataError> {
    let file = open_file(path)?;
    read(BufReader::new(file)).map_err(|source| DataError::Dicom { path: path.to_owned(), source })
}

/// Reads a slice.
pub fn read(mut input: impl Read) -> Result<Slice, DicomError> {
    let syntax = Syntax::of_file(&mut input)?;
    let found = read_elements(input, syntax)?;
    slice(&found)
}

fn slice(found: &Found) -> Result<Slice, DicomError> {
    let (rows, columns) = (found.size(Tag::ROWS)?, found.size(Tag::COLUMNS)?);
    let only = |tag: Tag, expected: &'static str, is_right: fn(i64) -> bool, otherwise: i64| {
        let number = found.integer(tag)?.unwrap_or(otherwise);
        if is_right(number) { Ok(number) } else { Err(found.wrong(tag, expected)) }
    };
    only(Tag::SAMPLES, "1 sample for a pixel", |number| number == 1, 1)?;
    only(Tag::FRAMES, "one frame in a file", |number| number == 1, 1)?;
    let bits = only(Tag::BITS_ALLOCATED, "8, 16 or 32 bits", |bits| matches!(bits, 8 | 16 | 32), 16)?;
    let stored = found.integer(Tag::BITS_STORED)?.unwrap_or(bits);
    if !(1..=bits).contains(&stored) {
        return Err(found.wrong(Tag::BITS_STORED, "at most as many bits as are allocated"));
    }
    let high = found.integer(Tag::HIGH_BIT)?.unwrap_or(stored - 1);
    if !(stored - 1..bits).contains(&high) {
        return Err(found.wrong(Tag::HIGH_BIT, "a bit of the allocated ones"));
    }
    let is_signed = only(Tag::REPRESENTATION, "0 or 1", |number| matches!(number, 0 | 1), 0)? == 1;
    let spacing = found.reals::<2>(Tag::PIXEL_SPACING)?.unwrap_or([1.0, 1.0]);
    if spacing.iter().any(|mm| !mm.is_finite() || *mm <= 0.0) {
        return Err(found.wrong(Tag::PIXEL_SPACING, "two positive numbers"));
    }
    let slope = found.real(Tag::SLOPE)?.unwrap_or(1.0);
    let intercept = found.real(Tag::INTERCEPT)?.unwrap_or(0.0);
    let width = usize::try_from(bits / 8).expect("1, 2 or 4");
    let expected = rows * columns * width;
    let pixels = found.pixels.as_deref().ok_or(DicomError::Missing { tag: Tag::PIXELS, name: "pixel data" })?;
    // An odd number of bytes is filled up with one.
    if pixels.len() != expected && pixels.len() != expected + expected % 2 {
        return Err(DicomError::Pixels { expected: expected as u64, found: pixels.len() as u64 });
    }
    let (left, right) = (63 - high, 64 - stored);
    let value = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(bytes);
        if found.is_big_endian {
            word[..width].reverse();
        }
        // The stored bits to the top, then down again with or without their sign.
        let top = u64::from_le_bytes(word) << left;
        let number = if is_signed { (top.cast_signed() >> right) as f64 } else { (top >> right) as f64 };
        #[expect(clippy::cast_possible_truncation, reason = "values are kept in single precision")]
        let value = (number * slope + intercept) as f32;
        value
    };
    let plane = match (found.reals::<3>(Tag::POSITION)?, found.reals::<6>(Tag::ORIENTATION)?) {
        (Some(position), Some(both)) => {
            let direction = |from: usize| [both[from], both[from + 1], both[from + 2]];
            Some(Plane { position, along_row: direction(0), along_column: direction(3) })
        }
        _ => None,
    };
    let depth = match found.real(Tag::BETWEEN_SLICES)? {
        None => found.real(Tag::THICKNESS)?,
        between => between,
    };
    Ok(Slice {
        modality: found.text(Tag::MODALITY).unwrap_or_default().chars().take(16).collect(),
        rows,
        columns,
        spacing_mm: spacing,
        depth_mm: depth.filter(|mm| mm.is_finite() && *mm > 0.0),
        plane,
        instance: found.integer(Tag::INSTANCE)?,
        values: pixels[..expected].chunks_exact(width).map(value).collect(),
        series: found.series,
    })
}
