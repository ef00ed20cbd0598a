//! What both sides' commands have in common: answers, questions, the audit log, the configuration.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use component::audit::AuditLog;
use component::config::{Config, Setting};
use component::folder::{ComponentFolder, FolderError, Kind, write_atomically};
use serde::Serialize;

use crate::cli::{AuditCommand, Format};
use crate::commands::ports;
use crate::error::{Failure, Outcome};
use crate::output::{note, print, print_rows};

/// The folder that a command means that names none.
pub(crate) fn default_folder(kind: Kind) -> PathBuf {
    PathBuf::from(match kind {
        Kind::Node => "fbm-node",
        Kind::Researcher => "fbm-researcher",
    })
}

/// Makes a component; returns its id. It gets a port of its own for direct key negotiations.
pub(crate) fn create(path: &Path, kind: Kind, name: Option<&str>) -> Result<String, Failure> {
    let id = match kind {
        Kind::Node => node::daemon::create(path, name.unwrap_or("Node"))?.to_string(),
        Kind::Researcher => researcher::daemon::create(path, name.unwrap_or("Researcher"))?.to_string(),
    };
    match ports::give(path) {
        Ok(port) => {
            let file = ComponentFolder::open(path, kind)?.config_file();
            let text = std::fs::read_to_string(&file)?;
            let text = Config::with_number(&text, "negotiation", "port", port.into());
            write_atomically(&file, text.ok_or_else(|| Failure::new("a new configuration lacks a key"))?.as_bytes())?;
        }
        // Nothing is open yet; the default port is as good as any until another component has it.
        Err(error) => note(format!("this component keeps the default port of direct key negotiations: {error}")),
    }
    Ok(id)
}

/// Opens a component's folder for a command that begins something: it makes the default folder where there is none, and says
/// so. Another folder that is not there may be a slip of the hand.
pub(crate) fn open_or_create(path: &Path, kind: Kind) -> Result<ComponentFolder, Failure> {
    if path == default_folder(kind) && !path.exists() {
        let id = create(path, kind, None)?;
        note(format!("there was no component here; made {id} in {}", std::path::absolute(path)?.display()));
    }
    open(path, kind)
}

/// Opens a component's folder, or says how to make it.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<ComponentFolder, Failure> {
    ComponentFolder::open(path, kind).map_err(|error| match error {
        FolderError::NotAComponent(_) => {
            let what = if kind == Kind::Node { "node" } else { "researcher" };
            let path = path.display();
            Failure::new(format!(
                "there is no component in {path}; give its folder with -p, or make one: \
                 fedbiomed component create -c {what} -p {path}"
            ))
        }
        error => error.into(),
    })
}

/// What either component's daemon replies.
pub(crate) trait Reply {
    /// The sentence that answers an order; nothing if this is another kind of reply.
    fn sentence(self) -> Option<String>;
}

impl Reply for node::command::Reply {
    fn sentence(self) -> Option<String> {
        if let Self::Done { sentence } = self { Some(sentence) } else { None }
    }
}

impl Reply for researcher::command::Reply {
    fn sentence(self) -> Option<String> {
        if let Self::Done { sentence } = self { Some(sentence) } else { None }
    }
}

/// Prints what was done.
pub(crate) fn done(reply: impl Reply) -> Outcome {
    reply.sentence().map_or_else(unexpected, |sentence| {
        print(sentence);
        Ok(())
    })
}

/// Fails because of a reply that does not belong to the request.
pub(crate) fn unexpected() -> Outcome {
    Err(Failure::new("the daemon answered something else than was asked; do its version and this one agree?"))
}

/// Asks yes or no. Without a terminal the answer must come from `-y`.
pub(crate) fn confirm(question: &str, yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("{question} Say yes with -y.")));
    }
    match ask(&format!("{question} [y/N]"))?.to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing changed")),
    }
}

/// Asks a question on the terminal and returns the answer without white space around it.
pub(crate) fn ask(question: &str) -> Result<String, Failure> {
    let mut error = io::stderr().lock();
    write!(error, "{question} ")?;
    error.flush()?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Err(Failure::new("no answer"));
    }
    Ok(line.trim().to_owned())
}

#[derive(Serialize)]
struct AuditRow {
    time: String,
    event: String,
    facts: serde_json::Map<String, serde_json::Value>,
}

/// Checks or shows a component's audit log; works while the daemon runs.
pub(crate) fn audit(folder: &ComponentFolder, command: &AuditCommand) -> Outcome {
    let file = folder.audit_file();
    match command {
        AuditCommand::Verify => {
            let lines = AuditLog::verify(&file)?;
            print(format!("{lines} lines, none changed, removed or put in between; lines cut off the end would not show"));
        }
        AuditCommand::Tail { lines, format: Format { json } } => {
            let rows: Vec<AuditRow> = AuditLog::tail(&file, *lines)?
                .into_iter()
                .map(|entry| AuditRow { time: entry.time, event: entry.event, facts: entry.facts })
                .collect();
            print_rows(&rows, *json, &[], "the audit log is empty");
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct ConfigRow {
    key: String,
    value: serde_json::Value,
    source: String,
    meaning: &'static str,
}

/// Reads a component's configuration as its daemon would.
pub(crate) fn config(folder: &ComponentFolder, settings: &'static [Setting]) -> Result<Config, Failure> {
    let file = folder.config_file();
    let text =
        std::fs::read_to_string(&file).map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    Config::load(settings, &text, |name| std::env::var(name).ok())
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

/// Shows each value and where it came from.
pub(crate) fn config_show(folder: &ComponentFolder, settings: &'static [Setting], json: bool) -> Outcome {
    let rows: Vec<ConfigRow> = config(folder, settings)?
        .entries()
        .map(|(setting, value, origin)| ConfigRow {
            key: format!("{}.{}", setting.section, setting.key),
            value: serde_json::to_value(&value).unwrap_or_default(),
            source: origin.to_string(),
            meaning: setting.doc,
        })
        .collect();
    print_rows(&rows, json, &[], "");
    if !json {
        note(format!("file: {}", folder.config_file().display()));
    }
    Ok(())
}
