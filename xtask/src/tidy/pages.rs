//! Pages of the book that the program writes about itself: its commands and its configuration.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Finding;
use crate::project::{Problem, Project};

/// What to do with the generated pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    Compare,
    Write,
}

/// The argument of `fedbiomed reference`, and the page that has what it prints.
const PAGES: [(&str, &str); 2] =
    [("commands", "docs/src/reference/commands.md"), ("configuration", "docs/src/reference/configuration.md")];

/// Compares the pages with what the built program prints, or writes them. Without a built program nothing is compared:
/// `cargo xtask test` builds it first.
pub(super) fn check(project: &Project, pages: Pages) -> Result<Vec<Finding>, Problem> {
    let Some(program) = built_program(project) else {
        println!("tidy: the generated pages were not compared, as the program is not built");
        return Ok(Vec::new());
    };
    let mut findings = Vec::new();
    for (subject, page) in PAGES {
        let mut command = project.command(&program);
        command.args(["reference", subject]).stderr(Stdio::null());
        let output = command.output().map_err(|source| Problem::File { path: program.clone(), source })?;
        if !output.status.success() {
            println!("tidy: {page} was not compared, as the program does not print it");
            continue;
        }
        let path = project.root().join(page);
        let is_same = std::fs::read(&path).is_ok_and(|found| found == output.stdout);
        match pages {
            _ if is_same => {}
            Pages::Compare => {
                findings.push(Finding::new(Path::new(page), 0, "differs from the program: run `cargo xtask tidy --write`"));
            }
            Pages::Write => std::fs::write(&path, output.stdout).map_err(|source| Problem::File { path, source })?,
        }
    }
    Ok(findings)
}

/// The newer of the programs that cargo has built.
fn built_program(project: &Project) -> Option<PathBuf> {
    let programs = ["debug", "release"].map(|profile| project.target().join(profile).join("fedbiomed"));
    programs
        .into_iter()
        .filter(|program| program.is_file())
        .max_by_key(|program| program.metadata().and_then(|file| file.modified()).ok())
}
