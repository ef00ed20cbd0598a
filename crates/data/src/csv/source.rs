//! A CSV file as a source.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::path::PathBuf;

use arrow_array::RecordBatch;

use super::batches::Batches;
use super::delimiter::Delimiter;
use super::marks::Mark;
use crate::error::DataError;
use crate::scan::open_file;
use crate::schema::Schema;
use crate::source::{self, Source};

/// A CSV file whose scan is known.
#[derive(Debug)]
pub(crate) struct CsvSource {
    pub(crate) path: PathBuf,
    pub(crate) delimiter: Delimiter,
    pub(crate) schema: Schema,
    pub(crate) rows: u64,
    /// Where its parts begin, but for the first.
    pub(crate) marks: Vec<Mark>,
}

impl Source for CsvSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<source::Batches<'_>, DataError> {
        self.read(columns, None, None)
    }

    fn parts(&self) -> usize {
        self.marks.len() + 1
    }

    fn part(&self, part: usize, columns: &[&str]) -> Result<source::Batches<'_>, DataError> {
        let from = part.checked_sub(1).map(|before| self.marks[before]);
        self.read(columns, from, self.marks.get(part).copied())
    }
}

impl CsvSource {
    fn error(&self, source: super::CsvError) -> DataError {
        DataError::Csv { path: self.path.clone(), source }
    }

    /// Reads from one mark to another; from the beginning or to the end without one.
    fn read(&self, columns: &[&str], from: Option<Mark>, to: Option<Mark>) -> Result<source::Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let mut file = open_file(&self.path)?;
        let begin = from.map_or(0, |mark| mark.byte);
        file.seek(SeekFrom::Start(begin)).map_err(|source| DataError::Io { path: self.path.clone(), source })?;
        let input = file.take(to.map_or(u64::MAX, |mark| mark.byte.saturating_sub(begin)));
        let batches = match from {
            None => Batches::new(input, self.delimiter, &self.schema, &positions),
            Some(mark) => Batches::resumed(input, self.delimiter, mark, &self.schema, &positions).map(Some),
        };
        let batches = batches.map_err(|source| self.error(source))?;
        let batches = batches.ok_or_else(|| DataError::Changed { path: self.path.clone() })?;
        let rows = to.map_or(self.rows, |mark| mark.row).saturating_sub(from.map_or(0, |mark| mark.row));
        Ok(Box::new(Counted { source: self, batches, rows_left: Some(rows) }))
    }
}

/// Batches that end with an error if the file has other rows than the scan found.
struct Counted<'a> {
    source: &'a CsvSource,
    batches: Batches<Take<File>>,
    /// `None` after the end.
    rows_left: Option<u64>,
}

impl Iterator for Counted<'_> {
    type Item = Result<RecordBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows_left = self.rows_left.take()?;
        let changed = || Some(Err(DataError::Changed { path: self.source.path.clone() }));
        match self.batches.next() {
            Some(Ok(batch)) => match rows_left.checked_sub(batch.num_rows() as u64) {
                Some(left) => {
                    self.rows_left = Some(left);
                    Some(Ok(batch))
                }
                None => changed(),
            },
            Some(Err(source)) => Some(Err(self.source.error(source))),
            None if rows_left > 0 => changed(),
            None => None,
        }
    }
}
