//! Experiment files.

use protocol::ExperimentSpec;

/// Reads an experiment file. A complaint names a place in it; an experiment travels as it is.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match researcher::experiment_file::parse(text) {
        Ok(spec) => {
            let json = serde_json::to_vec(&spec).expect("an experiment can be written");
            let read: ExperimentSpec = serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read, spec);
        }
        Err(error) => {
            let _ = error.to_string();
            if let Some(position) = &error.position {
                assert!((1..=text.lines().count() + 1).contains(&position.line));
                assert!(position.column >= 1 && position.column <= position.text.chars().count() + 1);
                assert!(position.width >= 1);
            }
        }
    }
}
