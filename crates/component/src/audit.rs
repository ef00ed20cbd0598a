//! The audit log: append-only JSON lines, each holding the BLAKE3 hash of the line before, so that a line that was changed,
//! removed or put in between shows. Lines cut off the end show if the daemon ran meanwhile and writes on; otherwise they do not:
//! an operator who fears that copies the log away.

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
    /// The line after it vouches for the fragment and for the line before.
    #[error(
        "line {line} of the audit log was cut short when it was written, by a crash or a full disk; the others are whole"
    )]
    Torn { line: u64 },
}

/// What a line holds, and what it means.
const SCHEMA: u32 = 1;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Absent in the first lines that were ever written.
    #[serde(default = "first_schema")]
    pub schema: u32,
    pub time: String,
    /// What happened, as `noun.verb`.
    pub event: String,
    /// Who and what: ids, names, codes; never a data value.
    pub facts: Map<String, Value>,
    /// Hash of the line before, with the fragments between, without its line end; zeros in the first line.
    pub before: Digest,
}

fn first_schema() -> u32 {
    1
}

/// An open audit log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    before: Digest,
    /// A write failed: how the file ends now has to be looked up.
    is_torn: bool,
}

impl AuditLog {
    /// Opens or creates the log (0600) and goes on after its last line.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        let before = go_on(&mut file).map_err(failed)?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { file, before, is_torn: false }) })
    }

    /// Appends a line.
    pub fn record(&self, now: Timestamp, event: &str, facts: Map<String, Value>) -> Result<(), AuditError> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let failed = |source| AuditError::Io { path: self.path.clone(), source };
        if state.is_torn {
            state.before = go_on(&mut state.file).map_err(failed)?;
            state.is_torn = false;
        }
        let entry = Entry { schema: SCHEMA, time: now.to_string(), event: event.to_owned(), facts, before: state.before };
        let mut line = serde_json::to_vec(&entry).map_err(|error| failed(error.into()))?;
        let digest = Digest::of(&line);
        line.push(b'\n');
        let len = state.file.metadata().map_err(failed)?.len();
        if let Err(error) = state.file.write_all(&line) {
            // Part of the line may be there. If it cannot be taken back, the next line begins after it.
            state.is_torn = true;
            let _ = state.file.set_len(len);
            return Err(failed(error));
        }
        state.before = digest;
        Ok(())
    }

    /// Checks the chain; returns the number of lines.
    pub fn verify(path: &Path) -> Result<u64, AuditError> {
        let mut lines = 0;
        let mut block = Vec::new();
        // The first line of the present block that is a fragment, and the first of all.
        let (mut fragment, mut torn) = (None, None);
        Self::read(path, |line, entry| {
            lines += 1;
            match entry {
                Some(entry) if entry.before == digest_of(&block) => {
                    fragment = None;
                    block.clear();
                }
                Some(_) => return Err(AuditError::Broken { line: fragment.unwrap_or(lines) }),
                None => {
                    fragment = fragment.or(Some(lines));
                    torn = torn.or(fragment);
                    block.push(b'\n');
                }
            }
            block.extend_from_slice(line);
            Ok(())
        })?;
        torn.map_or(Ok(lines), |line| Err(AuditError::Torn { line }))
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

/// Ends the last line if it has no end; returns what the next line holds as the hash of the line before. A line that a crash or
/// a full disk cut short stays as it is, for the reader to see.
fn go_on(file: &mut File) -> io::Result<Digest> {
    let (block, is_ended) = last_block(file)?;
    if !is_ended {
        file.write_all(b"\n")?;
    }
    Ok(digest_of(&block))
}

/// The hash of a block: a line with the fragments after it, without the last line end. A fragment does not say what was before
/// it, so the next line vouches for both.
fn digest_of(block: &[u8]) -> Digest {
    if block.is_empty() { Digest::from_bytes([0; 32]) } else { Digest::of(block) }
}

/// The last block, and whether the file ends with a line end (true for an empty file).
fn last_block(file: &mut File) -> io::Result<(Vec<u8>, bool)> {
    let len = file.metadata()?.len();
    let mut window = 1 << 12;
    loop {
        let start = len.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let is_ended = bytes.last().is_none_or(|byte| *byte == b'\n');
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let mut end = text.len();
        while let Some(at) = text[..end].iter().rposition(|byte| *byte == b'\n') {
            if serde_json::from_slice::<Entry>(&text[at + 1..end]).is_ok() {
                return Ok((text[at + 1..].to_vec(), is_ended));
            }
            end = at;
        }
        if start == 0 {
            // As `verify` collects it: a fragment begins with the line end before it.
            let is_fragment = !text.is_empty() && serde_json::from_slice::<Entry>(&text[..end]).is_err();
            let before: &[u8] = if is_fragment { b"\n" } else { b"" };
            return Ok(([before, text].concat(), is_ended));
        }
        window *= 4;
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
    fn a_line_says_its_schema_and_one_without_has_the_first() {
        let (_dir, path) = log_of(1);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"schema\":1,"), "{text}");
        std::fs::write(&path, text.replace("\"schema\":1,", "")).unwrap();
        AuditLog::open(&path).unwrap().record(Timestamp::from_millis(9), "node.started", Map::new()).unwrap();
        assert_eq!(AuditLog::verify(&path).unwrap(), 2);
        assert_eq!(AuditLog::tail(&path, 2).unwrap()[0].schema, 1);
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
    fn lines_cut_off_the_end_show_only_once_the_running_daemon_writes_on() {
        let (_dir, path) = log_of(5);
        let log = AuditLog::open(&path).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let cut: String = whole.lines().take(3).flat_map(|line| [line, "\n"]).collect();
        std::fs::write(&path, &cut).unwrap();
        assert_eq!(AuditLog::verify(&path).unwrap(), 3, "what is left is a whole log of its own");
        log.record(Timestamp::from_millis(9), "node.stopped", Map::new()).unwrap();
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Broken { line: 4 })), "it vouches for what was cut off");
        // A daemon that starts after the cut takes the rest for the log.
        std::fs::write(&path, &cut).unwrap();
        AuditLog::open(&path).unwrap().record(Timestamp::from_millis(9), "node.started", Map::new()).unwrap();
        assert_eq!(AuditLog::verify(&path).unwrap(), 4);
        // A cut in mid-line shows.
        std::fs::write(&path, &cut[..cut.len() - 9]).unwrap();
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Torn { line: 3 })));
    }

    #[test]
    fn a_torn_last_line_is_kept_and_shows() {
        let (_dir, path) = log_of(2);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 10);
        std::fs::write(&path, bytes).unwrap();
        AuditLog::open(&path).unwrap().record(Timestamp::from_millis(9), "node.started", Map::new()).unwrap();
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Torn { line: 2 })));
        let changed = std::fs::read_to_string(&path).unwrap().replace("\"line\":0", "\"line\":7");
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Broken { line: 2 })), "a tear hides no change");
    }

    #[test]
    fn a_fragment_that_is_changed_afterwards_is_no_tear() {
        let (_dir, path) = log_of(3);
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        std::fs::write(&path, [lines[0], &lines[1][..20], lines[2]].join("\n")).unwrap();
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Broken { line: 2 })));
    }

    #[test]
    fn a_first_line_that_is_cut_short_shows() {
        let (_dir, path) = log_of(1);
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..30]).unwrap();
        for _ in 0..2 {
            AuditLog::open(&path).unwrap().record(Timestamp::from_millis(9), "node.started", Map::new()).unwrap();
        }
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Torn { line: 1 })));
    }

    #[test]
    fn the_line_after_a_failed_write_stands_alone() {
        let (_dir, path) = log_of(2);
        let log = AuditLog::open(&path).unwrap();
        let record = |event| log.record(Timestamp::from_millis(5), event, Map::new());
        // A handle that cannot be written to stands for a full disk; the fragment is what reached it.
        let full = std::mem::replace(&mut log.state.lock().unwrap().file, File::open(&path).unwrap());
        assert!(record("task.refused").is_err());
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"time\":\"19").unwrap();
        log.state.lock().unwrap().file = full;
        record("task.finished").unwrap();
        record("node.stopped").unwrap();
        assert_eq!(AuditLog::tail(&path, 9).unwrap().len(), 4);
        assert!(matches!(AuditLog::verify(&path), Err(AuditError::Torn { line: 3 })));
    }
}
