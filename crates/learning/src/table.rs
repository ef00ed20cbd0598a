//! Rows that a model is trained or measured on: features row by row, and a target each, in the model's precision.

use protocol::{Outcome, Precision};
use thiserror::Error;

use crate::scalar::Scalar;
use crate::standardise::Standardisation;

/// Why columns do not make a table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableError {
    #[error("column {column} has {found} rows, the target has {expected}")]
    Length { column: usize, expected: usize, found: usize },
    #[error("row {row} was asked for, the columns have {rows} rows")]
    Row { row: u32, rows: usize },
    #[error("the standardisation has {found} columns, the table has {expected}")]
    Standardisation { expected: usize, found: usize },
    #[error("a table has fewer than 2^32 rows")]
    TooManyRows,
    #[error("a cell holds no finite number, or none that fits {precision:?}")]
    NotFinite { precision: Precision },
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Rows of one type of scalar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows<T> {
    n_features: usize,
    features: Vec<T>,
    targets: Vec<T>,
}

impl<T: Scalar> Rows<T> {
    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    pub(crate) fn n_features(&self) -> usize {
        self.n_features
    }

    #[inline]
    pub(crate) fn features(&self, row: u32) -> &[T] {
        let start = row as usize * self.n_features;
        &self.features[start..start + self.n_features]
    }

    #[inline]
    pub(crate) fn target(&self, row: u32) -> T {
        self.targets[row as usize]
    }

    fn gather(columns: &[&[f64]], targets: &[f64], rows: &[u32], standardisation: Option<&Standardisation>) -> Self {
        let mut features = Vec::with_capacity(rows.len() * columns.len());
        for row in rows {
            let values = columns.iter().map(|column| column[*row as usize]);
            match standardisation {
                None => features.extend(values.map(T::from_f64)),
                Some(standardisation) => features.extend(standardisation.apply(values).map(T::from_f64)),
            }
        }
        let targets = rows.iter().map(|row| T::from_f64(targets[*row as usize])).collect();
        Self { n_features: columns.len(), features, targets }
    }

    fn is_finite(&self) -> bool {
        self.features.iter().chain(&self.targets).all(|value| value.is_finite())
    }
}

/// Rows in one of the two precisions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    F32(Rows<f32>),
    F64(Rows<f64>),
}

/// Rows in a plan's precision, with targets that suit its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    outcome: Outcome,
    values: Values,
}

impl Table {
    /// Copies the listed rows of the columns, standardised in f64 before they are rounded to the model's precision.
    pub fn from_columns(
        (outcome, precision): (Outcome, Precision),
        columns: &[&[f64]],
        targets: &[f64],
        rows: &[u32],
        standardisation: Option<&Standardisation>,
    ) -> Result<Self, TableError> {
        for (column, values) in columns.iter().enumerate() {
            if values.len() != targets.len() {
                return Err(TableError::Length { column, expected: targets.len(), found: values.len() });
            }
        }
        if u32::try_from(rows.len()).is_err() {
            return Err(TableError::TooManyRows);
        }
        if let Some(row) = rows.iter().find(|row| **row as usize >= targets.len()) {
            return Err(TableError::Row { row: *row, rows: targets.len() });
        }
        if let Some(standardisation) = standardisation.filter(|it| it.len() != columns.len()) {
            return Err(TableError::Standardisation { expected: columns.len(), found: standardisation.len() });
        }
        check_targets(outcome, rows.iter().map(|row| targets[*row as usize]))?;
        let values = match precision {
            Precision::Float32 => Values::F32(Rows::gather(columns, targets, rows, standardisation)),
            Precision::Float64 => Values::F64(Rows::gather(columns, targets, rows, standardisation)),
        };
        let is_finite = match &values {
            Values::F32(rows) => rows.is_finite(),
            Values::F64(rows) => rows.is_finite(),
        };
        if is_finite { Ok(Self { outcome, values }) } else { Err(TableError::NotFinite { precision }) }
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::F32(rows) => rows.len(),
            Values::F64(rows) => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn n_features(&self) -> usize {
        match &self.values {
            Values::F32(rows) => rows.n_features(),
            Values::F64(rows) => rows.n_features(),
        }
    }

    /// What the targets are.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }
}

/// Why targets do not suit an outcome. No value is named: the sentence may travel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    #[error("the target must be 0 or 1 in every row")]
    NotBinary,
    #[error("the target must be a whole number from 0 to {} in every row", classes - 1)]
    NotAClass { classes: u32 },
    #[error("the target must be a finite number in every row")]
    NotFinite,
}

