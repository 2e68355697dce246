//! The main file's `name = value` grammar.
//!
//! One parameter a line. `#` or `;` begins a comment, at the start of a line or after a blank.
//! A value with blanks, or with one of these signs after a blank, stands in double quotes. An
//! empty value means "not set".

use std::path::Path;

use super::{Fault, Origin};

/// As long as EMS allows.
const LINE_CHARS_MAX: usize = 256_000;

/// One assignment, not yet checked against the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) name: String,
    pub(super) value: String,
}

pub(super) fn parse(path: &Path, text: &str, faults: &mut Vec<Fault>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let origin = Origin::File {
            path: path.to_owned(),
            line: index + 1,
        };
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some((name, value))) => entries.push(Entry {
                origin,
                name,
                value,
            }),
            Err((parameter, text)) => faults.push(Fault {
                origin,
                parameter,
                text,
            }),
        }
    }
    entries
}

/// `name=value` of `--set`.
pub(super) fn parse_assignment(text: &str) -> Result<(String, String), NamedFault> {
    let empty = || (String::new(), "it is empty; write NAME=VALUE".to_owned());
    parse_line(text)?.ok_or_else(empty)
}

/// The parameter, as far as it is known, and what is wrong.
type NamedFault = (String, String);

/// What may be shown of a line that is not understood: it may hold a password.
pub(super) fn first_word(line: &str) -> &str {
    let end = line.find(|letter: char| letter.is_whitespace() || matches!(letter, '=' | ':'));
    line.get(..end.unwrap_or(line.len())).unwrap_or("")
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, NamedFault> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let unnamed = |text: String| (String::new(), text);
    if line.len() > LINE_CHARS_MAX {
        return Err(unnamed(format!(
            "the line is longer than {LINE_CHARS_MAX} characters"
        )));
    }
    if line.starts_with('[') {
        return Err(unnamed(format!(
            "`{}`: the main file has no sections; remove the line",
            first_word(line)
        )));
    }
    let Some((name, value)) = line.split_once('=') else {
        return Err(unnamed(format!(
            "`{}`: `=` is missing; write name = value",
            first_word(line)
        )));
    };
    let name = name.trim();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(unnamed(format!(
            "`{}`: what stands before `=` is not a parameter name; write name = value",
            first_word(name)
        )));
    }
    let value = parse_value(value.trim()).map_err(|text| (name.to_owned(), text))?;
    Ok(Some((name.to_owned(), value)))
}

/// Removes quotes, the comment behind the value and the blanks before it.
fn parse_value(text: &str) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    let mut kept = 0;
    let mut is_quoted = false;
    let mut after_blank = true;
    for letter in text.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '#' | ';' if after_blank && !is_quoted => break,
            _ => value.push(letter),
        }
        after_blank = letter.is_whitespace();
        if is_quoted || !after_blank {
            kept = value.len();
        }
    }
    if is_quoted {
        return Err("the closing quote is missing".to_owned());
    }
    value.truncate(kept);
    Ok(value)
}
