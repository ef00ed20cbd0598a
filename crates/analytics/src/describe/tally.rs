//! What a node adds up for a description.

use protocol::statistic::Describe;

use super::search::{BINS, Binning};
use super::{Asked, SQUARES, SUMS, Step};
use crate::analysis::{AnalysisError, Batch, Cell, CellKind, Column, Tallied, Tally, same_pass};
use crate::sum::Sum;
use crate::survey::{down, vector};

pub(super) struct DescribeTally {
    asked: Asked,
    names: Vec<String>,
    rows: u64,
    counts: Vec<u64>,
    sums: Vec<Sum>,
    squares: Vec<Sum>,
    binnings: Vec<Binning>,
    bins: Vec<u64>,
    histograms: Vec<u64>,
}

impl DescribeTally {
    pub(super) fn new(plan: &Describe, asked: Asked) -> Self {
        let n = plan.numbers().len();
        Self {
            names: plan.numbers().iter().map(|number| number.column.to_string()).collect(),
            rows: 0,
            counts: vec![0; n],
            sums: vec![Sum::default(); n],
            squares: vec![Sum::default(); n],
            binnings: asked.search.grids.iter().map(Binning::new).collect(),
            bins: vec![0; asked.search.grids.len() * (BINS + 2)],
            histograms: vec![0; asked.histograms.len()],
            asked,
        }
    }
}

impl Tally for DescribeTally {
    fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows as u64;
        let numbers = batch.columns.iter().filter_map(|column| match column {
            Column::Numbers(values) => Some(values.as_slice()),
            Column::Levels(_) => None,
        });
        let numbers: Vec<&[f64]> = numbers.collect();
        for (column, values) in numbers.iter().enumerate() {
            let missing: u64 = values.iter().map(|value| u64::from(value.is_nan())).sum();
            self.counts[column] += values.len() as u64 - missing;
            // Blank cells add 0, so that the loops have no branch.
            match &self.asked.step {
                Step::Search => {}
                Step::Sums => self.sums[column].add_all(values, |value| if value.is_nan() { 0.0 } else { value }),
                Step::Squares { means } => {
                    let mean = means[column];
                    let difference = |value: f64| if value.is_nan() { 0.0 } else { value - mean };
                    self.sums[column].add_all(values, difference);
                    self.squares[column].add_all(values, |value| difference(value) * difference(value));
                }
            }
        }
        for (binning, bins) in self.binnings.iter().zip(self.bins.chunks_mut(BINS + 2)) {
            binning.count(numbers[binning.column()], bins);
        }
        self.asked.histograms.count(&numbers, &mut self.histograms);
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        let add = |counts: &mut [u64], theirs: Vec<u64>| {
            counts.iter_mut().zip(theirs).for_each(|(count, theirs)| *count += theirs);
        };
        add(&mut self.counts, other.counts);
        add(&mut self.bins, other.bins);
        add(&mut self.histograms, other.histograms);
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, theirs)| sum.merge(theirs));
        self.squares.iter_mut().zip(other.squares).for_each(|(sum, theirs)| sum.merge(theirs));
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let real = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect();
        let scales = &self.asked.scales;
        let scaled = |sums: &[Sum], bits: &dyn Fn(usize) -> i32| {
            sums.iter().enumerate().map(|(column, sum)| down(sum.value(), bits(column))).collect()
        };
        let mut vectors = Vec::new();
        match &self.asked.step {
            Step::Search => {}
            Step::Sums => {
                let sums = scaled(&self.sums, &|column| scales.bits(column));
                vectors.extend([vector("counts", real(&self.counts)), vector(SUMS, sums)]);
            }
            Step::Squares { .. } => {
                let differences = scaled(&self.sums, &|column| scales.bits(column) + 1);
                let squares = scaled(&self.squares, &|column| 2 * (scales.bits(column) + 1));
                let counts = vector("counts", real(&self.counts));
                vectors.extend([counts, vector("differences", differences), vector(SQUARES, squares)]);
            }
        }
        if !self.bins.is_empty() {
            vectors.push(vector("bins", real(&self.bins)));
        }
        if !self.histograms.is_empty() {
            vectors.push(vector("histograms", real(&self.histograms)));
        }
        let cells = self.names.iter().zip(&self.counts);
        let mut cells: Vec<Cell> =
            cells.map(|(of, count)| Cell { kind: CellKind::Rows, of: of.clone(), count: *count }).collect();
        cells.extend(self.asked.histograms.cells(&self.names, &self.histograms));
        Ok(Tallied { vectors, rows: self.rows, cells })
    }
}
