//! The part of a queue that is in memory.
//!
//! A queue's messages on disk are read in order by a cursor. What the cursor has passed and nobody
//! has got yet waits here with its bytes (`ready`), or as a reference without bytes when it came
//! back from a consumer (`returned`). What it has not passed is on disk only. The invariant: every
//! live message that is neither on its way to a consumer nor set aside is in `ready`, in
//! `returned`, or has a number above `passed` with `behind` set.

use std::collections::{BTreeMap, VecDeque};

use super::{Limits, Loaded, Message, Position, ReadFrom};

/// A first read is short, so that a consumer that waits gets its first message soon: with cold caches each
/// message of a queue among many is a read of the disk of its own. Each further one asks for four times as
/// many, up to the limit.
const FIRST_READ_MESSAGES: usize = 2;

/// A read that is under way.
#[derive(Debug)]
struct Reading {
    /// Numbers asked for one by one; `None`: a read in order.
    places: Option<Vec<u64>>,
    /// The window was rewound meanwhile: the answer is of no use.
    discard: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    /// In order. Arrivals of the present batch at the end share its bytes until they are copied.
    ready: VecDeque<Message>,
    bytes: usize,
    /// Came back without bytes.
    returned: BTreeMap<u64, Position>,
    /// The cursor has passed all messages up to this number.
    passed: u64,
    from: ReadFrom,
    /// There may be messages that the cursor has not passed.
    behind: bool,
    /// Messages arrived during the present read that it may not have seen.
    missed: bool,
    reading: Option<Reading>,
    /// How many messages at the end of `ready` share a batch's bytes.
    fresh: usize,
    /// How many messages the next read in order asks for.
    read_messages: usize,
}

impl Window {
    /// The window of a queue; `behind` when the store may have messages of it.
    pub(super) fn new(behind: bool) -> Self {
        Self {
            ready: VecDeque::new(),
            bytes: 0,
            returned: BTreeMap::new(),
            passed: 0,
            from: ReadFrom::Start,
            behind,
            missed: false,
            reading: None,
            fresh: 0,
            read_messages: FIRST_READ_MESSAGES,
        }
    }

