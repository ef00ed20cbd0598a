//! Configuration: `etc/config.toml`, every key overridable at run time by `FBM_<SECTION>_<KEY>`.
//!
//! Each daemon declares its keys as a table of [`Setting`]s; from it come the defaults, the checks, `config show`, the commented
//! file that `component create` writes, and the reference page of the docs.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use thiserror::Error;
use toml::Value;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Text,
    /// A list of texts; in the environment separated by commas.
    Texts,
    /// A whole number within these bounds.
    Integer {
        least: i64,
        most: i64,
    },
    Boolean,
    Choice(&'static [&'static str]),
    /// A URL. A user name and password in it are never shown.
    Url,
    /// A number and a unit: `500ms`, `10s`, `5m`, `2h`, `7d`.
    Duration,
}

impl fmt::Display for Takes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => formatter.write_str("a text"),
            Self::Url => formatter.write_str("a URL"),
            Self::Texts => formatter.write_str("a list of texts"),
            Self::Integer { least, most } => write!(formatter, "a whole number from {least} to {most}"),
            Self::Boolean => formatter.write_str("true or false"),
            Self::Choice(words) => write!(formatter, "one of {}", words.join(", ")),
            Self::Duration => formatter.write_str("a duration such as 500ms, 10s, 5m, 2h or 7d"),
        }
    }
}

/// One key of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub section: &'static str,
    pub key: &'static str,
    pub takes: Takes,
    /// The default, as TOML.
    pub default: &'static str,
    /// What it means, for the file and the docs.
    pub doc: &'static str,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File,
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File => formatter.write_str("file"),
            Self::Environment(name) => write!(formatter, "environment {name}"),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("line {line}: unknown key `{found}`{}", suggestion(.nearest.as_deref()))]
    Unknown { line: usize, found: String, nearest: Option<String> },
    #[error("{place}: `{key}` takes {expected}, found {found}")]
    Wrong { place: String, key: String, expected: Takes, found: String },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    values: BTreeMap<(&'static str, &'static str), (Value, Origin)>,
    settings: &'static [Setting],
}

impl Config {
    /// Layers the environment over the file over the defaults. `env` is asked for `FBM_<SECTION>_<KEY>`.
    pub fn load(
        settings: &'static [Setting],
        file: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let table = parse(file)?;
        refuse_unknown(settings, file, &table)?;
        let mut values = BTreeMap::new();
        for setting in settings {
            let name = format!("{}.{}", setting.section, setting.key);
            let variable = format!("FBM_{}_{}", setting.section, setting.key).to_uppercase();
            let in_file = table.get(setting.section).and_then(|section| section.get(setting.key));
            let (value, origin) = if let Some(text) = env(&variable) {
                let value = from_text(setting.takes, &text).ok_or_else(|| ConfigError::Wrong {
                    place: format!("environment variable {variable}"),
                    key: name,
                    expected: setting.takes,
                    found: format!("{text:?}"),
                })?;
                (value, Origin::Environment(variable))
            } else if let Some(value) = in_file {
                let value = checked(setting.takes, value).ok_or_else(|| ConfigError::Wrong {
                    place: format!("line {}", line_of(file, setting.section, Some(setting.key))),
                    key: name,
                    expected: setting.takes,
                    found: value.to_string(),
                })?;
                (value, Origin::File)
            } else {
                (default_of(setting), Origin::Default)
            };
            values.insert((setting.section, setting.key), (value, origin));
        }
        Ok(Self { values, settings })
    }

    /// The commented file that a new component starts with. Keys in `set` are written, all others stand as comments.
    pub fn template(settings: &[Setting], set: &[(&str, &str, String)]) -> String {
        let mut text = String::from("# Every key can be overridden by the environment variable FBM_<SECTION>_<KEY>.\n");
        let mut section = "";
        for setting in settings {
            if setting.section != section {
                section = setting.section;
                let _ = writeln!(text, "\n[{section}]");
            }
            let _ = writeln!(text, "# {} Takes {}.", setting.doc, setting.takes);
            let given = set.iter().find(|(section, key, _)| (*section, *key) == (setting.section, setting.key));
            let _ = match given {
                Some((_, key, value)) => writeln!(text, "{key} = {}", Value::String(value.clone())),
                None => writeln!(text, "# {} = {}", setting.key, setting.default),
            };
        }
        text
    }

    /// Writes a number into the text of a file that [`Config::template`] made; `None` if it lacks the key.
    pub fn with_number(file: &str, section: &str, key: &str, number: i64) -> Option<String> {
        let (mut inside, mut is_written) = (false, false);
        let mut text = String::with_capacity(file.len());
        for line in file.lines() {
            if line.starts_with('[') {
                inside = line == format!("[{section}]");
            }
            let name = line.trim_start_matches("# ").split(" = ").next();
            if inside && !is_written && name == Some(key) {
                let _ = writeln!(text, "{key} = {number}");
                is_written = true;
            } else {
                let _ = writeln!(text, "{line}");
            }
        }
        is_written.then_some(text)
    }

