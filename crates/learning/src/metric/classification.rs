//! Metrics of predicted classes, from counts of rows.
//!
//! For two classes precision, recall and F1 are those of class 1. For more they are macro averages: the unweighted mean, over
//! the classes that occur in truth or prediction, of each class's own value, a class that is never predicted having precision
//! 0 and one that never occurs recall 0. That is scikit-learn's `average="macro", zero_division=0`; F1 is the "averaged F1" of
//! Opitz and Burst 2019 ("Macro F1 and Macro F1"), the mean of F1 scores, not the F1 of means. Balanced accuracy is the mean
//! recall over the classes that occur in truth (Brodersen et al. 2010; scikit-learn's `balanced_accuracy_score`).

use protocol::Metric;

use super::Undefined;

/// The most classes for which the whole confusion matrix is kept.
pub(super) const MAX_CONFUSION: usize = 100;

/// How often classes were true, predicted, and both.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClassCounts {
    classes: usize,
    /// With the confusion matrix: rows by true class, then predicted class. Without: per class hits, then true, then predicted.
    counts: Vec<u64>,
}

impl ClassCounts {
    pub(super) fn new(classes: usize) -> Self {
        let per_class = if classes <= MAX_CONFUSION { classes } else { 3 };
        Self { classes, counts: vec![0; classes * per_class] }
    }

    /// Takes counts in the order of [`counts`](Self::counts); `None` if they are not as many.
    pub(super) fn from_counts(classes: usize, counts: Vec<u64>) -> Option<Self> {
        (counts.len() == Self::new(classes).counts.len()).then_some(Self { classes, counts })
    }

    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    pub(super) fn shape(classes: usize) -> (&'static str, Vec<usize>) {
        if classes <= MAX_CONFUSION { ("confusion", vec![classes, classes]) } else { ("class_counts", vec![3, classes]) }
    }

    pub(super) fn add(&mut self, actual: usize, predicted: usize) {
        if self.classes <= MAX_CONFUSION {
            self.counts[actual * self.classes + predicted] += 1;
        } else {
            self.counts[actual] += u64::from(actual == predicted);
            self.counts[self.classes + actual] += 1;
            self.counts[2 * self.classes + predicted] += 1;
        }
    }

    pub(super) fn confusion(&self) -> Option<Vec<Vec<u64>>> {
        (self.classes <= MAX_CONFUSION).then(|| self.counts.chunks(self.classes).map(<[u64]>::to_vec).collect())
    }

    /// Per class: rows that are of it and predicted so, rows that are of it, rows predicted so.
    fn per_class(&self) -> Vec<[u64; 3]> {
        let n = self.classes;
        let of_class = |class: usize| {
            if n > MAX_CONFUSION {
                return [self.counts[class], self.counts[n + class], self.counts[2 * n + class]];
            }
            let actual = self.counts[class * n..(class + 1) * n].iter().sum();
            [self.counts[class * n + class], actual, self.counts.iter().skip(class).step_by(n).sum()]
        };
        (0..n).map(of_class).collect()
    }

    pub(super) fn rows_per_class(&self) -> Vec<u64> {
        self.per_class().into_iter().map(|[_, actual, _]| actual).collect()
    }

    pub(super) fn metrics(&self) -> Vec<(Metric, Result<f64, Undefined>)> {
        let per_class = self.per_class();
        let rows: u64 = per_class.iter().map(|[_, actual, _]| actual).sum();
        let hits: u64 = per_class.iter().map(|[hits, _, _]| hits).sum();
        let recalls: Vec<f64> = per_class.iter().filter(|[_, actual, _]| *actual > 0).map(recall).collect();
        let balanced = match recalls.len() {
            0 => Err(Undefined::NoRows),
            1 => Err(Undefined::OneClass),
            _ => Ok(mean(&recalls)),
        };
        let [precision, recall, f1] = if rows == 0 {
            [Err(Undefined::NoRows); 3]
        } else if self.classes == 2 {
            of_class_one(&per_class[1])
        } else {
            macro_averages(&per_class).map(Ok)
        };
        vec![
            (Metric::Accuracy, if rows == 0 { Err(Undefined::NoRows) } else { Ok(ratio(hits, rows)) }),
            (Metric::BalancedAccuracy, balanced),
            (Metric::Precision, precision),
            (Metric::Recall, recall),
            (Metric::F1, f1),
        ]
    }
}

