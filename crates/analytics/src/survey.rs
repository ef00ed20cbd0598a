//! The first pass of every statistic that sums real numbers: how many rows and values there are, and how large they are.
//!
//! Later passes need a scale for their sums that fits everybody's values. Nodes do not name their largest value: each counts itself
//! in one of [`BUCKETS`] buckets of the binary exponent of its largest absolute value, sixteen exponents wide, for each numeric input. The
//! sum of these counts over all nodes says how large the largest may be, and not whose it is.

use protocol::{Encoding, Pass, Purpose, Vector, VectorSpec, Width};

use crate::analysis::{AnalysisError, Batch, Cell, CellKind, Column, Input, MISSING, OTHER, Tallied, Tally, same_pass};

/// The name of the pass.
pub const STEP: &str = "survey";
/// Buckets of a numeric input: exponents from -512 to 511.
pub const BUCKETS: usize = 64;
/// Binary exponents in a bucket.
const BUCKET_BITS: i32 = 16;
/// The smallest exponent that is told apart: smaller values are in the first bucket.
const SMALLEST_EXPONENT: i32 = -512;

/// The numbers in later passes that tell each node how many rows the nodes have together.
pub const TOTAL: &str = "total_rows";

const ROWS: &str = "rows";
const PRESENT: &str = "present";
const MAGNITUDES: &str = "magnitudes";
const BITS: &str = "bits";

/// What is surveyed: the inputs of a statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    inputs: Vec<Input>,
}

/// What a survey says of all nodes together.
#[derive(Debug, Clone, PartialEq)]
pub struct Surveyed {
    pub rows: u64,
    /// Of the numeric inputs, in their order.
    pub numbers: Vec<SurveyedNumbers>,
    /// Of the inputs with levels, in their order.
    pub levels: Vec<SurveyedLevels>,
}

/// A numeric input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurveyedNumbers {
    pub present: u64,
    /// Every absolute value is below two to this power; up to 16 more than needed.
    pub bits: i32,
}

/// An input with levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedLevels {
    pub counts: Vec<u64>,
    pub missing: u64,
    /// Values that are none of the levels.
    pub other: u64,
}

impl Survey {
    pub fn new(inputs: Vec<Input>) -> Self {
        Self { inputs }
    }

    fn numeric(&self) -> usize {
        self.inputs.iter().filter(|input| matches!(input, Input::Number(_))).count()
    }

    /// How many levels each input with levels has.
    fn levels(&self) -> Vec<usize> {
        self.inputs
            .iter()
            .filter_map(|input| match input {
                Input::Number(_) => None,
                Input::Levels(category) => Some(category.levels().len()),
            })
            .collect()
    }

    /// Rows; present values and magnitudes if there are numbers; for each input with levels the count of each, of blank cells and of
    /// other values.
    pub fn layout(&self) -> Vec<VectorSpec> {
        let numeric = self.numeric();
        let mut layout = vec![counts(ROWS, vec![1])];
        if numeric > 0 {
            layout.extend([counts(PRESENT, vec![numeric]), counts(MAGNITUDES, vec![numeric, BUCKETS])]);
        }
        let levels = self.levels().into_iter().enumerate();
        layout.extend(levels.map(|(index, levels)| counts(&format!("levels_{index}"), vec![levels + 2])));
        layout
    }

    pub fn tally(&self) -> Box<dyn Tally> {
        Box::new(SurveyTally {
            inputs: self.inputs.clone(),
            rows: 0,
            numbers: vec![Largest::default(); self.numeric()],
            levels: self.levels().into_iter().map(|levels| vec![0; levels + 2]).collect(),
        })
    }

    /// Reads the sums of [`layout`](Self::layout).
    pub fn read(&self, sums: &[Vec<f64>]) -> Result<Surveyed, AnalysisError> {
        let (numeric, levels) = (self.numeric(), self.levels());
        let mut reader = Reader::new(STEP, sums);
        let rows = reader.counts(1)?[0];
        let mut numbers = Vec::with_capacity(numeric);
        if numeric > 0 {
            let present = reader.counts(numeric)?;
            let magnitudes = reader.counts(numeric * BUCKETS)?;
            for (present, magnitudes) in present.into_iter().zip(magnitudes.chunks(BUCKETS)) {
                let largest = magnitudes.iter().rposition(|nodes| *nodes > 0);
                if present > rows || (present > 0) != largest.is_some() {
                    return Err(reader.wrong());
                }
                numbers.push(SurveyedNumbers { present, bits: bits_of_bucket(largest.unwrap_or(0)) });
            }
        }
        let levels = levels.into_iter().map(|n_levels| {
            let mut counts = reader.counts(n_levels + 2)?;
            if counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count)) != Some(rows) {
                return Err(reader.wrong());
            }
            let (other, missing) = (counts.pop().unwrap_or(0), counts.pop().unwrap_or(0));
            Ok(SurveyedLevels { counts, missing, other })
        });
        Ok(Surveyed { rows, numbers, levels: levels.collect::<Result<_, AnalysisError>>()? })
    }

    /// A row counts once everywhere; it may move its node from one bucket to another.
    pub fn sensitivity(&self) -> Vec<f64> {
        let numeric = self.numeric() as f64;
        let mut sensitivity = vec![1.0];
        if numeric > 0.0 {
            sensitivity.extend([numeric.sqrt(), (2.0 * numeric).sqrt()]);
        }
        sensitivity.extend(self.levels().iter().map(|_| 1.0));
        sensitivity
    }
}

