//! Where a component negotiates: one listener for all negotiations that run, open as long as one does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use protocol::{Refusal, RefusalCode};
use rand::rngs::StdRng;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::frame::{read_message, write_reply};
use super::pins::{Accepting, dialling};
use super::push::{PushError, push};
use super::{Message, Notice, Outcome, Part, Party, Peer, Take, Topic, Trouble};
use crate::matrix::Row;
use crate::retry::Backoff;
use crate::socket;
use crate::strangers::{Place as Seat, Strangers};
use crate::tls::TlsError;

/// How long a connection may take to say which negotiation it means, and then all in all.
const CONVERSATION: Duration = Duration::from_secs(10);
/// How long a party may take to say its message.
const MESSAGE: Duration = Duration::from_secs(5);
/// How long a party may take to see that its message was taken.
const GOODBYE: Duration = Duration::from_secs(2);
/// What an exhausted system is given to recover before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Rejections of one negotiation that are told, so that strangers do not fill the log.
const MOST_REJECTIONS: u32 = 100;

/// Where a component listens while it negotiates, and by which rows of the network matrix.
#[derive(Debug, Clone)]
pub struct Place {
    pub host: String,
    /// 0: the system chooses.
    pub port: u16,
    pub incoming: &'static Row,
    pub outgoing: &'static Row,
}

/// Why a negotiation cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    #[error("cannot listen on {place}: {source}")]
    Listen { place: String, source: io::Error },
    #[error("this negotiation runs already")]
    Runs,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is told of the listener.
pub type Note = Arc<dyn Fn(Notice) + Send + Sync>;

/// A component's negotiations.
pub struct Office {
    place: Place,
    note: Note,
    rng: Mutex<StdRng>,
    strangers: Arc<Strangers>,
    /// By the name that clients ask for.
    running: Mutex<BTreeMap<String, Arc<Negotiation>>>,
    /// Alive as long as a negotiation holds it; the lock is held while it opens.
    listening: tokio::sync::Mutex<Weak<Listening>>,
}

struct Listening {
    listener: TcpListener,
    address: String,
    note: Note,
}

impl Drop for Listening {
    fn drop(&mut self) {
        (self.note)(Notice::Closed { address: self.address.clone() });
    }
}

/// A negotiation that runs, as its connections see it.
struct Negotiation {
    topic: Topic,
    own: Party,
    accepting: Accepting,
    take: Take,
    /// What was taken, by whom it was said. Held while a message is looked at, so that two of one party do not both count.
    heard: tokio::sync::Mutex<BTreeMap<Party, Bytes>>,
    /// Who has seen that its message was taken.
    confirmed: Mutex<BTreeSet<Party>>,
    changed: Notify,
    /// Connections that ask for this negotiation.
    visitors: mpsc::UnboundedSender<Visitor>,
}

/// A connection that has said which negotiation it means.
struct Visitor {
    handshake: StartHandshake<TcpStream>,
    address: SocketAddr,
    seat: Seat,
}

/// Takes a negotiation off the list when dropped.
struct Entry<'office> {
    office: &'office Office,
    name: String,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.office.running().remove(&self.name);
    }
}

