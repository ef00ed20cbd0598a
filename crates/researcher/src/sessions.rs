//! Which nodes are connected, and how to speak to them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{DatasetFace, ExperimentId, NodeId, RequestId, ResearcherMessage, Tags, Timestamp};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for one node. A node that takes none of so many is cut off, and told all again when it comes back.
const OUTBOX: usize = 1024;

/// Who waits for the answer to a search.
#[derive(Debug)]
pub(crate) enum Asker {
    Experiment(ExperimentId),
    Person(oneshot::Sender<Vec<DatasetFace>>),
}

#[derive(Debug)]
struct Session {
    /// Tells this connection from the one before.
    number: u64,
    name: String,
    since: Timestamp,
    outbox: mpsc::Sender<ResearcherMessage>,
    searches: BTreeMap<RequestId, Asker>,
}

/// A connected node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) since: Timestamp,
}

#[derive(Debug, Default)]
struct Table {
    last_number: u64,
    sessions: BTreeMap<NodeId, Session>,
}

/// The connected nodes.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Table>);

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session in the place of an older one of this node, whose connection ends thereby. Returns the session's number.
    pub(crate) fn open(&self, node: &NodeId, name: &str, now: Timestamp) -> (u64, mpsc::Receiver<ResearcherMessage>) {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let mut table = self.table();
        table.last_number += 1;
        let number = table.last_number;
        let session = Session { number, name: name.to_owned(), since: now, outbox, searches: BTreeMap::new() };
        table.sessions.insert(node.clone(), session);
        (number, messages)
    }

    /// Ends a session; false if it was another one that is open.
    pub(crate) fn close(&self, node: &NodeId, number: u64) -> bool {
        let mut table = self.table();
        let is_open = table.sessions.get(node).is_some_and(|session| session.number == number);
        if is_open {
            table.sessions.remove(node);
        }
        is_open
    }

    /// Cuts a node off: its connection ends when what waits for it has been sent.
    pub(crate) fn cut(&self, node: &NodeId) {
        self.table().sessions.remove(node);
    }

    pub(crate) fn cut_all(&self) {
        self.table().sessions.clear();
    }

    /// Sends a message if the node is connected. A node that takes nothing is cut off.
    pub(crate) fn send(&self, node: &NodeId, message: ResearcherMessage) {
        let mut table = self.table();
        if let Some(session) = table.sessions.get(node)
            && session.outbox.try_send(message).is_err()
        {
            tracing::warn!(%node, "the node takes no messages; its connection is ended");
            table.sessions.remove(node);
        }
    }

    /// Asks a node for its datasets.
    pub(crate) fn search(&self, node: &NodeId, request: RequestId, tags: Option<Tags>, asker: Asker) {
        if let Some(session) = self.table().sessions.get_mut(node) {
            session.searches.insert(request.clone(), asker);
        }
        self.send(node, ResearcherMessage::Search { request, tags });
    }

    /// Takes out who waits for this answer.
    pub(crate) fn answered(&self, node: &NodeId, request: &RequestId) -> Option<Asker> {
        self.table().sessions.get_mut(node)?.searches.remove(request)
    }

    pub(crate) fn is_open(&self, node: &NodeId) -> bool {
        self.table().sessions.contains_key(node)
    }

    pub(crate) fn connected(&self) -> Vec<Connected> {
        let table = self.table();
        let connected = |(node, session): (&NodeId, &Session)| Connected {
            node: node.clone(),
            name: session.name.clone(),
            since: session.since,
        };
        table.sessions.iter().map(connected).collect()
    }

    pub(crate) fn names(&self) -> BTreeMap<NodeId, String> {
        self.connected().into_iter().map(|connected| (connected.node, connected.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_new_session_ends_the_old_connection_and_not_the_other_way_round() {
        let node = NodeId::random(&mut StdRng::seed_from_u64(1));
        let now = Timestamp::from_millis(0);
        let sessions = Sessions::default();
        let (first, mut old) = sessions.open(&node, "north", now);
        let (second, mut new) = sessions.open(&node, "north", now);
        assert!(old.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected));
        assert!(!sessions.close(&node, first));
        assert!(new.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
        assert!(sessions.close(&node, second));
        assert!(sessions.connected().is_empty());
    }

    #[test]
    fn a_node_that_takes_nothing_is_cut_off() {
        let mut rng = StdRng::seed_from_u64(2);
        let node = NodeId::random(&mut rng);
        let sessions = Sessions::default();
        let (_, _messages) = sessions.open(&node, "north", Timestamp::from_millis(0));
        for _ in 0..=OUTBOX {
            let request = RequestId::random(&mut rng);
            sessions.send(&node, ResearcherMessage::Search { request, tags: None });
        }
        assert!(sessions.connected().is_empty());
    }
}