    fn value(&self, section: &str, key: &str) -> &Value {
        let found = self.values.iter().find(|((a, b), _)| (*a, *b) == (section, key));
        &found.expect("only declared keys are asked for").1.0
    }

    pub fn text(&self, section: &str, key: &str) -> &str {
        self.value(section, key).as_str().expect("checked against `takes` at load")
    }

    pub fn texts(&self, section: &str, key: &str) -> Vec<String> {
        let list = self.value(section, key).as_array().expect("checked against `takes` at load");
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub fn integer(&self, section: &str, key: &str) -> i64 {
        self.value(section, key).as_integer().expect("checked against `takes` at load")
    }

    /// An integer whose bounds make it fit.
    pub fn number<T: TryFrom<i64>>(&self, section: &str, key: &str) -> T {
        T::try_from(self.integer(section, key)).ok().expect("the declared bounds lie within the type")
    }

    pub fn boolean(&self, section: &str, key: &str) -> bool {
        self.value(section, key).as_bool().expect("checked against `takes` at load")
    }

    pub fn duration(&self, section: &str, key: &str) -> Duration {
        parse_duration(self.text(section, key)).expect("checked against `takes` at load")
    }

    /// Every key with its value as it may be shown and where it came from, in declared order.
    pub fn entries(&self) -> impl Iterator<Item = (&'static Setting, Value, &Origin)> {
        self.settings.iter().map(|setting| {
            let (value, origin) = &self.values[&(setting.section, setting.key)];
            let shown = match (setting.takes, value) {
                (Takes::Url, Value::String(url)) => Value::String(without_password(url)),
                _ => value.clone(),
            };
            (setting, shown, origin)
        })
    }
}

/// Replaces what stands between `//` and `@` in a URL.
fn without_password(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = before.split_once("//").map_or("", |(scheme, _)| scheme);
    format!("{scheme}//***@{host}")
}

/// Reads a duration: a whole number and one of ms, s, m, h, d.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|symbol: char| !symbol.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn parse(file: &str) -> Result<toml::Table, ConfigError> {
    file.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| file[..span.start.min(file.len())].matches('\n').count() + 1);
        ConfigError::Syntax { line, message: error.message().to_owned() }
    })
}

fn refuse_unknown(settings: &[Setting], file: &str, table: &toml::Table) -> Result<(), ConfigError> {
    for (section, content) in table {
        if !settings.iter().any(|setting| setting.section == section) {
            let names = settings.iter().map(|setting| setting.section.to_owned());
            let (line, nearest) = (line_of(file, section, None), nearest(section, names));
            return Err(ConfigError::Unknown { line, found: section.clone(), nearest });
        }
        let Some(keys) = content.as_table() else {
            let line = line_of(file, section, None);
            return Err(ConfigError::Syntax {
                line,
                message: format!("`{section}` must be a section, written [{section}]"),
            });
        };
        for key in keys.keys() {
            let in_section = settings.iter().filter(|setting| setting.section == section);
            if !in_section.clone().any(|setting| setting.key == key) {
                let nearest = nearest(key, in_section.map(|setting| setting.key.to_owned()))
                    .map(|nearest| format!("{section}.{nearest}"));
                let line = line_of(file, section, Some(key));
                return Err(ConfigError::Unknown { line, found: format!("{section}.{key}"), nearest });
            }
        }
    }
    Ok(())
}

/// The most similar name, if one is similar enough to be a typing error.
pub fn nearest(found: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let length = found.chars().count();
    let bound = 1 + length / 3;
    // Each edit changes the length by one at most; so a name of any length is answered at once, in little memory.
    let close = names.into_iter().filter(|name| name.chars().count().abs_diff(length) <= bound);
    let scored = close.map(|name| (strsim::damerau_levenshtein(found, &name), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= bound).then_some(name)
}

/// The line of a section's head, or of a key below it. Keys written as `section.key` at the top are found too.
fn line_of(file: &str, section: &str, key: Option<&str>) -> usize {
    let mut inside = false;
    let mut head = 1;
    for (index, line) in file.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            inside = name.trim() == section;
            if inside {
                head = index + 1;
            }
        }
        let name = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
        let dotted = key.is_some_and(|key| name.split('.').map(str::trim).eq([section, key]));
        if dotted || (inside && key == Some(name)) || (key.is_none() && name == section) {
            return index + 1;
        }
    }
    head
}

fn default_of(setting: &Setting) -> Value {
    let table: toml::Table = format!("v = {}", setting.default).parse().expect("declared defaults are TOML");
    checked(setting.takes, &table["v"]).expect("declared defaults fit what the key takes")
}

fn checked(takes: Takes, value: &Value) -> Option<Value> {
    let fits = match (takes, value) {
        (Takes::Text | Takes::Url, Value::String(_)) | (Takes::Boolean, Value::Boolean(_)) => true,
        (Takes::Texts, Value::Array(list)) => list.iter().all(Value::is_str),
        (Takes::Integer { least, most }, Value::Integer(number)) => (least..=most).contains(number),
        (Takes::Choice(words), Value::String(word)) => words.contains(&word.as_str()),
        (Takes::Duration, Value::String(text)) => parse_duration(text).is_some(),
        _ => false,
    };
    fits.then(|| value.clone())
}

