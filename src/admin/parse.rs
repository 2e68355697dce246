//! From what was typed, or sent as a map, to a request.

use super::answer::Failure;
use super::command::{Command, Rest, Verb};
use super::table::COMMANDS;
use crate::config::nearest;

/// Longest line, bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What follows the words of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The names that the command takes, in order; optional ones may be empty, or missing at the end.
    pub names: Vec<String>,
    /// `name` or `name=value`, in order.
    pub settings: Vec<(String, Option<String>)>,
}

impl Arguments {
    /// A name by its place.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    /// The value of a setting; empty for one without a value.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        let mut settings = self.settings.iter();
        settings
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_deref().unwrap_or(""))
    }

    /// Names of settings without a value, such as permissions.
    pub fn bare(&self) -> impl Iterator<Item = &str> {
        let bare = self.settings.iter().filter(|(_, value)| value.is_none());
        bare.map(|(name, _)| name.as_str())
    }
}

/// A command with its arguments, which fit to the table.
#[derive(Clone, Debug)]
pub struct Request {
    /// The row of the table.
    pub command: &'static Command,
    /// What it is about.
    pub arguments: Arguments,
}

/// A word and whether all of it stood in quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    is_quoted: bool,
}

/// The words of a line: blanks separate, double quotes keep blanks and commas.
///
/// # Errors
/// A quote that is not closed.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    Ok(tokens(line)?.into_iter().map(|it| it.text).collect())
}

fn tokens(line: &str) -> Result<Vec<Token>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("a command has at most {LINE_BYTES_MAX} bytes"));
    }
    let mut tokens = Vec::new();
    let mut text = String::new();
    let (mut is_quoted, mut had_quotes, mut is_open) = (false, false, false);
    for letter in line.chars() {
        match letter {
            '"' => {
                had_quotes |= text.is_empty() && !is_open;
                is_quoted = !is_quoted;
                is_open = true;
            }
            blank if blank.is_whitespace() && !is_quoted => {
                if is_open {
                    let text = std::mem::take(&mut text);
                    let is_quoted = std::mem::take(&mut had_quotes);
                    tokens.push(Token { text, is_quoted });
                }
                is_open = false;
            }
            other => {
                text.push(other);
                is_open = true;
            }
        }
    }
    if is_quoted {
        return Err("the closing quote is missing".to_owned());
    }
    if is_open {
        tokens.push(Token {
            text,
            is_quoted: had_quotes,
        });
    }
    Ok(tokens)
}

/// The command that words begin with, and how many of them are its own.
#[must_use]
pub fn find<'a>(words: impl Iterator<Item = &'a str> + Clone) -> Option<(&'static Command, usize)> {
    let fits = |command: &&Command| {
        let mut own = words.clone();
        command
            .words
            .split(' ')
            .all(|word| own.next().is_some_and(|own| own.eq_ignore_ascii_case(word)))
    };
    let found = COMMANDS.iter().filter(fits);
    let longest = found.max_by_key(|command| command.words.len())?;
    Some((longest, longest.words.split(' ').count()))
}

/// Reads a line that was typed.
///
/// # Errors
/// What is wrong with it and how it is written.
pub fn parse_line(line: &str) -> Result<Request, Failure> {
    parse_tokens(tokens(line).map_err(Failure::usage)?)
}

/// Reads words that were already taken apart.
///
/// # Errors
/// As [`parse_line`].
pub fn parse_words(words: impl IntoIterator<Item = String>) -> Result<Request, Failure> {
    let tokens = words.into_iter().map(|text| Token {
        is_quoted: text.contains(char::is_whitespace) && !text.contains('='),
        text,
    });
    parse_tokens(tokens.collect())
}

fn parse_tokens(tokens: Vec<Token>) -> Result<Request, Failure> {
    let words = tokens.iter().map(|token| token.text.as_str());
    let Some((command, own)) = find(words.clone()) else {
        return Err(unknown(&words.collect::<Vec<_>>()));
    };
    let wrong = |text: String| Failure::usage(format!("{text}; write {}", command.usage()));
    let mut arguments = Arguments::default();
    let mut rest = tokens.into_iter().skip(own).peekable();
    for name in command.needed {
        let token = rest.next().filter(|token| !token.text.is_empty());
        let token = token.ok_or_else(|| wrong(format!("{} is missing", name.to_uppercase())))?;
        arguments.names.push(token.text);
    }
    for _ in command.optional {
        let is_name = |token: &Token| {
            token.is_quoted || command.rest != Rest::Settings || !token.text.contains('=')
        };
        match rest.next_if(is_name) {
            Some(token) => arguments.names.push(token.text),
            None => break,
        }
    }
    match command.rest {
        Rest::Nothing => {
            if let Some(token) = rest.next() {
                let option = match token.text.starts_with('-') {
                    true => " (options of the tool stand before the command)",
                    false => "",
                };
                let text = shown(&token.text);
                return Err(wrong(format!("`{text}` is one too many{option}")));
            }
        }
        Rest::Names => arguments.names.extend(rest.map(|token| token.text)),
        Rest::Settings => {
            for token in rest {
                add_settings(&mut arguments, &token.text, is_free_text(command)).map_err(wrong)?;
            }
        }
    }
    Ok(Request { command, arguments })
}

