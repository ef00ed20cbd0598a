//! What was asked for, what happened on the way, and the numbers behind the curves.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use protocol::{
    Activation, Family, Missing, ModelSpec, OnFailure, OptimizerSpec, Outcome, Patience, Plan, Precision, Selection,
    StatisticPlan, TrainingArguments, TrainingPlan, ValidatedOn,
};

use super::super::secure::SecureAggregation;
use super::super::text::{Escaped, duration, figure};
use super::super::{Quantity, Record, SiteRound, Who};
use super::curves::Curves;
use super::{counted, metric};

/// More rounds than this are left to `metrics.csv`.
const LISTED_ROUNDS: usize = 500;

/// Writes what sites refused and remarked, with the rounds in which they did; nothing if they did not.
pub(super) fn happenings(out: &mut String, record: &Record) -> fmt::Result {
    let mut said: BTreeMap<(usize, String), Vec<u32>> = BTreeMap::new();
    for round in &record.rounds {
        for (index, site) in record.sites.iter().enumerate() {
            let sentences = match round.sites.get(&site.node) {
                Some(SiteRound::Refused(refusal)) => vec![format!("Did not contribute: {refusal}")],
                Some(SiteRound::Reported(report)) => report.remarks.clone(),
                Some(SiteRound::Contributed) | None => Vec::new(),
            };
            for sentence in sentences {
                said.entry((index, sentence)).or_default().push(round.round);
            }
        }
    }
    if said.is_empty() {
        return Ok(());
    }
    out.write_str("<section><h2>What the sites said</h2>\n<div class=\"scroll\" tabindex=\"0\"><table class=\"text\">")?;
    out.write_str("<thead><tr><th scope=\"col\">Site</th><th scope=\"col\">Rounds</th><th scope=\"col\">Remark</th></tr></thead><tbody>\n")?;
    for ((index, sentence), rounds) in &said {
        let name = Escaped(&record.sites[*index].name);
        write!(out, "<tr><th scope=\"row\"><bdi>{name}</bdi></th><td>{}</td>", spans(rounds))?;
        writeln!(out, "<td><bdi>{}</bdi></td></tr>", Escaped(sentence))?;
    }
    out.write_str("</tbody></table></div></section>\n")
}

