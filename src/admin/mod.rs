//! Administration without a server: one table of commands, what can be typed or sent for each, what
//! is answered, and what a command changes in the configuration files.
//!
//! Pure values. [`net`](crate::net) carries commands out on a running server, and the command line
//! shows their answers.

mod answer;
mod audit;
mod command;
mod edit;
mod named;
mod parse;
mod reference;
mod table;
mod view;

pub use answer::{Answer, Body, Failure, Item, Table, title};
pub use audit::Audit;
pub use command::{Command, Need, Object, OnStandby, Rest, Verb};
pub use edit::{Edited, change, delete_all};
pub use parse::{Arguments, Attributes, Request, find, parse_line, parse_map, parse_words, split};
pub use reference::reference;
pub use table::COMMANDS;
pub use view::{list_files, show_files};

#[cfg(test)]
mod tests;
