//! Direct key negotiation, as an experiment sees it: which one runs, and what nodes bring.

use protocol::{NodeId, Refusal, RefusalCode, SecureMessage, SecureStep};
use secagg::exchange::encode;
use transport::identity::Fingerprint;

use super::round::Phase;
use super::{Experiment, Stage};

/// A negotiation that is to run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiation {
    pub round: u32,
    pub attempt: u32,
    pub nodes: Vec<NodeId>,
    /// What the researcher says: who takes part.
    pub says: Vec<u8>,
}

impl Experiment {
    /// The negotiation for which the parties listen now.
    pub fn negotiation(&self) -> Option<Negotiation> {
        let Stage::Collecting(round) = &self.stage else { return None };
        let request = self.secure.as_ref()?.direct_request()?;
        let nodes = request.parties.iter().filter_map(|party| party.as_str().parse().ok()).collect();
        (round.phase == Phase::Secure(SecureStep::Agree)).then(|| Negotiation {
            round: round.number,
            attempt: round.attempt,
            nodes,
            says: encode(&request),
        })
    }

    /// Whether what a node brings is taken. `key` is the fingerprint of the key that it showed.
    pub fn check_heard(&self, node: &NodeId, said: &SecureMessage, key: &Fingerprint) -> Result<(), Refusal> {
        let refuse = |sentence: String| Refusal::new(RefusalCode::SecureAggregationFailed, sentence);
        let secure = self.secure.as_ref().filter(|_| self.negotiation().is_some());
        let secure = secure.ok_or_else(|| Refusal::new(RefusalCode::Late, "no negotiation of this experiment runs"))?;
        secure.check_heard(node, said.as_bytes(), key).map(|_| ()).map_err(refuse)
    }

    /// Keeps what a node brought.
    pub(super) fn heard(&mut self, node: &NodeId, said: &SecureMessage, key: &Fingerprint) {
        if self.check_heard(node, said, key).is_err() {
            return;
        }
        if let Some(secure) = &mut self.secure
            && let Ok(answer) = secure.check_heard(node, said.as_bytes(), key)
        {
            secure.hear(node, answer);
        }
    }
}
