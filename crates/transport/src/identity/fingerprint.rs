//! Fingerprints of keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::IdentityError;

/// What precedes the uncompressed point in the `SubjectPublicKeyInfo` of a P-256 key (RFC 5480 §2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The SHA-256 of a public key (of its DER `SubjectPublicKeyInfo`, RFC 5280 §4.1). It outlives renewed certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(public_key_info: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key_info);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The fingerprint of a P-256 key that is given as its uncompressed point (SEC 1 §2.3.3).
    pub fn of_point(point: &[u8; 65]) -> Self {
        let mut info = P256_PREFIX.to_vec();
        info.extend_from_slice(point);
        Self::of(&info)
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    /// Sixteen groups of four digits, for comparing by phone.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in self.0.as_chunks::<2>().0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(formatter, "{space}{:02X}{:02X}", pair[0], pair[1])?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = IdentityError;

    /// Reads 64 hexadecimal digits, with spaces or colons between them or not.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|char| !char.is_whitespace() && *char != ':')
            .map(|char| char.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits: [u8; 64] = digits.and_then(|digits| digits.try_into().ok()).ok_or(IdentityError::Fingerprint)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_out_reads_back_in() {
        // SHA-256 of "abc": FIPS 180-4, NIST's example.
        let fingerprint = Fingerprint::of(b"abc");
        let text = "BA78 16BF 8F01 CFEA 4141 40DE 5DAE 2223 B003 61A3 9617 7A9C B410 FF61 F200 15AD";
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(text.to_lowercase().replace(' ', ":").parse::<Fingerprint>().unwrap(), fingerprint);
        assert!(text[..text.len() - 1].parse::<Fingerprint>().is_err());
        assert!(text.replace('A', "G").parse::<Fingerprint>().is_err());
    }
}
