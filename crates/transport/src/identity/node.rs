//! The identity of a node: its id and key, and what a federation made of them.

use protocol::NodeId;
use rcgen::{CertificateParams, DistinguishedName, DnType};

use super::{Certificate, IdentityError, SecretKey};
use crate::secret::SecretText;

/// A node's id and key. The key never leaves the node.
pub struct NodeIdentity {
    node: NodeId,
    key: SecretKey,
}

impl NodeIdentity {
    /// Makes a key.
    pub fn create(node: NodeId) -> Self {
        Self { node, key: SecretKey::generate() }
    }

    pub fn from_pem(node: NodeId, key: &SecretText) -> Result<Self, IdentityError> {
        Ok(Self { node, key: SecretKey::from_pem(key)? })
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    pub fn key_pem(&self) -> SecretText {
        self.key.to_pem()
    }

    /// The key as PKCS #8 in DER, for the signatures of secure aggregation, which need another library's form of it.
    pub fn key_der(&self) -> zeroize::Zeroizing<Vec<u8>> {
        self.key.to_der()
    }

    /// Writes a certificate signing request (PKCS #10, DER).
    pub fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut parameters = CertificateParams::new(Vec::new()).map_err(IdentityError::Issue)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.node.as_str());
        parameters.distinguished_name = name;
        let request = parameters.serialize_request(&self.key).map_err(IdentityError::Issue)?;
        Ok(request.der().to_vec())
    }

    /// Fails unless the certificate is from `authority`, for this node and key.
    pub fn check(&self, certificate: &Certificate, authority: &Certificate) -> Result<(), IdentityError> {
        if certificate.key_fingerprint() != self.key.fingerprint() {
            return Err(IdentityError::OtherKey);
        }
        if certificate.node() != Some(&self.node) {
            return Err(IdentityError::OtherName {
                expected: self.node.to_string(),
                found: certificate.subject().to_owned(),
            });
        }
        certificate.check_issuer(authority)
    }

    /// Puts key and certificate together, if they fit.
    pub fn enrolled(self, certificate: Certificate, authority: Certificate) -> Result<EnrolledIdentity, IdentityError> {
        self.check(&certificate, &authority)?;
        Ok(EnrolledIdentity { identity: self, certificate, authority })
    }
}

/// A node's identity in one federation.
pub struct EnrolledIdentity {
    identity: NodeIdentity,
    certificate: Certificate,
    authority: Certificate,
}

impl EnrolledIdentity {
    pub fn node(&self) -> &NodeId {
        &self.identity.node
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The pinned authority of the federation.
    pub fn authority(&self) -> &Certificate {
        &self.authority
    }

    pub(crate) fn key(&self) -> &SecretKey {
        &self.identity.key
    }
}
