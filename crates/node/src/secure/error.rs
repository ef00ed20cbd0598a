//! Why the desk gives nothing, and what the researcher is told of it.

use std::io;

use component::keystore::KeyStoreError;
use protocol::{Refusal, RefusalCode};
use secagg::joye_libert;
use secagg::problem::Problem;

use crate::enrolment::EnrolmentError;
use crate::store::StoreError;

/// Why the desk gives nothing.
#[derive(Debug)]
pub(crate) enum DeskError {
    Refused(Refusal),
    /// The own disk failed; to be tried again.
    Hindered(io::Error),
}

impl From<Refusal> for DeskError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for DeskError {
    fn from(error: StoreError) -> Self {
        Self::Hindered(io::Error::other(error))
    }
}

impl From<KeyStoreError> for DeskError {
    fn from(error: KeyStoreError) -> Self {
        tracing::error!(%error, "a key of this node cannot be used");
        Self::Refused(Refusal::new(RefusalCode::Unavailable, "the node cannot use its keys"))
    }
}

impl From<EnrolmentError> for DeskError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::Store(error) => error.into(),
            error => {
                tracing::error!(%error, "the identity of this node cannot be used");
                Self::Refused(Refusal::new(RefusalCode::Unavailable, "the node cannot use its identity"))
            }
        }
    }
}

impl From<Problem> for DeskError {
    fn from(problem: Problem) -> Self {
        let code = match &problem {
            Problem::TooFewParties { .. } | Problem::TooFewSurvivors { .. } | Problem::MinParties { .. } => {
                RefusalCode::TooFewParties
            }
            Problem::NotInRoster { .. } => RefusalCode::RosterMismatch,
            _ => RefusalCode::SecureAggregationFailed,
        };
        // A problem names parties, steps and numbers of parties, and nothing of data or of secrets.
        Self::Refused(Refusal::new(code, format!("{problem}{}", advice(&problem))))
    }
}

/// What the requester may do about numbers that this hospital does not agree to.
fn advice(problem: &Problem) -> String {
    match problem {
        // A threshold for c colluders among n is there for c ≤ n - 2.
        Problem::Threshold { parties, colluders, .. } if *colluders > parties.saturating_sub(2) => {
            format!("; that takes {} nodes or more", colluders.saturating_add(2))
        }
        Problem::Threshold { colluders, .. } => format!("; set max_colluders = {colluders} in the experiment"),
        Problem::MinParties { least, .. } => format!("; set min_parties = {least} in the experiment"),
        Problem::TooFewParties { least, .. } => format!("; ask {least} nodes or more"),
        _ => String::new(),
    }
}

impl From<joye_libert::Problem> for DeskError {
    fn from(problem: joye_libert::Problem) -> Self {
        match problem {
            joye_libert::Problem::Common(problem) => problem.into(),
            // As above: parties, numbers and steps.
            other => failed(other.to_string()),
        }
    }
}

pub(super) fn failed(sentence: impl Into<String>) -> DeskError {
    DeskError::Refused(Refusal::new(RefusalCode::SecureAggregationFailed, sentence))
}
