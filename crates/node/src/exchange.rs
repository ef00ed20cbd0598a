//! Enrolling by files that people carry: the node's signing request, and the researcher's answer to it.
//!
//! Each request has a key of its own, which waits in the key store until the answer comes.

use component::keystore::Secret;
use protocol::ResearcherId;
use serde_json::json;
use transport::address::Address;
use transport::identity::{EnrolmentAnswer, Fingerprint, NodeIdentity, SigningRequest};
use transport::secret::SecretText;

use crate::command::CertificateRow;
use crate::enrolment::{EnrolmentError, check_authority, short};
use crate::handle::NodeHandle;
use crate::store::Enrolment;

const PREFIX: &str = "request.";
const SUFFIX: &str = ".key";

fn request_name(key: &Fingerprint) -> String {
    format!("{PREFIX}{}{SUFFIX}", short(key))
}

impl NodeHandle {
    /// Makes a key and a request for a certificate of it.
    pub fn request_certificate(&self) -> Result<SigningRequest, EnrolmentError> {
        let identity = NodeIdentity::create(self.id().clone());
        let request = SigningRequest::new(&identity)?;
        let key = request.key_fingerprint();
        self.keys().write(&request_name(&key), &Secret::new(identity.key_pem().expose().to_owned()))?;
        self.audit("certificate.requested", json!({ "key": key.to_string() }))?;
        Ok(request)
    }

    /// Takes a researcher's answer to a request of this node.
    pub fn enrol_by_file(&self, answer: &str, address: Option<&str>, replaces: bool) -> Result<Enrolment, EnrolmentError> {
        self.take_answer(answer, address, replaces).inspect_err(|error| {
            let facts = json!({ "by": "file", "reason": error.to_string() });
            // An enrolment that is refused is refused, written down or not.
            let _ = self.audit("enrolment.refused", facts);
        })
    }

    fn take_answer(&self, answer: &str, address: Option<&str>, replaces: bool) -> Result<Enrolment, EnrolmentError> {
        let answer = EnrolmentAnswer::from_text(answer)?;
        let before = self.store().enrolment(&answer.researcher)?;
        check_authority(&answer.researcher, &answer.authority, before.as_ref())?;
        let key = answer.certificate.key_fingerprint();
        let identity = match (self.requested(&request_name(&key))?, &before) {
            (Some(identity), _) => identity,
            // The answer to a request that was answered before, such as a longer certificate.
            (None, Some(before)) if before.certificate.key_fingerprint() == key => self.node_identity(before)?,
            (None, _) => return Err(EnrolmentError::NoRequest(key)),
        };
        identity.check(&answer.certificate, &answer.authority)?;
        if answer.certificate.is_expired(self.now()) {
            return Err(EnrolmentError::Expired(answer.certificate.not_after()));
        }
        if before.is_some() && !replaces {
            return Err(EnrolmentError::Known(answer.researcher));
        }
        let enrolment = Enrolment {
            researcher: answer.researcher.clone(),
            address: self.address_for(address, answer.address)?,
            authority: answer.authority,
            certificate: answer.certificate,
            task_key: answer.task_key,
            allowed: true,
            enrolled: self.now(),
        };
        let enrolment = self.keep(&identity, enrolment, before, "file")?;
        self.keys().remove(&request_name(&key))?;
        Ok(enrolment)
    }

    fn address_for(&self, given: Option<&str>, answered: Option<Address>) -> Result<Address, EnrolmentError> {
        let configured = &self.config().researcher;
        match (given, answered, &configured.host) {
            (Some(given), ..) => Ok(Address::parse(given)?),
            (None, Some(answered), _) => Ok(answered),
            (None, None, Some(host)) => match configured.port {
                Some(port) => Ok(Address::new(host, port)?),
                None => Ok(Address::parse(host)?),
            },
            (None, None, None) => Err(EnrolmentError::NoAddress),
        }
    }

    fn requested(&self, name: &str) -> Result<Option<NodeIdentity>, EnrolmentError> {
        if !self.keys().has(name) {
            return Ok(None);
        }
        let key = self.keys().read(name)?;
        Ok(Some(NodeIdentity::from_pem(self.id().clone(), &SecretText::new(key.expose().to_owned()))?))
    }

    /// Drops a request that was not answered, with its key; by the beginning of the key's fingerprint.
    pub fn forget_request(&self, typed: &str) -> Result<Fingerprint, EnrolmentError> {
        let digits: String = typed.chars().filter(|char| !char.is_whitespace()).collect();
        let mut meant = self.open_requests()?;
        meant.retain(|key| short(key).starts_with(&digits.to_lowercase()) || key.to_string() == typed);
        match meant.as_slice() {
            // Enough of it to be no slip of the hand.
            [key] if digits.len() >= 4 => {
                self.audit("certificate.request_dropped", json!({ "key": key.to_string() }))?;
                self.keys().remove(&request_name(key))?;
                Ok(*key)
            }
            _ => Err(EnrolmentError::NoCertificate(typed.to_owned())),
        }
    }

    fn open_requests(&self) -> Result<Vec<Fingerprint>, EnrolmentError> {
        let names = self.keys().names()?;
        let is_request = |name: &&String| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        let mut keys = Vec::new();
        for name in names.iter().filter(is_request) {
            if let Some(identity) = self.requested(name)? {
                keys.push(SigningRequest::new(&identity)?.key_fingerprint());
            }
        }
        Ok(keys)
    }

    /// The node's certificates, then its open requests.
    pub(crate) fn certificate_rows(&self) -> Result<Vec<CertificateRow>, EnrolmentError> {
        let certified = self.store().enrolments()?.into_iter().map(|enrolment| self.certificate_row(&enrolment));
        let requested = self.open_requests()?.into_iter().map(|key| CertificateRow {
            state: "requested".to_owned(),
            node: self.id().clone(),
            key_fingerprint: key.to_string(),
            researcher: None,
            address: None,
            ca_fingerprint: None,
            good_from: None,
            good_until: None,
        });
        Ok(certified.chain(requested).collect())
    }

    fn certificate_row(&self, enrolment: &Enrolment) -> CertificateRow {
        let Enrolment { researcher, address, authority, certificate, .. } = enrolment;
        let state = match (certificate.is_expired(self.now()), certificate.is_due(self.now())) {
            (true, _) => "expired",
            (false, true) => "to be renewed",
            (false, false) => "good",
        };
        CertificateRow {
            state: state.to_owned(),
            node: self.id().clone(),
            key_fingerprint: certificate.key_fingerprint().to_string(),
            researcher: Some(ResearcherId::clone(researcher)),
            address: Some(address.to_string()),
            ca_fingerprint: Some(authority.key_fingerprint().to_string()),
            good_from: Some(certificate.not_before().to_string()),
            good_until: Some(certificate.not_after().to_string()),
        }
    }
}
