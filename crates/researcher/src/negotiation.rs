//! The researcher's part of direct key negotiations: it tells the nodes who takes part, and hears their keys from them.
//!
//! Which negotiation is to run is what the experiments say; here it begins and ends, and what is heard goes to the driver, which
//! stores it before the node is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use component::parties::Parties;
use protocol::{ExperimentId, NodeId, Refusal, RefusalCode, SecureMessage};
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use transport::identity::Fingerprint;
use transport::negotiation::{Identity, Notice, Office, Outcome, Part, Party, Peer, Pin, Place, Topic};

use crate::desk::Desk;
use crate::driver::Mail;
use crate::experiment::{Event, Negotiation};

/// What a researcher needs to negotiate directly.
pub struct Negotiating {
    pub place: Place,
    pub parties: Parties,
    /// What its server shows now.
    pub identity: Box<dyn Fn() -> Result<Identity, String> + Send + Sync>,
    pub timeout: Duration,
}

/// The place where this researcher negotiates.
pub(crate) struct Direct {
    office: Arc<Office>,
    parties: Parties,
    identity: Box<dyn Fn() -> Result<Identity, String> + Send + Sync>,
    timeout: Duration,
}

impl Direct {
    pub(crate) fn new(negotiating: Negotiating, desk: Weak<Desk>, rng: StdRng) -> Self {
        let Negotiating { place, parties, identity, timeout } = negotiating;
        let note = Arc::new(move |notice| {
            if let Some(desk) = desk.upgrade() {
                noticed(&desk, &notice);
            }
        });
        Self { office: Arc::new(Office::new(place, note, rng)), parties, identity, timeout }
    }

    pub(crate) fn parties(&self) -> &Parties {
        &self.parties
    }

    /// What is to be said, to whom, and what becomes of the answers.
    fn part(&self, desk: &Arc<Desk>, experiment: &ExperimentId, negotiation: &Negotiation) -> Result<Part, String> {
        let (mut peers, mut keys) = (Vec::new(), BTreeMap::new());
        for node in &negotiation.nodes {
            let party = Party::Node(node.clone());
            let known = self.parties.find(&desk.researcher, &party).map_err(|error| error.to_string())?;
            let known = known.ok_or_else(|| {
                format!(
                    "{node} is not registered for direct key negotiation: run `researcher certificate register --party-id {node} \
                     --public-key FILE --address HOST:PORT`, or ask with key_negotiation = \"relay\""
                )
            })?;
            keys.insert(node.clone(), known.fingerprint);
            let told = negotiation.says.clone().into();
            peers.push(Peer { party, pin: Pin::Key(known.fingerprint), address: known.address, told });
        }
        let (desk, experiment) = (Arc::downgrade(desk), experiment.clone());
        let researcher = desk.upgrade().map(|desk| desk.researcher.clone()).ok_or("the daemon is ending")?;
        Ok(Part {
            topic: Topic {
                researcher: researcher.clone(),
                experiment: experiment.clone(),
                round: negotiation.round,
                attempt: negotiation.attempt,
                series: 0,
            },
            own: Party::Researcher(researcher),
            identity: (self.identity)()?,
            peers,
            take: Arc::new(move |party, said| {
                let key = match &party {
                    Party::Node(node) => keys.get(node).map(|key| (node.clone(), *key)),
                    Party::Researcher(_) => None,
                };
                Box::pin(hand_over(desk.clone(), experiment.clone(), key, said.to_vec()))
            }),
            patience: self.timeout,
        })
    }
}

/// Gives the driver what a node brought, and waits until it is stored.
async fn hand_over(
    desk: Weak<Desk>,
    experiment: ExperimentId,
    from: Option<(NodeId, Fingerprint)>,
    said: Vec<u8>,
) -> Result<(), Refusal> {
    let ending = || Refusal::new(RefusalCode::Unavailable, "the researcher is ending");
    let said = SecureMessage::new(said).map_err(|error| Refusal::new(RefusalCode::TooLarge, error.to_string()))?;
    let (node, key) = from.ok_or_else(|| Refusal::new(RefusalCode::RosterMismatch, "the party is no node"))?;
    let (answer, answered) = oneshot::channel();
    desk.upgrade().ok_or_else(ending)?.mail(Mail::Heard { experiment, node, said, key, answer }).await;
    answered.await.map_err(|_| ending())?
}

fn noticed(desk: &Desk, notice: &Notice) {
    match notice {
        Notice::Opened { address } => {
            tracing::info!(address, "listening for a direct negotiation");
            desk.note("negotiation.opened", [("address", address.as_str().into())]);
        }
        Notice::Closed { address } => {
            tracing::info!(address, "the direct negotiation is over; the port is closed");
            desk.note("negotiation.closed", [("address", address.as_str().into())]);
        }
        Notice::Rejected { from, reason } => {
            tracing::warn!(from, reason, "not let in");
            desk.note("negotiation.rejected", [("peer", from.as_str().into()), ("reason", reason.as_str().into())]);
        }
    }
}

/// A negotiation that runs; dropping it ends it.
struct Running {
    what: Negotiation,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The negotiations that the experiments want.
#[derive(Default)]
pub(crate) struct Negotiations(BTreeMap<ExperimentId, Running>);

impl Negotiations {
    /// Begins what an experiment wants and does not run yet, and ends what it does not want any more.
    pub(crate) fn follow(&mut self, desk: &Arc<Desk>, experiment: &ExperimentId, wanted: Option<Negotiation>) {
        let running = self.0.get(experiment).map(|running| &running.what);
        if running == wanted.as_ref() {
            return;
        }
        self.0.remove(experiment);
        if let Some(what) = wanted {
            let task = tokio::spawn(run(desk.clone(), experiment.clone(), what.clone()));
            self.0.insert(experiment.clone(), Running { what, task });
        }
    }
}

async fn run(desk: Arc<Desk>, experiment: ExperimentId, negotiation: Negotiation) {
    let begun = match &desk.direct {
        None => Err("this researcher has no place for direct key negotiation".to_owned()),
        Some(direct) => match direct.part(&desk, &experiment, &negotiation) {
            Ok(part) => direct.office.negotiate(part).await.map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        },
    };
    match begun {
        Ok(Outcome { troubles, .. }) => {
            for (party, trouble) in troubles {
                tracing::warn!(%experiment, %party, ?trouble, "a direct negotiation with a party failed");
                let facts = [("experiment", experiment.as_str().into()), ("party", party.to_string().into())];
                desk.note("negotiation.failed", facts);
            }
        }
        Err(reason) => {
            let reason = format!("keys cannot be negotiated directly: {reason}");
            desk.mail(Mail::Job { experiment, event: Event::Broken { reason }, small_model: None }).await;
        }
    }
}
