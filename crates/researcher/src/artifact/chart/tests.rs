use proptest::prelude::*;

use super::*;

fn chart(series: Vec<Series<'_>>) -> Chart<'_> {
    Chart { id: "auc", title: "AUC", x_label: "rounds of training", rounds: (0, 0), bounds: (0.0, 1.0), series }
}

fn line(name: &str, points: Vec<(u32, f64)>) -> Series<'_> {
    Series { name, style: Style::Colour(0), points }
}

#[test]
fn a_chart_is_described_in_words() {
    let series = vec![line("North", vec![(0, 0.5), (1, 0.75)])];
    let svg = svg(&chart(series));
    assert!(svg.starts_with(
        "<svg class=\"chart\" viewBox=\"0 0 560 300\" role=\"img\" aria-labelledby=\"auc-title auc-desc\">\
         <title id=\"auc-title\">AUC</title>\
         <desc id=\"auc-desc\">Line chart over rounds of training. North: 0.500 at 0, 0.750 at 1.</desc>"
    ));
}

#[test]
fn a_line_goes_through_its_points() {
    let svg = svg(&chart(vec![line("North", vec![(0, 0.5), (1, 0.75)])]));
    // The axis goes from 0.50 to 0.75 in steps of 0.05.
    assert!(svg.contains("<g class=\"line s0\"><path d=\"M54.0 256.0L426.0 14.0\"/>"), "{svg}");
    assert!(svg.contains("<title>North, 1: 0.750</title>"));
}

#[test]
fn a_missing_round_leaves_a_gap() {
    let svg = svg(&chart(vec![line("North", vec![(0, 0.5), (1, 0.6), (2, f64::NAN), (3, 0.7), (5, 0.75)])]));
    let path = svg.split("line s0\"><path d=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(path.matches('M').count(), 3, "{path}");
    assert_eq!(path.matches('L').count(), 1, "{path}");
    assert_eq!(path.matches('z').count(), 2, "points alone become dots: {path}");
}

#[test]
fn a_chart_without_values_says_so() {
    let svg = svg(&chart(vec![line("North", vec![(1, f64::NAN)])]));
    assert!(svg.contains(">no values</text>"));
}

#[test]
fn hostile_names_stay_text() {
    let svg = svg(&chart(vec![line("</svg><script>alert(1)</script>", vec![(0, 0.5)])]));
    assert!(!svg.contains("<script"));
    assert_eq!(svg.matches("</svg>").count(), 1);
}

#[test]
fn names_at_the_ends_do_not_cover_each_other() {
    let key = |at: f64| Key { class: String::new(), name: String::new(), from: (0.0, at), at };
    let mut keys: Vec<Key> = [100.0, 101.0, 99.0, 250.0, 255.0, 258.0].map(key).into();
    spread(&mut keys);
    assert!(keys.windows(2).all(|pair| pair[1].at - pair[0].at >= KEY_HEIGHT - 1e-9));
    assert!(keys.iter().all(|key| (TOP..=BOTTOM - 4.0).contains(&key.at)));
}

#[test]
fn long_lines_are_thinned_and_keep_their_extremes() {
    let mut points: Vec<(u32, f64)> = (0..10_000).map(|round| (round, f64::from(round % 7))).collect();
    points[5_432].1 = 1e3;
    points[1_234].1 = -1e3;
    let kept = thinned(&points, 100);
    assert!(kept.len() <= 104, "{}", kept.len());
    assert!(kept.contains(&points[5_432]) && kept.contains(&points[1_234]));
    assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
    assert!(kept.is_sorted_by_key(|(round, _)| *round));
}

proptest! {
    #[test]
    fn any_points_are_drawn_within_the_picture(
        lines in proptest::collection::vec(proptest::collection::vec((0_u32..100, any::<f64>()), 0..12), 0..12),
        name in any::<String>(),
    ) {
        let styles = [Style::Colour(3), Style::Faint, Style::Strong];
        let series = lines.into_iter().enumerate().map(|(index, mut points)| {
            points.sort_by_key(|(round, _)| *round);
            Series { name: &name, style: styles[index % 3], points }
        });
        let chart = chart(series.collect());
        let svg = svg(&chart);
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
        let _ = sparkline(chart.series.first().map_or(&[], |series| &series.points));
    }
}
