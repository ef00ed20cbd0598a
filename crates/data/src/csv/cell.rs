//! What the text of one cell means. White space around a number is ignored.
//!
//! A cell is missing if it is blank, or, in a numeric column, one of the words in [`MISSING_WORDS`] in upper or lower case. In a
//! text column these words are text like any other: "NA" is also Namibia.

/// The words for a missing cell in a numeric column, in upper case; the list that pandas reads by default, but for the
/// spellings of old Microsoft C libraries and for "None", which people write as an answer.
pub const MISSING_WORDS: [&str; 6] = ["NA", "N/A", "#N/A", "<NA>", "NAN", "NULL"];

/// The kinds of text that a cell may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// Nothing but white space.
    Blank,
    /// One of [`MISSING_WORDS`].
    MissingWord,
    /// Digits with an optional sign, within 64 bits.
    Integer,
    /// A decimal number that is finite as a float64.
    Real,
    Text,
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn without_sign(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'+' | b'-', rest @ ..] => rest,
        _ => bytes,
    }
}

fn parse_std<T: std::str::FromStr>(number: &[u8]) -> Option<T> {
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Classifies a number of at most 18 digits without exponent or white space, which most cells are; 10^18 is below 2^63.
fn short_number(bytes: &[u8]) -> Option<Cell> {
    let unsigned = without_sign(bytes);
    if unsigned.len() > 18 {
        return None;
    }
    // Digits in the lowest byte, points in the second, all else above.
    let counts: u32 = unsigned.iter().fold(0, |counts, byte| counts.wrapping_add(COUNTED[usize::from(*byte)]));
    match counts {
        1..=18 => Some(Cell::Integer),
        0x101..=0x112 => Some(Cell::Real),
        _ => None,
    }
}

/// What each byte adds to the counts of [`short_number`].
const COUNTED: [u32; 256] = {
    let mut counted = [1 << 16; 256];
    let mut digit = b'0' as usize;
    while digit <= b'9' as usize {
        counted[digit] = 1;
        digit += 1;
    }
    counted[b'.' as usize] = 1 << 8;
    counted
};

impl Cell {
    /// Classifies the bytes of a cell.
    pub(super) fn of(bytes: &[u8]) -> Self {
        short_number(bytes).unwrap_or_else(|| Self::of_any(bytes))
    }

    fn of_any(bytes: &[u8]) -> Self {
        let number = bytes.trim_ascii();
        if number.is_empty() {
            return Self::Blank;
        }
        let unsigned = without_sign(number);
        let whole = digits(unsigned);
        if whole == unsigned.len() && whole > 0 {
            return match (parse_std::<i64>(number), parse_std::<f64>(number)) {
                (Some(_), _) => Self::Integer,
                (None, Some(real)) if real.is_finite() => Self::Real,
                _ => Self::Text,
            };
        }
        let mut rest = &unsigned[whole..];
        let mut fraction = 0;
        if let [b'.', after @ ..] = rest {
            fraction = digits(after);
            rest = &after[fraction..];
        }
        if whole + fraction > 0 {
            if rest.is_empty() && whole <= 300 {
                return Self::Real;
            }
            let exponent = matches!(rest, [b'e' | b'E', after @ ..] if digits(without_sign(after)) > 0
                && digits(without_sign(after)) == without_sign(after).len());
            if (exponent || rest.is_empty()) && parse_std::<f64>(number).is_some_and(f64::is_finite) {
                return Self::Real;
            }
        }
        if number.len() <= 4 && MISSING_WORDS.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(number)) {
            return Self::MissingWord;
        }
        Self::Text
    }
}

/// A cell of a numeric column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number<T> {
    Missing,
    Value(T),
    /// The text is no such number.
    Wrong,
}

/// Reads a cell of an integer column.
pub(super) fn integer(bytes: &[u8]) -> Number<i64> {
    match Cell::of(bytes) {
        Cell::Blank | Cell::MissingWord => Number::Missing,
        Cell::Integer => parse_std(bytes.trim_ascii()).map_or(Number::Wrong, Number::Value),
        Cell::Real | Cell::Text => Number::Wrong,
    }
}

/// Powers of ten that are exact as float64.
const EXACT_POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Reads a decimal number of at most 15 digits without exponent: both the digits and the power of ten are exact as float64,
/// so that their one division rounds as the whole number would (Clinger, How to Read Floating Point Numbers Accurately,
/// PLDI 1990, §3).
fn short_real(number: &[u8]) -> Option<f64> {
    let unsigned = without_sign(number);
    if unsigned.len() > 16 {
        return None;
    }
    let (mut mantissa, mut seen, mut point) = (0_u64, 0, None);
    for byte in unsigned {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                seen += 1;
            }
            b'.' if point.is_none() => point = Some(seen),
            _ => return None,
        }
    }
    if seen == 0 || seen > 15 {
        return None;
    }
    let value = mantissa as f64 / EXACT_POWERS[seen - point.unwrap_or(seen)];
    Some(if number[0] == b'-' { -value } else { value })
}