/// Writes ascending rounds as spans: 1–4, 7.
fn spans(rounds: &[u32]) -> String {
    let runs = rounds.chunk_by(|left, right| right.saturating_sub(*left) <= 1);
    let words = runs.filter_map(|run| match (run.first()?, run.last()?) {
        (first, last) if first == last => Some(first.to_string()),
        (first, last) => Some(format!("{first}–{last}")),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Writes what was asked for.
pub(super) fn parameters(out: &mut String, record: &Record) -> fmt::Result {
    let spec = &record.experiment.spec;
    let mut rows: Vec<(&str, String)> = Vec::new();
    match spec.plan() {
        Plan::Training(plan) => training_rows(&mut rows, plan),
        Plan::Statistic(StatisticPlan::Moments { columns }) => {
            rows.push(("Statistic", "count, mean and variance".to_owned()));
            rows.push(("Columns", columns.join(", ")));
        }
        Plan::Statistic(StatisticPlan::Question { question }) => {
            rows.push(("Statistic", question.statistic.name().to_owned()));
            rows.push(("Columns", question.columns().join(", ")));
            rows.extend(question.filter.as_ref().map(|filter| ("Rows where", filter.to_string())));
        }
    }
    rows.push(("Rounds asked for", spec.rounds().to_string()));
    rows.push(match spec.selection() {
        Selection::Tags(tags) => ("Data with the tags", tags.to_string()),
        Selection::Datasets(datasets) => ("Data", format!("{} chosen by id", counted(datasets.len(), "dataset"))),
    });
    rows.push(("Patience", patience_words(spec.patience())));
    let hidden = SecureAggregation::of(record).map_or_else(|| "no".to_owned(), |hidden| hidden.words());
    rows.push(("Sites’ values hidden from the researcher", hidden));
    out.write_str("<section><h2>The experiment</h2>\n<dl>")?;
    for (term, words) in rows {
        write!(out, "<div><dt>{term}</dt><dd><bdi>{}</bdi></dd></div>", Escaped(&words))?;
    }
    out.write_str("</dl></section>\n")
}

fn training_rows(rows: &mut Vec<(&str, String)>, plan: &TrainingPlan) {
    let arguments = plan.arguments();
    let precision = match plan.precision() {
        Precision::Float32 => "float32",
        Precision::Float64 => "float64",
    };
    rows.push(("Model", format!("{}, {precision}", model_words(plan.model()))));
    if plan.model().l2() > 0.0 {
        rows.push(("L2 penalty", plan.model().l2().to_string()));
    }
    rows.push(("Target", plan.target().to_owned()));
    rows.push(match plan.features() {
        [] => ("Features", "every numeric column but the target".to_owned()),
        features => ("Features", format!("{} ({})", features.join(", "), features.len())),
    });
    rows.push((
        "Standardised",
        if plan.standardise() { "with means and deviations over all sites" } else { "no" }.to_owned(),
    ));
    rows.push(("Optimizer", optimizer_words(plan.optimizer())));
    rows.push(("In each round", amount_words(arguments)));
    rows.push((
        "Held out",
        match (&arguments.split_column, arguments.test_ratio) {
            (Some(column), _) => format!("as the column “{column}” says"),
            (None, 0.0) => "nothing".to_owned(),
            (None, ratio) => {
                format!("{} % of each site’s rows", figure(ratio * 100.0).trim_end_matches('0').trim_end_matches('.'))
            }
        },
    ));
    rows.push((
        "Rows with blank cells",
        match arguments.missing {
            Missing::Refuse => "the site refuses".to_owned(),
            Missing::Drop => "left out".to_owned(),
        },
    ));
    rows.push(("Seed", arguments.seed.to_string()));
}

/// Names a model.
pub(super) fn model_words(model: &ModelSpec) -> String {
    match model.family() {
        Family::Linear => "linear regression".to_owned(),
        Family::Logistic => "logistic regression".to_owned(),
        Family::Multinomial { classes } => format!("multinomial regression, {classes} classes"),
        Family::Mlp { hidden, activation, outcome } => {
            let layers: Vec<String> = hidden.iter().map(u32::to_string).collect();
            let activation = match activation {
                Activation::Relu => "ReLU",
                Activation::Tanh => "tanh",
            };
            let outcome = match outcome {
                Outcome::Real => "a real outcome".to_owned(),
                Outcome::Binary => "a binary outcome".to_owned(),
                Outcome::Class { classes } => format!("{classes} classes"),
            };
            format!("perceptron, {} {activation} units, {outcome}", layers.join(" × "))
        }
    }
}

fn optimizer_words(optimizer: OptimizerSpec) -> String {
    match optimizer {
        OptimizerSpec::Sgd { learning_rate, momentum } => {
            let momentum = if momentum > 0.0 { format!(", momentum {momentum}") } else { String::new() };
            format!("SGD, learning rate {learning_rate}{momentum}")
        }
        OptimizerSpec::Adam { learning_rate, beta1, beta2, epsilon } => {
            format!("Adam, learning rate {learning_rate}, β₁ {beta1}, β₂ {beta2}, ε {epsilon:e}")
        }
    }
}

fn amount_words(arguments: &TrainingArguments) -> String {
    let amount = match (arguments.dry_run, arguments.num_updates, arguments.epochs) {
        (true, _, _) => "one update (dry run)".to_owned(),
        (false, Some(updates), _) => counted(updates, "update"),
        (false, None, epochs) => counted(epochs.unwrap_or(0), "epoch"),
    };
    let batch = match arguments.batch_size {
        0 => "all rows at once".to_owned(),
        size => format!("mini-batches of {}", counted(size, "row")),
    };
    let most = arguments.batch_maxnum.map_or_else(String::new, |most| format!(", at most {most} in a pass"));
    let order = if arguments.shuffle { ", shuffled" } else { ", in the data’s order" };
    format!("{amount}, {batch}{most}{order}")
}

fn patience_words(patience: Patience) -> String {
    let words = |time: Duration| duration(time.as_secs_f64());
    let round =
        patience.round_timeout().map_or_else(|| "without limit".to_owned(), |time| format!("at most {}", words(time)));
    let failure = match patience.on_failure {
        OnFailure::Fail => "one that fails ends the experiment",
        OnFailure::Drop => "one that fails is left out",
        OnFailure::Retry => "one that fails is asked again",
    };
    let (nodes, away) = (counted(patience.min_nodes, "site"), words(patience.node_timeout()));
    format!("a round may take {round} and needs {nodes}; a site may be away for {away}; {failure}")
}

/// Writes what each feature was centred by and divided by.
pub(super) fn standardisation(out: &mut String, record: &Record) -> fmt::Result {
    let features = &record.experiment.standardisation;
    if features.is_empty() {
        return Ok(());
    }
    write!(out, "<details><summary>Means and deviations of {}</summary>", counted(features.len(), "feature"))?;
    out.write_str("<p>The model takes (value − mean) / deviation; both are over all sites’ training rows.</p>")?;
    out.write_str("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">Feature</th>")?;
    out.write_str("<th scope=\"col\">Mean</th><th scope=\"col\">Deviation</th></tr></thead><tbody>\n")?;
    for feature in features {
        let (mean, deviation) = (figure(feature.mean), figure(feature.deviation));
        write!(out, "<tr><th scope=\"row\"><bdi>{}</bdi></th>", Escaped(&feature.feature))?;
        writeln!(out, "<td>{mean}</td><td>{deviation}</td></tr>")?;
    }
    out.write_str("</tbody></table></div></details>\n")
}

/// Writes the pooled numbers of every round, for reading and copying.
pub(super) fn pooled_by_round(out: &mut String, curves: &Curves<'_>) -> fmt::Result {
    let metrics = metric::BY_WEIGHT.into_iter().map(|metric| Quantity::Metric(ValidatedOn::Global, metric));
    let quantities = [Quantity::TrainingLoss].into_iter().chain(metrics);
    let columns: Vec<(Quantity, &[(u32, f64)])> = quantities
        .map(|quantity| (quantity, curves.points(quantity, Who::Pooled)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let mut rounds: Vec<u32> = columns.iter().flat_map(|(_, points)| points.iter().map(|(round, _)| *round)).collect();
    rounds.sort_unstable();
    rounds.dedup();
    if rounds.is_empty() || rounds.len() > LISTED_ROUNDS {
        return Ok(());
    }
    out.write_str(
        "<details><summary>All sites together, round by round</summary><div class=\"scroll\" tabindex=\"0\"><table>",
    )?;
    out.write_str("<thead><tr><th scope=\"col\">Rounds of training</th>")?;
    for (quantity, _) in &columns {
        let label = match quantity {
            Quantity::TrainingLoss => "Training loss",
            Quantity::Metric(_, metric) => metric::words(*metric).label,
        };
        write!(out, "<th scope=\"col\">{label}</th>")?;
    }
    out.write_str("</tr></thead><tbody>\n")?;
    for round in rounds {
        write!(out, "<tr><th scope=\"row\">{round}</th>")?;
        for (_, points) in &columns {
            let value =
                points.iter().find(|(at, _)| *at == round).map_or_else(|| "–".to_owned(), |(_, value)| figure(*value));
            write!(out, "<td>{value}</td>")?;
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody></table></div></details>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_written_as_spans() {
        assert_eq!(spans(&[1, 2, 3, 4, 7, 9, 10]), "1–4, 7, 9–10");
        assert_eq!(spans(&[3]), "3");
    }
}
