//! The elements of a DICOM file: the few that are kept, and how the others are passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use flate2::read::DeflateDecoder;

use super::DicomError;

/// Group and element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub u16, pub u16);

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({:04X},{:04X})", self.0, self.1)
    }
}

impl Tag {
    pub const MODALITY: Self = Self(0x0008, 0x0060);
    pub const THICKNESS: Self = Self(0x0018, 0x0050);
    pub const BETWEEN_SLICES: Self = Self(0x0018, 0x0088);
    pub const INSTANCE: Self = Self(0x0020, 0x0013);
    pub const POSITION: Self = Self(0x0020, 0x0032);
    pub const ORIENTATION: Self = Self(0x0020, 0x0037);
    pub const SAMPLES: Self = Self(0x0028, 0x0002);
    pub const FRAMES: Self = Self(0x0028, 0x0008);
    pub const ROWS: Self = Self(0x0028, 0x0010);
    pub const COLUMNS: Self = Self(0x0028, 0x0011);
    pub const PIXEL_SPACING: Self = Self(0x0028, 0x0030);
    pub const BITS_ALLOCATED: Self = Self(0x0028, 0x0100);
    pub const BITS_STORED: Self = Self(0x0028, 0x0101);
    pub const HIGH_BIT: Self = Self(0x0028, 0x0102);
    pub const REPRESENTATION: Self = Self(0x0028, 0x0103);
    pub const INTERCEPT: Self = Self(0x0028, 0x1052);
    pub const SLOPE: Self = Self(0x0028, 0x1053);
    /// Read, not kept.
    pub(super) const PIXELS: Self = Self(0x7fe0, 0x0010);
    /// Only its hash is kept, to tell series apart while they are read.
    const SERIES: Self = Self(0x0020, 0x000e);
    const ITEM: Self = Self(0xfffe, 0xe000);
    const ITEM_END: Self = Self(0xfffe, 0xe00d);
    const SEQUENCE_END: Self = Self(0xfffe, 0xe0dd);
}

/// The written list of the elements that are read and kept, with their names in the standard. Nothing else of a header is.
pub const KEPT: [(Tag, &str); 17] = [
    (Tag::MODALITY, "Modality"),
    (Tag::THICKNESS, "Slice Thickness"),
    (Tag::BETWEEN_SLICES, "Spacing Between Slices"),
    (Tag::INSTANCE, "Instance Number"),
    (Tag::POSITION, "Image Position (Patient)"),
    (Tag::ORIENTATION, "Image Orientation (Patient)"),
    (Tag::SAMPLES, "Samples per Pixel"),
    (Tag::FRAMES, "Number of Frames"),
    (Tag::ROWS, "Rows"),
    (Tag::COLUMNS, "Columns"),
    (Tag::PIXEL_SPACING, "Pixel Spacing"),
    (Tag::BITS_ALLOCATED, "Bits Allocated"),
    (Tag::BITS_STORED, "Bits Stored"),
    (Tag::HIGH_BIT, "High Bit"),
    (Tag::REPRESENTATION, "Pixel Representation"),
    (Tag::INTERCEPT, "Rescale Intercept"),
    (Tag::SLOPE, "Rescale Slope"),
];

/// The most bytes of a kept element.
const MAX_KEPT: u32 = 1 << 10;
/// The most bytes of pixels of a slice.
const MAX_PIXELS: u32 = 1 << 28;
/// The most pixels along one side.
const MAX_SIDE: i64 = 1 << 14;
const UNDEFINED: u32 = u32::MAX;

/// How the elements after the file's own are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    is_explicit: bool,
    is_big_endian: bool,
    is_deflated: bool,
}

const FILE: Syntax = Syntax { is_explicit: true, is_big_endian: false, is_deflated: false };

fn failed(error: io::Error) -> DicomError {
    if error.kind() == io::ErrorKind::UnexpectedEof { DicomError::Truncated } else { DicomError::Io(error) }
}

