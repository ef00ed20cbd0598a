//! How many rows there are: whether a study is feasible.

use protocol::statistic::Count;
use protocol::{Encoding, Pass, Purpose, Vector, VectorSpec};
use serde::Serialize;

use crate::analysis::{
    Analysis, AnalysisError, Answered, Batch, Cell, CellKind, Input, Next, Tallied, Tally, at_least, same_pass,
};
use crate::survey::whole;

const ROWS: &str = "rows";

/// The number of rows over all sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub rows: u64,
}

struct Rows(u64);

impl Tally for Rows {
    fn add(&mut self, batch: &Batch) {
        self.0 += batch.rows as u64;
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        self.0 += same_pass::<Self>(other).0;
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let vector = Vector { purpose: Purpose::Statistic, name: ROWS.to_owned(), values: vec![self.0 as f64] };
        let cells = vec![Cell { kind: CellKind::Rows, of: "all rows".to_owned(), count: self.0 }];
        Ok(Tallied { vectors: vec![vector], rows: self.0, cells })
    }
}

fn check(pass: &Pass) -> Result<(), AnalysisError> {
    if pass.step == ROWS { Ok(()) } else { Err(AnalysisError::Pass(pass.step.clone())) }
}

impl Analysis for Count {
    type Answer = Counted;

    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        check(pass)?;
        Ok(vec![VectorSpec {
            purpose: Purpose::Statistic,
            name: ROWS.to_owned(),
            shape: vec![1],
            encoding: Encoding::COUNT,
        }])
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        check(pass)?;
        Ok(Box::new(Rows(0)))
    }

    fn next(&self, history: &[Answered]) -> Result<Next<Counted>, AnalysisError> {
        let Some(answered) = history.first() else { return Ok(Next::Ask(Pass::new(ROWS))) };
        let rows = answered.sums.first().and_then(|sums| sums.first()).and_then(|rows| whole(*rows));
        rows.map(|rows| Next::Done(Counted { rows })).ok_or_else(|| AnalysisError::Sums(ROWS.to_owned()))
    }

    fn limited(answer: Counted, minimum: u64) -> Result<Counted, AnalysisError> {
        at_least(minimum, answer.rows, "rows")?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, _: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        check(pass)?;
        Ok(vec![1.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_add_up() {
        let plan = Count::default();
        let Ok(Next::Ask(pass)) = plan.next(&[]) else { panic!("the first pass counts") };
        let count = |rows: &[usize]| {
            let mut tallies = rows.iter().map(|rows| {
                let mut tally = plan.tally(&pass).unwrap();
                tally.add(&Batch { rows: *rows, columns: Vec::new() });
                tally
            });
            let mut first = tallies.next().unwrap();
            tallies.for_each(|tally| first.merge(tally));
            first.finish().unwrap()
        };
        assert_eq!(count(&[3, 4, 0]).rows, 7);
        let sums = vec![count(&[3, 4]).vectors[0].values.clone()];
        assert_eq!(plan.next(&[Answered { pass: pass.clone(), sums }]), Ok(Next::Done(Counted { rows: 7 })));
        for wrong in [vec![], vec![vec![]], vec![vec![-1.0]], vec![vec![0.5]]] {
            assert!(plan.next(&[Answered { pass: pass.clone(), sums: wrong }]).is_err());
        }
    }
}
