//! Metrics of real outcomes, from sums over rows.

use protocol::Metric;

use super::Undefined;

/// The names of the sums, in their order.
pub(super) const NAMES: [&str; 5] = ["absolute_error", "squared_error", "error", "target", "target_squared"];

/// Sums over rows: of |e|, e², e, y and y², where y is the target and e = y - prediction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct ErrorSums {
    pub(super) rows: u64,
    pub(super) sums: [f64; 5],
}

impl ErrorSums {
    pub(super) fn add(&mut self, target: f64, prediction: f64) {
        let error = target - prediction;
        self.rows += 1;
        for (sum, own) in self.sums.iter_mut().zip([error.abs(), error * error, error, target, target * target]) {
            *sum += own;
        }
    }

    /// MSE, RMSE, MAE; R² = 1 - Σe² / Σ(y - ȳ)²; explained variance = 1 - Σ(e - ē)² / Σ(y - ȳ)², all as scikit-learn defines
    /// them, but not defined for a constant target.
    ///
    /// Σ(y - ȳ)² is taken as Σy² - (Σy)²/n, which loses twice as many digits as the mean of y has more than its deviation.
    pub(super) fn metrics(&self) -> Vec<(Metric, Result<f64, Undefined>)> {
        let n = self.rows as f64;
        let [absolute, squared, error, target, target_squared] = self.sums;
        let spread = target_squared - target * target / n;
        // What is left of a constant target is rounding of sums of n terms.
        let is_constant = spread <= 16.0 * f64::EPSILON * target_squared;
        let of_rows = |value: f64| if self.rows == 0 { Err(Undefined::NoRows) } else { Ok(value) };
        let explained = |unexplained: f64| match self.rows {
            0 => Err(Undefined::NoRows),
            _ if is_constant => Err(Undefined::ConstantTarget),
            _ => Ok(1.0 - unexplained / spread),
        };
        vec![
            (Metric::Mse, of_rows(squared / n)),
            (Metric::Rmse, of_rows((squared / n).sqrt())),
            (Metric::Mae, of_rows(absolute / n)),
            (Metric::R2, explained(squared)),
            (Metric::ExplainedVariance, explained(squared - error * error / n)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_equal_scikit_learn() {
        // scikit-learn 1.9.1: mean_squared_error, root_mean_squared_error, mean_absolute_error, r2_score,
        // explained_variance_score of these two lists.
        let targets = [3.1, -0.5, 2.0, 7.25, 1.0, -2.0];
        let predictions = [2.5, 0.0, 2.1, 7.8, 1.5, -1.25];
        let mut sums = ErrorSums::default();
        targets.iter().zip(&predictions).for_each(|(target, prediction)| sums.add(*target, *prediction));
        let expected =
            [0.289_166_666_666_666_6, 0.537_742_193_496_722_6, 0.5, 0.966_507_138_548_160_1, 0.976_931_429_720_490_6];
        for ((metric, value), expected) in sums.metrics().into_iter().zip(expected) {
            assert!((value.unwrap() - expected).abs() < 1e-14, "{metric:?} {value:?} {expected}");
        }
    }

    #[test]
    fn a_constant_target_explains_nothing_and_no_rows_measure_nothing() {
        let mut sums = ErrorSums::default();
        assert!(sums.metrics().iter().all(|(_, value)| *value == Err(Undefined::NoRows)));
        (0..7).for_each(|_| sums.add(0.1, 0.3));
        let metrics = sums.metrics();
        assert_eq!(metrics[3].1, Err(Undefined::ConstantTarget));
        assert_eq!(metrics[4].1, Err(Undefined::ConstantTarget));
        assert!((metrics[2].1.unwrap() - 0.2).abs() < 1e-15);
    }
}
