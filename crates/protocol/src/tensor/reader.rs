//! Reading tensors while their bytes come: no second copy of a large model.

use std::collections::BTreeMap;

use super::{HeaderEntry, MAX_HEADER, Scalars, Tensor, TensorError, Tensors};

const PREFIX_BYTES: usize = 8;

/// Tensors in the safetensors layout whose bytes come piece by piece. Memory for elements is taken when the header is known to
/// fit the announced length.
#[derive(Debug)]
pub struct TensorsReader {
    len: usize,
    /// The length prefix and the header, until both are whole.
    head: Vec<u8>,
    body: Option<Body>,
}

impl TensorsReader {
    /// `len` is the number of all bytes, from the first of the length prefix on.
    pub fn new(len: usize) -> Self {
        Self { len, head: Vec::new(), body: None }
    }

    /// Takes the next bytes. After an error there is nothing more to be done with them.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TensorError> {
        let body = loop {
            if let Some(body) = &mut self.body {
                break body;
            }
            let end = self.header_end()?;
            let missing = end - self.head.len();
            if missing == 0 {
                let elements = self.len.checked_sub(end).ok_or(TensorError::Header("shorter than announced"))?;
                self.body = Some(Body::begin(&self.head[PREFIX_BYTES..], elements)?);
                self.head = Vec::new();
            } else if bytes.is_empty() {
                return Ok(());
            } else {
                let (now, rest) = bytes.split_at(missing.min(bytes.len()));
                self.head.extend_from_slice(now);
                bytes = rest;
            }
        };
        body.push(bytes)
    }

    /// The tensors, if all have come.
    pub fn finish(self) -> Result<Tensors, TensorError> {
        match self.body {
            Some(Body { tensors, metadata, coming: None, .. }) => Ok(Tensors::new(tensors)?.with_metadata(metadata)),
            Some(_) => Err(TensorError::Header("the elements have gaps, overlap or end early")),
            None if self.head.len() < PREFIX_BYTES => Err(TensorError::Header("shorter than its length prefix")),
            None => Err(TensorError::Header("shorter than announced")),
        }
    }

    /// How long prefix and header are, as far as that is known.
    fn header_end(&self) -> Result<usize, TensorError> {
        let Some(prefix) = self.head.first_chunk::<PREFIX_BYTES>() else { return Ok(PREFIX_BYTES) };
        match usize::try_from(u64::from_le_bytes(*prefix)) {
            Ok(len) if len <= MAX_HEADER => Ok(PREFIX_BYTES + len),
            _ => Err(TensorError::Header("longer than 1 MiB")),
        }
    }
}

/// What follows the header.
#[derive(Debug)]
struct Body {
    metadata: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
    coming: Option<Coming>,
    later: std::vec::IntoIter<(String, HeaderEntry)>,
}

/// The tensor whose elements come now.
#[derive(Debug)]
struct Coming {
    name: String,
    shape: Vec<usize>,
    scalars: Scalars,
    /// The bytes of an element that came in part.
    part: Vec<u8>,
    /// Bytes that are missing.
    left: usize,
}

impl Body {
    /// Reads the header. `len` bytes of elements follow it, and nothing else.
    fn begin(json: &[u8], len: usize) -> Result<Self, TensorError> {
        let header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(json).map_err(|_| TensorError::Header("not a JSON object"))?;
        let mut metadata = BTreeMap::new();
        let mut entries = Vec::new();
        for (name, value) in header {
            if name == "__metadata__" {
                metadata = serde_json::from_value(value).map_err(|_| TensorError::Header("metadata is not text"))?;
            } else {
                let entry: HeaderEntry =
                    serde_json::from_value(value).map_err(|_| TensorError::Header("an entry is malformed"))?;
                entries.push((name, entry));
            }
        }
        entries.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut position = 0;
        for (_, HeaderEntry { data_offsets: [start, end], .. }) in &entries {
            if *start != position || end < start || *end > len {
                return Err(TensorError::Header("the elements have gaps, overlap or end early"));
            }
            position = *end;
        }
        if position != len {
            return Err(TensorError::Header("bytes follow the last element"));
        }
        let mut later = entries.into_iter();
        let coming = later.next().map(Coming::begin).transpose()?;
        Ok(Self { metadata, tensors: Vec::new(), coming, later })
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), TensorError> {
        while let Some(mut coming) = self.coming.take() {
            let (now, rest) = bytes.split_at(bytes.len().min(coming.left));
            coming.push(now);
            bytes = rest;
            if coming.left > 0 {
                self.coming = Some(coming);
                return Ok(());
            }
            self.tensors.push(Tensor::new(coming.name, coming.shape, coming.scalars)?);
            self.coming = self.later.next().map(Coming::begin).transpose()?;
        }
        if bytes.is_empty() { Ok(()) } else { Err(TensorError::Header("bytes follow the last element")) }
    }
}

