//! Writing changed entries into the sections of a JSON file.

use std::collections::BTreeMap;

use jsonc_parser::cst::CstObject;

use super::file::{Item, NEW};
use super::words::properties;
use super::{
    AclEntry, Companion, Companions, Destination, Entry, File, Group, Report, Section, User,
};
use crate::config::json;
use crate::config::json_edit::{self, Value};
use crate::config::json_parameters::is_number;
use crate::config::{Given, MainFile};
use crate::model::{Bridge, DestinationKind, Durable, Pattern};

/// Text of the main file, which has the JSON form, with the `changed` sections as `after` has them:
/// what was read from this text and then changed. Keys that an entry does not know stay.
///
/// # Errors
/// An entry that cannot be written so that it is read back as it is.
pub fn write_sections(
    given: &Given,
    file: &MainFile,
    after: &Companions,
    changed: &[Companion],
) -> Result<String, String> {
    let read = |text: &str| {
        let mut report = Report::default();
        json::parse(&file.path, text, given.is_secondary, &mut report)
    };
    let old = read(&file.text);
    let Some((before, _)) = &old.companions else {
        return Err("the file has no sections".to_owned());
    };
    let mut text = file.text.clone();
    for which in changed {
        text = write_section(&text, *which, before, after)?;
    }
    let new = read(&text);
    let is_said = new
        .companions
        .is_some_and(|(own, _)| own.says_the_same(after));
    let parameters = |file: &[crate::config::file::Entry]| -> Vec<(String, String)> {
        let entries = file.iter();
        entries
            .map(|it| (it.name.clone(), it.value.clone()))
            .collect()
    };
    if is_said && parameters(&old.entries) == parameters(&new.entries) {
        return Ok(text);
    }
    let path = file.path.display();
    Err(format!(
        "{path} would be read back as something else; change it by hand"
    ))
}

fn write_section(
    file: &str,
    which: Companion,
    before: &Companions,
    after: &Companions,
) -> Result<String, String> {
    let (root, top) = json_edit::parse(file)?;
    match which {
        Companion::Users => write(&top, which, &before.users, &after.users),
        Companion::Groups => write(&top, which, &before.groups, &after.groups),
        Companion::Acl => write(&top, which, &before.acl, &after.acl),
        Companion::Queues => write(&top, which, &before.queues, &after.queues),
        Companion::Topics => write(&top, which, &before.topics, &after.topics),
        Companion::Durables => write(&top, which, &before.durables, &after.durables),
        Companion::Bridges => write(&top, which, &before.bridges, &after.bridges),
        Companion::Factories => write(&top, which, &before.factories, &after.factories),
        Companion::Stores => write(&top, which, &before.stores, &after.stores),
        Companion::Routes => write(&top, which, &before.routes, &after.routes),
    }
    Ok(root.to_string())
}

fn write<E: Members>(top: &CstObject, which: Companion, before: &File<E>, after: &File<E>) {
    let object = |item: &Item<E>| Value::Object(item.entry.members());
    if json_edit::find(top, which.section()).is_none() {
        let all = after.items().iter().map(object);
        json_edit::append_member(top, which.section(), Value::Array(all.collect()));
        return;
    }
    let list = top.array_value_or_set(which.section());
    let nodes = list.elements();
    // Before any goes: a new one is written as those are that stand there.
    for item in after.items().iter().filter(|item| item.index == NEW) {
        json_edit::append_item(&list, object(item));
    }
    let now = after.items().iter().map(|item| (item.index, &item.entry));
    let now: BTreeMap<usize, &E> = now.collect();
    // From the end: each that goes moves all behind it.
    for item in before.items().iter().rev() {
        let Some(node) = nodes.get(item.index) else {
            continue;
        };
        match (now.get(&item.index), node.as_object()) {
            (Some(entry), Some(object)) if **entry != item.entry => {
                change(&object, &item.entry.members(), &entry.members());
            }
            (Some(_), _) => {}
            (None, _) => json_edit::remove_item(&list, node.clone()),
        }
    }
}

