//! `users.conf` and `groups.conf`.

use std::collections::BTreeSet;

use super::Companion;
use super::file::{Entry, Item, NamedFault, Report, read_lines};
use super::lines::Document;
use super::words::{quote, unquote};
use crate::config::file::first_word;
use crate::model::{ALL_GROUP, StoredPassword};

/// Longest name of a user or group, in characters.
const NAME_CHARS_MAX: usize = 255;

/// A line of `users.conf`: `name:password:"description"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Unique.
    pub name: String,
    /// How the password is kept.
    pub password: StoredPassword,
    /// For people.
    pub description: String,
}

impl Entry for User {
    fn key(&self) -> String {
        self.name.clone()
    }

    fn header(&self) -> String {
        let mut password = self.password.expose().to_owned();
        if password.contains(':') || password.trim() != password {
            password = format!("\"{password}\"");
        }
        let description = match self.description.as_str() {
            "" => String::new(),
            text => format!("\"{text}\""),
        };
        format!("{}:{password}:{description}", self.name)
    }

    fn read(_: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        read_lines(document, report, |line| {
            let user = Self::parse(line)?;
            let warnings = user.warnings();
            Ok((user, warnings))
        })
    }
}

impl User {
    fn parse(line: &str) -> Result<Self, NamedFault> {
        let unnamed = |text: String| (String::new(), text);
        let Some((name, rest)) = line.split_once(':') else {
            let text = format!(
                "`{}`: write name:password:\"description\"",
                first_word(line)
            );
            return Err(unnamed(text));
        };
        let name = check_name(name.trim(), "user").map_err(unnamed)?;
        let named = |text: String| (name.clone(), text);
        let (password, description) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let fault = || named("the closing quote of the password is missing".to_owned());
                let (password, rest) = quoted.split_once('"').ok_or_else(fault)?;
                let rest = rest.trim_start();
                let fault = || named("write `:` behind the password".to_owned());
                let after = rest.strip_prefix(':');
                if after.is_none() && !rest.is_empty() {
                    return Err(fault());
                }
                (password, after.unwrap_or_default())
            }
            None => {
                let (password, description) = rest.split_once(':').unwrap_or((rest, ""));
                (password.trim(), description)
            }
        };
        Ok(Self {
            password: StoredPassword::parse(password),
            description: unquote(description)
                .map_err(|_| named("the description has a quote too many or too few".to_owned()))?,
            name,
        })
    }

    pub(in crate::config) fn new(
        name: &str,
        password: &str,
        description: &str,
    ) -> Result<Self, String> {
        Ok(Self {
            name: check_name(name, "user")?,
            password: StoredPassword::parse(password),
            description: description.to_owned(),
        })
    }

    pub(in crate::config) fn warnings(&self) -> Vec<String> {
        match self.password {
            StoredPassword::Foreign(_) => vec![
                "the password is kept in a form of another server, which cannot be checked here; \
                 nobody can log in as this user until a new password is set"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }
}

/// A section of `groups.conf`: `name:"description"`, then one member a line, indented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// Names of users.
    pub members: BTreeSet<String>,
}

impl Entry for Group {
    fn key(&self) -> String {
        self.name.clone()
    }

    fn header(&self) -> String {
        format!("{}:\"{}\"", self.name, self.description)
    }

    fn inner(&self) -> Vec<(String, String)> {
        let members = self.members.iter();
        members.map(|name| (name.clone(), name.clone())).collect()
    }

    fn read(_: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        let mut items: Vec<Item<Self>> = Vec::new();
        let mut is_lost = false;
        for (index, content, is_indented) in document.contents() {
            let origin = document.origin(index);
            if !is_indented {
                let group = Self::parse(content);
                is_lost = group.is_err();
                match group {
                    Ok(entry) => items.push(Item {
                        entry,
                        origin,
                        index,
                        inner: Vec::new(),
                    }),
                    Err(text) => report.fault(origin, "", text),
                }
                continue;
            }
            let Some(item) = items.last_mut().filter(|_| !is_lost) else {
                if !is_lost {
                    let text = "an indented line is a member of the group above it, and there is \
                                none; write name:\"description\" at the start of a line";
                    report.fault(origin, "", text);
                }
                continue;
            };
            let name = item.entry.name.clone();
            match unquote(content).and_then(|member| check_name(&member, "user")) {
                Ok(member) => {
                    // Also of a double: the line goes with its section, or it would be one of the section above.
                    item.inner.push((member.clone(), index));
                    if !item.entry.members.insert(member.clone()) {
                        let text = format!("`{member}` is a member twice; remove one line");
                        report.warn(origin, &name, text);
                    }
                }
                Err(text) => report.fault(origin, &name, text),
            }
        }
        items
    }
}

impl Group {
    fn parse(line: &str) -> Result<Self, String> {
        let (name, description) = line.split_once(':').unwrap_or((line, ""));
        let description = unquote(description)
            .map_err(|_| format!("`{}`: write name:\"description\"", first_word(line)))?;
        Self::new(name.trim(), &description)
    }

    pub(in crate::config) fn new(name: &str, description: &str) -> Result<Self, String> {
        let name = check_name(name, "group")?;
        if name == ALL_GROUP {
            return Err(format!(
                "every user belongs to the group `{ALL_GROUP}` without being named; remove it"
            ));
        }
        Ok(Self {
            name,
            description: description.to_owned(),
            members: BTreeSet::new(),
        })
    }
}

/// The rules for names of users and groups.
pub(super) fn check_name(name: &str, what: &str) -> Result<String, String> {
    let is_wrong = |letter: char| letter.is_control() || matches!(letter, ':' | '"');
    if name.is_empty() {
        return Err(format!("the name of a {what} is missing"));
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(format!(
            "the name of a {what} has at most {NAME_CHARS_MAX} characters"
        ));
    }
    if name.contains(is_wrong) || name.trim() != name || name.starts_with(['#', ';', '[']) {
        return Err(format!(
            "`{name}` is not the name of a {what}: it has no `:` and no quotes, and does not begin \
             with `#`, `;`, `[` or a blank"
        ));
    }
    Ok(name.to_owned())
}

/// A name in a `USER=` or `GROUP=` word.
pub(super) fn principal_word(name: &str) -> String {
    quote(name)
}
