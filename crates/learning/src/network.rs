//! Layers of units: multinomial regression (no hidden layer) and the multilayer perceptron. Gradients are derived by hand
//! (back-propagation, Rumelhart, Hinton and Williams 1986) and computed as matrix products on blocks of rows.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use protocol::{Activation, Outcome};

use crate::parameters::Layout;
use crate::scalar::Scalar;
use crate::table::Rows;

/// Engine of multinomial regression and perceptrons.
#[derive(Debug)]
pub(crate) struct Network<T> {
    outcome: Outcome,
    activation: Activation,
    layout: Layout,
    /// Units of each layer, features first.
    sizes: Vec<usize>,
    /// What each layer puts out for the block of rows at hand, the features themselves first.
    outputs: Vec<Vec<T>>,
    /// The loss's gradient by the sums that enter the current layer, and by those of the one below.
    upper: Vec<T>,
    lower: Vec<T>,
}

/// `rows` by `columns` elements as a matrix.
fn view<T>(elements: &[T], rows: usize, columns: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), elements).expect("the caller gives as many elements as the shape has")
}

fn view_mut<T>(elements: &mut [T], rows: usize, columns: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), elements).expect("the caller gives as many elements as the shape has")
}

impl<T: Scalar> Network<T> {
    pub(crate) fn new(outcome: Outcome, activation: Activation, layout: Layout, sizes: Vec<usize>) -> Self {
        let outputs = vec![Vec::new(); sizes.len()];
        Self { outcome, activation, layout, sizes, outputs, upper: Vec::new(), lower: Vec::new() }
    }

    /// How many rows are computed at once: as many as keep the widest layer at a million elements, from 16 to 256.
    pub(crate) fn block_rows(&self) -> usize {
        let widest = self.sizes.iter().copied().max().unwrap_or(1).max(1);
        ((1 << 20) / widest).clamp(16, 256)
    }

    /// Adds the sum of the rows' gradients to `gradient`; returns the sum of their losses. At most a block of rows.
    pub(crate) fn add_gradient(&mut self, parameters: &[T], rows: &Rows<T>, numbers: &[u32], gradient: &mut [T]) -> f64 {
        self.forward(parameters, rows, numbers);
        let loss = self.start_backward(rows, numbers);
        let m = numbers.len();
        for layer in (0..self.sizes.len() - 1).rev() {
            let (inputs, units) = (self.sizes[layer], self.sizes[layer + 1]);
            let (of_weights, of_biases) = gradient[self.layer_range(layer)].split_at_mut(units * inputs);
            let upper = view(&self.upper, m, units);
            let entered = view(&self.outputs[layer], m, inputs);
            general_mat_mul(T::one(), &upper.t(), &entered, T::one(), &mut view_mut(of_weights, units, inputs));
            for row in self.upper.chunks_exact(units) {
                of_biases.iter_mut().zip(row).for_each(|(sum, own)| *sum += *own);
            }
            if layer > 0 {
                let weights = view(&parameters[self.layout.range(2 * layer)], units, inputs);
                self.lower.clear();
                self.lower.resize(m * inputs, T::zero());
                general_mat_mul(T::one(), &upper, &weights, T::zero(), &mut view_mut(&mut self.lower, m, inputs));
                for (own, output) in self.lower.iter_mut().zip(&self.outputs[layer]) {
                    *own *= slope(self.activation, *output);
                }
                std::mem::swap(&mut self.upper, &mut self.lower);
            }
        }
        loss
    }

    /// Appends the last layer's sums, row by row: a score for two classes, one for each of more, a prediction otherwise.
    pub(crate) fn append_scores(&mut self, parameters: &[T], rows: &Rows<T>, numbers: &[u32], scores: &mut Vec<T>) {
        for block in numbers.chunks(self.block_rows()) {
            self.forward(parameters, rows, block);
            scores.extend_from_slice(&self.outputs[self.sizes.len() - 1]);
        }
    }

    /// Weights and biases of one layer.
    fn layer_range(&self, layer: usize) -> std::ops::Range<usize> {
        self.layout.range(2 * layer).start..self.layout.range(2 * layer + 1).end
    }

