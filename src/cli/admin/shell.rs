//! The shell: lines with history and completion.

use std::path::PathBuf;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use super::{Next, Tool, words_after};
use crate::cli::say;
use crate::cli::tool::ToolError;
use crate::role::Exit;

/// Where the history is kept, in the home directory.
const HISTORY: &str = ".steadfast_history";

/// Asks for commands until the end of input.
pub(super) fn run(tool: &mut Tool<'_>) -> Result<Exit, ToolError> {
    let failed = |error: ReadlineError| ToolError::Other(format!("the terminal: {error}"));
    let mut editor: Editor<Words, DefaultHistory> = Editor::new().map_err(failed)?;
    editor.set_helper(Some(Words));
    let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(HISTORY));
    if let Some(path) = &history {
        // The first time there is none.
        let _absent = editor.load_history(path);
    }
    say("help shows all commands, exit ends");
    loop {
        match editor.readline(&tool.prompt()) {
            Ok(line) => {
                if !line.trim().is_empty() && !may_hold_password(&line) {
                    let _kept = editor.add_history_entry(&line);
                }
                if tool.line(&line) == Next::Exit {
                    break;
                }
            }
            // The line is given up, not the shell.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    if let Some(path) = &history {
        // A shell without history is a shell.
        let _unkept = editor.save_history(path);
    }
    Ok(Exit::Done)
}

/// Completes the words of commands.
struct Words;

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..position).unwrap_or(line);
        let start = typed.rfind(' ').map_or(0, |at| at + 1);
        let (before, begun) = typed.split_at(start);
        let before: Vec<&str> = before.split_whitespace().collect();
        let begun = begun.to_ascii_lowercase();
        let pairs = words_after(&before).into_iter();
        let pairs = pairs
            .filter(|word| word.starts_with(&begun))
            .map(|word| Pair {
                display: word.to_owned(),
                replacement: format!("{word} "),
            });
        Ok((start, pairs.collect()))
    }
}

/// Passwords stay nowhere: `connect URL USER PASSWORD` has one too.
fn may_hold_password(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("password") || line.trim_start().starts_with("connect")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_with_a_password_is_kept() {
        for line in [
            "set server password=x",
            " CONNECT tcp://a ann secret",
            "set password ann x",
        ] {
            assert!(may_hold_password(line), "{line}");
        }
        assert!(!may_hold_password("show connections"));
    }
}
