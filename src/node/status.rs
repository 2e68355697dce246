//! Figures for administrators.

use steadfast_storage::StoreStatus;

use crate::broker::{self, QueueKind};

use super::Node;
use super::clients::ReconnectStatus;
use super::peer::Link;
use super::translate::store_queue;

/// Totals of the node since it became active.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) published: u64,
    pub(super) refused: u64,
}

/// Figures of an active server.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// Client connections.
    pub connections: usize,
    /// Links on which clients publish.
    pub publishers: usize,
    /// Links on which clients consume or browse.
    pub consumers: usize,
    /// Queues, temporary ones included.
    pub queues: usize,
    /// Messages taken from clients.
    pub messages_in: u64,
    /// Messages refused.
    pub messages_refused: u64,
    /// Totals of the broker.
    pub broker: broker::Counters,
    /// Bytes of messages that are held ready in memory.
    pub window_bytes: usize,
    /// Bytes that wait for the disk.
    pub backlog_bytes: usize,
    /// Publishers that wait for credit.
    pub publishers_waiting: usize,
    /// Clients that a predecessor knew.
    pub reconnect: ReconnectStatus,
    /// Ownership of the store is in doubt at present.
    pub is_lapsed: bool,
    /// Figures of the store.
    pub store: StoreStatus,
}

/// Figures of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStatus {
    /// Its address.
    pub name: String,
    /// It lives as long as a connection.
    pub is_temporary: bool,
    /// Messages that are not settled.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages on their way to consumers.
    pub in_flight: usize,
    /// Consumers and browsers.
    pub consumers: usize,
}

impl Node {
    /// Figures of the server.
    pub fn status(&self) -> NodeStatus {
        let links = || self.peers.iter().flat_map(|(_, peer)| peer.links.values());
        let publishers = links()
            .filter(|it| matches!(it, Link::Publisher(_)))
            .count();
        NodeStatus {
            connections: self.peers.len(),
            publishers,
            consumers: links().count() - publishers,
            queues: self.broker.queue_count(),
            messages_in: self.counters.published,
            messages_refused: self.counters.refused,
            broker: self.broker.counters(),
            window_bytes: self.broker.window_bytes(),
            backlog_bytes: self.store.backlog_bytes(),
            publishers_waiting: self.starved.len(),
            reconnect: self.clients.reconnect(),
            is_lapsed: self.is_lapsed(),
            store: self.store.status(),
        }
    }

    /// Figures of all queues in the order of their making.
    pub fn queue_status(&self) -> Vec<QueueStatus> {
        let queues = self.broker.queues().map(|(id, entry)| {
            let stats = self.store.queue_stats(store_queue(id));
            QueueStatus {
                name: entry.name.to_string(),
                is_temporary: entry.kind != QueueKind::Permanent,
                messages: stats.messages,
                bytes: stats.bytes,
                in_flight: self.broker.in_flight_count(id),
                consumers: self.broker.consumer_count(id),
            }
        });
        queues.collect()
    }
}
