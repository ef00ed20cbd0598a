//! The network matrix: every connection that the product opens or accepts, as data.
//!
//! Hospitals' network teams read it in the book, and [`crate::socket`] opens nothing without a row of it.

use std::fmt;

use serde::Serialize;

/// Seen from the component that has the row: does it accept the connection or open it?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    In,
    Out,
}

/// Who stands at an end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Node,
    Researcher,
    /// The hospital's own HTTP proxy.
    Proxy,
    /// Those who negotiate keys with each other: a federation's nodes and its researcher, but for the one itself.
    Parties,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
}

/// Does the product itself need the connection, or a person in front of it?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Backend,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Mandatory,
    Optional,
}

/// One kind of connection. Rows exist in this file only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Row {
    pub direction: Direction,
    pub from: Place,
    pub to: Place,
    /// The port unless configured otherwise; that of the place in `to`.
    pub port: u16,
    pub protocol: Protocol,
    pub service: &'static str,
    pub kind: Kind,
    pub status: Status,
    pub comment: &'static str,
}

/// A node dials its researcher.
pub const NODE_TO_RESEARCHER: Row = Row {
    direction: Direction::Out,
    from: Place::Node,
    to: Place::Researcher,
    port: 50051,
    protocol: Protocol::Tcp,
    service: "gRPC over TLS 1.3",
    kind: Kind::Backend,
    status: Status::Mandatory,
    comment: "both sides present certificates of the federation; host and port are the token's unless `researcher.ip` and `researcher.port` are set",
};

/// A node reaches its researcher through the hospital's proxy.
pub const NODE_TO_PROXY: Row = Row {
    direction: Direction::Out,
    from: Place::Node,
    to: Place::Proxy,
    port: 3128,
    protocol: Protocol::Tcp,
    service: "HTTP CONNECT",
    kind: Kind::Backend,
    status: Status::Optional,
    comment: "if a proxy is configured (`proxy.url` or `HTTPS_PROXY`), in place of the direct connection; the proxy sees ciphertext only",
};

/// A researcher accepts its nodes.
pub const RESEARCHER_FROM_NODE: Row = Row {
    direction: Direction::In,
    from: Place::Node,
    to: Place::Researcher,
    port: 50051,
    protocol: Protocol::Tcp,
    service: "gRPC over TLS 1.3",
    kind: Kind::Backend,
    status: Status::Mandatory,
    comment: "the only port that a federation needs; `server.host` and `server.port`",
};

/// The first port of direct key negotiation; further components of one machine take the next ones.
pub const NEGOTIATION_PORT: u16 = 14_000;

const fn negotiation(direction: Direction, from: Place, to: Place, comment: &'static str) -> Row {
    Row {
        direction,
        from,
        to,
        port: NEGOTIATION_PORT,
        protocol: Protocol::Tcp,
        service: "key negotiation over TLS 1.3",
        kind: Kind::Backend,
        status: Status::Optional,
        comment,
    }
}

/// A node brings its keys to the other parties of a hidden sum.
pub const NODE_TO_PARTIES: Row = negotiation(
    Direction::Out,
    Place::Node,
    Place::Parties,
    "only if `security.negotiation` allows the direct way; port 14000 or as the other party was registered",
);

/// A node takes the keys of the other parties, while a negotiation runs.
pub const NODE_FROM_PARTIES: Row = negotiation(
    Direction::In,
    Place::Parties,
    Place::Node,
    "only if `security.negotiation` allows the direct way, and only while a negotiation runs; `negotiation.host` and `negotiation.port`",
);

/// A researcher tells the nodes who takes part.
pub const RESEARCHER_TO_PARTIES: Row = negotiation(
    Direction::Out,
    Place::Researcher,
    Place::Parties,
    "only in experiments with `key_negotiation = \"direct\"`; port 14000 or as the node was registered",
);

/// A researcher hears the nodes' keys from them, while a negotiation runs.
pub const RESEARCHER_FROM_PARTIES: Row = negotiation(
    Direction::In,
    Place::Parties,
    Place::Researcher,
    "only in experiments with `key_negotiation = \"direct\"`, and only while a negotiation runs; `negotiation.host` and `negotiation.port`",
);

/// The whole matrix.
pub const MATRIX: &[Row] = &[
    NODE_TO_RESEARCHER,
    NODE_TO_PROXY,
    NODE_TO_PARTIES,
    NODE_FROM_PARTIES,
    RESEARCHER_FROM_NODE,
    RESEARCHER_TO_PARTIES,
    RESEARCHER_FROM_PARTIES,
];

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} {:?} to {:?}, {:?}/{}, {}",
            self.direction, self.from, self.to, self.protocol, self.port, self.service
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_accepts_no_connection_but_for_the_optional_negotiation() {
        let accepts = |row: &&Row| row.direction == Direction::In && row.to == Place::Node;
        assert_eq!(MATRIX.iter().filter(accepts).collect::<Vec<_>>(), [&NODE_FROM_PARTIES]);
        assert_eq!(NODE_FROM_PARTIES.status, Status::Optional);
    }

    #[test]
    fn the_book_has_the_matrix() {
        let page = include_str!("../../../docs/src/network.md");
        for row in MATRIX {
            let shown = format!("| TCP {} | {} | ", row.port, row.service);
            let comment = format!(" | {} |", row.comment);
            assert!(page.lines().any(|line| line.contains(&shown) && line.ends_with(&comment)), "{row}: {comment}");
        }
        assert_eq!(page.lines().filter(|line| line.contains("| TCP ")).count(), MATRIX.len());
    }

    #[test]
    fn what_goes_out_directly_comes_in_somewhere() {
        for out in MATRIX.iter().filter(|row| row.direction == Direction::Out && row.to != Place::Proxy) {
            let is = |place: Place, other: Place| place == other || place == Place::Parties || other == Place::Parties;
            let matching = |row: &Row| {
                row.direction == Direction::In && row.port == out.port && is(row.from, out.from) && is(row.to, out.to)
            };
            assert!(MATRIX.iter().any(matching), "{out}");
        }
    }
}
