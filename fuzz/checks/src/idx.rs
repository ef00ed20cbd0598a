//! The IDX files of MNIST.

use data::idx::{self, IdxError, Pairs};

/// Takes images and then labels from the bytes.
pub fn check(bytes: &[u8]) {
    let Some((images, labels)) = super::split(bytes) else { return };
    match idx::check(images, labels) {
        Ok((rows, pixels)) => {
            let rows = usize::try_from(rows).expect("a u32 fits into usize");
            assert_eq!((images.len(), labels.len()), (16 + rows * pixels, 8 + rows), "every byte is accounted for");
            check_windows(images, labels);
        }
        Err(IdxError::Io(error)) => panic!("memory cannot fail to be read: {error}"),
        Err(error) => drop(error.to_string()),
    }
}

/// Read in small pieces, the data are the file's.
fn check_windows(images: &[u8], labels: &[u8]) {
    let mut pairs = Pairs::new(images, labels).unwrap_or_else(|error| panic!("{error}"));
    let (mut pixels, mut classes, mut all) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        pairs.read(3, &mut pixels, &mut classes).unwrap_or_else(|error| panic!("{error}"));
        if classes.is_empty() {
            break;
        }
        all.extend_from_slice(&pixels);
    }
    assert_eq!(all, images[16..]);
}
