//! Models with one weight per feature and one score: linear regression (half the squared error) and logistic regression
//! (log loss), as generalised linear models with their canonical links (McCullagh and Nelder 1989, §2.2): the gradient of a
//! row's loss is (prediction - target)·features for both.

#![expect(
    clippy::inline_always,
    reason = "vector instructions are used only where everything is inlined into their dispatch"
)]

use pulp::{Arch, Simd, WithSimd};

use crate::scalar::Scalar;
use crate::table::Rows;

/// How a score becomes a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The prediction is the score.
    Identity,
    /// The prediction is 1 / (1 + exp(-score)).
    Logistic,
}

/// Engine of linear and logistic regression. Parameters: a weight per feature, then the bias.
#[derive(Debug)]
pub(crate) struct Linear<T> {
    link: Link,
    arch: Arch,
    /// The sum of one call's gradients: added to the total at its end, so that long sums of f32 are made of short ones.
    partial: Vec<T>,
}

impl<T: Scalar> Linear<T> {
    pub(crate) fn new(link: Link, n_features: usize) -> Self {
        Self { link, arch: Arch::new(), partial: vec![T::zero(); n_features + 1] }
    }

    /// Adds the sum of the rows' gradients to `gradient`; returns the sum of their losses.
    pub(crate) fn add_gradient(&mut self, parameters: &[T], rows: &Rows<T>, numbers: &[u32], gradient: &mut [T]) -> f64 {
        self.partial.fill(T::zero());
        let sums = GradientSums { link: self.link, parameters, rows, numbers, gradient: &mut self.partial };
        let loss = self.arch.dispatch(sums);
        for (total, partial) in gradient.iter_mut().zip(&self.partial) {
            *total += *partial;
        }
        loss
    }

    /// One step of plain gradient descent on each row after the other; returns the sum of the losses before each step.
    pub(crate) fn descend_row_by_row(&self, parameters: &mut [T], rows: &Rows<T>, numbers: &[u32], step: Step<T>) -> f64 {
        self.arch.dispatch(RowByRow { link: self.link, parameters, rows, numbers, step })
    }

    /// Appends the score of each row.
    pub(crate) fn append_scores(&self, parameters: &[T], rows: &Rows<T>, numbers: &[u32], scores: &mut Vec<T>) {
        self.arch.dispatch(Scores { parameters, rows, numbers, found: scores });
    }
}

/// A step of plain gradient descent: w ← `shrink`·w - `learning_rate`·gradient for weights; biases do not shrink.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<T> {
    pub(crate) learning_rate: T,
    /// 1 - `learning_rate`·λ.
    pub(crate) shrink: T,
}

/// The sum of the losses of scores seen one by one.
struct Losses {
    link: Link,
    sum: f64,
    /// ∏ (1 + exp(-|score|)) of the last rows. Its logarithm is taken once per [`Losses::FACTORS`]: Σ ln = ln ∏.
    product: f64,
    factors: u32,
}

impl Losses {
    /// Each factor is at most 2, so the product stays below 2^512.
    const FACTORS: u32 = 512;

    fn new(link: Link) -> Self {
        Self { link, sum: 0.0, product: 1.0, factors: 0 }
    }

    /// Adds the loss of a row; returns its prediction less its target.
    ///
    /// The log loss of score z and target y is max(z, 0) - y·z + ln(1 + exp(-|z|)), which overflows for no z.
    #[inline(always)]
    fn add<T: Scalar>(&mut self, score: T, target: T) -> T {
        match self.link {
            Link::Identity => {
                let residual = score - target;
                let size = residual.to_f64();
                self.sum += 0.5 * size * size;
                residual
            }
            Link::Logistic => {
                let tail = (-score.abs()).exp();
                let growth = T::one() + tail;
                let is_positive = score > T::zero();
                let (numerator, hinge) = if is_positive { (T::one(), score) } else { (tail, T::zero()) };
                // A score that is not a number would pass the comparison unseen: it comes back through `tail`.
                self.sum += (hinge - target * score).to_f64();
                self.product *= growth.to_f64();
                self.factors += 1;
                if self.factors == Self::FACTORS {
                    self.settle();
                }
                numerator / growth - target
            }
        }
    }

    #[cold]
    fn settle(&mut self) {
        self.sum += self.product.ln();
        self.product = 1.0;
        self.factors = 0;
    }

    fn total(mut self) -> f64 {
        self.settle();
        self.sum
    }
}

struct GradientSums<'a, T> {
    link: Link,
    parameters: &'a [T],
    rows: &'a Rows<T>,
    numbers: &'a [u32],
    gradient: &'a mut [T],
}

impl<T: Scalar> WithSimd for GradientSums<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let n_features = self.rows.n_features();
        let (weights, bias) = (&self.parameters[..n_features], self.parameters[n_features]);
        let (of_weights, of_bias) = self.gradient.split_at_mut(n_features);
        let mut losses = Losses::new(self.link);
        for number in self.numbers {
            let row = self.rows.features(*number);
            let score = T::dot(simd, weights, row) + bias;
            let residual = losses.add(score, self.rows.target(*number));
            T::shrink_and_add(simd, T::one(), of_weights, residual, row);
            of_bias[0] += residual;
        }
        losses.total()
    }
}

