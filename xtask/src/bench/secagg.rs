//! Secure aggregation: what masks and encryption cost by themselves, and what rounds cost with and without them.

use serde::Deserialize;

use super::bulk::Model;
use super::federation::Federation;
use super::{Bar, Figure, median};
use crate::project::{Problem, Project, output_of};

/// About 10⁶ parameters.
const MILLION: Model = Model { hidden: [1000, 966] };
/// As few as a model with two hidden layers has.
const SMALL: Model = Model { hidden: [2, 5] };
const TEN_MILLION: Model = super::bulk::TEN_MILLION;
/// About 10⁴ parameters.
const TEN_THOUSAND: Model = Model { hidden: [95, 72] };
/// About 10⁵ parameters.
const HUNDRED_THOUSAND: Model = Model { hidden: [316, 284] };
const ENCRYPTED: &str = "secagg = \"joye-libert\"";
const MASKED: &str = "secagg = \"lom\"";
const IN_CLEAR: &str = "secagg = \"none\"";

/// What secagg's example `figures` prints, one a line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Line {
    name: String,
    value: f64,
}

/// Every row of what secure aggregation is to reach, with its bar: of the crate, and of rounds of real processes.
pub(super) fn all(project: &Project) -> Result<Vec<Figure>, Problem> {
    all_with(project, of_crate)
}

/// As [`all`], with all 10⁵ parameters under Joye-Libert.
pub(super) fn all_in_full(project: &Project) -> Result<Vec<Figure>, Problem> {
    all_with(project, of_crate_in_full)
}

fn all_with(project: &Project, of_crate: fn(&Project) -> Result<Vec<Figure>, Problem>) -> Result<Vec<Figure>, Problem> {
    let mut figures = round(project)?;
    figures.extend(ratio(project)?);
    figures.extend(encrypted(project)?);
    figures.extend(of_crate(project)?);
    Ok(figures)
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

/// 10⁶ parameters and 3 nodes, with and without masks by turns.
pub(super) fn round(project: &Project) -> Result<Vec<Figure>, Problem> {
    const TURNS: usize = 3;
    let federation = Federation::start(project, 3, 200)?;
    federation.run(&MILLION.experiment_with(MASKED, 2))?;
    let (mut masked, mut clear) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        clear.extend(rounds(&federation, MILLION, IN_CLEAR, 15)?);
        masked.extend(rounds(&federation, MILLION, MASKED, 15)?);
    }
    let least = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min) * 1e3;
    let (least_clear, least_masked) = (least(&clear), least(&masked));
    let of = |what: &str| format!("round of 10⁶ parameters, 3 nodes, {what}");
    Ok(vec![
        Figure::new(of("none"), median(clear) * 1e3, "ms", Bar::None),
        Figure::new(of("none, the fastest"), least_clear, "ms", Bar::None),
        Figure::new(of("lom"), median(masked) * 1e3, "ms", Bar::AtMost(60.0)),
        Figure::new(of("lom, the fastest"), least_masked, "ms", Bar::None),
    ])
}

/// 10⁷ parameters and 10 nodes, with and without masks by turns.
pub(super) fn ratio(project: &Project) -> Result<Vec<Figure>, Problem> {
    const TURNS: usize = 3;
    let federation = Federation::start(project, 10, 200)?;
    federation.run(&TEN_MILLION.experiment_with(MASKED, 1))?;
    let (mut masked, mut clear) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        clear.push(median(rounds(&federation, TEN_MILLION, IN_CLEAR, 5)?));
        masked.push(median(rounds(&federation, TEN_MILLION, MASKED, 5)?));
    }
    let (masked, clear) = (median(masked), median(clear));
    Ok(vec![
        Figure::new("round of 10⁷ parameters, 10 nodes, none", clear, "s", Bar::None),
        Figure::new("round of 10⁷ parameters, 10 nodes, lom", masked, "s", Bar::None),
        Figure::new("round of 10⁷ parameters, 10 nodes, lom beside none", masked / clear, "×", Bar::AtMost(1.5)),
    ])
}

/// A tenth of what [`encrypted_in_full`] measures.
pub(super) fn encrypted(project: &Project) -> Result<Vec<Figure>, Problem> {
    encrypted_with(project, TEN_THOUSAND)
}

/// 10⁵ parameters and 3 nodes under Joye-Libert: how long after the last training the sum is there, when training lasts longer than
/// what can be computed meanwhile. The round's other parts, as sending the tasks, are counted too.
pub(super) fn encrypted_in_full(project: &Project) -> Result<Vec<Figure>, Problem> {
    encrypted_with(project, HUNDRED_THOUSAND)
}

fn encrypted_with(project: &Project, model: Model) -> Result<Vec<Figure>, Problem> {
    /// A training of so many takes longer than the powers that are computed beside it, for models of both sizes.
    const UPDATES: usize = 40_000;
    let federation = Federation::start(project, 3, 200)?;
    let training = format!("num_updates = {UPDATES}\n            batch_size = 0");
    let experiment = model.experiment_with(ENCRYPTED, 1).replace("num_updates = 0", &training);
    let (all, _) = federation.run(&experiment)?;
    let trained = (0..3).map(|number| federation.trained_seconds(number)).collect::<Result<Vec<_>, _>>()?;
    let trained = trained.into_iter().fold(0.0, f64::max);
    let round = all.last().map_or(f64::NAN, |round| round.seconds);
    let of = |what: &str| format!("joye-libert in the product, {} parameters, 3 nodes, {what}", model.parameters());
    Ok(vec![
        Figure::new(of("the longest training"), trained, "s", Bar::None),
        Figure::new(of("from its end to the sum"), round - trained, "s", Bar::AtMost(1.0)),
    ])
}

/// Gives the seconds of an experiment's rounds but the first, which agrees on keys.
fn rounds(federation: &Federation, model: Model, secagg: &str, rounds: usize) -> Result<Vec<f64>, Problem> {
    let (all, _) = federation.run(&model.experiment_with(secagg, rounds))?;
    Ok(all.iter().skip(1).map(|round| round.seconds).collect())
}

/// What a researcher with 30 nodes writes, to its disk and to the nodes, for a round of a model that is hardly there.
pub(super) fn written(project: &Project) -> Result<Vec<Figure>, Problem> {
    const ROUNDS: usize = 20;
    let federation = Federation::start(project, 30, 200)?;
    let bytes = |secagg: &str| -> Result<f64, Problem> {
        federation.run(&SMALL.experiment_with(secagg, 1))?;
        let before = super::federation::written(federation.researcher_process())?;
        federation.run(&SMALL.experiment_with(secagg, ROUNDS))?;
        Ok((super::federation::written(federation.researcher_process())? - before) as f64 / ROUNDS as f64 / 1e6)
    };
    let (clear, masked) = (bytes(IN_CLEAR)?, bytes(MASKED)?);
    Ok(vec![
        Figure::new("researcher's writes in a round, 30 nodes, 83 parameters, none", clear, "MB", Bar::None),
        Figure::new("researcher's writes in a round, 30 nodes, 83 parameters, lom", masked, "MB", Bar::None),
    ])
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
