//! `fedbiomed node|researcher certificate …`: enrolling by files that people carry, and what to compare by phone.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use component::control::ControlError;
use component::folder::ComponentFolder;
use component::parties::Registration;
use protocol::{NodeId, ResearcherId, Timestamp};
use serde::Serialize;
use transport::identity::{Certificate, EnrolmentAnswer, Fingerprint, MAX_EXCHANGE_FILE, SigningRequest};
use transport::negotiation::Party;

use crate::cli::{Format, NodeCertificateCommand, ResearcherCertificateCommand};
use crate::commands::{node, peers, researcher, shared};
use crate::error::{Failure, Outcome};
use crate::output::{note, print, print_records};

/// Runs one of the node's commands.
pub(crate) async fn at_node(folder: &ComponentFolder, command: NodeCertificateCommand, yes: bool) -> Outcome {
    use ::node::command::{Reply, Request};
    match command {
        NodeCertificateCommand::Show(Format { json }) => {
            let Reply::Certificates { rows } = node::ask(folder, Request::Certificates).await? else {
                return shared::unexpected();
            };
            print_records(
                &rows,
                json,
                &[],
                "no certificate and no request; make a request with `node certificate generate`",
            );
            Ok(())
        }
        NodeCertificateCommand::Generate { output } => {
            let file = output.as_deref().map(new_file).transpose()?;
            let Reply::SigningRequest { text, key_fingerprint } = node::ask(folder, Request::RequestCertificate).await?
            else {
                return shared::unexpected();
            };
            write(file, output.as_deref(), &text)?;
            note(format!("Read this out when the researcher calls:\n  {key_fingerprint}"));
            Ok(())
        }
        NodeCertificateCommand::RegistrationInstructions => {
            let Reply::Status { status } = node::ask(folder, Request::Status).await? else { return shared::unexpected() };
            print(node_instructions(&status.id, &status.name, folder.root()));
            Ok(())
        }
        NodeCertificateCommand::Export { output, researcher } => {
            let file = output.as_deref().map(new_file).transpose()?;
            let researcher = peers::federation(folder, researcher).await?;
            let Reply::Certificate { pem } = node::ask(folder, Request::ExportCertificate { researcher }).await? else {
                return shared::unexpected();
            };
            write(file, output.as_deref(), &pem)
        }
        NodeCertificateCommand::Parties(Format { json }) => {
            let Reply::Parties { rows } = node::ask(folder, Request::Parties).await? else { return shared::unexpected() };
            print_records(&rows, json, &[], "no party is registered for direct key negotiation");
            Ok(())
        }
        NodeCertificateCommand::Remove { party } => {
            let Reply::Parties { rows } = node::ask(folder, Request::Parties).await? else { return shared::unexpected() };
            let party = find_party(&party, &rows)?;
            shared::done(node::ask(folder, Request::RemoveParty { researcher: None, party }).await?)
        }
        NodeCertificateCommand::Register { public_key, party_id, address, researcher, upsert } => {
            let text = read(&public_key)?;
            // A request by itself may be one that was sent here instead of its answer.
            let is_party = party_id.is_some() || Certificate::from_pem(&text).is_ok();
            if let Some((owner, key)) = shown_key(&text).filter(|_| is_party) {
                let (party, address) = party(party_id, owner.as_ref(), address)?;
                confirm_key(&party, &key, yes)?;
                let researcher = peers::federation(folder, researcher).await?;
                let fingerprint = key.to_string();
                let request = Request::RegisterParty { researcher, party, fingerprint, address, replaces: upsert };
                return shared::done(node::ask(folder, request).await?);
            }
            let answer = EnrolmentAnswer::from_text(&text)
                .map_err(|error| Failure::new(format!("{}: {error}", public_key.display())))?;
            let expected = party_id.map(|id| id.parse::<ResearcherId>()).transpose()?;
            expect_party(expected.as_ref(), &answer.researcher)?;
            let authority = answer.authority.key_fingerprint();
            if io::stdin().is_terminal() {
                note(format!("The answer is from the federation\n  {authority}"));
                shared::confirm("Did the researcher read out the same by phone?", yes)?;
            }
            let request = Request::Register { answer: text, address, replaces: upsert };
            shared::done(node::ask(folder, request).await?)
        }
        NodeCertificateCommand::Delete { what } => {
            let Reply::Certificates { rows } = node::ask(folder, Request::Certificates).await? else {
                return shared::unexpected();
            };
            let researchers: Vec<ResearcherId> = rows.into_iter().filter_map(|row| row.researcher).collect();
            if let Ok(researcher) = node::resolve(&what, ResearcherId::PREFIX, &researchers) {
                shared::confirm(&format!("Leave the federation of {researcher}, with all its open tasks?"), yes)?;
                return shared::done(node::ask(folder, Request::Forget { researcher }).await?);
            }
            shared::confirm(&format!("Drop the request {what}? An answer to it is useless then."), yes)?;
            shared::done(node::ask(folder, Request::ForgetRequest { key: what }).await?)
        }
    }
}

