//! Benchmarks: figures with medians, beside the bars they are meant to reach. Not tests: nothing here is timed in CI.

mod bulk;
mod federation;
mod idle;
mod logistic;
mod relay;
mod rounds;
mod secagg;

use std::path::Path;

use serde::Serialize;

use crate::project::{Problem, Project};

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// Told, not judged.
    None,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// The number to reach; absent if the figure is told only.
    bar: Option<f64>,
    ok: bool,
    #[serde(skip)]
    sign: &'static str,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str, bar: Bar) -> Self {
        let (bar, sign, ok) = match bar {
            Bar::AtLeast(bar) => (Some(bar), "≥", value >= bar),
            Bar::AtMost(bar) => (Some(bar), "≤", value <= bar),
            Bar::None => (None, "", true),
        };
        Self { name: name.into(), value, unit, bar, ok, sign }
    }
}

/// A measurement: its name and what does it.
type Bench = (&'static str, fn(&Project) -> Result<Vec<Figure>, Problem>);

const BENCHES: [Bench; 13] = [
    ("round", rounds::round),
    ("move", bulk::moving),
    ("memory", bulk::of_memory),
    ("large", bulk::large),
    ("idle", idle::run),
    ("scale", rounds::scale),
    ("logistic", logistic::run),
    ("secagg", secagg::all),
    ("secagg-crate", secagg::of_crate),
    ("secagg-round", secagg::round),
    ("secagg-ratio", secagg::ratio),
    ("secagg-writes", secagg::written),
    ("secagg-encrypted", secagg::encrypted),
];

/// What `secagg` measures too.
const PARTS: [&str; 4] = ["secagg-crate", "secagg-round", "secagg-ratio", "secagg-encrypted"];

/// What `--full` measures instead of the one of the same name, for minutes.
const IN_FULL: [Bench; 3] = [
    ("secagg", secagg::all_in_full),
    ("secagg-crate", secagg::of_crate_in_full),
    ("secagg-encrypted", secagg::encrypted_in_full),
];

pub(crate) fn run(project: &Project, arguments: &[&str]) -> Result<(), Problem> {
    let full = arguments.contains(&"--full");
    let arguments: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != "--full").collect();
    let (name, file) = match arguments.as_slice() {
        [] => ("", None),
        ["--json", file] => ("", Some(*file)),
        [name] if !name.starts_with('-') => (*name, None),
        [name, "--json", file] | ["--json", file, name] => (*name, Some(*file)),
        _ => return Err(Problem::Usage("usage: cargo xtask bench [NAME] [--full] [--json FILE]")),
    };
    let is_whole = BENCHES.iter().any(|(bench, _)| *bench == name);
    // What is part of another one is measured with it, or by its own name.
    let is_whole_of = |bench: &str| !PARTS.contains(&bench) && bench.starts_with(name);
    let is_chosen = |bench: &str| if is_whole { bench == name } else { is_whole_of(bench) };
    let chosen: Vec<&Bench> = BENCHES.iter().filter(|(bench, _)| is_chosen(bench)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        return Err(Problem::Unexpected {
            what: "bench".into(),
            expected: "a known name",
            found: format!("{name:?}; there are: {}", names.join(", ")),
        });
    }
    let mut figures = Vec::new();
    for bench in chosen {
        let (name, measure) = IN_FULL.iter().find(|(name, _)| full && *name == bench.0).unwrap_or(bench);
        println!("== {name}");
        figures.extend(measure(project)?);
    }
    print_table(&figures);
    if let Some(file) = file {
        let json = serde_json::to_string_pretty(&figures).expect("a figure has text keys and finite numbers");
        std::fs::write(file, json + "\n").map_err(|source| Problem::File { path: Path::new(file).to_owned(), source })?;
    }
    let below: Vec<String> = figures.into_iter().filter(|figure| !figure.ok).map(|figure| figure.name).collect();
    if below.is_empty() { Ok(()) } else { Err(Problem::BelowBar(below)) }
}

fn print_table(figures: &[Figure]) {
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or_default();
    println!();
    for Figure { name, value, unit, bar, ok, sign } in figures {
        let bar = bar.map(|bar| format!("{sign} {bar}")).unwrap_or_default();
        let word = if *ok { "" } else { "BELOW" };
        println!("{name:<width$}  {value:>12.4} {unit:<8} {bar:<8} {word}");
    }
}

/// The middle value; the mean of the two middle ones for an even number. Not a number for none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_figure_is_judged_by_its_bar() {
        assert!(Figure::new("ratio", 3.0, "x", Bar::AtLeast(3.0)).ok);
        assert!(!Figure::new("ratio", 2.9, "x", Bar::AtLeast(3.0)).ok);
        assert!(Figure::new("told", 2.9, "s", Bar::None).ok);
    }
}
