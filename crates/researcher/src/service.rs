//! What nodes meet: who may speak, what is wanted, where it goes. What happens with it is the driver's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use protocol::{
    BlobRef, Capability, Hello, NodeId, NodeMessage, ProtocolVersion, Refusal, RefusalCode, Timestamp, UploadHeader, Welcome,
};
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use transport::blob::{CompleteFile, PartialFile};
use transport::host::{EnrolRequest, Enrolled, Host, HostSession, Reception};
use transport::identity::{Certificate, FederationCa, Fingerprint, IdentityError, SigningRequest};

use crate::board::TaskPlace;
use crate::desk::Desk;
use crate::driver::Mail;
use crate::rejections::Rejections;
use crate::researcher::CommandError;
use crate::results::SOFTWARE;
use crate::sessions::Asker;
use crate::store::{EnrolledNode, Enrolment, StoreError};

/// Messages of one node that may wait to be heard.
const INBOX: usize = 256;
/// What holds an experiment up whose contributions find no room.
const SPOOL_FULL: &str = "contributions wait for room in the spool; `experiments.spool_quota_mb` sets its size";

/// The researcher, as nodes see it.
pub struct Service {
    desk: Arc<Desk>,
    ca: Arc<FederationCa>,
    certificate_validity: Duration,
    rng: Mutex<StdRng>,
    /// As in the store: it is asked at each call.
    nodes: RwLock<BTreeMap<NodeId, EnrolledNode>>,
    rejections: Mutex<Rejections>,
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "a node could not be answered");
    Refusal::new(RefusalCode::Internal, "the researcher has a problem of its own; its log says which")
}

impl Service {
    pub(crate) fn new(
        desk: Arc<Desk>,
        ca: FederationCa,
        certificate_validity: Duration,
        rng: StdRng,
    ) -> Result<Self, StoreError> {
        let nodes = desk.store_now(|store| store.nodes())?;
        let nodes = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
        Ok(Self {
            desk,
            ca: Arc::new(ca),
            certificate_validity,
            rng: Mutex::new(rng),
            nodes: RwLock::new(nodes),
            rejections: Mutex::default(),
        })
    }

    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    pub(crate) fn ca(&self) -> &FederationCa {
        &self.ca
    }

    /// Draws from the service's generator.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_rejections(&self) -> MutexGuard<'_, Rejections> {
        self.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, node: &NodeId) -> Option<EnrolledNode> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    fn set_node(&self, node: EnrolledNode) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(node.id.clone(), node);
    }

    pub(crate) fn enrolled(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).values().filter(|node| node.revoked.is_none()).count()
    }

    /// Shuts a node out, by id or name: on the disk, then at once. Returns its name.
    pub(crate) async fn revoke(&self, text: String, by: &str) -> Result<String, StoreError> {
        let now = self.desk.clock.now();
        let mut node = self.desk.store(move |store| store.revoke_node(&text, now)).await?;
        node.revoked.get_or_insert(now);
        self.set_node(node.clone());
        self.desk.sessions.cut(&node.id);
        self.desk.note(
            "node.revoked",
            [("node", node.id.as_str().into()), ("name", node.name.as_str().into()), ("by", by.into())],
        );
        self.desk.mail(Mail::Revoked { node: node.id }).await;
        Ok(node.name)
    }

    /// Takes a token: writes the node and signs its key.
    async fn admit_new(&self, request: EnrolRequest, now: Timestamp) -> Result<(EnrolledNode, Certificate), Refusal> {
        let (secret, node) = (request.secret.hash(), request.node.clone());
        // Before anything is signed for a stranger.
        self.desk.store(move |store| store.invited(secret, &node, now)).await.map_err(|error| internal(&error))??;
        let certificate = self.issue(request.node.clone(), request.csr).await;
        let certificate = certificate.map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))?;
        let new = enrolment(&request.node, &certificate);
        let enrolled =
            self.desk.store(move |store| store.enrol(secret, &new, now)).await.map_err(|error| internal(&error))?;
        Ok((enrolled?, certificate))
    }

    /// Signs the request in a file and writes the node down. It may connect from then on.
    pub(crate) async fn enrol_by_file(
        &self,
        request: SigningRequest,
        name: String,
        replaces: bool,
        by: &str,
    ) -> Result<Certificate, CommandError> {
        let (node, key, now) = (request.node().clone(), *request.key_fingerprint().as_bytes(), self.desk.clock.now());
        let (asked, called) = (node.clone(), name.clone());
        let admitted = self.desk.store(move |store| store.check_admits(&asked, &called, &key, replaces)).await;
        if let Err(error) = admitted {
            let facts = [("node", node.as_str().into()), ("by", by.into()), ("reason", error.to_string().into())];
            self.desk.note("enrolment.refused", facts);
            return Err(error.into());
        }
        let certificate = self.issue(node.clone(), request.as_der().to_vec()).await;
        let certificate = certificate.map_err(|error| CommandError::Refused(error.to_string()))?;
        let new = enrolment(&node, &certificate);
        let known = self.desk.store(move |store| store.enrol_by_file(&name, &new, now)).await?;
        tracing::info!(%node, name = known.name, by, "enrolled by file");
        let facts = [
            ("node", node.as_str().into()),
            ("name", known.name.as_str().into()),
            ("key", certificate.key_fingerprint().to_string().into()),
            ("by", by.into()),
        ];
        self.desk.note("node.enrolled_by_file", facts);
        self.set_node(known);
        Ok(certificate)
    }

    /// Signs a node's key.
    async fn issue(&self, node: NodeId, csr: Vec<u8>) -> Result<Certificate, IdentityError> {
        let (ca, now, validity) = (self.ca.clone(), self.desk.clock.now(), self.certificate_validity);
        let mut rng = self.draw(rand::SeedableRng::from_rng);
        let sign = move |rng: &mut StdRng| ca.issue_node(&csr, &node, now, validity, rng);
        self.desk.blocking.run(move || sign(&mut rng)).await
    }
}

