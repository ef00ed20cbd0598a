//! Invitations and the nodes that were enrolled by them.

use component::database::{millis, timestamp};
use protocol::{Digest, NodeId, Refusal, RefusalCode, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::command::{InvitationRow, InvitationState};

/// An invitation as it is stored.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub id: String,
    pub name: String,
    /// `TokenSecret::hash`; the secret itself is nowhere.
    pub secret_hash: Digest,
    pub created: Timestamp,
    pub expires: Timestamp,
}

/// What an enrolment writes about a node.
#[derive(Debug, Clone)]
pub struct Enrolment {
    pub node: NodeId,
    pub key_fingerprint: [u8; 32],
    pub certificate_expires: Timestamp,
}

/// An enrolled node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledNode {
    pub id: NodeId,
    /// As the researcher wrote it into the invitation.
    pub name: String,
    pub key_fingerprint: [u8; 32],
    pub certificate_expires: Timestamp,
    pub revoked: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
    pub software: Option<String>,
}

impl Store {
    pub fn invite(&mut self, invitation: &Invitation) -> Result<(), StoreError> {
        let Invitation { id, name, secret_hash, created, expires } = invitation;
        self.write(|connection| {
            connection.execute(
                "INSERT INTO invitations (id, name, secret_hash, created, expires) VALUES (?, ?, ?, ?, ?)",
                params![id, name, secret_hash.to_string(), millis(*created), millis(*expires)],
            )?;
            Ok(())
        })
    }