/// Checks that every target is a value of the outcome.
pub fn check_targets(outcome: Outcome, mut targets: impl Iterator<Item = f64>) -> Result<(), TargetError> {
    match outcome {
        Outcome::Real => targets.all(f64::is_finite).then_some(()).ok_or(TargetError::NotFinite),
        Outcome::Binary => targets.all(|target| target == 0.0 || target == 1.0).then_some(()).ok_or(TargetError::NotBinary),
        Outcome::Class { classes } => {
            let is_class = |target: f64| (0.0..f64::from(classes)).contains(&target) && target.fract() == 0.0;
            targets.all(is_class).then_some(()).ok_or(TargetError::NotAClass { classes })
        }
    }
}

/// Whether the outcome has classes and all targets are of the same one.
pub fn has_one_class(outcome: Outcome, targets: &[f64]) -> bool {
    outcome != Outcome::Real && targets.windows(2).all(|pair| pair[0] == pair[1]) && !targets.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: (Outcome, Precision) = (Outcome::Real, Precision::Float64);

    #[test]
    fn listed_rows_are_copied_in_their_order() {
        let table =
            Table::from_columns(REAL, &[&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]], &[7.0, 8.0, 9.0], &[2, 1], None).unwrap();
        let Values::F64(rows) = table.values() else { panic!("{table:?}") };
        assert_eq!((rows.features(0), rows.target(0)), (&[3.0, 6.0][..], 9.0));
        assert_eq!((rows.features(1), rows.target(1)), (&[2.0, 5.0][..], 8.0));
    }

    #[test]
    fn columns_of_other_length_and_rows_beyond_the_end_are_refused() {
        let table = |columns: &[&[f64]], rows: &[u32]| Table::from_columns(REAL, columns, &[0.0, 1.0], rows, None);
        assert_eq!(table(&[&[1.0]], &[]), Err(TableError::Length { column: 0, expected: 2, found: 1 }));
        assert_eq!(table(&[&[1.0, 2.0]], &[0, 2]), Err(TableError::Row { row: 2, rows: 2 }));
    }

    #[test]
    fn cells_without_a_finite_number_are_refused() {
        let table = |precision, cell| Table::from_columns((Outcome::Real, precision), &[&[cell]], &[0.0], &[0], None);
        for cell in [f64::NAN, f64::INFINITY] {
            assert_eq!(table(Precision::Float64, cell), Err(TableError::NotFinite { precision: Precision::Float64 }));
        }
        assert!(table(Precision::Float64, 1e39).is_ok());
        assert_eq!(table(Precision::Float32, 1e39), Err(TableError::NotFinite { precision: Precision::Float32 }));
    }

    #[test]
    fn targets_outside_the_outcome_are_refused() {
        let check = |outcome, targets: &[f64]| check_targets(outcome, targets.iter().copied());
        assert_eq!(check(Outcome::Binary, &[0.0, 1.0]), Ok(()));
        assert_eq!(check(Outcome::Binary, &[0.0, 2.0]), Err(TargetError::NotBinary));
        let class = Outcome::Class { classes: 3 };
        assert_eq!(check(class, &[0.0, 2.0]), Ok(()));
        for target in [-1.0, 3.0, 0.5, f64::NAN] {
            assert_eq!(check(class, &[target]), Err(TargetError::NotAClass { classes: 3 }));
        }
        assert_eq!(check(Outcome::Real, &[f64::INFINITY]), Err(TargetError::NotFinite));
    }

    #[test]
    fn one_class_is_noticed() {
        assert!(has_one_class(Outcome::Binary, &[1.0, 1.0]));
        assert!(!has_one_class(Outcome::Binary, &[1.0, 0.0]));
        assert!(!has_one_class(Outcome::Real, &[1.0, 1.0]));
        assert!(!has_one_class(Outcome::Binary, &[]));
    }
}
