//! The dataset file: what its owner says about a dataset.
//!
//! A JSON object with the keys of Fed-BioMed's dataset files, which load as they are:
//!
//! ```json
//! {
//!   "name": "Heart disease",
//!   "data_type": "csv",
//!   "path": "$DATA/heart.csv",
//!   "tags": ["heart", "uci"],
//!   "description": "Cleveland, 303 patients",
//!   "dataset_parameters": {"delimiter": ";", "column_types": {"ward": "text"}}
//! }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use protocol::tags::TagsError;
use protocol::{ColumnKind, DataType, Tags};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::csv::Delimiter;
use crate::dicom::DicomParameters;
use crate::fhir::FhirParameters;
use crate::image_folder::ImageParameters;
use crate::medical_folder::MedicalFolderParameters;
use crate::omop::OmopParameters;
use crate::postgres::PostgresParameters;
use crate::{nearest, suggestion};

/// Why a text is no dataset file. Each names the key, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DescriptionError {
    #[error("line {line}, column {column}: not valid JSON: {reason}")]
    Syntax { line: usize, column: usize, reason: String },
    #[error("expected a JSON object with the keys {}, found {found}", KEYS.join(", "))]
    NotAnObject { found: String },
    #[error("unknown key `{key}`{}; expected one of {expected}", suggestion(.nearest.as_ref()))]
    UnknownKey { key: String, nearest: Option<String>, expected: String },
    #[error("the key `{key}` is missing; expected {expected}")]
    MissingKey { key: &'static str, expected: &'static str },
    #[error("the key `{key}` occurs twice")]
    KeyTwice { key: String },
    #[error("`{key}`: expected {expected}, found {found}{}", suggestion(.nearest.as_ref()))]
    Value { key: String, expected: &'static str, found: String, nearest: Option<String> },
    #[error("line {line}, column {column}: not valid TOML: {reason}")]
    Toml { line: usize, column: usize, reason: String },
    #[error("`loading_plan`: {0}")]
    LoadingPlan(String),
    #[error("`dataset_parameters`: {0}")]
    Parameters(String),
    #[error("`tags`: {0}")]
    Tags(#[from] TagsError),
    #[error("`path`: the variable {name:?} is not set; set it, or write the path without it")]
    VariableUnset { name: String },
}

const KEYS: [&str; 6] = ["name", "data_type", "path", "tags", "description", "dataset_parameters"];
const CSV_KEYS: [&str; 2] = ["delimiter", "column_types"];
const DATA_TYPES: [&str; 10] =
    ["csv", "parquet", "default", "images", "mednist", "medical-folder", "dicom", "fhir", "omop", "postgres"];
const DATA_TYPE: &str = "one of \"csv\", \"parquet\", \"default\" (MNIST), \"images\", \"mednist\", \"medical-folder\", \"dicom\", \
                         \"fhir\", \"omop\", \"postgres\"";
const KINDS: [&str; 3] = ["integer", "real", "text"];

/// How the files of a `csv` dataset are to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsvParameters {
    /// Absent: told by the file's name or its first lines.
    pub delimiter: Option<Delimiter>,
    /// Kinds of columns that are not to be inferred.
    #[serde(default)]
    pub column_types: BTreeMap<String, ColumnKind>,
}

/// The `dataset_parameters` of each data type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "data_type", deny_unknown_fields)]
pub enum Parameters {
    Csv(CsvParameters),
    Parquet,
    Mnist,
    Images(ImageParameters),
    MedicalFolder(MedicalFolderParameters),
    Dicom(DicomParameters),
    Fhir(FhirParameters),
    Omop(OmopParameters),
    Postgres(PostgresParameters),
}

/// Where relative paths begin, and what variables in paths stand for.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The component's folder.
    pub root: &'a Path,
    /// The value of a variable of the environment, which is not read here.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

/// The parts of a description, not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RawDescription {
    pub name: String,
    /// Absolute, relative to the component's folder, or beginning with `$VARIABLE/`.
    pub path: String,
    pub tags: Tags,
    pub description: String,
    pub parameters: Parameters,
}

/// What its owner says about a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// 1 to 128 characters without control characters.
    pub name: String,
    /// Absolute if the component's folder is.
    pub path: PathBuf,
    pub tags: Tags,
    /// At most 4,096 characters.
    pub description: String,
    pub parameters: Parameters,
}

