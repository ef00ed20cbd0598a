//! The model card: what `model.safetensors` is, where it comes from and how well it did, as JSON beside it.
//!
//! Fields follow Mitchell et al. 2019, "Model cards for model reporting", as far as an experiment knows them; the intended use
//! is for people to write. Sites' rows appear as the sites show them. What is blank or unknown is absent.

use std::collections::BTreeMap;

use protocol::{Digest, Measured, Metric, NodeId, RowCount, Timestamp, TrainingPlan, ValidatedOn};
use serde::{Deserialize, Serialize};

use super::secure::SecureAggregation;
use super::{PooledMetric, Record, SiteRound, Standardised};

/// The version of the card's layout.
const SCHEMA_VERSION: u32 = 1;

/// What people say about a model's use. Blank texts do not appear on the card.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntendedUse {
    /// What the model is for, and for whom.
    #[serde(skip_serializing_if = "is_blank")]
    pub purpose: String,
    /// What it must not be used for.
    #[serde(skip_serializing_if = "is_blank")]
    pub out_of_scope: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub limitations: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub licence: String,
    #[serde(skip_serializing_if = "is_blank")]
    pub contact: String,
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// The file that a card describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    pub name: String,
    pub digest: Digest,
    pub bytes: u64,
    /// Names and shapes of the tensors, in the file's order.
    pub tensors: Vec<(String, Vec<usize>)>,
}

#[derive(Serialize)]
struct Card<'a> {
    schema_version: u32,
    date: String,
    software: Software<'a>,
    experiment: Experiment<'a>,
    model: Model<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a TrainingPlan>,
    sites: Vec<Site<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secure_aggregation: Option<SecureAggregation>,
    metrics: Metrics<'a>,
    #[serde(skip_serializing_if = "is_default")]
    intended_use: IntendedUse,
}

#[derive(Serialize)]
struct Software<'a> {
    name: &'static str,
    version: &'a str,
}

#[derive(Serialize)]
struct Experiment<'a> {
    id: &'a str,
    name: &'a str,
    requester: &'a str,
    started: String,
    ended: String,
    rounds_asked: u32,
    rounds_trained: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

#[derive(Serialize)]
struct Model<'a> {
    file: &'a str,
    /// `blake3:` and 64 hexadecimal digits; the command `b3sum` prints the same.
    digest: String,
    bytes: u64,
    tensors: Vec<TensorFacts<'a>>,
    parameters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standardisation: Option<Standardisation<'a>>,
}

#[derive(Serialize)]
struct TensorFacts<'a> {
    name: &'a str,
    shape: &'a [usize],
}

#[derive(Serialize)]
struct Standardisation<'a> {
    formula: &'static str,
    features: &'a [Standardised],
}

#[derive(Serialize)]
struct Site<'a> {
    node: &'a NodeId,
    name: &'a str,
    rows: RowCount,
}

#[derive(Serialize)]
struct Metrics<'a> {
    /// Rounds of training behind the model that was measured; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    after_rounds: Option<u32>,
    pooled: BTreeMap<&'static str, Pooled<'a>>,
    sites: BTreeMap<&'a NodeId, BTreeMap<&'static str, f64>>,
}

#[derive(Serialize)]
struct Pooled<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_bound: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'a str>,
}

fn is_default(intended_use: &IntendedUse) -> bool {
    *intended_use == IntendedUse::default()
}

/// Writes the card as indented JSON with a newline at its end.
pub fn model_card(record: &Record, file: &ModelFile, date: Timestamp) -> String {
    let facts = &record.experiment;
    let card = Card {
        schema_version: SCHEMA_VERSION,
        date: date.to_string(),
        software: Software { name: "fedbiomed", version: &facts.software },
        experiment: Experiment {
            id: facts.id.as_str(),
            name: facts.spec.name(),
            requester: &facts.requester.user,
            started: facts.started.to_string(),
            ended: facts.ended.to_string(),
            rounds_asked: facts.spec.rounds(),
            rounds_trained: record.trained_rounds(),
            stopped: facts.stopped.as_ref().map(ToString::to_string),
        },
        model: model(record, file),
        plan: record.training(),
        sites: record.sites.iter().map(|site| Site { node: &site.node, name: &site.name, rows: site.rows }).collect(),
        secure_aggregation: SecureAggregation::of(record),
        metrics: metrics(record),
        intended_use: trimmed(&facts.intended_use),
    };
    let json = serde_json::to_string_pretty(&card).expect("all keys of a card are text");
    format!("{json}\n")
}

fn model<'a>(record: &'a Record, file: &'a ModelFile) -> Model<'a> {
    let size = |shape: &[usize]| shape.iter().fold(1_u64, |product, side| product.saturating_mul(*side as u64));
    let standardised = record.experiment.standardisation.as_slice();
    Model {
        file: &file.name,
        digest: format!("blake3:{}", file.digest),
        bytes: file.bytes,
        tensors: file.tensors.iter().map(|(name, shape)| TensorFacts { name, shape }).collect(),
        parameters: file.tensors.iter().fold(0, |sum, (_, shape)| sum.saturating_add(size(shape))),
        features: record.training().map(TrainingPlan::features),
        target: record.training().map(TrainingPlan::target),
        standardisation: (!standardised.is_empty())
            .then_some(Standardisation { formula: "(value - mean) / deviation", features: standardised }),
    }
}

