//! The times at which events happen, found over all nodes without anybody's list: times are counted in bins, and bins that still hold several
//! are divided in the next pass.
//!
//! A time t is the whole number ⌊t·2^u⌋ below 2^48, where u follows from the survey. Exactly, bins are divided until each holds one
//! row, or one time: whole numbers if all times are, otherwise the resolution of 2^-48 of the survey's bound. In steps, bins are
//! divided while they hold twice the events that a step needs, and joined from the left until each step holds that many in each group that
//! has any. The counts are those of all nodes together.

use protocol::statistic::TimeResolution;
use protocol::{Pass, VectorSpec};

use crate::analysis::{AnalysisError, Answered, Cell, CellKind, Tallied};
use crate::sum::Sum;
use crate::survey::{Scales, Surveyed, counts, vector, whole};

pub(crate) const TIMES: &str = "times";
pub(crate) const LABELS: &str = "labels";

/// Bits of a time as a whole number.
const KEY_BITS: i32 = 48;
/// Counts of a pass.
const MAX_COUNTS: usize = 1 << 18;
/// Times that can be told apart.
const MAX_TIMES: usize = 1 << 16;
/// Parts of a bin in a pass that forms steps, as a power of two.
const STEP_PART_BITS: i32 = 4;

/// How times are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TimeSearch {
    /// 1 without groups.
    pub(crate) groups: usize,
    pub(crate) resolution: TimeResolution,
}

/// A time, whether it is one of an event, and the group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Observed {
    pub(crate) time: f64,
    pub(crate) is_event: bool,
    pub(crate) group: usize,
}

/// The bins that times fall in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    /// Where bins start, as whole numbers; the first is 0.
    pub(crate) starts: Vec<f64>,
    /// A time is the whole number `⌊time · 2^unit_bits⌋`.
    pub(crate) unit_bits: i32,
    /// The time of each bin: of its events, or its end. That of a first bin without events is 0.
    pub(crate) labels: Vec<f64>,
}

/// What the search comes to.
pub(crate) enum Search {
    Ask(Pass),
    Found(Grid),
}

/// The bins of a pass.
#[derive(Debug, Clone, PartialEq)]
struct Bins {
    starts: Vec<f64>,
    /// Each is as wide as two to this power.
    width_bits: i32,
    /// Each has two to this power parts.
    part_bits: i32,
    unit_bits: i32,
}

impl Bins {
    fn of(pass: &Pass) -> Result<Self, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let starts = pass.get("starts").ok_or_else(wrong)?.to_vec();
        let &[width, parts, unit] = pass.get("bins").ok_or_else(wrong)? else { return Err(wrong()) };
        let is_whole = |value: f64, most: f64| value.fract() == 0.0 && value.abs() <= most;
        let is_sorted = starts.is_sorted_by(|a, b| a < b) && starts.iter().all(|start| is_whole(*start, 48_f64.exp2()));
        let fits =
            is_whole(width, 48.0) && is_whole(parts, 18.0) && is_whole(unit, 2000.0) && (0.0..=width).contains(&parts);
        if !is_sorted || !fits || starts.is_empty() || starts.len() > MAX_COUNTS {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        let bits = |value: f64| value as i32;
        Ok(Self { starts, width_bits: bits(width), part_bits: bits(parts), unit_bits: bits(unit) })
    }

    fn pass(&self, surveyed: &Surveyed, step: &str) -> Pass {
        let bits = [self.width_bits, self.part_bits, self.unit_bits].map(f64::from).to_vec();
        surveyed.pass(step).with("starts", self.starts.clone()).with("bins", bits)
    }

    fn parts(&self) -> usize {
        1 << self.part_bits
    }

    /// Which part of which bin a time falls in.
    fn part(&self, time: f64) -> Option<usize> {
        let key = (time * f64::from(self.unit_bits).exp2()).floor();
        let bin = self.starts.partition_point(|start| *start <= key).checked_sub(1)?;
        let part = (key - self.starts[bin]) * f64::from(self.part_bits - self.width_bits).exp2();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of parts")]
        (part < self.parts() as f64).then(|| bin * self.parts() + part as usize)
    }
}

impl Grid {
    /// The bin of a time.
    pub(crate) fn bin(&self, time: f64) -> usize {
        let key = (time * f64::from(self.unit_bits).exp2()).floor();
        self.starts.partition_point(|start| *start <= key).saturating_sub(1)
    }

    /// Adds the grid to a pass; the labels stay with the researcher.
    pub(crate) fn with(&self, pass: Pass) -> Pass {
        pass.with("starts", self.starts.clone()).with("unit", vec![f64::from(self.unit_bits)])
    }

