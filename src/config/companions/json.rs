//! The companion files as sections of the JSON form.
//!
//! Each item takes the way that a line of its file takes: the same names, checks and messages.

use std::path::Path;

use super::file::{Entry, File, Item, Report};
use super::people::check_name;
use super::words::Word;
use super::{AclEntry, Companion, Companions, Destination, Group, Section, User};
use crate::config::tree::{Json, Node};
use crate::config::{Origin, suggest};
use crate::model::{Bridge, DestinationKind, Durable, Principal};

/// An entry and warnings about it.
type Read<E> = Result<(E, Vec<String>), String>;

/// Reads a section into its place.
pub(in crate::config) fn read_section(
    into: &mut Companions,
    which: Companion,
    path: &Path,
    node: &Node,
    report: &mut Report,
) {
    let source = Source { which, path, node };
    match which {
        Companion::Users => into.users = source.read(report, user),
        Companion::Groups => into.groups = source.read(report, group),
        Companion::Acl => into.acl = source.read(report, permission),
        Companion::Queues => {
            into.queues = source.read(report, |fields| destination(DestinationKind::Queue, fields));
        }
        Companion::Topics => {
            into.topics = source.read(report, |fields| destination(DestinationKind::Topic, fields));
        }
        Companion::Durables => into.durables = source.read(report, durable),
        Companion::Bridges => into.bridges = source.read(report, bridge),
        Companion::Factories => {
            into.factories = source.read(report, |fields| section(which, fields))
        }
        Companion::Stores => into.stores = source.read(report, |fields| section(which, fields)),
        Companion::Routes => into.routes = source.read(report, |fields| section(which, fields)),
    }
}

struct Source<'a> {
    which: Companion,
    path: &'a Path,
    node: &'a Node,
}

impl Source<'_> {
    fn read<E: Entry>(
        &self,
        report: &mut Report,
        read: impl Fn(&mut Fields<'_>) -> Read<E>,
    ) -> File<E> {
        let origin = |line| Origin::File {
            path: self.path.to_owned(),
            line,
        };
        let name = self.which.section();
        let mut items = Vec::new();
        let nodes = match &self.node.value {
            Json::List(nodes) => nodes.as_slice(),
            Json::Null => &[],
            _ => {
                let text = format!("write a list of objects: \"{name}\": [{{...}}, ...]");
                report.fault(origin(self.node.line), name, text);
                &[]
            }
        };
        for (index, node) in nodes.iter().enumerate() {
            let Json::Object(members) = &node.value else {
                report.fault(origin(node.line), name, "each item is an object: {...}");
                continue;
            };
            let mut fields = Fields {
                members,
                taken: Vec::new(),
            };
            match read(&mut fields) {
                Ok((entry, warnings)) => {
                    for text in warnings {
                        report.warn(origin(node.line), &entry.key(), text);
                    }
                    items.push(Item {
                        entry,
                        origin: origin(node.line),
                        index,
                        inner: Vec::new(),
                    });
                }
                Err(text) => report.fault(origin(node.line), name, text),
            }
        }
        super::file::report_doubles(&items, report);
        File::section(self.which, self.path, items)
    }
}

/// The members of an item, of which each must be taken.
struct Fields<'a> {
    members: &'a [(String, Node)],
    taken: Vec<&'static str>,
}

