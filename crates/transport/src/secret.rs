//! Text that is nobody else's business: not printed, not compared, wiped on drop. Also PEM, the text form of keys and
//! certificates (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A secret text, such as a private key in PEM.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Shows the secret, to be written to a file for its owner only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Writes DER as PEM with lines of 64 characters.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Reserved at once: growing would leave copies behind.
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 64));
    pem.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.extend(["-----END ", label, "-----\n"]);
    pem
}

/// Reads the first block of this label; text around it is skipped.
pub(crate) fn from_pem(label: &str, pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = pem.split_once(&format!("-----BEGIN {label}-----"))?.1;
    let body = body.split_once(&format!("-----END {label}-----"))?.0;
    let mut digits = Zeroizing::new(String::with_capacity(body.len()));
    digits.extend(body.chars().filter(|char| !char.is_ascii_whitespace()));
    Some(Zeroizing::new(STANDARD.decode(digits.as_str()).ok()?))
}