    /// The grid of a pass, without labels.
    pub(crate) fn of(pass: &Pass) -> Result<Self, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let starts =
            pass.get("starts").filter(|starts| !starts.is_empty() && starts.len() <= 2 * MAX_TIMES).ok_or_else(wrong)?;
        let unit = pass.get("unit").and_then(|unit| unit.first()).copied().unwrap_or(f64::NAN);
        if !starts.is_sorted_by(|a, b| a < b) || unit.fract() != 0.0 || unit.abs() > 2000.0 {
            return Err(wrong());
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Ok(Self { starts: starts.to_vec(), unit_bits: unit as i32, labels: Vec::new() })
    }
}

/// A bin that was counted: where it starts, the rows in it, and the events of each group.
#[derive(Debug, Clone, PartialEq)]
struct Counted {
    start: f64,
    width_bits: i32,
    rows: u64,
    events: Vec<u64>,
}

impl Counted {
    fn all_events(&self) -> u64 {
        self.events.iter().sum()
    }
}

impl TimeSearch {
    /// Counts of a bin: its rows, and the events of each group.
    fn channels(self) -> usize {
        1 + self.groups
    }

    pub(crate) fn layout(self, pass: &Pass, scales: &Scales) -> Result<Vec<VectorSpec>, AnalysisError> {
        let bins = Bins::of(pass)?;
        if pass.step == LABELS {
            return Ok(vec![counts("counts", vec![bins.starts.len()]), scales.sums("sums", vec![bins.starts.len()], 0)]);
        }
        let channels = self.channels();
        Ok(vec![counts("checks", vec![3]), counts("counts", vec![self.counts(&bins, pass)? / channels, channels])])
    }

    /// How many counts a pass has.
    fn counts(self, bins: &Bins, pass: &Pass) -> Result<usize, AnalysisError> {
        let counts = bins.starts.len().saturating_mul(bins.parts()).saturating_mul(self.channels());
        if counts <= 4 * MAX_COUNTS { Ok(counts) } else { Err(AnalysisError::Pass(pass.step.clone())) }
    }

    /// The first pass, for times of which the survey says that they are below `2^time_bits`.
    fn first(self, time_bits: i32) -> Bins {
        let part_bits = self.part_bits(1, KEY_BITS);
        Bins { starts: vec![0.0], width_bits: KEY_BITS, part_bits, unit_bits: KEY_BITS - time_bits }
    }

    fn part_bits(self, bins: usize, width_bits: i32) -> i32 {
        if let TimeResolution::Events(_) = self.resolution {
            return STEP_PART_BITS.min(width_bits);
        }
        let mut bits = 1;
        while bits < width_bits && (bins * self.channels()) << (bits + 1) <= MAX_COUNTS {
            bits += 1;
        }
        bits
    }

    /// What comes after the passes of the search.
    pub(crate) fn next(self, surveyed: &Surveyed, time_bits: i32, history: &[Answered]) -> Result<Search, AnalysisError> {
        let passes: Vec<&Answered> = history.iter().filter(|answered| answered.pass.step == TIMES).collect();
        if passes.is_empty() {
            return Ok(Search::Ask(self.first(time_bits).pass(surveyed, TIMES)));
        }
        // Bins that need no dividing, and those that do.
        let (mut done, mut open, mut are_whole, mut unit_bits, mut smallest) = (Vec::new(), Vec::new(), true, 0, 0);
        for (index, answered) in passes.iter().enumerate() {
            let bins = Bins::of(&answered.pass)?;
            let (fractional, counted) = self.read(&bins, answered)?;
            if index == 0 {
                are_whole = fractional == 0;
                unit_bits = bins.unit_bits;
            }
            smallest = if are_whole { unit_bits.max(0) } else { 0 };
            open = Vec::new();
            for bin in counted {
                if self.is_open(&bin, smallest) {
                    open.push(bin);
                } else if bin.all_events() > 0 {
                    done.push(bin);
                }
            }
        }
        if !open.is_empty() {
            if open.len() + done.len() > MAX_TIMES {
                return Err(AnalysisError::Data(format!("events happen at more than {MAX_TIMES} times: ask for steps")));
            }
            let width_bits = open[0].width_bits;
            let part_bits = self.part_bits(open.len(), width_bits).min(width_bits - smallest);
            let starts = open.iter().map(|bin| bin.start).collect();
            let next = Bins { starts, width_bits, part_bits, unit_bits };
            return if next.starts.len() * next.parts() * self.channels() > 4 * MAX_COUNTS {
                Err(AnalysisError::Data(
                    "events happen at too many times for so many groups: ask for larger steps".to_owned(),
                ))
            } else {
                Ok(Search::Ask(next.pass(surveyed, TIMES)))
            };
        }
        done.sort_by(|a, b| a.start.total_cmp(&b.start));
        let unit = f64::from(-unit_bits).exp2();
        match self.resolution {
            TimeResolution::Events(least) => {
                Ok(Search::Found(self.steps(&done, u64::from(least.max(1)), unit_bits, are_whole)))
            }
            TimeResolution::Exact => {
                let mut starts: Vec<f64> = done.iter().map(|bin| bin.start).collect();
                let mut labels: Vec<f64> = starts.iter().map(|start| start * unit).collect();
                // A bin with one row may be wider than a time.
                if done.iter().any(|bin| bin.width_bits > smallest) || (!are_whole && !done.is_empty()) {
                    let Some(answered) = history.iter().find(|answered| answered.pass.step == LABELS) else {
                        let bins = Bins { starts, width_bits: 0, part_bits: 0, unit_bits };
                        return Ok(Search::Ask(bins.pass(surveyed, LABELS)));
                    };
                    labels = read_labels(answered, time_bits)?;
                }
                if starts.first().is_none_or(|start| *start > 0.0) {
                    starts.insert(0, 0.0);
                    labels.insert(0, 0.0);
                }
                Ok(Search::Found(Grid { starts, unit_bits, labels }))
            }
        }
    }

