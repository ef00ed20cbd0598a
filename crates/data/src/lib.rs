//! Sources of a node's data, as Arrow batches.
//!
//! A [`Description`] says what a dataset file says. [`scan()`] reads the data once, in constant memory, and either lists what is
//! wrong with it, by line and column, or learns its [`Scan`]: columns and their kinds, rows, missing cells, fingerprint. With
//! that, [`open`] gives a [`Source`] whose batches stream, and [`Table::load`] gathers the columns of a plan for training.
//! Each use asks [`Scan::compare`] first whether the data is still what was registered.
//!
//! Pictures, volumes, FHIR resources and OMOP cohorts are tables too; [`thumbnails`] and [`lacking`] show what a table cannot.
//! A database is read by [`postgres::Database`], through streams that its caller connects. [`Loaded`] takes the steps of a
//! loading plan on any source.
//!
//! No file makes this crate panic. Every decoder takes any `impl Read`: [`csv::scan`], [`csv::Batches`],
//! [`idx::check`], [`Description::from_json`]. The environment, the clock and the network are not read here.

pub mod csv;
mod dataset_file;
mod description;
pub mod dicom;
mod error;
mod evaluate;
mod exclusion;
pub mod fhir;
mod files;
mod fingerprint;
pub mod idx;
mod image_folder;
mod inputs;
mod learn;
mod levels;
mod loading;
mod medical_folder;
mod mnist;
pub mod nifti;
pub mod omop;
mod parallel;
mod parquet;
pub mod picture;
pub mod postgres;
mod scan;
mod schema;
pub mod snapshot;
mod source;
pub mod sql;
mod table;
pub mod volume;

pub use dataset_file::DatasetFile;
pub use description::{CsvParameters, Description, DescriptionError, Parameters, Place, RawDescription};
pub use error::{DataError, refusal};
pub use exclusion::Excluding;
pub use fingerprint::{Comparison, Depth, FileFingerprint, Fingerprint, Stamp};
pub use image_folder::ImageParameters;
pub use inputs::Inputs;
pub use levels::{LevelCount, MAX_LEVELS};
pub use loading::{Constant, Loaded, LoadingError, LoadingPlan, LoadingStep, MAX_STEPS, Others};
pub use medical_folder::{Lacking, MedicalFolderParameters, Subjects};
pub use parallel::{Effort, Folding, fold};
pub use scan::{Layout, Scan, lacking, open, scan, thumbnails};
pub use schema::{Schema, face};
pub use source::{Batches, Source};
pub use table::{ColumnChoice, Split, Table};

/// The most columns that a dataset may have: as many as a plan may name, and few enough that all fit into one message.
pub const MAX_COLUMNS: usize = protocol::MAX_FEATURES;

/// The name among `valid` that is most like `found`, if one is like it at all: at most one edit in three characters.
pub(crate) fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let found = found.to_lowercase();
    let length = found.chars().count();
    let bound = (length / 3).max(1);
    valid
        .into_iter()
        .map(|name| (name.to_lowercase(), name))
        // Each edit changes the length by one at most; so a name of any length is answered at once.
        .filter(|(lower, _)| lower.chars().count().abs_diff(length) <= bound)
        .map(|(lower, name)| (strsim::osa_distance(&found, &lower), name))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// The end of a message that suggests a name.
pub(crate) fn suggestion(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_answered_at_once() {
        let names: Vec<String> = (0..MAX_COLUMNS).map(|column| format!("column_{column}")).collect();
        let names = || names.iter().map(String::as_str);
        assert_eq!(nearest(&"column".repeat(100_000), names()), None);
        assert_eq!(nearest("Colum_77", names()).as_deref(), Some("column_77"));
    }
}
