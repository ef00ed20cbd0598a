//! A running researcher: what a program that embeds one, or the local socket, can ask of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use component::audit::AuditLog;
use component::blocking::Blocking;
use component::parties::{Parties, Registration};
use protocol::{ExperimentId, ExperimentSpec, NodeId, RequestId, Requester, ResearcherId, Tags};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secagg::joye_libert::Group;
use serde_json::json;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use transport::address::Address;
use transport::clock::Clock;
use transport::identity::{EnrolmentAnswer, FederationCa, Fingerprint, IdentityError, SecretKey, SigningRequest, TaskKey};
use transport::matrix::NEGOTIATION_PORT;
use transport::negotiation::Party;
use transport::token::EnrolmentToken;

use crate::board::Board;
use crate::command::{DatasetRow, ExperimentDetails, ExperimentRow, InvitationRow, Invited, NodeRow, NodeState, Signed};
use crate::desk::Desk;
use crate::driver::{Answer, Driver, MAILBOX, Mail};
use crate::experiment::Live;
use crate::files::Files;
use crate::follower::Follower;
use crate::negotiation::{Direct, Negotiating};
use crate::service::Service;
use crate::sessions::{Asker, Sessions};
use crate::store::{Invitation, Store, StoreError};

/// How long nodes may take to answer a person's search.
const SEARCH_WAIT: Duration = Duration::from_secs(5);
/// How long a step that is under way may take when the daemon ends.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Why a command was not done.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sentence for the person who asked.
    #[error("{0}")]
    Refused(String),
    #[error("the daemon is ending")]
    Ending,
}

/// Why a researcher ended in bad order. What was acknowledged is in the store, and the next start goes on from there.
#[derive(Debug, Error)]
pub enum DriverError {
    #[error("the state of experiments cannot be stored: {0}")]
    Store(#[from] StoreError),
    #[error("a mistake in the researcher's software ended its work; the log says where")]
    Panicked,
    #[error("a step took too long, and was given up")]
    Slow,
}

/// What a researcher is made of.
pub struct Parts {
    pub id: ResearcherId,
    pub store: Store,
    pub files: Files,
    pub audit: AuditLog,
    pub ca: FederationCa,
    /// Signs tasks.
    pub task_key: SecretKey,
    pub certificate_validity: Duration,
    pub spool_quota_bytes: u64,
    /// What Joye-Libert computes in, if not in its default.
    pub modulus: Option<Group>,
    /// How keys are negotiated directly, where that is possible.
    pub negotiating: Option<Negotiating>,
    pub clock: Arc<dyn Clock>,
    pub blocking: Blocking,
    /// The start of all random draws: ids and secrets.
    pub rng: StdRng,
}

/// A running researcher.
pub struct Researcher {
    service: Arc<Service>,
    /// Absent once it has been stopped.
    driver: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

/// A node's request that came as a file.
pub struct Sign {
    pub request: String,
    /// The hospital.
    pub name: String,
    /// Where the node finds the researcher, for the answer.
    pub address: Option<Address>,
    /// Whether another key of a known node is taken.
    pub replaces: bool,
}

fn check_name(name: &str) -> Result<(), CommandError> {
    if name.trim().is_empty() || name.chars().count() > 128 || name.chars().any(char::is_control) {
        return Err(CommandError::Refused("a node's name has 1 to 128 characters without control characters".into()));
    }
    Ok(())
}

/// A token that is good for longer was mistyped.
const LONGEST_INVITATION: Duration = Duration::from_hours(3650 * 24);

impl Researcher {
    /// Takes up what an earlier process left, and goes on with it.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            id,
            store,
            files,
            audit,
            ca,
            task_key,
            certificate_validity,
            spool_quota_bytes,
            modulus,
            negotiating,
            clock,
            blocking,
            mut rng,
        } = parts;
        let (mailbox, mail) = mpsc::channel(MAILBOX);
        let negotiating = negotiating.map(|negotiating| (negotiating, StdRng::from_rng(&mut rng)));
        let desk = Arc::new_cyclic(|desk| Desk {
            researcher: id,
            store: Arc::new(Mutex::new(store)),
            files,
            audit,
            task_key,
            clock,
            blocking,
            sessions: Sessions::default(),
            board: Arc::new(Board::default()),
            spool_quota_bytes,
            modulus: modulus.unwrap_or_default(),
            direct: negotiating.map(|(negotiating, rng)| Direct::new(negotiating, desk.clone(), rng)),
            mailbox,
        });
        let mut driver = Driver::new(desk.clone(), StdRng::from_rng(&mut rng));
        let service = Arc::new(Service::new(desk, ca, certificate_validity, rng)?);
        driver.take_up().await?;
        Ok(Self { service, driver: Mutex::new(Some(tokio::spawn(driver.run(mail)))) })
    }