/// Changes as few members as possible.
fn change(object: &CstObject, before: &[Member], after: &[Member]) {
    let find = |members: &[Member], name: &str| {
        let member = members.iter().find(|(other, _)| other == name);
        member.map(|(_, value)| json_edit::compact(value))
    };
    let names = before.iter().chain(after).map(|(name, _)| name.as_str());
    if names
        .into_iter()
        .any(|name| name == "store" && find(before, name) != find(after, name))
    {
        // Another way to say which store it is.
        json_edit::remove(object, "failsafe");
    }
    for (name, _) in before {
        if find(after, name).is_none() {
            json_edit::remove(object, name);
        }
    }
    let changed = after
        .iter()
        .filter(|(name, _)| find(before, name) != find(after, name));
    let (known, new): (Vec<_>, Vec<_>) =
        changed.partition(|(name, _)| json_edit::find_setting(object, name).is_some());
    for (name, value) in known.into_iter().chain(new) {
        json_edit::set(object, name, value);
    }
}

type Member = (String, Value);

/// An entry as an object.
trait Members: Entry {
    fn members(&self) -> Vec<Member>;
}

fn text(name: &str, value: &str) -> Member {
    (name.to_owned(), Value::from(value))
}

/// A member that is left out when there is nothing to say.
fn said(name: &str, value: &str) -> Option<Member> {
    (!value.is_empty()).then(|| text(name, value))
}

fn list<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> Member {
    let values = values.map(Value::from);
    (name.to_owned(), Value::Array(values.collect()))
}

impl Members for User {
    fn members(&self) -> Vec<Member> {
        let mut members = vec![
            text("name", &self.name),
            text("password", self.password.expose()),
        ];
        members.extend(said("description", &self.description));
        members
    }
}

impl Members for Group {
    fn members(&self) -> Vec<Member> {
        let mut members = vec![text("name", &self.name)];
        members.extend(said("description", &self.description));
        members.push(list("members", self.members.iter().map(String::as_str)));
        members
    }
}

impl Members for AclEntry {
    fn members(&self) -> Vec<Member> {
        let subject = match self {
            Self::Destination(grant) => text(grant.kind.word(), grant.name.as_str()),
            Self::Admin(_) => ("admin".to_owned(), Value::Bool(true)),
        };
        let (word, name) = self.principal().parts();
        vec![
            subject,
            text(&word.to_ascii_lowercase(), name),
            list("permissions", self.permissions().into_iter()),
        ]
    }
}

impl Members for Destination {
    fn members(&self) -> Vec<Member> {
        let mut members = vec![text("name", self.name.as_str())];
        // They are read as a line is.
        let words = properties(&self.words().join(",")).unwrap_or_default();
        members.extend(words.into_iter().map(|word| {
            let value = match word.value {
                None => Value::Bool(true),
                Some(number) if is_number(&number) => Value::Number(number),
                Some(text) => Value::String(text),
            };
            (word.name, value)
        }));
        members
    }
}

impl Members for Durable {
    fn members(&self) -> Vec<Member> {
        let flag = |name: &str, is_set: bool| is_set.then(|| (name.to_owned(), Value::Bool(true)));
        let mut members = vec![text("topic", self.topic.as_str()), text("name", &self.name)];
        members.extend(flag("route", self.is_route));
        members.extend(said("clientid", &self.client_id));
        members.extend(flag("nolocal", self.no_local));
        members
    }
}

impl Members for Bridge {
    fn members(&self) -> Vec<Member> {
        let end = |(kind, name): &(DestinationKind, Pattern)| {
            Value::Object(vec![text("type", kind.word()), text("name", name.as_str())])
        };
        let targets = self.targets.iter().map(end);
        vec![
            ("source".to_owned(), end(&self.source)),
            ("targets".to_owned(), Value::Array(targets.collect())),
        ]
    }
}

impl Members for Section {
    fn members(&self) -> Vec<Member> {
        let settings = self.settings.iter();
        let settings = settings.map(|(name, value)| text(name, value.expose()));
        [text("name", &self.name)]
            .into_iter()
            .chain(settings)
            .collect()
    }
}
