//! Sources of a node's data, as Arrow batches.
//!
//! A [`Description`] says what a dataset file says. [`scan()`] reads the data once, in constant memory, and either lists what is
//! wrong with it, by line and column, or learns its [`Scan`]: columns and their kinds, rows, missing cells, fingerprint. With
//! that, [`open`] gives a [`Source`] whose batches stream, and [`Table::load`] gathers the columns of a plan for training.
//! Each use asks [`Scan::compare`] first whether the data is still what was registered.
//!
//! No file makes this crate panic. Every decoder takes any `impl Read`: [`csv::scan`], [`csv::Batches`],
//! [`idx::check`], [`Description::from_json`]. The environment, the clock and the network are not read here.

pub mod csv;
mod description;
mod error;
mod fingerprint;
pub mod idx;
mod mnist;
mod scan;
mod schema;
mod source;
mod table;

pub use description::{CsvParameters, Description, DescriptionError, Parameters, Place, RawDescription};
pub use error::{DataError, refusal};
pub use fingerprint::{Comparison, Depth, FileFingerprint, Fingerprint, Stamp};
pub use scan::{Layout, Scan, open, scan};
pub use schema::{Schema, face};
pub use source::{Batches, Source};
pub use table::{ColumnChoice, Split, Table};

/// The most columns that a dataset may have: as many as a plan may name, and few enough that all fit into one message.
pub const MAX_COLUMNS: usize = protocol::MAX_FEATURES;

/// The name among `valid` that is most like `found`, if one is like it at all: at most one edit in three characters.
pub(crate) fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let found = found.to_lowercase();
    let bound = (found.chars().count() / 3).max(1);
    valid
        .into_iter()
        .map(|name| (strsim::osa_distance(&found, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// The end of a message that suggests a name.
pub(crate) fn suggestion(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}
