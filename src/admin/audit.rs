//! What a log may say of a request: everything but what is or may be a secret.

use super::command::{Object, Verb};
use super::parse::Request;
use crate::config::{Kind, parameter};

/// Stands for what is not shown.
const SECRET: &str = "***";
/// Longest text of arguments, characters.
const CHARS_MAX: usize = 1_000;

/// A request as a log may show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// What the command is about: its first name, at most 1000 characters.
    pub about: String,
    /// The other names, and settings with their values, at most 1000 characters.
    pub arguments: String,
    secrets: Vec<String>,
}

impl Audit {
    /// What is to be said of a request.
    #[must_use]
    pub fn new(request: &Request) -> Self {
        let mut audit = Self::default();
        let object = request.command.object;
        // What is written in the wrong place there may be a password.
        let is_delicate = matches!(object, Object::User | Object::Password)
            && request.command.verb != Verb::Delete;
        let mut pieces = Vec::new();
        for (index, name) in request.arguments.names.iter().enumerate() {
            let shown = match name.split_once('=') {
                _ if index > 0 && is_delicate => audit.hide(name),
                Some((key, value)) if is_delicate => {
                    audit.secrets.push(value.to_owned());
                    key.to_owned()
                }
                _ => name.clone(),
            };
            match index {
                0 => audit.about = shortened(shown),
                // An optional one that was left out.
                _ if name.is_empty() => {}
                _ => pieces.push(quoted(&shown)),
            }
        }
        for (name, value) in &request.arguments.settings {
            pieces.push(match value {
                Some(value) if is_delicate || is_secret(object, name, value) => {
                    format!("{name}={}", audit.hide(value))
                }
                Some(value) => format!("{name}={}", quoted(value)),
                None if is_delicate || is_secret(object, name, "") => audit.hide(name),
                None => name.clone(),
            });
        }
        audit.arguments = shortened(pieces.join(" "));
        audit
    }

    fn hide(&mut self, secret: &str) -> String {
        self.secrets.push(secret.to_owned());
        SECRET.to_owned()
    }

    /// Why the command failed, at most 1000 characters, unless that tells a secret.
    #[must_use]
    pub fn reason(&self, text: &str) -> String {
        let mut secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        match secrets.any(|secret| text.contains(secret.as_str())) {
            true => "not shown: it repeats what may be a secret".to_owned(),
            false => shortened(text.to_owned()),
        }
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "...",
        None => text,
    }
}

fn is_secret(object: Object, name: &str, value: &str) -> bool {
    let is_mistyped = object == Object::Server && parameter(name).is_none();
    let is_kept = parameter(name).is_some_and(|row| row.kind == Kind::Secret);
    let has_login = value.contains("://") && value.contains('@');
    is_mistyped || is_kept || has_login || name.to_ascii_lowercase().contains("password")
}

fn quoted(text: &str) -> String {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => format!("\"{text}\""),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse_line;

    fn audit(line: &str) -> Audit {
        Audit::new(&parse_line(line).unwrap_or_else(|failure| panic!("{line}: {failure:?}")))
    }

    #[test]
    fn arguments_are_told() {
        for (line, about, arguments) in [
            (
                "set server log_trace=CONNECT no_such=",
                "",
                "log_trace=CONNECT no_such=***",
            ),
            (
                "set server max_connections=7 listen=\"\"",
                "",
                "max_connections=7 listen=\"\"",
            ),
            (
                "grant queue a.* user=ann send,receive",
                "a.*",
                "user=ann send receive",
            ),
            ("add member eng ann bob", "eng", "ann bob"),
            (
                "create bridge source=queue:a target=topic:b",
                "",
                "source=queue:a target=topic:b",
            ),
            ("create group eng \"all of them\"", "eng", "\"all of them\""),
            (
                "create queue a secure,maxbytes=1MB",
                "a",
                "secure maxbytes=1MB",
            ),
            ("delete user ann", "ann", ""),
            ("shutdown", "", ""),
        ] {
            let audit = audit(line);
            assert_eq!(
                (&*audit.about, &*audit.arguments),
                (about, arguments),
                "{line}"
            );
            assert_eq!(audit.reason("it is late"), "it is late", "{line}");
        }
        let long = audit(&format!("add member eng {}", "é".repeat(2_000)));
        assert_eq!(long.arguments.chars().count(), CHARS_MAX + 3);
        let long = audit(&format!("delete user {}", "é".repeat(2_000)));
        assert_eq!(long.about.chars().count(), CHARS_MAX + 3);
        let reason = long.reason(&"é".repeat(2_000));
        assert_eq!(reason.chars().count(), CHARS_MAX + 3);
    }

    #[test]
    fn what_may_be_a_password_is_not_told() {
        for line in [
            "set password ann sesame",
            "set password ann new sesame",
            "set password ann \"sesame\" \"sesame\"",
            "create user ann password=sesame",
            "create user ann \"her text\" password=sesame",
            "create user ann sesame",
            "set user ann password=sesame",
            "set user password=sesame",
            "set user ann \"x\" password sesame",
            "set server password=sesame",
            "set server PASSWORD=sesame",
            "set server ssl_password=sesame",
            "set server pasword=sesame",
            "set server sesame",
            "set server ft_active=tcp://ann:sesame@host:1",
            "create factory F generic url=tcp://a:1 ssl_password=sesame",
        ] {
            let audit = audit(line);
            let said = [&*audit.about, &*audit.arguments].concat();
            assert!(!said.contains("sesame"), "{line}: {said}");
            assert!(said.contains("***") || said == "password", "{line}: {said}");
            let reason = audit.reason("`tcp://ann:sesame@host:1` will not do");
            assert!(!reason.contains("sesame"), "{line}");
            assert_eq!(audit.reason("it is late"), "it is late");
        }
    }
}
