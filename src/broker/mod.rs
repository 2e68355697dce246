//! The deterministic core: queues, their consumers, and what becomes of each message.
//!
//! Events come in through [`Broker::handle`], durable work goes out through
//! [`Broker::poll_effect`], and messages for consumers through [`Broker::poll_delivery`], one at a
//! time: the owner sends it and says with [`Event::ConsumerBlocked`] when the consumer takes no
//! more, before it asks for the next. No clock, no I/O, no protocol words: time is an argument,
//! message bytes are opaque.
//!
//! The core holds in memory only a bounded *window* of each queue that has consumers, references to
//! messages on their way, and nothing of a queue that nobody reads; the rest is read from the store
//! on demand.

mod browser;
mod catalogue;
mod consumer;
mod effect;
mod event;
mod held;
mod limits;
mod queue;
mod reservation;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use browser::Browser;
use catalogue::Catalogue;
use queue::{Context, Queue};

pub use catalogue::{NameFault, QueueEntry, QueueKind, Route};
pub use effect::{Delivery, Effect, ReadFrom, ReadRequest, Reader};
pub use event::{
    ClientId, ConsumerId, ConsumerMode, Event, Gone, Loaded, Message, Outcome, Position, QueueId,
    QueueOrigin, Standing,
};
pub use held::{ANYBODY, HeldRun, Holding};
pub use limits::Limits;

/// Totals since the start of the process, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries to consumers, browsers included.
    pub delivered: u64,
    /// Deliveries whose delivery count was above 0.
    pub redelivered: u64,
    /// Messages that a consumer accepted, or that were settled as they were sent.
    pub accepted: u64,
    /// Messages dropped because a consumer rejected them.
    pub rejected: u64,
    /// Messages that came back to their queue.
    pub returned: u64,
    /// Messages dropped because their time to live was over.
    pub expired: u64,
    /// Messages dropped because newer ones needed their room.
    pub discarded: u64,
}

/// All queues of the server; see the module's documentation.
#[derive(Debug)]
pub struct Broker {
    catalogue: Catalogue,
    queues: BTreeMap<QueueId, Queue>,
    browsers: BTreeMap<ConsumerId, Browser>,
    /// Queues of which something is kept for clients that may return.
    holding: BTreeSet<QueueId>,
    /// The same by client.
    held_for: BTreeSet<(ClientId, QueueId)>,
    /// Queues that may have something to deliver, each at most once.
    busy: VecDeque<QueueId>,
    /// Browsers that may have something to deliver.
    busy_browsers: VecDeque<ConsumerId>,
    context: Context,
}

impl Broker {
    /// A broker without queues.
    pub fn new(limits: Limits) -> Self {
        Self {
            catalogue: Catalogue::default(),
            queues: BTreeMap::new(),
            browsers: BTreeMap::new(),
            holding: BTreeSet::new(),
            held_for: BTreeSet::new(),
            busy: VecDeque::new(),
            busy_browsers: VecDeque::new(),
            context: Context::new(limits),
        }
    }

    /// Where messages for an address go.
    pub fn route(&self, address: &str) -> Route {
        self.catalogue.route(address)
    }

    /// What is known of a queue, unless it is deleted or being deleted.
    pub fn queue(&self, queue: QueueId) -> Option<&QueueEntry> {
        self.catalogue.entry(queue)
    }

    /// Whether all messages of a queue are being settled because it goes.
    pub fn is_purging(&self, queue: QueueId) -> bool {
        self.queues.get(&queue).is_some_and(Queue::is_purging)
    }

    /// Whether all messages of a queue are being read only to be settled.
    pub fn is_emptying(&self, queue: QueueId) -> bool {
        let queue = self.queues.get(&queue);
        queue.is_some_and(|it| it.is_purging() || it.is_discarding())
    }

