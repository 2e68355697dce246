//! What a command changes in the configuration files.

use super::answer::Failure;
use super::command::{Object, Verb};
use super::named;
use super::parse::{Arguments, Request};
use crate::config::companions::compose::{self, Setting};
use crate::config::companions::{AclEntry, Companion, Companions, Entry, File, Section};
use crate::model::{
    ADMIN_GROUP, ADMIN_USER, AdminGrant, Bridge, DestinationKind, Durable, Grant, Pattern,
    Principal, StoredPassword,
};

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// For the administrator.
    pub text: String,
    /// The files whose text is another one now.
    pub files: Vec<Companion>,
}

type Result<T> = std::result::Result<T, Failure>;

/// Carries out a command that changes files. `hash` makes keys of a password.
///
/// # Errors
/// Why it cannot be done; nothing counts then.
pub fn change(
    request: &Request,
    files: &mut Companions,
    hash: &dyn Fn(&str) -> StoredPassword,
) -> Result<Edited> {
    let arguments = &request.arguments;
    let mut editor = Editor {
        files,
        arguments,
        changed: Vec::new(),
    };
    let text = match (request.command.verb, request.command.object) {
        (verb, Object::Queue) => editor.destination(verb, DestinationKind::Queue)?,
        (verb, Object::Topic) => editor.destination(verb, DestinationKind::Topic)?,
        (verb, Object::User | Object::Password) => {
            editor.user(verb, request.command.object, hash)?
        }
        (verb, Object::Group) => editor.group(verb)?,
        (verb, Object::Member) => editor.member(verb)?,
        (verb, Object::AdminAcl) => editor.permission(verb, None)?,
        (verb, Object::Durable) => editor.durable(verb)?,
        (verb, Object::Bridge) => editor.bridge(verb)?,
        (verb, Object::Factory) => editor.factory(verb)?,
        _ => {
            let text = format!("`{}` changes no file", request.command.words);
            return Err(Failure::new(501, text));
        }
    };
    let files = editor.changed;
    Ok(Edited { text, files })
}

/// Carries out `delete all`. What the server or its administrators cannot do without stays: the
/// destinations whose names begin with `$`, the user `admin`, the users named by `kept_users`, and
/// the group `$admin`. Nothing to delete is no failure.
///
/// # Errors
/// Why it cannot be done; nothing counts then.
pub fn delete_all(
    request: &Request,
    files: &mut Companions,
    kept_users: &[&str],
) -> Result<Edited> {
    let mut editor = Editor {
        files,
        arguments: &request.arguments,
        changed: Vec::new(),
    };
    let object = request.command.object;
    let is_kept = |key: &String| match object {
        Object::Queue | Object::Topic => key.starts_with('$'),
        Object::User => key == ADMIN_USER || kept_users.contains(&key.as_str()),
        Object::Group => key == ADMIN_GROUP,
        _ => false,
    };
    let (kept, gone): (Vec<_>, Vec<_>) = editor.keys(object).into_iter().partition(is_kept);
    for key in &gone {
        editor.remove(object, key)?;
    }
    let what = request.command.words.rsplit(' ').next().unwrap_or_default();
    let what = match gone.len() {
        1 => what.trim_end_matches('s'),
        _ => what,
    };
    let mut text = format!("{} {what} deleted from the file", gone.len());
    if !kept.is_empty() {
        let verb = if kept.len() == 1 { "stays" } else { "stay" };
        text.push_str(&format!("; {} {verb}", kept.join(", ")));
    }
    let is_meant = |own: &Pattern| !own.as_str().starts_with('$');
    match object {
        Object::Queue => {
            let kind = DestinationKind::Queue;
            text.push_str(&named::made_again(editor.files, &is_meant));
            text.push_str(&named::still_named(editor.files, kind, &is_meant));
        }
        Object::Topic => {
            let kind = DestinationKind::Topic;
            text.push_str(&named::still_named(editor.files, kind, &is_meant));
        }
        _ => {}
    }
    let files = editor.changed;
    Ok(Edited { text, files })
}

fn keys<E: Entry>(file: &File<E>) -> Vec<String> {
    file.entries().map(Entry::key).collect()
}

struct Editor<'a> {
    files: &'a mut Companions,
    arguments: &'a Arguments,
    changed: Vec<Companion>,
}

/// Writes an entry; a text that cannot be written is the administrator's to mend.
fn set<E: Entry>(file: &mut File<E>, entry: &E) -> Result<()> {
    file.set(entry).map_err(Failure::usage)
}

fn missing(what: &str, name: &str) -> Failure {
    Failure::missing(format!("there is no {what} `{name}`"))
}

