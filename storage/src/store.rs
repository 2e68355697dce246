//! The store as its user sees it: appends into memory, hands out jobs, takes results back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::{AppendError, FatalError};
use crate::format::batch::{
    BATCH_HEADER_BYTES, Batch, BatchPlace, FLAG_DURABLE, MessageParts, RecordKind,
};
use crate::format::payload::RowChange;
use crate::format::{FIRST_BATCH_OFFSET, Identity};
use crate::index::SegmentIndex;
use crate::job::{Job, JobDone, Outcome};
use crate::maintain::Maintenance;
use crate::options::{Fence, StoreOptions, StoreStatus};
use crate::read::{LeftOut, ReadCache, ReadJob, SegmentPlan, Source};
use crate::scan::SegmentFacts;
use crate::setaside::SetAside;
use crate::state::{SegmentKind, State};
use crate::types::{
    Appended, Cursor, DurableBatch, Lsn, NewMessage, Place, QueueId, QueueStats, ReadLimit, Ticket,
};
use crate::writer::Writer;
use crate::{META_BYTES_MAX, ROUTES_MAX, ROW_KEY_BYTES_MAX, ROW_VALUE_BYTES_MAX};

/// Segments that one read looks into at most.
const PLANS_MAX: usize = 16;
/// A record is no longer than this; the limit of messages is the user's and lower.
const RECORD_BYTES_MAX: usize = 128 << 20;
/// A batch that only carries the watermark is written after this idle time, in ms.
const WATERMARK_DELAY_MS: u64 = 10;

/// An open store. It has no threads: the user runs its [`Job`]s and [`ReadJob`]s.
#[derive(Debug)]
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: StoreOptions,
    pub(crate) identity: Identity,
    pub(crate) unit: u64,
    pub(crate) epoch: u64,
    /// What is durable.
    pub(crate) state: State,
    pub(crate) writer: Writer,
    pub(crate) maintenance: Maintenance,
    pub(crate) set_aside: SetAside,
    /// Index of each segment that has no footer yet and was written by this owner.
    pub(crate) indexes: BTreeMap<u64, SegmentIndex>,
    /// Generations of the files of compacted segments.
    pub(crate) compacts: BTreeMap<u64, u64>,
    /// Segments of which the newest file has to be read through before the others may go.
    pub(crate) unchecked: BTreeSet<u64>,
    pub(crate) damaged_copies: u64,
    /// Live references of segments when their compaction was last thought of.
    pub(crate) looked_at: BTreeMap<u64, u32>,
    /// Index files that exist beside segments of dead owners.
    pub(crate) side_indexes: BTreeSet<u64>,
    pub(crate) cache: Arc<ReadCache>,
    /// Settled in a batch that is not durable yet.
    pub(crate) settled_early: HashSet<(u64, u32)>,
    pub(crate) fatal: Option<FatalError>,
    /// Start of the last write that became durable.
    pub(crate) durable_at_ms: u64,
    pub(crate) now_ms: u64,
    pub(crate) fence_deadline_ms: Option<u64>,
    /// The lock that queues the servers; held as long as the store is.
    pub(crate) lock: Option<Arc<dyn DiskFile>>,
    /// Locked segments of predecessors and of this owner: kept so that nobody can write them.
    pub(crate) held: BTreeMap<u64, Arc<dyn DiskFile>>,
}

