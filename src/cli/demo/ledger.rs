//! What became of every message of the demo.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use tokio::sync::Notify;

/// One message.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    is_confirmed: bool,
    received: u32,
}

/// What became of every message, by sender and number.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: RefCell<Vec<Vec<Entry>>>,
    confirmed: Cell<u64>,
    in_flight: Cell<u64>,
    sent_again: Cell<u64>,
    received: Cell<u64>,
    marked: Cell<u64>,
    /// Confirmed messages that were not received.
    missing: Cell<u64>,
    first_confirm_after_kill: Cell<Option<Instant>>,
    /// Something was counted.
    pub(super) changed: Notify,
}

impl Ledger {
    /// An empty ledger for so many messages of each sender.
    pub(super) fn new(senders: usize, messages: usize) -> Self {
        Self {
            entries: RefCell::new(vec![vec![Entry::default(); messages]; senders]),
            confirmed: Cell::new(0),
            in_flight: Cell::new(0),
            sent_again: Cell::new(0),
            received: Cell::new(0),
            marked: Cell::new(0),
            missing: Cell::new(0),
            first_confirm_after_kill: Cell::new(None),
            changed: Notify::new(),
        }
    }

    /// A message was sent, perhaps not for the first time.
    pub(super) fn sent(&self, is_again: bool) {
        add(&self.in_flight, 1);
        add(&self.sent_again, u64::from(is_again));
    }

    /// A connection broke with so many messages in doubt.
    pub(super) fn broke(&self, in_doubt: u64) {
        self.in_flight
            .set(self.in_flight.get().saturating_sub(in_doubt));
    }

    /// A message was confirmed; `by_successor`: by a server that was not killed.
    pub(super) fn confirm(&self, sender: usize, number: usize, by_successor: bool) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if by_successor && self.first_confirm_after_kill.get().is_none() {
            self.first_confirm_after_kill.set(Some(Instant::now()));
        }
        self.with(sender, number, |entry| {
            if !entry.is_confirmed {
                entry.is_confirmed = true;
                add(&self.confirmed, 1);
                add(&self.missing, u64::from(entry.received == 0));
            }
        });
        self.changed.notify_waiters();
    }

    /// A message was received; `is_marked`: it says that it may have been delivered before.
    pub(super) fn receive(&self, sender: usize, number: usize, is_marked: bool) {
        add(&self.marked, u64::from(is_marked));
        self.with(sender, number, |entry| {
            if entry.received == 0 && entry.is_confirmed {
                self.missing.set(self.missing.get().saturating_sub(1));
            }
            entry.received += 1;
            add(&self.received, 1);
        });
        self.changed.notify_waiters();
    }

    fn with(&self, sender: usize, number: usize, act: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries
            .get_mut(sender)
            .and_then(|entries| entries.get_mut(number))
        {
            act(entry);
        }
    }

    /// Messages that were confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.get()
    }

    /// Messages that were sent and not confirmed, on connections that live.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// Messages that were sent once more because their confirm never came.
    pub(super) fn sent_again(&self) -> u64 {
        self.sent_again.get()
    }

    /// Deliveries, also of messages that came before.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Deliveries that said that they may be repeated.
    pub(super) fn marked(&self) -> u64 {
        self.marked.get()
    }

    /// Confirmed messages that nobody has received.
    pub(super) fn missing(&self) -> u64 {
        self.missing.get()
    }

    /// Deliveries of messages that had been received before.
    pub(super) fn duplicated(&self) -> u64 {
        let entries = self.entries.borrow();
        let repeats = |entry: &Entry| u64::from(entry.received.saturating_sub(1));
        entries.iter().flatten().map(repeats).sum()
    }

    /// When the successor confirmed its first message.
    pub(super) fn first_confirm_after_kill(&self) -> Option<Instant> {
        self.first_confirm_after_kill.get()
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn what_was_confirmed_and_never_received_is_missing() {
        let ledger = Ledger::new(2, 2);
        ledger.sent(false);
        ledger.sent(false);
        assert_eq!(ledger.in_flight(), 2);
        ledger.receive(0, 0, false);
        ledger.confirm(0, 0, false);
        assert_eq!(ledger.missing(), 0);
        ledger.confirm(1, 1, true);
        assert_eq!((ledger.missing(), ledger.confirmed()), (1, 2));
        assert!(ledger.first_confirm_after_kill().is_some());
        ledger.receive(1, 1, true);
        assert_eq!((ledger.missing(), ledger.duplicated()), (0, 0));
        ledger.receive(1, 1, true);
        assert_eq!((ledger.duplicated(), ledger.marked()), (1, 2));
        assert_eq!(ledger.in_flight(), 0);
    }

    #[test]
    fn a_message_that_was_sent_again_counts_once() {
        let ledger = Ledger::new(1, 1);
        ledger.sent(false);
        ledger.broke(1);
        ledger.sent(true);
        ledger.confirm(0, 0, true);
        ledger.receive(0, 0, false);
        ledger.receive(0, 0, false);
        assert_eq!((ledger.confirmed(), ledger.sent_again()), (1, 1));
        assert_eq!((ledger.duplicated(), ledger.missing()), (1, 0));
    }
}
