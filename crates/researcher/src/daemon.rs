//! The researcher's process: folder, keys, sockets, and the researcher between them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use component::audit::{AuditError, AuditLog};
use component::blocking::Blocking;
use component::config::ConfigError;
use component::folder::{ComponentFolder, FolderError, Kind, write_atomically};
use component::keystore::{KeyStore, KeyStoreError, Secret};
use component::parties::Parties;
use protocol::{ResearcherId, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
#[expect(clippy::disallowed_types, reason = "the daemon is a driver: it seeds its generator once")]
use rand::rngs::SysRng;
use secagg::joye_libert::Group;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use transport::clock::{Clock, SystemClock};
use transport::grpc::server;
use transport::identity::{Certificate, FederationCa, IdentityError, SecretKey, ServerIdentity};
use transport::secret::SecretText;
use transport::tls::{ServerTls, TlsError};
use transport::{matrix, negotiation, socket};

use crate::config::Settings;
use crate::control::{self, Place};
use crate::files::Files;
use crate::jobs;
use crate::negotiation::Negotiating;
use crate::researcher::{DriverError, Parts, Researcher};
use crate::store::{Store, StoreError};

/// How long the federation's authority is good. Replacing it means that every node enrols again.
const CA_VALIDITY: Duration = Duration::from_hours(20 * 365 * 24);
/// How long the server's own certificate is good; it is renewed when a third of that is left.
const SERVER_VALIDITY: Duration = Duration::from_hours(90 * 24);
/// How often the server's certificate is looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_hours(1);

const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_CERTIFICATE: &str = "server.pem";
const TASK_KEY: &str = "task.key";

/// Why a researcher cannot be made or run.
#[derive(Debug, Error)]
pub enum DaemonError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("etc/config.toml: {0}")]
    Config(#[from] ConfigError),
    #[error("{0}, the modulus of `experiments.joye_libert_modulus`: {1}")]
    Modulus(PathBuf, String),
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: String, reason: String },
    #[error("the local socket {0} cannot be made: {1}")]
    Control(PathBuf, io::Error),
    #[error("cannot use {0}: {1}")]
    File(&'static str, io::Error),
    #[error("the system gives no random numbers: {0}")]
    Entropy(String),
}

fn entropy() -> Result<StdRng, DaemonError> {
    StdRng::try_from_rng(&mut SysRng).map_err(|error| DaemonError::Entropy(error.to_string()))
}

/// Makes a researcher's folder with its id, configuration, authority and keys.
pub fn create(path: &Path, name: &str) -> Result<ResearcherId, DaemonError> {
    let mut rng = entropy()?;
    let now = SystemClock.now();
    let id = ResearcherId::random(&mut rng);
    let ca = FederationCa::create(&id, now, CA_VALIDITY, &mut rng)?;
    let task_key = SecretKey::generate();
    let folder = ComponentFolder::create(path, Kind::Researcher, false)?;
    let keys = KeyStore::new(folder.keys());
    keys.write(CA_KEY, &secret(&ca.key_pem()))?;
    keys.write(TASK_KEY, &secret(&task_key.to_pem()))?;
    write(&folder, CA_CERTIFICATE, &ca.certificate().to_pem())?;
    let written = write_atomically(&folder.config_file(), Settings::template(&id, name).as_bytes());
    written.map_err(|error| DaemonError::File("etc/config.toml", error))?;
    Ok(id)
}

fn secret(text: &SecretText) -> Secret {
    Secret::new(text.expose().to_owned())
}

/// Reads the modulus of Joye-Libert, if it is not the default.
fn modulus(folder: &ComponentFolder, settings: &Settings) -> Result<Option<Group>, DaemonError> {
    let Some(path) = &settings.joye_libert_modulus else { return Ok(None) };
    let path = folder.root().join(path);
    let wrong = |error: &dyn std::fmt::Display| DaemonError::Modulus(path.clone(), error.to_string());
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    Group::from_text(&text).map(Some).map_err(|error| wrong(&error))
}

fn read_secret(keys: &KeyStore, name: &str) -> Result<SecretText, DaemonError> {
    Ok(SecretText::new(keys.read(name)?.expose().to_owned()))
}

fn write(folder: &ComponentFolder, name: &'static str, text: &str) -> Result<(), DaemonError> {
    write_atomically(&folder.keys().join(name), text.as_bytes()).map_err(|error| DaemonError::File(name, error))
}

fn read(folder: &ComponentFolder, name: &'static str) -> Result<String, DaemonError> {
    std::fs::read_to_string(folder.keys().join(name)).map_err(|error| DaemonError::File(name, error))
}

