//! One consumer of a queue.

use super::ConsumerMode;

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) mode: ConsumerMode,
    /// The owner says that it takes messages.
    pub(super) ready: bool,
    /// It is in the queue's order of turns.
    pub(super) in_turn: bool,
    /// It wants to hear when it has got all there is.
    pub(super) draining: bool,
    /// Deliveries that it has not settled.
    pub(super) unsettled: usize,
}

impl Consumer {
    pub(super) fn new(mode: ConsumerMode) -> Self {
        Self {
            mode,
            ready: false,
            in_turn: false,
            draining: false,
            unsettled: 0,
        }
    }

    /// Whether it may get another message.
    pub(super) fn takes(&self, unsettled_max: usize) -> bool {
        self.ready && self.unsettled < unsettled_max
    }

    pub(super) fn settles_at_send(&self) -> bool {
        matches!(self.mode, ConsumerMode::TakeSettled)
    }
}
