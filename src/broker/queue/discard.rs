//! Messages that go without having been consumed: for newer ones, or because an administrator wants it.

use super::{Context, Queue};
use crate::broker::{ConsumerId, Message, Position, Standing};

impl Queue {
    /// Its oldest messages go until so many messages and bytes are settled.
    pub(in crate::broker) fn over_limit(&mut self, messages: u64, bytes: u64) {
        self.excess = (messages, bytes);
    }

    /// All that waits and has a number up to this one goes.
    pub(in crate::broker) fn discard(&mut self, up_to: u64) {
        self.discard_up_to = self.discard_up_to.max(Some(up_to));
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
        while let Some(up_to) = self.discard_up_to {
            let oldest = self.window.get(0).map(|message| message.position.lsn);
            match oldest {
                Some(lsn) if lsn <= up_to => {}
                // Newer ones stay; without any there may be more to read.
                None if !self.window.is_complete() => return,
                _ => {
                    self.discard_up_to = None;
                    return;
                }
            }
            let mut oldest = None;
            self.change_window(context, |window, _| oldest = window.remove(0));
            if let Some(message) = oldest {
                context.counters.discarded += 1;
                self.settle(context, message.position);
            }
        }
    }

    pub(super) fn discard_excess(&mut self, context: &mut Context) {
        self.discard_old(context);
        while self.excess != (0, 0) && self.window.deliverable() > 0 {
            let mut oldest = None;
            self.change_window(context, |window, _| oldest = window.remove(0));
            let Some(message) = oldest else {
                return;
            };
            context.counters.discarded += 1;
            self.settle(context, message.position);
        }
    }
}
