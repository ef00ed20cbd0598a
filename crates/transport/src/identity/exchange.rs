//! The two files by which a node is enrolled without a connection: its signing request, and the researcher's answer.
//!
//! Both are PEM blocks (RFC 7468) below lines for people. Of a request only the signed block counts. An answer is signed by
//! the federation's authority as a whole, so that who compares the authority's fingerprint has compared everything in it.

use std::fmt::Write as _;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use protocol::{NodeId, ResearcherId};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use super::{Certificate, FederationCa, Fingerprint, IdentityError, NodeIdentity, TaskKey};
use crate::address::Address;
use crate::secret::{from_pem, to_pem};

/// The longest file that is read, in bytes; a real one has less than 4 KiB.
pub const MAX_EXCHANGE_FILE: u64 = 64 << 10;

const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";
const NODE_LABEL: &str = "NODE CERTIFICATE";
const AUTHORITY_LABEL: &str = "FEDERATION CERTIFICATE";
const TASK_KEY_LABEL: &str = "TASK KEY";
const SIGNATURE_LABEL: &str = "SIGNATURE";
const SIGNED: &str = "fedbiomed enrolment answer v1";

/// A node's wish for a certificate, proved to come from the holder of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    node: NodeId,
    key_fingerprint: Fingerprint,
    der: Vec<u8>,
}

impl SigningRequest {
    pub fn new(identity: &NodeIdentity) -> Result<Self, IdentityError> {
        Self::from_der(&identity.signing_request()?)
    }

    fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| IdentityError::Request)?;
        request.verify_signature().map_err(|_| IdentityError::Request)?;
        let information = &request.certification_request_info;
        let name = information.subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let node = name.and_then(|name| name.parse().ok()).filter(|_| rest.is_empty()).ok_or(IdentityError::Request)?;
        Ok(Self { node, key_fingerprint: Fingerprint::of(information.subject_pki.raw), der: der.to_vec() })
    }

    /// Reads a request file.
    pub fn from_text(text: &str) -> Result<Self, IdentityError> {
        Self::from_der(&from_pem(REQUEST_LABEL, text).ok_or(IdentityError::Pem("signing request"))?)
    }

    /// Writes a request file. The name helps the people at the other end; nothing trusts it.
    pub fn to_text(&self, name: &str) -> String {
        let Self { node, key_fingerprint, der } = self;
        format!(
            "Fed-BioMed signing request\nNode: {node}\nName: {name}\nKey fingerprint: {key_fingerprint}\n\n{}",
            to_pem(REQUEST_LABEL, der).as_str()
        )
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    pub fn key_fingerprint(&self) -> Fingerprint {
        self.key_fingerprint
    }

    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

/// What a researcher answers to a signing request: all that an enrolled node keeps. Its signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentAnswer {
    pub researcher: ResearcherId,
    /// Where the researcher is reached, if it knows.
    pub address: Option<Address>,
    pub certificate: Certificate,
    pub authority: Certificate,
    pub task_key: TaskKey,
    signature: Vec<u8>,
}

impl EnrolmentAnswer {
    /// Signs an answer for the node of `certificate`.
    pub fn new(
        ca: &FederationCa,
        researcher: ResearcherId,
        address: Option<Address>,
        certificate: Certificate,
        task_key: TaskKey,
    ) -> Self {
        let authority = ca.certificate().clone();
        let mut answer = Self { researcher, address, certificate, authority, task_key, signature: Vec::new() };
        answer.signature = ca.sign(&answer.signed_bytes());
        answer
    }