impl Syntax {
    /// Reads preamble and file meta information.
    pub(super) fn of_file(input: &mut impl Read) -> Result<Self, DicomError> {
        let mut preamble = [0; 132];
        input.read_exact(&mut preamble).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DicomError::NotDicom,
            _ => DicomError::Io(error),
        })?;
        if &preamble[128..] != b"DICM" {
            return Err(DicomError::NotDicom);
        }
        let mut reader = Reader { input, syntax: FILE };
        // The first element says how long the group is.
        let header = reader.header()?.ok_or(DicomError::Truncated)?;
        if (header.tag, header.len) != (Tag(2, 0), 4) {
            return Err(DicomError::Missing { tag: Tag(2, 0), name: "File Meta Information Group Length" });
        }
        let len: [u8; 4] = reader.value(4)?.try_into().expect("four were read");
        let mut group = Reader { input: (&mut *reader.input).take(u64::from(u32::from_le_bytes(len))), syntax: FILE };
        let mut uid = None;
        while let Some(header) = group.header()? {
            if header.tag == Tag(2, 0x10) && header.len <= 64 {
                let bytes = group.value(header.len)?;
                uid = Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\0', ' ']).to_owned());
            } else {
                group.pass(&header, 0)?;
            }
        }
        Self::of_uid(&uid.ok_or(DicomError::Missing { tag: Tag(2, 0x10), name: "Transfer Syntax UID" })?)
    }

    fn of_uid(uid: &str) -> Result<Self, DicomError> {
        let name = match uid.strip_prefix("1.2.840.10008.1.2").unwrap_or("?") {
            "" => return Ok(Self { is_explicit: false, ..FILE }),
            ".1" => return Ok(FILE),
            ".1.99" => return Ok(Self { is_deflated: true, ..FILE }),
            ".2" => return Ok(Self { is_big_endian: true, ..FILE }),
            ".4.50" => "JPEG Baseline",
            ".4.51" => "JPEG Extended",
            ".4.57" | ".4.70" => "JPEG Lossless",
            ".4.80" | ".4.81" => "JPEG-LS",
            ".4.90" | ".4.91" | ".4.92" | ".4.93" => "JPEG 2000",
            ".4.100" | ".4.101" => "MPEG2",
            ".4.102" | ".4.103" | ".4.104" | ".4.105" | ".4.106" => "MPEG-4",
            ".4.201" | ".4.202" | ".4.203" => "High-Throughput JPEG 2000",
            ".5" => "RLE Lossless",
            _ => "not one of the standard",
        };
        Err(DicomError::TransferSyntax { uid: uid.chars().take(64).collect(), name })
    }
}

/// What was kept of a file.
pub(super) struct Found {
    values: BTreeMap<Tag, Value>,
    pub(super) pixels: Option<Vec<u8>>,
    pub(super) series: [u8; 32],
    pub(super) is_big_endian: bool,
}

/// A kept value, in one of the two ways in which the kept elements are written.
enum Value {
    Text(String),
    Short(u16),
}

/// The elements that are binary numbers of 16 bits; the others are texts.
fn is_short(tag: Tag) -> bool {
    tag.0 == 0x0028 && !matches!(tag, Tag::FRAMES | Tag::PIXEL_SPACING | Tag::INTERCEPT | Tag::SLOPE)
}

fn name_of(tag: Tag) -> &'static str {
    KEPT.iter().find(|(kept, _)| *kept == tag).map_or("not kept", |(_, name)| name)
}

