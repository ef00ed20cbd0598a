//! Count, mean and squared deviations of one number in each of some groups: what t-tests and the analysis of variance are made of.
//!
//! Three passes: a survey, sums, and squared differences from the means that the sums gave. The last pass counts and sums again, so that
//! a node that is lost before it leaves the moments those of the others, and the rounding of the means does not matter: with
//! d = Σ(x - a), the mean is a + d / n, and Σ(x - mean)² = Σ(x - a)² - d² / n (Chan, Golub and LeVeque 1983).

use protocol::{Category, Expression, Pass, VectorSpec};

use crate::analysis::{AnalysisError, Answered, Batch, Cell, CellKind, Column, Input, Next, Tallied, Tally, same_pass};
use crate::sum::{Sum, above_rounding};
use crate::survey::{self, Reader, Scales, Survey, counts, down, up, vector};

const SUMS: &str = "sums";
const SQUARES: &str = "squares";
const MEANS: &str = "means";

/// A number, and the groups whose moments are asked for; one group of all rows if there is no category.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grouped<'a> {
    pub(crate) value: &'a Expression,
    pub(crate) by: Option<&'a Category>,
}

/// The moments of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GroupMoments {
    pub(crate) count: u64,
    /// 0 without values.
    pub(crate) mean: f64,
    /// Σ (x - mean)².
    pub(crate) squares: f64,
}

impl GroupMoments {
    /// The sample variance, divisor n - 1; absent for fewer than two values.
    pub(crate) fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }
}

impl Grouped<'_> {
    fn groups(&self) -> usize {
        self.by.map_or(1, |by| by.levels().len())
    }

    /// The group in words, as `sex = 1`.
    pub(crate) fn name(&self, group: usize) -> String {
        self.by.map_or_else(|| self.value.to_string(), |by| format!("{} = {}", by.column(), by.levels()[group]))
    }

    pub(crate) fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::Number(self.value.clone())];
        inputs.extend(self.by.map(|by| Input::Levels(by.clone())));
        inputs
    }

    fn survey(&self) -> Survey {
        Survey::new(self.inputs())
    }

    pub(crate) fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        let groups = self.groups();
        match pass.step.as_str() {
            survey::STEP => Ok(self.survey().layout()),
            SUMS => {
                let scales = Scales::of(pass, 1)?;
                Ok(vec![counts("counts", vec![groups]), scales.unit_sums(SUMS, vec![groups])])
            }
            SQUARES => {
                let scales = Scales::of(pass, 1)?;
                let sums = |name| scales.unit_sums(name, vec![groups]);
                Ok(vec![counts("counts", vec![groups]), sums("differences"), sums(SQUARES)])
            }
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    pub(crate) fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey().tally());
        }
        let groups = self.groups();
        let bits = Scales::of(pass, 1)?.bits(0);
        let means = match pass.step.as_str() {
            SUMS => None,
            SQUARES => Some(means(pass, groups)?.to_vec()),
            _ => return Err(AnalysisError::Pass(pass.step.clone())),
        };
        let names = (0..groups).map(|group| self.name(group)).collect();
        let zeros = vec![Sum::default(); groups];
        Ok(Box::new(GroupTally {
            names,
            bits,
            means,
            counts: vec![0; groups],
            sums: zeros.clone(),
            squares: zeros,
            rows: 0,
        }))
    }

    pub(crate) fn next(&self, history: &[Answered]) -> Result<Next<Vec<GroupMoments>>, AnalysisError> {
        let Some(last) = history.last() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        let groups = self.groups();
        if last.pass.step == survey::STEP {
            return Ok(Next::Ask(self.survey().read(&last.sums)?.pass(SUMS)));
        }
        let bits = Scales::of(&last.pass, 1)?.bits(0);
        let mut reader = Reader::new(&last.pass.step, &last.sums);
        let counts = reader.counts(groups)?;
        let sums = reader.reals(groups)?;
        let per_value = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        if last.pass.step == SUMS {
            let means = counts.iter().zip(sums).map(|(count, sum)| up(per_value(*sum, *count), bits));
            let mut pass = last.pass.clone().with(MEANS, means.collect());
            SQUARES.clone_into(&mut pass.step);
            return Ok(Next::Ask(pass));
        }
        let squares = reader.reals(groups)?;
        let guesses = means(&last.pass, groups)?;
        let moments = (0..groups).map(|group| {
            let (count, difference) = (counts[group], up(sums[group], bits + 1));
            let excess = difference * per_value(difference, count);
            let mean = guesses[group] + per_value(difference, count);
            GroupMoments { count, mean, squares: above_rounding(up(squares[group], 2 * (bits + 1)) - excess, count, mean) }
        });
        Ok(Next::Done(moments.collect()))
    }

    /// A row is in one group.
    pub(crate) fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey().sensitivity());
        }
        let bits = Scales::of(pass, 1)?.bits(0);
        let range = ranges.first().copied().flatten().unwrap_or(f64::INFINITY);
        if pass.step == SUMS {
            return Ok(vec![1.0, down(range, bits)]);
        }
        let largest_mean = means(pass, self.groups())?.iter().fold(0.0_f64, |largest, mean| largest.max(mean.abs()));
        let difference = down(range + largest_mean, bits + 1);
        Ok(vec![1.0, difference, difference * difference])
    }
}

