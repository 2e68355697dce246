//! Exclusive queues: one consumer gets all messages, the one that attached first takes over when it leaves. After a
//! takeover of the server a client for which messages are kept comes before all others, also when it comes later.

use super::{Context, Queue};
use crate::broker::ConsumerId;

/// Whether one consumer gets all, and which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reign {
    /// All consumers get messages.
    #[default]
    Shared,
    /// One would, and there is none, or a client is awaited whose it is.
    Vacant,
    /// This one.
    Of(u64),
}

impl Reign {
    /// Whether the consumer gets messages that are not kept for anybody.
    pub(super) fn admits(self, number: u64) -> bool {
        match self {
            Self::Shared => true,
            Self::Vacant => false,
            Self::Of(own) => own == number,
        }
    }
}

impl Queue {
    /// From now on one consumer gets all, or not.
    pub(in crate::broker) fn set_exclusive(&mut self, context: &mut Context, is_exclusive: bool) {
        if is_exclusive == (self.reign != Reign::Shared) {
            return;
        }
        self.reign = match is_exclusive {
            true => Reign::Vacant,
            false => Reign::Shared,
        };
        for consumer in self.consumers.values_mut() {
            consumer.in_turn = false;
        }
        self.turn.clear();
        self.crown(context);
        self.unpark(context);
        let numbers: Vec<u64> = self.consumers.keys().copied().collect();
        for number in numbers {
            self.enter_turn(number);
        }
    }

    /// Finds the consumer that gets all, where there is none.
    pub(super) fn crown(&mut self, context: &mut Context) {
        if self.reign != Reign::Vacant {
            return;
        }
        let is_awaited = self.held.shares().any(|(_, messages, _)| messages > 0);
        let next = self.consumers.iter().find(|(_, it)| {
            let has_share = it.client.is_some_and(|client| self.held.keeps_for(client));
            !is_awaited || has_share
        });
        if let Some((&number, _)) = next {
            self.reign = Reign::Of(number);
            self.unpark(context);
            self.enter_turn(number);
        }
    }

    /// The consumer that got all is gone.
    pub(super) fn dethrone(&mut self, number: u64) {
        if self.reign == Reign::Of(number) {
            self.reign = Reign::Vacant;
        }
    }

    /// Whether a consumer may get messages: all, or those that are kept for its client.
    pub(super) fn may_take(&self, number: u64) -> bool {
        let client = || self.consumers.get(&number).and_then(|it| it.client);
        self.reign.admits(number) || client().is_some_and(|client| self.held.keeps_for(client))
    }

    pub(in crate::broker) fn is_served(&self, id: ConsumerId) -> bool {
        self.reign.admits(id.number)
    }
}