impl Description {
    /// Checks the parts and resolves the path.
    pub fn new(raw: RawDescription, place: Place<'_>) -> Result<Self, DescriptionError> {
        let name = raw.name.trim();
        if !(1..=128).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(wrong("name", "1 to 128 characters without control characters", &raw.name));
        }
        if raw.description.chars().count() > 4_096 {
            return Err(wrong("description", "at most 4096 characters", &raw.description));
        }
        let (name, path) = (name.to_owned(), resolve(&raw.path, place)?);
        Ok(Self { name, path, tags: raw.tags, description: raw.description, parameters: raw.parameters })
    }

    /// Reads a dataset file.
    pub fn from_json(bytes: &[u8], place: Place<'_>) -> Result<Self, DescriptionError> {
        Self::of(Object::parse(bytes)?, place)
    }

    /// Takes the keys of a dataset file.
    pub(crate) fn of(mut object: Object, place: Place<'_>) -> Result<Self, DescriptionError> {
        object.check_keys("", &KEYS)?;
        let data_type = data_type(&object.take_text("data_type", DATA_TYPE)?)?;
        let parameters = parameters(data_type, object.take("dataset_parameters"))?;
        let raw = RawDescription {
            name: object.take_text("name", "a text")?,
            // A database has no path.
            path: match data_type {
                DataType::Postgres => ".".to_owned(),
                _ => object.take_text("path", "a text")?,
            },
            tags: tags(&object.take("tags").ok_or(DescriptionError::MissingKey { key: "tags", expected: TAGS })?)?,
            description: object.take_text("description", "a text")?,
            parameters,
        };
        Self::new(raw, place)
    }

    pub fn data_type(&self) -> DataType {
        match self.parameters {
            Parameters::Csv(_) => DataType::Csv,
            Parameters::Parquet => DataType::Parquet,
            Parameters::Mnist => DataType::Default,
            Parameters::Images(_) => DataType::Images,
            Parameters::MedicalFolder(_) => DataType::MedicalFolder,
            Parameters::Dicom(_) => DataType::Dicom,
            Parameters::Fhir(_) => DataType::Fhir,
            Parameters::Omop(_) => DataType::Omop,
            Parameters::Postgres(_) => DataType::Postgres,
        }
    }
}