impl Coming {
    fn begin(
        (name, HeaderEntry { dtype, shape, data_offsets: [start, end] }): (String, HeaderEntry),
    ) -> Result<Self, TensorError> {
        let left = end - start;
        let scalars = match dtype.as_str() {
            "F32" if left.is_multiple_of(4) => Scalars::F32(room(left / 4)?),
            "F64" if left.is_multiple_of(8) => Scalars::F64(room(left / 8)?),
            "F32" | "F64" => return Err(TensorError::Header("a tensor ends within an element")),
            _ => return Err(TensorError::Header("only F32 and F64 are read")),
        };
        Ok(Self { name, shape, scalars, part: Vec::new(), left })
    }

    /// Takes bytes that are all of this tensor.
    fn push(&mut self, bytes: &[u8]) {
        self.left -= bytes.len();
        match &mut self.scalars {
            Scalars::F32(values) => extend(values, &mut self.part, bytes, f32::from_le_bytes),
            Scalars::F64(values) => extend(values, &mut self.part, bytes, f64::from_le_bytes),
        }
    }
}

fn room<T>(len: usize) -> Result<Vec<T>, TensorError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| TensorError::Header("larger than the memory"))?;
    Ok(values)
}

fn extend<const SIZE: usize, T>(values: &mut Vec<T>, part: &mut Vec<u8>, mut bytes: &[u8], read: impl Fn([u8; SIZE]) -> T) {
    if !part.is_empty() {
        let (now, rest) = bytes.split_at(bytes.len().min(SIZE - part.len()));
        part.extend_from_slice(now);
        let Ok(element) = <[u8; SIZE]>::try_from(part.as_slice()) else { return };
        values.push(read(element));
        part.clear();
        bytes = rest;
    }
    let (elements, rest) = bytes.as_chunks::<SIZE>();
    values.extend(elements.iter().map(|element| read(*element)));
    part.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_the_same_however_their_bytes_are_cut() {
        let tensors = Tensors::new(vec![
            Tensor::new("none", vec![0], Scalars::F32(vec![])).unwrap(),
            Tensor::new("weight", vec![2, 1], Scalars::F64(vec![0.5, -1.5])).unwrap(),
            Tensor::new("bias", vec![3], Scalars::F32(vec![3.0, 4.0, -7.25])).unwrap(),
            Tensor::new("nothing", vec![0], Scalars::F64(vec![])).unwrap(),
        ])
        .unwrap();
        let bytes = tensors.to_bytes();
        for size in [1, 2, 3, 5, 7, 64, bytes.len()] {
            let mut reader = TensorsReader::new(bytes.len());
            bytes.chunks(size).for_each(|piece| reader.push(piece).unwrap());
            assert_eq!(reader.finish().as_ref(), Ok(&tensors), "{size}");
        }
    }

    #[test]
    fn another_length_than_announced_is_refused() {
        let bytes = Tensors::new(vec![Tensor::new("w", vec![2], Scalars::F32(vec![1.0, 2.0])).unwrap()]).unwrap().to_bytes();
        for len in [0, 7, 30, bytes.len() - 1, bytes.len() + 1] {
            let mut reader = TensorsReader::new(len);
            assert!(reader.push(&bytes).is_err(), "{len}");
        }
        for cut in 0..bytes.len() {
            let mut reader = TensorsReader::new(bytes.len());
            reader.push(&bytes[..cut]).unwrap();
            assert!(reader.finish().is_err(), "{cut}");
        }
    }
}