impl Surveyed {
    /// A later pass, which knows how many rows there are and how large values can be.
    pub fn pass(&self, step: &str) -> Pass {
        let bits = self.numbers.iter().map(|numbers| f64::from(numbers.bits)).collect();
        Pass::new(step).with(ROWS, vec![self.rows as f64]).with(BITS, bits)
    }
}

/// How large sums can become, out of a pass that a survey led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    row_bits: i32,
    bits: Vec<i32>,
}

impl Scales {
    /// Those of a pass over this many numeric inputs.
    pub fn of(pass: &Pass, numeric: usize) -> Result<Self, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let rows = pass.get(ROWS).and_then(|rows| rows.first()).and_then(|rows| whole(*rows)).ok_or_else(wrong)?;
        let bits = pass.get(BITS).filter(|bits| bits.len() == numeric).ok_or_else(wrong)?;
        let bits = bits.iter().map(|bits| small_integer(*bits).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        let row_bits = i32::try_from(u64::BITS - rows.leading_zeros()).map_err(|_| wrong())?;
        Ok(Self { row_bits, bits })
    }

    /// Every absolute value of a numeric input is below two to this power.
    pub fn bits(&self, numeric: usize) -> i32 {
        self.bits[numeric]
    }

    /// The number of rows of all nodes is below two to this power.
    pub fn row_bits(&self) -> i32 {
        self.row_bits
    }

    /// The largest [`bits`](Self::bits).
    pub fn largest_bits(&self) -> i32 {
        self.bits.iter().copied().max().unwrap_or(0)
    }

    /// A vector of sums over all rows of terms below 1 in absolute value, which [`down`] made of others: one scale for all columns,
    /// however different their sizes.
    pub fn unit_sums(&self, name: &str, shape: Vec<usize>) -> VectorSpec {
        self.sums(name, shape, 0)
    }

    /// An encoding in which the sum over all rows of terms below two to the power `bits` fits, as finely as possible.
    pub fn encoding(&self, bits: i32) -> Encoding {
        // A sum is below 2^(bits + row_bits); elements are below 2^111.
        let exponent = (110 - bits.saturating_add(self.row_bits)).clamp(-1000, 1000);
        Encoding { width: Width::Bits128, exponent: i16::try_from(exponent).unwrap_or(0) }
    }

    /// A vector of such sums.
    pub fn sums(&self, name: &str, shape: Vec<usize>, bits: i32) -> VectorSpec {
        VectorSpec { purpose: Purpose::Statistic, name: name.to_owned(), shape, encoding: self.encoding(bits) }
    }
}

/// The value divided by two to the power `bits`: exact, unless the result is subnormal.
pub fn down(value: f64, bits: i32) -> f64 {
    up(value, -bits)
}

/// The value multiplied by two to the power `bits`, in two steps, so that a power which is no f64 does not make a result infinite that is one.
pub fn up(value: f64, bits: i32) -> f64 {
    let half = bits / 2;
    value * f64::from(half).exp2() * f64::from(bits - half).exp2()
}

/// The sums of a pass, taken one vector after the other in the layout's order.
pub struct Reader<'a> {
    step: &'a str,
    sums: std::slice::Iter<'a, Vec<f64>>,
}

impl<'a> Reader<'a> {
    pub fn new(step: &'a str, sums: &'a [Vec<f64>]) -> Self {
        Self { step, sums: sums.iter() }
    }

    pub fn wrong(&self) -> AnalysisError {
        AnalysisError::Sums(self.step.to_owned())
    }

    /// The next vector: finite sums.
    pub fn reals(&mut self, len: usize) -> Result<&'a [f64], AnalysisError> {
        let sums = self.sums.next().filter(|sums| sums.len() == len && sums.iter().all(|sum| sum.is_finite()));
        sums.map(Vec::as_slice).ok_or_else(|| self.wrong())
    }

    /// The next vector: counts.
    pub fn counts(&mut self, len: usize) -> Result<Vec<u64>, AnalysisError> {
        self.reals(len)?.iter().map(|sum| whole(*sum).ok_or_else(|| self.wrong())).collect()
    }
}

