//! The closed set of engines: what computes a model's scores, losses and gradients.

use protocol::{Activation, Family, ModelSpec, Outcome, Tensors};

use crate::linear::{Linear, Link, Step};
use crate::network::Network;
use crate::parameters::{Layout, ParameterError, layer_sizes};
use crate::scalar::Scalar;
use crate::table::Rows;

/// Rows that [`Linear`] sums at once.
const LINEAR_BLOCK: usize = 1024;

#[derive(Debug)]
enum Kind<T> {
    Linear(Linear<T>),
    Network(Network<T>),
}

/// Computes one model of one size.
#[derive(Debug)]
pub(crate) struct Engine<T> {
    kind: Kind<T>,
    layout: Layout,
    l2: f64,
    /// Scores of a row.
    width: usize,
}

impl<T: Scalar> Engine<T> {
    pub(crate) fn new(model: &ModelSpec, n_features: usize) -> Result<Self, ParameterError> {
        let layout = Layout::new(model, n_features)?;
        let sizes = layer_sizes(model, n_features);
        let width = sizes[sizes.len() - 1];
        let network = |activation, outcome| Kind::Network(Network::new(outcome, activation, layout.clone(), sizes));
        let kind = match model.family() {
            Family::Linear => Kind::Linear(Linear::new(Link::Identity, n_features)),
            Family::Logistic => Kind::Linear(Linear::new(Link::Logistic, n_features)),
            Family::Multinomial { classes } => network(Activation::Relu, Outcome::Class { classes: *classes }),
            Family::Mlp { activation, outcome, .. } => network(*activation, *outcome),
        };
        Ok(Self { kind, layout, l2: model.l2(), width })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Scores of a row: one, or one per class.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn flatten(&self, parameters: &Tensors) -> Result<Vec<T>, ParameterError> {
        self.layout.flatten(parameters)
    }

    /// The most rows that [`add_gradient`](Self::add_gradient) takes at once.
    pub(crate) fn block_rows(&self) -> usize {
        match &self.kind {
            Kind::Linear(_) => LINEAR_BLOCK,
            Kind::Network(network) => network.block_rows(),
        }
    }

    /// Adds the sum of the rows' gradients, without the penalty, to `gradient`; returns the sum of their losses.
    pub(crate) fn add_gradient(&mut self, parameters: &[T], rows: &Rows<T>, numbers: &[u32], gradient: &mut [T]) -> f64 {
        match &mut self.kind {
            Kind::Linear(linear) => linear.add_gradient(parameters, rows, numbers, gradient),
            Kind::Network(network) => network.add_gradient(parameters, rows, numbers, gradient),
        }
    }

    /// Turns a sum of gradients into the gradient of the mean loss and the penalty.
    pub(crate) fn finish_gradient(&self, parameters: &[T], n_rows: usize, gradient: &mut [T]) {
        let share = T::from_f64(1.0 / n_rows as f64);
        for own in gradient.iter_mut() {
            *own *= share;
        }
        if self.l2 > 0.0 {
            let l2 = T::from_f64(self.l2);
            for range in self.layout.penalised() {
                for (own, parameter) in gradient[range.clone()].iter_mut().zip(&parameters[range]) {
                    *own += l2 * *parameter;
                }
            }
        }
    }

    /// Whether [`descend_row_by_row`](Self::descend_row_by_row) exists for this model.
    pub(crate) fn descends_row_by_row(&self) -> bool {
        matches!(self.kind, Kind::Linear(_))
    }

    /// Plain gradient descent with one row per step; returns the sum of losses, each before its step. `None`, with nothing
    /// done, where the model has no such path.
    pub(crate) fn descend_row_by_row(
        &self,
        parameters: &mut [T],
        rows: &Rows<T>,
        numbers: &[u32],
        learning_rate: f64,
    ) -> Option<f64> {
        let Kind::Linear(linear) = &self.kind else { return None };
        let shrink = T::from_f64(1.0 - learning_rate * self.l2);
        Some(linear.descend_row_by_row(
            parameters,
            rows,
            numbers,
            Step { learning_rate: T::from_f64(learning_rate), shrink },
        ))
    }

    /// Appends the scores of each row.
    pub(crate) fn append_scores(&mut self, parameters: &[T], rows: &Rows<T>, numbers: &[u32], scores: &mut Vec<T>) {
        match &mut self.kind {
            Kind::Linear(linear) => linear.append_scores(parameters, rows, numbers, scores),
            Kind::Network(network) => network.append_scores(parameters, rows, numbers, scores),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Precision;

    use super::*;
    use crate::parameters::initial;
    use crate::stream::Stream;
    use crate::table::{Table, Values};

    const FEATURES: usize = 4;
    const ROWS: u32 = 37;

    fn models() -> Vec<ModelSpec> {
        let class = Outcome::Class { classes: 3 };
        let mut families = vec![Family::Linear, Family::Logistic, Family::Multinomial { classes: 3 }];
        for activation in [Activation::Relu, Activation::Tanh] {
            for outcome in [Outcome::Real, Outcome::Binary, class] {
                families.push(Family::Mlp { hidden: vec![6], activation, outcome });
                families.push(Family::Mlp { hidden: vec![5, 7], activation, outcome });
            }
        }
        families.into_iter().map(|family| ModelSpec::new(family, 0.3).unwrap()).collect()
    }

    fn table(outcome: Outcome) -> Table {
        let mut draws = Stream::initial(21).part(0);
        let mut column = |limit| (0..ROWS).map(|_| draws.symmetric(limit)).collect::<Vec<f64>>();
        let columns: Vec<Vec<f64>> = (0..FEATURES).map(|_| column(2.0)).collect();
        let targets: Vec<f64> = match outcome {
            Outcome::Real => column(3.0),
            Outcome::Binary => column(1.0).into_iter().map(|value| f64::from(value > 0.0)).collect(),
            Outcome::Class { .. } => column(1.5).into_iter().map(|value| (value + 1.5).floor().min(2.0)).collect(),
        };
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let numbers: Vec<u32> = (0..ROWS).collect();
        Table::from_columns((outcome, Precision::Float64), &views, &targets, &numbers, None).unwrap()
    }

    /// The mean loss and the penalty, as the protocol words them.
    fn objective(engine: &mut Engine<f64>, parameters: &[f64], rows: &Rows<f64>) -> f64 {
        let numbers: Vec<u32> = (0..ROWS).collect();
        let loss = engine.add_gradient(parameters, rows, &numbers, &mut vec![0.0; parameters.len()]);
        let weights: f64 =
            engine.layout().penalised().flat_map(|range| parameters[range].to_vec()).map(|weight| weight * weight).sum();
        loss / f64::from(ROWS) + 0.3 / 2.0 * weights
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for model in models() {
            let table = table(model.outcome());
            let Values::F64(rows) = table.values() else { panic!("float64 was asked for") };
            let mut engine = Engine::<f64>::new(&model, FEATURES).unwrap();
            let mut parameters = engine.flatten(&initial(&model, Precision::Float64, FEATURES, 5).unwrap()).unwrap();
            // Away from zero and from the kinks of relu, biases included.
            let mut draws = Stream::initial(8).part(0);
            for parameter in &mut parameters {
                *parameter += draws.symmetric(0.3);
            }
            let mut gradient = vec![0.0; parameters.len()];
            let numbers: Vec<u32> = (0..ROWS).collect();
            engine.add_gradient(&parameters, rows, &numbers, &mut gradient);
            engine.finish_gradient(&parameters, ROWS as usize, &mut gradient);
            for index in 0..parameters.len() {
                let (kept, step) = (parameters[index], 1e-6);
                parameters[index] = kept + step;
                let above = objective(&mut engine, &parameters, rows);
                parameters[index] = kept - step;
                let below = objective(&mut engine, &parameters, rows);
                parameters[index] = kept;
                let slope = (above - below) / (2.0 * step);
                let error = (slope - gradient[index]).abs();
                assert!(error < 1e-7 * slope.abs().max(1.0), "{model:?} parameter {index}: {slope} {}", gradient[index]);
            }
        }
    }

    #[test]
    fn blocks_of_rows_add_up() {
        for model in models() {
            let table = table(model.outcome());
            let Values::F64(rows) = table.values() else { panic!("float64 was asked for") };
            let mut engine = Engine::<f64>::new(&model, FEATURES).unwrap();
            let parameters = engine.flatten(&initial(&model, Precision::Float64, FEATURES, 5).unwrap()).unwrap();
            let numbers: Vec<u32> = (0..ROWS).collect();
            let mut whole = vec![0.0; parameters.len()];
            let mut parts = whole.clone();
            let loss = engine.add_gradient(&parameters, rows, &numbers, &mut whole);
            let losses: f64 =
                numbers.chunks(10).map(|block| engine.add_gradient(&parameters, rows, block, &mut parts)).sum();
            assert!((loss - losses).abs() < 1e-12 * loss.abs(), "{model:?}");
            assert!(whole.iter().zip(&parts).all(|(whole, part)| (whole - part).abs() < 1e-12), "{model:?}");
        }
    }
}
