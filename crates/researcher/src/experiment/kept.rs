//! How the state of hidden sums is kept. With many nodes it is large, and each answer of an exchange changes a little of it: it lies
//! beside the experiment's row, and answers that came since it was last written lie beside it in their order.

use protocol::{NodeId, SecureMessage, SecureStep};
use serde::{Deserialize, Serialize};
use transport::identity::Fingerprint;

use super::{Action, Event, Experiment};

/// An answer that an exchange has taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptAnswer {
    pub step: SecureStep,
    pub node: NodeId,
    pub answer: SecureMessage,
    /// The fingerprint of the key that the node is enrolled with.
    pub key: Fingerprint,
}

/// What steps have changed of the state of hidden sums.
#[derive(Debug, Clone, PartialEq)]
pub enum SecureChange {
    /// Nothing but that these answers were taken.
    Answers(Vec<KeptAnswer>),
    /// Anything: it is written anew.
    Whole,
}

impl SecureChange {
    /// What a step changed, by what happened (see [`Self::is_small`]) and what is to be done: as long as an exchange waits for more,
    /// nothing is done but to keep and to settle.
    pub fn of(is_small: bool, actions: &[Action]) -> Self {
        let waits = |action: &Action| matches!(action, Action::Keep(_) | Action::Settle { .. } | Action::WakeAt(_));
        if !is_small || !actions.iter().all(waits) {
            return Self::Whole;
        }
        let kept = |action: &Action| if let Action::Keep(answer) = action { Some((**answer).clone()) } else { None };
        Self::Answers(actions.iter().filter_map(kept).collect())
    }

    /// Whether an event changes nothing by itself but what an answer does.
    pub fn is_small(event: &Event) -> bool {
        matches!(event, Event::Answered { .. } | Event::Contributed { .. })
    }

    /// Both changes, one after the other.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Answers(mut answers), Self::Answers(later)) => {
                answers.extend(later);
                Self::Answers(answers)
            }
            _ => Self::Whole,
        }
    }
}

impl Experiment {
    /// The state of hidden sums as it is kept; absent where sums are not hidden.
    pub fn secure_state(&self) -> Option<String> {
        let secure = self.secure.as_ref()?;
        Some(serde_json::to_string(secure).expect("its maps have text as keys, and its numbers are finite"))
    }

    /// Takes up the state of hidden sums as it was written, and the answers since, oldest first.
    pub fn with_secure_state(
        mut self,
        state: &str,
        answers: impl IntoIterator<Item = KeptAnswer>,
    ) -> Result<Self, serde_json::Error> {
        let mut secure: super::secure::Secure = serde_json::from_str(state)?;
        for KeptAnswer { step, node, answer, key } in answers {
            if let Err(reason) = secure.accept(step, &node, &answer, &key) {
                // The same state takes the same answer: this is a mistake, and what it leads to is an end without a sum.
                tracing::error!(%node, step = step.name(), reason, "an answer that was taken is not taken again");
            }
        }
        self.secure = Some(secure);
        Ok(self)
    }
}
