//! TLS 1.3 with both sides authenticated by the certificate authority of the federation, and nothing else.
//!
//! A node pins the authority. At enrolment it knows only the authority's fingerprint, from its token: the server sends the
//! authority's certificate along, and the node compares. The name in the server's certificate is fixed, so that addresses may
//! change. Sessions are not resumed: each connection looks at certificates anew.

use std::fmt;
use std::io;
use std::sync::{Arc, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::address::Address;
use crate::clock::Clock;
use crate::identity::{Certificate, EnrolledIdentity, Fingerprint, SecretKey, ServerIdentity};
use crate::link::LinkError;

/// The name in every researcher's certificate, whatever its address.
pub const SERVER_NAME: &str = "researcher.fedbiomed.internal";

const ALPN: &[u8] = b"h2";

/// An identity cannot be used for TLS.
#[derive(Debug, Error)]
#[error("the certificate cannot be used for TLS")]
pub struct TlsError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self(error.into())
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Lets TLS ask our clock.
struct ClockOfTls(Arc<dyn Clock>);

impl fmt::Debug for ClockOfTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClockOfTls")
    }
}

impl TimeProvider for ClockOfTls {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.now().as_millis())))
    }
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(Arc::new(roots))
}

pub(crate) fn certified(chain: Vec<CertificateDer<'static>>, key: &SecretKey) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key.for_tls())))
}

/// What a researcher's server presents and accepts. Its identity can be replaced while it runs; connections stay.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
    clock: Arc<dyn Clock>,
}

impl ServerTls {
    pub fn new(identity: &ServerIdentity, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let config = server_config(identity, clock.clone())?;
        Ok(Self { config: Arc::new(RwLock::new(config)), clock })
    }

    /// Presents a renewed certificate from the next connection on.
    pub fn replace(&self, identity: &ServerIdentity) -> Result<(), TlsError> {
        let config = server_config(identity, self.clock.clone())?;
        *self.config.write().expect("nobody panics with the lock held") = config;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().expect("nobody panics with the lock held").clone())
    }
}

fn server_config(identity: &ServerIdentity, clock: Arc<dyn Clock>) -> Result<Arc<ServerConfig>, TlsError> {
    let authority = identity.authority().as_der();
    // Optional, because a node that enrols has no certificate yet; every other call asks for it.
    let nodes = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError(error.into()))?;
    let chain = vec![identity.certificate().as_der().clone(), authority.clone()];
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockOfTls(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(nodes)
        .with_cert_resolver(certified(chain, identity.key()));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// What an enrolled node presents and accepts.
pub(crate) fn node_config(identity: &EnrolledIdentity, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = vec![identity.certificate().as_der().clone()];
    let config = ClientConfig::builder_with_details(provider(), Arc::new(ClockOfTls(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(identity.authority().as_der())?)
        .with_client_cert_resolver(certified(chain, identity.key()));
    Ok(finish(config))
}

/// What a node accepts that enrols, knowing the fingerprint of the authority's key.
pub(crate) fn enrolment_config(authority: Fingerprint, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_details(provider(), Arc::new(ClockOfTls(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(FingerprintVerifier { authority, provider: provider() }))
        .with_no_client_auth();
    Ok(finish(config))
}

/// The certificate with this key among those that a peer presented.
pub(crate) fn find_authority(authority: Fingerprint, presented: &[CertificateDer<'_>]) -> Option<Certificate> {
    let mut parsed = presented.iter().filter_map(|der| Certificate::from_der(der).ok());
    parsed.find(|certificate| certificate.key_fingerprint() == authority)
}

/// Looks for the pinned authority in what the server presents, then checks the chain against it as always.
#[derive(Debug)]
struct FingerprintVerifier {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = find_authority(self.authority, intermediates).ok_or(unknown.clone())?;
        let roots = roots(authority.as_der()).map_err(|_| unknown.clone())?;
        let chain =
            WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone()).build().map_err(|_| unknown)?;
        chain.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Says to a node why the handshake with its researcher failed, and what to do.
pub(crate) fn handshake_failed(error: &io::Error, address: &Address) -> LinkError {
    use CertificateError as Bad;
    let Some(tls) = tls_error(error) else {
        return LinkError::Unreachable(format!("{address} ended the connection before it was secured: {error}"));
    };
    let sentence = match tls {
        rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => format!("the certificate of the researcher at {address} is out of date, or the clock of this machine is wrong"),
        rustls::Error::InvalidCertificate(Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. }) => {
            format!("who answers at {address} is not the researcher: its certificate is not one of a researcher's server")
        }
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => format!(
            "the researcher's identity changed, or somebody else answers at {address}: its certificate is not from the authority \
             that this node enrolled with. Nothing was sent. Compare fingerprints with the researcher by phone; if the change is \
             meant, enrol again with a new token"
        ),
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "this node's certificate has expired: enrol again with a new token".to_owned()
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => format!("the researcher at {address} does not accept this node's certificate: enrol again with a new token"),
        other => {
            return LinkError::Unreachable(format!(
                "what answers at {address} does not speak as a researcher does: {other}"
            ));
        }
    };
    LinkError::Identity(sentence)
}

/// Says to a researcher's audit log why somebody's handshake failed.
pub(crate) fn rejection(error: &io::Error) -> &'static str {
    use CertificateError as Bad;
    let Some(error) = tls_error(error) else { return "its connection broke off during the TLS handshake" };
    let by_certificate = match error {
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => Some("its certificate has expired"),
        rustls::Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            Some("its certificate is not valid yet, or a clock is wrong")
        }
        rustls::Error::InvalidCertificate(Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. }) => {
            Some("its certificate is not one of a node")
        }
        rustls::Error::InvalidCertificate(_) => Some("its certificate is from another authority"),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                Some("it expects a researcher of another authority")
            }
            AlertDescription::CertificateExpired => Some("it holds this researcher's certificate to be expired"),
            _ => None,
        },
        rustls::Error::PeerIncompatible(_) => Some("it offers no TLS that is good enough"),
        _ => None,
    };
    by_certificate.unwrap_or("it does not speak TLS")
}
