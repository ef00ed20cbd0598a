//! What a node sums over its held-out rows, as vectors of a contribution, and the pooled metrics that follow from the sums of
//! all nodes' vectors.

use protocol::{Encoding, Metric, Outcome, Purpose, VectorSpec};
use thiserror::Error;

use super::auc::{self, Area, SCORE_BINS};
use super::classification::ClassCounts;
use super::regression::{ErrorSums, NAMES};
use super::{Metrics, Undefined, log_loss_of_score, log_loss_of_scores};
use crate::network::class_index;

/// Why a validation gives no sums.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SumsError {
    #[error("the model's score of a held-out row is no finite number")]
    NotFinite,
    #[error("vector {name:?} has other elements than a validation of this outcome")]
    Vector { name: &'static str },
}

/// The vectors of a validation, in the order of [`ValidationSums::vectors`]. Counts are exact.
pub fn validation_specs(outcome: Outcome, purpose: Purpose) -> Vec<VectorSpec> {
    let spec = |name: &str, shape: Vec<usize>, encoding| VectorSpec { purpose, name: name.to_owned(), shape, encoding };
    match outcome {
        Outcome::Real => {
            let sums = NAMES.iter().map(|name| spec(name, vec![1], Encoding::REAL));
            [spec("rows", vec![1], Encoding::COUNT)].into_iter().chain(sums).collect()
        }
        Outcome::Binary | Outcome::Class { .. } => {
            let (name, shape) = ClassCounts::shape(class_count(outcome));
            let mut specs = vec![spec(name, shape, Encoding::COUNT), spec("log_loss", vec![1], Encoding::REAL)];
            if outcome == Outcome::Binary {
                specs.push(spec("scores", vec![2, SCORE_BINS], Encoding::COUNT));
            }
            specs
        }
    }
}

fn class_count(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Real => 0,
        Outcome::Binary => 2,
        Outcome::Class { classes } => classes as usize,
    }
}

/// Sums over held-out rows: of one node, or of all after decoding.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationSums {
    sums: Sums,
}

#[derive(Debug, Clone, PartialEq)]
enum Sums {
    Real(ErrorSums),
    Binary { counts: ClassCounts, log_loss: f64, histogram: Vec<(u64, u64)> },
    Class { counts: ClassCounts, log_loss: f64 },
}

impl ValidationSums {
    /// No rows.
    pub fn new(outcome: Outcome) -> Self {
        let counts = ClassCounts::new(class_count(outcome));
        let sums = match outcome {
            Outcome::Real => Sums::Real(ErrorSums::default()),
            Outcome::Binary => Sums::Binary { counts, log_loss: 0.0, histogram: vec![(0, 0); SCORE_BINS] },
            Outcome::Class { .. } => Sums::Class { counts, log_loss: 0.0 },
        };
        Self { sums }
    }

