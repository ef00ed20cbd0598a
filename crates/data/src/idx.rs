//! The IDX format of the MNIST files: a header of big-endian sizes, then the bytes.
//!
//! The format: Y. Le Cun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits, section "File formats".

use std::io::{self, Read};

use thiserror::Error;

use crate::MAX_COLUMNS;

/// Unsigned bytes in three dimensions: images, rows, columns.
const IMAGES: u32 = 0x0000_0803;
/// Unsigned bytes in one dimension: labels.
const LABELS: u32 = 0x0000_0801;

/// Why bytes are no IDX images or labels.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdxError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("expected the IDX magic number 0x{expected:08x}, found 0x{found:08x}; this is another kind of file")]
    Magic { expected: u32, found: u32 },
    #[error("the file ends too early: expected {expected} bytes of data behind the header; copy it again")]
    Truncated { expected: u64 },
    #[error("bytes follow the {expected} bytes of data that the header announces; copy the file again")]
    TooLong { expected: u64 },
    #[error("expected images of 1 to {MAX_COLUMNS} pixels, found {height} × {width}")]
    Size { height: u32, width: u32 },
    #[error("expected at least one image, found none")]
    Empty,
    #[error("there are {images} images but {labels} labels; the files do not belong together")]
    Counts { images: u32, labels: u32 },
}

fn truncated(error: io::Error, expected: u64) -> IdxError {
    if error.kind() == io::ErrorKind::UnexpectedEof { IdxError::Truncated { expected } } else { IdxError::Io(error) }
}

fn number(input: &mut impl Read) -> Result<u32, IdxError> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes).map_err(|error| truncated(error, 0))?;
    Ok(u32::from_be_bytes(bytes))
}

fn magic(input: &mut impl Read, expected: u32) -> Result<(), IdxError> {
    let found = number(input)?;
    if found == expected { Ok(()) } else { Err(IdxError::Magic { expected, found }) }
}

/// Images and their labels, read together.
pub struct Pairs<I, L> {
    images: I,
    labels: L,
    count: u32,
    pixels: usize,
    read: u32,
}

impl<I: Read, L: Read> Pairs<I, L> {
    /// Reads both headers.
    pub fn new(mut images: I, mut labels: L) -> Result<Self, IdxError> {
        magic(&mut images, IMAGES)?;
        let (count, height, width) = (number(&mut images)?, number(&mut images)?, number(&mut images)?);
        magic(&mut labels, LABELS)?;
        let labelled = number(&mut labels)?;
        if labelled != count {
            return Err(IdxError::Counts { images: count, labels: labelled });
        }
        // One column is the label's.
        let pixels = usize::try_from(u64::from(height) * u64::from(width)).unwrap_or(usize::MAX);
        if pixels == 0 || pixels >= MAX_COLUMNS {
            return Err(IdxError::Size { height, width });
        }
        if count == 0 {
            return Err(IdxError::Empty);
        }
        Ok(Self { images, labels, count, pixels, read: 0 })
    }

