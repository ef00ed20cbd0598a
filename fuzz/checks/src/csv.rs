//! CSV and TSV files.

use std::collections::BTreeMap;
use std::io::{self, Read};

use arrow_array::Array;
use data::csv::{Batches, CsvScan, Delimiter, ScanOptions, scan};

/// Gives a few bytes at a time, as a slow disk may.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.0.len()).min(7);
        let (now, later) = self.0.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.0 = later;
        Ok(len)
    }
}

/// Scans a file, and reads what was accepted: the two agree, however the bytes come.
pub fn check(bytes: &[u8]) {
    let Some((choice, file)) = bytes.split_first() else { return };
    let delimiter = Delimiter::ALL.get(usize::from(*choice)).copied();
    let options = ScanOptions { delimiter, declared: BTreeMap::new(), previous: BTreeMap::new() };
    match (scan(file, &options), scan(Dribble(file), &options)) {
        (Ok(found), Ok(again)) => {
            assert_eq!(found, again, "it does not matter how the bytes come");
            check_batches(file, &found);
            let previous = found.schema.columns().iter().map(|column| (column.name.clone(), column.kind)).collect();
            let options = ScanOptions { delimiter: Some(found.delimiter), declared: previous, previous: BTreeMap::new() };
            let declared = scan(file, &options).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(declared, found, "what was inferred can be declared");
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        (one, other) => panic!("{one:?} or {other:?}, by how the bytes come"),
    }
}

fn check_batches(file: &[u8], found: &CsvScan) {
    let positions: Vec<usize> = (0..found.schema.len()).collect();
    let batches = Batches::new(file, found.delimiter, &found.schema, &positions).unwrap_or_else(|error| panic!("{error}"));
    let mut rows = 0;
    let mut missing = vec![0; positions.len()];
    for batch in batches.expect("the header line has the names that were found") {
        let batch = batch.unwrap_or_else(|error| panic!("what was accepted is read: {error}"));
        rows += batch.num_rows() as u64;
        for (missing, column) in missing.iter_mut().zip(batch.columns()) {
            *missing += column.null_count() as u64;
        }
    }
    assert_eq!((rows, missing), (found.rows, found.missing.clone()), "the same rows and gaps are read");
}
