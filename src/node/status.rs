//! Figures for administrators.

use steadfast_storage::StoreStatus;

use crate::broker::{self, QueueId, QueueKind};

use super::Node;
use super::clients::ReconnectStatus;
use super::peer::Link;
use super::subscriptions::Subscription;
use super::translate::store_queue;

/// Totals of the node since it became active.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) published: u64,
    pub(super) refused: u64,
    /// Copies that a subscription did not get because it was full.
    pub(super) skipped: u64,
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
    /// Subscriptions to topics.
    pub subscriptions: usize,
    /// Copies of messages that a subscription did not get because it was full.
    pub messages_skipped: u64,
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
    /// Messages that the disk refuses to read: they are left out until the next start.
    pub unreadable: usize,
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
    /// Messages that are kept for clients of a predecessor, as they were last written down.
    pub held: u64,
    /// Consumers and browsers.
    pub consumers: usize,
}

/// Figures of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// The topic, or a pattern.
    pub topic: String,
    /// The name of a durable subscription; otherwise that of its link.
    pub name: String,
    /// The container of its client; empty for a configured one that has none.
    pub client: String,
    /// The user of its client; `None`: it is for whoever uses the container.
    pub user: Option<String>,
    /// It outlives its link.
    pub is_durable: bool,
    /// The configuration names it.
    pub is_static: bool,
    /// It does not get what its own client publishes.
    pub no_local: bool,
    /// A link reads it.
    pub is_active: bool,
    /// Messages that are not settled.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages on their way to its link.
    pub in_flight: usize,
    /// Messages that are kept for a client of a predecessor, as they were last written down.
    pub held: u64,
}

impl Node {
    /// Figures of the server.
    pub fn status(&self) -> NodeStatus {
        let links = || self.peers.iter().flat_map(|(_, peer)| peer.links.values());
        let count = |is: fn(&Link) -> bool| links().filter(|it| is(it)).count();
        NodeStatus {
            connections: self.peers.len(),
            publishers: count(|it| matches!(it, Link::Publisher(_))),
            consumers: count(|it| matches!(it, Link::Consumer(_))),
            queues: self.broker.named_queue_count(),
            subscriptions: self.subscriptions.len(),
            messages_skipped: self.counters.skipped,
            messages_in: self.counters.published,
            messages_refused: self.counters.refused,
            broker: self.broker.counters(),
            window_bytes: self.broker.window_bytes(),
            backlog_bytes: self.store.backlog_bytes(),
            publishers_waiting: self.starved.len(),
            unreadable: self.unreadable_count(),
            reconnect: self.clients.reconnect(),
            is_lapsed: self.is_lapsed(),
            store: self.store.status(),
        }
    }

    /// Figures of all subscriptions in the order of their making.
    pub fn subscription_status(&self) -> Vec<SubscriptionStatus> {
        let subscriptions = self.subscriptions.iter();
        let subscriptions = subscriptions.map(|(queue, it)| self.status_of(queue, it));
        subscriptions.collect()
    }

    pub(super) fn status_of(&self, queue: QueueId, it: &Subscription) -> SubscriptionStatus {
        let stats = self.store.queue_stats(store_queue(queue));
        SubscriptionStatus {
            topic: it.topic.to_string(),
            name: it.name.to_string(),
            client: it.container.to_string(),
            user: it.user.as_deref().map(str::to_owned),
            is_durable: it.is_durable(),
            is_static: it.is_static,
            no_local: it.no_local,
            is_active: it.reader.is_some(),
            messages: stats.messages,
            bytes: stats.bytes,
            in_flight: self.broker.in_flight_count(queue),
            held: self.broker.held_count(queue),
        }
    }

    /// Figures of all queues that have an address, in the order of their making.
    pub fn queue_status(&self) -> Vec<QueueStatus> {
        let queues = self.broker.queues();
        let queues = queues.filter(|(_, entry)| !entry.kind.is_subscription());
        let queues = queues.map(|(id, entry)| {
            let stats = self.store.queue_stats(store_queue(id));
            QueueStatus {
                name: entry.name.to_string(),
                is_temporary: entry.kind != QueueKind::Permanent,
                messages: stats.messages,
                bytes: stats.bytes,
                in_flight: self.broker.in_flight_count(id),
                held: self.broker.held_count(id),
                consumers: self.broker.consumer_count(id),
            }
        });
        queues.collect()
    }
}
