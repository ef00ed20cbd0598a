//! Which rows are trained on and which are held out, the same in every round of an experiment.

use thiserror::Error;

use crate::stream::Stream;

/// Row numbers of both parts, each ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<u32>,
    pub test: Vec<u32>,
}

/// Why rows cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitError {
    /// `row` counts from 0; for the node's own eyes.
    #[error("the split column must hold `train` or `test` in every row")]
    Word { row: usize },
    #[error("a table has fewer than 2^32 rows")]
    TooManyRows,
}

impl Split {
    /// Holds out `rows`·`test_ratio` rows, rounded down (of the f64 product, as Fed-BioMed does), drawn at random.
    /// `test_ratio` is from 0 to below 1, as plans have it.
    pub fn by_ratio(rows: usize, test_ratio: f64, stream: Stream) -> Result<Self, SplitError> {
        let rows = u32::try_from(rows).map_err(|_| SplitError::TooManyRows)?;
        let mut order: Vec<u32> = (0..rows).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounds down; between 0 and `rows`")]
        let n_test = (f64::from(rows) * test_ratio).floor() as usize;
        if n_test == 0 {
            return Ok(Self { train: order, test: Vec::new() });
        }
        stream.part(0).shuffle(&mut order);
        let mut train = order.split_off(n_test);
        train.sort_unstable();
        order.sort_unstable();
        Ok(Self { train, test: order })
    }

    /// Follows a column that says `train` or `test` in every row.
    pub fn by_words<'a>(words: impl IntoIterator<Item = Option<&'a str>>) -> Result<Self, SplitError> {
        let mut split = Self { train: Vec::new(), test: Vec::new() };
        for (row, word) in words.into_iter().enumerate() {
            let number = u32::try_from(row).map_err(|_| SplitError::TooManyRows)?;
            match word {
                Some("train") => split.train.push(number),
                Some("test") => split.test.push(number),
                _ => return Err(SplitError::Word { row }),
            }
        }
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_decide_and_other_words_are_refused() {
        let split = Split::by_words([Some("train"), Some("test"), Some("train")]).unwrap();
        assert_eq!(split, Split { train: vec![0, 2], test: vec![1] });
        assert_eq!(Split::by_words([Some("train"), Some("Test")]), Err(SplitError::Word { row: 1 }));
        assert_eq!(Split::by_words([None]), Err(SplitError::Word { row: 0 }));
    }

    #[test]
    fn another_stream_holds_out_other_rows() {
        let split = |seed| Split::by_ratio(100, 0.3, Stream::initial(seed)).unwrap();
        assert_eq!(split(1), split(1));
        assert_ne!(split(1), split(2));
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_part_and_the_held_out_part_is_rounded_down(rows in 0_usize..500, test_ratio in 0.0..1.0_f64, seed: u64) {
            let split = Split::by_ratio(rows, test_ratio, Stream::initial(seed)).unwrap();
            prop_assert!(split.test.len() as f64 <= rows as f64 * test_ratio);
            prop_assert!((split.test.len() + 1) as f64 > rows as f64 * test_ratio);
            let mut all = [split.train, split.test].concat();
            all.sort_unstable();
            prop_assert!(all.iter().enumerate().all(|(number, row)| *row as usize == number) && all.len() == rows);
        }
    }
}
