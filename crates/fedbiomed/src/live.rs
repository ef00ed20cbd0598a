//! What a person sees while an experiment runs: a line a node on a terminal, plain lines elsewhere, objects with `--json`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::{Metric, Scheme, SecureStep, ValidatedOn};
use researcher::command::{Ended, ExperimentState, Hidden, NodeProgress, NodeSnapshot, RoundRecord, Snapshot};
use serde_json::json;

use crate::output::{note, print_json};

/// Says that something takes long, once it has taken a second. It is gone when this is dropped.
pub(crate) struct Waiting {
    done: Option<mpsc::Sender<()>>,
    shown: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Waits for data to be read.
    pub(crate) fn for_data(path: &Path) -> Self {
        let bytes = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        let what = match bytes {
            Some(bytes) => format!("reading {} of {}", HumanBytes(bytes), path.display()),
            None => format!("reading {}", path.display()),
        };
        let (done, is_done) = mpsc::channel();
        // A thread of its own: the reading may keep this one busy.
        let shown = std::thread::spawn(move || {
            if is_done.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if !io::stderr().is_terminal() {
                return note(what);
            }
            let bar = ProgressBar::new_spinner().with_message(what);
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}  {elapsed}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(200));
            let _ = is_done.recv();
            bar.finish_and_clear();
        });
        Self { done: Some(done), shown: Some(shown) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.done = None;
        if let Some(shown) = self.shown.take() {
            let _ = shown.join();
        }
    }
}

/// Shows the stream of one experiment.
pub(crate) struct Live {
    view: View,
    name_width: usize,
    /// Whether the end is told too; the demo has its own words for it.
    has_summary: bool,
    /// Rounds that were closed, as far as was told.
    closed: usize,
    /// What the experiment waits for before it begins.
    wait: Option<String>,
    /// What held it up later, as was told last.
    hitch: Option<String>,
    /// What was told last about how values are hidden.
    warning: Option<String>,
    /// How they are hidden.
    scheme: Option<Scheme>,
}

enum View {
    /// Bars on standard error that are drawn over.
    Terminal { bars: MultiProgress, rounds: ProgressBar, nodes: Vec<(String, ProgressBar)>, numbers: String },
    /// A line for each round on standard error.
    Plain,
    /// An object for each round on standard output.
    Json,
    /// Nothing.
    Silent,
}