    /// The number of images.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The number of pixels of an image.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Reads at most `rows` images, one after the other, and their labels; neither, at the end, after checking that nothing
    /// follows.
    pub fn read(&mut self, rows: u32, pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> Result<(), IdxError> {
        let rows = rows.min(self.count - self.read);
        let all_pixels = u64::from(self.count) * self.pixels as u64;
        let rows_len = usize::try_from(rows).expect("a u32 fits into usize on the 64-bit machines that are supported");
        labels.resize(rows_len, 0);
        pixels.resize(rows_len * self.pixels, 0);
        self.labels.read_exact(labels).map_err(|error| truncated(error, u64::from(self.count)))?;
        self.images.read_exact(pixels).map_err(|error| truncated(error, all_pixels))?;
        self.read += rows;
        if self.read == self.count {
            check_end(&mut self.images, all_pixels)?;
            check_end(&mut self.labels, u64::from(self.count))?;
        }
        Ok(())
    }
}

fn check_end(input: &mut impl Read, expected: u64) -> Result<(), IdxError> {
    let mut byte = [0];
    match input.read_exact(&mut byte) {
        Ok(()) => Err(IdxError::TooLong { expected }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads images and labels to their end; gives how many there are, and the pixels of each.
pub fn check(images: impl Read, labels: impl Read) -> Result<(u32, usize), IdxError> {
    let mut pairs = Pairs::new(images, labels)?;
    let rows = u32::try_from(crate::source::rows_per_batch(pairs.pixels)).unwrap_or(u32::MAX);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    while pairs.read < pairs.count {
        pairs.read(rows, &mut pixels, &mut labels)?;
    }
    Ok((pairs.count, pairs.pixels))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn images(count: u32, height: u32, width: u32, data: &[u8]) -> Vec<u8> {
        [IMAGES, count, height, width].iter().flat_map(|number| number.to_be_bytes()).chain(data.iter().copied()).collect()
    }

    fn labels(count: u32, data: &[u8]) -> Vec<u8> {
        [LABELS, count].iter().flat_map(|number| number.to_be_bytes()).chain(data.iter().copied()).collect()
    }

    fn check_error(images: &[u8], labels: &[u8], message: &str) {
        assert_eq!(check(images, labels).unwrap_err().to_string(), message);
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(check(&images(2, 1, 3, &[0; 6])[..], &labels(2, &[0; 2])[..]).unwrap(), (2, 3));
        check_error(
            &images(2, 1, 3, &[0; 5]),
            &labels(2, &[0; 2]),
            "the file ends too early: expected 6 bytes of data behind the header; copy it again",
        );
        check_error(
            &images(2, 1, 3, &[0; 6]),
            &labels(2, &[0; 1]),
            "the file ends too early: expected 2 bytes of data behind the header; copy it again",
        );
        check_error(
            &images(2, 1, 3, &[0; 7]),
            &labels(2, &[0; 2]),
            "bytes follow the 6 bytes of data that the header announces; copy the file again",
        );
        check_error(
            &images(2, 1, 3, &[0; 6]),
            &labels(3, &[0; 3]),
            "there are 2 images but 3 labels; the files do not belong together",
        );
        check_error(
            &labels(2, &[0; 2]),
            &images(2, 1, 3, &[0; 6]),
            "expected the IDX magic number 0x00000803, found 0x00000801; this is another kind of file",
        );
        check_error(
            &images(1, u32::MAX, u32::MAX, &[]),
            &labels(1, &[0]),
            "expected images of 1 to 20000 pixels, found 4294967295 × 4294967295",
        );
        check_error(&images(0, 28, 28, &[]), &labels(0, &[]), "expected at least one image, found none");
        // An announced size costs no memory before the bytes are there.
        assert!(matches!(
            check(&images(u32::MAX, 100, 100, &[])[..], &labels(u32::MAX, &[])[..]),
            Err(IdxError::Truncated { .. })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            (image_bytes, label_bytes) in (proptest::collection::vec(any::<u8>(), 0..64), proptest::collection::vec(any::<u8>(), 0..32)),
            (count, height, width) in (0_u32..4, 0_u32..4, any::<u32>()),
        ) {
            let _ = check(&image_bytes[..], &label_bytes[..]);
            let _ = check(&images(count, height, width % 4, &image_bytes)[..], &labels(count, &label_bytes)[..]);
            let _ = check(&images(count, height, width, &image_bytes)[..], &labels(count, &label_bytes)[..]);
        }

        #[test]
        fn what_is_written_reads_back(count in 1_u32..40, height in 1_u32..5, width in 1_u32..5, rows in 1_u32..50) {
            let size = (count * height * width) as usize;
            let data: Vec<u8> = (0..=250).cycle().take(size).collect();
            let classes: Vec<u8> = (0..10).cycle().take(count as usize).collect();
            let (image_file, label_file) = (images(count, height, width, &data), labels(count, &classes));
            let mut pairs = Pairs::new(&image_file[..], &label_file[..]).unwrap();
            let (mut all_pixels, mut all_labels) = (Vec::new(), Vec::new());
            loop {
                let (mut some_pixels, mut some_labels) = (Vec::new(), Vec::new());
                pairs.read(rows, &mut some_pixels, &mut some_labels).unwrap();
                if some_labels.is_empty() {
                    break;
                }
                all_pixels.extend(some_pixels);
                all_labels.extend(some_labels);
            }
            prop_assert_eq!(all_pixels, data);
            prop_assert_eq!(all_labels, classes);
        }
    }
}
