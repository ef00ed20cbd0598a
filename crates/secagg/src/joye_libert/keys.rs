//! Keys: what they are drawn for, their widths, and the field their shares are in (Joye-Libert 2013, §3, `Setup`; the sum of the
//! keys by Ben-Or, Goldwasser, Wigderson 1988).

use crypto_bigint::modular::{ConstMontyParams, FixedMontyParams};
use serde::{Deserialize, Serialize};

use super::Problem;
use super::cipher::{Masker, Side};
use super::group::{Exponent, Group, Wide};
use crate::party::{Experiment, Parties};
use crate::session::Rules;
use crate::shamir::Field;
use crate::threshold::{default_colluders, threshold};
use crate::wire::{Fixed, Joined, Secret};

/// Bits of a node's key: 128 more than N² has, so that h^sk is within 2⁻¹²⁸ of uniform in the group h generates.
pub const KEY_BITS: u32 = 4096 + 128;
/// Bytes of a node's key.
pub(super) const KEY_BYTES: usize = 528;
/// Bytes of a share of a key.
pub const SHARE_BYTES: usize = 531;

/// Is the field of shares of keys: integers modulo 2^4240 + 5193, the smallest prime above 2^4240, larger than the sum of 65,536
/// keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prime4241;

impl ConstMontyParams<{ Wide::LIMBS }> for Prime4241 {
    const LIMBS: usize = Wide::LIMBS;
    const PARAMS: FixedMontyParams<{ Wide::LIMBS }> = FixedMontyParams::new_vartime(
        Wide::ONE.shl_vartime(4240).wrapping_add(&Wide::from_u32(5193)).to_odd().expect_copied("an odd number"),
    );
}

impl Field<{ Wide::LIMBS }> for Prime4241 {
    const BITS: u32 = 4241;
}

/// What keys are drawn for: one list of parties, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// Binds the keys to an experiment.
    pub experiment: Experiment,
    /// Counts the lists of parties of an experiment; never used twice.
    pub generation: u32,
    /// Whose vectors will be summed, all of them each time.
    pub parties: Parties,
    /// How many nodes together could learn another's key.
    pub threshold: u32,
    /// How many nodes may collude with the researcher.
    pub colluders: u32,
}

/// The digest of a [`KeySpec`] and a modulus (specification §9, `keys_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeysId(pub Fixed<32>);

impl KeySpec {
    /// Gives the digest that all shares and labels of these keys carry.
    pub fn id(&self, group: &Group) -> KeysId {
        let joined = Joined::label("jl keys")
            .prefixed(self.experiment.as_bytes())
            .u32(self.generation)
            .raw(group.fingerprint())
            .u32(self.threshold)
            .list(self.parties.iter().map(crate::party::PartyId::as_bytes));
        KeysId(Fixed(joined.sha256()))
    }

    /// Refuses what a node's rules do not allow.
    pub fn check(&self, rules: &Rules) -> Result<(), Problem> {
        let parties = self.parties.count();
        let least = rules.min_parties.max(2);
        if parties < least {
            return Err(crate::problem::Problem::TooFewParties { got: parties, least }.into());
        }
        self.check_threshold(rules.max_colluders.unwrap_or_else(|| default_colluders(parties)))
    }

    /// Refuses more colluders than n − 2, and a threshold that is too low for the larger number of colluders, or above the number
    /// of parties (specification §7).
    pub(super) fn check_threshold(&self, max_colluders: u32) -> Result<(), Problem> {
        let parties = self.parties.count();
        if self.colluders > parties - 2 {
            return Err(crate::problem::Problem::Colluders { got: self.colluders, most: parties - 2 }.into());
        }
        let colluders = self.colluders.max(max_colluders);
        let least = threshold(parties, colluders);
        if !(least..=parties).contains(&self.threshold) {
            return Err(crate::problem::Problem::Threshold { got: self.threshold, least, parties, colluders }.into());
        }
        Ok(())
    }

    pub(super) fn subject(id: KeysId) -> Joined {
        Joined::label("jl share").raw(&id.0.0)
    }
}

/// The researcher's key, of which it knows the magnitude: Σ sk. It opens sums of all parties of its generation, and nothing else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerKey {
    pub(super) spec: KeySpec,
    pub(super) id: KeysId,
    pub(super) sum: Secret<SHARE_BYTES>,
}

impl ServerKey {
    /// Returns what the key is for.
    pub fn spec(&self) -> &KeySpec {
        &self.spec
    }

    /// Prepares the researcher's masks, h^(−Σ sk) (Joye-Libert 2013, §3, `AggrDec`).
    pub fn masker(&self, group: &Group) -> Result<Masker, Problem> {
        if self.spec.id(group) != self.id {
            return Err(Problem::OtherModulus);
        }
        let bits = KEY_BITS + self.spec.parties.count().next_power_of_two().ilog2();
        let exponent = Exponent::from_be_bytes(self.sum.expose(), bits);
        Ok(Masker { group: group.clone(), exponent, side: Side::Researcher })
    }
}
