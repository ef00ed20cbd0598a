//! PNG and JPEG pictures, and small pictures for people to look at.

use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use thiserror::Error;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::DataError;
use crate::scan::open_file;

/// The most pixels along one side.
const MAX_SIDE: usize = 1 << 14;
/// The most pixels of a picture: 192 MiB in colour.
const MAX_PIXELS: usize = 1 << 26;
/// The most bytes of a file.
const MAX_BYTES: u64 = 1 << 28;

/// Why bytes are no picture.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("this is neither a PNG nor a JPEG file")]
    Format,
    #[error("not a valid PNG file: {0}")]
    Png(#[from] png::DecodingError),
    #[error("not a valid JPEG file: {0}")]
    Jpeg(String),
    #[error("expected at most {MAX_SIDE} × {MAX_SIDE} and {MAX_PIXELS} pixels, found {width} × {height}")]
    Size { width: usize, height: usize },
    #[error("expected at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("{0} samples for a pixel are not supported")]
    Samples(usize),
}

/// A picture of 8-bit samples, row by row from the top left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// 1 in grey, 3 in colour.
    pub channels: usize,
    pub samples: Vec<u8>,
}

impl Picture {
    /// Reads a PNG or JPEG file, told by its first bytes. Alpha is left out and 16 bits become 8.
    pub fn decode(bytes: &[u8]) -> Result<Self, PictureError> {
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => decode_png(bytes),
            [0xff, 0xd8, 0xff, ..] => decode_jpeg(bytes),
            _ => Err(PictureError::Format),
        }
    }

    /// Reads a file.
    pub fn read_file(path: &Path) -> Result<Self, DataError> {
        let wrong = |source| DataError::Picture { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = open_file(path)?;
        BufReader::new(file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.into()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong(PictureError::TooLong));
        }
        Self::decode(&bytes).map_err(wrong)
    }

    /// A grey picture of the luminance (ITU-R BT.601).
    #[must_use]
    pub fn grey(self) -> Self {
        if self.channels == 1 {
            return self;
        }
        let luminance = |pixel: &[u8]| {
            let sum = 299 * u32::from(pixel[0]) + 587 * u32::from(pixel[1]) + 114 * u32::from(pixel[2]);
            u8::try_from((sum + 500) / 1000).expect("the weights add up to 1000")
        };
        let samples = self.samples.chunks_exact(3).map(luminance).collect();
        Self { channels: 1, samples, ..self }
    }

    /// A picture of another size: each pixel is the mean of what it covers.
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let (columns, rows) = (spans(self.width, width), spans(self.height, height));
        let mut samples = Vec::with_capacity(width * height * self.channels);
        for row in &rows {
            for column in &columns {
                for channel in 0..self.channels {
                    let (mut sum, mut weight) = (0.0, 0.0);
                    for (y, part_y) in row {
                        for (x, part_x) in column {
                            let sample = self.samples[(y * self.width + x) * self.channels + channel];
                            sum += part_y * part_x * f64::from(sample);
                            weight += part_y * part_x;
                        }
                    }
                    samples.push(byte(sum / weight));
                }
            }
        }
        Self { width, height, channels: self.channels, samples }
    }

    /// Writes the picture as a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let side = |size: usize| u32::try_from(size).expect("sides are at most 2^14");
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width), side(self.height));
        encoder.set_color(if self.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.samples))
            .expect("writing to memory does not fail, and the samples are as many as the header says");
        bytes
    }
}

/// For each of the new pixels along one side: which old ones it covers, and how much of them.
fn spans(old: usize, new: usize) -> Vec<Vec<(usize, f64)>> {
    let ratio = old as f64 / new as f64;
    let span = |at: usize| {
        // Enlarged, a pixel covers one old pixel; reduced, several.
        let (from, to) = (at as f64 * ratio, (at + 1) as f64 * ratio);
        let first = at * old / new;
        let covered = (first..old).take_while(|pixel| (*pixel as f64) < to || *pixel == first);
        covered.map(|pixel| (pixel, (to.min((pixel + 1) as f64) - from.max(pixel as f64)).max(1e-9))).collect()
    };
    (0..new).map(span).collect()
}

/// A number from 0 to 255, rounded half up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
fn byte(number: f64) -> u8 {
    (number + 0.5).clamp(0.0, 255.0) as u8
}

fn check_size(width: usize, height: usize) -> Result<(), PictureError> {
    let is_possible = (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height) && width * height <= MAX_PIXELS;
    if is_possible { Ok(()) } else { Err(PictureError::Size { width, height }) }
}

