//! Who is who: keys, certificates, fingerprints. A federation has one certificate authority, held by its researcher; nodes
//! have certificates from it that hold their id, good for clients only, the researcher one that is good for servers only.
//!
//! Keys are drawn inside the cryptographic library from the system's entropy; nothing else here is random unless given.

mod authority;
mod certificate;
mod exchange;
mod fingerprint;
mod key;
mod node;

use thiserror::Error;

pub use authority::{FederationCa, ServerIdentity};
pub use certificate::Certificate;
pub use exchange::{EnrolmentAnswer, MAX_EXCHANGE_FILE, SigningRequest};
pub use fingerprint::Fingerprint;
pub use key::{SecretKey, TaskKey};
pub use node::{EnrolledIdentity, NodeIdentity};

/// Why an identity, or a proof of one, is not good.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("this is no PEM of a {0}")]
    Pem(&'static str),
    #[error("this is no private key of the kind that is used here (ECDSA P-256 in PKCS #8)")]
    Key,
    #[error("this is no certificate: {0}")]
    Certificate(&'static str),
    #[error("the certificate does not belong to the key")]
    OtherKey,
    #[error("the certificate is for {found}, expected {expected}")]
    OtherName { expected: String, found: String },
    #[error("the certificate was not issued by this authority")]
    OtherIssuer,
    #[error("the signing request is malformed or not signed with its key")]
    Request,
    #[error("this is no fingerprint: expected 64 hexadecimal digits")]
    Fingerprint,
    #[error("the signature does not fit")]
    Signature,
    #[error("the certificate cannot be made")]
    Issue(#[source] rcgen::Error),
}
