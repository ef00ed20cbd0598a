//! A model's parameters: their names and shapes, their first values, and the one flat vector that training works on.

use protocol::{Activation, Family, ModelSpec, Outcome, Precision, Tensor, Tensors};
use thiserror::Error;

use crate::scalar::Scalar;
use crate::stream::Stream;

/// Why tensors are not the parameters of a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParameterError {
    #[error("expected {expected} tensors of parameters, found {found}")]
    Count { expected: usize, found: usize },
    #[error("parameter {expected:?} is missing")]
    Missing { expected: String },
    #[error("parameter {name:?} must have shape {expected:?}, found {found:?}")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("parameter {name:?} must be of type {expected:?}")]
    Precision { name: String, expected: Precision },
    #[error("parameter {name:?} holds a value that is not finite")]
    NotFinite { name: String },
    #[error("the model has more parameters than this machine can address")]
    TooLarge,
}

/// Name and shape of one tensor of parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
}

impl Parameter {
    fn new(name: String, shape: Vec<usize>) -> Self {
        Self { name, shape }
    }

    pub fn elements(&self) -> Result<usize, ParameterError> {
        let product = self.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        product.ok_or(ParameterError::TooLarge)
    }

    /// Whether the penalty leaves it alone.
    fn is_bias(&self) -> bool {
        self.shape.len() == 1 && self.name.ends_with("bias")
    }
}

/// Units of each layer, the features first and the outcome's last. Without hidden layers: two numbers.
pub(crate) fn layer_sizes(model: &ModelSpec, n_features: usize) -> Vec<usize> {
    let hidden = match model.family() {
        Family::Mlp { hidden, .. } => hidden.as_slice(),
        _ => &[],
    };
    let outputs = match model.outcome() {
        Outcome::Real | Outcome::Binary => 1,
        Outcome::Class { classes } => classes as usize,
    };
    [n_features].into_iter().chain(hidden.iter().map(|units| *units as usize)).chain([outputs]).collect()
}

/// Names and shapes of the model's parameters, in the order of files and contributions; see [`ModelSpec`].
pub fn parameters(model: &ModelSpec, n_features: usize) -> Vec<Parameter> {
    let sizes = layer_sizes(model, n_features);
    let named = |name: &str, shape: &[usize]| Parameter::new(name.to_owned(), shape.to_vec());
    match model.family() {
        Family::Linear | Family::Logistic => vec![named("weight", &[n_features]), named("bias", &[1])],
        Family::Multinomial { .. } => vec![named("weight", &[sizes[1], n_features]), named("bias", &[sizes[1]])],
        Family::Mlp { .. } => sizes
            .windows(2)
            .enumerate()
            .flat_map(|(layer, pair)| {
                let (inputs, units) = (pair[0], pair[1]);
                [
                    Parameter::new(format!("layer{layer}.weight"), vec![units, inputs]),
                    Parameter::new(format!("layer{layer}.bias"), vec![units]),
                ]
            })
            .collect(),
    }
}

/// The model's first parameters, the same for a seed wherever and whenever they are drawn.
///
/// Linear models and all biases begin with zeros. A perceptron's weights are uniform between ±√(6 / inputs) before `relu` (He et
/// al. 2015, "Delving deep into rectifiers", eq. 10, as a uniform draw of the same variance), and between
/// ±√(6 / (inputs + units)) before `tanh` and in the last layer (Glorot and Bengio 2010, eq. 16).
pub fn initial(model: &ModelSpec, precision: Precision, n_features: usize, seed: u64) -> Result<Tensors, ParameterError> {
    match precision {
        Precision::Float32 => initial_in::<f32>(model, n_features, seed),
        Precision::Float64 => initial_in::<f64>(model, n_features, seed),
    }
}

