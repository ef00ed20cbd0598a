//! A small researcher and the nodes around it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::{
    BlobRef, Capability, Digest, Hello, NodeId, NodeMessage, ProtocolVersion, Refusal, RefusalCode, ResearcherId,
    ResearcherMessage, TaskId, Timestamp, UploadHeader, Welcome,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use transport::address::Address;
use transport::blob::{CompleteFile, PartialFile};
use transport::clock::{Clock, ManualClock};
use transport::grpc::client::{Enrolment, GrpcLink, enrol};
use transport::grpc::proxy::ProxyConfig;
use transport::grpc::server::serve;
use transport::host::{EnrolRequest, Enrolled, Host, HostSession, Reception};
use transport::identity::{Certificate, FederationCa, NodeIdentity, SecretKey};
use transport::link::{Link, LinkError, Session};
use transport::memory::{Faults, MemoryLink, MemoryServer};
use transport::tls::ServerTls;
use transport::token::EnrolmentToken;
use transport::{matrix, socket};

pub(crate) const DAY: Duration = Duration::from_hours(24);
/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The researcher's end of a session, as a test holds it.
pub(crate) struct HostEnd {
    pub(crate) node: NodeId,
    pub(crate) hello: Hello,
    pub(crate) outbox: mpsc::Sender<ResearcherMessage>,
    pub(crate) inbox: mpsc::Receiver<NodeMessage>,
}

/// What a test looks at and turns.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) tokens: HashSet<Digest>,
    pub(crate) revoked: HashSet<NodeId>,
    pub(crate) blobs: HashMap<Digest, PathBuf>,
    pub(crate) received: Vec<(NodeId, UploadHeader, Vec<u8>)>,
    /// From where receptions went on.
    pub(crate) resumed_at: Vec<u64>,
    pub(crate) rejections: Vec<String>,
}

pub(crate) struct TestHost {
    pub(crate) ca: FederationCa,
    pub(crate) researcher: ResearcherId,
    pub(crate) task_key: SecretKey,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: TempDir,
    pub(crate) state: Mutex<State>,
    sessions: mpsc::UnboundedSender<HostEnd>,
    rng: Mutex<StdRng>,
}

impl TestHost {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<HostEnd>) {
        let mut rng = StdRng::seed_from_u64(11);
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_790_000_000_000)));
        let researcher = ResearcherId::random(&mut rng);
        let ca = FederationCa::create(&researcher, clock.now(), 3650 * DAY, &mut rng).unwrap();
        let (sessions, receiver) = mpsc::unbounded_channel();
        let host = Self {
            ca,
            researcher,
            task_key: SecretKey::generate(),
            clock,
            folder: tempfile::tempdir().unwrap(),
            state: Mutex::default(),
            sessions,
            rng: Mutex::new(rng),
        };
        (Arc::new(host), receiver)
    }

    pub(crate) fn spool(&self, task: &TaskId) -> PathBuf {
        self.folder.path().join(task.as_str())
    }

    pub(crate) fn add_blob(&self, bytes: &[u8]) -> BlobRef {
        let blob = BlobRef { digest: Digest::of(bytes), bytes: bytes.len() as u64 };
        let path = self.folder.path().join(blob.digest.to_string());
        std::fs::write(&path, bytes).unwrap();
        self.state.lock().unwrap().blobs.insert(blob.digest, path);
        blob
    }

    pub(crate) fn token(&self, address: Address) -> EnrolmentToken {
        let token = EnrolmentToken::new(address, self.ca.certificate().key_fingerprint(), &mut *self.rng.lock().unwrap());
        self.state.lock().unwrap().tokens.insert(token.secret().hash());
        token
    }

    /// Makes a certificate without a token.
    pub(crate) fn certify(&self, identity: &NodeIdentity) -> Certificate {
        let request = identity.signing_request().unwrap();
        self.ca.issue_node(&request, identity.node(), self.clock.now(), 30 * DAY, &mut *self.rng.lock().unwrap()).unwrap()
    }

    pub(crate) fn rejections(&self) -> Vec<String> {
        self.state.lock().unwrap().rejections.clone()
    }
}

