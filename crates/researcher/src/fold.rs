//! Folding: the contributions of a round, as they lie in the spool, become one sum, and the model's part of it a new model.
//!
//! One pass over all files, window by window: memory does not grow with the number of nodes or the size of the model. The sums
//! are of integers, so that the result is the same bits for any order of the files. A fold that was cut short leaves nothing but
//! a temporary file and is simply done again; the driver makes its result count in one transaction.
//!
//! Contributions that are hidden are summed the same way, modulo two to the elements' width, and the masks are taken off each window
//! of the sum: no contribution is ever seen, and so none can be checked but for its length. What can be is checked on the sum.

mod masked;
mod model_file;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use protocol::{Encoding, Integers, Purpose, Vector, VectorSpec};
use thiserror::Error;

use crate::experiment::Folded;
pub use masked::Unmasking;
use model_file::{Elements, ModelReader, ModelWriter};
pub use model_file::{WrittenModel, write_model};

/// Elements that are summed at once: few enough that a window of float32, with its sums, stays near the processor.
const WINDOW: usize = 1 << 15;
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
        let bytes = spec.byte_len().ok_or_else(|| FoldError::Model("a vector is too long".into()))?;
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
        offset += bytes as u64;
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
        let mut writer = ModelWriter::create(&job.models, reader.header())?;
        for tensor in reader.tensors() {
            if let Some(summand) = models.get(tensor.name.as_str()) {
                let largest = average(&mut spools, summand, weight, &mut reader, &mut writer, &tensor.elements)?;
                folded.largest.insert(tensor.name, largest);
            } else {
                reader.copy(&tensor.elements, &mut writer)?;
            }
        }
        if folded.largest.len() != models.len() {
            return Err(FoldError::Model("it lacks a tensor of the layout".into()));
        }
        let WrittenModel { blob, small } = writer.finish()?;
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

/// Moves one tensor by the weighted mean of the nodes' differences; returns the largest absolute value of their sum.
///
/// Federated averaging (McMahan et al. 2017, Algorithm 1): w ← w + Σ nₖ(wₖ - w) / Σ nₖ.
fn average(
    spools: &mut Spools<'_>,
    summand: &Summand<'_>,
    weight: f64,
    reader: &mut ModelReader,
    writer: &mut ModelWriter,
    elements: &Elements,
) -> Result<f64, FoldError> {
    if summand.spec.elements() != Some(elements.len()) {
        return Err(FoldError::Model(format!("tensor {:?} has another size than in the layout", summand.spec.name)));
    }
    let mut largest = 0.0_f64;
    let step = step(summand.spec);
    for start in (0..elements.len()).step_by(WINDOW) {
        let len = WINDOW.min(elements.len() - start);
        let old = reader.read(elements, start, len)?;
        let mut mean = |sum: f64| {
            largest = largest.max(sum.abs());
            sum / weight
        };
        let are_finite = match spools.sum(summand, start, len)? {
            Integers::Wide64(sums) => writer.write_moved(elements, old, sums.iter().map(|sum| mean(*sum as f64 * step))),
            Integers::Wide128(sums) => writer.write_moved(elements, old, sums.iter().map(|sum| mean(*sum as f64 * step))),
        };
        if !are_finite? {
            return Err(FoldError::Diverged(summand.spec.name.clone()));
        }
    }
    Ok(largest)
}

/// What one unit of a sum is.
fn step(spec: &VectorSpec) -> f64 {
    f64::from(-spec.encoding.exponent).exp2()
}

/// Decodes as `Encoding::decode` does, with the scale computed once.
fn decode(sum: &Integers, spec: &VectorSpec) -> Vec<f64> {
    let step = step(spec);
    match sum {
        Integers::Wide64(sums) => sums.iter().map(|sum| *sum as f64 * step).collect(),
        Integers::Wide128(sums) => sums.iter().map(|sum| *sum as f64 * step).collect(),
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
}

impl<'paths> Spools<'paths> {
    fn new(paths: &'paths [PathBuf], unmasking: Option<&'paths Unmasking>) -> Self {
        Self { paths, unmasking, open: Vec::new(), buffer: Vec::new() }
    }

    /// Sums `len` elements of a vector, from element `start` on, over all files.
    fn sum(&mut self, summand: &Summand<'_>, start: usize, len: usize) -> Result<Integers, FoldError> {
        let width = summand.spec.encoding.width;
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
        match self.unmasking {
            Some(unmasking) => unmasking.open(summand.index, summand.spec, start, masked),
            None => Ok(sum),
        }
    }
}

#[cfg(test)]
mod tests;
