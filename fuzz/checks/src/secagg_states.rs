//! Stored roles of secure aggregation.

use secagg::joye_libert::{Node, Researcher, ServerKey};
use secagg::lom::{NodeRole, ResearcherSession};
use secagg::party::Parties;
use secagg::session::Rules;

use crate::secagg_messages::{read, states};

/// Reads JSON as each state that is stored; what was understood can be closed, and read back.
pub fn check(json: &[u8]) {
    if let Some(mut role) = read::<NodeRole>(json) {
        role.close_rounds_before(u32::MAX);
        assert!(read::<NodeRole>(&secagg::exchange::encode(&role)).is_some());
    }
    if let Some(mut node) = read::<Node>(json) {
        node.close(u32::MAX);
        assert!(read::<Node>(&secagg::exchange::encode(&node)).is_some());
    }
    if let Some(session) = read::<ResearcherSession>(json) {
        drop(session.spec().check_rules(&Rules::default()));
    }
    if let Some(researcher) = read::<Researcher>(json) {
        let generation = researcher.next_generation().saturating_sub(1);
        drop(researcher.server_key(generation));
    }
    read::<ServerKey>(json);
    if let Some(parties) = read::<Parties>(json) {
        assert!(parties.as_slice().is_sorted_by(|a, b| a < b) && parties.len() > 1);
    }
}

/// Gives the states of a session's roles at each of its steps.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    states().into_iter().enumerate().map(|(step, state)| (format!("step_{step}"), state)).collect()
}
