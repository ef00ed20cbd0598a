//! The hospital daemon: asks researchers for work, decides, computes, gives.
//!
//! The way of a task: [`agent`] pulls it and hands it over, [`policy`] says whether it may run here, [`participant`] says what
//! happens next, `executor` computes, `disclosure` says whether the result may leave. A node listens on no port: it dials
//! out, and local commands reach it by the Unix socket of its folder ([`command`]).

pub mod agent;
mod answer;
mod cohort;
pub mod command;
pub mod config;
pub mod daemon;
pub mod datasets;
mod disclosure;
mod enrolment;
mod exchange;
mod executor;
mod halt;
pub mod handle;
mod housekeeping;
mod ledger;
mod memory;
pub mod participant;
mod parties;
pub mod policy;
mod results;
mod secure;
mod spool;
pub mod store;
pub mod workshop;
