//! The repository's rules that no compiler checks, as ordinary code.

mod fuzz;
mod graph;
mod links;
mod pages;
mod proto;
mod sources;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::project::{Problem, Project, output_of};

pub(crate) use pages::Pages;

/// A rule that is broken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    /// From 1; 0 for the file as a whole.
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &Path, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path.display(), self.line, self.text)
    }
}

/// A text file of the repository, with its path from the root.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }

    /// The crate whose `src` this file is in.
    fn crate_name(&self) -> Option<&str> {
        let mut parts = self.path.iter().filter_map(|part| part.to_str());
        match (parts.next(), parts.next(), parts.next()) {
            (Some("crates"), Some(name), Some("src")) => Some(name),
            _ => None,
        }
    }
}

/// Checks every rule and prints what it finds.
pub(crate) fn run(project: &Project, pages: Pages) -> Result<(), Problem> {
    let sources = sources(project)?;
    let mut findings = graph::check(project)?;
    for source in &sources {
        findings.extend(words::check(source));
        findings.extend(sources::check(source));
        findings.extend(proto::check(source));
    }
    findings.extend(links::check(&sources));
    findings.extend(fuzz::check(project, &sources)?);
    findings.extend(pages::check(project, pages)?);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing found", sources.len());
            Ok(())
        }
        found => Err(Problem::Findings(found)),
    }
}

/// The text files that git knows, or would know if they were added.
fn sources(project: &Project) -> Result<Vec<Source>, Problem> {
    let list = output_of(project.command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let mut sources = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from) {
        match std::fs::read(project.root().join(&path)) {
            // Whatever is not text has no words and no links.
            Ok(bytes) => sources.extend(String::from_utf8(bytes).ok().map(|text| Source { path, text })),
            // Removed from the work tree, not yet from the index.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Problem::File { path, source }),
        }
    }
    Ok(sources)
}
