//! What a node keeps of each session it prepared for, and which attempts may follow one another (specification §3).

use serde::{Deserialize, Serialize};

use super::secrets::{Own, Received};
use super::{Preparation, Revelation};
use crate::graph::Graph;
use crate::party::PartyId;
use crate::problem::Problem;
use crate::session::SessionSpec;

/// Is one session that this node prepared for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) spec: SessionSpec,
    pub(super) step: Step,
}

/// Says how far a session came here: Prepared → Masked → Revealed, each → Forgotten.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    Prepared { own: Own, preparation: Preparation },
    Masked { own: Own, preparation: Preparation, received: Received, signed: Option<Vec<PartyId>> },
    Revealed { signed: bool, survivors: Vec<PartyId>, revelation: Revelation },
    Forgotten { revealed: bool, signed: bool },
}

impl Record {
    /// Tells whether this is an attempt at the same round and phase.
    pub(super) fn is_attempt_with(&self, spec: &SessionSpec) -> bool {
        self.spec.context.round == spec.context.round && self.spec.context.phase == spec.context.phase
    }

    /// Wipes all but that it was, and how far it came.
    pub(super) fn forget(&mut self) {
        self.step = Step::Forgotten { revealed: self.is_revealed(), signed: self.is_signed() };
    }

    pub(super) fn is_signed(&self) -> bool {
        match &self.step {
            Step::Prepared { .. } => false,
            Step::Masked { signed, .. } => signed.is_some(),
            Step::Revealed { signed, .. } | Step::Forgotten { signed, .. } => *signed,
        }
    }

    pub(super) fn is_revealed(&self) -> bool {
        matches!(self.step, Step::Revealed { .. } | Step::Forgotten { revealed: true, .. })
    }
}

/// Refuses a retry that could end together with an earlier attempt, which would show the difference of two sums. A node that
/// revealed refuses any later attempt; so t + t' > |P ∪ P'| + c makes sure that an honest node of each quorum is in the other, and
/// at most one attempt ends. In a sparse graph fewer than t need reveal, so there who signed refuses.
pub(super) fn check_retry(earlier: &Record, spec: &SessionSpec) -> Result<(), Problem> {
    if earlier.spec.context.attempt > spec.context.attempt {
        return Err(Problem::Superseded);
    }
    if earlier.spec.context.attempt == spec.context.attempt {
        return Err(Problem::SecondSession);
    }
    if earlier.is_revealed() || (earlier.is_signed() && earlier.spec.graph != Graph::Complete) {
        return Err(Problem::AlreadyRevealed);
    }
    let joining = spec.parties.iter().filter(|party| !earlier.spec.parties.contains(party)).count();
    let all = earlier.spec.parties.count().saturating_add(u32::try_from(joining).unwrap_or(u32::MAX));
    let colluders = earlier.spec.colluders.max(spec.colluders);
    let least = all.saturating_add(colluders).saturating_add(1).saturating_sub(earlier.spec.threshold);
    if spec.threshold < least {
        return Err(Problem::RetryThreshold { got: spec.threshold, least });
    }
    Ok(())
}
