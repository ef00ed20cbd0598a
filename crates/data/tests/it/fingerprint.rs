//! Whether data is still what was registered.

use std::fs::{self, File};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use data::{Comparison, DataError, Depth, Scan};

use crate::{Folder, describe_csv};

fn touch(path: &std::path::Path) {
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
}

#[test]
fn untouched_copied_and_changed_files_are_told_apart() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a\n1\n2\n");
    let description = describe_csv(&path);
    let mut scan = data::scan(&description, None, &crate::GO_ON).unwrap();
    let compare = |scan: &Scan, depth| scan.compare(&description, depth, &crate::GO_ON).unwrap();
    assert_eq!(compare(&scan, Depth::Quick), Comparison::Same);
    assert_eq!(compare(&scan, Depth::Full), Comparison::Same);

    touch(&path);
    let Comparison::Touched(fingerprint) = compare(&scan, Depth::Quick) else { panic!() };
    assert_eq!(fingerprint.files[0].digest, scan.fingerprint.files[0].digest);
    scan.fingerprint = fingerprint;
    assert_eq!(compare(&scan, Depth::Quick), Comparison::Same);

    // Another inode with the same content.
    let copy = folder.write("copy.csv", "a\n1\n2\n");
    fs::rename(copy, &path).unwrap();
    assert!(matches!(compare(&scan, Depth::Quick), Comparison::Touched(_)));

    folder.write("table.csv", "a\n1\n3\n");
    touch(&path);
    assert_eq!(compare(&scan, Depth::Quick), Comparison::Changed);
    folder.write("table.csv", "a\n1\n2\n3\n");
    assert_eq!(compare(&scan, Depth::Quick), Comparison::Changed);
    fs::remove_file(&path).unwrap();
    assert!(matches!(scan.compare(&description, Depth::Quick, &crate::GO_ON), Err(DataError::Io { .. })));
}

#[test]
fn a_change_that_keeps_the_stamp_is_found_by_a_full_comparison() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a\n1\n2\n");
    touch(&path);
    let description = describe_csv(&path);
    let scan = data::scan(&description, None, &crate::GO_ON).unwrap();
    folder.write("table.csv", "a\n1\n3\n");
    touch(&path);
    assert_eq!(scan.compare(&description, Depth::Quick, &crate::GO_ON).unwrap(), Comparison::Same);
    assert_eq!(scan.compare(&description, Depth::Full, &crate::GO_ON).unwrap(), Comparison::Changed);
}

#[test]
fn a_scan_reads_back_as_it_was_stored_and_is_written_the_same_each_time() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a;b\n1;x\n2;\n");
    touch(&path);
    let scan = data::scan(&describe_csv(&path), None, &crate::GO_ON).unwrap();
    let stored = serde_json::to_string(&scan).unwrap();
    assert_eq!(serde_json::from_str::<Scan>(&stored).unwrap(), scan);
    let inode = scan.fingerprint.files[0].stamp.inode;
    let digest = scan.fingerprint.files[0].digest;
    assert_eq!(
        stored,
        format!(
            "{{\"layout\":{{\"format\":\"csv\",\"delimiter\":\";\"}},\"schema\":[{{\"name\":\"a\",\"kind\":\"integer\"}},\
             {{\"name\":\"b\",\"kind\":\"text\"}}],\"rows\":2,\"missing\":[0,1],\"levels\":{{\"a\":[{{\"level\":1.0,\"rows\":1}},\
             {{\"level\":2.0,\"rows\":1}}],\"b\":[{{\"level\":\"x\",\"rows\":1}}]}},\"fingerprint\":[{{\"stamp\":{{\"bytes\":11,\
             \"modified_ns\":2000000000000000000,\"inode\":{inode}}},\"digest\":\"{digest}\"}}]}}"
        )
    );
}

#[test]
fn a_scan_and_a_full_comparison_that_are_stopped_say_so() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a,b\n1,2\n");
    let description = describe_csv(&path);
    let stop = AtomicBool::new(true);
    assert!(matches!(data::scan(&description, None, &stop), Err(DataError::Stopped)));
    let scan = data::scan(&description, None, &crate::GO_ON).unwrap();
    assert!(matches!(scan.compare(&description, Depth::Full, &stop), Err(DataError::Stopped)));
    // A look at the file system needs no stop.
    assert_eq!(scan.compare(&description, Depth::Quick, &stop).unwrap(), Comparison::Same);
}

#[test]
fn a_file_that_is_edited_while_it_is_loaded_is_refused() {
    let rows = |count: usize| format!("a,b\n{}", "1,2\n".repeat(count));
    let folder = Folder::new();
    let path = folder.write("table.csv", rows(200_000));
    let description = describe_csv(&path);
    let scan = data::scan(&description, None, &crate::GO_ON).unwrap();
    let source = data::open(&description, &scan).unwrap();
    for count in [100_000, 300_000] {
        fs::write(&path, rows(200_000)).unwrap();
        let mut batches = source.batches(&["a", "b"]).unwrap();
        batches.next().unwrap().unwrap();
        // The same file, written over.
        fs::write(&path, rows(count)).unwrap();
        let last = batches.last().unwrap();
        assert!(matches!(last, Err(DataError::Changed { .. } | DataError::Csv { .. })), "{last:?}");
    }
    // As many rows, so that only the file system knows.
    fs::write(&path, rows(200_000)).unwrap();
    let mut batches = source.batches(&["a", "b"]).unwrap();
    batches.next().unwrap().unwrap();
    fs::write(&path, rows(200_000).replace('2', "3")).unwrap();
    touch(&path);
    assert!(batches.all(|batch| batch.is_ok()));
    assert_eq!(scan.compare(&description, Depth::Quick, &crate::GO_ON).unwrap(), Comparison::Changed);
}
