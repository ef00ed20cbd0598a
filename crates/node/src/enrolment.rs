//! Enrolling with researchers, and the identity that comes of it.
//!
//! A node has one key for each researcher, so that what one of them knows of it says nothing to another. The key never leaves
//! the node.

use std::path::Path;

use component::keystore::{KeyStoreError, Secret};
use protocol::{Refusal, ResearcherId, Timestamp};
use serde_json::json;
use thiserror::Error;
use transport::address::{Address, AddressError};
use transport::grpc::client::{self, GrpcLink};
use transport::grpc::proxy::{ProxyConfig, ProxyError};
use transport::identity::{Certificate, EnrolledIdentity, Fingerprint, IdentityError, NodeIdentity};
use transport::link::LinkError;
use transport::secret::SecretText;
use transport::tls::TlsError;
use transport::token::{EnrolmentToken, TokenError};

use crate::command::{EnrolmentRow, TokenText};
use crate::handle::NodeHandle;
use crate::store::{Enrolment, StoreError};

/// Why a node is not enrolled, or cannot use its enrolment.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(
        "SOMEBODY ELSE ANSWERS AS {researcher}: its authority was {known}, now it is {found}. \
         Nothing was changed. Ask the researcher by phone; if it was set up anew, forget the old enrolment first"
    )]
    OtherAuthority { researcher: ResearcherId, known: Fingerprint, found: Fingerprint },
    #[error("the node is not enrolled with {0}")]
    Unknown(ResearcherId),
    #[error(transparent)]
    Key(#[from] KeyStoreError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "the answer is for the key {0}, and this node has no request with it; \
         make a request with `certificate generate` and have that one signed"
    )]
    NoRequest(Fingerprint),
    #[error("the node is enrolled with {0} already; with --upsert the new certificate takes the place of the old one")]
    Known(ResearcherId),
    #[error("the certificate in the answer ended at {0}; ask the researcher to sign the request again")]
    Expired(Timestamp),
    #[error("the answer does not say where the researcher is; give --address HOST:PORT")]
    NoAddress,
    #[error("no researcher and no open request is called {0:?}; `certificate list` shows all")]
    NoCertificate(String),
    #[error("the researcher's address: {0}")]
    Address(#[from] AddressError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Audit(#[from] Refusal),
}

/// The name of the key that belongs to a certificate. Each enrolment has its own, so that until the new certificate is stored
/// the old one finds its key.
fn key_name(researcher: &ResearcherId, certificate: &Certificate) -> String {
    format!("{researcher}.{}.key", short(&certificate.key_fingerprint()))
}

/// The first 16 digits, for names of files.
pub(crate) fn short(fingerprint: &Fingerprint) -> String {
    let digits = fingerprint.to_string().replace(' ', "").to_lowercase();
    digits[..16].to_owned()
}

/// Fails if a known researcher appears with another authority than before.
pub(crate) fn check_authority(
    researcher: &ResearcherId,
    authority: &Certificate,
    before: Option<&Enrolment>,
) -> Result<(), EnrolmentError> {
    let found = authority.key_fingerprint();
    match before.map(|before| before.authority.key_fingerprint()) {
        Some(known) if known != found => {
            Err(EnrolmentError::OtherAuthority { researcher: researcher.clone(), known, found })
        }
        _ => Ok(()),
    }
}

