//! What waits until a batch is durable.

use std::collections::VecDeque;
use std::ops::Range;

use steadfast_storage::{Place, Ticket};

use super::clients::Expiry;
use crate::broker::QueueId;
use crate::proto::LinkId;

use super::ConnectionId;

/// One thing to do when a batch is durable and the store is ours.
#[derive(Debug)]
pub(crate) enum Item {
    /// Tell a publisher that its message is safe.
    Confirm {
        connection: ConnectionId,
        link: LinkId,
        delivery_id: u32,
    },
    /// Offer a message to the consumers of its queue.
    Arrived(Arrival),
    /// Tell a consumer that its settlement is safe.
    SettleReply {
        connection: ConnectionId,
        link: LinkId,
        delivery_id: u32,
    },
    /// A queue may deliver up to a number.
    Reserved { queue: QueueId, up_to: u64 },
    /// The state of clients that did not return is gone.
    Expired(Expiry),
}

/// A message and where its bytes are in the batch.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) queue: QueueId,
    pub(crate) lsn: u64,
    pub(crate) place: Place,
    pub(crate) expires_at_ms: u64,
    pub(crate) meta: Range<usize>,
    pub(crate) body: Range<usize>,
}

/// The items of batches that are not durable yet, in the order of their appends.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    batches: VecDeque<(Ticket, Vec<Item>)>,
    /// Emptied lists, to be used again.
    spare: Vec<Vec<Item>>,
}

impl Pending {
    /// Adds what waits for a batch. Tickets never go back.
    pub(crate) fn push(&mut self, ticket: Ticket, item: Item) {
        match self.batches.back_mut() {
            Some((last, items)) if *last == ticket => items.push(item),
            last => {
                assert!(last.is_none_or(|(last, _)| *last < ticket), "tickets grow");
                let mut items = self.spare.pop().unwrap_or_default();
                items.push(item);
                self.batches.push_back((ticket, items));
            }
        }
    }

    /// Takes the items of the oldest batch up to a durable ticket.
    pub(crate) fn pop_durable(&mut self, durable: Ticket) -> Option<(Ticket, Vec<Item>)> {
        let is_durable = self
            .batches
            .front()
            .is_some_and(|(ticket, _)| *ticket <= durable);
        if is_durable {
            self.batches.pop_front()
        } else {
            None
        }
    }

    /// Gives an emptied list back.
    pub(crate) fn recycle(&mut self, mut items: Vec<Item>) {
        items.clear();
        if self.spare.len() < 4 {
            self.spare.push(items);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}
