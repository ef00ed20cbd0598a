//! The audit log: append-only JSON lines, each holding the BLAKE3 hash of the line before, so that a line that was changed,
//! removed or put in between shows. Cutting the end off does not show; an operator who fears that copies the log away.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use protocol::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Why the log cannot be written or is not whole.
#[derive(Debug, Error)]
pub enum AuditError {
    #[error("cannot use the audit log {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("line {line} of the audit log was changed, or the line before it")]
    Broken { line: u64 },
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub time: String,
    /// What happened, as `noun.verb`.
    pub event: String,
    /// Who and what: ids, names, codes; never a data value.
    pub facts: Map<String, Value>,
    /// Hash of the line before, without its line end; zeros in the first line.
    pub before: Digest,
}

/// An open audit log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    state: Mutex<(File, Digest)>,
}

fn first() -> Digest {
    Digest::from_bytes([0; 32])
}

impl AuditLog {
    /// Opens or creates the log (0600) and goes on after its last line.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        let last = last_line(&mut file).map_err(failed)?;
        if !last.1 {
            // A line that a crash or a full disk cut short stays as it is, for the reader to see.
            file.write_all(b"\n").map_err(failed)?;
        }
        let before = last.0.map_or_else(first, |line| Digest::of(&line));
        Ok(Self { path: path.to_owned(), state: Mutex::new((file, before)) })
    }

    /// Appends a line.
    pub fn record(&self, now: Timestamp, event: &str, facts: Map<String, Value>) -> Result<(), AuditError> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = Entry { time: now.to_string(), event: event.to_owned(), facts, before: state.1 };
        let mut line =
            serde_json::to_vec(&entry).map_err(|error| AuditError::Io { path: self.path.clone(), source: error.into() })?;
        let digest = Digest::of(&line);
        line.push(b'\n');
        state.0.write_all(&line).map_err(|source| AuditError::Io { path: self.path.clone(), source })?;
        state.1 = digest;
        Ok(())
    }

    /// Checks the chain; returns the number of lines.
    pub fn verify(path: &Path) -> Result<u64, AuditError> {
        let mut lines = 0;
        let mut before = first();
        Self::read(path, |line, entry| {
            lines += 1;
            let Some(entry) = entry.filter(|entry| entry.before == before) else {
                return Err(AuditError::Broken { line: lines });
            };
            drop(entry);
            before = Digest::of(line);
            Ok(())
        })?;
        Ok(lines)
    }

    /// The last entries, oldest first.
    pub fn tail(path: &Path, count: usize) -> Result<Vec<Entry>, AuditError> {
        let mut entries = std::collections::VecDeque::new();
        Self::read(path, |_, entry| {
            entries.extend(entry);
            if entries.len() > count {
                entries.pop_front();
            }
            Ok(())
        })?;
        Ok(entries.into())
    }

    fn read(path: &Path, mut each: impl FnMut(&[u8], Option<Entry>) -> Result<(), AuditError>) -> Result<(), AuditError> {
        let failed = |source| AuditError::Io { path: path.to_owned(), source };
        let mut reader = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            each(text, serde_json::from_slice(text).ok())?;
        }
    }
}

/// The last line without its end, and whether the file ends with a line end (true for an empty file).
fn last_line(file: &mut File) -> io::Result<(Option<Vec<u8>>, bool)> {
    let len = file.metadata()?.len();
    if len == 0 {
        return Ok((None, true));
    }
    let mut window = 1 << 12;
    loop {
        let start = len.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let ended = bytes.last() == Some(&b'\n');
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        match text.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => return Ok((Some(text[at + 1..].to_vec()), ended)),
            None if start == 0 => return Ok((Some(text.to_vec()), ended)),
            None => window *= 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(lines: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for line in 0..lines {
            // Opened anew for each line, as a daemon that restarts does.
            let log = AuditLog::open(&path).unwrap();
            log.record(Timestamp::from_millis(line), "task.accepted", Map::from_iter([("line".into(), line.into())]))
                .unwrap();
        }
        (dir, path)
    }

    #[test]
    fn a_whole_log_verifies() {
        let (_dir, path) = log_of(5);
        assert_eq!(AuditLog::verify(&path).unwrap(), 5);
        assert_eq!(AuditLog::tail(&path, 2).unwrap().len(), 2);
    }

    #[test]
    fn a_changed_a_removed_and_a_moved_line_show() {
        let (_dir, path) = log_of(5);
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let changed = whole.replace("\"line\":2", "\"line\":9");
        let removed = [&lines[..1], &lines[2..]].concat().join("\n");
        let moved = [lines[0], lines[2], lines[1], lines[3], lines[4]].join("\n");
        for (text, line) in [(changed, 4), (removed, 2), (moved, 2)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(AuditLog::verify(&path), Err(AuditError::Broken { line: found }) if found == line));
        }
    }

    #[test]
    fn a_torn_last_line_is_kept_and_shows() {
        let (_dir, path) = log_of(2);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 10);
        std::fs::write(&path, bytes).unwrap();
        AuditLog::open(&path).unwrap().record(Timestamp::from_millis(9), "node.started", Map::new()).unwrap();
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Broken { line: 2 })));
    }
}
