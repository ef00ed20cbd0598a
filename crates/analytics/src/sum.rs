//! Sums that hardly depend on the order of their terms.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_between_large_ones_are_not_lost() {
        // Neumaier's own example: the plain sum is 0.
        assert_eq!(compensated([1.0, 1e100, 1.0, -1e100]), 2.0);
    }

    #[test]
    fn a_million_tenths_are_a_hundred_thousand() {
        assert_eq!(compensated(std::iter::repeat_n(0.1, 1_000_000)), 100_000.0);
    }
}
