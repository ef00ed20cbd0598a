//! Joye-Libert: this node's keys, and how its contributions are encrypted.
//!
//! What is said in the negotiation of keys is made here from what others said; who carries it is not known here.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use protocol::VectorSpec;
use secagg::exchange::{EncryptRequest, ShareKeysRequest, SumKeysRequest};
use secagg::joye_libert::{Group, KeyShares, KeySpec, KeysId, Label, Masker, Masks, Packing, Problem, SumShare, Vector};
use secagg::session::{Context, Terms};
use secagg::wire::Fixed;

use super::{Desk, DeskError, Sum, failed, roster, vector};
use crate::handle::NodeHandle;
use crate::policy::Permit;

/// Encrypts one contribution. What it needs for that does not depend on the data, and is computed while they are.
pub(crate) struct Cipher {
    generation: u32,
    keys: KeysId,
    context: Context,
    terms: Terms,
    parties: u32,
    powers: Powers,
}

/// What a thread gives that computes masks.
type Computed = Result<Vec<Masks>, Problem>;

/// The masks of each vector of a layout, computed on a thread of their own.
struct Powers {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Computed>>>,
}

impl Drop for Powers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Powers {
    /// Begins with the vectors of these labels, each with so many ciphertexts.
    fn begin(masker: Masker, vectors: Vec<(Label, usize)>) -> Result<Self, DeskError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let compute = move || {
            let go_on = || !stopped.load(Ordering::Relaxed);
            let of_vector = |(label, ciphertexts): (Label, usize)| {
                let mut masks = masker.begin(&label);
                masker.extend(&label, &mut masks, ciphertexts, NonZeroUsize::MIN, &go_on).map(|()| masks)
            };
            vectors.into_iter().map(of_vector).collect()
        };
        let thread = std::thread::Builder::new().name("powers".into()).spawn(compute).map_err(DeskError::Hindered)?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Waits for all of them, once.
    fn wait(&self) -> Result<Vec<Masks>, DeskError> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = thread.ok_or_else(|| failed("this contribution was encrypted already"))?;
        let masks = thread.join().map_err(|_| failed("a mistake in this software: the powers of a hidden sum failed"))?;
        Ok(masks?)
    }
}

impl Cipher {
    /// The digest of the keys, for the audit log.
    pub(super) fn keys(&self) -> String {
        self.keys.0.to_string()
    }

    /// The number of bytes that an encrypted contribution of this layout has.
    pub(super) fn byte_len(&self, layout: &[VectorSpec]) -> Option<u64> {
        let lengths = layout.iter().enumerate().map(|(index, spec)| (vector(index, spec).1, spec.elements()));
        Packing::contribution_bytes(self.parties, lengths)
    }

    /// Encrypts the elements of all vectors, which follow each other in the layout's order. Which they were is on the disk when
    /// this returns: under these labels nothing else is encrypted.
    pub(crate) fn encrypt(&self, node: &NodeHandle, permit: &Permit, contribution: &[u8]) -> Result<Vec<u8>, DeskError> {
        let masks = self.powers.wait()?;
        let desk = Desk::open(node, permit);
        let mut secrets = desk.load()?;
        let own = desk.identity()?.public();
        let spec = desk.check_keys(secrets.keys.keys_of(self.generation), self.keys)?.clone();
        desk.check_parties(&secrets, &own, &spec.parties, true)?;
        let (mut rest, mut encrypted) = (contribution, Vec::new());
        for ((index, layout), masks) in desk.task.layout.iter().enumerate().zip(&masks) {
            let (name, modulus) = vector(index, layout);
            let elements = layout.byte_len().and_then(|bytes| rest.split_off(..bytes));
            let elements = elements.ok_or_else(|| failed("the contribution is shorter than its layout"))?;
            let vector = Vector { name, modulus, elements };
            let group = node.joye_libert();
            encrypted.append(&mut secrets.keys.encrypt(group, self.generation, &self.context, self.terms, vector, masks)?);
        }
        if let Some(earlier) = self.context.round.checked_sub(1) {
            secrets.keys.close(earlier);
        }
        desk.save(&secrets)?;
        desk.audit("secure.encrypted", Some(&sum(&spec, self.keys)), None)?;
        Ok(encrypted)
    }
}

fn sum(spec: &KeySpec, keys: KeysId) -> Sum<'_> {
    Sum { id: keys.0.to_string(), parties: &spec.parties, threshold: spec.threshold, colluders: spec.colluders }
}

