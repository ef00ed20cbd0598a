//! Federated statistics compared with what a pooled computation gives, on real tables by their sites.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod combat;
mod comparison;
mod cox;
mod describe;
mod glm;
mod meta;
mod products;
mod question;
mod sensitivity;
mod survey;
mod survival;
mod table;
mod world;
