//! How many rows there are: whether a study is feasible.

use serde::{Deserialize, Serialize};

/// The number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {}
