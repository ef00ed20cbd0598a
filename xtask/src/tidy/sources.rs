//! Rules about single source files and manifests: their size, what pure crates name, where integration tests lie.

use super::graph::PURE;
use super::{Finding, Source};

/// The most lines of a source file. A file above 500 is asked what its second job is; above this it is refused.
const MOST_LINES: usize = 800;

/// Pure files and folders of crates that are not pure as a whole: what happens next, on both sides.
const PURE_PATHS: [&str; 4] = [
    "crates/node/src/participant",
    "crates/node/src/participant.rs",
    "crates/researcher/src/experiment",
    "crates/researcher/src/experiment.rs",
];

/// What pure code does not name: clocks, entropy, files, sockets, async.
const IMPURE_WORDS: [&str; 8] =
    ["SystemTime", "Instant::now", "SysRng", "std::fs", "std::net", "async fn", "async move", "tokio::"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.has_extension("rs")
        && let Some(name) = source.crate_name()
    {
        let lines = source.text.lines().count();
        if lines > MOST_LINES {
            findings.push(Finding::new(
                &source.path,
                0,
                format!("{lines} lines, at most {MOST_LINES} are allowed: split by subject"),
            ));
        }
        let is_pure = PURE.contains(&name) || PURE_PATHS.iter().any(|path| source.path.starts_with(path));
        if is_pure && !is_test(source) {
            findings.extend(check_purity(source));
        }
    }
    if source.path.ends_with("Cargo.toml")
        && source.path.starts_with("crates")
        && !source.text.contains("[lints]\nworkspace = true\n")
    {
        findings.push(Finding::new(&source.path, 0, "without the workspace's lints: add `[lints]`, `workspace = true`"));
    }
    let parts: Vec<&str> = source.path.iter().filter_map(|part| part.to_str()).collect();
    if source.has_extension("rs") && matches!(parts.as_slice(), ["crates", _, "tests", _]) {
        findings.push(Finding::new(
            &source.path,
            0,
            "a crate's integration tests are one program: move this below tests/it/",
        ));
    }
    findings
}

/// Files of tests alone: `tests.rs`, and what lies in a folder `tests`. They may open what the code is compared with.
fn is_test(source: &Source) -> bool {
    source.path.ends_with("tests.rs") || source.path.iter().any(|part| part == "tests")
}

fn check_purity(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if let Some(word) = IMPURE_WORDS.iter().find(|word| code.contains(**word)) {
            findings.push(Finding::new(&source.path, index + 1, format!("this code is pure and may not name `{word}`")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str) -> Vec<(usize, String)> {
        let source = Source { path: path.into(), text: text.into() };
        check(&source).into_iter().map(|finding| (finding.line, finding.text)).collect()
    }

    #[test]
    fn a_file_of_more_than_800_lines_is_found() {
        assert_eq!(check_text("crates/data/src/csv.rs", &"x\n".repeat(800)), []);
        assert_eq!(check_text("crates/data/src/csv.rs", &"x\n".repeat(801)).len(), 1);
        assert_eq!(check_text("crates/data/tests/it/csv.rs", &"x\n".repeat(801)), []);
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_found_and_a_word_in_a_comment_is_not() {
        let text = "// SystemTime is for others\nlet now = SystemTime::now();\n";
        assert_eq!(check_text("crates/protocol/src/a.rs", text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2]);
        assert_eq!(check_text("crates/node/src/participant/a.rs", text).len(), 1);
        assert_eq!(check_text("crates/node/src/a.rs", text), []);
    }

    #[test]
    fn the_tests_of_pure_code_may_open_files() {
        assert_eq!(check_text("crates/analytics/src/moments/tests.rs", "std::fs::read(path);\n"), []);
        assert_eq!(check_text("crates/researcher/src/experiment/tests/a.rs", "std::fs::read(path);\n"), []);
        assert_eq!(check_text("crates/analytics/src/moments/contests.rs", "std::fs::read(path);\n").len(), 1);
    }

    #[test]
    fn a_second_integration_test_program_is_found() {
        assert_eq!(check_text("crates/node/tests/it/main.rs", ""), []);
        assert_eq!(check_text("crates/node/tests/policy.rs", "").len(), 1);
    }

    #[test]
    fn a_manifest_without_the_lints_is_found() {
        assert_eq!(check_text("crates/node/Cargo.toml", "[lints]\nworkspace = true\n"), []);
        assert_eq!(check_text("crates/node/Cargo.toml", "[package]\n").len(), 1);
    }
}
