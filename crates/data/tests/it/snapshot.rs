//! Snapshots, and persons who withdrew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use arrow_array::RecordBatch;
use data::{DataError, Depth, Excluding, Scan, Source, snapshot};

use crate::{Folder, GO_ON, describe_csv};

const TEXT: &str = "id,age,sex\np1,63,male\np2,,female\n p3 ,41,female\np4,5.5,\n";

fn source(folder: &Folder, text: &str) -> (Scan, Box<dyn Source>) {
    let description = describe_csv(&folder.write("table.csv", text));
    let scan = data::scan(&description, None, &GO_ON).unwrap();
    let source = data::open(&description, &scan).unwrap();
    (scan, source)
}

fn write(source: &dyn Source, path: &Path) -> Scan {
    snapshot::write(source, path, 1 << 26, &GO_ON).unwrap()
}

fn all(source: &dyn Source) -> Vec<RecordBatch> {
    let names: Vec<&str> = source.schema().columns().iter().map(|column| column.name.as_str()).collect();
    source.batches(&names).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_snapshot_holds_what_the_source_held_and_is_the_owners_only() {
    let folder = Folder::new();
    let (scan, source) = source(&folder, TEXT);
    let path = folder.path().join("1.parquet");
    fs::write(folder.path().join("1.parquet.partial"), "left behind").unwrap();
    let pinned = write(&*source, &path);
    assert_eq!(
        (&pinned.schema, pinned.rows, &pinned.missing, &pinned.levels),
        (&scan.schema, 4, &scan.missing, &scan.levels)
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(protocol::Digest::of(&fs::read(&path).unwrap()), pinned.fingerprint.files[0].digest);
    let opened = snapshot::open(&path, &pinned, Depth::Full, &GO_ON).unwrap();
    assert_eq!(all(&*opened), all(&*source));
    // The same rows are the same version.
    let again = write(&*source, &folder.path().join("2.parquet"));
    assert_eq!(again.fingerprint.files[0].digest, pinned.fingerprint.files[0].digest);
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1.parquet", "2.parquet", "table.csv"]);
}

#[test]
fn rows_beyond_the_memory_limit_go_to_disk_in_groups() {
    let folder = Folder::new();
    let rows: Vec<String> = (0..60_000).map(|row| format!("{row},{}\n", f64::from(row) / 7.0)).collect();
    let rows = rows.concat();
    let (_, source) = source(&folder, &format!("a,b\n{rows}"));
    let path = folder.path().join("1.parquet");
    let pinned = snapshot::write(&*source, &path, 100_000, &GO_ON).unwrap();
    let opened = snapshot::open(&path, &pinned, Depth::Quick, &GO_ON).unwrap();
    assert!(opened.parts() > 3, "{}", opened.parts());
    let parts =
        (0..opened.parts()).flat_map(|part| opened.part(part, &["a"]).unwrap()).map(|batch| batch.unwrap().num_rows());
    assert_eq!(parts.sum::<usize>(), 60_000);
}

#[test]
fn a_snapshot_that_was_changed_or_is_another_is_refused() {
    let folder = Folder::new();
    let (_, source) = source(&folder, TEXT);
    let path = folder.path().join("1.parquet");
    let pinned = write(&*source, &path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let opened = snapshot::open(&path, &pinned, Depth::Full, &GO_ON).map(|_| ());
    assert!(matches!(opened, Err(DataError::Changed { .. })));
}

#[test]
fn a_write_that_fails_or_is_stopped_leaves_nothing() {
    let folder = Folder::new();
    let (_, source) = source(&folder, TEXT);
    let path = folder.path().join("1.parquet");
    let stopped = snapshot::write(&*source, &path, 1 << 26, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(DataError::Stopped)));
    folder.write("table.csv", "id,age,sex\np1,63,male\n");
    assert!(matches!(snapshot::write(&*source, &path, 1 << 26, &GO_ON), Err(DataError::Changed { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn persons_who_withdrew_are_in_no_batch_and_no_snapshot() {
    let folder = Folder::new();
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let (_, source) = source(&folder, TEXT);
    let without = Excluding::new(source, "id", &ids(&["p3", "p1", "p9"]), &GO_ON).unwrap();
    assert_eq!((without.rows(), without.excluded(), without.unknown()), (2, 2, &ids(&["p9"])[..]));
    let path = folder.path().join("1.parquet");
    let pinned = write(&without, &path);
    assert_eq!((pinned.rows, &pinned.missing[..]), (2, &[0, 1, 1][..]));
    let opened = snapshot::open(&path, &pinned, Depth::Full, &GO_ON).unwrap();
    assert_eq!(all(&*opened), all(&without));
    let ages = without.batches(&["age"]).unwrap().map(|batch| batch.unwrap()).collect::<Vec<_>>();
    assert_eq!((ages.len(), ages[0].num_columns(), ages[0].num_rows()), (1, 1, 2));
}

#[test]
fn numeric_ids_are_found_however_they_are_written() {
    let folder = Folder::new();
    let ids = ["007".to_owned(), "x".to_owned(), " 9 ".to_owned()];
    for text in ["id,a\n7,1\n8,2\n9,3\n", "id,a\n7.0,1\n8.5,2\n9,3\n,\n"] {
        let (scan, source) = source(&folder, text);
        let without = Excluding::new(source, "id", &ids, &GO_ON).unwrap();
        assert_eq!((without.rows(), without.unknown()), (scan.rows - 2, &["x".to_owned()][..]));
        assert!(matches!(Excluding::new(without, "ID", &ids, &GO_ON), Err(DataError::ColumnUnknown { .. })));
    }
}
