//! Which rows of a dataset a question is about.
//!
//! Two questions about rows that differ by a few tell about these few. The node keeps the rows of each question that it answered to a
//! researcher about a version of a dataset, and refuses one that differs from an earlier one by too few.

use arrow_array::BooleanArray;
use arrow_array::builder::BooleanBufferBuilder;

/// A bit for each row of a dataset, in the dataset's order: whether a question is about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cohort {
    bits: Vec<u8>,
}

impl Cohort {
    /// Takes stored bits back.
    pub(crate) fn from_bytes(bits: Vec<u8>) -> Self {
        Self { bits }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// How many rows are in one and not in the other; `None` if they are not of the same data.
    pub(crate) fn difference(&self, other: &Self) -> Option<u64> {
        if self.bits.len() != other.bits.len() {
            return None;
        }
        let (words, bytes) = self.bits.as_chunks::<8>();
        let (other_words, other_bytes) = other.bits.as_chunks::<8>();
        let words = words.iter().zip(other_words);
        let words = words.map(|(left, right)| (u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right)).count_ones());
        let bytes = bytes.iter().zip(other_bytes).map(|(left, right)| (left ^ right).count_ones());
        Some(words.chain(bytes).map(u64::from).sum())
    }
}

/// The rows of one part of a dataset, as they are read.
#[derive(Debug)]
pub(crate) struct CohortBuilder(BooleanBufferBuilder);

impl Default for CohortBuilder {
    fn default() -> Self {
        Self(BooleanBufferBuilder::new(0))
    }
}

impl CohortBuilder {
    /// Adds so many rows; `kept` says which of them are meant, all without it.
    pub(crate) fn add(&mut self, rows: usize, kept: Option<&BooleanArray>) {
        match kept {
            Some(kept) => self.0.append_buffer(kept.values()),
            None => self.0.append_n(rows, true),
        }
    }

    /// Adds the rows of the part after it.
    pub(crate) fn join(&mut self, mut next: Self) {
        self.0.append_buffer(&next.0.finish());
    }

    pub(crate) fn finish(mut self) -> Cohort {
        let rows = self.0.len();
        let buffer = self.0.finish();
        Cohort { bits: buffer.values()[..rows.div_ceil(8)].to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohort(parts: &[&[bool]]) -> Cohort {
        let mut all = CohortBuilder::default();
        for part in parts {
            let mut builder = CohortBuilder::default();
            builder.add(part.len(), Some(&BooleanArray::from(part.to_vec())));
            all.join(builder);
        }
        all.finish()
    }

    #[test]
    fn rows_that_differ_are_counted_however_the_data_are_read() {
        let rows: Vec<bool> = (0..1_003).map(|row| row % 3 == 0).collect();
        let mut other = rows.clone();
        for row in [0, 511, 1_002] {
            other[row] = !other[row];
        }
        let (left, right) = (cohort(&[&rows[..5], &rows[5..700], &rows[700..]]), cohort(&[&other]));
        assert_eq!(left, cohort(&[&rows]));
        assert_eq!(left.difference(&right), Some(3));
        assert_eq!(left.difference(&left), Some(0));
        let mut all = CohortBuilder::default();
        all.add(1_003, None);
        assert_eq!(all.finish().difference(&left), Some(1_003 - 335));
        assert_eq!(left.difference(&cohort(&[&rows[..100]])), None);
        assert_eq!(Cohort::from_bytes(left.as_bytes().to_vec()), left);
    }
}
