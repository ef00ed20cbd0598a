//! Folders of files, in an order that does not depend on the file system.

use std::path::{Path, PathBuf};

use crate::error::DataError;

/// The most entries of a dataset's folders together.
pub(crate) const MAX_FILES: usize = 1 << 20;
/// How deep folders are followed.
const MAX_DEPTH: usize = 8;

/// What is in a folder, sorted; names that begin with a dot or an underscore are not data.
pub(crate) fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in folder.read_dir().map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && !entry.file_name().as_encoded_bytes().starts_with(b"_")
        {
            entries.push(entry.path());
        }
        if entries.len() > MAX_FILES {
            return Err(DataError::TooManyFiles { path: folder.to_owned() });
        }
    }
    entries.sort();
    Ok(entries)
}

/// A folder and all below it, in order. Links are not followed, so that nothing outside is read and no circle is walked.
pub(crate) fn folders_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut folders = Vec::new();
    walk(folder, 0, &mut folders)?;
    Ok(folders)
}

fn walk(folder: &Path, depth: usize, folders: &mut Vec<PathBuf>) -> Result<(), DataError> {
    folders.push(folder.to_owned());
    if folders.len() > MAX_FILES || depth == MAX_DEPTH {
        return Err(DataError::TooManyFiles { path: folder.to_owned() });
    }
    for path in sorted_entries(folder)? {
        let metadata = path.symlink_metadata().map_err(|source| DataError::Io { path: path.clone(), source })?;
        if metadata.is_dir() {
            walk(&path, depth + 1, folders)?;
        }
    }
    Ok(())
}

/// The folders directly in this one.
pub(crate) fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(sorted_entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// The last part of a path as text; what is no text is shown as such.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn ends_with(path: &Path, endings: &[&str]) -> bool {
    let name = name(path).to_lowercase();
    endings.iter().any(|ending| name.ends_with(ending)) && path.is_file()
}

pub(crate) fn is_picture(path: &Path) -> bool {
    ends_with(path, &[".png", ".jpg", ".jpeg"])
}

pub(crate) fn is_nifti(path: &Path) -> bool {
    ends_with(path, &[".nii", ".nii.gz"])
}

pub(crate) fn is_dicom(path: &Path) -> bool {
    ends_with(path, &[".dcm", ".dicom"])
}
