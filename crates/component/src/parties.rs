//! The parties with which a component negotiates keys directly: whose key each shows, and where it listens. Registered by hand, in a
//! file of the component's folder.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{ResearcherId, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use transport::address::Address;
use transport::identity::Fingerprint;
use transport::negotiation::Party;

use crate::folder::{ComponentFolder, write_atomically};

/// The file's schema.
const SCHEMA: u32 = 1;

/// A party as it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The federation: a component has another key in each.
    pub federation: ResearcherId,
    pub party: Party,
    /// Of the key that a node shows, or of the authority that signs what a researcher shows.
    pub fingerprint: Fingerprint,
    pub address: Address,
    pub since: Timestamp,
}

/// Why a party is not registered, or not found.
#[derive(Debug, Error)]
pub enum PartyError {
    #[error(
        "{party} is registered already, at {address}; with --upsert the new registration takes the place of the old one"
    )]
    Known { party: Party, address: Address },
    #[error("no party {0} is registered; `certificate parties` shows all")]
    Unknown(Party),
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} holds no parties of this version")]
    Malformed(PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    schema: u32,
    parties: Vec<Registration>,
}

/// The registered parties of a component.
pub struct Parties {
    path: PathBuf,
    /// Held while the file is changed.
    turn: Mutex<()>,
}

impl Parties {
    /// Looks at the file of a folder whenever it is asked.
    pub fn of(folder: &ComponentFolder) -> Self {
        Self { path: folder.config_file().with_file_name("parties.json"), turn: Mutex::default() }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives all parties, by federation and id.
    pub fn list(&self) -> Result<Vec<Registration>, PartyError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(PartyError::Io { path: self.path.clone(), source }),
        };
        let content = serde_json::from_slice(&bytes).ok().filter(|content: &Content| content.schema == SCHEMA);
        content.map(|content| content.parties).ok_or_else(|| PartyError::Malformed(self.path.clone()))
    }

    fn write(&self, mut parties: Vec<Registration>) -> Result<(), PartyError> {
        parties.sort_by(|a, b| (&a.federation, &a.party).cmp(&(&b.federation, &b.party)));
        let content = Content { schema: SCHEMA, parties };
        let text = serde_json::to_vec_pretty(&content).expect("ids, addresses and numbers are JSON");
        write_atomically(&self.path, &text).map_err(|source| PartyError::Io { path: self.path.clone(), source })
    }

    /// Finds a party of a federation.
    pub fn find(&self, federation: &ResearcherId, party: &Party) -> Result<Option<Registration>, PartyError> {
        let is_meant = |known: &Registration| known.federation == *federation && known.party == *party;
        Ok(self.list()?.into_iter().find(is_meant))
    }

    /// Registers a party. One that is known is replaced only if that is wanted.
    pub fn register(&self, new: Registration, replaces: bool) -> Result<(), PartyError> {
        let _turn = self.turn();
        let mut parties = self.list()?;
        let is_meant = |known: &Registration| known.federation == new.federation && known.party == new.party;
        if let Some(known) = parties.iter().find(|known| is_meant(known))
            && !replaces
            && *known != (Registration { since: known.since, ..new.clone() })
        {
            return Err(PartyError::Known { party: new.party, address: known.address.clone() });
        }
        parties.retain(|known| !is_meant(known));
        parties.push(new);
        self.write(parties)
    }

    /// Forgets a party, in one federation or in all.
    pub fn remove(&self, federation: Option<&ResearcherId>, party: &Party) -> Result<(), PartyError> {
        let _turn = self.turn();
        let mut parties = self.list()?;
        let before = parties.len();
        parties
            .retain(|known| known.party != *party || federation.is_some_and(|federation| known.federation != *federation));
        if parties.len() == before {
            return Err(PartyError::Unknown(party.clone()));
        }
        self.write(parties)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::folder::Kind;

    fn registration(party: &str, address: &str) -> Registration {
        Registration {
            federation: "RESEARCHER_00000000-0000-4000-8000-000000000001".parse().unwrap(),
            party: party.parse().unwrap(),
            fingerprint: Fingerprint::from_bytes([7; 32]),
            address: Address::parse(address).unwrap(),
            since: Timestamp::from_millis(1),
        }
    }

    #[test]
    fn a_party_is_kept_until_it_is_replaced_on_purpose_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = ComponentFolder::create(&dir.path().join("n"), Kind::Node, false).unwrap();
        let parties = Parties::of(&folder);
        assert!(parties.list().unwrap().is_empty());
        let north = registration("NODE_00000000-0000-4000-8000-000000000002", "north.example.org:14000");
        let moved = Registration { address: Address::parse("north.example.org:14001").unwrap(), ..north.clone() };
        parties.register(north.clone(), false).unwrap();
        parties.register(north.clone(), false).unwrap();
        assert!(matches!(parties.register(moved.clone(), false), Err(PartyError::Known { .. })));
        assert_eq!(parties.find(&north.federation, &north.party).unwrap(), Some(north.clone()));
        parties.register(moved.clone(), true).unwrap();
        assert_eq!(Parties::of(&folder).list().unwrap(), [moved]);
        let mode = std::fs::metadata(&parties.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        parties.remove(Some(&north.federation), &north.party).unwrap();
        assert!(matches!(parties.remove(None, &north.party), Err(PartyError::Unknown(_))));
        std::fs::write(&parties.path, "{}").unwrap();
        assert!(matches!(parties.list(), Err(PartyError::Malformed(_))));
    }
}