impl Desk<'_> {
    // The negotiation of keys.

    /// Draws this node's key for a list of parties, and seals a share for each other one.
    pub(super) fn share_keys(&self, request: &ShareKeysRequest) -> Result<KeyShares, DeskError> {
        let mut secrets = self.load()?;
        if !secrets.sessions.is_empty() {
            return Err(failed("sums of this experiment are hidden with lom already"));
        }
        let group = self.node.joye_libert();
        if request.modulus.0 != *group.fingerprint() {
            return Err(failed(
                "the researcher's modulus for joye-libert is not this node's: all must have the same \
                 `security.joye_libert_modulus`",
            ));
        }
        let own = self.identity()?.public();
        let new = roster::check(self.node, self.researcher, &own, &request.roster)?;
        self.compare_with_heard(&request.roster, &request.offers)?;
        secrets.role.agree(&request.roster, &request.offers)?;
        secrets.identities.extend(request.roster.iter().map(|(party, identity)| (party.clone(), *identity)));
        let (channels, keys) = (secrets.role.channels(), &mut secrets.keys);
        let shares = self.node.draw(|rng| keys.share_keys(channels, group, &request.spec, &self.rules(), rng))?;
        // The researcher does not come back to an earlier list.
        keys.forget_before(request.spec.generation);
        roster::remember(self.node, self.researcher, &new)?;
        self.save(&secrets)?;
        self.audit("secure.key_shared", Some(&sum(&request.spec, shares.keys)), None)?;
        Ok(shares)
    }

    /// Adds the shares that the others sealed for this node to its own.
    pub(super) fn sum_keys(&self, request: &SumKeysRequest) -> Result<SumShare, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        let generation = request.generation;
        if let Some((spec, _)) = secrets.keys.keys_of(generation) {
            spec.check(&self.rules())?;
            self.check_parties(&secrets, &own, &spec.parties, true)?;
        }
        self.compare_shares(generation, &request.inbound)?;
        let inbound: Vec<_> = request.inbound.iter().map(|(party, sealed)| (party.clone(), sealed.clone())).collect();
        let share = secrets.keys.take_shares(secrets.role.channels(), generation, &inbound)?;
        self.save(&secrets)?;
        self.audit(
            "secure.key_summed",
            secrets.keys.keys_of(generation).map(|(spec, keys)| sum(spec, keys)).as_ref(),
            None,
        )?;
        Ok(share)
    }

    // Contributions.

    /// Whether the keys are those that are meant, and the hospital's rules still allow them.
    fn check_keys<'k>(&self, known: Option<(&'k KeySpec, KeysId)>, meant: KeysId) -> Result<&'k KeySpec, DeskError> {
        let known = known.filter(|(_, keys)| *keys == meant);
        let (spec, _) = known.ok_or_else(|| failed("this node does not have the keys of the sum, or not any more"))?;
        spec.check(&self.rules())?;
        Ok(spec)
    }

    /// Begins what the encryption of this task's contribution needs.
    pub(super) fn cipher(&self, request: &EncryptRequest) -> Result<Cipher, DeskError> {
        let secrets = self.load()?;
        let own = self.identity()?.public();
        let EncryptRequest { generation, keys, attempt } = *request;
        let spec = self.check_keys(secrets.keys.keys_of(generation), keys)?;
        self.check_parties(&secrets, &own, &spec.parties, true)?;
        if attempt > self.task.key.attempt {
            return Err(failed("the sum belongs to a later attempt than the task"));
        }
        let context = Context { experiment: spec.experiment.clone(), round: self.task.key.round, attempt, phase: 0 };
        let (terms, parties) = (Terms(Fixed(self.task.terms())), spec.parties.count());
        let group: &Group = self.node.joye_libert();
        let mut vectors = Vec::new();
        for (index, layout) in self.task.layout.iter().enumerate() {
            let (name, modulus) = vector(index, layout);
            let elements = layout.elements().ok_or_else(|| failed("a vector is too long"))?;
            let ciphertexts = Packing::new(modulus, parties).ciphertexts(elements);
            vectors.push((secrets.keys.label(generation, &context, terms, name)?, ciphertexts));
        }
        let powers = Powers::begin(secrets.keys.masker(group, generation)?, vectors)?;
        Ok(Cipher { generation, keys, context, terms, parties, powers })
    }
}
