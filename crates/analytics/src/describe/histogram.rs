//! Histograms: how many values lie between edges that the plan gives, or that are round numbers around most of the values.

use protocol::Pass;
use protocol::statistic::Describe;

use super::HistogramAnswer;
use super::search::{Found, Wanted, place};
use crate::analysis::{Cell, CellKind};
use crate::survey::whole;

const EDGES: &str = "edges";

/// The edges of each column that has a histogram.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Histograms {
    of: Vec<(usize, Vec<f64>)>,
}

impl Histograms {
    /// Chooses the edges after the first step of the search.
    ///
    /// Where neither edges nor a range are declared, they are multiples of 1, 2 or 5 times a power of ten, from where the search found at least
    /// the plan's minimum of rows at either end: no edge is a value of a row.
    pub(super) fn plan(plan: &Describe, grids: &[Found]) -> Self {
        if plan.bins() == 0 {
            return Self {
                of: plan.numbers().iter().enumerate().filter_map(|(at, number)| Some((at, number.edges.clone()?))).collect(),
            };
        }
        let edges = plan.numbers().iter().enumerate().filter_map(|(column, number)| {
            if let Some(edges) = &number.edges {
                return Some((column, edges.clone()));
            }
            if let Some(range) = number.range {
                return Some((column, equal(range.low(), range.high(), plan.bins())));
            }
            let count: u64 = grids.iter().find(|found| found.grid.column() == column)?.bins.iter().sum();
            let minimum = plan.minimum_rows().min(count).max(1);
            let end = |rank: u64| place(grids, Wanted { column, rank, minimum, is_whole: false });
            let (low, high) = (end(minimum - 1)?, end(count.checked_sub(minimum)?)?);
            Some((column, round(low.value - low.error, high.value + high.error, plan.bins())))
        });
        Self { of: edges.collect() }
    }

    /// Adds the edges to a pass: for each column its position, how many edges there are, and these.
    pub(super) fn give(&self, pass: Pass) -> Pass {
        if self.of.is_empty() {
            return pass;
        }
        let given = self
            .of
            .iter()
            .flat_map(|(column, edges)| [*column as f64, edges.len() as f64].into_iter().chain(edges.iter().copied()));
        let given = given.collect();
        pass.with(EDGES, given)
    }

    /// The edges that a pass gives; `None` if they are none.
    pub(super) fn of(pass: &Pass, columns: usize) -> Option<Self> {
        let mut rest = pass.get(EDGES).unwrap_or(&[]);
        let mut of: Vec<(usize, Vec<f64>)> = Vec::new();
        while let [column, len, edges @ ..] = rest {
            let column = usize::try_from(whole(*column)?).ok().filter(|column| *column < columns)?;
            let len = usize::try_from(whole(*len)?).ok().filter(|len| (2..=edges.len()).contains(len))?;
            let (edges, after) = edges.split_at(len);
            let is_next = of.last().is_none_or(|(before, _)| *before < column);
            if !is_next || !edges.windows(2).all(|pair| pair[0] < pair[1]) {
                return None;
            }
            of.push((column, edges.to_vec()));
            rest = after;
        }
        rest.is_empty().then_some(Self { of })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn columns(&self) -> usize {
        self.of.len()
    }

    /// The number of counts: for each column those below and above, and between edges.
    pub(super) fn len(&self) -> usize {
        self.of.iter().map(|(_, edges)| edges.len() + 1).sum()
    }

    pub(super) fn count(&self, columns: &[&[f64]], counts: &mut [u64]) {
        let mut rest = counts;
        for (column, edges) in &self.of {
            let (counts, after) = rest.split_at_mut(edges.len() + 1);
            let last = edges[edges.len() - 1];
            for value in columns[*column].iter().filter(|value| !value.is_nan()) {
                // The last bin holds its upper edge.
                let edge = edges.partition_point(|edge| edge <= value);
                counts[if *value == last { edge - 1 } else { edge }] += 1;
            }
            rest = after;
        }
    }

    /// What each count is about.
    pub(super) fn cells(&self, names: &[String], counts: &[u64]) -> Vec<Cell> {
        let mut cells = Vec::with_capacity(counts.len());
        let mut counts = counts.iter();
        for (column, edges) in &self.of {
            let name = &names[*column];
            let bins = (0..=edges.len()).map(|bin| match bin {
                0 => format!("{name} below {}", edges[0]),
                bin if bin == edges.len() => format!("{name} above {}", edges[bin - 1]),
                bin => format!("{name} from {} to {}", edges[bin - 1], edges[bin]),
            });
            cells.extend(bins.zip(counts.by_ref()).map(|(of, count)| Cell { kind: CellKind::Rows, of, count: *count }));
        }
        cells
    }

    pub(super) fn answer(&self, column: usize, counts: &[u64]) -> Option<HistogramAnswer> {
        let mut rest = counts;
        for (at, edges) in &self.of {
            let (counts, after) = rest.split_at_checked(edges.len() + 1)?;
            if *at == column {
                let shown: Vec<Option<u64>> = counts.iter().copied().map(Some).collect();
                let counts = shown[1..edges.len()].to_vec();
                return Some(HistogramAnswer { edges: edges.clone(), counts, below: shown[0], above: shown[edges.len()] });
            }
            rest = after;
        }
        None
    }
}

/// Equal bins.
fn equal(low: f64, high: f64, bins: usize) -> Vec<f64> {
    let width = (high - low) / bins as f64;
    let mut edges: Vec<f64> = (0..bins).map(|bin| low + bin as f64 * width).collect();
    edges.push(high);
    // Of a range that is not wider than a few roundings, edges can be equal.
    edges.dedup();
    edges
}

/// About as many bins, whose edges are multiples of 1, 2 or 5 times a power of ten.
fn round(low: f64, high: f64, bins: usize) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE).max(low.abs().max(high.abs()) * 1e-12);
    let rough = span / bins as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * (1.0 - 1e-9))
        .unwrap_or(rough);
    let first = (low / step).floor();
    let mut edges = vec![first * step];
    for index in 1..=bins + 2 {
        edges.push((first + index as f64) * step);
        if edges[index] >= high {
            break;
        }
    }
    edges.dedup();
    if edges.len() < 2 { vec![low, low + span] } else { edges }
}