impl Store {
    pub(crate) fn open_for_append(&self) -> Result<(), AppendError> {
        match &self.fatal {
            Some(fatal) => Err(AppendError::Closed(fatal.to_string())),
            None if self.maintenance.is_closing() => {
                Err(AppendError::Closed("it is being sealed".to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Appends a message to the open batch.
    ///
    /// # Errors
    /// [`AppendError::Full`] while space is short, [`AppendError::TooLarge`] beyond the format's
    /// limits, [`AppendError::Closed`] after a failure or shutdown.
    pub fn append_message(&mut self, message: NewMessage<'_>) -> Result<Appended, AppendError> {
        self.open_for_append()?;
        let body_bytes: usize = message.body.iter().map(|piece| piece.len()).sum();
        for (bytes, bytes_max) in [
            (body_bytes, RECORD_BYTES_MAX),
            (message.meta.len(), META_BYTES_MAX),
            (message.routes.len(), ROUTES_MAX),
        ] {
            if bytes > bytes_max {
                return Err(AppendError::TooLarge { bytes, bytes_max });
            }
        }
        if !self.accepts_messages() {
            return Err(AppendError::Full);
        }
        let bytes = message.meta.len() + body_bytes;
        self.make_room(bytes + message.routes.len() * 4);
        let routes: Vec<u32>;
        let single;
        let routes: &[u32] = if let [QueueId(queue)] = message.routes {
            single = [*queue];
            &single
        } else {
            routes = message.routes.iter().map(|queue| queue.0).collect();
            &routes
        };
        let flags = if message.durable { FLAG_DURABLE } else { 0 };
        let parts = MessageParts {
            flags,
            routes,
            meta: message.meta,
            body: message.body,
        };
        let segment = self.writer.segment();
        let slot = self.writer.open.message(parts);
        self.writer.message_bytes += bytes as u64;
        let first = Place {
            segment,
            ordinal: slot.ordinal,
            offset: u32::try_from(slot.offset / 8).unwrap_or(u32::MAX),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        let ticket = self.writer.open_ticket();
        Ok(Appended {
            ticket,
            lsn: Lsn(slot.lsn),
            first,
            meta: slot.meta,
            body: slot.body,
        })
    }

    /// Notes that one reference has left its queue for good. Never refused for lack of space.
    /// Settling a reference again does nothing.
    ///
    /// # Errors
    /// [`AppendError::Closed`] after a failure or shutdown.
    pub fn append_settled(&mut self, queue: QueueId, place: Place) -> Result<Ticket, AppendError> {
        self.open_for_append()?;
        if self.is_live(place) {
            self.settled_early.insert((place.segment, place.ordinal));
            self.writer.settle(queue.0, place);
            self.make_room(0);
        }
        Ok(self.writer.open_ticket())
    }

    /// Puts a small durable row.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`] beyond [`ROW_KEY_BYTES_MAX`] or [`ROW_VALUE_BYTES_MAX`],
    /// [`AppendError::Closed`] after a failure or shutdown.
    pub fn put_row(&mut self, kind: u16, key: &[u8], value: &[u8]) -> Result<Ticket, AppendError> {
        self.change_row(RowChange {
            kind,
            key,
            value: Some(value),
        })
    }

    /// Deletes a row; deleting one that is not there does nothing.
    ///
    /// # Errors
    /// As [`Store::put_row`].
    pub fn delete_row(&mut self, kind: u16, key: &[u8]) -> Result<Ticket, AppendError> {
        self.change_row(RowChange {
            kind,
            key,
            value: None,
        })
    }

    fn change_row(&mut self, change: RowChange<'_>) -> Result<Ticket, AppendError> {
        self.open_for_append()?;
        let value_bytes = change.value.map_or(0, <[u8]>::len);
        for (bytes, bytes_max) in [
            (change.key.len(), ROW_KEY_BYTES_MAX),
            (value_bytes, ROW_VALUE_BYTES_MAX),
        ] {
            if bytes > bytes_max {
                return Err(AppendError::TooLarge { bytes, bytes_max });
            }
        }
        self.make_room(change.key.len() + value_bytes);
        self.writer.open.record(RecordKind::Row, &change.encode());
        Ok(self.writer.open_ticket())
    }

    /// Closes the open batch when a record of so many bytes does not fit, and moves on to the next
    /// segment when the current one is full.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        self.writer
            .make_room(bytes, self.options.batch_bytes, &self.maintenance.plan);
    }

    /// The value of a row, as far as durable.
    #[must_use]
    pub fn row(&self, kind: u16, key: &[u8]) -> Option<&[u8]> {
        self.state.rows.get(&kind)?.get(key).map(Vec::as_slice)
    }

    /// The rows of a kind in the order of their keys, as far as durable.
    pub fn rows(&self, kind: u16) -> impl Iterator<Item = (&[u8], &[u8])> {
        let rows = self.state.rows.get(&kind);
        rows.into_iter()
            .flatten()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// What waits in a queue, as far as durable.
    #[must_use]
    pub fn queue_stats(&self, queue: QueueId) -> QueueStats {
        self.state.queue_stats(queue.0)
    }

    /// Whether a durable reference has not been settled yet.
    #[must_use]
    pub fn is_live(&self, place: Place) -> bool {
        self.is_live_reference(place.segment, place.ordinal)
    }

    pub(crate) fn is_live_reference(&self, segment: u64, ordinal: u32) -> bool {
        self.state.is_live(segment, ordinal) && !self.settled_early.contains(&(segment, ordinal))
    }

    /// References settled by appends that are not durable yet.
    #[must_use]
    pub fn settled_backlog(&self) -> usize {
        self.settled_early.len()
    }

    /// Number of the last record appended.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.writer.open.next_lsn().saturating_sub(1))
    }

    /// Number of the last durable record.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.state.position.next_lsn.saturating_sub(1))
    }

    /// The last durable batch.
    #[must_use]
    pub fn durable_ticket(&self) -> Ticket {
        self.writer.durable_ticket
    }

    /// The batch with which all is durable that was appended so far.
    #[must_use]
    pub fn appended_ticket(&self) -> Ticket {
        let open = self.writer.open_ticket();
        Ticket(open.0 - u64::from(self.writer.open_is_empty()))
    }

    /// Whether messages are taken: `false` while the disk is nearly full.
    #[must_use]
    pub fn accepts_messages(&self) -> bool {
        !self.maintenance.is_full()
    }

    /// Writes of the log that found no space so far; each is tried again until it succeeds.
    #[must_use]
    pub fn refused_writes(&self) -> u64 {
        self.maintenance.refused_writes()
    }

    /// Bytes appended and not handed out for writing yet.
    #[must_use]
    pub fn open_batch_bytes(&self) -> usize {
        self.writer.open_bytes()
    }

    /// Bytes appended and not durable yet.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.writer.open_bytes() + self.writer.closed_bytes()
    }

    /// Whether this process may confirm and deliver at `boot_now_ms` (`CLOCK_BOOTTIME`).
    #[must_use]
    pub fn fence(&self, boot_now_ms: u64) -> Fence {
        if let Some(fatal) = &self.fatal {
            return Fence::Lost(fatal.clone());
        }
        match self.fence_deadline_ms {
            Some(deadline) if boot_now_ms.saturating_sub(self.durable_at_ms) > deadline => {
                Fence::Lapsed
            }
            _ => Fence::Held,
        }
    }

    /// The deadline of [`Store::fence`], in ms, when there is one.
    #[must_use]
    pub fn fence_deadline_ms(&self) -> Option<u64> {
        self.fence_deadline_ms
    }

    /// Reads live references of a queue in order of arrival, from a cursor on.
    #[must_use]
    pub fn read_queue(&self, queue: QueueId, from: Cursor, limit: ReadLimit) -> ReadJob {
        let first = self
            .state
            .queues
            .get(&queue.0)
            .map_or(0, |state| state.first_segment);
        let mut plans = Vec::new();
        let mut beyond = Cursor {
            segment: self.writer.segment(),
            ordinal: u32::MAX,
        };
        let mut last = true;
        let (low, low_ordinal) = (from.segment.max(first), from.ordinal);
        for (number, segment) in self.state.segments.range(low..) {
            if segment.live == 0 {
                continue;
            }
            if plans.len() >= PLANS_MAX {
                beyond = Cursor {
                    segment: *number,
                    ordinal: 0,
                };
                last = false;
                break;
            }
            let ordinal = if *number == from.segment {
                low_ordinal
            } else {
                0
            };
            let source = self.source_of(*number, queue.0, ordinal, limit.messages);
            let Some(source) = source else { continue };
            plans.push(SegmentPlan {
                facts: self.facts_of(*number),
                source,
                generation: self.generation_of(*number),
                only: None,
                settled: segment.settled.clone(),
            });
        }
        if last {
            // Go on behind what is durable now.
            let end = self.state.position;
            beyond = Cursor {
                segment: end.segment,
                ordinal: end.next_ordinal,
            };
        }
        let beyond = beyond.max(from);
        ReadJob {
            cache: Arc::clone(&self.cache),
            queue,
            from,
            limit,
            plans,
            beyond,
            last,
            skips_unreadable: false,
            left_out: LeftOut::default(),
            is_by_cursor: true,
        }
    }

    /// Whether the store lies on a disk of this host, and not on a network file system.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.maintenance.is_local()
    }

    /// Reads known references again, in the order given; those settled meanwhile are left out.
    #[must_use]
    pub fn read_places(&self, queue: QueueId, places: &[Place]) -> ReadJob {
        let mut by_segment: BTreeMap<u64, Vec<crate::format::payload::IndexEntry>> =
            BTreeMap::new();
        for place in places.iter().filter(|place| self.is_live(**place)) {
            let entry = crate::format::payload::IndexEntry {
                ordinal: place.ordinal,
                offset: place.offset,
            };
            by_segment.entry(place.segment).or_default().push(entry);
        }
        let plan = |(number, mut entries): (u64, Vec<_>)| {
            entries.sort_unstable();
            let settled = self
                .state
                .segments
                .get(&number)
                .map(|segment| segment.settled.clone());
            let generation = self.generation_of(number);
            let (source, only) = match generation {
                0 => (Source::Entries(entries), None),
                // A place may tell an offset in an earlier file.
                _ => {
                    let ordinals = entries.iter().map(|entry| entry.ordinal).collect();
                    (Source::Footer, Some(ordinals))
                }
            };
            SegmentPlan {
                facts: self.facts_of(number),
                source,
                generation,
                only,
                settled: settled.unwrap_or_default(),
            }
        };
        let plans = by_segment.into_iter().map(plan).collect();
        let limit = ReadLimit {
            messages: places.len().max(1),
            bytes: usize::MAX,
        };
        let beyond = Cursor::START;
        let cache = Arc::clone(&self.cache);
        ReadJob {
            cache,
            queue,
            from: Cursor::START,
            limit,
            plans,
            beyond,
            last: true,
            skips_unreadable: false,
            left_out: LeftOut::default(),
            is_by_cursor: false,
        }
    }

    /// Where the list of a queue in a segment is; `None` when it is known to be empty.
    fn source_of(&self, segment: u64, queue: u32, ordinal: u32, limit: usize) -> Option<Source> {
        if let Some(index) = self.indexes.get(&segment) {
            let settled = self
                .state
                .segments
                .get(&segment)
                .map(|state| &state.settled);
            let entries = index.live_from(queue, ordinal, limit + 1, settled);
            return (!entries.is_empty()).then_some(Source::Entries(entries));
        }
        self.sealed_source(segment)
    }

    /// Where the lists of a segment are that this owner does not write.
    pub(crate) fn sealed_source(&self, segment: u64) -> Option<Source> {
        let state = self.state.segments.get(&segment)?;
        Some(match state.kind {
            _ if self.compacts.contains_key(&segment) => Source::Footer,
            SegmentKind::Footer => Source::Footer,
            _ if self.side_indexes.contains(&segment) => Source::SideIndex,
            _ => Source::Scan {
                last_index: self.maintenance.last_index_of(segment),
            },
        })
    }

    pub(crate) fn facts_of(&self, segment: u64) -> SegmentFacts {
        let state = self.state.segments.get(&segment);
        SegmentFacts {
            segment,
            epoch: state.map_or(self.epoch, |state| state.epoch),
            valid_bytes: state.map_or(FIRST_BATCH_OFFSET, |state| state.valid_bytes),
            last_lsn: state.map_or(0, |state| state.last_lsn),
            chain_crc: state.map_or(0, |state| state.chain_crc),
            references: state.map_or(0, |state| state.references),
        }
    }

    /// The next piece of work, if any; at most one of each lane is handed out at a time. Call until
    /// `None`, after each append of interest, each completion and at [`Store::next_deadline_ms`].
    /// `now_ms` is `CLOCK_BOOTTIME`.
    pub fn poll_job(&mut self, now_ms: u64) -> Option<Job> {
        self.now_ms = self.now_ms.max(now_ms);
        if self.fatal.is_some() {
            return None;
        }
        self.poll_commit()
            .or_else(|| self.poll_checkpoint())
            .or_else(|| self.poll_prepare())
            .or_else(|| self.poll_compact())
            // Preparing for the end may have made the last checkpoint due.
            .or_else(|| self.poll_checkpoint())
    }

    /// When [`Store::poll_job`] should be called even if nothing happens, in `CLOCK_BOOTTIME` ms.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if self.fatal.is_some() {
            return None;
        }
        let watermark = self
            .writer
            .watermark_pending()
            .then(|| self.writer.last_activity_ms + WATERMARK_DELAY_MS);
        let heartbeat = self
            .fence_deadline_ms
            .filter(|_| !self.writer.is_in_flight())
            .map(|deadline| self.durable_at_ms + deadline.min(3000) / 3);
        let times = [
            watermark,
            heartbeat,
            self.maintenance_deadline_ms(),
            self.set_aside.deadline_ms(),
        ];
        times.into_iter().flatten().min()
    }

