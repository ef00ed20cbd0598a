//! Everything that shows whether the project holds: the README's test command.

use std::process::Command;
use std::time::Duration;

use crate::project::{self, Problem, Project};
use crate::setup::{self, TEST_VENV};
use crate::tidy::{self, Pages};

/// The variable by which tests find a Python with the packages of [`TEST_VENV`].
const PYTHON: &str = "FEDBIOMED_TEST_PYTHON";

/// How the steps went.
#[derive(Default)]
struct Outcome {
    steps: Vec<(&'static str, Duration, Result<(), Problem>)>,
    tests: Counts,
}

/// Tests that were run, over all of the runner's summaries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Outcome {
    /// Does a step and keeps how it went; the next steps are done all the same.
    fn step(&mut self, name: &'static str, action: impl FnOnce(&mut Counts) -> Result<(), Problem>) {
        println!("\n== {name}");
        let started = project::stopwatch();
        let result = action(&mut self.tests);
        if let Err(problem) = &result {
            eprintln!("error: {problem}");
        }
        self.steps.push((name, started.elapsed(), result));
    }

    fn report(&self) -> Result<(), Problem> {
        println!();
        for (name, took, result) in &self.steps {
            let word = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{name:<28} {:>7.1} s  {word}", took.as_secs_f64());
        }
        let Counts { passed, failed, skipped } = self.tests;
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        match self.steps.iter().filter(|(_, _, result)| result.is_err()).count() {
            0 => Ok(()),
            failed => Err(Problem::Steps(failed)),
        }
    }
}

pub(crate) fn run(project: &Project) -> Result<(), Problem> {
    setup::run(project)?;
    let mut outcome = Outcome::default();
    outcome.step("unit and integration tests", |tests| {
        // The program's own tests follow in release, on the binary that people run.
        nextest(project, &["--workspace", "--exclude", "fedbiomed"], tests)
    });
    outcome.step("documentation tests", |_| project::run(project.cargo().args(["test", "--quiet", "--workspace", "--doc"])));
    outcome.step("release binary", |_| project::run(project.cargo().args(["build", "--release", "--package", "fedbiomed"])));
    outcome.step("end-to-end tests", |tests| nextest(project, &["--release", "--package", "fedbiomed"], tests));
    // After the build, so that the generated pages are compared with this program.
    outcome.step("tidy", |_| tidy::run(project, Pages::Compare));
    outcome.step("book", |_| book(project));
    outcome.report()
}

fn nextest(project: &Project, arguments: &[&str], counts: &mut Counts) -> Result<(), Problem> {
    let mut command: Command = project.cargo();
    command.args(["nextest", "run", "--no-fail-fast"]).args(arguments);
    // The closing line is read below: no colours in it, whatever the environment asks for.
    command.env(PYTHON, TEST_VENV.python(project)).env("CARGO_TERM_COLOR", "never");
    project::run_watched(&mut command, |line| {
        if let Some(found) = counts_of(line) {
            counts.passed += found.passed;
            counts.failed += found.failed;
            counts.skipped += found.skipped;
        }
    })
}

/// Reads the runner's closing line, such as `Summary [ 1.2s] 7 tests run: 6 passed, 1 failed, 2 skipped`.
fn counts_of(line: &str) -> Option<Counts> {
    let (_, list) = line.trim_start().strip_prefix("Summary")?.split_once("run:")?;
    let mut counts = Counts::default();
    for entry in list.split(',') {
        let mut words = entry.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        match words.next()? {
            "passed" => counts.passed += number,
            "skipped" => counts.skipped += number,
            // Failed, timed out, broken off.
            _ => counts.failed += number,
        }
    }
    Some(counts)
}

/// Builds the book; a warning is an error.
fn book(project: &Project) -> Result<(), Problem> {
    let mut complaint = None;
    project::run_watched(project.command("mdbook").args(["build", "docs"]), |line| {
        if complaint.is_none() && ["WARN", "ERROR"].iter().any(|word| line.contains(word)) {
            complaint = Some(line.to_owned());
        }
    })?;
    match complaint {
        None => Ok(()),
        Some(found) => Err(Problem::Unexpected { what: "mdbook".into(), expected: "no warning", found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_closing_line_is_counted() {
        let all_well = "     Summary [   0.045s] 34 tests run: 34 passed, 0 skipped";
        assert_eq!(counts_of(all_well), Some(Counts { passed: 34, failed: 0, skipped: 0 }));
        let not_well = "     Summary [   9.1s] 9 tests run: 5 passed (1 slow), 3 failed, 1 timed out, 2 skipped";
        assert_eq!(counts_of(not_well), Some(Counts { passed: 5, failed: 4, skipped: 2 }));
        assert_eq!(counts_of("        PASS [   0.003s] protocol encoding::tests::ties"), None);
    }
}
