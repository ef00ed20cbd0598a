//! The calls of one connection, handed to the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use protocol::{Hello, NodeId, NodeMessage, Refusal, RefusalCode, ResearcherMessage, UploadHeader};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::credits::Credits;
use super::download::{self, Budget};
use super::messages::{Aside, Receiving, Sending, Side};
use super::reception::{self, Receptions, Turn};
use super::status;
use crate::blob::PartialFile;
use crate::convert::bulk::{self, UploadAnswer, UploadStep};
use crate::convert::control::{self, FromNode};
use crate::convert::{self, ConvertError, enrolment};
use crate::handshake;
use crate::host::{Host, HostSession, Reception};
use crate::identity::Certificate;
use crate::wire;
use crate::wire::federation_server::Federation;

/// How long a node may take for the first message of a stream.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Enrolments that are refused on one connection before it is closed.
const MAX_REFUSED_ENROLMENTS: u32 = 3;
/// Messages that wait on a control stream.
const CONTROL_QUEUE: usize = 64;

/// What all connections share.
pub(super) struct Shared<H> {
    pub(super) host: Arc<H>,
    pub(super) credits: Credits,
    pub(super) download_budget: Budget,
    pub(super) receptions: Receptions,
}

/// Who is at the other end of a connection.
pub(super) struct Peer {
    /// For logs.
    pub(super) address: String,
    /// Absent while a node has none. TLS has checked it.
    pub(super) certificate: Option<Certificate>,
}

/// One connection's calls.
pub(super) struct Calls<H> {
    pub(super) shared: Arc<Shared<H>>,
    pub(super) peer: Arc<Peer>,
    /// Set when the connection is to end.
    pub(super) closing: watch::Sender<bool>,
    refused_enrolments: Arc<AtomicU32>,
}

impl<H> Clone for Calls<H> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            peer: self.peer.clone(),
            closing: self.closing.clone(),
            refused_enrolments: self.refused_enrolments.clone(),
        }
    }
}

impl<H: Host> Calls<H> {
    pub(super) fn new(shared: Arc<Shared<H>>, peer: Peer, closing: watch::Sender<bool>) -> Self {
        Self { shared, peer: Arc::new(peer), closing, refused_enrolments: Arc::default() }
    }

    fn rejected(&self, refusal: &Refusal) -> Status {
        self.shared.host.rejected(&self.peer.address, &refusal.sentence);
        status::from_refusal(refusal)
    }

    /// A message that is none costs the connection.
    fn nonsense(&self, refusal: &Refusal) -> Status {
        tracing::warn!(
            peer = self.peer.address,
            reason = refusal.sentence,
            "a message is refused, the connection is closed"
        );
        self.close();
        self.rejected(refusal)
    }

    fn malformed(&self, error: ConvertError) -> Status {
        self.nonsense(&error.into())
    }

    fn close(&self) {
        self.closing.send_replace(true);
    }

    /// The node, if it may speak now.
    fn admitted(&self) -> Result<NodeId, Status> {
        let certificate = self.peer.certificate.as_ref();
        let Some((certificate, node)) = certificate.and_then(|certificate| Some((certificate, certificate.node()?))) else {
            // A stranger is told once: each refusal costs it a handshake.
            self.close();
            let sentence = "a node's certificate is needed: enrol first";
            return Err(self.rejected(&Refusal::new(RefusalCode::NotEnrolled, sentence)));
        };
        let admitted = self.shared.host.admit(node, certificate.key_fingerprint().as_bytes());
        admitted.map_err(|refusal| self.rejected(&refusal)).map(|()| node.clone())
    }

    /// Waits until the connection is to end; gives the reason to tell the node.
    async fn ended(self) -> Status {
        // An error cannot be: this holds a sender.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
        self.admitted().err().unwrap_or_else(|| status::broken("the researcher ended the connection"))
    }

    async fn first<T>(&self, stream: &mut Streaming<T>) -> Result<T, Status> {
        let first = timeout(FIRST_MESSAGE_TIMEOUT, stream.message()).await;
        let first = first.map_err(|_| status::broken("the first message took too long"))?;
        self.said(first)?.ok_or_else(|| status::broken("the first message did not come"))
    }

