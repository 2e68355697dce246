//! What clients have and have not settled, written down for a successor.
//!
//! For each queue and client with such messages there are rows of their numbers. They are written
//! lazily: with a batch that is there anyway, or by themselves a few milliseconds after the last change.
//! So a message that came to a client just before the server died may go to another, marked. What a client did not
//! come back for keeps its delivery counts in rows of nobody, until it is delivered again.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::{ANYBODY, ClientId, Event, Holding, QueueId};

use super::held_rows::{KIND_HELD, decode_held, encode_held, held_key, parse_held_key};
use super::{Node, Now};

/// A change that no batch takes along is written after this time.
const IDLE_MS: u64 = 10;
/// Deliveries and consumers that were looked at, for each millisecond in which nothing is written
/// afterwards: one hundredth of the time goes into looking.
const DELIVERIES_PER_MS: usize = 250;
/// The same for bytes that were written.
const BYTES_PER_MS: usize = 1024;

/// The rows as they were written last, and when the next are due.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Values by queue and client. Each is a row.
    rows: BTreeMap<(QueueId, ClientId), Vec<Vec<u8>>>,
    /// Queues whose messages are not held.
    released: BTreeSet<QueueId>,
    /// The first change that was not written, in the clock of `boot_ms`.
    changed_at_ms: Option<u64>,
    /// Nothing is written before.
    rests_until_ms: u64,
    /// That a client has more than its rows can say was said.
    is_full: bool,
}

impl Node {
    /// What clients had when the predecessor ended, by queue. After the clients. Of what a client had that does
    /// not count any more the delivery counts are left, which are nobody's.
    pub(super) fn recover_holds(&mut self) -> BTreeMap<QueueId, Vec<Holding>> {
        let mut found: BTreeMap<(QueueId, ClientId), Vec<Vec<u8>>> = BTreeMap::new();
        let mut void = Vec::new();
        for (key, value) in self.store.rows(KIND_HELD) {
            // Keys are in order: so are the parts of a holding.
            match parse_held_key(key) {
                Some((queue, client, _)) => {
                    found.entry((queue, client)).or_default().push(value.into());
                }
                None => void.push(key.to_vec()),
            }
        }
        for key in void {
            let _lost_or_sealed = self.store.delete_row(KIND_HELD, &key);
        }
        let mut holdings: BTreeMap<QueueId, Vec<Holding>> = BTreeMap::new();
        for (&(queue, client), parts) in &found {
            let counts = self.clients.contains(client);
            let client = if counts { client } else { ANYBODY };
            match decode_held(client, parts) {
                Some(holding) => holdings.entry(queue).or_default().push(holding),
                None => tracing::error!(
                    queue = queue.0,
                    "what a client has of a queue cannot be read by this version: it goes to others"
                ),
            }
        }
        self.holds.rows = found;
        holdings
    }

    /// Notes when what clients have has changed.
    pub(super) fn note_holds(&mut self, now: Now) {
        if self.holds.changed_at_ms.is_none() && self.broker.has_changed_holdings() {
            self.holds.changed_at_ms = Some(now.boot_ms);
        }
    }

    /// When changes have to be written although nothing else is, in the clock of `boot_ms`.
    pub(super) fn holds_due_ms(&self) -> Option<u64> {
        let changed_at_ms = self.holds.changed_at_ms.filter(|_| !self.is_stopping)?;
        Some((changed_at_ms + IDLE_MS).max(self.holds.rests_until_ms))
    }

    /// Lets changes ride on the open batch, or makes one for them when it is time.
    pub(super) fn write_due_holds(&mut self, now: Now) {
        let Some(due_ms) = self.holds_due_ms() else {
            return;
        };
        let rides = self.has_open_batch() && now.boot_ms >= self.holds.rests_until_ms;
        if rides || now.boot_ms >= due_ms {
            self.write_holds(now);
        }
    }

