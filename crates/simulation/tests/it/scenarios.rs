//! One thing that goes wrong at a time, and what is said about it.

mod failures;
mod hidden;
mod hospital;
mod kills;
mod timing;
mod transfer;
