//! What a scan says of good and of bad CSV.

use std::collections::BTreeMap;

use data::csv::{self, CsvError, Delimiter, ScanOptions};
use data::{Batches, CsvParameters, DataError, Layout, Parameters};
use proptest::prelude::*;
use protocol::ColumnKind::{self, Integer, Real, Text};

use crate::{Folder, describe, describe_csv, scan_csv};

fn scan(text: impl AsRef<[u8]>) -> Result<csv::CsvScan, CsvError> {
    csv::scan(text.as_ref(), &ScanOptions::default())
}

fn check_kinds(text: &str, kinds: &[ColumnKind], missing: &[u64]) {
    let scan = scan(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let found: Vec<ColumnKind> = scan.schema.columns().iter().map(|column| column.kind).collect();
    assert_eq!((&found[..], &scan.missing[..]), (kinds, missing), "{text:?}");
}

fn check_error(text: impl AsRef<[u8]>, message: &str) {
    let text = text.as_ref();
    let error = scan(text).expect_err(&String::from_utf8_lossy(text));
    assert!(error.to_string().starts_with(message), "expected {message:?}, found {:?}", error.to_string());
}

#[test]
fn kinds_are_inferred_and_missing_cells_counted() {
    check_kinds("a,b,c\n1,2.5,x\n-3,4,y z\n", &[Integer, Real, Text], &[0, 0, 0]);
    check_kinds("a,b,c\n1,NA,\n,nan,y\n 2 ,1e3,  \n", &[Integer, Real, Text], &[1, 2, 2]);
    // NA is missing among numbers and a word among words.
    check_kinds("country,n\nNA,NA\nFR,1\n", &[Text, Integer], &[0, 1]);
    check_kinds("all_blank,n\n,1\n,2\n", &[Real, Integer], &[2, 0]);
    check_kinds("all_na,n\nNA,1\nNA,2\n", &[Real, Integer], &[2, 0]);
    // Mostly text with some numbers is text.
    check_kinds("ward\nA1\n12\nB2\n", &[Text], &[0]);
    check_kinds("quoted\n\"12\"\n\"\"\n", &[Integer], &[1]);
}

#[test]
fn delimiters_line_ends_and_byte_order_marks_are_read() {
    for (text, delimiter) in [
        ("a,b\n1,2\n", Delimiter::Comma),
        ("a;b\r\n1;2\r\n", Delimiter::Semicolon),
        ("\u{feff}a\tb\n1\t2", Delimiter::Tab),
        ("a|b\n\n1|2\n\n", Delimiter::Bar),
        ("\"a\" ,b\n\"1\",2\n".replace(" ,", ",").as_str(), Delimiter::Comma),
    ] {
        let scan = scan(text).unwrap();
        assert_eq!((scan.delimiter, scan.rows), (delimiter, 1), "{text:?}");
        assert_eq!(scan.schema.columns()[0].name, "a");
    }
}

#[test]
fn a_tsv_file_has_tabs_by_its_name() {
    let folder = Folder::new();
    let path = folder.write("notes.TSV", "name,first\tvalue,second\n1,5\t2,5\n");
    let scan = data::scan(&describe_csv(&path), None, &crate::GO_ON).unwrap();
    assert_eq!(scan.layout, Layout::Csv { delimiter: Delimiter::Tab });
    assert_eq!(scan.schema.columns()[1].name, "value,second");
}

#[test]
fn errors_name_line_and_column_and_say_what_to_do() {
    check_error("", "the file is empty; expected a header line");
    check_error("\n\n", "the file is empty");
    check_error("a,b\n", "the file has a header line but no rows");
    check_error("63,1\n67,1\n", "line 1: the first line holds only numbers; expected a header line");
    check_error("a,,c\n1,2,3\n", "line 1: column 2 has no name; name it");
    check_error("a,b,a\n1,2,3\n", "line 1, column \"a\": columns 1 and 3 have the same name; rename one");
    check_error(
        "a,b,c\n1,2,3\n\n1,2\n",
        "line 4, column \"c\": expected 3 fields as in the header line, found 2; look for a missing or surplus delimiter",
    );
    check_error("a,b\n1,2,3\n", "line 2: expected 2 fields as in the header line, found 3");
    check_error(b"a,b\n1,caf\xe9\n", "line 2, column \"b\": byte 0xe9 is not UTF-8; convert the file");
    check_error("a,b\n1,\0\n", "line 2, column \"b\": a NUL byte");
    check_error("a,b\n1,\"x\n2,3\n", "line 2, column \"b\": the double quote that opens here is never closed");
    check_error("a,b\n1,\"x\"y\n", "line 2, column \"b\": text follows a closing double quote");
    check_error("a\rb\r", "line 1: a carriage return without line feed");
    check_error(b"\xff\xfea\0,\0", "line 1: the file is in UTF-16");
}

#[test]
fn a_text_in_a_numeric_column_is_an_error_that_tells_how_to_declare_it() {
    check_error(
        "age,chol\n63,233\n67,high\n41,204\n",
        "line 3, column \"chol\": expected a number, found \"high\"; correct it, leave it blank if it is missing, or declare the \
         column as text in the dataset file: \"dataset_parameters\": {\"column_types\":{\"chol\":\"text\"}}",
    );
    check_error(
        "a\n1\n2\n3\n?\n?\n",
        "line 5, column \"a\": expected a number, found \"?\" (and 1 more such cells in the column)",
    );
    // One number and one text: numbers are what is expected of data for training.
    check_error("a,b\n1,2\n3,x\n", "line 3, column \"b\": expected a number, found \"x\"");
}

#[test]
fn several_problems_are_listed_in_the_order_of_lines() {
    let text = "a,b\n1,2\n1\nx,2\n1,2,3\n4,5\n";
    let Err(CsvError::Problems(problems)) = scan(text) else { panic!() };
    let lines: Vec<Option<u64>> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(3), Some(4), Some(5)]);
    let many = "a,b\n".to_owned() + &"1\n".repeat(1_000);
    let error = scan(&many).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 21, "{error}");
}

