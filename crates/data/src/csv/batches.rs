//! Columns of a CSV stream as Arrow batches.

use std::io::Read;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use protocol::ColumnKind;

use super::cell::{Number, integer, real};
use super::delimiter::Delimiter;
use super::marks::Mark;
use super::problem::{CsvError, ProblemKind, shown};
use super::record::{Record, Records};
use super::scan::header;
use crate::schema::Schema;
use crate::source::{batch, rows_per_batch};

/// A column while its batch is put together.
enum Builder {
    Integer(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
}

impl Builder {
    /// Has room for a batch: the library's own default is 8 KiB a column, 160 MB for as many as there may be.
    fn new(kind: ColumnKind, rows: usize) -> Self {
        match kind {
            ColumnKind::Integer => Self::Integer(Int64Builder::with_capacity(rows)),
            ColumnKind::Real => Self::Real(Float64Builder::with_capacity(rows)),
            ColumnKind::Text => Self::Text(StringBuilder::with_capacity(rows, 0)),
        }
    }

    /// Appends a cell, or says what was expected instead.
    fn append(&mut self, cell: &str) -> Result<(), ColumnKind> {
        match self {
            Self::Integer(builder) => match integer(cell.as_bytes()) {
                Number::Missing => builder.append_null(),
                Number::Value(value) => builder.append_value(value),
                Number::Wrong => return Err(ColumnKind::Integer),
            },
            Self::Real(builder) => match real(cell.as_bytes()) {
                Number::Missing => builder.append_null(),
                Number::Value(value) => builder.append_value(value),
                Number::Wrong => return Err(ColumnKind::Real),
            },
            Self::Text(builder) => {
                if cell.trim_ascii().is_empty() {
                    builder.append_null();
                } else {
                    builder.append_value(cell);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Real(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
        }
    }
}

/// The most bytes of cells in a batch, so that long texts do not make it large.
const BATCH_BYTES: usize = 8 << 20;

/// Arrow batches of chosen columns, read as they are asked for. After an error there are no more.
pub struct Batches<R> {
    records: Records<R>,
    arrow: SchemaRef,
    names: Vec<String>,
    columns: Vec<(usize, Builder)>,
    rows_per_batch: usize,
    ended: bool,
}

impl<R: Read> Batches<R> {
    /// Reads the header line, which must have the names of `schema`; `None` if it has others. `positions` are columns of
    /// `schema`.
    pub fn new(input: R, delimiter: Delimiter, schema: &Schema, positions: &[usize]) -> Result<Option<Self>, CsvError> {
        let mut records = Records::with_delimiter(input, delimiter).map_err(|error| error.stop(&[]))?;
        let names = match records.next().map_err(|error| error.stop(&[]))? {
            Some(record) => header(&record)?,
            None => return Ok(None),
        };
        let expected = schema.columns().iter().map(|column| &column.name);
        if !names.iter().eq(expected) || positions.iter().any(|position| *position >= names.len()) {
            return Ok(None);
        }
        Ok(Some(Self::of_records(records, names, schema, positions)))
    }

    /// Reads on at a mark, where `input` begins.
    pub(super) fn resumed(
        input: R,
        delimiter: Delimiter,
        mark: Mark,
        schema: &Schema,
        positions: &[usize],
    ) -> Result<Self, CsvError> {
        let names = schema.columns().iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let records = Records::resumed(input, delimiter, mark.line).map_err(|error| error.stop(&names))?;
        Ok(Self::of_records(records, names, schema, positions))
    }

    fn of_records(records: Records<R>, names: Vec<String>, schema: &Schema, positions: &[usize]) -> Self {
        let rows_per_batch = rows_per_batch(positions.len());
        let builder = |at: &usize| (*at, Builder::new(schema.columns()[*at].kind, rows_per_batch));
        let columns = positions.iter().map(builder).collect();
        Self { records, arrow: schema.arrow(positions), names, columns, rows_per_batch, ended: false }
    }

    fn read_batch(&mut self) -> Result<Option<RecordBatch>, CsvError> {
        let (mut rows, mut bytes) = (0, 0);
        while rows < self.rows_per_batch && bytes < BATCH_BYTES {
            let Some(record) = self.records.next().map_err(|error| error.stop(&self.names))? else { break };
            bytes += append(&mut self.columns, &self.names, &record)?;
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let arrays = self.columns.iter_mut().map(|(_, builder)| builder.finish()).collect();
        Ok(Some(batch(&self.arrow, arrays, rows)))
    }
}

/// Appends the chosen cells of a record; gives the record's length in bytes.
fn append(columns: &mut [(usize, Builder)], names: &[String], record: &Record<'_>) -> Result<usize, CsvError> {
    if record.len() != names.len() {
        let kind = ProblemKind::Ragged { expected: names.len(), found: record.len() };
        return Err(CsvError::one(Some(record.line), names.get(record.len()).cloned(), kind));
    }
    for (position, builder) in columns {
        let cell = record.get(*position);
        builder.append(cell).map_err(|expected| {
            let (column, found) = (names[*position].clone(), shown(cell));
            let kind = ProblemKind::NotNumeric { column: column.clone(), expected, found, cells: 1 };
            CsvError::one(Some(record.line), Some(column), kind)
        })?;
    }
    Ok(record.text_len())
}

impl<R: Read> Iterator for Batches<R> {
    type Item = Result<RecordBatch, CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.read_batch();
        self.ended = !matches!(batch, Ok(Some(_)));
        batch.transpose()
    }
}
