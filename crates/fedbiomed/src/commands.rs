//! What each command does.

pub(crate) mod certificate;
pub(crate) mod component;
pub(crate) mod daemon;
pub(crate) mod node;
pub(crate) mod peers;
mod ports;
pub(crate) mod researcher;
pub(crate) mod shared;
pub(crate) mod stats;