    /// Takes the result of a job.
    ///
    /// # Errors
    /// The log failed: see [`FatalError`].
    pub fn complete(&mut self, done: JobDone) -> Result<Vec<DurableBatch>, FatalError> {
        match done.outcome {
            Outcome::Committed {
                ticket,
                bytes,
                segment,
                offset,
                started_ms,
            } => {
                self.durable_at_ms = self.durable_at_ms.max(started_ms);
                self.commit_done(ticket, bytes, segment, offset)
            }
            Outcome::CommitFailed(fatal) => Err(self.fail(fatal)),
            Outcome::CommitRefused(commit) => {
                self.maintenance.commit_refused(commit, self.now_ms);
                Ok(Vec::new())
            }
            other => self.maintenance_done(other).map(|()| Vec::new()),
        }
    }

    pub(crate) fn fail(&mut self, fatal: FatalError) -> FatalError {
        self.fatal.get_or_insert(fatal).clone()
    }

    fn commit_done(
        &mut self,
        ticket: Ticket,
        bytes: Bytes,
        segment: u64,
        offset: u64,
    ) -> Result<Vec<DurableBatch>, FatalError> {
        let epoch = self.epoch;
        let place = BatchPlace {
            salt: self.identity.salt,
            epoch,
            segment,
            offset,
        };
        let batch = match Batch::parse(place, self.unit, &bytes) {
            Ok(batch) => batch,
            Err(fault) => {
                return Err(self.fail(FatalError {
                    what: "a batch changed in memory while it was written".to_owned(),
                    file: crate::format::segment::segment_name(segment),
                    reason: format!("{fault:?}"),
                }));
            }
        };
        self.state.apply_batch(&batch);
        if let Some(state) = self.state.segments.get_mut(&segment) {
            state.epoch = epoch;
        }
        let index = self.indexes.entry(segment).or_default();
        index.add(&batch);
        self.writer.set_footer(segment, index.footer_size());
        self.writer.batches += 1;
        self.writer.batch_bytes += bytes.len() as u64;
        self.writer.completed(ticket, batch.count > 0, self.now_ms);
        for key in self.writer.take_settled(ticket) {
            self.settled_early.remove(&key);
        }
        self.maintenance.batch_durable(bytes.len() as u64);
        self.after_commit(segment);
        Ok(vec![DurableBatch { ticket, bytes }])
    }

