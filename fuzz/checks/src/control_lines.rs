//! The lines of local commands.

use component::control::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// Reads bytes as what comes over a socket: as many lines as there are, as each of the four kinds.
pub fn check(bytes: &[u8]) {
    // A socket takes about so much before somebody reads.
    let bytes = &bytes[..bytes.len().min(64 << 10)];
    let runtime: Runtime = Builder::new_current_thread().enable_io().build().expect("a runtime can be made");
    runtime.block_on(async {
        read_all::<node::command::Request>(bytes).await;
        read_all::<node::command::Reply>(bytes).await;
        read_all::<researcher::command::Request>(bytes).await;
        read_all::<researcher::command::Reply>(bytes).await;
    });
}

async fn read_all<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let (near, mut far) = UnixStream::pair().expect("sockets can be made");
    let mut connection = Connection::new(near).expect("the peer is this process");
    far.write_all(bytes).await.expect("the socket has room");
    drop(far);
    let mut left = bytes.split(|byte| *byte == b'\n').count();
    loop {
        match connection.receive::<T>().await {
            Ok(None) => break,
            Ok(Some(value)) => check_writing(&value),
            Err(_) => {}
        }
        assert!(left > 0, "no more is read than came");
        left -= 1;
    }
}

/// What was understood is written, and understood as the same.
fn check_writing<T: Serialize + DeserializeOwned>(value: &T) {
    let written = serde_json::to_vec(value).expect("a command can be written");
    let read: T = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(serde_json::to_vec(&read).expect("a command can be written"), written);
}
