//! Everything that can happen to the core.

use std::sync::Arc;

use bytes::Bytes;

use super::{Holding, QueueKind, Reader};

/// Number of a queue; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

/// Names a client: all connections of one container and one user. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A consumer or browser of a queue; the number is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId {
    /// The queue that it reads.
    pub queue: QueueId,
    /// Its number.
    pub number: u64,
}

/// Names one message of one queue: its number, by which queues are ordered, and its place in the
/// store, which means nothing to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the message; the order of the queue.
    pub lsn: u64,
    /// Place: segment.
    pub segment: u64,
    /// Place: ordinal in the segment.
    pub ordinal: u32,
    /// Place: offset in the segment.
    pub offset: u32,
    /// Length of the message, bytes.
    pub bytes: u32,
}

impl Position {
    /// What the message costs in memory, bytes.
    pub(crate) fn cost(&self) -> usize {
        self.bytes as usize + size_of::<Message>()
    }
}

/// A message with its bytes.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its name.
    pub position: Position,
    /// A predecessor of this process may have delivered it.
    pub maybe_delivered: bool,
    /// When it expires, milliseconds since 1970; 0: never.
    pub expires_at_ms: u64,
    /// The owner's index of the message; opaque.
    pub meta: Bytes,
    /// The encoded message; opaque.
    pub body: Bytes,
}

/// Where a queue comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOrigin {
    /// It is new and empty.
    Created,
    /// It was found in the store.
    Recovered {
        /// Messages up to this number may have been delivered before.
        maybe_delivered_up_to: u64,
        /// Deliveries up to this number are reserved already.
        reserved_up_to: u64,
        /// Delivery counts above 1 that were recorded, by message number.
        counts: Vec<(u64, u32)>,
        /// What is kept for clients that may return.
        held: Vec<Holding>,
    },
}

/// How a consumer takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerMode {
    /// A message leaves the queue when the consumer says so.
    Take,
    /// A message is sent settled: the owner reports it as accepted once it is sent.
    TakeSettled,
    /// Messages stay; only those up to this number are shown.
    Browse {
        /// Number of the last message.
        up_to: u64,
    },
}

/// How a consumer went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It said so: what it did not settle counts as never delivered.
    InOrder,
    /// Its connection broke: what it did not settle counts as a failed delivery.
    Lost,
}

/// What a consumer did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Accepted,
    /// Invalid for good.
    Rejected,
    /// Back, as if never delivered.
    Released,
    /// Back, with a remark.
    Modified {
        /// Counts as a failed delivery.
        failed: bool,
        /// Not to this consumer again.
        not_here: bool,
    },
}

/// The answer to a [`ReadRequest`](super::ReadRequest).
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Who asked.
    pub reader: Reader,
    /// What was found, in order, without what was settled while the read was under way and what the disk does
    /// not give.
    pub messages: Vec<Message>,
    /// Nothing further was durable when the request was made. Only for reads in order.
    pub end: bool,
}

/// Who has a message that is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody: it waits for a consumer.
    Waiting,
    /// A consumer, which has not settled it.
    With(ConsumerId),
    /// A client had it when the predecessor ended: it is kept for that client.
    KeptFor(ClientId),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A queue exists from now on.
    QueueAdded {
        /// Its number.
        queue: QueueId,
        /// Its address.
        name: Arc<str>,
        /// Its life.
        kind: QueueKind,
        /// New or recovered.
        origin: QueueOrigin,
    },
    /// A temporary queue whose owner was not known has one.
    QueueClaimed {
        /// The queue.
        queue: QueueId,
        /// The owner.
        owner: ClientId,
    },
    /// A queue is about to go: from now on it has no address. Its consumers must be detached before.
    /// [`Event::QueueDeleted`] follows when that is durable.
    QueueClosed {
        /// The queue.
        queue: QueueId,
    },
    /// A queue goes away with all of its messages. Its consumers must be detached before.
    /// [`Effect::QueueEmptied`](super::Effect::QueueEmptied) follows.
    QueueDeleted {
        /// The queue.
        queue: QueueId,
    },
    /// The last trace of a deleted queue is gone.
    QueueRemoved {
        /// The queue.
        queue: QueueId,
    },
    /// A consumer exists from now on; it is not ready yet.
    ConsumerAttached {
        /// The consumer.
        consumer: ConsumerId,
        /// How it takes messages.
        mode: ConsumerMode,
        /// Whose it is; what was kept for that client comes to it, before what is behind that.
        client: Option<ClientId>,
    },
    /// The consumer takes at least one more message.
    ConsumerReady {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The consumer takes no message until it is ready again.
    ConsumerBlocked {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The consumer wants what there is now, and to hear when that is all.
    DrainWanted {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// A consumer is gone; what it did not settle goes back to its queue.
    ConsumerGone {
        /// The consumer.
        consumer: ConsumerId,
        /// In order or not.
        how: Gone,
    },
    /// A client is gone: what is still kept for it goes to others.
    ClientGone {
        /// The client.
        client: ClientId,
    },
    /// Nothing of a queue is kept for anybody any more.
    HoldsReleased {
        /// The queue.
        queue: QueueId,
    },
    /// The time in which clients may return is over: what is kept for clients that have no consumer for
    /// it goes to others.
    HoldsOver,
    /// A published message became durable. In the order of the messages' numbers.
    Arrived {
        /// The queue.
        queue: QueueId,
        /// The message.
        message: Message,
    },
    /// A consumer settled a delivery. Unknown ones are ignored.
    Settled {
        /// The consumer.
        consumer: ConsumerId,
        /// Number of the message.
        lsn: u64,
        /// What it did.
        outcome: Outcome,
    },
    /// A read finished.
    Loaded(Loaded),
    /// A queue holds more than it may: its oldest messages go, except those that consumers have. Of
    /// several such events the last one counts.
    OverLimit {
        /// The queue.
        queue: QueueId,
        /// So many messages too many.
        messages: u64,
        /// So many bytes too many.
        bytes: u64,
    },
    /// An administrator empties a queue: its messages up to a number go, except those that consumers
    /// have. [`Effect::Discarded`](super::Effect::Discarded) follows.
    Discard {
        /// The queue.
        queue: QueueId,
        /// The number.
        up_to: u64,
    },
    /// From now on one consumer of a queue gets all messages, or all get some.
    QueueExclusive {
        /// The queue.
        queue: QueueId,
        /// One gets all.
        is_exclusive: bool,
    },
    /// An administrator removes one message, wherever it waits; not one that somebody has, or
    /// that is kept for somebody.
    DiscardOne {
        /// The queue.
        queue: QueueId,
        /// The message.
        position: Position,
    },
    /// A reservation became durable.
    Reserved {
        /// The queue.
        queue: QueueId,
        /// Deliveries up to this number are allowed.
        up_to: u64,
    },
}
