//! The researchers with whom the node is enrolled.

use protocol::{ResearcherId, Timestamp};
use rusqlite::{OptionalExtension, Row};
use transport::address::Address;
use transport::identity::{Certificate, TaskKey};

use super::{Durability, Store, StoreError, converted, millis, timestamp};

/// What a node keeps about one researcher. The node's key lies in the key store under the researcher's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    pub researcher: ResearcherId,
    /// From the token.
    pub address: Address,
    /// The researcher's CA certificate: nobody else is trusted to be this researcher.
    pub authority: Certificate,
    /// The node's own certificate.
    pub certificate: Certificate,
    /// The key that signs tasks.
    pub task_key: TaskKey,
    /// Whether the hospital lets this researcher give work.
    pub allowed: bool,
    pub enrolled: Timestamp,
}

fn enrolment(row: &Row<'_>) -> rusqlite::Result<Enrolment> {
    Ok(Enrolment {
        researcher: converted(row, "researcher", |id: String| id.parse())?,
        address: converted(row, "address", |text: String| Address::parse(&text))?,
        authority: converted(row, "authority", |pem: String| Certificate::from_pem(&pem))?,
        certificate: converted(row, "certificate", |pem: String| Certificate::from_pem(&pem))?,
        task_key: converted(row, "task_key", |point: Vec<u8>| TaskKey::from_point(&point))?,
        allowed: row.get("allowed")?,
        enrolled: timestamp(row, "enrolled")?,
    })
}

impl Store {
    /// Adds an enrolment or takes the place of an earlier one with the same researcher.
    pub fn save_enrolment(&self, new: &Enrolment) -> Result<(), StoreError> {
        self.write(Durability::Durable, |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO enrolment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (
                    new.researcher.as_str(),
                    new.address.to_string(),
                    new.authority.to_pem(),
                    new.certificate.to_pem(),
                    new.task_key.as_point(),
                    new.allowed,
                    millis(new.enrolled),
                ),
            )?;
            Ok(())
        })
    }

    /// All enrolments, oldest first.
    pub fn enrolments(&self) -> Result<Vec<Enrolment>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT * FROM enrolment ORDER BY enrolled, researcher")?;
            let rows = statement.query_map([], enrolment)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn enrolment(&self, researcher: &ResearcherId) -> Result<Option<Enrolment>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM enrolment WHERE researcher = ?1")?;
            Ok(statement.query_row([researcher.as_str()], enrolment).optional()?)
        })
    }

    /// Allows or forbids a researcher; false if it is not enrolled.
    pub fn allow_researcher(&self, researcher: &ResearcherId, allowed: bool) -> Result<bool, StoreError> {
        self.write(Durability::Durable, |connection| {
            let sql = "UPDATE enrolment SET allowed = ?2 WHERE researcher = ?1";
            Ok(connection.execute(sql, (researcher.as_str(), allowed))? == 1)
        })
    }

    /// Drops an enrolment with its tasks and experiments; false if there is none.
    pub fn forget_researcher(&self, researcher: &ResearcherId) -> Result<bool, StoreError> {
        self.write(Durability::Durable, |connection| {
            let id = [researcher.as_str()];
            connection.execute("DELETE FROM task WHERE researcher = ?1", id)?;
            for table in ["experiment_state", "secure_state", "peer", "own_result"] {
                connection.execute(&format!("DELETE FROM {table} WHERE researcher = ?1"), id)?;
            }
            Ok(connection.execute("DELETE FROM enrolment WHERE researcher = ?1", id)? == 1)
        })
    }
}
