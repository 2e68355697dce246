//! What can be permitted: actions on destinations, and rights of administrators.

use super::name::DestinationKind;

/// What somebody does with a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Takes messages from a queue.
    Receive,
    /// Sends messages to a queue.
    Send,
    /// Looks at the messages of a queue.
    Browse,
    /// Subscribes to a topic.
    Subscribe,
    /// Sends messages to a topic.
    Publish,
    /// Creates, changes and deletes a durable subscription of a topic.
    Durable,
    /// Uses a durable subscription that is there.
    UseDurable,
    /// Looks at the destination as an administrator.
    View,
    /// Creates it.
    Create,
    /// Deletes it.
    Delete,
    /// Changes its properties.
    Modify,
    /// Drops its messages.
    Purge,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Receive,
        Self::Send,
        Self::Browse,
        Self::Subscribe,
        Self::Publish,
        Self::Durable,
        Self::UseDurable,
        Self::View,
        Self::Create,
        Self::Delete,
        Self::Modify,
        Self::Purge,
    ];

    /// The word of `acl.conf`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Browse => "browse",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Durable => "durable",
            Self::UseDurable => "use_durable",
            Self::View => "view",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Modify => "modify",
            Self::Purge => "purge",
        }
    }

    /// Whether it belongs to administration: checked whether the destination is secure or not.
    #[must_use]
    pub const fn is_administrative(self) -> bool {
        self.right().is_some()
    }

    /// Whether it can be done to a queue or topic.
    #[must_use]
    pub const fn applies_to(self, kind: DestinationKind) -> bool {
        match self {
            Self::Receive | Self::Send | Self::Browse => matches!(kind, DestinationKind::Queue),
            Self::Subscribe | Self::Publish | Self::Durable | Self::UseDurable => {
                matches!(kind, DestinationKind::Topic)
            }
            Self::View | Self::Create | Self::Delete | Self::Modify | Self::Purge => true,
        }
    }

    /// The right that includes it for every destination.
    #[must_use]
    pub const fn right(self) -> Option<AdminRight> {
        match self {
            Self::View => Some(AdminRight::ViewDestination),
            Self::Create => Some(AdminRight::CreateDestination),
            Self::Delete => Some(AdminRight::DeleteDestination),
            Self::Modify => Some(AdminRight::ModifyDestination),
            Self::Purge => Some(AdminRight::PurgeDestination),
            _ => None,
        }
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(u16);

impl Actions {
    /// What `all` means: everything that a client does, nothing of administration.
    #[must_use]
    pub fn all(kind: DestinationKind) -> Self {
        let of_clients = |action: &Action| action.applies_to(kind) && !action.is_administrative();
        Action::ALL.into_iter().filter(of_clients).collect()
    }

    /// Whether the action was given by its name or is included in one that was.
    ///
    /// `durable` includes `use_durable`; whoever may create, delete, modify or purge may view.
    #[must_use]
    pub fn contains(self, action: Action) -> bool {
        let has = |action: Action| self.0 & bit(action) != 0;
        let others: &[Action] = match action {
            Action::UseDurable => &[Action::Durable],
            Action::View => &[
                Action::Create,
                Action::Delete,
                Action::Modify,
                Action::Purge,
            ],
            _ => &[],
        };
        has(action) || others.iter().copied().any(has)
    }

    /// The actions that were given by name, in the order of [`Action::ALL`].
    pub fn named(self) -> impl Iterator<Item = Action> {
        let is_named = move |action: &Action| self.0 & bit(*action) != 0;
        Action::ALL.into_iter().filter(is_named)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set by name and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let bits = actions.into_iter().map(bit);
        Self(bits.fold(0, |set, bit| set | bit))
    }
}

fn bit(action: Action) -> u16 {
    1 << (action as u16)
}

/// A right of an administrator that is not about one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is what its word says")]
pub enum AdminRight {
    ViewAcl,
    ViewAdminAcl,
    ViewBridge,
    ViewConnection,
    ViewDestination,
    ViewDurable,
    ViewFactory,
    ViewGroup,
    ViewMessage,
    ViewRoute,
    ViewServer,
    ViewUser,
    ChangeAcl,
    ChangeAdminAcl,
    ChangeBridge,
    ChangeConnection,
    ChangeDurable,
    ChangeFactory,
    ChangeGroup,
    ChangeMessage,
    ChangeRoute,
    ChangeServer,
    ChangeUser,
    CreateDestination,
    DeleteDestination,
    ModifyDestination,
    PurgeDestination,
    PurgeDurable,
    Shutdown,
}

/// Each right, its word in `acl.conf`, and the right that it includes.
const RIGHTS: [(AdminRight, &str, Option<AdminRight>); 29] = {
    use AdminRight as R;
    [
        (R::ViewAcl, "view-acl", None),
        (R::ViewAdminAcl, "view-admin-acl", None),
        (R::ViewBridge, "view-bridge", None),
        (R::ViewConnection, "view-connection", None),
        (R::ViewDestination, "view-destination", None),
        (R::ViewDurable, "view-durable", None),
        (R::ViewFactory, "view-factory", None),
        (R::ViewGroup, "view-group", None),
        (R::ViewMessage, "view-message", None),
        (R::ViewRoute, "view-route", None),
        (R::ViewServer, "view-server", None),
        (R::ViewUser, "view-user", None),
        (R::ChangeAcl, "change-acl", Some(R::ViewAcl)),
        (R::ChangeAdminAcl, "change-admin-acl", Some(R::ViewAdminAcl)),
        (R::ChangeBridge, "change-bridge", Some(R::ViewBridge)),
        (
            R::ChangeConnection,
            "change-connection",
            Some(R::ViewConnection),
        ),
        (R::ChangeDurable, "change-durable", Some(R::ViewDurable)),
        (R::ChangeFactory, "change-factory", Some(R::ViewFactory)),
        (R::ChangeGroup, "change-group", Some(R::ViewGroup)),
        (R::ChangeMessage, "change-message", Some(R::ViewMessage)),
        (R::ChangeRoute, "change-route", Some(R::ViewRoute)),
        (R::ChangeServer, "change-server", Some(R::ViewServer)),
        (R::ChangeUser, "change-user", Some(R::ViewUser)),
        (
            R::CreateDestination,
            "create-destination",
            Some(R::ViewDestination),
        ),
        (
            R::DeleteDestination,
            "delete-destination",
            Some(R::ViewDestination),
        ),
        (
            R::ModifyDestination,
            "modify-destination",
            Some(R::ViewDestination),
        ),
        (
            R::PurgeDestination,
            "purge-destination",
            Some(R::ViewDestination),
        ),
        (R::PurgeDurable, "purge-durable", Some(R::ViewDurable)),
        (R::Shutdown, "shutdown", None),
    ]
};

impl AdminRight {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        RIGHTS.iter().map(|(right, ..)| *right)
    }

    /// The word of `acl.conf`.
    #[must_use]
    pub fn word(self) -> &'static str {
        let row = RIGHTS.iter().find(|(right, ..)| *right == self);
        row.map_or("", |(_, word, _)| word)
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminRights(u32);

impl AdminRights {
    /// What `all` means.
    #[must_use]
    pub fn all() -> Self {
        AdminRight::all().collect()
    }

    /// What `view-all` means.
    #[must_use]
    pub fn view_all() -> Self {
        let is_view = |right: &AdminRight| right.word().starts_with("view-");
        AdminRight::all().filter(is_view).collect()
    }

    /// Whether the right was given by its name or is included in one that was: whoever may change
    /// something may view it.
    #[must_use]
    pub fn contains(self, right: AdminRight) -> bool {
        let includes = |(own, _, included): &&(AdminRight, &str, Option<AdminRight>)| {
            self.0 & right_bit(*own) != 0 && *included == Some(right)
        };
        self.0 & right_bit(right) != 0 || RIGHTS.iter().any(|row| includes(&row))
    }

    /// The rights that were given by name.
    pub fn named(self) -> impl Iterator<Item = AdminRight> {
        AdminRight::all().filter(move |right| self.0 & right_bit(*right) != 0)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set by name and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<AdminRight> for AdminRights {
    fn from_iter<I: IntoIterator<Item = AdminRight>>(rights: I) -> Self {
        let bits = rights.into_iter().map(right_bit);
        Self(bits.fold(0, |set, bit| set | bit))
    }
}

fn right_bit(right: AdminRight) -> u32 {
    1 << (right as u32)
}
