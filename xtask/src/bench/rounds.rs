//! Rounds that are nearly empty: 31 parameters, one step. What they cost is the product itself.

use super::federation::{Federation, Round, unexpected};
use super::{Bar, Figure, median};
use crate::project::{Problem, Project};

/// Rows of each node; a step of full-batch gradient descent over them takes tens of microseconds.
const ROWS: usize = 200;

/// One step of full-batch gradient descent a round, nothing else.
fn experiment(rounds: usize) -> String {
    format!(
        r#"
        name = "small rounds"
        tags = ["synthetic"]
        rounds = {rounds}
        secagg = "none"
        on_failure = "fail"
        [plan]
        target = "target"
        model = "logistic"
        [optimizer]
        type = "sgd"
        learning_rate = 0.1
        [training]
        num_updates = 1
        batch_size = 0
        [validation]
        on_global = false
        "#
    )
}

/// 3 nodes.
pub(super) fn round(project: &Project) -> Result<Vec<Figure>, Problem> {
    const ROUNDS: usize = 300;
    let federation = Federation::start(project, 3, ROWS)?;
    // The first one reads the datasets.
    federation.run(&experiment(5))?;
    let (rounds, end) = federation.run(&experiment(ROUNDS))?;
    let all = seconds(&rounds);
    Ok(vec![
        Figure::new("round of 31 parameters, 3 nodes", median(all.clone()) * 1e3, "ms", Bar::AtMost(10.0)),
        Figure::new("round of 31 parameters, 3 nodes, slowest of 300", most(&all) * 1e3, "ms", Bar::None),
        Figure::new("300 such rounds, as a user waits", end.seconds, "s", Bar::None),
    ])
}

/// 200 nodes.
pub(super) fn scale(project: &Project) -> Result<Vec<Figure>, Problem> {
    const NODES: usize = 200;
    const ROUNDS: usize = 20;
    let federation = Federation::start(project, NODES, ROWS)?;
    federation.run(&experiment(1))?;
    let (rounds, _) = federation.run(&experiment(ROUNDS))?;
    let contributed = |round: &Round| round.nodes.iter().filter(|node| node.state == "contributed").count();
    if rounds.len() != ROUNDS {
        return Err(unexpected("an experiment", "20 rounds", rounds.len().to_string()));
    }
    let least = rounds.iter().map(contributed).min().unwrap_or(0).min(federation.connected()?);
    let all = seconds(&rounds);
    let lost = NODES as f64 - least as f64;
    Ok(vec![
        Figure::new("round of 31 parameters, 200 nodes", median(all.clone()), "s", Bar::AtMost(2.0)),
        Figure::new("round of 31 parameters, 200 nodes, slowest of 20", most(&all), "s", Bar::None),
        Figure::new("nodes lost of 200", lost, "", Bar::AtMost(0.0)),
    ])
}

fn seconds(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.seconds).collect()
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
