//! Summaries of columns: counts, means and variances, quantiles, histograms, and how often each category occurs.
//!
//! At most four passes over the rows, for all columns at once: a survey; sums with the first step of the search for quantiles; squared
//! differences from the means with the second step and the histograms; and the third step of the search. The numbers of later passes
//! need no agreement on who takes part: each pass counts for itself.

mod histogram;
mod search;
mod tally;

use std::collections::BTreeMap;

use protocol::statistic::Describe;
use protocol::{Pass, VectorSpec};
use serde::{Serialize, Serializer};

use self::histogram::Histograms;
use self::search::{BINS, Found, Grid, Search, Wanted};
use self::tally::DescribeTally;
use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally};
use crate::sum::above_rounding;
use crate::suppress::suppress_list;
use crate::survey::{self, Reader, Scales, Survey, Surveyed, counts, down, up};

const SUMS: &str = "sums";
const SQUARES: &str = "squares";
const SEARCH: &str = "search";
const MEANS: &str = "means";

/// What a description answers: a summary for each column, as a map in the plan's order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DescribeAnswer {
    #[serde(serialize_with = "as_map")]
    pub columns: Vec<(String, ColumnSummary)>,
}

fn as_map<T: Serialize, S: Serializer>(entries: &[(String, T)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|(name, value)| (name, value)))
}

/// A summary of a column. Keys are absent where they do not apply to the column, or nothing was asked or can be said.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ColumnSummary {
    /// Values.
    pub count: u64,
    pub missing: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
    /// With divisor n - 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// By order, as `0.25`: interpolated linearly between order statistics (Hyndman and Fan 1996, type 7).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quantiles: BTreeMap<String, f64>,
    /// The most that each quantile, the smallest or the largest value may be wrong by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quantile_errors: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<HistogramAnswer>,
    /// How often each level occurs; `null` where that is hidden.
    #[serde(skip_serializing_if = "Levels::is_empty", serialize_with = "as_map")]
    pub categories: Levels,
    /// Values that are none of the levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<u64>,
}

/// Levels with their counts, in the plan's order.
pub type Levels = Vec<(String, Option<u64>)>;

/// Counts of values between edges: from each up to the next, the last included. `null` where they are hidden.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistogramAnswer {
    pub edges: Vec<f64>,
    pub counts: Vec<Option<u64>>,
    /// Values below the first edge.
    pub below: Option<u64>,
    pub above: Option<u64>,
}

impl DescribeAnswer {
    /// Hides counts of categories and bins above 0 and below `minimum`, and others from which they would follow.
    #[must_use]
    pub fn suppressed(mut self, minimum: u64) -> Self {
        for (_, summary) in &mut self.columns {
            let categories = summary.categories.iter_mut().map(|(_, count)| count);
            hide(categories.chain([&mut summary.other]).collect(), minimum);
            if let Some(HistogramAnswer { counts, below, above, .. }) = &mut summary.histogram {
                hide(counts.iter_mut().chain([below, above]).collect(), minimum);
            }
        }
        self
    }
}

/// Hides some of these counts, whose total is known.
fn hide(counts: Vec<&mut Option<u64>>, minimum: u64) {
    let known: Vec<u64> = counts.iter().map(|count| count.unwrap_or(0)).collect();
    for (count, is_hidden) in counts.into_iter().zip(suppress_list(&known, minimum)) {
        *count = count.filter(|_| !is_hidden);
    }
}

fn inputs(plan: &Describe) -> Vec<Input> {
    let numbers = plan.numbers().iter().map(|number| Input::Number(number.column.clone()));
    numbers.chain(plan.categories().iter().cloned().map(Input::Levels)).collect()
}

/// What a pass asks for, out of the numbers that it gives.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    scales: Scales,
    step: Step,
    search: Search,
    histograms: Histograms,
}

/// Which moments a pass sums.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Sums,
    Squares {
        means: Vec<f64>,
    },
    /// None.
    Search,
}

