//! A node's side.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::{BlobRef, Hello, NodeMessage, ResearcherId, ResearcherMessage, UploadHeader};
use rustls::ClientConfig;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::buffers::{Buffers, next_chunk};
use super::dial::{Calls, Connection, dial};
use super::messages::{Aside, Receiving, Sending, Side};
use super::proxy::ProxyConfig;
use super::status::to_link_error;
use crate::address::Address;
use crate::blob::{BlobError, ChunkDigests, ChunkReader, PartialBlob, Pieces};
use crate::clock::Clock;
use crate::convert::bulk::{self, UploadAnswer, Wrapping};
use crate::convert::control::{self, FromResearcher};
use crate::convert::{self, ConvertError, MAX_MESSAGE_BYTES, enrolment};
use crate::handshake;
use crate::host::EnrolRequest;
use crate::identity::{Certificate, EnrolledIdentity, NodeIdentity, TaskKey};
use crate::link::{Link, LinkError, Session};
use crate::tls::{self, TlsError};
use crate::token::EnrolmentToken;
use crate::wire;
use crate::wire::federation_client::FederationClient;

/// How long the researcher may take to answer a question, bulk transfers excepted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the next chunk of a download may take.
const CHUNK_TIMEOUT: Duration = Duration::from_mins(1);
/// Messages that wait in each direction of a control stream.
const CONTROL_QUEUE: usize = 64;
/// Chunks that wait to be sent.
const CHUNK_QUEUE: usize = 1;

/// What a node has after enrolment.
#[derive(Debug, Clone)]
pub struct Enrolment {
    pub researcher: ResearcherId,
    pub certificate: Certificate,
    /// The authority of the federation, to be pinned from now on.
    pub authority: Certificate,
    /// The key that signs the researcher's tasks.
    pub task_key: TaskKey,
}

fn client(calls: Calls) -> FederationClient<Calls> {
    let origin = format!("https://{}", tls::SERVER_NAME).parse().expect("the fixed name is part of a URI");
    FederationClient::with_origin(calls, origin).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

fn stalled() -> LinkError {
    LinkError::Broken("the download stalled".to_owned())
}

fn nonsense(error: ConvertError) -> LinkError {
    LinkError::Broken(format!("the researcher sent nonsense: {error}"))
}

fn unusable(error: &TlsError) -> LinkError {
    LinkError::Identity(format!("this node's identity cannot be used: {error}"))
}

/// Exchanges a token for a certificate. The secret is sent only to who proves to be of the token's authority.
pub async fn enrol(
    token: &EnrolmentToken,
    identity: &NodeIdentity,
    name: &str,
    proxy: &ProxyConfig,
    clock: Arc<dyn Clock>,
) -> Result<Enrolment, LinkError> {
    let config = tls::enrolment_config(token.authority(), clock).map_err(|error| unusable(&error))?;
    let connection = Box::pin(dial(token.address(), proxy, config)).await?;
    let unusable = |error| LinkError::Identity(format!("the enrolment cannot be used: {error}"));
    let request = EnrolRequest {
        secret: token.secret().clone(),
        node: identity.node().clone(),
        name: name.to_owned(),
        csr: identity.signing_request().map_err(unusable)?,
    };
    let reply = answered(client(connection.calls()).enrol(enrolment::enrol_request_to_wire(request))).await?;
    let enrolled = enrolment::enrolled(reply.get_ref()).map_err(nonsense)?;
    let authority = tls::find_authority(token.authority(), &connection.certificates)
        .ok_or_else(|| LinkError::Identity("the researcher did not present its authority".to_owned()))?;
    let certificate = Certificate::from_der(&enrolled.certificate).map_err(unusable)?;
    identity.check(&certificate, &authority).map_err(unusable)?;
    let task_key = TaskKey::from_point(&enrolled.task_key).map_err(unusable)?;
    Ok(Enrolment { researcher: enrolled.researcher, certificate, authority, task_key })
}

/// Waits for the answer to a small question.
async fn answered<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, LinkError> {
    let late = |_| LinkError::Broken(format!("the researcher did not answer within {} s", ANSWER_TIMEOUT.as_secs()));
    timeout(ANSWER_TIMEOUT, call).await.map_err(late)?.map_err(|status| to_link_error(&status))
}

/// Where a connection comes from.
enum Origin {
    New,
    Kept,
}

/// A way to one researcher over the network: one connection, opened when needed.
pub struct GrpcLink {
    address: Address,
    proxy: ProxyConfig,
    config: Arc<ClientConfig>,
    connection: Mutex<Option<Connection>>,
}

impl GrpcLink {
    pub fn new(
        address: Address,
        identity: &EnrolledIdentity,
        proxy: ProxyConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let config = tls::node_config(identity, clock)?;
        Ok(Self { address, proxy, config, connection: Mutex::new(None) })
    }

    /// A client on the present connection, or on a new one.
    async fn client(&self) -> Result<(FederationClient<Calls>, Origin), LinkError> {
        // Who comes while somebody dials waits for the same connection.
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref().filter(|connection| connection.is_open()) {
            return Ok((client(connection.calls()), Origin::Kept));
        }
        *connection = None;
        // Boxed: a handshake's state is large, and rarely needed.
        let dialled = Box::pin(dial(&self.address, &self.proxy, self.config.clone())).await?;
        let client = client(dialled.calls());
        *connection = Some(dialled);
        Ok((client, Origin::New))
    }

    async fn greet(mut client: FederationClient<Calls>, hello: &Hello) -> Result<Session, LinkError> {
        let (outbox, messages) = mpsc::channel(CONTROL_QUEUE);
        let mut stream = answered(client.control(said(hello, messages))).await?.into_inner();
        let Some(FromResearcher::Welcome(welcome)) = heard(&mut stream).await.transpose()? else {
            return Err(LinkError::Broken("the researcher did not say welcome".to_owned()));
        };
        handshake::check("node", "researcher", welcome.protocol)?;
        let (inbox_sender, inbox) = mpsc::channel(CONTROL_QUEUE);
        tokio::spawn(listen(stream, inbox_sender));
        Ok(Session { welcome, outbox, inbox })
    }

    /// Exchanges the present certificate for a newer one. `request` is a certificate signing request (PKCS #10, DER).
    pub async fn renew(&self, request: Vec<u8>) -> Result<Certificate, LinkError> {
        let request = wire::RenewRequest { csr: request.into() };
        let reply = answered(self.client().await?.0.renew(request)).await?;
        let certificate = enrolment::renewed(reply.get_ref()).map_err(nonsense)?;
        Certificate::from_der(&certificate)
            .map_err(|error| LinkError::Identity(format!("the new certificate cannot be used: {error}")))
    }
}

/// What a node says on the control stream, as wire messages. One that is too large to be read is left out: sending it would
/// cost the connection, again and again.
fn said(hello: &Hello, messages: mpsc::Receiver<NodeMessage>) -> impl Stream<Item = wire::NodeEnvelope> + Send + 'static {
    let messages = ReceiverStream::new(messages).filter_map(|message| {
        let envelope = control::node_message_to_wire(&message);
        convert::fits(&envelope).map_err(|error| tracing::error!(%error, "a message to the researcher is not sent")).ok()?;
        Some(envelope)
    });
    tokio_stream::once(control::hello_to_wire(hello)).chain(messages)
}

