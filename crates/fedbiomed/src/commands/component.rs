//! `fedbiomed component …`: folders of components, their backups.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use component::folder::{ComponentFolder, Kind};

use crate::cli::{ComponentCommand, ComponentKind};
use crate::commands::shared;
use crate::error::{Failure, Outcome};
use crate::output::{note, print};

/// Runs one command.
pub(crate) fn run(command: ComponentCommand) -> Outcome {
    match command {
        ComponentCommand::Create { component, path, name, exist_ok } => create(component, path, name.as_deref(), exist_ok),
        ComponentCommand::Backup { path, output } => backup(&path, &output),
        ComponentCommand::Restore { input, path } => restore(&input, &path),
    }
}

fn create(component: ComponentKind, path: Option<PathBuf>, name: Option<&str>, exist_ok: bool) -> Outcome {
    let kind = match component {
        ComponentKind::Node => Kind::Node,
        ComponentKind::Researcher => Kind::Researcher,
    };
    let path = path.unwrap_or_else(|| shared::default_folder(kind));
    if exist_ok && path.join(".fedbiomed").exists() {
        let folder = ComponentFolder::open(&path, kind)?;
        print(format!("{} is there already, kept as it is", folder.root().display()));
        return Ok(());
    }
    let id = shared::create(&path, kind, name)?;
    print(format!("made {id} in {}", path.display()));
    Ok(())
}

/// Names in a backup that make no sense elsewhere: sockets, the lock of a process, and the key to the secrets of sums under way, which
/// must not be used by two.
fn is_transient(path: &Path) -> bool {
    path.ends_with("control.sock") || path.ends_with("var/lock") || path.ends_with("keys/secure-storage.key")
}

fn backup(path: &Path, output: &Path) -> Outcome {
    let folder = ComponentFolder::open(path, ComponentFolder::kind_of(path)?)?;
    let _lock = folder.lock()?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", output.display())))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    archive.follow_symlinks(false);
    let result = add_folder(&mut archive, folder.root(), Path::new(""));
    let finished = result
        .and_then(|()| Ok(archive.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?));
    if let Err(failure) = finished {
        let _ = fs::remove_file(output);
        return Err(failure);
    }
    print(format!("wrote {}; it holds this component's keys: keep it as safe as the folder", output.display()));
    Ok(())
}

fn add_folder(archive: &mut tar::Builder<impl Write>, root: &Path, relative: &Path) -> Outcome {
    let mut entries: Vec<_> = fs::read_dir(root.join(relative))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = relative.join(entry.file_name());
        if is_transient(&name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            archive.append_dir(&name, entry.path())?;
            add_folder(archive, root, &name)?;
        } else {
            archive.append_path_with_name(entry.path(), &name)?;
        }
    }
    Ok(())
}

fn restore(input: &Path, path: &Path) -> Outcome {
    if path.exists() && fs::read_dir(path)?.next().is_some() {
        return Err(Failure::new(format!("{} is not empty; choose a new folder", path.display())));
    }
    let file = File::open(input).map_err(|error| Failure::new(format!("cannot read {}: {error}", input.display())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Unpacked beside and moved as a whole: a broken backup leaves nothing behind.
    let staging = tempfile::Builder::new().prefix(".fedbiomed-restore").tempdir_in(parent)?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    archive.set_preserve_permissions(true);
    // A backup has no entry for the folder itself.
    fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o700))?;
    archive
        .unpack(staging.path())
        .map_err(|error| Failure::new(format!("{} is not a whole backup: {error}", input.display())))?;
    let kind = ComponentFolder::kind_of(staging.path())
        .map_err(|_| Failure::new(format!("{} holds no component", input.display())))?;
    if path.exists() {
        fs::remove_dir(path)?;
    }
    fs::rename(staging.keep(), path)?;
    let what = if kind == Kind::Node { "node" } else { "researcher" };
    print(format!("restored a {what} to {}", path.display()));
    note("It is the same component as the one that was backed up: the two must never run at the same time.");
    Ok(())
}