    /// How many messages a read asks for now.
    pub(super) fn read_messages(&self, limits: &Limits) -> usize {
        self.read_messages.min(limits.read_messages)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of messages that wait with their bytes and come before anything that came back
    /// without.
    pub(super) fn deliverable(&self) -> usize {
        match self.returned.first_key_value() {
            None => self.ready.len(),
            Some((&lsn, _)) => self.ready.partition_point(|it| it.position.lsn < lsn),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&Message> {
        self.ready.get(index)
    }

    pub(super) fn last_lsn(&self) -> Option<u64> {
        self.ready.back().map(|it| it.position.lsn)
    }

    /// The lowest number that waits, with its bytes or without.
    pub(super) fn next_lsn(&self) -> Option<u64> {
        let ready = self.ready.front().map(|it| it.position.lsn);
        let returned = self.returned.first_key_value().map(|(&lsn, _)| lsn);
        ready.into_iter().chain(returned).min()
    }

    /// No message below this number waits here or is still to be read.
    pub(super) fn floor(&self) -> u64 {
        let next = self.passed.saturating_add(1);
        self.next_lsn().map_or(next, |lsn| lsn.min(next))
    }

    /// Numbers that pass for one message, as far as the window can tell.
    pub(super) fn numbers_per_message(&self) -> u64 {
        match (self.ready.front(), self.ready.back()) {
            (Some(first), Some(last)) if self.ready.len() > 1 => {
                (last.position.lsn - first.position.lsn) / (self.ready.len() as u64 - 1)
            }
            _ => 1,
        }
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Message> {
        let message = self.ready.remove(index)?;
        self.bytes -= message.position.cost();
        self.fresh = self.fresh.min(self.ready.len());
        Some(message)
    }

    /// A message is gone. A read that is under way does not bring it back: the store leaves out what
    /// is settled.
    pub(super) fn forget(&mut self, lsn: u64) {
        self.returned.remove(&lsn);
        let index = self.ready.partition_point(|it| it.position.lsn < lsn);
        if self
            .ready
            .get(index)
            .is_some_and(|it| it.position.lsn == lsn)
        {
            self.remove(index);
        }
    }

    /// Whether all that there is waits with its bytes.
    pub(super) fn is_complete(&self) -> bool {
        self.returned.is_empty() && !self.behind && self.reading.is_none()
    }

    /// The messages that wait with their bytes.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Message> {
        self.ready.iter()
    }

    /// A message became durable. `room`: it may be kept. Returns whether it was kept.
    pub(super) fn arrived(&mut self, message: Message, room: bool) -> bool {
        if message.position.lsn <= self.passed {
            return false;
        }
        let reading_on = matches!(&self.reading, Some(it) if it.places.is_none());
        if self.behind || reading_on || !room {
            self.missed();
            return false;
        }
        self.passed = message.position.lsn;
        self.from = ReadFrom::After(message.position);
        self.bytes += message.position.cost();
        self.ready.push_back(message);
        self.fresh += 1;
        true
    }

    /// Copies what still shares a batch's bytes.
    pub(super) fn own_fresh_messages(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        for message in self.ready.iter_mut().rev().take(fresh) {
            let both = bytes::Bytes::from([&message.meta[..], &message.body[..]].concat());
            message.body = both.slice(message.meta.len()..);
            message.meta = both.slice(..message.meta.len());
        }
    }

    /// A message came back from a consumer.
    pub(super) fn give_back(&mut self, position: Position, returned_max: usize) {
        if position.lsn > self.passed {
            // The cursor was rewound and will find it.
            self.missed();
            return;
        }
        self.returned.insert(position.lsn, position);
        if self.returned.len() > returned_max {
            self.rewind();
        }
    }

    /// Gives up all memory: the cursor goes back to the first message that nobody has got.
    pub(super) fn rewind(&mut self) {
        let ready = self.ready.front().map(|it| it.position);
        let returned = self.returned.first_key_value().map(|(_, it)| *it);
        let Some(first) = ready.into_iter().chain(returned).min_by_key(|it| it.lsn) else {
            return;
        };
        self.ready.clear();
        self.returned.clear();
        self.bytes = 0;
        self.fresh = 0;
        self.read_messages = FIRST_READ_MESSAGES;
        self.passed = first.lsn - 1;
        self.from = ReadFrom::At(first);
        self.behind = true;
        if let Some(reading) = &mut self.reading {
            reading.discard = true;
        }
    }

    /// Forgets everything and starts again at the first message.
    pub(super) fn restart(&mut self) {
        let reading = self.reading.take().map(|it| Reading {
            discard: true,
            ..it
        });
        *self = Self {
            reading,
            ..Self::new(true)
        };
    }

    /// What to read now: what came back first, else onwards while the window is half empty. `room`:
    /// other windows leave memory for more than one message.
    pub(super) fn next_read(&mut self, limits: &Limits, room: bool) -> Option<ReadFrom> {
        if self.reading.is_some() {
            return None;
        }
        let (from, places) = if !self.returned.is_empty() && self.deliverable() == 0 {
            let wanted = self.next_returned(limits);
            let numbers = wanted.iter().map(|it| it.lsn).collect();
            (ReadFrom::Places(wanted), Some(numbers))
        } else if self.behind && self.is_half_empty(limits, room) {
            self.missed = false;
            (self.from.clone(), None)
        } else {
            return None;
        };
        self.reading = Some(Reading {
            places,
            discard: false,
        });
        Some(from)
    }

    fn is_half_empty(&self, limits: &Limits, room: bool) -> bool {
        self.ready.is_empty()
            || (room
                && self.ready.len() < limits.window_messages / 2
                && self.bytes < limits.window_bytes / 2)
    }

    fn next_returned(&self, limits: &Limits) -> Vec<Position> {
        let mut wanted = Vec::new();
        let mut bytes = 0;
        for position in self.returned.values() {
            bytes += position.cost();
            if !wanted.is_empty()
                && (bytes > limits.read_bytes || wanted.len() >= limits.read_messages)
            {
                break;
            }
            wanted.push(*position);
        }
        wanted
    }

    /// Takes the answer to a read. `skip` names messages that are on their way to a consumer or set
    /// aside.
    pub(super) fn loaded(&mut self, loaded: Loaded, skip: impl Fn(u64) -> bool) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        if reading.discard {
            return;
        }
        let Some(places) = reading.places else {
            return self.loaded_in_order(loaded, skip);
        };
        for message in loaded.messages {
            if self.returned.remove(&message.position.lsn).is_some() {
                let lsn = message.position.lsn;
                let index = self.ready.partition_point(|it| it.position.lsn < lsn);
                self.bytes += message.position.cost();
                self.ready.insert(index, message);
            }
        }
        for lsn in places {
            // What the store did not give is damaged and kept apart there.
            self.returned.remove(&lsn);
        }
    }

    fn loaded_in_order(&mut self, loaded: Loaded, skip: impl Fn(u64) -> bool) {
        self.from = ReadFrom::Next;
        self.behind = !loaded.end || self.missed;
        self.read_messages = self.read_messages.saturating_mul(4);
        for message in loaded.messages {
            let lsn = message.position.lsn;
            if lsn <= self.passed {
                continue;
            }
            self.passed = lsn;
            if skip(lsn) {
                continue;
            }
            self.bytes += message.position.cost();
            self.ready.push_back(message);
        }
    }

    /// A message arrived that only a further read finds.
    pub(super) fn missed(&mut self) {
        self.behind = true;
        self.missed = true;
    }

    /// Takes the answer to a read of a queue that is to be emptied; also whether it was the last.
    pub(super) fn take_all(&mut self, loaded: Loaded) -> (Vec<Message>, bool) {
        let Some(reading) = self.reading.take() else {
            return (Vec::new(), false);
        };
        if reading.discard {
            return (Vec::new(), false);
        }
        self.from = ReadFrom::Next;
        self.behind = !loaded.end || self.missed;
        (loaded.messages, !self.behind)
    }
}
