//! A relay on this machine between a node and its researcher, which breaks connections, and the same as an HTTP proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use transport::address::Address;
use transport::{matrix, socket};

use crate::world::listener;

const STALLED: u64 = u64::MAX - 1;

/// Bytes that may still go one way; when none are left, all connections break.
#[derive(Clone)]
pub(crate) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub(crate) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    /// Lets nothing more arrive, without a word: as a pulled cable does.
    pub(crate) fn stall(&self) {
        self.set(STALLED);
    }

    fn is_stalled(&self) -> bool {
        self.0.load(Ordering::SeqCst) == STALLED
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(bytes as u64) };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, allowance: Allowance) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        if allowance.is_stalled() {
            std::future::pending::<()>().await;
        }
        if read == 0 || !allowance.take(read) || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn pass(near: TcpStream, far: TcpStream, up: Allowance, down: Allowance) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        () = copy(near_read, far_write, up) => {}
        () = copy(far_read, near_write, down) => {}
    }
}

/// Starts a relay to `target`; gives what may go up and what may go down.
pub(crate) async fn relay(target: Address) -> (Address, Allowance, Allowance) {
    let (listener, address) = listener().await;
    let (up, down) = (Allowance::default(), Allowance::default());
    let allowances = (up.clone(), down.clone());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = socket::dial(&matrix::NODE_TO_RESEARCHER, target.host(), target.port()).await.unwrap();
            tokio::spawn(pass(near, far, up.clone(), down.clone()));
        }
    });
    (address, allowances.0, allowances.1)
}

/// Starts an HTTP proxy that asks for `authorization`, the value of its header.
pub(crate) async fn proxy(authorization: &'static str) -> Address {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if !head.contains(&format!("Proxy-Authorization: {authorization}\r\n")) {
                near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                continue;
            }
            let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
            let target = Address::parse(target).unwrap();
            let far = socket::dial(&matrix::NODE_TO_RESEARCHER, target.host(), target.port()).await.unwrap();
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(pass(near, far, Allowance::default(), Allowance::default()));
        }
    });
    address
}
