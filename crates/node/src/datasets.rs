//! Registering datasets: what the hospital offers, and what it sees of it itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use data::{Comparison, DataError, Depth, Description, DescriptionError, Place, RawDescription, face, scan};
use protocol::tags::TagsError;
use protocol::{DataType, DatasetId, Tags};
use serde_json::{Value, json};
use thiserror::Error;

use crate::command::{DatasetChanges, DatasetDetail, DatasetRow, NewDataset};
use crate::handle::NodeHandle;
use crate::store::{Dataset, StoreError};

/// Why a dataset is not registered or changed; for its owner, with paths and places.
#[derive(Debug, Error)]
pub enum DatasetError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("{0}")]
    Description(#[from] DescriptionError),
    #[error("`tags`: {0}")]
    Tags(#[from] TagsError),
    #[error(
        "the tags {new} conflict with {old} of dataset {name:?} ({id}): one set contains the other, so a search would find both"
    )]
    TagConflict { new: Tags, old: Tags, name: String, id: DatasetId },
    #[error("the dataset has {found} rows, this node's `security.minimum_samples` is {minimum}")]
    TooFewRows { found: u64, minimum: u64 },
    #[error("the node has no dataset {0}")]
    Unknown(DatasetId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Audit(String),
}

impl NewDataset {
    /// Reads a dataset file. Relative paths begin in `root`; `lookup` knows the variables of the environment.
    pub fn from_file(bytes: &[u8], root: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, DescriptionError> {
        let description = Description::from_json(bytes, Place { root, lookup })?;
        Ok(Self {
            data_type: description.data_type(),
            tags: description.tags.clone().into(),
            parameters: parameters_of(&description),
            name: description.name,
            path: description.path,
            description: description.description,
            visible_to: Vec::new(),
        })
    }

    /// The MNIST images below a folder, as Fed-BioMed registers them.
    pub fn mnist(path: &Path) -> Self {
        Self {
            name: "MNIST".to_owned(),
            data_type: DataType::Default,
            path: path.to_owned(),
            tags: vec!["#MNIST".to_owned(), "#dataset".to_owned()],
            description: "MNIST images of handwritten digits".to_owned(),
            parameters: Value::Null,
            visible_to: Vec::new(),
        }
    }

    fn describe(&self, root: &Path) -> Result<Description, DescriptionError> {
        let path = self.path.to_string_lossy();
        let file = json!({
            "name": self.name, "data_type": self.data_type, "path": path, "tags": self.tags,
            "description": self.description, "dataset_parameters": self.parameters,
        });
        // The variables of a path were resolved by the caller.
        Description::from_json(file.to_string().as_bytes(), Place { root, lookup: &|_| None })
    }
}

/// The type's own parameters, as in a dataset file.
fn parameters_of(description: &Description) -> Value {
    let mut parameters = json!(description.parameters);
    if let Value::Object(keys) = &mut parameters {
        keys.remove("data_type");
        if keys.is_empty() {
            return Value::Null;
        }
    }
    parameters
}

/// What its owner sees.
fn row(dataset: &Dataset, stop: &AtomicBool) -> DatasetRow {
    let description = &dataset.description;
    let state = match dataset.scan.compare(description, Depth::Quick, stop) {
        Ok(Comparison::Same | Comparison::Touched(_)) => "ready",
        Ok(Comparison::Changed) => "changed",
        Err(_) => "missing",
    };
    DatasetRow {
        id: dataset.id.clone(),
        name: description.name.clone(),
        data_type: description.data_type(),
        tags: description.tags.clone(),
        rows: dataset.scan.rows,
        description: description.description.clone(),
        path: description.path.clone(),
        state: state.to_owned(),
    }
}

fn detail(dataset: &Dataset, stop: &AtomicBool) -> DatasetDetail {
    let files = &dataset.scan.fingerprint.files;
    DatasetDetail {
        row: row(dataset, stop),
        columns: face(&dataset.scan.schema),
        bytes: files.iter().map(|file| file.stamp.bytes).sum(),
        digest: files.iter().map(|file| file.digest.to_string()).collect::<Vec<_>>().join(" "),
        parameters: parameters_of(&dataset.description),
        visible_to: dataset.visible_to.iter().cloned().collect(),
        registered: dataset.registered.to_string(),
    }
}

impl NodeHandle {
    /// Reads the whole data, then registers it. Fails soon after `stop` is set, as all here that reads data.
    pub fn add_dataset(&self, new: &NewDataset, stop: &AtomicBool) -> Result<DatasetDetail, DatasetError> {
        let description = new.describe(self.folder().root())?;
        self.check_tags(&description.tags, None)?;
        let scan = scan(&description, None, stop)?;
        let id = self.draw(DatasetId::random);
        let visible_to: BTreeSet<_> = new.visible_to.iter().cloned().collect();
        let registered = self.now();
        self.keep_dataset("dataset.added", &Dataset { id, visible_to, description, scan, registered }, stop)
    }

