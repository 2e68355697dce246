//! Deliveries: payloads, outcomes.

use bytes::{Bytes, BytesMut};

use super::ErrorCondition;

/// What became of a delivery (part 3.4), or the transactional state that stands for it (part 4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Accepted,
    /// Invalid and not to be delivered again.
    Rejected(Option<ErrorCondition>),
    /// Not taken; as if never delivered.
    Released,
    /// Not taken, with a remark.
    Modified {
        /// Counts as a failed delivery.
        delivery_failed: bool,
        /// Not to be delivered on this link again.
        undeliverable_here: bool,
    },
    /// Answer of a coordinator: the transaction's id.
    Declared {
        /// The new transaction.
        txn_id: Bytes,
    },
    /// Part of a transaction.
    Transactional {
        /// The transaction.
        txn_id: Bytes,
        /// The outcome that holds when the transaction commits.
        outcome: Option<Box<Outcome>>,
    },
}

/// The encoded bytes of one message, in as many parts as frames carried it. Parts are slices of the
/// received buffers; nothing was copied. Small parts pin their whole receive buffer: copy what is kept for long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

impl Payload {
    /// Length of all parts in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts in order.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(self.rest.iter())
    }

    /// The first part: all of the message when it came in one frame.
    pub fn first(&self) -> &Bytes {
        &self.first
    }

    /// The whole message when it came in one part.
    pub fn as_single(&self) -> Option<&Bytes> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// The message as one slice; copies only when there is more than one part.
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for part in self.parts() {
            whole.extend_from_slice(part);
        }
        whole.freeze()
    }

    /// Appends a part; an empty one is dropped.
    pub(crate) fn push(&mut self, part: Bytes) {
        if part.is_empty() {
            return;
        }
        self.len += part.len();
        if self.first.is_empty() {
            self.first = part;
        } else {
            self.rest.push(part);
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self {
            len: bytes.len(),
            first: bytes,
            rest: Vec::new(),
        }
    }
}
