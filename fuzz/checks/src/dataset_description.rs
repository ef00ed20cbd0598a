//! Dataset files, Fed-BioMed's among them.

use std::path::Path;

use data::{Description, Place};

/// Reads a dataset file. What was read is stored and read again as the same.
pub fn check(bytes: &[u8]) {
    let lookup = |name: &str| (name == "DATA").then(|| "/srv/data".to_owned());
    match Description::from_json(bytes, Place { root: Path::new("/srv/node"), lookup: &lookup }) {
        Ok(description) => {
            assert!((1..=128).contains(&description.name.chars().count()));
            assert!(description.path.is_absolute());
            let stored = serde_json::to_vec(&description).expect("a description can be written");
            let read: Description = serde_json::from_slice(&stored).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read, description);
        }
        Err(error) => drop(error.to_string()),
    }
}
