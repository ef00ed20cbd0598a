//! Persons who withdrew: a source without their rows.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_select::filter::filter_record_batch;
use protocol::ColumnKind;

use crate::error::DataError;
use crate::evaluate::as_integer;
use crate::scan::go_on;
use crate::schema::Schema;
use crate::source::{Batches, Source};

/// A source without the rows of some persons.
pub struct Excluding<S> {
    source: S,
    column: String,
    ids: Ids,
    rows: u64,
    unknown: Vec<String>,
}

/// Ids as the column holds them.
enum Ids {
    Numbers(HashSet<i64>),
    Texts(HashSet<String>),
}

impl Ids {
    /// Numeric columns are compared with ids that are whole numbers, texts without the white space around them.
    fn new<'i>(ids: impl Iterator<Item = &'i str>, kind: ColumnKind) -> Self {
        if kind.is_numeric() {
            Self::Numbers(ids.filter_map(|id| id.trim().parse().ok()).collect())
        } else {
            Self::Texts(ids.map(|id| id.trim().to_owned()).collect())
        }
    }

    /// Which rows stay.
    fn stay(&self, column: &ArrayRef) -> BooleanArray {
        let is_out = |row: usize| match self {
            _ if column.is_null(row) => false,
            Self::Texts(ids) => ids.contains(column.as_string::<i32>().value(row).trim()),
            Self::Numbers(ids) => number(column, row).is_some_and(|id| ids.contains(&id)),
        };
        BooleanArray::new(BooleanBuffer::collect_bool(column.len(), |row| !is_out(row)), None)
    }
}

fn number(column: &ArrayRef, row: usize) -> Option<i64> {
    match column.as_primitive_opt::<Int64Type>() {
        Some(integers) => Some(integers.value(row)),
        None => as_integer(column.as_primitive::<Float64Type>().value(row)),
    }
}

impl<S: Source> Excluding<S> {
    /// Leaves out the rows whose cell in the id column is one of the ids. Reads that column once, to count what is left. Fails soon
    /// after `stop` is set.
    pub fn new(source: S, column: &str, ids: &[String], stop: &AtomicBool) -> Result<Self, DataError> {
        let position = source.schema().positions(&[column])?[0];
        let kind = source.schema().columns()[position].kind;
        let mut excluding = Self {
            source,
            column: column.to_owned(),
            ids: Ids::new(ids.iter().map(String::as_str), kind),
            rows: 0,
            unknown: Vec::new(),
        };
        let mut found = HashSet::new();
        let mut rows = 0;
        for batch in excluding.source.batches(&[column])? {
            go_on(stop)?;
            let batch = batch?;
            let stay = excluding.ids.stay(batch.column(0));
            rows += stay.true_count() as u64;
            for row in (0..stay.len()).filter(|row| !stay.value(*row)) {
                found.insert(match kind {
                    ColumnKind::Text => batch.column(0).as_string::<i32>().value(row).trim().to_owned(),
                    ColumnKind::Integer | ColumnKind::Real => {
                        number(batch.column(0), row).map_or_else(String::new, |id| id.to_string())
                    }
                });
            }
        }
        let is_found = |id: &str| match kind {
            ColumnKind::Text => found.contains(id),
            ColumnKind::Integer | ColumnKind::Real => id.parse::<i64>().is_ok_and(|id| found.contains(&id.to_string())),
        };
        excluding.unknown = ids.iter().filter(|id| !is_found(id.trim())).cloned().collect();
        excluding.rows = rows;
        Ok(excluding)
    }

    /// The ids that no row has, as they were given.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The rows that are left out.
    pub fn excluded(&self) -> u64 {
        self.source.rows().saturating_sub(self.rows)
    }

    /// Adds the id column to what is read, if it is not asked for.
    fn with_ids<'c>(&'c self, columns: &[&'c str]) -> Vec<&'c str> {
        let is_missing = !columns.contains(&self.column.as_str());
        columns.iter().copied().chain(is_missing.then_some(self.column.as_str())).collect()
    }

    fn filtered<'s>(&'s self, batches: Batches<'s>, columns: &[&str]) -> Batches<'s> {
        let wanted: Vec<usize> = (0..columns.len()).collect();
        let id = columns.iter().position(|column| *column == self.column).unwrap_or(columns.len());
        Box::new(batches.map(move |batch| batch.map(|batch| self.filter(&batch, id, &wanted))))
    }

    fn filter(&self, batch: &RecordBatch, id: usize, wanted: &[usize]) -> RecordBatch {
        let stay = self.ids.stay(batch.column(id));
        let batch = batch.project(wanted).expect("these columns were asked for");
        if stay.true_count() == batch.num_rows() {
            return batch;
        }
        filter_record_batch(&batch, &stay).expect("there is an id for each row")
    }
}

impl<S: Source> Source for Excluding<S> {
    fn schema(&self) -> &Schema {
        self.source.schema()
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        Ok(self.filtered(self.source.batches(&self.with_ids(columns))?, columns))
    }

    fn parts(&self) -> usize {
        self.source.parts()
    }

    fn part(&self, part: usize, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        Ok(self.filtered(self.source.part(part, &self.with_ids(columns))?, columns))
    }

    fn part_bytes(&self, columns: usize) -> u64 {
        self.source.part_bytes(columns + 1)
    }
}
