//! `report.html`: one page about an experiment that opens anywhere, now and in ten years.
//!
//! Nothing is loaded and nothing is scripted (a content security policy in the page forbids both); light or dark as the reader
//! prefers; every chart has its numbers in words, and every text that came from somebody else is escaped.

mod curves;
mod facts;
mod metric;
mod table;

use std::fmt::{self, Write as _};

use protocol::{Digest, Metric, ValidatedOn};

use super::chart::{self, COLOURS};
use super::text::{Escaped, date, duration, figure, grouped};
use super::{Quantity, Record, Who};
use curves::Curves;

/// How many metrics stand above everything else.
const TILES: usize = 4;

/// Writes the page; `model` is the digest of the model file, if there is one.
pub fn html(record: &Record, model: Option<Digest>) -> String {
    let mut out = String::new();
    page(&mut out, record, model).expect("writing to a String cannot fail");
    out
}

fn page(out: &mut String, record: &Record, model: Option<Digest>) -> fmt::Result {
    let curves = Curves::of(record);
    let name = Escaped(record.experiment.spec.name());
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{name} – Fed-BioMed report</title>\n<style>\n{}{}</style>\n</head>\n<body>\n",
        chart::STYLE,
        include_str!("report/report.css")
    )?;
    header(out, record)?;
    out.write_str("<main>\n")?;
    tiles(out, record, &curves)?;
    table::section(out, record, ValidatedOn::Global)?;
    curves::section(out, record, &curves)?;
    table::section(out, record, ValidatedOn::Local)?;
    facts::happenings(out, record)?;
    facts::parameters(out, record)?;
    facts::standardisation(out, record)?;
    facts::pooled_by_round(out, &curves)?;
    out.write_str("</main>\n")?;
    footer(out, record, model)?;
    out.write_str("</body>\n</html>\n")
}

fn header(out: &mut String, record: &Record) -> fmt::Result {
    let facts = &record.experiment;
    let (trained, asked) = (record.trained_rounds(), facts.spec.rounds());
    let seconds = facts.ended.since(facts.started).as_secs_f64();
    writeln!(
        out,
        "<header>\n<p class=\"eyebrow\">Federated experiment</p>\n<h1><bdi>{}</bdi></h1>",
        Escaped(facts.spec.name())
    )?;
    write!(out, "<p class=\"facts\">")?;
    if let Some(plan) = record.training() {
        write!(out, "<span>{}</span>", capitalised(&facts::model_words(plan.model())))?;
    }
    let (sites, rounds) = (counted(record.sites.len(), "site"), counted(trained, "round"));
    write!(out, "<span>{sites}</span><span>{rounds}</span><span>{}</span>", duration(seconds))?;
    write!(
        out,
        "<span>{}</span><span>asked by <bdi>{}</bdi></span></p>",
        date(facts.ended),
        Escaped(&facts.requester.user)
    )?;
    if let Some(stopped) = &facts.stopped {
        write!(out, "<p class=\"stopped\"><strong>Ended after {trained} of {asked} rounds.</strong> ")?;
        write!(out, "<bdi>{}</bdi></p>", Escaped(&stopped.to_string()))?;
    }
    out.write_str("</header>\n")
}

fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Writes a bound with one digit that counts, never too small.
fn error_bound(bound: f64) -> String {
    let tenths_of_thousandths = (bound * 1e4).ceil();
    if (1.0..1e4).contains(&tenths_of_thousandths) { format!("{:.4}", tenths_of_thousandths / 1e4) } else { figure(bound) }
}

/// Writes a number and a noun.
fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{} {noun}s", grouped(number)),
    }
}

/// The pooled metrics of the last validation, in large.
fn tiles(out: &mut String, record: &Record, curves: &Curves<'_>) -> fmt::Result {
    let Some(round) = record.last_validation() else { return Ok(()) };
    let on_global = |metric: &Metric| round.pooled.iter().find(|p| p.on == ValidatedOn::Global && p.metric == *metric);
    let shown: Vec<_> = metric::BY_WEIGHT.iter().filter_map(on_global).take(TILES).collect();
    if shown.is_empty() {
        return Ok(());
    }
    out.write_str("<section class=\"tiles\" aria-label=\"All sites together\">\n")?;
    for pooled in shown {
        let words = metric::words(pooled.metric);
        let points = curves.points(Quantity::Metric(ValidatedOn::Global, pooled.metric), Who::Pooled);
        write!(out, "<div class=\"tile\"><h2>{}</h2>", words.label)?;
        match pooled.value.filter(|value| value.is_finite()) {
            Some(value) => write!(out, "<p class=\"big\">{}", figure(value))?,
            None => write!(out, "<p class=\"big\">–")?,
        }
        if let Some(bound) = pooled.error_bound.filter(|bound| *bound > 0.0) {
            write!(
                out,
                "<small title=\"largest possible error of counting scores in bins\"> ± {}</small>",
                error_bound(bound)
            )?;
        }
        out.write_str("</p>")?;
        out.write_str(&chart::sparkline(points))?;
        let note = match (&pooled.remark, points) {
            (Some(remark), _) => remark.clone(),
            (None, [(0, first), _, ..]) => format!("{} before training", figure(*first)),
            (None, _) => "all sites together".to_owned(),
        };
        writeln!(out, "<p class=\"note\"><bdi>{}</bdi></p></div>", Escaped(&note))?;
    }
    out.write_str("</section>\n")
}

/// The class that gives a site its colour, if there are few enough.
fn colour(record: &Record, site: usize) -> Option<usize> {
    (record.sites.len() <= COLOURS).then_some(site)
}

fn footer(out: &mut String, record: &Record, model: Option<Digest>) -> fmt::Result {
    write!(out, "<footer><p>Experiment <code>{}</code>", record.experiment.id)?;
    if let Some(digest) = model {
        write!(out, " · <code>model.safetensors</code> has the BLAKE3 digest <code>{digest}</code>")?;
    }
    writeln!(out, "</p><p>Written by Fed-BioMed {}.</p></footer>", Escaped(&record.experiment.software))
}

#[cfg(test)]
mod tests;
