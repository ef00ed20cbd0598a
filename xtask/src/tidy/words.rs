//! Words that do not belong into the repository: paths of somebody's machine, things left undone.

use super::{Finding, Source};

/// Each word and why it is refused.
const DENIED: [(&str, &str); 9] = [
    ("/home/", "a path of somebody's machine"),
    ("/root/", "a path of somebody's machine"),
    ("/Users/", "a path of somebody's machine"),
    ("FIXME", "fix it, or write TODO with an issue number"),
    ("XXX", "say what it is, or write TODO with an issue number"),
    ("todo!(", "not done"),
    ("unimplemented!(", "not done"),
    ("#[ignore", "a test that is switched off"),
    ("<<<<<<< ", "a merge that was not finished"),
];

/// Files that hold the words as data: this one, and what other programs write.
const EXEMPT: [&str; 2] = ["xtask/src/tidy/words.rs", "Cargo.lock"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if EXEMPT.iter().any(|path| source.path.as_os_str() == *path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for (word, why) in DENIED {
            if line.contains(word) {
                findings.push(Finding::new(&source.path, index + 1, format!("`{word}`: {why}")));
            }
        }
        if has_todo_without_issue(line) {
            findings.push(Finding::new(&source.path, index + 1, "a TODO has an issue number: `TODO(#12)`"));
        }
    }
    findings
}

fn has_todo_without_issue(line: &str) -> bool {
    let numbered =
        |rest: &str| rest.strip_prefix("(#").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    line.match_indices("TODO").any(|(at, word)| {
        let is_word = !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        is_word && !numbered(&line[at + word.len()..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str) -> usize {
        check(&Source { path: "README.md".into(), text: line.into() }).len()
    }

    #[test]
    fn denied_words_are_found() {
        for line in ["see /home/anna/notes", "// FIXME later", "#[ignore]", "    todo!()"] {
            assert_eq!(check_line(line), 1, "{line}");
        }
        assert_eq!(check_line("the network works"), 0);
    }

    #[test]
    fn a_todo_needs_an_issue_number() {
        assert_eq!(check_line("// TODO(#12): more formats"), 0);
        assert_eq!(check_line("// TODO: more formats"), 1);
        assert_eq!(check_line("// TODO(anna)"), 1);
        assert_eq!(check_line("MY_TODO_LIST"), 0);
    }
}
