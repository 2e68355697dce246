//! All that the configuration files beside the main file mean to a running server, as one value.

use std::collections::BTreeMap;

use super::access::Access;
use super::name::{DestinationKind, Pattern};
use super::properties::Catalogue;
use super::secret::StoredPassword;

/// A durable subscription that the configuration names: a line of `durables.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The topic, or a pattern.
    pub topic: Pattern,
    /// The name of the subscription.
    pub name: String,
    /// The client that it belongs to; empty for none.
    pub client_id: String,
    /// Without the messages that its own connection published.
    pub no_local: bool,
    /// It belongs to a route.
    pub is_route: bool,
}

/// Copies of each message of a destination go to others too: a section of `bridges.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Kind and name of the source; may be a pattern.
    pub source: (DestinationKind, Pattern),
    /// Kinds and names of the targets, no patterns, in order.
    pub targets: Vec<(DestinationKind, Pattern)>,
}

/// Destinations and who may use them. Never changed in place: a server that reads its files again, or
/// whose administrator changes one, gets a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Whether users and permissions are checked (`authorization`).
    pub authorization: bool,
    /// Each user and its password, as it is kept.
    pub users: BTreeMap<String, StoredPassword>,
    /// Groups, permissions, and what is secure.
    pub access: Access,
    /// Queues and their properties.
    pub queues: Catalogue,
    /// Topics and their properties.
    pub topics: Catalogue,
    /// Durable subscriptions that always exist.
    pub durables: Vec<Durable>,
    /// Bridges.
    pub bridges: Vec<Bridge>,
}

impl Directory {
    /// The queues or the topics.
    #[must_use]
    pub const fn catalogue(&self, kind: DestinationKind) -> &Catalogue {
        match kind {
            DestinationKind::Queue => &self.queues,
            DestinationKind::Topic => &self.topics,
        }
    }
}
