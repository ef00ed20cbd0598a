//! Places in a file where records begin, so that its parts can be read at once. A quote decides far away what a line's end means,
//! so they are noted while the file is read from its beginning.

use serde::{Deserialize, Serialize};

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Bytes of the file before it.
    pub byte: u64,
    pub line: u64,
    /// Rows before it.
    pub row: u64,
}

/// The most marks of a file, whatever its size.
const MAX_MARKS: usize = 256;
/// The least bytes between two marks.
const SPACING: u64 = 4 << 20;

/// Marks of a file that is being read.
#[derive(Debug)]
pub(super) struct Marks {
    kept: Vec<Mark>,
    spacing: u64,
    next: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { kept: Vec::new(), spacing: SPACING, next: SPACING }
    }
}

impl Marks {
    /// Passes the beginning of a record, at a byte and line.
    #[inline]
    pub(super) fn pass(&mut self, (byte, line): (u64, u64), row: u64) {
        if byte >= self.next {
            self.mark(Mark { byte, line, row });
        }
    }

    fn mark(&mut self, mark: Mark) {
        // A part without rows would be no part.
        if self.kept.last().map_or(0, |last| last.row) < mark.row {
            self.kept.push(mark);
        }
        if self.kept.len() > MAX_MARKS {
            // Every other one stays, twice as far apart.
            let mut is_kept = false;
            self.kept.retain(|_| {
                is_kept = !is_kept;
                !is_kept
            });
            self.spacing *= 2;
        }
        self.next = mark.byte.saturating_add(self.spacing);
    }

    /// The marks of a file with so many rows.
    pub(super) fn finish(mut self, rows: u64) -> Vec<Mark> {
        self.kept.retain(|mark| mark.row < rows);
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_far_apart_however_long_the_file() {
        let mut marks = Marks::default();
        for row in 0..3_000_u64 {
            marks.pass((row << 20, row + 2), row);
        }
        let marks = marks.finish(3_000);
        assert!((100..=MAX_MARKS).contains(&marks.len()), "{}", marks.len());
        assert!(marks.windows(2).all(|pair| pair[1].byte - pair[0].byte >= SPACING && pair[1].row > pair[0].row));
    }
}
