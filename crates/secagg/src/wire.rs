//! Bytes: how values are joined for hashing, signing and sealing, and how values that others wrote are read (specification §1 and
//! §3). Only numbers are read elsewhere, beside their arithmetic: shares by [`crate::shamir::read`], ciphertexts and stored masks of
//! [`crate::joye_libert`] by `group.rs` and `cipher.rs`, which check length and range of each before it is used.

use std::fmt;

use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::problem::Problem;

/// Begins every label.
const PREFIX: &[u8] = b"fedbiomed-secagg/1 ";

/// Joins bytes in the notation of specification §1.
#[derive(Clone, Default)]
pub(crate) struct Joined(Vec<u8>);

impl Joined {
    /// Begins with a label.
    pub(crate) fn label(label: &str) -> Self {
        Self(Vec::with_capacity(256)).raw(PREFIX).raw(label.as_bytes()).raw(&[0])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    /// Adds the length as `u32`, then the bytes.
    pub(crate) fn prefixed(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("what is joined is far below 4 GiB");
        self.u32(length).raw(bytes)
    }

    /// Adds the number of items, then each with its length.
    pub(crate) fn list<'item>(self, items: impl ExactSizeIterator<Item = &'item [u8]>) -> Self {
        let count = u32::try_from(items.len()).expect("lists of parties hold at most 65,536");
        items.fold(self.u32(count), Self::prefixed)
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Writes lower-case hexadecimal digits.
fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

/// Reads lower-case hexadecimal digits, so that every value has one text.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Holds public bytes of a fixed length; as text, lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fixed<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Debug for Fixed<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl<const N: usize> fmt::Display for Fixed<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl<const N: usize> Fixed<N> {
    /// Takes bytes of exactly this length.
    pub fn from_slice(what: &'static str, bytes: &[u8]) -> Result<Self, Problem> {
        let bytes = bytes.try_into().map_err(|_| Problem::Length { what, expected: N, got: bytes.len() })?;
        Ok(Self(bytes))
    }

    /// Reads lower-case hexadecimal digits of exactly this length.
    pub fn from_hex(what: &'static str, text: &str) -> Result<Self, Problem> {
        Self::from_slice(what, &from_hex(text).ok_or(Problem::Malformed { what })?)
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex("value", &text).map_err(D::Error::custom)
    }
}

/// Holds public bytes of any length; as text, lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(&text).map(Self).ok_or_else(|| D::Error::custom("not lower-case hexadecimal"))
    }
}

/// Holds secret bytes: neither printed nor compared, wiped on drop. Serialised for the node's own encrypted store only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    pub(crate) fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    pub(crate) fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Self([0; N]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Serialize for Secret<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(to_hex(&self.0)))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Secret<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = Zeroizing::new(from_hex(&text).ok_or_else(|| D::Error::custom("not lower-case hexadecimal"))?);
        let bytes = bytes.as_slice().try_into().map_err(|_| D::Error::custom("a secret of another length"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_has_one_form_and_one_length() {
        let value: Fixed<2> = serde_json::from_str("\"0aff\"").unwrap();
        assert_eq!((value.0, value.to_string().as_str()), ([10, 255], "0aff"));
        for wrong in ["\"0AFF\"", "\"0af\"", "\"0aff00\"", "\"0agf\"", "\"\"", "5"] {
            assert!(serde_json::from_str::<Fixed<2>>(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Secret<2>>("\"0aff00\"").is_err());
        assert_eq!(serde_json::from_str::<Blob>("\"0aff00\"").unwrap(), Blob(vec![10, 255, 0]));
    }

    #[test]
    fn labels_and_lists_follow_the_notation() {
        let joined = Joined::label("x").u16(1).list([b"ab".as_slice(), b"".as_slice()].into_iter());
        assert_eq!(joined.as_ref(), b"fedbiomed-secagg/1 x\0\0\x01\0\0\0\x02\0\0\0\x02ab\0\0\0\0");
    }
}
