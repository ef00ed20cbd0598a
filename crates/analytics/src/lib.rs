//! Federated statistics, one per file. Each answers what a node contributes, and what the researcher asks next or is done with.
//! Pure: no I/O, clock or entropy.

pub mod analysis;
pub mod anova;
pub mod combat;
pub mod correlation;
pub mod count;
pub mod cox;
pub mod describe;
pub mod distributions;
pub mod estimate;
pub mod glm;
pub mod meta;
pub mod moments;
pub mod pca;
pub mod question;
pub mod schema;
pub mod sum;
pub mod suppress;
pub mod survey;
pub mod survival;
pub mod table;
pub mod ttest;

mod design;
mod eigen;
mod fit;
mod grouped;
mod linear;
mod newton;
mod products;
mod times;