async fn heard(stream: &mut Streaming<wire::ResearcherEnvelope>) -> Option<Result<FromResearcher, LinkError>> {
    match stream.message().await {
        Ok(Some(envelope)) => Some(control::from_researcher(envelope).map_err(nonsense)),
        Ok(None) => None,
        Err(status) => Some(Err(to_link_error(&status))),
    }
}

async fn listen(mut stream: Streaming<wire::ResearcherEnvelope>, inbox: mpsc::Sender<Result<ResearcherMessage, LinkError>>) {
    loop {
        let next = tokio::select! {
            next = heard(&mut stream) => next,
            () = inbox.closed() => None,
        };
        let message = match next {
            None => return,
            Some(Ok(FromResearcher::Message(message))) => Ok(message),
            Some(Ok(FromResearcher::Welcome(_))) => Err(LinkError::Broken("the researcher said welcome twice".to_owned())),
            Some(Err(error)) => Err(error),
        };
        let is_last = message.is_err();
        if inbox.send(message).await.is_err() || is_last {
            return;
        }
    }
}

impl Link for GrpcLink {
    async fn connect(&self, hello: Hello) -> Result<Session, LinkError> {
        let (client, origin) = self.client().await?;
        match (Self::greet(client, &hello).await, origin) {
            // The researcher may have been about to close it.
            (Err(LinkError::Broken(_)), Origin::Kept) => {
                *self.connection.lock().await = None;
                Self::greet(self.client().await?.0, &hello).await
            }
            (greeted, _) => greeted,
        }
    }

    async fn download(&self, into: &mut PartialBlob) -> Result<(), LinkError> {
        if into.is_complete() {
            return Ok(());
        }
        let request = bulk::download_request_to_wire(&into.blob(), into.have());
        let mut client = self.client().await?.0;
        let answer = timeout(CHUNK_TIMEOUT, client.download(request)).await.map_err(|_| stalled())?;
        let mut answer = answer.map_err(|status| to_link_error(&status))?;
        let body = answer.extensions_mut().remove::<Aside>().and_then(|aside| aside.take());
        fill(into, Receiving::new(body.unwrap_or_default())).await
    }

    async fn upload(&self, header: &UploadHeader, file: &Path) -> Result<(), LinkError> {
        self.upload_hashed(header, file, ChunkDigests::default()).await
    }

