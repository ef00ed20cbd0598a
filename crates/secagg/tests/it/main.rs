//! Whole sessions of masked sums in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod documentation;
mod dropouts;
mod encryption;
mod hostile;
mod reference;
mod refusals;
mod rounds;
mod sessions;
mod world;