impl Asked {
    fn of(plan: &Describe, pass: &Pass) -> Result<Self, AnalysisError> {
        let n = plan.numbers().len();
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let step = match pass.step.as_str() {
            SUMS => Step::Sums,
            SQUARES => {
                let means = pass.get(MEANS).filter(|means| means.len() == n).ok_or_else(wrong)?;
                Step::Squares { means: means.to_vec() }
            }
            SEARCH => Step::Search,
            _ => return Err(wrong()),
        };
        let search = Search::of(pass, n).ok_or_else(wrong)?;
        let histograms = Histograms::of(pass, n).ok_or_else(wrong)?;
        Ok(Self { scales: Scales::of(pass, n)?, step, search, histograms })
    }

    fn layout(&self, n: usize) -> Vec<VectorSpec> {
        let mut layout = Vec::new();
        match &self.step {
            Step::Sums => layout.extend([counts("counts", vec![n]), self.scales.unit_sums(SUMS, vec![n])]),
            Step::Squares { .. } => layout.extend([
                counts("counts", vec![n]),
                self.scales.unit_sums("differences", vec![n]),
                self.scales.unit_sums(SQUARES, vec![n]),
            ]),
            Step::Search => {}
        }
        if !self.search.grids.is_empty() {
            // Each grid has a bin below and one above it.
            layout.push(counts("bins", vec![self.search.grids.len(), BINS + 2]));
        }
        if !self.histograms.is_empty() {
            layout.push(counts("histograms", vec![self.histograms.len()]));
        }
        layout
    }

    /// Reads the sums of [`layout`](Self::layout).
    fn read(&self, n: usize, answered: &Answered) -> Result<Decoded, AnalysisError> {
        let mut reader = Reader::new(&answered.pass.step, &answered.sums);
        let mut sums = Decoded::default();
        if self.step != Step::Search {
            sums.counts = reader.counts(n)?;
            sums.sums = reader.reals(n)?.to_vec();
        }
        if matches!(self.step, Step::Squares { .. }) {
            sums.squares = reader.reals(n)?.to_vec();
        }
        if !self.search.grids.is_empty() {
            sums.bins = reader.counts(self.search.grids.len() * (BINS + 2))?;
        }
        if !self.histograms.is_empty() {
            sums.histograms = reader.counts(self.histograms.len())?;
        }
        Ok(sums)
    }
}

/// The sums of a pass, each empty where the pass has none.
#[derive(Default)]
struct Decoded {
    counts: Vec<u64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
    bins: Vec<u64>,
    histograms: Vec<u64>,
}

impl Analysis for Describe {
    type Answer = DescribeAnswer;

    fn inputs(&self) -> Vec<Input> {
        inputs(self)
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(Survey::new(inputs(self)).layout());
        }
        Ok(Asked::of(self, pass)?.layout(self.numbers().len()))
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(Survey::new(inputs(self)).tally());
        }
        Ok(Box::new(DescribeTally::new(self, Asked::of(self, pass)?)))
    }

    fn next(&self, history: &[Answered]) -> Result<Next<DescribeAnswer>, AnalysisError> {
        let Some((first, rest)) = history.split_first() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        let surveyed = Survey::new(inputs(self)).read(&first.sums)?;
        let progress = Progress::of(self, &surveyed, rest)?;
        if let Some(pass) = progress.next_pass(self, &surveyed, rest) {
            return pass.map(Next::Ask);
        }
        Ok(Next::Done(progress.answer(self, &surveyed)))
    }

    fn limited(answer: DescribeAnswer, minimum: u64) -> Result<DescribeAnswer, AnalysisError> {
        Ok(answer.suppressed(minimum))
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(Survey::new(inputs(self)).sensitivity());
        }
        let asked = Asked::of(self, pass)?;
        let n = self.numbers().len();
        let largest = |column: usize, mean: f64, extra: i32| {
            let range = ranges.get(column).copied().flatten().unwrap_or(f64::INFINITY);
            down(range + mean.abs(), asked.scales.bits(column) + extra)
        };
        let norm = |terms: &mut dyn Iterator<Item = f64>| terms.map(|term| term * term).sum::<f64>().sqrt();
        let columns = (n as f64).sqrt();
        let mut sensitivity = match &asked.step {
            Step::Sums => vec![columns, norm(&mut (0..n).map(|column| largest(column, 0.0, 0)))],
            Step::Squares { means } => {
                let difference = |column: usize| largest(column, means[column], 1);
                vec![columns, norm(&mut (0..n).map(difference)), norm(&mut (0..n).map(|column| difference(column).powi(2)))]
            }
            Step::Search => Vec::new(),
        };
        // A row is in one bin of each grid, and of each column's histogram.
        if !asked.search.grids.is_empty() {
            sensitivity.push((asked.search.grids.len() as f64).sqrt());
        }
        if !asked.histograms.is_empty() {
            sensitivity.push((asked.histograms.columns() as f64).sqrt());
        }
        Ok(sensitivity)
    }
}

