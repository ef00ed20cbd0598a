//! What both daemons are: a folder, a lock on it, a configuration with sources, keys, an audit log, a database file, threads
//! for work, and the local socket by which commands reach a running daemon.

pub mod audit;
pub mod blocking;
pub mod config;
pub mod control;
pub mod database;
pub mod folder;
pub mod keystore;
pub mod parties;
pub mod user;
