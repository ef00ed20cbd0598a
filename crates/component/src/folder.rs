//! A component's folder: everything a researcher or a node keeps.
//!
//! ```text
//! .fedbiomed            NODE or RESEARCHER, and the format of the folder; the database counts its schemas itself
//! etc/config.toml       configuration
//! etc/keys/             secrets, 0600 (see keystore)
//! var/store.sqlite      the database
//! var/spool/            blobs on their way
//! var/experiments/      artefacts (researcher) and node state (node), one folder each
//! var/lock              who runs here
//! log/audit.jsonl       audit log
//! log/application.log   for people
//! data/                 default place of data (node)
//! control.sock          local commands, while the daemon runs
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// The format of a folder's files other than the database: what they are called and hold. A folder without a number has the first.
const FORMAT: u32 = 1;

/// What a folder belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Node,
    Researcher,
}

impl Kind {
    fn marker(self) -> &'static str {
        match self {
            Self::Node => "NODE",
            Self::Researcher => "RESEARCHER",
        }
    }
}

/// Why a folder cannot be used. Every message names the folder and says what to do.
#[derive(Debug, Error)]
pub enum FolderError {
    #[error("{0} is not a component folder; make one with `fedbiomed component create`")]
    NotAComponent(PathBuf),
    #[error("{path} belongs to a {found}, not to a {expected}")]
    OtherKind { path: PathBuf, expected: &'static str, found: String },
    #[error("{path} was written by a newer version (format {found}, this build knows {known}); update this software")]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{0} is a component folder already; use --exist-ok to keep it as it is")]
    Exists(PathBuf),
    #[error("{0} is not empty; choose an empty or a new folder")]
    NotEmpty(PathBuf),
    #[error("{path} is in use by process {holder}; stop that one first")]
    InUse { path: PathBuf, holder: String },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

/// A component's folder that exists and is of the expected kind.
#[derive(Debug, Clone)]
pub struct ComponentFolder {
    root: PathBuf,
    kind: Kind,
}

/// Keeps other daemons off a folder; released when dropped or when the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl ComponentFolder {
    /// Makes the folder with its sub-folders (0700). An existing component is kept if `exist_ok`.
    pub fn create(root: &Path, kind: Kind, exist_ok: bool) -> Result<Self, FolderError> {
        if root.join(".fedbiomed").exists() {
            let folder = Self::open(root, kind)?;
            return if exist_ok { Ok(folder) } else { Err(FolderError::Exists(root.to_owned())) };
        }
        make_folder(root)?;
        let is_foreign =
            |entry: &io::Result<fs::DirEntry>| entry.as_ref().is_ok_and(|entry| entry.file_name() != ".gitkeep");
        if fs::read_dir(root).map_err(at(root))?.any(|entry| is_foreign(&entry)) {
            return Err(FolderError::NotEmpty(root.to_owned()));
        }
        for sub in ["etc", "etc/keys", "var", "var/spool", "var/experiments", "log", "data"] {
            make_folder(&root.join(sub))?;
        }
        // The marker comes last: a folder without it is not a component.
        write_atomically(&root.join(".fedbiomed"), format!("{} {FORMAT}\n", kind.marker()).as_bytes()).map_err(at(root))?;
        Self::open(root, kind)
    }

    /// Opens an existing component's folder.
    pub fn open(root: &Path, kind: Kind) -> Result<Self, FolderError> {
        let text = match fs::read_to_string(root.join(".fedbiomed")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::NotAComponent(root.to_owned()));
            }
            Err(error) => return Err(at(root)(error)),
        };
        let (found, format) = text.trim().split_once(' ').unwrap_or((text.trim(), "1"));
        if found != kind.marker() {
            let found = found.to_owned();
            return Err(FolderError::OtherKind { path: root.to_owned(), expected: kind.marker(), found });
        }
        let found = format.parse().unwrap_or(u32::MAX);
        if found > FORMAT {
            return Err(FolderError::Newer { path: root.to_owned(), found, known: FORMAT });
        }
        Ok(Self { root: root.canonicalize().map_err(at(root))?, kind })
    }

    /// Says of which kind the component in a folder is.
    pub fn kind_of(root: &Path) -> Result<Kind, FolderError> {
        Self::open(root, Kind::Node).map(|folder| folder.kind).or_else(|error| match error {
            FolderError::OtherKind { .. } => Self::open(root, Kind::Researcher).map(|folder| folder.kind),
            error => Err(error),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn config_file(&self) -> PathBuf {
        self.root.join("etc/config.toml")
    }

    pub fn keys(&self) -> PathBuf {
        self.root.join("etc/keys")
    }

    pub fn database_file(&self) -> PathBuf {
        self.root.join("var/store.sqlite")
    }

    pub fn spool(&self) -> PathBuf {
        self.root.join("var/spool")
    }

    pub fn experiments(&self) -> PathBuf {
        self.root.join("var/experiments")
    }

    pub fn audit_file(&self) -> PathBuf {
        self.root.join("log/audit.jsonl")
    }

    pub fn application_log(&self) -> PathBuf {
        self.root.join("log/application.log")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// Takes the folder for this process. A second one is refused and told who holds it.
    pub fn lock(&self) -> Result<FolderLock, FolderError> {
        let path = self.root.join("var/lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(at(&path))?;
            return Err(FolderError::InUse { path: self.root.clone(), holder: holder.trim().to_owned() });
        }
        file.set_len(0).map_err(at(&path))?;
        file.rewind().map_err(at(&path))?;
        writeln!(file, "{}", std::process::id()).map_err(at(&path))?;
        Ok(FolderLock { _file: file })
    }

    /// Takes the folder for a daemon. Commands hold it for a moment only, so a holder that stays is another daemon.
    pub async fn lock_for_daemon(&self) -> Result<FolderLock, FolderError> {
        for _ in 0..100 {
            match self.lock() {
                Err(FolderError::InUse { .. }) if !self.control_socket_answers().await => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
        self.lock()
    }

    async fn control_socket_answers(&self) -> bool {
        transport::socket::connect_local(&self.control_socket()).await.is_ok()
    }

    /// The process that holds the folder, if any.
    pub fn holder(&self) -> Result<Option<u32>, FolderError> {
        match self.lock() {
            Ok(_) => Ok(None),
            Err(FolderError::InUse { holder, .. }) => Ok(holder.parse().ok()),
            Err(error) => Err(error),
        }
    }
}

fn make_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Writes a file (0600) so that after a crash either the old or the new content is there, whole.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_newer_format_is_refused_and_one_without_a_number_has_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("node");
        ComponentFolder::create(&root, Kind::Node, false).unwrap();
        assert_eq!(fs::read_to_string(root.join(".fedbiomed")).unwrap(), "NODE 1\n");
        fs::write(root.join(".fedbiomed"), "NODE").unwrap();
        ComponentFolder::open(&root, Kind::Node).unwrap();
        fs::write(root.join(".fedbiomed"), "NODE 2\n").unwrap();
        let refused = ComponentFolder::open(&root, Kind::Node).unwrap_err();
        assert!(matches!(refused, FolderError::Newer { found: 2, known: 1, .. }), "{refused}");
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = ComponentFolder::create(&dir.path().join("n"), Kind::Node, false).unwrap();
        let lock = folder.lock().unwrap();
        let holder = std::process::id().to_string();
        assert!(matches!(folder.lock(), Err(FolderError::InUse { holder: found, .. }) if found == holder));
        drop(lock);
        assert_eq!(folder.holder().unwrap(), None);
    }

    #[test]
    fn an_existing_component_is_kept_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        ComponentFolder::create(&root, Kind::Researcher, false).unwrap();
        assert!(matches!(ComponentFolder::create(&root, Kind::Researcher, false), Err(FolderError::Exists(_))));
        assert!(ComponentFolder::create(&root, Kind::Researcher, true).is_ok());
        assert!(matches!(ComponentFolder::create(&root, Kind::Node, true), Err(FolderError::OtherKind { .. })));
        assert_eq!(ComponentFolder::kind_of(&root).unwrap(), Kind::Researcher);
    }

    #[test]
    fn a_folder_with_other_files_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(ComponentFolder::create(dir.path(), Kind::Node, true), Err(FolderError::NotEmpty(_))));
    }
}
