//! What the log says: segments, queues and rows, after each batch. The same code applies a batch
//! that has just become durable and one that recovery reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use crate::bits::{CHUNK_REFERENCES, SettledBits};
use crate::format::batch::{Batch, BatchPlace, Record, RecordKind};
use crate::format::payload::{
    Quarantined, RowChange, SealEntry, SettledGroup, SnapshotPart, decode_seals, decode_settled,
};
use crate::types::QueueStats;

/// How a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentKind {
    /// Its owner has not sealed it (yet).
    Open,
    /// A footer stands in the file.
    Footer,
    /// A later owner's SEAL ends it; its index is a file beside it, or still to be made.
    Sealed,
}

/// One segment as far as the log was applied.
#[derive(Clone, Debug)]
pub(crate) struct SegmentState {
    pub(crate) epoch: u64,
    pub(crate) base_lsn: u64,
    /// References made in it.
    pub(crate) references: u32,
    /// Those not settled.
    pub(crate) live: u32,
    /// End of its last valid batch.
    pub(crate) valid_bytes: u64,
    pub(crate) last_lsn: u64,
    pub(crate) chain_crc: u32,
    pub(crate) kind: SegmentKind,
    pub(crate) settled: SettledBits,
}

impl SegmentState {
    pub(crate) fn new(epoch: u64, base_lsn: u64) -> Self {
        Self {
            epoch,
            base_lsn,
            references: 0,
            live: 0,
            valid_bytes: crate::format::FIRST_BATCH_OFFSET,
            last_lsn: base_lsn.saturating_sub(1),
            chain_crc: 0,
            kind: SegmentKind::Open,
            settled: SettledBits::default(),
        }
    }

    /// None of its batches was applied, and none is missed.
    pub(crate) fn has_nothing(&self) -> bool {
        self.valid_bytes <= crate::format::FIRST_BATCH_OFFSET && self.last_lsn < self.base_lsn
    }
}

/// What waits in one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct QueueState {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// No segment below this one has a live reference of the queue.
    pub(crate) first_segment: u64,
}

/// A point between two batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogPosition {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) next_lsn: u64,
    pub(crate) next_ordinal: u32,
    pub(crate) chain_crc: u32,
}

/// What changed since the last checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) segments: BTreeSet<u64>,
    pub(crate) chunks: BTreeSet<(u64, u32)>,
    pub(crate) queues: BTreeSet<u32>,
    pub(crate) rows: BTreeSet<(u16, Vec<u8>)>,
}

impl Dirty {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
            && self.chunks.is_empty()
            && self.queues.is_empty()
            && self.rows.is_empty()
    }
}

/// The rows of one kind by key.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The state of the store after a number of batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) segments: BTreeMap<u64, SegmentState>,
    pub(crate) queues: BTreeMap<u32, QueueState>,
    pub(crate) rows: BTreeMap<u16, Rows>,
    pub(crate) position: LogPosition,
    /// Segment and batch offset of the last index record.
    pub(crate) last_index: (u64, u64),
    /// The log from this segment on rebuilds everything: base of the last complete snapshot.
    pub(crate) snapshot_base: u64,
    /// Parts of a snapshot that is being read: base and number of parts seen.
    pub(crate) snapshot_open: Option<(u64, u32)>,
    /// References set aside as damaged, over the life of the store.
    pub(crate) quarantined: u64,
    pub(crate) dirty: Dirty,
}

impl State {
    /// Applies a batch that follows the position.
    pub(crate) fn apply_batch(&mut self, batch: &Batch<'_>) {
        let segment = batch.place.segment;
        let mut significant = false;
        for record in batch.records() {
            // Index and snapshot records repeat what is known: no reason for a new checkpoint.
            significant |= !matches!(record.kind, Some(RecordKind::Index | RecordKind::Snapshot));
            self.apply_record(segment, batch.place.offset, &record);
        }
        // From now on the position does not tell where that one ends.
        if self.position.segment != segment && self.segments.contains_key(&self.position.segment) {
            self.dirty.segments.insert(self.position.segment);
        }
        self.position = LogPosition {
            segment,
            offset: batch.place.offset + batch.len() as u64,
            next_lsn: batch.next_lsn(),
            next_ordinal: batch.first_ordinal + batch.references,
            chain_crc: batch.crc,
        };
        let state = self
            .segments
            .entry(segment)
            .or_insert_with(|| SegmentState::new(batch.place.epoch, batch.first_lsn));
        state.valid_bytes = self.position.offset;
        state.last_lsn = batch.next_lsn().saturating_sub(1);
        state.chain_crc = batch.crc;
        self.lose_up_to(segment, self.position.next_ordinal);
        if significant {
            self.dirty.segments.insert(segment);
        }
    }

