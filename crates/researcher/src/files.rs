//! Where an experiment's files lie.

use std::path::{Path, PathBuf};

use component::folder::ComponentFolder;
use protocol::{BlobRef, ExperimentId, TaskId};

/// The folders of contributions and of experiments.
#[derive(Debug, Clone)]
pub struct Files {
    pub spool: PathBuf,
    pub experiments: PathBuf,
}

impl Files {
    pub fn of(folder: &ComponentFolder) -> Self {
        Self { spool: folder.spool(), experiments: folder.experiments() }
    }

    /// The spooled contribution to a task.
    pub fn contribution(&self, task: &TaskId) -> PathBuf {
        self.spool.join(task.as_str())
    }

    /// What an experiment leaves to people.
    pub fn experiment(&self, id: &ExperimentId) -> PathBuf {
        self.experiments.join(id.as_str())
    }

    /// The models between an experiment's rounds.
    pub fn models(&self, id: &ExperimentId) -> PathBuf {
        self.experiment(id).join("rounds")
    }

    pub fn model(&self, id: &ExperimentId, blob: BlobRef) -> PathBuf {
        model_in(&self.models(id), blob)
    }
}

/// The name of a model in its folder.
pub fn model_in(folder: &Path, blob: BlobRef) -> PathBuf {
    folder.join(format!("{}.safetensors", blob.digest))
}
