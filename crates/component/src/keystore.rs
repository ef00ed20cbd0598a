//! The one way to a component's secrets: files of mode 0600 in a folder of mode 0700. A passphrase or the system's
//! credential store can come behind the same calls.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::folder::write_atomically;

/// A secret text. It does not print, does not compare, and is wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum KeyStoreError {
    #[error("the key {0:?} is missing")]
    Missing(String),
    #[error("the key file {0} can be read by others; run `chmod 600` on it")]
    Permissions(PathBuf),
    #[error("cannot use the key file {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Secrets by name.
#[derive(Debug, Clone)]
pub struct KeyStore {
    folder: PathBuf,
}

impl KeyStore {
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The names of all secrets, in order.
    pub fn names(&self) -> Result<Vec<String>, KeyStoreError> {
        let failed = |source| KeyStoreError::Io { path: self.folder.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    pub fn read(&self, name: &str) -> Result<Secret, KeyStoreError> {
        let path = self.path(name);
        let failed = |source| KeyStoreError::Io { path: path.clone(), source };
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyStoreError::Missing(name.to_owned())),
            other => other.map_err(failed)?,
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyStoreError::Permissions(path));
        }
        fs::read_to_string(&path).map(Secret).map_err(|source| KeyStoreError::Io { path, source })
    }

    pub fn write(&self, name: &str, secret: &Secret) -> Result<(), KeyStoreError> {
        let path = self.path(name);
        write_atomically(&path, secret.0.as_bytes()).map_err(|source| KeyStoreError::Io { path, source })
    }

    pub fn remove(&self, name: &str) -> Result<(), KeyStoreError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KeyStoreError::Io { path, source: error }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::new(dir.path());
        store.write("identity.key", &Secret::new("s".into())).unwrap();
        assert_eq!(store.read("identity.key").unwrap().expose(), "s");
        fs::set_permissions(dir.path().join("identity.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(store.read("identity.key"), Err(KeyStoreError::Permissions(_))));
        assert!(matches!(store.read("other.key"), Err(KeyStoreError::Missing(_))));
    }
}
