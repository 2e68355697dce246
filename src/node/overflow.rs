//! Queues that may not hold as much as they like (`maxmsgs`, `maxbytes`).

use std::collections::BTreeMap;

use steadfast_storage::QueueStats;

use crate::broker::{Event, QueueId};
use crate::model::DestinationKind;
use crate::proto::{ErrorCondition, condition};

use super::routing::{Beyond, Destination, Limit, Routes};
use super::{ConnectionId, Node};

/// What waits in each queue that has a limit, messages on their way to the disk included.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    waiting: BTreeMap<QueueId, QueueStats>,
}

impl Gauges {
    /// Counts from now on; `stats` is what waits already.
    pub(crate) fn watch(&mut self, queue: QueueId, stats: QueueStats) {
        self.waiting.entry(queue).or_insert(stats);
    }

    /// Forgets all queues.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// A queue is gone.
    pub(crate) fn forget(&mut self, queue: QueueId) {
        self.waiting.remove(&queue);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn appended(&mut self, queue: QueueId, bytes: u32) {
        if let Some(it) = self.waiting.get_mut(&queue) {
            it.messages += 1;
            it.bytes += u64::from(bytes);
        }
    }

    pub(crate) fn settled(&mut self, queue: QueueId, bytes: u32) {
        if let Some(it) = self.waiting.get_mut(&queue) {
            it.messages = it.messages.saturating_sub(1);
            it.bytes = it.bytes.saturating_sub(u64::from(bytes));
        }
    }

    /// Messages and bytes above a limit, if `messages` and `bytes` more come.
    fn excess(&self, limit: &Limit, messages: u64, bytes: u64) -> (u64, u64) {
        let waiting = self.waiting.get(&limit.queue).copied().unwrap_or_default();
        let above = |waiting: u64, more: u64, max: u64| match max {
            0 => 0,
            max => (waiting + more).saturating_sub(max),
        };
        (
            above(waiting.messages, messages, limit.messages_max),
            above(waiting.bytes, bytes, limit.bytes_max),
        )
    }
}

/// Where a message may go.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The queues, when these are not all that its routes name.
    pub(super) chosen: Option<Vec<QueueId>>,
    /// Subscriptions that are full and do not get it.
    pub(super) skipped: u64,
}

impl Node {
    /// The queues that get a message of so many bytes.
    pub(super) fn admit(
        &self,
        routes: &Routes,
        sender: ConnectionId,
        bytes: usize,
    ) -> Result<Admitted, ErrorCondition> {
        let mut admitted = Admitted::default();
        if routes.no_local.is_empty() && routes.limits.is_empty() {
            return Ok(admitted);
        }
        let mut left_out = Vec::new();
        if !routes.no_local.is_empty() {
            let own = routes.no_local.iter().copied();
            left_out.extend(own.filter(|queue| self.is_own_subscription(sender, *queue)));
        }
        for limit in &routes.limits {
            let (messages, over_bytes) = self.gauges.excess(limit, 1, bytes as u64);
            if (messages, over_bytes) == (0, 0) || left_out.contains(&limit.queue) {
                continue;
            }
            match limit.beyond {
                Beyond::Refuse => return Err(self.full(limit, sender)),
                Beyond::Skip => {
                    admitted.skipped += 1;
                    left_out.push(limit.queue);
                }
                // It goes when the new one is appended.
                Beyond::DiscardOldest => {}
            }
        }
        if !left_out.is_empty() {
            let all = routes.queues.iter().copied();
            admitted.chosen = Some(all.filter(|it| !left_out.contains(it)).collect());
        }
        Ok(admitted)
    }

    /// Whether a subscription is that of the client that sends.
    fn is_own_subscription(&self, sender: ConnectionId, queue: QueueId) -> bool {
        let Some(subscription) = self.subscriptions.get(queue) else {
            return false;
        };
        match subscription.owner {
            Some(owner) => self.client_of(sender) == Some(owner),
            None if subscription.user.is_some() => subscription.is_of(&self.identity_of(sender)),
            None => *subscription.container == *self.identity_of(sender).container,
        }
    }

    /// A message was appended for queues with limits: the oldest ones make room where that is the
    /// policy. In the log they are settled behind it, so no crash loses both.
    pub(super) fn discard_excess(&mut self, limits: &[Limit]) {
        for limit in limits {
            let (messages, bytes) = self.gauges.excess(limit, 0, 0);
            if limit.beyond == Beyond::DiscardOldest && (messages, bytes) != (0, 0) {
                self.broker.handle(Event::OverLimit {
                    queue: limit.queue,
                    messages,
                    bytes,
                });
            }
        }
    }

    /// Nothing is on its way to the disk: what the store says is what waits. It knows of damaged
    /// messages too, which nobody settles.
    pub(super) fn read_gauges(&mut self) {
        if self.gauges.is_empty() || self.store.backlog_bytes() > 0 || self.owes_answers() {
            return;
        }
        for (queue, waiting) in &mut self.gauges.waiting {
            *waiting = self.store.queue_stats(super::store_queue(*queue));
        }
    }

    /// What a sender is told. Who may not send to what a bridge leads to does not hear of it.
    fn full(&self, limit: &Limit, sender: ConnectionId) -> ErrorCondition {
        let Destination { kind, name } = &limit.destination;
        if self.permits_sending(sender, *kind, name).is_err() {
            return ErrorCondition::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                "a destination that a bridge leads to is full",
            );
        }
        let what = match kind {
            DestinationKind::Queue => "the queue",
            DestinationKind::Topic => "a subscription of topic",
        };
        let mut limits = Vec::new();
        if limit.messages_max > 0 {
            limits.push(format!("maxmsgs={}", limit.messages_max));
        }
        if limit.bytes_max > 0 {
            limits.push(format!("maxbytes={}", limit.bytes_max));
        }
        let limits = limits.join(", ");
        ErrorCondition::new(
            condition::RESOURCE_LIMIT_EXCEEDED,
            format!("{what} {name} is full ({limits})"),
        )
    }
}
