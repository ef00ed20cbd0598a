//! What a node adds up for Cox's model.

use protocol::statistic::TimeResolution;

use super::risk::{Totals, add_row};
use super::{BIN_BITS, Cox, Rows, SITE_BITS};
use crate::analysis::{AnalysisError, Batch, Cell, CellKind, Tallied, Tally, same_pass};
use crate::design::Frame;
use crate::fit::fitting;
use crate::sum::Sum;
use crate::survey::{Scales, vector};
use crate::times::{Grid, TimesTally};

fn cells(rows: u64, events: u64) -> Vec<Cell> {
    vec![
        Cell { kind: CellKind::Rows, of: "complete rows".to_owned(), count: rows },
        Cell { kind: CellKind::Events, of: "events".to_owned(), count: events },
    ]
}

pub(super) struct MomentsTally {
    cox: Cox,
    frame: Frame,
    counts: [u64; 3],
    sums: Vec<Sum>,
}

impl MomentsTally {
    pub(super) fn new(cox: &Cox, scales: &Scales) -> Self {
        let frame = Frame { center: vec![0.0; cox.design.len()], bits: cox.column_bits(scales) };
        Self { frame, counts: [0; 3], sums: vec![Sum::default(); 2 * cox.design.len()], cox: cox.clone() }
    }
}

impl Tally for MomentsTally {
    fn add(&mut self, batch: &Batch) {
        let (counts, sums) = (&mut self.counts, &mut self.sums);
        self.cox.each(batch, &self.frame, |rows| {
            counts[0] += rows.observed.len() as u64;
            counts[1] += rows.observed.iter().filter(|row| row.is_event).count() as u64;
            counts[2] += rows.impossible;
            for (sums, column) in sums.chunks_mut(2).zip(&rows.columns) {
                sums[0].add_all(column, |z| z);
                sums[1].add_all(column, |z| z * z);
            }
        });
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.counts.iter_mut().zip(other.counts).for_each(|(count, theirs)| *count += theirs);
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, theirs)| sum.merge(theirs));
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let counts = self.counts.iter().map(|count| *count as f64).collect();
        let sums = self.sums.iter().map(|sum| sum.value()).collect();
        Ok(Tallied {
            vectors: vec![vector("counts", counts), vector("sums", sums)],
            rows: self.counts[0],
            cells: cells(self.counts[0], self.counts[1]),
        })
    }
}

pub(super) struct SearchTally {
    pub(super) cox: Cox,
    pub(super) times: TimesTally,
}

impl Tally for SearchTally {
    fn add(&mut self, batch: &Batch) {
        let times = &mut self.times;
        self.cox.each(batch, &Frame::none(self.cox.design.len()), |rows| {
            rows.observed.into_iter().for_each(|row| times.add(row));
            (0..rows.impossible).for_each(|_| times.add_impossible());
        });
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        self.times.merge(same_pass::<Self>(other).times);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        Ok(self.times.finish(&["events".to_owned()]))
    }
}

/// η of each row.
fn predictor(at: &[f64], rows: &Rows) -> Vec<f64> {
    let mut eta = rows.offsets.clone();
    for (coefficient, column) in at.iter().zip(&rows.columns) {
        for (eta, z) in eta.iter_mut().zip(column) {
            *eta += coefficient * z;
        }
    }
    eta
}

/// The rows of one site, among which its own risk sets are made.
pub(super) struct SiteTally {
    cox: Cox,
    frame: Frame,
    at: Vec<f64>,
    limit_bits: i32,
    times: Vec<f64>,
    events: Vec<bool>,
    eta: Vec<f64>,
    /// z, row by row.
    z: Vec<f64>,
}

impl SiteTally {
    pub(super) fn new(cox: &Cox, scales: &Scales, frame: Frame, at: Vec<f64>) -> Self {
        let limit_bits = SITE_BITS + scales.row_bits();
        let (times, events, eta, z) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { cox: cox.clone(), frame, at, limit_bits, times, events, eta, z }
    }

    /// Log likelihood, score and information, in one sweep from the last time to the first.
    fn likelihood(&self) -> Vec<f64> {
        let p = self.at.len();
        let mut order: Vec<usize> = (0..self.times.len()).collect();
        order.sort_unstable_by(|a, b| self.times[*b].total_cmp(&self.times[*a]));
        // Risks relative to the largest: nothing overflows, and the likelihood does not change.
        let largest = self.eta.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut totals = Totals::new(p);
        let len = totals.sums.len();
        let (mut risk, mut tied) = (vec![0.0; len], vec![0.0; len]);
        for together in order.chunk_by(|a, b| self.times[*a] == self.times[*b]) {
            let mut events = 0;
            tied.fill(0.0);
            for row in together {
                let (z, eta) = (&self.z[row * p..(row + 1) * p], self.eta[*row] - largest);
                let weight = eta.exp();
                add_row(&mut risk, weight, z);
                if self.events[*row] {
                    events += 1;
                    add_row(&mut tied, weight, z);
                    totals.sums[0].add(eta);
                    for (score, z) in totals.sums[1..=p].iter_mut().zip(z) {
                        score.add(*z);
                    }
                }
            }
            if events > 0 {
                totals.add_risk_set(&risk, &tied, events, self.cox.plan.ties);
            }
        }
        totals.sums.iter().map(|sum| sum.value()).collect()
    }
}