/// Runs one of the researcher's commands.
pub(crate) async fn at_researcher(folder: &ComponentFolder, command: ResearcherCertificateCommand, yes: bool) -> Outcome {
    use ::researcher::command::{Reply, Request};
    match command {
        ResearcherCertificateCommand::Show(Format { json }) => {
            print_records(&own_certificates(folder)?, json, &[], "");
            Ok(())
        }
        ResearcherCertificateCommand::List(Format { json }) => {
            let Reply::Nodes { nodes } = researcher::ask(folder, Request::Nodes).await? else {
                return shared::unexpected();
            };
            let row = |node: ::researcher::command::NodeRow| NodeCertificate {
                name: node.name,
                node: node.id,
                state: node.state,
                key_fingerprint: node.key_fingerprint,
                good_until: node.certificate_expires,
            };
            let rows: Vec<NodeCertificate> = nodes.into_iter().map(row).collect();
            print_records(&rows, json, &[], "no node has a certificate yet");
            Ok(())
        }
        ResearcherCertificateCommand::RegistrationInstructions => {
            let authority = ::researcher::daemon::authority_certificate(folder)?;
            print(researcher_instructions(&authority, folder.root()));
            Ok(())
        }
        ResearcherCertificateCommand::Export { output } => {
            let file = output.as_deref().map(new_file).transpose()?;
            write(file, output.as_deref(), &::researcher::daemon::authority_certificate(folder)?.to_pem())
        }
        ResearcherCertificateCommand::Parties(Format { json }) => {
            let Reply::Parties { rows } = researcher::ask(folder, Request::Parties).await? else {
                return shared::unexpected();
            };
            print_records(&rows, json, &[], "no node is registered for direct key negotiation");
            Ok(())
        }
        ResearcherCertificateCommand::Remove { node } => {
            let Reply::Parties { rows } = researcher::ask(folder, Request::Parties).await? else {
                return shared::unexpected();
            };
            let node = node_of(find_party(&node, &rows)?)?;
            shared::done(researcher::ask(folder, Request::RemoveParty { node }).await?)
        }
        ResearcherCertificateCommand::Register { public_key, party_id, name, address, output, upsert } => {
            let request = read(&public_key)?;
            if let Ok(certificate) = Certificate::from_pem(&request) {
                let (party, address) = party(party_id, certificate.node(), address)?;
                confirm_key(&party, &certificate.key_fingerprint(), yes)?;
                let (node, fingerprint) = (node_of(party)?, certificate.key_fingerprint().to_string());
                let register = Request::RegisterParty { node, fingerprint, address, replaces: upsert };
                return shared::done(researcher::ask(folder, register).await?);
            }
            let name = name.ok_or_else(|| Failure::new("give --name, the hospital's"))?;
            let asked = SigningRequest::from_text(&request)
                .map_err(|error| Failure::new(format!("{}: {error}", public_key.display())))?;
            let expected = party_id.map(|id| id.parse::<NodeId>()).transpose()?;
            expect_party(expected.as_ref(), asked.node())?;
            if io::stdin().is_terminal() {
                note(format!("The request is from {} with the key\n  {}", asked.node(), asked.key_fingerprint()));
                shared::confirm(&format!("Did {name} read out the same by phone?"), yes)?;
            }
            let file = output.as_deref().map(new_file).transpose()?;
            let sign = Request::Sign { request, name, address, replaces: upsert };
            let signed = match researcher::ask(folder, sign).await {
                Ok(Reply::Signed { signed }) => signed,
                Ok(_) => return shared::unexpected(),
                Err(failure) => {
                    // An empty file would look like an answer.
                    output.as_deref().map_or(Ok(()), std::fs::remove_file)?;
                    return Err(failure);
                }
            };
            write(file, output.as_deref(), &signed.answer)?;
            note(format!(
                "{} is enrolled until {}. Read this out when the hospital calls:\n  {}",
                signed.name, signed.good_until, signed.ca_fingerprint
            ));
            if signed.address.is_none() {
                note("The answer does not say where this researcher is: tell the hospital, for --address HOST:PORT.");
            }
            Ok(())
        }
        ResearcherCertificateCommand::Delete { node } => {
            shared::confirm(&format!("Shut out {node} for good?"), yes)?;
            shared::done(researcher::ask(folder, Request::Revoke { node }).await?)
        }
        ResearcherCertificateCommand::Generate => {
            match component::control::Connection::open(&folder.control_socket()).await {
                Err(ControlError::NotRunning(_)) => {
                    let certificate = ::researcher::daemon::replace_server_certificate(folder)?;
                    print(format!("the server has a new certificate, good until {}", certificate.not_after()));
                    Ok(())
                }
                _ => shared::done(researcher::ask(folder, Request::NewServerCertificate).await?),
            }
        }
    }
}