#[test]
fn declared_columns_are_what_they_were_declared() {
    let declared = |types: &[(&str, ColumnKind)]| ScanOptions {
        declared: types.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        ..ScanOptions::default()
    };
    let text = "icd,age\n250,63\nV58,67\n428,41\n";
    let found = csv::scan(text.as_bytes(), &declared(&[("icd", Text), ("age", Real)])).unwrap();
    let kinds: Vec<ColumnKind> = found.schema.columns().iter().map(|column| column.kind).collect();
    assert_eq!(kinds, [Text, Real]);
    let error =
        |types: &[(&str, ColumnKind)], text: &str| csv::scan(text.as_bytes(), &declared(types)).unwrap_err().to_string();
    assert!(error(&[("icd", Integer)], text).starts_with("line 3, column \"icd\": expected a whole number, found \"V58\""));
    let real = error(&[("age", Integer)], "age\n1\n2.5\n");
    assert!(real.starts_with("line 3, column \"age\": expected a whole number, found \"2.5\""), "{real}");
    assert!(real.contains("{\"column_types\":{\"age\":\"real\"}}"), "{real}");
    assert_eq!(
        error(&[("agee", Integer)], "age\n1\n"),
        "column \"agee\": `column_types` names a column that the header line lacks; did you mean \"age\"?"
    );
}

#[test]
fn on_a_refresh_a_numeric_column_stays_numeric() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a,b\n1,\n2,\n");
    let description = describe_csv(&path);
    let before = data::scan(&description, None, &crate::GO_ON).unwrap();
    folder.write("table.csv", "a,b\nx,y\nz,y\n");
    let error = data::scan(&description, Some(&before), &crate::GO_ON).unwrap_err().to_string();
    // The blank column `b` was never numeric, so its text is no problem.
    assert!(error.contains("line 2, column \"a\": expected a number, found \"x\""), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let declared = CsvParameters { column_types: BTreeMap::from([("a".to_owned(), Text)]), delimiter: None };
    let scan = data::scan(&describe(&path, Parameters::Csv(declared)), Some(&before), &crate::GO_ON).unwrap();
    assert_eq!(scan.schema.columns()[0].kind, Text);
}

#[test]
fn the_digest_is_that_of_the_whole_file() {
    let text = "a,b\n1,2\n";
    let scan = scan_csv(text).unwrap();
    assert_eq!(scan.fingerprint.files[0].digest, protocol::Digest::of(text.as_bytes()));
    assert_eq!(scan.fingerprint.files[0].stamp.bytes, text.len() as u64);
}