fn there(what: &str, name: &str) -> Failure {
    Failure::conflict(format!("the {what} `{name}` is there already"))
}

impl Editor<'_> {
    fn note(&mut self, which: Companion) {
        if !self.changed.contains(&which) {
            self.changed.push(which);
        }
    }

    // All of a kind

    fn keys(&self, object: Object) -> Vec<String> {
        match object {
            Object::Queue => keys(&self.files.queues),
            Object::Topic => keys(&self.files.topics),
            Object::Durable => keys(&self.files.durables),
            Object::User => keys(&self.files.users),
            Object::Group => keys(&self.files.groups),
            _ => Vec::new(),
        }
    }

    fn remove(&mut self, object: Object, key: &str) -> Result<()> {
        let (is_gone, which) = match object {
            Object::Queue => (self.files.queues.remove(key), Companion::Queues),
            Object::Topic => (self.files.topics.remove(key), Companion::Topics),
            Object::Durable => (self.files.durables.remove(key), Companion::Durables),
            Object::User => return self.delete_user(key).map(drop),
            _ => return self.delete_group(key).map(drop),
        };
        if is_gone {
            self.note(which);
        }
        Ok(())
    }

    // Destinations

    fn destination(&mut self, verb: Verb, kind: DestinationKind) -> Result<String> {
        if matches!(verb, Verb::Grant | Verb::Revoke) {
            return self.permission(verb, Some(kind));
        }
        let name = self.arguments.name(0);
        let given = &self.arguments.settings;
        let which = match kind {
            DestinationKind::Queue => Companion::Queues,
            DestinationKind::Topic => Companion::Topics,
        };
        if verb == Verb::Delete {
            return self.delete_destinations(kind, which);
        }
        let file = match kind {
            DestinationKind::Queue => &mut self.files.queues,
            DestinationKind::Topic => &mut self.files.topics,
        };
        let known = file.get(name).cloned();
        let settings = match (verb, &known) {
            (Verb::Create, Some(_)) => return Err(there(kind.word(), name)),
            (Verb::Create | Verb::SetProperties, _) => given.clone(),
            (_, None) => return Err(missing(kind.word(), name)),
            (Verb::AddProperties, Some(known)) => {
                let mut settings = compose::settings_of(known).map_err(Failure::usage)?;
                settings.retain(|own| !given.iter().any(|it| is_same(&it.0, &own.0)));
                settings.extend(given.iter().cloned());
                settings
            }
            (_, Some(known)) => {
                let mut settings = compose::settings_of(known).map_err(Failure::usage)?;
                settings.retain(|own| !given.iter().any(|it| is_same(&it.0, &own.0)));
                settings
            }
        };
        if verb == Verb::SetProperties && known.is_none() {
            return Err(missing(kind.word(), name));
        }
        if verb == Verb::RemoveProperties {
            // Names that are no properties are told, not passed over.
            let named: Vec<Setting> = given
                .iter()
                .map(|(name, _)| (name.clone(), Some(String::new())))
                .collect();
            compose::destination(kind, name, &named).map_err(Failure::usage)?;
        }
        let entry = compose::destination(kind, name, &settings).map_err(Failure::usage)?;
        set(file, &entry)?;
        self.note(which);
        let did = if verb == Verb::Create {
            "created"
        } else {
            "changed"
        };
        Ok(format!("{kind} {name} {did}"))
    }

    fn delete_destinations(&mut self, kind: DestinationKind, which: Companion) -> Result<String> {
        let name = self.arguments.name(0);
        let pattern = Pattern::parse(name).map_err(Failure::usage)?;
        let is_meant = |own: &Pattern| {
            *own == pattern || (!own.is_wildcard() && pattern.matches(own.as_str()))
        };
        if kind == DestinationKind::Queue {
            named::check_bridges(self.files, &is_meant)?;
        }
        let file = match kind {
            DestinationKind::Queue => &mut self.files.queues,
            DestinationKind::Topic => &mut self.files.topics,
        };
        let meant = file.entries().filter(|entry| is_meant(&entry.name));
        let keys: Vec<String> = meant.map(Entry::key).collect();
        for key in &keys {
            file.remove(key);
        }
        if keys.is_empty() {
            return Err(missing(kind.word(), name));
        }
        self.note(which);
        let still_named = named::still_named(self.files, kind, &is_meant);
        Ok(format!("{kind} {} deleted{still_named}", keys.join(", ")))
    }

    // People

    fn user(
        &mut self,
        verb: Verb,
        object: Object,
        hash: &dyn Fn(&str) -> StoredPassword,
    ) -> Result<String> {
        let name = self.arguments.name(0);
        let known = self.files.users.get(name).cloned();
        let keys = |password: &str| match password {
            "" => StoredPassword::Empty,
            password => hash(password),
        };
        let mut password = self.arguments.setting("password").map(keys);
        let mut description = self.arguments.names.get(1).cloned();
        for (name, _) in &self.arguments.settings {
            if !is_same(name, "password") {
                let text = format!("`{name}` is not known; write password=PASSWORD");
                return Err(Failure::usage(text));
            }
        }
        if object == Object::Password {
            if self.arguments.names.len() < 2 {
                let text = "the new password is missing; write set password USER PASSWORD, with \"\" \
                            for none";
                return Err(Failure::usage(text));
            }
            password = Some(keys(self.arguments.name(1)));
            description = None;
        }
        if verb == Verb::Delete && name == ADMIN_USER {
            let text = "the user `admin` is always there; set a password that nobody knows";
            return Err(Failure::conflict(text));
        }
        let user = match (verb, known) {
            (Verb::Create, Some(_)) => return Err(there("user", name)),
            (Verb::Create, None) => compose::user(
                name,
                password.unwrap_or(StoredPassword::Empty),
                &description.unwrap_or_default(),
            )
            .map_err(Failure::usage)?,
            (_, None) => return Err(missing("user", name)),
            (Verb::Delete, Some(_)) => return self.delete_user(name),
            (_, Some(mut user)) => {
                user.password = password.unwrap_or(user.password);
                user.description = description.unwrap_or(user.description);
                user
            }
        };
        set(&mut self.files.users, &user)?;
        self.note(Companion::Users);
        let did = if verb == Verb::Create {
            "created"
        } else {
            "changed"
        };
        Ok(format!("user {name} {did}"))
    }

    fn delete_user(&mut self, name: &str) -> Result<String> {
        self.files.users.remove(name);
        self.note(Companion::Users);
        let groups: Vec<_> = self.files.groups.entries().cloned().collect();
        let mut left = Vec::new();
        for mut group in groups {
            if group.members.remove(name) {
                set(&mut self.files.groups, &group)?;
                self.note(Companion::Groups);
                left.push(group.name);
            }
        }
        let permissions = self.forget(&Principal::User(name.to_owned()));
        let mut text = format!("user {name} deleted");
        if !left.is_empty() {
            text.push_str(&format!(", also from {}", left.join(", ")));
        }
        Ok(text + &permissions)
    }

    fn group(&mut self, verb: Verb) -> Result<String> {
        let name = self.arguments.name(0);
        let is_there = self.files.groups.get(name).is_some();
        if verb == Verb::Delete {
            return self.delete_group(name);
        }
        if is_there {
            return Err(there("group", name));
        }
        let group = compose::group(name, self.arguments.name(1)).map_err(Failure::usage)?;
        set(&mut self.files.groups, &group)?;
        self.note(Companion::Groups);
        Ok(format!("group {name} created"))
    }

    fn delete_group(&mut self, name: &str) -> Result<String> {
        if !self.files.groups.remove(name) {
            return Err(missing("group", name));
        }
        self.note(Companion::Groups);
        let permissions = self.forget(&Principal::Group(name.to_owned()));
        Ok(format!("group {name} deleted{permissions}"))
    }

    /// Permissions of somebody who is not there any more. Says how many there were.
    fn forget(&mut self, gone: &Principal) -> String {
        let entries = self.files.acl.entries();
        let keys: Vec<String> = entries
            .filter(|entry| entry.principal() == gone)
            .map(Entry::key)
            .collect();
        for key in &keys {
            self.files.acl.remove(key);
            self.note(Companion::Acl);
        }
        match keys.len() {
            0 => String::new(),
            1 => ", with 1 permission".to_owned(),
            count => format!(", with {count} permissions"),
        }
    }

    fn member(&mut self, verb: Verb) -> Result<String> {
        let (name, users) = match self.arguments.names.split_first() {
            Some((name, users)) if !users.is_empty() => (name.as_str(), users),
            _ => return Err(Failure::usage("write the group, then its members")),
        };
        let mut group = match self.files.groups.get(name) {
            Some(group) => group.clone(),
            None => return Err(missing("group", name)),
        };
        for user in users {
            if self.files.users.get(user).is_none() && verb == Verb::Add {
                return Err(missing("user", user));
            }
            let is_change = match verb {
                Verb::Add => group.members.insert(user.clone()),
                _ => group.members.remove(user),
            };
            if !is_change {
                let is = if verb == Verb::Add { "a" } else { "no" };
                let text = format!("`{user}` is {is} member of `{name}` already");
                return Err(Failure::conflict(text));
            }
        }
        set(&mut self.files.groups, &group)?;
        self.note(Companion::Groups);
        Ok(format!("group {name} changed"))
    }

    // Permissions

    fn permission(&mut self, verb: Verb, kind: Option<DestinationKind>) -> Result<String> {
        let arguments = self.arguments;
        let name = kind.map_or("", |_| arguments.name(0));
        let principal = compose::principal(arguments.setting("user"), arguments.setting("group"));
        let principal = principal.map_err(Failure::usage)?;
        let words: Vec<&str> = arguments.bare().collect();
        for (name, value) in &arguments.settings {
            if value.is_some() && !is_same(name, "user") && !is_same(name, "group") {
                return Err(Failure::usage(format!("`{name}=` is not known")));
            }
        }
        if verb == Verb::Grant {
            self.check_principal(&principal)?;
        }
        let is_all =
            verb == Verb::Revoke && words.iter().any(|word| *word == "*" || *word == "all");
        let wanted = match is_all {
            true => None,
            false => Some(
                compose::permission(kind, name, principal.clone(), words.into_iter())
                    .map_err(Failure::usage)?,
            ),
        };
        let key = match (&wanted, kind) {
            (Some(entry), _) => entry.key(),
            (None, Some(kind)) => {
                compose::permission(kind.into(), name, principal, ["view"].into_iter())
                    .map_err(Failure::usage)?
                    .key()
            }
            (None, None) => compose::permission(None, "", principal, ["all"].into_iter())
                .map_err(Failure::usage)?
                .key(),
        };
        let known = joined(self.files.acl.entries().filter(|entry| entry.key() == key));
        let text = match verb {
            Verb::Grant => {
                let entries = known.iter().chain(wanted.iter());
                let entry = joined(entries).ok_or_else(|| missing("permission", &key))?;
                set(&mut self.files.acl, &entry)?;
                format!("permission {key} granted")
            }
            _ => {
                let known = known.ok_or_else(|| missing("permission", &key))?;
                match wanted.and_then(|wanted| without(&known, &wanted)) {
                    Some(left) => set(&mut self.files.acl, &left)?,
                    None => {
                        self.files.acl.remove(&key);
                    }
                }
                format!("permission {key} revoked")
            }
        };
        self.note(Companion::Acl);
        Ok(text)
    }

    fn check_principal(&self, principal: &Principal) -> Result<()> {
        let is_there = match principal {
            Principal::User(name) => name == ADMIN_USER || self.files.users.get(name).is_some(),
            Principal::Group(name) => {
                name == crate::model::ALL_GROUP || self.files.groups.get(name).is_some()
            }
        };
        let (word, name) = principal.parts();
        match is_there {
            true => Ok(()),
            false => Err(missing(&word.to_ascii_lowercase(), name)),
        }
    }

    // The rest

    fn durable(&mut self, verb: Verb) -> Result<String> {
        let arguments = self.arguments;
        if verb == Verb::Create {
            let (topic, name) = (arguments.name(0), arguments.name(1));
            let durable = compose::durable(topic, name, &arguments.settings);
            let durable = durable.map_err(Failure::usage)?;
            if self.files.durables.get(&durable.key()).is_some() {
                return Err(there("durable", &durable.key()));
            }
            set(&mut self.files.durables, &durable)?;
            self.note(Companion::Durables);
            return Ok(format!("durable {name} created"));
        }
        let (name, client) = (arguments.name(0), arguments.name(1));
        let is_meant =
            |it: &&Durable| it.name == name && (client.is_empty() || it.client_id == client);
        // With a user it is none of the file, which names no users.
        let is_meant = |it: &&Durable| arguments.name(2).is_empty() && is_meant(it);
        let found = self.files.durables.entries().find(is_meant);
        let key = found
            .map(Entry::key)
            .ok_or_else(|| missing("durable", name))?;
        self.files.durables.remove(&key);
        self.note(Companion::Durables);
        Ok(format!("durable {name} deleted"))
    }

    fn bridge(&mut self, verb: Verb) -> Result<String> {
        let arguments = self.arguments;
        if let Some((name, _)) = arguments
            .settings
            .iter()
            .find(|(name, _)| !is_same(name, "source") && !is_same(name, "target"))
        {
            let text = match is_same(name, "selector") {
                true => "selectors are not supported by this version".to_owned(),
                false => format!("`{name}` is not known; write source= and target="),
            };
            return Err(Failure::usage(text));
        }
        let source = arguments.setting("source").unwrap_or("");
        let bridge = compose::bridge(source).map_err(Failure::usage)?;
        let key = bridge.key();
        let known = self.files.bridges.get(&key).cloned();
        let target = arguments.setting("target");
        let changed: Option<Bridge> = match (verb, known, target) {
            (Verb::Create, known, target) => {
                let target = target.unwrap_or("");
                let mut alone = bridge.clone();
                compose::add_target(&mut alone, target).map_err(Failure::usage)?;
                let mut bridge = known.unwrap_or(bridge);
                if alone.targets.iter().any(|own| bridge.targets.contains(own)) {
                    let text = format!("the bridge from {key} to {target} is there already");
                    return Err(Failure::conflict(text));
                }
                compose::add_target(&mut bridge, target).map_err(Failure::usage)?;
                Some(bridge)
            }
            (_, None, _) => return Err(missing("bridge", &key)),
            (_, Some(_), None) => None,
            (_, Some(mut known), Some(target)) => {
                let mut gone = bridge;
                compose::add_target(&mut gone, target).map_err(Failure::usage)?;
                let before = known.targets.len();
                known.targets.retain(|own| !gone.targets.contains(own));
                if known.targets.len() == before {
                    return Err(missing("target", target));
                }
                Some(known).filter(|known| !known.targets.is_empty())
            }
        };
        match changed {
            Some(bridge) => set(&mut self.files.bridges, &bridge)?,
            None => {
                self.files.bridges.remove(&key);
            }
        }
        self.note(Companion::Bridges);
        let did = if verb == Verb::Create {
            "changed"
        } else {
            "deleted"
        };
        Ok(format!("bridge {key} {did}"))
    }

    fn factory(&mut self, verb: Verb) -> Result<String> {
        let arguments = self.arguments;
        let name = arguments.name(0);
        let known = self.files.factories.get(name).cloned();
        let given = &arguments.settings;
        let is_given = |own: &str| given.iter().any(|(name, _)| is_same(name, own));
        let kept = |known: &Section| -> Vec<Setting> {
            let own = known.settings.iter();
            own.filter(|(name, _)| !is_given(name))
                .map(|(name, value)| (name.clone(), Some(value.expose().to_owned())))
                .collect()
        };
        let settings = match (verb, &known) {
            (Verb::Create, Some(_)) => return Err(there("factory", name)),
            (Verb::Create, None) => {
                let kind = ("type".to_owned(), Some(arguments.name(1).to_owned()));
                std::iter::once(kind).chain(given.iter().cloned()).collect()
            }
            (_, None) => return Err(missing("factory", name)),
            (Verb::Delete, _) => {
                self.files.factories.remove(name);
                self.note(Companion::Factories);
                return Ok(format!("factory {name} deleted"));
            }
            (Verb::SetProperties, Some(known)) => {
                let kind = known.get("type").unwrap_or("generic").to_owned();
                let mut settings = given.clone();
                if !is_given("type") {
                    settings.insert(0, ("type".to_owned(), Some(kind)));
                }
                settings
            }
            (Verb::AddProperties, Some(known)) => kept(known)
                .into_iter()
                .chain(given.iter().cloned())
                .collect(),
            (_, Some(known)) => kept(known),
        };
        let factory = compose::factory(name, &settings).map_err(Failure::usage)?;
        set(&mut self.files.factories, &factory)?;
        self.note(Companion::Factories);
        let did = if verb == Verb::Create {
            "created"
        } else {
            "changed"
        };
        Ok(format!("factory {name} {did}"))
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// All permissions of entries with one key.
fn joined<'a>(entries: impl Iterator<Item = &'a AclEntry>) -> Option<AclEntry> {
    entries.cloned().reduce(|one, other| match (one, other) {
        (AclEntry::Destination(one), AclEntry::Destination(other)) => {
            AclEntry::Destination(Grant {
                actions: one.actions.union(other.actions),
                ..one
            })
        }
        (AclEntry::Admin(one), AclEntry::Admin(other)) => AclEntry::Admin(AdminGrant {
            rights: one.rights.union(other.rights),
            ..one
        }),
        (one, _) => one,
    })
}

/// What is left of an entry; `None` for nothing.
fn without(known: &AclEntry, gone: &AclEntry) -> Option<AclEntry> {
    let left = match (known.clone(), gone) {
        (AclEntry::Destination(known), AclEntry::Destination(gone)) => {
            AclEntry::Destination(Grant {
                actions: known.actions.without(gone.actions),
                ..known
            })
        }
        (AclEntry::Admin(known), AclEntry::Admin(gone)) => AclEntry::Admin(AdminGrant {
            rights: known.rights.without(gone.rights),
            ..known
        }),
        (known, _) => known,
    };
    (!left.permissions().is_empty()).then_some(left)
}
