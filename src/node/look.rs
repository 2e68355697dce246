//! Looking at the messages of a queue for an administrator, and removing one. The reads are run by the
//! owner, on a thread where nobody waits for them, beside the reads of queues and browsers; each reads a
//! part that fits into memory, and the next one goes on behind it.

use std::fmt;
use std::str::FromStr;

use steadfast_storage::{Cursor, Place, ReadDone, ReadJob, ReadLimit, Ticket};

use crate::broker::{Event, Message, QueueId, Route, Standing};

use super::meta::MessageMeta;
use super::translate::{self, store_queue};
use super::{ConnectionId, Node, Now};

/// A part of a look has about so many bytes, or one message.
const PART_BYTES: usize = 4 << 20;

/// Names a message of a queue for as long as it is there, also over a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    queue: QueueId,
    segment: u64,
    ordinal: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            queue,
            segment,
            ordinal,
        } = self;
        write!(formatter, "{}.{segment}.{ordinal}", queue.0)
    }
}

impl FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (queue, rest) = text.split_once('.')?;
            let (segment, ordinal) = rest.split_once('.')?;
            Some(Self {
                queue: QueueId(queue.parse().ok()?),
                segment: segment.parse().ok()?,
                ordinal: ordinal.parse().ok()?,
            })
        };
        read().ok_or_else(|| {
            format!(
                "`{text}` is not the id of a stored message, which is three numbers with points \
                 between them; show messages QUEUE has the ids, and with message_id=TEXT it finds the \
                 message that its sender called so"
            )
        })
    }
}

impl MessageId {
    fn of(queue: QueueId, place: Place) -> Self {
        Self {
            queue,
            segment: place.segment,
            ordinal: place.ordinal,
        }
    }

    fn place(self) -> Place {
        translate::reference(self.segment, self.ordinal)
    }
}

/// Whose messages are looked at.
#[derive(Debug, Clone, Copy)]
pub enum LookAt<'a> {
    /// Those of a queue that has this address.
    Queue(&'a str),
    /// Those of a durable subscription.
    Durable {
        /// Its name.
        name: &'a str,
        /// The container of its client; empty: the only one of that name.
        client: &'a str,
        /// The user of its client; empty: the only one of that name and container.
        user: &'a str,
    },
}

/// Where a look begins or goes on.
#[derive(Debug, Clone, Copy)]
pub struct LookFrom {
    queue: QueueId,
    cursor: Cursor,
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

/// Who has a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A consumer, which has not settled it.
    Consumer {
        /// Its number, as in [`ConsumerStatus`](super::ConsumerStatus).
        number: u64,
        /// Its connection.
        connection: Option<ConnectionId>,
        /// The container id of its client.
        container: String,
    },
    /// A client had it when the predecessor ended: it is kept for that client.
    Client {
        /// Its container id.
        container: String,
        /// Its user.
        user: Option<String>,
    },
}

/// A message that is in a queue.
#[derive(Debug, Clone)]
pub struct SeenMessage {
    /// Names it.
    pub id: MessageId,
    /// The message itself, with its number and its encoded sections.
    pub message: Message,
    /// AMQP's format; 0 is the only one that is known.
    pub format: u32,
    /// The sender wants it to survive the server.
    pub is_durable: bool,
    /// 0 to 255.
    pub priority: u8,
    /// When it came, milliseconds since 1970; 0: not known.
    pub arrived_at_ms: u64,
    /// When it expires, milliseconds since 1970; 0: never.
    pub expires_at_ms: u64,
    /// Deliveries in vain, as far as they are known.
    pub delivery_count: u32,
    /// Who has it.
    pub holder: Holder,
}

/// What a look has seen.
#[derive(Debug)]
pub struct Seen {
    /// Messages in order of arrival.
    pub messages: Vec<SeenMessage>,
    /// Messages among or behind them that the disk refuses to read.
    pub unreadable: Vec<MessageId>,
    /// Where to go on; `None`: there is nothing more.
    pub next: Option<LookFrom>,
}

/// Why a message was not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undiscarded {
    /// It is not there any more.
    Gone,
    /// Somebody has it.
    Held(Holder),
    /// It is not certain at present that the store is ours, or the server stops.
    NotNow,
}

impl Node {
    /// Where a look at all messages of a queue begins, or at those behind one of them. `None`: there is no
    /// such queue.
    pub fn look_from(&self, at: LookAt<'_>, after: Option<MessageId>) -> Option<LookFrom> {
        let queue = match at {
            LookAt::Queue(name) => match self.broker.route(name) {
                Route::Queue(queue) => queue,
                Route::Unknown | Route::Invalid(_) => return None,
            },
            LookAt::Durable { name, client, user } => {
                self.subscriptions.meant(client, user, name)?.0
            }
        };
        let cursor = after.map_or(Cursor::START, |it| Cursor::after(it.place()));
        Some(LookFrom { queue, cursor })
    }

    /// Whether an id names a message of the queue that a look is at.
    pub fn is_of(&self, id: MessageId, from: LookFrom) -> bool {
        id.queue == from.queue
    }

