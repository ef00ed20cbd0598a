//! The researcher: it asks and aggregates.
//!
//! `experiment` is the file to read first: what happens next, as a value. `driver` is the loop around it, `service` what nodes
//! meet, `store` what lasts, `fold` how contributions become an aggregate.

pub mod artifact;
mod board;
pub mod command;
mod computation;
pub mod config;
mod control;
pub mod daemon;
mod desk;
mod driver;
pub mod experiment;
pub mod experiment_file;
pub mod files;
pub mod fold;
mod follower;
mod jobs;
pub mod negotiation;
mod port;
pub mod question;
mod rejections;
mod researcher;
mod results;
pub mod service;
mod sessions;
pub mod store;

pub use follower::Follower;
pub use researcher::{CommandError, DriverError, Parts, Researcher};
