//! Scripts: commands line by line, from a file or from standard input.

use std::fs;
use std::io::{self, BufRead};
use std::path::Path;

use super::{Next, Tool, complain};
use crate::cli::say;
use crate::cli::tool::ToolError;
use crate::role::Exit;

/// Carries out the lines of a file; `-` is standard input.
pub(super) fn run_file(
    tool: &mut Tool<'_>,
    path: &Path,
    is_going_on: bool,
) -> Result<Exit, ToolError> {
    if path.as_os_str() == "-" {
        return Ok(run_input(tool, is_going_on));
    }
    let text = fs::read_to_string(path).map_err(ToolError::file("reading the script", path))?;
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    Ok(run(tool, &path.display().to_string(), lines, is_going_on))
}

/// Carries out what comes on standard input.
pub(super) fn run_input(tool: &mut Tool<'_>, is_going_on: bool) -> Exit {
    let lines = io::stdin().lock().lines();
    run(tool, "standard input", lines, is_going_on)
}

/// Carries out lines up to the first that fails, or all.
fn run(
    tool: &mut Tool<'_>,
    name: &str,
    lines: impl Iterator<Item = io::Result<String>>,
    is_going_on: bool,
) -> Exit {
    let mut failed = 0;
    for (index, line) in lines.enumerate() {
        let place = format!("{name}:{}", index + 1);
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                complain(&format!("{place}: {error}"));
                return Exit::Failed;
            }
        };
        if tool.is_echoing {
            say(&line);
        }
        tool.place = Some(place);
        match tool.line(&line) {
            Next::Go => {}
            Next::Exit => break,
            Next::Failed if is_going_on => failed += 1,
            Next::Failed => {
                tool.complain("stopped here; --ignore goes on with the next line");
                return Exit::Failed;
            }
        }
    }
    if failed == 0 {
        return Exit::Done;
    }
    let were = if failed == 1 {
        "command has"
    } else {
        "commands have"
    };
    complain(&format!("{name}: {failed} {were} failed"));
    Exit::Failed
}
