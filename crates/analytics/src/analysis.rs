//! What every statistic answers. A statistic is one file: the columns that it reads, the passes that it asks for, what a node adds
//! up in a pass, and what the sums over all nodes mean.
//!
//! The researcher keeps the sums of all passes and asks [`Analysis::next`] with them: nothing else is remembered, so that a
//! statistic goes on after a restart as if nothing had happened. Node and researcher compute the layout of a pass from the same
//! statistic and pass.

pub use protocol::statistic::{Batch, Column, Input, MISSING, OTHER};
use protocol::{Pass, Vector, VectorSpec};
use thiserror::Error;

/// Why a statistic cannot be computed. The sentences reach both sides: they name columns, terms and counts of the plan, and no value
/// of the data.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnalysisError {
    /// The plan cannot be computed, as with too many terms.
    #[error("{0}")]
    Plan(String),
    /// A pass is not one of this statistic, or lacks numbers.
    #[error("the pass {0:?} is not one of this statistic")]
    Pass(String),
    /// The data do not allow it, as with no rows, or terms that cannot be told apart.
    #[error("{0}")]
    Data(String),
    /// The sums are none that honest nodes give.
    #[error("the sums of {0:?} are not possible")]
    Sums(String),
}

/// What a node has added up so far. Batches may be added to several tallies at once, which are merged in a fixed order.
pub trait Tally: Send {
    fn add(&mut self, batch: &Batch);

    /// Takes what another tally of the same pass has added up.
    fn merge(&mut self, other: Box<dyn Tally>);

    /// For [`merge`](Self::merge).
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any>;

    /// The values, in the order of the pass's layout.
    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError>;
}

/// The tally behind the trait object that [`Tally::merge`] is given: both are of one pass of one statistic.
pub(crate) fn same_pass<T: Tally + 'static>(other: Box<dyn Tally>) -> T {
    *other.into_any().downcast().expect("tallies of one pass are of one type")
}

/// A node's values for a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Tallied {
    pub vectors: Vec<Vector>,
    /// The rows that were computed on.
    pub rows: u64,
    /// Counts that say something about few people if they are small: the hospital's limits are held against them.
    pub cells: Vec<Cell>,
}

/// What a small count would be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    Rows,
    Events,
}

/// A count that is small only if it is above 0 and below the hospital's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub kind: CellKind,
    /// In the plan's words, as `sex = 1, target = 0`.
    pub of: String,
    pub count: u64,
}

/// A pass that was asked, and the decoded sums over all nodes in the order of its layout.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Answered {
    pub pass: Pass,
    pub sums: Vec<Vec<f64>>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next<T> {
    Ask(Pass),
    Done(T),
}

/// Fails for a pooled count above 0 and below the least that is told.
pub(crate) fn at_least(minimum: u64, count: u64, of: &str) -> Result<(), AnalysisError> {
    if count == 0 || count >= minimum {
        return Ok(());
    }
    Err(AnalysisError::Data(format!("over all sites there are fewer than {minimum} {of}, the least that is told")))
}

/// A statistic.
pub trait Analysis {
    /// What the answer is.
    type Answer;

    /// What a node reads, in the order of a batch's columns.
    fn inputs(&self) -> Vec<Input>;

    /// What a pass's contribution consists of.
    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError>;

    /// An empty tally for a pass.
    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError>;

    /// What the sums of all passes so far lead to; the first pass if there are none.
    fn next(&self, history: &[Answered]) -> Result<Next<Self::Answer>, AnalysisError>;

    /// Holds the least pooled count against an answer: hides counts above 0 and below it, with others from which they would follow, or
    /// fails where nothing is left to say.
    fn limited(answer: Self::Answer, minimum: u64) -> Result<Self::Answer, AnalysisError>;

    /// How much one row, put in or taken out, can move each vector of a pass in the 2-norm; infinite where nothing bounds it.
    /// `ranges` gives the largest absolute value of each numeric input, if it is declared.
    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError>;
}
