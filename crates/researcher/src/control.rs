//! Local commands: a connection on the socket in the folder, one request, its answer.

use std::sync::Arc;
use std::time::Duration;

use component::control::{Connection, ControlError};
use component::user::user_name;
use protocol::{ExperimentId, Requester, Timestamp};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use transport::address::{Address, AddressError};

use crate::command::{Reply, Request, Status};
use crate::daemon::ServerCertificate;
use crate::researcher::{CommandError, Researcher, Sign};
use crate::results::SOFTWARE;

/// How long answers that are under way may take when the daemon ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the commands need to know about the daemon around the researcher.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) id: protocol::ResearcherId,
    pub(crate) started: Timestamp,
    /// Where nodes are awaited, with the port that the system chose if it was asked to.
    pub(crate) listens: String,
    pub(crate) public_address: Option<String>,
    pub(crate) ca_fingerprint: String,
    pub(crate) certificate: Arc<ServerCertificate>,
    pub(crate) stop: watch::Sender<bool>,
}

/// Answers commands until the daemon ends.
pub(crate) async fn serve(researcher: Arc<Researcher>, place: Arc<Place>, listener: UnixListener) {
    let mut stopped = place.stop.subscribe();
    let mut commands = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = commands.join_next() => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a local command cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !transport::socket::is_own_peer(&stream).unwrap_or(false) {
            tracing::warn!("a local command of another user is refused");
            continue;
        }
        let (researcher, place) = (researcher.clone(), place.clone());
        commands.spawn(async move {
            if let Err(error) = answer(&researcher, &place, stream).await {
                tracing::debug!(%error, "a local command broke off");
            }
        });
    }
    // Streams end by themselves now; short answers, such as that to `stop`, get their end.
    let answers = async { while commands.join_next().await.is_some() {} };
    drop(tokio::time::timeout(GOODBYE, answers).await);
}

async fn answer(researcher: &Researcher, place: &Place, stream: tokio::net::UnixStream) -> Result<(), ControlError> {
    let mut connection = Connection::new(stream)?;
    let user = user_name(connection.peer_uid());
    let request = match connection.receive::<Request>().await {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(error) => return connection.send(&Reply::Failed { sentence: error.to_string() }).await,
    };
    let followed = match &request {
        Request::Run { spec } => Some(researcher.run((**spec).clone(), Requester { user: user.clone() }).await),
        Request::Follow { id } => Some(researcher.find(id).await),
        Request::Resume { id } => Some(resume(researcher, id, &user).await),
        _ => None,
    };
    match followed {
        Some(Ok(id)) => stream_to(researcher, place, &id, &mut connection).await,
        Some(Err(error)) => connection.send(&failed(&error)).await,
        None => {
            let reply = reply(researcher, place, request, &user).await.unwrap_or_else(|error| failed(&error));
            connection.send(&reply).await
        }
    }
}

async fn resume(researcher: &Researcher, id: &str, user: &str) -> Result<ExperimentId, CommandError> {
    let id = researcher.find(id).await?;
    researcher.resume(&id, user).await?;
    Ok(id)
}

fn failed(error: &CommandError) -> Reply {
    Reply::Failed { sentence: error.to_string() }
}

/// Sends what happens until it is over or nobody listens.
async fn stream_to(
    researcher: &Researcher,
    place: &Place,
    id: &ExperimentId,
    connection: &mut Connection,
) -> Result<(), ControlError> {
    let mut follower = match researcher.follow(id).await {
        Ok(follower) => follower,
        Err(error) => return connection.send(&failed(&error)).await,
    };
    let mut stopped = place.stop.subscribe();
    loop {
        let next = tokio::select! {
            next = follower.next() => next,
            () = connection.closed() => return Ok(()),
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        };
        match next {
            Ok(Some(reply)) => connection.send(&reply).await?,
            Ok(None) => return Ok(()),
            Err(error) => return connection.send(&Reply::Failed { sentence: error.to_string() }).await,
        }
    }
}

