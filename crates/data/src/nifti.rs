//! NIfTI-1 and NIfTI-2 volumes in one file, packed with gzip or not.
//!
//! Formats: R. W. Cox and others, A (sort of) new image data format standard: NIfTI-1, 2004 (`nifti1.h`), and `nifti2.h`, 2011.
//! Read here in a stream rather than with the crate `nifti`, which unpacks the whole file into memory before it looks at sizes.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use crate::error::DataError;
use crate::scan::open_file;
use crate::volume::{Affine, MAX_VOXELS, Volume, VolumeError, voxels};

/// Why bytes are no volume in a NIfTI file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NiftiError {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("this is no NIfTI-1 or NIfTI-2 file: its header's size is {0}, expected 348 or 540")]
    NotNifti(i32),
    #[error("the file holds only the header of a pair (.hdr and .img); convert it to one .nii file")]
    Pair,
    #[error("the file ends too early: expected {expected} bytes of {part}, found {found}; copy it again")]
    Truncated { part: &'static str, expected: u64, found: u64 },
    #[error("the gzip stream is damaged: {0}; copy the file again")]
    Damaged(io::Error),
    #[error("expected a volume of three dimensions, found the sizes {0:?}")]
    Dimensions(Vec<i64>),
    #[error("expected 1 to {MAX_VOXELS} voxels, found the sizes {0:?}")]
    Size([i64; 3]),
    #[error("values of type {code} ({name}) are not supported; convert the file to integers or reals of up to 64 bits")]
    Type { code: i16, name: &'static str },
    #[error("the values are said to begin at byte {0}, inside the header or behind any header")]
    Offset(f64),
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// The numbers that a file can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberType {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl NumberType {
    fn from_code(code: i16) -> Result<Self, NiftiError> {
        let name = match code {
            2 => return Ok(Self::U8),
            4 => return Ok(Self::I16),
            8 => return Ok(Self::I32),
            16 => return Ok(Self::F32),
            64 => return Ok(Self::F64),
            256 => return Ok(Self::I8),
            512 => return Ok(Self::U16),
            768 => return Ok(Self::U32),
            1024 => return Ok(Self::I64),
            1280 => return Ok(Self::U64),
            32 | 1792 | 2048 => "complex numbers",
            128 | 2304 => "colours",
            1536 => "reals of 128 bits",
            1 => "single bits",
            _ => "unknown",
        };
        Err(NiftiError::Type { code, name })
    }

    /// Bytes of a number.
    pub fn width(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    fn number(self, bytes: &[u8], is_big: bool) -> f64 {
        macro_rules! read {
            ($type:ty) => {{
                let bytes = bytes.try_into().expect("cut to the width");
                if is_big { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) }
            }};
        }
        match self {
            Self::U8 => f64::from(bytes[0]),
            Self::I8 => f64::from(i8::from_le_bytes([bytes[0]])),
            Self::I16 => f64::from(read!(i16)),
            Self::U16 => f64::from(read!(u16)),
            Self::I32 => f64::from(read!(i32)),
            Self::U32 => f64::from(read!(u32)),
            Self::I64 => read!(i64) as f64,
            Self::U64 => read!(u64) as f64,
            Self::F32 => f64::from(read!(f32)),
            Self::F64 => read!(f64),
        }
    }
}

/// What a file says about its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub size: [usize; 3],
    pub number_type: NumberType,
    pub is_big_endian: bool,
    pub affine: Affine,
    /// The value of a voxel is its number times `slope` plus `intercept`.
    pub slope: f64,
    pub intercept: f64,
    /// Bytes before the first value.
    offset: u64,
    /// Bytes that were read.
    own_len: u64,
}

/// A header's bytes and their order.
struct Fields {
    bytes: Vec<u8>,
    is_big: bool,
}

impl Fields {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes: [u8; N] = self.bytes[offset..offset + N].try_into().expect("the offsets lie inside the header");
        if self.is_big {
            bytes.reverse();
        }
        bytes
    }

    fn i16(&self, offset: usize) -> i16 {
        i16::from_le_bytes(self.at(offset))
    }

    fn i32(&self, offset: usize) -> i32 {
        i32::from_le_bytes(self.at(offset))
    }

    fn i64(&self, offset: usize) -> i64 {
        i64::from_le_bytes(self.at(offset))
    }

    fn f32(&self, offset: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.at(offset)))
    }

    fn f64(&self, offset: usize) -> f64 {
        f64::from_le_bytes(self.at(offset))
    }
}

/// Reads as many bytes as are there.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, NiftiError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Only unpacking says so: the gzip stream ends in its middle.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                return Err(NiftiError::Damaged(error));
            }
            Err(error) => return Err(NiftiError::Io(error)),
        }
    }
    Ok(filled)
}

