//! Folding: the contributions of a round, as they lie in the spool, become one sum, and the model's part of it a new model.
//!
//! One pass over all files, window by window: memory does not grow with the number of nodes or the size of the model. The sums
//! are of integers, so that the result is the same bits for any order of the files. A fold that was cut short leaves nothing but
//! a temporary file and is simply done again; the driver makes its result count in one transaction.
//!
//! Contributions that are hidden are summed the same way, modulo two to the elements' width, and the masks are taken off each window
//! of the sum: no contribution is ever seen, and so none can be checked but for its length. What can be is checked on the sum.
//! Encrypted ones are multiplied, vector by vector, and only the product is opened.

mod encrypted;
mod masked;
mod model_file;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use protocol::encoding::extent;
use protocol::{Encoding, Integers, Purpose, Vector, VectorSpec};
use thiserror::Error;

use crate::experiment::Folded;
pub use encrypted::{Ahead, Decryption};
pub(crate) use masked::modulus;
pub use masked::{Opening, Unmasking};
use model_file::{Elements, ModelReader, ModelWriter, TensorEntry};
pub use model_file::{WrittenModel, write_model};

/// Elements that are summed at once: few enough that a window of float32, with its sums, stays near the processor.
const WINDOW: usize = 1 << 15;
/// Sums of windows that wait for the model to be moved.
const WINDOWS_AHEAD: usize = 4;
/// Files that are kept open; more are opened anew for each window.
const MAX_OPEN: usize = 64;

/// Why a fold gave nothing.
#[derive(Debug, Error)]
pub enum FoldError {
    /// The bytes of one contribution, by its place in the list, are not what the layout demands.
    #[error("contribution {0} does not have the layout that was asked for")]
    Spoiled(usize),
    #[error("no node has trained on any row: the sum of the weights is 0")]
    NoWeight,
    #[error("the researcher's disk: {0}")]
    Io(#[from] io::Error),
    #[error("the training diverges: the average of {0:?} is no finite number")]
    Diverged(String),
    #[error("the masks cannot be taken off the sum of {0:?}")]
    Unmask(String),
    /// One contribution, by its place in the list, holds numbers that are no ciphertexts.
    #[error("contribution {0} is not encrypted as was asked for")]
    Ciphertexts(usize),
    #[error("the sum of {0:?} cannot be decrypted: {1}")]
    Decrypt(String, String),
    #[error("the nodes' sum of {0:?} cannot be: a node has sent something else than what it was asked for")]
    Impossible(String),
    #[error("the model's file is not what was written: {0}")]
    Model(String),
}

/// What is to be folded.
#[derive(Debug)]
pub struct FoldJob {
    pub layout: Vec<VectorSpec>,
    pub contributions: Vec<PathBuf>,
    /// The model that the round began with, for a training round.
    pub model: Option<PathBuf>,
    /// The folder of models, where the new one goes.
    pub models: PathBuf,
    /// Takes the masks off, where the contributions are hidden.
    pub unmasking: Option<Unmasking>,
}

/// Folds the contributions. The new model is in its file, under the name of its digest, before this returns; a small one's
/// bytes are also given back.
pub fn fold(job: &FoldJob) -> Result<(Folded, Option<Vec<u8>>), FoldError> {
    let mut spools = Spools::new(&job.contributions, job.unmasking.as_ref());
    let mut sums = Vec::new();
    let mut offset = 0;
    let mut models = BTreeMap::new();
    for (index, spec) in job.layout.iter().enumerate() {
        let bytes = match job.unmasking.as_ref().map(|unmasking| &unmasking.opening) {
            Some(Opening::JoyeLibert(decryption, _)) => decryption.byte_len(spec),
            _ => spec.byte_len().map(|bytes| bytes as u64),
        };
        if spec.purpose == Purpose::Model {
            models.insert(spec.name.as_str(), Summand { index, spec, offset });
        } else {
            let sum = spools.sum(&Summand { index, spec, offset }, 0, spec.elements().unwrap_or(0))?;
            if job.unmasking.as_ref().is_some_and(|unmasking| !unmasking.is_possible(spec, &sum)) {
                return Err(FoldError::Impossible(spec.name.clone()));
            }
            let values = decode(&sum, spec);
            sums.push(Vector { purpose: spec.purpose, name: spec.name.clone(), values });
        }
        offset += bytes.ok_or_else(|| FoldError::Model("a vector is too long".into()))?;
    }
    let mut folded = Folded { sums, ..Folded::default() };
    if let Some(old) = job.model.as_ref().filter(|_| !models.is_empty()) {
        let weight =
            folded.sums.iter().find(|vector| vector.purpose == Purpose::Weight).and_then(|vector| vector.values.first());
        let weight = *weight.ok_or_else(|| FoldError::Model("the layout has no weight".into()))?;
        if weight <= 0.0 {
            return Err(FoldError::NoWeight);
        }
        let mut reader = ModelReader::open(old)?;
        let writer = ModelWriter::create(&job.models, reader.header())?;
        let (written, largest) = move_all(&mut spools, &models, weight, &mut reader, writer)?;
        folded.largest = largest;
        let WrittenModel { blob, small } = written;
        folded.model = Some(blob);
        return Ok((folded, small));
    }
    Ok((folded, None))
}

/// A vector of the layout and where it begins in each contribution.
struct Summand<'layout> {
    index: usize,
    spec: &'layout VectorSpec,
    offset: u64,
}