#[test]
fn a_missing_file_and_a_folder_are_errors() {
    let folder = Folder::new();
    let error = data::scan(&describe_csv(&folder.path().join("none.csv")), None, &crate::GO_ON).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
    let error = data::scan(&describe_csv(folder.path()), None, &crate::GO_ON).unwrap_err();
    assert!(error.to_string().ends_with("expected a file, found a folder"), "{error}");
}

#[test]
fn a_long_table_with_wide_rows_is_scanned() {
    let columns = 3_000;
    let header: Vec<String> = (0..columns).map(|column| format!("gene_{column}")).collect();
    let row = vec!["0.25"; columns].join(";");
    let text = format!("{}\n{}", header.join(";"), format!("{row}\n").repeat(50));
    let scan = scan(&text).unwrap();
    assert_eq!((scan.rows, scan.schema.len()), (50, columns));
}

/// All batches of a stream that was scanned: the rows, and the missing cells of each column.
fn read(bytes: &[u8], scan: &csv::CsvScan) -> Result<(u64, Vec<u64>), String> {
    let positions: Vec<usize> = (0..scan.schema.len()).collect();
    let batches = csv::Batches::new(bytes, scan.delimiter, &scan.schema, &positions);
    let batches = batches.map_err(|error| error.to_string())?.ok_or("another header")?;
    let (mut rows, mut missing) = (0, vec![0; positions.len()]);
    for batch in batches {
        let batch = batch.map_err(|error| error.to_string())?;
        rows += batch.num_rows() as u64;
        for (missing, column) in missing.iter_mut().zip(batch.columns()) {
            *missing += arrow_array::Array::null_count(column) as u64;
        }
    }
    Ok((rows, missing))
}

const PIECES: [&str; 20] = [
    "a", "b", "1", "2.5", "-3", "NA", "nan", " ", "é", ",", ",", ";", "\t", "\"", "\"\"", "\n", "\n", "\r\n", "1e400",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(found) = scan(&bytes) {
            prop_assert_eq!(read(&bytes, &found), Ok((found.rows, found.missing.clone())));
        }
    }

    /// What a scan accepts is read without an error, with the rows and missing cells that it counted.
    #[test]
    fn what_a_scan_accepts_is_what_is_read(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40)) {
        let bytes = format!("a,b\n{}", pieces.concat()).into_bytes();
        if let Ok(found) = scan(&bytes) {
            prop_assert_eq!(read(&bytes, &found), Ok((found.rows, found.missing.clone())));
        }
        if let Ok(found) = scan(&bytes[4..]) {
            prop_assert_eq!(read(&bytes[4..], &found), Ok((found.rows, found.missing.clone())));
        }
    }

    /// A scan of one file can be used, wrongly, on any other without a panic.
    #[test]
    fn batches_of_another_file_never_panic(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40)) {
        let found = scan("a,b\n1,x\n").unwrap();
        let _ = read(format!("a,b\n{}", pieces.concat()).as_bytes(), &found);
        let _ = read(pieces.concat().as_bytes(), &found);
    }
}

#[test]
fn a_source_that_lost_or_gained_rows_is_changed() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a\n1\n2\n");
    let description = describe_csv(&path);
    let source = data::open(&description, &data::scan(&description, None, &crate::GO_ON).unwrap()).unwrap();
    let last = |batches: Batches<'_>| batches.last().unwrap();
    assert!(last(source.batches(&["a"]).unwrap()).is_ok());
    for other in ["a\n1\n", "a\n1\n2\n3\n"] {
        folder.write("table.csv", other);
        assert!(matches!(last(source.batches(&["a"]).unwrap()), Err(DataError::Changed { .. })));
    }
    folder.write("table.csv", "b\n1\n2\n");
    assert!(matches!(source.batches(&["a"]).map(|_| ()), Err(DataError::Changed { .. })));
}

#[test]
fn more_columns_than_a_plan_may_name_are_refused_in_words() {
    let header = |columns: usize| (0..columns).map(|column| format!("c{column}")).collect::<Vec<_>>().join(",");
    let row = |columns: usize| vec!["1"; columns].join(",");
    assert_eq!(scan_csv(format!("{}\n{}\n", header(20_000), row(20_000))).unwrap().schema.len(), 20_000);
    let error = scan_csv(format!("{}\n{}\n", header(20_001), row(20_001))).unwrap_err().to_string();
    assert!(error.contains("found 20001 columns, at most 20000 are read; split the file"), "{error}");
}
