//! Cross-products of each pair of columns, of the rows where both have a value: [`products`](crate::products) pair by pair.

use protocol::{Expression, Pass, VectorSpec};

use super::PairProducts;
use crate::analysis::{AnalysisError, Answered, Batch, Cell, CellKind, Column, Input, Next, Tallied, Tally, same_pass};
use crate::products::{Products, n_pairs, pairs};
use crate::sum::{Sum, above_rounding};
use crate::survey::{self, Reader, Scales, Survey, counts, down, up, vector};

const SUMS: &str = "sums";
const PRODUCTS: &str = "products";
const MEANS: &str = "means";

/// The columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pairs<'a>(pub(super) &'a [Expression]);

impl Pairs<'_> {
    fn inputs(self) -> Vec<Input> {
        Products(self.0).inputs()
    }

    fn survey(self) -> Survey {
        Survey::new(self.inputs())
    }

    pub(super) fn layout(self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey().layout());
        }
        let n = n_pairs(self.0.len());
        let scales = Scales::of(pass, self.0.len())?;
        let sums = |name: &str, of: usize| scales.unit_sums(name, vec![n, of]);
        match pass.step.as_str() {
            SUMS => Ok(vec![counts("counts", vec![n]), sums(SUMS, 2)]),
            PRODUCTS => Ok(vec![counts("counts", vec![n]), sums("differences", 2), sums(PRODUCTS, 3)]),
            _ => Err(AnalysisError::Pass(pass.step.clone())),
        }
    }

    pub(super) fn tally(self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        let n = n_pairs(self.0.len());
        let is_products = match pass.step.as_str() {
            survey::STEP => return Ok(self.survey().tally()),
            SUMS => false,
            PRODUCTS => true,
            _ => return Err(AnalysisError::Pass(pass.step.clone())),
        };
        let scales = Scales::of(pass, self.0.len())?;
        let pair = PairSums { means: [0.0; 2], count: 0, sums: [Sum::default(); 2], products: [Sum::default(); 3] };
        let mut found = vec![pair; n];
        if is_products {
            for (pair, means) in found.iter_mut().zip(means(pass, n)?.chunks(2)) {
                pair.means = [means[0], means[1]];
            }
        }
        Ok(Box::new(PairTally {
            names: self.0.iter().map(ToString::to_string).collect(),
            bits: (0..self.0.len()).map(|column| scales.bits(column) + i32::from(is_products)).collect(),
            is_products,
            rows: 0,
            pairs: found,
        }))
    }

    pub(super) fn next(self, history: &[Answered]) -> Result<Next<Vec<PairProducts>>, AnalysisError> {
        let Some(last) = history.last() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        if last.pass.step == survey::STEP {
            return Ok(Next::Ask(self.survey().read(&last.sums)?.pass(SUMS)));
        }
        let n = n_pairs(self.0.len());
        let scales = Scales::of(&last.pass, self.0.len())?;
        let mut reader = Reader::new(&last.pass.step, &last.sums);
        let counts = reader.counts(n)?;
        let sums = reader.reals(2 * n)?;
        let each = || pairs(self.0.len()).zip(&counts).zip(sums.chunks(2));
        if last.pass.step == SUMS {
            let means = each().flat_map(|(((i, j), count), sums)| {
                let per_row = 1.0 / (*count).max(1) as f64;
                [up(sums[0] * per_row, scales.bits(i)), up(sums[1] * per_row, scales.bits(j))]
            });
            let mut pass = last.pass.clone().with(MEANS, means.collect());
            PRODUCTS.clone_into(&mut pass.step);
            return Ok(Next::Ask(pass));
        }
        let products = reader.reals(3 * n)?;
        let means = means(&last.pass, n)?.chunks(2);
        let found = each().zip(products.chunks(3)).zip(means).map(|(((((i, j), count), sums), products), means)| {
            let bits = [scales.bits(i) + 1, scales.bits(j) + 1];
            let differences = [up(sums[0], bits[0]), up(sums[1], bits[1])];
            let rows = (*count).max(1) as f64;
            let around_mean =
                |product: f64, i: usize, j: usize| up(product, bits[i] + bits[j]) - differences[i] * (differences[j] / rows);
            PairProducts {
                count: *count,
                first: above_rounding(around_mean(products[0], 0, 0), *count, means[0]),
                second: above_rounding(around_mean(products[1], 1, 1), *count, means[1]),
                product: around_mean(products[2], 0, 1),
            }
        });
        Ok(Next::Done(found.collect()))
    }

    pub(super) fn sensitivity(self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey().sensitivity());
        }
        let n = n_pairs(self.0.len());
        let scales = Scales::of(pass, self.0.len())?;
        let is_products = pass.step == PRODUCTS;
        let means = if is_products { means(pass, n)?.to_vec() } else { vec![0.0; 2 * n] };
        let (mut sums, mut products) = (0.0, 0.0);
        for ((i, j), means) in pairs(self.0.len()).zip(means.chunks(2)) {
            let largest = |column: usize, mean: f64| {
                let range = ranges.get(column).copied().flatten().unwrap_or(f64::INFINITY);
                down(range + mean.abs(), scales.bits(column) + i32::from(is_products))
            };
            let (a, b) = (largest(i, means[0]), largest(j, means[1]));
            sums += a * a + b * b;
            products += a.powi(4) + b.powi(4) + (a * b).powi(2);
        }
        let counts = (n as f64).sqrt();
        Ok(if is_products { vec![counts, sums.sqrt(), products.sqrt()] } else { vec![counts, sums.sqrt()] })
    }
}