    async fn upload_hashed(&self, header: &UploadHeader, file: &Path, digests: ChunkDigests) -> Result<(), LinkError> {
        let mut client = self.client().await?.0;
        let (chunks, receiver) = mpsc::channel(CHUNK_QUEUE);
        let messages = tokio_stream::once(bulk::upload_header_to_message(header)).chain(ReceiverStream::new(receiver));
        let mut request = tonic::Request::new(tokio_stream::empty());
        request.extensions_mut().insert(Aside::new(Sending::body(messages.map(Ok), Side::Node)));
        let answers = client.upload(request).await.map_err(|status| to_link_error(&status))?.into_inner();
        let mut answers = Answers(answers);
        let offset = match answers.next().await? {
            UploadAnswer::Stored => return Ok(()),
            UploadAnswer::Resume(offset) => offset,
            UploadAnswer::Credit(_) => {
                return Err(LinkError::Broken("the researcher gave credit before its answer".to_owned()));
            }
        };
        let blob = BlobRef { digest: header.digest, bytes: header.bytes };
        let path = file.to_owned();
        let mut reader = blocking(move || Ok(ChunkReader::open(&path, blob, offset)?.with_digests(digests))).await?;
        let buffers = Buffers::default();
        let mut credit = 0_u64;
        loop {
            let chunk;
            let read = next_chunk(reader, buffers.lend()).await;
            (chunk, reader) = read.map_err(|error| LinkError::Spool(error.to_string()))?;
            let Some(chunk) = chunk else { break };
            let bytes = chunk.bytes.len() as u64;
            while credit < bytes {
                credit = credit.saturating_add(answers.credit().await?);
            }
            credit -= bytes;
            if chunks.send(bulk::chunk_to_message(chunk, Wrapping::Upload)).await.is_err() {
                // The researcher ended the call; its reason comes next.
                break;
            }
        }
        drop(chunks);
        loop {
            match answers.next().await? {
                UploadAnswer::Stored => return Ok(()),
                UploadAnswer::Credit(_) => {}
                UploadAnswer::Resume(_) => return Err(LinkError::Broken("the researcher answered twice".to_owned())),
            }
        }
    }
}

/// Takes the chunks that are missing. A download that stalls fails; what came before stays.
async fn fill(
    into: &mut PartialBlob,
    mut chunks: impl Stream<Item = Result<Pieces, Status>> + Unpin,
) -> Result<(), LinkError> {
    while !into.is_complete() {
        let chunk = timeout(CHUNK_TIMEOUT, chunks.next()).await.map_err(|_| stalled())?;
        let chunk = chunk.ok_or_else(|| LinkError::Broken("the download ended early".to_owned()))?;
        let chunk = chunk.map_err(|status| to_link_error(&status))?;
        into.append(&bulk::chunk_message(chunk).map_err(nonsense)?).map_err(|error| match error {
            BlobError::Io(error) => LinkError::Spool(error.to_string()),
            error => LinkError::Broken(error.to_string()),
        })?;
    }
    Ok(())
}

/// What the researcher answers in the course of an upload.
struct Answers(Streaming<wire::UploadDown>);

impl Answers {
    async fn next(&mut self) -> Result<UploadAnswer, LinkError> {
        let answer = self.0.message().await.map_err(|status| to_link_error(&status))?;
        let answer = answer.ok_or_else(|| LinkError::Broken("the upload ended early".to_owned()))?;
        bulk::upload_answer(&answer).map_err(nonsense)
    }

    async fn credit(&mut self) -> Result<u64, LinkError> {
        match self.next().await? {
            UploadAnswer::Credit(bytes) => Ok(bytes),
            _ => Err(LinkError::Broken("the researcher gave no credit for the rest".to_owned())),
        }
    }
}

/// Runs file work off the threads of the network.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, LinkError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| LinkError::Spool(error.to_string()))?;
    done.map_err(|error| LinkError::Spool(error.to_string()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::Digest;

    use super::*;
    use crate::blob::{CHUNK_BYTES, Chunk};

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_does_not_come_for_60_s_ends_the_download_and_what_came_stays() {
        let bytes = Bytes::from(vec![1; CHUNK_BYTES + 3]);
        let blob = BlobRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let mut into = PartialBlob::new(blob);
        let first = bulk::chunk_to_message(Chunk::new(0, bytes.slice(..CHUNK_BYTES)), Wrapping::None);
        let late = async {
            tokio::time::sleep(Duration::from_secs(59)).await;
            Ok(first)
        };
        let chunks = one(late).chain(tokio_stream::pending());
        let stalled = timeout(Duration::from_millis((59 + 60) * 1000 + 1), fill(&mut into, chunks)).await;
        let error = stalled.expect("it ends in time").unwrap_err();
        assert!(matches!(&error, LinkError::Broken(why) if why == "the download stalled"), "{error}");
        assert_eq!(into.have(), CHUNK_BYTES as u64);
        // The next try goes on there.
        let rest = bulk::chunk_to_message(Chunk::new(CHUNK_BYTES as u64, bytes.slice(CHUNK_BYTES..)), Wrapping::None);
        fill(&mut into, tokio_stream::once(Ok(rest))).await.unwrap();
        assert!(into.is_complete());
    }

    /// A stream of one item that takes its time.
    fn one<T>(item: impl Future<Output = T>) -> impl Stream<Item = T> + Unpin {
        Box::pin(tokio_stream::once(item).then(|item| item))
    }
}