fn enrolment(node: &NodeId, certificate: &Certificate) -> Enrolment {
    Enrolment {
        node: node.clone(),
        key_fingerprint: *certificate.key_fingerprint().as_bytes(),
        certificate_expires: certificate.not_after(),
    }
}

impl Host for Service {
    async fn enrol(&self, request: EnrolRequest, peer: &str) -> Result<Enrolled, Refusal> {
        let now = self.desk.clock.now();
        let id = request.node.clone();
        let (node, certificate) = self.admit_new(request, now).await.inspect_err(|refusal| {
            let code = refusal.code.name();
            let Some((peer, count)) = self.lock_rejections().count(peer, &code, now) else { return };
            tracing::warn!(peer, node = %id, %refusal, count, "an enrolment is refused");
            let facts =
                [("peer", peer.into()), ("node", id.as_str().into()), ("code", code.into()), ("count", count.into())];
            self.desk.note("enrolment.refused", facts);
        })?;
        tracing::info!(peer, node = %id, name = node.name, "enrolled");
        let facts = [
            ("peer", peer.into()),
            ("node", id.as_str().into()),
            ("name", node.name.as_str().into()),
            ("key", certificate.key_fingerprint().to_string().into()),
        ];
        self.desk.note("node.enrolled", facts);
        self.set_node(node);
        Ok(Enrolled {
            certificate: certificate.as_der().to_vec(),
            researcher: self.desk.researcher.clone(),
            task_key: self.desk.task_key.public_point().to_vec(),
        })
    }

