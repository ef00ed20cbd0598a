//! Contingency tables and their tests.

use serde::{Deserialize, Serialize};

use super::Category;
use crate::plan::{PlanError, value};

/// The most cells of a table.
pub const MAX_CELLS: usize = 65_536;

/// How often each pair of levels occurs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawTable")]
pub struct Table {
    rows: Category,
    columns: Category,
    test: TableTest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    rows: Category,
    columns: Category,
    #[serde(default)]
    test: TableTest,
}

/// The test whose p-value the answer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableTest {
    /// Pearson's chi-square test.
    #[default]
    Chi2,
    /// With the continuity correction of Yates 1934; the same as `chi2` but for 2 × 2 tables.
    Yates,
    /// Fisher's exact test of 2 × 2 tables.
    Fisher,
}

impl Table {
    pub fn new(rows: Category, columns: Category, test: TableTest) -> Result<Self, PlanError> {
        if rows.column() == columns.column() {
            return Err(PlanError::Twice { key: "columns", name: rows.column().to_owned() });
        }
        let cells = rows.levels().len() * columns.levels().len();
        if cells > MAX_CELLS {
            return Err(value("levels", "at most 65536 cells", cells));
        }
        Ok(Self { rows, columns, test })
    }

    pub fn rows(&self) -> &Category {
        &self.rows
    }

    pub fn columns(&self) -> &Category {
        &self.columns
    }

    pub fn test(&self) -> TableTest {
        self.test
    }

    pub(super) fn names(&self) -> Vec<&str> {
        vec![self.rows.column(), self.columns.column()]
    }
}

impl TryFrom<RawTable> for Table {
    type Error = PlanError;

    fn try_from(raw: RawTable) -> Result<Self, PlanError> {
        Self::new(raw.rows, raw.columns, raw.test)
    }
}