fn from_text(takes: Takes, text: &str) -> Option<Value> {
    let value = match takes {
        Takes::Text | Takes::Url | Takes::Choice(_) | Takes::Duration => Value::String(text.to_owned()),
        Takes::Texts => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            Value::Array(words.map(|word| Value::String(word.to_owned())).collect())
        }
        Takes::Integer { .. } => Value::Integer(text.trim().parse().ok()?),
        // Fed-BioMed writes True and 1.
        Takes::Boolean => match text.trim().to_lowercase().as_str() {
            "true" | "1" | "yes" => Value::Boolean(true),
            "false" | "0" | "no" => Value::Boolean(false),
            _ => return None,
        },
    };
    checked(takes, &value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &[Setting] = &[
        Setting {
            section: "researcher",
            key: "ip",
            takes: Takes::Text,
            default: "\"localhost\"",
            doc: "Where the researcher listens.",
        },
        Setting {
            section: "researcher",
            key: "port",
            takes: Takes::Integer { least: 1, most: 65_535 },
            default: "50051",
            doc: "Its port.",
        },
        Setting { section: "security", key: "allowed_researchers", takes: Takes::Texts, default: "[]", doc: "Who may ask." },
    ];

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn environment_beats_file_beats_default_for_every_type() {
        let env = |name: &str| match name {
            "FBM_RESEARCHER_PORT" => Some("1234".to_owned()),
            "FBM_SECURITY_ALLOWED_RESEARCHERS" => Some("a, b".to_owned()),
            _ => None,
        };
        let config = Config::load(SETTINGS, "[researcher]\nip = \"10.0.0.1\"\nport = 50052\n", env).unwrap();
        assert_eq!(config.text("researcher", "ip"), "10.0.0.1");
        assert_eq!(config.number::<u16>("researcher", "port"), 1234);
        assert_eq!(config.texts("security", "allowed_researchers"), ["a", "b"]);
        let origins: Vec<String> = config.entries().map(|(_, _, origin)| origin.to_string()).collect();
        assert_eq!(origins, ["file", "environment FBM_RESEARCHER_PORT", "environment FBM_SECURITY_ALLOWED_RESEARCHERS"]);
    }

    #[test]
    fn a_number_is_written_into_a_new_file_where_its_key_is() {
        let file = Config::template(SETTINGS, &[("researcher", "ip", "10.0.0.1".to_owned())]);
        let changed = Config::with_number(&file, "researcher", "port", 14_001).unwrap();
        let config = Config::load(SETTINGS, &changed, none).unwrap();
        assert_eq!((config.text("researcher", "ip"), config.integer("researcher", "port")), ("10.0.0.1", 14_001));
        let again = Config::with_number(&changed, "researcher", "port", 14_002).unwrap();
        assert_eq!(Config::load(SETTINGS, &again, none).unwrap().integer("researcher", "port"), 14_002);
        assert_eq!(again.lines().count(), file.lines().count());
        assert!(Config::with_number(&file, "security", "port", 1).is_none());
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        assert_eq!(without_password("http://user:p@ss@proxy:3128"), "http://***@proxy:3128");
        assert_eq!(without_password("http://proxy:3128"), "http://proxy:3128");
        assert_eq!(without_password("user:secret@proxy"), "//***@proxy");
    }

    #[test]
    fn unknown_keys_are_refused_with_line_and_suggestion() {
        let error = Config::load(SETTINGS, "# note\n[researcher]\nip = \"x\"\nprot = 1\n", none).unwrap_err();
        assert_eq!(error.to_string(), "line 4: unknown key `researcher.prot`; did you mean `researcher.port`?");
        let error = Config::load(SETTINGS, "\n[resarcher]\n", none).unwrap_err();
        assert_eq!(error.to_string(), "line 2: unknown key `resarcher`; did you mean `researcher`?");
    }

    #[test]
    fn a_key_of_any_length_is_refused_at_once() {
        let error = Config::load(SETTINGS, &format!("{} = 1\n", "k".repeat(2_000_000)), none).unwrap_err();
        assert!(matches!(error, ConfigError::Unknown { line: 1, nearest: None, .. }));
    }

    #[test]
    fn wrong_values_name_the_place_and_what_is_taken() {
        let error = Config::load(SETTINGS, "[researcher]\nport = 0\n", none).unwrap_err();
        assert_eq!(error.to_string(), "line 2: `researcher.port` takes a whole number from 1 to 65535, found 0");
        let error = Config::load(SETTINGS, "", |_| Some("x".into())).unwrap_err();
        assert!(error.to_string().starts_with("environment variable FBM_RESEARCHER_PORT"), "{error}");
        assert!(matches!(Config::load(SETTINGS, "a = [\n", none), Err(ConfigError::Syntax { .. })));
    }

    #[test]
    fn the_template_loads_back() {
        let text = Config::template(SETTINGS, &[("researcher", "ip", "a \"b\"".into())]);
        assert_eq!(Config::load(SETTINGS, &text, none).unwrap().text("researcher", "ip"), "a \"b\"");
    }
}
