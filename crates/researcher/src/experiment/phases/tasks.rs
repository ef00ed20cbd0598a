//! The tasks of a round: what each node is asked, and what opens the sum of their answers.

use std::sync::Arc;

use protocol::{Masking, NodeId, RoundKey, Scheme, SecureMessage, Task, Work, layout_byte_len};

use crate::experiment::round::{Phase, Round, Seat};
use crate::experiment::secure::{Inbound, Secure, party};
use crate::experiment::{Action, Experiment};
use crate::fold::{Ahead, Decryption, Opening, Unmasking};

impl Experiment {
    /// The task that a node has in the open round.
    pub fn task(&self, node: &NodeId) -> Option<Task> {
        self.task_with(node, &self.inbound())
    }

    /// What the parties of the open session mask with, where that is asked for now.
    pub(super) fn inbound(&self) -> Inbound {
        let is_masked = self.round().is_some_and(|round| round.phase == Phase::Contribute);
        self.secure.as_ref().filter(|_| is_masked).map(Secure::inbound).unwrap_or_default()
    }

    pub(super) fn task_with(&self, node: &NodeId, inbound: &Inbound) -> Option<Task> {
        let round = self.round()?;
        let seat = round.seats.get(node)?;
        match (round.phase, &self.secure) {
            (Phase::Contribute, None) => self.contribution_task(round, node, seat, None),
            (Phase::Contribute, Some(secure)) => {
                let message = secure.mask_request(node, inbound, round.attempt).ok()?;
                self.contribution_task(round, node, seat, Some(secure.masking(message)))
            }
            (Phase::Secure(step), secure) => {
                let message = secure.as_ref()?.request(step, node).ok()?;
                let task = self.contribution_task(round, node, seat, None)?;
                let key = RoundKey { phase: round.phase.number(), ..task.key };
                Some(Task { key, work: Work::Secure { step, message }, model: None, layout: Vec::new(), ..task })
            }
        }
    }

    fn contribution_task(&self, round: &Round, node: &NodeId, seat: &Seat, masking: Option<Masking>) -> Option<Task> {
        Some(Task {
            id: seat.task.clone(),
            node: node.clone(),
            key: RoundKey { experiment: self.id.clone(), round: round.number, attempt: seat.attempt, phase: 0 },
            requester: self.requester.clone(),
            dataset: self.participants.get(node)?.dataset.clone(),
            plan: self.spec.plan().clone(),
            work: round.work.clone(),
            model: self.task_model(&round.work),
            layout: round.layout.clone(),
            masking,
        })
    }

    /// What a contribution to the open round would be asked for with, whatever is asked now; all nodes' have the same terms.
    fn terms(&self, secure: &Secure, round: &Round) -> Option<[u8; 32]> {
        let (node, seat) = round.contribution_seats().first_key_value()?;
        let masking = secure.masking(SecureMessage::new(Vec::new()).ok()?);
        Some(self.contribution_task(round, node, seat, Some(masking))?.terms())
    }

    /// What takes the masks off the open round's sum; absent where there are none, and until enough nodes have revealed.
    pub fn unmasking(&self, ahead: Arc<Ahead>) -> Option<Unmasking> {
        let (secure, round) = (self.secure.as_ref()?, self.round()?);
        let opening = match secure.scheme() {
            Scheme::Lom => Opening::Lom(secure.unmasker(self.terms(secure, round)?).ok()?),
            Scheme::JoyeLibert => Opening::JoyeLibert(Box::new(self.decryption()?), ahead),
        };
        Some(Unmasking { opening, most_weight: secure.row_bound().filter(|_| !secure.clipping().is_empty()) })
    }

    /// What opens the open round's sum under Joye-Libert, of those that have contributed.
    pub fn decryption(&self) -> Option<Decryption> {
        let (secure, round) = (self.secure.as_ref()?, self.round()?);
        let parties = round.contributions().map(|(node, ..)| party(node)).collect();
        secure.decryption((round.number, round.attempt), self.terms(secure, round)?, parties)
    }

    /// The number of bytes that a contribution to the open round has.
    pub fn contribution_bytes(&self) -> Option<u64> {
        let layout = &self.round()?.layout;
        self.secure.as_ref().map_or_else(|| layout_byte_len(layout), |secure| secure.contribution_bytes(layout))
    }

    pub(in crate::experiment) fn ask(&self, node: &NodeId, actions: &mut Vec<Action>) {
        if let Some(task) = self.task(node) {
            actions.push(Action::Ask { node: node.clone(), task: Box::new(task) });
        }
    }
}