/// What the passes after the survey have found.
#[derive(Default)]
struct Progress {
    means: Vec<Option<f64>>,
    variances: Vec<Option<f64>>,
    counts: Vec<u64>,
    /// The grids of all steps of the search so far, with their bins.
    grids: Vec<Found>,
    histograms: Option<(Histograms, Vec<u64>)>,
}

impl Progress {
    fn of(plan: &Describe, surveyed: &Surveyed, history: &[Answered]) -> Result<Self, AnalysisError> {
        let n = plan.numbers().len();
        let present = surveyed.numbers.iter().map(|numbers| numbers.present).collect();
        let mut progress = Self { counts: present, variances: vec![None; n], ..Self::default() };
        for answered in history {
            let asked = Asked::of(plan, &answered.pass)?;
            let sums = asked.read(n, answered)?;
            let each = || sums.counts.iter().zip(&sums.sums).enumerate();
            match &asked.step {
                Step::Search => {}
                Step::Sums => {
                    let mean = |(column, (count, sum)): (usize, (&u64, &f64))| {
                        (*count > 0).then(|| up(sum / *count as f64, asked.scales.bits(column)))
                    };
                    progress.means = each().map(mean).collect();
                }
                Step::Squares { means } => {
                    let moments = each().zip(&sums.squares).map(|((column, (count, sum)), square)| {
                        let bits = asked.scales.bits(column) + 1;
                        let rows = *count as f64;
                        let difference = up(*sum, bits);
                        let mean = (*count > 0).then(|| means[column] + difference / rows);
                        let square = up(*square, 2 * bits) - difference * (difference / rows);
                        let variance =
                            mean.filter(|_| *count > 1).map(|mean| above_rounding(square, *count, mean) / (rows - 1.0));
                        (mean, variance)
                    });
                    (progress.means, progress.variances) = moments.unzip();
                    progress.counts.clone_from(&sums.counts);
                }
            }
            let bins = sums.bins.chunks(BINS + 2).map(<[u64]>::to_vec);
            progress.grids.extend(asked.search.grids.into_iter().zip(bins).map(|(grid, bins)| Found { grid, bins }));
            if !asked.histograms.is_empty() {
                progress.histograms = Some((asked.histograms, sums.histograms));
            }
        }
        search::check(&progress.grids)?;
        Ok(progress)
    }

    /// The next pass, if there is one.
    fn next_pass(&self, plan: &Describe, surveyed: &Surveyed, rest: &[Answered]) -> Option<Result<Pass, AnalysisError>> {
        let numbers = plan.numbers();
        if numbers.is_empty() {
            return None;
        }
        let Some(last) = rest.last() else {
            let grids = first_grids(plan, surveyed);
            return Some(Ok(Search { grids }.give(surveyed.pass(SUMS))));
        };
        let wanted = self.wanted(plan);
        let bits: Vec<i32> = surveyed.numbers.iter().map(|numbers| numbers.bits).collect();
        let finer = match search::finer(&self.grids, &wanted, &bits) {
            Ok(finer) => Search { grids: finer },
            Err(error) => return Some(Err(error)),
        };
        match last.pass.step.as_str() {
            SUMS => {
                let means = self.means.iter().map(|mean| mean.unwrap_or(0.0)).collect();
                let histograms = Histograms::plan(plan, &self.grids);
                let pass = surveyed.pass(SQUARES).with(MEANS, means);
                Some(Ok(histograms.give(finer.give(pass))))
            }
            SQUARES if !finer.grids.is_empty() => Some(Ok(finer.give(surveyed.pass(SEARCH)))),
            _ => None,
        }
    }

