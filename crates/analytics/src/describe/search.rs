//! The search for quantiles: counts in 1,024 bins of each column at once, then in 1,024 bins of those that matter, and a third time.
//!
//! Nobody's value is sent: bins are halves of powers of two, or equal parts of the range that the plan declares, and what is answered is a place that
//! holds at least the plan's minimum of rows, with its width as the error. A bin is not looked into if it holds fewer than twice the minimum.

use protocol::Pass;

use crate::analysis::AnalysisError;
use crate::survey::whole;

/// Bins of a grid.
pub(super) const BINS: usize = 1_024;
/// The most grids of a pass: 67 MB.
const MAX_GRIDS: usize = 8_192;
const GRIDS: &str = "grids";

/// Binary orders of magnitude that the first grid tells apart if no range is declared, and parts of each.
const OCTAVES: i32 = 63;
const PARTS: i32 = 8;
/// Edges above 0 of such a grid.
const POSITIVE_EDGES: usize = 505;

/// Where values of a column are counted: in half-open bins from each edge up to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Grid {
    /// Equal bins from `low` up to `high`.
    Between { column: usize, low: f64, high: f64 },
    /// Eighths of powers of two, on both sides of 0: all numbers below two to the power `bits`.
    Everything { column: usize, bits: i32 },
}

/// A grid, and how many values lie below it, in each bin, and above.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) grid: Grid,
    pub(super) bins: Vec<u64>,
}

/// An order statistic that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) column: usize,
    /// Its position in rising order, from 0.
    pub(super) rank: u64,
    /// The fewest rows of the place that is answered.
    pub(super) minimum: u64,
    pub(super) is_whole: bool,
}

/// Where an order statistic is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) value: f64,
    /// The most that it may be away from there.
    pub(super) error: f64,
}

/// The grids of a pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Search {
    pub(super) grids: Vec<Grid>,
}

impl Grid {
    pub(super) fn between(column: usize, low: f64, high: f64) -> Self {
        Self::Between { column, low, high }
    }

    pub(super) fn everything(column: usize, bits: i32) -> Self {
        Self::Everything { column, bits }
    }

    pub(super) fn column(&self) -> usize {
        match self {
            Self::Between { column, .. } | Self::Everything { column, .. } => *column,
        }
    }

    /// The lower edge of a bin; that of bin [`BINS`] is the upper edge of the last.
    fn edge(&self, at: usize) -> f64 {
        match self {
            // The same product on every machine: a number of 1024ths is exact.
            Self::Between { low, high, .. } => {
                if at >= BINS {
                    *high
                } else {
                    low + (high - low) * (at as f64 / BINS as f64)
                }
            }
            Self::Everything { bits, .. } => {
                let positive = |at: usize| {
                    let at = i32::try_from(at.min(POSITIVE_EDGES - 1)).unwrap_or(0);
                    let power = f64::from(bits - OCTAVES + at / PARTS).exp2();
                    power * (1.0 + f64::from(at % PARTS) / f64::from(PARTS))
                };
                if at < POSITIVE_EDGES { -positive(POSITIVE_EDGES - 1 - at) } else { positive(at - POSITIVE_EDGES) }
            }
        }
    }

    /// The number of edges that differ.
    fn edges(&self) -> usize {
        match self {
            Self::Between { .. } => BINS + 1,
            Self::Everything { .. } => 2 * POSITIVE_EDGES,
        }
    }
}

impl Search {
    /// Adds the grids to a pass: for each its column, 0 and two edges, or 1, the bits and 0.
    pub(super) fn give(&self, pass: Pass) -> Pass {
        if self.grids.is_empty() {
            return pass;
        }
        let given = self.grids.iter().flat_map(|grid| match grid {
            Grid::Between { column, low, high } => [*column as f64, 0.0, *low, *high],
            Grid::Everything { column, bits } => [*column as f64, 1.0, f64::from(*bits), 0.0],
        });
        let given = given.collect();
        pass.with(GRIDS, given)
    }

    /// The grids that a pass gives; `None` if they are none.
    pub(super) fn of(pass: &Pass, columns: usize) -> Option<Self> {
        let given = pass.get(GRIDS).unwrap_or(&[]);
        let (given, rest) = given.as_chunks::<4>();
        if !rest.is_empty() || given.len() > MAX_GRIDS {
            return None;
        }
        let grid = |[column, kind, low, high]: &[f64; 4]| {
            let column = usize::try_from(whole(*column)?).ok().filter(|column| *column < columns)?;
            match whole(*kind)? {
                0 => (low < high && (high - low).is_finite()).then_some(Grid::between(column, *low, *high)),
                1 => {
                    let bits = (-512..=512).find(|bits| f64::from(*bits) == *low)?;
                    Some(Grid::everything(column, bits))
                }
                _ => None,
            }
        };
        Some(Self { grids: given.iter().map(grid).collect::<Option<_>>()? })
    }
}

/// A grid that is ready to count.
pub(super) struct Binning {
    grid: Grid,
    edges: Vec<f64>,
    /// Bins of a unit, where all are equal.
    per_unit: Option<f64>,
}

impl Binning {
    pub(super) fn new(grid: &Grid) -> Self {
        let per_unit = match grid {
            Grid::Between { low, high, .. } => Some(BINS as f64 / (high - low)).filter(|per_unit| per_unit.is_finite()),
            Grid::Everything { .. } => None,
        };
        Self { grid: *grid, edges: (0..grid.edges()).map(|at| grid.edge(at)).collect(), per_unit }
    }

    pub(super) fn column(&self) -> usize {
        self.grid.column()
    }