    /// After a range that could not be read the ordinals go on behind the gap. Nobody can tell the
    /// queues of the lost references, so they never count, and stand as settled.
    fn lose_up_to(&mut self, segment: u64, ordinal: u32) {
        let Some(state) = self.segments.get_mut(&segment) else {
            return;
        };
        while state.references < ordinal {
            state.settled.set(state.references);
            let chunk = (segment, state.references / CHUNK_REFERENCES);
            self.dirty.chunks.insert(chunk);
            state.references += 1;
        }
    }

    /// Applies a record that was found in a damaged range at `place`.
    pub(crate) fn apply_salvaged(&mut self, place: BatchPlace, record: &Record<'_>) {
        self.apply_record(place.segment, place.offset, record);
        self.dirty.segments.insert(place.segment);
    }

    /// Goes on behind a damaged range.
    pub(crate) fn skip_to(&mut self, segment: u64, offset: u64, next_lsn: u64) {
        let Some(state) = self.segments.get_mut(&segment) else {
            return;
        };
        state.valid_bytes = state.valid_bytes.max(offset);
        state.last_lsn = next_lsn.saturating_sub(1);
        self.position = LogPosition {
            segment,
            offset: state.valid_bytes,
            next_lsn,
            next_ordinal: state.references,
            chain_crc: self.position.chain_crc,
        };
        self.dirty.segments.insert(segment);
    }

    /// Brings a segment that was read to its end to what is known of that end.
    pub(crate) fn end_segment(&mut self, seal: &SealEntry) {
        self.lose_up_to(seal.segment, seal.references);
        let Some(state) = self.segments.get_mut(&seal.segment) else {
            return;
        };
        state.valid_bytes = seal.valid_bytes;
        state.last_lsn = seal.last_lsn;
        state.chain_crc = seal.chain_crc;
        self.position = LogPosition {
            segment: seal.segment,
            offset: seal.valid_bytes,
            next_lsn: self.position.next_lsn.max(seal.last_lsn + 1),
            next_ordinal: state.references,
            chain_crc: seal.chain_crc,
        };
    }

    fn apply_record(&mut self, segment: u64, batch_offset: u64, record: &Record<'_>) {
        match record.kind {
            Some(RecordKind::Message) => self.apply_message(segment, record),
            Some(RecordKind::Settled) => {
                for group in decode_settled(record.body).unwrap_or_default() {
                    self.apply_settled(&group);
                }
            }
            Some(RecordKind::Row) => {
                if let Some(change) = RowChange::decode(record.body) {
                    self.apply_row(&change);
                }
            }
            Some(RecordKind::Seal) => {
                for entry in decode_seals(record.body).unwrap_or_default() {
                    self.apply_seal(&entry);
                }
            }
            Some(RecordKind::Index) => self.last_index = (segment, batch_offset),
            Some(RecordKind::Snapshot) => {
                if let Some(part) = SnapshotPart::decode(record.body) {
                    self.apply_snapshot_part(&part);
                }
            }
            Some(RecordKind::Quarantine) => {
                if let Some(bad) = Quarantined::decode(record.body) {
                    self.quarantined += 1;
                    self.settle_one(bad.queue, bad.segment, bad.ordinal, u64::from(bad.bytes));
                }
            }
            Some(RecordKind::Adopted | RecordKind::Moved) | None => {}
        }
    }

    fn apply_message(&mut self, segment: u64, record: &Record<'_>) {
        let bytes = u64::from(record.counted_bytes());
        let base_lsn = record.lsn;
        self.lose_up_to(segment, record.ordinal);
        let state = self
            .segments
            .entry(segment)
            .or_insert_with(|| SegmentState::new(segment, base_lsn));
        state.references += record.references();
        state.live += record.references();
        for queue in record.routes() {
            let entry = self.queues.entry(queue).or_insert(QueueState {
                first_segment: segment,
                ..QueueState::default()
            });
            if entry.messages == 0 {
                entry.first_segment = segment;
            }
            entry.messages += 1;
            entry.bytes += bytes;
            self.dirty.queues.insert(queue);
        }
    }