impl Office {
    pub fn new(place: Place, note: Note, rng: StdRng) -> Self {
        Self {
            place,
            note,
            rng: Mutex::new(rng),
            strangers: Arc::default(),
            running: Mutex::default(),
            listening: tokio::sync::Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Negotiation>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the port, unless another negotiation has it open.
    async fn listen(&self) -> Result<Arc<Listening>, OfficeError> {
        let mut listening = self.listening.lock().await;
        if let Some(open) = listening.upgrade() {
            return Ok(open);
        }
        let (host, port) = (self.place.host.trim_matches(['[', ']']), self.place.port);
        let failed = |source| OfficeError::Listen { place: format!("{}:{port}", self.place.host), source };
        let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
        let address = addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let listener = socket::listen(self.place.incoming, address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        (self.note)(Notice::Opened { address: address.clone() });
        let open = Arc::new(Listening { listener, address, note: self.note.clone() });
        *listening = Arc::downgrade(&open);
        Ok(open)
    }

    fn enter(&self, negotiation: Arc<Negotiation>) -> Result<Entry<'_>, OfficeError> {
        let name = negotiation.topic.server_name();
        let mut running = self.running();
        if running.contains_key(&name) {
            return Err(OfficeError::Runs);
        }
        running.insert(name.clone(), negotiation);
        Ok(Entry { office: self, name })
    }

    /// Negotiates with all parties, until each has said and heard its part or patience ends. The port is closed when this returns
    /// or is dropped, unless another negotiation needs it.
    pub async fn negotiate(self: &Arc<Self>, part: Part) -> Result<Outcome, OfficeError> {
        let Part { topic, own, identity, peers, take, patience } = part;
        let accepting = Accepting::new(&identity, &peers)?;
        let (visitors, mut visits) = mpsc::unbounded_channel();
        let negotiation = Arc::new(Negotiation {
            topic: topic.clone(),
            own: own.clone(),
            accepting,
            take,
            heard: tokio::sync::Mutex::default(),
            confirmed: Mutex::default(),
            changed: Notify::new(),
            visitors,
        });
        let _entry = self.enter(negotiation.clone())?;
        let listening = self.listen().await?;
        let mut rejections = Rejections { note: self.note.clone(), left: MOST_REJECTIONS };
        let mut errands = JoinSet::new();
        let reasons: Arc<Mutex<BTreeMap<Party, String>>> = Arc::default();
        for peer in &peers {
            let message = Message {
                topic: topic.clone(),
                from: own.clone(),
                to: peer.party.clone(),
                purpose: topic.purpose(&own),
                payload: peer.told.clone(),
            };
            let config = dialling(&identity, peer)?;
            errands.spawn(self.clone().bring(config, peer.clone(), message, reasons.clone()));
        }
        let mut told: BTreeMap<Party, Result<(), Refusal>> = BTreeMap::new();
        let (mut arrivals, mut conversations) = (JoinSet::new(), JoinSet::new());
        let end = sleep(patience);
        tokio::pin!(end);
        loop {
            let is_settled = |peer: &Peer| match told.get(&peer.party) {
                Some(Ok(())) => negotiation.has_confirmed(&peer.party),
                Some(Err(_)) => true,
                None => false,
            };
            if peers.iter().all(is_settled) {
                break;
            }
            tokio::select! {
                () = &mut end => break,
                Some(done) = errands.join_next() => told.extend(done.ok()),
                () = negotiation.changed.notified() => {}
                accepted = listening.listener.accept() => match accepted {
                    Ok((stream, address)) => match self.strangers.take(address.ip()) {
                        Some(seat) => drop(arrivals.spawn(self.clone().arrive(stream, address, seat))),
                        None => rejections.tell(address, "too many connections of its address are open"),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(arrived) = arrivals.join_next() => rejections.tell_of(arrived.ok().flatten()),
                Some(visitor) = visits.recv() => drop(conversations.spawn(negotiation.clone().receive(visitor))),
                Some(talked) = conversations.join_next() => rejections.tell_of(talked.ok().flatten()),
            }
        }
        let heard = std::mem::take(&mut *negotiation.heard.lock().await);
        let trouble = |peer: &Peer| {
            let reason = || reasons.lock().unwrap_or_else(PoisonError::into_inner).get(&peer.party).cloned();
            let trouble = match told.get(&peer.party) {
                Some(Err(refusal)) => Trouble::Refused(refusal.clone()),
                None => Trouble::Unreached(reason().unwrap_or_else(|| "it has not answered yet".to_owned())),
                Some(Ok(())) if heard.contains_key(&peer.party) => return None,
                Some(Ok(())) => Trouble::Silent,
            };
            Some((peer.party.clone(), trouble))
        };
        let troubles = peers.iter().filter_map(trouble).collect();
        Ok(Outcome { heard, troubles })
    }

    /// Brings the own message to a party, whenever it begins to listen.
    async fn bring(
        self: Arc<Self>,
        config: Arc<rustls::ClientConfig>,
        peer: Peer,
        message: Message,
        reasons: Arc<Mutex<BTreeMap<Party, String>>>,
    ) -> (Party, Result<(), Refusal>) {
        let mut backoff = Backoff::transfer();
        loop {
            match push(self.place.outgoing, config.clone(), &peer, &message).await {
                Ok(()) => return (peer.party, Ok(())),
                Err(PushError::Refused(refusal)) => return (peer.party, Err(refusal)),
                Err(PushError::Again(reason)) => {
                    tracing::debug!(party = %peer.party, address = %peer.address, reason, "a party cannot be told yet");
                    reasons.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.party.clone(), reason);
                }
            }
            let pause = backoff.wait(&mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner));
            sleep(pause).await;
        }
    }

    /// Finds out which negotiation a connection means, and hands it over.
    async fn arrive(self: Arc<Self>, stream: TcpStream, address: SocketAddr, mut seat: Seat) -> Option<Rejection> {
        let reject = |reason: &str| Some(Rejection { from: address.to_string(), reason: reason.to_owned() });
        if socket::tune(&stream).is_err() {
            return None;
        }
        let hello = tokio::select! {
            hello = timeout(CONVERSATION, LazyConfigAcceptor::new(Acceptor::default(), stream)) => hello,
            () = seat.lost() => return reject("others took its place"),
        };
        let handshake = match hello {
            Ok(Ok(handshake)) => handshake,
            Ok(Err(_)) => return reject("it does not speak TLS"),
            Err(_) => return reject("its TLS handshake took too long"),
        };
        let name = handshake.client_hello().server_name().map(str::to_owned);
        let meant = name.and_then(|name| self.running().get(&name).cloned());
        let Some(negotiation) = meant else {
            return reject("it asks for a negotiation that does not run here");
        };
        // A negotiation that has just ended takes no visitors.
        let _ = negotiation.visitors.send(Visitor { handshake, address, seat });
        None
    }
}

/// A connection that was closed for what it is or says.
struct Rejection {
    from: String,
    reason: String,
}

struct Rejections {
    note: Note,
    left: u32,
}

impl Rejections {
    fn tell(&mut self, address: SocketAddr, reason: &str) {
        self.tell_of(Some(Rejection { from: address.to_string(), reason: reason.to_owned() }));
    }

    fn tell_of(&mut self, rejection: Option<Rejection>) {
        let Some(Rejection { from, reason }) = rejection else { return };
        let Some(left) = self.left.checked_sub(1) else { return };
        self.left = left;
        (self.note)(Notice::Rejected { from, reason });
    }
}

impl Negotiation {
    fn confirmed(&self) -> MutexGuard<'_, BTreeSet<Party>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_confirmed(&self, party: &Party) -> bool {
        self.confirmed().contains(party)
    }

    /// Listens to a connection that means this negotiation.
    async fn receive(self: Arc<Self>, visitor: Visitor) -> Option<Rejection> {
        let Visitor { handshake, address, mut seat } = visitor;
        let reject = |from: String, reason: String| Some(Rejection { from, reason });
        let talk = async {
            let mut stream = match handshake.into_stream(self.accepting.config.clone()).await {
                Ok(stream) => stream,
                Err(error) => return reject(address.to_string(), rejection(&error)),
            };
            let Some(party) = self.accepting.party(stream.get_ref().1.peer_certificates()).cloned() else {
                return reject(address.to_string(), "its certificate is not registered here".to_owned());
            };
            let from = format!("{party} at {address}");
            self.converse(&party, &mut stream).await.err().map(|reason| Rejection { from, reason })
        };
        tokio::select! {
            talked = timeout(CONVERSATION, talk) => {
                talked.unwrap_or_else(|_| reject(address.to_string(), "it took too long".to_owned()))
            }
            () = seat.lost() => reject(address.to_string(), "others took its place".to_owned()),
        }
    }

    /// Takes the one message of a party, and lets it see that.
    async fn converse(&self, party: &Party, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), String> {
        let read = timeout(MESSAGE, read_message(stream)).await;
        let message = read.map_err(|_| "its message took too long")?.map_err(|error| error.to_string())?;
        let reply = self.consider(party, message).await;
        write_reply(stream, &reply).await.map_err(|error| error.to_string())?;
        reply.map_err(|refusal| refusal.sentence)?;
        // One byte more than nothing would be a second message.
        let rest = timeout(GOODBYE, stream.read_u8()).await;
        if matches!(rest, Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof) {
            self.confirmed().insert(party.clone());
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn consider(&self, party: &Party, message: Message) -> Result<(), Refusal> {
        let refuse = |code, sentence: &str| Err(Refusal::new(code, sentence));
        if message.topic != self.topic {
            return refuse(RefusalCode::Malformed, "the message is of another negotiation than its connection");
        }
        if message.from != *party {
            return refuse(RefusalCode::RosterMismatch, "the message is from another party than its connection");
        }
        if message.to != self.own {
            return refuse(RefusalCode::OtherNode, "the message is for another party");
        }
        if message.purpose != self.topic.purpose(party) {
            return refuse(RefusalCode::Malformed, "the message is not what this party has to say");
        }
        let mut heard = self.heard.lock().await;
        match heard.get(party) {
            // Its sender has not seen the reply.
            Some(before) if *before == message.payload => Ok(()),
            Some(_) => refuse(RefusalCode::RosterMismatch, "the party has said something else before"),
            None => {
                (self.take)(party.clone(), message.payload.clone()).await?;
                heard.insert(party.clone(), message.payload);
                Ok(())
            }
        }
    }
}

/// Says why a handshake failed.
fn rejection(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => "its certificate is not registered here".to_owned(),
        Some(rustls::Error::NoCertificatesPresented) => "it shows no certificate".to_owned(),
        Some(rustls::Error::AlertReceived(_)) => "it has another key registered for this component".to_owned(),
        Some(_) => "it offers no TLS that is good enough".to_owned(),
        None => "its connection broke off during the TLS handshake".to_owned(),
    }
}

#[cfg(test)]
mod tests;
