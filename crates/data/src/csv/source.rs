//! A CSV file as a source.

use std::fs::File;
use std::path::PathBuf;

use arrow_array::RecordBatch;

use super::batches::Batches;
use super::delimiter::Delimiter;
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
}

impl Source for CsvSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<source::Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let file = open_file(&self.path)?;
        let batches = Batches::new(file, self.delimiter, &self.schema, &positions).map_err(|source| self.error(source))?;
        let batches = batches.ok_or_else(|| DataError::Changed { path: self.path.clone() })?;
        Ok(Box::new(Counted { source: self, batches, rows_left: Some(self.rows) }))
    }
}

impl CsvSource {
    fn error(&self, source: super::CsvError) -> DataError {
        DataError::Csv { path: self.path.clone(), source }
    }
}

/// Batches that end with an error if the file has other rows than the scan found.
struct Counted<'a> {
    source: &'a CsvSource,
    batches: Batches<File>,
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