    /// Adds a row: its scores (a prediction, a score of class 1, or one score per class) and its checked target.
    pub(crate) fn add(&mut self, scores: &[f64], target: f64) -> Result<(), SumsError> {
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(SumsError::NotFinite);
        }
        match &mut self.sums {
            Sums::Real(sums) => sums.add(target, scores[0]),
            Sums::Binary { counts, log_loss, histogram } => {
                let class = class_index(target);
                counts.add(class, usize::from(scores[0] > 0.0));
                *log_loss += log_loss_of_score(scores[0], target);
                let bin = &mut histogram[auc::bin(scores[0])];
                if class == 1 { bin.1 += 1 } else { bin.0 += 1 }
            }
            Sums::Class { counts, log_loss } => {
                // The first of equal scores wins, as with NumPy's argmax.
                let best = (1..scores.len()).fold(0, |best, class| if scores[class] > scores[best] { class } else { best });
                counts.add(class_index(target), best);
                *log_loss += log_loss_of_scores(scores, class_index(target));
            }
        }
        Ok(())
    }

    /// The sums as vectors, one for each of [`validation_specs`].
    pub fn vectors(&self) -> Vec<Vec<f64>> {
        let reals = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect::<Vec<f64>>();
        match &self.sums {
            Sums::Real(sums) => [sums.rows as f64].into_iter().chain(sums.sums).map(|sum| vec![sum]).collect(),
            Sums::Binary { counts, log_loss, histogram } => {
                let negative = histogram.iter().map(|(negative, _)| *negative as f64);
                let scores = negative.chain(histogram.iter().map(|(_, positive)| *positive as f64)).collect();
                vec![reals(counts.counts()), vec![*log_loss], scores]
            }
            Sums::Class { counts, log_loss } => vec![reals(counts.counts()), vec![*log_loss]],
        }
    }

    /// Reads vectors of [`validation_specs`], such as decoded sums over nodes.
    pub fn from_vectors(outcome: Outcome, vectors: &[Vec<f64>]) -> Result<Self, SumsError> {
        let counts = |index: usize, name: &'static str| -> Result<ClassCounts, SumsError> {
            let counts = vectors.get(index).and_then(|vector| whole(vector));
            let counts = counts.and_then(|counts| ClassCounts::from_counts(class_count(outcome), counts));
            counts.ok_or(SumsError::Vector { name })
        };
        let single = |index: usize, name: &'static str| match vectors.get(index).map(Vec::as_slice) {
            Some([value]) if value.is_finite() => Ok(*value),
            _ => Err(SumsError::Vector { name }),
        };
        let sums = match outcome {
            Outcome::Real => {
                let rows = vectors.first().and_then(|vector| whole(vector)).filter(|rows| rows.len() == 1);
                let mut sums = [0.0; NAMES.len()];
                for (index, name) in NAMES.iter().enumerate() {
                    sums[index] = single(index + 1, name)?;
                }
                Sums::Real(ErrorSums { rows: rows.ok_or(SumsError::Vector { name: "rows" })?[0], sums })
            }
            Outcome::Binary => {
                let scores = vectors.get(2).and_then(|vector| whole(vector)).filter(|scores| scores.len() == 2 * SCORE_BINS);
                let scores = scores.ok_or(SumsError::Vector { name: "scores" })?;
                let (negative, positive) = scores.split_at(SCORE_BINS);
                let histogram = negative.iter().copied().zip(positive.iter().copied()).collect();
                Sums::Binary { counts: counts(0, "confusion")?, log_loss: single(1, "log_loss")?, histogram }
            }
            Outcome::Class { .. } => Sums::Class { counts: counts(0, "confusion")?, log_loss: single(1, "log_loss")? },
        };
        Ok(Self { sums })
    }

    /// The metrics of these rows; the AUC is that of the histogram, with its error bound.
    pub fn metrics(&self) -> Metrics {
        match &self.sums {
            Sums::Real(sums) => Metrics {
                rows: sums.rows,
                values: sums.metrics().into_iter().collect(),
                auc_error_bound: None,
                confusion: None,
                rows_per_class: Vec::new(),
            },
            Sums::Class { counts, log_loss } => of_classes(counts, *log_loss),
            Sums::Binary { counts, log_loss, histogram } => {
                let mut metrics = of_classes(counts, *log_loss);
                let area = auc::area(histogram.iter().copied());
                metrics.auc_error_bound = area.map(|area| area.ties);
                metrics.values.insert(Metric::Auc, of_area(area, metrics.rows));
                metrics
            }
        }
    }

    /// The metrics of these rows with the exact AUC of their scores (score, whether of class 1).
    pub(crate) fn exact_metrics(&self, scores: Vec<(f64, bool)>) -> Metrics {
        let mut metrics = self.metrics();
        if matches!(self.sums, Sums::Binary { .. }) {
            metrics.auc_error_bound = None;
            metrics.values.insert(Metric::Auc, of_area(auc::area(auc::groups(scores).into_iter()), metrics.rows));
        }
        metrics
    }
}

fn of_classes(counts: &ClassCounts, log_loss: f64) -> Metrics {
    let rows_per_class = counts.rows_per_class();
    let rows: u64 = rows_per_class.iter().sum();
    let log_loss = if rows == 0 { Err(Undefined::NoRows) } else { Ok(log_loss / rows as f64) };
    Metrics {
        rows,
        values: counts.metrics().into_iter().chain([(Metric::LogLoss, log_loss)]).collect(),
        auc_error_bound: None,
        confusion: counts.confusion(),
        rows_per_class,
    }
}

fn of_area(area: Option<Area>, rows: u64) -> Result<f64, Undefined> {
    area.map(|area| area.value).ok_or(if rows == 0 { Undefined::NoRows } else { Undefined::OneClass })
}

