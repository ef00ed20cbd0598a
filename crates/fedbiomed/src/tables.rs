//! Answers of statistics as tables for people. What is printed is what `--json` says, rounded.

use analytics::schema::{SchemaColumn, Site, schema};
use protocol::ColumnKind;
use researcher::command::{Answer, DatasetRow};
use serde_json::{Map, Value};

use crate::output::{print, print_json, print_record, print_rows};

/// A number as people read it: six significant digits.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Number(number) if number.is_f64() => rounded(number.as_f64().unwrap_or(f64::NAN)),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(keys) => {
            keys.iter().map(|(key, value)| format!("{key}: {}", shown(value))).collect::<Vec<_>>().join(", ")
        }
    }
}

fn rounded(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e9).contains(&size) {
        format!("{number:.4e}")
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a number between 1e-4 and 1e9")]
        let before = size.log10().floor() as i32 + 1;
        let digits = usize::try_from((6 - before).max(0)).unwrap_or(0);
        let text = format!("{number:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

/// A value with its numbers rounded, as texts.
fn readable(value: &Value) -> Value {
    match value {
        Value::Object(keys) => keys.iter().map(|(key, value)| (key.clone(), readable(value))).collect(),
        Value::Array(values) if values.iter().any(Value::is_object) => values.iter().map(readable).collect(),
        other => Value::String(shown(other)),
    }
}

/// Prints what a statistic came to.
pub(crate) fn print_answer(statistic: &str, numbers: &Value) {
    match (statistic, numbers) {
        ("describe", Value::Object(keys)) => described(keys),
        ("table", Value::Object(keys)) => contingency(keys),
        ("correlation", Value::Object(keys)) => {
            for matrix in ["correlation", "p", "covariance"] {
                print_matrix(matrix, keys.get("columns"), keys.get("columns"), keys.get(matrix));
            }
            record(keys, &["columns", "correlation", "p", "covariance"]);
        }
        ("pca", Value::Object(keys)) => {
            let components = keys.get("components").and_then(Value::as_array).map_or(0, Vec::len);
            let names: Value = (1..=components).map(|index| format!("component {index}")).collect();
            print_matrix("loadings", Some(&names), keys.get("columns"), keys.get("components"));
            for list in ["eigenvalues", "explained_ratio"] {
                print_matrix(
                    list,
                    Some(&Value::from(vec![""])),
                    Some(&names),
                    keys.get(list).map(|list| Value::from(vec![list.clone()])).as_ref(),
                );
            }
            record(keys, &["columns", "components", "eigenvalues", "explained_ratio", "mean", "sd"]);
        }
        ("survival", Value::Object(keys)) => curves(keys),
        ("cox", Value::Object(keys)) => {
            record(keys, &["baseline"]);
            if keys.contains_key("baseline") {
                print("the baseline hazard is in --json");
            }
        }
        (_, Value::Object(keys)) => record(keys, &[]),
        (_, other) => print(shown(other)),
    }
}

/// Prints the keys but for some, a list of objects as a table.
fn record(keys: &Map<String, Value>, without: &[&str]) {
    let keys: Map<String, Value> = keys
        .iter()
        .filter(|(key, _)| !without.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    print_record(&readable(&flat(&transposed(&keys))), false, &[]);
}

/// Rows that hold objects get a column for each of their keys.
fn flat(value: &Value) -> Value {
    let row = |row: &Value| match row {
        Value::Object(keys) => {
            let mut cells = Map::new();
            for (key, value) in keys {
                match value {
                    Value::Object(inner) => {
                        cells.extend(inner.iter().map(|(name, value)| (format!("{key} {name}"), value.clone())));
                    }
                    other => drop(cells.insert(key.clone(), other.clone())),
                }
            }
            Value::Object(cells)
        }
        other => other.clone(),
    };
    match value {
        Value::Object(keys) => keys
            .iter()
            .map(|(key, value)| match value {
                Value::Array(rows) => (key.clone(), rows.iter().map(row).collect()),
                other => (key.clone(), other.clone()),
            })
            .collect(),
        other => other.clone(),
    }
}

/// At most so many points of a curve are printed.
const MOST_POINTS: usize = 12;

/// A line for each group, and some points of its curve.
fn curves(keys: &Map<String, Value>) {
    let groups = keys.get("groups").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_scalar = |value: &Value| !value.is_array() && !value.is_object();
    let summary = |group: &Value| {
        let scalars = group.as_object().into_iter().flatten().filter(|(_, value)| is_scalar(value));
        scalars.map(|(key, value)| (key.clone(), Value::from(shown(value)))).collect::<Map<_, _>>()
    };
    print_rows(&groups.iter().map(summary).collect::<Vec<_>>(), false, &[], "");
    let mut points: Vec<Map<String, Value>> = Vec::new();
    for group in &groups {
        let list = |key: &str| group.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let len = list("time").len();
        let step = len.div_ceil(MOST_POINTS).max(1);
        for at in (0..len).filter(|at| (at + 1).is_multiple_of(step) || at + 1 == len) {
            let mut point = Map::from_iter([("group".to_owned(), Value::from(shown(&group["name"])))]);
            for key in ["time", "n_risk", "n_event", "survival", "std_error", "ci_low", "ci_high"] {
                point.extend(list(key).get(at).map(|value| (key.to_owned(), Value::from(shown(value)))));
            }
            points.push(point);
        }
    }
    print_rows(&points, false, &[], "");
    record(keys, &["groups"]);
    print("all points are in --json");
}

/// Prints numbers with names on both sides.
fn print_matrix(title: &str, rows: Option<&Value>, columns: Option<&Value>, matrix: Option<&Value>) {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let columns: Vec<String> = list(columns).iter().map(shown).collect();
    let named = |(name, cells): (Value, Value)| {
        let mut row = Map::from_iter([(title.to_owned(), Value::from(shown(&name)))]);
        row.extend(columns.iter().cloned().zip(list(Some(&cells)).iter().map(|cell| Value::from(shown(cell)))));
        row
    };
    let rows: Vec<Map<String, Value>> = list(rows).into_iter().zip(list(matrix)).map(named).collect();
    if !rows.is_empty() {
        print_rows(&rows, false, &[], "");
    }
}

/// A table of counts with its margins, and its tests.
fn contingency(keys: &Map<String, Value>) {
    let with_total = |list: Option<&Value>, total: Value| {
        let mut list = list.and_then(Value::as_array).cloned().unwrap_or_default();
        list.push(total);
        Value::Array(list)
    };
    let totals = keys.get("row_totals").and_then(Value::as_array).cloned().unwrap_or_default();
    let counts = keys.get("counts").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut matrix: Vec<Value> = counts.iter().zip(totals).map(|(row, total)| with_total(Some(row), total)).collect();
    matrix.push(with_total(keys.get("column_totals"), keys.get("total").cloned().unwrap_or_default()));
    let names = |key: &str| with_total(keys.get(key), Value::from("total"));
    print_matrix("", Some(&names("rows")), Some(&names("columns")), Some(&Value::Array(matrix)));
    record(keys, &["rows", "columns", "counts", "row_totals", "column_totals", "total", "expected"]);
}

/// Objects of equally long lists become lists of objects, which are rows of a table.
fn transposed(keys: &Map<String, Value>) -> Value {
    keys.iter().map(|(key, value)| (key.clone(), rows_of(value))).collect()
}

fn rows_of(value: &Value) -> Value {
    match value {
        Value::Object(keys) => {
            let lens: Vec<usize> = keys.values().filter_map(Value::as_array).map(Vec::len).collect();
            let is_table = !lens.is_empty() && lens.len() + 1 >= keys.len() && lens.iter().all(|len| *len == lens[0]);
            if !is_table || lens[0] < 2 {
                return value.clone();
            }
            let cell = |(key, column): (&String, &Value), row: usize| {
                let cell = column.as_array().map_or_else(|| column.clone(), |column| column[row].clone());
                (key.clone(), cell)
            };
            (0..lens[0]).map(|row| keys.iter().map(|column| cell(column, row)).collect::<Value>()).collect()
        }
        Value::Array(values) => {
            // Curves are lists in a list: each point is a row.
            let rows = values.iter().map(rows_of).flat_map(|row| match row {
                Value::Array(rows) if rows.iter().all(Value::is_object) => rows,
                other => vec![other],
            });
            rows.collect()
        }
        other => other.clone(),
    }
}

/// One row for each column, and the categories below.
fn described(keys: &Map<String, Value>) {
    let Some(Value::Object(columns)) = keys.get("columns") else { return };
    let mut numbers: Vec<Map<String, Value>> = Vec::new();
    let mut categories: Vec<Map<String, Value>> = Vec::new();
    for (name, column) in columns {
        let Value::Object(column) = column else { continue };
        if let Some(Value::Object(levels)) = column.get("categories") {
            for (level, count) in levels {
                categories.push(Map::from_iter([
                    ("column".to_owned(), Value::from(name.as_str())),
                    ("level".to_owned(), Value::from(level.as_str())),
                    ("count".to_owned(), Value::from(shown(count))),
                ]));
            }
            continue;
        }
        let mut row = Map::from_iter([("column".to_owned(), Value::from(name.as_str()))]);
        for key in ["count", "missing", "mean", "sd", "min", "max"] {
            row.extend(column.get(key).map(|value| (key.to_owned(), Value::from(shown(value)))));
        }
        if let Some(Value::Object(quantiles)) = column.get("quantiles") {
            for (quantile, value) in quantiles {
                // A quantile may come with the interval in which it lies.
                let value = value.get("value").unwrap_or(value);
                row.insert(format!("q{quantile}"), Value::from(shown(value)));
            }
        }
        numbers.push(row);
    }
    if !numbers.is_empty() {
        print_rows(&numbers, false, &[], "");
    }
    if !categories.is_empty() {
        print_rows(&categories, false, &[], "");
    }
}

/// Says whose rows are in an answer.
pub(crate) fn print_sites(answer: &Answer) {
    print(format!("sites: {}", answer.sites_used.join(", ")));
    for left in &answer.sites_left_out {
        print(format!("left out: {}: {}", left.site, left.reason));
    }
}

/// The most levels of a column that are printed.
const MOST_LEVELS: usize = 8;

/// Prints columns by sites.
pub(crate) fn print_schema(datasets: &[DatasetRow], json: bool) {
    let sites = datasets.iter().map(|row| Site { name: &row.node, columns: &row.columns, levels: &row.levels });
    let schema = schema(&sites.collect::<Vec<_>>());
    if json {
        return print_json(&schema);
    }
    let row = |column: &SchemaColumn| {
        let mut cells = Map::from_iter([("column".to_owned(), Value::from(column.column.as_str()))]);
        let kind = |kind: &Option<ColumnKind>| Value::from(kind.map_or("-", ColumnKind::name));
        cells.extend(column.sites.iter().map(|(site, at)| (site.clone(), kind(at))));
        let mut levels: Vec<String> = column.levels.iter().take(MOST_LEVELS).map(ToString::to_string).collect();
        if column.levels.len() > MOST_LEVELS {
            levels.push(format!("… ({} in all)", column.levels.len()));
        }
        cells.insert("levels".to_owned(), Value::from(levels.join(", ")));
        cells.insert("remark".to_owned(), Value::from(column.remark.as_deref().unwrap_or("")));
        cells
    };
    print_rows(&schema.iter().map(row).collect::<Vec<_>>(), false, &[], "no columns");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_digits() {
        let cases = [
            (0.0, "0"),
            (54.366_667, "54.3667"),
            (1e-9, "1.0000e-9"),
            (1_234_567.0, "1234567"),
            (0.012_345_67, "0.0123457"),
            (-2.5, "-2.5"),
        ];
        for (number, text) in cases {
            assert_eq!(rounded(number), text);
        }
    }
}
