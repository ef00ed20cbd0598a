//! A researcher's side: accepts connections and guards their number, their time and their size.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::credits::Credits;
use super::reception::Receptions;
use super::service::{Calls, Peer, Shared};
use super::{
    CONNECTION_WINDOW, FRAME_BYTES, HEADER_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW, download,
};
use crate::convert::MAX_MESSAGE_BYTES;
use crate::host::Host;
use crate::identity::Certificate;
use crate::socket;
use crate::tls::{self, ServerTls};
use crate::wire::federation_server::FederationServer;

const MAX_CONNECTIONS: usize = 1024;
/// Calls under way on one connection.
const MAX_STREAMS: u32 = 16;
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Long enough to enrol.
const WITHOUT_CERTIFICATE: Duration = Duration::from_mins(1);
/// How long a connection that is to end may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// What an exhausted system is given to recover before the next connection is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves nodes until `shutdown` is ready, then ends all connections in good order.
pub async fn serve<H: Host>(host: Arc<H>, tls: ServerTls, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let shared = Arc::new(Shared {
        host,
        credits: Credits::new(),
        download_budget: download::budget(),
        receptions: Receptions::default(),
    });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "a connection is refused: {MAX_CONNECTIONS} are open");
            continue;
        };
        let connection = connection(shared.clone(), tls.clone(), stream, address, stopped.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn connection<H: Host>(
    shared: Arc<Shared<H>>,
    tls: ServerTls,
    stream: TcpStream,
    address: SocketAddr,
    mut stopped: watch::Receiver<bool>,
) {
    if let Err(error) = socket::tune(&stream) {
        tracing::debug!(%address, %error, "a connection broke at once");
        return;
    }
    let handshake = async {
        tokio::select! {
            handshake = timeout(TLS_TIMEOUT, tls.acceptor().accept(stream)) => handshake.ok(),
            _ = stopped.wait_for(|stopped| *stopped) => None,
        }
    };
    let stream = match handshake.await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => {
            tracing::info!(%address, %error, "a connection is closed: no TLS handshake");
            if let Some(reason) = tls::rejection(&error) {
                shared.host.rejected(&address.to_string(), reason);
            }
            return;
        }
        None => {
            tracing::info!(%address, "a connection is closed: the TLS handshake took too long");
            return;
        }
    };
    match peer(&stream, address) {
        Ok(peer) => converse(shared, stream, peer, stopped).await,
        Err(reason) => shared.host.rejected(&address.to_string(), reason),
    }
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
) {
    let address = peer.address.clone();
    let is_anonymous = peer.certificate.is_none();
    let (closing, mut is_closing) = watch::channel(false);
    let calls = Calls { shared, peer: Arc::new(peer), closing: closing.clone() };
    let service = FederationServer::new(calls).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = is_closing.wait_for(|closing| *closing) => None,
        _ = stopped.wait_for(|stopped| *stopped) => None,
        () = sleep(WITHOUT_CERTIFICATE), if is_anonymous => None,
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
