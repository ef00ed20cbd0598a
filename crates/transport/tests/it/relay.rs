//! A relay on this machine between a node and its researcher, which breaks connections, and the same as an HTTP proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use transport::address::Address;
use transport::{matrix, socket};

use crate::world::listener;

/// Bytes that may still go up; when none are left, all connections break.
#[derive(Clone, Default)]
pub(crate) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub(crate) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(bytes as u64)).is_ok()
    }
}

async fn pass(near: TcpStream, far: TcpStream, up: Allowance) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let upwards = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read) = near_read.read(&mut buffer).await {
            if read == 0 || !up.take(read) || far_write.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    let downwards = tokio::io::copy(&mut far_read, &mut near_write);
    tokio::select! {
        () = upwards => {}
        _ = downwards => {}
    }
}

/// Starts a relay to `target`.
pub(crate) async fn relay(target: Address) -> (Address, Allowance) {
    let (listener, address) = listener().await;
    let allowance = Allowance::default();
    allowance.set(u64::MAX);
    let up = allowance.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = socket::dial(&matrix::NODE_TO_RESEARCHER, target.host(), target.port()).await.unwrap();
            tokio::spawn(pass(near, far, up.clone()));
        }
    });
    (address, allowance)
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
            let allowance = Allowance::default();
            allowance.set(u64::MAX);
            tokio::spawn(pass(near, far, allowance));
        }
    });
    address
}