    async fn renew(&self, node: &NodeId, csr: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let certificate = self.issue(node.clone(), csr).await;
        let certificate = certificate.map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))?;
        let new = enrolment(node, &certificate);
        let written = new.clone();
        self.desk.store(move |store| store.renew(&written)).await.map_err(|error| internal(&error))?;
        if let Some(mut known) = self.node(node) {
            (known.key_fingerprint, known.certificate_expires) = (new.key_fingerprint, new.certificate_expires);
            self.set_node(known);
        }
        tracing::info!(%node, expires = %certificate.not_after(), "certificate renewed");
        self.desk.note("certificate.renewed", [("node", node.as_str().into())]);
        Ok(certificate.as_der().to_vec())
    }

    fn admit(&self, node: &NodeId, key_fingerprint: &[u8; 32]) -> Result<(), Refusal> {
        match self.node(node) {
            None => Err(Refusal::new(RefusalCode::NotEnrolled, "this node is not enrolled with this researcher")),
            Some(known) if known.revoked.is_some() => {
                Err(Refusal::new(RefusalCode::NodeRevoked, "the researcher has revoked this node's enrolment"))
            }
            Some(known) if known.key_fingerprint != *key_fingerprint => Err(Refusal::new(
                RefusalCode::NotEnrolled,
                "this node is enrolled with another key; enrol again with a new token",
            )),
            Some(_) => Ok(()),
        }
    }

    async fn connect(&self, node: &NodeId, hello: Hello) -> Result<HostSession, Refusal> {
        let known = self.node(node);
        let key = Fingerprint::from_bytes(known.as_ref().map_or([0; 32], |known| known.key_fingerprint));
        let name = known.map_or(hello.name, |known| known.name);
        let (number, outbox) = self.desk.sessions.open(node, &name, self.desk.clock.now());
        let (inbox, said) = mpsc::channel(INBOX);
        let held = hello.held.into_iter().map(|held| held.task).collect();
        let desk = self.desk.clone();
        let (node, software) = (node.clone(), hello.software);
        tokio::spawn(async move {
            tracing::info!(%node, name, software, "connected");
            desk.mail(Mail::Connected { node: node.clone(), name, held, keyed: hello.keyed }).await;
            seen(&desk, &node, Some(software)).await;
            listen(&desk, &node, key, said).await;
            // A newer connection of the same node has taken over otherwise.
            if desk.sessions.close(&node, number) || !desk.sessions.is_open(&node) {
                tracing::info!(%node, "disconnected");
                desk.mail(Mail::Disconnected { node: node.clone() }).await;
            }
            seen(&desk, &node, None).await;
        });
        let welcome = Welcome {
            protocol: ProtocolVersion::CURRENT,
            software: SOFTWARE.to_owned(),
            capabilities: Capability::current(),
            researcher: self.desk.researcher.clone(),
        };
        Ok(HostSession { welcome, outbox, inbox })
    }

    async fn blob(&self, node: &NodeId, blob: BlobRef) -> Result<PathBuf, Refusal> {
        let experiment = self.desk.board.experiment_of_model(node, blob);
        let experiment =
            experiment.ok_or_else(|| Refusal::new(RefusalCode::TaskUnknown, "no open task of this node needs this"))?;
        Ok(self.desk.files.model(&experiment, blob))
    }

    async fn receive(&self, node: &NodeId, header: &UploadHeader) -> Result<Reception, Refusal> {
        let Some(open) = self.desk.board.task(&header.task).filter(|open| open.node == *node) else {
            return Err(self.desk.late(node, &header.task));
        };
        if open.place == TaskPlace::Contributed {
            return Ok(Reception::Held);
        }
        if header.bytes != open.bytes {
            let sentence = format!("the contribution should have {} bytes, not {}", open.bytes, header.bytes);
            return Err(Refusal::new(RefusalCode::Malformed, sentence));
        }
        let quota = self.desk.spool_quota_bytes;
        if header.bytes > quota {
            tracing::error!(%node, "a contribution is larger than the spool; `experiments.spool_quota_mb` sets its size");
            return Err(Refusal::new(RefusalCode::TooLarge, "the contribution is larger than the researcher has room for"));
        }
        let path = self.desk.files.contribution(&header.task);
        let Some(share) = self.desk.board.announce(&header.task, header.bytes, path.clone(), quota) else {
            if self.desk.board.hold_up(&header.task, SPOOL_FULL) {
                tracing::error!(%node, experiment = %open.experiment, "{SPOOL_FULL}");
            }
            return Err(Refusal::new(RefusalCode::QuotaExceeded, "the researcher has no room for more contributions"));
        };
        let blob = BlobRef { digest: header.digest, bytes: header.bytes };
        let file = self.desk.blocking.run(move || PartialFile::open(&path, blob)).await;
        file.map(|file| Reception::Into(file.holding(share))).map_err(|error| internal(&error))
    }

    async fn received(&self, node: &NodeId, header: UploadHeader, file: CompleteFile) -> Result<(), Refusal> {
        // The file is not forced to the disk: the node keeps its own until the round is closed, and a start checks the digest.
        let (answer, answered) = oneshot::channel();
        self.desk.mail(Mail::Contributed { node: node.clone(), header, answer }).await;
        let ending = |_| Refusal::new(RefusalCode::Unavailable, "the researcher's daemon is ending");
        let taken = answered.await.unwrap_or_else(|error| Err(ending(error)));
        // Its share of the quota is kept until it counts among those that are here.
        drop(file);
        taken
    }

    fn rejected(&self, peer: &str, reason: &str) {
        let Some((peer, count)) = self.lock_rejections().count(peer, reason, self.desk.clock.now()) else { return };
        tracing::warn!(peer, reason, count, "not let in");
        let facts = [("peer", peer.into()), ("reason", reason.into()), ("count", count.into())];
        self.desk.note("peer.rejected", facts);
    }
}

async fn seen(desk: &Desk, node: &NodeId, software: Option<String>) {
    let (node, now) = (node.clone(), desk.clock.now());
    if let Err(error) = desk.store(move |store| store.node_seen(&node, software.as_deref(), now)).await {
        tracing::warn!(%error, "it cannot be noted that a node was here");
    }
}

/// Hands on what a node says until its connection is gone.
async fn listen(desk: &Desk, node: &NodeId, key: Fingerprint, mut said: mpsc::Receiver<NodeMessage>) {
    while let Some(message) = said.recv().await {
        let node = node.clone();
        match message {
            NodeMessage::Accepted { task } => desk.board.accepted(&node, &task),
            NodeMessage::Progress { task, progress } => desk.board.progress(&node, &task, progress),
            NodeMessage::Refused { task, refusal } => desk.mail(Mail::Refused { node, task, refusal }).await,
            NodeMessage::OutOfRange { task, exponents } => desk.mail(Mail::OutOfRange { node, task, exponents }).await,
            NodeMessage::Answered { task, answer } => desk.mail(Mail::Answered { node, task, answer, key }).await,
            NodeMessage::Found { request, datasets } => match desk.sessions.answered(&node, &request) {
                Some(Asker::Experiment(experiment)) => desk.mail(Mail::Found { experiment, node, datasets }).await,
                // Who has gone away does not want it any more.
                Some(Asker::Person(asker)) => drop(asker.send(datasets)),
                None => {}
            },
        }
    }
}
