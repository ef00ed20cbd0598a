//! The other nodes of each federation, by their keys.

use protocol::{NodeId, ResearcherId, Timestamp};
use rusqlite::{OptionalExtension, Row};
use transport::identity::Fingerprint;

use super::{Durability, Store, StoreError, converted, millis, timestamp};

/// Who says that a key is a node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The researcher, when the node first appeared.
    Enrolment,
    /// The hospital.
    Hand,
    /// Nobody: the hospital does not want sums with this node.
    Distrusted,
}

impl Trust {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enrolment => "enrolment",
            Self::Hand => "hand",
            Self::Distrusted => "distrusted",
        }
    }
}

/// Another node of a federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub researcher: ResearcherId,
    pub node: NodeId,
    /// A note for people.
    pub name: Option<String>,
    pub fingerprint: Fingerprint,
    /// The uncompressed point; absent until the node was first seen.
    pub key: Option<[u8; 65]>,
    pub trust: Trust,
    pub since: Timestamp,
}

fn peer(row: &Row<'_>) -> rusqlite::Result<Peer> {
    Ok(Peer {
        researcher: converted(row, "researcher", |id: String| id.parse())?,
        node: converted(row, "node", |id: String| id.parse())?,
        name: row.get("name")?,
        fingerprint: Fingerprint::from_bytes(row.get("fingerprint")?),
        key: row.get("key")?,
        trust: match row.get_ref("trust")?.as_str()? {
            "hand" => Trust::Hand,
            "enrolment" => Trust::Enrolment,
            _ => Trust::Distrusted,
        },
        since: timestamp(row, "since")?,
    })
}

impl Store {
    /// All other nodes, by federation, oldest first.
    pub fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT * FROM peer ORDER BY researcher, since, node")?;
            let rows = statement.query_map([], peer)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Finds one other node.
    pub fn peer(&self, researcher: &ResearcherId, node: &NodeId) -> Result<Option<Peer>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM peer WHERE researcher = ?1 AND node = ?2")?;
            Ok(statement.query_row((researcher.as_str(), node.as_str()), peer).optional()?)
        })
    }

    /// Adds nodes or takes the place of what was known of them, all or none.
    pub fn save_peers(&self, peers: &[Peer]) -> Result<(), StoreError> {
        self.write(Durability::Durable, |connection| {
            let mut statement =
                connection.prepare_cached("INSERT OR REPLACE INTO peer VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for peer in peers {
                statement.execute((
                    peer.researcher.as_str(),
                    peer.node.as_str(),
                    &peer.name,
                    peer.fingerprint.as_bytes(),
                    &peer.key,
                    peer.trust.name(),
                    millis(peer.since),
                ))?;
            }
            Ok(())
        })
    }
}
