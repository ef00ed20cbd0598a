//! How it travels: the network matrix and every socket, gRPC, TLS, identity, enrolment, chunks, retry, proxies.
//!
//! Two links carry the same words: gRPC over TCP with TLS on both sides, and an in-process one for simulation. What a node
//! may do is [`link::Link`]; what a researcher answers is [`host::Host`]. No decision is made here.

pub mod address;
pub mod blob;
pub mod clock;
pub mod convert;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grpc;
mod handshake;
pub mod host;
pub mod identity;
pub mod link;
pub mod matrix;
pub mod memory;
pub mod negotiation;
pub mod retry;
pub mod secret;
pub mod socket;
mod strangers;
pub mod tls;
pub mod token;
mod wire;
