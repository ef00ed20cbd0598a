//! Adam (Kingma and Ba 2015, Algorithm 1).

use protocol::{Scalars, Tensor, Tensors};

use super::{StateError, from_tensor, to_tensor};
use crate::scalar::Scalar;

#[derive(Debug, Clone)]
pub(crate) struct Adam<T> {
    learning_rate: f64,
    betas: [f64; 2],
    epsilon: f64,
    /// t, as f64: whole numbers are exact up to 2^53.
    steps: f64,
    /// m and v.
    first_moment: Vec<T>,
    second_moment: Vec<T>,
}

impl<T: Scalar> Adam<T> {
    pub(super) fn new(learning_rate: f64, betas: [f64; 2], epsilon: f64, elements: usize) -> Self {
        let zeros = vec![T::zero(); elements];
        Self { learning_rate, betas, epsilon, steps: 0.0, first_moment: zeros.clone(), second_moment: zeros }
    }

    pub(super) fn step(&mut self, parameters: &mut [T], gradient: &[T]) {
        self.steps += 1.0;
        // With t so large that βᵗ is 0 the corrections are 1, which is their limit.
        let [first_correction, second_correction] = self.betas.map(|beta| 1.0 - beta.powf(self.steps));
        let rate = T::from_f64(self.learning_rate / first_correction);
        let (root_correction, epsilon) = (T::from_f64(second_correction.sqrt()), T::from_f64(self.epsilon));
        let [beta1, beta2] = self.betas.map(T::from_f64);
        let [rest1, rest2] = self.betas.map(|beta| T::from_f64(1.0 - beta));
        let moments = self.first_moment.iter_mut().zip(&mut self.second_moment);
        for ((parameter, own), (first, second)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *first = beta1 * *first + rest1 * *own;
            *second = beta2 * *second + rest2 * *own * *own;
            *parameter -= rate * *first / (second.sqrt() / root_correction + epsilon);
        }
    }

    pub(super) fn state(&self) -> Vec<Tensor> {
        vec![
            to_tensor("first_moment", T::wrap(self.first_moment.clone())),
            to_tensor("second_moment", T::wrap(self.second_moment.clone())),
            to_tensor("steps", Scalars::F64(vec![self.steps])),
        ]
    }

    pub(super) fn restore(&mut self, state: &Tensors) -> Result<(), StateError> {
        self.first_moment = from_tensor(state, "first_moment", self.first_moment.len())?;
        self.second_moment = from_tensor(state, "second_moment", self.second_moment.len())?;
        self.steps = from_tensor::<f64>(state, "steps", 1)?[0];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_equal_algorithm_1() {
        // The algorithm's lines in the order of the paper, for the gradients 1, -2 and 0.5.
        let (rate, beta1, beta2, epsilon) = (0.1_f64, 0.9_f64, 0.999_f64, 1e-8);
        let (mut expected, mut m, mut v) = (1.0_f64, 0.0, 0.0);
        let mut adam = Adam::new(rate, [beta1, beta2], epsilon, 1);
        let mut parameters = [1.0_f64];
        for (t, g) in (1_i32..).zip([1.0, -2.0, 0.5]) {
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
            expected -= rate * m_hat / (v_hat.sqrt() + epsilon);
            adam.step(&mut parameters, &[g]);
            assert!((parameters[0] - expected).abs() < 1e-14, "{} {expected}", parameters[0]);
        }
        // The first step has the size of the learning rate, whatever the gradient (§2.1).
        let mut adam = Adam::new(rate, [beta1, beta2], epsilon, 1);
        let mut parameters = [0.0_f64];
        adam.step(&mut parameters, &[1e3]);
        assert!((parameters[0] + rate).abs() < 1e-9);
    }
}
