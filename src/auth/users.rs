//! All users of a server, ready to be checked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use subtle::ConstantTimeEq;

use super::keys::{Keys, is_password};
use super::scram::{Hash, SALT_BYTES, ScramKeys};
use super::{prepared, random};
use crate::model::{ADMIN_USER, StoredPassword};

/// Users whose right password is remembered as a digest, for a while.
const REMEMBERED_MAX: usize = 10_000;

/// Users and their passwords. Never changed in place.
pub struct Users {
    /// By the name as it is compared.
    entries: BTreeMap<String, Entry>,
    /// Salts of names that do not exist are made with it.
    secret: [u8; 32],
    /// Which passwords argon2 found right, digested with a key that never leaves this process: many clients may
    /// come back as one user at once after a takeover.
    right: Mutex<BTreeMap<String, Vec<u8>>>,
    right_key: [u8; 32],
}

struct Entry {
    /// As it is configured.
    name: String,
    password: StoredPassword,
    keys: Keys,
    /// Those of a password that is stored as it is, when they were needed first.
    made: [OnceLock<ScramKeys>; Hash::ALL.len()],
}

impl Users {
    /// `list`: names and passwords. The user `admin` is always there.
    #[must_use]
    pub fn new(list: &BTreeMap<String, StoredPassword>) -> Self {
        let mut entries: BTreeMap<String, Entry> = list
            .iter()
            .map(|(name, password)| (prepared(name).into_owned(), Entry::new(name, password)))
            .collect();
        entries
            .entry(ADMIN_USER.to_owned())
            .or_insert_with(|| Entry::new(ADMIN_USER, &StoredPassword::Empty));
        // The same on both servers of a pair with the same users, and after a restart: a salt that changed would
        // tell that there is no such user. The salts of argon2 are the one thing in the file that is random, says
        // nothing of a password and is never sent.
        let admin = entries.get(ADMIN_USER).into_iter();
        let known = admin
            .chain(entries.values())
            .find_map(|entry| entry.keys.unknown_salt());
        let secret = match known {
            Some(salt) => {
                let made = Hash::Sha256.hmac(salt.as_bytes(), b"salts of nobody");
                made.try_into().unwrap_or_else(|_| random())
            }
            None => random(),
        };
        Self {
            entries,
            secret,
            right: Mutex::default(),
            right_key: random(),
        }
    }

    /// Whether a user has the same password here as there.
    #[must_use]
    pub fn has_password_of(&self, other: &Self, name: &str) -> bool {
        let password = |users: &Self| {
            let entry = users.entries.get(&*prepared(name));
            entry.map(|entry| entry.password.clone())
        };
        password(self).is_some_and(|own| Some(own) == password(other))
    }