impl Found {
    pub(super) fn text(&self, tag: Tag) -> Option<&str> {
        match self.values.get(&tag)? {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The error of an element whose value cannot be.
    pub(super) fn wrong(&self, tag: Tag, expected: &'static str) -> DicomError {
        let found = match self.values.get(&tag) {
            Some(Value::Text(text)) => text.chars().take(40).collect(),
            Some(Value::Short(number)) => number.to_string(),
            None => String::new(),
        };
        DicomError::Value { tag, name: name_of(tag), expected, found }
    }

    pub(super) fn integer(&self, tag: Tag) -> Result<Option<i64>, DicomError> {
        match self.values.get(&tag) {
            Some(Value::Short(number)) => Ok(Some(i64::from(*number))),
            Some(Value::Text(text)) if text.is_empty() => Ok(None),
            Some(Value::Text(text)) => text.parse().map(Some).map_err(|_| self.wrong(tag, "an integer")),
            None => Ok(None),
        }
    }

    /// Pixels along one side.
    pub(super) fn size(&self, tag: Tag) -> Result<usize, DicomError> {
        let size = self.integer(tag)?.ok_or(DicomError::Missing { tag, name: name_of(tag) })?;
        let size = Some(size).filter(|size| (1..=MAX_SIDE).contains(size));
        size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| self.wrong(tag, "1 to 16384"))
    }

    pub(super) fn reals<const N: usize>(&self, tag: Tag) -> Result<Option<[f64; N]>, DicomError> {
        let Some(text) = self.text(tag) else { return Ok(None) };
        let numbers: Result<Vec<f64>, _> = text.split('\\').map(|part| part.trim().parse()).collect();
        let numbers = numbers.ok().filter(|numbers: &Vec<f64>| numbers.iter().all(|number| number.is_finite()));
        let numbers = numbers.and_then(|numbers| <[f64; N]>::try_from(numbers).ok());
        numbers.map(Some).ok_or_else(|| self.wrong(tag, "numbers with backslashes between them"))
    }

    pub(super) fn real(&self, tag: Tag) -> Result<Option<f64>, DicomError> {
        Ok(self.reals::<1>(tag)?.map(|[number]| number))
    }
}

/// Reads the kept elements and the pixels, and nothing behind them.
pub(super) fn read_elements(input: impl Read, syntax: Syntax) -> Result<Found, DicomError> {
    if syntax.is_deflated {
        Reader { input: DeflateDecoder::new(input), syntax }.elements()
    } else {
        Reader { input, syntax }.elements()
    }
}

struct ElementHeader {
    tag: Tag,
    len: u32,
}

struct Reader<R> {
    input: R,
    syntax: Syntax,
}

impl<R: Read> Reader<R> {
    fn elements(mut self) -> Result<Found, DicomError> {
        let is_big_endian = self.syntax.is_big_endian;
        let mut found = Found { values: BTreeMap::new(), pixels: None, series: [0; 32], is_big_endian };
        while let Some(header) = self.header()? {
            let tag = header.tag;
            if tag == Tag::PIXELS {
                if header.len > MAX_PIXELS {
                    return Err(DicomError::Length(tag));
                }
                found.pixels = Some(self.value(header.len)?);
                break;
            } else if tag == Tag::SERIES && header.len <= MAX_KEPT {
                found.series = *blake3::hash(&self.value(header.len)?).as_bytes();
            } else if KEPT.iter().any(|(kept, _)| *kept == tag) {
                if header.len > MAX_KEPT {
                    return Err(DicomError::Length(tag));
                }
                let bytes = self.value(header.len)?;
                let value = match <[u8; 2]>::try_from(bytes.as_slice()) {
                    Ok(short) if is_short(tag) && is_big_endian => Value::Short(u16::from_be_bytes(short)),
                    Ok(short) if is_short(tag) => Value::Short(u16::from_le_bytes(short)),
                    _ if is_short(tag) => return Err(DicomError::Length(tag)),
                    _ => Value::Text(String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_owned()),
                };
                found.values.insert(tag, value);
            } else {
                self.pass(&header, 0)?;
            }
        }
        Ok(found)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DicomError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, DicomError> {
        let bytes = self.bytes()?;
        Ok(if self.syntax.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Result<u32, DicomError> {
        let bytes = self.bytes()?;
        Ok(if self.syntax.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// The next element's tag and length; none at the end.
    fn header(&mut self) -> Result<Option<ElementHeader>, DicomError> {
        let mut first = [0; 1];
        loop {
            match self.input.read(&mut first) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let [second] = self.bytes()?;
        let group = [first[0], second];
        let group = if self.syntax.is_big_endian { u16::from_be_bytes(group) } else { u16::from_le_bytes(group) };
        let tag = Tag(group, self.u16()?);
        // Items and their ends have no value representation.
        if !self.syntax.is_explicit || group == 0xfffe {
            return Ok(Some(ElementHeader { tag, len: self.u32()? }));
        }
        let representation: [u8; 2] = self.bytes()?;
        let is_long = matches!(
            &representation,
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV"
        );
        let len = if is_long {
            self.u16()?;
            self.u32()?
        } else {
            u32::from(self.u16()?)
        };
        Ok(Some(ElementHeader { tag, len }))
    }

    /// Reads a value; the memory grows as it comes.
    fn value(&mut self, len: u32) -> Result<Vec<u8>, DicomError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(u64::from(len)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 == u64::from(len) { Ok(bytes) } else { Err(DicomError::Truncated) }
    }

    /// Passes over a value without keeping any of it.
    fn pass(&mut self, header: &ElementHeader, depth: usize) -> Result<(), DicomError> {
        if header.len == UNDEFINED {
            return self.pass_items(depth);
        }
        let passed = io::copy(&mut (&mut self.input).take(u64::from(header.len)), &mut io::sink()).map_err(failed)?;
        if passed == u64::from(header.len) { Ok(()) } else { Err(DicomError::Truncated) }
    }

    /// Passes over the items of a sequence of undefined length, and its end.
    fn pass_items(&mut self, depth: usize) -> Result<(), DicomError> {
        if depth == 16 {
            return Err(DicomError::Nested);
        }
        loop {
            let item = self.header()?.ok_or(DicomError::Truncated)?;
            match item.tag {
                Tag::SEQUENCE_END => return Ok(()),
                Tag::ITEM if item.len != UNDEFINED => self.pass(&item, depth)?,
                Tag::ITEM => loop {
                    let element = self.header()?.ok_or(DicomError::Truncated)?;
                    if element.tag == Tag::ITEM_END {
                        break;
                    }
                    self.pass(&element, depth + 1)?;
                },
                other => return Err(DicomError::Length(other)),
            }
        }
    }
}
