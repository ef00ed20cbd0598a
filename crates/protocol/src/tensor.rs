//! Named arrays of numbers: a model's parameters, and what belongs to it.
//!
//! At rest and on the wire they are in the safetensors layout (eight bytes of header length, a JSON header, raw little-endian
//! elements), which PyTorch, NumPy and JAX read and which is safe to parse from strangers.

mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use reader::TensorsReader;

/// The longest header accepted, in bytes.
const MAX_HEADER: usize = 1 << 20;

/// Why bytes or parts are not a valid set of tensors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorError {
    #[error("the header of the tensors is malformed: {0}")]
    Header(&'static str),
    #[error("tensor {name:?}: expected {expected} bytes, found {found}")]
    Size { name: String, expected: u64, found: u64 },
    #[error("tensor {name:?} occurs twice")]
    Twice { name: String },
    #[error("tensor {name:?} is missing")]
    Missing { name: String },
}

/// The elements of one tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalars {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Scalars {
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "F32",
            Self::F64(_) => "F64",
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::F64(values) => 8 * values.len(),
        }
    }

    /// The elements as f64; exact for both kinds.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Self::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::F64(values) => values.clone(),
        }
    }
}

/// One named array. A copy shares the elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    name: String,
    shape: Vec<usize>,
    scalars: Arc<Scalars>,
}

impl Tensor {
    /// Fails unless the shape's product is the number of elements.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, scalars: impl Into<Arc<Scalars>>) -> Result<Self, TensorError> {
        let (name, scalars) = (name.into(), scalars.into());
        let expected = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        if expected != Some(scalars.len()) {
            let expected = expected.map_or(u64::MAX, |count| count as u64);
            return Err(TensorError::Size { name, expected, found: scalars.len() as u64 });
        }
        Ok(Self { name, shape, scalars })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn scalars(&self) -> &Scalars {
        &self.scalars
    }

    pub fn into_scalars(self) -> Arc<Scalars> {
        self.scalars
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Tensors with different names, in a fixed order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensors {
    tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

impl Tensors {
    pub fn new(tensors: Vec<Tensor>) -> Result<Self, TensorError> {
        let mut names = BTreeSet::new();
        for tensor in &tensors {
            if !names.insert(tensor.name.clone()) {
                return Err(TensorError::Twice { name: tensor.name.clone() });
            }
        }
        Ok(Self { tensors, metadata: BTreeMap::new() })
    }

    /// Adds words about the tensors that readers may show; they mean nothing to this software.
    #[must_use]
    pub fn with_metadata(mut self, metadata: BTreeMap<String, String>) -> Self {
        self.metadata = metadata;
        self
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }

    pub fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    pub fn get(&self, name: &str) -> Result<&Tensor, TensorError> {
        self.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| TensorError::Missing { name: name.to_owned() })
    }

    /// The header of the safetensors layout for these tensors, length prefix included; the elements follow it.
    fn header(&self) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".into(), serde_json::json!(self.metadata));
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            let end = offset + tensor.scalars.byte_len();
            let entry = HeaderEntry {
                dtype: tensor.scalars.dtype().into(),
                shape: tensor.shape.clone(),
                data_offsets: [offset, end],
            };
            header.insert(tensor.name.clone(), serde_json::json!(entry));
            offset = end;
        }
        let mut json = serde_json::Value::Object(header).to_string().into_bytes();
        // The elements start at a multiple of eight bytes, as readers that map the file expect.
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes
    }

    /// Writes the safetensors layout.
    pub fn write_to(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        out.write_all(&self.header())?;
        let mut block = Vec::with_capacity(1 << 16);
        for tensor in &self.tensors {
            match tensor.scalars() {
                Scalars::F32(values) => {
                    for values in values.chunks(1 << 14) {
                        block.resize(4 * values.len(), 0);
                        for (bytes, value) in block.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                            *bytes = value.to_le_bytes();
                        }
                        out.write_all(&block)?;
                    }
                }
                Scalars::F64(values) => {
                    for values in values.chunks(1 << 13) {
                        block.resize(8 * values.len(), 0);
                        for (bytes, value) in block.as_chunks_mut::<8>().0.iter_mut().zip(values) {
                            *bytes = value.to_le_bytes();
                        }
                        out.write_all(&block)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The safetensors layout as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("writing to a Vec cannot fail");
        bytes
    }

    /// Reads the safetensors layout. The elements must cover the buffer without gaps, as the format demands.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TensorError> {
        let mut reader = TensorsReader::new(bytes.len());
        reader.push(bytes)?;
        reader.finish()
    }
}

impl<'tensors> IntoIterator for &'tensors Tensors {
    type Item = &'tensors Tensor;
    type IntoIter = std::slice::Iter<'tensors, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_written_by_the_reference_implementation_are_read() {
        // Printed by the Python package safetensors 0.5: save({"w": np.array([[1, 2], [3, -4]], dtype=np.float32)}).
        let mut bytes = 64_u64.to_le_bytes().to_vec();
        bytes.extend(br#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}       "#);
        bytes.extend([1.0_f32, 2.0, 3.0, -4.0].iter().flat_map(|value| value.to_le_bytes()));
        let tensors = Tensors::from_bytes(&bytes).unwrap();
        assert_eq!(tensors.get("w").unwrap().shape(), [2, 2]);
        assert_eq!(tensors.get("w").unwrap().scalars(), &Scalars::F32(vec![1.0, 2.0, 3.0, -4.0]));
    }

    #[test]
    fn what_is_written_reads_back_in_order() {
        let tensors = Tensors::new(vec![
            Tensor::new("weight", vec![2, 1], Scalars::F64(vec![0.5, -1.5])).unwrap(),
            Tensor::new("bias", vec![1], Scalars::F32(vec![3.0])).unwrap(),
            Tensor::new("empty", vec![0], Scalars::F32(vec![])).unwrap(),
        ])
        .unwrap();
        assert_eq!(Tensors::from_bytes(&tensors.to_bytes()).unwrap(), tensors);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tensors::from_bytes(&bytes);
        }

        #[test]
        fn a_flipped_header_byte_never_panics(at in 0_usize..72, with in any::<u8>()) {
            let tensor = Tensor::new("w", vec![2], Scalars::F32(vec![1.0, 2.0])).unwrap();
            let mut bytes = Tensors::new(vec![tensor]).unwrap().to_bytes();
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = Tensors::from_bytes(&bytes);
        }
    }
}