impl Live {
    pub(crate) fn new(json: bool) -> Self {
        let view = if json {
            View::Json
        } else if io::stderr().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
            let style = ProgressStyle::with_template("{prefix:<16} [{bar:20.cyan/blue}] {wide_msg}");
            let rounds = bars.add(ProgressBar::new(0));
            rounds.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            rounds.set_prefix("round");
            View::Terminal { bars, rounds, nodes: Vec::new(), numbers: String::new() }
        } else {
            View::Plain
        };
        Self { view, name_width: 16, has_summary: true, closed: 0, wait: None, hitch: None, warning: None, scheme: None }
    }

    pub(crate) fn without_summary(self) -> Self {
        Self { has_summary: false, ..self }
    }

    pub(crate) fn silent() -> Self {
        Self {
            view: View::Silent,
            name_width: 0,
            has_summary: false,
            closed: 0,
            wait: None,
            hitch: None,
            warning: None,
            scheme: None,
        }
    }

    pub(crate) fn started(&self, id: &str, name: &str) {
        match &self.view {
            View::Json | View::Silent => {}
            View::Terminal { bars, .. } => {
                let _ = bars.println(format!("{name}: {id}"));
            }
            View::Plain => note(format!("{name}: {id}")),
        }
    }

    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) {
        let is_selecting = snapshot.state == ExperimentState::Selecting;
        self.wait = snapshot.remark.clone().filter(|_| is_selecting);
        self.scheme = snapshot.scheme;
        if self.warning != snapshot.warning {
            self.warning.clone_from(&snapshot.warning);
            if let (Some(warning), false) = (&self.warning, matches!(self.view, View::Silent)) {
                self.say(&format!("warning: {warning}"));
            }
        }
        if matches!(self.view, View::Plain) && !is_selecting && snapshot.remark.is_some() && self.hitch != snapshot.remark {
            self.hitch.clone_from(&snapshot.remark);
            note(snapshot.remark.as_deref().unwrap_or_default());
        }
        let View::Terminal { bars, rounds, nodes, numbers } = &mut self.view else { return };
        rounds.set_length(u64::from(snapshot.rounds));
        rounds.set_position(u64::from(snapshot.round));
        let what = match snapshot.training_round {
            Some(round) => format!("{} {round}", snapshot.kind.name()),
            None => snapshot.kind.name().to_owned(),
        };
        let remark = snapshot.remark.as_deref().filter(|_| !is_selecting);
        let remark = remark.map(|remark| format!("  ({remark})")).unwrap_or_default();
        let step = step(snapshot).map(|step| format!(": {step}")).unwrap_or_default();
        rounds.set_message(format!("{}/{}  {what}{step}{numbers}{remark}", snapshot.round, snapshot.rounds));
        let longest = snapshot.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
        self.name_width = longest.clamp(16, 32);
        for node in &snapshot.nodes {
            let known = nodes.iter().position(|(id, _)| id == node.id.as_str());
            let index = known.unwrap_or_else(|| {
                let bar = bars.add(ProgressBar::new(1));
                // Cut off at the edge of the terminal: lines that wrap are not taken away whole.
                let template = format!("{{prefix:<{}}} {{wide_msg}}", self.name_width);
                if let Ok(style) = ProgressStyle::with_template(&template) {
                    bar.set_style(style);
                }
                bar.set_prefix(node.name.clone());
                nodes.push((node.id.as_str().to_owned(), bar));
                nodes.len() - 1
            });
            nodes[index].1.set_message(node_line(node));
        }
    }

    /// Tells what an experiment waits for that has not begun.
    pub(crate) fn tell_wait(&self) {
        if let Some(wait) = &self.wait
            && matches!(self.view, View::Terminal { .. } | View::Plain)
        {
            self.say(wait);
        }
    }

    pub(crate) fn round_ended(&mut self, record: &RoundRecord) {
        self.closed += 1;
        match &mut self.view {
            View::Json => print_json(record),
            View::Plain => note(round_line(record)),
            View::Terminal { numbers, .. } => numbers_of(record).clone_into(numbers),
            View::Silent => {}
        }
    }

    /// A line for the person, above what is drawn over.
    pub(crate) fn say(&self, line: &str) {
        match &self.view {
            View::Terminal { bars, .. } => drop(bars.println(line)),
            View::Plain | View::Json | View::Silent => note(line),
        }
    }

    /// The last thing: the summary that stays on the screen.
    pub(crate) fn ended(&self, ended: &Ended) {
        match &self.view {
            View::Json => print_json(&json!({
                "experiment_id": ended.experiment_id,
                "state": ended.state,
                "reason": ended.reason,
                "rounds": ended.rounds,
                "seconds": ended.seconds,
                "model": ended.model,
                "metrics": ended.metrics,
                "moments": ended.moments,
                "metrics_csv": ended.metrics_csv,
                "report": ended.report,
                "tensorboard": ended.tensorboard,
            })),
            View::Terminal { bars, .. } if !self.has_summary => {
                let _ = bars.clear();
            }
            View::Silent => {}
            View::Plain if !self.has_summary => {}
            View::Terminal { bars, .. } => {
                let _ = bars.clear();
                note(summary(ended, self.closed, self.scheme));
            }
            View::Plain => note(summary(ended, self.closed, self.scheme)),
        }
    }
}

