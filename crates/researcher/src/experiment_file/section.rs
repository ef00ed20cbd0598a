//! Tables of the file and their values, each knowing where it stands, so that every complaint can point.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::error::{Complaint, Problem};
use super::nearest::nearest;

/// What a value of a closed list of words may be.
pub(super) type Choices<T> = [(&'static str, T)];

/// The keys that a section may have.
pub(super) struct Keys {
    /// As it stands in the file: `[optimizer]`.
    pub(super) section: &'static str,
    pub(super) keys: &'static [&'static str],
}

/// A table of the file; one that is absent has no keys.
#[derive(Clone)]
pub(super) struct Section<'a> {
    name: &'static str,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
}

/// A key and its value.
pub(super) struct Entry<'a> {
    key: &'a str,
    key_span: Range<usize>,
    value: &'a DeValue<'a>,
    span: Range<usize>,
}

impl<'a> Section<'a> {
    /// Opens the file's own table.
    pub(super) fn top(table: &'a DeTable<'a>) -> Self {
        Self { name: "the experiment file", table: Some(table), span: None }
    }

    /// Opens the table under `key`.
    pub(super) fn open(&self, key: &str, name: &'static str) -> Result<Self, Complaint> {
        let Some(entry) = self.get(key) else {
            return Ok(Self::absent(name));
        };
        match entry.value {
            DeValue::Table(table) => Ok(Self { name, table: Some(table), span: Some(entry.span) }),
            _ => Err(entry.unexpected(&format!("a section {name}"))),
        }
    }

    /// Makes a section that is not in the file.
    pub(super) fn absent(name: &'static str) -> Self {
        Self { name, table: None, span: None }
    }

    /// The same section, called otherwise in complaints.
    pub(super) fn named(&self, name: &'static str) -> Self {
        Self { name, ..self.clone() }
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Where the section begins, if it is in the file.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// Complains about the first key, in the file's order, that is not among `own`; `all` are the keys of all sections.
    pub(super) fn allow(&self, own: &[&str], all: &[Keys]) -> Result<(), Complaint> {
        let unknown = self.table.into_iter().flatten().filter(|(key, _)| !own.contains(&key.get_ref().as_ref()));
        let Some((key, _)) = unknown.min_by_key(|(key, _)| key.span().start) else { return Ok(()) };
        let found = key.get_ref();
        let elsewhere = all.iter().find(|keys| keys.section != self.name && keys.keys.contains(&found.as_ref()));
        let hint = match (nearest(found, own), elsewhere) {
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, Some(keys)) => format!("; `{found}` belongs to {}", keys.section),
            (None, None) => format!("; known here: {}", own.join(", ")),
        };
        let problem = Problem::UnknownKey { key: shorten(found), section: self.name, hint };
        Err(Complaint { span: Some(key.span()), problem })
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry<'a>> {
        let (key, value) = self.table?.get_key_value(key)?;
        Some(Entry { key: key.get_ref().as_ref(), key_span: key.span(), value: value.get_ref(), span: value.span() })
    }

    pub(super) fn require(&self, key: &'static str, expected: &str) -> Result<Entry<'a>, Complaint> {
        self.get(key).ok_or_else(|| {
            let problem = Problem::Missing { key, section: self.name, expected: expected.to_owned() };
            Complaint { span: self.span(), problem }
        })
    }

    /// All entries, in the file's order.
    pub(super) fn entries(&self) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> =
            self.table.into_iter().flatten().filter_map(|(key, _)| self.get(key.get_ref())).collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries
    }
}

impl<'a> Entry<'a> {
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Complains that the value is not what was expected.
    pub(super) fn unexpected(&self, expected: &str) -> Complaint {
        self.unexpected_with_hint(expected, String::new())
    }

    /// Complains that the key itself is not what was expected.
    pub(super) fn unexpected_key(&self, expected: &'static str) -> Complaint {
        Complaint { span: Some(self.key_span.clone()), problem: Problem::Key { key: shorten(self.key), expected } }
    }

    fn unexpected_with_hint(&self, expected: &str, hint: String) -> Complaint {
        let (key, expected, found) = (shorten(self.key), expected.to_owned(), describe(self.value));
        Complaint { span: Some(self.span()), problem: Problem::Value { key, expected, found, hint } }
    }

