//! Purges of administrators: each goes on until all that it means is gone for good, part by part, so that other work
//! comes between.

use std::collections::{BTreeMap, BTreeSet};

use steadfast_storage::Ticket;

use crate::broker::{Event, QueueId};
use crate::model::Pattern;

use super::administer::Dropped;
use super::status::SubscriptionStatus;
use super::{Node, Now};

/// Names a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PurgeId(u64);

/// How far a purge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeState {
    /// It goes on, or what it dropped is not durable yet. So many messages were dropped in the queues that are done.
    Running(Dropped),
    /// What it dropped stays so.
    Done(Dropped),
    /// The log is lost or sealed: a successor has some or all of what was dropped.
    Over,
}

/// A purge that is under way.
#[derive(Debug)]
struct Purge {
    queues: Vec<QueueId>,
    /// Those that are not done.
    left: BTreeSet<QueueId>,
    messages: u64,
    /// The batch of the last settlement.
    ticket: Option<Ticket>,
    is_over: bool,
}

/// All that are under way.
#[derive(Debug, Default)]
pub(super) struct Purges {
    next: u64,
    by_id: BTreeMap<PurgeId, Purge>,
}

impl Node {
    /// Begins to drop the messages of the queues that a pattern stands for, except those that receivers have, and
    /// those that are kept for clients. `None`: there are no such queues.
    pub fn purge_queues(&mut self, now: Now, pattern: &Pattern) -> Option<PurgeId> {
        let queues = self.broker.queues();
        let meant = queues
            .filter(|(_, entry)| !entry.kind.is_subscription() && pattern.matches(&entry.name));
        let meant: Vec<QueueId> = meant.map(|(queue, _)| queue).collect();
        self.purge(now, meant)
    }

    /// Begins to drop what waits for a durable subscription. Returns what it was before; `None` when there is
    /// none.
    pub fn purge_durable(
        &mut self,
        now: Now,
        name: &str,
        client: &str,
        user: &str,
    ) -> Option<(SubscriptionStatus, PurgeId)> {
        let (queue, subscription) = self.subscriptions.meant(client, user, name)?;
        let status = self.status_of(queue, subscription);
        Some((status, self.purge(now, vec![queue])?))
    }

    /// Begins to drop what waits for the subscriptions of the topics that a pattern stands for. `None`: there are
    /// none.
    pub fn purge_topics(&mut self, now: Now, pattern: &Pattern) -> Option<PurgeId> {
        let subscriptions = self.subscriptions.iter();
        let meant = subscriptions.filter(|(_, it)| pattern.covers(&it.topic));
        let meant: Vec<QueueId> = meant.map(|(queue, _)| queue).collect();
        self.purge(now, meant)
    }

    fn purge(&mut self, now: Now, queues: Vec<QueueId>) -> Option<PurgeId> {
        if queues.is_empty() {
            return None;
        }
        let id = PurgeId(self.purges.next);
        self.purges.next += 1;
        let left: BTreeSet<QueueId> = queues.iter().copied().collect();
        let purge = Purge {
            queues,
            left: left.clone(),
            messages: 0,
            ticket: None,
            is_over: false,
        };
        self.purges.by_id.insert(id, purge);
        let up_to = self.store.last_lsn().0;
        for queue in left {
            self.broker.handle(Event::Discard { queue, up_to });
        }
        self.work(now);
        Some(id)
    }

    /// A queue has discarded all that it was to.
    pub(super) fn discarded(&mut self, queue: QueueId, messages: u64) {
        for purge in self.purges.by_id.values_mut() {
            if purge.left.remove(&queue) {
                purge.messages += messages;
                purge.ticket = self.settled_ticket;
                purge.is_over |= self.is_log_over;
            }
        }
    }

    /// How far a purge is.
    pub fn purge_state(&mut self, now: Now, id: PurgeId) -> PurgeState {
        self.check_fence(now);
        let Some(purge) = self.purges.by_id.get(&id) else {
            return PurgeState::Over;
        };
        if purge.is_over || self.fatal().is_some() {
            return PurgeState::Over;
        }
        let kept = purge.queues.iter().map(|it| self.broker.held_count(*it));
        let dropped = Dropped {
            queues: purge.queues.len(),
            messages: purge.messages,
            kept: kept.sum(),
        };
        let durable = Some(self.store.durable_ticket());
        let is_durable = purge.messages == 0 || purge.ticket <= durable;
        if purge.left.is_empty() && is_durable && self.holds_store() {
            PurgeState::Done(dropped)
        } else {
            PurgeState::Running(dropped)
        }
    }

    /// Nobody asks for a purge any more. One that is under way goes on.
    pub fn forget_purge(&mut self, id: PurgeId) {
        self.purges.by_id.remove(&id);
    }
}