    /// All invitations, newest first.
    pub fn invitations(&self, now: Timestamp) -> Result<Vec<InvitationRow>, StoreError> {
        let mut query = self.connection().prepare_cached(
            "SELECT id, name, created, expires, used_by, revoked FROM invitations ORDER BY created DESC, id",
        )?;
        let rows = query.query_map([], |row| {
            let expires = timestamp(row.get("expires")?);
            let used_by: Option<String> = row.get("used_by")?;
            let state = match (&used_by, row.get::<_, Option<i64>>("revoked")?) {
                (Some(_), _) => InvitationState::Used,
                (None, Some(_)) => InvitationState::Revoked,
                (None, None) if expires <= now => InvitationState::Expired,
                (None, None) => InvitationState::Open,
            };
            Ok(InvitationRow {
                id: row.get("id")?,
                name: row.get("name")?,
                created: timestamp(row.get("created")?),
                expires,
                state,
                node: used_by.and_then(|node| node.parse().ok()),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes an open invitation worthless; false if there is none of this id.
    pub fn revoke_invitation(&mut self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.write(|connection| {
            let sql = "UPDATE invitations SET revoked = ? WHERE id = ? AND used_by IS NULL AND revoked IS NULL";
            Ok(connection.execute(sql, params![millis(now), id])? == 1)
        })
    }

    /// Whether this secret opens an invitation for this node, or why not.
    pub fn invited(&self, secret: Digest, node: &NodeId, now: Timestamp) -> Result<Result<(), Refusal>, StoreError> {
        Ok(open_invitation(self.connection(), secret, node, now)?.map(drop))
    }

    /// Uses up the invitation and writes the node, or does neither and says why.
    pub fn enrol(
        &mut self,
        secret: Digest,
        enrolment: &Enrolment,
        now: Timestamp,
    ) -> Result<Result<EnrolledNode, Refusal>, StoreError> {
        self.write(|connection| {
            let name = match open_invitation(connection, secret, &enrolment.node, now)? {
                Ok(name) => name,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Some(known) = known_node(connection, &enrolment.node)? {
                if known.revoked.is_some() {
                    return Ok(Err(Refusal::new(
                        RefusalCode::NodeRevoked,
                        "this node has been revoked; only a new component can enrol",
                    )));
                }
                // Whoever has a token for another hospital cannot become this one.
                if known.key_fingerprint != enrolment.key_fingerprint && known.name != name {
                    let sentence = "this node's id is enrolled with another key, and the invitation is for another name";
                    return Ok(Err(Refusal::new(RefusalCode::TokenInvalid, sentence)));
                }
            }
            connection.execute(
                "UPDATE invitations SET used_by = ? WHERE secret_hash = ?",
                params![enrolment.node.as_str(), secret.to_string()],
            )?;
            Ok(Ok(write_node(connection, &name, enrolment, now)?))
        })
    }

    /// Fails unless a node may be enrolled by file. Who was revoked stays out; another key of a known node needs `replaces`, and
    /// the name that it has.
    pub fn check_admits(
        &self,
        node: &NodeId,
        name: &str,
        key_fingerprint: &[u8; 32],
        replaces: bool,
    ) -> Result<(), StoreError> {
        match known_node(self.connection(), node)? {
            Some(known) if known.revoked.is_some() => Err(StoreError::RevokedNode(known.name)),
            Some(known) if known.key_fingerprint != *key_fingerprint && !(replaces && known.name == name) => {
                Err(StoreError::OtherKey(known.name))
            }
            _ => Ok(()),
        }
    }

    /// Writes a node that was enrolled by file.
    pub fn enrol_by_file(&mut self, name: &str, enrolment: &Enrolment, now: Timestamp) -> Result<EnrolledNode, StoreError> {
        self.write(|connection| write_node(connection, name, enrolment, now))
    }

    /// Writes the key and the end of a renewed certificate.
    pub fn renew(&mut self, enrolment: &Enrolment) -> Result<(), StoreError> {
        let Enrolment { node, key_fingerprint, certificate_expires } = enrolment;
        self.write(|connection| {
            let sql = "UPDATE nodes SET key_fingerprint = ?, certificate_expires = ? WHERE id = ?";
            connection.execute(sql, params![key_fingerprint, millis(*certificate_expires), node.as_str()])?;
            Ok(())
        })
    }

    /// Notes that a node was here, and with which software if it said so.
    pub fn node_seen(&mut self, node: &NodeId, software: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
        self.write(|connection| {
            let sql = "UPDATE nodes SET last_seen = ?, software = coalesce(?, software) WHERE id = ?";
            connection.execute(sql, params![millis(now), software, node.as_str()])?;
            Ok(())
        })
    }

    /// All enrolled nodes, by name.
    pub fn nodes(&self) -> Result<Vec<EnrolledNode>, StoreError> {
        let mut query = self.connection().prepare_cached("SELECT * FROM nodes ORDER BY name, id")?;
        let rows = query.query_map([], enrolled_node)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Shuts a node out, by id, first part of an id, or name; returns it as it was before.
    pub fn revoke_node(&mut self, node: &str, now: Timestamp) -> Result<EnrolledNode, StoreError> {
        let mut found = self.nodes()?;
        if found.iter().any(|known| known.id.as_str() == node || known.name == node) {
            found.retain(|known| known.id.as_str() == node || known.name == node);
        } else {
            // Enough of the id to be no slip of the hand.
            let is_long = node.len() >= NodeId::PREFIX.len() + 8;
            found.retain(|known| is_long && known.id.as_str().starts_with(node));
        }
        if found.len() > 1 {
            return Err(StoreError::SeveralNodes(node.to_owned()));
        }
        let found = found.pop().ok_or_else(|| StoreError::NoNode(node.to_owned()))?;
        self.write(|connection| {
            let sql = "UPDATE nodes SET revoked = coalesce(revoked, ?) WHERE id = ?";
            connection.execute(sql, params![millis(now), found.id.as_str()])?;
            Ok(())
        })?;
        Ok(found)
    }
}

/// The name in an invitation that this secret opens, or why it opens none.
fn open_invitation(
    connection: &Connection,
    secret: Digest,
    node: &NodeId,
    now: Timestamp,
) -> Result<Result<String, Refusal>, StoreError> {
    let row = connection
        .prepare_cached("SELECT name, expires, used_by, revoked FROM invitations WHERE secret_hash = ?")?
        .query_row([secret.to_string()], |row| {
            let used_by: Option<String> = row.get("used_by")?;
            let revoked: Option<i64> = row.get("revoked")?;
            Ok((row.get::<_, String>("name")?, timestamp(row.get("expires")?), used_by, revoked))
        })
        .optional()?;
    let refused = |code, sentence: &str| Ok(Err(Refusal::new(code, sentence)));
    match row {
        None => refused(RefusalCode::TokenInvalid, "this token is not one of this researcher's"),
        Some((_, _, Some(used_by), _)) if used_by == node.as_str() => refused(
            RefusalCode::TokenUsed,
            "this token has been used by this node already; ask the researcher for a new one",
        ),
        Some((_, _, Some(_), _)) => {
            refused(RefusalCode::TokenUsed, "this token has been used already; ask the researcher for a new one")
        }
        Some((_, _, _, Some(_))) => {
            refused(RefusalCode::TokenRevoked, "this token has been revoked; ask the researcher for a new one")
        }
        Some((_, expires, _, _)) if expires <= now => {
            refused(RefusalCode::TokenExpired, "this token has expired; ask the researcher for a new one")
        }
        Some((name, ..)) => Ok(Ok(name)),
    }
}

fn known_node(connection: &Connection, node: &NodeId) -> Result<Option<EnrolledNode>, StoreError> {
    let mut query = connection.prepare_cached("SELECT * FROM nodes WHERE id = ?")?;
    Ok(query.query_row([node.as_str()], enrolled_node).optional()?)
}

/// Adds a node, or gives a known one another name, key and certificate.
fn write_node(
    connection: &Connection,
    name: &str,
    enrolment: &Enrolment,
    now: Timestamp,
) -> Result<EnrolledNode, StoreError> {
    connection.execute(
        "INSERT INTO nodes (id, name, key_fingerprint, certificate_expires, enrolled) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET name = ?2, key_fingerprint = ?3, certificate_expires = ?4",
        params![
            enrolment.node.as_str(),
            name,
            enrolment.key_fingerprint,
            millis(enrolment.certificate_expires),
            millis(now)
        ],
    )?;
    Ok(connection.query_row("SELECT * FROM nodes WHERE id = ?", [enrolment.node.as_str()], enrolled_node)?)
}

fn enrolled_node(row: &Row<'_>) -> rusqlite::Result<EnrolledNode> {
    let id: String = row.get("id")?;
    let optional = |column| row.get::<_, Option<i64>>(column).map(|millis| millis.map(timestamp));
    Ok(EnrolledNode {
        id: id
            .parse()
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))?,
        name: row.get("name")?,
        key_fingerprint: row.get("key_fingerprint")?,
        certificate_expires: timestamp(row.get("certificate_expires")?),
        revoked: optional("revoked")?,
        last_seen: optional("last_seen")?,
        software: row.get("software")?,
    })
}