    /// Writes all changes.
    pub(super) fn write_holds(&mut self, now: Now) {
        self.holds.changed_at_ms = None;
        let (mut deliveries, mut bytes) = (0, 0);
        while let Some((queue, holdings)) = self.broker.poll_changed_holdings() {
            deliveries += self.broker.in_flight_count(queue) + self.broker.consumer_count(queue);
            let mut gone: BTreeSet<ClientId> = self.clients_with_rows(queue).collect();
            for holding in holdings {
                // While it is made void what a client had, its rows are all that keeps the counts.
                let is_nobodys = !self.clients.contains(holding.client);
                let is_released = self.holds.released.contains(&queue);
                if is_nobodys || (!is_released && self.keep_client(holding.client)) {
                    gone.remove(&holding.client);
                    bytes += self.write_holding(queue, &holding);
                }
            }
            for client in gone {
                self.delete_holding(queue, client);
            }
        }
        let cost_ms = (deliveries / DELIVERIES_PER_MS + bytes / BYTES_PER_MS) as u64;
        self.holds.rests_until_ms = now.boot_ms + IDLE_MS + cost_ms;
    }

    fn clients_with_rows(&self, queue: QueueId) -> impl Iterator<Item = ClientId> {
        let all = (queue, ClientId(0))..=(queue, ClientId(u64::MAX));
        self.holds.rows.range(all).map(|(&(_, client), _)| client)
    }

    /// Writes what differs from the rows that are there; how many bytes.
    fn write_holding(&mut self, queue: QueueId, holding: &Holding) -> usize {
        let client = holding.client;
        let (parts, is_whole) = encode_held(holding);
        if !is_whole && !std::mem::replace(&mut self.holds.is_full, true) {
            tracing::warn!(
                event = "holding_full",
                queue = self.broker.queue(queue).map(|it| &*it.name),
                messages = holding.messages,
                "a client has more messages, in more pieces, than are kept for it over a takeover: the \
                 rest would go to others at once"
            );
        }
        let written = self.holds.rows.entry((queue, client)).or_default();
        let mut bytes = 0;
        for (number, part) in parts.iter().enumerate() {
            if written.get(number) != Some(part) {
                bytes += part.len();
                // An error means that the log is lost or sealed.
                let key = held_key(queue, client, number);
                let _lost_or_sealed = self.store.put_row(KIND_HELD, &key, part);
            }
        }
        for number in parts.len()..written.len() {
            let key = held_key(queue, client, number);
            let _lost_or_sealed = self.store.delete_row(KIND_HELD, &key);
        }
        *written = parts;
        bytes
    }

    pub(super) fn delete_holding(&mut self, queue: QueueId, client: ClientId) {
        let parts = self.holds.rows.remove(&(queue, client));
        for number in 0..parts.map_or(0, |parts| parts.len()) {
            let key = held_key(queue, client, number);
            let _lost_or_sealed = self.store.delete_row(KIND_HELD, &key);
        }
    }

    /// The directory has changed: looks which queues do not hold.
    pub(super) fn apply_release_unsettled(&mut self) {
        let queues = self.broker.queues();
        // A subscription has no name that a line of queues.conf could mean.
        let queues = queues.filter(|(queue, _)| self.subscriptions.get(*queue).is_none());
        let releases = queues.filter(|(_, entry)| self.releases_unsettled(&entry.name));
        self.holds.released = releases.map(|(queue, _)| queue).collect();
        for queue in self.holds.released.clone() {
            self.broker.handle(Event::HoldsReleased { queue });
        }
    }

    /// A queue is new: notes whether it holds.
    pub(super) fn note_release_unsettled(&mut self, queue: QueueId, name: &str) {
        if self.releases_unsettled(name) {
            self.holds.released.insert(queue);
        }
    }

    fn releases_unsettled(&self, name: &str) -> bool {
        let properties = self.directory.queues.effective(name);
        properties.is_some_and(|it| it.release_unsettled)
    }

    /// A queue is gone.
    pub(super) fn forget_holds(&mut self, queue: QueueId) {
        self.holds.released.remove(&queue);
        let clients: Vec<ClientId> = self.clients_with_rows(queue).collect();
        for client in clients {
            self.delete_holding(queue, client);
        }
    }
}