impl Tally for SiteTally {
    fn add(&mut self, batch: &Batch) {
        let Self { cox, frame, at, times, events, eta, z, .. } = self;
        cox.each(batch, frame, |rows| {
            eta.extend(predictor(at, &rows));
            for (row, observed) in rows.observed.iter().enumerate() {
                times.push(observed.time);
                events.push(observed.is_event);
                z.extend(rows.columns.iter().map(|column| column[row]));
            }
        });
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.times.extend(other.times);
        self.events.extend(other.events);
        self.eta.extend(other.eta);
        self.z.extend(other.z);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let (sums, fits) = fitting(self.likelihood(), self.limit_bits);
        let (rows, events) = (self.times.len() as u64, self.events.iter().filter(|event| **event).count() as u64);
        let counts = vec![rows as f64, events as f64, f64::from(u8::from(!fits))];
        Ok(Tallied { vectors: vec![vector("counts", counts), vector("sums", sums)], rows, cells: cells(rows, events) })
    }
}

/// What each bin brings to the pooled risk sets.
pub(super) struct BinTally {
    cox: Cox,
    frame: Frame,
    at: Vec<f64>,
    grid: Grid,
    row_bits: i32,
    rows: u64,
    events: Vec<u64>,
    /// Σ z and Σ offset of the events.
    totals: Vec<Sum>,
    sums: Vec<f64>,
}

impl BinTally {
    pub(super) fn new(cox: &Cox, scales: &Scales, frame: Frame, at: Vec<f64>, grid: Grid) -> Self {
        let bins = grid.starts.len();
        Self {
            row_bits: scales.row_bits(),
            rows: 0,
            events: vec![0; bins],
            totals: vec![Sum::default(); at.len() + 1],
            sums: vec![0.0; bins * cox.bin_len()],
            cox: cox.clone(),
            frame,
            at,
            grid,
        }
    }
}

impl Tally for BinTally {
    fn add(&mut self, batch: &Batch) {
        let Self { cox, frame, at, grid, events, totals, sums, rows: count, .. } = self;
        let (bin_len, risk_len, p) = (cox.bin_len(), cox.risk_len(), at.len());
        let mut z = vec![0.0; p];
        cox.each(batch, frame, |rows| {
            *count += rows.observed.len() as u64;
            for (row, (observed, eta)) in rows.observed.iter().zip(predictor(at, &rows)).enumerate() {
                z.iter_mut().zip(&rows.columns).for_each(|(z, column)| *z = column[row]);
                let (bin, weight) = (grid.bin(observed.time), eta.exp());
                let sums = &mut sums[bin * bin_len..(bin + 1) * bin_len];
                add_row(&mut sums[..risk_len], weight, &z);
                if observed.is_event {
                    events[bin] += 1;
                    totals.iter_mut().zip(&z).for_each(|(total, z)| total.add(*z));
                    totals[p].add(rows.offsets[row]);
                    if bin_len > risk_len {
                        add_row(&mut sums[risk_len..], weight, &z);
                    }
                }
            }
        });
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        self.events.iter_mut().zip(other.events).for_each(|(count, theirs)| *count += theirs);
        self.totals.iter_mut().zip(other.totals).for_each(|(sum, theirs)| sum.merge(theirs));
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, theirs)| *sum += theirs);
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let totals = self.totals.iter().map(|sum| sum.value()).collect();
        let (totals, totals_fit) = fitting(totals, SITE_BITS + self.row_bits);
        let (sums, sums_fit) = fitting(self.sums, BIN_BITS + self.row_bits);
        let all: u64 = self.events.iter().sum();
        let mut cells = cells(self.rows, all);
        if matches!(self.cox.plan.resolution, TimeResolution::Events(_)) {
            cells.extend(self.events.iter().enumerate().map(|(step, events)| Cell {
                kind: CellKind::Events,
                of: format!("step {}", step + 1),
                count: *events,
            }));
        }
        let counts = vec![self.rows as f64, all as f64, f64::from(u8::from(!(totals_fit && sums_fit)))];
        let events = self.events.iter().map(|count| *count as f64).collect();
        Ok(Tallied {
            vectors: vec![
                vector("counts", counts),
                vector("events", events),
                vector("totals", totals),
                vector("sums", sums),
            ],
            rows: self.rows,
            cells,
        })
    }
}
