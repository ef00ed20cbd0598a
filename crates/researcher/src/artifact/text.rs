//! How numbers, times and other people's words are written on a page.

use std::fmt;

use protocol::Timestamp;

/// Somebody's text, made safe for HTML and SVG, between tags and in quoted attributes alike.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|letter| match letter {
            '&' => formatter.write_str("&amp;"),
            '<' => formatter.write_str("&lt;"),
            '>' => formatter.write_str("&gt;"),
            '"' => formatter.write_str("&quot;"),
            '\'' => formatter.write_str("&#39;"),
            '\n' | '\t' => formatter.write_char(letter),
            letter if letter.is_control() => formatter.write_char(char::REPLACEMENT_CHARACTER),
            letter => formatter.write_char(letter),
        })
    }
}

/// Shortens a text to at most `longest` characters, the last being an ellipsis where something was cut.
pub(super) fn shorten(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// Writes a measured number with about three significant digits after what is certain: 0.876, 12.34, 5678, 1.23e-5.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    // Below each bound the number after it is how many decimals are kept.
    let decimals = [(0.001, None), (9.9995, Some(3)), (99.995, Some(2)), (999.95, Some(1)), (99_999.5, Some(0))];
    match decimals.into_iter().find(|(bound, _)| size < *bound) {
        Some((_, Some(decimals))) => format!("{value:.decimals$}"),
        _ => format!("{value:.2e}"),
    }
}

/// Writes a whole number in groups of three digits, parted by narrow no-break spaces.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Writes a length of time as people say it: 420 ms, 3.2 s, 2 min 5 s, 1 h 3 min.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    if seconds < 3_599.5 {
        return two_units(seconds.round(), "min", "s");
    }
    two_units((seconds / 60.0).round(), "h", "min")
}

/// Writes a whole number of small units, sixty of which make a large one; none of the small is not said.
fn two_units(small: f64, large_name: &str, small_name: &str) -> String {
    let (large, rest) = ((small / 60.0).floor(), small % 60.0);
    if rest == 0.0 { format!("{large:.0} {large_name}") } else { format!("{large:.0} {large_name} {rest:.0} {small_name}") }
}

/// Writes a point in time to the minute.
pub(super) fn date(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_in_a_text_stays_text() {
        let hostile = "<script>alert('x')</script> & \"quotes\"\u{0}";
        let expected = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;quotes&quot;\u{fffd}";
        assert_eq!(Escaped(hostile).to_string(), expected);
    }

    #[test]
    fn figures_keep_what_matters() {
        let cases = [
            (0.0, "0"),
            (0.87654, "0.877"),
            (-0.5, "-0.500"),
            (0.000_123_4, "1.23e-4"),
            (9.9999, "10.00"),
            (12.345, "12.35"),
            (678.9, "678.9"),
            (12_345.6, "12346"),
            (1.5e9, "1.50e9"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let cases = [
            (0.42, "420 ms"),
            (0.9999, "1.0 s"),
            (3.21, "3.2 s"),
            (59.99, "1 min"),
            (125.0, "2 min 5 s"),
            (3_599.9, "1 h"),
            (3_780.0, "1 h 3 min"),
            (f64::NAN, "–"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(303), "303");
        assert_eq!(date(Timestamp::from_millis(851_042_397_000)), "1996-12-20 00:39 UTC");
    }

    proptest! {
        #[test]
        fn numbers_never_panic(value in any::<f64>(), text in any::<String>(), longest in 0_usize..9) {
            let _ = (figure(value), duration(value), shorten(&text, longest));
            let escaped = Escaped(&text).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }
    }
}
