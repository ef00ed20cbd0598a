//! HTTP CONNECT proxies (RFC 9110 §9.3.6), which hospitals have.

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::address::Address;
use crate::link::LinkError;
use crate::{matrix, socket};

/// The longest answer of a proxy that is read, in bytes.
pub(crate) const MAX_ANSWER: usize = 8 << 10;

/// `HTTPS_PROXY` cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    #[error("HTTPS_PROXY must be of the form http://host:port or http://user:password@host:port")]
    Malformed,
    #[error("HTTPS_PROXY names a kind of proxy that is not supported: only http:// is")]
    Unsupported,
}

/// Which proxy to use, and for which addresses none. May hold a password, hence not printed.
#[derive(Default)]
pub struct ProxyConfig {
    matcher: Option<Matcher>,
}

impl ProxyConfig {
    /// Reads the values of `HTTPS_PROXY` and `NO_PROXY`, as curl does. Absent or empty: no proxy.
    pub fn new(https_proxy: Option<&str>, no_proxy: Option<&str>) -> Result<Self, ProxyError> {
        let Some(proxy) = https_proxy.map(str::trim).filter(|proxy| !proxy.is_empty()) else {
            return Ok(Self::default());
        };
        let anywhere = Uri::from_static("https://researcher.example");
        let probe = Matcher::builder().https(proxy.to_owned()).build().intercept(&anywhere).ok_or(ProxyError::Malformed)?;
        if probe.uri().scheme_str() != Some("http") {
            return Err(ProxyError::Unsupported);
        }
        let no_proxy = no_proxy.unwrap_or_default().to_owned();
        Ok(Self { matcher: Some(Matcher::builder().https(proxy.to_owned()).no(no_proxy).build()) })
    }

    pub(crate) fn for_address(&self, address: &Address) -> Option<Intercept> {
        let uri = Uri::builder().scheme("https").authority(address.to_string()).path_and_query("/").build().ok()?;
        self.matcher.as_ref()?.intercept(&uri)
    }
}

/// Asks a proxy for a way through.
pub(super) async fn tunnel(proxy: &Intercept, address: &Address) -> Result<TcpStream, LinkError> {
    let host = proxy.uri().host().unwrap_or_default();
    let port = proxy.uri().port_u16().unwrap_or(matrix::NODE_TO_PROXY.port);
    let name = format!("the proxy at {host}:{port}");
    let dialled = socket::dial(&matrix::NODE_TO_PROXY, host.trim_matches(['[', ']']), port).await;
    let mut stream = dialled.map_err(|error| LinkError::Unreachable(format!("{name}: {error}")))?;
    let answer =
        ask(&mut stream, proxy, address).await.map_err(|error| LinkError::Unreachable(format!("{name}: {error}")))?;
    match answer.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(stream),
        Some("407") => Err(LinkError::Unreachable(format!(
            "{name} asks for a user name and password: write HTTPS_PROXY=http://user:password@{host}:{port}"
        ))),
        _ => Err(LinkError::Unreachable(format!("{name} gives no way to {address}: {answer}"))),
    }
}

/// Sends the request; gives the first line of the answer.
pub(crate) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Intercept,
    address: &Address,
) -> std::io::Result<String> {
    let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n").into_bytes();
    if let Some(credentials) = proxy.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    // The researcher says nothing before it is spoken to, so that reading one byte at a time costs nothing that matters, and
    // no byte of its is taken.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(std::io::Error::other("its answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&answer);
    Ok(line.lines().next().unwrap_or_default().chars().filter(|char| !char.is_control()).take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_and_an_unusable_proxy_are_told_apart() {
        let address = Address::parse("researcher.example.org").unwrap();
        let proxy = ProxyConfig::new(Some("http://proxy:3128"), Some("10.0.0.0/8, .hospital.org")).unwrap();
        assert!(proxy.for_address(&address).is_some());
        assert!(proxy.for_address(&Address::parse("10.1.2.3").unwrap()).is_none());
        assert!(proxy.for_address(&Address::parse("fbm.hospital.org").unwrap()).is_none());
        assert!(ProxyConfig::new(None, None).unwrap().for_address(&address).is_none());
        assert!(ProxyConfig::new(Some(" "), None).unwrap().for_address(&address).is_none());
        assert_eq!(ProxyConfig::new(Some("socks5://proxy:1080"), None).err(), Some(ProxyError::Unsupported));
        assert_eq!(ProxyConfig::new(Some("https://proxy"), None).err(), Some(ProxyError::Unsupported));
        assert_eq!(ProxyConfig::new(Some("http://a b"), None).err(), Some(ProxyError::Malformed));
    }
}
