//! The link of simulations: researcher and nodes in one process, the same words, chunks and limits, no sockets.
//!
//! Faults are drawn from a generator that the caller gives, delays pass on tokio's clock (which a test can pause), and files
//! are read and written in place: on one thread everything happens in the same order each time.

mod line;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use protocol::{BlobRef, Hello, NodeId, NodeMessage, Refusal, RefusalCode, ResearcherMessage, UploadHeader};
use tokio::sync::mpsc;

use self::line::Line;
use crate::blob::{BlobError, Chunk, ChunkReader, PartialBlob, PartialFile};
use crate::convert::bulk::{self, UploadStep, Wrapping};
use crate::convert::control::{self, FromNode, FromResearcher};
use crate::convert::{self, ConvertError};
use crate::handshake;
use crate::host::{Host, HostSession, Reception};
use crate::link::{Link, LinkError, Session};

const CONTROL_QUEUE: usize = 64;

/// What may go wrong on a way. The default is a perfect one.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How long each message and chunk is under way, in milliseconds.
    pub delay_ms: Option<RangeInclusive<u64>>,
    /// After how many messages and chunks, both ways together, a connection breaks; the next one is lost.
    pub cut_after: Option<RangeInclusive<u32>>,
    /// How long a connection that broke is silent before both ends notice, in milliseconds; absent: they notice at once.
    pub silent_ms: Option<RangeInclusive<u64>>,
    /// How many of 1,000 chunks arrive damaged.
    pub damaged_per_mille: u32,
    /// How many of 1,000 attempts to connect find nobody.
    pub unreachable_per_mille: u32,
}

/// Where nodes find a researcher. It may stop, and another one (the same, restarted) take its place.
pub struct MemoryServer<H>(Arc<Mutex<Place<H>>>);

struct Place<H> {
    host: Option<Arc<H>>,
    lines: Vec<Weak<Line>>,
}

impl<H> Clone for MemoryServer<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H> Default for MemoryServer<H> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Place { host: None, lines: Vec::new() })))
    }
}

impl<H: Host> MemoryServer<H> {
    /// Lets nodes reach this host.
    pub fn start(&self, host: Arc<H>) {
        self.stop();
        self.place().host = Some(host);
    }

    /// Breaks all connections; nobody answers any more.
    pub fn stop(&self) {
        let (host, lines) = {
            let mut place = self.place();
            (place.host.take(), std::mem::take(&mut place.lines))
        };
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.cut());
        drop(host);
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Place<H>> {
        self.0.lock().expect("nobody panics with the lock held")
    }

    /// A node's way to whoever is here.
    pub fn link(
        &self,
        node: NodeId,
        key_fingerprint: [u8; 32],
        faults: Faults,
        rng: impl rand::Rng + Send + 'static,
    ) -> MemoryLink<H> {
        MemoryLink {
            server: self.clone(),
            node,
            key_fingerprint,
            line: Mutex::new(None),
            is_blocked: AtomicBool::new(false),
            chance: Arc::new(Chance { faults, rng: Mutex::new(Box::new(rng)) }),
        }
    }
}

/// Faults, as they come.
struct Chance {
    faults: Faults,
    rng: Mutex<Box<dyn rand::Rng + Send>>,
}

impl Chance {
    fn draw<T>(&self, draw: impl FnOnce(&mut dyn rand::Rng) -> T) -> T {
        draw(&mut **self.rng.lock().expect("nobody panics with the lock held"))
    }

    fn happens(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.draw(|mut rng| rand::RngExt::random_ratio(&mut rng, per_mille.min(1000), 1000))
    }

    async fn delay(&self) {
        self.wait(self.faults.delay_ms.as_ref()).await;
    }

    async fn silence(&self) {
        self.wait(self.faults.silent_ms.as_ref()).await;
    }

