//! Who takes part: party ids, sorted lists of them, and their Shamir points (specification §1).

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

macro_rules! text {
    ($name:ident, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Bounds its length in bytes.
            pub const MOST_BYTES: usize = 128;

            /// Checks the length: 1 to 128 bytes.
            pub fn new(text: impl Into<String>) -> Result<Self, Problem> {
                let text = text.into();
                if text.is_empty() || text.len() > Self::MOST_BYTES {
                    return Err(Problem::Text { what: $what, most: Self::MOST_BYTES, got: text.len() });
                }
                Ok(Self(text))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the UTF-8 bytes.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl TryFrom<String> for $name {
            type Error = Problem;

            fn try_from(text: String) -> Result<Self, Problem> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text!(PartyId, "a party id", "Names one node in a session; ordered by bytes.");
text!(Experiment, "an experiment id", "Names the experiment that all keys are bound to.");

/// Is the x-coordinate of a party's Shamir share: its index plus one, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(NonZeroU32);

impl Point {
    /// Gives the point of the party with this index.
    pub fn of_index(index: usize) -> Self {
        let value = u32::try_from(index + 1).expect("lists of parties hold at most 65,536");
        Self(NonZeroU32::new(value).expect("an index plus one is not zero"))
    }

    /// Returns the x-coordinate.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// Is a list of 2 to 65,536 parties, sorted by bytes, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<PartyId>", into = "Vec<PartyId>")]
pub struct Parties(Vec<PartyId>);

impl Parties {
    /// Sorts the ids and refuses repetitions.
    pub fn new(ids: impl IntoIterator<Item = PartyId>) -> Result<Self, Problem> {
        let mut ids: Vec<PartyId> = ids.into_iter().collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Problem::PartyTwice { party: pair[0].clone() });
        }
        if !(2..=65_536).contains(&ids.len()) {
            return Err(Problem::PartyCount { got: ids.len() });
        }
        Ok(Self(ids))
    }

    /// Counts the parties.
    #[expect(clippy::len_without_is_empty, reason = "never empty by construction")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Counts the parties as the 32-bit number of the specification.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("at most 65,536 parties")
    }

    /// Finds the index of a party.
    pub fn index_of(&self, party: &PartyId) -> Option<usize> {
        self.0.binary_search(party).ok()
    }

    /// Finds the Shamir point of a party.
    pub fn point_of(&self, party: &PartyId) -> Option<Point> {
        self.index_of(party).map(Point::of_index)
    }

    /// Tells whether a party is in the list.
    pub fn contains(&self, party: &PartyId) -> bool {
        self.index_of(party).is_some()
    }

    /// Returns the parties in order.
    pub fn as_slice(&self) -> &[PartyId] {
        &self.0
    }

    /// Goes through the parties in order.
    pub fn iter(&self) -> std::slice::Iter<'_, PartyId> {
        self.0.iter()
    }
}

impl<'parties> IntoIterator for &'parties Parties {
    type Item = &'parties PartyId;
    type IntoIter = std::slice::Iter<'parties, PartyId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl TryFrom<Vec<PartyId>> for Parties {
    type Error = Problem;

    fn try_from(ids: Vec<PartyId>) -> Result<Self, Problem> {
        Self::new(ids)
    }
}

impl From<Parties> for Vec<PartyId> {
    fn from(parties: Parties) -> Self {
        parties.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PartyId {
        PartyId::new(text).unwrap()
    }

    #[test]
    fn parties_are_sorted_by_bytes_and_points_start_at_one() {
        let parties = Parties::new([id("b"), id("a"), id("B")]).unwrap();
        assert_eq!(parties.as_slice(), [id("B"), id("a"), id("b")]);
        assert_eq!(parties.point_of(&id("B")).unwrap().get(), 1);
        assert_eq!(parties.point_of(&id("c")), None);
    }

    #[test]
    fn repetitions_single_parties_and_long_ids_are_refused() {
        assert_eq!(Parties::new([id("a"), id("b"), id("a")]), Err(Problem::PartyTwice { party: id("a") }));
        assert_eq!(Parties::new([id("a")]), Err(Problem::PartyCount { got: 1 }));
        assert!(PartyId::new("").is_err());
        assert!(PartyId::new("a".repeat(129)).is_err());
        assert!(serde_json::from_str::<Parties>(r#"["a","a"]"#).is_err());
    }
}
