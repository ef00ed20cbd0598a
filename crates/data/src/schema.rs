//! The columns of a dataset: names and kinds, in the order of the file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_schema::{DataType as ArrowType, Field, SchemaRef};
use protocol::{ColumnFace, ColumnKind};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::{MAX_COLUMNS, nearest};

/// Columns with different names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ColumnFace>", into = "Vec<ColumnFace>")]
pub struct Schema {
    columns: Vec<ColumnFace>,
}

impl Schema {
    /// Fails on a repeated name and on too many columns.
    pub fn new(columns: Vec<ColumnFace>) -> Result<Self, DataError> {
        let mut seen = HashSet::new();
        if let Some(column) = columns.iter().find(|column| !seen.insert(column.name.as_str())) {
            return Err(DataError::ColumnTwice { name: column.name.clone() });
        }
        if columns.len() > MAX_COLUMNS {
            return Err(DataError::TooManyColumns { found: columns.len() });
        }
        Ok(Self { columns })
    }

    /// Takes columns that were checked where they were read.
    pub(crate) fn trusted(columns: Vec<ColumnFace>) -> Self {
        Self { columns }
    }

    pub fn columns(&self) -> &[ColumnFace] {
        &self.columns
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Finds the positions of columns by name. Fails on a repeated name: each position is read into memory of its own.
    pub fn positions(&self, names: &[&str]) -> Result<Vec<usize>, DataError> {
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(**name)) {
            return Err(DataError::ColumnTwice { name: (*name).to_owned() });
        }
        let all = self.columns.iter().enumerate();
        let positions: HashMap<&str, usize> = all.map(|(position, column)| (column.name.as_str(), position)).collect();
        let find = |name: &&str| {
            positions.get(name).copied().ok_or_else(|| DataError::ColumnUnknown {
                name: (*name).to_owned(),
                nearest: nearest(name, self.columns.iter().map(|column| column.name.as_str())),
            })
        };
        names.iter().map(find).collect()
    }

    /// The Arrow schema of the columns at these positions.
    pub(crate) fn arrow(&self, positions: &[usize]) -> SchemaRef {
        let field = |position: &usize| {
            let column = &self.columns[*position];
            let kind = match column.kind {
                ColumnKind::Integer => ArrowType::Int64,
                ColumnKind::Real => ArrowType::Float64,
                ColumnKind::Text => ArrowType::Utf8,
            };
            Field::new(&column.name, kind, true)
        };
        Arc::new(arrow_schema::Schema::new(positions.iter().map(field).collect::<Vec<_>>()))
    }
}

impl TryFrom<Vec<ColumnFace>> for Schema {
    type Error = DataError;

    fn try_from(columns: Vec<ColumnFace>) -> Result<Self, DataError> {
        Self::new(columns)
    }
}

impl From<Schema> for Vec<ColumnFace> {
    fn from(schema: Schema) -> Self {
        schema.columns
    }
}

/// The columns as researchers see them.
pub fn face(schema: &Schema) -> Vec<ColumnFace> {
    schema.columns.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_asked_for_once() {
        let column = |name: &str| ColumnFace { name: name.to_owned(), kind: ColumnKind::Real };
        let schema = Schema::new(vec![column("a"), column("b")]).unwrap();
        assert_eq!(schema.positions(&["b", "a"]).unwrap(), [1, 0]);
        assert!(matches!(schema.positions(&["a", "b", "a"]), Err(DataError::ColumnTwice { name }) if name == "a"));
    }
}
