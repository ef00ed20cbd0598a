//! TLS in which both sides show keys that were registered before. Dates and issuers of certificates are not looked at: the key is
//! what was compared by phone. Only a researcher's server is known by its authority, as in every other connection of its nodes.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use super::{Party, Peer, Pin};
use crate::identity::{Certificate, EnrolledIdentity, ServerIdentity};
use crate::tls::{TlsError, certified, provider};

const ALPN: &[u8] = b"fedbiomed-negotiation/1";

/// What this component shows to the others.
#[derive(Clone)]
pub struct Identity(Arc<SingleCertAndKey>);

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identity")
    }
}

impl Identity {
    pub fn of_node(identity: &EnrolledIdentity) -> Self {
        Self(certified(vec![identity.certificate().as_der().clone()], identity.key()))
    }

    pub fn of_researcher(identity: &ServerIdentity) -> Self {
        Self(certified(vec![identity.certificate().as_der().clone()], identity.key()))
    }
}

impl Pin {
    /// Whether a certificate is what the party has to show.
    fn fits(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Key(fingerprint) => certificate.key_fingerprint() == *fingerprint,
            // Nodes have certificates of the same authority.
            Self::ServerOf(authority) => certificate.node().is_none() && certificate.check_issuer(authority).is_ok(),
        }
    }
}

/// Those whose certificates are taken.
#[derive(Debug)]
struct Registered(Vec<(Party, Pin)>);

impl Registered {
    fn find(&self, der: &CertificateDer<'_>) -> Option<&Party> {
        let certificate = Certificate::from_der(der).ok()?;
        self.0.iter().find(|(_, pin)| pin.fits(&certificate)).map(|(party, _)| party)
    }

    fn check(&self, der: &CertificateDer<'_>) -> Result<(), Error> {
        let stranger = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        self.find(der).map(|_| ()).ok_or(stranger)
    }

    fn signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &provider().signature_verification_algorithms,
        )
    }
}

fn only_tls_13() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("only TLS 1.3 is spoken".into()))
}

impl ServerCertVerifier for Registered {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        only_tls_13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Registered {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        only_tls_13()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What a listener shows and takes in one negotiation.
#[derive(Debug)]
pub(super) struct Accepting {
    pub config: Arc<ServerConfig>,
    registered: Arc<Registered>,
}

impl Accepting {
    pub(super) fn new(identity: &Identity, peers: &[Peer]) -> Result<Self, TlsError> {
        let pins = peers.iter().map(|peer| (peer.party.clone(), peer.pin.clone()));
        let registered = Arc::new(Registered(pins.collect()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(registered.clone())
            .with_cert_resolver(identity.0.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), registered })
    }

    /// Whose certificate a client has shown.
    pub(super) fn party(&self, presented: Option<&[CertificateDer<'_>]>) -> Option<&Party> {
        self.registered.find(presented?.first()?)
    }
}

/// What is shown to one party, and taken from it.
pub(super) fn dialling(identity: &Identity, peer: &Peer) -> Result<Arc<ClientConfig>, TlsError> {
    let registered = Registered(vec![(peer.party.clone(), peer.pin.clone())]);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(registered))
        .with_client_cert_resolver(identity.0.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
