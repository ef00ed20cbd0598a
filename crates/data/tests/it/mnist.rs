//! MNIST, from fifty of its images.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use data::{ColumnChoice, DataError, Depth, Parameters, Table};
use protocol::Missing;

use crate::{Folder, describe};

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mnist-sample")
}

fn unpacked(name: &str) -> Vec<u8> {
    let file = fs::File::open(sample().join(format!("{name}.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

fn load(folder: &Path) -> Result<Table, DataError> {
    let description = describe(folder, Parameters::Mnist);
    let scan = data::scan(&description, None, &crate::GO_ON)?;
    assert_eq!(scan.compare(&description, Depth::Full, &crate::GO_ON)?, data::Comparison::Same);
    let source = data::open(&description, &scan)?;
    let choice = ColumnChoice { features: &[], target: Some("label"), split: None, missing: Missing::Refuse };
    Table::load(&*source, choice, &crate::GO_ON)
}

#[test]
fn images_are_rows_of_pixels_with_a_label() {
    let table = load(&sample()).unwrap();
    assert_eq!((table.rows(), table.names().len()), (50, 784));
    assert_eq!((table.names()[0].as_str(), table.names()[783].as_str()), ("pixel_0", "pixel_783"));
    // The first digits of the training set, and sums that numpy gives.
    assert_eq!(&table.target()[..5], [5.0, 0.0, 5.0, 0.0, 0.0]);
    assert_eq!(table.target().iter().sum::<f64>(), 223.0);
    assert_eq!(table.features().iter().sum::<f64>(), 1_243_542.0);
    assert_eq!(table.row(7).iter().sum::<f64>(), 22_451.0);
    assert_eq!(table.row(0)[203..208], [49.0, 238.0, 253.0, 253.0, 253.0]);
}

#[test]
fn unpacked_files_and_the_folders_of_torchvision_give_the_same() {
    let packed = load(&sample()).unwrap();
    for (below, dot) in [("", false), ("MNIST/raw", false), ("raw", true)] {
        let folder = Folder::new();
        fs::create_dir_all(folder.path().join(below)).unwrap();
        for name in [IMAGES, LABELS] {
            let target = if dot { name.replace("-idx", ".idx") } else { name.to_owned() };
            fs::write(folder.path().join(below).join(target), unpacked(name)).unwrap();
        }
        assert_eq!(load(folder.path()).unwrap(), packed);
    }
}

#[test]
fn chosen_columns_come_in_the_order_asked_for() {
    let description = describe(&sample(), Parameters::Mnist);
    let source = data::open(&description, &data::scan(&description, None, &crate::GO_ON).unwrap()).unwrap();
    let batches: Vec<_> = source.batches(&["label", "pixel_204"]).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(arrow_array::RecordBatch::num_rows).sum::<usize>(), 50);
    let first = arrow_array::cast::as_primitive_array::<arrow_array::types::Int64Type>(batches[0].column(0));
    let second = arrow_array::cast::as_primitive_array::<arrow_array::types::Int64Type>(batches[0].column(1));
    assert_eq!((first.value(0), second.value(0)), (5, 238));
}

#[test]
fn damaged_and_missing_files_are_errors() {
    let folder = Folder::new();
    let check = |message: &str| {
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    check("expected the MNIST file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in this folder");
    folder.write(IMAGES, unpacked(IMAGES));
    check("expected the MNIST file train-labels-idx1-ubyte");
    folder.write(LABELS, unpacked(IMAGES));
    check("magic number");
    folder.write(LABELS, unpacked(LABELS));
    folder.write(IMAGES, &unpacked(IMAGES)[..1_000]);
    check("the file ends too early");
    let packed = fs::read(sample().join(format!("{IMAGES}.gz"))).unwrap();
    folder.write(IMAGES, &packed[..packed.len() / 2]);
    check("the file ends too early");
    let mut damaged = packed;
    damaged[200] ^= 0xff;
    folder.write(IMAGES, damaged);
    assert!(load(folder.path()).is_err());
    let error = load(&folder.path().join("none")).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }));
    let error = load(&folder.path().join(LABELS)).unwrap_err();
    assert!(matches!(error, DataError::NotAFile { .. }));
}
