//! Certificates: read once, then plain values.

use protocol::{NodeId, Timestamp};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Fingerprint, IdentityError};
use crate::secret::{from_pem, to_pem};

const PEM_LABEL: &str = "CERTIFICATE";
/// What stands before a node's id in its certificate's subject alternative name.
pub(super) const NODE_URI_PREFIX: &str = "urn:fedbiomed:node:";

/// A parsed certificate (X.509 version 3). Parsing proves nothing; TLS or [`Certificate::check_issuer`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    subject: String,
    node: Option<NodeId>,
    key_fingerprint: Fingerprint,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Certificate {
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate("malformed"))?;
        if !rest.is_empty() {
            return Err(IdentityError::Certificate("bytes follow it"));
        }
        let seconds = |seconds: i64| Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Ok(Self {
            subject: common_name(&parsed).unwrap_or_default().to_owned(),
            node: node_id(&parsed)?,
            key_fingerprint: Fingerprint::of(parsed.public_key().raw),
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::from_der(&from_pem(PEM_LABEL, pem).ok_or(IdentityError::Pem("certificate"))?)
    }

    pub fn to_pem(&self) -> String {
        to_pem(PEM_LABEL, &self.der).to_string()
    }

    pub fn as_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The common name, for people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The node that the certificate is for; absent in those of a researcher.
    pub fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    pub fn key_fingerprint(&self) -> Fingerprint {
        self.key_fingerprint
    }

    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }

    /// Whether two thirds of its life are over: time to renew. So it is before the life begins, as when the clock that dated
    /// the certificate ran ahead: nobody takes it yet.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.since(self.not_before);
        now < self.not_before || now >= self.not_before.saturating_add(life / 3 * 2)
    }

    /// Fails unless `authority` signed this certificate.
    pub fn check_issuer(&self, authority: &Self) -> Result<(), IdentityError> {
        let read = |der| X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate("malformed"));
        let (own, authority) = (read(&self.der)?.1, read(&authority.der)?.1);
        own.verify_signature(Some(authority.public_key())).map_err(|_| IdentityError::OtherIssuer)
    }
}

fn common_name<'certificate>(certificate: &'certificate X509Certificate<'_>) -> Option<&'certificate str> {
    certificate.subject().iter_common_name().next()?.as_str().ok()
}

fn node_id(certificate: &X509Certificate<'_>) -> Result<Option<NodeId>, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Certificate("its names are malformed"))?;
    let mut ids = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_URI_PREFIX),
        _ => None,
    });
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => id.parse().map(Some).map_err(|_| IdentityError::Certificate("its node id is malformed")),
        (Some(_), Some(_)) => Err(IdentityError::Certificate("it names two nodes")),
    }
}
