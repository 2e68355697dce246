//! What an administrator does to a running server, and what the server shows of its clients.

use steadfast_storage::Ticket;

use crate::broker::{QueueId, QueueKind, Route};
use crate::model::Pattern;
use crate::proto::{ErrorCondition, condition};

use super::peer::Link;
use super::status::SubscriptionStatus;
use super::translate::store_queue;
use super::{ConnectionId, Node, Now, connection_id};

/// A client connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Names it.
    pub id: ConnectionId,
    /// Its user; `None` for anonymous clients.
    pub user: Option<String>,
    /// Its container id, once it is open.
    pub container: Option<String>,
    /// It has a link to `$management`.
    pub is_manager: bool,
    /// Links on which it publishes.
    pub publishers: usize,
    /// Links on which it consumes.
    pub consumers: usize,
    /// When it came, monotonic milliseconds.
    pub since_ms: u64,
}

/// A link on which a client consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Names it.
    pub number: u64,
    /// Its connection.
    pub connection: ConnectionId,
    /// Its user.
    pub user: Option<String>,
    /// Name of its queue, or words for its subscription.
    pub queue: String,
    /// It is on a subscription of a topic.
    pub is_subscription: bool,
    /// It gets messages: not where another one gets all of an exclusive queue.
    pub is_served: bool,
}

/// What became of a durable subscription that an administrator deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// There is none, or it is not clear which one is meant.
    Missing,
    /// A link reads it, so that it stays.
    Read(SubscriptionStatus),
    /// What it was. It is gone, for good with this batch; `None`: the log is lost or sealed, and a successor has it.
    Deleted(SubscriptionStatus, Option<Ticket>),
}

/// What was deleted or purged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Queues or subscriptions.
    pub queues: usize,
    /// Their messages that went.
    pub messages: u64,
    /// Messages that stay because they are kept for clients that had them before a takeover.
    pub kept: u64,
}

impl Node {
    /// All connections, in the order of their numbers.
    pub fn connection_status(&self) -> Vec<ConnectionStatus> {
        let rows = self.peers.iter().map(|(index, peer)| ConnectionStatus {
            id: connection_id(index, peer),
            user: peer.user.clone(),
            container: peer.container.clone(),
            is_manager: peer.desk.is_some(),
            publishers: peer.publishers,
            consumers: peer.links.len() - peer.publishers,
            since_ms: peer.since_ms,
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| row.id.serial);
        rows
    }

    /// All consumers and browsers, in the order of their numbers.
    pub fn consumer_status(&self) -> Vec<ConsumerStatus> {
        let mut rows = Vec::new();
        for (index, peer) in &self.peers {
            for link in peer.links.values() {
                let Link::Consumer(consumer) = link else {
                    continue;
                };
                let queue = self.broker.queue(consumer.id.queue);
                rows.push(ConsumerStatus {
                    number: consumer.id.number,
                    connection: connection_id(index, peer),
                    user: peer.user.clone(),
                    queue: queue.map(|it| it.name.to_string()).unwrap_or_default(),
                    is_subscription: queue.is_some_and(|it| it.kind.is_subscription()),
                    is_served: self.broker.is_served(consumer.id),
                });
            }
        }
        rows.sort_by_key(|row| row.number);
        rows
    }

    /// Messages that are kept for clients that may return, and for those that are back and have not got
    /// them yet; as they were last written down.
    pub fn held_messages(&self) -> u64 {
        self.broker.held_total()
    }

    /// Closes a connection by the number that [`ConnectionId::serial`] gives; its client may come
    /// back. Says whether there was one.
    pub fn close_connection(&mut self, now: Now, serial: u32) -> bool {
        let mut peers = self.peers.iter();
        let found = peers.find(|(_, peer)| peer.serial == serial);
        let Some(id) = found.map(|(index, peer)| connection_id(index, peer)) else {
            return false;
        };
        if let Some(peer) = self.peer_mut(id) {
            let text = "an administrator closed the connection";
            let error = ErrorCondition::new(condition::CONNECTION_FORCED, text);
            peer.connection.close_now(Some(error));
            self.take_events(now, id);
            self.work(now);
        }
        true
    }

    /// Makes a queue unless it is there. Returns the batch with which it is durable.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn add_queue(&mut self, name: &str) -> Result<Ticket, String> {
        match self.broker.route(name) {
            Route::Queue(_) => Ok(self.store.appended_ticket()),
            Route::Invalid(fault) => Err(super::translate::name_refused(name, fault).to_string()),
            Route::Unknown => self
                .make_queue(name, QueueKind::Permanent)
                .map(|(_, ticket)| ticket)
                .map_err(|error| error.to_string()),
        }
    }

