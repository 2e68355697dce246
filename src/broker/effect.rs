//! What the core wants done.

use super::{ConsumerId, Message, Position, QueueId};

/// Where a read begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first message.
    Start,
    /// Where the reader's previous read in order ended.
    Next,
    /// Behind this message.
    After(Position),
    /// At this message.
    At(Position),
    /// These messages and no others.
    Places(Vec<Position>),
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// A queue fills its window (or empties itself, when it is deleted).
    Queue(QueueId),
    /// A browser.
    Browser(ConsumerId),
}

impl Reader {
    /// The queue that is read.
    pub fn queue(self) -> QueueId {
        match self {
            Self::Queue(queue) => queue,
            Self::Browser(consumer) => consumer.queue,
        }
    }
}

/// A read of durable messages. One reader has at most one under way;
/// [`Event::Loaded`](super::Event::Loaded) answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Who reads.
    pub reader: Reader,
    /// From where.
    pub from: ReadFrom,
    /// At most so many messages.
    pub messages: usize,
    /// At most so many bytes, but at least one message.
    pub bytes: usize,
}

/// Work for the store, or news for a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A message leaves a queue for good.
    Settle {
        /// The queue.
        queue: QueueId,
        /// The message.
        position: Position,
    },
    /// Messages are wanted.
    Read(ReadRequest),
    /// Record that messages up to a number may be delivered; answer with
    /// [`Event::Reserved`](super::Event::Reserved) when the record is durable.
    Reserve {
        /// The queue.
        queue: QueueId,
        /// The number.
        up_to: u64,
    },
    /// Record how often a delivery failed; need not be durable at once.
    Count {
        /// The queue.
        queue: QueueId,
        /// Number of the message.
        lsn: u64,
        /// Failed deliveries; 0 removes the record.
        count: u32,
    },
    /// A draining consumer got all there is.
    Drained {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// All has gone that a queue was to discard.
    Discarded {
        /// The queue.
        queue: QueueId,
        /// So many messages went.
        messages: u64,
    },
    /// All messages of a deleted queue are settled: its records can go.
    QueueEmptied {
        /// The queue.
        queue: QueueId,
    },
}

/// A message for a consumer.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// To whom.
    pub consumer: ConsumerId,
    /// What.
    pub message: Message,
    /// Earlier deliveries that failed, or may have.
    pub delivery_count: u32,
    /// To be sent settled, then reported as accepted.
    pub settled: bool,
}