impl Host for TestHost {
    async fn enrol(&self, request: EnrolRequest, _peer: &str) -> Result<Enrolled, Refusal> {
        if !self.state.lock().unwrap().tokens.remove(&request.secret.hash()) {
            return Err(Refusal::new(RefusalCode::TokenInvalid, "the token is not known or was used already"));
        }
        Ok(Enrolled {
            certificate: self.renew(&request.node, request.csr).await?,
            researcher: self.researcher.clone(),
            task_key: self.task_key.public_point().to_vec(),
        })
    }

    async fn renew(&self, node: &NodeId, csr: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let issued = self.ca.issue_node(&csr, node, self.clock.now(), 30 * DAY, &mut *self.rng.lock().unwrap());
        Ok(issued.map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))?.as_der().to_vec())
    }

    fn admit(&self, node: &NodeId, _key_fingerprint: &[u8; 32]) -> Result<(), Refusal> {
        if self.state.lock().unwrap().revoked.contains(node) {
            return Err(Refusal::new(RefusalCode::NodeRevoked, "the researcher revoked this node"));
        }
        Ok(())
    }

    async fn connect(&self, node: &NodeId, hello: Hello) -> Result<HostSession, Refusal> {
        let (outbox, to_node) = mpsc::channel(16);
        let (from_node, inbox) = mpsc::channel(16);
        let welcome = Welcome {
            protocol: ProtocolVersion::CURRENT,
            software: "0.1.0".to_owned(),
            capabilities: Capability::current(),
            researcher: self.researcher.clone(),
        };
        self.sessions.send(HostEnd { node: node.clone(), hello, outbox, inbox }).unwrap();
        Ok(HostSession { welcome, outbox: to_node, inbox: from_node })
    }

    async fn blob(&self, _node: &NodeId, blob: BlobRef) -> Result<PathBuf, Refusal> {
        let path = self.state.lock().unwrap().blobs.get(&blob.digest).cloned();
        path.ok_or_else(|| Refusal::new(RefusalCode::TaskUnknown, "no task of this node refers to it"))
    }

    async fn receive(&self, node: &NodeId, header: &UploadHeader) -> Result<Reception, Refusal> {
        let held = |(of, have, _): &(NodeId, UploadHeader, Vec<u8>)| (of, &have.task) == (node, &header.task);
        if self.state.lock().unwrap().received.iter().any(held) {
            return Ok(Reception::Held);
        }
        let blob = BlobRef { digest: header.digest, bytes: header.bytes };
        let file = PartialFile::open(&self.spool(&header.task), blob).unwrap();
        self.state.lock().unwrap().resumed_at.push(file.have());
        Ok(Reception::Into(file))
    }

    async fn received(&self, node: &NodeId, header: UploadHeader, file: CompleteFile) -> Result<(), Refusal> {
        let bytes = std::fs::read(file.path()).unwrap();
        self.state.lock().unwrap().received.push((node.clone(), header, bytes));
        Ok(())
    }

    fn rejected(&self, _peer: &str, reason: &str) {
        self.state.lock().unwrap().rejections.push(reason.to_owned());
    }
}

/// A researcher and nodes that find it, by one kind of link.
pub(crate) trait Way: Sized {
    type Link: Link;

    async fn start() -> Self;

    fn host(&self) -> &Arc<TestHost>;

    fn sessions(&mut self) -> &mut mpsc::UnboundedReceiver<HostEnd>;

    /// An enrolled node's way.
    async fn node(&self, seed: u64) -> (NodeId, Self::Link);

    /// Connects, and gives both ends.
    async fn meet(&mut self, link: &Self::Link) -> (Session, HostEnd) {
        let session = soon(link.connect(hello())).await.unwrap();
        (session, soon(self.sessions().recv()).await.unwrap())
    }
}

/// A researcher in this process.
pub(crate) struct MemoryWorld {
    host: Arc<TestHost>,
    sessions: mpsc::UnboundedReceiver<HostEnd>,
    pub(crate) server: MemoryServer<TestHost>,
}

