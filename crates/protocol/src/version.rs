//! The version handshake: numbers for what must agree, names for what may be missing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the messages between researcher and node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolVersion {
    pub major: u16,
    pub minor: u16,
}

impl ProtocolVersion {
    /// What this build speaks.
    pub const CURRENT: Self = Self { major: 1, minor: 0 };

    /// Peers of the same major version at most one minor version apart work together.
    pub fn works_with(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A feature that a peer of an older minor version may lack. Unknown names are ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(pub String);

impl Capability {
    /// The capabilities of this build.
    pub fn current() -> Vec<Self> {
        ["training.native", "statistic.moments", "upload.resume"].map(|name| Self(name.to_owned())).to_vec()
    }
}
