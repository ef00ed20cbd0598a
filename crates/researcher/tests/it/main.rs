//! The researcher as nodes and local commands meet it, over the in-process link.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod access;
mod experiments;
mod world;
