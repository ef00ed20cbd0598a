//! A dataset's public face: what the other side may see of it. No path, no value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::DatasetId;
use crate::statistic::Level;
use crate::tags::Tags;

/// The kinds of dataset, named as in Fed-BioMed's dataset files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataType {
    /// A CSV or TSV file with a header line.
    Csv,
    /// A Parquet file with flat columns.
    Parquet,
    /// The MNIST images in their IDX files.
    Default,
    /// A folder of PNG or JPEG pictures for each class, as MedNIST.
    #[serde(alias = "mednist")]
    Images,
    /// Folders of subjects with NIfTI volumes, and their demographics.
    MedicalFolder,
    /// DICOM series, a folder for each.
    Dicom,
    /// FHIR resources of a bulk export, a JSON document on each line.
    Fhir,
    /// A cohort of a folder of OMOP CDM tables.
    Omop,
    /// A table, a view, a query or an OMOP cohort of a PostgreSQL database.
    Postgres,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    Integer,
    Real,
    Text,
}

impl ColumnKind {
    /// The word in dataset files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
        }
    }

    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Real)
    }
}

/// Name and kind of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnFace {
    pub name: String,
    pub kind: ColumnKind,
}

/// How many rows a dataset has, as its owner shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "shown", content = "rows", deny_unknown_fields)]
pub enum RowCount {
    Exact(u64),
    /// Rounded to two significant digits.
    Rounded(u64),
    Hidden,
}

impl RowCount {
    /// Rounds to two significant digits, half up.
    pub fn rounded(rows: u64) -> Self {
        let mut unit = 1;
        while rows / unit >= 100 {
            unit *= 10;
        }
        Self::Rounded(rows.saturating_add(unit / 2) / unit * unit)
    }

    pub fn shown(self) -> Option<u64> {
        match self {
            Self::Exact(rows) | Self::Rounded(rows) => Some(rows),
            Self::Hidden => None,
        }
    }
}

/// What a node tells researchers about a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetFace {
    pub id: DatasetId,
    pub name: String,
    pub data_type: DataType,
    pub tags: Tags,
    pub description: String,
    pub rows: RowCount,
    pub columns: Vec<ColumnFace>,
    /// The different values of columns that have few, as the hospital shows them; by name of the column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<String, Vec<Level>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_round_to_two_significant_digits() {
        for (rows, shown) in [(0, 0), (7, 7), (99, 99), (104, 100), (105, 110), (303, 300), (9_379, 9_400), (995, 1_000)] {
            assert_eq!(RowCount::rounded(rows), RowCount::Rounded(shown), "{rows}");
        }
    }
}
