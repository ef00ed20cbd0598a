//! Pearson's correlations and covariances: of the rows without blank cells, or of each pair of columns where both have a value.

mod pairwise;

use protocol::statistic::{Blanks, Correlation};
use protocol::{Pass, VectorSpec};
use serde::Serialize;

use self::pairwise::Pairs;
use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally, at_least};
use crate::distributions::student_two_sided;
use crate::products::{Products, n_pairs, pairs};

/// What a correlation answers: symmetric matrices in the order of the columns. Entries are absent where a column does not vary, or
/// fewer than two rows count.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CorrelationAnswer {
    pub columns: Vec<String>,
    pub blanks: Blanks,
    pub n: Counts,
    pub correlation: Vec<Vec<Option<f64>>>,
    pub covariance: Vec<Vec<Option<f64>>>,
    /// Of the hypothesis that a correlation is 0, by Student's t with n - 2 degrees of freedom.
    pub p: Vec<Vec<Option<f64>>>,
}

/// How many rows count.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Counts {
    Listwise(u64),
    Pairwise(Vec<Vec<u64>>),
}

/// What is known of a pair of columns: Σ around the means of the rows that count.
#[derive(Debug, Clone, Copy, PartialEq)]
struct PairProducts {
    count: u64,
    first: f64,
    second: f64,
    product: f64,
}

impl Analysis for Correlation {
    type Answer = CorrelationAnswer;

    fn inputs(&self) -> Vec<Input> {
        Products(self.columns.as_slice()).inputs()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        match self.blanks {
            Blanks::Listwise => Products(self.columns.as_slice()).layout(pass),
            Blanks::Pairwise => Pairs(self.columns.as_slice()).layout(pass),
        }
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        match self.blanks {
            Blanks::Listwise => Products(self.columns.as_slice()).tally(pass),
            Blanks::Pairwise => Pairs(self.columns.as_slice()).tally(pass),
        }
    }

    fn next(&self, history: &[Answered]) -> Result<Next<CorrelationAnswer>, AnalysisError> {
        let n = self.columns.as_slice().len();
        match self.blanks {
            Blanks::Listwise => match Products(self.columns.as_slice()).next(history)? {
                Next::Ask(pass) => Ok(Next::Ask(pass)),
                Next::Done(all) => {
                    let pair = |(i, j): (usize, usize)| PairProducts {
                        count: all.count,
                        first: all.products[i][i],
                        second: all.products[j][j],
                        product: all.products[i][j],
                    };
                    let found: Vec<PairProducts> = pairs(n).map(pair).collect();
                    Ok(Next::Done(correlate(self, &found, Counts::Listwise(all.count))))
                }
            },
            Blanks::Pairwise => match Pairs(self.columns.as_slice()).next(history)? {
                Next::Ask(pass) => Ok(Next::Ask(pass)),
                Next::Done(found) => {
                    let mut counts = vec![vec![0; n]; n];
                    for ((i, j), pair) in pairs(n).zip(&found) {
                        (counts[i][j], counts[j][i]) = (pair.count, pair.count);
                    }
                    Ok(Next::Done(correlate(self, &found, Counts::Pairwise(counts))))
                }
            },
        }
    }

    fn limited(answer: CorrelationAnswer, minimum: u64) -> Result<CorrelationAnswer, AnalysisError> {
        let counts = match &answer.n {
            Counts::Listwise(rows) => vec![*rows],
            Counts::Pairwise(rows) => rows.concat(),
        };
        counts.into_iter().try_for_each(|rows| at_least(minimum, rows, "complete rows"))?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        match self.blanks {
            Blanks::Listwise => Products(self.columns.as_slice()).sensitivity(pass, ranges),
            Blanks::Pairwise => Pairs(self.columns.as_slice()).sensitivity(pass, ranges),
        }
    }
}

fn correlate(plan: &Correlation, found: &[PairProducts], n: Counts) -> CorrelationAnswer {
    let columns = plan.columns.as_slice();
    debug_assert_eq!(found.len(), n_pairs(columns.len()));
    let empty = vec![vec![None; columns.len()]; columns.len()];
    let (mut correlation, mut covariance, mut p) = (empty.clone(), empty.clone(), empty);
    for ((i, j), pair) in pairs(columns.len()).zip(found) {
        let r = (pair.count > 1 && pair.first > 0.0 && pair.second > 0.0)
            .then(|| if i == j { 1.0 } else { (pair.product / (pair.first.sqrt() * pair.second.sqrt())).clamp(-1.0, 1.0) });
        let c = (pair.count > 1).then(|| pair.product / (pair.count - 1) as f64);
        let probability = r.filter(|_| i != j && pair.count > 2).map(|r| {
            let df = (pair.count - 2) as f64;
            student_two_sided(r * (df / ((1.0 - r) * (1.0 + r))).sqrt(), df)
        });
        for (row, column) in [(i, j), (j, i)] {
            (correlation[row][column], covariance[row][column], p[row][column]) = (r, c, probability);
        }
    }
    CorrelationAnswer {
        columns: columns.iter().map(ToString::to_string).collect(),
        blanks: plan.blanks,
        n,
        correlation,
        covariance,
        p,
    }
}