    async fn wait(&self, range: Option<&RangeInclusive<u64>>) {
        if let Some(range) = range {
            let millis = self.draw(|mut rng| rand::RngExt::random_range(&mut rng, range.clone()));
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    fn damage(&self, chunk: &mut Chunk) {
        if self.happens(self.faults.damaged_per_mille) {
            let mut bytes = std::mem::take(&mut chunk.bytes).into_bytes().to_vec();
            bytes[0] ^= 1;
            chunk.bytes = Bytes::from(bytes).into();
        }
    }
}

/// A node's way to a researcher in the same process.
pub struct MemoryLink<H> {
    server: MemoryServer<H>,
    node: NodeId,
    key_fingerprint: [u8; 32],
    line: Mutex<Option<Arc<Line>>>,
    is_blocked: AtomicBool,
    chance: Arc<Chance>,
}

fn nonsense(error: ConvertError) -> LinkError {
    LinkError::Broken(format!("the researcher sent nonsense: {error}"))
}

fn refused(error: ConvertError) -> LinkError {
    LinkError::Refused(error.into())
}

fn unreadable(error: &BlobError) -> LinkError {
    tracing::error!(%error, "a blob cannot be read");
    LinkError::Refused(Refusal::new(RefusalCode::Unavailable, "the researcher cannot read the parameters"))
}

impl<H: Host> MemoryLink<H> {
    /// Breaks the connection, if there is one.
    pub fn cut(&self) {
        if let Some(line) = self.line.lock().expect("nobody panics with the lock held").take() {
            line.cut();
        }
    }

    /// Blocks the way, which breaks the connection, or opens it again.
    pub fn set_blocked(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Ordering::SeqCst);
        if is_blocked {
            self.cut();
        }
    }

    /// The connection: the present one, or a new one.
    async fn line(&self) -> Result<(Arc<H>, Arc<Line>), LinkError> {
        self.chance.delay().await;
        let nobody = || LinkError::Unreachable("nobody answers".to_owned());
        let host = self.server.place().host.clone().ok_or_else(nobody)?;
        let mut present = self.line.lock().expect("nobody panics with the lock held");
        if let Some(line) = present.as_ref().filter(|line| !line.is_down()) {
            return Ok((host, line.clone()));
        }
        if self.is_blocked.load(Ordering::SeqCst) || self.chance.happens(self.chance.faults.unreachable_per_mille) {
            return Err(nobody());
        }
        let lasts = self.chance.faults.cut_after.clone();
        let lasts = lasts.map(|range| self.chance.draw(|mut rng| rand::RngExt::random_range(&mut rng, range)));
        let line = Arc::new(Line::new(lasts, self.chance.clone()));
        let mut place = self.server.place();
        place.lines.retain(|line| line.strong_count() > 0);
        place.lines.push(Arc::downgrade(&line));
        *present = Some(line.clone());
        Ok((host, line))
    }

    /// What each call begins with.
    async fn call(&self) -> Result<(Arc<H>, Arc<Line>), LinkError> {
        let (host, line) = self.line().await?;
        line.pass().await?;
        host.admit(&self.node, &self.key_fingerprint).inspect_err(|refusal| host.rejected("memory", &refusal.sentence))?;
        Ok((host, line))
    }

    async fn send_file(
        &self,
        host: &Arc<H>,
        line: &Line,
        header: UploadHeader,
        (mut file, path): (PartialFile, &Path),
    ) -> Result<(), LinkError> {
        let blob = BlobRef { digest: header.digest, bytes: header.bytes };
        let began_at = file.have();
        let spool = |error: BlobError| LinkError::Spool(error.to_string());
        let mut reader = ChunkReader::open(path, blob, began_at).map_err(spool)?;
        while let Some(mut chunk) = reader.next_chunk().map_err(spool)? {
            line.pass().await?;
            self.chance.damage(&mut chunk);
            let Ok(UploadStep::Chunk(chunk)) = bulk::upload_message(bulk::chunk_to_message(chunk, Wrapping::Upload)) else {
                unreachable!("a chunk is a chunk");
            };
            file.append(&chunk).map_err(|error| line.broken(&error.to_string()))?;
        }
        let whole = file.finish().map_err(|error| match error {
            BlobError::Digest if began_at == 0 => {
                LinkError::Refused(Refusal::new(RefusalCode::Damaged, "the contribution does not fit its digest"))
            }
            error => line.broken(&error.to_string()),
        })?;
        // In a task of its own: the host goes on though the node may be gone.
        let (host, node) = (host.clone(), self.node.clone());
        let received = tokio::spawn(async move { host.received(&node, header, whole).await });
        line.wait_for(received).await?.map_err(|error| line.broken(&error.to_string()))??;
        line.pass().await
    }
}

impl<H: Host> Link for MemoryLink<H> {
    async fn connect(&self, hello: Hello) -> Result<Session, LinkError> {
        let (host, line) = self.call().await?;
        let FromNode::Hello(hello) = control::from_node(control::hello_to_wire(&hello)).map_err(refused)? else {
            unreachable!("a hello is a hello");
        };
        let version = handshake::check("researcher", "node", hello.protocol);
        version.inspect_err(|refusal| host.rejected("memory", &refusal.sentence))?;
        let HostSession { welcome, outbox: said, inbox: heard } = line.wait_for(host.connect(&self.node, hello)).await??;
        line.pass().await?;
        let FromResearcher::Welcome(welcome) =
            control::from_researcher(control::welcome_to_wire(&welcome)).map_err(nonsense)?
        else {
            unreachable!("a welcome is a welcome");
        };
        handshake::check("node", "researcher", welcome.protocol)?;
        let (outbox, to_host) = mpsc::channel(CONTROL_QUEUE);
        let (to_node, inbox) = mpsc::channel(CONTROL_QUEUE);
        tokio::spawn(carry_up(line.clone(), to_host, heard));
        tokio::spawn(carry_down(line, said, to_node));
        Ok(Session { welcome, outbox, inbox })
    }