    fn apply_settled(&mut self, group: &SettledGroup) {
        let (mut settled, mut named) = (0, 0);
        for range in &group.ranges {
            named += u64::from(range.count);
            let Some(segment) = self.segments.get_mut(&range.segment) else {
                continue;
            };
            let end = range
                .first
                .saturating_add(range.count)
                .min(segment.references);
            for ordinal in range.first..end {
                if segment.settled.set(ordinal) {
                    segment.live = segment.live.saturating_sub(1);
                    settled += 1;
                    self.dirty
                        .chunks
                        .insert((range.segment, ordinal / CHUNK_REFERENCES));
                }
            }
            self.dirty.segments.insert(range.segment);
        }
        // References that were lost to damage never counted, so neither do their bytes.
        let bytes = match settled == named {
            true => group.bytes,
            false => {
                u64::try_from(u128::from(group.bytes) * u128::from(settled) / u128::from(named))
                    .unwrap_or(group.bytes)
            }
        };
        self.leave_queue(group.queue, settled, bytes);
    }

    fn settle_one(&mut self, queue: u32, segment: u64, ordinal: u32, bytes: u64) {
        let range = crate::format::payload::SettledRange {
            segment,
            first: ordinal,
            count: 1,
        };
        self.apply_settled(&SettledGroup {
            queue,
            bytes,
            ranges: vec![range],
        });
    }

    fn leave_queue(&mut self, queue: u32, messages: u64, bytes: u64) {
        if messages == 0 {
            return;
        }
        if let Some(state) = self.queues.get_mut(&queue) {
            state.messages = state.messages.saturating_sub(messages);
            state.bytes = if state.messages == 0 {
                0
            } else {
                state.bytes.saturating_sub(bytes)
            };
            self.dirty.queues.insert(queue);
        }
    }

    fn apply_row(&mut self, change: &RowChange<'_>) {
        let rows = self.rows.entry(change.kind).or_default();
        match change.value {
            Some(value) => rows.insert(change.key.to_vec(), value.to_vec()),
            None => rows.remove(change.key),
        };
        self.dirty.rows.insert((change.kind, change.key.to_vec()));
    }

    /// The first valid SEAL of a segment in the order of the log wins.
    fn apply_seal(&mut self, entry: &SealEntry) {
        if entry.valid_bytes == 0 {
            self.segments.remove(&entry.segment);
            self.dirty.segments.insert(entry.segment);
        } else if let Some(segment) = self.segments.get_mut(&entry.segment)
            && segment.kind == SegmentKind::Open
        {
            segment.kind = SegmentKind::Sealed;
            self.dirty.segments.insert(entry.segment);
        }
    }

    fn apply_snapshot_part(&mut self, part: &SnapshotPart<'_>) {
        let expected = match self.snapshot_open {
            Some((base, seen)) if base == part.as_of_segment && part.part != 0 => seen,
            _ => 0,
        };
        if part.part != expected {
            self.snapshot_open = None;
        } else if part.part + 1 == part.parts {
            self.snapshot_open = None;
            self.snapshot_base = self.snapshot_base.max(part.as_of_segment);
        } else {
            self.snapshot_open = Some((part.as_of_segment, part.part + 1));
        }
    }

    pub(crate) fn queue_stats(&self, queue: u32) -> QueueStats {
        self.queues
            .get(&queue)
            .map_or_else(QueueStats::default, |state| QueueStats {
                messages: state.messages,
                bytes: state.bytes,
            })
    }

    pub(crate) fn is_live(&self, segment: u64, ordinal: u32) -> bool {
        self.segments
            .get(&segment)
            .is_some_and(|state| ordinal < state.references && !state.settled.is_set(ordinal))
    }

    /// Messages and bytes waiting in all queues.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.queues
            .values()
            .fold((0, 0), |(messages, bytes), queue| {
                (messages + queue.messages, bytes + queue.bytes)
            })
    }

    /// Segments that nothing needs any more: sealed, without live references, older than the base
    /// of the last complete snapshot (so that the log can still rebuild everything) and than the
    /// open segment.
    pub(crate) fn deletable(&self) -> Vec<u64> {
        let below = self.snapshot_base.min(self.position.segment);
        self.empty_segments(..below).collect()
    }

    /// How many segments only wait for a snapshot to be deleted.
    pub(crate) fn pinned(&self) -> usize {
        let from = self.snapshot_base.min(self.position.segment);
        self.empty_segments(from..self.position.segment).count()
    }

    fn empty_segments(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = u64> {
        self.segments
            .range(range)
            .filter(|(_, state)| state.live == 0 && state.kind != SegmentKind::Open)
            .map(|(segment, _)| *segment)
    }

    pub(crate) fn forget_segment(&mut self, segment: u64) {
        self.segments.remove(&segment);
        self.dirty.segments.insert(segment);
    }
}
