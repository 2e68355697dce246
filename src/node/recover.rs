//! The broker from the rows of the store. Costs per queue and client, not per message.

use std::collections::BTreeMap;

use crate::broker::{Event, Holding, QueueId, QueueKind, QueueOrigin, Route};

use super::records::{
    COUNTER_NEXT_QUEUE, KIND_COUNT, KIND_COUNTER, KIND_QUEUE, KIND_RESERVATION, KIND_SUBSCRIPTION,
    QueueRow, SubscriptionRow, parse_count_key, parse_long, parse_queue_key, parse_word,
};
use super::{Node, Now};

impl Node {
    pub(super) fn recover(&mut self, now: Now) {
        self.recover_clients();
        let holdings = self.recover_holds();
        self.recover_queues(holdings);
        self.start_reconnect_time(now);
    }

    fn recover_queues(&mut self, mut holdings: BTreeMap<QueueId, Vec<Holding>>) {
        let last_lsn = self.store.last_lsn().0;
        let mut counts: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
        for (key, value) in self.store.rows(KIND_COUNT) {
            if let (Some((queue, lsn)), Some(count)) = (parse_count_key(key), parse_word(value)) {
                counts.entry(queue).or_default().push((lsn, count));
            }
        }
        let mut reserved: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, value) in self.store.rows(KIND_RESERVATION) {
            if let (Some(queue), Some(up_to)) = (parse_queue_key(key), parse_long(value)) {
                reserved.insert(queue, up_to);
            }
        }
        let next = self.store.row(KIND_COUNTER, COUNTER_NEXT_QUEUE);
        let next = next.and_then(parse_long).unwrap_or(1);
        self.next_queue = u32::try_from(next).unwrap_or(u32::MAX).max(1);
        let topics = self.recover_temporary_topics();
        let mut void = Vec::new();
        let mut origin = |number| {
            let reserved_up_to = reserved.get(&number).copied().unwrap_or(0);
            QueueOrigin::Recovered {
                // What is appended from now on has not been delivered by anybody.
                maybe_delivered_up_to: reserved_up_to.min(last_lsn),
                reserved_up_to,
                counts: counts.remove(&number).unwrap_or_default(),
                held: holdings.remove(&QueueId(number)).unwrap_or_default(),
            }
        };
        for (number, row) in self.queue_rows() {
            let queue = QueueId(number);
            if let QueueKind::Temporary { owner } = row.kind {
                self.clients.unclaimed.insert(queue);
                if owner.is_some_and(|owner| !self.clients.contains(owner)) {
                    void.push(queue);
                }
            }
            self.next_queue = self.next_queue.max(number.saturating_add(1));
            if let Route::Queue(other) = self.broker.route(&row.name) {
                tracing::warn!(
                    event = "queues_of_one_name",
                    queue = %row.name,
                    older = queue.0.min(other.0),
                    newer = queue.0.max(other.0),
                    "the store has two queues of one name: the newer one has it, and nobody reaches the \
                     older one; a temporary one goes with its client, or at the end of ft_reconnect_timeout"
                );
            }
            self.broker.handle(Event::QueueAdded {
                queue,
                name: row.name,
                kind: row.kind,
                origin: origin(number),
            });
            if row.is_deleted {
                self.broker.handle(Event::QueueClosed { queue });
                void.push(queue);
            }
        }
        for (number, row) in self.subscription_rows() {
            let queue = QueueId(number);
            self.next_queue = self.next_queue.max(number.saturating_add(1));
            void.extend(self.recover_subscription(queue, row, origin(number)));
        }
        for queue in holdings.into_keys() {
            self.forget_holds(queue);
        }
        // Subscriptions before the temporary topics that they are to.
        for queue in void.into_iter().chain(topics) {
            // A predecessor did not come to it.
            self.delete_queue(queue);
        }
    }

    /// The queues of the store; those that are deleted come first: others may have their names by now.
    fn queue_rows(&self) -> Vec<(u32, QueueRow)> {
        let rows = self.store.rows(KIND_QUEUE);
        let read = rows.filter_map(|(key, value)| {
            let row = parse_queue_key(key).zip(QueueRow::decode(value));
            if row.is_none() {
                tracing::error!(?key, "a queue of the store cannot be read by this version");
            }
            row
        });
        let (mut deleted, living): (Vec<_>, Vec<_>) = read.partition(|(_, row)| row.is_deleted);
        deleted.extend(living);
        deleted
    }

    fn subscription_rows(&self) -> Vec<(u32, SubscriptionRow)> {
        let rows = self.store.rows(KIND_SUBSCRIPTION);
        let read = rows.filter_map(|(key, value)| {
            let row = parse_queue_key(key).zip(SubscriptionRow::decode(value));
            if row.is_none() {
                tracing::error!(
                    ?key,
                    "a subscription of the store cannot be read by this version"
                );
            }
            row
        });
        read.collect()
    }
}
