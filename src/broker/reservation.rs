//! How far a queue may deliver.
//!
//! After a takeover nobody knows which unsettled messages clients have seen. So a queue records,
//! before it delivers, up to which message number it may: a successor marks what is unsettled up to
//! there as redelivered. Recording ahead makes that rare; marking too much is allowed, too little
//! is not.

/// About how many messages a reservation reaches ahead.
const AHEAD: u64 = 1000;

/// The delivery reservation of one queue.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Deliveries up to this number are recorded durably.
    durable: u64,
    /// Recording up to this number was asked for.
    asked: u64,
}

impl Reservation {
    /// A reservation that is recorded up to `durable`; 0 for none.
    pub(super) fn new(durable: u64) -> Self {
        Self {
            durable,
            asked: durable,
        }
    }

    /// Whether a message may be delivered.
    pub(super) fn covers(&self, lsn: u64) -> bool {
        lsn <= self.durable
    }

    /// What to record now, so that `lsn` and about 1000 messages behind it may be delivered;
    /// `per_message` is how many numbers pass for one message of this queue. `None` while enough is
    /// recorded or asked for.
    pub(super) fn due(&mut self, lsn: u64, per_message: u64) -> Option<u64> {
        let ahead = AHEAD.saturating_mul(per_message.max(1));
        if lsn.saturating_add(ahead / 2) <= self.asked {
            return None;
        }
        self.asked = lsn.saturating_add(ahead);
        Some(self.asked)
    }

    /// The record up to this number is durable.
    pub(super) fn recorded(&mut self, up_to: u64) {
        self.durable = self.durable.max(up_to);
        self.asked = self.asked.max(up_to);
    }
}