/// A vector of counts.
pub fn counts(name: &str, shape: Vec<usize>) -> VectorSpec {
    VectorSpec { purpose: Purpose::Statistic, name: name.to_owned(), shape, encoding: Encoding::COUNT }
}

/// A node's values for a vector.
pub fn vector(name: &str, values: Vec<f64>) -> Vector {
    Vector { purpose: Purpose::Statistic, name: name.to_owned(), values }
}

/// A count out of a decoded sum; `None` if it is not a whole number that f64 holds exactly.
pub fn whole(value: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 2^53")]
    ((0.0..9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

/// A whole number that may be below 0, as an exponent.
fn small_integer(value: f64) -> Option<i32> {
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^16")]
    (value.abs() <= 65_536.0 && value.fract() == 0.0).then_some(value as i32)
}

fn bits_of_bucket(bucket: usize) -> i32 {
    SMALLEST_EXPONENT + BUCKET_BITS * (i32::try_from(bucket).unwrap_or(0) + 1)
}

/// The binary exponent of a positive finite number; that of all subnormal ones is -1023.
fn binary_exponent(value: f64) -> i32 {
    let biased = ((value.to_bits() >> 52) & 0x7ff) as i32;
    biased - 1023
}

/// How many values, and the largest absolute one.
#[derive(Debug, Clone, Copy, Default)]
struct Largest {
    present: u64,
    absolute: f64,
}

struct SurveyTally {
    inputs: Vec<Input>,
    rows: u64,
    numbers: Vec<Largest>,
    levels: Vec<Vec<u64>>,
}

impl Tally for SurveyTally {
    fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows as u64;
        let (mut numbers, mut levels) = (self.numbers.iter_mut(), self.levels.iter_mut());
        for column in &batch.columns {
            match column {
                Column::Numbers(values) => {
                    let Some(largest) = numbers.next() else { continue };
                    let blank = values.iter().map(|value| u64::from(value.is_nan())).sum::<u64>();
                    largest.present += values.len() as u64 - blank;
                    // f64::max leaves NaN out.
                    largest.absolute = values.iter().fold(largest.absolute, |largest, value| largest.max(value.abs()));
                }
                Column::Levels(codes) => {
                    let Some(counts) = levels.next() else { continue };
                    let n_levels = counts.len() - 2;
                    for code in codes {
                        let at = match *code {
                            MISSING => n_levels,
                            OTHER => n_levels + 1,
                            code => usize::try_from(code).map_or(n_levels + 1, |code| code.min(n_levels + 1)),
                        };
                        counts[at] += 1;
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        for (largest, theirs) in self.numbers.iter_mut().zip(other.numbers) {
            largest.present += theirs.present;
            largest.absolute = largest.absolute.max(theirs.absolute);
        }
        for (counts, theirs) in self.levels.iter_mut().flatten().zip(other.levels.into_iter().flatten()) {
            *counts += theirs;
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let mut cells = vec![Cell { kind: CellKind::Rows, of: "rows".to_owned(), count: self.rows }];
        let mut vectors = vec![vector(ROWS, vec![self.rows as f64])];
        let mut magnitudes = vec![0.0; self.numbers.len() * BUCKETS];
        let (mut numbers, mut levels) = (self.numbers.iter(), self.levels.iter());
        let mut buckets = magnitudes.chunks_mut(BUCKETS);
        for input in &self.inputs {
            match input {
                Input::Number(expression) => {
                    let (Some(largest), Some(buckets)) = (numbers.next(), buckets.next()) else { continue };
                    cells.push(Cell { kind: CellKind::Rows, of: expression.to_string(), count: largest.present });
                    let exponent = binary_exponent(largest.absolute);
                    if exponent >= -SMALLEST_EXPONENT {
                        return Err(AnalysisError::Data(format!("a value of {expression} is too large, or infinite")));
                    }
                    if largest.present > 0 {
                        let bucket = (exponent - SMALLEST_EXPONENT).max(0) / BUCKET_BITS;
                        buckets[usize::try_from(bucket).unwrap_or(0)] = 1.0;
                    }
                }
                Input::Levels(category) => {
                    let Some(counts) = levels.next() else { continue };
                    cells.extend(category.levels().iter().zip(counts).map(|(level, count)| Cell {
                        kind: CellKind::Rows,
                        of: format!("{} = {level}", category.column()),
                        count: *count,
                    }));
                }
            }
        }
        if !self.numbers.is_empty() {
            vectors.push(vector(PRESENT, self.numbers.iter().map(|largest| largest.present as f64).collect()));
            vectors.push(vector(MAGNITUDES, magnitudes));
        }
        vectors.extend(
            self.levels.iter().enumerate().map(|(index, counts)| {
                vector(&format!("levels_{index}"), counts.iter().map(|count| *count as f64).collect())
            }),
        );
        Ok(Tallied { vectors, rows: self.rows, cells })
    }
}
