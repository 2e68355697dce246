//! `steadfast hash-password`.

use std::io::{self, BufRead, IsTerminal};

use super::{complain, say};
use crate::auth::hash_password;
use crate::model::StoredPassword;
use crate::role::Exit;

/// Longest password, bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Reads a line and prints what belongs into `users.conf`.
pub(super) fn run() -> Exit {
    let mut line = String::new();
    let input = io::stdin();
    if input.is_terminal() {
        complain("write the password and end the line; the terminal shows it");
    }
    if let Err(error) = input.lock().read_line(&mut line) {
        complain(&format!(
            "the password cannot be read from standard input: {error}"
        ));
        return Exit::Failed;
    }
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        complain(&format!(
            "write a password of 1 to {PASSWORD_BYTES_MAX} bytes to standard input, as one line"
        ));
        return Exit::Usage;
    }
    if let StoredPassword::Keys(keys) = hash_password(password) {
        say(keys.expose());
    }
    Exit::Done
}