/// Which exchange around a hidden sum is under way.
fn step(snapshot: &Snapshot) -> Option<&'static str> {
    match snapshot.step {
        Some(SecureStep::Agree | SecureStep::OpenSeeds | SecureStep::Prepare) => Some("preparing"),
        Some(SecureStep::ShareKeys | SecureStep::SumKeys) => Some("making keys"),
        Some(SecureStep::Attest) => Some("agreeing on the survivors"),
        Some(SecureStep::Reveal) => Some("revealing"),
        None => snapshot.scheme.filter(|_| snapshot.state == ExperimentState::Running).map(|_| "hidden sum"),
    }
}

fn node_line(node: &NodeSnapshot) -> String {
    let mut line = state_and_reason(node.state, node.reason.as_deref());
    if node.state == NodeProgress::Working && node.total > 0 {
        line = format!("{line}  {}/{} updates", node.done, node.total);
    }
    match node.loss {
        Some(loss) => format!("{line}  loss {loss:.4}"),
        None => line,
    }
}

/// What a node is doing, and why. A reason that begins with the state says both.
fn state_and_reason(state: NodeProgress, reason: Option<&str>) -> String {
    match reason {
        None => state.name().to_owned(),
        Some(reason) if reason.starts_with(state.name()) => reason.to_owned(),
        Some(reason) => format!("{}: {reason}", state.name()),
    }
}

/// A closed round in a line, and a line for each node that did not contribute.
pub(crate) fn round_line(record: &RoundRecord) -> String {
    let round = record.training_round.map(|round| format!(" {round}")).unwrap_or_default();
    let took = duration(Duration::from_secs_f64(record.seconds.max(0.0)));
    let mut line = format!("{}{round}{}  ({took})", record.kind.name(), numbers_of(record));
    if let Some(Hidden { scheme, parties, survivors, clipped, .. }) = &record.hidden {
        line = format!("{line}  {scheme}: {survivors} of {parties} in the sum");
        if let Some(clipped @ 1..) = clipped {
            line =
                format!("{line}, {} clipped", count(usize::try_from(*clipped).unwrap_or(usize::MAX), "element", "elements"));
        }
    }
    for node in record.nodes.iter().filter(|node| node.state != NodeProgress::Contributed) {
        line = format!("{line}\n  {} {}", node.name, state_and_reason(node.state, node.reason.as_deref()));
    }
    line
}

/// The loss and the best known metrics of a round.
fn numbers_of(record: &RoundRecord) -> String {
    let mut line = record.loss.map(|loss| format!("  loss {loss:.4}")).unwrap_or_default();
    for pooled in record.metrics.iter().filter(|pooled| pooled.measured.on == ValidatedOn::Global) {
        if matches!(pooled.measured.metric, Metric::Auc | Metric::Accuracy | Metric::Rmse | Metric::R2) {
            line = format!("{line}  {} {:.4}", pooled.measured.metric.name(), pooled.measured.value);
        }
    }
    line
}

fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// So many of something, in words.
fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// By how much a metric may be off, rounded up to the digits that are shown of it; nothing where it is exact.
fn bound(error: Option<f64>) -> String {
    match error {
        Some(error) if error > 0.0 => format!(" ± {:.4}", (error * 1e4).ceil() / 1e4),
        _ => String::new(),
    }
}

