//! The files beside the main file: users, groups, permissions, destinations and the rest.
//!
//! Each file is a [`File`] of entries that keeps its text byte for byte: a change rewrites the
//! lines that it is about and no others. What the files say together is asked of [`Companions`].

mod acl;
mod check;
pub mod compose;
mod destinations;
mod file;
mod json;
mod json_write;
mod lines;
mod people;
mod read;
mod sections;
mod subscriptions;
mod words;

use std::path::Path;

pub use acl::AclEntry;
pub use destinations::{Destination, property_help};
pub use file::{Entry, File, Item, Report};
pub use lines::{Comments, Document};
pub use people::{Group, User};
pub use read::{FileReader, read, read_anyway};
pub use sections::Section;

pub use json_write::write_sections;

pub(super) use json::read_section;

use crate::model::{Access, Bridge, Catalogue, DestinationKind, Directory, Durable, Pattern};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the file that its parameter names")]
pub enum Companion {
    Users,
    Groups,
    Acl,
    Queues,
    Topics,
    Durables,
    Bridges,
    Factories,
    Stores,
    Routes,
}

impl Companion {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Users,
        Self::Groups,
        Self::Acl,
        Self::Queues,
        Self::Topics,
        Self::Durables,
        Self::Bridges,
        Self::Factories,
        Self::Stores,
        Self::Routes,
    ];

    /// The parameter of the main file that names it.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Groups => "groups",
            Self::Acl => "acl_list",
            Self::Queues => "queues",
            Self::Topics => "topics",
            Self::Durables => "durables",
            Self::Bridges => "bridges",
            Self::Factories => "factories",
            Self::Stores => "stores",
            Self::Routes => "routes",
        }
    }

    /// The section of the JSON form.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Acl => "acls",
            other => other.parameter(),
        }
    }

    const fn comments(self) -> Comments {
        match self {
            // Passwords and descriptions may have any letters.
            Self::Users => Comments::OwnLines,
            _ => Comments::Anywhere,
        }
    }

    /// Whether a gap in it could let somebody in.
    const fn is_about_access(self) -> bool {
        matches!(
            self,
            Self::Users | Self::Groups | Self::Acl | Self::Queues | Self::Topics
        )
    }
}

/// What all files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companions {
    /// `users.conf`
    pub users: File<User>,
    /// `groups.conf`
    pub groups: File<Group>,
    /// `acl.conf`
    pub acl: File<AclEntry>,
    /// `queues.conf`
    pub queues: File<Destination>,
    /// `topics.conf`
    pub topics: File<Destination>,
    /// `durables.conf`
    pub durables: File<Durable>,
    /// `bridges.conf`
    pub bridges: File<Bridge>,
    /// `factories.conf`
    pub factories: File<Section>,
    /// `stores.conf`
    pub stores: File<Section>,
    /// `routes.conf`
    pub routes: File<Section>,
}

impl Companions {
    /// A JSON file whose sections are empty.
    #[must_use]
    pub fn of_sections(path: &Path) -> Self {
        Self {
            users: File::section(Companion::Users, path, Vec::new()),
            groups: File::section(Companion::Groups, path, Vec::new()),
            acl: File::section(Companion::Acl, path, Vec::new()),
            queues: File::section(Companion::Queues, path, Vec::new()),
            topics: File::section(Companion::Topics, path, Vec::new()),
            durables: File::section(Companion::Durables, path, Vec::new()),
            bridges: File::section(Companion::Bridges, path, Vec::new()),
            factories: File::section(Companion::Factories, path, Vec::new()),
            stores: File::section(Companion::Stores, path, Vec::new()),
            routes: File::section(Companion::Routes, path, Vec::new()),
        }
    }

    /// Whether all files have the same entries in the same order, wherever these stand.
    pub(in crate::config) fn says_the_same(&self, other: &Self) -> bool {
        fn same<E: Entry>(one: &File<E>, other: &File<E>) -> bool {
            one.entries().eq(other.entries())
        }
        same(&self.users, &other.users)
            && same(&self.groups, &other.groups)
            && same(&self.acl, &other.acl)
            && same(&self.queues, &other.queues)
            && same(&self.topics, &other.topics)
            && same(&self.durables, &other.durables)
            && same(&self.bridges, &other.bridges)
            && same(&self.factories, &other.factories)
            && same(&self.stores, &other.stores)
            && same(&self.routes, &other.routes)
    }

    /// The queues or topics and their properties.
    #[must_use]
    pub fn catalogue(&self, kind: DestinationKind) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for entry in self.destinations(kind).entries() {
            catalogue.insert(entry.name.clone(), entry.properties.clone());
        }
        catalogue
    }

    /// Groups, permissions, and what is secure.
    #[must_use]
    pub fn access(&self) -> Access {
        let secure = |kind| -> Vec<Pattern> {
            let entries = self.destinations(kind).entries();
            let secure = entries.filter(|entry| entry.properties.secure);
            secure.map(|entry| entry.name.clone()).collect()
        };
        let mut access = Access {
            secure_queues: secure(DestinationKind::Queue),
            secure_topics: secure(DestinationKind::Topic),
            ..Access::default()
        };
        for group in self.groups.entries() {
            let members = access.groups.entry(group.name.clone()).or_default();
            members.extend(group.members.iter().cloned());
        }
        for entry in self.acl.entries() {
            match entry {
                AclEntry::Destination(grant) => access.grants.push(grant.clone()),
                AclEntry::Admin(grant) => access.admin_grants.push(grant.clone()),
            }
        }
        access
    }

    /// What a running server needs of all of it. `authorization` is the parameter of that name.
    #[must_use]
    pub fn directory(&self, authorization: bool) -> Directory {
        let users = self.users.entries();
        let users = users.map(|user| (user.name.clone(), user.password.clone()));
        Directory {
            authorization,
            users: users.collect(),
            access: self.access(),
            queues: self.catalogue(DestinationKind::Queue),
            topics: self.catalogue(DestinationKind::Topic),
            durables: self.durables.entries().cloned().collect(),
            bridges: self.bridges.entries().cloned().collect(),
        }
    }

    /// Each file, its name, and how many entries it has.
    pub fn counts(&self) -> impl Iterator<Item = (Companion, &Path, usize)> {
        fn row<E: Entry>(which: Companion, file: &File<E>) -> (Companion, &Path, usize) {
            (which, file.path(), file.items().len())
        }
        [
            row(Companion::Users, &self.users),
            row(Companion::Groups, &self.groups),
            row(Companion::Acl, &self.acl),
            row(Companion::Queues, &self.queues),
            row(Companion::Topics, &self.topics),
            row(Companion::Durables, &self.durables),
            row(Companion::Bridges, &self.bridges),
            row(Companion::Factories, &self.factories),
            row(Companion::Stores, &self.stores),
            row(Companion::Routes, &self.routes),
        ]
        .into_iter()
    }

    /// `queues.conf` or `topics.conf`.
    #[must_use]
    pub const fn destinations(&self, kind: DestinationKind) -> &File<Destination> {
        match kind {
            DestinationKind::Queue => &self.queues,
            DestinationKind::Topic => &self.topics,
        }
    }
}

#[cfg(test)]
mod tests;
