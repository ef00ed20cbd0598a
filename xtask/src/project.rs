//! Where things are, and how other programs are run.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use thiserror::Error;

/// Why a chore did not come to its end.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Usage(&'static str),
    #[error("cannot start `{line}`: {source}")]
    NotStarted { line: String, source: std::io::Error },
    #[error("`{line}` failed ({status})")]
    Failed { line: String, status: std::process::ExitStatus },
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected { what: String, expected: &'static str, found: String },
    #[error("cannot install {}", .0.join(", "))]
    NotInstalled(Vec<String>),
    #[error("{0} finding(s)")]
    Findings(usize),
    #[error("{0} step(s) failed")]
    Steps(usize),
    #[error("broken by an input: {}", .0.join(", "))]
    Crashed(Vec<String>),
    #[error("below the bar: {}", .0.join(", "))]
    BelowBar(Vec<String>),
}

/// The checkout and the cache beside it.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    root: PathBuf,
    cache: PathBuf,
}

impl Project {
    /// Finds the checkout that cargo runs this program from.
    pub(crate) fn find() -> Result<Self, Problem> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = manifest.as_deref().and_then(Path::parent).ok_or(Problem::Usage("start this as `cargo xtask`"))?;
        Ok(Self { root: root.to_owned(), cache: cache_folder()? })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where tools and the Python environments are kept between runs.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// A program to be started in the checkout, with the cache's tools after those of the PATH.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([self.cache.join("bin")]);
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        // What cargo tells this program about itself would make its own calls of cargo build again.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.root);
        command
    }

    /// Cargo, as it was called for this program.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), |folder| self.root.join(folder))
    }
}

fn cache_folder() -> Result<PathBuf, Problem> {
    let from = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")));
    base.map(|base| base.join("fedbiomed")).ok_or(Problem::Usage("set HOME or XDG_CACHE_HOME: tools are kept there"))
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a program whose output goes where this program's goes.
pub(crate) fn run(command: &mut Command) -> Result<(), Problem> {
    let line = line_of(command);
    println!("+ {line}");
    let status = command.status().map_err(|source| Problem::NotStarted { line: line.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Problem::Failed { line, status }) }
}

/// Runs a program and returns what it printed on stdout; what it prints on stderr is shown.
pub(crate) fn output_of(command: &mut Command) -> Result<String, Problem> {
    let line = line_of(command);
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|source| Problem::NotStarted { line: line.clone(), source })?;
    if !output.status.success() {
        return Err(Problem::Failed { line, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program, shows what it prints on stderr line by line, and hands each line to `see` besides.
pub(crate) fn run_watched(command: &mut Command, mut see: impl FnMut(&str)) -> Result<(), Problem> {
    let line = line_of(command);
    println!("+ {line}");
    let not_started = |source| Problem::NotStarted { line: line.clone(), source };
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(not_started)?;
    let stderr = child.stderr.take().expect("stderr was asked to be piped");
    for text in BufReader::new(stderr).split(b'\n') {
        let text = text.map_err(not_started)?;
        let text = String::from_utf8_lossy(&text);
        // A broken pipe of our own stderr is no reason to stop the program.
        let _ = writeln!(std::io::stderr(), "{text}");
        see(&text);
    }
    let status = child.wait().map_err(not_started)?;
    if status.success() { Ok(()) } else { Err(Problem::Failed { line, status }) }
}

/// Begins to measure a duration.
#[expect(clippy::disallowed_methods, reason = "this program is a driver: it reports how long things took")]
pub(crate) fn stopwatch() -> Instant {
    Instant::now()
}