fn initial_in<T: Scalar>(model: &ModelSpec, n_features: usize, seed: u64) -> Result<Tensors, ParameterError> {
    let layout = Layout::new(model, n_features)?;
    let mut flat = vec![T::zero(); layout.len()];
    if let Family::Mlp { activation, .. } = model.family() {
        let stream = Stream::initial(seed);
        let last = layout.parameters.len() - 2;
        for (index, parameter) in layout.parameters.iter().enumerate().filter(|(_, parameter)| !parameter.is_bias()) {
            let (units, inputs) = (parameter.shape[0] as f64, parameter.shape[1] as f64);
            let is_he = *activation == Activation::Relu && index != last;
            let limit = if is_he { (6.0 / inputs).sqrt() } else { (6.0 / (inputs + units)).sqrt() };
            let mut draws = stream.part(index as u64);
            flat[layout.range(index)].fill_with(|| T::from_f64(draws.symmetric(limit)));
        }
    }
    Ok(layout.to_tensors(flat))
}

/// Where each parameter lies in the flat vector of all of them.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    parameters: Vec<Parameter>,
    /// Where each parameter begins, and where the last one ends.
    starts: Vec<usize>,
}

impl Layout {
    pub(crate) fn new(model: &ModelSpec, n_features: usize) -> Result<Self, ParameterError> {
        let parameters = parameters(model, n_features);
        let mut starts = vec![0_usize];
        for parameter in &parameters {
            let end = starts[starts.len() - 1].checked_add(parameter.elements()?).ok_or(ParameterError::TooLarge)?;
            starts.push(end);
        }
        Ok(Self { parameters, starts })
    }

    /// The number of elements of all parameters together.
    pub(crate) fn len(&self) -> usize {
        self.starts[self.parameters.len()]
    }

    pub(crate) fn range(&self, index: usize) -> std::ops::Range<usize> {
        self.starts[index]..self.starts[index + 1]
    }

    /// The parts of the flat vector that the penalty acts on.
    pub(crate) fn penalised(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let weights = self.parameters.iter().enumerate().filter(|(_, parameter)| !parameter.is_bias());
        weights.map(|(index, _)| self.range(index))
    }

    /// Checks that tensors are exactly these parameters, in any order.
    pub(crate) fn check<T: Scalar>(&self, tensors: &Tensors) -> Result<(), ParameterError> {
        if tensors.len() != self.parameters.len() {
            return Err(ParameterError::Count { expected: self.parameters.len(), found: tensors.len() });
        }
        self.parameters.iter().try_for_each(|parameter| values::<T>(tensors, parameter).map(|_| ()))
    }

    /// Flattens tensors that are exactly these parameters, in any order.
    pub(crate) fn flatten<T: Scalar>(&self, tensors: &Tensors) -> Result<Vec<T>, ParameterError> {
        self.check::<T>(tensors)?;
        let mut flat = Vec::with_capacity(self.len());
        for parameter in &self.parameters {
            flat.extend_from_slice(values(tensors, parameter)?);
        }
        Ok(flat)
    }

    pub(crate) fn to_tensors<T: Scalar>(&self, flat: Vec<T>) -> Tensors {
        let mut rest = flat;
        let mut tensors = Vec::with_capacity(self.parameters.len());
        for (index, Parameter { name, shape }) in self.parameters.iter().enumerate().rev() {
            let values = rest.split_off(self.starts[index]);
            tensors.push(Tensor::new(name.clone(), shape.clone(), T::wrap(values)).expect("the range has the shape's size"));
        }
        tensors.reverse();
        Tensors::new(tensors).expect("a model's parameters have different names")
    }
}