fn fill_all(input: &mut impl Read, buffer: &mut [u8], part: &'static str) -> Result<(), NiftiError> {
    let found = fill(input, buffer)?;
    if found == buffer.len() {
        return Ok(());
    }
    Err(NiftiError::Truncated { part, expected: buffer.len() as u64, found: found as u64 })
}

impl Header {
    /// Reads a header; what follows it stays in the input.
    pub fn read(input: &mut impl Read) -> Result<Self, NiftiError> {
        let mut first = [0; 4];
        fill_all(input, &mut first, "header")?;
        let (len, is_big) = match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
            (len @ (348 | 540), _) => (len, false),
            (_, len @ (348 | 540)) => (len, true),
            (other, _) => return Err(NiftiError::NotNifti(other)),
        };
        let len = usize::try_from(len).expect("348 or 540");
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&first);
        fill_all(input, &mut bytes[4..], "header")?;
        let fields = Fields { bytes, is_big };
        if len == 348 { Self::of_first(&fields) } else { Self::of_second(&fields) }
    }

    fn of_first(fields: &Fields) -> Result<Self, NiftiError> {
        match &fields.bytes[344..348] {
            b"n+1\0" => {}
            b"ni1\0" => return Err(NiftiError::Pair),
            _ => return Err(NiftiError::NotNifti(348)),
        }
        let dimensions: Vec<i64> = (0..8).map(|at| i64::from(fields.i16(40 + 2 * at))).collect();
        let pixdim: Vec<f64> = (0..8).map(|at| fields.f32(76 + 4 * at)).collect();
        let units = millimetres(i32::from(fields.bytes[123]));
        let placed = Placed {
            pixdim: &pixdim,
            qform: fields.i16(252) > 0,
            quaternion: [0, 1, 2].map(|at| fields.f32(256 + 4 * at)),
            shift: [0, 1, 2].map(|at| fields.f32(268 + 4 * at)),
            sform: (fields.i16(254) > 0)
                .then(|| [0, 1, 2].map(|row| [0, 1, 2, 3].map(|column| fields.f32(280 + 16 * row + 4 * column)))),
        };
        let affine = placed.affine(units);
        Self::checked(fields, &dimensions, fields.i16(70), fields.f32(108), [fields.f32(112), fields.f32(116)], affine)
    }

    fn of_second(fields: &Fields) -> Result<Self, NiftiError> {
        match &fields.bytes[4..8] {
            b"n+2\0" => {}
            b"ni2\0" => return Err(NiftiError::Pair),
            _ => return Err(NiftiError::NotNifti(540)),
        }
        let dimensions: Vec<i64> = (0..8).map(|at| fields.i64(16 + 8 * at)).collect();
        let pixdim: Vec<f64> = (0..8).map(|at| fields.f64(104 + 8 * at)).collect();
        let units = millimetres(fields.i32(500));
        let placed = Placed {
            pixdim: &pixdim,
            qform: fields.i32(344) > 0,
            quaternion: [0, 1, 2].map(|at| fields.f64(352 + 8 * at)),
            shift: [0, 1, 2].map(|at| fields.f64(376 + 8 * at)),
            sform: (fields.i32(348) > 0)
                .then(|| [0, 1, 2].map(|row| [0, 1, 2, 3].map(|column| fields.f64(400 + 32 * row + 8 * column)))),
        };
        let affine = placed.affine(units);
        let offset = fields.i64(168) as f64;
        Self::checked(fields, &dimensions, fields.i16(12), offset, [fields.f64(176), fields.f64(184)], affine)
    }

    fn checked(
        fields: &Fields,
        dimensions: &[i64],
        code: i16,
        offset: f64,
        [slope, intercept]: [f64; 2],
        affine: Affine,
    ) -> Result<Self, NiftiError> {
        let used = usize::try_from(dimensions[0]).ok().filter(|used| (1..=7).contains(used));
        let sizes = used.map_or(&[][..], |used| &dimensions[1..=used]);
        // One slice is a volume; a fourth dimension of one step is none.
        if sizes.len() < 2 || sizes.iter().skip(3).any(|size| *size != 1) {
            return Err(NiftiError::Dimensions(sizes.to_vec()));
        }
        let said = [sizes[0], sizes[1], sizes.get(2).copied().unwrap_or(1)];
        let size = said.map(|size| usize::try_from(size).unwrap_or(0));
        voxels(size).map_err(|_| NiftiError::Size(said))?;
        let number_type = NumberType::from_code(code)?;
        let own_len = fields.bytes.len() as u64;
        // Extensions between header and values are metadata; 64 MiB of them would be none.
        if !(offset >= own_len as f64 && offset <= f64::from(1 << 26)) {
            return Err(NiftiError::Offset(offset));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 348 and 2^26")]
        let offset = offset as u64;
        let is_scaled = slope.is_finite() && slope != 0.0 && intercept.is_finite();
        let (slope, intercept) = if is_scaled { (slope, intercept) } else { (1.0, 0.0) };
        Ok(Self { size, number_type, is_big_endian: fields.is_big, affine, slope, intercept, offset, own_len })
    }
}