/// Moves the tensors of the layout and copies the others; returns the largest absolute value in the sum of each.
///
/// Federated averaging (McMahan et al. 2017, Algorithm 1): w ← w + Σ nₖ(wₖ - w) / Σ nₖ. Of a model of many windows the sums are made
/// by a thread of their own, which is a few windows ahead.
fn move_all(
    spools: &mut Spools<'_>,
    models: &BTreeMap<&str, Summand<'_>>,
    weight: f64,
    reader: &mut ModelReader,
    writer: ModelWriter,
) -> Result<(WrittenModel, BTreeMap<String, f64>), FoldError> {
    let tensors = reader.tensors();
    let mut windows = Vec::new();
    for (summand, tensor) in tensors.iter().filter_map(|tensor| Some((models.get(tensor.name.as_str())?, tensor))) {
        let len = tensor.elements.len();
        if summand.spec.elements() != Some(len) {
            return Err(FoldError::Model(format!("tensor {:?} has another size than in the layout", tensor.name)));
        }
        windows.extend((0..len).step_by(WINDOW).map(|start| (summand, start, WINDOW.min(len - start))));
    }
    let mut mover = Mover { models, weight, reader, writer, moves: Vec::new() };
    let mut sums = windows.iter().map(|(summand, start, len)| spools.sum(summand, *start, *len));
    if windows.len() <= 1 {
        return mover.run(&tensors, sums).and_then(|largest| Ok((mover.writer.finish()?, largest)));
    }
    std::thread::scope(|scope| {
        let (ready, summed) = sync_channel(WINDOWS_AHEAD);
        scope.spawn(move || {
            // Whoever does not take them has failed, and says why.
            while sums.next().is_some_and(|sum| ready.send(sum).is_ok()) {}
        });
        let largest = mover.run(&tensors, summed.into_iter())?;
        Ok((mover.writer.finish()?, largest))
    })
}

/// Turns sums into a new model.
struct Mover<'fold> {
    models: &'fold BTreeMap<&'fold str, Summand<'fold>>,
    weight: f64,
    reader: &'fold mut ModelReader,
    writer: ModelWriter,
    moves: Vec<f64>,
}

impl Mover<'_> {
    /// Writes all tensors in their order; `sums` are those of the windows of the layout's.
    fn run(
        &mut self,
        tensors: &[TensorEntry],
        mut sums: impl Iterator<Item = Result<Integers, FoldError>>,
    ) -> Result<BTreeMap<String, f64>, FoldError> {
        let mut largest = BTreeMap::new();
        for TensorEntry { name, elements } in tensors {
            if let Some(summand) = self.models.get(name.as_str()) {
                largest.insert(name.clone(), self.average(summand, &mut sums, elements)?);
            } else {
                self.reader.copy(elements, &mut self.writer)?;
            }
        }
        if largest.len() == self.models.len() {
            Ok(largest)
        } else {
            Err(FoldError::Model("it lacks a tensor of the layout".into()))
        }
    }

    /// Moves one tensor by the weighted mean of the nodes' differences; returns the largest absolute value of their sum.
    fn average(
        &mut self,
        summand: &Summand<'_>,
        sums: &mut impl Iterator<Item = Result<Integers, FoldError>>,
        elements: &Elements,
    ) -> Result<f64, FoldError> {
        let mut largest = 0.0_f64;
        for start in (0..elements.len()).step_by(WINDOW) {
            let sum = sums.next().unwrap_or_else(|| Err(io::Error::other("the thread that sums ended early").into()))?;
            decode_into(&sum, summand.spec, &mut self.moves);
            largest = largest.max(extent(&self.moves).0);
            self.moves.iter_mut().for_each(|sum| *sum /= self.weight);
            let old = self.reader.read(elements, start, self.moves.len())?;
            if !self.writer.write_moved(elements, old, &self.moves)? {
                return Err(FoldError::Diverged(summand.spec.name.clone()));
            }
        }
        Ok(largest)
    }
}

