//! The audit log's reader.

use component::audit::{AuditError, AuditLog};
use protocol::Timestamp;

/// Reads bytes as a log, goes on with it, and reads it again: a line more hides nothing and breaks nothing.
pub fn check(bytes: &[u8]) {
    super::in_folder(|folder| {
        let path = folder.join("audit.jsonl");
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        let before = AuditLog::verify(&path);
        let entries = AuditLog::tail(&path, usize::MAX).expect("a file that is there can be read").len() as u64;
        if let Ok(lines) = before {
            assert_eq!(lines, entries, "each line of a whole log is an entry");
        }
        let log = AuditLog::open(&path).expect("any file can be gone on with");
        log.record(Timestamp::MAX, "task.accepted", serde_json::Map::new()).expect("a line can be added");
        let tail = AuditLog::tail(&path, 1).expect("a file that is there can be read");
        assert!(tail.len() == 1 && tail[0].event == "task.accepted", "the line that was added is the last");
        match (before, AuditLog::verify(&path)) {
            (Ok(lines), Ok(now)) => assert_eq!(now, lines + 1),
            (Err(AuditError::Torn { line }), Err(AuditError::Torn { line: now }))
            | (Err(AuditError::Broken { line }), Err(AuditError::Broken { line: now })) => assert_eq!(line, now),
            (before, now) => panic!("a line more made {now:?} of {before:?}"),
        }
    });
}