fn means(pass: &Pass, groups: usize) -> Result<&[f64], AnalysisError> {
    pass.get(MEANS).filter(|means| means.len() == groups).ok_or_else(|| AnalysisError::Pass(pass.step.clone()))
}

struct GroupTally {
    names: Vec<String>,
    bits: i32,
    means: Option<Vec<f64>>,
    counts: Vec<u64>,
    sums: Vec<Sum>,
    squares: Vec<Sum>,
    rows: u64,
}

impl GroupTally {
    fn add_value(&mut self, group: usize, value: f64) {
        if value.is_nan() {
            return;
        }
        self.counts[group] += 1;
        match &self.means {
            None => self.sums[group].add(value),
            Some(means) => {
                let difference = value - means[group];
                self.sums[group].add(difference);
                self.squares[group].add(difference * difference);
            }
        }
    }
}

impl Tally for GroupTally {
    fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows as u64;
        match batch.columns.as_slice() {
            [Column::Numbers(values)] => values.iter().for_each(|value| self.add_value(0, *value)),
            [Column::Numbers(values), Column::Levels(codes)] => {
                for (value, code) in values.iter().zip(codes) {
                    // Blank cells and other levels have codes above all groups.
                    if let Some(group) = usize::try_from(*code).ok().filter(|group| *group < self.counts.len()) {
                        self.add_value(group, *value);
                    }
                }
            }
            _ => {}
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        self.counts.iter_mut().zip(other.counts).for_each(|(count, theirs)| *count += theirs);
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, theirs)| sum.merge(theirs));
        self.squares.iter_mut().zip(other.squares).for_each(|(sum, theirs)| sum.merge(theirs));
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let cells = self.names.into_iter().zip(&self.counts);
        let cells = cells.map(|(of, count)| Cell { kind: CellKind::Rows, of, count: *count }).collect();
        let sums = |sums: &[Sum], bits: i32| sums.iter().map(|sum| down(sum.value(), bits)).collect();
        let mut vectors = vec![vector("counts", self.counts.iter().map(|count| *count as f64).collect())];
        if self.means.is_some() {
            vectors.push(vector("differences", sums(&self.sums, self.bits + 1)));
            vectors.push(vector(SQUARES, sums(&self.squares, 2 * (self.bits + 1))));
        } else {
            vectors.push(vector(SUMS, sums(&self.sums, self.bits)));
        }
        Ok(Tallied { vectors, rows: self.rows, cells })
    }
}
