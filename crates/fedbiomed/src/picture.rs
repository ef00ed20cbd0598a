//! Answers of statistics as pictures: SVG, or a page of HTML around it. Everything in them is in the numbers of the answer.

use std::ops::Range;
use std::path::Path;

use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, Circle, Color, DrawingArea, IntoDrawingArea, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, WHITE,
};
use plotters::style::{IntoTextStyle, ShapeStyle};
use serde_json::Value;

use crate::error::{Failure, Outcome};

/// Colours that are told apart by colour-blind people too (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
const WIDTH: u32 = 720;
const TEXT: (&str, u32) = ("sans-serif", 14);
const TITLE: (&str, u32) = ("sans-serif", 18);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws an answer to a file whose name ends with `.svg` or `.html`.
pub(crate) fn draw(file: &Path, statistic: &str, numbers: &Value) -> Outcome {
    check(file, statistic)?;
    let svg = svg(statistic, numbers)?;
    let text = if file.extension().is_some_and(|ending| ending == "svg") { svg } else { page(statistic, &svg) };
    std::fs::write(file, text).map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))
}

/// Fails if there are no pictures of a statistic, before anything is asked.
pub(crate) fn check(file: &Path, statistic: &str) -> Outcome {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !matches!(ending, "svg" | "html") {
        return Err(Failure::new(format!("--plot takes a file that ends with .svg or .html, found {}", file.display())));
    }
    if ["describe", "glm", "cox", "meta", "survival", "pca"].contains(&statistic) {
        return Ok(());
    }
    Err(Failure::new(format!("there are no pictures of {statistic}; leave --plot out")))
}

fn page(statistic: &str, svg: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{statistic}</title>\
         <style>body{{font-family:sans-serif;max-width:60rem;margin:2rem auto}}svg{{max-width:100%;height:auto}}</style></head>\n\
         <body><h1>{statistic}</h1>\n{svg}\n</body></html>\n"
    )
}

/// The picture of a statistic.
fn svg(statistic: &str, numbers: &Value) -> Result<String, Failure> {
    let panels = panels(statistic, numbers);
    if panels.is_empty() {
        return Err(Failure::new(format!("there is no picture of this answer to {statistic}; leave --plot out")));
    }
    let heights: Vec<u32> = panels.iter().map(Panel::height).collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, heights.iter().sum())).into_drawing_area();
        let wrong = |error: &dyn std::fmt::Display| Failure::new(format!("the picture cannot be drawn: {error}"));
        root.fill(&WHITE).map_err(|error| wrong(&error))?;
        let mut rest = root;
        for (panel, height) in panels.iter().zip(heights) {
            let (area, below) = rest.split_vertically(height);
            panel.draw(&area).map_err(|error| wrong(&error))?;
            rest = below;
        }
        rest.present().map_err(|error| wrong(&error))?;
    }
    Ok(svg)
}

/// One drawing of a picture.
#[derive(Debug, Clone, PartialEq)]
enum Panel {
    /// Bars between edges.
    Histogram { title: String, edges: Vec<f64>, counts: Vec<f64> },
    /// Bars with names.
    Bars { title: String, names: Vec<String>, values: Vec<f64> },
    /// Estimates with intervals, and a line at 0.
    Forest { title: String, rows: Vec<Interval> },
    /// Steps from 1 downwards.
    Curves { title: String, curves: Vec<Curve> },
}

#[derive(Debug, Clone, PartialEq)]
struct Interval {
    name: String,
    estimate: f64,
    low: f64,
    high: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Curve {
    name: String,
    time: Vec<f64>,
    survival: Vec<f64>,
}

fn list(value: Option<&Value>) -> Vec<f64> {
    value.and_then(Value::as_array).map(|values| values.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) if !other.is_null() => other.to_string(),
        _ => String::new(),
    }
}