    /// All queues in the order of their numbers.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, &QueueEntry)> {
        self.catalogue.entries()
    }

    /// The queues that go with a client.
    pub fn queues_of(&self, client: ClientId) -> impl Iterator<Item = QueueId> {
        self.catalogue.owned_by(client)
    }

    /// Number of queues, those of subscriptions included.
    pub fn queue_count(&self) -> usize {
        self.catalogue.len()
    }

    /// Number of queues that have an address.
    pub fn named_queue_count(&self) -> usize {
        self.catalogue.named_len()
    }

    /// Consumers and browsers of a queue.
    pub fn consumer_count(&self, queue: QueueId) -> usize {
        self.queues.get(&queue).map_or(0, Queue::consumer_count) + self.browsers_of(queue).count()
    }

    /// The numbers of the consumers and browsers of a queue.
    pub fn consumers_of(&self, queue: QueueId) -> Vec<u64> {
        let consumers = self.queues.get(&queue).into_iter();
        let consumers = consumers.flat_map(Queue::consumer_numbers);
        consumers.chain(self.browsers_of(queue)).collect()
    }

    fn browsers_of(&self, queue: QueueId) -> impl Iterator<Item = u64> {
        let id = |number| ConsumerId { queue, number };
        let browsers = self.browsers.range(id(0)..=id(u64::MAX));
        browsers.map(|(id, _)| id.number)
    }

    /// Deliveries of a queue that no consumer has settled yet.
    pub fn in_flight_count(&self, queue: QueueId) -> usize {
        self.queues.get(&queue).map_or(0, Queue::in_flight_count)
    }

    /// How often a message of a queue was delivered in vain, as far as that is known, and who has it
    /// now. `None`: the queue is being deleted.
    pub fn standing(&self, queue: QueueId, message: &Message) -> Option<(u32, Standing)> {
        self.queues.get(&queue)?.standing(message)
    }

    /// Messages of a queue that are kept for clients of a predecessor, those included that have
    /// returned and not got them yet; as they were last written down.
    pub fn held_count(&self, queue: QueueId) -> u64 {
        self.queues.get(&queue).map_or(0, Queue::held_count)
    }

    /// The same of all queues.
    pub fn held_total(&self) -> u64 {
        self.queues.values().map(Queue::held_count).sum()
    }

    /// Whether a consumer gets messages of its queue: not where another one gets all.
    pub fn is_served(&self, consumer: ConsumerId) -> bool {
        let queue = self.queues.get(&consumer.queue);
        self.browsers.contains_key(&consumer) || queue.is_some_and(|it| it.is_served(consumer))
    }

    /// Whether [`Self::poll_changed_holdings`] has something.
    pub fn has_changed_holdings(&self) -> bool {
        !self.context.changed_holdings.is_empty()
    }

    /// The next queue of which clients have other messages than when it was last named here, and what
    /// they have.
    pub fn poll_changed_holdings(&mut self) -> Option<(QueueId, Vec<Holding>)> {
        let id = self.context.changed_holdings.pop()?;
        let queue = self.queues.get_mut(&id);
        Some((id, queue.map(Queue::take_holdings).unwrap_or_default()))
    }

    /// What is kept for clients that have no consumer for it: queue, client, number of messages.
    pub fn waiting_holdings(&self) -> impl Iterator<Item = (QueueId, ClientId, u64)> {
        self.holding.iter().flat_map(|id| {
            let queue = self.queues.get(id);
            let shares = queue.into_iter().flat_map(Queue::waiting_shares);
            shares.map(|(client, messages)| (*id, client, messages))
        })
    }

    /// Bytes of messages that wait in windows.
    pub fn window_bytes(&self) -> usize {
        self.context.window_bytes
    }

    /// Totals for metrics.
    pub fn counters(&self) -> Counters {
        self.context.counters
    }

    /// Asked before a message with the coming number `next_lsn` is appended to a queue: up to where
    /// a delivery reservation has to be appended first, if that is due. [`Event::Reserved`] answers
    /// once it is durable.
    pub fn reservation_due(&mut self, queue: QueueId, next_lsn: u64) -> Option<u64> {
        self.queues.get_mut(&queue)?.reservation_due(next_lsn)
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event) {
        self.on_event(event);
        if self.context.in_flight < self.context.limits.unsettled {
            while let Some(queue) = self.context.saturated.pop_first() {
                self.mark_busy(queue);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::QueueAdded {
                queue,
                name,
                kind,
                origin,
            } => self.add_queue(queue, name, kind, origin),
            Event::QueueClaimed { queue, owner } => self.catalogue.claim(queue, owner),
            Event::QueueClosed { queue } => self.catalogue.remove(queue),
            Event::QueueDeleted { queue } => self.delete_queue(queue),
            Event::QueueRemoved { queue } => {
                self.queues.remove(&queue);
            }
            Event::ConsumerAttached {
                consumer,
                mode,
                client,
            } => self.attach(consumer, mode, client),
            Event::ConsumerReady { consumer } => self.with_consumer(consumer, Queue::ready, |b| {
                b.set_ready(true);
            }),
            Event::ConsumerBlocked { consumer } => {
                self.with_consumer(consumer, Queue::blocked, |b| b.set_ready(false));
            }
            Event::DrainWanted { consumer } => {
                self.with_consumer(consumer, Queue::drain, Browser::drain);
            }
            Event::ConsumerGone { consumer, how } => self.detach(consumer, how),
            Event::ClientGone { client } => self.release_client(client),
            Event::HoldsReleased { queue } => self.release(queue, |_, _| true),
            Event::HoldsOver => {
                for queue in std::mem::take(&mut self.holding) {
                    self.release(queue, |_, is_attached| !is_attached);
                }
                self.held_for.clear();
            }
            Event::Arrived { queue, message } => self.arrived(queue, message),
            Event::Settled {
                consumer,
                lsn,
                outcome,
            } => {
                if let Some(queue) = self.queues.get_mut(&consumer.queue) {
                    queue.settled(&mut self.context, consumer, lsn, outcome);
                    self.mark_busy(consumer.queue);
                }
            }
            Event::Loaded(loaded) => self.loaded(loaded),
            Event::OverLimit {
                queue,
                messages,
                bytes,
            } => self.with_queue(queue, |it, _| it.over_limit(messages, bytes)),
            Event::Discard { queue, up_to } => self.with_queue(queue, |it, _| it.discard(up_to)),
            Event::DiscardOne { queue, position } => {
                self.with_queue(queue, |it, context| it.discard_one(context, position));
            }
            Event::QueueExclusive {
                queue,
                is_exclusive,
            } => self.with_queue(queue, |it, context| it.set_exclusive(context, is_exclusive)),
            Event::Reserved { queue, up_to } => self.with_queue(queue, |it, _| it.reserved(up_to)),
        }
    }

    /// The next piece of work for the store. Take all after each event, and after each delivery.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.context.effects.pop_front()
    }

    /// Whether [`Self::poll_effect`] has something.
    pub fn has_effects(&self) -> bool {
        !self.context.effects.is_empty()
    }

    /// The next message for a consumer; `wall_ms` is the time since 1970 by which messages expire.
    /// Effects may follow each call, also one that returns `None`.
    pub fn poll_delivery(&mut self, wall_ms: u64) -> Option<Delivery> {
        while let Some(&id) = self.busy.front() {
            if let Some(queue) = self.queues.get_mut(&id)
                && let Some(delivery) = queue.next_delivery(&mut self.context, wall_ms)
            {
                self.context.count_delivery(&delivery);
                return Some(delivery);
            }
            self.busy.pop_front();
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.busy = false;
            }
        }
        while let Some(&id) = self.busy_browsers.front() {
            if let Some(browser) = self.browsers.get_mut(&id)
                && let Some(delivery) = browser.next_delivery(&mut self.context)
            {
                self.context.count_delivery(&delivery);
                return Some(delivery);
            }
            self.busy_browsers.pop_front();
        }
        None
    }

    /// Whether [`Self::poll_delivery`] may have something.
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty() || !self.busy_browsers.is_empty()
    }

    /// The bytes of arrivals belong to the batch that carried them. Call when the arrivals of a
    /// batch were offered to consumers: what stays in a window is copied, so that a small message
    /// does not keep a large batch.
    pub fn release_batch(&mut self) {
        for id in std::mem::take(&mut self.context.fresh) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.own_fresh_messages();
            }
        }
    }

    fn mark_busy(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id)
            && !queue.busy
        {
            queue.busy = true;
            self.busy.push_back(id);
        }
    }

    fn with_queue(&mut self, id: QueueId, act: impl FnOnce(&mut Queue, &mut Context)) {
        if let Some(queue) = self.queues.get_mut(&id) {
            act(queue, &mut self.context);
            self.mark_busy(id);
        }
    }

    fn mark_browser_busy(&mut self, id: ConsumerId) {
        if !self.busy_browsers.contains(&id) {
            self.busy_browsers.push_back(id);
        }
    }

    fn with_consumer(
        &mut self,
        consumer: ConsumerId,
        of_queue: impl FnOnce(&mut Queue, ConsumerId),
        of_browser: impl FnOnce(&mut Browser),
    ) {
        if let Some(browser) = self.browsers.get_mut(&consumer) {
            of_browser(browser);
            self.mark_browser_busy(consumer);
        } else if let Some(queue) = self.queues.get_mut(&consumer.queue) {
            of_queue(queue, consumer);
            self.mark_busy(consumer.queue);
        }
    }

    fn add_queue(&mut self, id: QueueId, name: Arc<str>, kind: QueueKind, origin: QueueOrigin) {
        if let QueueOrigin::Recovered { held, .. } = &origin {
            for holding in held {
                self.holding.insert(id);
                self.held_for.insert((holding.client, id));
            }
        }
        let is_holding = self.holding.contains(&id);
        let mut queue = Queue::new(id, origin);
        if is_holding {
            // It may have been written otherwise, with clients that do not count any more.
            queue.hold_otherwise(&mut self.context);
        }
        let previous = self.queues.insert(id, queue);
        assert!(previous.is_none(), "queue numbers are never reused");
        self.catalogue.add(id, name, kind);
    }

    fn delete_queue(&mut self, id: QueueId) {
        self.catalogue.remove(id);
        self.browsers.retain(|consumer, _| consumer.queue != id);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.purge(&mut self.context);
            self.mark_busy(id);
        }
    }

    fn release(&mut self, id: QueueId, whose: impl Fn(ClientId, bool) -> bool) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.release_held(&mut self.context, whose);
            self.mark_busy(id);
        }
    }

    /// Looks at the queues of which something was kept for the client, at no other.
    fn release_client(&mut self, client: ClientId) {
        let all = (client, QueueId(0))..=(client, QueueId(u32::MAX));
        let ids: Vec<QueueId> = self.held_for.range(all).map(|(_, id)| *id).collect();
        for id in ids {
            self.held_for.remove(&(client, id));
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.release_held_for(&mut self.context, client);
                self.mark_busy(id);
            }
        }
    }

    fn attach(&mut self, consumer: ConsumerId, mode: ConsumerMode, client: Option<ClientId>) {
        let Some(queue) = self.queues.get_mut(&consumer.queue) else {
            return;
        };
        if let ConsumerMode::Browse { up_to } = mode {
            self.browsers
                .insert(consumer, Browser::new(consumer, up_to));
            self.mark_browser_busy(consumer);
        } else {
            queue.attach(&mut self.context, consumer, mode, client);
            self.mark_busy(consumer.queue);
        }
    }

    fn detach(&mut self, consumer: ConsumerId, how: Gone) {
        if self.browsers.remove(&consumer).is_some() {
            return;
        }
        if let Some(queue) = self.queues.get_mut(&consumer.queue) {
            queue.detach(&mut self.context, consumer, how);
            self.mark_busy(consumer.queue);
        }
    }

    fn arrived(&mut self, id: QueueId, message: Message) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.arrived(&mut self.context, message);
            self.mark_busy(id);
        } else {
            // The queue went away while the message was on its way to the disk.
            self.context.effects.push_back(Effect::Settle {
                queue: id,
                position: message.position,
            });
        }
    }

    fn loaded(&mut self, loaded: Loaded) {
        match loaded.reader {
            Reader::Browser(consumer) => {
                if let Some(browser) = self.browsers.get_mut(&consumer) {
                    browser.loaded(loaded);
                    self.mark_browser_busy(consumer);
                }
            }
            Reader::Queue(id) => {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.loaded(&mut self.context, loaded);
                    self.mark_busy(id);
                }
            }
        }
    }
}