    async fn download(&self, into: &mut PartialBlob) -> Result<(), LinkError> {
        let (host, line) = self.call().await?;
        let request = bulk::download_request_to_wire(&into.blob(), into.have());
        let (blob, offset) = bulk::download_request(request).map_err(refused)?;
        let path = line.wait_for(host.blob(&self.node, blob)).await??;
        let mut reader = ChunkReader::open(&path, blob, offset).map_err(|error| unreadable(&error))?;
        while let Some(mut chunk) = reader.next_chunk().map_err(|error| unreadable(&error))? {
            line.pass().await?;
            self.chance.damage(&mut chunk);
            let chunk = bulk::chunk_message(bulk::chunk_to_message(chunk, Wrapping::None)).map_err(nonsense)?;
            into.append(&chunk).map_err(|error| line.broken(&error.to_string()))?;
        }
        Ok(())
    }

    async fn upload(&self, header: &UploadHeader, file: &Path) -> Result<(), LinkError> {
        let (host, line) = self.call().await?;
        let UploadStep::Header(header) = bulk::upload_message(bulk::upload_header_to_message(header)).map_err(refused)?
        else {
            unreachable!("a header is a header");
        };
        let reception = line.wait_for(host.receive(&self.node, &header)).await??;
        line.pass().await?;
        match reception {
            Reception::Held => Ok(()),
            Reception::Into(spool) => self.send_file(&host, &line, header, (spool, file)).await,
        }
    }
}

/// Carries what the node says to the host; drops the host's inbox when node or connection are gone.
async fn carry_up(line: Arc<Line>, mut said: mpsc::Receiver<NodeMessage>, heard: mpsc::Sender<NodeMessage>) {
    loop {
        let message = tokio::select! {
            biased;
            () = line.down() => return,
            message = said.recv() => message,
        };
        let Some(message) = message else { return };
        let envelope = control::node_message_to_wire(&message);
        if let Err(error) = convert::fits(&envelope) {
            tracing::error!(%error, "a message to the researcher is not sent");
            continue;
        }
        if line.pass().await.is_err() {
            return;
        }
        match control::from_node(envelope) {
            // If the host wants to hear no more, what it still says goes on.
            Ok(FromNode::Message(message)) => drop(heard.send(message).await),
            Ok(FromNode::Hello(_)) | Err(_) => return line.cut(),
        }
    }
}

/// Carries what the host says to the node. When the host ends, the connection ends in good order.
async fn carry_down(
    line: Arc<Line>,
    mut said: mpsc::Receiver<ResearcherMessage>,
    heard: mpsc::Sender<Result<ResearcherMessage, LinkError>>,
) {
    loop {
        let message = tokio::select! {
            biased;
            () = heard.closed() => return,
            () = line.down() => {
                let _ = heard.send(Err(Line::broken_before())).await;
                return;
            }
            message = said.recv() => message,
        };
        let Some(message) = message else { return line.cut() };
        let envelope = control::researcher_message_to_wire(&message);
        if let Err(error) = convert::fits(&envelope) {
            tracing::error!(%error, "a message to a node is not sent");
            continue;
        }
        let passed = match line.pass().await {
            Ok(()) => control::from_researcher(envelope).map_err(nonsense),
            Err(error) => Err(error),
        };
        let message = match passed {
            Ok(FromResearcher::Message(message)) => Ok(message),
            Ok(FromResearcher::Welcome(_)) => unreachable!("a message is a message"),
            Err(error) => Err(error),
        };
        let is_last = message.is_err();
        if heard.send(message).await.is_err() || is_last {
            return;
        }
    }
}
