//! What travels and is stored as JSON.

use protocol::{DatasetFace, ExperimentSpec, NodeMessage, Report, ResearcherMessage, Task};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads JSON as each document there is.
pub fn check(json: &[u8]) {
    if let Some(task) = check_document::<Task>(json) {
        let again: Task = serde_json::from_slice(&task.signed_bytes()[b"fedbiomed task v1\0".len()..])
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.signed_bytes(), task.signed_bytes(), "a signature holds on the other side");
        if let Some(bytes) = protocol::layout_byte_len(&task.layout) {
            assert!(task.layout.iter().all(|spec| spec.byte_len().is_some_and(|len| len as u64 <= bytes)));
        }
    }
    if let Some(spec) = check_document::<ExperimentSpec>(json) {
        assert!((1..=1_000_000).contains(&spec.rounds()) && !spec.name().is_empty());
    }
    check_document::<DatasetFace>(json);
    check_document::<Report>(json);
    check_document::<NodeMessage>(json);
    check_document::<ResearcherMessage>(json);
}

/// What was understood is written, and understood as the same.
fn check_document<T: Serialize + DeserializeOwned + PartialEq>(json: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(json).ok()?;
    let written = serde_json::to_vec(&value).expect("a document can be written");
    let read: T = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{error}"));
    assert!(read == value, "a document that was written reads back as it was");
    Some(value)
}
