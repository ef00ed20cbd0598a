//! Subjects with volumes, and their demographics.

use std::collections::BTreeMap;
use std::fs;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use data::{DataError, Depth, Lacking, MedicalFolderParameters, Parameters, Subjects, refusal};

use crate::nifti::{packed, small};
use crate::{Folder, describe};

fn site() -> Folder {
    let folder = Folder::new();
    for (subject, modalities) in [("SYN-1", &["T1", "T2"][..]), ("SYN-2", &["T1"]), ("SYN-3", &["T1", "T2"])] {
        for modality in modalities {
            let place = folder.path().join("subjects").join(subject).join(modality);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(format!("{subject}_{modality}.nii.gz")), packed(&small([4, 3, 2]))).unwrap();
        }
    }
    folder.write("participants.csv", "FOLDER_NAME,AGE\nSYN-2,40\nSYN-1,50\nSYN-9,60\n");
    folder
}

fn parameters() -> MedicalFolderParameters {
    MedicalFolderParameters {
        tabular_file: Some("../participants.csv".into()),
        index_col: Some("FOLDER_NAME".to_owned()),
        ..MedicalFolderParameters::default()
    }
}

fn scan(folder: &Folder, parameters: MedicalFolderParameters) -> Result<(data::Description, data::Scan), DataError> {
    let description = describe(&folder.path().join("subjects"), Parameters::MedicalFolder(parameters));
    let scan = data::scan(&description, None, &crate::GO_ON)?;
    Ok((description, scan))
}

#[test]
fn the_table_says_who_has_which_volume() {
    let folder = site();
    let (description, scan) = scan(&folder, parameters()).unwrap();
    let names: Vec<&str> = scan.schema.columns().iter().map(|column| column.name.as_str()).collect();
    assert_eq!((names, scan.rows), (vec!["FOLDER_NAME", "AGE", "has_T1", "has_T2"], 3));
    let source = data::open(&description, &scan).unwrap();
    let batch = source.batches(&["has_T2", "AGE", "has_T1"]).unwrap().next().unwrap().unwrap();
    let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((column(0), column(1), column(2)), (vec![0, 1, 0], vec![40, 50, 60], vec![1, 1, 0]));
    assert_eq!(scan.compare(&description, Depth::Full, &crate::GO_ON).unwrap(), data::Comparison::Same);
    fs::remove_dir_all(folder.path().join("subjects/SYN-3/T2")).unwrap();
    assert_eq!(scan.compare(&description, Depth::Quick, &crate::GO_ON).unwrap(), data::Comparison::Changed);
}

#[test]
fn what_is_missing_is_listed() {
    let folder = site();
    let (description, scan) = scan(&folder, parameters()).unwrap();
    let expected = Lacking {
        volumes: vec![("SYN-2".to_owned(), "T2".to_owned())],
        folders: vec!["SYN-9".to_owned()],
        rows: vec!["SYN-3".to_owned()],
    };
    assert_eq!(data::lacking(&description, &scan).unwrap(), Some(expected));
    let subjects = Subjects::find(&description.path, &BTreeMap::new()).unwrap();
    assert_eq!(subjects.complete().collect::<Vec<_>>(), ["SYN-1", "SYN-3"]);
}

#[test]
fn without_demographics_each_subject_is_a_row() {
    let folder = site();
    let (description, scan) = scan(&folder, MedicalFolderParameters::default()).unwrap();
    assert_eq!((scan.rows, scan.schema.len()), (3, 2));
    let source = data::open(&description, &scan).unwrap();
    let batch = source.batches(&["has_T2"]).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, 0, 1]);
}

#[test]
fn a_loading_plan_makes_sites_look_alike() {
    let folder = Folder::new();
    for subject in ["sub-01", "sub-02"] {
        let anat = folder.path().join("subjects").join(subject).join("anat");
        fs::create_dir_all(&anat).unwrap();
        for kind in ["T1w", "T2w", "FLAIR"] {
            fs::write(anat.join(format!("{subject}_{kind}.nii")), small([4, 3, 2])).unwrap();
        }
    }
    let ambiguous = scan(&folder, MedicalFolderParameters::default()).unwrap_err();
    assert!(ambiguous.to_string().contains("a loading plan can say which"), "{ambiguous}");
    let places = |places: &[&str]| places.iter().map(|place| (*place).to_owned()).collect::<Vec<_>>();
    let mut plan = MedicalFolderParameters::default();
    plan.modalities_to_folders.insert("T1".to_owned(), places(&["T1", "anat/T1w"]));
    plan.modalities_to_folders.insert("T2".to_owned(), places(&["anat/T2w"]));
    let (_, found) = scan(&folder, plan.clone()).unwrap();
    assert_eq!((found.rows, found.fingerprint.files.len()), (2, 4));
    plan.modalities_to_folders = BTreeMap::from([("T1".to_owned(), places(&["..", "t1"]))]);
    assert!(matches!(scan(&folder, plan), Err(DataError::Folder { .. })));
}

#[test]
fn a_volume_of_another_size_is_named_on_the_node_and_not_outside() {
    let folder = site();
    let parameters = MedicalFolderParameters { size: Some([4, 4, 4]), ..parameters() };
    let error = scan(&folder, parameters.clone()).unwrap_err();
    assert!(
        error.to_string().ends_with("SYN-1_T1.nii.gz: expected a volume of 4 × 4 × 4 voxels, found 4 × 3 × 2"),
        "{error}"
    );
    assert!(!refusal(&error).sentence.contains("SYN"));
    let path = folder.path().join("subjects/SYN-1/T1/SYN-1_T1.nii.gz");
    assert!(matches!(parameters.read(&path), Err(DataError::VolumeSize { .. })));
}

#[test]
fn a_subject_in_two_rows_is_refused() {
    let folder = site();
    folder.write("participants.csv", "FOLDER_NAME,AGE\nSYN-1,50\nSYN-1,51\n");
    let error = scan(&folder, parameters()).unwrap_err();
    assert!(
        error.to_string().contains("participants.csv: the id \"SYN-1\" occurs in several rows of column \"FOLDER_NAME\"")
    );
    assert_eq!(refusal(&error).sentence, "the dataset has several rows for one person");
    let (index_col, half) = (None, parameters());
    assert!(scan(&folder, MedicalFolderParameters { index_col, ..half }).unwrap_err().to_string().contains("`index_col`"));
}

#[test]
fn volumes_have_thumbnails() {
    let folder = site();
    let (description, _) = scan(&folder, parameters()).unwrap();
    let png = data::thumbnails(&description).unwrap().unwrap();
    let sheet = data::picture::Picture::decode(&png).unwrap();
    assert_eq!((sheet.width, sheet.height, sheet.channels), (504, 104, 3));
}