/// Reads the settings of a researcher's folder with the environment over them.
pub fn settings(folder: &ComponentFolder) -> Result<Settings, DaemonError> {
    let text = std::fs::read_to_string(folder.config_file()).map_err(|error| DaemonError::File("etc/config.toml", error))?;
    Ok(Settings::load(&text, |name| std::env::var(name).ok())?)
}

/// Reads the authority of a researcher's federation.
pub fn authority(folder: &ComponentFolder) -> Result<FederationCa, DaemonError> {
    let keys = KeyStore::new(folder.keys());
    Ok(FederationCa::from_pem(&read(folder, CA_CERTIFICATE)?, &read_secret(&keys, CA_KEY)?)?)
}

/// The server's identity: as it was left, or a new one if that is due.
fn server_identity(
    folder: &ComponentFolder,
    ca: &FederationCa,
    now: Timestamp,
    rng: &mut StdRng,
) -> Result<ServerIdentity, DaemonError> {
    let keys = KeyStore::new(folder.keys());
    if keys.has(SERVER_KEY)
        && let Ok(certificate) = read(folder, SERVER_CERTIFICATE)
        && let Ok(known) = ServerIdentity::from_pem(&certificate, ca.certificate(), &read_secret(&keys, SERVER_KEY)?)
        && !known.certificate().is_due(now)
    {
        return Ok(known);
    }
    new_server_identity(folder, ca, now, rng)
}

fn new_server_identity(
    folder: &ComponentFolder,
    ca: &FederationCa,
    now: Timestamp,
    rng: &mut StdRng,
) -> Result<ServerIdentity, DaemonError> {
    let new = ca.issue_server(now, SERVER_VALIDITY, rng)?;
    KeyStore::new(folder.keys()).write(SERVER_KEY, &secret(&new.key_pem()))?;
    write(folder, SERVER_CERTIFICATE, &new.certificate().to_pem())?;
    tracing::info!(expires = %new.certificate().not_after(), "the server has a new certificate");
    Ok(new)
}

/// The certificate of the running server.
pub(crate) struct ServerCertificate {
    folder: ComponentFolder,
    tls: ServerTls,
    clock: Arc<dyn Clock>,
    rng: Mutex<StdRng>,
}

impl ServerCertificate {
    /// Takes what `make` gives for all connections to come.
    fn take(
        &self,
        make: impl FnOnce(&ComponentFolder, &FederationCa, Timestamp, &mut StdRng) -> Result<ServerIdentity, DaemonError>,
    ) -> Result<ServerIdentity, DaemonError> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = make(&self.folder, &authority(&self.folder)?, self.clock.now(), &mut rng)?;
        self.tls.replace(&identity)?;
        Ok(identity)
    }

    pub(crate) fn replace(&self) -> Result<Certificate, DaemonError> {
        Ok(self.take(new_server_identity)?.certificate().clone())
    }

    /// Renews it before it expires.
    async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(CERTIFICATE_CHECK).await;
            if let Err(error) = self.take(server_identity) {
                tracing::error!(%error, "the server's certificate cannot be renewed");
            }
        }
    }
}

/// Makes a new certificate for the server of a folder where no daemon runs.
pub fn replace_server_certificate(folder: &ComponentFolder) -> Result<Certificate, DaemonError> {
    let _lock = folder.lock()?;
    let now = SystemClock.now();
    let new = new_server_identity(folder, &authority(folder)?, now, &mut entropy()?)?;
    let facts = serde_json::Map::from_iter([("what".to_owned(), "by a command, without the daemon".into())]);
    AuditLog::open(&folder.audit_file())?.record(now, "server.certificate_made", facts)?;
    Ok(new.certificate().clone())
}

