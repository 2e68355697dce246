//! What waits until a batch is durable.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use steadfast_storage::{DurableBatch, Lsn, Place, Ticket};

use super::clients::Expiry;
use crate::broker::{Message, QueueId};
use crate::proto::{AttachReply, LinkId};

use super::{ConnectionId, translate};

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
    /// The same for a message with several routes: its queues in the order of their ordinals.
    Copies(Box<(Arrival, Arc<[QueueId]>)>),
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
    /// Answer the link of a new subscription.
    Subscribed {
        connection: ConnectionId,
        link: LinkId,
        reply: Box<AttachReply>,
    },
    /// Tell a client that closed the link of a subscription that this is over.
    Unsubscribed {
        connection: ConnectionId,
        link: LinkId,
    },
    /// The end of a queue or subscription is safe, and nothing is on its way to it any more: its messages can go.
    Closed { queue: QueueId },
}

/// A message and where its bytes are in the batch.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The queue of the first route.
    pub(crate) queue: QueueId,
    pub(crate) lsn: u64,
    /// The place of the first route.
    pub(crate) place: Place,
    pub(crate) expires_at_ms: u64,
    pub(crate) meta: Range<usize>,
    pub(crate) body: Range<usize>,
}

impl Arrival {
    /// The message on its first route, as far as the queue is concerned. `batch` has its bytes.
    pub(crate) fn message(&self, batch: Option<&DurableBatch>) -> Message {
        let batch = batch.expect("a message's ticket is that of the batch with its bytes");
        Message {
            position: translate::position(Lsn(self.lsn), self.place),
            maybe_delivered: false,
            expires_at_ms: self.expires_at_ms,
            meta: batch.bytes.slice(self.meta.clone()),
            body: batch.bytes.slice(self.body.clone()),
        }
    }
}

/// The items of batches that are not durable yet, in the order of their appends.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    batches: VecDeque<(Ticket, Vec<Item>)>,
    /// Emptied lists, to be used again.
    spare: Vec<Vec<Item>>,
}

impl Pending {
    /// Adds what waits for a batch; mostly the newest one. An older one is waited for by whoever asks again for what
    /// is on its way already: a client whose connection broke before it was told of its subscription.
    pub(crate) fn push(&mut self, ticket: Ticket, item: Item) {
        let newest = self.batches.back().map(|(newest, _)| *newest);
        let at = match newest {
            Some(newest) if newest > ticket => self.batches.partition_point(|(it, _)| *it < ticket),
            Some(newest) if newest == ticket => self.batches.len() - 1,
            _ => self.batches.len(),
        };
        match self.batches.get_mut(at) {
            Some((it, items)) if *it == ticket => items.push(item),
            _ => {
                let mut items = self.spare.pop().unwrap_or_default();
                items.push(item);
                self.batches.insert(at, (ticket, items));
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
