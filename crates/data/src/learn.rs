//! What a pass over batches learns of each column: missing cells, and the values of those that have few.

use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch};

use crate::levels::{Distinct, LevelCount};
use crate::schema::Schema;

/// What is known so far of all columns of a dataset.
pub(crate) struct Learning {
    rows: u64,
    missing: Vec<u64>,
    distinct: Vec<Distinct>,
}

impl Learning {
    pub(crate) fn new(schema: &Schema) -> Self {
        let distinct = schema.columns().iter().map(|column| Distinct::new(column.kind)).collect();
        Self { rows: 0, missing: vec![0; schema.len()], distinct }
    }

    /// Adds a batch of all columns.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        for ((missing, distinct), column) in self.missing.iter_mut().zip(&mut self.distinct).zip(batch.columns()) {
            *missing += column.null_count() as u64;
            distinct.count(column);
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Missing cells in the schema's order, and levels by name.
    pub(crate) fn finish(self, schema: &Schema) -> (Vec<u64>, BTreeMap<String, Vec<LevelCount>>) {
        let all = schema.columns().iter().zip(self.distinct);
        let levels = all.filter_map(|(column, distinct)| Some((column.name.clone(), distinct.finish()?))).collect();
        (self.missing, levels)
    }
}
