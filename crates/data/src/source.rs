//! Where data comes from, whatever its format.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;

use crate::error::DataError;
use crate::schema::Schema;

/// A stream of batches; the first error is its last item.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, DataError>> + Send + 'a>;

/// The data of one dataset.
pub trait Source: Send + Sync {
    /// All columns, in the dataset's order.
    fn schema(&self) -> &Schema;

    /// The number of rows.
    fn rows(&self) -> u64;

    /// Reads the named columns in the order of the names, from the first row to the last, a batch at a time: integers as
    /// Int64, reals as Float64, texts as Utf8, missing cells as null. Each call reads from the beginning.
    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError>;

    /// How many parts can be read at once. The parts depend on the data alone, not on the machine.
    fn parts(&self) -> usize {
        1
    }

    /// Reads one part, from 0, as [`batches`](Self::batches) reads all: the parts in their order are all rows in their order.
    fn part(&self, part: usize, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        debug_assert_eq!(part, 0, "a source of one part");
        self.batches(columns)
    }

    /// About how many bytes reading a part holds at a time, with so many columns.
    fn part_bytes(&self, _columns: usize) -> u64 {
        8 << 20
    }
}

/// The rows of a batch with so many columns: about a quarter million cells, which is 2 MiB of numbers.
pub(crate) fn rows_per_batch(columns: usize) -> usize {
    ((1 << 18) / columns.max(1)).clamp(16, 8_192)
}

/// Puts columns together; `rows` counts even if there are none.
pub(crate) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .expect("the columns were built from this schema, a cell for each row")
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn schema(&self) -> &Schema {
        (**self).schema()
    }

    fn rows(&self) -> u64 {
        (**self).rows()
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        (**self).batches(columns)
    }

    fn parts(&self) -> usize {
        (**self).parts()
    }

    fn part(&self, part: usize, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        (**self).part(part, columns)
    }

    fn part_bytes(&self, columns: usize) -> u64 {
        (**self).part_bytes(columns)
    }
}
