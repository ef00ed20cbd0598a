//! Federated statistics, one per file. Each answers what a node contributes, and what the researcher asks next or is done with.
//! Pure: no I/O, clock or entropy.

pub mod moments;

mod sum;