    /// Sorts what came from a stream: a message, its end, or nonsense.
    fn said<T>(&self, message: Result<Option<T>, Status>) -> Result<Option<T>, Status> {
        message.map_err(|error| match status::nonsense(&error) {
            Some(refusal) => self.nonsense(&refusal),
            None => status::broken("the node is gone"),
        })
    }

    async fn greeted(&self, stream: &mut Streaming<wire::NodeEnvelope>) -> Result<Hello, Status> {
        match control::from_node(self.first(stream).await?) {
            Ok(FromNode::Hello(hello)) => Ok(hello),
            Ok(FromNode::Message(_)) => Err(self.malformed(ConvertError::Unknown)),
            Err(error) => Err(self.malformed(error)),
        }
    }

    /// Hands what the node says to the host, until either is gone.
    async fn listen(
        self,
        mut stream: Streaming<wire::NodeEnvelope>,
        inbox: mpsc::Sender<NodeMessage>,
    ) -> Result<(), Status> {
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                // The host wants to hear no more; what it still has to say decides when the session ends.
                () = inbox.closed() => std::future::pending().await,
            };
            let Some(envelope) = self.said(message)? else { return Ok(()) };
            match control::from_node(envelope) {
                Ok(FromNode::Message(message)) => {
                    // If the host is gone, the next turn sees it.
                    let _ = inbox.send(message).await;
                }
                Ok(FromNode::Hello(_)) => return Err(self.malformed(ConvertError::Unknown)),
                Err(error) => return Err(self.malformed(error)),
            }
        }
    }

    /// Carries a session's messages both ways, until one side ends it. When the host does, the connection ends with it.
    async fn converse(
        self,
        session: HostSession,
        stream: Streaming<wire::NodeEnvelope>,
        out: Outbox<wire::ResearcherEnvelope>,
    ) {
        let HostSession { mut outbox, inbox, .. } = session;
        let ended = {
            let listen = self.clone().listen(stream, inbox);
            tokio::pin!(listen);
            tokio::select! {
                ended = &mut listen => ended,
                () = speak(&mut outbox, &out) => {
                    // Who ends a session wants the node to be gone.
                    self.close();
                    Ok(())
                }
                () = out.closed() => Ok(()),
                status = self.clone().ended() => Err(status),
            }
        };
        if let Err(status) = ended {
            let _ = out.send(Err(status)).await;
        }
    }

    async fn upload_header(&self, steps: &mut Receiving) -> Result<UploadHeader, Status> {
        let first = timeout(FIRST_MESSAGE_TIMEOUT, steps.next()).await;
        let first = self.said(first.map_err(|_| status::broken("the first message took too long"))?)?;
        match bulk::upload_message(first.ok_or_else(|| status::broken("the first message did not come"))?) {
            Ok(UploadStep::Header(header)) => Ok(header),
            Ok(UploadStep::Chunk(_)) => Err(self.malformed(ConvertError::Unknown)),
            Err(error) => Err(self.malformed(error)),
        }
    }

    async fn take(
        self,
        node: NodeId,
        header: UploadHeader,
        reception: (PartialFile, Turn),
        mut steps: Receiving,
        answers: Outbox<wire::UploadDown>,
    ) {
        let (file, turn) = reception;
        let whole = tokio::select! {
            whole = reception::receive(&header, file, &mut steps, &answers, &self.shared.credits, &turn) => whole,
            status = self.clone().ended() => Err(status),
        };
        // From here on nobody interrupts the host, even if the node is gone.
        let received = match whole {
            Ok(file) => {
                self.shared.host.received(&node, header, file).await.map_err(|refusal| status::from_refusal(&refusal))
            }
            Err(status) => Err(status),
        };
        drop(turn);
        if let Err(status) = &received
            && status::is_fault(status)
        {
            tracing::warn!(
                peer = self.peer.address,
                reason = status.message(),
                "an upload is refused, the connection is closed"
            );
            self.shared.host.rejected(&self.peer.address, &format!("its upload was refused: {}", status.message()));
            self.close();
        }
        let last = received.map(|()| bulk::upload_answer_to_wire(UploadAnswer::Stored));
        let _ = answers.send(last).await;
    }
}