/// Millimetres of a unit of length.
fn millimetres(units: i32) -> f64 {
    match units & 7 {
        1 => 1_000.0,
        3 => 0.001,
        _ => 1.0,
    }
}

/// What a header says about the place of the voxels.
struct Placed<'a> {
    pixdim: &'a [f64],
    qform: bool,
    quaternion: [f64; 3],
    shift: [f64; 3],
    sform: Option<Affine>,
}

impl Placed<'_> {
    /// The standard's methods 3, 2 and 1, in the order in which readers prefer them.
    fn affine(&self, units: f64) -> Affine {
        let spacing = [1, 2, 3].map(|at| {
            let mm = self.pixdim[at];
            if mm.is_finite() && mm > 0.0 { mm } else { 1.0 }
        });
        let affine = match self.sform {
            Some(affine) => affine,
            None if self.qform => {
                let [b, c, d] = self.quaternion;
                let squares = b * b + c * c + d * d;
                let (a, norm) = if squares < 1.0 { ((1.0 - squares).sqrt(), 1.0) } else { (0.0, squares.sqrt()) };
                let [b, c, d] = [b / norm, c / norm, d / norm];
                let turn = [
                    [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
                    [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
                    [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
                ];
                let side = if self.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
                let steps = [spacing[0], spacing[1], spacing[2] * side];
                [0, 1, 2]
                    .map(|row| [turn[row][0] * steps[0], turn[row][1] * steps[1], turn[row][2] * steps[2], self.shift[row]])
            }
            None => [[spacing[0], 0.0, 0.0, 0.0], [0.0, spacing[1], 0.0, 0.0], [0.0, 0.0, spacing[2], 0.0]],
        };
        affine.map(|row| row.map(|number| number * units))
    }
}

/// Bytes that are unpacked at a time.
const BLOCK: usize = 1 << 16;

/// Reads a volume. The memory is that of its values, and grows only as they come.
pub fn read(input: impl Read) -> Result<Volume, NiftiError> {
    let mut input = BufReader::with_capacity(BLOCK, input);
    if input.fill_buf().map_err(NiftiError::Io)?.starts_with(&[0x1f, 0x8b]) {
        read_unpacked(MultiGzDecoder::new(input))
    } else {
        read_unpacked(input)
    }
}

fn read_unpacked(mut input: impl Read) -> Result<Volume, NiftiError> {
    let header = Header::read(&mut input)?;
    let mut block = vec![0; BLOCK];
    let mut before = header.offset - header.own_len;
    while before > 0 {
        let part = usize::try_from(before.min(BLOCK as u64)).expect("at most a block");
        fill_all(&mut input, &mut block[..part], "header extension")?;
        before -= part as u64;
    }
    let width = header.number_type.width();
    let count = voxels(header.size)?;
    let expected = (count * width) as u64;
    let mut values = Vec::new();
    while values.len() < count {
        let part = BLOCK.min((count - values.len()) * width);
        let found = fill(&mut input, &mut block[..part])?;
        if found < part {
            let found = (values.len() * width + found) as u64;
            return Err(NiftiError::Truncated { part: "values", expected, found });
        }
        values.extend(block[..part].chunks_exact(width).map(|bytes| {
            let number = header.number_type.number(bytes, header.is_big_endian);
            #[expect(clippy::cast_possible_truncation, reason = "values are kept in single precision")]
            let value = (number * header.slope + header.intercept) as f32;
            value
        }));
    }
    // The end of a gzip stream holds the checksum of what was read.
    fill(&mut input, &mut block)?;
    Ok(Volume::new(header.size, header.affine, values)?)
}

/// Reads the volume of a file.
pub fn read_file(path: &Path) -> Result<Volume, DataError> {
    read(open_file(path)?).map_err(|source| DataError::Nifti { path: path.to_owned(), source })
}

/// Reads the header of a file.
pub fn read_header(path: &Path) -> Result<Header, DataError> {
    let wrong = |source| DataError::Nifti { path: path.to_owned(), source };
    let mut input = BufReader::new(open_file(path)?);
    let packed = input.fill_buf().map_err(|error| wrong(NiftiError::Io(error)))?.starts_with(&[0x1f, 0x8b]);
    let header = if packed { Header::read(&mut MultiGzDecoder::new(input)) } else { Header::read(&mut input) };
    header.map_err(wrong)
}
