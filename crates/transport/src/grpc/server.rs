//! A researcher's side: accepts connections and guards their number, their time and their size.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tower::Service;

use super::credits::Credits;
use super::messages::Aside;
use super::reception::Receptions;
use super::service::{Calls, Peer, Shared};

use super::{
    CONNECTION_WINDOW, FRAME_BYTES, HEADER_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, SEND_BUFFER, STREAM_WINDOW,
    TLS_BUFFER, download,
};
use crate::convert::MAX_MESSAGE_BYTES;
use crate::host::Host;
use crate::identity::Certificate;
use crate::socket;
use crate::strangers::{Place, Strangers};
use crate::tls::{self, ServerTls};
use crate::wire::federation_server::FederationServer;

/// Connections of nodes that have shown their certificate.
const MAX_NODES: usize = 1024;
/// Calls under way on one connection.
const MAX_STREAMS: u32 = 16;
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Long enough to enrol.
const WITHOUT_CERTIFICATE: Duration = Duration::from_secs(10);
/// How long a connection that is to end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// What an exhausted system is given to recover before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves nodes until `shutdown` is ready, then ends all connections in good order.
pub async fn serve<H: Host>(host: Arc<H>, tls: ServerTls, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let shared = Arc::new(Shared {
        host,
        credits: Credits::new(),
        download_budget: download::Budget::new(),
        receptions: Receptions::default(),
    });
    let (nodes, strangers) = (Arc::new(Semaphore::new(MAX_NODES)), Arc::new(Strangers::default()));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = strangers.take(address.ip()) else {
            shared.host.rejected(&address.to_string(), "too many connections of its address show no certificate");
            continue;
        };
        let entry = Entry { stream, address, place, nodes: nodes.clone() };
        connections.spawn(connection(shared.clone(), tls.clone(), entry, stopped.clone()));
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// A connection that was just accepted, on a stranger's place.
struct Entry {
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
    /// Where it moves with a certificate.
    nodes: Arc<Semaphore>,
}

async fn connection<H: Host>(shared: Arc<Shared<H>>, tls: ServerTls, entry: Entry, mut stopped: watch::Receiver<bool>) {
    let Entry { stream, address, mut place, nodes } = entry;
    if let Err(error) = socket::tune(&stream) {
        tracing::debug!(%address, %error, "a connection broke at once");
        return;
    }
    let handshake = async {
        tokio::select! {
            handshake = timeout(TLS_TIMEOUT, tls.acceptor().accept(stream)) => match handshake {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "a connection is closed: no TLS handshake");
                    Err(Some(tls::rejection(&error)))
                }
                Err(_) => Err(Some("its TLS handshake took too long")),
            },
            () = place.lost() => Err(Some("others that showed no certificate either took its place")),
            _ = stopped.wait_for(|stopped| *stopped) => Err(None),
        }
    };
    let stream = match handshake.await {
        Ok(mut stream) => {
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
            stream
        }
        Err(Some(reason)) => return shared.host.rejected(&address.to_string(), reason),
        Err(None) => return,
    };
    let peer = match peer(&stream, address) {
        Ok(peer) => peer,
        Err(reason) => return shared.host.rejected(&address.to_string(), reason),
    };
    if peer.certificate.is_none() {
        return converse(shared, stream, peer, stopped, Some(place)).await;
    }
    drop(place);
    let Ok(own_place) = nodes.try_acquire_owned() else {
        tracing::warn!(%address, "a node is sent away: {MAX_NODES} connections are open");
        return;
    };
    converse(shared, stream, peer, stopped, None).await;
    drop(own_place);
}

fn peer(stream: &TlsStream<TcpStream>, address: SocketAddr) -> Result<Peer, &'static str> {
    let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = match presented.first() {
        Some(der) => Some(Certificate::from_der(der).map_err(|_| "its certificate is malformed")?),
        None => None,
    };
    Ok(Peer { address: address.to_string(), certificate })
}

async fn converse<H: Host>(
    shared: Arc<Shared<H>>,
    stream: TlsStream<TcpStream>,
    peer: Peer,
    mut stopped: watch::Receiver<bool>,
    anonymous: Option<Place>,
) {
    let address = peer.address.clone();
    let expired = async {
        match anonymous {
            Some(mut place) => drop(timeout(WITHOUT_CERTIFICATE, place.lost()).await),
            None => std::future::pending().await,
        }
    };
    let (closing, mut is_closing) = watch::channel(false);
    let calls = Calls::new(shared, peer, closing.clone());
    let service = FederationServer::new(calls).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(PastTonic(service)));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = is_closing.wait_for(|closing| *closing) => None,
        _ = stopped.wait_for(|stopped| *stopped) => None,
        () = expired => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        closing.send_replace(true);
        connection.as_mut().graceful_shutdown();
        timeout(GOODBYE, connection).await.unwrap_or(Ok(()))
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection broke");
    }
}

/// Hands the bodies of bulk calls past tonic: the request's of an upload, the response's of a download.
struct PastTonic<H: Host>(FederationServer<Calls<H>>);

impl<H: Host> Clone for PastTonic<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Host> Service<Request<Incoming>> for PastTonic<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        if request.uri().path().ends_with("/Upload") {
            let body = std::mem::take(request.body_mut());
            request.extensions_mut().insert(Aside::new(body));
        }
        let answer = self.0.call(request);
        Box::pin(async {
            let mut response = answer.await?;
            if let Some(body) = response.extensions_mut().remove::<Aside>().and_then(|aside| aside.take()) {
                *response.body_mut() = body;
            }
            Ok(response)
        })
    }
}
