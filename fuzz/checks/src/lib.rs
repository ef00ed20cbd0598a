//! One check for each decoder: given any bytes it returns. A broken promise is a panic; too much memory or time is what the
//! fuzzer sees. The decoders that `transport` keeps to itself have their checks in `transport::fuzzing`.

pub mod audit_log;
pub mod certificates;
pub mod configuration;
pub mod contribution;
pub mod control_lines;
pub mod csv;
pub mod dataset_description;
pub mod documents;
pub mod experiment_file;
pub mod expression;
pub mod idx;
pub mod model;
pub mod secagg_ciphertexts;
pub mod secagg_messages;
pub mod secagg_states;
pub mod tensors;
pub mod words;

use std::cell::RefCell;
use std::path::Path;

use tempfile::TempDir;

/// A check of one decoder.
pub type Check = fn(&[u8]);

/// Every check of this crate, by the name of its fuzz target and its corpus.
pub const CHECKS: [(&str, Check); 18] = [
    ("audit_log", audit_log::check),
    ("certificates", certificates::check),
    ("configuration", configuration::check),
    ("contribution", contribution::check),
    ("control_lines", control_lines::check),
    ("csv", csv::check),
    ("dataset_description", dataset_description::check),
    ("documents", documents::check),
    ("experiment_file", experiment_file::check),
    ("expression", expression::check),
    ("formula", expression::check_formula),
    ("idx", idx::check),
    ("model", model::check),
    ("secagg_ciphertexts", secagg_ciphertexts::check),
    ("secagg_messages", secagg_messages::check),
    ("secagg_states", secagg_states::check),
    ("tensors", tensors::check),
    ("words", words::check),
];

/// Gives a folder that lasts as long as the thread: making one for each input would be most of the work.
fn in_folder<T>(work: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a temporary folder can be made"));
        work(folder.path())
    })
}

/// Takes two bytes as a length, and splits what follows there.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}
