//! Messages that go without having been consumed: for newer ones, or because an administrator wants it.

use super::{Context, Queue};
use crate::broker::{ConsumerId, Effect, Message, Position, Standing};

/// Messages that go because an administrator wants it.
#[derive(Debug)]
pub(super) struct Discarding {
    /// Those up to this number.
    up_to: u64,
    /// So many have gone.
    messages: u64,
}

impl Queue {
    /// Its oldest messages go until so many messages and bytes are settled.
    pub(in crate::broker) fn over_limit(&mut self, messages: u64, bytes: u64) {
        self.excess = (messages, bytes);
    }

    /// All that waits and has a number up to this one goes.
    pub(in crate::broker) fn discard(&mut self, up_to: u64) {
        let messages = self.discarding.as_ref().map_or(0, |it| it.messages);
        let up_to = self.discarding.as_ref().map_or(0, |it| it.up_to).max(up_to);
        self.discarding = Some(Discarding { up_to, messages });
    }

    pub(in crate::broker) fn is_discarding(&self) -> bool {
        self.discarding.is_some()
    }

    /// Says what went.
    pub(super) fn end_discarding(&mut self, context: &mut Context) {
        if let Some(Discarding { messages, .. }) = self.discarding.take() {
            let queue = self.id;
            context
                .effects
                .push_back(Effect::Discarded { queue, messages });
        }
    }

    /// One message goes, wherever it waits: in memory, came back, set aside, or on disk only.
    pub(in crate::broker) fn discard_one(&mut self, context: &mut Context, position: Position) {
        if self.purging || self.standing_of(position.lsn) != Standing::Waiting {
            return;
        }
        self.parked.remove(&position.lsn);
        self.change_window(context, |window, _| window.forget(position.lsn));
        context.counters.discarded += 1;
        self.settle(context, position);
    }

    pub(in crate::broker) fn standing(&self, message: &Message) -> Option<(u32, Standing)> {
        let standing = self.standing_of(message.position.lsn);
        (!self.purging).then(|| (self.delivery_count(message), standing))
    }

    fn standing_of(&self, lsn: u64) -> Standing {
        if let Some(it) = self.in_flight.get(&lsn) {
            return Standing::With(ConsumerId {
                queue: self.id,
                number: it.consumer,
            });
        }
        let owner = self.held.owner(lsn);
        owner.map_or(Standing::Waiting, Standing::KeptFor)
    }

    pub(in crate::broker) fn held_count(&self) -> u64 {
        self.held.shares().map(|(_, messages, _)| messages).sum()
    }

    fn discard_old(&mut self, context: &mut Context) {
        while let Some(up_to) = self.discarding.as_ref().map(|it| it.up_to) {
            match self.oldest_free(context) {
                Some(lsn) if lsn <= up_to => {
                    self.discard_oldest(context, lsn);
                    if let Some(it) = &mut self.discarding {
                        it.messages += 1;
                    }
                }
                // Newer ones stay; without any there may be more to read.
                None if !self.window.is_complete() => return,
                _ => self.end_discarding(context),
            }
        }
    }

    /// Lets go what has to, as far as it is in memory.
    pub(super) fn discard_excess(&mut self, context: &mut Context) {
        self.discard_old(context);
        while self.excess != (0, 0)
            && let Some(lsn) = self.oldest_free(context)
        {
            self.discard_oldest(context, lsn);
        }
    }

    /// The oldest message that waits and that no client has: neither now, nor from the predecessor. What is kept for
    /// clients of that is set aside. `None`: none is in memory that is known to be the oldest.
    fn oldest_free(&mut self, context: &mut Context) -> Option<u64> {
        loop {
            // Nobody who is here wants those that are parked; they are no less there.
            let parked = self.parked.first_key_value().map(|(&lsn, _)| lsn);
            if let Some(lsn) = parked.filter(|lsn| *lsn < self.window.floor()) {
                return Some(lsn);
            }
            if self.window.deliverable() == 0 {
                return None;
            }
            let lsn = self.window.get(0)?.position.lsn;
            let Some(client) = self.held.owner(lsn) else {
                return Some(lsn);
            };
            let mut kept = None;
            self.change_window(context, |window, _| kept = window.remove(0));
            self.held.set_aside(client, kept?.position);
        }
    }

    /// Settles what [`Self::oldest_free`] has found.
    fn discard_oldest(&mut self, context: &mut Context, lsn: u64) {
        let mut position = self.parked.remove(&lsn);
        if position.is_none() {
            self.change_window(context, |window, _| {
                position = window.remove(0).map(|message| message.position);
            });
        }
        if let Some(position) = position {
            context.counters.discarded += 1;
            self.settle(context, position);
        }
    }
}
