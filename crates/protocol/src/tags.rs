//! Tags: the words by which a researcher finds datasets.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a list of words is not a tag set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TagsError {
    #[error("at least one tag is needed")]
    Empty,
    #[error("a tag has 1 to 64 characters without commas or control characters, found {found:?}")]
    Tag { found: String },
    #[error("at most 32 tags are allowed, found {found}")]
    TooMany { found: usize },
}

/// A non-empty set of tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Tags(BTreeSet<String>);

impl Tags {
    /// Checks the words; white space around each is dropped, repeated ones count once.
    pub fn new(words: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, TagsError> {
        let mut tags = BTreeSet::new();
        for word in words {
            let tag = word.as_ref().trim();
            let fits = (1..=64).contains(&tag.chars().count());
            if !fits || tag.contains(',') || tag.chars().any(char::is_control) {
                return Err(TagsError::Tag { found: tag.chars().take(64).collect() });
            }
            tags.insert(tag.to_owned());
        }
        match tags.len() {
            0 => Err(TagsError::Empty),
            1..=32 => Ok(Self(tags)),
            found => Err(TagsError::TooMany { found }),
        }
    }

    /// Whether a search for `requested` finds a dataset with these tags: all requested tags are in.
    pub fn answer(&self, requested: &Self) -> bool {
        requested.0.is_subset(&self.0)
    }

    /// Whether two datasets of one node cannot carry these sets: one contains the other, so a search for the smaller
    /// would find both.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0) || other.0.is_subset(&self.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().collect();
        formatter.write_str(&words.join(", "))
    }
}

impl TryFrom<Vec<String>> for Tags {
    type Error = TagsError;

    fn try_from(words: Vec<String>) -> Result<Self, TagsError> {
        Self::new(words)
    }
}

impl From<Tags> for Vec<String> {
    fn from(tags: Tags) -> Self {
        tags.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(words: &[&str]) -> Tags {
        Tags::new(words).unwrap()
    }

    #[test]
    fn search_matches_when_all_requested_tags_are_in() {
        assert!(tags(&["heart", "uci"]).answer(&tags(&["heart"])));
        assert!(!tags(&["heart"]).answer(&tags(&["heart", "uci"])));
    }

    #[test]
    fn sets_conflict_when_one_contains_the_other() {
        assert!(tags(&["a", "b"]).conflicts_with(&tags(&["a"])));
        assert!(tags(&["a"]).conflicts_with(&tags(&["a", "b"])));
        assert!(!tags(&["a", "b"]).conflicts_with(&tags(&["a", "c"])));
    }
}
