//! Masks: seeds expanded by HKDF and AES-128-CTR, added to or subtracted from vectors of little-endian elements in place, from any
//! element on (specification §4).

use aes::Aes128;
use aes::cipher::{Block, InnerIvInit, KeyInit, StreamCipherCore, StreamCipherSeekCore};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::channel;
use crate::party::PartyId;
use crate::problem::Problem;
use crate::session::{SessionId, Terms};
use crate::wire::{Fixed, Joined, Secret};

/// Is how many bits the elements of a vector have: sums are modulo 2^w.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modulus {
    Bits32,
    Bits64,
    Bits128,
}

impl Modulus {
    /// Finds the modulus of elements of so many bytes: 4, 8 or 16.
    pub fn of_bytes(bytes: usize) -> Option<Self> {
        [Self::Bits32, Self::Bits64, Self::Bits128].into_iter().find(|modulus| modulus.bytes() == bytes)
    }

    /// Returns the bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
            Self::Bits128 => 16,
        }
    }
}

/// Names one vector of a contribution. Two vectors of a session must differ in it, or they would share a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorName<'text> {
    /// Counts from 0 within the contribution.
    pub index: u32,
    pub purpose: &'text str,
    pub name: &'text str,
}

/// Tells whether a mask is added or subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    pub(crate) fn opposite(self) -> Self {
        match self {
            Self::Plus => Self::Minus,
            Self::Minus => Self::Plus,
        }
    }

    /// Gives the sign of a pairwise mask in what `party` sends: plus for the smaller id.
    pub(crate) fn of(party: &PartyId, other: &PartyId) -> Self {
        if party < other { Self::Plus } else { Self::Minus }
    }
}

/// Derives the seed of the mask between two parties; none if the public key is of small order.
pub(crate) fn pair_seed(
    session: &SessionId,
    (party, secret): (&PartyId, &Secret<32>),
    (other, public): (&PartyId, &Fixed<32>),
) -> Option<Secret<32>> {
    let shared = channel::agree(secret, public)?;
    let (low, high) = if party < other { (party, other) } else { (other, party) };
    let info = Joined::label("pair").prefixed(low.as_bytes()).prefixed(high.as_bytes());
    Some(Secret::new(*channel::derive(&session.0, shared.as_bytes(), &info)))
}

/// Derives the seed of a party's self mask.
pub(crate) fn self_seed(session: &SessionId, party: &PartyId, secret: &Secret<32>) -> Secret<32> {
    let info = Joined::label("self mask").prefixed(party.as_bytes());
    Secret::new(*channel::derive(&session.0, secret.expose(), &info))
}

/// Counts the AES blocks made at once: 8 KiB of key stream and 8 KiB of data stay in a first-level cache of 32 KiB. Fewer would
/// begin the cipher anew more often.
const BLOCKS: usize = 512;

/// Counts the bytes of an AES block.
const BLOCK_BYTES: usize = 16;

type KeyStream = CtrCore<Aes128, Ctr128BE>;

/// Adds or subtracts any number of masks, touching the data once.
pub(crate) struct Masks {
    terms: Terms,
    seeds: Vec<(Secret<32>, Sign)>,
}

impl Masks {
    pub(crate) fn new(terms: Terms, seeds: Vec<(Secret<32>, Sign)>) -> Self {
        Self { terms, seeds }
    }

    /// Applies all masks to elements `first_element…` of a vector.
    pub(crate) fn apply(
        &self,
        vector: VectorName<'_>,
        modulus: Modulus,
        first_element: u64,
        data: &mut [u8],
    ) -> Result<(), Problem> {
        if !data.len().is_multiple_of(modulus.bytes()) {
            return Err(Problem::Elements { got: data.len() / modulus.bytes(), width: modulus.bytes() });
        }
        let first_byte = u128::from(first_element) * modulus.bytes() as u128;
        let (first_block, skip) = (first_byte / BLOCK_BYTES as u128, (first_byte % BLOCK_BYTES as u128) as usize);
        let mut streams: Vec<(KeyStream, Sign)> =
            self.seeds.iter().map(|(seed, sign)| (key_stream(seed, &self.terms, vector, first_block), *sign)).collect();
        let mut buffer = Zeroizing::new([0; BLOCKS * BLOCK_BYTES]);
        // The first block of data may begin within a block of the key stream: what is before it is skipped, so that all later ones
        // begin with a block.
        let head = data.len().min(if skip == 0 { 0 } else { BLOCK_BYTES - skip });
        let (head, rest) = data.split_at_mut(head);
        for (stream, sign) in &mut streams {
            if !head.is_empty() {
                let key = fill(stream, &mut buffer[..BLOCK_BYTES]);
                combine(modulus, *sign, head, &key[skip..skip + head.len()]);
            }
        }
        for chunk in rest.chunks_mut(BLOCKS * BLOCK_BYTES) {
            let blocks = chunk.len().div_ceil(BLOCK_BYTES);
            for (stream, sign) in &mut streams {
                let key = fill(stream, &mut buffer[..blocks * BLOCK_BYTES]);
                combine(modulus, *sign, chunk, &key[..chunk.len()]);
            }
        }
        Ok(())
    }
}

/// Begins the key stream of a vector's mask at one of its blocks.
fn key_stream(seed: &Secret<32>, terms: &Terms, vector: VectorName<'_>, first_block: u128) -> KeyStream {
    let info = Joined::label("vector")
        .raw(&terms.0.0)
        .u32(vector.index)
        .prefixed(vector.purpose.as_bytes())
        .prefixed(vector.name.as_bytes());
    let mut key = Zeroizing::new([0; 16]);
    Hkdf::<Sha256>::from_prk(seed.expose())
        .and_then(|hkdf| hkdf.expand(info.as_ref(), key.as_mut_slice()).map_err(|_| hkdf::InvalidPrkLength))
        .expect("a seed is as long as a hash, and a key is shorter");
    let mut stream = KeyStream::inner_iv_init(Aes128::new((&*key).into()), &[0; BLOCK_BYTES].into());
    stream.set_block_pos(first_block);
    stream
}

/// Fills whole blocks with the next of the key stream.
fn fill<'key>(stream: &mut KeyStream, bytes: &'key mut [u8]) -> &'key [u8] {
    stream.write_keystream_blocks(Block::<Aes128>::slice_as_chunks_mut(bytes).0);
    bytes
}

fn combine(modulus: Modulus, sign: Sign, data: &mut [u8], key: &[u8]) {
    macro_rules! words {
        ($word:ty, $bytes:literal, $operation:ident) => {
            for (data, key) in data.as_chunks_mut::<$bytes>().0.iter_mut().zip(key.as_chunks::<$bytes>().0) {
                *data = <$word>::from_le_bytes(*data).$operation(<$word>::from_le_bytes(*key)).to_le_bytes();
            }
        };
    }
    match (modulus, sign) {
        (Modulus::Bits32, Sign::Plus) => words!(u32, 4, wrapping_add),
        (Modulus::Bits32, Sign::Minus) => words!(u32, 4, wrapping_sub),
        (Modulus::Bits64, Sign::Plus) => words!(u64, 8, wrapping_add),
        (Modulus::Bits64, Sign::Minus) => words!(u64, 8, wrapping_sub),
        (Modulus::Bits128, Sign::Plus) => words!(u128, 16, wrapping_add),
        (Modulus::Bits128, Sign::Minus) => words!(u128, 16, wrapping_sub),
    }
}