/// The elements of one parameter, checked.
fn values<'a, T: Scalar>(tensors: &'a Tensors, parameter: &Parameter) -> Result<&'a [T], ParameterError> {
    let Parameter { name, shape } = parameter;
    let tensor = tensors.get(name).map_err(|_| ParameterError::Missing { expected: name.clone() })?;
    if tensor.shape() != shape {
        let (expected, found) = (shape.clone(), tensor.shape().to_vec());
        return Err(ParameterError::Shape { name: name.clone(), expected, found });
    }
    let values = T::unwrap(tensor.scalars());
    let values = values.ok_or_else(|| ParameterError::Precision { name: name.clone(), expected: T::PRECISION })?;
    // Without a branch, so that several are looked at at once.
    if values.iter().fold(true, |are_finite, value| are_finite & value.is_finite()) {
        Ok(values)
    } else {
        Err(ParameterError::NotFinite { name: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use protocol::Scalars;

    use super::*;

    fn mlp(activation: Activation) -> ModelSpec {
        let family = Family::Mlp { hidden: vec![40, 30], activation, outcome: Outcome::Class { classes: 3 } };
        ModelSpec::new(family, 0.0).unwrap()
    }

    fn shapes(model: &ModelSpec) -> Vec<(String, Vec<usize>)> {
        parameters(model, 5).into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
    }

    #[test]
    fn names_and_shapes_are_those_of_the_protocol() {
        let named = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
        let logistic = ModelSpec::new(Family::Logistic, 0.0).unwrap();
        assert_eq!(shapes(&logistic), [named("weight", &[5]), named("bias", &[1])]);
        let multinomial = ModelSpec::new(Family::Multinomial { classes: 4 }, 0.0).unwrap();
        assert_eq!(shapes(&multinomial), [named("weight", &[4, 5]), named("bias", &[4])]);
        let expected = [
            named("layer0.weight", &[40, 5]),
            named("layer0.bias", &[40]),
            named("layer1.weight", &[30, 40]),
            named("layer1.bias", &[30]),
            named("layer2.weight", &[3, 30]),
            named("layer2.bias", &[3]),
        ];
        assert_eq!(shapes(&mlp(Activation::Relu)), expected);
    }

    #[test]
    fn linear_models_begin_with_zeros() {
        for family in [Family::Linear, Family::Logistic, Family::Multinomial { classes: 3 }] {
            let tensors = initial(&ModelSpec::new(family, 0.0).unwrap(), Precision::Float64, 4, 9).unwrap();
            assert!(tensors.iter().all(|tensor| tensor.scalars().to_f64().iter().all(|value| *value == 0.0)));
        }
    }

    #[test]
    fn perceptrons_begin_within_the_published_bounds_and_the_same_for_a_seed() {
        for (activation, bound) in [(Activation::Relu, (6.0_f64 / 40.0).sqrt()), (Activation::Tanh, (6.0_f64 / 70.0).sqrt())]
        {
            let draw = |seed| initial(&mlp(activation), Precision::Float64, 5, seed).unwrap();
            assert_eq!(draw(1), draw(1));
            assert_ne!(draw(1), draw(2));
            let weights = draw(1).get("layer1.weight").unwrap().scalars().to_f64();
            let largest = weights.iter().fold(0.0_f64, |largest, weight| largest.max(weight.abs()));
            assert!(largest <= bound && largest > 0.95 * bound, "{largest} {bound}");
            assert!(draw(1).get("layer1.bias").unwrap().scalars().to_f64().iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn tensors_of_other_names_shapes_types_or_values_are_refused() {
        let model = ModelSpec::new(Family::Linear, 0.0).unwrap();
        let layout = Layout::new(&model, 2).unwrap();
        let flatten = |weight: (&str, Scalars), bias: f64| {
            let weight = Tensor::new(weight.0, vec![weight.1.len()], weight.1).unwrap();
            let bias = Tensor::new("bias", vec![1], Scalars::F64(vec![bias])).unwrap();
            layout.flatten::<f64>(&Tensors::new(vec![bias, weight]).unwrap())
        };
        assert_eq!(flatten(("weight", Scalars::F64(vec![1.0, 2.0])), 3.0), Ok(vec![1.0, 2.0, 3.0]));
        assert!(matches!(flatten(("w", Scalars::F64(vec![1.0, 2.0])), 3.0), Err(ParameterError::Missing { .. })));
        assert!(matches!(flatten(("weight", Scalars::F64(vec![1.0])), 3.0), Err(ParameterError::Shape { .. })));
        assert!(matches!(flatten(("weight", Scalars::F32(vec![1.0, 2.0])), 3.0), Err(ParameterError::Precision { .. })));
        assert!(matches!(
            flatten(("weight", Scalars::F64(vec![1.0, 2.0])), f64::NAN),
            Err(ParameterError::NotFinite { .. })
        ));
    }
}
