//! The crate from outside, on files in temporary folders.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod csv_scan;
mod datasets;
mod dicom;
mod fhir;
mod fingerprint;
mod images;
mod loading;
mod medical_folder;
mod mnist;
mod nifti;
mod omop;
mod parquet;
mod parts;
mod postgres;
mod refusal;
mod snapshot;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data::{CsvParameters, DataError, Description, Parameters, Place, RawDescription, Scan};
use protocol::Tags;

/// Nobody stops the reading.
static GO_ON: AtomicBool = AtomicBool::new(false);

/// A folder that goes when the test ends.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn describe(path: &Path, parameters: Parameters) -> Description {
    let raw = RawDescription {
        name: "test".to_owned(),
        path: path.to_str().unwrap().to_owned(),
        tags: Tags::new(["t"]).unwrap(),
        description: String::new(),
        parameters,
    };
    Description::new(raw, Place { root: Path::new("/"), lookup: &|_| None }).unwrap()
}

fn describe_csv(path: &Path) -> Description {
    describe(path, Parameters::Csv(CsvParameters::default()))
}

/// Scans a CSV file of this content.
fn scan_csv(content: impl AsRef<[u8]>) -> Result<Scan, DataError> {
    let folder = Folder::new();
    data::scan(&describe_csv(&folder.write("table.csv", content)), None, &GO_ON)
}
