//! Statements for databases, built from checked parts: names are quoted, values are bound, and no text of anybody becomes SQL.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use thiserror::Error;

mod expression;
pub mod sums;

/// Whose words a statement uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Any engine that speaks PostgreSQL's protocol.
    Postgres,
    Sqlite,
}

/// A value that is bound to a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Integer(i64),
    Real(f64),
    Text(String),
}

/// A statement and its values, in the order of `$1`, `$2`, …
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub text: String,
    pub parameters: Vec<Parameter>,
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a name of 1 to 63 bytes without control characters, found {0:?}")]
pub struct NameError(String);

/// The name of a schema, table or column, as the database writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        // PostgreSQL cuts longer names off, silently.
        if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
            return Err(NameError(name.chars().take(80).collect()));
        }
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// A name in double quotes, those in it doubled: the SQL standard's way, in which nothing in a name is more than a letter.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A statement under construction.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) dialect: Dialect,
    text: String,
    parameters: Vec<Parameter>,
}

impl Builder {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, text: String::new(), parameters: Vec::new() }
    }

    /// Continues a statement, whose values keep their numbers.
    pub(crate) fn after(dialect: Dialect, statement: Statement) -> Self {
        Self { dialect, text: statement.text, parameters: statement.parameters }
    }

    /// Appends SQL written in this crate.
    pub(crate) fn push(&mut self, sql: &str) -> &mut Self {
        self.text.push_str(sql);
        self
    }

    /// Appends a name.
    pub(crate) fn name(&mut self, name: &str) -> &mut Self {
        self.text.push_str(&quoted(name));
        self
    }

    /// Appends the place of a value, with its type: the database must not guess it from the neighbours.
    pub(crate) fn bind(&mut self, value: Parameter) -> &mut Self {
        let kind = match value {
            Parameter::Integer(_) => "bigint",
            Parameter::Real(_) => "double precision",
            Parameter::Text(_) => "text",
        };
        self.parameters.push(value);
        let number = self.parameters.len();
        let written = match self.dialect {
            Dialect::Postgres => write!(self.text, "CAST(${number} AS {kind})"),
            Dialect::Sqlite => write!(self.text, "?{number}"),
        };
        written.expect("writing to a text does not fail");
        self
    }

    /// Appends values with commas between them.
    pub(crate) fn bind_all(&mut self, values: impl IntoIterator<Item = Parameter>) -> &mut Self {
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self
    }

    /// The word for integers of 64 bits.
    pub(crate) fn integer(&self) -> &'static str {
        match self.dialect {
            Dialect::Postgres => "bigint",
            Dialect::Sqlite => "INTEGER",
        }
    }

    /// The word for reals of 64 bits.
    pub(crate) fn real(&self) -> &'static str {
        match self.dialect {
            Dialect::Postgres => "double precision",
            Dialect::Sqlite => "REAL",
        }
    }

    pub(crate) fn finish(self) -> Statement {
        Statement { text: self.text, parameters: self.parameters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_values_are_bound() {
        let mut builder = Builder::new(Dialect::Postgres);
        builder.push("SELECT ").name("a\" FROM b; --").push(" = ").bind(Parameter::Text("x'; DROP".to_owned()));
        let statement = builder.finish();
        assert_eq!(statement.text, "SELECT \"a\"\" FROM b; --\" = CAST($1 AS text)");
        assert_eq!(statement.parameters, [Parameter::Text("x'; DROP".to_owned())]);
        assert!(Name::new("a\0b").is_err() && Name::new("").is_err() && Name::new("x".repeat(64)).is_err());
    }
}
