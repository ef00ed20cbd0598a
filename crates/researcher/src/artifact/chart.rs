//! A line chart over rounds as SVG: series, axes, names at the ends of the lines as legend.
//!
//! Drawn for a page that brings [`STYLE`] along; nothing is loaded from elsewhere and nothing is scripted. Points that are
//! missing leave a gap. Long and many series are thinned to what can be seen.

mod axis;

use std::fmt::{self, Write as _};

use super::text::{Escaped, figure, shorten};
use axis::Axis;

/// The style sheet that charts need, for light and dark pages.
pub const STYLE: &str = include_str!("chart/chart.css");

/// How many series can be told apart by their colour.
pub const COLOURS: usize = 8;

/// A chart of values over rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart<'a> {
    /// A name for the chart that is unique on its page: letters, digits and hyphens.
    pub id: &'a str,
    /// What is drawn, in a few words.
    pub title: &'a str,
    pub x_label: &'a str,
    /// The first and last round of the axis; it grows to hold all points.
    pub rounds: (u32, u32),
    /// The least and greatest value that is possible, such as 0 and 1 for a share.
    pub bounds: (f64, f64),
    /// Later ones are drawn over earlier ones.
    pub series: Vec<Series<'a>>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series<'a> {
    pub name: &'a str,
    pub style: Style,
    /// Round and value, in ascending order of rounds; values that are not finite are not drawn.
    pub points: Vec<(u32, f64)>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One of the colours; [`COLOURS`] and above begin again from 0.
    Colour(usize),
    /// One of many, which are told apart by pointing at them.
    Faint,
    /// The line that matters.
    Strong,
}

impl Style {
    fn class(self) -> String {
        match self {
            Self::Colour(index) => format!("s{}", index % COLOURS),
            Self::Faint => "faint".to_owned(),
            Self::Strong => "strong".to_owned(),
        }
    }
}

/// The picture and, inside it, where the lines are; in units of the view box.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = WIDTH - 134.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// Distance of two names at the ends of lines.
const KEY_HEIGHT: f64 = 15.0;
/// As many characters as fit to the right of the lines.
const KEY_CHARS: usize = 19;
/// Lines of up to so many points have their points marked, if the whole chart has not too many.
const MARKED_IN_LINE: usize = 60;
const MARKED_IN_ALL: usize = 1_000;
/// More faint lines than this are drawn fainter.
const CROWD: usize = 40;

/// Draws a chart; one without any value says so.
pub fn svg(chart: &Chart<'_>) -> String {
    let mut out = String::new();
    draw(&mut out, chart).expect("writing to a String cannot fail");
    out
}

fn draw(out: &mut String, chart: &Chart<'_>) -> fmt::Result {
    let series: Vec<Series<'_>> = chart.series.iter().map(clean).filter(|series| !series.points.is_empty()).collect();
    let (id, title) = (Escaped(chart.id), Escaped(chart.title));
    let faint = series.iter().filter(|series| series.style == Style::Faint).count();
    let class = if faint > CROWD { "chart crowd" } else { "chart" };
    write!(
        out,
        "<svg class=\"{class}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\
         <title id=\"{id}-title\">{title}</title><desc id=\"{id}-desc\">{}</desc>",
        Escaped(&describe(chart, &series))
    )?;
    let points = || series.iter().flat_map(|series| &series.points);
    if let (Some(first), Some(last)) = (points().map(|(x, _)| *x).min(), points().map(|(x, _)| *x).max()) {
        let x = Axis::whole(first.min(chart.rounds.0), last.max(chart.rounds.1));
        let y = Axis::real(points().map(|(_, value)| *value), chart.bounds);
        draw_axes(out, chart, &x, &y)?;
        let most_marks = if points().count() <= MARKED_IN_ALL { MARKED_IN_LINE } else { 0 };
        for series in &series {
            draw_line(out, series, most_marks, &x, &y)?;
        }
        draw_keys(out, &series, &x, &y)?;
    } else {
        write!(out, "<text class=\"empty\" x=\"{}\" y=\"{}\">no values</text>", WIDTH / 2.0, HEIGHT / 2.0)?;
    }
    out.write_str("</svg>")
}

