//! A node opened on its folder: all that its commands, its agents and its gates share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use component::audit::{AuditError, AuditLog};
use component::folder::{ComponentFolder, FolderError, Kind, write_atomically};
use component::keystore::KeyStore;
use component::parties::Parties;
use protocol::{NodeId, Refusal, RefusalCode, Timestamp};
use rand::rngs::StdRng;
#[expect(clippy::disallowed_types, reason = "the daemon is a driver: it seeds its generator once")]
use rand::rngs::SysRng;
use rand::{Rng, SeedableRng};
use secagg::joye_libert::{Group, ModulusProblem};
use serde_json::Value;
use thiserror::Error;
use transport::clock::{Clock, SystemClock};
use transport::negotiation::Office;

use crate::config::{NodeConfig, NodeConfigError, is_name};
use crate::halt::Halt;
use crate::ledger::Ledger;
use crate::policy::{PAUSED, Policy};
use crate::spool::Spool;
use crate::store::{Enrolment, Store, StoreError};

/// Why a node cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Config { path: PathBuf, source: NodeConfigError },
    #[error("a node's name has 1 to 128 characters without control characters, found {0:?}")]
    Name(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("{path}, the modulus of `security.joye_libert_modulus`: {source}")]
    Modulus { path: PathBuf, source: ModulusProblem },
    #[error("the system gives no random bytes: {0}")]
    Entropy(String),
}

/// What a node has from outside: the time, chance, the environment.
pub struct Surroundings<'a> {
    pub clock: Arc<dyn Clock>,
    pub rng: StdRng,
    /// The value of a variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the database waits for the disk; only a simulation does without.
    pub waits_for_disk: bool,
}

/// A node opened on its folder.
pub struct NodeHandle {
    folder: ComponentFolder,
    config: NodeConfig,
    store: Store,
    audit: AuditLog,
    keys: KeyStore,
    clock: Arc<dyn Clock>,
    rng: Mutex<StdRng>,
    ledger: Ledger,
    policy: Policy,
    spool: Spool,
    halt: Halt,
    joye_libert: Group,
    /// Held while the secrets of sums are taken from the disk, moved on and written back.
    desk: Mutex<()>,
    parties: Parties,
    /// Made for the first direct negotiation.
    office: OnceLock<Arc<Office>>,
}

/// Reads the modulus of Joye-Libert that the hospital chose.
fn modulus(folder: &ComponentFolder, config: &NodeConfig) -> Result<Group, OpenError> {
    let Some(path) = &config.joye_libert_modulus else { return Ok(Group::default()) };
    let path = folder.root().join(path);
    let text = std::fs::read_to_string(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
    Group::from_text(&text).map_err(|source| OpenError::Modulus { path, source })
}

fn system_rng() -> Result<StdRng, OpenError> {
    StdRng::try_from_rng(&mut SysRng).map_err(|error| OpenError::Entropy(error.to_string()))
}

/// Makes a new node: its folder, its id, its configuration.
pub fn create(root: &Path, name: &str) -> Result<NodeId, OpenError> {
    create_with(root, name, &mut system_rng()?)
}

/// Makes a new node whose id is drawn from the given generator.
pub fn create_with(root: &Path, name: &str, rng: &mut impl Rng) -> Result<NodeId, OpenError> {
    if !is_name(name) {
        return Err(OpenError::Name(name.chars().take(160).collect()));
    }
    let folder = ComponentFolder::create(root, Kind::Node, false)?;
    let id = NodeId::random(rng);
    let path = folder.config_file();
    write_atomically(&path, NodeConfig::template(&id, name).as_bytes()).map_err(|source| OpenError::Io { path, source })?;
    Ok(id)
}

impl NodeHandle {
    /// Opens the node with the machine's clock, environment and entropy.
    pub fn open(folder: &ComponentFolder) -> Result<Self, OpenError> {
        let env = |name: &str| std::env::var(name).ok();
        Self::open_in(
            folder,
            Surroundings { clock: Arc::new(SystemClock), rng: system_rng()?, env: &env, waits_for_disk: true },
        )
    }

    /// Opens the node in given surroundings.
    pub fn open_in(folder: &ComponentFolder, surroundings: Surroundings<'_>) -> Result<Self, OpenError> {
        let path = folder.config_file();
        let text = std::fs::read_to_string(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let config = NodeConfig::load(&text, surroundings.env).map_err(|source| OpenError::Config { path, source })?;
        let database = folder.database_file();
        let store =
            if surroundings.waits_for_disk { Store::open(&database)? } else { Store::open_for_simulation(&database)? };
        Ok(Self {
            audit: AuditLog::open(&folder.audit_file())?,
            keys: KeyStore::new(folder.keys()),
            clock: surroundings.clock,
            rng: Mutex::new(surroundings.rng),
            ledger: Ledger::default(),
            policy: Policy::of(&config),
            spool: Spool::new(folder.spool()),
            halt: Halt::default(),
            joye_libert: modulus(folder, &config)?,
            desk: Mutex::new(()),
            parties: Parties::of(folder),
            office: OnceLock::new(),
            folder: folder.clone(),
            config,
            store,
        })
    }

    pub fn id(&self) -> &NodeId {
        &self.config.id
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn folder(&self) -> &ComponentFolder {
        &self.folder
    }

    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn keys(&self) -> &KeyStore {
        &self.keys
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Draws with the node's generator.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The group of Joye-Libert, from the hospital's own configuration.
    pub(crate) fn joye_libert(&self) -> &Group {
        &self.joye_libert
    }

    /// Those with whom this node negotiates keys directly.
    pub(crate) fn parties(&self) -> &Parties {
        &self.parties
    }

    pub(crate) fn own_office(&self) -> &OnceLock<Arc<Office>> {
        &self.office
    }

    /// Waits for the desk of secure aggregation.
    pub(crate) fn desk_turn(&self) -> MutexGuard<'_, ()> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the hospital has paused the node.
    pub fn is_paused(&self) -> Result<bool, StoreError> {
        Ok(self.halt.is_paused() || self.store.has_mark(PAUSED)?)
    }

    /// Whether this researcher may ask anything at all.
    pub(crate) fn allows(&self, enrolment: &Enrolment) -> bool {
        self.policy.allows(enrolment) && !self.halt.forbids(&enrolment.researcher)
    }

    pub(crate) fn halt(&self) -> &Halt {
        &self.halt
    }

    /// Writes a line to the audit log; what cannot be written down is not done.
    pub(crate) fn audit(&self, event: &str, facts: Value) -> Result<(), Refusal> {
        let Value::Object(facts) = facts else { unreachable!("facts are written as an object") };
        self.audit.record(self.now(), event, facts).map_err(|error| {
            tracing::error!(%error, "the audit log failed");
            Refusal::new(RefusalCode::Unavailable, "the node cannot write its audit log")
        })
    }
}
