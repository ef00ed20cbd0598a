//! A federation in memory: nodes tally their batches on several threads' behalf, encode, and the researcher sums and decodes.

use analytics::analysis::{Analysis, AnalysisError, Answered, Batch, Column, Input, MISSING, Next, OTHER, Tallied, Tally};
use protocol::{Category, Integers, Level, Pass, VectorSpec};

use crate::world::frame::{Cells, Frame};
use crate::world::value::{Value, evaluate};

/// More passes than any statistic makes.
const MAX_PASSES: usize = 200;

/// Asks a statistic of these sites, whose rows come in batches of 64.
pub(crate) fn answer<A: Analysis>(analysis: &A, sites: &[Frame]) -> Result<A::Answer, AnalysisError> {
    answer_in_batches(analysis, sites, 64)
}

/// The same with batches of this many rows, which two tallies share.
pub(crate) fn answer_in_batches<A: Analysis>(
    analysis: &A,
    sites: &[Frame],
    rows: usize,
) -> Result<A::Answer, AnalysisError> {
    passes(analysis, sites, rows).map(|(answer, _)| answer)
}

/// The answer, and what every pass gave.
pub(crate) fn passes<A: Analysis>(
    analysis: &A,
    sites: &[Frame],
    rows: usize,
) -> Result<(A::Answer, Vec<Answered>), AnalysisError> {
    let batches: Vec<Vec<Batch>> = sites.iter().map(|site| batches(site, &analysis.inputs(), rows)).collect();
    let mut history = Vec::new();
    while history.len() < MAX_PASSES {
        match analysis.next(&history)? {
            Next::Done(answer) => return Ok((answer, history)),
            Next::Ask(pass) => {
                // What travels is text.
                let pass: Pass = serde_json::from_str(&serde_json::to_string(&pass).unwrap()).unwrap();
                let sums = pass_sums(analysis, &pass, &batches)?;
                history.push(Answered { pass, sums });
            }
        }
    }
    panic!("more than {MAX_PASSES} passes");
}

/// What one node contributes to a pass.
pub(crate) fn contribute<A: Analysis>(analysis: &A, pass: &Pass, batches: &[Batch]) -> Result<Tallied, AnalysisError> {
    contribute_boxed(|| analysis.tally(pass), batches)
}

/// The same with whatever makes empty tallies.
pub(crate) fn contribute_boxed(
    tally: impl Fn() -> Result<Box<dyn Tally>, AnalysisError>,
    batches: &[Batch],
) -> Result<Tallied, AnalysisError> {
    let mut tallies: Vec<Box<dyn Tally>> = vec![tally()?, tally()?];
    for (index, batch) in batches.iter().enumerate() {
        tallies[index % 2].add(batch);
    }
    let second = tallies.pop().expect("two tallies");
    let mut first = tallies.pop().expect("two tallies");
    first.merge(second);
    first.finish()
}

fn pass_sums<A: Analysis>(analysis: &A, pass: &Pass, nodes: &[Vec<Batch>]) -> Result<Vec<Vec<f64>>, AnalysisError> {
    let layout = analysis.layout(pass)?;
    let names: Vec<&str> = layout.iter().map(|spec| spec.name.as_str()).collect();
    assert!(names.iter().enumerate().all(|(at, name)| !names[..at].contains(name)), "names twice: {names:?}");
    let mut sums: Vec<Integers> =
        layout.iter().map(|spec| Integers::zeros(spec.encoding.width, spec.elements().expect("a size"))).collect();
    for batches in nodes {
        let tallied = contribute(analysis, pass, batches)?;
        assert_eq!(tallied.vectors.len(), layout.len(), "{}", pass.step);
        for ((vector, spec), sum) in tallied.vectors.iter().zip(&layout).zip(&mut sums) {
            assert!(sum.add(spec.encoding.width, &encoded(&vector.values, spec, &vector.name)));
        }
    }
    let decode = |(spec, sum): (&VectorSpec, &Integers)| sum.sums().map(|sum| spec.encoding.decode(sum)).collect();
    Ok(layout.iter().zip(&sums).map(decode).collect())
}

fn encoded(values: &[f64], spec: &VectorSpec, name: &str) -> Vec<u8> {
    assert_eq!(name, spec.name);
    assert_eq!(Some(values.len()), spec.elements(), "{name}");
    assert!(spec.encoding.is_valid(), "{name}: {:?}", spec.encoding);
    let mut bytes = Vec::new();
    spec.encoding.encode(values.iter().copied(), &mut bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    bytes
}

/// The rows of a site as a statistic reads them.
pub(crate) fn batches(site: &Frame, inputs: &[Input], rows: usize) -> Vec<Batch> {
    let all: Vec<Column> = inputs.iter().map(|input| column(site, input)).collect();
    let cut = |start: usize| {
        let end = (start + rows).min(site.rows);
        let columns = all.iter().map(|column| match column {
            Column::Numbers(values) => Column::Numbers(values[start..end].to_vec()),
            Column::Levels(codes) => Column::Levels(codes[start..end].to_vec()),
        });
        Batch { rows: end - start, columns: columns.collect() }
    };
    (0..site.rows).step_by(rows.max(1)).map(cut).collect()
}

fn column(site: &Frame, input: &Input) -> Column {
    match input {
        Input::Number(expression) => match expression.as_column() {
            Some(name) => Column::Numbers(site.numbers(name).to_vec()),
            None => Column::Numbers((0..site.rows).map(|row| evaluate(expression, site, row).number()).collect()),
        },
        Input::Levels(category) => Column::Levels((0..site.rows).map(|row| code(site, category, row)).collect()),
    }
}

fn code(site: &Frame, category: &Category, row: usize) -> u32 {
    let value = match site.cells(category.column()) {
        Cells::Numbers(numbers) => Value::Number(numbers[row]),
        Cells::Texts(texts) => Value::Text(texts[row].clone()),
    };
    let is_it = |level: &Level| match (&value, level) {
        (Value::Number(number), Level::Number(level)) => number == level,
        (Value::Text(text), Level::Text(level)) => text.as_ref() == Some(level),
        _ => false,
    };
    match &value {
        Value::Number(number) if number.is_nan() => MISSING,
        Value::Text(None) => MISSING,
        _ => category.levels().iter().position(is_it).map_or(OTHER, |at| u32::try_from(at).unwrap()),
    }
}

/// Deals rows to sites, of which some may stay empty: row i goes to site `deal[i % deal.len()] % sites`.
pub(crate) fn split(all: &Frame, sites: usize, deal: &[usize]) -> Vec<Frame> {
    let rows_of = |site: usize| (0..all.rows).filter(|row| deal[row % deal.len()] % sites == site).collect::<Vec<usize>>();
    (0..sites).map(|site| all.take(&rows_of(site))).collect()
}
