//! Passwords as they are kept.

use std::fmt;

/// Text that no log, fault or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself; for its one use, never for a text that people read.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

/// The password field of a user.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword {
    /// The empty password.
    Empty,
    /// The password itself, as an administrator may write it; never written by a server.
    Plain(Secret),
    /// Keys that a password is checked against, in our own form: texts that begin with
    /// `$argon2` or `$scram-sha-`, with `|` between them.
    Keys(Secret),
    /// A form of another server. Nobody can log in with it.
    Foreign(Secret),
}

impl StoredPassword {
    /// Reads the field.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let secret = || Secret::new(text.to_owned());
        if text.is_empty() {
            return Self::Empty;
        }
        if text.starts_with("$argon2") || text.starts_with("$scram-sha-") {
            return Self::Keys(secret());
        }
        match text.strip_prefix('$').and_then(|rest| rest.split_once('$')) {
            Some((form, _)) if form.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Self::Foreign(secret())
            }
            _ => Self::Plain(secret()),
        }
    }

    /// The field as it is written; a secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Empty => "",
            Self::Plain(secret) | Self::Keys(secret) | Self::Foreign(secret) => secret.expose(),
        }
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "Empty",
            Self::Plain(_) => "Plain(secret)",
            Self::Keys(_) => "Keys(secret)",
            Self::Foreign(_) => "Foreign(secret)",
        })
    }
}
