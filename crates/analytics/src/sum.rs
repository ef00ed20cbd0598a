//! Sums that hardly depend on the order of their terms, nor on how rows are split into batches and sites.

/// Adds with the compensation of Neumaier 1974 ("Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen"): the
/// rounding error of each addition is kept apart and added at the end. The error of the sum is about one rounding of the result
/// plus n²·2⁻¹⁰⁶·Σ|x|, however many terms n.
pub(crate) fn compensated(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

/// A running sum whose rounding errors are kept apart, each found by the two-sum of Knuth (The Art of Computer Programming 2,
/// §4.2.2, theorem B), which needs no branch. As accurate as `compensated`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    sum: f64,
    lost: f64,
}

/// Independent running sums, so that several values are added at once.
const LANES: usize = 8;

impl Sum {
    #[inline]
    pub fn add(&mut self, value: f64) {
        let next = self.sum + value;
        let added = next - self.sum;
        self.lost += (self.sum - (next - added)) + (value - added);
        self.sum = next;
    }

    /// Adds `term` of each value.
    #[inline]
    pub fn add_all(&mut self, values: &[f64], term: impl Fn(f64) -> f64) {
        let mut lanes = [Self::default(); LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                lane.add(term(*value));
            }
        }
        for value in rest {
            self.add(term(*value));
        }
        for lane in lanes {
            self.merge(lane);
        }
    }

    /// Adds the products of two columns' values.
    pub fn add_products(&mut self, left: &[f64], right: &[f64]) {
        let mut lanes = [Self::default(); LANES];
        let (left, left_rest) = left.as_chunks::<LANES>();
        let (right, right_rest) = right.as_chunks::<LANES>();
        for (left, right) in left.iter().zip(right) {
            for ((lane, left), right) in lanes.iter_mut().zip(left).zip(right) {
                lane.add(left * right);
            }
        }
        for (left, right) in left_rest.iter().zip(right_rest) {
            self.add(left * right);
        }
        for lane in lanes {
            self.merge(lane);
        }
    }

    pub fn merge(&mut self, other: Self) {
        self.add(other.sum);
        self.lost += other.lost;
    }

    /// The sum, rounded once. Not finite if a term or the sum was not.
    pub fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// A sum of squared differences from a mean; 0 where it is no more than what the rounding of the mean leaves of values that are all the same.
pub(crate) fn above_rounding(squares: f64, count: u64, mean: f64) -> f64 {
    let rounding = f64::EPSILON * mean;
    if squares <= count as f64 * rounding * rounding { 0.0 } else { squares }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_terms_between_large_ones_are_not_lost() {
        // Neumaier's own example: the plain sum is 0.
        assert_eq!(compensated([1.0, 1e100, 1.0, -1e100]), 2.0);
        let mut sum = Sum::default();
        sum.add_all(&[1.0, 1e100, 1.0, -1e100], |value| value);
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn a_million_tenths_are_a_hundred_thousand() {
        assert_eq!(compensated(std::iter::repeat_n(0.1, 1_000_000)), 100_000.0);
        let mut sum = Sum::default();
        sum.add_all(&vec![0.1; 1_000_000], |value| value);
        assert_eq!(sum.value(), 100_000.0);
    }

    proptest! {
        #[test]
        fn a_split_does_not_change_a_sum(values in proptest::collection::vec(-1e6_f64..1e6, 0..200), cut in 0_usize..200) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let (mut whole, mut first, mut second) = (Sum::default(), Sum::default(), Sum::default());
            whole.add_all(&values, |value| value);
            first.add_all(left, |value| value);
            second.add_all(right, |value| value);
            second.merge(first);
            let size: f64 = values.iter().map(|value| value.abs()).sum();
            prop_assert!((whole.value() - second.value()).abs() <= 1e-28 * size + f64::EPSILON * whole.value().abs());
        }
    }
}
