//! Enrolment tokens: what a researcher hands to a hospital, once, so that its node can enrol.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::Digest;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::address::{Address, AddressError};
use crate::host::TokenSecret;
use crate::identity::Fingerprint;
use crate::secret::SecretText;

pub(crate) const PREFIX: &str = "fbm1_";
const CHECKSUM_BYTES: usize = 4;

/// Why a text is no token, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("this is no enrolment token: a token begins with {PREFIX}; copy the last word that `researcher invite` printed")]
    Prefix,
    #[error("the token is damaged or cut off: copy it again, from {PREFIX} to its end")]
    Damaged,
    #[error("the token's address cannot be used: {0}; ask the researcher for a token with another address")]
    Address(#[from] AddressError),
}

impl TokenSecret {
    /// Draws 256 bits.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self(URL_SAFE_NO_PAD.encode(bytes.as_ref()))
    }

    /// What a researcher stores instead of the secret. The secret has 256 random bits, so that a fast hash suffices.
    pub fn hash(&self) -> Digest {
        Digest::from_bytes(blake3::derive_key("fedbiomed enrolment token secret v1", self.0.as_bytes()))
    }
}

/// Where the researcher is, by which authority it is known, and a secret that is good once.
pub struct EnrolmentToken {
    address: Address,
    authority: Fingerprint,
    secret: TokenSecret,
}

impl EnrolmentToken {
    /// Makes a token with a new secret.
    pub fn new(address: Address, authority: Fingerprint, rng: &mut impl rand::Rng) -> Self {
        Self { address, authority, secret: TokenSecret::random(rng) }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// Writes the token: the prefix, then URL-safe base64 of secret, fingerprint, port, host and checksum.
    pub fn to_text(&self) -> SecretText {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(&self.secret.0).expect("a token's secret is base64"));
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        bytes.extend_from_slice(&secret);
        bytes.extend_from_slice(self.authority.as_bytes());
        bytes.extend_from_slice(&self.address.port().to_be_bytes());
        bytes.extend_from_slice(self.address.host().as_bytes());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        SecretText::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes)))
    }

    /// Reads a token; white space around it is dropped.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if body.len() > 1024 {
            return Err(TokenError::Damaged);
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?);
        let (bytes, check) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if checksum(bytes) != *check {
            return Err(TokenError::Damaged);
        }
        let (secret, rest) = bytes.split_first_chunk::<32>().ok_or(TokenError::Damaged)?;
        let (authority, rest) = rest.split_first_chunk::<32>().ok_or(TokenError::Damaged)?;
        let (port, host) = rest.split_first_chunk::<2>().ok_or(TokenError::Damaged)?;
        let host = std::str::from_utf8(host).map_err(|_| TokenError::Damaged)?;
        Ok(Self {
            address: Address::new(host, u16::from_be_bytes(*port))?,
            authority: Fingerprint::from_bytes(*authority),
            secret: TokenSecret(URL_SAFE_NO_PAD.encode(secret)),
        })
    }
}

/// Finds slips of the hand; who forges a token can compute it.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let key = blake3::derive_key("fedbiomed enrolment token checksum v1", bytes);
    *key.first_chunk().expect("a derived key has 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn token() -> EnrolmentToken {
        let address = Address::parse("researcher.example.org:50051").unwrap();
        EnrolmentToken::new(address, Fingerprint::from_bytes([7; 32]), &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = token().to_text();
        let read = EnrolmentToken::parse(&format!("  {}\n", text.expose())).unwrap();
        assert_eq!(read.address(), token().address());
        assert_eq!(read.authority(), token().authority());
        assert!(read.secret().0 == token().secret().0);
        assert!(read.secret().hash() == token().secret().hash());
    }

    #[test]
    fn a_token_whose_address_nobody_can_dial_is_refused() {
        let mut token = token();
        token.address = serde_json::from_str("\"researcher:1\"").unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(&token.to_text().expose()[PREFIX.len()..]).unwrap();
        bytes.truncate(66);
        bytes.extend_from_slice(b"0.0.0.0");
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let refused = EnrolmentToken::parse(&text).err().unwrap();
        assert!(matches!(refused, TokenError::Address(AddressError::Unspecified { .. })), "{refused}");
    }

    proptest! {
        #[test]
        fn a_changed_or_cut_token_is_refused(place in 0_usize..150, digit in "[A-Za-z0-9_-]", cut in 0_usize..150) {
            let text = token().to_text().expose().to_owned();
            let mut changed = text.clone();
            let place = PREFIX.len() + place % (text.len() - PREFIX.len());
            changed.replace_range(place..=place, &digit);
            prop_assert!(changed == text || EnrolmentToken::parse(&changed).is_err());
            prop_assert!(EnrolmentToken::parse(&text[..cut % text.len()]).is_err());
        }

        #[test]
        fn any_text_is_read_without_panic(text in "(fbm1_)?\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EnrolmentToken::parse(&text);
            let _ = EnrolmentToken::parse(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)));
        }
    }
}
