//! Questions to the person at the terminal. They go to standard error: standard output is for answers.

use std::io::{self, BufRead, IsTerminal, Write};

use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

use super::Words;
use crate::admin::{Object, Request, Verb, split};
use crate::cli::tool::ToolError;

/// Whether somebody can be asked.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Ctrl-C.
const CANCEL: u8 = 3;

/// A terminal that does not show what is typed; it does again when this is dropped. Ctrl-C would end the process
/// without that, so it ends the line instead.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = CANCEL;
        // What was typed before the question is no answer to it.
        termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nothing else to try.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Asks for a password, which is not shown.
pub(super) fn password(question: &str) -> Result<String, ToolError> {
    let failed = |error: io::Error| ToolError::Other(format!("the terminal: {error}"));
    let silence = Silence::begin().map_err(failed)?;
    put(question);
    let read = read_line(&mut io::stdin().lock());
    drop(silence);
    // The end of the line was not shown either.
    put("\n");
    let line = read.map_err(failed)?;
    let none = || ToolError::Other("no password was typed; nothing was done".to_owned());
    let line = line.filter(|line| !line.is_empty()).ok_or_else(none)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A line with its end, which the end of input may cut off; `None` when it was given up.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let part = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            part => part?,
        };
        let end = part.iter().position(|byte| matches!(*byte, b'\n' | CANCEL));
        let is_last = end.is_some() || part.is_empty();
        let length = end.map_or(part.len(), |at| at + 1);
        line.extend_from_slice(&part[..length]);
        input.consume(length);
        if is_last {
            break;
        }
    }
    if line.last() == Some(&CANCEL) {
        return Ok(None);
    }
    let text = String::from_utf8(line);
    text.map(Some)
        .map_err(|_| io::Error::other("the password is not UTF-8"))
}

/// Asks whether to go on, and says what that does; everything but `y` and `yes` means no.
pub(super) fn is_sure(what: &str, effect: &str) -> Result<bool, ToolError> {
    put(&format!("{effect}\n{what}: Are you sure? [y/N] "));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| ToolError::Other(format!("the terminal: {error}")))?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn put(question: &str) {
    let mut out = io::stderr();
    // Without a question there will be no answer either.
    let _ = out
        .write_all(question.as_bytes())
        .and_then(|()| out.flush());
}

/// Where the password of a command stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The third name of `set password`.
    Name,
    /// A setting that is not there.
    Setting,
    /// A setting without a value.
    Value,
}

/// The password that a command sets, if it does not say which.
fn missing(request: &Request) -> Option<(Place, String)> {
    let (command, arguments) = (request.command, &request.arguments);
    let name = arguments.name(0);
    match (command.verb, command.object) {
        (Verb::Set, Object::Password) if arguments.names.len() < 2 => {
            Some((Place::Name, format!("the user {name}")))
        }
        (Verb::Create, Object::User) if arguments.setting("password").is_none() => {
            Some((Place::Setting, format!("the user {name}")))
        }
        (Verb::Set, Object::Server) => {
            let mut bare = arguments.bare();
            bare.any(|name| name.eq_ignore_ascii_case("password"))
                .then(|| (Place::Value, "this server".to_owned()))
        }
        _ => None,
    }
}

/// The words of a command, with the password that it sets: asked for twice if it is not among
/// them. Without anybody to ask that is an error: a script never sets a password to nothing by
/// leaving it out. Who changes his own password is asked for the old one, too.
pub(super) fn complete(
    request: &Request,
    words: Words,
    is_attended: bool,
    own_name: Option<&str>,
) -> Result<Words, ToolError> {
    let Some((place, whose)) = missing(request) else {
        return Ok(words);
    };
    let command = request.command.words;
    if !is_attended {
        let advice = match place {
            Place::Name => "write set password USER PASSWORD, with \"\" for none",
            Place::Setting | Place::Value => {
                "write password=PASSWORD, with nothing behind the = for none"
            }
        };
        return Err(ToolError::Usage(format!(
            "{command}: the password is missing, and there is no terminal to ask for it; {advice}"
        )));
    }
    let is_own = place == Place::Name && own_name == Some(request.arguments.name(0));
    let old = match is_own {
        true => Some(password(&format!("Old password of {whose}: "))?),
        false => None,
    };
    let first = password(&format!("New password of {whose}: "))?;
    if first != password("Once more: ")? {
        return Err(ToolError::Usage(format!(
            "{command}: the two passwords are not the same; nothing was changed"
        )));
    }
    if first.is_empty() && place != Place::Setting {
        return Err(ToolError::Usage(format!(
            "{command}: no password was typed; nothing was changed. Write the empty one out if it \
             is meant: \"\" or password="
        )));
    }
    let mut list = match words {
        Words::List(list) => list,
        Words::Line(line) => split(&line).map_err(ToolError::Usage)?,
    };
    match place {
        Place::Name => {
            list.push(first);
            list.extend(old);
        }
        Place::Setting => list.push(format!("password={first}")),
        Place::Value => {
            let bare = list.iter_mut().rev();
            for word in bare
                .filter(|word| word.eq_ignore_ascii_case("password"))
                .take(1)
            {
                *word = format!("password={first}");
            }
        }
    }
    Ok(Words::List(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse_line;

    #[test]
    fn a_line_ends_where_its_end_was_typed() {
        let read = |mut typed: &[u8]| {
            let line = read_line(&mut typed).expect("it is text");
            (line, typed.len())
        };
        assert_eq!(read(b"ab\ncd\n"), (Some("ab\n".to_owned()), 3));
        assert_eq!(read(b"ab\x03cd\n"), (None, 3));
        assert_eq!(read(b"ab"), (Some("ab".to_owned()), 0));
        assert_eq!(read(b""), (Some(String::new()), 0));
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
    }

    fn complete_line(line: &str) -> Result<Words, ToolError> {
        let request = parse_line(line).expect("it is a command");
        complete(&request, Words::Line(line.to_owned()), false, None)
    }

    #[test]
    fn a_script_that_leaves_a_password_out_is_told_how_to_give_it() {
        for (line, advice) in [
            ("set password ann", "set password USER PASSWORD"),
            ("create user ann \"of sales\"", "password=PASSWORD"),
            ("set server password", "password=PASSWORD"),
        ] {
            let error = complete_line(line)
                .err()
                .expect("it is missing")
                .to_string();
            assert!(error.contains(advice), "{line}: {error}");
        }
        for line in [
            "set password ann x",
            "set password ann \"\"",
            "create user ann password=",
            "set user ann \"of sales\"",
            "set server password= log_trace",
            "delete user ann",
        ] {
            assert!(complete_line(line).is_ok(), "{line}");
        }
    }
}
