//! Stored passwords.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use subtle::ConstantTimeEq;

use super::scram::{Hash, SALT_BYTES, ScramKeys};
use super::{prepared, random};
use crate::model::{Secret, StoredPassword};

/// What a server keeps of a password: argon2id for mechanism PLAIN, and the keys of both SCRAM mechanisms, so that
/// clients may use any of them. Takes some tens of milliseconds.
#[must_use]
pub fn hash_password(password: &str) -> StoredPassword {
    if password.is_empty() {
        return StoredPassword::Empty;
    }
    let bytes = prepared(password);
    let argon2 = Argon2::default()
        .hash_password(bytes.as_bytes())
        .expect("the default parameters suit every password")
        .to_string();
    let scram = Hash::ALL.map(|hash| ScramKeys::derive(hash, password, &random::<SALT_BYTES>()));
    let mut texts = vec![argon2];
    texts.extend(scram.iter().map(ScramKeys::to_text));
    StoredPassword::Keys(Secret::new(texts.join("|")))
}

/// Whether this is the password. Slow unless it is stored as it is. An empty password is right where none is
/// stored: whether that suffices is for the caller to say.
#[must_use]
pub fn is_password(stored: &StoredPassword, password: &str) -> bool {
    match stored {
        StoredPassword::Empty => password.is_empty(),
        StoredPassword::Plain(own) => {
            let (own, other) = (prepared(own.expose()), prepared(password));
            own.as_bytes().ct_eq(other.as_bytes()).into()
        }
        StoredPassword::Keys(keys) => Keys::parse(keys.expose()).is_password(password),
        StoredPassword::Foreign(_) => false,
    }
}

/// The parts of the field.
#[derive(Clone, Default)]
pub(super) struct Keys {
    /// In the form that the library reads.
    argon2: Option<String>,
    scram: Vec<ScramKeys>,
}

impl Keys {
    /// What cannot be understood is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut keys = Self::default();
        for part in text.split('|') {
            if part.starts_with("$argon2") {
                keys.argon2 = Some(part.to_owned());
            } else if let Some(scram) = ScramKeys::parse(part) {
                keys.scram.push(scram);
            }
        }
        keys
    }

    pub(super) fn scram(&self, hash: Hash) -> Option<&ScramKeys> {
        self.scram.iter().find(|keys| keys.hash() == hash)
    }

    /// Random bytes that were never told to anybody: the salt of argon2, as text.
    pub(super) fn unknown_salt(&self) -> Option<&str> {
        self.argon2.as_ref()?.split('$').nth(4)
    }

    /// Whether there is a key that a password is checked against.
    pub(super) fn has_any(&self) -> bool {
        self.argon2.is_some() || !self.scram.is_empty()
    }

    /// Slow.
    pub(super) fn is_password(&self, password: &str) -> bool {
        let Some(text) = &self.argon2 else {
            let scram = self.scram.first();
            return scram.is_some_and(|keys| keys.is_password(password));
        };
        let bytes = prepared(password);
        PasswordHash::new(text).is_ok_and(|hash| {
            let checked = Argon2::default().verify_password(bytes.as_bytes(), &hash);
            checked.is_ok()
        })
    }
}