    fn forward(&mut self, parameters: &[T], rows: &Rows<T>, numbers: &[u32]) {
        self.outputs[0].clear();
        for number in numbers {
            self.outputs[0].extend_from_slice(rows.features(*number));
        }
        for layer in 0..self.sizes.len() - 1 {
            let (inputs, units) = (self.sizes[layer], self.sizes[layer + 1]);
            let (weights, biases) = parameters[self.layer_range(layer)].split_at(units * inputs);
            let (below, above) = self.outputs.split_at_mut(layer + 1);
            let output = &mut above[0];
            output.clear();
            for _ in numbers {
                output.extend_from_slice(biases);
            }
            let entered = view(&below[layer], numbers.len(), inputs);
            let weights = view(weights, units, inputs);
            general_mat_mul(T::one(), &entered, &weights.t(), T::one(), &mut view_mut(output, numbers.len(), units));
            if layer + 2 < self.sizes.len() {
                for value in output.iter_mut() {
                    *value = activate(self.activation, *value);
                }
            }
        }
    }

    /// Turns the last layer's sums into the gradient of the loss by them, in `upper`; returns the sum of the losses.
    fn start_backward(&mut self, rows: &Rows<T>, numbers: &[u32]) -> f64 {
        let last = self.sizes.len() - 1;
        self.upper.clone_from(&self.outputs[last]);
        let mut loss = 0.0;
        for (scores, number) in self.upper.chunks_exact_mut(self.sizes[last]).zip(numbers) {
            loss += residuals(self.outcome, scores, rows.target(*number));
        }
        loss
    }
}

#[inline]
fn activate<T: Scalar>(activation: Activation, sum: T) -> T {
    match activation {
        // Not `max`: a value that is not a number must stay one, to be noticed.
        Activation::Relu if sum < T::zero() => T::zero(),
        Activation::Relu => sum,
        Activation::Tanh => sum.tanh(),
    }
}

/// The derivative of the activation, from its result.
#[inline]
fn slope<T: Scalar>(activation: Activation, output: T) -> T {
    match activation {
        Activation::Relu if output > T::zero() => T::one(),
        Activation::Relu => T::zero(),
        Activation::Tanh => T::one() - output * output,
    }
}

/// Replaces one row's scores by the loss's gradient by them (prediction - target in each case); returns the loss.
fn residuals<T: Scalar>(outcome: Outcome, scores: &mut [T], target: T) -> f64 {
    match outcome {
        Outcome::Real => {
            scores[0] -= target;
            0.5 * scores[0].to_f64().powi(2)
        }
        Outcome::Binary => {
            let (score, target) = (scores[0].to_f64(), target.to_f64());
            scores[0] = T::from_f64(crate::metric::logistic(score) - target);
            crate::metric::log_loss_of_score(score, target)
        }
        Outcome::Class { .. } => {
            let class = class_index(target);
            let largest = scores.iter().fold(scores[0], |largest, score| if *score > largest { *score } else { largest });
            let own = scores[class] - largest;
            let mut sum = T::zero();
            for score in scores.iter_mut() {
                *score = (*score - largest).exp();
                sum += *score;
            }
            for score in scores.iter_mut() {
                *score = *score / sum;
            }
            scores[class] -= T::one();
            sum.to_f64().ln() - own.to_f64()
        }
    }
}

/// The class that a target names; targets were checked when the table was built.
pub(crate) fn class_index<T: Scalar>(target: T) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 0 to 9999")]
    let class = target.to_f64() as usize;
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_score_for_two_classes_and_the_softmax_of_zero_and_that_score_are_the_same() {
        for score in [-700.0_f64, -1.7, 0.0, 0.3, 700.0] {
            for target in [0.0, 1.0] {
                let (mut one, mut two) = ([score], [0.0, score]);
                let loss_of_one = residuals(Outcome::Binary, &mut one, target);
                let loss_of_two = residuals(Outcome::Class { classes: 2 }, &mut two, target);
                assert!((loss_of_one - loss_of_two).abs() < 1e-12, "{score} {target}");
                assert!((one[0] - two[1]).abs() < 1e-15 && (one[0] + two[0]).abs() < 1e-15, "{score} {target}");
            }
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_not_hidden() {
        assert!(activate(Activation::Relu, f64::NAN).is_nan());
        assert!(residuals(Outcome::Class { classes: 2 }, &mut [f64::NAN, 0.0], 1.0).is_nan());
        assert!(!residuals(Outcome::Binary, &mut [f64::INFINITY], 0.0).is_finite());
    }
}
