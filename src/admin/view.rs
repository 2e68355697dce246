//! What the configuration files say, as answers.

use super::answer::{Answer, Failure, Item};
use super::command::Object;
use super::parse::Request;
use crate::config::companions::{AclEntry, Companions, Entry, Section, User};
use crate::model::{ADMIN_USER, DestinationKind, Pattern, Principal, StoredPassword};

type Result = std::result::Result<Answer, Failure>;

/// A table of what the files describe; `None` when the command is about something else.
pub fn list_files(request: &Request, files: &Companions) -> Option<Result> {
    let arguments = &request.arguments;
    let table = |rows| Ok(Answer::table(request.command.columns, rows));
    Some(match request.command.object {
        Object::User => table(files.users.entries().map(user_row).collect()),
        Object::Group => {
            let rows = files.groups.entries().map(|group| {
                vec![
                    group.name.as_str().into(),
                    group.description.as_str().into(),
                    Item::List(group.members.iter().cloned().collect()),
                ]
            });
            table(rows.collect())
        }
        Object::Member => match files.groups.get(arguments.name(0)) {
            Some(group) => {
                let members = group.members.iter();
                table(members.map(|name| vec![name.as_str().into()]).collect())
            }
            None => Err(missing("group", arguments.name(0))),
        },
        Object::Acl | Object::AdminAcl => permissions(request, files),
        Object::Bridge => {
            let rows = files.bridges.entries().map(|bridge| {
                let targets = bridge.targets.iter();
                let targets = targets.map(|(kind, name)| format!("{kind}:{name}"));
                vec![bridge.key().into(), Item::List(targets.collect())]
            });
            table(rows.collect())
        }
        Object::Route => sections(request, files.routes.entries()),
        Object::Factory => sections(request, files.factories.entries()),
        _ => return None,
    })
}

/// One thing that the files describe; `None` when the command is about something else.
pub fn show_files(request: &Request, files: &Companions) -> Option<Result> {
    let name = request.arguments.name(0);
    Some(match request.command.object {
        Object::User => show_user(name, files),
        Object::Group => match files.groups.get(name) {
            Some(group) => Ok(Answer::record(vec![
                ("name", group.name.as_str().into()),
                ("description", group.description.as_str().into()),
                (
                    "members",
                    Item::List(group.members.iter().cloned().collect()),
                ),
            ])),
            None => Err(missing("group", name)),
        },
        Object::Bridge => match files.bridges.get(name) {
            Some(bridge) => {
                let targets = bridge.targets.iter();
                let targets = targets.map(|(kind, name)| format!("{kind}:{name}"));
                Ok(Answer::record(vec![
                    ("source", bridge.key().into()),
                    ("targets", Item::List(targets.collect())),
                ]))
            }
            None => Err(missing("bridge", name)),
        },
        Object::Factory => match files.factories.get(name) {
            Some(section) => {
                let mut fields: Vec<(&str, Item)> = vec![("name", name.into())];
                let settings = section.settings.iter();
                fields.extend(settings.map(|(key, value)| {
                    let value = match key.contains("password") {
                        true => "(secret)",
                        false => value.expose(),
                    };
                    (key.as_str(), value.into())
                }));
                Ok(Answer::record(fields))
            }
            None => Err(missing("factory", name)),
        },
        _ => return None,
    })
}

fn missing(what: &str, name: &str) -> Failure {
    Failure::missing(format!("there is no {what} `{name}`"))
}

fn password_word(password: &StoredPassword) -> &'static str {
    match password {
        StoredPassword::Empty => "none",
        StoredPassword::Plain(_) => "plain",
        StoredPassword::Keys(_) => "kept",
        StoredPassword::Foreign(_) => "foreign",
    }
}

fn user_row(user: &User) -> Vec<Item> {
    vec![
        user.name.as_str().into(),
        user.description.as_str().into(),
        password_word(&user.password).into(),
    ]
}

fn show_user(name: &str, files: &Companions) -> Result {
    let Some(user) = files.users.get(name) else {
        let what = match name == ADMIN_USER {
            true => "line in users.conf for the user",
            false => "user",
        };
        return Err(missing(what, name));
    };
    let groups = files.groups.entries();
    let groups = groups.filter(|group| group.members.contains(name));
    Ok(Answer::record(vec![
        ("name", name.into()),
        ("description", user.description.as_str().into()),
        ("password", password_word(&user.password).into()),
        ("groups", Item::List(groups.map(Entry::key).collect())),
    ]))
}

/// Permissions for a destination (those of patterns that stand for it, too) or of somebody.
fn permissions(request: &Request, files: &Companions) -> Result {
    let arguments = &request.arguments;
    let (word, name) = (arguments.name(0).to_ascii_lowercase(), arguments.name(1));
    let is_admin = request.command.object == Object::AdminAcl;
    if !matches!(word.as_str(), "" | "queue" | "topic" | "user" | "group")
        || word.is_empty() != name.is_empty()
    {
        let text = format!("write {}", request.command.usage());
        return Err(Failure::usage(text));
    }
    let is_meant = |entry: &AclEntry| match (entry, word.as_str()) {
        (AclEntry::Admin(_), _) => is_admin,
        (AclEntry::Destination(_), _) if is_admin => false,
        (_, "") => true,
        (AclEntry::Destination(grant), "queue" | "topic") => {
            let kind = match word.as_str() {
                "queue" => DestinationKind::Queue,
                _ => DestinationKind::Topic,
            };
            let wanted = Pattern::parse(name);
            grant.kind == kind && wanted.is_ok_and(|wanted| grant.name.overlaps(&wanted))
        }
        (entry, "user") => *entry.principal() == Principal::User(name.to_owned()),
        (entry, _) => *entry.principal() == Principal::Group(name.to_owned()),
    };
    let rows = files
        .acl
        .entries()
        .filter(|entry| is_meant(entry))
        .map(|entry| {
            let destination = match entry {
                AclEntry::Destination(grant) => format!("{}:{}", grant.kind, grant.name),
                AclEntry::Admin(_) => "admin".to_owned(),
            };
            let (word, name) = entry.principal().parts();
            let words = entry.permissions();
            vec![
                destination.into(),
                format!("{}:{name}", word.to_ascii_lowercase()).into(),
                Item::List(words.into_iter().map(str::to_owned).collect()),
            ]
        });
    Ok(Answer::table(request.command.columns, rows.collect()))
}

fn sections<'a>(request: &Request, entries: impl Iterator<Item = &'a Section>) -> Result {
    let columns = request.command.columns;
    let rows = entries.map(|section| {
        let value = |attribute: &str| match attribute {
            "name" => section.name.as_str().into(),
            attribute => section.get(attribute).into(),
        };
        columns.iter().map(|(_, name)| value(name)).collect()
    });
    Ok(Answer::table(columns, rows.collect()))
}
