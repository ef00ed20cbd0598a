//! The different values of columns that have few of them.

use std::collections::HashMap;

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use protocol::{ColumnKind, Level};
use serde::{Deserialize, Serialize};

/// The most values of a column that are learned.
pub const MAX_LEVELS: usize = 64;
/// The longest text that is a level and no free text, in bytes.
pub(crate) const MAX_LEVEL_BYTES: usize = 256;

/// A value, and how many rows have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelCount {
    pub level: Level,
    pub rows: u64,
}

/// The values of a column as they are met; `None` if they are too many.
#[derive(Debug, Clone)]
pub(crate) enum Distinct {
    Integers(Option<HashMap<i64, u64>>),
    /// By their bits; -0 is 0.
    Reals(Option<HashMap<u64, u64>>),
    Texts(Option<HashMap<String, u64>>),
}

fn add<K: Eq + std::hash::Hash>(values: &mut Option<HashMap<K, u64>>, value: K, rows: u64) {
    if let Some(known) = values {
        *known.entry(value).or_default() += rows;
        if known.len() > MAX_LEVELS {
            *values = None;
        }
    }
}

impl Distinct {
    pub(crate) fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Integer => Self::Integers(Some(HashMap::new())),
            ColumnKind::Real => Self::Reals(Some(HashMap::new())),
            ColumnKind::Text => Self::Texts(Some(HashMap::new())),
        }
    }

    pub(crate) fn count_integer(&mut self, value: i64, rows: u64) {
        if let Self::Integers(values) = self {
            add(values, value, rows);
        }
    }

    /// Counts a finite real.
    pub(crate) fn count_real(&mut self, value: f64, rows: u64) {
        if let Self::Reals(values) = self {
            add(values, (value + 0.0).to_bits(), rows);
        }
    }

    /// Counts a text; a blank one is a missing cell.
    pub(crate) fn count_text(&mut self, text: &str, rows: u64) {
        if let Self::Texts(values) = self
            && let Some(known) = values
            && !text.trim_ascii().is_empty()
        {
            if let Some(count) = known.get_mut(text) {
                *count += rows;
            } else if text.len() > MAX_LEVEL_BYTES {
                *values = None;
            } else {
                add(values, text.to_owned(), rows);
            }
        }
    }

    /// Counts the cells of a batch's column.
    pub(crate) fn count(&mut self, column: &ArrayRef) {
        match self {
            Self::Integers(None) | Self::Reals(None) | Self::Texts(None) => {}
            Self::Integers(Some(_)) => {
                for value in column.as_primitive::<Int64Type>().iter().flatten() {
                    self.count_integer(value, 1);
                }
            }
            Self::Reals(Some(_)) => {
                for value in column.as_primitive::<Float64Type>().iter().flatten() {
                    self.count_real(value, 1);
                }
            }
            Self::Texts(Some(_)) => {
                for text in column.as_string::<i32>().iter().flatten() {
                    self.count_text(text, 1);
                }
            }
        }
    }

    /// The values in their order; `None` if there were too many, or none.
    pub(crate) fn finish(self) -> Option<Vec<LevelCount>> {
        let mut levels: Vec<LevelCount> = match self {
            Self::Integers(values) => {
                let mut values: Vec<(i64, u64)> = values?.into_iter().collect();
                values.sort_unstable();
                // An integer that is no float64 has no level.
                let exact = |value: i64| crate::evaluate::exactly(value, value as f64).is_eq();
                if !values.iter().all(|(value, _)| exact(*value)) {
                    return None;
                }
                values.into_iter().map(|(value, rows)| LevelCount { level: Level::Number(value as f64), rows }).collect()
            }
            Self::Reals(values) => {
                let level = |(bits, rows)| LevelCount { level: Level::Number(f64::from_bits(bits)), rows };
                values?.into_iter().map(level).collect()
            }
            Self::Texts(values) => {
                values?.into_iter().map(|(text, rows)| LevelCount { level: Level::Text(text), rows }).collect()
            }
        };
        levels.sort_by(|one, other| match (&one.level, &other.level) {
            (Level::Number(one), Level::Number(other)) => one.total_cmp(other),
            (Level::Text(one), Level::Text(other)) => one.cmp(other),
            (Level::Number(_), Level::Text(_)) => std::cmp::Ordering::Less,
            (Level::Text(_), Level::Number(_)) => std::cmp::Ordering::Greater,
        });
        Some(levels).filter(|levels| !levels.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: f64, rows: u64) -> LevelCount {
        LevelCount { level: Level::Number(number), rows }
    }

    #[test]
    fn values_are_counted_while_they_are_few() {
        let mut distinct = Distinct::new(ColumnKind::Real);
        for value in [2.0, -0.0, 0.0, -1.5, 2.0] {
            distinct.count_real(value, 1);
        }
        distinct.count_real(7.0, 3);
        assert_eq!(distinct.finish(), Some(vec![number(-1.5, 1), number(0.0, 2), number(2.0, 2), number(7.0, 3)]));
        let mut many = Distinct::new(ColumnKind::Integer);
        (0..65).for_each(|value| many.count_integer(value, 1));
        assert_eq!(many.finish(), None);
        let mut free = Distinct::new(ColumnKind::Text);
        free.count_text(&"x".repeat(300), 1);
        assert_eq!(free.finish(), None);
        assert_eq!(Distinct::new(ColumnKind::Text).finish(), None);
    }
}
