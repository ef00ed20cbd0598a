//! Stochastic gradient descent with momentum.

use protocol::{Tensor, Tensors};

use super::{StateError, from_tensor, to_tensor};
use crate::scalar::Scalar;

/// v ← μv + g, w ← w - ηv: Sutskever et al. 2013 ("On the importance of initialization and momentum"), eq. 1 and 2, as
/// PyTorch writes it (η outside v).
#[derive(Debug, Clone)]
pub(crate) struct Sgd<T> {
    learning_rate: f64,
    momentum: T,
    /// v; empty without momentum.
    velocity: Vec<T>,
}

impl<T: Scalar> Sgd<T> {
    pub(super) fn new(learning_rate: f64, momentum: f64, elements: usize) -> Self {
        let elements = if momentum > 0.0 { elements } else { 0 };
        Self { learning_rate, momentum: T::from_f64(momentum), velocity: vec![T::zero(); elements] }
    }

    pub(super) fn plain_rate(&self) -> Option<f64> {
        self.velocity.is_empty().then_some(self.learning_rate)
    }

    pub(super) fn step(&mut self, parameters: &mut [T], gradient: &[T]) {
        let rate = T::from_f64(self.learning_rate);
        if self.velocity.is_empty() {
            parameters.iter_mut().zip(gradient).for_each(|(parameter, own)| *parameter -= rate * *own);
            return;
        }
        for ((parameter, own), velocity) in parameters.iter_mut().zip(gradient).zip(&mut self.velocity) {
            *velocity = self.momentum * *velocity + *own;
            *parameter -= rate * *velocity;
        }
    }

    pub(super) fn state(&self) -> Vec<Tensor> {
        if self.velocity.is_empty() { Vec::new() } else { vec![to_tensor("velocity", T::wrap(self.velocity.clone()))] }
    }

    pub(super) fn restore(&mut self, state: &Tensors) -> Result<(), StateError> {
        if !self.velocity.is_empty() {
            self.velocity = from_tensor(state, "velocity", self.velocity.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_with_momentum_equal_pytorch() {
        // PyTorch's documented rule by hand: η 0.1, μ 0.9, gradients 1 then 2: v = 1, then 2.9.
        let mut sgd = Sgd::new(0.1, 0.9, 1);
        let mut parameters = [1.0_f64];
        sgd.step(&mut parameters, &[1.0]);
        assert!((parameters[0] - 0.9).abs() < 1e-15);
        sgd.step(&mut parameters, &[2.0]);
        assert!((parameters[0] - (0.9 - 0.29)).abs() < 1e-15);
    }
}
