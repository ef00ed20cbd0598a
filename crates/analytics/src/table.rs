//! Contingency tables: counts, the chi-square test of Pearson 1900, with the correction of Yates 1934, and Fisher's exact test.

use protocol::statistic::{Table, TableTest};
use protocol::{Level, Pass, VectorSpec};
use serde::Serialize;

use crate::analysis::{
    Analysis, AnalysisError, Answered, Batch, Cell, CellKind, Column, Input, Next, Tallied, Tally, same_pass,
};
use crate::distributions::chi_square_upper;
use crate::suppress::{Hidden, suppress};
use crate::survey::{Reader, counts, vector};

const STEP: &str = "counts";
const LEFT_OUT: &str = "left_out";

/// What a table answers. Counts are absent where they are hidden.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableAnswer {
    /// Of the test asked for; absent without two rows and two columns, or if counts are hidden.
    pub statistic: Option<f64>,
    pub df: Option<f64>,
    pub p: Option<f64>,
    pub test: TableTest,
    /// The levels of the rows.
    pub rows: Vec<Level>,
    pub columns: Vec<Level>,
    pub counts: Vec<Vec<Option<u64>>>,
    pub row_totals: Vec<Option<u64>>,
    pub column_totals: Vec<Option<u64>>,
    pub total: u64,
    /// Rows of data with a blank cell or another level in one of the two columns.
    pub left_out: Option<u64>,
    /// Counts that would be expected if rows and columns had nothing to do with each other.
    pub expected: Option<Vec<Vec<f64>>>,
    pub pearson: Option<TestAnswer>,
    pub yates: Option<TestAnswer>,
    /// Of 2 × 2 tables.
    pub fisher: Option<FisherAnswer>,
}

/// A chi-square test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TestAnswer {
    pub statistic: f64,
    pub df: f64,
    pub p: f64,
}

/// Fisher's exact test, two-sided: the probability of all tables with the same margins that are no more likely than this one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FisherAnswer {
    /// ad / bc; absent if that is infinite or 0 / 0.
    pub odds_ratio: Option<f64>,
    pub p: f64,
}

impl Analysis for Table {
    type Answer = TableAnswer;

    fn inputs(&self) -> Vec<Input> {
        vec![Input::Levels(self.rows().clone()), Input::Levels(self.columns().clone())]
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        check(pass)?;
        let shape = vec![self.rows().levels().len(), self.columns().levels().len()];
        Ok(vec![counts(STEP, shape), counts(LEFT_OUT, vec![1])])
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        check(pass)?;
        let cells = self.rows().levels().len() * self.columns().levels().len();
        Ok(Box::new(TableTally { plan: self.clone(), counts: vec![0; cells], left_out: 0 }))
    }

    fn next(&self, history: &[Answered]) -> Result<Next<TableAnswer>, AnalysisError> {
        let Some(answered) = history.first() else { return Ok(Next::Ask(Pass::new(STEP))) };
        let n_columns = self.columns().levels().len();
        let mut reader = Reader::new(STEP, &answered.sums);
        let counts = reader.counts(self.rows().levels().len() * n_columns)?;
        let left_out = reader.counts(1)?[0];
        let counts: Vec<Vec<u64>> = counts.chunks(n_columns).map(<[u64]>::to_vec).collect();
        Ok(Next::Done(TableAnswer::new(self, &counts, left_out)))
    }

    /// A row is in one cell.
    fn limited(answer: TableAnswer, minimum: u64) -> Result<TableAnswer, AnalysisError> {
        Ok(answer.suppressed(minimum))
    }

    fn sensitivity(&self, pass: &Pass, _: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        check(pass)?;
        Ok(vec![1.0, 1.0])
    }
}

fn check(pass: &Pass) -> Result<(), AnalysisError> {
    if pass.step == STEP { Ok(()) } else { Err(AnalysisError::Pass(pass.step.clone())) }
}

struct TableTally {
    plan: Table,
    counts: Vec<u64>,
    left_out: u64,
}