/// Reads a cell of a real column; rounds to the nearest float64.
pub(super) fn real(bytes: &[u8]) -> Number<f64> {
    let number = bytes.trim_ascii();
    if let Some(value) = short_real(number) {
        return Number::Value(value);
    }
    match Cell::of(number) {
        Cell::Blank | Cell::MissingWord => Number::Missing,
        Cell::Integer | Cell::Real => parse_std(number).map_or(Number::Wrong, Number::Value),
        Cell::Text => Number::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_are_what_they_look_like() {
        for (text, cell) in [
            ("", Cell::Blank),
            ("  \t", Cell::Blank),
            ("0", Cell::Integer),
            ("-12", Cell::Integer),
            ("+7 ", Cell::Integer),
            ("007", Cell::Integer),
            ("9223372036854775807", Cell::Integer),
            ("-9223372036854775808", Cell::Integer),
            ("9223372036854775808", Cell::Real),
            ("1.", Cell::Real),
            (".5", Cell::Real),
            ("-0.0", Cell::Real),
            ("1e5", Cell::Real),
            ("1.5E-3", Cell::Real),
            ("1e308", Cell::Real),
            ("1e309", Cell::Text),
            ("NA", Cell::MissingWord),
            ("nan", Cell::MissingWord),
            ("N/a", Cell::MissingWord),
            ("#N/A", Cell::MissingWord),
            ("null", Cell::MissingWord),
            ("<NA>", Cell::MissingWord),
            ("None", Cell::Text),
            ("?", Cell::Text),
            (".", Cell::Text),
            ("-", Cell::Text),
            ("+-1", Cell::Text),
            ("1e", Cell::Text),
            ("1e+", Cell::Text),
            ("1e1.5", Cell::Text),
            ("1.2.3", Cell::Text),
            ("1,5", Cell::Text),
            ("1 000", Cell::Text),
            ("inf", Cell::Text),
            ("-Infinity", Cell::Text),
            ("0x1F", Cell::Text),
            ("é", Cell::Text),
        ] {
            assert_eq!(Cell::of(text.as_bytes()), cell, "{text:?}");
        }
        assert_eq!(Cell::of("9".repeat(308).as_bytes()), Cell::Real);
        assert_eq!(Cell::of("9".repeat(400).as_bytes()), Cell::Text);
        assert_eq!(Cell::of((".".to_owned() + &"9".repeat(4_000)).as_bytes()), Cell::Real);
    }

    proptest! {
        /// The outside numbers are the standard library's.
        #[test]
        fn reals_are_those_of_the_standard_library(text in r"[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?") {
            let expected: Option<f64> = text.parse().ok().filter(|value: &f64| value.is_finite());
            match (real(text.as_bytes()), expected) {
                (Number::Value(found), Some(expected)) => prop_assert_eq!(found.to_bits(), expected.to_bits()),
                (Number::Wrong, None) => {}
                (Number::Missing, None) => prop_assert!(text.is_empty()),
                (found, expected) => prop_assert!(false, "{:?} {:?}", found, expected),
            }
        }

        #[test]
        fn integers_are_those_of_the_standard_library(text in r"[+-]?[0-9]{0,20}") {
            let expected: Option<i64> = text.parse().ok();
            match integer(text.as_bytes()) {
                Number::Value(found) => prop_assert_eq!(Some(found), expected),
                Number::Wrong => prop_assert_eq!(expected, None),
                Number::Missing => prop_assert!(text.is_empty()),
            }
        }

        /// Scanning and reading agree on every cell.
        #[test]
        fn a_cell_reads_as_what_it_was_classified(bytes in proptest::collection::vec(
            prop_oneof![8 => prop::sample::select(b"0123456789+-.eE naNA/#<>ulL,".to_vec()), 1 => any::<u8>()], 0..12)) {
            let cell = Cell::of(&bytes);
            let missing = matches!(cell, Cell::Blank | Cell::MissingWord);
            prop_assert_eq!(matches!(real(&bytes), Number::Value(_)), matches!(cell, Cell::Integer | Cell::Real));
            prop_assert_eq!(matches!(integer(&bytes), Number::Value(_)), cell == Cell::Integer);
            prop_assert_eq!(matches!(real(&bytes), Number::Missing), missing);
            prop_assert_eq!(matches!(integer(&bytes), Number::Missing), missing);
        }
    }
}
