//! A node against a researcher that the test plays: real files, real store, a link in memory, a clock that the test moves.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod commands;
mod crashes;
mod datasets;
mod federation;
mod gates;
mod rounds;
mod secure;
mod storage;
mod turns;
mod world;

use std::sync::atomic::AtomicBool;

/// Nobody stops the reading.
static GO_ON: AtomicBool = AtomicBool::new(false);
