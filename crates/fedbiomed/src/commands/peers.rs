//! `fedbiomed node peers …` and `fedbiomed node results`: with whom this node may be summed, and what it alone knows of its sums.

use std::path::Path;

use component::folder::ComponentFolder;
use node::command::{Reply, Request, ResultRow};
use protocol::{ExperimentId, NodeId, ResearcherId, ValidatedOn};
use serde::Serialize;
use transport::identity::{Certificate, Fingerprint, MAX_EXCHANGE_FILE, SigningRequest};

use crate::cli::{Format, PeersCommand, PeersTrustArgs};
use crate::commands::node::{ask, resolve};
use crate::commands::shared::{done, unexpected};
use crate::error::{Failure, Outcome};
use crate::output::{print_json, print_records, print_rows};

/// Runs one of the `peers` commands.
pub(crate) async fn run(folder: &ComponentFolder, command: PeersCommand) -> Outcome {
    let Reply::Peers { rows } = ask(folder, Request::Peers).await? else { return unexpected() };
    let ids: Vec<NodeId> = rows.iter().map(|row| row.node.clone()).collect();
    match command {
        PeersCommand::List(Format { json }) => {
            let when_empty = "no other node is known here yet; take one in with `node peers trust`";
            print_records(&rows, json, &[], when_empty);
            Ok(())
        }
        PeersCommand::Trust(args) => {
            let node = resolve(&args.node, NodeId::PREFIX, &ids)?;
            done(ask(folder, trust(folder, node, args).await?).await?)
        }
        PeersCommand::Distrust { node, researcher } => {
            let node = resolve(&node, NodeId::PREFIX, &ids)?;
            let researcher = federation(folder, researcher).await?;
            done(ask(folder, Request::DistrustPeer { researcher, node }).await?)
        }
    }
}

/// Reads the key that was given, or its fingerprint.
async fn trust(folder: &ComponentFolder, node: NodeId, args: PeersTrustArgs) -> Result<Request, Failure> {
    let researcher = federation(folder, args.researcher).await?;
    let fingerprint = match (&args.fingerprint, &args.public_key) {
        (Some(text), _) => text.parse::<Fingerprint>()?,
        (None, Some(path)) => key_of(path, &node)?,
        (None, None) => return Err(Failure::new("give --fingerprint or --public-key")),
    };
    Ok(Request::TrustPeer { researcher, node, name: args.name, fingerprint: fingerprint.to_string() })
}

/// The fingerprint of the key in a node's signing request or certificate.
fn key_of(path: &Path, expected: &NodeId) -> Result<Fingerprint, Failure> {
    let text = read(path)?;
    let (node, key) = if let Ok(request) = SigningRequest::from_text(&text) {
        (Some(request.node().clone()), request.key_fingerprint())
    } else if let Ok(certificate) = Certificate::from_pem(&text) {
        (certificate.node().cloned(), certificate.key_fingerprint())
    } else {
        return Err(Failure::new(format!("{} is neither a node's signing request nor its certificate", path.display())));
    };
    match node {
        Some(node) if node == *expected => Ok(key),
        Some(other) => Err(Failure::new(format!("the file is from {other}, not from {expected}; nothing changed"))),
        None => Err(Failure::new(format!("{} does not name a node; nothing changed", path.display()))),
    }
}

/// The federation that was named by the first digits of its researcher's id.
pub(crate) async fn federation(folder: &ComponentFolder, typed: Option<String>) -> Result<Option<ResearcherId>, Failure> {
    let Some(typed) = typed else { return Ok(None) };
    let Reply::Enrolments { rows } = ask(folder, Request::Enrolments).await? else {
        return Err(Failure::new("the node did not say with whom it is enrolled"));
    };
    let ids: Vec<ResearcherId> = rows.into_iter().map(|row| row.researcher).collect();
    resolve(&typed, ResearcherId::PREFIX, &ids).map(Some)
}

fn read(path: &Path) -> Result<String, Failure> {
    use std::io::Read;

    let mut text = String::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(MAX_EXCHANGE_FILE).read_to_string(&mut text));
    file.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// A line of the table of results: its numbers as text.
#[derive(Serialize)]
struct ResultLine<'row> {
    experiment: &'row ExperimentId,
    round: u32,
    work: &'row str,
    hidden: bool,
    train_rows: u64,
    test_rows: u64,
    dropped_rows: u64,
    loss: Option<String>,
    clipped: Option<u64>,
    measured: String,
    remarks: &'row [String],
    time: &'row str,
}

impl<'row> ResultLine<'row> {
    fn of(row: &'row ResultRow) -> Self {
        let measured: Vec<String> = row
            .measured
            .iter()
            .map(|measured| {
                let on = if measured.on == ValidatedOn::Global { "global" } else { "local" };
                format!("{on} {} {:.4}", measured.metric.name(), measured.value)
            })
            .collect();
        Self {
            experiment: &row.experiment,
            round: row.round,
            work: &row.work,
            hidden: row.hidden,
            train_rows: row.train_rows,
            test_rows: row.test_rows,
            dropped_rows: row.dropped_rows,
            loss: row.loss.map(|loss| format!("{loss:.4}")),
            clipped: row.clipped,
            measured: measured.join(", "),
            remarks: &row.remarks,
            time: &row.time,
        }
    }
}

/// Shows what this node gave to the rounds of one experiment, or of all.
pub(crate) async fn results(folder: &ComponentFolder, experiment: Option<String>, format: Format) -> Outcome {
    let Reply::Results { mut rows } = ask(folder, Request::Results { experiment: None }).await? else {
        return unexpected();
    };
    if let Some(typed) = experiment {
        let mut ids: Vec<ExperimentId> = rows.iter().map(|row| row.experiment.clone()).collect();
        ids.sort();
        ids.dedup();
        let wanted = resolve(&typed, ExperimentId::PREFIX, &ids)?;
        rows.retain(|row| row.experiment == wanted);
    }
    if format.json {
        print_json(&rows);
        return Ok(());
    }
    let lines: Vec<ResultLine<'_>> = rows.iter().map(ResultLine::of).collect();
    print_rows(&lines, false, &[], "this node has taken part in no round yet");
    Ok(())
}