/// The entries of a JSON object in their order. `serde_json`'s map would drop repeated keys.
#[derive(Debug)]
pub(crate) struct Object(pub(crate) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Object {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DescriptionError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        serde_json::from_slice(bytes).map_err(|error| {
            if error.is_data() {
                let found = serde_json::from_slice(bytes).map_or("another value".to_owned(), |value| show(&value));
                return DescriptionError::NotAnObject { found };
            }
            let text = error.to_string();
            let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_owned();
            DescriptionError::Syntax { line: error.line(), column: error.column(), reason }
        })
    }

    fn check_keys(&self, prefix: &str, valid: &[&str]) -> Result<(), DescriptionError> {
        for (index, (key, _)) in self.0.iter().enumerate() {
            if !valid.contains(&key.as_str()) {
                let nearest = nearest(key, valid.iter().copied());
                return Err(DescriptionError::UnknownKey {
                    key: format!("{prefix}{key}"),
                    nearest,
                    expected: valid.join(", "),
                });
            }
            if self.0[..index].iter().any(|(before, _)| before == key) {
                return Err(DescriptionError::KeyTwice { key: format!("{prefix}{key}") });
            }
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn take_text(&mut self, key: &'static str, expected: &'static str) -> Result<String, DescriptionError> {
        match self.take(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(wrong_value(key, expected, &other)),
            None => Err(DescriptionError::MissingKey { key, expected }),
        }
    }
}

/// A JSON value as a message shows it.
fn show(value: &Value) -> String {
    let text = value.to_string();
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn wrong_value(key: impl Into<String>, expected: &'static str, found: &Value) -> DescriptionError {
    DescriptionError::Value { key: key.into(), expected, found: show(found), nearest: None }
}

fn wrong(key: &str, expected: &'static str, found: &str) -> DescriptionError {
    wrong_value(key, expected, &Value::from(found))
}

/// A text that is one of a few words.
fn unknown_word(key: String, expected: &'static str, found: &Value, words: &[&str]) -> DescriptionError {
    let nearest = found.as_str().and_then(|text| nearest(text, words.iter().copied()));
    DescriptionError::Value { key, expected, found: show(found), nearest }
}

fn data_type(name: &str) -> Result<DataType, DescriptionError> {
    let known = serde_json::from_value(Value::from(name)).ok().filter(|_| DATA_TYPES.contains(&name));
    known.ok_or_else(|| unknown_word("data_type".to_owned(), DATA_TYPE, &Value::from(name), &DATA_TYPES))
}

const TAGS: &str = "a list of texts, or one text with commas between the tags";

/// Tags as a list, or, as in Fed-BioMed's files, as one text with commas.
fn tags(value: &Value) -> Result<Tags, DescriptionError> {
    let words: Option<Vec<&str>> = match value {
        Value::String(text) => Some(text.split(',').collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    };
    Ok(Tags::new(words.ok_or_else(|| wrong_value("tags", TAGS, value))?)?)
}

fn parameters(data_type: DataType, value: Option<Value>) -> Result<Parameters, DescriptionError> {
    let mut object = match value {
        None | Some(Value::Null) => Object(Vec::new()),
        Some(Value::Object(map)) => Object(map.into_iter().collect()),
        Some(other) => return Err(wrong_value("dataset_parameters", "an object", &other)),
    };
    let prefix = "dataset_parameters.";
    match data_type {
        DataType::Csv => {}
        DataType::Parquet => {
            object.check_keys(prefix, &[])?;
            return Ok(Parameters::Parquet);
        }
        DataType::Default => {
            object.check_keys(prefix, &[])?;
            return Ok(Parameters::Mnist);
        }
        DataType::Images => return typed(object).map(Parameters::Images),
        DataType::MedicalFolder => return typed(object).map(Parameters::MedicalFolder),
        DataType::Dicom => return typed(object).map(Parameters::Dicom),
        DataType::Fhir => return typed(object).map(Parameters::Fhir),
        DataType::Omop => return typed(object).map(Parameters::Omop),
        DataType::Postgres => return typed(object).map(Parameters::Postgres),
    }
    object.check_keys(prefix, &CSV_KEYS)?;
    let delimiter = match object.take("delimiter") {
        None | Some(Value::Null) => None,
        Some(value) => Some(delimiter(&value)?),
    };
    let column_types = match object.take("column_types") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(Value::Object(map)) => {
            let types = map.into_iter().map(|(name, value)| Ok((name.trim().to_owned(), kind(&name, &value)?)));
            types.collect::<Result<_, DescriptionError>>()?
        }
        Some(other) => {
            return Err(wrong_value("dataset_parameters.column_types", "an object of column names and types", &other));
        }
    };
    Ok(Parameters::Csv(CsvParameters { delimiter, column_types }))
}

/// The parameters of a kind whose type says what they may be.
fn typed<T: serde::de::DeserializeOwned>(object: Object) -> Result<T, DescriptionError> {
    let value = Value::Object(object.0.into_iter().collect());
    serde_json::from_value(value).map_err(|error| DescriptionError::Parameters(error.to_string()))
}

fn delimiter(value: &Value) -> Result<Delimiter, DescriptionError> {
    let expected = "one of \",\", \";\", \"\\t\", \"|\"";
    let delimiter = value.as_str().and_then(Delimiter::from_text);
    delimiter.ok_or_else(|| wrong_value("dataset_parameters.delimiter", expected, value))
}

fn kind(column: &str, value: &Value) -> Result<ColumnKind, DescriptionError> {
    ColumnKind::deserialize(value).map_err(|_| {
        let key = format!("dataset_parameters.column_types.{column}");
        unknown_word(key, "\"integer\", \"real\" or \"text\"", value, &KINDS)
    })
}

/// Resolves a path: `$VARIABLE/rest` by the lookup, then a relative path against the component's folder.
fn resolve(path: &str, place: Place<'_>) -> Result<PathBuf, DescriptionError> {
    if path.trim().is_empty() || path.contains('\0') {
        return Err(wrong("path", "a path", path));
    }
    let Some(rest) = path.strip_prefix('$') else { return Ok(place.root.join(path)) };
    let (variable, rest) = rest.split_once('/').unwrap_or((rest, ""));
    match (place.lookup)(variable).filter(|value| !value.is_empty()) {
        Some(value) => {
            let base = place.root.join(value);
            let rest = rest.trim_start_matches('/');
            Ok(if rest.is_empty() { base } else { base.join(rest) })
        }
        None => Err(DescriptionError::VariableUnset { name: variable.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "DATA").then(|| "/srv/data".to_owned())
    }

    fn check(json: &str) -> Result<Description, DescriptionError> {
        Description::from_json(json.as_bytes(), Place { root: Path::new("/srv/node"), lookup: &lookup })
    }

    fn check_error(json: &str, message: &str) {
        assert_eq!(check(json).expect_err(json).to_string(), message);
    }

    fn with(entries: &str) -> String {
        format!(r#"{{"name": "n", "data_type": "csv", "path": "x.csv", "tags": ["a"], "description": "d", {entries}}}"#)
    }

    #[test]
    fn files_of_fed_biomed_load_as_they_are() {
        let description = check(
            r##"{"path": "$DATA/adni.csv", "data_type": "csv", "description": "ADNI", "tags": "#adni, #dataset", "name": "ADNI"}"##,
        )
        .unwrap();
        assert_eq!(description.path, Path::new("/srv/data/adni.csv"));
        assert_eq!(description.tags, Tags::new(["#adni", "#dataset"]).unwrap());
        assert_eq!(description.parameters, Parameters::Csv(CsvParameters::default()));
    }

    #[test]
    fn paths_are_absolute_relative_or_begin_with_a_variable() {
        for (path, resolved) in [
            ("/a/b.csv", "/a/b.csv"),
            ("data/b.csv", "/srv/node/data/b.csv"),
            ("$DATA/b.csv", "/srv/data/b.csv"),
            ("$DATA//b.csv", "/srv/data/b.csv"),
            ("$DATA", "/srv/data"),
        ] {
            let json = format!(r#"{{"name":"n","data_type":"default","path":"{path}","tags":["t"],"description":""}}"#);
            let description = check(&json).unwrap();
            assert_eq!(description.path, Path::new(resolved));
            assert_eq!(description.data_type(), DataType::Default);
        }
    }

    #[test]
    fn parameters_of_csv_are_read() {
        let json = with(r#""dataset_parameters": {"delimiter": "\t", "column_types": {"ward": "text", "age": "integer"}}"#);
        let Parameters::Csv(parameters) = check(&json).unwrap().parameters else { panic!() };
        assert_eq!(parameters.delimiter, Some(Delimiter::Tab));
        assert_eq!(parameters.column_types["ward"], ColumnKind::Text);
        assert_eq!(parameters.column_types["age"], ColumnKind::Integer);
        assert!(check(&with(r#""dataset_parameters": null"#)).is_ok());
    }

    #[test]
    fn errors_name_key_expected_and_found() {
        let keys = "name, data_type, path, tags, description, dataset_parameters";
        check_error("{\n \"name\": }", "line 2, column 10: not valid JSON: expected value");
        check_error("", "line 1, column 0: not valid JSON: EOF while parsing a value");
        check_error("[1]", &format!("expected a JSON object with the keys {keys}, found [1]"));
        check_error(
            &with(r#""datatype": "csv""#),
            &format!("unknown key `datatype`; did you mean \"data_type\"?; expected one of {keys}"),
        );
        check_error(&with(r#""name": "n""#), "the key `name` occurs twice");
        check_error(r#"{"name": "n"}"#, &format!("the key `data_type` is missing; expected {DATA_TYPE}"));
        check_error(
            r#"{"name": "n", "data_type": "cvs"}"#,
            &format!("`data_type`: expected {DATA_TYPE}, found \"cvs\"; did you mean \"csv\"?"),
        );
        check_error(r#"{"data_type": "csv", "name": 3}"#, "`name`: expected a text, found 3");
        check_error(
            &with("").replace(", }", "}").replace(r#"["a"]"#, "7"),
            "`tags`: expected a list of texts, or one text with commas between the tags, found 7",
        );
        check_error(&with("").replace(", }", "}").replace(r#"["a"]"#, "[]"), "`tags`: at least one tag is needed");
        check_error(
            &with("").replace(", }", "}").replace("x.csv", "$NOWHERE/x.csv"),
            "`path`: the variable \"NOWHERE\" is not set; set it, or write the path without it",
        );
        check_error(
            &with(r#""dataset_parameters": {"delimitor": ";"}"#),
            "unknown key `dataset_parameters.delimitor`; did you mean \"delimiter\"?; expected one of delimiter, column_types",
        );
        check_error(
            &with(r#""dataset_parameters": {"delimiter": ":"}"#),
            "`dataset_parameters.delimiter`: expected one of \",\", \";\", \"\\t\", \"|\", found \":\"",
        );
        check_error(
            &with(r#""dataset_parameters": {"column_types": {"x": "txt"}}"#),
            "`dataset_parameters.column_types.x`: expected \"integer\", \"real\" or \"text\", found \"txt\"; did you mean \"text\"?",
        );
    }

    #[test]
    fn a_description_reads_back_as_it_was_stored() {
        let description =
            check(&with(r#""dataset_parameters": {"delimiter": ";", "column_types": {"x": "real"}}"#)).unwrap();
        let stored = serde_json::to_string(&description).unwrap();
        assert_eq!(serde_json::from_str::<Description>(&stored).unwrap(), description);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Description::from_json(&bytes, Place { root: Path::new("/"), lookup: &lookup });
        }
    }
}
