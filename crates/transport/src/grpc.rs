//! The link over the network: gRPC on HTTP/2 on TLS on TCP. hyper is driven directly, one connection for each node, so that
//! TLS errors, limits and the end of a connection are seen in one place.

mod buffers;
pub mod client;
mod credits;
mod dial;
mod download;
mod messages;
pub mod proxy;
mod reception;
pub mod server;
mod service;
mod status;

use std::time::Duration;

/// How much may be under way on one stream, in bytes: 16 MiB suffice for 1 Gbit/s at 130 ms.
const STREAM_WINDOW: u32 = 16 << 20;
/// How much may be under way on one connection, in bytes.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// HTTP/2 reads a frame whole before it passes it on, for each connection: larger ones cost memory and gain nothing measurable.
const FRAME_BYTES: u32 = 64 << 10;
/// What TLS holds on its way to the socket, in bytes: a whole frame with its head, so that it leaves in one write.
const TLS_BUFFER: usize = 2 * FRAME_BYTES as usize;
/// What waits in one stream for the network, in bytes, before the next chunk is asked for.
const SEND_BUFFER: usize = 64 << 10;
const HEADER_BYTES: u32 = 16 << 10;
/// After this silence the other side is asked for a sign of life, for which it then has [`KEEP_ALIVE_TIMEOUT`]: a dead peer
/// is noticed within 20 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(9);
