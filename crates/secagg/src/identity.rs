//! Identity keys of nodes: ECDSA over P-256 with SHA-256, deterministic (FIPS 186-5, RFC 6979), `s` in the lower half so that a
//! signature has one form.

use std::fmt;

use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature as Ecdsa, SigningKey, VerifyingKey};
use p256::pkcs8::DecodePrivateKey;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::wire::Fixed;

/// Signs for a node; kept by the component's key store, never part of a role's state.
pub struct IdentityKey(SigningKey);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IdentityKey")
    }
}

impl IdentityKey {
    /// Reads a P-256 key from PKCS#8 DER (RFC 5208).
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, Problem> {
        SigningKey::from_pkcs8_der(der).map(Self).map_err(|_| Problem::Malformed { what: "identity key" })
    }

    /// Takes the 32 bytes of the secret number, big-endian, as vectors give it.
    pub fn from_scalar(bytes: &[u8; 32]) -> Result<Self, Problem> {
        SigningKey::from_slice(bytes).map(Self).map_err(|_| Problem::Malformed { what: "identity key" })
    }

    /// Gives the public half.
    pub fn public(&self) -> IdentityPublic {
        let point = self.0.verifying_key().to_sec1_point(false);
        IdentityPublic(Fixed(point.as_bytes().try_into().expect("an uncompressed P-256 point has 65 bytes")))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        let signature: Ecdsa = self.0.sign(message);
        let bytes: [u8; 64] = signature.normalize_s().to_bytes().into();
        Signature(Fixed(bytes))
    }
}

/// Is a node's identity: an uncompressed point of P-256, 65 bytes (SEC 1 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Fixed<65>", into = "Fixed<65>")]
pub struct IdentityPublic(Fixed<65>);

impl IdentityPublic {
    /// Checks that the bytes are an uncompressed point of the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let fixed = Fixed::from_slice("identity key", bytes)?;
        match VerifyingKey::from_sec1_bytes(bytes) {
            Ok(_) => Ok(Self(fixed)),
            Err(_) => Err(Problem::Malformed { what: "identity key" }),
        }
    }

    /// Returns the 65 bytes.
    pub fn as_bytes(&self) -> &[u8; 65] {
        &self.0.0
    }

    /// Tells whether the signature is this identity's, in its one form.
    pub(crate) fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_sec1_bytes(&self.0.0) else { return false };
        let Ok(signature) = Ecdsa::from_slice(&signature.0.0) else { return false };
        signature.normalize_s() == signature && key.verify(message, &signature).is_ok()
    }
}

impl TryFrom<Fixed<65>> for IdentityPublic {
    type Error = Problem;

    fn try_from(bytes: Fixed<65>) -> Result<Self, Problem> {
        Self::from_bytes(&bytes.0)
    }
}

impl From<IdentityPublic> for Fixed<65> {
    fn from(key: IdentityPublic) -> Self {
        key.0
    }
}

/// Is r ‖ s, 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(pub Fixed<64>);

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6979 §A.2.5, P-256 with SHA-256, message "sample"; its s is in the upper half, so that ours is the curve's order less it.
    #[test]
    fn signature_of_the_rfc_in_its_lower_form() {
        let scalar: Fixed<32> =
            Fixed::from_hex("scalar", "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").unwrap();
        let key = IdentityKey::from_scalar(&scalar.0).unwrap();
        let signature = key.sign(b"sample");
        assert_eq!(
            signature.0.to_string(),
            concat!(
                "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
                "0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9"
            )
        );
        assert!(key.public().verifies(b"sample", &signature));
        assert!(!key.public().verifies(b"simple", &signature));
        let upper: Fixed<32> =
            Fixed::from_hex("s", "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8").unwrap();
        let mut other = signature;
        other.0.0[32..].copy_from_slice(&upper.0);
        assert!(!key.public().verifies(b"sample", &other), "the upper form is refused");
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let mut bytes = *IdentityKey::from_scalar(&[7; 32]).unwrap().public().as_bytes();
        assert!(IdentityPublic::from_bytes(&bytes).is_ok());
        bytes[64] ^= 1;
        assert_eq!(IdentityPublic::from_bytes(&bytes), Err(Problem::Malformed { what: "identity key" }));
        assert!(IdentityPublic::from_bytes(&bytes[..64]).is_err());
    }
}
