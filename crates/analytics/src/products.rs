//! Cross-products of columns around their means, of the rows where all of them have a value.
//!
//! Three passes, as in [`grouped`](crate::grouped): a survey, sums, and products of differences from the means that the sums gave, with the
//! sums of these differences: with d = Σ(x - a) and e = Σ(y - b), Σ(x - mean)(y - mean) = Σ(x - a)(y - b) - d e / n.

use protocol::{Expression, Pass, VectorSpec};

use crate::analysis::{AnalysisError, Answered, Batch, Cell, CellKind, Column, Input, Next, Tallied, Tally, same_pass};
use crate::sum::{Sum, above_rounding};
use crate::survey::{self, Reader, Scales, Survey, counts, down, up, vector};

const SUMS: &str = "sums";
const PRODUCTS: &str = "products";
const MEANS: &str = "means";

/// The columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Products<'a>(pub(crate) &'a [Expression]);

/// What the cross-products are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CrossProducts {
    /// Rows where all columns have a value.
    pub(crate) count: u64,
    pub(crate) means: Vec<f64>,
    /// Σ (x - mean)(y - mean), symmetric.
    pub(crate) products: Vec<Vec<f64>>,
}

/// The pairs (i, j) with i ≤ j, in the order of their sums.
pub(crate) fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i..n).map(move |j| (i, j)))
}

/// How many [`pairs`] there are.
pub(crate) fn n_pairs(n: usize) -> usize {
    n * (n + 1) / 2
}

impl Products<'_> {
    pub(crate) fn inputs(&self) -> Vec<Input> {
        self.0.iter().cloned().map(Input::Number).collect()
    }

    fn survey(&self) -> Survey {
        Survey::new(self.inputs())
    }

    pub(crate) fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        let n = self.0.len();
        if pass.step == survey::STEP {
            return Ok(self.survey().layout());
        }
        let scales = Scales::of(pass, n)?;
        let rows = counts("rows", vec![1]);
        match pass.step.as_str() {
            SUMS => Ok(vec![rows, scales.unit_sums(SUMS, vec![n])]),
            PRODUCTS => {
                Ok(vec![rows, scales.unit_sums("differences", vec![n]), scales.unit_sums(PRODUCTS, vec![n_pairs(n)])])
            }
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    pub(crate) fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        let n = self.0.len();
        let is_products = match pass.step.as_str() {
            survey::STEP => return Ok(self.survey().tally()),
            SUMS => false,
            PRODUCTS => true,
            _ => return Err(AnalysisError::Pass(pass.step.clone())),
        };
        let scales = Scales::of(pass, n)?;
        let means = if is_products { means(pass, n)?.to_vec() } else { vec![0.0; n] };
        Ok(Box::new(ProductTally {
            // A difference from a mean is up to twice as large as a value.
            bits: (0..n).map(|column| scales.bits(column) + i32::from(is_products)).collect(),
            means,
            rows: 0,
            complete: 0,
            sums: vec![Sum::default(); n],
            products: vec![Sum::default(); if is_products { n_pairs(n) } else { 0 }],
        }))
    }

    pub(crate) fn next(&self, history: &[Answered]) -> Result<Next<CrossProducts>, AnalysisError> {
        let Some(last) = history.last() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        let n = self.0.len();
        if last.pass.step == survey::STEP {
            return Ok(Next::Ask(self.survey().read(&last.sums)?.pass(SUMS)));
        }
        let scales = Scales::of(&last.pass, n)?;
        let mut reader = Reader::new(&last.pass.step, &last.sums);
        let count = reader.counts(1)?[0];
        let sums = reader.reals(n)?;
        if count < 2 {
            return Err(AnalysisError::Data("fewer than two rows have a value in every column".to_owned()));
        }
        if last.pass.step == SUMS {
            let means = sums.iter().enumerate().map(|(column, sum)| up(sum / count as f64, scales.bits(column)));
            let mut pass = last.pass.clone().with(MEANS, means.collect());
            PRODUCTS.clone_into(&mut pass.step);
            return Ok(Next::Ask(pass));
        }
        let scaled = reader.reals(n_pairs(n))?;
        let bits = |column: usize| scales.bits(column) + 1;
        let differences: Vec<f64> = sums.iter().enumerate().map(|(column, sum)| up(*sum, bits(column))).collect();
        let guesses = means(&last.pass, n)?.iter().zip(&differences);
        let means: Vec<f64> = guesses.map(|(guess, difference)| guess + difference / count as f64).collect();
        let mut products = vec![vec![0.0; n]; n];
        for ((i, j), scaled) in pairs(n).zip(scaled) {
            let product = up(*scaled, bits(i) + bits(j)) - differences[i] * (differences[j] / count as f64);
            let product = if i == j { above_rounding(product, count, means[i]) } else { product };
            (products[i][j], products[j][i]) = (product, product);
        }
        // A column that does not vary has no products with others.
        let constant: Vec<usize> = (0..n).filter(|column| products[*column][*column] == 0.0).collect();
        for (i, j) in constant.iter().flat_map(|i| (0..n).map(move |j| (*i, j))) {
            (products[i][j], products[j][i]) = (0.0, 0.0);
        }
        Ok(Next::Done(CrossProducts { count, means, products }))
    }

    pub(crate) fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        let n = self.0.len();
        if pass.step == survey::STEP {
            return Ok(self.survey().sensitivity());
        }
        let scales = Scales::of(pass, n)?;
        let is_products = pass.step == PRODUCTS;
        let means = if is_products { means(pass, n)?.to_vec() } else { vec![0.0; n] };
        let largest: Vec<f64> = (0..n)
            .map(|column| {
                let range = ranges.get(column).copied().flatten().unwrap_or(f64::INFINITY);
                down(range + means[column].abs(), scales.bits(column) + i32::from(is_products))
            })
            .collect();
        let norm = largest.iter().map(|value| value * value).sum::<f64>().sqrt();
        let products = pairs(n).map(|(i, j)| (largest[i] * largest[j]).powi(2)).sum::<f64>().sqrt();
        Ok(if is_products { vec![1.0, norm, products] } else { vec![1.0, norm] })
    }
}

