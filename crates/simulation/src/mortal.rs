//! A researcher's service whose process can die: what nodes asked it is then never answered, and their connections break.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use protocol::{BlobRef, Digest, Hello, NodeId, NodeMessage, Refusal, RefusalCode, TaskId, UploadHeader};
use researcher::service::Service;
use tokio::sync::mpsc;
use transport::blob::CompleteFile;
use transport::host::{EnrolRequest, Enrolled, Host, HostSession, Reception};

use crate::life::{Killed, Life};
use crate::log::Log;

/// What was seen on the links, over all lives.
#[derive(Clone)]
pub(crate) struct Seen {
    uploads: Arc<Mutex<BTreeMap<TaskId, (NodeId, UploadHeader)>>>,
    /// The answers to exchanges of secure aggregation.
    answers: Arc<Mutex<BTreeMap<TaskId, (NodeId, Digest)>>>,
    violations: Arc<Mutex<Vec<String>>>,
    log: Log,
}

impl Seen {
    pub(crate) fn new(log: Log) -> Self {
        Self { uploads: Arc::default(), answers: Arc::default(), violations: Arc::default(), log }
    }

    /// The contributions that were brought, by task, and by whom.
    pub(crate) fn uploads(&self) -> BTreeMap<TaskId, (NodeId, UploadHeader)> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What leaves a node is sent again, never computed again: digest, report and all.
    fn upload(&self, node: &NodeId, header: &UploadHeader) {
        self.log.write(format!("{} offers {}", node.short(), header.task.short()));
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, first) = uploads.entry(header.task.clone()).or_insert_with(|| (node.clone(), header.clone()));
        if first != header {
            let violation = format!("{} brought two contributions: {first:?}, then {header:?}", header.task);
            self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
        }
    }

    /// So are the messages of secure aggregation: another one for the same task could reveal what the first one hid.
    fn message(&self, node: &NodeId, message: &NodeMessage) {
        let NodeMessage::Answered { task, answer } = message else { return };
        let digest = Digest::of(answer.as_bytes());
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let first = answers.entry(task.clone()).or_insert_with(|| (node.clone(), digest));
        if *first != (node.clone(), digest) {
            let violation = format!("{task} was answered in two ways: {first:?}, then {node} {digest}");
            self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
        }
    }

    /// Listens to what a node says on its way to the researcher.
    fn listen(&self, node: &NodeId, session: HostSession) -> HostSession {
        let (inbox, mut said) = mpsc::channel(1);
        let (seen, node, heard) = (self.clone(), node.clone(), session.inbox);
        tokio::spawn(async move {
            while let Some(message) = said.recv().await {
                seen.message(&node, &message);
                // If the researcher wants to hear no more, what the node still says goes on.
                drop(heard.send(message).await);
            }
        });
        HostSession { inbox, ..session }
    }
}

pub(crate) struct Mortal {
    service: Arc<Service>,
    life: Arc<Life>,
    seen: Seen,
}

impl Mortal {
    pub(crate) fn new(service: Arc<Service>, life: Arc<Life>, seen: Seen) -> Self {
        Self { service, life, seen }
    }

    /// Lets the process work on an answer as long as it lives.
    async fn live<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        poll_fn(|context| {
            if self.life.is_over() {
                return Poll::Pending;
            }
            match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
                Ok(poll) => poll,
                Err(panic) if panic.is::<Killed>() => Poll::Pending,
                Err(panic) => resume_unwind(panic),
            }
        })
        .await
    }
}

impl Host for Mortal {
    async fn enrol(&self, request: EnrolRequest, peer: &str) -> Result<Enrolled, Refusal> {
        self.live(self.service.enrol(request, peer)).await
    }

    async fn renew(&self, node: &NodeId, csr: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        self.live(self.service.renew(node, csr)).await
    }

    fn admit(&self, node: &NodeId, key_fingerprint: &[u8; 32]) -> Result<(), Refusal> {
        if self.life.is_over() {
            return Err(Refusal::new(RefusalCode::Unavailable, "nobody is there"));
        }
        self.service.admit(node, key_fingerprint)
    }

    async fn connect(&self, node: &NodeId, hello: Hello) -> Result<HostSession, Refusal> {
        let session = self.live(self.service.connect(node, hello)).await?;
        Ok(self.seen.listen(node, session))
    }

    async fn blob(&self, node: &NodeId, blob: BlobRef) -> Result<PathBuf, Refusal> {
        self.live(self.service.blob(node, blob)).await
    }

    async fn receive(&self, node: &NodeId, header: &UploadHeader) -> Result<Reception, Refusal> {
        self.seen.upload(node, header);
        let reception = self.live(self.service.receive(node, header)).await?;
        if let Reception::Into(file) = &reception
            && file.have() > 0
        {
            self.seen.log.write(format!("{} goes on at byte {}", header.task.short(), file.have()));
        }
        Ok(reception)
    }

    async fn received(&self, node: &NodeId, header: UploadHeader, file: CompleteFile) -> Result<(), Refusal> {
        self.live(self.service.received(node, header, file)).await
    }

    fn rejected(&self, peer: &str, reason: &str) {
        // Writing it down may be the step at which the process dies.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.service.rejected(peer, reason)))
            && !panic.is::<Killed>()
        {
            resume_unwind(panic);
        }
    }
}