/// Runs the researcher of a folder until `shutdown` is ready or somebody says stop.
pub async fn run(folder: &ComponentFolder, shutdown: impl Future<Output = ()> + Send) -> Result<(), DaemonError> {
    let _lock = folder.lock_for_daemon().await?;
    let settings = settings(folder)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut rng = entropy()?;
    let ca = authority(folder)?;
    let identity = server_identity(folder, &ca, clock.now(), &mut rng)?;
    let tls = ServerTls::new(&identity, clock.clone())?;
    let keys = KeyStore::new(folder.keys());
    let (listener, listens) = listen(&settings).await?;
    let commands = socket::bind_local(&folder.control_socket())
        .map_err(|error| DaemonError::Control(folder.control_socket(), error))?;
    let (stop, mut stopped) = watch::channel(false);
    let certificate = Arc::new(ServerCertificate {
        folder: folder.clone(),
        tls: tls.clone(),
        clock: clock.clone(),
        rng: Mutex::new(StdRng::from_rng(&mut rng)),
    });
    let place = Arc::new(Place {
        name: settings.name.clone(),
        id: settings.id.clone(),
        started: clock.now(),
        listens,
        public_address: settings.public_address.clone(),
        ca_fingerprint: ca.certificate().key_fingerprint().to_string(),
        certificate: certificate.clone(),
        stop: stop.clone(),
    });
    let store = Store::open(&folder.database_file())?;
    jobs::forget(&Files::of(folder), &store.experiments()?, clock.now(), settings.retention);
    let researcher = Researcher::start(Parts {
        id: settings.id.clone(),
        store,
        files: Files::of(folder),
        audit: AuditLog::open(&folder.audit_file())?,
        ca,
        task_key: SecretKey::from_pem(&read_secret(&keys, TASK_KEY)?)?,
        certificate_validity: settings.certificate_validity,
        spool_quota_bytes: settings.spool_quota_bytes,
        modulus: modulus(folder, &settings)?,
        negotiating: Some(negotiating(folder, &settings, certificate.clone())),
        clock: clock.clone(),
        blocking: Blocking::Threads,
        rng: StdRng::from_rng(&mut rng),
    })
    .await?;
    let researcher = Arc::new(researcher);
    tracing::info!(id = %place.id, name = place.name, listens = place.listens, "ready");
    researcher.note("daemon.started", crate::results::SOFTWARE);
    let commands = tokio::spawn(control::serve(researcher.clone(), place.clone(), commands));
    let renewal = tokio::spawn(certificate.keep_fresh());
    let running = researcher.clone();
    let until = async move {
        tokio::select! {
            () = shutdown => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
            // Nobody would answer any more: whoever started the daemon is to see that, and start it again.
            () = running.ended() => tracing::error!("the researcher ends because of a failure"),
        }
        stop.send_replace(true);
    };
    server::serve(researcher.service().clone(), tls, listener, until).await;
    renewal.abort();
    // Answers that are under way, such as that to `stop`, get their end.
    let _ = commands.await;
    researcher.note("daemon.stopped", crate::results::SOFTWARE);
    let end = researcher.stop().await;
    drop(std::fs::remove_file(folder.control_socket()));
    Ok(end?)
}

/// Where and as whom keys are negotiated directly; nothing is open until an experiment asks for it.
fn negotiating(folder: &ComponentFolder, settings: &Settings, certificate: Arc<ServerCertificate>) -> Negotiating {
    let place = negotiation::Place {
        host: settings.negotiation_host.clone(),
        port: settings.negotiation_port,
        incoming: &matrix::RESEARCHER_FROM_PARTIES,
        outgoing: &matrix::RESEARCHER_TO_PARTIES,
    };
    let identity = move || {
        let identity = certificate.take(server_identity).map_err(|error| error.to_string())?;
        Ok(negotiation::Identity::of_researcher(&identity))
    };
    let timeout = settings.negotiation_timeout;
    Negotiating { place, parties: Parties::of(folder), identity: Box::new(identity), timeout }
}

/// Opens the port on which nodes are awaited; says who has it if it is taken.
async fn listen(settings: &Settings) -> Result<(TcpListener, String), DaemonError> {
    let (host, port) = (settings.host.trim_matches(['[', ']']), settings.port);
    let failed = |reason: String| DaemonError::Listen { address: format!("{}:{port}", settings.host), reason };
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| failed(error.to_string()))?;
    let address: SocketAddr = addresses.next().ok_or_else(|| failed("the name has no address".into()))?;
    match socket::listen(&matrix::RESEARCHER_FROM_NODE, address).await {
        Ok(listener) => {
            let port = listener.local_addr().map_err(|error| failed(error.to_string()))?.port();
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            Ok((listener, format!("{host}:{port}")))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = crate::port::holder(port).unwrap_or_else(|| "another program".into());
            Err(failed(format!("{holder} uses it already; end that or set `server.port`")))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The authority's certificate, to show and to hand to hospitals.
pub fn authority_certificate(folder: &ComponentFolder) -> Result<Certificate, DaemonError> {
    Ok(Certificate::from_pem(&read(folder, CA_CERTIFICATE)?)?)
}

/// The server's certificate, to show; absent before the first start.
pub fn server_certificate(folder: &ComponentFolder) -> Result<Option<Certificate>, DaemonError> {
    match read(folder, SERVER_CERTIFICATE) {
        Ok(pem) => Ok(Some(Certificate::from_pem(&pem)?)),
        Err(DaemonError::File(_, error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