fn decode_png(bytes: &[u8]) -> Result<Picture, PictureError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 4 * MAX_PIXELS });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    let mut samples = vec![0; reader.output_buffer_size().ok_or(PictureError::Size { width, height })?];
    let frame = reader.next_frame(&mut samples)?;
    samples.truncate(frame.buffer_size());
    let found = frame.color_type.samples();
    let channels = if found >= 3 { 3 } else { 1 };
    if found != channels {
        samples = samples.chunks_exact(found).flat_map(|pixel| &pixel[..channels]).copied().collect();
    }
    Ok(Picture { width, height, channels, samples })
}

fn decode_jpeg(bytes: &[u8]) -> Result<Picture, PictureError> {
    let jpeg = |error: zune_jpeg::errors::DecodeErrors| PictureError::Jpeg(format!("{error:?}").chars().take(200).collect());
    let options = DecoderOptions::default().set_max_width(MAX_SIDE).set_max_height(MAX_SIDE);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(jpeg)?;
    let info = decoder.info().ok_or(PictureError::Format)?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_size(width, height)?;
    let channels = if info.components == 1 { 1 } else { 3 };
    let target = if channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(target));
    let samples = decoder.decode().map_err(jpeg)?;
    if samples.len() != width * height * channels {
        return Err(PictureError::Samples(samples.len() / (width * height).max(1)));
    }
    Ok(Picture { width, height, channels, samples })
}

/// Pixels of a thumbnail's side.
const THUMBNAIL: usize = 96;
/// Thumbnails of one row of a sheet.
const PER_ROW: usize = 8;
/// Pixels between thumbnails.
const GAP: usize = 4;
/// The most thumbnails of a sheet.
pub const MAX_THUMBNAILS: usize = 64;

/// Puts pictures side by side on one sheet, in their order, each in a square of 96 pixels; the first 64 of them.
pub fn sheet(pictures: &[Picture]) -> Picture {
    let pictures = &pictures[..pictures.len().min(MAX_THUMBNAILS)];
    let columns = pictures.len().clamp(1, PER_ROW);
    let rows = pictures.len().div_ceil(PER_ROW).max(1);
    let (width, height) = (columns * (THUMBNAIL + GAP) + GAP, rows * (THUMBNAIL + GAP) + GAP);
    let mut samples = vec![32; width * height * 3];
    for (at, picture) in pictures.iter().enumerate() {
        let longest = picture.width.max(picture.height).max(1);
        let side = |pixels: usize| (pixels * THUMBNAIL / longest).max(1);
        let small = picture.resized(side(picture.width), side(picture.height));
        let left = GAP + at % PER_ROW * (THUMBNAIL + GAP) + (THUMBNAIL - small.width) / 2;
        let top = GAP + at / PER_ROW * (THUMBNAIL + GAP) + (THUMBNAIL - small.height) / 2;
        for (y, x) in (0..small.height).flat_map(|y| (0..small.width).map(move |x| (y, x))) {
            let pixel = &small.samples[(y * small.width + x) * small.channels..][..small.channels];
            let target = &mut samples[((top + y) * width + left + x) * 3..][..3];
            for (channel, sample) in target.iter_mut().enumerate() {
                *sample = pixel[channel.min(small.channels - 1)];
            }
        }
    }
    Picture { width, height, channels: 3, samples }
}

/// The middle slice of a volume, seen from above with the front at the top, grey from its 1st to its 99th percentile.
pub fn middle_slice(volume: &crate::volume::Volume) -> Picture {
    use crate::volume::steps::{Scale, Step, apply};
    let to = Scale::Percentiles { low: 1.0, high: 99.0 };
    let scaled = apply(volume.clone(), &[Step::Reorient, Step::Normalise { to }])
        .expect("the bounds are in order, and turning keeps the size");
    let [width, height, depth] = scaled.size();
    // At most a few thumbnails' worth of pixels: a larger slice is thinned out.
    let thin = (width.max(height) / 1024).max(1);
    let (columns, rows) = (width.div_ceil(thin), height.div_ceil(thin));
    let value = |y: usize, x: usize| byte(255.0 * f64::from(scaled.value([x * thin, height - 1 - y * thin, depth / 2])));
    let samples = (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))).map(|(y, x)| value(y, x)).collect();
    Picture { width: columns, height: rows, channels: 1, samples }
}
