//! DICOM slices and series.

use std::fs;

use data::dicom::{DicomError, DicomParameters, KEPT, Tag, read, read_file, read_series};
use data::{DataError, Parameters, refusal};

use crate::nifti::testdata;
use crate::{Folder, describe};

#[test]
fn a_ct_slice_is_rescaled() {
    let slice = read_file(&testdata("dicom/CT_small.dcm")).unwrap();
    assert_eq!((slice.modality.as_str(), slice.rows, slice.columns), ("CT", 128, 128));
    assert_eq!(slice.spacing_mm, [0.661_468, 0.661_468]);
    assert_eq!(slice.plane.unwrap().position, [-158.135_803, -179.035_797, -75.699_997]);
    // The sum of the stored words, minus 1024 for each of 16,384 pixels.
    let sum: f64 = slice.values.iter().map(|value| f64::from(*value)).sum();
    assert_eq!(sum, 14_826_310.0 - 1024.0 * 16_384.0);
    assert_eq!(slice.values[0], 175.0 - 1024.0);
    assert_eq!(read_file(&testdata("dicom/MR_small.dcm")).unwrap().modality, "MR");
}

#[test]
fn nothing_of_the_patient_is_kept() {
    let bytes = fs::read(testdata("dicom/series/IMG0001.dcm")).unwrap();
    let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let mut slice = read(bytes.as_slice()).unwrap();
    slice.values.clear();
    let kept = format!("{slice:?}");
    for private in ["SYN-A001", "Nobody", "Synthetic", "19680101", "052Y", "ACC101", "1.2.826"] {
        assert!(contains(private) && !kept.contains(private), "{private}");
    }
    // Only where, how large and how: nothing of the groups for patients, and no date, text or identifier.
    for (tag, name) in KEPT {
        assert!(matches!(tag.0, 0x0008 | 0x0018 | 0x0020 | 0x0028), "{tag} {name}");
        assert!(tag.0 != 0x0008 || tag == Tag::MODALITY, "{tag} {name}");
    }
}

#[test]
fn a_series_is_put_together_in_the_order_of_its_places() {
    let series = read_series(&testdata("dicom/series")).unwrap();
    assert_eq!((series.volume.size(), series.modality.as_str()), ([48, 60, 6], "MR"));
    assert_eq!(series.volume.spacing_mm(), [4.0, 4.0, 16.0]);
    // The same files under names in the opposite order give the same volume.
    let folder = Folder::new();
    for number in 1..=6 {
        let name = testdata(&format!("dicom/series/IMG000{number}.dcm"));
        folder.write(&format!("slice{}.dcm", 9 - number), fs::read(name).unwrap());
    }
    assert_eq!(read_series(folder.path()).unwrap(), series);
    fs::remove_file(folder.path().join("slice6.dcm")).unwrap();
    let gap = read_series(folder.path()).unwrap_err();
    assert!(matches!(gap, DataError::Dicom { source: DicomError::Gap { .. }, .. }), "{gap}");
    folder.write("slice6.dcm", fs::read(testdata("dicom/MR_small.dcm")).unwrap());
    let differ = read_series(folder.path()).unwrap_err();
    assert!(differ.to_string().ends_with("the slices differ in their series; they are not one series"), "{differ}");
}

#[test]
fn a_compressed_transfer_syntax_is_named_on_the_node_and_not_outside() {
    let folder = Folder::new();
    let bytes = fs::read(testdata("dicom/series/IMG0001.dcm")).unwrap();
    let uid = b"1.2.840.10008.1.2.1\0";
    let at = bytes.windows(uid.len()).position(|window| window == uid).unwrap();
    for (other, name) in [("1.2.840.10008.1.2.4.90", "JPEG 2000"), ("1.2.840.10008.1.2.5\0", "RLE Lossless")] {
        let mut bytes = bytes.clone();
        bytes[at - 2] = u8::try_from(other.len()).unwrap();
        bytes.splice(at..at + uid.len(), other.bytes());
        // The length of the group.
        bytes[140] = bytes[140] + u8::try_from(other.len()).unwrap() - 20;
        let path = folder.write("secret.dcm", &bytes);
        let error = read_file(&path).unwrap_err();
        let uid = other.trim_end_matches('\0');
        assert!(
            error.to_string().contains(&format!("secret.dcm: the transfer syntax {uid} ({name}) is not supported")),
            "{error}"
        );
        assert!(!refusal(&error).sentence.contains("secret"));
    }
}

#[test]
fn series_are_a_table_without_the_names_of_folders() {
    let folder = Folder::new();
    for patient in ["Doe^Jane", "Roe^Richard"] {
        let series = folder.path().join(patient).join("T1");
        fs::create_dir_all(&series).unwrap();
        for number in 1..=6 {
            let name = format!("IMG000{number}.dcm");
            fs::copy(testdata("dicom/series").join(&name), series.join(&name)).unwrap();
        }
    }
    let description = describe(folder.path(), Parameters::Dicom(DicomParameters::default()));
    let scan = data::scan(&description, None, &crate::GO_ON).unwrap();
    assert_eq!((scan.rows, scan.fingerprint.files.len()), (2, 12));
    let source = data::open(&description, &scan).unwrap();
    let batches: Vec<_> = source.batches(&["modality", "slices", "mean", "sd"]).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[0], batches[1]);
    assert!(!format!("{batches:?}{:?}", scan.schema).contains("Doe"));
    assert!(data::thumbnails(&description).unwrap().unwrap().starts_with(b"\x89PNG"));
    let parameters = DicomParameters { size: Some([64, 64, 6]), steps: Vec::new() };
    let error = data::scan(&describe(folder.path(), Parameters::Dicom(parameters)), None, &crate::GO_ON).unwrap_err();
    assert!(error.to_string().contains("expected a volume of 64 × 64 × 6 voxels, found 48 × 60 × 6"), "{error}");
    assert_eq!(refusal(&error).sentence, "a volume of the dataset has another size than the dataset says");
}

proptest::proptest! {
    #[test]
    fn random_changes_never_panic(at in 0_usize..1200, byte: u8, cut in 0_usize..6700) {
        let mut bytes = fs::read(testdata("dicom/series/IMG0001.dcm")).unwrap();
        bytes[at] = byte;
        bytes.truncate(cut);
        let _ = read(bytes.as_slice());
    }
}
