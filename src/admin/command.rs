//! What is said about a command in the table.

use crate::model::{Action, AdminRight, DestinationKind};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its word says")]
pub enum Verb {
    List,
    Show,
    Create,
    Delete,
    DeleteAll,
    Set,
    AddProperties,
    SetProperties,
    RemoveProperties,
    Add,
    Remove,
    Grant,
    Revoke,
    Purge,
    Compact,
    RotateLog,
    Shutdown,
    Switchover,
    WhoAmI,
    /// Something that the tool does by itself.
    Local,
}

impl Verb {
    /// The operation of AMQP management.
    #[must_use]
    pub const fn operation(self) -> &'static str {
        match self {
            Self::List => "QUERY",
            Self::Show => "READ",
            Self::Create => "CREATE",
            Self::Delete => "DELETE",
            Self::DeleteAll => "DELETEALL",
            Self::Set => "UPDATE",
            Self::AddProperties => "ADDPROP",
            Self::SetProperties => "SETPROP",
            Self::RemoveProperties => "REMOVEPROP",
            Self::Add => "ADD",
            Self::Remove => "REMOVE",
            Self::Grant => "GRANT",
            Self::Revoke => "REVOKE",
            Self::Purge => "PURGE",
            Self::Compact => "COMPACT",
            Self::RotateLog => "ROTATELOG",
            Self::Shutdown => "SHUTDOWN",
            Self::Switchover => "SWITCHOVER",
            Self::WhoAmI => "WHOAMI",
            Self::Local => "",
        }
    }
}

/// What it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its word says")]
pub enum Object {
    Server,
    Config,
    State,
    Database,
    Store,
    Queue,
    Topic,
    Connection,
    Consumer,
    Subscription,
    Durable,
    User,
    Password,
    Group,
    Member,
    Acl,
    AdminAcl,
    Bridge,
    Route,
    Factory,
    Message,
    Statistics,
}

impl Object {
    /// The type of AMQP management.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Config => "config",
            Self::State => "state",
            Self::Database => "db",
            Self::Store => "store",
            Self::Queue => "queue",
            Self::Topic => "topic",
            Self::Connection => "connection",
            Self::Consumer => "consumer",
            Self::Subscription => "subscription",
            Self::Durable => "durable",
            Self::User => "user",
            Self::Password => "password",
            Self::Group => "group",
            Self::Member => "member",
            Self::Acl => "acl",
            Self::AdminAcl => "admin",
            Self::Bridge => "bridge",
            Self::Route => "route",
            Self::Factory => "factory",
            Self::Message => "message",
            Self::Statistics => "stat",
        }
    }

    /// Queues or topics.
    #[must_use]
    pub const fn destination(self) -> Option<DestinationKind> {
        match self {
            Self::Queue => Some(DestinationKind::Queue),
            Self::Topic => Some(DestinationKind::Topic),
            _ => None,
        }
    }
}

/// Who may use a command when authorization is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Every user.
    Nothing,
    /// Who has a right of administrators.
    Right(AdminRight),
    /// Who has the right for the destination that the command names first, by a permission for it
    /// or for all.
    Destination(Action),
}

/// Whether a server that stands by carries the command out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStandby {
    /// No: it needs the store or clients.
    No,
    /// Yes, unless both servers share one JSON file.
    WithFiles,
    /// Yes, always.
    Always,
}

/// What may follow the names that a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// `name` or `name=value`, with blanks or commas between them.
    Settings,
    /// More names.
    Names,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The words that it begins with, a blank between two.
    pub words: &'static str,
    /// Names that must follow.
    pub needed: &'static [&'static str],
    /// Names that may follow them.
    pub optional: &'static [&'static str],
    /// What may follow the names.
    pub rest: Rest,
    /// How the rest is written, for help.
    pub rest_help: &'static str,
    /// What is done.
    pub verb: Verb,
    /// What it is done to.
    pub object: Object,
    /// Who may.
    pub need: Need,
    /// Where.
    pub standby: OnStandby,
    /// What it is for.
    pub help: &'static str,
    /// Titles and attributes of a table that it answers with.
    pub columns: &'static [(&'static str, &'static str)],
}

impl Command {
    /// How it is written.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut usage = self.words.to_owned();
        for name in self.needed {
            usage.push(' ');
            usage.push_str(&name.to_ascii_uppercase());
        }
        for name in self.optional {
            usage.push_str(&format!(" [{}]", name.to_ascii_uppercase()));
        }
        if !self.rest_help.is_empty() {
            usage.push(' ');
            usage.push_str(self.rest_help);
        }
        usage
    }

    /// Whether it changes something.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        !matches!(
            self.verb,
            Verb::List | Verb::Show | Verb::WhoAmI | Verb::Local
        )
    }

    /// Whether properties of queues or topics may follow.
    #[must_use]
    pub const fn takes_properties(&self) -> bool {
        matches!(self.object, Object::Queue | Object::Topic)
            && matches!(
                self.verb,
                Verb::Create | Verb::AddProperties | Verb::SetProperties | Verb::RemoveProperties
            )
    }

    /// Whether something is gone afterwards, or somebody is no longer served: a person is asked first.
    #[must_use]
    pub const fn is_destructive(&self) -> bool {
        matches!(
            self.verb,
            Verb::Delete | Verb::DeleteAll | Verb::Purge | Verb::Shutdown | Verb::Switchover
        )
    }

    /// Whether it is done by the tool itself.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.verb == Verb::Local
    }
}
