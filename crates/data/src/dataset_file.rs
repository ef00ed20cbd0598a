//! The document of `dataset add --file`: a dataset of any kind, and how it is to be loaded; as TOML or JSON.

use serde_json::Value;

use crate::description::{Description, DescriptionError, Object, Place};
use crate::loading::LoadingPlan;

/// What a dataset file says.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetFile {
    pub description: Description,
    /// Empty if the file has none.
    pub loading_plan: LoadingPlan,
}

impl DatasetFile {
    /// Reads a JSON document; Fed-BioMed's dataset files are such.
    pub fn from_json(bytes: &[u8], place: Place<'_>) -> Result<Self, DescriptionError> {
        Self::of(Object::parse(bytes)?, place)
    }

    /// Reads a TOML document with the same keys.
    pub fn from_toml(text: &str, place: Place<'_>) -> Result<Self, DescriptionError> {
        let table: serde_json::Map<String, Value> = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            DescriptionError::Toml { line, column, reason: error.message().to_owned() }
        })?;
        Self::of(Object(table.into_iter().collect()), place)
    }

    fn of(mut object: Object, place: Place<'_>) -> Result<Self, DescriptionError> {
        let loading_plan = match object.take("loading_plan") {
            None | Some(Value::Null) => LoadingPlan::default(),
            Some(value) => {
                serde_json::from_value(value).map_err(|error| DescriptionError::LoadingPlan(error.to_string()))?
            }
        };
        Ok(Self { description: Description::of(object, place)?, loading_plan })
    }
}