fn means(pass: &Pass, pairs: usize) -> Result<&[f64], AnalysisError> {
    pass.get(MEANS).filter(|means| means.len() == 2 * pairs).ok_or_else(|| AnalysisError::Pass(pass.step.clone()))
}

#[derive(Clone)]
struct PairSums {
    means: [f64; 2],
    count: u64,
    sums: [Sum; 2],
    /// Of the first column with itself, the second with itself, and both.
    products: [Sum; 3],
}

struct PairTally {
    names: Vec<String>,
    bits: Vec<i32>,
    is_products: bool,
    rows: u64,
    pairs: Vec<PairSums>,
}

impl Tally for PairTally {
    fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows as u64;
        let columns = batch.columns.iter().filter_map(|column| match column {
            Column::Numbers(values) => Some(values.as_slice()),
            Column::Levels(_) => None,
        });
        let columns: Vec<&[f64]> = columns.collect();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for ((i, j), pair) in pairs(columns.len()).zip(&mut self.pairs) {
            first.clear();
            second.clear();
            for (x, y) in columns[i].iter().zip(columns[j]).filter(|(x, y)| !x.is_nan() && !y.is_nan()) {
                first.push(x - pair.means[0]);
                second.push(y - pair.means[1]);
            }
            pair.count += first.len() as u64;
            pair.sums[0].add_all(&first, |value| value);
            pair.sums[1].add_all(&second, |value| value);
            if self.is_products {
                pair.products[0].add_products(&first, &first);
                pair.products[1].add_products(&second, &second);
                pair.products[2].add_products(&first, &second);
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        for (pair, theirs) in self.pairs.iter_mut().zip(other.pairs) {
            pair.count += theirs.count;
            pair.sums.iter_mut().zip(theirs.sums).for_each(|(sum, theirs)| sum.merge(theirs));
            pair.products.iter_mut().zip(theirs.products).for_each(|(sum, theirs)| sum.merge(theirs));
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let each = || pairs(self.bits.len()).zip(&self.pairs);
        let cells = each().map(|((i, j), pair)| {
            let of = if i == j { self.names[i].clone() } else { format!("{} and {}", self.names[i], self.names[j]) };
            Cell { kind: CellKind::Rows, of, count: pair.count }
        });
        let sums = each()
            .flat_map(|((i, j), pair)| [down(pair.sums[0].value(), self.bits[i]), down(pair.sums[1].value(), self.bits[j])]);
        let mut vectors = vec![vector("counts", each().map(|(_, pair)| pair.count as f64).collect())];
        if self.is_products {
            let products = each().flat_map(|((i, j), pair)| {
                let (a, b) = (self.bits[i], self.bits[j]);
                let bits = [2 * a, 2 * b, a + b];
                pair.products.iter().zip(bits).map(|(sum, bits)| down(sum.value(), bits)).collect::<Vec<f64>>()
            });
            vectors.extend([vector("differences", sums.collect()), vector(PRODUCTS, products.collect())]);
        } else {
            vectors.push(vector(SUMS, sums.collect()));
        }
        Ok(Tallied { vectors, rows: self.rows, cells: cells.collect() })
    }
}
