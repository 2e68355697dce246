//! The commands of the `steadfast` program. Each ends with an [`Exit`].
#![allow(
    clippy::disallowed_methods,
    reason = "commands read configuration files and measure time; they are no part of a server"
)]

mod admin;
pub mod args;
mod bench;
mod check_config;
mod demo;
mod hash_password;
mod login;
mod own_server;
mod serve;
mod store;
mod tls;
mod tool;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;
use clap::error::ErrorKind;

use crate::role::Exit;
use args::{Cli, Command};

/// Parses the command line, first item the program's name, and does what it says.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Admin(arguments) => admin::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::HashPassword => hash_password::run(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Store(command) => store::run(&command),
        Command::Bench(command) => bench::run(&command),
    }
}

/// Help and version are answers, not faults.
fn usage(error: &clap::Error) -> Exit {
    // A closed pipe is no reason to fail.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    }
}

/// Writes a message for the operator to standard error.
pub(crate) fn complain(text: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "steadfast: {text}");
}

/// Writes an answer to standard output; a closed pipe is no failure.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

#[cfg(test)]
mod tests;
