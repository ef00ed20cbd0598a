//! Native models, their training on a node, and validation. Pure: no I/O, clock or entropy.
//!
//! On a node: [`Split`] → [`Table::from_columns`] → [`train`] → [`validate`]. At the researcher: [`initial`] →
//! [`training_layout`] → [`ValidationSums::from_vectors`]. Engines, optimizers and metrics are closed sets, a file each. Not here:
//! statistics for standardisation, which `analytics` has, and the average of what nodes trained, which the researcher makes of
//! sums.

mod checkpoint;
mod engine;
mod layout;
mod linear;
pub mod metric;
mod network;
mod optimizer;
mod parameters;
mod predict;
mod scalar;
mod split;
mod standardise;
mod stream;
mod table;
mod training;

pub use checkpoint::CheckpointError;
pub use layout::{LayoutError, check_layout, training_layout, validation_layout};
pub use metric::{Metrics, SumsError, Undefined, ValidationSums};
pub use optimizer::StateError;
pub use parameters::{Parameter, ParameterError, initial, parameters};
pub use predict::{PredictionError, Validated, scores, validate};
pub use split::{Split, SplitError};
pub use standardise::{Standardisation, StandardisationError};
pub use stream::Stream;
pub use table::{Table, TableError, TargetError, check_targets, has_one_class};
pub use training::{Assignment, Checkpoint, Trained, TrainingError, Watcher, rows_used, train, updates};