    /// The next part of a look: so many messages at most.
    pub fn look(&self, from: LookFrom, messages: usize) -> Look {
        let limit = ReadLimit {
            messages,
            bytes: PART_BYTES,
        };
        let mut job = self
            .store
            .read_queue(store_queue(from.queue), from.cursor, limit);
        // A network file system that is away refuses everything.
        if self.store.is_local() {
            job = job.skipping_unreadable();
        }
        Look {
            queue: from.queue,
            job,
        }
    }

    /// A look at one message. `None`: it is not there.
    pub fn look_at(&self, id: MessageId) -> Option<Look> {
        self.broker.queue(id.queue)?;
        if !self.store.is_live(id.place()) {
            return None;
        }
        let cursor = Cursor::at(id.place());
        let queue = id.queue;
        Some(self.look(LookFrom { queue, cursor }, 1))
    }

    /// What was seen, without what was settled meanwhile, and where to go on. Damaged messages are left to
    /// the reads of consumers, which set them aside.
    ///
    /// # Errors
    /// The disk refused to read.
    pub fn looked(&self, looked: Looked) -> Result<Seen, String> {
        let Looked { queue, done } = looked;
        if let Some(error) = done.error {
            return Err(error);
        }
        let cursor = done.next;
        let next = (!done.end).then_some(LookFrom { queue, cursor });
        let live = done.messages.into_iter();
        let live = live.filter(|it| self.store.is_live(it.place));
        let seen = live.filter_map(|stored| self.seen(queue, translate::message(stored)));
        let unreadable = done.unreadable.into_iter();
        let unreadable = unreadable.filter(|it| self.store.is_live(*it));
        Ok(Seen {
            messages: seen.collect(),
            unreadable: unreadable.map(|it| MessageId::of(queue, it)).collect(),
            next,
        })
    }

    fn seen(&self, queue: QueueId, message: Message) -> Option<SeenMessage> {
        let meta = MessageMeta::decode(&message.meta);
        let (delivery_count, standing) = self.broker.standing(queue, &message)?;
        Some(SeenMessage {
            id: MessageId::of(queue, translate::place(message.position)),
            format: meta.map_or(0, |meta| meta.message_format),
            is_durable: meta.is_some_and(|meta| meta.durable),
            priority: meta.map_or(4, |meta| meta.priority),
            arrived_at_ms: meta.map_or(0, |meta| meta.arrived_at_ms),
            expires_at_ms: message.expires_at_ms,
            delivery_count,
            holder: self.holder(standing),
            message,
        })
    }

    fn holder(&self, standing: Standing) -> Holder {
        match standing {
            Standing::Waiting => Holder::Nobody,
            Standing::With(consumer) => {
                let connection = self.outlets.get(&consumer.number).map(|(id, _)| *id);
                let container = connection.map(|id| self.identity_of(id).container);
                Holder::Consumer {
                    number: consumer.number,
                    connection,
                    container: container.unwrap_or_default(),
                }
            }
            Standing::KeptFor(client) => {
                let identity = self.clients.identity(client).cloned();
                Holder::Client {
                    container: identity
                        .as_ref()
                        .map_or_else(String::new, |it| it.container.clone()),
                    user: identity.and_then(|it| it.user),
                }
            }
        }
    }

    /// In which queue a message is, in words.
    pub fn place_of(&self, id: MessageId) -> String {
        if let Some(subscription) = self.subscriptions.get(id.queue) {
            return subscription.describe();
        }
        let queue = self.broker.queue(id.queue);
        queue.map_or_else(|| "-".to_owned(), |it| format!("queue {}", it.name))
    }

    /// Removes a message that was seen and that nobody has. It is gone for good when the batch is durable
    /// ([`Self::is_safe`]).
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn discard_message(&mut self, now: Now, seen: &SeenMessage) -> Result<Ticket, Undiscarded> {
        self.check_fence(now);
        if !self.holds_store() || self.is_stopping {
            // What is durable may not have come to its queue yet.
            return Err(Undiscarded::NotNow);
        }
        let (queue, position) = (seen.id.queue, seen.message.position);
        let place = translate::place(position);
        if !self.store.is_live(place) {
            return Err(Undiscarded::Gone);
        }
        match self.broker.standing(queue, &seen.message) {
            Some((_, Standing::Waiting)) => {}
            Some((_, standing)) => return Err(Undiscarded::Held(self.holder(standing))),
            None => return Err(Undiscarded::Gone),
        }
        self.broker.handle(Event::DiscardOne { queue, position });
        self.work(now);
        match self.settled_ticket {
            Some(ticket) if !self.store.is_live(place) => Ok(ticket),
            // The log takes nothing more: it is lost or sealed.
            _ => Err(Undiscarded::NotNow),
        }
    }

    /// Whether a batch is durable and the store is ours.
    pub fn is_safe(&mut self, now: Now, ticket: Ticket) -> bool {
        self.check_fence(now);
        self.holds_store() && self.store.durable_ticket() >= ticket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = MessageId {
            queue: QueueId(7),
            segment: 12,
            ordinal: 345,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "7",
            "7.12",
            "7.12.345.6",
            "7.12.x",
            "-1.2.3",
            "ID:7.12.345",
            "1..2",
        ] {
            let refused = text.parse::<MessageId>().expect_err(text);
            assert!(refused.contains("show messages"), "{refused}");
        }
    }
}
