//! Starting, stopping and restarting a component's daemon.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use component::control::Connection;
use component::folder::{ComponentFolder, Kind};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal, test_kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::cli::StartArgs;
use crate::error::{Failure, Outcome};
use crate::output::print;

/// How long a daemon may take to answer after its start, and to end after being told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the daemon in this process until it is told to stop, or in the background.
pub(crate) async fn start(folder: &ComponentFolder, args: &StartArgs) -> Outcome {
    if args.force && folder.holder()?.is_some() {
        stop(folder).await?;
    }
    if args.background { start_in_background(folder, args.debug).await } else { run_here(folder, args).await }
}

async fn run_here(folder: &ComponentFolder, args: &StartArgs) -> Outcome {
    if args.with_parent {
        let parent = rustix::process::getppid();
        set_parent_process_death_signal(Some(Signal::TERM))?;
        if rustix::process::getppid() != parent {
            return Err(Failure::new("the process that started this one has ended"));
        }
    }
    log_to(folder, args)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let shutdown = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                // A closed terminal does not end a daemon.
                _ = hangup.recv() => {}
            }
        }
    };
    match folder.kind() {
        Kind::Node => node::daemon::run(folder, shutdown).await?,
        Kind::Researcher => researcher::daemon::run(folder, shutdown).await?,
    }
    Ok(())
}

fn open_log(folder: &ComponentFolder) -> Result<File, Failure> {
    let path = folder.application_log();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    file.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// Sends records to log/application.log and, on a terminal or for a service manager, to standard error. A record that cannot be
/// written is lost: a terminal that closes or a full disk must not end the daemon.
fn log_to(folder: &ComponentFolder, args: &StartArgs) -> Outcome {
    let debug = args.debug;
    let file = open_log(folder)?;
    let level = if debug { "debug,h2=info,hyper=info,rustls=info,tower=info" } else { "info" };
    let filter = EnvFilter::try_from_env("FBM_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().log_internal_errors(false).with_ansi(false).with_target(debug).with_writer(Mutex::new(file)))
        .with((!args.quiet).then(|| {
            fmt::layer().log_internal_errors(false).with_ansi(is_terminal).with_target(debug).with_writer(std::io::stderr)
        }))
        .try_init()
        .map_err(|error| Failure::new(error.to_string()))
}

async fn start_in_background(folder: &ComponentFolder, debug: bool) -> Outcome {
    if let Some(holder) = folder.holder()? {
        return Err(Failure::new(format!(
            "{} is in use by process {holder}; stop it, or start with --force",
            folder.root().display()
        )));
    }
    // What the daemon says before its log is open, and its last words, go to the log as well.
    let log = open_log(folder)?;
    let before = log.metadata()?.len();
    let role = match folder.kind() {
        Kind::Node => "node",
        Kind::Researcher => "researcher",
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args([role, "--path"]).arg(folder.root()).args(["start", "--quiet"]);
    if debug {
        command.arg("--debug");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).spawn()?;
    let end = tokio::time::sleep(PATIENCE);
    tokio::pin!(end);
    loop {
        if Connection::open(&folder.control_socket()).await.is_ok() && folder.holder()? == Some(child.id()) {
            print(format!("{role} runs in the background as process {}", child.id()));
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let said = last_words(&folder.application_log(), before).unwrap_or_default();
            let reason =
                said.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("see log/application.log");
            return Err(Failure::new(format!("the daemon ended at once ({status}): {reason}")));
        }
        tokio::select! {
            () = &mut end => return Err(Failure::new(format!("process {} does not answer yet", child.id()))),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

/// What was written to a log since it had so many bytes.
fn last_words(log: &Path, before: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(before))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Asks the daemon to end, and ends it if it does not. Nothing is lost either way.
pub(crate) async fn stop(folder: &ComponentFolder) -> Outcome {
    let Some(holder) = folder.holder()? else {
        print("not running");
        return Ok(());
    };
    let pid = i32::try_from(holder).ok().and_then(Pid::from_raw).ok_or_else(|| Failure::new("the lock names no process"))?;
    // The requests of both daemons are written alike.
    let asked = async {
        let mut connection = Connection::open(&folder.control_socket()).await.ok()?;
        connection.send(&json!({ "command": "stop" })).await.ok()?;
        connection.receive::<Value>().await.ok()?
    };
    if tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten().is_none() {
        kill_process(pid, Signal::TERM)?;
    }
    if tokio::time::timeout(PATIENCE, ended(folder, pid)).await.is_err() {
        kill_process(pid, Signal::KILL)?;
        ended(folder, pid).await;
    }
    print(format!("stopped process {holder}"));
    Ok(())
}

async fn ended(folder: &ComponentFolder, pid: Pid) {
    while test_kill_process(pid).is_ok() && folder.holder().is_ok_and(|holder| holder.is_some()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Stops the daemon if one runs, and starts one in the background that logs as much as it did.
pub(crate) async fn restart(folder: &ComponentFolder, args: &StartArgs) -> Outcome {
    let mut debug = args.debug;
    if let Some(holder) = folder.holder()? {
        let words = std::fs::read(format!("/proc/{holder}/cmdline")).unwrap_or_default();
        debug |= words.split(|byte| *byte == 0).any(|word| word == b"--debug" || word == b"-D");
        stop(folder).await?;
    }
    start_in_background(folder, debug).await
}