/// Precision, recall and F1 = 2·hits / (true + predicted) of class 1.
fn of_class_one(counts: &[u64; 3]) -> [Result<f64, Undefined>; 3] {
    let [hits, actual, predicted] = *counts;
    let if_some = |count: u64, value: f64, otherwise: Undefined| if count > 0 { Ok(value) } else { Err(otherwise) };
    [
        if_some(predicted, precision(counts), Undefined::NonePredicted),
        if_some(actual, recall(counts), Undefined::NoneActual),
        if_some(actual + predicted, ratio(2 * hits, actual + predicted), Undefined::NoneActual),
    ]
}

fn macro_averages(per_class: &[[u64; 3]]) -> [f64; 3] {
    let occurring: Vec<&[u64; 3]> = per_class.iter().filter(|[_, actual, predicted]| actual + predicted > 0).collect();
    let average = |of: &dyn Fn(&[u64; 3]) -> f64| mean(&occurring.iter().map(|counts| of(counts)).collect::<Vec<f64>>());
    [average(&precision), average(&recall), average(&|[hits, actual, predicted]| ratio(2 * hits, actual + predicted))]
}

fn precision([hits, _, predicted]: &[u64; 3]) -> f64 {
    ratio(*hits, *predicted)
}

fn recall([hits, actual, _]: &[u64; 3]) -> f64 {
    ratio(*hits, *actual)
}

/// 0 for 0/0.
fn ratio(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(classes: usize, actual: &[usize], predicted: &[usize]) -> ClassCounts {
        let mut counts = ClassCounts::new(classes);
        actual.iter().zip(predicted).for_each(|(actual, predicted)| counts.add(*actual, *predicted));
        counts
    }

    /// Accuracy, balanced accuracy, precision, recall, F1.
    fn check(counts: &ClassCounts, expected: [f64; 5]) {
        for ((metric, found), expected) in counts.metrics().into_iter().zip(expected) {
            assert!((found.unwrap() - expected).abs() < 1e-15, "{metric:?} {found:?} {expected}");
        }
    }

    // The numbers are those of scikit-learn 1.9.1: accuracy_score, balanced_accuracy_score, and precision_score, recall_score
    // and f1_score with average="binary" for two classes, average="macro", zero_division=0 for more.

    #[test]
    fn two_classes_equal_scikit_learn() {
        let actual = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1];
        let predicted = [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1];
        let counts = counts(2, &actual, &predicted);
        assert_eq!(counts.confusion().unwrap(), [[4, 2], [3, 5]]);
        check(
            &counts,
            [0.642_857_142_857_142_9, 0.645_833_333_333_333_3, 0.714_285_714_285_714_3, 0.625, 0.666_666_666_666_666_6],
        );
    }

    #[test]
    fn more_classes_equal_scikit_learn() {
        let actual = [0, 1, 2, 2, 1, 0, 2, 2, 1, 0];
        let predicted = [0, 1, 0, 2, 1, 1, 2, 1, 1, 0];
        for classes in [3, 5, MAX_CONFUSION + 1] {
            let f1 = 0.694_444_444_444_444_3;
            check(
                &counts(classes, &actual, &predicted),
                [0.7, 0.722_222_222_222_222_2, 0.755_555_555_555_555_5, 0.722_222_222_222_222_2, f1],
            );
        }
    }

    #[test]
    fn classes_that_are_never_predicted_or_never_true_equal_scikit_learn() {
        check(
            &counts(4, &[0, 0, 1, 1, 2], &[0, 1, 1, 1, 0]),
            [0.6, 0.5, 0.388_888_888_888_888_84, 0.5, 0.433_333_333_333_333_35],
        );
        let never_true = counts(4, &[0, 0, 1, 1, 0], &[0, 1, 1, 2, 0]);
        let balanced = 0.583_333_333_333_333_3;
        check(&never_true, [0.6, balanced, 0.5, 0.388_888_888_888_888_84, 0.433_333_333_333_333_35]);
    }

    #[test]
    fn what_is_not_defined_says_why() {
        let metrics = |actual: &[usize], predicted: &[usize]| -> Vec<Result<f64, Undefined>> {
            counts(2, actual, predicted).metrics().into_iter().map(|(_, value)| value).collect()
        };
        assert_eq!(metrics(&[], &[]), [Err(Undefined::NoRows); 5]);
        let healthy = [Ok(1.0), Err(Undefined::OneClass), Err(Undefined::NonePredicted), Err(Undefined::NoneActual)];
        assert_eq!(metrics(&[0, 0], &[0, 0]), [&healthy[..], &[Err(Undefined::NoneActual)]].concat());
        let missed = [Ok(0.5), Ok(0.5), Err(Undefined::NonePredicted), Ok(0.0), Ok(0.0)];
        assert_eq!(metrics(&[0, 1], &[0, 0]), missed);
    }
}