fn clean<'a>(series: &Series<'a>) -> Series<'a> {
    let finite = series.points.iter().filter(|(_, value)| value.is_finite());
    Series { points: finite.copied().collect(), ..*series }
}

/// Says in words what the lines show, for those who do not see them.
fn describe(chart: &Chart<'_>, series: &[Series<'_>]) -> String {
    let mut text = format!("Line chart over {}.", chart.x_label);
    let (faint, named): (Vec<_>, Vec<_>) = series.iter().partition(|series| series.style == Style::Faint);
    let values = |series: &&Series<'_>| series.points.last().map(|(_, value)| *value);
    let (low, high) = range(faint.iter().filter_map(values));
    if !faint.is_empty() {
        let _ = write!(text, " {} lines, at the end from {} to {}.", faint.len(), figure(low), figure(high));
    }
    for series in named {
        let (Some((from, first)), Some((to, last))) = (series.points.first(), series.points.last()) else { continue };
        let _ = write!(text, " {}: {} at {from}, {} at {to}.", series.name, figure(*first), figure(*last));
    }
    text
}

/// The least and greatest of finite values; infinite for none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn draw_axes(out: &mut String, chart: &Chart<'_>, x: &Axis, y: &Axis) -> fmt::Result {
    out.write_str("<g class=\"axes\" aria-hidden=\"true\">")?;
    for tick in y.ticks() {
        let at = y.place(tick.value, BOTTOM, TOP);
        write!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>")?;
        write!(out, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>", LEFT - 8.0, at + 4.0, tick.label)?;
    }
    write!(out, "<path class=\"base\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>")?;
    for tick in x.ticks() {
        let at = x.place(tick.value, LEFT, RIGHT);
        write!(out, "<path class=\"base\" d=\"M{at:.1} {BOTTOM}v4\"/>")?;
        write!(out, "<text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>", BOTTOM + 18.0, tick.label)?;
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    write!(out, "<text class=\"x label\" x=\"{middle}\" y=\"{}\">{}</text></g>", HEIGHT - 7.0, Escaped(chart.x_label))
}

/// Draws a line; its points are marked if there are at most `most_marks`.
fn draw_line(out: &mut String, series: &Series<'_>, most_marks: usize, x: &Axis, y: &Axis) -> fmt::Result {
    let class = series.style.class();
    write!(out, "<g class=\"line {class}\"><path d=\"")?;
    let most = if series.style == Style::Faint { 64 } else { 160 };
    for run in runs(&series.points) {
        for (index, (round, value)) in thinned(run, most).into_iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let (across, up) = (x.place(f64::from(round), LEFT, RIGHT), y.place(value, BOTTOM, TOP));
            write!(out, "{letter}{across:.1} {up:.1}")?;
            // A point without neighbours becomes a dot: a line of length zero has round ends.
            if run.len() == 1 {
                out.write_char('z')?;
            }
        }
    }
    write!(out, "\"/>")?;
    let name = Escaped(series.name);
    if series.style == Style::Faint || series.points.len() > most_marks {
        let last =
            series.points.last().map_or_else(String::new, |(round, value)| format!(", {} at {round}", figure(*value)));
        return write!(out, "<title>{name}{last}</title></g>");
    }
    for (round, value) in &series.points {
        let (across, up) = (x.place(f64::from(*round), LEFT, RIGHT), y.place(*value, BOTTOM, TOP));
        write!(out, "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"2.4\">")?;
        write!(out, "<title>{name}, {round}: {}</title></circle>", figure(*value))?;
    }
    out.write_str("</g>")
}

/// Parts a line where rounds are missing.
fn runs(points: &[(u32, f64)]) -> impl Iterator<Item = &[(u32, f64)]> {
    points.chunk_by(|left, right| right.0.saturating_sub(left.0) <= 1)
}