    fn poll_commit(&mut self) -> Option<Job> {
        if self.writer.is_in_flight() {
            return self.maintenance.refused_commit(self.now_ms);
        }
        let idle_for = self.now_ms.saturating_sub(self.writer.last_activity_ms);
        let watermark = self.writer.watermark_pending() && idle_for >= WATERMARK_DELAY_MS;
        let stale = self.fence_deadline_ms.is_some_and(|deadline| {
            self.now_ms.saturating_sub(self.durable_at_ms) >= deadline.min(3000) / 3
        });
        let index_due = self.index_is_due();
        if index_due && self.writer.has_closed() {
            // Under overload a batch always waits; the checkpoint must not wait for ever.
            self.prepare_checkpoint();
        }
        if !self.writer.has_closed() {
            if self.writer.open_is_empty() && !watermark && !stale && !index_due {
                return None;
            }
            self.close_open_batch();
        }
        self.next_commit()
    }

    /// Figures for an administrator.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let (messages, bytes) = self.state.totals();
        let mut status = StoreStatus {
            epoch: self.epoch,
            segments: self.state.segments.len() as u64,
            messages,
            bytes,
            last_lsn: self.last_lsn().0,
            durable_lsn: self.durable_lsn().0,
            batches: self.writer.batches,
            batch_bytes: self.writer.batch_bytes,
            message_bytes: self.writer.message_bytes,
            quarantined: self.state.quarantined,
            lost_references: self.set_aside.lost_references(),
            damaged_copies: self.damaged_copies,
            ..StoreStatus::default()
        };
        self.maintenance.describe(&mut status);
        status
    }

    /// Compacted files found damaged while an earlier file of their segment was still there.
    #[must_use]
    pub fn damaged_copies(&self) -> u64 {
        self.damaged_copies
    }

    /// Identity of the store, random at its making: two servers with different ones share nothing.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.identity.uuid
    }

    /// Number of this owner's first segment.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Orderly end: from now on appends are refused; [`Store::poll_job`] yields the jobs that seal
    /// the log and take a last checkpoint.
    pub fn begin_shutdown(&mut self) {
        self.maintenance.close();
    }

    /// The log is sealed and all locks are released.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.lock.is_none() && self.maintenance.is_closing()
    }

    /// Smallest size of a batch, for tests and estimates.
    #[must_use]
    pub fn batch_overhead_bytes() -> usize {
        BATCH_HEADER_BYTES
    }
}
