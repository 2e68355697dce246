//! `acl.conf`.

use super::Companion;
use super::file::{Entry, Item, Report, read_lines};
use super::lines::Document;
use super::people::{check_name, principal_word};
use super::words::{split, unquote};
use crate::config::suggest;
use crate::model::{
    Action, Actions, AdminGrant, AdminRight, AdminRights, DestinationKind, Grant, Pattern,
    Principal,
};

const SHAPE: &str = "write QUEUE=name or TOPIC=name or ADMIN, then USER=name or GROUP=name, then \
                     PERM=a,b";

/// A line of `acl.conf`: `QUEUE=name USER=name PERM=a,b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AclEntry {
    /// A permission for destinations.
    Destination(Grant),
    /// A permission for administration.
    Admin(AdminGrant),
}

impl AclEntry {
    /// Whom it permits something.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        match self {
            Self::Destination(grant) => &grant.principal,
            Self::Admin(grant) => &grant.principal,
        }
    }

    /// The words of what it permits; rights of administrators that have a word together are named by it.
    #[must_use]
    pub fn permissions(&self) -> Vec<&'static str> {
        let rights = match self {
            Self::Destination(grant) => return grant.actions.named().map(Action::word).collect(),
            Self::Admin(grant) => grant.rights,
        };
        let sets = [
            ("all", AdminRights::all()),
            ("view-all", AdminRights::view_all()),
        ];
        let whole = sets
            .into_iter()
            .find(|(_, set)| set.without(rights).is_empty());
        let (word, set) = whole.unzip();
        let others = rights.without(set.unwrap_or_default());
        let words = others.named().map(AdminRight::word);
        word.into_iter().chain(words).collect()
    }

    fn parse(line: &str) -> Result<Self, String> {
        let (head, permissions) = split_permissions(line)?;
        let parts = split(head, char::is_whitespace)?;
        let (mut subject, mut principal) = (None, None);
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, Some(unquote(value)?)),
                None => (part, None),
            };
            let is_twice = match (key.to_ascii_uppercase().as_str(), value) {
                ("ADMIN", None) => subject.replace((None, String::new())).is_some(),
                ("QUEUE", Some(name)) => {
                    let kind = Some(DestinationKind::Queue);
                    subject.replace((kind, name)).is_some()
                }
                ("TOPIC", Some(name)) => {
                    let kind = Some(DestinationKind::Topic);
                    subject.replace((kind, name)).is_some()
                }
                ("USER", Some(name)) => {
                    let user = Principal::User(check_name(&name, "user")?);
                    principal.replace(user).is_some()
                }
                ("GROUP", Some(name)) => {
                    let group = Principal::Group(check_name(&name, "group")?);
                    principal.replace(group).is_some()
                }
                _ => return Err(format!("`{part}` is not known; {SHAPE}")),
            };
            if is_twice {
                return Err(format!("`{part}` is one too many; {SHAPE}"));
            }
        }
        let (Some((kind, name)), Some(principal)) = (subject, principal) else {
            return Err(SHAPE.to_owned());
        };
        Self::new(
            kind,
            &name,
            principal,
            permissions.split(',').map(str::trim),
        )
    }

    pub(in crate::config) fn new<'a>(
        kind: Option<DestinationKind>,
        name: &str,
        principal: Principal,
        permissions: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let words = permissions.filter(|word| !word.is_empty());
        if let Some(kind) = kind {
            let name = Pattern::parse(name)?;
            let mut actions = Actions::default();
            for word in words {
                actions = actions.union(read_action(kind, word)?);
            }
            let grant = Grant {
                kind,
                name,
                principal,
                actions,
            };
            let is_empty = grant.actions.is_empty();
            return not_empty(is_empty, Self::Destination(grant));
        }
        let mut rights = AdminRights::default();
        for word in words {
            rights = rights.union(read_right(word)?);
        }
        let grant = AdminGrant { principal, rights };
        not_empty(grant.rights.is_empty(), Self::Admin(grant))
    }
}

fn not_empty(is_empty: bool, entry: AclEntry) -> Result<AclEntry, String> {
    if is_empty {
        return Err("no permission is named; write PERM=a,b".to_owned());
    }
    Ok(entry)
}

/// What stands before `PERM=`, and the list behind it, which may have blanks.
fn split_permissions(line: &str) -> Result<(&str, &str), String> {
    let upper = line.to_ascii_uppercase();
    let at = upper
        .match_indices("PERM=")
        .map(|(at, _)| at)
        .find(|at| {
            let before = line.get(..*at).unwrap_or_default();
            before.ends_with(char::is_whitespace)
        })
        .ok_or_else(|| format!("PERM= is missing; {SHAPE}"))?;
    let head = line.get(..at).unwrap_or_default();
    let list = line.get(at + "PERM=".len()..).unwrap_or_default();
    Ok((head, list.trim().trim_matches('"')))
}

fn read_action(kind: DestinationKind, word: &str) -> Result<Actions, String> {
    if word.eq_ignore_ascii_case("all") {
        return Ok(Actions::all(kind));
    }
    let action = Action::ALL
        .into_iter()
        .find(|action| action.word().eq_ignore_ascii_case(word));
    match action {
        Some(action) if action.applies_to(kind) => Ok([action].into_iter().collect()),
        Some(_) => Err(format!(
            "`{word}` cannot be done to a {kind}; write some of {}",
            words_of(kind).join(", ")
        )),
        None => Err(format!(
            "unknown permission `{word}`{}",
            suggest::hint(word, &words_of(kind))
        )),
    }
}

fn words_of(kind: DestinationKind) -> Vec<&'static str> {
    let actions = Action::ALL.into_iter();
    let words = actions
        .filter(|action| action.applies_to(kind))
        .map(Action::word);
    words.chain(["all"]).collect()
}

fn read_right(word: &str) -> Result<AdminRights, String> {
    match word.to_ascii_lowercase().as_str() {
        "all" => return Ok(AdminRights::all()),
        "view-all" => return Ok(AdminRights::view_all()),
        _ => {}
    }
    let right = AdminRight::all().find(|right| right.word().eq_ignore_ascii_case(word));
    right
        .map(|right| [right].into_iter().collect())
        .ok_or_else(|| {
            let words: Vec<&str> = AdminRight::all()
                .map(AdminRight::word)
                .chain(["all", "view-all"])
                .collect();
            format!(
                "unknown administrative permission `{word}`{}",
                suggest::hint(word, &words)
            )
        })
}

impl Entry for AclEntry {
    const ADD_UP: bool = true;

    fn key(&self) -> String {
        let (word, name) = self.principal().parts();
        let principal = format!("{word}={}", principal_word(name));
        match self {
            Self::Destination(grant) => {
                let kind = grant.kind.word().to_ascii_uppercase();
                format!("{kind}={} {principal}", grant.name)
            }
            Self::Admin(_) => format!("ADMIN {principal}"),
        }
    }

    fn header(&self) -> String {
        format!("{} PERM={}", self.key(), self.permissions().join(","))
    }

    fn read(_: Companion, document: &Document, report: &mut Report) -> Vec<Item<Self>> {
        read_lines(document, report, |line| match Self::parse(line) {
            Ok(entry) => Ok((entry, Vec::new())),
            Err(text) => Err((String::new(), text)),
        })
    }
}