fn means(pass: &Pass, n: usize) -> Result<&[f64], AnalysisError> {
    pass.get(MEANS).filter(|means| means.len() == n).ok_or_else(|| AnalysisError::Pass(pass.step.clone()))
}

struct ProductTally {
    bits: Vec<i32>,
    means: Vec<f64>,
    rows: u64,
    complete: u64,
    sums: Vec<Sum>,
    /// Empty in the pass of sums.
    products: Vec<Sum>,
}

impl Tally for ProductTally {
    fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows as u64;
        let columns = batch.columns.iter().filter_map(|column| match column {
            Column::Numbers(values) => Some(values.as_slice()),
            Column::Levels(_) => None,
        });
        let columns: Vec<&[f64]> = columns.collect();
        let complete: Vec<usize> =
            (0..batch.rows).filter(|row| columns.iter().all(|values| !values[*row].is_nan())).collect();
        self.complete += complete.len() as u64;
        let differences: Vec<Vec<f64>> = columns
            .iter()
            .zip(&self.means)
            .map(|(values, mean)| complete.iter().map(|row| values[*row] - mean).collect())
            .collect();
        for (sum, differences) in self.sums.iter_mut().zip(&differences) {
            sum.add_all(differences, |difference| difference);
        }
        for (sum, (i, j)) in self.products.iter_mut().zip(pairs(differences.len())) {
            sum.add_products(&differences[i], &differences[j]);
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        self.complete += other.complete;
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, theirs)| sum.merge(theirs));
        self.products.iter_mut().zip(other.products).for_each(|(sum, theirs)| sum.merge(theirs));
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let cells = vec![Cell { kind: CellKind::Rows, of: "rows without blank cells".to_owned(), count: self.complete }];
        let sums = self.sums.iter().zip(&self.bits).map(|(sum, bits)| down(sum.value(), *bits)).collect();
        let mut vectors = vec![vector("rows", vec![self.complete as f64])];
        if self.products.is_empty() {
            vectors.push(vector(SUMS, sums));
        } else {
            let products = self.products.iter().zip(pairs(self.bits.len()));
            let products = products.map(|(sum, (i, j))| down(sum.value(), self.bits[i] + self.bits[j]));
            vectors.extend([vector("differences", sums), vector(PRODUCTS, products.collect())]);
        }
        Ok(Tallied { vectors, rows: self.rows, cells })
    }
}
