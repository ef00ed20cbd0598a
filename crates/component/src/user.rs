//! Local user names.

use nix::unistd::{Uid, User, getuid};

/// The name of a local user; the number where the name service does not know it.
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// The number of the user who runs this process.
pub fn own_uid() -> u32 {
    getuid().as_raw()
}
