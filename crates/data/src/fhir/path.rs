//! Paths into a resource, after `FHIRPath`'s: names with dots between them, an index or a condition in brackets behind a name.
//!
//! `name[0].family`, `component[code.coding.code=8480-6].valueQuantity.value`, `extension[url='http://example.org/a.b'].valueString`,
//! `code.coding[*].code`. A list without brackets stands for its only entry; `[*]` for all entries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// The longest path, in bytes.
const MAX_PATH: usize = 512;

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the path {path:?}: character {at}: expected {expected}")]
pub struct PathError {
    pub path: String,
    /// Counted from 1.
    pub at: usize,
    pub expected: &'static str,
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FhirPath {
    steps: Vec<Step>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    name: String,
    choice: Choice,
}

/// Which entries of a list are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    All,
    Index(usize),
    /// Those where one value of the path is this text.
    Where(FhirPath, String),
}

/// Whether a scalar is written so.
pub(super) fn is_equal(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Number(number) => number.to_string().as_str() == text,
        Value::Bool(is_true) => text == if *is_true { "true" } else { "false" },
        _ => false,
    }
}

impl FhirPath {
    /// All values at the path, lists opened.
    pub(super) fn values<'a>(&self, resource: &'a Value) -> Vec<&'a Value> {
        let mut values = vec![resource];
        for step in &self.steps {
            values = values
                .into_iter()
                .filter_map(|value| value.get(&step.name))
                .flat_map(|value| step.choice.of(value))
                .collect();
        }
        values
    }
}

impl Choice {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let entries: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |entries| entries.iter().collect());
        match self {
            Self::All => entries,
            Self::Index(index) => entries.get(*index).copied().into_iter().collect(),
            Self::Where(path, text) => {
                let is_meant = |entry: &&Value| path.values(entry).iter().any(|value| is_equal(value, text));
                entries.into_iter().filter(is_meant).collect()
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, expected: &'static str) -> PathError {
        PathError { path: self.text.to_owned(), at: self.text[..self.at].chars().count() + 1, expected }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn while_true(&mut self, is_part: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let part = &rest[..rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())];
        self.at += part.len();
        part.to_owned()
    }

    /// Names and brackets up to the end or to what is no part of a path.
    fn path(&mut self, depth: usize) -> Result<FhirPath, PathError> {
        let start = self.at;
        let mut steps = Vec::new();
        loop {
            let name = self.while_true(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if name.is_empty() {
                return Err(self.error("a name"));
            }
            let choice = if self.take('[') { self.choice(depth)? } else { Choice::All };
            steps.push(Step { name, choice });
            if !self.take('.') {
                return Ok(FhirPath { steps, text: self.text[start..self.at].to_owned() });
            }
        }
    }

    /// What is in brackets, and the bracket behind it.
    fn choice(&mut self, depth: usize) -> Result<Choice, PathError> {
        let choice = if self.take('*') {
            Choice::All
        } else if self.text[self.at..].starts_with(|letter: char| letter.is_ascii_digit()) {
            let digits = self.while_true(|letter| letter.is_ascii_digit());
            Choice::Index(digits.parse().map_err(|_| self.error("a smaller index"))?)
        } else if depth == 4 {
            return Err(self.error("conditions nested at most four deep"));
        } else {
            let path = self.path(depth + 1)?;
            if !self.take('=') {
                return Err(self.error("`=` and a value"));
            }
            let quote = ['\'', '"'].into_iter().find(|quote| self.take(*quote));
            let value = match quote {
                Some(quote) => self.while_true(|letter| letter != quote),
                None => self.while_true(|letter| letter != ']'),
            };
            if quote.is_some_and(|quote| !self.take(quote)) {
                return Err(self.error("the closing quote"));
            }
            Choice::Where(path, value)
        };
        if self.take(']') { Ok(choice) } else { Err(self.error("`]`")) }
    }
}

impl FromStr for FhirPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > MAX_PATH {
            return Err(PathError { path: text.chars().take(60).collect(), at: MAX_PATH, expected: "at most 512 bytes" });
        }
        let path = parser.path(0)?;
        if parser.at == text.len() { Ok(path) } else { Err(parser.error("`.` or the end")) }
    }
}

impl TryFrom<String> for FhirPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<FhirPath> for String {
    fn from(path: FhirPath) -> Self {
        path.text
    }
}

impl fmt::Display for FhirPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, resource: &str, values: &[&str]) {
        let resource: Value = serde_json::from_str(resource).unwrap();
        let path: FhirPath = path.parse().unwrap();
        let found: Vec<String> = path.values(&resource).iter().map(ToString::to_string).collect();
        assert_eq!(found, values);
    }

    #[test]
    fn names_indices_and_conditions_find_values() {
        let resource = r#"{"a": [{"b": 1, "c": {"d": "x.y"}}, {"b": 2, "c": {"d": "z"}}], "e": true}"#;
        check("e", resource, &["true"]);
        check("a.b", resource, &["1", "2"]);
        check("a[1].b", resource, &["2"]);
        check("a[7].b", resource, &[]);
        check("a[c.d=z].b", resource, &["2"]);
        check("a[c.d='x.y'].b", resource, &["1"]);
        check("a[b=1].c.d", resource, &["\"x.y\""]);
        check("e.f.g", resource, &[]);
    }

    #[test]
    fn errors_say_where() {
        for (path, at, expected) in [
            ("", 1, "a name"),
            ("a..b", 3, "a name"),
            ("a[", 3, "a name"),
            ("a[0", 4, "`]`"),
            ("a[b]", 4, "`=` and a value"),
            ("a[b='x]", 8, "the closing quote"),
            ("a b", 2, "`.` or the end"),
        ] {
            assert_eq!(path.parse::<FhirPath>(), Err(PathError { path: path.to_owned(), at, expected }), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_texts_never_panic(text in "[a-b\\[\\]=.*'0-9ä]{0,40}") {
            if let Ok(path) = text.parse::<FhirPath>() {
                proptest::prop_assert_eq!(path.to_string(), text);
            }
        }
    }
}