struct Scores<'a, T> {
    parameters: &'a [T],
    rows: &'a Rows<T>,
    numbers: &'a [u32],
    found: &'a mut Vec<T>,
}

impl<T: Scalar> WithSimd for Scores<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n_features = self.rows.n_features();
        let (weights, bias) = (&self.parameters[..n_features], self.parameters[n_features]);
        for number in self.numbers {
            self.found.push(T::dot(simd, weights, self.rows.features(*number)) + bias);
        }
    }
}

struct RowByRow<'a, T> {
    link: Link,
    parameters: &'a mut [T],
    rows: &'a Rows<T>,
    numbers: &'a [u32],
    step: Step<T>,
}

impl<T: Scalar> WithSimd for RowByRow<'_, T> {
    type Output = f64;

    /// The next row's score is not computed from the new weights, but from the old ones and the step that changes them:
    /// w' = s·w - r·x gives w'·x' = s·(w·x') - r·(x·x'). Both products are known before r is, so the processor need not wait
    /// for one row's exponential before it begins the next row. The algorithm is the same, the rounding is not.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Some((first, _)) = self.numbers.split_first() else { return 0.0 };
        let n_features = self.rows.n_features();
        let (weights, bias) = self.parameters.split_at_mut(n_features);
        let mut losses = Losses::new(self.link);
        let mut row = self.rows.features(*first);
        let mut score = T::dot(simd, weights, row) + bias[0];
        for (position, number) in self.numbers.iter().enumerate() {
            let next = self.numbers.get(position + 1).map_or(row, |next| self.rows.features(*next));
            let (old_score, overlap) = T::two_dots(simd, weights, row, next);
            let change = self.step.learning_rate * losses.add(score, self.rows.target(*number));
            bias[0] -= change;
            score = self.step.shrink * old_score - change * overlap + bias[0];
            T::shrink_and_add(simd, self.step.shrink, weights, -change, row);
            row = next;
        }
        losses.total()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Outcome, Precision};

    use super::*;
    use crate::table::{Table, Values};

    /// Plain stochastic gradient descent, written without any art.
    fn descend_plainly(link: Link, columns: &[Vec<f64>], targets: &[f64], rate: f64, l2: f64) -> (Vec<f64>, f64) {
        let mut parameters = vec![0.0; columns.len() + 1];
        let mut loss = 0.0;
        for (row, target) in targets.iter().enumerate() {
            let score: f64 = columns.iter().zip(&parameters).map(|(column, weight)| column[row] * weight).sum();
            let score = score + parameters[columns.len()];
            let (prediction, own) = match link {
                Link::Identity => (score, (score - target).powi(2) / 2.0),
                Link::Logistic => (1.0 / (1.0 + (-score).exp()), (1.0 + score.exp()).ln() - target * score),
            };
            loss += own;
            for (column, weight) in columns.iter().zip(&mut parameters) {
                *weight -= rate * ((prediction - target) * column[row] + l2 * *weight);
            }
            parameters[columns.len()] -= rate * (prediction - target);
        }
        (parameters, loss)
    }

    #[test]
    fn row_by_row_equals_plain_descent() {
        for n_features in [1, 3, 8, 30] {
            let mut draws = crate::Stream::initial(3).part(n_features);
            let columns: Vec<Vec<f64>> =
                (0..n_features).map(|_| (0..1200).map(|_| draws.symmetric(2.0)).collect()).collect();
            let targets: Vec<f64> = (0..1200).map(|_| f64::from(draws.symmetric(1.0) > 0.0)).collect();
            let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let numbers: Vec<u32> = (0..1200).collect();
            let table =
                Table::from_columns((Outcome::Binary, Precision::Float64), &views, &targets, &numbers, None).unwrap();
            let Values::F64(rows) = table.values() else { panic!("{table:?}") };
            for link in [Link::Identity, Link::Logistic] {
                let (expected, expected_loss) = descend_plainly(link, &columns, &targets, 0.01, 0.1);
                let mut parameters = vec![0.0; expected.len()];
                let step = Step { learning_rate: 0.01, shrink: 1.0 - 0.01 * 0.1 };
                let loss = Linear::new(link, columns.len()).descend_row_by_row(&mut parameters, rows, &numbers, step);
                assert!((loss - expected_loss).abs() < 1e-9 * expected_loss, "{loss} {expected_loss}");
                for (found, expected) in parameters.iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn extreme_scores_have_finite_losses() {
        let mut losses = Losses::new(Link::Logistic);
        assert_eq!(losses.add(1e30_f64, 1.0), 0.0);
        assert_eq!(losses.add(-1e30_f64, 1.0), -1.0);
        assert_eq!(losses.total(), 1e30);
        let mut losses = Losses::new(Link::Logistic);
        assert!(losses.add(f64::NAN, 1.0).is_nan());
        assert!(losses.total().is_nan());
    }
}
