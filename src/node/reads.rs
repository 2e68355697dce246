//! Reads of stored messages.

use std::sync::Arc;

use steadfast_storage::{Cursor, Place, ReadDone, ReadJob, ReadLimit};

use crate::broker::{ConsumerId, Event, Loaded, ReadFrom, ReadRequest, Reader};

use super::translate::{self, store_queue};
use super::{Node, Now};

/// A read is tried so often before what a local disk refuses to give is left out: at a tick of 250 ms, for about
/// 5 s.
const ATTEMPTS_MAX: u32 = 20;
/// At most so many messages are left out; a disk that refuses more is away, and is tried again for ever.
const UNREADABLE_MAX: usize = 10_000;

/// So many messages of queues that are being emptied are settled and not durable before the next are read: a log that
/// takes nothing for a while costs no more memory than this.
const EMPTIED_AHEAD_MAX: usize = if cfg!(test) { 8 } else { 65_536 };

/// A read for the read lane.
#[derive(Debug)]
pub struct ReadTask {
    request: ReadRequest,
    /// How often it has failed.
    failures: u32,
    job: ReadJob,
}

/// A read that the operating system refused.
#[derive(Debug)]
pub(super) struct FailedRead {
    request: ReadRequest,
    failures: u32,
}

/// A finished read.
#[derive(Debug)]
pub struct ReadTaskDone {
    request: ReadRequest,
    failures: u32,
    done: ReadDone,
}

impl ReadTask {
    /// Reads. Blocks as long as the disk takes; never panics.
    #[must_use]
    pub fn run(self) -> ReadTaskDone {
        ReadTaskDone {
            request: self.request,
            failures: self.failures,
            done: self.job.run(),
        }
    }
}

impl Node {
    /// The next read for the read lane. Call until `None`.
    pub fn poll_read(&mut self) -> Option<ReadTask> {
        self.reads.pop_front()
    }

    /// Takes a finished read.
    pub fn read_done(&mut self, now: Now, task: ReadTaskDone) {
        self.check_fence(now);
        let ReadTaskDone {
            request,
            failures,
            done,
        } = task;
        let queue = store_queue(request.reader.queue());
        let name = self.broker.queue(request.reader.queue());
        let name = name.map_or_else(|| Arc::from("a deleted queue"), |it| Arc::clone(&it.name));
        if let Some(error) = done.error {
            let failures = failures.saturating_add(1);
            if failures.is_power_of_two() {
                tracing::warn!(
                    event = "read_failed",
                    queue = %name,
                    failures,
                    %error,
                    "stored messages cannot be read; it is tried again every 250 ms"
                );
            }
            self.failed_reads.push(FailedRead { request, failures });
            return;
        }
        for place in done.unreadable {
            self.leave_out(request.reader, &name, place);
        }
        for place in done.quarantined {
            tracing::error!(
                event = "message_quarantined",
                queue = %name,
                segment = place.segment,
                offset = u64::from(place.offset) * 8,
                "a stored message is damaged and set aside; its bytes are kept in the store's \
                 directory `quarantine`, the rest of the queue is served"
            );
            // An error means that the log is lost or sealed; the successor finds the damage again.
            let _lost_or_sealed = self.store.quarantine(queue, place);
        }
        if self.is_wanted(request.reader) && !matches!(request.from, ReadFrom::Places(_)) {
            self.cursors.insert(request.reader, done.next);
        }
        let mut messages = done.messages;
        // Some may have been settled while the read was under way.
        messages.retain(|it| self.store.is_live(it.place));
        self.broker.handle(Event::Loaded(Loaded {
            reader: request.reader,
            messages: messages.into_iter().map(translate::message).collect(),
            end: done.end,
        }));
        self.work(now);
    }

    /// A message cannot be read. With its queue it goes, or nobody would ever name it again.
    fn leave_out(&mut self, reader: Reader, queue_name: &str, place: Place) {
        let queue = reader.queue();
        if self.broker.is_purging(queue) {
            // An error means that the log is lost or sealed; the successor purges again.
            let _lost_or_sealed = self.store.quarantine(store_queue(queue), place);
            return;
        }
        let known = Arc::make_mut(&mut self.unreadable);
        if known.insert((place.segment, place.ordinal)) {
            tracing::error!(
                event = "message_unreadable",
                queue = queue_name,
                segment = place.segment,
                offset = u64::from(place.offset) * 8,
                "the disk refuses to read a stored message: it stays in the store and is left out, the rest of \
                 the queue is served; look after the disk, then restart or switch over to have it read again"
            );
        }
    }

    /// How many messages are left out because the disk refuses to read them.
    pub(super) fn unreadable_count(&self) -> usize {
        let places = self.unreadable.iter();
        let places = places.map(|(segment, ordinal)| translate::reference(*segment, *ordinal));
        places.filter(|it| self.store.is_live(*it)).count()
    }

    pub(super) fn start_read(&mut self, request: ReadRequest) {
        let is_ahead = self.store.settled_backlog() >= EMPTIED_AHEAD_MAX;
        if is_ahead && self.broker.is_emptying(request.reader.queue()) {
            self.late_reads.push_back(request);
            return;
        }
        let failures = 0;
        self.read_again(FailedRead { request, failures });
    }

    /// Goes on with what empties queues, as far as the log has taken what went before.
    pub(super) fn start_late_reads(&mut self) {
        for request in std::mem::take(&mut self.late_reads) {
            self.start_read(request);
        }
    }

    pub(super) fn read_again(&mut self, FailedRead { request, failures }: FailedRead) {
        if failures > 0 && !self.is_wanted(request.reader) {
            return;
        }
        let mut job = self
            .read_job(&request)
            .leaving_out(Arc::clone(&self.unreadable));
        // A network file system that is away refuses everything.
        let may_skip = self.store.is_local() && self.unreadable.len() < UNREADABLE_MAX;
        if failures >= ATTEMPTS_MAX && may_skip {
            job = job.skipping_unreadable();
        }
        self.reads.push_back(ReadTask {
            request,
            failures,
            job,
        });
    }

    fn read_job(&self, request: &ReadRequest) -> ReadJob {
        let queue = store_queue(request.reader.queue());
        let limit = ReadLimit {
            messages: request.messages,
            bytes: request.bytes,
        };
        let from = match &request.from {
            ReadFrom::Start => Cursor::START,
            ReadFrom::Next => self
                .cursors
                .get(&request.reader)
                .copied()
                .unwrap_or(Cursor::START),
            ReadFrom::After(position) => Cursor::after(translate::place(*position)),
            ReadFrom::At(position) => Cursor::at(translate::place(*position)),
            ReadFrom::Places(positions) => {
                let places: Vec<_> = positions.iter().copied().map(translate::place).collect();
                return self.store.read_places(queue, &places);
            }
        };
        self.store.read_queue(queue, from, limit)
    }

    /// Whether who reads is still there.
    fn is_wanted(&self, reader: Reader) -> bool {
        match reader {
            Reader::Browser(consumer) => self.outlets.contains_key(&consumer.number),
            Reader::Queue(_) => true,
        }
    }

    /// A consumer is gone; if it was a browser, so is its cursor.
    pub(super) fn forget_browser(&mut self, consumer: ConsumerId) {
        self.cursors.remove(&Reader::Browser(consumer));
    }
}
