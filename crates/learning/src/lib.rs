//! Native models, their training on a node, validation, and federated averaging. Pure: no I/O, clock or entropy.
//!
//! On a node: [`Split`] → [`Table::from_columns`] → [`train`] → [`validate`] → [`training_contribution`]. At the researcher:
//! [`initial`] → [`training_layout`] → [`average`] and [`ValidationSums::from_vectors`]. Engines, optimizers and metrics are closed
//! sets, a file each. Statistics for standardisation are not here but in `analytics`.

mod checkpoint;
mod contribution;
mod engine;
mod fedavg;
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
pub use contribution::{
    LayoutError, Validations, check_layout, training_contribution, training_layout, validation_contribution,
    validation_layout, widen,
};
pub use fedavg::{AverageError, average, weighted_difference};
pub use metric::{Metrics, SumsError, Undefined, ValidationSums};
pub use optimizer::StateError;
pub use parameters::{Parameter, ParameterError, initial, parameters};
pub use predict::{PredictionError, Validated, scores, validate};
pub use split::{Split, SplitError};
pub use standardise::{Standardisation, StandardisationError};
pub use stream::Stream;
pub use table::{Table, TableError, TargetError, check_targets, has_one_class};
pub use training::{Assignment, Checkpoint, Trained, TrainingError, Watcher, rows_used, train, updates};