/// Keeps the first and last point, and the lowest and highest of about `most / 2` stretches in between.
fn thinned(points: &[(u32, f64)], most: usize) -> Vec<(u32, f64)> {
    let [first, between @ .., last] = points else { return points.to_vec() };
    if points.len() <= most {
        return points.to_vec();
    }
    let mut kept = vec![*first];
    for stretch in between.chunks(between.len().div_ceil(most / 2).max(2)) {
        let by_value = |left: &&(u32, f64), right: &&(u32, f64)| left.1.total_cmp(&right.1);
        let lowest = stretch.iter().min_by(by_value).into_iter();
        let mut ends: Vec<(u32, f64)> = lowest.chain(stretch.iter().max_by(by_value)).copied().collect();
        ends.sort_by_key(|(round, _)| *round);
        ends.dedup_by_key(|(round, _)| *round);
        kept.extend(ends);
    }
    kept.push(*last);
    kept
}

/// The name at the end of a line.
struct Key {
    class: String,
    name: String,
    /// Where the line ends.
    from: (f64, f64),
    /// How far down the name stands.
    at: f64,
}

fn draw_keys(out: &mut String, series: &[Series<'_>], x: &Axis, y: &Axis) -> fmt::Result {
    let place = |(round, value): (u32, f64)| (x.place(f64::from(round), LEFT, RIGHT), y.place(value, BOTTOM, TOP));
    let mut keys: Vec<Key> = Vec::new();
    for series in series.iter().filter(|series| series.style != Style::Faint) {
        let Some(from) = series.points.last().map(|point| place(*point)) else { continue };
        keys.push(Key { class: series.style.class(), name: series.name.to_owned(), from, at: from.1 });
    }
    let mut faint: Vec<(u32, f64)> = series
        .iter()
        .filter(|series| series.style == Style::Faint)
        .filter_map(|series| series.points.last().copied())
        .collect();
    if !faint.is_empty() {
        faint.sort_by(|left, right| left.1.total_cmp(&right.1));
        let from = place(faint[faint.len() / 2]);
        keys.push(Key { class: "faint".to_owned(), name: format!("{} sites", faint.len()), from, at: from.1 });
    }
    spread(&mut keys);
    out.write_str("<g class=\"keys\" aria-hidden=\"true\">")?;
    for Key { class, name, from: (across, up), at } in &keys {
        let (bend, end) = (RIGHT + 6.0, RIGHT + 14.0);
        write!(out, "<g class=\"key {class}\"><path d=\"M{:.1} {up:.1}L{bend} {at:.1}H{end}\"/>", across + 3.0)?;
        let (name, full) = (shorten(name, KEY_CHARS), Escaped(name));
        write!(out, "<text x=\"{}\" y=\"{:.1}\">{}<title>{full}</title></text></g>", end + 4.0, at + 4.0, Escaped(&name))?;
    }
    out.write_str("</g>")
}

/// Moves names apart until none covers another, as little as needed from top to bottom.
fn spread(keys: &mut [Key]) {
    keys.sort_by(|left, right| left.at.total_cmp(&right.at));
    let mut free = TOP;
    for key in keys.iter_mut() {
        key.at = key.at.max(free);
        free = key.at + KEY_HEIGHT;
    }
    let mut free = BOTTOM - 4.0;
    for key in keys.iter_mut().rev() {
        key.at = key.at.min(free);
        free = key.at - KEY_HEIGHT;
    }
}

/// Draws a line alone, without axes, words or meaning for screen readers: an ornament beside a number.
pub fn sparkline(points: &[(u32, f64)]) -> String {
    let points: Vec<(u32, f64)> = points.iter().filter(|(_, value)| value.is_finite()).copied().collect();
    let [(first, _), .., (last, _)] = points[..] else { return String::new() };
    let (x, y) = (Axis::whole(first, last), Axis::real(points.iter().map(|point| point.1), (f64::MIN, f64::MAX)));
    let mut out = String::from(
        "<svg class=\"spark\" viewBox=\"0 0 120 32\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path d=\"",
    );
    for (index, (round, value)) in thinned(&points, 60).into_iter().enumerate() {
        let letter = if index == 0 { 'M' } else { 'L' };
        let (across, up) = (x.place(f64::from(round), 3.0, 117.0), y.place(value, 28.0, 4.0));
        let _ = write!(out, "{letter}{across:.1} {up:.1}");
    }
    out.push_str("\"/></svg>");
    out
}

#[cfg(test)]
mod tests;
