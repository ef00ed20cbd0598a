//! Folders of pictures.

use std::fs;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use data::picture::{Picture, PictureError};
use data::{DataError, ImageParameters, Parameters, refusal};

use crate::nifti::testdata;
use crate::{Folder, describe};

fn scan(folder: &std::path::Path, size: Option<[usize; 2]>) -> Result<(data::Description, data::Scan), DataError> {
    let description = describe(folder, Parameters::Images(ImageParameters { size }));
    let scan = data::scan(&description, None, &crate::GO_ON)?;
    Ok((description, scan))
}

#[test]
fn jpeg_pictures_are_a_table_of_pixels() {
    let (description, scan) = scan(&testdata("mednist"), None).unwrap();
    assert_eq!((scan.rows, scan.schema.len()), (4, 64 * 64 + 6));
    let source = data::open(&description, &scan).unwrap();
    let columns = ["pixel_0", "pixel_4095", "label", "class", "width", "mean"];
    let batch = source.batches(&columns).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column(2).as_primitive::<Int64Type>().values().to_vec(), [0, 0, 1, 1]);
    assert_eq!(batch.column(3).as_string::<i32>().value(2), "HeadCT");
    assert!(batch.column(4).as_primitive::<Int64Type>().values().iter().all(|width| *width == 64));
    assert!(batch.column(5).as_primitive::<Float64Type>().values().iter().all(|mean| (1.0..254.0).contains(mean)));
    let smaller = scan_size(&[8, 8]);
    assert_eq!(smaller, 64 + 6);
}

fn scan_size(size: &[usize; 2]) -> usize {
    scan(&testdata("mednist"), Some(*size)).unwrap().1.schema.len()
}

#[test]
fn pictures_of_different_sizes_have_pixels_only_at_a_declared_size() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path().join("a")).unwrap();
    fs::copy(testdata("mednist/Hand/000000.jpeg"), folder.path().join("a/1.jpeg")).unwrap();
    fs::copy(testdata("png/normal_000.png"), folder.path().join("a/2.png")).unwrap();
    assert_eq!(scan(folder.path(), None).unwrap().1.schema.len(), 6);
    let (description, scan) = scan(folder.path(), Some([16, 16])).unwrap();
    assert_eq!(scan.schema.len(), 256 + 6);
    let source = data::open(&description, &scan).unwrap();
    let batch = source.batches(&["width", "pixel_255"]).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values().to_vec(), [64, 28]);
    let sheet = Picture::decode(&data::thumbnails(&description).unwrap().unwrap()).unwrap();
    assert_eq!((sheet.width, sheet.height), (204, 104));
}

#[test]
fn a_damaged_picture_is_named_on_the_node_and_not_outside() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path().join("a")).unwrap();
    let whole = fs::read(testdata("png/normal_000.png")).unwrap();
    folder.write("a/secret.png", &whole[..whole.len() / 2]);
    let error = scan(folder.path(), None).unwrap_err();
    assert!(error.to_string().contains("secret.png: not a valid PNG file"), "{error}");
    assert!(!refusal(&error).sentence.contains("secret"));
    folder.write("a/secret.png", "text");
    let error = scan(folder.path(), None).unwrap_err();
    assert!(matches!(error, DataError::Picture { source: PictureError::Format, .. }));
    fs::remove_file(folder.path().join("a/secret.png")).unwrap();
    let error = scan(folder.path(), None).unwrap_err();
    assert!(error.to_string().contains("expected a folder for each class"), "{error}");
}

#[test]
fn a_picture_survives_png_and_a_mean_survives_resizing() {
    let samples: Vec<u8> = (0..48).map(|at| at * 5).collect();
    let picture = Picture { width: 4, height: 4, channels: 3, samples };
    assert_eq!(Picture::decode(&picture.to_png()).unwrap(), picture);
    let small = picture.resized(2, 2);
    assert_eq!(small.samples[0], 38, "the mean of 0, 15, 60 and 75, rounded");
    assert_eq!(picture.resized(8, 8).samples[..3], picture.samples[..3]);
    assert_eq!(picture.resized(3, 1).samples.len(), 9);
    assert_eq!(picture.clone().grey().samples[1], 19, "0.299 of 15, 0.587 of 20, 0.114 of 25");
}

proptest::proptest! {
    #[test]
    fn random_changes_never_panic(at in 0_usize..600, byte: u8, is_png: bool) {
        let name = if is_png { "png/normal_000.png" } else { "mednist/Hand/000000.jpeg" };
        let mut bytes = fs::read(testdata(name)).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Picture::decode(&bytes);
    }
}
