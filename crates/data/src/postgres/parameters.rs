//! What the owner of a `postgres` dataset says: where the server is, how to log in, and which rows are meant.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::PostgresError;
use crate::omop::Cohort;
use crate::sql::Name;

/// Why a text is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SelectError {
    #[error("a query begins with SELECT or WITH")]
    NotASelect,
    #[error("a query is one statement, without `;`")]
    Several,
    #[error("a query has at most 65536 bytes and no NUL")]
    TooLong,
}

/// A query that looks like one SELECT; the database holds it to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Select(String);

impl Select {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Select {
    type Error = SelectError;

    fn try_from(text: String) -> Result<Self, SelectError> {
        if text.len() > 65_536 || text.contains('\0') {
            return Err(SelectError::TooLong);
        }
        let text = text.trim().trim_end_matches(';').trim_end();
        let first: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
        if !["select", "with"].contains(&first.to_lowercase().as_str()) {
            return Err(SelectError::NotASelect);
        }
        if text.contains(';') {
            return Err(SelectError::Several);
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<Select> for String {
    fn from(select: Select) -> Self {
        select.0
    }
}

/// What rows a dataset has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Relation {
    /// A table or view.
    Table {
        schema: Option<Name>,
        name: Name,
    },
    Query(Select),
    /// A row for each person; the tables are in this schema, or where the server looks first.
    Cohort {
        schema: Option<Name>,
        definition: Cohort,
    },
}

/// Where a password is. Never the password itself: a dataset file is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "serde_json::Value")]
pub enum PasswordPlace {
    /// A file that only its owner can read; a newline at its end does not count.
    File(PathBuf),
    Environment(String),
}

/// Said of whatever else stands there without repeating it: it may be the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "`password` says where the password is, as {{\"file\": \"/path\"}} or {{\"environment\": \"NAME\"}}, and never the password itself"
)]
pub struct PasswordPlaceError;

impl TryFrom<serde_json::Value> for PasswordPlace {
    type Error = PasswordPlaceError;

    fn try_from(value: serde_json::Value) -> Result<Self, PasswordPlaceError> {
        let mut entries = value.as_object().into_iter().flatten();
        match (entries.next(), entries.next()) {
            (Some((key, serde_json::Value::String(text))), None) => match key.as_str() {
                "file" => Ok(Self::File(PathBuf::from(text))),
                "environment" => Ok(Self::Environment(text.clone())),
                _ => Err(PasswordPlaceError),
            },
            _ => Err(PasswordPlaceError),
        }
    }
}

/// Why a text is no server. Does not repeat it: such texts often hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("`server` is `host:port` or the absolute path of a Unix socket; user, password and database have keys of their own")]
pub struct ServerError;

/// The place of a server; it is shown in messages, so nothing secret may be in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Server(String);

impl Server {
    /// Whether only this machine can listen.
    pub(super) fn is_local(&self) -> bool {
        self.0.starts_with('/')
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Server {
    type Error = ServerError;

    fn try_from(text: String) -> Result<Self, ServerError> {
        let is_address = || {
            let (host, port) = text.rsplit_once(':')?;
            let is_host = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._[]:%".contains(c));
            (is_host && port.parse::<u16>().is_ok()).then_some(())
        };
        let is_socket = text.starts_with('/') && !text.chars().any(char::is_control);
        if is_socket || is_address().is_some() { Ok(Self(text)) } else { Err(ServerError) }
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.0
    }
}

/// Whether the connection is encrypted; the node opens it accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// With a certificate of an authority that the machine trusts.
    #[default]
    Verify,
    /// Not at all: for a Unix socket, or a network of one's own.
    Off,
}

/// How a `postgres` dataset is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresParameters {
    /// `host:port`, or the absolute path of a Unix socket.
    pub server: Server,
    pub database: String,
    pub user: String,
    #[serde(default)]
    pub password: Option<PasswordPlace>,
    #[serde(default)]
    pub tls: Tls,
    /// Seconds after which the server stops a statement.
    #[serde(default = "five_minutes")]
    pub statement_timeout_s: u32,
    pub rows: Relation,
}

fn five_minutes() -> u32 {
    300
}

/// A password; it is not shown, not compared, and wiped when it goes.
pub struct Password(Zeroizing<Vec<u8>>);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

impl Password {
    pub fn new(password: Vec<u8>) -> Self {
        Self(Zeroizing::new(password))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Fetches a password; `lookup` knows the environment.
    pub fn fetch(place: &PasswordPlace, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, PostgresError> {
        match place {
            PasswordPlace::Environment(name) => {
                let password = lookup(name).ok_or_else(|| PostgresError::PasswordVariable(name.clone()))?;
                Ok(Self::new(password.into_bytes()))
            }
            PasswordPlace::File(path) => {
                let wrong = |reason: String| PostgresError::PasswordFile { path: path.clone(), reason };
                let metadata = path.metadata().map_err(|error| wrong(error.to_string()))?;
                if metadata.permissions().mode() & 0o077 != 0 {
                    return Err(wrong("others can read this file; `chmod 600` it".to_owned()));
                }
                let mut password = Self::new(read_short(path).map_err(|error| wrong(error.to_string()))?);
                while password.0.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    password.0.pop();
                }
                Ok(password)
            }
        }
    }
}

fn read_short(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4_096);
    std::fs::File::open(path)?.take(4_096).read_to_end(&mut bytes)?;
    Ok(bytes)
}