    /// Whether a bin has to be divided.
    fn is_open(self, bin: &Counted, smallest: i32) -> bool {
        bin.width_bits > smallest
            && match self.resolution {
                TimeResolution::Exact => bin.all_events() > 0 && bin.rows > 1,
                TimeResolution::Events(least) => bin.all_events() >= 2 * u64::from(least.max(1)),
            }
    }

    fn read(self, bins: &Bins, answered: &Answered) -> Result<(u64, Vec<Counted>), AnalysisError> {
        let wrong = || AnalysisError::Sums(TIMES.to_owned());
        let [checks, counts] = answered.sums.as_slice() else { return Err(wrong()) };
        let &[_, fractional, impossible] = checks.as_slice() else { return Err(wrong()) };
        if impossible > 0.0 {
            return Err(AnalysisError::Data("a time is negative, or an event is neither 0 nor 1".to_owned()));
        }
        if counts.len() != bins.starts.len() * bins.parts() * self.channels() {
            return Err(wrong());
        }
        let width_bits = bins.width_bits - bins.part_bits;
        let width = f64::from(width_bits).exp2();
        let counted = counts.chunks(self.channels()).enumerate().map(|(index, counts)| {
            let counts: Vec<u64> = counts.iter().map(|count| whole(*count).ok_or_else(wrong)).collect::<Result<_, _>>()?;
            let (bin, part) = (index / bins.parts(), index % bins.parts());
            let start = bins.starts[bin] + part as f64 * width;
            Ok(Counted { start, width_bits, rows: counts[0], events: counts[1..].to_vec() })
        });
        Ok((whole(fractional).ok_or_else(wrong)?, counted.collect::<Result<_, AnalysisError>>()?))
    }

    /// Joins bins until each step holds enough events of each group that has any in it.
    fn steps(self, bins: &[Counted], least: u64, unit_bits: i32, are_whole: bool) -> Grid {
        let unit = f64::from(-unit_bits).exp2();
        let end = |bin: &Counted| {
            let end = (bin.start + f64::from(bin.width_bits).exp2()) * unit;
            if are_whole { end - 1.0 } else { end }
        };
        let mut grid = Grid { starts: vec![0.0], unit_bits, labels: vec![0.0] };
        let is_enough = |events: &[u64]| events.iter().all(|events| *events == 0 || *events >= least);
        let mut held = vec![0; self.groups];
        let mut left = vec![0; self.groups];
        for bin in bins {
            left.iter_mut().zip(&bin.events).for_each(|(left, events)| *left += events);
        }
        for bin in bins {
            let is_full = held.iter().any(|events| *events > 0) && is_enough(&held);
            // What is left at the end must fill a step too.
            if is_full && is_enough(&left) {
                grid.starts.push(bin.start);
                grid.labels.push(0.0);
                held = vec![0; self.groups];
            }
            held.iter_mut().zip(&bin.events).for_each(|(held, events)| *held += events);
            left.iter_mut().zip(&bin.events).for_each(|(left, events)| *left -= events);
            let last = grid.labels.len() - 1;
            grid.labels[last] = end(bin);
        }
        grid
    }
}

fn read_labels(answered: &Answered, time_bits: i32) -> Result<Vec<f64>, AnalysisError> {
    let wrong = || AnalysisError::Sums(LABELS.to_owned());
    let [counts, sums] = answered.sums.as_slice() else { return Err(wrong()) };
    if counts.len() != sums.len() || counts.iter().any(|count| *count < 1.0) {
        return Err(wrong());
    }
    let unit = f64::from(time_bits).exp2();
    Ok(sums.iter().zip(counts).map(|(sum, count)| sum / count * unit).collect())
}

