//! Rounds that only move parameters: how fast, in how much memory, and over links that break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::federation::{Federation, Round, Word, memory, unexpected};
use super::logistic::seconds;
use super::relay::{Cut, Relay};
use super::{Bar, Figure, median};
use crate::project::{Problem, Project, output_of};

/// A perceptron over the synthetic rows by the units of its two hidden layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) hidden: [usize; 2],
}

/// About 10⁷ parameters.
pub(super) const TEN_MILLION: Model = Model { hidden: [3000, 3300] };
/// About 10⁸ parameters.
const HUNDRED_MILLION: Model = Model { hidden: [10_000, 9967] };

impl Model {
    pub(super) fn parameters(self) -> usize {
        let [first, second] = self.hidden;
        (super::federation::FEATURES + 1) * first + (first + 1) * second + second + 1
    }

    /// The size of its float32 parameters.
    fn bytes(self) -> usize {
        4 * self.parameters()
    }

    /// A plan without any update.
    fn experiment(self, rounds: usize) -> String {
        self.experiment_with("secagg = \"none\"", rounds)
    }

    /// As [`Self::experiment`], with one more line at the top.
    pub(super) fn experiment_with(self, line: &str, rounds: usize) -> String {
        let [first, second] = self.hidden;
        format!(
            r#"
            {line}
            name = "moving"
            tags = ["synthetic"]
            rounds = {rounds}
            on_failure = "fail"
            [plan]
            target = "target"
            [plan.model]
            type = "mlp"
            hidden = [{first}, {second}]
            outcome = "binary"
            [optimizer]
            type = "sgd"
            learning_rate = 0.1
            [training]
            num_updates = 0
            [validation]
            on_global = false
            "#
        )
    }
}

fn plain_tls(project: &Project, peers: usize, bytes: usize, runs: usize) -> Result<Vec<f64>, Problem> {
    let mut cargo = project.cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "transport", "--example", "plain_tls", "--"]);
    cargo.args([peers, bytes, runs].map(|number| number.to_string()));
    seconds("transport's example plain_tls", &output_of(&mut cargo)?)
}

/// 10⁷ parameters to and from 3 nodes, beside the same bytes through plain TLS.
pub(super) fn moving(project: &Project) -> Result<Vec<Figure>, Problem> {
    const ROUNDS: usize = 7;
    let federation = Federation::start(project, 3, 200)?;
    federation.run(&TEN_MILLION.experiment(1))?;
    let bytes = TEN_MILLION.bytes();
    // Before and after, so that both see the machine in the same state.
    let mut plain = plain_tls(project, 3, bytes, ROUNDS)?;
    let (rounds, _) = federation.run(&TEN_MILLION.experiment(ROUNDS))?;
    plain.extend(plain_tls(project, 3, bytes, ROUNDS)?);
    let (ours, plain) = (median(rounds.iter().map(|round| round.seconds).collect()), median(plain));
    Ok(vec![
        Figure::new("round that moves 10⁷ float32, 3 nodes", ours, "s", Bar::None),
        Figure::new("the same bytes through plain TLS", plain, "s", Bar::None),
        Figure::new("round that moves 10⁷ float32, times plain TLS", ours / plain, "×", Bar::AtMost(3.0)),
    ])
}

/// The researcher's peak for 10⁷ parameters with 3 and with 30 nodes.
pub(super) fn of_memory(project: &Project) -> Result<Vec<Figure>, Problem> {
    let mut peaks = Vec::new();
    let mut of_nodes = Vec::new();
    for nodes in [3, 30] {
        let federation = Federation::start(project, nodes, 200)?;
        federation.run(&TEN_MILLION.experiment(3))?;
        peaks.push(memory(federation.researcher_process())?.0 as f64 / 1e6);
        for process in federation.node_processes() {
            of_nodes.push(memory(process)?.0 as f64 / 1e6);
        }
    }
    let bar = Bar::AtMost((4.0 * TEN_MILLION.bytes() as f64 / 1e6 + 60.0).round());
    let difference = (peaks[1] / peaks[0] - 1.0).abs() * 100.0;
    Ok(vec![
        Figure::new("researcher's peak, 10⁷ float32, 3 nodes", peaks[0], "MB", bar),
        Figure::new("researcher's peak, 10⁷ float32, 30 nodes", peaks[1], "MB", bar),
        Figure::new("difference of both", difference, "%", Bar::AtMost(10.0)),
        Figure::new("a node's peak, 10⁷ float32", median(of_nodes), "MB", Bar::None),
    ])
}