/// Whether values may have commas: then each setting is a word of its own.
fn is_free_text(command: &Command) -> bool {
    use super::command::Object;
    matches!(
        command.object,
        Object::Server | Object::User | Object::Password | Object::Factory
    )
}

fn add_settings(arguments: &mut Arguments, text: &str, is_free: bool) -> Result<(), String> {
    if is_free {
        return add_setting(arguments, text);
    }
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .try_for_each(|part| add_setting(arguments, part))
}

fn add_setting(arguments: &mut Arguments, text: &str) -> Result<(), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.to_owned())),
        None => (text.trim(), None),
    };
    if name.is_empty() {
        return Err("a name is missing before `=`".to_owned());
    }
    arguments.settings.push((name.to_owned(), value));
    Ok(())
}

/// What may be shown of a word: it may hold a password.
fn shown(word: &str) -> &str {
    word.split('=').next().unwrap_or("")
}

fn unknown(words: &[&str]) -> Failure {
    let Some(first) = words.first().filter(|word| !word.is_empty()) else {
        return Failure::usage("no command; help shows all");
    };
    let meant = meant(words);
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
    let same: Vec<&str> = COMMANDS
        .iter()
        .filter(|command| {
            let mut own = command.words.split(' ');
            own.next()
                .is_some_and(|own| own.eq_ignore_ascii_case(first))
        })
        .map(|command| command.words)
        .collect();
    if same.is_empty() {
        return Failure::usage(format!(
            "`{}` is not a command{}; help shows all",
            shown(first),
            meant.trim_end_matches('?')
        ));
    }
    let typed: Vec<&str> = words.iter().take(2).map(|word| shown(word)).collect();
    Failure::usage(format!(
        "`{}` is not a command{meant}{} Write one of: {}",
        typed.join(" "),
        if meant.is_empty() { "." } else { "" },
        same.join(", ")
    ))
}

/// The command whose words are spelled most like those that were typed.
fn meant(words: &[&str]) -> Option<&'static str> {
    let count = |text: &str| text.split(' ').count();
    (1..=words.len().min(3)).rev().find_map(|length| {
        let typed = words.get(..length).unwrap_or_default().join(" ");
        let candidates = COMMANDS.iter().map(|command| command.words);
        nearest(&typed, candidates.filter(|words| count(words) == length))
    })
}

/// What a map of AMQP management says: attributes by name, each a text, a flag (`None`) or a list.
pub type Attributes = Vec<(String, Vec<Option<String>>)>;

/// Reads a request of AMQP management: its operation, its type, its name, and a map.
///
/// # Errors
/// What is wrong with it, with the status of AMQP management.
pub fn parse_map(
    operation: &str,
    kind: &str,
    name: &str,
    attributes: Attributes,
) -> Result<Request, Failure> {
    let update = [Verb::AddProperties, Verb::Set];
    let does = |command: &&Command| {
        let own = command.verb;
        own.operation() == operation || (operation == "UPDATE" && update.contains(&own))
    };
    let candidates = COMMANDS.iter().filter(|command| !command.is_local());
    let mut found = candidates
        .filter(does)
        .filter(|command| kind.is_empty() || command.object.word() == kind);
    let Some(command) = found.next() else {
        let text = format!("there is no operation {operation:?} for the type {kind:?}");
        return Err(Failure::new(501, text));
    };
    let mut arguments = Arguments::default();
    let mut attributes = attributes;
    let mut take = |name: &str| {
        let at = attributes.iter().position(|(own, _)| own == name)?;
        let (_, values) = attributes.remove(at);
        values.into_iter().next().flatten()
    };
    let names = command.needed.iter().chain(command.optional);
    // Optional ones that are absent: empty ones stand for them when one behind them is there.
    let mut skipped: Vec<&str> = Vec::new();
    for (index, own) in names.enumerate() {
        let value = match index {
            0 if !name.is_empty() => Some(name.to_owned()),
            _ => take(own),
        };
        // What may be left out may be empty: a password, for example.
        let is_optional = index >= command.needed.len();
        match value.filter(|value| is_optional || !value.is_empty()) {
            Some(value) => {
                // Nobody gets an empty password by leaving it out.
                if skipped.contains(&"password") {
                    let text = "the attribute `password` is missing";
                    return Err(Failure::usage(text));
                }
                arguments
                    .names
                    .extend(skipped.drain(..).map(|_| String::new()));
                arguments.names.push(value);
            }
            None if index < command.needed.len() => {
                return Err(Failure::usage(format!("the attribute `{own}` is missing")));
            }
            None => skipped.push(own),
        }
    }
    for (name, values) in attributes {
        match command.rest {
            Rest::Nothing => {
                return Err(Failure::usage(format!(
                    "the attribute `{name}` is not known"
                )));
            }
            Rest::Names => arguments.names.extend(values.into_iter().flatten()),
            // A list of words, such as permissions: each by itself.
            Rest::Settings if name == "permissions" => {
                let words = values.into_iter().flatten();
                arguments.settings.extend(words.map(|word| (word, None)));
            }
            Rest::Settings => {
                let is_flag = values.iter().all(Option::is_none);
                let texts: Vec<String> = values.into_iter().flatten().collect();
                let value = (!is_flag).then(|| texts.join(","));
                arguments.settings.push((name, value));
            }
        }
    }
    Ok(Request { command, arguments })
}