/// The last validation of the aggregate. Numbers that are not finite are left out: JSON has none.
fn metrics(record: &Record) -> Metrics<'_> {
    let Some(round) = record.last_validation() else {
        return Metrics { after_rounds: None, pooled: BTreeMap::new(), sites: BTreeMap::new() };
    };
    let finite = |value: &f64| value.is_finite();
    let on_global = |pooled: &&PooledMetric| pooled.on == ValidatedOn::Global;
    let pooled = round.pooled.iter().filter(on_global).map(|pooled| {
        let value = pooled.value.filter(finite);
        let error_bound = pooled.error_bound.filter(|bound| value.is_some() && bound.is_finite());
        (pooled.metric.name(), Pooled { value, error_bound, remark: pooled.remark.as_deref() })
    });
    let sites = round.sites.iter().filter_map(|(node, part)| match part {
        SiteRound::Reported(report) => Some((node, of_site(&report.measured))),
        SiteRound::Contributed | SiteRound::Refused(_) => None,
    });
    Metrics { after_rounds: Some(round.round.saturating_sub(1)), pooled: pooled.collect(), sites: sites.collect() }
}

fn of_site(measured: &[Measured]) -> BTreeMap<&'static str, f64> {
    let wanted = measured.iter().filter(|measured| measured.on == ValidatedOn::Global && measured.value.is_finite());
    wanted.map(|measured| (Metric::name(measured.metric), measured.value)).collect()
}

fn trimmed(intended_use: &IntendedUse) -> IntendedUse {
    let trim = |text: &str| text.trim().to_owned();
    let IntendedUse { purpose, out_of_scope, limitations, licence, contact } = intended_use;
    IntendedUse {
        purpose: trim(purpose),
        out_of_scope: trim(out_of_scope),
        limitations: trim(limitations),
        licence: trim(licence),
        contact: trim(contact),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::sample;
    use protocol::Scheme;

    use super::*;
    use crate::command::Hidden;

    fn card(record: &Record) -> Value {
        let file = ModelFile {
            name: "model.safetensors".into(),
            digest: Digest::of(b"abc"),
            bytes: 3,
            tensors: vec![("weight".into(), vec![2]), ("bias".into(), vec![1])],
        };
        serde_json::from_str(&model_card(record, &file, Timestamp::from_millis(851_042_397_000))).unwrap()
    }

    #[test]
    fn the_card_says_what_the_model_is() {
        let record = sample::record(2, 3);
        let card = card(&record);
        assert_eq!(card["schema_version"], 1);
        assert_eq!(card["date"], "1996-12-20T00:39:57.000Z");
        // The digest of "abc" among the test vectors that `b3sum` prints.
        assert_eq!(card["model"]["digest"], "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(card["model"]["parameters"], 3);
        assert_eq!(card["model"]["features"], json!(["age", "chol"]));
        assert_eq!(card["model"]["target"], "num");
        assert_eq!(
            card["model"]["standardisation"]["features"][0],
            json!({"feature": "age", "mean": 53.5, "deviation": 9.4})
        );
        assert_eq!(card["plan"]["optimizer"]["type"], "sgd");
        assert_eq!(card["experiment"]["rounds_trained"], 3);
        assert_eq!(card["experiment"]["requester"], "ada");
        assert_eq!(card["sites"][0]["name"], "Cleveland");
        assert_eq!(card["sites"][0]["rows"], json!({"shown": "rounded", "rows": 300}));
        assert_eq!(card["metrics"]["after_rounds"], 3);
        assert!(card["metrics"]["pooled"]["auc"]["value"].as_f64().unwrap() > 0.5);
        assert!(card["metrics"]["sites"][record.sites[1].node.as_str()]["log_loss"].is_number());
    }

    #[test]
    fn blank_texts_and_unknown_values_are_absent() {
        let mut record = sample::record(1, 1);
        record.experiment.standardisation.clear();
        record.experiment.intended_use.purpose = "  \n".to_owned();
        assert!(card(&record).get("intended_use").is_none());
        assert!(card(&record)["model"].get("standardisation").is_none());
        assert!(card(&record)["experiment"].get("stopped").is_none());

        record.experiment.intended_use.purpose = " Research only. ".to_owned();
        assert_eq!(card(&record)["intended_use"], json!({"purpose": "Research only."}));
    }

    #[test]
    fn the_card_says_how_values_were_hidden() {
        let mut record = sample::record(4, 2);
        assert!(card(&record).get("secure_aggregation").is_none());
        for (round, survivors) in record.rounds.iter_mut().zip([4, 3, 0]) {
            let scheme = Scheme::Lom;
            round.hidden = Some(Hidden { scheme, parties: 4, threshold: 3, colluders: 1, survivors, clipped: Some(2) });
        }
        let expected = json!({
            "scheme": "lom", "rounds": 3, "parties": 4, "threshold": 3, "colluders": 1, "survivors": 3, "clipped": 6,
        });
        assert_eq!(card(&record)["secure_aggregation"], expected);
    }

    #[test]
    fn an_undefined_metric_has_its_reason_and_no_value() {
        let mut record = sample::record(1, 1);
        let pooled = &mut record.rounds[1].pooled[0];
        (pooled.value, pooled.remark) = (Some(f64::NAN), Some("one class only".to_owned()));
        assert_eq!(card(&record)["metrics"]["pooled"]["auc"], json!({"remark": "one class only"}));
    }
}
