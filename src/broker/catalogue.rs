//! Names of queues.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::QueueId;

/// Longest name of a queue, bytes.
const NAME_BYTES_MAX: usize = 1024;

/// How long a queue lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Until it is deleted.
    Permanent,
    /// As long as the connection that made it; after a restart without one, until it is claimed or
    /// given up.
    Temporary {
        /// Number of the owning connection.
        owner: Option<u64>,
    },
}

/// What is known of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntry {
    /// Its address.
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

    pub(super) fn add(&mut self, id: QueueId, name: Arc<str>, kind: QueueKind) {
        self.by_name.insert(Arc::clone(&name), id);
        self.by_id.insert(id, QueueEntry { name, kind });
    }

    pub(super) fn claim(&mut self, id: QueueId, owner: u64) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && let QueueKind::Temporary { owner: current } = &mut entry.kind
        {
            *current = Some(owner);
        }
    }

    pub(super) fn remove(&mut self, id: QueueId) {
        if let Some(entry) = self.by_id.remove(&id) {
            self.by_name.remove(&entry.name);
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