impl Fields<'_> {
    fn take(&mut self, name: &'static str) -> Option<&Json> {
        self.taken.push(name);
        let member = self.members.iter().find(|(other, _)| other == name);
        member.map(|(_, node)| &node.value)
    }

    fn text(&mut self, name: &'static str) -> Result<String, String> {
        let wrong = || format!("`{name}`: write a text");
        self.take(name)
            .map_or(Ok(String::new()), |value| value.plain().ok_or_else(wrong))
    }

    fn needed(&mut self, name: &'static str) -> Result<String, String> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Err(format!("`{name}` is missing; write \"{name}\": \"...\""));
        }
        Ok(text)
    }

    /// Texts, or objects with a `name`.
    fn texts(&mut self, name: &'static str) -> Result<Vec<String>, String> {
        let wrong = || format!("`{name}`: write a list of texts");
        match self.take(name) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Text(text)) => Ok(vec![text.clone()]),
            Some(Json::List(nodes)) => nodes
                .iter()
                .map(|node| match &node.value {
                    Json::Text(text) => Ok(text.clone()),
                    Json::Object(members) => {
                        let mut inner = Fields {
                            members,
                            taken: Vec::new(),
                        };
                        let text = inner.needed("name")?;
                        inner.finish().map(|()| text)
                    }
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// What nobody has taken: property names and values.
    fn rest(&mut self) -> Result<Vec<Word>, String> {
        let mut words = Vec::new();
        for (name, node) in self.members {
            if self.taken.contains(&name.as_str()) {
                continue;
            }
            let value = match &node.value {
                Json::Flag(true) => None,
                Json::List(nodes) => {
                    let texts: Option<Vec<String>> =
                        nodes.iter().map(|node| node.value.plain()).collect();
                    texts.map(|texts| texts.join(","))
                }
                value => value.plain(),
            };
            if value.is_none() && !matches!(node.value, Json::Flag(_)) {
                return Err(format!("`{name}`: write a text, a number or true/false"));
            }
            words.push(Word {
                name: name.clone(),
                value,
            });
        }
        Ok(words)
    }

    fn finish(&self) -> Result<(), String> {
        for (index, (name, _)) in self.members.iter().enumerate() {
            if !self.taken.contains(&name.as_str()) {
                let hint = suggest::hint(name, &self.taken);
                return Err(format!("unknown key `{name}`{hint}"));
            }
            if self
                .members
                .iter()
                .take(index)
                .any(|(other, _)| other == name)
            {
                return Err(format!("`{name}` stands there twice; remove one"));
            }
        }
        Ok(())
    }
}

fn user(fields: &mut Fields<'_>) -> Read<User> {
    let name = fields.needed("name")?;
    let (password, description) = (fields.text("password")?, fields.text("description")?);
    fields.finish()?;
    let user = User::new(&name, &password, &description)?;
    let warnings = user.warnings();
    Ok((user, warnings))
}

fn group(fields: &mut Fields<'_>) -> Read<Group> {
    let (name, description) = (fields.needed("name")?, fields.text("description")?);
    let mut group = Group::new(&name, &description)?;
    for member in fields.texts("members")? {
        group.members.insert(check_name(&member, "user")?);
    }
    fields.finish()?;
    Ok((group, Vec::new()))
}

/// `{"queue": "orders", "user": "bob", "permissions": ["receive"]}`, or `"admin": true` in place
/// of the destination.
fn permission(fields: &mut Fields<'_>) -> Read<AclEntry> {
    const SHAPE: &str = "write \"queue\" or \"topic\" or \"admin\": true, then \"user\" or \
                         \"group\", then \"permissions\": [\"...\"]";
    let subjects = (
        fields.text("queue")?,
        fields.text("topic")?,
        fields.text("admin")?,
    );
    let (user, group) = (fields.text("user")?, fields.text("group")?);
    let permissions = fields.texts("permissions")?;
    fields.finish()?;
    let (kind, name) = match (
        subjects.0.as_str(),
        subjects.1.as_str(),
        subjects.2.as_str(),
    ) {
        (queue, "", "" | "false") if !queue.is_empty() => (Some(DestinationKind::Queue), queue),
        ("", topic, "" | "false") if !topic.is_empty() => (Some(DestinationKind::Topic), topic),
        ("", "", "true") => (None, ""),
        _ => return Err(SHAPE.to_owned()),
    };
    let principal = match (user.as_str(), group.as_str()) {
        (name, "") if !name.is_empty() => Principal::User(check_name(name, "user")?),
        ("", name) if !name.is_empty() => Principal::Group(check_name(name, "group")?),
        _ => return Err(SHAPE.to_owned()),
    };
    let words = permissions
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim);
    Ok((AclEntry::new(kind, name, principal, words)?, Vec::new()))
}

fn destination(kind: DestinationKind, fields: &mut Fields<'_>) -> Read<Destination> {
    let name = fields.needed("name")?;
    Destination::new(kind, &name, &fields.rest()?)
}

fn durable(fields: &mut Fields<'_>) -> Read<Durable> {
    let (topic, name) = (fields.needed("topic")?, fields.needed("name")?);
    Durable::new(&topic, &name, &fields.rest()?)
}

/// `{"source": {"type": "topic", "name": "a"}, "targets": [{"type": "queue", "name": "b"}]}`
fn bridge(fields: &mut Fields<'_>) -> Read<Bridge> {
    const SHAPE: &str = "write \"source\": {\"type\": \"topic\", \"name\": \"...\"} and \
                         \"targets\": [{\"type\": \"queue\", \"name\": \"...\"}]";
    let (kind, name, selector) = end(fields.take("source")).ok_or(SHAPE)??;
    let mut bridge = Bridge::new(&kind, &name)?;
    if selector {
        return Err("`selector` belongs to a target, not to the source".to_owned());
    }
    let Some(Json::List(targets)) = fields.take("targets") else {
        return Err(SHAPE.to_owned());
    };
    for target in targets {
        let (kind, name, selector) = end(Some(&target.value)).ok_or(SHAPE)??;
        bridge.add(&kind, &name, selector)?;
    }
    fields.finish()?;
    Ok((bridge, Vec::new()))
}

/// Kind and name of an end of a bridge, and whether it has a selector.
fn end(value: Option<&Json>) -> Option<Result<(String, String, bool), String>> {
    let Some(Json::Object(members)) = value else {
        return None;
    };
    let mut fields = Fields {
        members,
        taken: Vec::new(),
    };
    let mut read = || {
        let (kind, name) = (fields.needed("type")?, fields.needed("name")?);
        let selector = fields.text("selector")?;
        fields.finish()?;
        Ok((kind, name, !selector.is_empty()))
    };
    Some(read())
}

fn section(which: Companion, fields: &mut Fields<'_>) -> Read<Section> {
    let name = fields.needed("name")?;
    let mut section = Section::new(&name)?;
    let mut warnings = Vec::new();
    if which == Companion::Factories && !fields.texts("jndinames")?.is_empty() {
        warnings.push("`jndinames` have no effect: there is no directory of names".to_owned());
    }
    if let Some(Json::Object(members)) = fields.take("ssl") {
        for (name, node) in members {
            let prefix = if name.starts_with("ssl_") { "" } else { "ssl_" };
            let text = node.value.plain().ok_or("`ssl`: write texts")?;
            section.add(which, &format!("{prefix}{name}"), &text)?;
        }
    }
    for word in fields.rest()? {
        let text = word.value.unwrap_or_else(|| "true".to_owned());
        section.add(which, &word.name, &text)?;
    }
    if let Some(text) = section.missing(which) {
        return Err(format!("{name}: {text}"));
    }
    warnings.extend(section.warning(which));
    Ok((section, warnings))
}
