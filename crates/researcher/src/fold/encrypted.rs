//! Sums of contributions that are encrypted: the product of all ciphertexts opens to the sum, and to nothing less.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use protocol::VectorSpec;
use secagg::joye_libert::{Fold, Group, Masks, Packing, Problem, ServerKey};
use secagg::party::PartyId;
use secagg::session::{Context, Terms};

use super::FoldError;
use super::masked::{modulus, vector_name};

/// What opens a sum under Joye-Libert.
#[derive(Clone)]
pub struct Decryption {
    pub group: Group,
    pub key: ServerKey,
    pub context: Context,
    pub terms: Terms,
    /// Whose contributions they are, in the order of the files.
    pub parties: Vec<PartyId>,
}

impl fmt::Debug for Decryption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Decryption({:?})", self.context)
    }
}

/// The researcher's masks of one sum, as far as they are computed.
#[derive(Default)]
struct Powers(BTreeMap<usize, Masks>);

/// Computes what opens a sum while nodes work: it does not depend on what they send. Dropping this ends the computing.
#[derive(Default)]
pub struct Ahead {
    /// Which sum it is; of another one nothing is known.
    context: Option<Context>,
    stop: Arc<AtomicBool>,
    powers: Arc<Mutex<Powers>>,
}

impl fmt::Debug for Ahead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ahead({:?})", self.context)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Ahead {
    /// Begins, on a thread of its own.
    pub fn begin(decryption: Decryption, layout: Vec<VectorSpec>) -> io::Result<Self> {
        let mut ahead = Self::default();
        ahead.context = Some(decryption.context.clone());
        let (stop, powers) = (ahead.stop.clone(), ahead.powers.clone());
        let compute = move || {
            for (index, spec) in layout.iter().enumerate() {
                // Whoever folds waits for a vector at most, and computes the others itself.
                let mut powers = powers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = decryption.extend(&mut powers, (index, spec), NonZeroUsize::MIN, &stop) {
                    return tracing::error!(%error, "what opens a hidden sum cannot be computed ahead");
                }
            }
        };
        thread::Builder::new().name("powers".into()).spawn(compute)?;
        Ok(ahead)
    }
}

impl Decryption {
    fn fold(&self, (index, spec): (usize, &VectorSpec)) -> Result<Fold, Problem> {
        let elements = spec.elements().unwrap_or(0);
        let name = vector_name(index, spec);
        Fold::new(&self.group, &self.key, &self.context, self.terms, name, modulus(spec), elements)
    }

    /// Computes what is missing of a vector's masks.
    fn extend(
        &self,
        powers: &mut Powers,
        (index, spec): (usize, &VectorSpec),
        threads: NonZeroUsize,
        stop: &AtomicBool,
    ) -> Result<(), Problem> {
        let (masker, fold) = (self.key.masker(&self.group)?, self.fold((index, spec))?);
        let masks = powers.0.entry(index).or_insert_with(|| masker.begin(fold.label()));
        masker.extend(fold.label(), masks, fold.ciphertexts(), threads, &|| !stop.load(Ordering::Relaxed))
    }

    /// The number of bytes that a vector has in each contribution.
    pub(super) fn byte_len(&self, spec: &VectorSpec) -> Option<u64> {
        let parties = self.key.spec().parties.count();
        Packing::contribution_bytes(parties, [(modulus(spec), spec.elements())])
    }

    /// Sums a vector, which begins at `offset` in each file: little-endian elements modulo two to their width.
    pub(super) fn open(
        &self,
        ahead: &Ahead,
        (index, spec): (usize, &VectorSpec),
        files: &[PathBuf],
        offset: u64,
    ) -> Result<Vec<u8>, FoldError> {
        let unusable = |problem: Problem| FoldError::Decrypt(spec.name.clone(), problem.to_string());
        let mut fold = self.fold((index, spec)).map_err(unusable)?;
        let bytes = self.byte_len(spec).and_then(|bytes| usize::try_from(bytes).ok());
        let mut ciphertexts = vec![0; bytes.ok_or_else(|| FoldError::Model("a vector is too long".into()))?];
        for (place, (path, party)) in files.iter().zip(&self.parties).enumerate() {
            match File::open(path)?.read_exact_at(&mut ciphertexts, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FoldError::Spoiled(place)),
                other => other?,
            }
            fold.add(party, &ciphertexts).map_err(|problem| match problem {
                Problem::Ciphertexts { .. } => FoldError::Ciphertexts(place),
                other => unusable(other),
            })?;
        }
        let mut own = Powers::default();
        // What is missing now is computed here, on all processors.
        ahead.stop.store(true, Ordering::Relaxed);
        let mut shared = ahead.powers.lock().unwrap_or_else(PoisonError::into_inner);
        let powers = if ahead.context.as_ref() == Some(&self.context) { &mut *shared } else { &mut own };
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.extend(powers, (index, spec), threads, &AtomicBool::new(false)).map_err(unusable)?;
        let masks = powers.0.get(&index).ok_or_else(|| FoldError::Unmask(spec.name.clone()))?;
        fold.finish(masks).map_err(unusable)
    }
}
