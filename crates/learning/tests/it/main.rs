//! What the crate's parts do together, on the heart-disease data of four hospitals.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod hospitals;
mod validation;
