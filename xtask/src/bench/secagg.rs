//! Secure aggregation: what masks and encryption cost by themselves, and what rounds cost with and without them.

use serde::Deserialize;

use super::bulk::Model;
use super::federation::Federation;
use super::{Bar, Figure, median};
use crate::project::{Problem, Project, output_of};

/// About 10⁶ parameters.
const MILLION: Model = Model { hidden: [1000, 966] };
const TEN_MILLION: Model = super::bulk::TEN_MILLION;
const MASKED: &str = "secagg = \"lom\"";
const IN_CLEAR: &str = "secagg = \"none\"";

/// What secagg's example `figures` prints, one a line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Line {
    name: String,
    value: f64,
}

/// Without sockets and disks, in processor time; of Joye and Libert's scheme a tenth of the parameters, for all of them take minutes.
pub(super) fn of_crate(project: &Project) -> Result<Vec<Figure>, Problem> {
    of_crate_with(project, 10_000)
}

/// As [`of_crate`], with all 10⁵ parameters.
pub(super) fn of_crate_in_full(project: &Project) -> Result<Vec<Figure>, Problem> {
    of_crate_with(project, 100_000)
}

fn of_crate_with(project: &Project, encrypted: u32) -> Result<Vec<Figure>, Problem> {
    let masks = lines(project, &["masks"])?;
    let raw = value(&masks, "key stream")?;
    let mut figures = vec![Figure::new("raw key stream of AES-128 on one core", raw, "GB/s", Bar::None)];
    for bits in [32, 64, 128] {
        let rate = value(&masks, &format!("masks of {bits} bits"))?;
        figures.push(Figure::new(
            format!("masks modulo 2^{bits} beside the key stream"),
            rate / raw,
            "×",
            Bar::AtLeast(0.6),
        ));
    }
    let nodes = lines(project, &["nodes"])?;
    let (small, large) = (value(&nodes, "node of 30")?, value(&nodes, "node of 100")?);
    let sparse = value(&nodes, "node of 100 with c = 10")?;
    let bytes = value(&nodes, "bytes for each parameter of 100")?;
    figures.extend([
        Figure::new("node of 30, 10⁶ parameters, 6 lost", small * 1e3, "ms", Bar::None),
        Figure::new("node of 100, 20 lost, beside one of 30", large / small, "×", Bar::AtMost(3.5)),
        Figure::new("node of 100, 20 lost, c = 10, beside one of 30", sparse / small, "×", Bar::AtMost(2.0)),
        Figure::new("bytes that a node of 100 sends for each parameter", bytes, "B", Bar::AtMost(4.2)),
    ]);
    let signatures = lines(project, &["signatures"])?;
    for name in ["signature", "check of a signature"] {
        figures.push(Figure::new(name, value(&signatures, name)? * 1e6, "µs", Bar::None));
    }
    let encryption = lines(project, &["joye-libert", &encrypted.to_string()])?;
    let of = |what: &str| format!("joye-libert, {encrypted} parameters, 3 nodes: {what}");
    let left = value(&encryption, "from the end of training to the sum")?;
    // 1 s for 10⁵ parameters.
    let bar = Bar::AtMost(f64::from(encrypted) / 1e5);
    figures.extend([
        Figure::new(of("from the end of training to the sum"), left, "s", bar),
        Figure::new(of("masks, processor time of all"), value(&encryption, "masks")?, "s", Bar::None),
        Figure::new(of("total beside powers"), value(&encryption, "total beside powers")?, "×", Bar::AtMost(1.15)),
        Figure::new(of("bytes for each parameter"), value(&encryption, "bytes for each parameter")?, "B", Bar::None),
    ]);
    Ok(figures)
}

/// 10⁶ parameters and 3 nodes under masks.
pub(super) fn round(project: &Project) -> Result<Vec<Figure>, Problem> {
    let federation = Federation::start(project, 3, 200)?;
    federation.run(&MILLION.experiment_with(MASKED, 2))?;
    let seconds = rounds(&federation, MILLION, MASKED, 21)?;
    Ok(vec![Figure::new("round of 10⁶ parameters, 3 nodes, lom", seconds * 1e3, "ms", Bar::AtMost(60.0))])
}

/// 10⁷ parameters and 10 nodes, with and without masks by turns.
pub(super) fn ratio(project: &Project) -> Result<Vec<Figure>, Problem> {
    const TURNS: usize = 3;
    let federation = Federation::start(project, 10, 200)?;
    federation.run(&TEN_MILLION.experiment_with(MASKED, 1))?;
    let (mut masked, mut clear) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        clear.push(rounds(&federation, TEN_MILLION, IN_CLEAR, 5)?);
        masked.push(rounds(&federation, TEN_MILLION, MASKED, 5)?);
    }
    let (masked, clear) = (median(masked), median(clear));
    Ok(vec![
        Figure::new("round of 10⁷ parameters, 10 nodes, none", clear, "s", Bar::None),
        Figure::new("round of 10⁷ parameters, 10 nodes, lom", masked, "s", Bar::None),
        Figure::new("round of 10⁷ parameters, 10 nodes, lom beside none", masked / clear, "×", Bar::AtMost(1.5)),
    ])
}

/// Gives the median seconds of an experiment's rounds but the first, which agrees on keys.
fn rounds(federation: &Federation, model: Model, secagg: &str, rounds: usize) -> Result<f64, Problem> {
    let (all, _) = federation.run(&model.experiment_with(secagg, rounds))?;
    Ok(median(all.iter().skip(1).map(|round| round.seconds).collect()))
}

fn lines(project: &Project, arguments: &[&str]) -> Result<Vec<Line>, Problem> {
    let mut cargo = project.cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "secagg", "--example", "figures", "--"]).args(arguments);
    parse(&output_of(&mut cargo)?)
}

fn parse(text: &str) -> Result<Vec<Line>, Problem> {
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|_| Problem::Unexpected {
            what: "secagg's example figures".into(),
            expected: "a name and a value as JSON, one a line",
            found: line.into(),
        })
    };
    text.lines().map(parse).collect()
}

fn value(lines: &[Line], name: &str) -> Result<f64, Problem> {
    lines.iter().find(|line| line.name == name).map(|line| line.value).ok_or_else(|| Problem::Unexpected {
        what: "secagg's example figures".into(),
        expected: "a figure",
        found: format!("none named {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_name() {
        let lines = parse("{\"name\":\"a\",\"value\":0.5}\n{\"name\":\"b\",\"value\":2}\n").unwrap();
        assert_eq!(value(&lines, "b").unwrap(), 2.0);
        assert!(value(&lines, "c").is_err());
        assert!(parse("0.5\n").is_err());
    }

    #[test]
    fn the_model_has_about_as_many_parameters_as_said() {
        assert!((990_000..=1_000_000).contains(&MILLION.parameters()));
    }
}