    /// Whether there is a user with exactly this name, such as that of a certificate.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.name_of(name) == Some(name)
    }

    /// The configured form of a name, if there is such a user.
    pub(super) fn name_of(&self, name: &str) -> Option<&str> {
        let entry = self.entries.get(&*prepared(name))?;
        Some(&entry.name)
    }

    /// Whether [`Self::check`] takes long.
    pub(super) fn is_check_slow(&self, name: &str, password: &str) -> bool {
        match self.entries.get(&*prepared(name)) {
            Some(entry) if matches!(entry.password, StoredPassword::Keys(_)) => {
                !self.is_remembered(entry, password)
            }
            Some(_) => false,
            None => true,
        }
    }

    /// The user with this name and password. `is_local`: the client is on this host.
    pub(super) fn check(&self, name: &str, password: &str, is_local: bool) -> Option<String> {
        let Some(entry) = self.entries.get(&*prepared(name)) else {
            // As long as for a user that exists.
            let some = self.entries.values().find(|entry| entry.keys.has_any());
            let _never = some.is_some_and(|entry| entry.keys.is_password(password));
            return None;
        };
        let is_right = match &entry.password {
            StoredPassword::Empty => entry.is_open(is_local) && password.is_empty(),
            StoredPassword::Keys(_) => {
                let is_right =
                    self.is_remembered(entry, password) || entry.keys.is_password(password);
                if is_right {
                    self.remember(entry, password);
                }
                is_right
            }
            stored => is_password(stored, password),
        };
        is_right.then(|| entry.name.clone())
    }

    /// The salt and rounds that a client is told, and the keys if they are at hand. Users that do not exist, or
    /// have no such keys, get some that no password fits.
    pub(super) fn scram(&self, hash: Hash, name: &str, is_local: bool) -> ScramKeys {
        let entry = self.entries.get(name);
        if let Some(keys) = entry.and_then(|entry| entry.keys.scram(hash)) {
            return keys.clone();
        }
        if let Some(made) = entry
            .filter(|entry| entry.plain(is_local).is_some())
            .and_then(|entry| entry.made(hash).get())
        {
            return made.clone();
        }
        ScramKeys::decoy(hash, &self.salt(hash, name))
    }

    /// Whether [`Self::scram_made`] has work to do, which takes long.
    pub(super) fn is_scram_slow(&self, hash: Hash, name: &str, is_local: bool) -> bool {
        self.entries.get(name).is_some_and(|entry| {
            entry.plain(is_local).is_some() && entry.made(hash).get().is_none()
        })
    }

    /// The keys of a password that is stored as it is. Slow the first time.
    pub(super) fn scram_made(&self, hash: Hash, name: &str, is_local: bool) -> Option<&ScramKeys> {
        let entry = self.entries.get(name)?;
        let password = entry.plain(is_local)?;
        let salt = || self.salt(hash, name);
        let made = entry.made(hash);
        Some(made.get_or_init(|| ScramKeys::derive(hash, password, &salt())))
    }

    fn salt(&self, hash: Hash, name: &str) -> Vec<u8> {
        let text = format!("{}:{name}", hash.mechanism());
        let mut salt = Hash::Sha256.hmac(&self.secret, text.as_bytes());
        salt.truncate(SALT_BYTES);
        salt
    }

    fn digest(&self, entry: &Entry, password: &str) -> Vec<u8> {
        let text = format!("{}\0{}", entry.name, prepared(password));
        Hash::Sha256.hmac(&self.right_key, text.as_bytes())
    }

    fn is_remembered(&self, entry: &Entry, password: &str) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let known = right.get(&entry.name);
        known.is_some_and(|known| known.ct_eq(&self.digest(entry, password)).into())
    }

    fn remember(&self, entry: &Entry, password: &str) {
        let digest = self.digest(entry, password);
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED_MAX {
            right.clear();
        }
        right.insert(entry.name.clone(), digest);
    }
}

impl Entry {
    fn new(name: &str, password: &StoredPassword) -> Self {
        Self {
            name: name.to_owned(),
            keys: match password {
                StoredPassword::Keys(text) => Keys::parse(text.expose()),
                _ => Keys::default(),
            },
            password: password.clone(),
            made: Default::default(),
        }
    }

    /// Whether the empty password is right: only for `admin`, as in EMS, and only from this host. Others without a
    /// password log in by certificate or not at all.
    fn is_open(&self, is_local: bool) -> bool {
        self.name == ADMIN_USER && is_local
    }

    /// The password, where it is known.
    fn plain(&self, is_local: bool) -> Option<&str> {
        match &self.password {
            StoredPassword::Plain(password) => Some(password.expose()),
            StoredPassword::Empty if self.is_open(is_local) => Some(""),
            _ => None,
        }
    }

    fn made(&self, hash: Hash) -> &OnceLock<ScramKeys> {
        let [sha512, sha256] = &self.made;
        match hash {
            Hash::Sha512 => sha512,
            Hash::Sha256 => sha256,
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Users")
            .field("count", &self.entries.len())
            .finish_non_exhaustive()
    }
}
