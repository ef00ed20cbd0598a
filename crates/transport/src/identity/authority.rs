//! The certificate authority of one federation.

use std::time::Duration;

use protocol::{NodeId, ResearcherId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateSigningRequestDer;

use super::certificate::NODE_URI_PREFIX;
use super::{Certificate, IdentityError, SecretKey};
use crate::secret::SecretText;
use crate::tls::SERVER_NAME;

/// Clocks of two machines may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// A federation's certificate authority: its self-signed certificate and key.
pub struct FederationCa {
    certificate: Certificate,
    key: SecretKey,
}

/// What a researcher's server presents: its certificate, the authority's, and the key.
pub struct ServerIdentity {
    certificate: Certificate,
    authority: Certificate,
    key: SecretKey,
}

fn parameters(
    subject: &str,
    now: Timestamp,
    validity: Duration,
    rng: &mut impl rand::Rng,
) -> Result<CertificateParams, IdentityError> {
    let date = |timestamp: Timestamp| {
        let seconds = i64::try_from(timestamp.as_millis() / 1000).expect("a Timestamp ends with the year 9999");
        time::OffsetDateTime::from_unix_timestamp(seconds).expect("a Timestamp ends with the year 9999")
    };
    let mut parameters = CertificateParams::new(Vec::new()).map_err(IdentityError::Issue)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject);
    parameters.distinguished_name = name;
    let skew = u64::try_from(CLOCK_SKEW.as_millis()).expect("an hour fits");
    parameters.not_before = date(Timestamp::from_millis(now.as_millis().saturating_sub(skew)));
    parameters.not_after = date(now.saturating_add(validity));
    parameters.serial_number = Some(serial(rng));
    parameters.use_authority_key_identifier_extension = true;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}

/// 127 random bits: positive and unique (RFC 5280 §4.1.2.2).
fn serial(rng: &mut impl rand::Rng) -> SerialNumber {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

impl FederationCa {
    /// Makes the authority of a researcher's federation.
    pub fn create(
        researcher: &ResearcherId,
        now: Timestamp,
        validity: Duration,
        rng: &mut impl rand::Rng,
    ) -> Result<Self, IdentityError> {
        let key = SecretKey::generate();
        let mut parameters = parameters(&format!("Federation of {researcher}"), now, validity, rng)?;
        parameters.use_authority_key_identifier_extension = false;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key).map_err(IdentityError::Issue)?;
        Ok(Self { certificate: Certificate::from_der(certificate.der())?, key })
    }

    pub fn from_pem(certificate: &str, key: &SecretText) -> Result<Self, IdentityError> {
        let certificate = Certificate::from_pem(certificate)?;
        let key = SecretKey::from_pem(key)?;
        if certificate.key_fingerprint() != key.fingerprint() {
            return Err(IdentityError::OtherKey);
        }
        Ok(Self { certificate, key })
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub fn key_pem(&self) -> SecretText {
        self.key.to_pem()
    }

    /// Signs what is no certificate; the message begins with its own label.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.signature(message)
    }

    fn issue(&self, parameters: &CertificateParams, public_key: &impl PublicKeyData) -> Result<Certificate, IdentityError> {
        let issuer = Issuer::from_ca_cert_der(self.certificate.as_der(), &self.key).map_err(IdentityError::Issue)?;
        let certificate = parameters.signed_by(public_key, &issuer).map_err(IdentityError::Issue)?;
        Certificate::from_der(certificate.der())
    }

    /// Makes a key and a certificate for the researcher's server; not good for clients.
    pub fn issue_server(
        &self,
        now: Timestamp,
        validity: Duration,
        rng: &mut impl rand::Rng,
    ) -> Result<ServerIdentity, IdentityError> {
        let key = SecretKey::generate();
        let mut parameters = parameters(SERVER_NAME, now, validity, rng)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into().map_err(IdentityError::Issue)?)];
        let certificate = self.issue(&parameters, &key)?;
        Ok(ServerIdentity { certificate, authority: self.certificate.clone(), key })
    }

    /// Makes a certificate for a node's key; not good for servers. Of the request (PKCS #10, DER) only the key is taken, and
    /// the proof that the asker has it.
    pub fn issue_node(
        &self,
        request: &[u8],
        node: &NodeId,
        now: Timestamp,
        validity: Duration,
        rng: &mut impl rand::Rng,
    ) -> Result<Certificate, IdentityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|_| IdentityError::Request)?;
        if *request.public_key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(IdentityError::Key);
        }
        let mut parameters = parameters(node.as_str(), now, validity, rng)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("{NODE_URI_PREFIX}{node}");
        parameters.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(IdentityError::Issue)?)];
        self.issue(&parameters, &request.public_key)
    }
}

