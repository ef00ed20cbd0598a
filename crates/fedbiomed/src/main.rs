//! The `fedbiomed` command: reads what was typed, calls the libraries, shows what comes back. No decision is made here.

mod cli;
mod commands;
mod demo;
mod error;
mod live;
mod output;
mod picture;
mod reference;
mod tables;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, ResearcherCommand};
use crate::error::{Failure, Outcome};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of a researcher that wait for files. Each keeps memory of its own, so their number does not follow that of the nodes.
const FILE_THREADS: usize = 8;

/// How long threads may take to end after the command did.
const LONGEST_GOODBYE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(Cli::parse_from(cli::spelled_out(std::env::args_os()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(format!("error: {failure}"));
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    // A researcher folds and serves many nodes; everything else waits most of the time and stays small.
    let serves_many = matches!(
        &cli.command,
        Command::Researcher(args) if matches!(&args.command, ResearcherCommand::Start(start) if !start.background)
    );
    let runtime = if serves_many {
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(FILE_THREADS).enable_all().build()
    } else {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    };
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(dispatch(cli.command));
    // A thread that gathers numbers in memory looks up now and then only; nothing is lost with it.
    runtime.shutdown_timeout(LONGEST_GOODBYE);
    outcome
}

async fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Component(command) => commands::component::run(command),
        Command::Node(args) => commands::node::run(args).await,
        Command::Researcher(args) => commands::researcher::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::CertificateDevSetup { folder } => demo::federation::enrol_all(&folder).await,
        Command::Reference { page } => {
            output::print(reference::page(page).trim_end());
            Ok(())
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fedbiomed", &mut text);
            output::print(String::from_utf8_lossy(&text).trim_end());
            Ok(())
        }
    }
}