    /// All fields, each with its length before it.
    fn signed_bytes(&self) -> Vec<u8> {
        let address = self.address.as_ref().map(Address::to_string).unwrap_or_default();
        let mut bytes = Vec::new();
        for field in [
            SIGNED.as_bytes(),
            self.researcher.as_str().as_bytes(),
            address.as_bytes(),
            self.certificate.as_der(),
            self.authority.as_der(),
            self.task_key.as_point(),
        ] {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field);
        }
        bytes
    }

    /// Writes an answer file.
    pub fn to_text(&self) -> String {
        let Self { researcher, address, certificate, authority, task_key, signature } = self;
        let mut text = format!("Fed-BioMed enrolment answer\nResearcher: {researcher}\n");
        if let Some(address) = address {
            let _ = writeln!(text, "Address: {address}");
        }
        let _ = writeln!(text, "Node: {}", certificate.subject());
        let _ = writeln!(text, "Node's key fingerprint: {}", certificate.key_fingerprint());
        let _ = writeln!(text, "Federation's fingerprint: {}", authority.key_fingerprint());
        let _ = writeln!(text, "Good until: {}\n", certificate.not_after());
        for (label, der) in [
            (NODE_LABEL, certificate.as_der().as_ref()),
            (AUTHORITY_LABEL, authority.as_der().as_ref()),
            (TASK_KEY_LABEL, task_key.as_point()),
            (SIGNATURE_LABEL, signature),
        ] {
            text.push_str(&to_pem(label, der));
        }
        text
    }

    /// Reads an answer file, and checks that the authority in it signed the rest.
    pub fn from_text(text: &str) -> Result<Self, IdentityError> {
        const WHAT: IdentityError = IdentityError::Pem("researcher's answer");
        let block = |label| from_pem(label, text).ok_or(WHAT);
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let answer = Self {
            researcher: header("Researcher").and_then(|id| id.trim().parse().ok()).ok_or(WHAT)?,
            address: header("Address").map(|address| Address::parse(address.trim())).transpose().map_err(|_| WHAT)?,
            certificate: Certificate::from_der(&block(NODE_LABEL)?)?,
            authority: Certificate::from_der(&block(AUTHORITY_LABEL)?)?,
            task_key: TaskKey::from_point(&block(TASK_KEY_LABEL)?)?,
            signature: block(SIGNATURE_LABEL)?.to_vec(),
        };
        verify(answer.authority.as_der(), &answer.signed_bytes(), &answer.signature)?;
        answer.certificate.check_issuer(&answer.authority)?;
        Ok(answer)
    }
}

/// Fails unless the holder of the certificate's key signed the message.
fn verify(signer: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> Result<(), IdentityError> {
    let (_, signer) = X509Certificate::from_der(signer).map_err(|_| IdentityError::Certificate("malformed"))?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &signer.public_key().subject_public_key.data);
    key.verify(message, signature).map_err(|_| IdentityError::Signature)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use protocol::Timestamp;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::identity::SecretKey;

    const YEAR: Duration = Duration::from_hours(365 * 24);

    fn node() -> NodeIdentity {
        NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(1)))
    }

    fn answer(node: &NodeIdentity) -> EnrolmentAnswer {
        let (mut rng, now) = (StdRng::seed_from_u64(2), Timestamp::from_millis(1_800_000_000_000));
        let researcher = ResearcherId::random(&mut rng);
        let ca = FederationCa::create(&researcher, now, YEAR, &mut rng).unwrap();
        let request = SigningRequest::new(node).unwrap();
        let certificate = ca.issue_node(request.as_der(), request.node(), now, YEAR, &mut rng).unwrap();
        let task_key = TaskKey::from_point(SecretKey::generate().public_point()).unwrap();
        EnrolmentAnswer::new(&ca, researcher, Some(Address::parse("a.example.org").unwrap()), certificate, task_key)
    }

    #[test]
    fn what_is_written_reads_back() {
        let node = node();
        let request = SigningRequest::new(&node).unwrap();
        assert_eq!(request.node(), node.node());
        assert_eq!(SigningRequest::from_text(&request.to_text("North\nNode: x")).unwrap(), request);
        let answer = answer(&node);
        assert_eq!(answer.certificate.key_fingerprint(), request.key_fingerprint());
        // Files come by mail, with other line ends.
        let text = answer.to_text().replace('\n', "\r\n");
        assert_eq!(EnrolmentAnswer::from_text(&text).unwrap(), answer);
        assert!(node.enrolled(answer.certificate, answer.authority).is_ok());
    }

    #[test]
    fn parts_of_two_answers_do_not_mix() {
        let (first, second) = (answer(&node()), answer(&node()));
        let mixed = [
            EnrolmentAnswer { task_key: second.task_key.clone(), ..first.clone() },
            EnrolmentAnswer { certificate: second.certificate.clone(), ..first.clone() },
            EnrolmentAnswer { authority: second.authority.clone(), ..first.clone() },
            EnrolmentAnswer { address: None, ..first.clone() },
            EnrolmentAnswer { researcher: ResearcherId::random(&mut StdRng::seed_from_u64(9)), ..first },
        ];
        for mixed in mixed {
            assert!(matches!(EnrolmentAnswer::from_text(&mixed.to_text()), Err(IdentityError::Signature)));
        }
    }

    proptest! {
        #[test]
        fn a_changed_character_is_harmless_or_refused(place in 0_usize..4000, by in "[A-Za-z0-9+/\n -]") {
            let answer = answer(&node());
            let mut text = answer.to_text();
            let place = place % text.len();
            text.replace_range(place..=place, &by);
            prop_assert!(EnrolmentAnswer::from_text(&text).is_ok_and(|read| read == answer) || EnrolmentAnswer::from_text(&text).is_err());
        }
    }
}
