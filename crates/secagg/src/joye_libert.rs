//! Joye-Libert aggregation (Joye and Libert 2013, "A Scalable Scheme for Privacy-Preserving Aggregation of Time-Series Data",
//! Financial Cryptography, §3 and §4; specification §9).
//!
//! Every node encrypts its vector under a key of its own; the researcher's key, the negative sum of all keys, opens the product of
//! all ciphertexts to the sum of the vectors, and opens nothing less: the scheme survives no loss. In exchange nothing has to be
//! exchanged in a round but the ciphertexts, and their costly part, the masks, does not depend on the data.
//!
//! The way of the keys, once for each list of parties ([`KeySpec`]): [`Node::share_keys`] → [`Researcher::accept_shares`] →
//! [`Researcher::inbound`] → [`Node::take_shares`] → [`Researcher::accept_sum`] → [`Researcher::server_key`]. The way of a round:
//! [`Node::masker`] and [`ServerKey::masker`] compute [`Masks`] while training runs; [`Node::encrypt`] → [`Fold::add`] for every
//! party → [`Fold::finish`].

mod cipher;
mod group;
mod hash;
mod keys;
mod node;
mod researcher;

pub use cipher::{Masker, Masks, Packing};
pub use group::{ELEMENT_BYTES, Group, MODULUS_BITS, ModulusProblem};
pub use hash::Label;
pub use keys::{KEY_BITS, KeySpec, KeysId, SHARE_BYTES, ServerKey};
pub use node::{KeyShares, Node, SumShare};
pub use researcher::{Fold, Researcher};

use crate::mask::{Modulus, VectorName};
use crate::party::PartyId;
use crate::wire::Joined;

/// A vector to be encrypted.
#[derive(Clone, Copy)]
pub struct Vector<'data> {
    /// Its number, purpose and name: no two vectors of a context have the same.
    pub name: VectorName<'data>,
    /// What its elements are summed modulo.
    pub modulus: Modulus,
    /// The elements, little-endian.
    pub elements: &'data [u8],
}

/// Adds number, purpose and name to what is joined.
fn name(joined: Joined, vector: VectorName<'_>) -> Joined {
    joined.u32(vector.index).prefixed(vector.purpose.as_bytes()).prefixed(vector.name.as_bytes())
}

/// Says why a message or request was refused, or why no sum can be had. The role that refuses stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// What is common to the schemes.
    #[error(transparent)]
    Common(#[from] crate::problem::Problem),
    /// An old list of parties, or another one under the same number.
    #[error(
        "keys were drawn for another list of parties as generation {last}: every list needs fresh keys, of a later generation than {generation}"
    )]
    GenerationUsed {
        /// The generation asked for.
        generation: u32,
        /// The latest generation.
        last: u32,
    },
    /// Nothing is known of this generation.
    #[error("no keys of generation {generation} are known here")]
    UnknownGeneration {
        /// The generation asked for.
        generation: u32,
    },
    /// The message belongs to other keys.
    #[error("the message of {party} is about other keys")]
    OtherKeys {
        /// Who sent it.
        party: PartyId,
    },
    /// Another modulus than the one the keys were drawn for.
    #[error("the keys were drawn for another modulus")]
    OtherModulus,
    /// A share outside the field.
    #[error("the key share of {party} is not a number of the field")]
    Share {
        /// Who sent it.
        party: PartyId,
    },
    /// Not all are there.
    #[error("{what} missing from: {}; this scheme survives no loss", names(.parties))]
    Missing {
        /// What is missing.
        what: &'static str,
        /// From whom.
        parties: Vec<PartyId>,
    },
    /// Fewer sums than the threshold.
    #[error("{got} sums of shares are known, {least} are needed")]
    TooFewSums {
        /// How many there are.
        got: usize,
        /// How many are needed.
        least: u32,
    },
    /// The sums lie on no polynomial of the right degree.
    #[error("the sums of shares contradict each other; the wrong one came from: {}", .party.as_ref().map_or("unknown", PartyId::as_str))]
    WrongSums {
        /// Who it is, if that can be told.
        party: Option<PartyId>,
    },
    /// A vector was encrypted already under this label, with other data.
    #[error(
        "another vector was encrypted already for this context, number, purpose and name: two would show their difference"
    )]
    LabelSpent,
    /// This round was encrypted already for another list of parties.
    #[error("round {round} was encrypted already for another list of parties: two sums would show their difference")]
    SecondList {
        /// The round.
        round: u32,
    },
    /// Masks of another vector.
    #[error("the masks were computed for another vector or other keys")]
    OtherMasks,
    /// Not all masks are computed yet.
    #[error("{got} masks are computed, {needed} are needed")]
    MasksMissing {
        /// How many there are.
        got: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Stored masks that cannot be read.
    #[error("the stored masks are damaged")]
    StoredMasks,
    /// Ciphertexts outside the group, or another number of them.
    #[error("the ciphertexts of {party} are not {expected} numbers below the square of the modulus")]
    Ciphertexts {
        /// Who sent them.
        party: PartyId,
        /// How many there should be.
        expected: usize,
    },
    /// A party twice.
    #[error("the vector of {party} was added already")]
    Duplicate {
        /// Who it is.
        party: PartyId,
    },
    /// The product does not open.
    #[error("the ciphertexts do not belong to these keys and this label: there is no sum")]
    DoesNotBelong,
}

fn names(parties: &[PartyId]) -> String {
    parties.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
