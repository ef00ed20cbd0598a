//! Parquet files with flat columns.

mod convert;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use protocol::{ColumnFace, ColumnKind};

use crate::error::DataError;
use crate::fingerprint::{FileFingerprint, Fingerprint, Stamp};
use crate::learn::Learning;
use crate::scan::{Layout, Scan, go_on, open_file};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};

/// The most parts of a file; smaller groups of rows are read together.
const MAX_PARTS: usize = 256;
/// What reading a column holds at a time, in bytes: a page of a mebibyte, packed and unpacked, and a dictionary.
const COLUMN_BYTES: u64 = 3 << 20;

/// A Parquet file whose columns are known.
pub(crate) struct ParquetSource {
    path: PathBuf,
    schema: Schema,
    rows: u64,
    metadata: ArrowReaderMetadata,
    /// The groups of rows of each part.
    parts: Vec<Vec<usize>>,
}

impl ParquetSource {
    /// Reads the file's own description of its columns.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let file = open_file(path)?;
        // What the writer's library noted of its own types is not needed, and would hide the file's.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(path, || ArrowReaderMetadata::load(&file, options))?;
        let columns = metadata.schema().fields().iter().map(|field| {
            let kind = convert::kind(field.data_type()).ok_or_else(|| DataError::ParquetColumn {
                path: path.to_owned(),
                column: field.name().clone(),
                found: field.data_type().to_string(),
            })?;
            column_face(path, field.name(), kind)
        });
        let schema = Schema::new(columns.collect::<Result<_, _>>()?)?;
        let groups = metadata.metadata().row_groups();
        let rows: Vec<u64> = groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
        let total = rows.iter().sum();
        if schema.is_empty() || total == 0 {
            let reason = "the file has no columns or no rows".to_owned();
            return Err(DataError::Parquet { path: path.to_owned(), reason });
        }
        Ok(Self { path: path.to_owned(), schema, rows: total, parts: parts(&rows), metadata })
    }

    fn reader(&self, groups: &[usize], columns: &[&str]) -> Result<Reader<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let file = open_file(&self.path)?;
        let builder = ParquetRecordBatchReaderBuilder::<File>::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), positions.iter().copied());
        let builder = builder.with_row_groups(groups.to_vec()).with_projection(mask);
        let builder = builder.with_batch_size(rows_per_batch(columns.len()));
        let decoder = guarded(&self.path, || builder.build())?;
        Ok(Reader { source: self, order: order(&positions), positions, decoder: Some(decoder) })
    }
}

/// For each position where it stands among the positions in ascending order, which is how they are read.
fn order(positions: &[usize]) -> Vec<usize> {
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    positions.iter().filter_map(|position| sorted.binary_search(position).ok()).collect()
}

/// Groups of rows in parts of about the same number of rows.
fn parts(rows: &[u64]) -> Vec<Vec<usize>> {
    let least = rows.iter().sum::<u64>() / MAX_PARTS as u64;
    let (mut parts, mut part, mut in_part) = (Vec::new(), Vec::new(), 0);
    for (group, rows) in rows.iter().enumerate() {
        part.push(group);
        in_part += rows;
        if in_part > least {
            parts.push(std::mem::take(&mut part));
            in_part = 0;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn column_face(path: &Path, name: &str, kind: ColumnKind) -> Result<ColumnFace, DataError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > protocol::MAX_COLUMN_NAME_CHARS || name.chars().any(char::is_control) {
        let reason = "a column's name is not 1 to 256 characters without control characters".to_owned();
        return Err(DataError::Parquet { path: path.to_owned(), reason });
    }
    Ok(ColumnFace { name: name.to_owned(), kind })
}

/// Runs the decoder, which panics on some damaged files.
fn guarded<T, E: std::fmt::Display>(path: &Path, decode: impl FnOnce() -> Result<T, E>) -> Result<T, DataError> {
    let reason = match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(decoded)) => return Ok(decoded),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the file is damaged".to_owned(),
    };
    Err(DataError::Parquet { path: path.to_owned(), reason })
}

impl Source for ParquetSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        Ok(Box::new(self.reader(&self.parts.concat(), columns)?))
    }

    fn parts(&self) -> usize {
        self.parts.len()
    }

    fn part(&self, part: usize, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        Ok(Box::new(self.reader(&self.parts[part], columns)?))
    }

    fn part_bytes(&self, columns: usize) -> u64 {
        (8 << 20) + COLUMN_BYTES.saturating_mul(columns as u64)
    }
}

/// Batches of some groups of rows.
struct Reader<'a> {
    source: &'a ParquetSource,
    positions: Vec<usize>,
    order: Vec<usize>,
    /// `None` after the end.
    decoder: Option<ParquetRecordBatchReader>,
}

impl Reader<'_> {
    fn convert(&self, read: &RecordBatch) -> Result<RecordBatch, DataError> {
        let columns = self.positions.iter().zip(&self.order).map(|(position, at)| {
            let face = &self.source.schema.columns()[*position];
            convert::column(read.column(*at), face.kind).map_err(|reason| {
                let reason = format!("column {:?}: {reason}", face.name);
                DataError::Parquet { path: self.source.path.clone(), reason }
            })
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(batch(&self.source.schema.arrow(&self.positions), columns, read.num_rows()))
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<RecordBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut decoder = self.decoder.take()?;
        let read = guarded(&self.source.path, || decoder.next().transpose());
        let read = read.transpose()?.and_then(|read| self.convert(&read));
        if read.is_ok() {
            self.decoder = Some(decoder);
        }
        Some(read)
    }
}

/// Reads a file once: its columns, rows, missing cells, levels and fingerprint.
pub(crate) fn scan(path: &Path, stop: &AtomicBool) -> Result<Scan, DataError> {
    let fingerprint = FileFingerprint::of(path, stop)?;
    let source = ParquetSource::open(path)?;
    let names: Vec<&str> = source.schema.columns().iter().map(|column| column.name.as_str()).collect();
    let mut learned = Learning::new(&source.schema);
    for batch in source.batches(&names)? {
        go_on(stop)?;
        learned.add(&batch?);
    }
    if learned.rows() != source.rows || Stamp::of_path(path)? != fingerprint.stamp {
        return Err(DataError::ChangedMeanwhile { path: path.to_owned() });
    }
    let (missing, levels) = learned.finish(&source.schema);
    Ok(Scan {
        layout: Layout::Parquet,
        schema: source.schema,
        rows: source.rows,
        missing,
        levels,
        marks: Vec::new(),
        fingerprint: Fingerprint { files: vec![fingerprint] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_and_hold_every_group_once() {
        assert_eq!(parts(&[5, 5, 5]), [[0], [1], [2]]);
        let rows: Vec<u64> = (0..1_000).map(|group| group % 7 + 1).collect();
        let parts = parts(&rows);
        assert!((100..=MAX_PARTS).contains(&parts.len()), "{}", parts.len());
        assert_eq!(parts.concat(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn columns_are_given_in_the_order_that_was_asked_for() {
        assert_eq!(order(&[7, 2, 5]), [2, 0, 1]);
    }
}
