//! A whole federation in virtual time: whatever fails when, an experiment gives the bits of its undisturbed run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod experiments;
mod federation;
mod hospitals;
mod scenarios;
mod schedules;
