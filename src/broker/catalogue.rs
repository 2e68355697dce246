//! Names of queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{ClientId, QueueId};

/// Longest name of a queue, bytes.
const NAME_BYTES_MAX: usize = 1024;

/// How long a queue lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Until it is deleted.
    Permanent,
    /// As long as the client that made it, or shorter. It survives a takeover together with its
    /// client.
    Temporary {
        /// The client; `None`: made by a version of the server that did not write it down.
        owner: Option<ClientId>,
    },
    /// It holds what waits for a subscription: messages reach it by what they were published to, not
    /// by its name.
    Subscription {
        /// The client with which it goes; `None`: it stays until it is deleted.
        owner: Option<ClientId>,
    },
}

impl QueueKind {
    /// The client with which the queue goes.
    pub fn owner(self) -> Option<ClientId> {
        match self {
            Self::Permanent => None,
            Self::Temporary { owner } | Self::Subscription { owner } => owner,
        }
    }

    /// Whether it belongs to a subscription.
    pub fn is_subscription(self) -> bool {
        matches!(self, Self::Subscription { .. })
    }
}

/// What is known of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// Its address; for a subscription words that describe it.
    pub name: Arc<str>,
    /// Its life.
    pub kind: QueueKind,
}

/// Why no queue can have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing in it.
    #[error("the address is empty")]
    Empty,
    /// Above the limit.
    #[error("the address is longer than 1024 bytes")]
    TooLong,
    /// Characters that cannot be shown.
    #[error("the address has control characters")]
    Control,
    /// Names beginning with `$` belong to the server.
    #[error("no such node, and addresses beginning with '$' cannot be created")]
    Reserved,
}

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this queue.
    Queue(QueueId),
    /// Nowhere yet: a queue of this name may be created.
    Unknown,
    /// Nowhere.
    Invalid(NameFault),
}

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    by_name: BTreeMap<Arc<str>, QueueId>,
    by_id: BTreeMap<QueueId, QueueEntry>,
    by_owner: BTreeSet<(ClientId, QueueId)>,
}

impl Catalogue {
    pub(super) fn route(&self, address: &str) -> Route {
        if let Some(&queue) = self.by_name.get(address) {
            return Route::Queue(queue);
        }
        match name_fault(address) {
            Some(fault) => Route::Invalid(fault),
            None => Route::Unknown,
        }
    }

    pub(super) fn entry(&self, queue: QueueId) -> Option<&QueueEntry> {
        self.by_id.get(&queue)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (QueueId, &QueueEntry)> {
        self.by_id.iter().map(|(&id, entry)| (id, entry))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn named_len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn owned_by(&self, client: ClientId) -> impl Iterator<Item = QueueId> {
        let all = (client, QueueId(0))..=(client, QueueId(u32::MAX));
        self.by_owner.range(all).map(|&(_, queue)| queue)
    }

    pub(super) fn add(&mut self, id: QueueId, name: Arc<str>, kind: QueueKind) {
        self.by_owner.extend(kind.owner().map(|owner| (owner, id)));
        if !kind.is_subscription() {
            // Older versions could be led to make two of one name: the newer one is that of its client.
            let has_it = self.by_name.entry(Arc::clone(&name)).or_insert(id);
            *has_it = id.max(*has_it);
        }
        self.by_id.insert(id, QueueEntry { name, kind });
    }

    pub(super) fn claim(&mut self, id: QueueId, owner: ClientId) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && let QueueKind::Temporary { owner: current } = &mut entry.kind
        {
            if let Some(former) = current.replace(owner) {
                self.by_owner.remove(&(former, id));
            }
            self.by_owner.insert((owner, id));
        }
    }

    pub(super) fn remove(&mut self, id: QueueId) {
        if let Some(entry) = self.by_id.remove(&id) {
            // A subscription has no name here, and another queue may have this one by now.
            if self.by_name.get(&entry.name) == Some(&id) {
                self.by_name.remove(&entry.name);
            }
            if let Some(owner) = entry.kind.owner() {
                self.by_owner.remove(&(owner, id));
            }
        }
    }
}

fn name_fault(address: &str) -> Option<NameFault> {
    if address.is_empty() {
        Some(NameFault::Empty)
    } else if address.len() > NAME_BYTES_MAX {
        Some(NameFault::TooLong)
    } else if address.chars().any(char::is_control) {
        Some(NameFault::Control)
    } else if address.starts_with('$') {
        Some(NameFault::Reserved)
    } else {
        None
    }
}
