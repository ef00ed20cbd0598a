//! What the demo tells at its end: a table of hospital × model × metric, or the same as one JSON object.

use std::fmt;
use std::path::{Path, PathBuf};

use node::command::ResultRow;
use protocol::{Measured, Metric, ValidatedOn};
use researcher::command::Ended;
use serde::Serialize;

use crate::demo::baseline::{Baseline, Scores};
use crate::demo::hospital::HOSPITALS;
use crate::error::Failure;
use crate::output::new_table;

/// Where the artefacts lie.
#[derive(Debug, Serialize)]
pub(super) struct Artifacts {
    model: PathBuf,
    metrics: PathBuf,
    report: PathBuf,
    tensorboard: PathBuf,
}

impl Artifacts {
    /// Takes the paths that the researcher told.
    pub(super) fn of(ended: &Ended) -> Result<Self, Failure> {
        let there =
            |path: &Option<PathBuf>, what| path.clone().ok_or_else(|| Failure::new(format!("no {what} was written")));
        Ok(Self {
            model: there(&ended.model, "model")?,
            metrics: there(&ended.metrics_csv, "metrics.csv")?,
            report: there(&ended.report, "report")?,
            tensorboard: there(&ended.tensorboard, "event file")?,
        })
    }

    /// The same files after their folder was copied.
    pub(super) fn moved(self, from: &Path, to: &Path) -> Result<Self, Failure> {
        let moved = |path: PathBuf| Ok::<_, Failure>(to.join(path.strip_prefix(from)?));
        Ok(Self {
            model: moved(self.model)?,
            metrics: moved(self.metrics)?,
            report: moved(self.report)?,
            tensorboard: moved(self.tensorboard)?,
        })
    }
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the JSON")]
struct Site {
    site: &'static str,
    n_train: u64,
    n_test: u64,
    local: Scores,
    federated: Scores,
    pooled: Scores,
}

#[derive(Debug, Serialize)]
struct PooledMetrics {
    federated: Scores,
    pooled: Scores,
}

/// The demo's result.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    rounds: u32,
    seconds: f64,
    sites: Vec<Site>,
    pooled_metrics: PooledMetrics,
    artifacts: Artifacts,
}

impl Outcome {
    /// Joins what the researcher recorded with what the demo trained apart. The federated scores are those that the nodes
    /// measured on their own held-out rows with the final model, and kept: `results` has them in the order of the hospitals.
    pub(super) fn new(
        ended: &Ended,
        results: &[Option<ResultRow>],
        baseline: &Baseline,
        artifacts: Artifacts,
        seconds: f64,
    ) -> Self {
        let sites = HOSPITALS.iter().zip(&baseline.sites).enumerate().map(|(place, (hospital, site))| {
            let result = results.get(place).and_then(Option::as_ref);
            let federated = result.map_or_else(
                || Scores::missing("the node measured nothing"),
                |result| Scores::from_measured(&result.measured, &result.remarks),
            );
            let shown = |scores: &Scores| scores.without_auc(site.no_auc.as_deref());
            Site {
                site: hospital.name,
                n_train: site.n_train,
                n_test: site.n_test,
                local: shown(&site.local),
                federated: shown(&federated),
                pooled: shown(&site.pooled),
            }
        });
        let pooled: Vec<Measured> = ended.metrics.iter().map(|pooled| pooled.measured).collect();
        Self {
            rounds: ended.rounds,
            seconds,
            sites: sites.collect(),
            pooled_metrics: PooledMetrics {
                federated: Scores::from_measured(&pooled, &[]),
                pooled: baseline.pooled.clone(),
            },
            artifacts,
        }
    }
}

impl Scores {
    /// The same without an AUC, where there is a reason to print none.
    fn without_auc(&self, reason: Option<&str>) -> Self {
        match reason {
            Some(reason) if self.accuracy.is_some() => {
                Self { auc: None, accuracy: self.accuracy, reason: Some(reason.to_owned()) }
            }
            _ => self.clone(),
        }
    }

    fn from_measured(measured: &[Measured], remarks: &[String]) -> Self {
        let find = |metric| {
            measured
                .iter()
                .find(|measured| measured.metric == metric && measured.on == ValidatedOn::Global)
                .map(|measured| measured.value)
        };
        let (auc, accuracy) = (find(Metric::Auc), find(Metric::Accuracy));
        let reason = (auc.is_none() || accuracy.is_none()).then(|| remarks.join("; "));
        Self { auc, accuracy, reason: reason.filter(|reason| !reason.is_empty()) }
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = new_table();
        table.set_header([
            "hospital",
            "rows (train/test)",
            "alone: AUC",
            "accuracy",
            "federated: AUC",
            "accuracy",
            "pooled: AUC",
            "accuracy",
        ]);
        let mut reasons = Vec::new();
        for site in &self.sites {
            let mut row = vec![site.site.to_owned(), format!("{}/{}", site.n_train, site.n_test)];
            for (what, scores) in [("alone", &site.local), ("federated", &site.federated), ("pooled", &site.pooled)] {
                row.extend([number(scores.auc), number(scores.accuracy)]);
                if let Some(reason) = &scores.reason {
                    reasons.push((site.site, reason.clone(), what));
                }
            }
            table.add_row(row);
        }
        let (train, test): (u64, u64) =
            self.sites.iter().fold((0, 0), |sum, site| (sum.0 + site.n_train, sum.1 + site.n_test));
        let metrics = &self.pooled_metrics;
        table.add_row([
            "all four".to_owned(),
            format!("{train}/{test}"),
            "-".into(),
            "-".into(),
            number(metrics.federated.auc),
            number(metrics.federated.accuracy),
            number(metrics.pooled.auc),
            number(metrics.pooled.accuracy),
        ]);
        writeln!(formatter, "{table}")?;
        writeln!(formatter, "alone: trained on the hospital's own rows; federated: trained by all without sharing rows;")?;
        writeln!(formatter, "pooled: trained on all rows in one place. Measured on each hospital's held-out rows.")?;
        while let Some((site, reason, what)) = reasons.first().cloned() {
            let (same, rest): (Vec<_>, Vec<_>) = reasons.into_iter().partition(|(a, b, _)| (*a, b) == (site, &reason));
            let models: Vec<&str> = same.iter().map(|(_, _, model)| *model).collect();
            let models = if models.is_empty() { what.to_owned() } else { models.join(" and ") };
            writeln!(formatter, "{site}, {models}: {reason}.")?;
            reasons = rest;
        }
        writeln!(formatter, "\n{} rounds, {:.1} s in all", self.rounds, self.seconds)?;
        writeln!(formatter, "  model        {}", self.artifacts.model.display())?;
        writeln!(formatter, "  metrics      {}", self.artifacts.metrics.display())?;
        writeln!(formatter, "  report       {}", self.artifacts.report.display())?;
        write!(formatter, "  tensorboard  {}", self.artifacts.tensorboard.display())
    }
}
