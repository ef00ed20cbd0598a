//! Curves over rounds: one chart per quantity, a line per site and one for all sites together.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use protocol::ValidatedOn;

use super::super::chart::{Chart, Series, Style, svg};
use super::super::text::Escaped;
use super::super::{Quantity, Record, RoundRecord, SiteFacts, SiteRound, Who};
use super::{colour, metric};

/// The line for all sites together.
const POOLED: &str = "All sites";

/// Round and value.
type Points = Vec<(u32, f64)>;

/// All numbers of a record, by what and whose they are.
pub(super) struct Curves<'a>(BTreeMap<Quantity, BTreeMap<Who<'a>, Points>>);

impl<'a> Curves<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let mut curves: BTreeMap<Quantity, BTreeMap<Who<'a>, Points>> = BTreeMap::new();
        for value in record.rounds.iter().flat_map(RoundRecord::values) {
            let points = curves.entry(value.quantity).or_default().entry(value.who).or_default();
            points.push((value.trained_rounds, value.value));
        }
        for points in curves.values_mut().flat_map(BTreeMap::values_mut) {
            points.sort_by_key(|(round, _)| *round);
        }
        Self(curves)
    }

    /// The points of a line; none if there is no such line.
    pub(super) fn points(&self, quantity: Quantity, who: Who<'_>) -> &[(u32, f64)] {
        let lines = self.0.get(&quantity);
        // A lookup by a key of another lifetime: the map is small.
        lines.and_then(|lines| lines.iter().find(|(line, _)| **line == who)).map_or(&[], |(_, points)| points)
    }

    pub(super) fn has(&self, quantity: Quantity) -> bool {
        self.0.contains_key(&quantity)
    }
}

/// Writes all charts, those that say most first.
pub(super) fn section(out: &mut String, record: &Record, curves: &Curves<'_>) -> fmt::Result {
    if curves.0.is_empty() {
        return Ok(());
    }
    out.write_str("<section><h2>Over the rounds</h2>\n")?;
    legend(out, record)?;
    out.write_str("<div class=\"charts\">\n")?;
    if curves.has(Quantity::TrainingLoss) {
        let note = "mean over training rows, while training";
        figure(
            out,
            record,
            curves,
            Quantity::TrainingLoss,
            &Heading { label: "Training loss", note, bounds: (0.0, f64::MAX) },
        )?;
    }
    for on in [ValidatedOn::Global, ValidatedOn::Local] {
        for metric in metric::BY_WEIGHT {
            let quantity = Quantity::Metric(on, metric);
            if !curves.has(quantity) {
                continue;
            }
            let words = metric::words(metric);
            let (label, model) = match on {
                ValidatedOn::Global => (words.label.to_owned(), "the aggregate on held-out rows"),
                ValidatedOn::Local => (format!("{}, local", words.label), "each site’s own parameters on its held-out rows"),
            };
            let note = format!("{model}; {}", words.better);
            figure(out, record, curves, quantity, &Heading { label: &label, note: &note, bounds: words.bounds })?;
        }
    }
    time(out, record)?;
    out.write_str("</div></section>\n")
}

/// The sites' colours, for all charts; pointing at one brings out its lines.
fn legend(out: &mut String, record: &Record) -> fmt::Result {
    out.write_str("<ul class=\"legend\"><li class=\"strong\" tabindex=\"0\">All sites together</li>")?;
    if colour(record, 0).is_none() {
        write!(out, "<li class=\"faint\">each of {} sites (point at a line for its name)</li>", record.sites.len())?;
    } else {
        for (index, site) in record.sites.iter().enumerate() {
            write!(out, "<li class=\"s{index}\" tabindex=\"0\"><bdi>{}</bdi></li>", Escaped(&site.name))?;
        }
    }
    out.write_str("</ul>\n")
}

/// What stands above a chart, and what its values can be.
struct Heading<'a> {
    label: &'a str,
    note: &'a str,
    bounds: (f64, f64),
}

fn style(record: &Record, site: usize) -> Style {
    colour(record, site).map_or(Style::Faint, Style::Colour)
}

fn figure(out: &mut String, record: &Record, curves: &Curves<'_>, quantity: Quantity, heading: &Heading<'_>) -> fmt::Result {
    let sites = record.sites.iter().enumerate().map(|(index, site)| Series {
        name: &site.name,
        style: style(record, index),
        points: curves.points(quantity, Who::Site(&site.node)).to_vec(),
    });
    let pooled = Series { name: POOLED, style: Style::Strong, points: curves.points(quantity, Who::Pooled).to_vec() };
    let id = format!("{}-{}", quantity.on(), quantity.name());
    let chart = Chart {
        id: &id,
        title: heading.label,
        x_label: "rounds of training",
        rounds: (0, record.trained_rounds()),
        bounds: heading.bounds,
        series: sites.chain([pooled]).collect(),
    };
    framed(out, heading, &chart)
}

fn framed(out: &mut String, heading: &Heading<'_>, chart: &Chart<'_>) -> fmt::Result {
    let Heading { label, note, .. } = heading;
    writeln!(out, "<figure><figcaption><strong>{label}</strong> {note}</figcaption>{}</figure>", svg(chart))
}

/// How long rounds took, and the sites' work in them.
fn time(out: &mut String, record: &Record) -> fmt::Result {
    let work = |site: &SiteFacts| -> Points {
        let seconds = record.rounds.iter().filter_map(|round| match round.sites.get(&site.node) {
            Some(SiteRound::Reported(report)) => Some((round.round, report.work_ms as f64 / 1000.0)),
            _ => None,
        });
        seconds.collect()
    };
    let sites = record.sites.iter().enumerate().map(|(index, site)| Series {
        name: &site.name,
        style: style(record, index),
        points: work(site),
    });
    let whole = record.rounds.iter().map(|round| (round.round, round.seconds)).collect();
    let series = sites.chain([Series { name: "Whole round", style: Style::Strong, points: whole }]).collect();
    let heading =
        Heading { label: "Time", note: "seconds of each round, and of the sites’ work in it", bounds: (0.0, f64::MAX) };
    let chart =
        Chart { id: "time", title: "Time in seconds", x_label: "round", rounds: (1, 1), bounds: heading.bounds, series };
    framed(out, &heading, &chart)
}