    /// Counts values: those below the grid first, those above it last.
    pub(super) fn count(&self, values: &[f64], counts: &mut [u64]) {
        let (first, last) = (self.edges[0], self.edges[self.edges.len() - 1]);
        for value in values {
            if *value >= first && *value < last {
                counts[1 + self.bin(*value)] += 1;
            } else if *value < first {
                counts[0] += 1;
            } else if *value >= last {
                counts[BINS + 1] += 1;
            }
        }
    }

    /// The bin of a value within the edges. What the product says is mended by the edges, so that bins agree with those of finer grids.
    fn bin(&self, value: f64) -> usize {
        let Some(per_unit) = self.per_unit else { return self.edges.partition_point(|edge| *edge <= value) - 1 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the edges; `as` saturates")]
        let mut bin = (((value - self.edges[0]) * per_unit) as usize).min(BINS - 1);
        while bin > 0 && value < self.edges[bin] {
            bin -= 1;
        }
        while bin < BINS - 1 && value >= self.edges[bin + 1] {
            bin += 1;
        }
        bin
    }
}

/// The bin of a grid that holds an order statistic; `None` if it is below or above the grid.
fn bin_of(found: &Found, rank: u64) -> Option<usize> {
    let mut below = found.bins[0];
    for bin in 0..BINS {
        if rank < below {
            return None;
        }
        below += found.bins[bin + 1];
        if rank < below {
            return Some(bin);
        }
    }
    None
}

/// The narrowest bins that hold an order statistic: grids of its column with its bin there, the narrowest first. Where values lie outside the
/// declared range, a wide grid can come after a narrow one.
fn narrowest<'a>(grids: &'a [Found], wanted: &Wanted) -> Vec<(&'a Found, usize)> {
    let of_column = grids.iter().filter(|found| found.grid.column() == wanted.column);
    let mut found: Vec<(&Found, usize)> = of_column.filter_map(|found| Some((found, bin_of(found, wanted.rank)?))).collect();
    let width = |(found, bin): &(&Found, usize)| found.grid.edge(bin + 1) - found.grid.edge(*bin);
    found.sort_by(|a, b| width(a).total_cmp(&width(b)));
    found
}

/// Fails unless all grids of a column counted as many values: a site that is gone would leave its rows in some of them only.
pub(super) fn check(grids: &[Found]) -> Result<(), AnalysisError> {
    let total = |found: &Found| found.bins.iter().sum::<u64>();
    for found in grids {
        if grids.iter().any(|other| other.grid.column() == found.grid.column() && total(other) != total(found)) {
            return Err(AnalysisError::Data("the sites changed between two passes: ask again".to_owned()));
        }
    }
    Ok(())
}

/// The grids of the next step: those within bins that hold what is wanted, and enough rows.
pub(super) fn finer(grids: &[Found], wanted: &[Wanted], bits: &[i32]) -> Result<Vec<Grid>, AnalysisError> {
    let mut finer: Vec<Grid> = Vec::new();
    for wanted in wanted {
        if !grids.iter().any(|found| found.grid.column() == wanted.column) {
            continue;
        }
        let next = match narrowest(grids, wanted).first().copied() {
            Some((found, bin)) => {
                let (low, high) = (found.grid.edge(bin), found.grid.edge(bin + 1));
                let rows = found.bins[bin + 1];
                let is_enough = wanted.minimum <= 1 || rows >= 2 * wanted.minimum;
                let is_narrow = wanted.is_whole && only_whole_number(low, high).is_some();
                let is_divisible = low + (high - low) / BINS as f64 > low;
                (is_enough && !is_narrow && is_divisible).then_some(Grid::between(wanted.column, low, high))
            }
            // Outside the range that the plan declares: the search begins anew, among all numbers.
            None => Some(Grid::everything(wanted.column, bits[wanted.column])),
        };
        if let Some(grid) = next
            && !finer.contains(&grid)
            && !grids.iter().any(|found| found.grid == grid)
        {
            finer.push(grid);
        }
    }
    if finer.len() > MAX_GRIDS {
        return Err(AnalysisError::Plan(format!(
            "the quantiles are in {} places: ask for fewer columns or quantiles",
            finer.len()
        )));
    }
    Ok(finer)
}

/// The only whole number from `low` up to `high`, if there is exactly one.
fn only_whole_number(low: f64, high: f64) -> Option<f64> {
    let first = low.ceil();
    (first < high && first + 1.0 >= high && first.abs() < 4_503_599_627_370_496.0).then_some(first)
}

/// Where an order statistic is, in a place that holds the minimum of rows: the bin of the finest grid that does, or as many beside it as it takes.
/// `None` if it is outside the range that the plan declares.
pub(super) fn place(grids: &[Found], wanted: Wanted) -> Option<Place> {
    let (low, high) = narrowest(grids, &wanted).into_iter().find_map(|(found, bin)| {
        let (mut first, mut last, mut rows) = (bin, bin, found.bins[bin + 1]);
        while rows < wanted.minimum {
            // The nearer of the next bins on both sides that hold anybody, within the grid.
            let before = (0..first).rev().find(|bin| found.bins[bin + 1] > 0);
            let after = (last + 1..BINS).find(|bin| found.bins[bin + 1] > 0);
            match (before, after) {
                (Some(before), Some(after)) if first - before <= after - last => first = before,
                (_, Some(after)) => last = after,
                (Some(before), None) => first = before,
                (None, None) => return None,
            }
            rows = found.bins[first + 1..=last + 1].iter().sum();
        }
        Some((found.grid.edge(first), found.grid.edge(last + 1)))
    })?;
    if wanted.is_whole
        && let Some(only) = only_whole_number(low, high)
    {
        return Some(Place { value: only, error: 0.0 });
    }
    Some(Place { value: 0.5 * low + 0.5 * high, error: 0.5 * high - 0.5 * low })
}
