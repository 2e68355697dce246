//! Deliveries: outcomes and payloads, those of ours that wait for an outcome, and outcomes that wait
//! to be written.

use std::collections::VecDeque;

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
        outcome: Option<Box<Self>>,
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

/// Settled entries that are kept between live ones before the queue is packed.
const GONE_MAX: usize = 64;

/// A delivery that we sent and that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) delivery_id: u32,
    /// Local handle of its link.
    pub(crate) handle: u32,
    pub(crate) token: u64,
    pub(crate) state: SentState,
}

/// What is known of a delivery that we sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentState {
    /// Nothing.
    Waiting,
    /// The receiver named an outcome but waits for us to settle.
    Answered,
    /// Settled; the entry only keeps its place.
    Gone,
}

/// The unsettled deliveries of a session in the order of their ids. Settling in order, the usual
/// case, costs nothing but a step; out of order a binary search.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    entries: VecDeque<Sent>,
    gone: usize,
}

impl Unsettled {
    /// Deliveries that are not settled.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.gone
    }

    /// Ids grow by one with each call of a session.
    pub(crate) fn push(&mut self, delivery_id: u32, handle: u32, token: u64) {
        self.entries.push_back(Sent {
            delivery_id,
            handle,
            token,
            state: SentState::Waiting,
        });
    }

    /// Shows the live entries from `first` to `last` to `visit`, which sets their new state. Ids that are
    /// not there are passed over.
    pub(crate) fn visit(&mut self, first: u32, last: u32, mut visit: impl FnMut(&mut Sent)) {
        let Some(front) = self.entries.front().map(|sent| sent.delivery_id) else {
            return;
        };
        // Offsets from the front; an id before the front becomes a huge one.
        let (mut low, high) = (first.wrapping_sub(front), last.wrapping_sub(front));
        if low > u32::MAX / 2 {
            low = 0;
        }
        if high > u32::MAX / 2 {
            return;
        }
        let start = self.position(front, low);
        for sent in self.entries.range_mut(start..) {
            if sent.delivery_id.wrapping_sub(front) > high {
                break;
            }
            if sent.state == SentState::Gone {
                continue;
            }
            visit(sent);
            if sent.state == SentState::Gone {
                self.gone += 1;
            }
        }
        self.pack();
    }

    /// Forgets the deliveries of a link.
    pub(crate) fn forget_link(&mut self, handle: u32) {
        self.entries
            .retain(|sent| sent.state != SentState::Gone && sent.handle != handle);
        self.gone = 0;
    }

    /// Index of the first entry at or behind an offset from the front.
    fn position(&self, front: u32, offset: u32) -> usize {
        let guess = offset as usize;
        if self
            .entries
            .get(guess)
            .is_some_and(|sent| sent.delivery_id.wrapping_sub(front) == offset)
        {
            return guess;
        }
        self.entries
            .partition_point(|sent| sent.delivery_id.wrapping_sub(front) < offset)
    }

    fn pack(&mut self) {
        while self
            .entries
            .front()
            .is_some_and(|sent| sent.state == SentState::Gone)
        {
            self.entries.pop_front();
            self.gone -= 1;
        }
        if self.gone > GONE_MAX && self.gone * 2 > self.entries.len() {
            self.entries.retain(|sent| sent.state != SentState::Gone);
            self.gone = 0;
        }
    }
}

/// Consecutive deliveries with one outcome: one disposition frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) outcome: Option<Outcome>,
}

/// Outcomes to be written at the next flush, as runs.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    runs: Vec<Run>,
}

impl Settlements {
    pub(crate) fn push(&mut self, delivery_id: u32, outcome: Option<Outcome>) {
        if let Some(run) = self.runs.last_mut()
            && run.last.wrapping_add(1) == delivery_id
            && run.outcome == outcome
        {
            run.last = delivery_id;
            return;
        }
        self.runs.push(Run {
            first: delivery_id,
            last: delivery_id,
            outcome,
        });
    }

    /// Hands out the fewest runs, in the order of ids, and forgets them.
    pub(crate) fn drain(&mut self, mut write: impl FnMut(&Run)) {
        if let Some(base) = self.runs.first().map(|run| run.first.wrapping_sub(1 << 31)) {
            // Stable: of two outcomes for one id the earlier stays first.
            self.runs.sort_by_key(|run| run.first.wrapping_sub(base));
        }
        let mut current: Option<Run> = None;
        for run in self.runs.drain(..) {
            match &mut current {
                Some(open)
                    if open.last.wrapping_add(1) == run.first && open.outcome == run.outcome =>
                {
                    open.last = run.last;
                }
                _ => {
                    if let Some(complete) = current.replace(run) {
                        write(&complete);
                    }
                }
            }
        }
        if let Some(complete) = current {
            write(&complete);
        }
    }
}
