//! Identities: a prefix that names the kind and a random UUID (version 4, RFC 9562 §5.4).
//!
//! Different ids are different types. The prefixes are those of Fed-BioMed, so that its users recognise them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected an id of the form {expected}<uuid>, found {found:?}")]
pub struct IdError {
    expected: &'static str,
    found: String,
}

/// Draws a UUID version 4 as its 36 characters.
fn uuid_v4(rng: &mut impl rand::Rng) -> String {
    let mut bytes = [0u8; 16];
    rng.fill_bytes(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}")).expect("writing to a String cannot fail");
    }
    text
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Draws a new id.
            #[must_use]
            pub fn random(rng: &mut impl rand::Rng) -> Self {
                Self(format!("{}{}", $prefix, uuid_v4(rng)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first eight hexadecimal digits, for tables that people read.
            pub fn short(&self) -> &str {
                &self.0[$prefix.len()..$prefix.len() + 8]
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                match text.strip_prefix($prefix) {
                    Some(uuid) if is_uuid(uuid) => Ok(Self(text.to_owned())),
                    _ => Err(IdError { expected: $prefix, found: text.chars().take(64).collect() }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A hospital's component.
    NodeId,
    "NODE_"
);
id!(
    /// A researcher's component (the daemon, not the person).
    ResearcherId,
    "RESEARCHER_"
);
id!(
    /// One experiment of one researcher.
    ExperimentId,
    "exper_"
);
id!(
    /// One dataset of one node.
    DatasetId,
    "dataset_"
);
id!(
    /// One task: what one node is asked to do in one attempt of one round.
    TaskId,
    "task_"
);
id!(
    /// One question that is answered at once, such as a search.
    RequestId,
    "request_"
);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn random_id_parses_back() {
        let id = NodeId::random(&mut StdRng::seed_from_u64(1));
        assert_eq!(id.as_str().parse::<NodeId>().unwrap(), id);
        assert_eq!(&id.as_str()[5 + 14..5 + 15], "4", "UUID version");
    }

    #[test]
    fn other_kind_upper_case_and_garbage_are_refused() {
        let id = NodeId::random(&mut StdRng::seed_from_u64(2));
        assert!(id.as_str().parse::<TaskId>().is_err());
        assert!(id.as_str().to_uppercase().parse::<NodeId>().is_err());
        assert!("NODE_../../etc/passwd".parse::<NodeId>().is_err());
    }
}
