//! Whether data is still what was registered.

use std::fs::{self, File};
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
    let mut scan = data::scan(&description, None).unwrap();
    let compare = |scan: &Scan, depth| scan.compare(&description, depth).unwrap();
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
    assert!(matches!(scan.compare(&description, Depth::Quick), Err(DataError::Io { .. })));
}

#[test]
fn a_change_that_keeps_the_stamp_is_found_by_a_full_comparison() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a\n1\n2\n");
    touch(&path);
    let description = describe_csv(&path);
    let scan = data::scan(&description, None).unwrap();
    folder.write("table.csv", "a\n1\n3\n");
    touch(&path);
    assert_eq!(scan.compare(&description, Depth::Quick).unwrap(), Comparison::Same);
    assert_eq!(scan.compare(&description, Depth::Full).unwrap(), Comparison::Changed);
}

#[test]
fn a_scan_reads_back_as_it_was_stored_and_is_written_the_same_each_time() {
    let folder = Folder::new();
    let path = folder.write("table.csv", "a;b\n1;x\n2;\n");
    touch(&path);
    let scan = data::scan(&describe_csv(&path), None).unwrap();
    let stored = serde_json::to_string(&scan).unwrap();
    assert_eq!(serde_json::from_str::<Scan>(&stored).unwrap(), scan);
    let inode = scan.fingerprint.files[0].stamp.inode;
    let digest = scan.fingerprint.files[0].digest;
    assert_eq!(
        stored,
        format!(
            "{{\"layout\":{{\"format\":\"csv\",\"delimiter\":\";\"}},\"schema\":[{{\"name\":\"a\",\"kind\":\"integer\"}},\
             {{\"name\":\"b\",\"kind\":\"text\"}}],\"rows\":2,\"missing\":[0,1],\"fingerprint\":[{{\"stamp\":{{\"bytes\":11,\
             \"modified_ns\":2000000000000000000,\"inode\":{inode}}},\"digest\":\"{digest}\"}}]}}"
        )
    );
}