/// What a node counts in a pass of the search.
pub(crate) struct TimesTally {
    search: TimeSearch,
    bins: Bins,
    is_labels: bool,
    time_unit: f64,
    rows: u64,
    events: Vec<u64>,
    fractional: u64,
    impossible: u64,
    counts: Vec<u64>,
    sums: Vec<Sum>,
}

impl TimesTally {
    pub(crate) fn new(search: TimeSearch, pass: &Pass, time_bits: i32) -> Result<Self, AnalysisError> {
        let bins = Bins::of(pass)?;
        let is_labels = pass.step == LABELS;
        let cells = if is_labels { bins.starts.len() } else { search.counts(&bins, pass)? };
        Ok(Self {
            search,
            is_labels,
            time_unit: f64::from(-time_bits).exp2(),
            rows: 0,
            events: vec![0; search.groups],
            fractional: 0,
            impossible: 0,
            counts: vec![0; cells],
            sums: vec![Sum::default(); if is_labels { cells } else { 0 }],
            bins,
        })
    }

    /// Counts a row whose event is neither 0 nor 1.
    pub(crate) fn add_impossible(&mut self) {
        self.impossible += 1;
    }

    pub(crate) fn add(&mut self, row: Observed) {
        self.rows += 1;
        if row.time < 0.0 {
            self.impossible += 1;
            return;
        }
        self.events[row.group] += u64::from(row.is_event);
        if self.is_labels {
            let key = (row.time * f64::from(self.bins.unit_bits).exp2()).floor();
            if let (true, Some(bin)) = (row.is_event, self.bins.starts.partition_point(|start| *start <= key).checked_sub(1))
            {
                self.counts[bin] += 1;
                self.sums[bin].add(row.time * self.time_unit);
            }
            return;
        }
        self.fractional += u64::from(row.time.fract() != 0.0);
        if let Some(part) = self.bins.part(row.time) {
            let at = part * self.search.channels();
            self.counts[at] += 1;
            self.counts[at + 1 + row.group] += u64::from(row.is_event);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.fractional += other.fractional;
        self.impossible += other.impossible;
        for (count, theirs) in
            self.counts.iter_mut().chain(&mut self.events).zip(other.counts.into_iter().chain(other.events))
        {
            *count += theirs;
        }
        for (sum, theirs) in self.sums.iter_mut().zip(other.sums) {
            sum.merge(theirs);
        }
    }

    pub(crate) fn finish(self, groups: &[String]) -> Tallied {
        let numbers = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect();
        let vectors = if self.is_labels {
            vec![vector("counts", numbers(&self.counts)), vector("sums", self.sums.iter().map(|sum| sum.value()).collect())]
        } else {
            vec![
                vector("checks", numbers(&[self.rows, self.fractional, self.impossible])),
                vector("counts", numbers(&self.counts)),
            ]
        };
        let mut cells = vec![Cell { kind: CellKind::Rows, of: "complete rows".to_owned(), count: self.rows }];
        cells.extend(groups.iter().zip(&self.events).map(|(group, events)| Cell {
            kind: CellKind::Events,
            of: group.clone(),
            count: *events,
        }));
        Tallied { vectors, rows: self.rows, cells }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(start: f64, events: &[u64]) -> Counted {
        Counted { start, width_bits: 2, rows: events.iter().sum(), events: events.to_vec() }
    }

    #[test]
    fn steps_hold_the_minimum_in_each_group_that_has_any() {
        let search = TimeSearch { groups: 2, resolution: TimeResolution::Events(5) };
        let bins = [
            counted(0.0, &[3, 0]),
            counted(4.0, &[3, 2]),
            counted(8.0, &[0, 4]),
            counted(16.0, &[5, 0]),
            counted(20.0, &[1, 5]),
            counted(28.0, &[6, 1]),
        ];
        let grid = search.steps(&bins, 5, 0, true);
        // The last bin joins the one before it, and both the step before, which the first group would not fill.
        assert_eq!(grid.starts, [0.0, 16.0, 20.0]);
        assert_eq!(grid.labels, [11.0, 19.0, 31.0]);
        assert_eq!((grid.bin(15.0), grid.bin(16.0), grid.bin(99.0)), (0, 1, 2));
    }

    #[test]
    fn parts_of_bins_are_found() {
        let bins = Bins { starts: vec![0.0, 32.0], width_bits: 4, part_bits: 2, unit_bits: 1 };
        assert_eq!(bins.part(0.0), Some(0));
        assert_eq!(bins.part(7.9), Some(3));
        assert_eq!(bins.part(8.0), None);
        assert_eq!(bins.part(16.0), Some(4));
        assert_eq!(bins.part(23.5), Some(7));
    }
}
