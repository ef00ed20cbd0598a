//! What the machine can do: seconds for bytes to and from several peers at once through plain TLS 1.3 over loopback, with the
//! product's cryptography and nothing else. `cargo xtask bench move` puts a round beside it.
//!
//! `cargo run --release -p transport --example plain_tls -- PEERS BYTES RUNS`

#![expect(clippy::print_stdout, reason = "the figures are what the program is for")]
#![expect(clippy::disallowed_methods, reason = "a benchmark opens its own sockets and reads the clock")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Failure = Box<dyn Error + Send + Sync>;

const NAME: &str = "localhost";
/// What one write or read takes, in bytes.
const BLOCK: usize = 256 << 10;

fn configs() -> Result<(TlsAcceptor, TlsConnector), Failure> {
    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone())?;
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client))))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: usize) -> Result<(), Failure> {
    let block = vec![7; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(BLOCK);
        stream.write_all(&block[..now]).await?;
        left -= now;
    }
    stream.flush().await?;
    Ok(())
}

async fn take(stream: &mut (impl AsyncRead + Unpin), bytes: usize) -> Result<(), Failure> {
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(BLOCK);
        left -= stream.read_exact(&mut block[..now]).await?;
    }
    Ok(())
}

/// Every peer takes so many bytes and gives as many back, `runs` times; the server begins a run when the last one is over.
async fn measure(peers: usize, bytes: usize, runs: usize) -> Result<(), Failure> {
    let (acceptor, connector) = configs()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut clients = JoinSet::new();
    let mut streams = Vec::new();
    for _ in 0..peers {
        let connector = connector.clone();
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
            for _ in 0..runs {
                take(&mut stream, bytes).await?;
                send(&mut stream, bytes).await?;
            }
            Ok::<_, Failure>(())
        });
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        streams.push(acceptor.accept(stream).await?);
    }
    for _ in 0..runs {
        let begin = Instant::now();
        let mut exchanges = JoinSet::new();
        for mut stream in streams.drain(..) {
            exchanges.spawn(async move {
                send(&mut stream, bytes).await?;
                take(&mut stream, bytes).await?;
                Ok::<_, Failure>(stream)
            });
        }
        while let Some(stream) = exchanges.join_next().await {
            streams.push(stream??);
        }
        println!("{}", begin.elapsed().as_secs_f64());
    }
    drop(streams);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut number = |absent| numbers.next().unwrap_or(Ok(absent));
    let (peers, bytes, runs) = (number(3)?, number(40_000_000)?, number(5)?);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(peers, bytes, runs))
}