/// What one unit of a sum is.
fn step(spec: &VectorSpec) -> f64 {
    f64::from(-spec.encoding.exponent).exp2()
}

/// Decodes as `Encoding::decode` does, with the scale computed once.
fn decode(sum: &Integers, spec: &VectorSpec) -> Vec<f64> {
    let mut values = Vec::new();
    decode_into(sum, spec, &mut values);
    values
}

fn decode_into(sum: &Integers, spec: &VectorSpec, values: &mut Vec<f64>) {
    let step = step(spec);
    values.clear();
    match sum {
        Integers::Wide64(sums) => values.extend(sums.iter().map(|sum| *sum as f64 * step)),
        Integers::Wide128(sums) => values.extend(sums.iter().map(|sum| *sum as f64 * step)),
    }
}

/// Whether any of these 64-bit elements is below 0, as no weight and no count is.
fn has_negative(elements: &[u8]) -> bool {
    elements.as_chunks::<8>().0.iter().any(|element| i64::from_le_bytes(*element) < 0)
}

/// The files of the contributions.
struct Spools<'paths> {
    paths: &'paths [PathBuf],
    unmasking: Option<&'paths Unmasking>,
    open: Vec<File>,
    buffer: Vec<u8>,
    /// The sum of one encrypted vector, by its place in the layout.
    decrypted: Option<(usize, Vec<u8>)>,
}

impl<'paths> Spools<'paths> {
    fn new(paths: &'paths [PathBuf], unmasking: Option<&'paths Unmasking>) -> Self {
        Self { paths, unmasking, open: Vec::new(), buffer: Vec::new(), decrypted: None }
    }

    /// Sums `len` elements of a vector, from element `start` on, over all files.
    fn sum(&mut self, summand: &Summand<'_>, start: usize, len: usize) -> Result<Integers, FoldError> {
        let width = summand.spec.encoding.width;
        let opening = self.unmasking.map(|unmasking| &unmasking.opening);
        if let Some(Opening::JoyeLibert(decryption, ahead)) = opening {
            let (index, bytes) = (summand.index, width.bytes());
            if self.decrypted.as_ref().is_none_or(|(of, _)| *of != index) {
                let vector = decryption.open(ahead, (index, summand.spec), self.paths, summand.offset)?;
                self.decrypted = Some((index, vector));
            }
            let window = self.decrypted.as_ref().and_then(|(_, vector)| vector.get(start * bytes..(start + len) * bytes));
            return Ok(masked::signed(width, window.unwrap_or_default()));
        }
        let is_count = summand.spec.encoding == Encoding::COUNT;
        let mut sum = Integers::zeros(width, if self.unmasking.is_some() { 0 } else { len });
        let mut masked = vec![0; if self.unmasking.is_some() { len * width.bytes() } else { 0 }];
        self.buffer.resize(len * width.bytes(), 0);
        let place = summand.offset + (start * width.bytes()) as u64;
        for (index, path) in self.paths.iter().enumerate() {
            let passing;
            let file = if index < MAX_OPEN {
                if index == self.open.len() {
                    self.open.push(File::open(path)?);
                }
                &self.open[index]
            } else {
                passing = File::open(path)?;
                &passing
            };
            match file.read_exact_at(&mut self.buffer, place) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FoldError::Spoiled(index)),
                other => other?,
            }
            if self.unmasking.is_some() {
                masked::add(width, &mut masked, &self.buffer);
            } else if is_count && has_negative(&self.buffer) || !sum.add(width, &self.buffer) {
                return Err(FoldError::Spoiled(index));
            }
        }
        match opening {
            Some(Opening::Lom(unmasker)) => masked::unmask(unmasker, (summand.index, summand.spec), start, masked),
            _ => Ok(sum),
        }
    }
}

#[cfg(test)]
mod tests;
