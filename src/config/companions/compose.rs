//! Entries from what an administrator says: the way that a line of a file takes, without a line.

use super::people::check_name;
use super::words::{Word, properties};
use super::{AclEntry, Companion, Destination, Group, Section, User};
use crate::model::{Bridge, DestinationKind, Durable, Principal, StoredPassword};

/// A property or setting and its value.
pub type Setting = (String, Option<String>);

fn words(settings: &[Setting]) -> Vec<Word> {
    let words = settings.iter().map(|(name, value)| Word {
        name: name.clone(),
        value: value.clone(),
    });
    words.collect()
}

/// A user.
///
/// # Errors
/// The name is none.
pub fn user(name: &str, password: StoredPassword, description: &str) -> Result<User, String> {
    Ok(User {
        name: check_name(name, "user")?,
        password,
        description: description.to_owned(),
    })
}

/// A group without members.
///
/// # Errors
/// The name is none, or that of the group of all users.
pub fn group(name: &str, description: &str) -> Result<Group, String> {
    Group::new(name, description)
}

/// A queue or topic with the properties that are named.
///
/// # Errors
/// What is wrong with the name or a property.
pub fn destination(
    kind: DestinationKind,
    name: &str,
    settings: &[Setting],
) -> Result<Destination, String> {
    Destination::new(kind, name, &words(settings)).map(|(destination, _)| destination)
}

/// The properties of a destination as settings.
///
/// # Errors
/// Never for what was read from a file.
pub fn settings_of(destination: &Destination) -> Result<Vec<Setting>, String> {
    let words = properties(&destination.words().join(","))?;
    Ok(words.into_iter().map(|it| (it.name, it.value)).collect())
}

/// A durable subscription.
///
/// # Errors
/// What is wrong with a name or a property.
pub fn durable(topic: &str, name: &str, settings: &[Setting]) -> Result<Durable, String> {
    if name.is_empty() || name.contains([',', '"']) || name.contains(char::is_whitespace) {
        return Err(format!("`{name}` is not the name of a subscription"));
    }
    Durable::new(topic, name, &words(settings)).map(|(durable, _)| durable)
}

/// A bridge without targets, from `queue:NAME` or `topic:NAME`.
///
/// # Errors
/// It is not written so.
pub fn bridge(source: &str) -> Result<Bridge, String> {
    let (kind, name) = end(source)?;
    Bridge::new(kind, name)
}

/// Adds a target to a bridge.
///
/// # Errors
/// It is there already, is a pattern, or is the source.
pub fn add_target(bridge: &mut Bridge, target: &str) -> Result<(), String> {
    let (kind, name) = end(target)?;
    bridge.add(kind, name, false).map(drop)
}

/// Kind and name of an end of a bridge.
fn end(text: &str) -> Result<(&str, &str), String> {
    text.split_once(':')
        .ok_or_else(|| format!("`{text}`: write queue:NAME or topic:NAME"))
}

/// A permission; for administration without a kind.
///
/// # Errors
/// What is wrong with a name or a permission.
pub fn permission<'a>(
    kind: Option<DestinationKind>,
    name: &str,
    principal: Principal,
    permissions: impl Iterator<Item = &'a str>,
) -> Result<AclEntry, String> {
    AclEntry::new(kind, name, principal, permissions)
}

/// Whom a permission is for: exactly one of the two names.
///
/// # Errors
/// None or both are given, or one is no name.
pub fn principal(user: Option<&str>, group: Option<&str>) -> Result<Principal, String> {
    match (user, group) {
        (Some(name), None) => check_name(name, "user").map(Principal::User),
        (None, Some(name)) => check_name(name, "group").map(Principal::Group),
        _ => Err("write user=NAME or group=NAME".to_owned()),
    }
}

/// A factory.
///
/// # Errors
/// What is wrong with a setting, or missing.
pub fn factory(name: &str, settings: &[Setting]) -> Result<Section, String> {
    let which = Companion::Factories;
    let mut section = Section::new(name)?;
    for (name, value) in settings {
        section.add(which, name, value.as_deref().unwrap_or("true"))?;
    }
    match section.missing(which) {
        Some(text) => Err(text),
        None => Ok(section),
    }
}
