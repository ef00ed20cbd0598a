//! From an address to an HTTP/2 connection that both sides have authenticated.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower::Service;

use super::messages::Aside;
use super::proxy::{self, ProxyConfig};
use super::{
    CONNECTION_WINDOW, FRAME_BYTES, HEADER_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, SEND_BUFFER, STREAM_WINDOW,
    TLS_BUFFER,
};
use crate::address::Address;
use crate::link::LinkError;
use crate::tls::{self, SERVER_NAME};
use crate::{matrix, socket};

/// How long each step of dialling may take: the way to the researcher, TLS, HTTP/2.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a researcher. It ends when this, its calls and their streams are gone.
pub(super) struct Connection {
    sender: http2::SendRequest<Body>,
    /// What the researcher presented.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn calls(&self) -> Calls {
        Calls(self.sender.clone())
    }
}

/// Lets the generated client send its requests on a connection.
#[derive(Clone)]
pub(super) struct Calls(http2::SendRequest<Body>);

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The bodies of bulk calls go past tonic: the request's of an upload, the response's of a download.
        if let Some(body) = request.extensions_mut().remove::<Aside>().and_then(|aside| aside.take()) {
            *request.body_mut() = body;
        }
        let is_download = request.uri().path().ends_with("/Download");
        let answer = self.0.send_request(request);
        Box::pin(async move {
            let mut response = answer.await?.map(Body::new);
            if is_download {
                let body = std::mem::take(response.body_mut());
                response.extensions_mut().insert(Aside::new(body));
            }
            Ok(response)
        })
    }
}

async fn within<T>(step: &str, future: impl Future<Output = T>) -> Result<T, LinkError> {
    let late = || LinkError::Unreachable(format!("{step} took more than {} s", STEP_TIMEOUT.as_secs()));
    timeout(STEP_TIMEOUT, future).await.map_err(|_| late())
}

async fn reach(address: &Address, proxy: &ProxyConfig) -> Result<TcpStream, LinkError> {
    match proxy.for_address(address) {
        Some(proxy) => proxy::tunnel(&proxy, address).await,
        None => socket::dial(&matrix::NODE_TO_RESEARCHER, address.host(), address.port())
            .await
            .map_err(|error| LinkError::Unreachable(format!("{address}: {error}"))),
    }
}

/// Opens a connection. Whatever certificates have to say comes out here, not at the first call.
pub(super) async fn dial(
    address: &Address,
    proxy: &ProxyConfig,
    config: Arc<ClientConfig>,
) -> Result<Connection, LinkError> {
    let stream = within("reaching the researcher", reach(address, proxy)).await??;
    let name = ServerName::try_from(SERVER_NAME).expect("the fixed name is a name");
    let handshake = TlsConnector::from(config).connect(name, stream);
    let failed = |error: io::Error| tls::handshake_failed(&error, address);
    let mut stream = within("the TLS handshake", handshake).await?.map_err(failed)?;
    // In TLS 1.3 the client is done before the server has looked at its certificate. The server's first words, or its alert,
    // are waited for without being taken.
    let first = within("the researcher's first word", stream.fill_buf()).await?.map_err(failed)?;
    if first.is_empty() {
        return Err(LinkError::Unreachable(format!("{address} closed the connection at once: it may be full, try again")));
    }
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream));
    let (sender, driver) = within("the HTTP/2 handshake", handshake)
        .await?
        .map_err(|error| LinkError::Unreachable(format!("{address} does not speak HTTP/2: {error}")))?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "the connection to the researcher ended");
        }
    });
    Ok(Connection { sender, certificates })
}
