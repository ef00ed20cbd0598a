//! Where a researcher is reached: a host and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::matrix;

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("expected host:port, such as researcher.example.org:50051, found {found:?}")]
    Malformed { found: String },
    #[error("nobody can dial {found}: give the name or the address under which nodes reach the researcher")]
    Unspecified { found: String },
}

/// A host name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Checks a host and a port. What cannot be dialled (0.0.0.0, ::, port 0) is refused.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed { found: format!("{host}:{port}").chars().take(80).collect() };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified()));
            if ip.is_unspecified() || mapped {
                return Err(AddressError::Unspecified { found: bare.to_owned() });
            }
            return if port == 0 { Err(malformed()) } else { Ok(Self { host: ip.to_string(), port }) };
        }
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        // All digits and dots, yet no address: "0", "127.1". The system would read them as addresses.
        let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if port == 0 || host.len() > 253 || is_number || !host.split('.').all(label_fits) {
            return Err(malformed());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// Reads `host:port`, `[v6]:port` or `host`, the port then being 50051.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Self::parse_with(text, matrix::NODE_TO_RESEARCHER.port)
    }

    /// Reads an address, which may lack its port.
    pub fn parse_with(text: &str, default_port: u16) -> Result<Self, AddressError> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Self::new(text, default_port);
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => {
                let port = port.parse().map_err(|_| AddressError::Malformed { found: text.chars().take(80).collect() })?;
                Self::new(host, port)
            }
            _ => Self::new(text, default_port),
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for (text, written) in [
            ("localhost:50051", "localhost:50051"),
            ("Researcher.Example.org", "researcher.example.org:50051"),
            ("10.0.0.7:1", "10.0.0.7:1"),
            ("[2001:db8::1]:50052", "[2001:db8::1]:50052"),
            ("2001:db8::1", "[2001:db8::1]:50051"),
            ("[2001:db8::1]", "[2001:db8::1]:50051"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(Address::parse(written).unwrap(), address);
        }
    }

    #[test]
    fn what_nobody_can_dial_is_refused() {
        for text in ["0.0.0.0:50051", "[::]:50051", "::", "[::ffff:0.0.0.0]:50051"] {
            assert!(matches!(Address::parse(text), Err(AddressError::Unspecified { .. })), "{text}");
        }
        for text in [
            "",
            ":50051",
            "a b:1",
            "host:0",
            "host:70000",
            "host:",
            "0:50051",
            "127.1:50051",
            "a..b:1",
            "user@host:1",
            "host/path:1",
        ] {
            assert!(matches!(Address::parse(text), Err(AddressError::Malformed { .. })), "{text}");
        }
    }
}
