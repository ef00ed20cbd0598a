//! Channels between nodes through the researcher: X25519 keys signed by identity keys, AES-256-GCM with rising counters
//! (specification §2).

use std::collections::BTreeMap;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Tag};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use crate::identity::{IdentityKey, IdentityPublic, Signature};
use crate::party::{Experiment, PartyId};
use crate::problem::Problem;
use crate::wire::{Blob, Fixed, Joined, Secret};

/// Counts the bytes that sealing adds: counter and tag.
pub const SEALING_BYTES: usize = 8 + 16;

/// Is the identity keys of the nodes that this node may be summed with.
pub type Roster = BTreeMap<PartyId, IdentityPublic>;

/// Is what a node publishes once: its channel key and its commitment to a seed of the graph, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub public: Fixed<32>,
    pub commitment: Fixed<32>,
    pub signature: Signature,
}

impl Offer {
    /// Refuses a seed of the graph that is not the one committed to (Bell et al. 2020, §4.2; specification §2).
    pub fn check_seed(&self, experiment: &Experiment, party: &PartyId, seed: &Fixed<32>) -> Result<(), Problem> {
        if seed_commitment(experiment, party, &seed.0) == self.commitment {
            Ok(())
        } else {
            Err(Problem::Commitment { what: "seed", party: party.clone() })
        }
    }

    /// Checks the signature of a party whose identity is known.
    pub fn check(&self, experiment: &Experiment, party: &PartyId, identity: &IdentityPublic) -> Result<(), Problem> {
        if identity.verifies(signed(experiment, party, &self.public, &self.commitment).as_ref(), &self.signature) {
            Ok(())
        } else {
            Err(Problem::Signature { what: "offer", party: party.clone() })
        }
    }
}

/// Gives what an offer signs.
pub(crate) fn signed(experiment: &Experiment, party: &PartyId, public: &Fixed<32>, commitment: &Fixed<32>) -> Joined {
    Joined::label("channel").prefixed(experiment.as_bytes()).prefixed(party.as_bytes()).raw(&public.0).raw(&commitment.0)
}

/// Gives the commitment to a seed of the graph.
pub(crate) fn seed_commitment(experiment: &Experiment, party: &PartyId, seed: &[u8; 32]) -> Fixed<32> {
    Fixed(Joined::label("seed").prefixed(experiment.as_bytes()).prefixed(party.as_bytes()).raw(seed).sha256())
}

/// Is a sealed message: u64(counter) ‖ ciphertext ‖ tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Blob);

/// Holds a node's channel keys with all others of one experiment: state to be stored after every call that seals or opens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    experiment: Experiment,
    party: PartyId,
    secret: Secret<32>,
    seed: Secret<32>,
    peers: BTreeMap<PartyId, Peer>,
}

/// Holds one other party.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    identity: IdentityPublic,
    offer: Offer,
    send: Secret<32>,
    receive: Secret<32>,
    sent: u64,
    received: u64,
}

impl Channels {
    /// Draws the channel key (Bonawitz et al. 2017, figure 4, round 0), then the seed (Bell et al. 2020, §4.2; specification §2).
    pub fn new(experiment: Experiment, party: PartyId, rng: &mut impl CryptoRng) -> Self {
        let secret = Secret::draw(rng);
        let seed = Secret::draw(rng);
        Self { experiment, party, secret, seed, peers: BTreeMap::new() }
    }

    /// Returns the experiment the keys are bound to.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Returns whose keys these are.
    pub fn party(&self) -> &PartyId {
        &self.party
    }

    /// Finds the identity key of a party with which channels were agreed.
    pub fn identity(&self, party: &PartyId) -> Option<&IdentityPublic> {
        self.peers.get(party).map(|peer| &peer.identity)
    }

    /// Finds what a party committed to as its seed of the graph.
    pub(crate) fn commitment(&self, party: &PartyId) -> Option<Fixed<32>> {
        self.peers.get(party).map(|peer| peer.offer.commitment)
    }

    pub(crate) fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    /// Gives what this node publishes; the same every time (Bonawitz et al. 2017, figure 4, round 0; specification §2).
    pub fn offer(&self, identity: &IdentityKey) -> Offer {
        let public = public_of(&self.secret);
        let commitment = seed_commitment(&self.experiment, &self.party, self.seed.expose());
        let signature = identity.sign(signed(&self.experiment, &self.party, &public, &commitment).as_ref());
        Offer { public, commitment, signature }
    }

    /// Takes the offers of others, all or none (Bonawitz et al. 2017, figure 4, round 1; specification §2). Those known already may be given again, unchanged; a party that offers other keys
    /// than before is refused, since a repeated key pair would repeat nonces. One who lost its state needs everybody's new offers.
    pub fn agree(&mut self, roster: &Roster, offers: &BTreeMap<PartyId, Offer>) -> Result<(), Problem> {
        let mut fresh = Vec::new();
        for (party, offer) in offers {
            if *party == self.party {
                if offer.public != public_of(&self.secret) {
                    return Err(Problem::ChangedOffer { party: party.clone() });
                }
                continue;
            }
            let identity = roster.get(party).ok_or_else(|| Problem::NotInRoster { party: party.clone() })?;
            offer.check(&self.experiment, party, identity)?;
            match self.peers.get(party) {
                Some(peer) if peer.offer.public == offer.public && peer.offer.commitment == offer.commitment => {}
                Some(_) => return Err(Problem::ChangedOffer { party: party.clone() }),
                None => fresh.push((party.clone(), self.peer(party, *identity, offer)?)),
            }
        }
        self.peers.extend(fresh);
        Ok(())
    }

