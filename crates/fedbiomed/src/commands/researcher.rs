//! `fedbiomed researcher …`: what is typed becomes a request to the daemon, what comes back is shown.

use std::time::Duration;

use component::config::parse_duration;
use component::control::Connection;
use component::folder::{ComponentFolder, Kind};
use protocol::{ExperimentId, ExperimentSpec, Tags};
use researcher::command::{
    Ended, ExperimentDetails, ExperimentRow, ExperimentState, NodeRow, NodeState, Reply, Request, RoundRecord, Snapshot,
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{ExperimentCommand, Format, InvitationCommand, ResearcherArgs, ResearcherCommand};
use crate::commands::shared::{done, unexpected};
use crate::commands::{certificate, daemon, shared, stats};
use crate::error::{Failure, Outcome};
use crate::live::Live;
use crate::output::{note, print, print_record, print_rows};

/// How many of an experiment's last rounds `experiments show` prints.
const ROUNDS_SHOWN: usize = 10;

/// Runs one command.
pub(crate) async fn run(args: ResearcherArgs) -> Outcome {
    if matches!(args.command, ResearcherCommand::Run { example: true, .. }) {
        print(researcher::experiment_file::EXAMPLE.trim_end());
        return Ok(());
    }
    let folder = match &args.command {
        ResearcherCommand::Start(_) => shared::open_or_create(&args.path, Kind::Researcher)?,
        _ => shared::open(&args.path, Kind::Researcher)?,
    };
    match args.command {
        ResearcherCommand::Certificate(command) => certificate::at_researcher(&folder, command, args.yes).await,
        ResearcherCommand::Start(start) => daemon::start(&folder, &start).await,
        ResearcherCommand::Stop => daemon::stop(&folder).await,
        ResearcherCommand::Restart(start) => daemon::restart(&folder, &start).await,
        ResearcherCommand::Status(format) => status(&folder, format).await,
        ResearcherCommand::Invite { name, expires, address, format } => {
            invite(&folder, name, &expires, address, format).await
        }
        ResearcherCommand::Invitations(InvitationCommand::List(Format { json })) => {
            let Reply::Invitations { invitations } = ask(&folder, Request::Invitations).await? else { return unexpected() };
            print_rows(&invitations, json, &[], "no invitations; make one with `researcher invite`");
            Ok(())
        }
        ResearcherCommand::Invitations(InvitationCommand::Revoke { invitation }) => {
            done(ask(&folder, Request::RevokeInvitation { id: invitation }).await?)
        }
        ResearcherCommand::Nodes(Format { json }) => {
            let Reply::Nodes { nodes } = ask(&folder, Request::Nodes).await? else { return unexpected() };
            print_rows(
                &nodes,
                json,
                &["key_fingerprint", "certificate_expires"],
                "no nodes yet; invite a hospital with `researcher invite --name NAME`",
            );
            Ok(())
        }
        ResearcherCommand::Datasets { tags, format } => datasets(&folder, tags, format).await,
        ResearcherCommand::Revoke { node } => {
            shared::confirm(&format!("Shut out {node} for good?"), args.yes)?;
            done(ask(&folder, Request::Revoke { node }).await?)
        }
        ResearcherCommand::Run { file, detach, format, .. } => {
            let file = file.ok_or_else(|| Failure::new("name an experiment file"))?;
            let text = std::fs::read_to_string(&file)
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
            let spec = researcher::experiment_file::parse(&text)
                .map_err(|error| Failure::new(format!("{}: {error}\n{}", file.display(), error.excerpt()).trim_end()))?;
            stream(&folder, Request::Run { spec: Box::new(spec) }, detach, OnInterrupt::Cancel, Live::new(format.json))
                .await
                .map(drop)
        }
        ResearcherCommand::Stats(command) => stats::run(&folder, command).await,
        ResearcherCommand::Experiments(command) => experiments(&folder, command).await,
        ResearcherCommand::Audit(command) => shared::audit(&folder, &command),
        ResearcherCommand::Config(crate::cli::ConfigCommand::Show(Format { json })) => {
            shared::config_show(&folder, researcher::config::SETTINGS, json)
        }
    }
}

/// Asks for one answer.
pub(crate) async fn ask(folder: &ComponentFolder, request: Request) -> Result<Reply, Failure> {
    let mut connection = Connection::open(&folder.control_socket()).await?;
    connection.send(&request).await?;
    match connection.receive().await? {
        Some(Reply::Failed { sentence }) => Err(Failure::new(sentence)),
        Some(reply) => Ok(reply),
        None => Err(Failure::new("the daemon closed the connection without an answer; see log/application.log")),
    }
}

async fn status(folder: &ComponentFolder, format: Format) -> Outcome {
    match ask(folder, Request::Status).await {
        Ok(Reply::Status { status }) => print_record(&status, format.json, &[]),
        Ok(_) => return unexpected(),
        Err(_) if folder.holder()?.is_none() => {
            let stopped = serde_json::json!({ "folder": folder.root(), "process": null, "state": "stopped" });
            print_record(&stopped, format.json, &[]);
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

async fn invite(folder: &ComponentFolder, name: String, expires: &str, address: Option<String>, format: Format) -> Outcome {
    let lasts = parse_duration(expires)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Failure::new(format!("--expires takes a duration such as 30m, 12h or 7d, found {expires:?}")))?;
    let expires_ms = u64::try_from(lasts.as_millis()).map_err(|_| Failure::new("--expires is too long"))?;
    let Reply::Invited { invitation } = ask(folder, Request::Invite { name, expires_ms, address }).await? else {
        return unexpected();
    };
    if format.json {
        print_record(&invitation, true, &[]);
    } else {
        note(format!(
            "For {}, to reach {}; good once, until {}. Hand it over as you would a password:",
            invitation.name, invitation.address, invitation.expires
        ));
        print(&invitation.token);
    }
    Ok(())
}

async fn datasets(folder: &ComponentFolder, tags: Option<Vec<String>>, format: Format) -> Outcome {
    let tags = tags.map(Tags::new).transpose()?;
    let search = Request::Datasets { tags: tags.clone() };
    let Reply::Datasets { datasets, silent } = ask(folder, search).await? else { return unexpected() };
    let when_empty = if datasets.is_empty() { why_none(folder, tags).await? } else { String::new() };
    print_rows(&datasets, format.json, &["columns", "levels", "node_id"], &when_empty);
    for name in silent {
        note(format!("{name} is connected but did not answer in time"));
    }
    Ok(())
}

/// Why a search for datasets found none.
async fn why_none(folder: &ComponentFolder, tags: Option<Tags>) -> Result<String, Failure> {
    let nodes = ask(folder, Request::Nodes).await?;
    let is_connected = |node: &NodeRow| node.state == NodeState::Connected;
    if !matches!(nodes, Reply::Nodes { nodes } if nodes.iter().any(is_connected)) {
        return Ok("no node is connected; `researcher nodes` shows all".to_owned());
    }
    let Some(tags) = tags else { return Ok("the connected nodes offer no datasets".to_owned()) };
    let all = ask(folder, Request::Datasets { tags: None }).await?;
    Ok(match all {
        Reply::Datasets { datasets, .. } if datasets.is_empty() => "the connected nodes offer no datasets".to_owned(),
        _ => format!("no connected node offers a dataset with the tags {tags}"),
    })
}

/// All about one experiment, with the keys of `experiments list` first.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: &'a ExperimentRow,
    spec: &'a ExperimentSpec,
    snapshot: &'a Snapshot,
    records: &'a [RoundRecord],
    ended: Option<&'a Ended>,
}

impl<'a> Shown<'a> {
    fn of(details: &'a ExperimentDetails) -> Self {
        let ExperimentDetails { experiment, spec, snapshot, records, ended } = details;
        Self { row: experiment, spec, snapshot, records, ended: ended.as_ref() }
    }
}

async fn experiments(folder: &ComponentFolder, command: ExperimentCommand) -> Outcome {
    match command {
        ExperimentCommand::List(Format { json }) => {
            let Reply::Experiments { experiments } = ask(folder, Request::Experiments).await? else { return unexpected() };
            print_rows(&experiments, json, &[], "no experiments yet; start one with `researcher run FILE`");
            Ok(())
        }
        ExperimentCommand::Show { experiment, format } => {
            let Reply::Experiment { experiment } = ask(folder, Request::Show { id: experiment }).await? else {
                return unexpected();
            };
            if format.json {
                print_record(&Shown::of(&experiment), true, &[]);
                return Ok(());
            }
            print_record(&experiment.experiment, false, &[]);
            print("");
            // What the nodes were at is in the rounds' lines then.
            if !experiment.experiment.state.is_over() {
                print_rows(&experiment.snapshot.nodes, false, &["task"], "no nodes yet");
                print("");
                if let Some(remark) = &experiment.snapshot.remark {
                    print(format!("{remark}\n"));
                }
            }
            if let Some(warning) = &experiment.snapshot.warning {
                print(format!("warning: {warning}\n"));
            }
            if let Some(left_out @ 1..) = experiment.records.len().checked_sub(ROUNDS_SHOWN) {
                print(format!("({left_out} earlier rounds are in --json)"));
            }
            for record in experiment.records.iter().rev().take(ROUNDS_SHOWN).rev() {
                print(crate::live::round_line(record));
            }
            if let Some(ended) = &experiment.ended {
                print(crate::live::summary(ended, experiment.records.len(), experiment.snapshot.scheme));
                if let Some(reason) = &ended.reason {
                    print(format!("  {reason}"));
                }
            }
            Ok(())
        }
        ExperimentCommand::Follow { experiment, format } => {
            stream(folder, Request::Follow { id: experiment }, false, OnInterrupt::Leave, Live::new(format.json))
                .await
                .map(drop)
        }
        ExperimentCommand::Resume { experiment, detach, format } => {
            stream(folder, Request::Resume { id: experiment }, detach, OnInterrupt::Cancel, Live::new(format.json))
                .await
                .map(drop)
        }
        ExperimentCommand::Cancel { experiment } => done(ask(folder, Request::Cancel { id: experiment }).await?),
    }
}

/// How long an experiment may look for nodes until the person is told what it waits for.
const QUIET: Duration = Duration::from_secs(1);

/// What Ctrl-C does to an experiment that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// Ends it, for this command started it.
    Cancel,
    /// Stops looking.
    Leave,
    /// Nothing here: the caller sees to it.
    NotMine,
}

/// Sends a request that is answered by a stream and shows it to its end. A terminal that closes leaves the experiment running.
pub(crate) async fn stream(
    folder: &ComponentFolder,
    request: Request,
    detach: bool,
    on_interrupt: OnInterrupt,
    mut live: Live,
) -> Result<Option<(Ended, Vec<RoundRecord>)>, Failure> {
    let mut connection = Connection::open(&folder.control_socket()).await?;
    connection.send(&request).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut experiment = None;
    let mut records = Vec::new();
    let mut interrupted = false;
    let quiet = tokio::time::sleep(QUIET);
    tokio::pin!(quiet);
    let mut is_quiet = true;
    loop {
        let reply = tokio::select! {
            reply = connection.receive::<Reply>() => reply?,
            () = &mut quiet, if is_quiet => {
                is_quiet = false;
                live.tell_wait();
                continue;
            }
            _ = hangup.recv() => return Ok(None),
            _ = interrupt.recv(), if on_interrupt != OnInterrupt::NotMine => {
                if on_interrupt == OnInterrupt::Leave || interrupted {
                    return Err(Failure::interrupted("stopped looking; the experiment itself goes on"));
                }
                interrupted = true;
                live.say("cancelling on all nodes; press Ctrl-C again to leave at once");
                if let Some(id) = &experiment {
                    cancel(folder, id).await?;
                }
                continue;
            }
        };
        match reply {
            Some(Reply::Started { experiment_id, name }) => {
                if interrupted {
                    cancel(folder, &experiment_id).await?;
                }
                if detach {
                    print(experiment_id.as_str());
                    return Ok(None);
                }
                live.started(experiment_id.as_str(), &name);
                experiment = Some(experiment_id);
            }
            Some(Reply::Snapshot { snapshot }) => live.snapshot(&snapshot),
            Some(Reply::RoundEnded { record }) => {
                live.round_ended(&record);
                records.push(*record);
            }
            Some(Reply::Ended { ended }) => {
                live.ended(&ended);
                return match ended.state {
                    ExperimentState::Finished => Ok(Some((*ended, records))),
                    _ if interrupted => Err(Failure::interrupted("cancelled")),
                    ExperimentState::Cancelled => {
                        Err(Failure::new(format!("the experiment was {}", ended.reason.as_deref().unwrap_or("cancelled"))))
                    }
                    state => Err(Failure::new(format!(
                        "the experiment {}: {}",
                        state.name(),
                        ended.reason.as_deref().unwrap_or("no reason given")
                    ))),
                };
            }
            Some(Reply::Failed { sentence }) => return Err(Failure::new(sentence)),
            Some(_) => return unexpected().map(|()| None),
            None => {
                return Err(Failure::new(
                    "the daemon stopped; the experiment goes on when it runs again, and `experiments follow` shows it",
                ));
            }
        }
    }
}

async fn cancel(folder: &ComponentFolder, experiment: &ExperimentId) -> Outcome {
    ask(folder, Request::Cancel { id: experiment.to_string() }).await.map(drop)
}