async fn reply(researcher: &Researcher, place: &Place, request: Request, user: &str) -> Result<Reply, CommandError> {
    let done = |sentence: String| Ok(Reply::Done { sentence });
    match request {
        Request::Status => Ok(Reply::Status { status: status(researcher, place) }),
        Request::Stop => {
            tracing::info!(user, "stop");
            place.stop.send_replace(true);
            done("the researcher ends; experiments go on when it starts again".into())
        }
        Request::Invite { name, expires_ms, address } => {
            let address = invitation_address(place, address)?;
            let invitation = researcher.invite(&name, address, Duration::from_millis(expires_ms)).await?;
            Ok(Reply::Invited { invitation })
        }
        Request::Invitations => Ok(Reply::Invitations { invitations: researcher.invitations().await? }),
        Request::RevokeInvitation { id } => {
            researcher.revoke_invitation(&id).await?;
            done(format!("the invitation {id} is worthless now"))
        }
        Request::Nodes => Ok(Reply::Nodes { nodes: researcher.nodes().await? }),
        Request::Datasets { tags } => {
            let (datasets, silent) = researcher.datasets(tags).await;
            Ok(Reply::Datasets { datasets, silent })
        }
        Request::Sign { request, name, address, replaces } => {
            // Without an address that can be dialled the hospital is told one in another way.
            let address = match address {
                None => invitation_address(place, None).ok(),
                given => Some(invitation_address(place, given)?),
            };
            let signed = researcher.sign(Sign { request, name, address, replaces }, user).await?;
            Ok(Reply::Signed { signed })
        }
        Request::Parties => Ok(Reply::Parties { rows: researcher.parties()? }),
        Request::RegisterParty { node, fingerprint, address, replaces } => {
            done(researcher.register_party(&node, &fingerprint, &address, replaces, user).await?)
        }
        Request::RemoveParty { node } => {
            researcher.remove_party(&node, user)?;
            done(format!("{node} is not registered any more"))
        }
        Request::NewServerCertificate => {
            let identity = place.certificate.replace().map_err(|error| CommandError::Refused(error.to_string()))?;
            researcher.note("server.certificate_made", user);
            done(format!("nodes that connect from now on see a new certificate, good until {}", identity.not_after()))
        }
        Request::Revoke { node } => {
            let name = researcher.revoke(&node, user).await?;
            done(format!("{name} is shut out"))
        }
        Request::Experiments => Ok(Reply::Experiments { experiments: researcher.experiments().await? }),
        Request::Show { id } => {
            let id = researcher.find(&id).await?;
            Ok(Reply::Experiment { experiment: Box::new(researcher.experiment(&id).await?) })
        }
        Request::Cancel { id } => {
            let id = researcher.find(&id).await?;
            researcher.cancel(&id, user).await?;
            done(format!("the experiment {id} is cancelled on all nodes"))
        }
        Request::Run { .. } | Request::Follow { .. } | Request::Resume { .. } => {
            unreachable!("these are answered by a stream")
        }
    }
}

fn status(researcher: &Researcher, place: &Place) -> Status {
    Status {
        id: place.id.clone(),
        name: place.name.clone(),
        software: SOFTWARE.to_owned(),
        process: std::process::id(),
        started: place.started,
        listens: place.listens.clone(),
        ca_fingerprint: place.ca_fingerprint.clone(),
        enrolled_nodes: researcher.enrolled_nodes(),
        connected_nodes: researcher.connected_nodes(),
        running_experiments: researcher.running_experiments(),
    }
}

/// The address that goes into a token: as the command says, as configured, or where the daemon listens.
fn invitation_address(place: &Place, given: Option<String>) -> Result<Address, CommandError> {
    let text = given.or_else(|| place.public_address.clone()).unwrap_or_else(|| place.listens.clone());
    let own_port = place.listens.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    // A host alone means the port on which the daemon listens.
    let with_port = match own_port {
        Some(port) if !text.contains(':') => Address::new(&text, port),
        _ => Address::parse(&text),
    };
    with_port.map_err(|error| {
        let hint = match error {
            AddressError::Unspecified { .. } => "; set `server.public_address` or use `invite --address`",
            AddressError::Malformed { .. } => "",
        };
        CommandError::Refused(format!("{error}{hint}"))
    })
}