/// What an answer is drawn as.
fn panels(statistic: &str, numbers: &Value) -> Vec<Panel> {
    if let Some(columns) = numbers.get("columns").and_then(Value::as_object) {
        return columns.iter().filter_map(|(name, column)| described(name, column)).collect();
    }
    if let Some(terms) = numbers.get("terms").and_then(Value::as_array) {
        let rows: Vec<Interval> = terms.iter().filter_map(interval).collect();
        let title = format!("{statistic}: estimates and confidence intervals");
        return if rows.is_empty() { Vec::new() } else { vec![Panel::Forest { title, rows }] };
    }
    if let Some(groups) = numbers.get("groups").and_then(Value::as_array) {
        let curves: Vec<Curve> = groups.iter().filter_map(curve).collect();
        if !curves.is_empty() {
            return vec![Panel::Curves { title: "Survival".to_owned(), curves }];
        }
    }
    let ratios = list(numbers.get("explained_ratio"));
    if !ratios.is_empty() {
        let names = (1..=ratios.len()).map(|index| index.to_string()).collect();
        return vec![Panel::Bars { title: "Share of variance by component".to_owned(), names, values: ratios }];
    }
    Vec::new()
}

fn described(name: &str, column: &Value) -> Option<Panel> {
    if let Some(levels) = column.get("categories").and_then(Value::as_object) {
        let (names, values) = levels.iter().filter_map(|(name, count)| Some((name.clone(), count.as_f64()?))).unzip();
        return Some(Panel::Bars { title: name.to_owned(), names, values });
    }
    let histogram = column.get("histogram")?;
    let edges = list(histogram.get("edges"));
    // A count that is not told has no bar.
    let counts = histogram.get("counts").and_then(Value::as_array);
    let counts: Vec<f64> = counts.into_iter().flatten().map(|count| count.as_f64().unwrap_or(0.0)).collect();
    let is_whole = edges.len() == counts.len() + 1 && !counts.is_empty();
    is_whole.then(|| Panel::Histogram { title: name.to_owned(), edges, counts })
}

fn interval(term: &Value) -> Option<Interval> {
    // A combined estimate is drawn with what sites differ by.
    let estimate = term.get("random").unwrap_or(term);
    let number = |key: &str| estimate.get(key).and_then(Value::as_f64);
    Some(Interval {
        name: text(term.get("name")),
        estimate: number("estimate")?,
        low: number("ci_low")?,
        high: number("ci_high")?,
    })
}

fn curve(group: &Value) -> Option<Curve> {
    let (time, survival) = (list(group.get("time")), list(group.get("survival")));
    (time.len() == survival.len() && !time.is_empty()).then(|| Curve { name: text(group.get("name")), time, survival })
}

/// A range with a margin on both sides; never empty.
fn roomy(low: f64, high: f64) -> Range<f64> {
    let margin = if high > low { (high - low) * 0.05 } else { 1.0 };
    low - margin..high + margin
}

type Drawn<'a> =
    Result<(), plotters::drawing::DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>>;

impl Panel {
    /// In pixels.
    fn height(&self) -> u32 {
        match self {
            Self::Forest { rows, .. } => 90 + 26 * u32::try_from(rows.len()).unwrap_or(u32::MAX / 64),
            Self::Histogram { .. } | Self::Bars { .. } => 240,
            Self::Curves { .. } => 420,
        }
    }

    fn draw<'a>(&self, area: &Area<'a>) -> Drawn<'a> {
        match self {
            Self::Histogram { title, edges, counts } => histogram(area, title, edges, counts),
            Self::Bars { title, names, values } => bars(area, title, names, values),
            Self::Forest { title, rows } => forest(area, title, rows),
            Self::Curves { title, curves } => survival(area, title, curves),
        }
    }
}

fn histogram<'a>(area: &Area<'a>, title: &str, edges: &[f64], counts: &[f64]) -> Drawn<'a> {
    let top = counts.iter().copied().fold(1.0, f64::max) * 1.05;
    let (low, high) = (edges[0], edges[edges.len() - 1]);
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(roomy(low, high), 0.0..top)?;
    chart.configure_mesh().disable_x_mesh().label_style(TEXT).y_desc("rows").draw()?;
    let bar = |(index, count): (usize, &f64)| {
        Rectangle::new([(edges[index], 0.0), (edges[index + 1], *count)], COLOURS[0].mix(0.8).filled())
    };
    chart.draw_series(counts.iter().enumerate().map(bar))?;
    Ok(())
}

