//! One epoch of native logistic regression over 10⁶ × 30, beside scikit-learn's in the same run.

use serde::Deserialize;

use super::{Bar, Figure, median};
use crate::project::{Problem, Project, output_of};
use crate::setup::BENCH_VENV;

const ROWS: u32 = 1_000_000;
const COLUMNS: u32 = 30;
/// Runs of scikit-learn in a turn; the turns alternate, so that both see the machine in the same state.
const RUNS: u32 = 3;
const TURNS: u32 = 3;

/// What learning's example `throughput` prints: medians of its own.
#[derive(Deserialize)]
struct Throughput {
    samples_per_second: Rates,
}

#[derive(Deserialize)]
struct Rates {
    logistic_batch_1: f64,
    logistic_batch_64: f64,
}

pub(super) fn run(project: &Project) -> Result<Vec<Figure>, Problem> {
    BENCH_VENV.provide(project)?;
    let (mut ours, mut ours_64, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let Rates { logistic_batch_1, logistic_batch_64 } = native(project)?.samples_per_second;
        ours.push(f64::from(ROWS) / logistic_batch_1);
        ours_64.push(f64::from(ROWS) / logistic_batch_64);
        theirs.extend(scikit_learn(project)?);
    }
    let (ours, ours_64, theirs) = (median(ours), median(ours_64), median(theirs));
    Ok(vec![
        Figure::new("logistic epoch, 10⁶ × 30, batch 1", ours, "s", Bar::None),
        Figure::new("logistic epoch, 10⁶ × 30, batch 64", ours_64, "s", Bar::None),
        Figure::new("scikit-learn SGDClassifier epoch, 10⁶ × 30, batch 1", theirs, "s", Bar::None),
        Figure::new("logistic epoch, times faster than scikit-learn", theirs / ours, "×", Bar::AtLeast(3.0)),
    ])
}

fn native(project: &Project) -> Result<Throughput, Problem> {
    let mut cargo = project.cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "learning", "--example", "throughput", "--"]);
    let text = output_of(cargo.arg(ROWS.to_string()))?;
    serde_json::from_str(&text).map_err(|_| Problem::Unexpected {
        what: "learning's example throughput".into(),
        expected: "samples per second as JSON",
        found: text,
    })
}

fn scikit_learn(project: &Project) -> Result<Vec<f64>, Problem> {
    let mut python = project.command(BENCH_VENV.python(project));
    python.args(["-c", include_str!("logistic.py")]);
    python.args([ROWS, COLUMNS, RUNS].map(|number| number.to_string())).arg("float32");
    seconds("scikit-learn", &output_of(&mut python)?)
}

/// Reads one number of seconds a line.
pub(super) fn seconds(what: &str, text: &str) -> Result<Vec<f64>, Problem> {
    let parse = |line: &str| {
        let number = line.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
        number.ok_or_else(|| Problem::Unexpected {
            what: what.into(),
            expected: "seconds, one number a line",
            found: line.into(),
        })
    };
    text.lines().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_seconds() {
        assert_eq!(seconds("x", "0.5\n1.25\n").unwrap(), [0.5, 1.25]);
        assert!(seconds("x", "0.5 s\n").is_err());
        assert!(seconds("x", "0\n").is_err());
    }
}
