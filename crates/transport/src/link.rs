//! What a node can do towards one researcher. Two implementations: gRPC and in-process.

use std::future::Future;
use std::path::Path;

use protocol::{Hello, NodeMessage, Refusal, ResearcherMessage, UploadHeader, Welcome};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::blob::{ChunkDigests, PartialBlob};

/// Why a call did not come to its end.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Nobody answers, or the way is blocked. Try again later.
    #[error("the researcher cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke. Try again soon; transfers go on from the last good chunk.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The certificate is not one of the federation: never trusted silently, tried again only after a person acted.
    #[error("{0}")]
    Identity(String),
    /// The other side said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The own disk or an own file failed.
    #[error("the spool cannot be used: {0}")]
    Spool(String),
}

/// An open control stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    pub welcome: Welcome,
    /// To the researcher. Sending fails once the connection is gone.
    pub outbox: mpsc::Sender<NodeMessage>,
    /// From the researcher. An error is the last item; `None` means that the researcher closed in good order.
    pub inbox: mpsc::Receiver<Result<ResearcherMessage, LinkError>>,
}

/// A way to one researcher.
pub trait Link: Send + Sync + 'static {
    /// Opens the control stream.
    fn connect(&self, hello: Hello) -> impl Future<Output = Result<Session, LinkError>> + Send;

    /// Fetches the rest of a blob. On error what came so far stays in `into`; call again to go on.
    fn download(&self, into: &mut PartialBlob) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Brings a contribution, from where the researcher has it already. `Ok` means that the researcher holds all of it.
    fn upload(&self, header: &UploadHeader, file: &Path) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// As [`Self::upload`], of a file the digests of whose chunks were made when it was written.
    fn upload_hashed(
        &self,
        header: &UploadHeader,
        file: &Path,
        _digests: ChunkDigests,
    ) -> impl Future<Output = Result<(), LinkError>> + Send {
        self.upload(header, file)
    }
}
