//! Looking at waiting messages for an administrator. The read is run by the owner, on a thread where
//! nobody waits for it, beside the reads of queues and browsers.

use steadfast_storage::{Cursor, Place, ReadDone, ReadJob, ReadLimit};

use crate::broker::{Event, Message, QueueId, Route};

use super::meta::MessageMeta;
use super::translate::{self, store_queue};
use super::{Node, Now};

/// Names a waiting message for as long as it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    queue: QueueId,
    segment: u64,
    ordinal: u32,
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            queue,
            segment,
            ordinal,
        } = self;
        write!(formatter, "{}.{segment}.{ordinal}", queue.0)
    }
}

impl std::str::FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not the id of a message; show messages QUEUE has them");
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or_else(wrong);
        let (queue, segment, ordinal) = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            queue: QueueId(queue.parse().map_err(|_| wrong())?),
            segment: segment.parse().map_err(|_| wrong())?,
            ordinal: ordinal.parse().map_err(|_| wrong())?,
        })
    }
}

impl MessageId {
    fn place(self) -> Place {
        Place {
            segment: self.segment,
            ordinal: self.ordinal,
            offset: 0,
            bytes: 0,
        }
    }
}

/// A read that is to be run.
#[derive(Debug)]
pub struct Look {
    queue: QueueId,
    job: ReadJob,
}

/// A read that was run.
#[derive(Debug)]
pub struct Looked {
    queue: QueueId,
    done: ReadDone,
}

impl Look {
    /// Reads. Blocks as long as the disk takes.
    #[must_use]
    pub fn run(self) -> Looked {
        Looked {
            queue: self.queue,
            done: self.job.run(),
        }
    }
}

/// A message that waits in a queue.
#[derive(Debug, Clone)]
pub struct WaitingMessage {
    /// Names it.
    pub id: MessageId,
    /// The message itself, with its number and its encoded sections.
    pub message: Message,
    /// The sender wants it to survive the server.
    pub is_durable: bool,
    /// 0 to 255.
    pub priority: u8,
    /// When it came, milliseconds since 1970.
    pub arrived_at_ms: u64,
    /// Deliveries in vain, as far as they are known.
    pub delivery_count: u32,
    /// A consumer has it now.
    pub is_taken: bool,
}

impl Node {
    /// A look at the oldest messages of a queue, or at those behind one. `None`: no such queue.
    pub fn look(&self, queue: &str, after: Option<MessageId>, limit: ReadLimit) -> Option<Look> {
        let Route::Queue(queue) = self.broker.route(queue) else {
            return None;
        };
        let from = after.map_or(Cursor::START, |it| Cursor::after(it.place()));
        let job = self.store.read_queue(store_queue(queue), from, limit);
        Some(Look { queue, job })
    }

    /// A look at one message. `None`: it does not wait any more.
    pub fn look_at(&self, id: MessageId) -> Option<Look> {
        self.broker.queue(id.queue)?;
        if !self.store.is_live(id.place()) {
            return None;
        }
        let limit = ReadLimit {
            messages: 1,
            bytes: 1,
        };
        let from = Cursor::at(id.place());
        let job = self.store.read_queue(store_queue(id.queue), from, limit);
        Some(Look {
            queue: id.queue,
            job,
        })
    }

    /// What was seen, without what was settled meanwhile. Damaged messages are left to the reads of
    /// consumers, which set them aside.
    ///
    /// # Errors
    /// The disk refused to read.
    pub fn looked(&self, looked: Looked) -> Result<Vec<WaitingMessage>, String> {
        if let Some(error) = looked.done.error {
            return Err(error);
        }
        let queue = looked.queue;
        let live = looked.done.messages.into_iter();
        let live = live.filter(|it| self.store.is_live(it.place));
        let messages = live.map(|stored| {
            let message = translate::message(stored);
            let meta = MessageMeta::decode(&message.meta);
            let (delivery_count, is_taken) = self.broker.standing(queue, &message);
            WaitingMessage {
                id: MessageId {
                    queue,
                    segment: message.position.segment,
                    ordinal: message.position.ordinal,
                },
                is_durable: meta.is_some_and(|meta| meta.durable),
                priority: meta.map_or(4, |meta| meta.priority),
                arrived_at_ms: meta.map_or(0, |meta| meta.arrived_at_ms),
                delivery_count,
                is_taken,
                message,
            }
        });
        Ok(messages.collect())
    }

    /// Removes a message that was seen; `false` when a consumer has it, or it is gone.
    pub fn discard_message(&mut self, now: Now, seen: &WaitingMessage) -> bool {
        let (queue, position) = (seen.id.queue, seen.message.position);
        let is_taken = self.broker.standing(queue, &seen.message).1;
        if is_taken || !self.store.is_live(translate::place(position)) {
            return false;
        }
        self.broker.handle(Event::DiscardOne { queue, position });
        self.work(now);
        true
    }
}
