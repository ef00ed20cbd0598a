//! What the other side hears.

use data::{ColumnChoice, DataError, Table, refusal};
use protocol::{Missing, RefusalCode};

use crate::{Folder, describe_csv, scan_csv};

/// Fails to load these columns of a table, and says what leaves the node.
fn refuse(text: &str, feature: &str) -> (RefusalCode, String) {
    let folder = Folder::new();
    let description = describe_csv(&folder.write("secret-path.csv", text));
    let source = data::open(&description, &data::scan(&description, None, &crate::GO_ON).unwrap()).unwrap();
    let features = [feature.to_owned()];
    let choice = ColumnChoice { features: &features, target: Some("y"), split: None, missing: Missing::Refuse };
    let refusal = refusal(&Table::load(&*source, choice, &crate::GO_ON).unwrap_err());
    (refusal.code, refusal.sentence)
}

#[test]
fn columns_that_were_asked_for_are_named() {
    let text = "age,sex,y\n63,male,1\n,female,0\n";
    assert_eq!(refuse(text, "agee"), (RefusalCode::ColumnUnknown, "the dataset has no column \"agee\"".to_owned()));
    assert_eq!(
        refuse(text, "sex"),
        (RefusalCode::ColumnNotNumeric, "column \"sex\" holds text, a number is needed".to_owned())
    );
    let (code, sentence) = refuse(text, "age");
    assert_eq!(code, RefusalCode::MissingValues);
    assert_eq!(
        sentence,
        "there are blank or not-a-number cells in the column \"age\"; `missing = \"drop\"` leaves such rows out"
    );
}

#[test]
fn neither_paths_nor_values_leave() {
    let folder = Folder::new();
    let description = describe_csv(&folder.path().join("secret-path.csv"));
    let missing_file = data::scan(&description, None, &crate::GO_ON).unwrap_err();
    let bad_cell = scan_csv("x,secret\n1,2\n3,very-private\n4,5\n").unwrap_err();
    assert!(bad_cell.to_string().contains("very-private"));
    for error in [missing_file, bad_cell, DataError::Changed { path: description.path.clone() }] {
        let refusal = refusal(&error);
        assert!(matches!(refusal.code, RefusalCode::DatasetUnreadable | RefusalCode::DatasetChanged));
        for private in ["secret", "private", "/", "table", "line"] {
            assert!(!refusal.sentence.contains(private), "{private:?} in {:?}", refusal.sentence);
        }
    }
}

#[test]
fn a_long_name_is_cut_and_control_characters_are_escaped() {
    let error = DataError::ColumnUnknown { name: format!("a\n\u{1b}{}", "x".repeat(100_000)), nearest: None };
    let sentence = refusal(&error).sentence;
    assert!(sentence.len() < 120 && !sentence.contains(['\n', '\u{1b}']), "{sentence:?}");
}
