//! What people and scripts read on standard output: tables, or JSON with the same keys.

mod tree;

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use indicatif::HumanBytes;
use serde::Serialize;

use self::tree::Tree;

/// Prints lines to standard output. A closed pipe (`| head`) ends the program's output without a complaint.
pub(crate) fn print(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Prints lines to standard error, for people.
pub(crate) fn note(text: impl AsRef<str>) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n"));
}

pub(crate) fn print_json(value: &impl Serialize) {
    print(serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")));
}

/// Prints rows as a table whose columns are the keys, or as a JSON array of the same rows. `hidden` keys are in the JSON only.
pub(crate) fn print_rows<T: Serialize>(rows: &[T], json: bool, hidden: &[&str], when_empty: &str) {
    if json {
        print_json(&rows);
    } else if rows.is_empty() {
        print(when_empty);
    } else {
        let rows: Vec<Tree> = rows.iter().map(Tree::of).collect();
        print(lines(&table_of(&rows, hidden)));
    }
}

/// Prints one record, a key a line and its lists below, or as a JSON array of one object.
pub(crate) fn print_record(record: &impl Serialize, json: bool, hidden: &[&str]) {
    print_records(std::slice::from_ref(record), json, hidden, "");
}

/// Prints records one below the other, or as a JSON array; for what is too wide for a column.
pub(crate) fn print_records<T: Serialize>(records: &[T], json: bool, hidden: &[&str], when_empty: &str) {
    if json {
        return print_json(&records);
    }
    if records.is_empty() {
        print(when_empty);
    }
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            print("");
        }
        let record = Tree::of(record);
        let fields = || record.fields().iter().filter(|(key, _)| !hidden.contains(&key.as_str()));
        let mut table = new_table();
        for (key, value) in fields().filter(|(_, value)| rows(value).is_empty()) {
            table.add_row([title(key), named(key, value, false)]);
        }
        print(lines(&table));
        for (key, value) in fields().filter(|(_, value)| !rows(value).is_empty()) {
            print(format!("\n {}:\n{}", title(key), lines(&table_of(rows(value), hidden))));
        }
    }
}

/// The list, if this is one of objects.
fn rows(value: &Tree) -> &[Tree] {
    match value {
        Tree::List(list) if list.iter().any(|row| !row.fields().is_empty()) => list,
        _ => &[],
    }
}

fn table_of(rows: &[Tree], hidden: &[&str]) -> Table {
    let mut columns: Vec<&str> = Vec::new();
    for (key, _) in rows.iter().flat_map(Tree::fields) {
        if !columns.contains(&key.as_str()) && !hidden.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let mut table = new_table();
    table.set_header(columns.iter().map(|column| title(column)));
    for row in rows {
        table.add_row(columns.iter().map(|column| named(column, row.field(column), true)));
    }
    table
}

/// A terminal with fewer columns than this does not know its width, or is no place for a table: lines wrap there.
const NARROWEST: u16 = 40;

/// A table with a line below its header, as wide as the terminal at most.
pub(crate) fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    if io::stdout().is_terminal() && table.width().is_some_and(|width| width >= NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// The table's text without the spaces that fill its last column.
fn lines(table: &Table) -> String {
    let lines: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn title(key: &str) -> String {
    key.replace('_', " ")
}

/// A value for people, as its name asks.
fn named(key: &str, value: &Tree, is_column: bool) -> String {
    match (key, value) {
        ("state" | "work" | "kind" | "refusal", Tree::Text(text)) => title(text),
        ("bytes" | "storage_bytes" | "storage_quota", Tree::Text(text)) => {
            text.parse().map_or_else(|_| text.clone(), |bytes| HumanBytes(bytes).to_string())
        }
        ("value" | "facts", _) => text(value, false),
        _ => text(value, is_column),
    }
}

/// A value for people. Columns have room for the beginning of an id only; commands take it as well as the whole.
fn text(value: &Tree, is_column: bool) -> String {
    match value {
        Tree::Text(text) if is_id(text) && is_column => text.split('-').next().unwrap_or(text).to_owned(),
        Tree::Text(text) if is_time(text) => format!("{} {}Z", &text[..10], &text[11..19]),
        Tree::Text(text) if !text.is_empty() => text.clone(),
        Tree::List(list) if !list.is_empty() => {
            let words: Vec<String> = list.iter().map(|value| text(value, is_column)).collect();
            words.join(", ")
        }
        Tree::Object(fields) if !fields.is_empty() => {
            let parts: Vec<String> =
                fields.iter().map(|(key, value)| format!("{} {}", title(key), text(value, is_column))).collect();
            parts.join(", ")
        }
        _ => "-".to_owned(),
    }
}

/// Whether a text looks like `node_` and a UUID.
fn is_id(text: &str) -> bool {
    let is_uuid = |id: &str| id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    text.rsplit_once('_').is_some_and(|(_, id)| is_uuid(id))
}

/// Whether a text looks like `2026-11-23T18:24:16.295Z`.
fn is_time(text: &str) -> bool {
    let shape = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'.',
        23 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 24 && text.bytes().enumerate().all(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_the_order_of_fields_and_shorten_ids_and_times() {
        let json = r#"{"name":"b","id":"node_4831feb9-8934-4e55-b8c9-0d5c25a16432","at":"2026-11-23T18:24:16.295Z","tags":[],"a":1}"#;
        let row: Tree = serde_json::from_str(json).unwrap();
        let table = lines(&table_of(&[row], &["tags"]));
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["name", "id", "at", "a"]);
        assert_eq!(words[2], ["b", "node_4831feb9", "2026-11-23", "18:24:16Z", "1"]);
    }
}
