//! What the files must say together.

use super::file::Report;
use super::{AclEntry, Companions};
use crate::config::{Config, Origin};
use crate::model::{
    ADMIN_GROUP, ADMIN_USER, ALL_GROUP, DestinationKind, Pattern, Principal, StoredPassword,
};

/// Stores that are there without being named.
const STORES: [&str; 3] = ["$sys.meta", "$sys.nonfailsafe", "$sys.failsafe"];

/// Finds names that lead nowhere, and what a pair of servers needs.
pub(super) fn together(config: &Config, files: &Companions, report: &mut Report) {
    members(files, report);
    permissions(config, files, report);
    stores(files, report);
    durables(files, report);
    bridges(files, report);
    routes(config, files, report);
    if config.authorization {
        logins(config, files, report);
    }
}

fn has_user(files: &Companions, name: &str) -> bool {
    name == ADMIN_USER || files.users.get(name).is_some()
}

fn members(files: &Companions, report: &mut Report) {
    for item in files.groups.items() {
        for member in &item.entry.members {
            if !has_user(files, member) {
                let text = format!(
                    "its member `{member}` is not among the users of {}; create the user or remove \
                     the member",
                    files.users.path().display()
                );
                report.warn(item.origin.clone(), &item.entry.name, text);
            }
        }
    }
}

fn permissions(config: &Config, files: &Companions, report: &mut Report) {
    for item in files.acl.items() {
        let (what, name, is_known) = match item.entry.principal() {
            Principal::User(name) => ("user", name, has_user(files, name)),
            Principal::Group(name) => {
                let is_predefined = matches!(name.as_str(), ALL_GROUP | ADMIN_GROUP);
                (
                    "group",
                    name,
                    is_predefined || files.groups.get(name).is_some(),
                )
            }
        };
        if !is_known {
            let text = format!("there is no {what} `{name}`; create it or remove the line");
            report.warn(item.origin.clone(), "", text);
        }
        let AclEntry::Destination(grant) = &item.entry else {
            continue;
        };
        if !config.authorization {
            continue;
        }
        let mut entries = files.destinations(grant.kind).entries();
        let is_secure =
            entries.any(|entry| entry.properties.secure && entry.name.overlaps(&grant.name));
        if !is_secure
            && grant
                .actions
                .named()
                .any(|action| !action.is_administrative())
        {
            let text = format!(
                "{} `{}` is not secure, so clients need no permission for it; give it the property \
                 `secure`",
                grant.kind, grant.name
            );
            report.warn(item.origin.clone(), "", text);
        }
    }
}

fn stores(files: &Companions, report: &mut Report) {
    for kind in [DestinationKind::Queue, DestinationKind::Topic] {
        for item in files.destinations(kind).items() {
            let Some(store) = &item.entry.properties.store else {
                continue;
            };
            if !STORES.contains(&store.as_str()) && files.stores.get(store).is_none() {
                let text = format!(
                    "there is no store `{store}`; write [{store}] in {} or the name of another one",
                    files.stores.path().display()
                );
                report.fault(item.origin.clone(), item.entry.name.as_str(), text);
            }
        }
    }
}

/// Whether the files allow such a destination, or say nothing about any.
fn exists(files: &Companions, kind: DestinationKind, name: &Pattern) -> bool {
    let destinations = files.destinations(kind);
    let mut entries = destinations.entries();
    destinations.items().is_empty()
        || entries.any(|entry| {
            entry.name.covers(name) || (name.is_wildcard() && entry.name.overlaps(name))
        })
}

fn missing(files: &Companions, kind: DestinationKind, name: &Pattern) -> String {
    format!(
        "no line of {} allows the {kind} `{name}`; add one",
        files.destinations(kind).path().display()
    )
}

fn durables(files: &Companions, report: &mut Report) {
    for item in files.durables.items() {
        let topic = &item.entry.topic;
        if !exists(files, DestinationKind::Topic, topic) {
            let text = missing(files, DestinationKind::Topic, topic);
            report.fault(item.origin.clone(), &item.entry.name, text);
        }
    }
}

fn bridges(files: &Companions, report: &mut Report) {
    for item in files.bridges.items() {
        let (kind, source) = &item.entry.source;
        let key = format!("{kind}:{source}");
        if !exists(files, *kind, source) {
            report.fault(item.origin.clone(), &key, missing(files, *kind, source));
        }
        if item.entry.targets.is_empty() {
            let text = "the bridge has no target; write queue=name or topic=name below it";
            report.warn(item.origin.clone(), &key, text);
        }
        for (kind, target) in &item.entry.targets {
            if !exists(files, *kind, target) {
                report.fault(item.origin.clone(), &key, missing(files, *kind, target));
            }
        }
    }
}

fn routes(config: &Config, files: &Companions, report: &mut Report) {
    for item in files.routes.items() {
        let name = &item.entry.name;
        if *name == config.server {
            let text = "a route is named as the server at its other end, and this is the name of \
                        this server";
            report.fault(item.origin.clone(), name, text);
        }
        if config.authorization && !has_user(files, name) {
            let text =
                format!("the server at its other end logs in as the user `{name}`; create it");
            report.warn(item.origin.clone(), name, text);
        }
    }
}

/// Passwords that could be kept better.
fn passwords(files: &Companions, report: &mut Report) {
    let mut plain = 0;
    let mut first_plain = None;
    for item in files.users.items() {
        let name = &item.entry.name;
        match item.entry.password {
            StoredPassword::Plain(_) => {
                plain += 1;
                first_plain.get_or_insert_with(|| (item.origin.clone(), name.clone()));
            }
            StoredPassword::Empty if name != ADMIN_USER => {
                let text = "the user has no password, and can only log in with a certificate";
                report.warn(item.origin.clone(), name, text);
            }
            _ => {}
        }
    }
    if let Some((origin, name)) = first_plain {
        let text = format!(
            "{plain} {} readable in this file; write what `steadfast hash-password` makes of a \
             password instead",
            if plain == 1 {
                "password is"
            } else {
                "passwords are"
            }
        );
        report.warn(origin, &name, text);
    }
}

/// What must be there before anybody can log in.
fn logins(config: &Config, files: &Companions, report: &mut Report) {
    let whole = |path: &std::path::Path| Origin::File {
        path: path.to_owned(),
        line: 0,
    };
    let users = whole(files.users.path());
    let main = config.main_file.as_deref().map_or(Origin::Default, whole);
    let admin = files.users.get(ADMIN_USER);
    if admin.is_none_or(|user| user.password == StoredPassword::Empty) {
        let text =
            "the user `admin` has no password: everybody on this host may do everything; set one";
        report.warn(users.clone(), "users", text);
    }
    passwords(files, report);
    if config.peers.is_empty() {
        return;
    }
    let Some(password) = &config.password else {
        let text = "with authorization and ft_active each server logs in to the other: write the \
                    same password = ... on both";
        report.fault(main, "password", text);
        return;
    };
    let name = &config.server;
    match files.users.get(name).map(|user| &user.password) {
        None => {
            let text = format!(
                "there is no user `{name}`, as which the other server logs in; create it with the \
                 password that the parameter `password` has on both servers"
            );
            report.fault(users, "users", text);
        }
        Some(StoredPassword::Plain(own)) if own != password => {
            let text = format!(
                "the user `{name}` has another password than the parameter `password`; write the \
                 same in both places, on both servers"
            );
            report.fault(users, "users", text);
        }
        Some(StoredPassword::Empty) => {
            let text = format!(
                "the user `{name}` has no password; give it that of the parameter `password`"
            );
            report.fault(users, "users", text);
        }
        Some(_) => {}
    }
}
