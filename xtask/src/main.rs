//! The project's own chores: `cargo xtask setup`, `test`, `tidy`, `fuzz`, `bench`. Nothing here is part of the product.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks through these")]

mod bench;
mod fuzz;
mod project;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use project::{Problem, Project};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup                      find or install what the tests need
  test                       setup, tidy, every test, the docs: the README's test command
  tidy [--write]             the repository's rules; --write brings the generated pages of the docs up to date
  fuzz [TARGET] [--seconds N]
                             try the decoders with inputs that cover ever more of them
  bench [NAME] [--full] [--json FILE]
                             measure; NAME runs the measurements whose name begins so, --full all of those that take minutes";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Problem> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let project = Project::find()?;
    match arguments.as_slice() {
        ["setup"] => setup::run(&project),
        ["test"] => test::run(&project),
        ["tidy"] => tidy::run(&project, tidy::Pages::Compare),
        ["tidy", "--write"] => tidy::run(&project, tidy::Pages::Write),
        ["fuzz", rest @ ..] => fuzz::run(&project, rest),
        ["bench", rest @ ..] => bench::run(&project, rest),
        _ => Err(Problem::Usage(USAGE)),
    }
}
