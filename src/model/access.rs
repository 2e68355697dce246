//! Who may do what.

use std::collections::{BTreeMap, BTreeSet};

use super::name::{DestinationKind, Pattern};
use super::rights::{Action, Actions, AdminRight, AdminRights};

/// The user who is always there and may do everything.
pub const ADMIN_USER: &str = "admin";
/// The group whose members may do everything.
pub const ADMIN_GROUP: &str = "$admin";
/// The group that every user belongs to.
pub const ALL_GROUP: &str = "all";

/// Whom something is permitted to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// One user.
    User(String),
    /// All members of a group; those of the group `all` are all users.
    Group(String),
}

/// A permission for destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Queues or topics.
    pub kind: DestinationKind,
    /// Which.
    pub name: Pattern,
    /// Who.
    pub principal: Principal,
    /// What.
    pub actions: Actions,
}

/// A permission for administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminGrant {
    /// Who.
    pub principal: Principal,
    /// What.
    pub rights: AdminRights,
}

/// All groups and permissions, and the destinations that are secure.
///
/// Nothing is permitted that no grant permits; grants add up, none takes anything away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The members of each group.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Permissions for destinations.
    pub grants: Vec<Grant>,
    /// Permissions for administration.
    pub admin_grants: Vec<AdminGrant>,
    /// Names and patterns of queues with the property `secure`.
    pub secure_queues: Vec<Pattern>,
    /// The same for topics.
    pub secure_topics: Vec<Pattern>,
}

impl Access {
    /// The groups of a user, `all` included.
    #[must_use]
    pub fn groups_of(&self, user: &str) -> Vec<&str> {
        let named = self
            .groups
            .iter()
            .filter(|(name, members)| name.as_str() != ALL_GROUP && members.contains(user))
            .map(|(name, _)| name.as_str());
        named.chain([ALL_GROUP]).collect()
    }

    /// Whether a user who is in these groups may do this to a destination.
    ///
    /// `name` may be a pattern, as in a subscription: then it must be permitted for every
    /// destination that it stands for and that needs a permission. What clients do needs one
    /// where the destination is secure; what administrators do needs one everywhere.
    #[must_use]
    pub fn allowed(
        &self,
        user: &str,
        groups: &[&str],
        action: Action,
        kind: DestinationKind,
        name: &Pattern,
    ) -> bool {
        let right = action.right();
        if is_administrator(user, groups)
            || right.is_some_and(|right| self.has_right(user, groups, right))
        {
            return true;
        }
        let granted: Vec<&Pattern> = self
            .grants
            .iter()
            .filter(|grant| grant.kind == kind && grant.actions.contains(action))
            .filter(|grant| grant.principal.includes(user, groups))
            .map(|grant| &grant.name)
            .collect();
        let is_covered = |wanted: &Pattern| granted.iter().any(|granted| granted.covers(wanted));
        if is_covered(name) {
            return true;
        }
        if right.is_some() {
            return false;
        }
        // What a pattern stands for is permitted if each secure part of it is.
        let mut secure = self.secure(kind).iter();
        if name.is_wildcard() {
            secure.all(|secure| !secure.overlaps(name) || is_covered(secure))
        } else {
            secure.all(|secure| !secure.covers(name))
        }
    }

    /// Whether a user who is in these groups has a right of an administrator.
    #[must_use]
    pub fn has_right(&self, user: &str, groups: &[&str], right: AdminRight) -> bool {
        let mut grants = self.admin_grants.iter();
        is_administrator(user, groups)
            || grants
                .any(|grant| grant.rights.contains(right) && grant.principal.includes(user, groups))
    }

    /// Whether permissions of clients are checked for a destination, or for any that a pattern
    /// stands for.
    #[must_use]
    pub fn is_secure(&self, kind: DestinationKind, name: &Pattern) -> bool {
        self.secure(kind).iter().any(|secure| secure.overlaps(name))
    }

    fn secure(&self, kind: DestinationKind) -> &[Pattern] {
        match kind {
            DestinationKind::Queue => &self.secure_queues,
            DestinationKind::Topic => &self.secure_topics,
        }
    }
}

impl Principal {
    /// The word of `acl.conf` and the name.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::User(name) => ("USER", name),
            Self::Group(name) => ("GROUP", name),
        }
    }

    fn includes(&self, user: &str, groups: &[&str]) -> bool {
        match self {
            Self::User(name) => name == user,
            Self::Group(name) => name == ALL_GROUP || groups.contains(&name.as_str()),
        }
    }
}

fn is_administrator(user: &str, groups: &[&str]) -> bool {
    user == ADMIN_USER || groups.contains(&ADMIN_GROUP)
}
