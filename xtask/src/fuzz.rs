//! Coverage-guided fuzzing of every decoder: builds the targets of `fuzz/` with instrumentation, and runs each for a while.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::project::{self, Problem, Project};

const USAGE: &str = "usage: cargo xtask fuzz [TARGET] [--seconds N]";

/// What the stable compiler needs to be told for libFuzzer, as `cargo fuzz --sanitizer none` does: LLVM's pass that counts
/// edges and shows comparisons. One unit of code generation per crate: others would each count on their own.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Named, so that the flags do not reach build scripts.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// How long each target runs if nothing else is said.
const SECONDS: u64 = 60;
/// The longest input that is tried, in bytes: every limit that is reached by length alone has a test of its own.
const MAX_LEN: usize = 4096;
/// How long one input may take, in seconds.
const TIMEOUT: usize = 10;
/// The most memory that a target may take, in MiB. How much one input may take is bounded in `fuzz/src/lib.rs`.
const RSS_LIMIT: usize = 1024;

/// How a target fared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Inputs that were kept, as each reaches something that no other does.
    inputs: u64,
    peak_mib: u64,
    /// Where the input lies that broke a promise.
    crash: Option<PathBuf>,
}

pub(crate) fn run(project: &Project, arguments: &[&str]) -> Result<(), Problem> {
    let (target, seconds) = match arguments {
        [] => (None, None),
        ["--seconds", seconds] => (None, Some(*seconds)),
        [target] => (Some(*target), None),
        [target, "--seconds", seconds] | ["--seconds", seconds, target] => (Some(*target), Some(*seconds)),
        _ => return Err(Problem::Usage(USAGE)),
    };
    let seconds = seconds.map_or(Ok(SECONDS), str::parse).map_err(|_| Problem::Usage(USAGE))?;
    let mut targets = targets(project)?;
    if let Some(target) = target {
        if !targets.iter().any(|name| name == target) {
            let found = format!("{target:?}; there are: {}", targets.join(", "));
            return Err(Problem::Unexpected { what: "fuzz".into(), expected: "a known target", found });
        }
        targets = vec![target.to_owned()];
    }
    let home = project.target().join("fuzz");
    build(project, &home)?;
    println!("{:<20} {:>12} {:>8} {:>8} {:>9}", "target", "executions", "edges", "inputs", "peak MiB");
    let mut crashed = Vec::new();
    for target in targets {
        let Outcome { executions, edges, inputs, peak_mib, crash } = fuzz(project, &home, &target, seconds)?;
        println!("{target:<20} {executions:>12} {edges:>8} {inputs:>8} {peak_mib:>9}");
        if let Some(input) = crash {
            let log = log(&home, &target);
            println!(
                "  broken by  {}\n  replay     {} {}",
                input.display(),
                program(&home, &target).display(),
                input.display()
            );
            println!("  log        {}", log.display());
            crashed.push(target);
        }
    }
    if crashed.is_empty() { Ok(()) } else { Err(Problem::Crashed(crashed)) }
}

/// The names of all targets, in order.
fn targets(project: &Project) -> Result<Vec<String>, Problem> {
    let folder = project.root().join("fuzz/fuzz_targets");
    let failed = |source| Problem::File { path: folder.clone(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn build(project: &Project, home: &Path) -> Result<(), Problem> {
    let mut command = project.cargo();
    command.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", TRIPLE, "--target-dir"]);
    command.arg(home).env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS").env("CARGO_INCREMENTAL", "0");
    project::run(&mut command)
}

fn program(home: &Path, target: &str) -> PathBuf {
    home.join(TRIPLE).join("release").join(target)
}

fn log(home: &Path, target: &str) -> PathBuf {
    home.join("logs").join(target)
}

/// Makes an empty folder of this name.
fn emptied(path: PathBuf) -> Result<PathBuf, Problem> {
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Problem::File { path, source }),
        _ => made(path),
    }
}

fn made(path: PathBuf) -> Result<PathBuf, Problem> {
    match fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(Problem::File { path, source }),
    }
}

/// Runs one target. What it finds is kept below `home` and taken up again by the next run; `fuzz/corpus` is only read.
fn fuzz(project: &Project, home: &Path, target: &str, seconds: u64) -> Result<Outcome, Problem> {
    let found = made(home.join("corpus").join(target))?;
    let crashes = made(home.join("crashes"))?;
    made(home.join("logs"))?;
    let path = log(home, target);
    let output = File::create(&path).map_err(|source| Problem::File { path: path.clone(), source })?;
    let mut command = project.command(program(home, target));
    command.arg(found).arg(project.root().join("fuzz/corpus").join(target));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_LEN}"));
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={RSS_LIMIT}")).arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/{target}-", crashes.display()));
    // A program that ends by a crash leaves its temporary folder behind.
    command.env("TMPDIR", emptied(home.join("tmp"))?);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let status = command.status().map_err(|source| Problem::NotStarted { line: target.to_owned(), source })?;
    let text = fs::read(&path).map_err(|source| Problem::File { path, source })?;
    let outcome = outcome_of(&String::from_utf8_lossy(&text));
    if !status.success() && outcome.crash.is_none() {
        return Err(Problem::Failed { line: format!("{target}, see {}", log(home, target).display()), status });
    }
    Ok(outcome)
}

/// Reads what libFuzzer wrote: its lines begin with the number of executions, and end with statistics.
fn outcome_of(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in text.lines() {
        if let Some(path) = line.split("Test unit written to ").nth(1) {
            outcome.crash = Some(path.trim().into());
        }
        let statistic = |name: &str| line.strip_prefix(name)?.trim().parse().ok();
        outcome.executions = statistic("stat::number_of_executed_units:").unwrap_or(outcome.executions);
        outcome.peak_mib = statistic("stat::peak_rss_mb:").unwrap_or(outcome.peak_mib);
        let Some(rest) = line.strip_prefix('#') else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
        outcome.executions = words.first().and_then(|word| word.parse().ok()).unwrap_or(outcome.executions);
        outcome.edges = after("cov:").and_then(|word| word.parse().ok()).unwrap_or(outcome.edges);
        let inputs = after("corp:").and_then(|word| word.split('/').next()?.parse().ok());
        outcome.inputs = inputs.unwrap_or(outcome.inputs);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_lines_are_counted() {
        let text = "INFO: seed corpus: files: 4\n\
                    #5\tINITED cov: 310 ft: 420 corp: 4/1100b exec/s: 0 rss: 44Mb\n\
                    #8192\tpulse  cov: 522 ft: 1405 corp: 91/12Kb lim: 108 exec/s: 4096 rss: 46Mb\n";
        let so_far = Outcome { executions: 8192, edges: 522, inputs: 91, ..Outcome::default() };
        assert_eq!(outcome_of(text), so_far);
        let ended = format!("{text}stat::number_of_executed_units: 9000\nstat::peak_rss_mb: 47\n");
        assert_eq!(outcome_of(&ended), Outcome { executions: 9000, peak_mib: 47, ..so_far });
        let crashed = format!("{text}artifact_prefix='a/csv-'; Test unit written to a/csv-crash-0f\n");
        assert_eq!(outcome_of(&crashed).crash, Some("a/csv-crash-0f".into()));
    }
}