/// The key in a certificate or in a node's signing request, and whose it is if that is a node.
fn shown_key(text: &str) -> Option<(Option<NodeId>, Fingerprint)> {
    if let Ok(certificate) = Certificate::from_pem(text) {
        return Some((certificate.node().cloned(), certificate.key_fingerprint()));
    }
    let request = SigningRequest::from_text(text).ok()?;
    Some((Some(request.node().clone()), request.key_fingerprint()))
}

/// The party that is registered and where it listens. Its file must be its own.
fn party(party_id: Option<String>, owner: Option<&NodeId>, address: Option<String>) -> Result<(Party, String), Failure> {
    let typed = party_id.ok_or_else(|| Failure::new("this is a party's certificate; say whose with --party-id"))?;
    let party: Party = typed.parse().map_err(|error: transport::negotiation::PartyError| Failure::new(error.to_string()))?;
    let is_own = match &party {
        Party::Node(node) => owner == Some(node),
        Party::Researcher(_) => owner.is_none(),
    };
    if !is_own {
        let found = owner.map_or_else(|| "a researcher".to_owned(), ToString::to_string);
        return Err(Failure::new(format!("the file is from {found}, not from {party}; nothing changed")));
    }
    let address = address.ok_or_else(|| Failure::new("say where the party listens with --address HOST:PORT"))?;
    Ok((party, address))
}

fn confirm_key(party: &Party, key: &Fingerprint, yes: bool) -> Outcome {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    note(format!("The file is from {party} with the key\n  {key}"));
    shared::confirm("Was the same read out by phone?", yes)
}

/// The registered party that is meant by its id or the first digits of it.
fn find_party(typed: &str, rows: &[Registration]) -> Result<Party, Failure> {
    let parties: Vec<Party> = rows.iter().map(|row| row.party.clone()).collect();
    if let Some(party) = typed.parse().ok().filter(|party| parties.contains(party)) {
        return Ok(party);
    }
    let nodes = parties.iter().filter_map(|party| if let Party::Node(node) = party { Some(node.clone()) } else { None });
    let mut nodes: Vec<NodeId> = nodes.collect();
    nodes.dedup();
    node::resolve(typed, NodeId::PREFIX, &nodes).map(Party::Node)
}

