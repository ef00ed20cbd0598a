//! Links between the repository's Markdown files lead somewhere, so do the paths that `ARCHITECTURE.md` names, and the book's
//! table of contents is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::{Finding, Source};

const SUMMARY: &str = "docs/src/SUMMARY.md";
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// What a path in backticks begins with. Other paths are those of a component's folder, or Rust's.
const FOLDERS: [&str; 6] = ["crates/", "docs/", "examples/", "fuzz/", "xtask/", ".ci/"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let files: BTreeSet<&Path> = sources.iter().map(|source| source.path.as_path()).collect();
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        markdown(sources).map(|source| (source.path.as_path(), headings(&source.text))).collect();
    let mut findings = Vec::new();
    for source in markdown(sources) {
        for (line, target) in links(&source.text) {
            if let Some(text) = broken(&source.path, &target, &files, &anchors) {
                findings.push(Finding::new(&source.path, line, text));
            }
        }
        if source.path == Path::new(ARCHITECTURE) {
            findings.extend(missing_paths(source, &files));
        }
    }
    findings.extend(missing_from_summary(sources));
    findings
}

fn markdown(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| source.has_extension("md"))
}

/// Why a link leads nowhere; `None` for a good one and for one that leads out of the repository.
fn broken(
    from: &Path,
    target: &str,
    files: &BTreeSet<&Path>,
    anchors: &BTreeMap<&Path, BTreeSet<String>>,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { from.to_owned() } else { resolve(from, path)? };
    let is_folder = || files.iter().any(|file| file.starts_with(&path));
    if !files.contains(path.as_path()) && !is_folder() {
        return Some(format!("the link to {target} leads nowhere"));
    }
    if !anchor.is_empty() && anchors.get(path.as_path()).is_some_and(|anchors| !anchors.contains(anchor)) {
        return Some(format!("the link to {target} leads to no heading of {}", path.display()));
    }
    None
}

/// The path from the root that a relative link means; a link above the root stays as it is, and so leads nowhere.
fn resolve(from: &Path, link: &str) -> Option<PathBuf> {
    let mut path = from.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir if !path.pop() => return Some(PathBuf::from(link)),
            Component::ParentDir | Component::CurDir => {}
            part => path.push(part),
        }
    }
    Some(path)
}

/// The paths in backticks of a page that are not in the repository.
fn missing_paths(source: &Source, files: &BTreeSet<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let spans = line.split('`').skip(1).step_by(2);
        for path in spans.filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder))).flat_map(alternatives) {
            if !files.iter().any(|file| file.starts_with(&path)) {
                findings.push(Finding::new(&source.path, index + 1, format!("there is no {path}")));
            }
        }
    }
    findings
}

/// The paths that a span means: `a/{b,c}.rs` is two.
fn alternatives(span: &str) -> Vec<String> {
    let parts = span.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?)));
    let Some((start, (names, end))) = parts else { return vec![span.to_owned()] };
    names.split(',').map(|name| format!("{start}{name}{end}")).collect()
}

/// Lines outside fenced code, numbered from 1, with code spans blanked out.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        let without_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        (!fenced).then_some((index + 1, without_code))
    })
}

fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            links.push((number, target.to_owned()));
        }
    }
    links
}

/// The anchors of a file's headings, as mdBook makes them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let Some(title) = line.strip_prefix('#').filter(|_| !fenced) else { continue };
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        anchors.insert(kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect());
    }
    anchors
}

/// Pages of the book that its table of contents leaves out.
fn missing_from_summary(sources: &[Source]) -> Vec<Finding> {
    let summary = Path::new(SUMMARY);
    let Some(contents) = sources.iter().find(|source| source.path == summary) else { return Vec::new() };
    let listed: BTreeSet<PathBuf> =
        links(&contents.text).iter().filter_map(|(_, target)| resolve(summary, target)).collect();
    markdown(sources)
        .filter(|page| page.path.starts_with("docs/src") && page.path != summary && !listed.contains(&page.path))
        .map(|page| Finding::new(&page.path, 0, format!("not listed in {SUMMARY}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_files(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source { path: path.into(), text: (*text).into() }).collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_link_to_a_missing_file_or_heading_is_found() {
        let guide = ("docs/src/guide.md", "# Start here\n");
        let summary = (SUMMARY, "[Guide](guide.md)\n");
        assert!(check_files(&[guide, summary, ("README.md", "[a](docs/src/guide.md#start-here) [b](docs)")]).is_empty());
        assert_eq!(check_files(&[guide, summary, ("README.md", "[a](docs/src/gide.md)")]).len(), 1);
        assert_eq!(check_files(&[guide, summary, ("README.md", "[a](docs/src/guide.md#end)")]).len(), 1);
        assert_eq!(check_files(&[guide, summary, ("README.md", "[a](../secret.md)")]).len(), 1);
    }

    #[test]
    fn links_in_code_and_to_other_sites_are_left_alone() {
        let text = "`[a](b)` [c](https://example.org/d)\n```\n[e](f)\n```\n";
        assert!(check_files(&[("README.md", text)]).is_empty());
    }

    #[test]
    fn a_path_of_the_architecture_that_is_not_there_is_found() {
        let files = [("crates/a/src/b.rs", ""), ("crates/a/src/c.rs", "")];
        let named = |text: &'static str| check_files(&[files[0], files[1], (ARCHITECTURE, text)]);
        assert!(named("`crates/a/src/{b,c}.rs`, `crates/a`, `a::b` and `a/{policy}.rs`").is_empty());
        assert_eq!(named("one\n`crates/a/src/{b,d}.rs`"), ["ARCHITECTURE.md:2: there is no crates/a/src/d.rs"]);
    }

    #[test]
    fn a_page_that_the_contents_leave_out_is_found() {
        let found = check_files(&[(SUMMARY, "[A](a.md)\n"), ("docs/src/a.md", ""), ("docs/src/b/c.md", "")]);
        assert_eq!(found, ["docs/src/b/c.md:0: not listed in docs/src/SUMMARY.md"]);
    }
}
