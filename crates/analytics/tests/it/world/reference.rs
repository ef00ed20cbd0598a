//! What a pooled computation gives.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

/// A part of the reference, named by its keys as JSON pointers have them: `/heart/logit/coef`.
pub(crate) fn reference(pointer: &str) -> &'static Value {
    static REFERENCE: OnceLock<Value> = OnceLock::new();
    let read = || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/reference.json");
        serde_json::from_str(&std::fs::read_to_string(path).expect("the reference")).expect("JSON")
    };
    REFERENCE.get_or_init(read).pointer(pointer).unwrap_or_else(|| panic!("the reference has no {pointer}"))
}

/// The largest error seen in a test, and a check of each.
#[derive(Debug)]
pub(crate) struct Worst {
    of: String,
    relative: f64,
    error: f64,
    what: String,
}

impl Worst {
    /// For errors of at most `relative`.
    pub(crate) fn new(of: &str, relative: f64) -> Self {
        Self { of: of.to_owned(), relative, error: 0.0, what: String::new() }
    }

    /// Compares with what is expected, relative to it.
    pub(crate) fn check(&mut self, what: &str, found: f64, expected: f64) {
        self.check_to_scale(what, found, expected, expected.abs());
    }

    /// Compares with what is expected, relative to `scale` where that is larger.
    pub(crate) fn check_to_scale(&mut self, what: &str, found: f64, expected: f64, scale: f64) {
        if found.to_bits() == expected.to_bits() || found == expected {
            return;
        }
        let error = (found - expected).abs() / scale.max(expected.abs());
        assert!(error <= self.relative, "{} {what}: found {found:e}, expected {expected:e}, error {error:e}", self.of);
        if error > self.error {
            self.error = error;
            what.clone_into(&mut self.what);
        }
    }
}

impl Drop for Worst {
    #[expect(clippy::print_stdout, reason = "shown if a test fails, or on demand")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            println!("worst relative error of {}: {:.1e} ({})", self.of, self.error, self.what);
        }
    }
}

/// The numbers of a list.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|value| value.as_str().expect("a text")).collect()
}
