//! The different cells of a column, while they are few.

use protocol::ColumnKind;

use super::cell::{Number, integer, real};
use crate::levels::{Distinct, LevelCount, MAX_LEVEL_BYTES, MAX_LEVELS};

/// Different cells as bytes: `1` and `1.0` are two.
#[derive(Debug, Clone)]
pub(super) struct DistinctCells {
    /// The ones that occur often move to the front; `None` if there were too many.
    cells: Option<Vec<(Box<[u8]>, u64)>>,
}

impl Default for DistinctCells {
    fn default() -> Self {
        Self { cells: Some(Vec::new()) }
    }
}

impl DistinctCells {
    #[inline]
    pub(super) fn count(&mut self, cell: &[u8]) {
        if let Some(cells) = &mut self.cells
            && !find(cells, cell)
        {
            // Several spellings may be one value.
            if cells.len() == 2 * MAX_LEVELS || cell.len() > MAX_LEVEL_BYTES {
                self.cells = None;
            } else {
                cells.push((cell.into(), 1));
            }
        }
    }

    /// The values of a column of this kind, without missing ones.
    pub(super) fn finish(self, kind: ColumnKind) -> Option<Vec<LevelCount>> {
        let mut distinct = Distinct::new(kind);
        for (cell, rows) in self.cells? {
            match kind {
                ColumnKind::Integer => {
                    if let Number::Value(value) = integer(&cell) {
                        distinct.count_integer(value, rows);
                    }
                }
                ColumnKind::Real => {
                    if let Number::Value(value) = real(&cell) {
                        distinct.count_real(value, rows);
                    }
                }
                ColumnKind::Text => {
                    let text = std::str::from_utf8(&cell).expect("records are checked to be UTF-8");
                    distinct.count_text(text, rows);
                }
            }
        }
        distinct.finish()
    }
}

fn find(cells: &mut [(Box<[u8]>, u64)], cell: &[u8]) -> bool {
    let Some(at) = cells.iter().position(|(known, _)| **known == *cell) else { return false };
    cells[at].1 += 1;
    if at > 0 {
        cells.swap(at, at - 1);
    }
    true
}
