//! Who has a TCP port, for an error message: Linux tells by its /proc files.

use std::fs;

/// The process that listens on a port, as "process 123 (name)", if this user may see it.
pub(crate) fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().find_map(|table| listening_inode(table, port))?;
    let socket = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(number) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let is_holder =
            |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str());
        if files.flatten().any(is_holder) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {number} ({})", command.trim()));
        }
    }
    None
}

/// The inode of the socket that listens on a port, from a table as in `proc_net(5)`: column 2 is the local address with the port
/// in hexadecimal, column 4 the state (0A: listening), column 10 the inode.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == "0A";
        if is_it { columns.get(9).copied() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_socket_of_a_port_is_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:C383 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
            1: 0100007F:C383 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1\n";
        assert_eq!(listening_inode(table, 50_051), Some("222"));
        assert_eq!(listening_inode(table, 50_052), None);
    }
}
