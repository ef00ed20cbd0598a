//! Principal components (Hotelling 1933), from the pooled cross-products: no row leaves its site, nor a projection of one.

use protocol::statistic::{Pca, PcaOf};
use protocol::{Pass, VectorSpec};
use serde::Serialize;

use crate::analysis::{Analysis, AnalysisError, Answered, Input, Next, Tally, at_least};
use crate::eigen;
use crate::products::{CrossProducts, Products};
use crate::sum::compensated;

/// What a principal component analysis answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PcaAnswer {
    pub n: u64,
    pub of: PcaOf,
    pub columns: Vec<String>,
    pub mean: Vec<f64>,
    /// By which columns were divided: 1 for the covariance matrix.
    pub sd: Vec<f64>,
    /// Variances along the components, largest first.
    pub eigenvalues: Vec<f64>,
    /// Their shares in the variance of all columns.
    pub explained_ratio: Vec<f64>,
    /// Directions of length 1, whose largest element is positive.
    pub components: Vec<Vec<f64>>,
}

impl Analysis for Pca {
    type Answer = PcaAnswer;

    fn inputs(&self) -> Vec<Input> {
        Products(self.columns.as_slice()).inputs()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        Products(self.columns.as_slice()).layout(pass)
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        Products(self.columns.as_slice()).tally(pass)
    }

    fn next(&self, history: &[Answered]) -> Result<Next<PcaAnswer>, AnalysisError> {
        match Products(self.columns.as_slice()).next(history)? {
            Next::Ask(pass) => Ok(Next::Ask(pass)),
            Next::Done(products) => decompose(self, products).map(Next::Done),
        }
    }

    fn limited(answer: PcaAnswer, minimum: u64) -> Result<PcaAnswer, AnalysisError> {
        at_least(minimum, answer.n, "complete rows")?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        Products(self.columns.as_slice()).sensitivity(pass, ranges)
    }
}

fn decompose(plan: &Pca, products: CrossProducts) -> Result<PcaAnswer, AnalysisError> {
    let df = (products.count - 1) as f64;
    let columns = plan.columns.as_slice();
    let deviation = |column: usize| (products.products[column][column] / df).sqrt();
    let sd: Vec<f64> = match plan.of {
        PcaOf::Covariance => vec![1.0; columns.len()],
        PcaOf::Correlation => (0..columns.len()).map(deviation).collect(),
    };
    if let Some(constant) = sd.iter().position(|sd| *sd <= 0.0) {
        return Err(AnalysisError::Data(format!("{} has the same value in all rows", columns[constant])));
    }
    let mut matrix = products.products;
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, product) in row.iter_mut().enumerate() {
            *product /= df * sd[i] * sd[j];
        }
    }
    let total = compensated((0..columns.len()).map(|column| matrix[column][column]));
    let components = eigen::symmetric(matrix).into_iter().take(plan.components.unwrap_or(columns.len()));
    let (eigenvalues, components): (Vec<f64>, Vec<Vec<f64>>) =
        components.map(|eigen| (eigen.value.max(0.0), eigen.vector)).unzip();
    let share = |eigenvalue: &f64| if total > 0.0 { eigenvalue / total } else { 0.0 };
    Ok(PcaAnswer {
        n: products.count,
        of: plan.of,
        columns: columns.iter().map(ToString::to_string).collect(),
        mean: products.means,
        sd,
        explained_ratio: eigenvalues.iter().map(share).collect(),
        eigenvalues,
        components,
    })
}
