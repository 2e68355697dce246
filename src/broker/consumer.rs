//! One consumer of a queue.

use super::{ClientId, ConsumerMode, Limits};

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) mode: ConsumerMode,
    /// Whose it is.
    pub(super) client: Option<ClientId>,
    /// The owner says that it takes messages.
    pub(super) ready: bool,
    /// It is in the queue's order of turns.
    pub(super) in_turn: bool,
    /// It wants to hear when it has got all there is.
    pub(super) draining: bool,
    /// Deliveries that it has not settled.
    pub(super) unsettled: usize,
    /// Messages that it does not want again.
    pub(super) barred: usize,
}

impl Consumer {
    pub(super) fn new(mode: ConsumerMode, client: Option<ClientId>) -> Self {
        Self {
            mode,
            client,
            ready: false,
            in_turn: false,
            draining: false,
            unsettled: 0,
            barred: 0,
        }
    }

    /// Whether it may get another message.
    pub(super) fn takes(&self, limits: &Limits) -> bool {
        self.ready && !self.is_at_limit(limits)
    }

    /// Whether it has to settle something, or others have to take what it refused.
    pub(super) fn is_at_limit(&self, limits: &Limits) -> bool {
        self.unsettled >= limits.unsettled_per_consumer || self.barred >= limits.barred_per_consumer
    }

    pub(super) fn settles_at_send(&self) -> bool {
        matches!(self.mode, ConsumerMode::TakeSettled)
    }
}