/// When a link is cut: in the first half of the way to the node or back, and how.
const CUTS: [(&str, Direction, Cut); 4] = [
    ("reset on the way to the node", Direction::Down, Cut::Reset),
    ("silence on the way to the node", Direction::Down, Cut::Silent),
    ("reset on the way back", Direction::Up, Cut::Reset),
    ("silence on the way back", Direction::Up, Cut::Silent),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Down,
    Up,
}

/// 10⁸ parameters to and from 6 nodes, one of them behind a link that is cut.
pub(super) fn large(project: &Project) -> Result<Vec<Figure>, Problem> {
    const NODES: usize = 6;
    /// Rounds without a cut, after the first.
    const QUIET: usize = 3;
    const CUT: Duration = Duration::from_secs(5);
    let mut federation = Federation::found(project, NODES, 200)?;
    let relay = Arc::new(Relay::to(federation.address())?);
    federation.start_node(0, Some(relay.address()))?;
    for number in 1..NODES {
        federation.start_node(number, None)?;
    }
    federation.wait_for_nodes(NODES)?;
    let begun = Arc::new(AtomicUsize::new(0));
    let (link, rounds_begun) = (relay.clone(), begun.clone());
    // In the round of each cut: wait for a quarter of the model to pass, then cut.
    std::thread::spawn(move || {
        for (index, (_, direction, cut)) in CUTS.iter().enumerate() {
            while rounds_begun.load(Ordering::SeqCst) <= QUIET + index {
                std::thread::sleep(Duration::from_millis(2));
            }
            let passed = |(down, up): (u64, u64)| if *direction == Direction::Down { down } else { up };
            let start = passed(link.passed());
            while passed(link.passed()) - start < HUNDRED_MILLION.bytes() as u64 / 4 {
                std::thread::sleep(Duration::from_millis(2));
            }
            link.cut(*cut, CUT);
        }
    });
    let mut run = federation.begin(&HUNDRED_MILLION.experiment(1 + QUIET + CUTS.len()))?;
    let mut rounds: Vec<Round> = Vec::new();
    while let Word::Round(round) = run.next()? {
        rounds.push(round);
        println!("round {}: {:.1} s", rounds.len(), rounds.last().map_or(0.0, |round| round.seconds));
        begun.store(rounds.len(), Ordering::SeqCst);
    }
    if rounds.iter().any(|round| round.nodes.iter().any(|node| node.state != "contributed")) {
        return Err(unexpected("rounds with a cut link", "all nodes' contributions", format!("{rounds:?}")));
    }
    let quiet = median(rounds[1..=QUIET].iter().map(|round| round.seconds).collect());
    let mut figures = vec![Figure::new("round that moves 10⁸ float32, 6 nodes", quiet, "s", Bar::None)];
    for ((what, ..), round) in CUTS.iter().zip(&rounds[1 + QUIET..]) {
        let more = round.seconds - quiet;
        figures.push(Figure::new(format!("link cut for 5 s, {what}: more"), more, "s", Bar::AtMost(7.0)));
    }
    let peak = memory(federation.researcher_process())?.0 as f64 / 1e6;
    figures.push(Figure::new("researcher's peak, 10⁸ float32, 6 nodes", peak, "MB", Bar::AtMost(1700.0)));
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_have_about_as_many_parameters_as_said() {
        assert!((9_990_000..=10_000_000).contains(&TEN_MILLION.parameters()));
        assert!((99_990_000..=100_000_000).contains(&HUNDRED_MILLION.parameters()));
    }
}