    /// Deletes the queues that a pattern stands for, temporary ones left out, with their messages. Returns what
    /// went, and with which batch the last of them is gone for good; `None`: none went, or the log is lost or
    /// sealed, and a successor has them.
    pub fn delete_queues(&mut self, now: Now, pattern: &Pattern) -> (Dropped, Option<Ticket>) {
        self.delete_permanent(now, |name| pattern.matches(name))
    }

    /// The same of all queues, temporary ones and those whose names begin with `$` left out.
    pub fn delete_all_queues(&mut self, now: Now) -> (Dropped, Option<Ticket>) {
        self.delete_permanent(now, |name| !name.starts_with('$'))
    }

    fn delete_permanent(
        &mut self,
        now: Now,
        is_meant: impl Fn(&str) -> bool,
    ) -> (Dropped, Option<Ticket>) {
        let meant: Vec<_> = self
            .broker
            .queues()
            .filter(|(_, entry)| entry.kind == QueueKind::Permanent && is_meant(&entry.name))
            .map(|(queue, _)| queue)
            .collect();
        let dropped = self.held_by(&meant);
        let (mut ticket, mut is_taken) = (None, true);
        for queue in meant {
            ticket = self.close_queue(queue);
            is_taken &= ticket.is_some();
        }
        self.work(now);
        (dropped, ticket.filter(|_| is_taken))
    }

    /// All messages of some queues.
    fn held_by(&self, queues: &[QueueId]) -> Dropped {
        let messages = queues
            .iter()
            .map(|&queue| self.store.queue_stats(store_queue(queue)).messages);
        Dropped {
            queues: queues.len(),
            messages: messages.sum(),
            kept: 0,
        }
    }

    /// Deletes a durable subscription that nobody reads, with what waits for it.
    pub fn delete_durable(&mut self, now: Now, name: &str, client: &str, user: &str) -> Deletion {
        let Some((queue, subscription)) = self.subscriptions.meant(client, user, name) else {
            return Deletion::Missing;
        };
        let status = self.status_of(queue, subscription);
        if status.is_active {
            return Deletion::Read(status);
        }
        let ticket = self.delete_queue(queue);
        self.work(now);
        Deletion::Deleted(status, ticket)
    }

    /// Deletes all durable subscriptions that nobody reads, with what waits for them. Returns what
    /// went, how many are read and stay, and with which batch the last of them is gone for good; `None`: none
    /// went, or the log is lost or sealed, and a successor has them.
    pub fn delete_all_durables(&mut self, now: Now) -> (Dropped, usize, Option<Ticket>) {
        let all = self.subscriptions.iter().filter(|(_, it)| it.is_durable());
        let (kept, gone): (Vec<_>, Vec<_>) = all
            .map(|(queue, it)| (queue, it.reader.is_some()))
            .partition(|(_, is_read)| *is_read);
        let gone: Vec<QueueId> = gone.into_iter().map(|(queue, _)| queue).collect();
        let dropped = self.held_by(&gone);
        let (mut ticket, mut is_taken) = (None, true);
        for queue in gone {
            ticket = self.delete_queue(queue);
            is_taken &= ticket.is_some();
        }
        self.work(now);
        (dropped, kept.len(), ticket.filter(|_| is_taken))
    }
}