    /// The order statistics that quantiles are made of.
    fn wanted(&self, plan: &Describe) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (column, (number, count)) in plan.numbers().iter().zip(&self.counts).enumerate().filter(|(_, each)| *each.1 > 0)
        {
            let of = |rank: u64, minimum: u64| Wanted { column, rank, minimum, is_whole: number.whole };
            for order in plan.quantiles() {
                let (low, high, _) = ranks(*order, *count);
                wanted.extend([of(low, plan.minimum_rows()), of(high, plan.minimum_rows())]);
            }
            if plan.minmax() {
                wanted.extend([of(0, 1), of(count - 1, 1)]);
            }
        }
        wanted.sort_unstable_by_key(|wanted| (wanted.column, wanted.rank, wanted.minimum));
        wanted.dedup();
        wanted
    }

    fn answer(&self, plan: &Describe, surveyed: &Surveyed) -> DescribeAnswer {
        let numbers = plan.numbers().iter().enumerate().map(|(column, number)| {
            let (count, variance) = (self.counts[column], self.variances[column]);
            let mut summary = ColumnSummary {
                count,
                missing: surveyed.rows - surveyed.numbers[column].present,
                mean: self.means.get(column).copied().flatten(),
                sd: variance.map(f64::sqrt),
                variance,
                histogram: self.histograms.as_ref().and_then(|(histograms, counts)| histograms.answer(column, counts)),
                ..ColumnSummary::default()
            };
            self.add_quantiles(plan, column, count, &mut summary);
            (number.column.to_string(), summary)
        });
        let categories = plan.categories().iter().zip(&surveyed.levels).map(|(category, found)| {
            let levels = category.levels().iter().map(ToString::to_string).zip(found.counts.iter().copied().map(Some));
            let summary = ColumnSummary {
                count: surveyed.rows - found.missing,
                missing: found.missing,
                categories: levels.collect(),
                other: (found.other > 0).then_some(found.other),
                ..ColumnSummary::default()
            };
            (category.column().to_owned(), summary)
        });
        DescribeAnswer { columns: numbers.chain(categories).collect() }
    }

    fn add_quantiles(&self, plan: &Describe, column: usize, count: u64, summary: &mut ColumnSummary) {
        if count == 0 {
            return;
        }
        let is_whole = plan.numbers()[column].whole;
        let find = |rank: u64, minimum: u64| search::place(&self.grids, Wanted { column, rank, minimum, is_whole });
        for order in plan.quantiles() {
            let (low, high, share) = ranks(*order, count);
            let (Some(a), Some(b)) = (find(low, plan.minimum_rows()), find(high, plan.minimum_rows())) else { continue };
            summary.quantiles.insert(order.to_string(), a.value + share * (b.value - a.value));
            summary.quantile_errors.insert(order.to_string(), a.error + share * (b.error - a.error));
        }
        if plan.minmax() {
            for (name, rank, at) in [("min", 0, &mut summary.min), ("max", count - 1, &mut summary.max)] {
                let Some(place) = find(rank, 1) else { continue };
                *at = Some(place.value);
                summary.quantile_errors.insert(name.to_owned(), place.error);
            }
        }
    }
}

/// The search begins with the declared range, or with every number that can occur.
fn first_grids(plan: &Describe, surveyed: &Surveyed) -> Vec<Grid> {
    let is_searched = !plan.quantiles().is_empty() || plan.minmax() || plan.bins() > 0;
    let columns = plan.numbers().iter().zip(&surveyed.numbers).enumerate();
    let columns = columns.filter(|(_, (_, found))| is_searched && found.present > 0);
    columns
        .map(|(column, (number, found))| match number.range {
            Some(range) => Grid::between(column, range.low(), range.high().next_up()),
            None => Grid::everything(column, found.bits),
        })
        .collect()
}

/// Between which two of n values in rising order, counted from 0, a quantile is, and its distance from the first.
fn ranks(order: f64, count: u64) -> (u64, u64, f64) {
    let last = count - 1;
    let at = (order * last as f64).clamp(0.0, last as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
    let low = (at.floor() as u64).min(last);
    (low, (low + 1).min(last), at - at.floor())
}