impl Tally for TableTally {
    fn add(&mut self, batch: &Batch) {
        let [Column::Levels(rows), Column::Levels(columns)] = batch.columns.as_slice() else { return };
        let (n_rows, n_columns) = (self.plan.rows().levels().len(), self.plan.columns().levels().len());
        let below = |code: u32, n: usize| usize::try_from(code).ok().filter(|code| *code < n);
        for (row, column) in rows.iter().zip(columns) {
            match (below(*row, n_rows), below(*column, n_columns)) {
                (Some(row), Some(column)) => self.counts[row * n_columns + column] += 1,
                _ => self.left_out += 1,
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.counts.iter_mut().zip(other.counts).for_each(|(count, theirs)| *count += theirs);
        self.left_out += other.left_out;
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let (rows, columns) = (self.plan.rows(), self.plan.columns());
        let names = rows.levels().iter().flat_map(|row| {
            let name = move |column| format!("{} = {row}, {} = {column}", rows.column(), columns.column());
            columns.levels().iter().map(name)
        });
        let cells = names.zip(&self.counts).map(|(of, count)| Cell { kind: CellKind::Rows, of, count: *count }).collect();
        let values = self.counts.iter().map(|count| *count as f64).collect();
        let rows = self.counts.iter().sum::<u64>() + self.left_out;
        let vectors = vec![vector(STEP, values), vector(LEFT_OUT, vec![self.left_out as f64])];
        Ok(Tallied { vectors, rows, cells })
    }
}

impl TableAnswer {
    fn new(plan: &Table, counts: &[Vec<u64>], left_out: u64) -> Self {
        let row_totals: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
        let column_totals: Vec<u64> =
            (0..plan.columns().levels().len()).map(|column| counts.iter().map(|row| row[column]).sum()).collect();
        let tests = Tests::of(counts, &row_totals, &column_totals);
        let asked = match plan.test() {
            TableTest::Chi2 => tests.pearson,
            TableTest::Yates => tests.yates,
            TableTest::Fisher => None,
        };
        Self {
            statistic: asked.map(|test| test.statistic),
            df: asked.map(|test| test.df),
            p: match plan.test() {
                TableTest::Fisher => tests.fisher.map(|test| test.p),
                _ => asked.map(|test| test.p),
            },
            test: plan.test(),
            rows: plan.rows().levels().to_vec(),
            columns: plan.columns().levels().to_vec(),
            counts: counts.iter().map(|row| row.iter().copied().map(Some).collect()).collect(),
            total: row_totals.iter().sum(),
            row_totals: row_totals.into_iter().map(Some).collect(),
            column_totals: column_totals.into_iter().map(Some).collect(),
            left_out: Some(left_out),
            expected: tests.expected,
            pearson: tests.pearson,
            yates: tests.yates,
            fisher: tests.fisher,
        }
    }

    /// Hides counts above 0 and below `minimum`, and others from which they would follow. If anything is hidden, so are the tests: with the
    /// margins, a test tells the counts of a 2 × 2 table.
    #[must_use]
    pub fn suppressed(mut self, minimum: u64) -> Self {
        let counts: Option<Vec<Vec<u64>>> = self.counts.iter().map(|row| row.iter().copied().collect()).collect();
        // What is hidden already stays as it is.
        let Some(counts) = counts else { return self };
        let hidden = suppress(&counts, minimum);
        if hidden == Hidden::nothing(counts.len(), self.columns.len()) {
            return self;
        }
        let hide = |counts: &mut [Option<u64>], hidden: &[bool]| {
            counts.iter_mut().zip(hidden).filter(|(_, hidden)| **hidden).for_each(|(count, _)| *count = None);
        };
        self.counts.iter_mut().zip(&hidden.cells).for_each(|(row, hidden)| hide(row, hidden));
        hide(&mut self.row_totals, &hidden.rows);
        hide(&mut self.column_totals, &hidden.columns);
        Self {
            statistic: None,
            df: None,
            p: None,
            expected: None,
            pearson: None,
            yates: None,
            fisher: None,
            left_out: self.left_out.filter(|count| *count == 0 || *count >= minimum),
            ..self
        }
    }
}

#[derive(Default)]
struct Tests {
    expected: Option<Vec<Vec<f64>>>,
    pearson: Option<TestAnswer>,
    yates: Option<TestAnswer>,
    fisher: Option<FisherAnswer>,
}

impl Tests {
    /// Tests the rows and columns that have any counts.
    fn of(counts: &[Vec<u64>], row_totals: &[u64], column_totals: &[u64]) -> Self {
        let total: u64 = row_totals.iter().sum();
        let filled = |totals: &[u64]| (0..totals.len()).filter(|at| totals[*at] > 0).collect::<Vec<usize>>();
        let (rows, columns) = (filled(row_totals), filled(column_totals));
        if total == 0 {
            return Self::default();
        }
        let expect = |row: usize, column: usize| row_totals[row] as f64 * column_totals[column] as f64 / total as f64;
        let expected = (0..row_totals.len()).map(|row| (0..column_totals.len()).map(|column| expect(row, column)).collect());
        let expected = Some(expected.collect());
        if rows.len() < 2 || columns.len() < 2 {
            return Self { expected, ..Self::default() };
        }
        let df = ((rows.len() - 1) * (columns.len() - 1)) as f64;
        let chi_square = |correction: f64| {
            let term = |row: usize, column: usize| {
                let (expected, distance) = (expect(row, column), counts[row][column] as f64 - expect(row, column));
                let distance = distance.abs() - correction.min(distance.abs());
                distance * distance / expected
            };
            let statistic = rows.iter().flat_map(|row| columns.iter().map(move |column| term(*row, *column))).sum();
            TestAnswer { statistic, df, p: chi_square_upper(statistic, df) }
        };
        let is_two_by_two = df == 1.0;
        Self {
            expected,
            pearson: Some(chi_square(0.0)),
            yates: Some(chi_square(if is_two_by_two { 0.5 } else { 0.0 })),
            fisher: is_two_by_two.then(|| {
                let at = |row: usize, column: usize| counts[rows[row]][columns[column]];
                fisher([[at(0, 0), at(0, 1)], [at(1, 0), at(1, 1)]])
            }),
        }
    }
}

/// Fisher 1935, "The logic of inductive inference". Tables that are as likely but for rounding count as no more likely.
#[expect(clippy::many_single_char_names, reason = "the usual names of the four cells")]
fn fisher([[a, b], [c, d]]: [[u64; 2]; 2]) -> FisherAnswer {
    const ROUNDING: f64 = 1.0 + 1e-7;
    let (row, column, total) = (a + b, a + c, a + b + c + d);
    let (lowest, highest) = (column.saturating_sub(total - row), column.min(row));
    // The probability of x + 1 beside that of x is a ratio of small whole numbers. The sum is 1.
    let mode = ((row + 1) * (column + 1) / (total + 2)).clamp(lowest, highest);
    let ratio = |x: u64| (row - x) as f64 * (column - x) as f64 / ((x + 1) as f64 * (total + x + 1 - row - column) as f64);
    let mut weights = vec![0.0; usize::try_from(highest - lowest + 1).unwrap_or(0)];
    let at = |x: u64| usize::try_from(x - lowest).unwrap_or(0);
    weights[at(mode)] = 1.0;
    for x in mode..highest {
        weights[at(x + 1)] = weights[at(x)] * ratio(x);
    }
    for x in (lowest..mode).rev() {
        weights[at(x)] = weights[at(x + 1)] / ratio(x);
    }
    let limit = weights[at(a)] * ROUNDING;
    let all: f64 = weights.iter().sum();
    let p = weights.iter().filter(|weight| **weight <= limit).sum::<f64>() / all;
    let odds_ratio = (a as f64 * d as f64) / (b as f64 * c as f64);
    FisherAnswer { odds_ratio: odds_ratio.is_finite().then_some(odds_ratio), p: p.min(1.0) }
}