type Outbox<T> = mpsc::Sender<Result<T, Status>>;
type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Passes the host's messages on until it has no more. One that is too large to be read is left out:
/// sending it would cost the connection, again and again.
async fn speak(outbox: &mut mpsc::Receiver<ResearcherMessage>, out: &Outbox<wire::ResearcherEnvelope>) {
    while let Some(message) = outbox.recv().await {
        let envelope = control::researcher_message_to_wire(&message);
        match convert::fits(&envelope) {
            // If the node is gone, the caller sees it.
            Ok(()) => drop(out.send(Ok(envelope)).await),
            Err(error) => tracing::error!(%error, "a message to a node is not sent"),
        }
    }
}

#[tonic::async_trait]
impl<H: Host> Federation for Calls<H> {
    async fn enrol(&self, request: Request<wire::EnrolRequest>) -> Result<Response<wire::EnrolReply>, Status> {
        let request = enrolment::enrol_request(request.into_inner()).map_err(|error| self.malformed(error))?;
        let enrolled = self.shared.host.enrol(request, &self.peer.address).await;
        let enrolled = enrolled.map_err(|refusal| {
            if self.refused_enrolments.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REFUSED_ENROLMENTS {
                self.close();
            }
            status::from_refusal(&refusal)
        })?;
        Ok(Response::new(enrolment::enrolled_to_wire(enrolled)))
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::RenewReply>, Status> {
        let node = self.admitted()?;
        let request = enrolment::renew_request(request.get_ref()).map_err(|error| self.malformed(error))?;
        let certificate = self.shared.host.renew(&node, request).await.map_err(|refusal| status::from_refusal(&refusal))?;
        Ok(Response::new(wire::RenewReply { certificate: certificate.into() }))
    }

    type ControlStream = Answers<wire::ResearcherEnvelope>;

    async fn control(
        &self,
        request: Request<Streaming<wire::NodeEnvelope>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let node = self.admitted()?;
        let mut stream = request.into_inner();
        let hello = self.greeted(&mut stream).await?;
        handshake::check("researcher", "node", hello.protocol).map_err(|refusal| self.rejected(&refusal))?;
        let session = self.shared.host.connect(&node, hello).await.map_err(|refusal| status::from_refusal(&refusal))?;
        let (out, answers) = mpsc::channel(CONTROL_QUEUE);
        out.try_send(Ok(control::welcome_to_wire(&session.welcome))).expect("the queue is new");
        tokio::spawn(self.clone().converse(session, stream, out));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type DownloadStream = tokio_stream::Empty<Result<wire::Chunk, Status>>;

    async fn download(&self, request: Request<wire::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let node = self.admitted()?;
        let (blob, offset) = bulk::download_request(request.into_inner()).map_err(|error| self.malformed(error))?;
        let path = self.shared.host.blob(&node, blob).await.map_err(|refusal| status::from_refusal(&refusal))?;
        let chunks = download::send(path, blob, offset, self.shared.download_budget.clone(), self.clone().ended());
        let mut response = Response::new(tokio_stream::empty());
        response.extensions_mut().insert(Aside::new(Sending::body(chunks, Side::Researcher)));
        Ok(response)
    }

    type UploadStream = Answers<wire::UploadDown>;

    async fn upload(&self, mut request: Request<Streaming<wire::UploadUp>>) -> Result<Response<Self::UploadStream>, Status> {
        let node = self.admitted()?;
        let body = request.extensions_mut().remove::<Aside>().and_then(|aside| aside.take());
        let mut steps = Receiving::new(body.unwrap_or_default());
        let header = self.upload_header(&mut steps).await?;
        let turn = self.shared.receptions.begin(&node, &header.task).await;
        let reception = self.shared.host.receive(&node, &header).await.map_err(|refusal| status::from_refusal(&refusal))?;
        let (answers, receiver) = mpsc::channel(CONTROL_QUEUE);
        match reception {
            Reception::Held => {
                let stored = bulk::upload_answer_to_wire(UploadAnswer::Stored);
                answers.try_send(Ok(stored)).expect("the queue is new");
            }
            Reception::Into(file) => {
                tokio::spawn(self.clone().take(node, header, (file, turn), steps, answers));
            }
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
