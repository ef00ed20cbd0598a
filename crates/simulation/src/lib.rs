//! A whole federation in one process: a researcher and its nodes as they are, on folders of their own, over links in memory, in
//! virtual time, with faults.
//!
//! What is real: both daemons from their stores up to their links, SQLite, the spools, the audit logs, the computations, the
//! messages' wire form. What is not: sockets, TLS, threads and processes. A daemon is killed at an instant, at the n-th time
//! that it reads its clock, or on either side of its n-th commit; its tasks end there and only its folder is left. So a kill
//! can fall on any step that lets time pass, writes or speaks, but not into the middle of a file's write, and not between two
//! threads; the tests with real processes are there for that. Power is not lost: what a daemon wrote is there when it starts
//! again.
//!
//! Everything follows from one seed: [`schedule::Schedule::draw`] says what goes wrong when, [`world::World`] lets it happen, and
//! [`outcome`] says what came of it and what must never be. The same seed writes the same [`log::Log`].

pub mod life;
pub mod log;
mod mortal;
pub mod outcome;
mod person;
pub mod schedule;
pub mod template;
pub mod time;
pub mod world;