impl NodeHandle {
    /// Takes a one-time token. Enrolling again with a researcher keeps the node's id and datasets.
    pub async fn enrol(&self, token: &TokenText) -> Result<Enrolment, EnrolmentError> {
        let token = EnrolmentToken::parse(&token.0)?;
        let identity = NodeIdentity::create(self.id().clone());
        let made = client::enrol(&token, &identity, self.name(), &self.proxy()?, self.clock().clone()).await;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                self.audit("enrolment.refused", json!({ "address": token.address(), "reason": error.to_string() }))?;
                return Err(error.into());
            }
        };
        let before = self.store().enrolment(&made.researcher)?;
        check_authority(&made.researcher, &made.authority, before.as_ref()).inspect_err(|error| {
            let facts = json!({ "address": token.address(), "reason": error.to_string() });
            // An enrolment that is refused is refused, written down or not.
            let _ = self.audit("enrolment.refused", facts);
        })?;
        let enrolment = Enrolment {
            researcher: made.researcher,
            address: token.address().clone(),
            authority: made.authority,
            certificate: made.certificate,
            task_key: made.task_key,
            allowed: true,
            enrolled: self.now(),
        };
        self.keep(&identity, enrolment, before, "token")
    }

    /// Stores an enrolment and its key, in the place of the one before. What the hospital allowed stays.
    pub(crate) fn keep(
        &self,
        identity: &NodeIdentity,
        mut enrolment: Enrolment,
        before: Option<Enrolment>,
        by: &str,
    ) -> Result<Enrolment, EnrolmentError> {
        enrolment.allowed = before.as_ref().is_none_or(|before| before.allowed);
        let name = key_name(&enrolment.researcher, &enrolment.certificate);
        self.keys().write(&name, &Secret::new(identity.key_pem().expose().to_owned()))?;
        self.store().save_enrolment(&enrolment)?;
        if let Some(before) = before.map(|before| key_name(&before.researcher, &before.certificate))
            && before != name
        {
            self.keys().remove(&before)?;
        }
        let facts = json!({
            "researcher": enrolment.researcher, "address": enrolment.address, "by": by,
            "authority": enrolment.authority.key_fingerprint().to_string(),
            "key": enrolment.certificate.key_fingerprint().to_string(),
            "certificate_until": enrolment.certificate.not_after().to_string(),
        });
        self.audit("enrolment.made", facts)?;
        Ok(enrolment)
    }

    /// Drops an enrolment with its key, tasks and contributions.
    pub fn forget(&self, researcher: &ResearcherId) -> Result<(), EnrolmentError> {
        let enrolment = self.store().enrolment(researcher)?.ok_or_else(|| EnrolmentError::Unknown(researcher.clone()))?;
        self.audit("enrolment.forgotten", json!({ "researcher": researcher }))?;
        self.store().forget_researcher(researcher)?;
        self.halt().allow(researcher, true);
        self.keys().remove(&key_name(researcher, &enrolment.certificate))?;
        let is_theirs =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(researcher.as_str()));
        if let Err(error) = self.spool().sweep(|path| !is_theirs(path)) {
            tracing::warn!(%error, "contributions stay until the next start");
        }
        Ok(())
    }

    /// Allows or forbids a researcher to give work.
    pub fn allow(&self, researcher: &ResearcherId, allowed: bool) -> Result<(), EnrolmentError> {
        let facts = json!({ "researcher": researcher });
        if allowed {
            self.audit("researcher.allowed", facts.clone())?;
        } else {
            self.halt().allow(researcher, false);
        }
        if !self.store().allow_researcher(researcher, allowed)? {
            self.halt().allow(researcher, true);
            return Err(EnrolmentError::Unknown(researcher.clone()));
        }
        if allowed {
            self.halt().allow(researcher, true);
        } else {
            // It is forbidden, written down or not.
            self.audit("researcher.forbidden", facts)?;
        }
        Ok(())
    }

    pub(crate) fn node_identity(&self, enrolment: &Enrolment) -> Result<NodeIdentity, EnrolmentError> {
        let key = self.keys().read(&key_name(&enrolment.researcher, &enrolment.certificate))?;
        Ok(NodeIdentity::from_pem(self.id().clone(), &SecretText::new(key.expose().to_owned()))?)
    }

    /// What the node presents to a researcher.
    pub fn identity(&self, enrolment: &Enrolment) -> Result<EnrolledIdentity, EnrolmentError> {
        let identity = self.node_identity(enrolment)?;
        Ok(identity.enrolled(enrolment.certificate.clone(), enrolment.authority.clone())?)
    }

    /// Opens the way to a researcher over the network.
    pub fn grpc_link(&self, enrolment: &Enrolment) -> Result<GrpcLink, EnrolmentError> {
        let identity = self.identity(enrolment)?;
        Ok(GrpcLink::new(self.address_of(enrolment)?, &identity, self.proxy()?, self.clock().clone())?)
    }

    /// Exchanges a certificate for a newer one of the same key.
    pub async fn renew(&self, enrolment: &Enrolment, link: &GrpcLink) -> Result<Enrolment, EnrolmentError> {
        let identity = self.node_identity(enrolment)?;
        let certificate = link.renew(identity.signing_request()?).await?;
        let until = certificate.not_after();
        identity.enrolled(certificate.clone(), enrolment.authority.clone())?;
        let renewed = Enrolment { certificate, ..enrolment.clone() };
        self.store().save_enrolment(&renewed)?;
        self.audit("certificate.renewed", json!({ "researcher": renewed.researcher, "until": until.to_string() }))?;
        Ok(renewed)
    }

    /// The token's address, or the configured one where there is only one researcher.
    fn address_of(&self, enrolment: &Enrolment) -> Result<Address, EnrolmentError> {
        let configured = &self.config().researcher;
        let is_only_one = self.store().enrolments()?.len() == 1;
        if !is_only_one || (configured.host.is_none() && configured.port.is_none()) {
            return Ok(enrolment.address.clone());
        }
        let host = configured.host.as_deref().unwrap_or(enrolment.address.host());
        Ok(Address::new(host, configured.port.unwrap_or(enrolment.address.port()))?)
    }

    /// An enrolment as its owner sees it, with the address that is dialled.
    pub(crate) fn enrolment_row(&self, enrolment: &Enrolment, state: &str) -> EnrolmentRow {
        // A configured address that is none keeps the agent from beginning, which says why.
        let address =
            self.address_of(enrolment).map_or_else(|_| enrolment.address.to_string(), |address| address.to_string());
        EnrolmentRow {
            researcher: enrolment.researcher.clone(),
            address,
            state: if enrolment.allowed { state } else { "forbidden" }.to_owned(),
            allowed: enrolment.allowed,
            enrolled: enrolment.enrolled.to_string(),
            certificate_until: enrolment.certificate.not_after().to_string(),
            ca_fingerprint: enrolment.authority.key_fingerprint().to_string(),
        }
    }

    fn proxy(&self) -> Result<ProxyConfig, ProxyError> {
        let settings = &self.config().proxy;
        ProxyConfig::new(settings.url.as_deref(), settings.exceptions.as_deref())
    }
}
