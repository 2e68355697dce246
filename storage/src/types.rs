//! Identifiers and small values of the store's interface.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// Number of a queue. Given out by the store's user; 0 is reserved for "no queue".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u32);

/// Number of a record in the log. Dense, from 1; 0 means "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

/// Number of the batch that carries an append, from 1 in each process. Durable once
/// [`crate::Store::durable_ticket`] has reached it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ticket(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where one reference (one route of one message) stands in the log.
///
/// Ordered by segment, then ordinal, which is the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Number of the segment that holds the record.
    pub segment: u64,
    /// Number of the reference within its segment, from 0.
    pub ordinal: u32,
    /// Offset of the record in the segment, in units of 8 bytes.
    pub offset: u32,
    /// Bytes that count for the queue's size: meta and body.
    pub bytes: u32,
}

/// What is known of a stored message besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageFlags {
    /// The sender asked for durability.
    pub durable: bool,
    /// An earlier owner of the store may have delivered it: it must be marked as redelivered.
    pub maybe_delivered: bool,
}

/// A message to append.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// The queues that get a reference; at least one, at most [`crate::ROUTES_MAX`].
    pub routes: &'a [QueueId],
    /// See [`MessageFlags::durable`].
    pub durable: bool,
    /// Bytes of the user beside the body, opaque here; at most [`crate::META_BYTES_MAX`].
    pub meta: &'a [u8],
    /// The body in one or more pieces, stored one after the other.
    pub body: &'a [&'a [u8]],
}

/// Where an appended message went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The batch that makes it durable.
    pub ticket: Ticket,
    /// Its number in the log.
    pub lsn: Lsn,
    /// Place of the first route; route `i` has ordinal `first.ordinal + i`, the rest is the same.
    pub first: Place,
    /// The meta bytes within [`DurableBatch::bytes`].
    pub meta: Range<usize>,
    /// The body within [`DurableBatch::bytes`].
    pub body: Range<usize>,
}

/// A batch that has become durable, with the bytes that were written.
#[derive(Clone, Debug)]
pub struct DurableBatch {
    /// Its number.
    pub ticket: Ticket,
    /// What was written; the ranges of [`Appended`] index into it.
    pub bytes: Bytes,
}

/// A message read back from the log.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Its number in the log: the order of arrival.
    pub lsn: Lsn,
    /// The reference that was read.
    pub place: Place,
    /// The queue of that reference.
    pub queue: QueueId,
    /// Durability and redelivery.
    pub flags: MessageFlags,
    /// The bytes given as [`NewMessage::meta`].
    pub meta: Bytes,
    /// The body.
    pub body: Bytes,
}

/// What waits in a queue: references appended and not settled, as far as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueStats {
    /// Number of references.
    pub messages: u64,
    /// Their bytes (meta and body).
    pub bytes: u64,
}

/// A position in the order of arrival, *after* which a read goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cursor {
    pub(crate) segment: u64,
    /// First ordinal that is still to be read.
    pub(crate) ordinal: u32,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self {
        segment: 0,
        ordinal: 0,
    };

    /// Right behind a reference.
    #[must_use]
    pub fn after(place: Place) -> Self {
        Self {
            segment: place.segment,
            ordinal: place.ordinal.saturating_add(1),
        }
    }

    /// Right before a reference: reading on gives that reference again if it is live.
    #[must_use]
    pub fn at(place: Place) -> Self {
        Self {
            segment: place.segment,
            ordinal: place.ordinal,
        }
    }

    /// Whether a reference lies behind this position, so that reading on would still meet it.
    #[must_use]
    pub fn is_before(&self, place: Place) -> bool {
        (place.segment, place.ordinal) >= (self.segment, self.ordinal)
    }
}

/// Bounds of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimit {
    /// At most this many messages.
    pub messages: usize,
    /// Stop after the message that reaches this many bytes; at least one message is read.
    pub bytes: usize,
}