impl MemoryWorld {
    pub(crate) fn faulty(&self, seed: u64, faults: Faults) -> (NodeId, MemoryLink<TestHost>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let node = NodeId::random(&mut rng);
        let link = self.server.link(node.clone(), [7; 32], faults, rng);
        (node, link)
    }
}

impl Way for MemoryWorld {
    type Link = MemoryLink<TestHost>;

    async fn start() -> Self {
        let (host, sessions) = TestHost::new();
        let server = MemoryServer::default();
        server.start(host.clone());
        Self { host, sessions, server }
    }

    fn host(&self) -> &Arc<TestHost> {
        &self.host
    }

    fn sessions(&mut self) -> &mut mpsc::UnboundedReceiver<HostEnd> {
        &mut self.sessions
    }

    async fn node(&self, seed: u64) -> (NodeId, MemoryLink<TestHost>) {
        self.faulty(seed, Faults::default())
    }
}

/// A researcher that listens on this machine.
pub(crate) struct World {
    pub(crate) host: Arc<TestHost>,
    pub(crate) sessions: mpsc::UnboundedReceiver<HostEnd>,
    pub(crate) address: Address,
    _shutdown: oneshot::Sender<()>,
}

pub(crate) async fn listener() -> (tokio::net::TcpListener, Address) {
    let listener = socket::listen(&matrix::RESEARCHER_FROM_NODE, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Address::new("127.0.0.1", port).unwrap())
}

impl Way for World {
    type Link = GrpcLink;

    async fn start() -> Self {
        let (host, sessions) = TestHost::new();
        let identity = host.ca.issue_server(host.clock.now(), 365 * DAY, &mut StdRng::seed_from_u64(3)).unwrap();
        let tls = ServerTls::new(&identity, host.clock.clone()).unwrap();
        let (listener, address) = listener().await;
        let (shutdown, stopped) = oneshot::channel::<()>();
        let served = host.clone();
        tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serve(served, tls, listener, stopped).await;
        });
        Self { host, sessions, address, _shutdown: shutdown }
    }

    fn host(&self) -> &Arc<TestHost> {
        &self.host
    }

    fn sessions(&mut self) -> &mut mpsc::UnboundedReceiver<HostEnd> {
        &mut self.sessions
    }

    async fn node(&self, seed: u64) -> (NodeId, GrpcLink) {
        self.node_at(seed, &self.address).await
    }
}

impl World {
    /// Enrols a node, and gives its way to the researcher at `address`.
    pub(crate) async fn node_at(&self, seed: u64, address: &Address) -> (NodeId, GrpcLink) {
        let identity = NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(seed)));
        let enrolment = self.enrol(&identity, &self.host.token(self.address.clone())).await.unwrap();
        let node = identity.node().clone();
        (node, self.link(identity, enrolment, address))
    }

    pub(crate) async fn enrol(&self, identity: &NodeIdentity, token: &EnrolmentToken) -> Result<Enrolment, LinkError> {
        enrol(token, identity, "North Hospital", &ProxyConfig::default(), self.host.clock.clone()).await
    }

    pub(crate) fn link(&self, identity: NodeIdentity, enrolment: Enrolment, address: &Address) -> GrpcLink {
        let identity = identity.enrolled(enrolment.certificate, enrolment.authority).unwrap();
        GrpcLink::new(address.clone(), &identity, ProxyConfig::default(), self.host.clock.clone()).unwrap()
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        protocol: ProtocolVersion::CURRENT,
        software: "0.1.0".to_owned(),
        capabilities: Capability::current(),
        name: "North Hospital".to_owned(),
        held: Vec::new(),
        keyed: Vec::new(),
    }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it must come soon")
}

/// Bytes that no compression or repetition could hide behind.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a contribution of a node, and its header.
pub(crate) fn contribution(folder: &Path, seed: u64, len: usize) -> (UploadHeader, PathBuf, Vec<u8>) {
    let bytes = noise(seed, len);
    let header = UploadHeader {
        task: TaskId::random(&mut StdRng::seed_from_u64(seed)),
        digest: Digest::of(&bytes),
        bytes: bytes.len() as u64,
        report: None,
    };
    let path = folder.join("contribution");
    std::fs::write(&path, &bytes).unwrap();
    (header, path, bytes)
}