fn bars<'a>(area: &Area<'a>, title: &str, names: &[String], values: &[f64]) -> Drawn<'a> {
    let top = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(-0.5..values.len() as f64 - 0.5, 0.0..top)?;
    let name = |at: &f64| {
        let index = at.round();
        let is_bar = (at - index).abs() < 1e-6 && index >= 0.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position among the bars")]
        let named = is_bar.then(|| names.get(index as usize).cloned()).flatten();
        named.unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(names.len().min(40) * 2 + 1)
        .x_label_formatter(&name)
        .label_style(TEXT)
        .draw()?;
    let bar = |(index, value): (usize, &f64)| {
        let middle = index as f64;
        Rectangle::new([(middle - 0.4, 0.0), (middle + 0.4, *value)], COLOURS[0].mix(0.8).filled())
    };
    chart.draw_series(values.iter().enumerate().map(bar))?;
    Ok(())
}

fn forest<'a>(area: &Area<'a>, title: &str, rows: &[Interval]) -> Drawn<'a> {
    let low = rows.iter().map(|row| row.low).fold(0.0, f64::min);
    let high = rows.iter().map(|row| row.high).fold(0.0, f64::max);
    let last = rows.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(170)
        .build_cartesian_2d(roomy(low, high), 0.0..last)?;
    chart.configure_mesh().disable_mesh().y_labels(0).label_style(TEXT).draw()?;
    chart.draw_series([PathElement::new([(0.0, 0.0), (0.0, last)], BLACK.mix(0.4))])?;
    for (index, row) in rows.iter().enumerate() {
        let at = last - index as f64 - 0.5;
        chart.draw_series([PathElement::new(
            [(row.low, at), (row.high, at)],
            ShapeStyle::from(COLOURS[0]).stroke_width(2),
        )])?;
        chart.draw_series([Circle::new((row.estimate, at), 4, COLOURS[0].filled())])?;
        // Beside the chart, at the height of its interval.
        let (_, pixel) = chart.backend_coord(&(row.estimate, at));
        let (_, top) = area.get_base_pixel();
        area.draw_text(&row.name, &TEXT.into_text_style(area), (12, pixel - top - 7))?;
    }
    Ok(())
}

fn survival<'a>(area: &Area<'a>, title: &str, curves: &[Curve]) -> Drawn<'a> {
    let end = curves.iter().flat_map(|curve| &curve.time).copied().fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end.max(f64::MIN_POSITIVE) * 1.02, 0.0..1.02)?;
    chart.configure_mesh().x_desc("time").y_desc("surviving").label_style(TEXT).draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut points = vec![(0.0, 1.0)];
        for (time, survival) in curve.time.iter().zip(&curve.survival) {
            let before = points[points.len() - 1].1;
            points.extend([(*time, before), (*time, *survival)]);
        }
        let series = LineSeries::new(points, ShapeStyle::from(colour).stroke_width(2));
        let name = if curve.name.is_empty() { "all".to_owned() } else { curve.name.clone() };
        let drawn = chart.draw_series(series)?;
        drawn
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], ShapeStyle::from(colour).stroke_width(2)));
    }
    chart.configure_series_labels().label_font(TEXT).background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(statistic: &str, numbers: &Value) -> String {
        svg(statistic, numbers).map_err(|failure| failure.to_string()).unwrap()
    }

    #[test]
    fn what_is_in_an_answer_is_in_its_picture() {
        let describe = json!({"columns": {
            "age": {"histogram": {"edges": [20, 40, 60], "counts": [3, 9]}},
            "cp": {"categories": {"typical": 4, "other": 5}},
        }});
        let svg = drawn("describe", &describe);
        assert!(["age", "cp", "typical"].iter().all(|word| svg.contains(word)), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 2, "the ground, and four bars");
        let term = |name: &str, low: f64| json!({"name": name, "estimate": low + 1.0, "ci_low": low, "ci_high": low + 2.0});
        let svg = drawn("glm", &json!({"terms": [term("const", -4.0), term("age", 0.5)]}));
        assert!(svg.contains("const") && svg.contains("age"));
        assert_eq!(svg.matches("<circle").count(), 2);
        let group = |name: &str| json!({"name": name, "time": [1.0, 2.0], "survival": [0.9, 0.5]});
        let svg = drawn("survival", &json!({"groups": [group("treated"), group("control")]}));
        assert!(svg.contains("treated") && svg.contains("control"));
    }

    #[test]
    fn nothing_to_draw_is_said() {
        assert!(svg("count", &json!({"rows": 3})).is_err());
        assert!(draw(Path::new("picture.png"), "describe", &json!({})).is_err());
    }
}
