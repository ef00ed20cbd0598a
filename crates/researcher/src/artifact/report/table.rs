//! The table of sites and metrics. What is not there is a dash with a note that says why.

use std::fmt::{self, Write as _};

use protocol::{Metric, NodeId, Report, RowCount, ValidatedOn};

use super::super::text::{Escaped, figure, grouped};
use super::super::{PooledMetric, Quantity, Record, RoundRecord, SiteRound, Who};
use super::{colour, counted, metric};

/// From so many sites on, the middle and the ends of each column are given too.
const MANY: usize = 9;

/// Reasons for dashes, numbered from 1.
#[derive(Default)]
struct Notes {
    prefix: &'static str,
    reasons: Vec<String>,
}

impl Notes {
    fn dash(&mut self, reason: &str) -> String {
        let known = self.reasons.iter().position(|known| known == reason);
        let index = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        let (number, prefix, reason) = (index + 1, self.prefix, Escaped(reason));
        format!(
            "<td class=\"none\"><span title=\"{reason}\">–</span><sup><a href=\"#{prefix}-note-{number}\">{number}</a></sup></td>"
        )
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        if self.reasons.is_empty() {
            return Ok(());
        }
        out.write_str("<ol class=\"notes\">")?;
        for (index, reason) in self.reasons.iter().enumerate() {
            write!(out, "<li id=\"{}-note-{}\"><bdi>{}</bdi></li>", self.prefix, index + 1, Escaped(reason))?;
        }
        out.write_str("</ol>")
    }
}

