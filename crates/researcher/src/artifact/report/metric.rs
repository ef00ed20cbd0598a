//! What readers should know about each metric.

use protocol::Metric;

/// How a metric is shown.
pub(super) struct Words {
    pub(super) label: &'static str,
    /// Which end is the good one.
    pub(super) better: &'static str,
    /// The least and greatest possible value.
    pub(super) bounds: (f64, f64),
}

/// All metrics, those that say most first.
pub(super) const BY_WEIGHT: [Metric; 12] = [
    Metric::Auc,
    Metric::Accuracy,
    Metric::BalancedAccuracy,
    Metric::F1,
    Metric::LogLoss,
    Metric::R2,
    Metric::Rmse,
    Metric::Mae,
    Metric::Precision,
    Metric::Recall,
    Metric::ExplainedVariance,
    Metric::Mse,
];

pub(super) fn words(metric: Metric) -> Words {
    let share = |label| Words { label, better: "higher is better", bounds: (0.0, 1.0) };
    let explained = |label| Words { label, better: "higher is better", bounds: (f64::MIN, 1.0) };
    let loss = |label| Words { label, better: "lower is better", bounds: (0.0, f64::MAX) };
    match metric {
        Metric::Accuracy => share("Accuracy"),
        Metric::BalancedAccuracy => share("Balanced accuracy"),
        Metric::Precision => share("Precision"),
        Metric::Recall => share("Recall"),
        Metric::F1 => share("F1"),
        Metric::Auc => share("AUC"),
        Metric::LogLoss => loss("Log loss"),
        Metric::Mse => loss("MSE"),
        Metric::Rmse => loss("RMSE"),
        Metric::Mae => loss("MAE"),
        Metric::R2 => explained("R²"),
        Metric::ExplainedVariance => explained("Explained variance"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_weight() {
        assert!(Metric::ALL.iter().all(|metric| BY_WEIGHT.contains(metric)));
    }
}
