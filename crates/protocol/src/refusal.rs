//! Refusals: expected answers of the protocol that say no. They are values, not errors.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something was refused. The other side acts on the code; a person reads the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    // Who asks.
    TokenInvalid,
    TokenExpired,
    TokenUsed,
    TokenRevoked,
    NotEnrolled,
    NodeRevoked,
    ResearcherNotAllowed,
    SignatureInvalid,
    OtherNode,
    Incompatible,
    // What is asked.
    Malformed,
    TooLarge,
    PlanKindNotAllowed,
    PlanInvalid,
    DisclosureNotAllowed,
    TooFewSamples,
    DatasetUnknown,
    DatasetChanged,
    DatasetUnreadable,
    ColumnUnknown,
    ColumnNotNumeric,
    TargetInvalid,
    OneClass,
    MissingValues,
    NothingMatches,
    // How a sum is hidden.
    SecureAggregationRequired,
    SecureAggregationNotAllowed,
    TooFewParties,
    RosterMismatch,
    SecureAggregationFailed,
    // When.
    TaskUnknown,
    Late,
    Duplicate,
    Damaged,
    // What happened.
    TrainingDiverged,
    StoppedByHospital,
    PausedByHospital,
    Cancelled,
    QuotaExceeded,
    Unavailable,
    Internal,
}

impl RefusalCode {
    /// The code as it is written in messages, tables and logs.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => unreachable!("a unit variant serialises as text"),
        }
    }
}

/// A code and a sentence. The sentence holds no path, no secret and no data value: it travels to the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub code: RefusalCode,
    pub sentence: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.sentence, self.code.name())
    }
}

impl std::error::Error for Refusal {}
