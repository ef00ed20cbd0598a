//! A node's secrets of one session: those it draws and shares, and the shares of its neighbours that it holds (specification §3 to §5).

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{InboundPreparation, SEALED_BYTES, SHARE_BYTES};
use crate::channel::public_of;
use crate::graph::Layout;
use crate::mask::{Masks, Sign, pair_seed, self_seed};
use crate::party::{PartyId, Point};
use crate::problem::Problem;
use crate::session::{SessionId, Terms};
use crate::shamir::{LIMBS_257, Polynomial, Prime257, read};
use crate::wire::{Fixed, Joined, Secret};

/// Holds a session's own secrets: masking key, seed of the self mask, and this node's own shares of both.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Own {
    pub(super) mask_secret: Secret<32>,
    pub(super) self_secret: Secret<32>,
    pub(super) shares: Shares,
}

/// Holds shares of one party's two secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shares {
    pub(super) pair: Secret<SHARE_BYTES>,
    pub(super) itself: Secret<SHARE_BYTES>,
}

/// Shares the two secrets of a session among the holders; wiped on drop.
pub(super) struct Dealer {
    mask_public: Fixed<32>,
    pair: Polynomial<Prime257, LIMBS_257>,
    itself: Polynomial<Prime257, LIMBS_257>,
}

impl Own {
    /// Draws both secrets and what shares them, in the order of specification §3.
    pub(super) fn draw(layout: &Layout, own_index: usize, rng: &mut impl CryptoRng) -> Result<(Self, Dealer), Problem> {
        let (mask_secret, self_secret) = (Secret::<32>::draw(rng), Secret::<32>::draw(rng));
        let threshold = layout.share_threshold();
        let pair = Polynomial::draw(mask_secret.expose(), threshold, rng)?;
        let itself = Polynomial::draw(self_secret.expose(), threshold, rng)?;
        let dealer = Dealer { mask_public: public_of(&mask_secret), pair, itself };
        Ok((Self { mask_secret, self_secret, shares: dealer.shares(own_index) }, dealer))
    }

    /// Derives the seeds of this node's masks with the neighbours that it holds preparations of (specification §4).
    pub(super) fn masks(&self, session: &SessionId, party: &PartyId, received: &Received) -> Result<Masks, Problem> {
        let mut seeds = vec![(self_seed(session, party, &self.self_secret), Sign::Plus)];
        for (other, held) in &received.held {
            let seed = pair_seed(session, (party, &self.mask_secret), (other, &held.mask_public))
                .ok_or_else(|| Problem::PublicKey { what: "preparation", party: other.clone() })?;
            seeds.push((seed, Sign::of(party, other)));
        }
        Ok(Masks::new(received.terms, seeds))
    }
}

impl Dealer {
    /// Returns the public masking key.
    pub(super) fn mask_public(&self) -> Fixed<32> {
        self.mask_public
    }

    /// Gives the plaintext for the neighbour with this index: S ‖ share of s ‖ share of b.
    pub(super) fn plaintext(&self, index: usize) -> Zeroizing<Vec<u8>> {
        let shares = self.shares(index);
        let mut plaintext = Zeroizing::new(Vec::with_capacity(SEALED_BYTES));
        plaintext.extend_from_slice(&self.mask_public.0);
        plaintext.extend_from_slice(shares.pair.expose());
        plaintext.extend_from_slice(shares.itself.expose());
        plaintext
    }

    fn shares(&self, index: usize) -> Shares {
        let share = |polynomial: &Polynomial<Prime257, LIMBS_257>| {
            let bytes = polynomial.share(Point::of_index(index));
            Secret::new(bytes.as_slice().try_into().expect("shares over this field have 33 bytes"))
        };
        Shares { pair: share(&self.pair), itself: share(&self.itself) }
    }
}

/// Holds what neighbours sent, and a digest of the messages, to tell a repetition from another.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Received {
    pub(super) terms: Terms,
    pub(super) digest: Fixed<32>,
    pub(super) held: BTreeMap<PartyId, Held>,
}

/// Holds a neighbour's masking key and this node's shares of its two secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub(super) mask_public: Fixed<32>,
    pub(super) shares: Shares,
}

impl Held {
    /// Reads S ‖ share of s ‖ share of b.
    pub(super) fn parse(party: &PartyId, published: &InboundPreparation, plaintext: &[u8]) -> Result<Self, Problem> {
        let wrong = || Problem::Length { what: "sealed preparation", expected: SEALED_BYTES, got: plaintext.len() };
        let (public, rest) = plaintext.split_first_chunk::<32>().ok_or_else(wrong)?;
        let (pair, rest) = rest.split_first_chunk::<SHARE_BYTES>().ok_or_else(wrong)?;
        let itself: &[u8; SHARE_BYTES] = rest.try_into().map_err(|_| wrong())?;
        if *public != published.mask_public.0 {
            return Err(Problem::Commitment { what: "masking key", party: party.clone() });
        }
        for share in [pair, itself] {
            read::<Prime257, LIMBS_257>(share)?;
        }
        let shares = Shares { pair: Secret::new(*pair), itself: Secret::new(*itself) };
        Ok(Self { mask_public: published.mask_public, shares })
    }
}

/// Gives the commitment to a self mask (specification §3).
pub(super) fn self_commitment(session: &SessionId, party: &PartyId, secret: &Secret<32>) -> Fixed<32> {
    Fixed(Joined::label("self").raw(&session.0).prefixed(party.as_bytes()).raw(secret.expose()).sha256())
}

/// Hashes all that was given to [`super::NodeRole::masker`], to know it again. Never leaves the node.
pub(super) fn digest_of(inbound: &BTreeMap<PartyId, InboundPreparation>) -> Fixed<32> {
    let joined = inbound.iter().fold(Joined::label("inbound"), |joined, (party, preparation)| {
        joined.prefixed(party.as_bytes()).raw(&preparation.mask_public.0).prefixed(&preparation.sealed.0.0)
    });
    Fixed(joined.sha256())
}
