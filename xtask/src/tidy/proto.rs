//! Every message on the wire states how large it may be, beside its definition.

use std::collections::BTreeSet;

use super::{Finding, Source};

/// Messages that travel on their own say "at most" a size; a repeated field says how many it takes.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.has_extension("proto") {
        return Vec::new();
    }
    let travelling = travelling_messages(&source.text);
    let mut findings = Vec::new();
    let mut comment = String::new();
    for (index, line) in source.text.lines().enumerate() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("//") {
            comment.push_str(text);
            continue;
        }
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("message"), Some(name)) if travelling.contains(name) && !comment.contains("at most") => {
                findings.push(Finding::new(
                    &source.path,
                    index + 1,
                    format!("message {name} does not say `at most` which size"),
                ));
            }
            (Some("repeated"), _) if !comment.contains(|letter: char| letter.is_ascii_digit()) => {
                findings.push(Finding::new(&source.path, index + 1, "a repeated field does not say how many it takes"));
            }
            _ => {}
        }
        comment.clear();
    }
    findings
}

/// The types that a call takes or returns.
fn travelling_messages(text: &str) -> BTreeSet<&str> {
    let calls = text.lines().map(str::trim).filter(|line| line.starts_with("rpc "));
    let in_brackets = calls.flat_map(|line| line.split('(').skip(1).filter_map(|part| part.split(')').next()));
    in_brackets.map(|part| part.trim_start_matches("stream ").trim()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_messages(text: &str) -> Vec<usize> {
        let service = "service S { \n rpc Call(stream Ask) returns (Reply);\n}\n";
        let source = Source { path: "a.proto".into(), text: format!("{service}{text}") };
        check(&source).into_iter().map(|finding| finding.line - 3).collect()
    }

    #[test]
    fn a_message_without_its_limit_is_found() {
        assert_eq!(check_messages("// To the node, at most 1 KiB.\nmessage Ask {}\nmessage Reply {}\n"), [3]);
    }

    #[test]
    fn a_message_inside_another_needs_none() {
        assert!(check_messages("// A part.\nmessage Part {}\n").is_empty());
    }

    #[test]
    fn a_repeated_field_says_how_many() {
        let text = "message Part {\n // Names. At most 256.\n repeated string a = 1;\n repeated string b = 2;\n}\n";
        assert_eq!(check_messages(text), [4]);
    }
}
