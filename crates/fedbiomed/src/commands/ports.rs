//! The port on which a new component negotiates keys directly: the first of this machine, from 14000 on, that no other component was
//! given and nobody listens on now. Which component has which is kept in a file of this user, since a component listens for moments only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use transport::matrix::NEGOTIATION_PORT;

/// Components by port; absolute paths.
type Given = BTreeMap<u16, PathBuf>;

/// Gives a port to the component in a folder, which has been made. Without a home folder only what listens now is looked at.
pub(crate) fn give(component: &Path) -> io::Result<u16> {
    let listening =
        listening(&["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default()));
    let Some(path) = register() else { return first_free(&Given::new(), &listening) };
    let mut file = open(&path)?;
    // Until the file is closed: two commands do not give the same port.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut given = read(&text);
    given.retain(|_, path| path.join(".fedbiomed").exists());
    let port = first_free(&given, &listening)?;
    given.insert(port, std::path::absolute(component)?);
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(written(&given).as_bytes())?;
    file.sync_data()?;
    Ok(port)
}

/// The file of this user (XDG Base Directory Specification).
fn register() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("fedbiomed").join("ports"))
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A line for each component: port, space, folder. What is no such line is dropped.
fn read(text: &str) -> Given {
    let line = |line: &str| {
        let (port, path) = line.split_once(' ')?;
        Some((port.parse().ok()?, PathBuf::from(path)))
    };
    text.lines().filter_map(line).collect()
}

fn written(given: &Given) -> String {
    // A path with a line break would be two lines; it is found when the component listens, as if it were on another machine.
    let lines = given.iter().map(|(port, path)| (port, path.display().to_string()));
    let lines = lines.filter(|(_, path)| !path.contains('\n'));
    lines.fold(String::new(), |text, (port, path)| format!("{text}{port} {path}\n"))
}

fn first_free(given: &Given, listening: &BTreeSet<u16>) -> io::Result<u16> {
    let is_free = |port: &u16| !given.contains_key(port) && !listening.contains(port);
    let none = || io::Error::other(format!("no port from {NEGOTIATION_PORT} on is free"));
    (NEGOTIATION_PORT..=u16::MAX).find(is_free).ok_or_else(none)
}

/// The ports of tables as in `proc_net(5)`: column 2 is the local address with the port in hexadecimal, column 4 the state.
fn listening(tables: &[String]) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let local = columns.nth(1)?;
        let is_listening = columns.nth(1)? == "0A";
        u16::from_str_radix(local.rsplit(':').next()?, 16).ok().filter(|_| is_listening)
    };
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_port_that_nobody_was_given_or_listens_on_is_free() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:36B0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
            1: 0100007F:36B2 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 222 1\n";
        let listening = listening(&[table.to_owned()]);
        assert_eq!(listening, BTreeSet::from([14_000]), "connections are no listeners");
        let given = read("14001 /srv/a b\nnonsense\n");
        assert_eq!(given[&14_001], Path::new("/srv/a b"));
        assert_eq!(first_free(&given, &listening).unwrap(), 14_002);
        assert_eq!(read(&written(&given)), given);
        let all = (NEGOTIATION_PORT..=u16::MAX).map(|port| (port, PathBuf::from("/x"))).collect();
        assert!(first_free(&all, &listening).is_err());
    }
}