impl ServerIdentity {
    pub fn from_pem(certificate: &str, authority: &Certificate, key: &SecretText) -> Result<Self, IdentityError> {
        let (certificate, key) = (Certificate::from_pem(certificate)?, SecretKey::from_pem(key)?);
        if certificate.key_fingerprint() != key.fingerprint() {
            return Err(IdentityError::OtherKey);
        }
        certificate.check_issuer(authority)?;
        Ok(Self { certificate, authority: authority.clone(), key })
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub fn authority(&self) -> &Certificate {
        &self.authority
    }

    pub fn key_pem(&self) -> SecretText {
        self.key.to_pem()
    }

    pub(crate) fn key(&self) -> &SecretKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::identity::NodeIdentity;

    const NOW: Timestamp = Timestamp::MAX;

    fn authority() -> (FederationCa, StdRng) {
        let mut rng = StdRng::seed_from_u64(1);
        let researcher = ResearcherId::random(&mut rng);
        let now = Timestamp::from_millis(1_790_000_000_000);
        (FederationCa::create(&researcher, now, Duration::from_hours(24), &mut rng).unwrap(), rng)
    }

    #[test]
    fn a_certificate_holds_the_id_that_the_authority_chose() {
        let (authority, mut rng) = authority();
        let chosen = NodeId::random(&mut rng);
        let asked_as = NodeIdentity::create(NodeId::random(&mut rng));
        let request = asked_as.signing_request().unwrap();
        let now = Timestamp::from_millis(1_790_000_000_000);
        let issued = authority.issue_node(&request, &chosen, now, Duration::from_hours(24), &mut rng).unwrap();
        assert_eq!(issued.node(), Some(&chosen));
        assert_eq!(issued.subject(), chosen.as_str());
        assert_eq!(issued.not_after(), now.saturating_add(Duration::from_hours(24)));
        assert!(issued.check_issuer(authority.certificate()).is_ok());
        assert!(asked_as.check(&issued, authority.certificate()).is_err(), "it is for another node");
    }

    #[test]
    fn the_end_of_time_is_a_date_too() {
        let (authority, mut rng) = authority();
        let node = NodeIdentity::create(NodeId::random(&mut rng));
        let request = node.signing_request().unwrap();
        let issued = authority.issue_node(&request, node.node(), NOW, Duration::MAX, &mut rng).unwrap();
        assert_eq!(issued.not_after().as_millis() / 1000, Timestamp::MAX.as_millis() / 1000);
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_request_and_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (authority, mut rng) = authority();
            let node = NodeId::random(&mut rng);
            prop_assert!(authority.issue_node(&bytes, &node, NOW, Duration::from_hours(1), &mut rng).is_err());
            prop_assert!(Certificate::from_der(&bytes).is_err());
        }

        #[test]
        fn a_changed_request_brings_no_certificate_for_another_key(place in 0_usize..400, byte in any::<u8>()) {
            let (authority, mut rng) = authority();
            let node = NodeIdentity::create(NodeId::random(&mut rng));
            let mut request = node.signing_request().unwrap();
            let place = place % request.len();
            prop_assume!(request[place] != byte);
            request[place] = byte;
            // Not each byte is signed: the request's own frame is not.
            if let Ok(issued) = authority.issue_node(&request, node.node(), NOW, Duration::from_hours(1), &mut rng) {
                prop_assert!(node.check(&issued, authority.certificate()).is_ok());
            }
            let mut certificate = authority.certificate().as_der().to_vec();
            let place = place % certificate.len();
            certificate[place] = byte;
            let _ = Certificate::from_der(&certificate);
        }
    }
}