    pub(super) fn text(&self, expected: &str) -> Result<&'a str, Complaint> {
        self.value.as_str().ok_or_else(|| self.unexpected(expected))
    }

    pub(super) fn flag(&self) -> Result<bool, Complaint> {
        self.value.as_bool().ok_or_else(|| self.unexpected("true or false"))
    }

    /// A number; whole ones are taken too. Infinities and not-a-number are left to whoever knows the range.
    pub(super) fn real(&self) -> Result<f64, Complaint> {
        self.real_or("a number")
    }

    /// A number; `expected` says what else would have done.
    pub(super) fn real_or(&self, expected: &str) -> Result<f64, Complaint> {
        let text = match self.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return Err(self.unexpected(expected)),
        };
        text.parse().map_err(|_| self.unexpected(expected))
    }

    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Result<u64, Complaint> {
        whole(self.value).filter(|number| range.contains(number)).ok_or_else(|| self.unexpected(&whole_words(&range)))
    }

    pub(super) fn whole_u32(&self, range: RangeInclusive<u32>) -> Result<u32, Complaint> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let number = self.whole(range.clone())?;
        u32::try_from(number).map_err(|_| self.unexpected(&whole_words(&range)))
    }

    /// A list of texts with at least one element.
    pub(super) fn texts(&self, expected: &str) -> Result<Vec<&'a str>, Complaint> {
        self.list(expected, DeValue::as_str)
    }

    /// A list of whole numbers with at least one element.
    pub(super) fn wholes_u32(&self, expected: &str, range: &RangeInclusive<u32>) -> Result<Vec<u32>, Complaint> {
        let in_range = |number: &u32| range.contains(number);
        self.list(expected, |element| u32::try_from(whole(element)?).ok().filter(in_range))
    }

    fn list<T>(&self, expected: &str, read: impl Fn(&'a DeValue<'a>) -> Option<T>) -> Result<Vec<T>, Complaint> {
        let elements = self.value.as_array().filter(|elements| !elements.is_empty());
        let elements = elements.ok_or_else(|| self.unexpected(expected))?;
        let read_one = |element: &'a toml::Spanned<DeValue<'a>>| {
            read(element.get_ref()).ok_or_else(|| {
                let (key, found) = (shorten(self.key), format!("{} in it", describe(element.get_ref())));
                let problem = Problem::Value { key, expected: expected.to_owned(), found, hint: String::new() };
                Complaint { span: Some(element.span()), problem }
            })
        };
        elements.iter().map(read_one).collect()
    }

    pub(super) fn choice<T: Copy>(&self, choices: &Choices<T>) -> Result<T, Complaint> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let expected = quoted.join(" or ");
        let found = self.text(&expected)?;
        let chosen = choices.iter().find(|(word, _)| *word == found).map(|(_, choice)| *choice);
        chosen.ok_or_else(|| {
            let hint = nearest(found, &words).map(|near| format!("; did you mean \"{near}\"?"));
            self.unexpected_with_hint(&expected, hint.unwrap_or_default())
        })
    }

    /// A duration of one millisecond to ten years, such as `"90s"`.
    pub(super) fn duration(&self) -> Result<Duration, Complaint> {
        const EXPECTED: &str = "a duration from \"1ms\" to \"3650d\", such as \"10s\", \"5m\" or \"2h\"";
        const LIMIT_MS: u64 = 3_650 * 86_400_000;
        let text = self.text(EXPECTED)?.trim();
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit_ms = match &text[digits.len()..] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(self.unexpected(EXPECTED)),
        };
        let number: Option<u64> = digits.trim_end().parse().ok();
        let millis = number.and_then(|number| number.checked_mul(unit_ms));
        millis
            .filter(|millis| (1..=LIMIT_MS).contains(millis))
            .map(Duration::from_millis)
            .ok_or_else(|| self.unexpected(EXPECTED))
    }
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn whole_words(range: &RangeInclusive<u64>) -> String {
    match (*range.start(), *range.end()) {
        (0, end) if end >= u64::from(u32::MAX) => "a whole number of at least 0".to_owned(),
        (start, end) if end >= u64::from(u32::MAX) => format!("a whole number of at least {start}"),
        (start, end) => format!("a whole number from {start} to {end}"),
    }
}

/// Says what a value is, short enough for a line.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {:?}", shorten(text)),
        DeValue::Integer(integer) => shorten(&integer.to_string()),
        DeValue::Float(float) => shorten(&float.to_string()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(elements) if elements.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
