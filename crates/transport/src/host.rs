//! What a researcher answers to nodes. The links call it with the node's id as proved by its certificate.

use std::future::Future;
use std::path::PathBuf;

use protocol::{BlobRef, Hello, NodeId, NodeMessage, Refusal, ResearcherMessage, UploadHeader, Welcome};
use tokio::sync::mpsc;

use crate::blob::{CompleteFile, PartialFile};

/// The researcher's end of a control stream.
#[derive(Debug)]
pub struct HostSession {
    pub welcome: Welcome,
    /// Messages for the node. When it ends, the link closes the connection.
    pub outbox: mpsc::Receiver<ResearcherMessage>,
    /// Messages from the node. The link drops it when the connection is gone.
    pub inbox: mpsc::Sender<NodeMessage>,
}

/// What to do with an announced upload.
#[derive(Debug)]
pub enum Reception {
    /// It is here already, whole.
    Held,
    /// Receive the rest into this.
    Into(PartialFile),
}

/// The secret of a one-time token, as a node presents it. Not printed.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct TokenSecret(pub String);

/// A node's wish to enrol.
pub struct EnrolRequest {
    pub secret: TokenSecret,
    /// The id that the node made itself; kept when it enrols again.
    pub node: NodeId,
    pub name: String,
    /// PKCS #10 certificate signing request, DER. It proves that the node has the key.
    pub csr: Vec<u8>,
}

/// What an enrolled node gets.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The node's certificate, DER.
    pub certificate: Vec<u8>,
    pub researcher: protocol::ResearcherId,
    /// The key that signs tasks: an uncompressed P-256 point (SEC 1 §2.3.3).
    pub task_key: Vec<u8>,
}

/// A researcher, as the links see it.
///
/// A call that is under way when its node goes may be dropped at any of its await points, except [`Host::received`], which
/// always runs to its end. File work of a host belongs on the threads for blocking work.
pub trait Host: Send + Sync + 'static {
    /// Takes a token and signs a certificate. `peer` is the address for the log.
    fn enrol(&self, request: EnrolRequest, peer: &str) -> impl Future<Output = Result<Enrolled, Refusal>> + Send;

    /// Signs a new certificate for a node whose present one is still good.
    fn renew(&self, node: &NodeId, csr: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;

    /// Whether this node, presenting the certificate with this SHA-256 fingerprint of its key, may speak. Asked at each call.
    fn admit(&self, node: &NodeId, key_fingerprint: &[u8; 32]) -> Result<(), Refusal>;

    fn connect(&self, node: &NodeId, hello: Hello) -> impl Future<Output = Result<HostSession, Refusal>> + Send;

    /// Where the blob lies, if a task of this node refers to it.
    fn blob(&self, node: &NodeId, blob: BlobRef) -> impl Future<Output = Result<PathBuf, Refusal>> + Send;

    /// Whether the contribution is wanted, and where it goes.
    fn receive(&self, node: &NodeId, header: &UploadHeader) -> impl Future<Output = Result<Reception, Refusal>> + Send;

    /// Takes a whole contribution.
    fn received(
        &self,
        node: &NodeId,
        header: UploadHeader,
        file: CompleteFile,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Writes a line about somebody who could not be let in to the audit log.
    fn rejected(&self, peer: &str, reason: &str);
}