/// Counts out of decoded sums; `None` if one is not a whole number that f64 holds exactly.
fn whole(values: &[f64]) -> Option<Vec<u64>> {
    let is_count = |value: &f64| (0.0..9_007_199_254_740_992.0).contains(value) && value.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53 only")]
    values.iter().all(is_count).then(|| values.iter().map(|value| *value as u64).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTCOMES: [Outcome; 3] = [Outcome::Real, Outcome::Binary, Outcome::Class { classes: 3 }];

    fn sums(outcome: Outcome, rows: &[([f64; 3], u8)]) -> ValidationSums {
        let mut sums = ValidationSums::new(outcome);
        for (scores, target) in rows {
            let (scores, target) = match outcome {
                Outcome::Real => (&scores[..1], f64::from(*target)),
                Outcome::Binary => (&scores[..1], f64::from(target % 2)),
                Outcome::Class { .. } => (&scores[..], f64::from(target % 3)),
            };
            sums.add(scores, target).unwrap();
        }
        sums
    }

    #[test]
    fn binary_metrics_equal_scikit_learn() {
        // scikit-learn 1.9.1: roc_auc_score(y, z) and log_loss(y, 1 / (1 + exp(-z))).
        let scores = [-2.2, 2.2, -0.62, -0.62, 1.39, 0.41, -2.94, 0.41, -0.2, -1.39, 3.48, 0.0004, -0.2, 0.41];
        let targets = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1_u8];
        let rows: Vec<([f64; 3], u8)> = scores.iter().zip(targets).map(|(z, y)| ([*z, 0.0, 0.0], y)).collect();
        let sums = sums(Outcome::Binary, &rows);
        let exact = sums.exact_metrics(scores.into_iter().zip(targets.map(|target| target == 1)).collect());
        assert_eq!(exact.get(Metric::Auc), Some(0.84375));
        assert_eq!(exact.auc_error_bound, None);
        assert!((exact.get(Metric::LogLoss).unwrap() - 0.460_313_758_074_071).abs() < 1e-15);
        let pooled = sums.metrics();
        let error = (pooled.get(Metric::Auc).unwrap() - 0.84375).abs();
        assert!(error <= pooled.auc_error_bound.unwrap());
        assert_eq!(pooled.rows_per_class, [6, 8]);
    }

    #[test]
    fn the_log_loss_of_classes_equals_scikit_learn() {
        // scikit-learn 1.9.1: log_loss of the softmax of these scores.
        let rows = [
            ([2.0, 0.5, -1.0], 0),
            ([0.0, 1.0, 0.2], 1),
            ([0.3, 0.2, 0.1], 2),
            ([-1.0, 0.0, 3.0], 2),
            ([0.5, 1.5, 1.0], 1),
            ([0.1, 0.4, 0.2], 0),
            ([0.0, 0.1, 2.0], 2),
            ([0.5, 2.0, 1.0], 2),
            ([0.0, 0.7, 0.2], 1),
            ([1.0, 0.0, 0.5], 0),
        ];
        let metrics = sums(Outcome::Class { classes: 3 }, &rows).metrics();
        assert!((metrics.get(Metric::LogLoss).unwrap() - 0.716_528_268_379_322).abs() < 1e-15);
        assert_eq!(metrics.confusion.unwrap(), [[2, 1, 0], [0, 3, 0], [1, 1, 2]]);
    }

    #[test]
    fn no_rows_give_no_number_for_any_outcome() {
        for outcome in OUTCOMES {
            let metrics = ValidationSums::new(outcome).metrics();
            assert_eq!((metrics.rows, metrics.defined().count()), (0, 0));
            assert!(metrics.undefined().all(|(_, why)| why == Undefined::NoRows));
        }
    }

    #[test]
    fn a_score_that_is_no_number_and_vectors_of_another_outcome_are_refused() {
        let mut sums = ValidationSums::new(Outcome::Binary);
        assert_eq!(sums.add(&[f64::NAN], 1.0), Err(SumsError::NotFinite));
        for outcome in OUTCOMES {
            for other in OUTCOMES {
                let read = ValidationSums::from_vectors(other, &ValidationSums::new(outcome).vectors());
                assert_eq!(read.is_ok(), outcome == other, "{outcome:?} {other:?}");
            }
        }
        let mut vectors = ValidationSums::new(Outcome::Binary).vectors();
        vectors[0][0] = -1.0;
        assert!(ValidationSums::from_vectors(Outcome::Binary, &vectors).is_err());
    }

    #[test]
    fn specs_name_the_vectors_that_are_given() {
        for outcome in OUTCOMES.into_iter().chain([Outcome::Class { classes: 1000 }]) {
            let specs = validation_specs(outcome, Purpose::ValidationGlobal);
            let lengths: Vec<usize> = ValidationSums::new(outcome).vectors().iter().map(Vec::len).collect();
            assert_eq!(specs.iter().map(|spec| spec.elements().unwrap()).collect::<Vec<_>>(), lengths);
        }
    }

    proptest! {
        #[test]
        fn any_split_of_rows_over_sites_gives_the_same_pooled_metrics(
            rows in proptest::collection::vec((proptest::array::uniform3(-5.0..5.0_f64), any::<u8>(), 0_usize..5), 1..120),
        ) {
            for outcome in OUTCOMES {
                let of_site = |site: Option<usize>| {
                    let rows: Vec<([f64; 3], u8)> =
                        rows.iter().filter(|row| site.is_none_or(|site| row.2 == site)).map(|row| (row.0, row.1)).collect();
                    sums(outcome, &rows)
                };
                let whole = of_site(None).metrics();
                let mut totals = ValidationSums::new(outcome).vectors();
                for vectors in (0..5).map(|site| of_site(Some(site)).vectors()) {
                    for (total, own) in totals.iter_mut().flatten().zip(vectors.into_iter().flatten()) {
                        *total += own;
                    }
                }
                let pooled = ValidationSums::from_vectors(outcome, &totals).unwrap().metrics();
                prop_assert_eq!(&pooled.confusion, &whole.confusion);
                prop_assert_eq!(pooled.auc_error_bound, whole.auc_error_bound);
                prop_assert_eq!(pooled.undefined().collect::<Vec<_>>(), whole.undefined().collect::<Vec<_>>());
                for ((metric, pooled), (_, whole)) in pooled.defined().zip(whole.defined()) {
                    prop_assert!((pooled - whole).abs() <= 1e-9 * whole.abs().max(1.0), "{:?} {} {}", metric, pooled, whole);
                }
            }
        }
    }
}