    /// Derives the keys of a channel.
    fn peer(&self, party: &PartyId, identity: IdentityPublic, offer: &Offer) -> Result<Peer, Problem> {
        let shared =
            agree(&self.secret, &offer.public).ok_or_else(|| Problem::PublicKey { what: "offer", party: party.clone() })?;
        let own = (&self.party, public_of(&self.secret));
        let other = (party, offer.public);
        let (low, high) = if own.0 < other.0 { (own, other) } else { (other, own) };
        let salt = Joined::label("channel salt")
            .prefixed(self.experiment.as_bytes())
            .prefixed(low.0.as_bytes())
            .prefixed(high.0.as_bytes())
            .raw(&low.1.0)
            .raw(&high.1.0)
            .sha256();
        let keys: Zeroizing<[u8; 64]> = derive(&salt, shared.as_bytes(), &Joined::label("channel keys"));
        let half = |at: usize| Secret::new(keys[at..at + 32].try_into().expect("half of 64 bytes"));
        let (up, down) = (half(0), half(32));
        let (send, receive) = if own.0 < other.0 { (up, down) } else { (down, up) };
        Ok(Peer { identity, offer: offer.clone(), send, receive, sent: 0, received: 0 })
    }

    fn associated(&self, from: &PartyId, to: &PartyId, subject: &[u8]) -> Joined {
        Joined::label("sealed")
            .prefixed(self.experiment.as_bytes())
            .prefixed(from.as_bytes())
            .prefixed(to.as_bytes())
            .prefixed(subject)
    }

    /// Seals a message to a party under the next counter (Bonawitz et al. 2017, §4, authenticated encryption; specification §2). The subject is what the message is about: it opens for no other.
    pub fn seal(&mut self, to: &PartyId, subject: &[u8], plaintext: &[u8]) -> Result<Sealed, Problem> {
        let associated = self.associated(&self.party, to, subject);
        let peer = self.peers.get_mut(to).ok_or_else(|| Problem::NoChannel { party: to.clone() })?;
        let counter = peer.sent.checked_add(1).expect("nobody seals 2^64 messages");
        let mut bytes = counter.to_be_bytes().to_vec();
        bytes.extend_from_slice(plaintext);
        let tag = Aes256Gcm::new(peer.send.expose().into())
            .encrypt_inout_detached(&nonce(counter).into(), associated.as_ref(), (&mut bytes[8..]).into())
            .expect("messages are far below the cipher's 64 GiB");
        bytes.extend_from_slice(&tag);
        peer.sent = counter;
        Ok(Sealed(Blob(bytes)))
    }

    /// Opens a message of a party; each at most once, in rising order of counters (specification §2).
    pub fn open(&mut self, from: &PartyId, subject: &[u8], sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let (plaintext, counter) = self.peek(from, subject, sealed)?;
        self.took(from, counter);
        Ok(plaintext)
    }

    /// Opens a message without taking note of its counter, for those who must open several before they know that all are good.
    pub(crate) fn peek(
        &self,
        from: &PartyId,
        subject: &[u8],
        sealed: &Sealed,
    ) -> Result<(Zeroizing<Vec<u8>>, u64), Problem> {
        let refused = || Problem::Sealed { party: from.clone() };
        let (counter, rest) = sealed.0.0.split_first_chunk::<8>().ok_or_else(refused)?;
        let (ciphertext, tag) = rest.split_last_chunk::<16>().ok_or_else(refused)?;
        let counter = u64::from_be_bytes(*counter);
        let associated = self.associated(from, &self.party, subject);
        let peer = self.peers.get(from).ok_or_else(|| Problem::NoChannel { party: from.clone() })?;
        if counter <= peer.received {
            return Err(Problem::Replayed { party: from.clone(), got: counter, last: peer.received });
        }
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        Aes256Gcm::new(peer.receive.expose().into())
            .decrypt_inout_detached(
                &nonce(counter).into(),
                associated.as_ref(),
                plaintext.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| refused())?;
        Ok((plaintext, counter))
    }

    /// Takes note of the counter of a message that was opened.
    pub(crate) fn took(&mut self, from: &PartyId, counter: u64) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.received = peer.received.max(counter);
        }
    }
}

/// Gives u32(0) ‖ u64(counter): never repeated, since keys belong to one direction and counters rise.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Gives the public key of an X25519 secret, which is clamped here (RFC 7748 §5).
pub(crate) fn public_of(secret: &Secret<32>) -> Fixed<32> {
    Fixed(PublicKey::from(&StaticSecret::from(*secret.expose())).to_bytes())
}

/// Agrees on a shared secret; none if the other key is of small order, so that the result is all zeros (RFC 7748 §6.1).
pub(crate) fn agree(secret: &Secret<32>, public: &Fixed<32>) -> Option<SharedSecret> {
    let shared = StaticSecret::from(*secret.expose()).diffie_hellman(&PublicKey::from(public.0));
    shared.was_contributory().then_some(shared)
}

/// Extracts and expands with HKDF-SHA-256 (RFC 5869).
pub(crate) fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &Joined) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info.as_ref(), output.as_mut_slice())
        .expect("at most 64 bytes are asked for");
    output
}
