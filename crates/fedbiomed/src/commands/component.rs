//! `fedbiomed component …`: folders of components, their backups.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use component::folder::{ComponentFolder, Kind};

use crate::cli::{ComponentCommand, ComponentKind};
use crate::error::{Failure, Outcome};
use crate::output::print;

/// Runs one command.
pub(crate) fn run(command: ComponentCommand) -> Outcome {
    match command {
        ComponentCommand::Create { component, path, name, exist_ok } => create(component, path, name.as_deref(), exist_ok),
        ComponentCommand::Backup { path, output } => backup(&path, &output),
        ComponentCommand::Restore { input, path } => restore(&input, &path),
    }
}

fn create(component: ComponentKind, path: Option<PathBuf>, name: Option<&str>, exist_ok: bool) -> Outcome {
    let (kind, default) = match component {
        ComponentKind::Node => (Kind::Node, "fbm-node"),
        ComponentKind::Researcher => (Kind::Researcher, "fbm-researcher"),
    };
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    if exist_ok && path.join(".fedbiomed").exists() {
        let folder = ComponentFolder::open(&path, kind)?;
        print(format!("{} is there already, kept as it is", folder.root().display()));
        return Ok(());
    }
    let id = match kind {
        Kind::Node => node::daemon::create(&path, name.unwrap_or("Node"))?.to_string(),
        Kind::Researcher => researcher::daemon::create(&path, name.unwrap_or("Researcher"))?.to_string(),
    };
    print(format!("made {id} in {}", path.display()));
    Ok(())
}

/// Names in a backup that make no sense elsewhere: sockets and the lock of a process.
fn is_transient(path: &Path) -> bool {
    path.ends_with("control.sock") || path.ends_with("var/lock")
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
    Ok(())
}
