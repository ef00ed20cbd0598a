//! CSV and TSV files with a header line.
//!
//! One parser (`record`) and one reading of cells (`cell`) serve both the scan and the batches, so that what was accepted
//! is what is read.

mod batches;
mod cell;
mod delimiter;
mod distinct;
mod marks;
mod problem;
mod record;
mod scan;
mod source;

pub use batches::Batches;
pub use cell::MISSING_WORDS;
pub use delimiter::Delimiter;
pub(crate) use delimiter::delimiter_of;
pub use marks::Mark;
pub use problem::{CsvError, Problem, ProblemKind};
pub use record::MAX_RECORD;
pub use scan::{CsvScan, ScanOptions, scan};
pub(crate) use source::CsvSource;