/// What an experiment came to after so many closed rounds, of training and others, in a few lines. Why it failed is not among
/// them.
pub(crate) fn summary(ended: &Ended, closed: usize, scheme: Option<Scheme>) -> String {
    let passed = match ended.rounds {
        // A statistic, or a training that did not get beyond standardising.
        0 => count(closed, "pass", "passes"),
        rounds => count(usize::try_from(rounds).unwrap_or(usize::MAX), "round", "rounds"),
    };
    let mut lines = vec![format!("{} {} after {passed} and {:.1} s", ended.name, ended.state.name(), ended.seconds)];
    for pooled in ended.metrics.iter().filter(|pooled| pooled.measured.on == ValidatedOn::Global) {
        let bound = bound(pooled.error_bound);
        lines.push(format!("  {:<18} {:.4}{bound}", pooled.measured.metric.name(), pooled.measured.value));
    }
    for moments in &ended.moments {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.6}"));
        let (mean, deviation) = (number(Some(moments.mean)), number(moments.variance.map(f64::sqrt)));
        lines.push(format!("  {:<18} count {}  mean {mean}  sd (n-1) {deviation}", moments.column, moments.count));
    }
    if let Some(scheme) = scheme {
        lines.push(format!(
            "  values of single nodes are hidden by secure aggregation ({scheme}); each has its own: `node results`"
        ));
    }
    let files = [
        ("model", &ended.model),
        ("model card", &ended.card),
        ("metrics", &ended.metrics_csv),
        ("report", &ended.report),
        ("tensorboard", &ended.tensorboard),
    ];
    for (what, path) in files {
        // Without a closed round there is nothing in them.
        lines.extend(path.as_ref().filter(|_| closed > 0).map(|path| format!("  {what:<12} {}", path.display())));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use protocol::{ExperimentId, Measured};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use researcher::command::{ColumnMoments, Pooled};

    use super::*;

    fn ended(state: ExperimentState, rounds: u32) -> Ended {
        Ended {
            experiment_id: ExperimentId::random(&mut StdRng::seed_from_u64(1)),
            name: "Heart".into(),
            state,
            reason: (state == ExperimentState::Failed).then(|| "no node is there".into()),
            rounds,
            seconds: 1.0,
            folder: PathBuf::from("experiment"),
            model: None,
            card: None,
            metrics_csv: Some(PathBuf::from("metrics.csv")),
            report: Some(PathBuf::from("report.html")),
            tensorboard: None,
            metrics: Vec::new(),
            moments: Vec::new(),
            answer: None,
        }
    }

    #[test]
    fn a_failure_before_the_first_round_lists_no_files() {
        let failed = ended(ExperimentState::Failed, 0);
        assert_eq!(summary(&failed, 0, None), "Heart failed after 0 passes and 1.0 s");
        let text = summary(&ended(ExperimentState::Failed, 1), 3, None);
        assert!(text.starts_with("Heart failed after 1 round and 1.0 s\n  metrics"), "{text}");
        assert!(!text.contains("no node is there"), "the reason is the error's: {text}");
    }

    #[test]
    fn a_statistic_counts_its_passes_and_names_the_divisor() {
        let moments = ColumnMoments { column: "age".into(), count: 3, mean: 2.0, variance: Some(1.0), deviation: 0.8 };
        let text = summary(&Ended { moments: vec![moments], ..ended(ExperimentState::Finished, 0) }, 2, None);
        assert!(text.starts_with("Heart finished after 2 passes and 1.0 s"), "{text}");
        assert!(text.contains("mean 2.000000  sd (n-1) 1.000000"), "{text}");
    }

    #[test]
    fn a_summary_says_why_single_nodes_are_not_in_it() {
        let text = summary(&ended(ExperimentState::Finished, 1), 1, Some(Scheme::Lom));
        assert!(text.contains("hidden by secure aggregation (lom)") && text.contains("node results"), "{text}");
    }

    #[test]
    fn a_bound_is_a_plain_number_and_absent_where_there_is_none() {
        let auc = |error_bound| {
            let measured = Measured { on: ValidatedOn::Global, metric: Metric::Auc, value: 0.84 };
            let metrics = vec![Pooled { measured, error_bound }];
            let text = summary(&Ended { metrics, ..ended(ExperimentState::Finished, 5) }, 8, None);
            text.lines().nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(auc(None), "auc                0.8400");
        assert_eq!(auc(Some(0.0)), "auc                0.8400");
        assert_eq!(auc(Some(0.00021)), "auc                0.8400 ± 0.0003");
        assert_eq!(auc(Some(1e-9)), "auc                0.8400 ± 0.0001");
    }
}