    /// What the links serve.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    fn desk(&self) -> &Arc<Desk> {
        self.service.desk()
    }

    /// Waits until nothing is decided any more: after `stop`, or because of a failure that `stop` then tells.
    pub async fn ended(&self) {
        self.desk().mailbox.closed().await;
    }

    /// Ends in good order: the step that is under way is finished. Says how it ended; a second call does nothing.
    pub async fn stop(&self) -> Result<(), DriverError> {
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut driver) = driver else { return Ok(()) };
        let end = tokio::time::timeout(STOP_WAIT, async {
            self.desk().mail(Mail::Stop).await;
            (&mut driver).await
        });
        let end = match end.await {
            Ok(Ok(end)) => end.map_err(DriverError::Store),
            Ok(Err(_)) => Err(DriverError::Panicked),
            Err(_) => {
                driver.abort();
                Err(DriverError::Slow)
            }
        };
        self.desk().sessions.cut_all();
        end
    }

    /// Ends at once, as a process that is killed does; for simulation.
    pub fn kill(&self) {
        if let Some(driver) = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take() {
            driver.abort();
        }
        self.desk().sessions.cut_all();
    }

    // Experiments.

    async fn tell<T>(&self, mail: impl FnOnce(Answer<T>) -> Mail) -> Result<T, CommandError> {
        let (answer, answered) = oneshot::channel();
        self.desk().mail(mail(answer)).await;
        answered.await.map_err(|_| CommandError::Ending)?.map_err(CommandError::Refused)
    }

    /// Starts an experiment. When this returns it is on the disk.
    pub async fn run(&self, spec: ExperimentSpec, requester: Requester) -> Result<ExperimentId, CommandError> {
        let (name, user) = (spec.name().to_owned(), requester.user.clone());
        let id = self.tell(|answer| Mail::Run { spec: Box::new(spec), requester, answer }).await?;
        let facts = [("experiment", id.as_str().into()), ("name", name.into()), ("requester", user.into())];
        self.desk().note("experiment.started", facts);
        Ok(id)
    }

    pub async fn resume(&self, id: &ExperimentId, by: &str) -> Result<(), CommandError> {
        self.tell(|answer| Mail::Resume { experiment: id.clone(), answer }).await?;
        self.desk().note("experiment.resumed", [("experiment", id.as_str().into()), ("requester", by.into())]);
        Ok(())
    }

    pub async fn cancel(&self, id: &ExperimentId, by: &str) -> Result<(), CommandError> {
        self.tell(|answer| Mail::Cancel { experiment: id.clone(), by: by.to_owned(), answer }).await?;
        self.desk().note("experiment.cancelled", [("experiment", id.as_str().into()), ("requester", by.into())]);
        Ok(())
    }

    /// The experiment that a person means by an id or the beginning of one.
    pub async fn find(&self, text: &str) -> Result<ExperimentId, CommandError> {
        let text = text.to_owned();
        Ok(self.desk().store(move |store| store.find_experiment(&text)).await?)
    }

    /// What has happened in an experiment, then what happens.
    pub async fn follow(&self, id: &ExperimentId) -> Result<Follower, CommandError> {
        Ok(Follower::new(self.desk().clone(), id.clone()).await?)
    }

    /// All experiments, newest first.
    pub async fn experiments(&self) -> Result<Vec<ExperimentRow>, CommandError> {
        let experiments = self.desk().store(|store| store.experiments()).await?;
        Ok(experiments.iter().map(crate::experiment::Experiment::row).collect())
    }

    pub async fn experiment(&self, id: &ExperimentId) -> Result<ExperimentDetails, CommandError> {
        let wanted = id.clone();
        let load =
            move |store: &mut Store| Ok((store.experiment(&wanted)?, store.records(&wanted, 0)?, store.ended(&wanted)?));
        let (experiment, records, ended) = self.desk().store(load).await?;
        let shown = self.desk().board.follow(id).map(|shown| shown.borrow().snapshot.clone());
        Ok(ExperimentDetails {
            experiment: experiment.row(),
            spec: experiment.spec().clone(),
            snapshot: shown.unwrap_or_else(|| experiment.snapshot(|_| Live::default())),
            records,
            ended,
        })
    }

    pub fn running_experiments(&self) -> usize {
        self.desk().board.running()
    }

    // Nodes.

    /// Makes a one-time token for a node that will reach the researcher at this address.
    pub async fn invite(&self, name: &str, address: Address, lasts: Duration) -> Result<Invited, CommandError> {
        check_name(name)?;
        if lasts > LONGEST_INVITATION {
            return Err(CommandError::Refused("an invitation is good for ten years at most (3650d)".into()));
        }
        let authority = self.service.ca().certificate().key_fingerprint();
        let token = self.service.draw(|rng| EnrolmentToken::new(address, authority, rng));
        let now = self.desk().clock.now();
        let invitation = Invitation {
            id: self.service.draw(|rng| RequestId::random(rng).short().to_owned()),
            name: name.to_owned(),
            secret_hash: token.secret().hash(),
            created: now,
            expires: now.saturating_add(lasts),
        };
        let invited = Invited {
            id: invitation.id.clone(),
            name: invitation.name.clone(),
            address: token.address().to_string(),
            expires: invitation.expires,
            token: token.to_text().expose().to_owned(),
        };
        self.desk().store(move |store| store.invite(&invitation)).await?;
        self.desk().note("invitation.made", [("invitation", invited.id.as_str().into()), ("name", name.into())]);
        Ok(invited)
    }

    pub async fn invitations(&self) -> Result<Vec<InvitationRow>, CommandError> {
        let now = self.desk().clock.now();
        Ok(self.desk().store(move |store| store.invitations(now)).await?)
    }

    pub async fn revoke_invitation(&self, id: &str) -> Result<(), CommandError> {
        let (wanted, now) = (id.to_owned(), self.desk().clock.now());
        if !self.desk().store(move |store| store.revoke_invitation(&wanted, now)).await? {
            return Err(CommandError::Refused(format!(
                "no open invitation has the id {id:?}; `invitations list` shows all"
            )));
        }
        self.desk().note("invitation.revoked", [("invitation", id.into())]);
        Ok(())
    }

    /// Signs a node's request that came as a file, and answers with the text of a file.
    pub async fn sign(&self, sign: Sign, by: &str) -> Result<Signed, CommandError> {
        let Sign { request, name, address, replaces } = sign;
        check_name(&name)?;
        let request = SigningRequest::from_text(&request).map_err(|error| CommandError::Refused(error.to_string()))?;
        let node = request.node().clone();
        let certificate = self.service.enrol_by_file(request, name.clone(), replaces, by).await?;
        let task_key = TaskKey::from_point(self.desk().task_key.public_point()).expect("an own key is of the own kind");
        let ca = self.service.ca();
        let answer = EnrolmentAnswer::new(ca, self.desk().researcher.clone(), address, certificate, task_key);
        Ok(Signed {
            node,
            name,
            key_fingerprint: answer.certificate.key_fingerprint().to_string(),
            ca_fingerprint: answer.authority.key_fingerprint().to_string(),
            good_until: answer.certificate.not_after(),
            address: answer.address.as_ref().map(ToString::to_string),
            answer: answer.to_text(),
        })
    }

    /// Shuts a node out for good and cuts its connection; by id or name, which is returned.
    pub async fn revoke(&self, node: &str, by: &str) -> Result<String, CommandError> {
        Ok(self.service.revoke(node.to_owned(), by).await?)
    }

    fn registered(&self) -> Result<&Parties, CommandError> {
        let direct = self.desk().direct.as_ref().map(Direct::parties);
        direct.ok_or_else(|| CommandError::Refused("this researcher has no place for direct key negotiation".into()))
    }

    /// The nodes that can negotiate keys directly.
    pub fn parties(&self) -> Result<Vec<Registration>, CommandError> {
        self.registered()?.list().map_err(|error| CommandError::Refused(error.to_string()))
    }

    /// Writes down where an enrolled node listens. Says what was done.
    pub async fn register_party(
        &self,
        node: &NodeId,
        fingerprint: &str,
        address: &str,
        replaces: bool,
        by: &str,
    ) -> Result<String, CommandError> {
        let refused = |error: String| CommandError::Refused(error);
        let fingerprint: Fingerprint = fingerprint.parse().map_err(|error: IdentityError| refused(error.to_string()))?;
        let address = Address::parse_with(address, NEGOTIATION_PORT).map_err(|error| refused(error.to_string()))?;
        let nodes = self.nodes().await?;
        let known = nodes.iter().find(|row| row.id == *node && row.state != NodeState::Revoked);
        let known = known.ok_or_else(|| refused(format!("{node} is not enrolled here; `nodes` shows all")))?;
        if known.key_fingerprint != fingerprint.to_string() {
            let known = &known.key_fingerprint;
            return Err(refused(format!("{node} is enrolled with the key {known}, and the file is of another one")));
        }
        let registration = Registration {
            federation: self.desk().researcher.clone(),
            party: Party::Node(node.clone()),
            fingerprint,
            address: address.clone(),
            since: self.desk().clock.now(),
        };
        self.registered()?.register(registration, replaces).map_err(|error| refused(error.to_string()))?;
        let facts = [("node", node.as_str().into()), ("address", address.to_string().into()), ("user", by.into())];
        self.desk().note("party.registered", facts);
        Ok(format!("{node} is registered at {address} with the key\n  {fingerprint}"))
    }

    /// Forgets where a node listens.
    pub fn remove_party(&self, node: &NodeId, by: &str) -> Result<(), CommandError> {
        let party = Party::Node(node.clone());
        self.registered()?.remove(None, &party).map_err(|error| CommandError::Refused(error.to_string()))?;
        self.desk().note("party.removed", [("node", node.as_str().into()), ("user", by.into())]);
        Ok(())
    }

    pub fn enrolled_nodes(&self) -> usize {
        self.service.enrolled()
    }

    pub fn connected_nodes(&self) -> usize {
        self.desk().sessions.connected().len()
    }

    pub async fn nodes(&self) -> Result<Vec<NodeRow>, CommandError> {
        let connected = self.desk().sessions.connected();
        let nodes = self.desk().store(|store| store.nodes()).await?;
        let row = |node: crate::store::EnrolledNode| {
            let session = connected.iter().find(|connected| connected.node == node.id);
            NodeRow {
                state: match (node.revoked, session) {
                    (Some(_), _) => NodeState::Revoked,
                    (None, Some(_)) => NodeState::Connected,
                    (None, None) => NodeState::Away,
                },
                connected_since: session.map(|session| session.since),
                last_seen: session.map(|_| self.desk().clock.now()).or(node.last_seen),
                id: node.id,
                name: node.name,
                certificate_expires: node.certificate_expires,
                key_fingerprint: Fingerprint::from_bytes(node.key_fingerprint).to_string(),
                software: node.software,
            }
        };
        Ok(nodes.into_iter().map(row).collect())
    }

    /// Asks the connected nodes for datasets. Also returns the names of those that did not answer.
    pub async fn datasets(&self, tags: Option<Tags>) -> (Vec<DatasetRow>, Vec<String>) {
        let mut answers = Vec::new();
        for connected in self.desk().sessions.connected() {
            let request = self.service.draw(RequestId::random);
            let (asker, answer) = oneshot::channel();
            self.desk().sessions.search(&connected.node, request.clone(), tags.clone(), Asker::Person(asker));
            answers.push((connected, request, answer));
        }
        let mut rows = Vec::new();
        let mut silent = Vec::new();
        let end = tokio::time::sleep(SEARCH_WAIT);
        tokio::pin!(end);
        for (connected, request, answer) in answers {
            let answered = tokio::select! {
                // Answers first: after the end those that are here are still taken.
                biased;
                answered = answer => answered.ok(),
                () = &mut end, if !end.is_elapsed() => None,
                else => None,
            };
            if let Some(faces) = answered {
                let row = |face| DatasetRow::new(connected.node.clone(), connected.name.clone(), face);
                rows.extend(faces.into_iter().map(row));
            } else {
                self.desk().sessions.answered(&connected.node, &request);
                silent.push(connected.name);
            }
        }
        rows.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
        (rows, silent)
    }

    /// Writes a line to the audit log.
    pub(crate) fn note(&self, event: &str, what: &str) {
        self.desk().note(event, [("what", json!(what))]);
    }
}