fn node_of(party: Party) -> Result<NodeId, Failure> {
    match party {
        Party::Node(node) => Ok(node),
        Party::Researcher(id) => Err(Failure::new(format!("{id} is no node"))),
    }
}

/// A certificate of the researcher's own.
#[derive(Serialize)]
struct OwnCertificate {
    certificate: &'static str,
    subject: String,
    key_fingerprint: String,
    good_from: Timestamp,
    good_until: Timestamp,
}

/// A node's certificate, as the researcher knows it.
#[derive(Serialize)]
struct NodeCertificate {
    name: String,
    node: NodeId,
    state: ::researcher::command::NodeState,
    key_fingerprint: String,
    good_until: Timestamp,
}

fn own_certificates(folder: &ComponentFolder) -> Result<Vec<OwnCertificate>, Failure> {
    let authority = ::researcher::daemon::authority_certificate(folder)?;
    let server = ::researcher::daemon::server_certificate(folder)?;
    let row = |(certificate, known): (&'static str, Certificate)| OwnCertificate {
        certificate,
        subject: known.subject().to_owned(),
        key_fingerprint: known.key_fingerprint().to_string(),
        good_from: known.not_before(),
        good_until: known.not_after(),
    };
    Ok(std::iter::once(("federation", authority)).chain(server.map(|server| ("server", server))).map(row).collect())
}

fn expect_party<Id: PartialEq + std::fmt::Display>(expected: Option<&Id>, found: &Id) -> Outcome {
    match expected {
        Some(expected) if expected != found => {
            Err(Failure::new(format!("the file is from {found}, not from {expected}; nothing changed")))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_EXCHANGE_FILE).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}

/// Makes the file first: a request or an answer that cannot be written is not made. No file is overwritten.
fn new_file(path: &Path) -> Result<std::fs::File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    file.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

fn write(file: Option<std::fs::File>, path: Option<&Path>, text: &str) -> Outcome {
    match (file, path) {
        (Some(mut file), Some(path)) => {
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
            note(format!("wrote {}", path.display()));
        }
        _ => print(text.trim_end()),
    }
    Ok(())
}

fn node_instructions(id: &NodeId, name: &str, root: &Path) -> String {
    let folder = root.display();
    format!(
        "Enrolling {id} ({name}) by files:

1. Here: make a key and a request. The key stays in this component.
     fedbiomed node -p {folder} certificate generate --output node.csr

2. Send node.csr to the researcher. It holds nothing secret. The researcher types:
     fedbiomed researcher certificate register --public-key node.csr --name \"{name}\" --output node.answer
   The researcher calls you: read out the fingerprint that step 1 printed.

3. The researcher sends node.answer back. It holds nothing secret. Here:
     fedbiomed node -p {folder} certificate register --public-key node.answer
   Call the researcher, by a number that you know from elsewhere: the fingerprint of the federation must be the same
   as in `fedbiomed researcher certificate show`.

4. Here: start the node, or leave it running.
     fedbiomed node -p {folder} start"
    )
}

fn researcher_instructions(authority: &Certificate, root: &Path) -> String {
    let folder = root.display();
    format!(
        "Enrolling a hospital by files:

1. The hospital types the following, and sends you node.csr:
     fedbiomed node certificate generate --output node.csr

2. Here: sign it. Call the hospital, by a number that you know from elsewhere: it reads out the fingerprint of its key.
     fedbiomed researcher -p {folder} certificate register --public-key node.csr --name \"North Hospital\" --output node.answer

3. Send node.answer back. The hospital types the following, and calls you to compare the federation's fingerprint:
     fedbiomed node certificate register --public-key node.answer

The federation's fingerprint:
  {}",
        authority.key_fingerprint()
    )
}
