//! Everything that the tests of all statistics share: the tables by site, what a pooled computation gives for them, and a federation
//! in memory that encodes and sums as the product does.

pub(crate) mod federation;
pub(crate) mod frame;
pub(crate) mod reference;
pub(crate) mod value;

pub(crate) use federation::{answer, split};
pub(crate) use frame::Frame;
pub(crate) use reference::{Worst, reference};