    /// Changes what is given and keeps the rest.
    pub fn update_dataset(
        &self,
        id: &DatasetId,
        changes: &DatasetChanges,
        stop: &AtomicBool,
    ) -> Result<DatasetDetail, DatasetError> {
        let mut dataset = self.find_dataset(id)?;
        let before = &dataset.description;
        let raw = RawDescription {
            name: changes.name.clone().unwrap_or_else(|| before.name.clone()),
            path: changes.path.as_ref().unwrap_or(&before.path).to_string_lossy().into_owned(),
            tags: changes.tags.as_ref().map_or_else(|| Ok(before.tags.clone()), Tags::new)?,
            description: changes.description.clone().unwrap_or_else(|| before.description.clone()),
            parameters: before.parameters.clone(),
        };
        let description = Description::new(raw, Place { root: self.folder().root(), lookup: &|_| None })?;
        self.check_tags(&description.tags, Some(id))?;
        if description.path != before.path {
            dataset.scan = scan(&description, None, stop)?;
        }
        dataset.description = description;
        if let Some(visible_to) = &changes.visible_to {
            dataset.visible_to = visible_to.iter().cloned().collect();
        }
        self.keep_dataset("dataset.updated", &dataset, stop)
    }

    /// Takes the data as it is now.
    pub fn refresh_dataset(&self, id: &DatasetId, stop: &AtomicBool) -> Result<DatasetDetail, DatasetError> {
        let mut dataset = self.find_dataset(id)?;
        dataset.scan = scan(&dataset.description, Some(&dataset.scan), stop)?;
        self.keep_dataset("dataset.refreshed", &dataset, stop)
    }

    /// Forgets a dataset; the data itself stays where it is.
    pub fn delete_dataset(&self, id: &DatasetId) -> Result<(), DatasetError> {
        if !self.store().delete_dataset(id)? {
            return Err(DatasetError::Unknown(id.clone()));
        }
        self.audit("dataset.deleted", json!({ "dataset": id })).map_err(|refusal| DatasetError::Audit(refusal.sentence))
    }

    /// All datasets as their owner sees them, oldest first.
    pub fn dataset_rows(&self, stop: &AtomicBool) -> Result<Vec<DatasetRow>, DatasetError> {
        Ok(self.store().datasets()?.iter().map(|dataset| row(dataset, stop)).collect())
    }

    pub fn dataset_detail(&self, id: &DatasetId, stop: &AtomicBool) -> Result<DatasetDetail, DatasetError> {
        Ok(detail(&self.find_dataset(id)?, stop))
    }

    fn find_dataset(&self, id: &DatasetId) -> Result<Dataset, DatasetError> {
        self.store().dataset(id)?.ok_or_else(|| DatasetError::Unknown(id.clone()))
    }

    /// Finds a conflict before a long scan; [`keep_dataset`](Self::keep_dataset) looks again in its transaction.
    fn check_tags(&self, tags: &Tags, own: Option<&DatasetId>) -> Result<(), DatasetError> {
        let others: Vec<Dataset> = self.store().datasets()?.into_iter().filter(|other| Some(&other.id) != own).collect();
        find_conflict(tags, &others)
    }

    fn keep_dataset(&self, event: &str, dataset: &Dataset, stop: &AtomicBool) -> Result<DatasetDetail, DatasetError> {
        let found = dataset.scan.rows;
        if !self.policy().has_enough_rows(found) {
            return Err(DatasetError::TooFewRows { found, minimum: self.config().minimum_samples });
        }
        self.store().save_dataset(dataset, |others| find_conflict(&dataset.description.tags, others))??;
        let description = &dataset.description;
        let facts = json!({
            "dataset": dataset.id, "name": description.name, "path": description.path, "tags": description.tags,
            "visible_to": dataset.visible_to,
        });
        self.audit(event, facts).map_err(|refusal| DatasetError::Audit(refusal.sentence))?;
        Ok(detail(dataset, stop))
    }
}

fn find_conflict(tags: &Tags, others: &[Dataset]) -> Result<(), DatasetError> {
    match others.iter().find(|other| other.description.tags.conflicts_with(tags)) {
        None => Ok(()),
        Some(other) => Err(DatasetError::TagConflict {
            new: tags.clone(),
            old: other.description.tags.clone(),
            name: other.description.name.clone(),
            id: other.id.clone(),
        }),
    }
}