/// Writes the table for the last round that measured these parameters; nothing if none did.
pub(super) fn section(out: &mut String, record: &Record, on: ValidatedOn) -> fmt::Result {
    let measures = |round: &&RoundRecord| !metrics(round, on).is_empty();
    let Some(round) = record.rounds.iter().rev().find(measures) else { return Ok(()) };
    let metrics = metrics(round, on);
    let (prefix, title, model) = match on {
        ValidatedOn::Global => ("global", "The model at each site", "The aggregate"),
        ValidatedOn::Local => ("local", "Each site’s own parameters", "What each site’s training made of the aggregate"),
    };
    let trained = round.rounds_behind(Quantity::Metric(on, Metric::Auc));
    write!(out, "<section><h2>{title}</h2>\n<p>{model} after {}, ", counted(trained, "round"))?;
    out.write_str(
        "measured on the rows that each site holds out.</p>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>",
    )?;
    out.write_str("<th scope=\"col\">Site</th><th scope=\"col\">Rows</th><th scope=\"col\">Trained on</th>")?;
    out.write_str("<th scope=\"col\">Tested on</th>")?;
    for metric in &metrics {
        let words = metric::words(*metric);
        write!(out, "<th scope=\"col\" title=\"{}\">{}</th>", words.better, words.label)?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    let mut notes = Notes { prefix, reasons: Vec::new() };
    pooled_row(out, round, on, &metrics, &mut notes)?;
    if record.sites.len() >= MANY {
        middle_and_ends(out, round, on, &metrics)?;
    }
    for index in 0..record.sites.len() {
        site_row(out, record, index, (round, on), &metrics, &mut notes)?;
    }
    out.write_str("</tbody></table></div>\n")?;
    notes.write(out)?;
    out.write_str("</section>\n")
}

/// The metrics of which the round has a value or a remark.
fn metrics(round: &RoundRecord, on: ValidatedOn) -> Vec<Metric> {
    let measured = |metric: &&Metric| {
        round.pooled.iter().any(|pooled| pooled.on == on && pooled.metric == **metric)
            || round.values().any(|value| value.quantity == Quantity::Metric(on, **metric))
    };
    metric::BY_WEIGHT.iter().filter(measured).copied().collect()
}

/// A cell with a number; shares have a bar behind them.
fn number(metric: Metric, value: f64) -> String {
    match metric::words(metric).bounds {
        (0.0, 1.0) => {
            format!("<td class=\"bar\" style=\"--v:{:.1}%\">{}</td>", value.clamp(0.0, 1.0) * 100.0, figure(value))
        }
        _ => format!("<td>{}</td>", figure(value)),
    }
}

fn pooled_row(out: &mut String, round: &RoundRecord, on: ValidatedOn, metrics: &[Metric], notes: &mut Notes) -> fmt::Result {
    out.write_str("<tr class=\"pooled\"><th scope=\"row\">All sites together</th><td></td><td></td><td></td>")?;
    for metric in metrics {
        let pooled = round.pooled.iter().find(|pooled| pooled.on == on && pooled.metric == *metric);
        let cell = match pooled.and_then(|pooled| pooled.value).filter(|value| value.is_finite()) {
            Some(value) => number(*metric, value),
            None => notes.dash(pooled_reason(pooled)),
        };
        out.write_str(&cell)?;
    }
    out.write_str("</tr>\n")
}

fn pooled_reason(pooled: Option<&PooledMetric>) -> &str {
    match pooled {
        None => "Not measured over all sites together.",
        Some(PooledMetric { remark: Some(remark), .. }) => remark,
        Some(PooledMetric { value: Some(_), .. }) => "The value is not a finite number.",
        Some(_) => "The metric is undefined over all sites’ rows.",
    }
}

/// Chooses among values in ascending order.
type Pick = fn(&[f64]) -> Option<f64>;

/// The median and the extremes over sites, each column for itself.
fn middle_and_ends(out: &mut String, round: &RoundRecord, on: ValidatedOn, metrics: &[Metric]) -> fmt::Result {
    let columns: Vec<Vec<f64>> = metrics.iter().map(|metric| site_values(round, Quantity::Metric(on, *metric))).collect();
    let rows: [(&str, Pick); 3] = [
        ("Highest site", |sorted| sorted.last().copied()),
        ("Median site", |sorted| {
            let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
            Some(f64::midpoint(*low, *high))
        }),
        ("Lowest site", |sorted| sorted.first().copied()),
    ];
    for (name, pick) in rows {
        write!(out, "<tr class=\"summary\"><th scope=\"row\">{name}</th><td></td><td></td><td></td>")?;
        for (metric, column) in metrics.iter().zip(&columns) {
            let cell = pick(column).map_or_else(|| "<td class=\"none\">–</td>".to_owned(), |value| number(*metric, value));
            out.write_str(&cell)?;
        }
        out.write_str("</tr>\n")?;
    }
    Ok(())
}

/// The sites' values in ascending order.
fn site_values(round: &RoundRecord, quantity: Quantity) -> Vec<f64> {
    let of_site = round.values().filter(|value| value.quantity == quantity && value.who != Who::Pooled);
    let mut values: Vec<f64> = of_site.map(|value| value.value).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn site_row(
    out: &mut String,
    record: &Record,
    index: usize,
    (round, on): (&RoundRecord, ValidatedOn),
    metrics: &[Metric],
    notes: &mut Notes,
) -> fmt::Result {
    let site = &record.sites[index];
    let dot = colour(record, index).map_or_else(String::new, |index| format!("<i class=\"dot s{index}\"></i>"));
    write!(out, "<tr><th scope=\"row\" title=\"{}\">{dot}<bdi>{}</bdi></th>", site.node, Escaped(&site.name))?;
    let said = |rows: fn(&Report) -> u64| last_said(record, &site.node, rows);
    for rows in [site.rows.shown(), said(|report| report.train_rows), said(|report| report.test_rows)] {
        write!(out, "<td>{}</td>", rows_like(site.rows, rows))?;
    }
    for metric in metrics {
        let quantity = Quantity::Metric(on, *metric);
        let value = round.values().filter(|value| value.quantity == quantity && value.who == Who::Site(&site.node)).last();
        let cell = match value {
            Some(value) => number(*metric, value.value),
            None => notes.dash(&site_reason(round.sites.get(&site.node), *metric)),
        };
        out.write_str(&cell)?;
    }
    out.write_str("</tr>\n")
}

/// What a site last said about a number of rows; 0 where it had nothing to say.
fn last_said(record: &Record, node: &NodeId, rows: fn(&Report) -> u64) -> Option<u64> {
    let reports = record.rounds.iter().rev().filter_map(|round| match round.sites.get(node) {
        Some(SiteRound::Reported(report)) => Some(rows(report)),
        _ => None,
    });
    let mut said = reports.peekable();
    said.peek()?;
    Some(said.find(|rows| *rows > 0).unwrap_or(0))
}

/// A number of a site's rows, no more exact than the site shows its rows.
fn rows_like(shown: RowCount, rows: Option<u64>) -> String {
    match (shown, rows) {
        (RowCount::Hidden, _) => "hidden".to_owned(),
        (_, None) => "–".to_owned(),
        (RowCount::Exact(_), Some(rows)) => grouped(rows),
        (RowCount::Rounded(_), Some(rows)) => format!("≈ {}", grouped(RowCount::rounded(rows).shown().unwrap_or(rows))),
    }
}

/// Why a site has no value of a metric.
fn site_reason(part: Option<&SiteRound>, metric: Metric) -> String {
    let report = match part {
        None => return "The site did not take part in this validation.".to_owned(),
        Some(SiteRound::Contributed) => return "Only the sum over all sites is known (secure aggregation).".to_owned(),
        Some(SiteRound::Refused(refusal)) => return refusal.sentence.clone(),
        Some(SiteRound::Reported(report)) => report,
    };
    let names = [metric.name(), metric::words(metric).label].map(as_words);
    let about = |remark: &&String| names.iter().any(|name| as_words(remark).contains(name));
    let own: Vec<&str> = report.remarks.iter().filter(about).map(String::as_str).collect();
    match (own.is_empty(), report.remarks.is_empty(), report.test_rows) {
        (false, _, _) => own.join(" "),
        (true, _, 0) => "The site holds out no rows.".to_owned(),
        (true, false, _) => report.remarks.join(" "),
        (true, true, _) => "The site did not report this metric.".to_owned(),
    }
}

/// The words of a text in lower case, each between spaces, so that whole words can be looked for.
fn as_words(text: &str) -> String {
    let words: Vec<String> = text.split(|letter: char| !letter.is_alphanumeric()).map(str::to_lowercase).collect();
    format!(" {} ", words.join(" "))
}
