//! Applying the log behind a base: the tail behind a checkpoint, or everything behind a snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::OpenError;
use crate::format::batch::FLAG_MAYBE_DELIVERED;
use crate::format::batch::{Batch, BatchBuilder, BatchPlace, MessageParts, Record, RecordKind};
use crate::format::payload::{Adopted, SealEntry, SnapshotPart};
use crate::format::segment::{SegmentHeader, segment_name, segment_of};
use crate::format::{FIRST_BATCH_OFFSET, Identity, align_up};
use crate::options::{DamagedRange, Progress, RecoveryReport, TornTail};
use crate::outline::{Outline, Outlines, SegmentEnd};
use crate::rows::{decode_rows, load};
use crate::salvage::salvage;
use crate::scan::{BatchReader, Beyond, look_beyond};
use crate::state::{SegmentKind, SegmentState, State};
use crate::survey::SEGMENT_BYTES_MIN;

/// What reading the log gave.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) state: State,
    /// Batches that must be copied.
    pub(crate) adoption: Adoption,
    /// Ends of the predecessors' segments, to be written down.
    pub(crate) seals: Vec<SealEntry>,
}

/// Batches that were written but perhaps never became durable: they are copied.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    batches: Vec<(BatchPlace, u64, Vec<u8>)>,
}

impl Adoption {
    /// Copies the records into a new owner's first batch; gives their number.
    pub(crate) fn append_to(&self, builder: &mut BatchBuilder) -> u64 {
        let mut adopted = 0;
        for (place, unit, bytes) in &self.batches {
            let Ok(batch) = Batch::parse(*place, *unit, bytes) else {
                continue;
            };
            if batch.count == 0 {
                continue;
            }
            let note = Adopted {
                segment: place.segment,
                offset: place.offset,
                first_lsn: batch.first_lsn,
                count: batch.count,
            };
            builder.record(RecordKind::Adopted, &note.encode());
            for record in batch.records() {
                match record.kind {
                    // What the owner confirmed it may also have delivered.
                    Some(RecordKind::Message) => {
                        let routes: Vec<u32> = record.routes().collect();
                        builder.message(MessageParts {
                            flags: record.flags | FLAG_MAYBE_DELIVERED,
                            routes: &routes,
                            meta: record.meta,
                            body: &[record.body],
                        });
                    }
                    Some(
                        kind @ (RecordKind::Settled
                        | RecordKind::Row
                        | RecordKind::Seal
                        | RecordKind::Moved
                        | RecordKind::Quarantine
                        // Segments may be gone because of it, or go soon.
                        | RecordKind::Snapshot),
                    ) => {
                        builder.record(kind, record.body);
                    }
                    // Those speak of the old segment only.
                    Some(RecordKind::Adopted | RecordKind::Index) | None => {
                        continue;
                    }
                }
                adopted += 1;
            }
        }
        adopted
    }
}

/// Snapshots found in the log: by the position they describe, part by number, with the number of
/// parts.
pub(crate) type SnapshotParts = BTreeMap<(u64, u64), BTreeMap<u32, (u32, Vec<u8>)>>;

/// Reads the log.
pub(crate) struct Replay<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) salt: u64,
    pub(crate) unit: u64,
    pub(crate) outlines: &'a Outlines,
    pub(crate) report: &'a mut RecoveryReport,
}

/// What is read of a segment and not applied yet.
struct Progressing {
    state: State,
    /// Batches that no watermark covers yet.
    pending: VecDeque<(BatchPlace, Vec<u8>)>,
    expected_lsn: u64,
    /// Checksum that the next batch must name as its predecessor's; unknown behind damage.
    expected_crc: Option<u32>,
}

impl Progressing {
    /// Applies what is durable for sure.
    fn apply_up_to(&mut self, durable_lsn: u64, unit: u64) {
        while let Some((place, bytes)) = self.pending.front() {
            let Ok(batch) = Batch::parse(*place, unit, bytes) else {
                break;
            };
            if batch.next_lsn() > durable_lsn.saturating_add(1) {
                break;
            }
            self.state.apply_batch(&batch);
            self.pending.pop_front();
        }
    }

    /// Applies everything: what follows proves it durable.
    fn apply_all(&mut self, unit: u64) {
        self.apply_up_to(u64::MAX, unit);
    }
}

/// One segment that is being read.
#[derive(Clone, Copy)]
struct Reading<'f> {
    file: &'f dyn DiskFile,
    /// Where reading starts.
    place: BatchPlace,
    /// Where the segment ends, when that is known.
    seal: Option<SealEntry>,
    next: Next,
    /// Its first batch repeats what the predecessor's natural end holds too.
    repeats: bool,
}

/// What follows a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: it is the last one.
    None,
    /// A segment whose first record has this number.
    From(u64),
    /// A segment that begins nobody knows where.
    Unknown,
}

impl Reading<'_> {
    /// Number of the record behind the segment's last one, when that is known.
    fn end_lsn(&self) -> Option<u64> {
        match (self.seal, self.next) {
            (Some(seal), _) => Some(seal.last_lsn + 1),
            (None, Next::From(lsn)) => Some(lsn),
            (None, _) => None,
        }
    }
}

impl Replay<'_> {
    /// Applies everything behind the base.
    pub(crate) fn run(
        &mut self,
        base: State,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovered, OpenError> {
        let first = base.position.segment;
        let outlines = self.outlines;
        let of = self.bytes_from(first, base.position.offset)?;
        let mut done = 0;
        let mut work = Progressing {
            expected_lsn: base.position.next_lsn,
            expected_crc: Some(base.position.chain_crc),
            state: base,
            pending: VecDeque::new(),
        };
        let mut read: Vec<u64> = Vec::new();
        for (number, outline, header) in outlines.used_from(first) {
            // One that is gone held no record, but perhaps a watermark: the next batch names its checksum.
            let left = read.last().copied().unwrap_or(number);
            if (left + 1..number).any(|between| outlines.get(between).is_none()) {
                work.expected_crc = None;
            }
            let failed = |source| read_failed(number, source);
            let file = self.open_segment(number)?;
            let place = BatchPlace {
                salt: self.salt,
                epoch: header.epoch,
                segment: number,
                offset: match work.state.position {
                    at if at.segment == number => at.offset,
                    _ => FIRST_BATCH_OFFSET,
                },
            };
            work.state
                .segments
                .entry(number)
                .or_insert_with(|| SegmentState::new(header.epoch, header.base_lsn))
                .epoch = header.epoch;
            let reading = Reading {
                file: file.as_ref(),
                place,
                seal: outline.end.seal(),
                next: match outlines.used_from(number + 1).next() {
                    None => Next::None,
                    Some((_, next, _)) => next.base_lsn.map_or(Next::Unknown, Next::From),
                },
                repeats: header.epoch == number && outline.base_lsn.is_none(),
            };
            let begin = reading.place.offset;
            let mut step = |offset: u64| {
                let bytes = done + offset.saturating_sub(begin);
                progress(Progress::Tail { bytes, of });
            };
            let end = self
                .read_segment(reading, &mut work, &mut step)
                .map_err(failed)?;
            done += end.saturating_sub(begin);
            read.push(number);
        }
        self.damaged_headers(first, &work.state);
        self.silent_losses(first)?;
        let unit = self.unit;
        let adopted = work
            .pending
            .into_iter()
            .map(|(place, bytes)| (place, unit, bytes))
            .collect();
        let mut state = work.state;
        let seals = self.seals(&state, &read);
        self.settle_kinds(&mut state)?;
        Ok(Recovered {
            state,
            adoption: Adoption { batches: adopted },
            seals,
        })
    }

    /// A header is written with the first batch. Where nothing proves that this one ever became
    /// durable, a header that cannot be read is a write that was cut short, and no damage.
    fn damaged_headers(&mut self, first: u64, state: &State) {
        for range in self.outlines.damaged_headers(first) {
            let number = segment_of(&range.file).unwrap_or(0);
            let proven = state.segments.get(&number);
            if proven.is_some_and(|it| it.valid_bytes > FIRST_BATCH_OFFSET) {
                self.report.damaged.push(range);
            } else {
                self.report.torn.get_or_insert(TornTail {
                    file: range.file,
                    offset: range.offset,
                    bytes: range.bytes,
                });
            }
        }
    }

    /// Looks for losses that nothing in the log tells of: a segment whose header was written is to have
    /// a batch, and one is made with all its bytes where zeros are written ahead.
    fn silent_losses(&mut self, first: u64) -> Result<(), OpenError> {
        let is_zeroed = self.disk.file_system().is_local();
        let outlines = self.outlines;
        for (number, outline) in outlines.iter().filter(|(number, _)| *number >= first) {
            let failed = |source| read_failed(number, source);
            let (capacity, is_used) = match (outline.end, outline.header) {
                (SegmentEnd::Open, Some(header)) if !outline.is_damaged => (header.capacity, true),
                (SegmentEnd::Unused, header) => (SEGMENT_BYTES_MIN, header.is_none()),
                _ => continue,
            };
            let file = self.open_segment(number)?;
            let bytes = file.bytes().map_err(failed)?;
            let lost = if is_zeroed && bytes < capacity {
                bytes..capacity
            } else if !is_used {
                let end = self.end_of_garbage(number, file.as_ref());
                FIRST_BATCH_OFFSET..end.map_err(failed)?
            } else {
                continue;
            };
            self.report.torn.get_or_insert(TornTail {
                file: segment_name(number),
                offset: lost.start,
                bytes: lost.end - lost.start,
            });
        }
        Ok(())
    }

    fn end_of_garbage(&self, segment: u64, file: &dyn DiskFile) -> io::Result<u64> {
        let place = BatchPlace {
            salt: self.salt,
            epoch: segment,
            segment,
            offset: FIRST_BATCH_OFFSET,
        };
        Ok(match look_beyond(file, place, self.unit, u64::MAX)? {
            Beyond::Garbage { bytes } => FIRST_BATCH_OFFSET + bytes,
            Beyond::Nothing | Beyond::Batch { .. } => FIRST_BATCH_OFFSET,
        })
    }

    fn open_segment(&self, number: u64) -> Result<std::sync::Arc<dyn DiskFile>, OpenError> {
        self.disk
            .open(&segment_name(number), OpenMode::Read)
            .map_err(|source| read_failed(number, source))
    }

    fn read_segment(
        &mut self,
        reading: Reading<'_>,
        work: &mut Progressing,
        step: &mut dyn FnMut(u64),
    ) -> io::Result<u64> {
        let Reading { file, place, .. } = reading;
        let limit = reading.seal.map_or(u64::MAX, |seal| seal.valid_bytes);
        let size = file.bytes()?.min(limit);
        let mut reader = BatchReader::new(file, place, self.unit, limit);
        while reader.offset() < size {
            let offset = reader.offset();
            if let Ok(batch) = reader.next()? {
                if reading.belongs_to_next(batch.next_lsn(), batch.count) {
                    return Ok(offset);
                }
                self.report.tail_bytes += batch.len() as u64;
                self.take(&batch, reading.seal.is_some(), work);
                step(reader.offset());
                continue;
            }
            let here = BatchPlace { offset, ..place };
            match look_beyond(file, here, self.unit, limit)? {
                Beyond::Batch {
                    offset: next,
                    first_lsn,
                } => {
                    let lsn = reading
                        .end_lsn()
                        .map_or(first_lsn, |end| end.min(first_lsn));
                    self.damaged(reading, work, offset..next, Some(lsn))?;
                    reader.seek(next);
                }
                beyond => {
                    if reading.seal.is_none() {
                        self.natural_end(reading, work, offset, beyond)?;
                    }
                    break;
                }
            }
        }
        if let Some(seal) = reading.seal {
            self.sealed_end(reading, work, reader.offset(), &seal)?;
        }
        Ok(reader.offset())
    }

    /// Bytes of log from a place on; of a segment that nobody sealed, all that its file has.
    fn bytes_from(&self, segment: u64, offset: u64) -> Result<u64, OpenError> {
        let mut sum = 0_u64;
        for (number, outline, _) in self.outlines.used_from(segment) {
            let end = match outline.end.seal() {
                Some(seal) => seal.valid_bytes,
                None => {
                    let failed = |source| read_failed(number, source);
                    self.open_segment(number)?.bytes().map_err(failed)?
                }
            };
            let begin = if number == segment { offset } else { 0 };
            sum += end.saturating_sub(begin);
        }
        Ok(sum)
    }

    /// Nobody wrote down where the segment ends: it ends at `offset`, unless what follows says
    /// that records are missing.
    fn natural_end(
        &mut self,
        reading: Reading<'_>,
        work: &mut Progressing,
        offset: u64,
        beyond: Beyond,
    ) -> io::Result<()> {
        let bytes = match beyond {
            Beyond::Garbage { bytes } => bytes,
            Beyond::Batch { .. } | Beyond::Nothing => 0,
        };
        let is_damage = match reading.next {
            Next::None => false,
            Next::From(lsn) => lsn > work.expected_lsn,
            Next::Unknown => bytes > 0,
        };
        if is_damage {
            let end_lsn = reading.end_lsn();
            return self.damaged(reading, work, offset..offset + bytes, end_lsn);
        }
        if reading.next == Next::None && bytes > 0 {
            self.report.torn = Some(TornTail {
                file: segment_name(reading.place.segment),
                offset,
                bytes,
            });
        }
        Ok(())
    }

    /// A sealed segment has batches up to its end: what is missing is damage.
    fn sealed_end(
        &mut self,
        reading: Reading<'_>,
        work: &mut Progressing,
        offset: u64,
        seal: &SealEntry,
    ) -> io::Result<()> {
        work.apply_all(self.unit);
        if offset < seal.valid_bytes {
            let end_lsn = reading.end_lsn();
            self.damaged(reading, work, offset..seal.valid_bytes, end_lsn)?;
        }
        if seal.valid_bytes > FIRST_BATCH_OFFSET {
            work.state.end_segment(seal);
            work.expected_lsn = work.expected_lsn.max(seal.last_lsn + 1);
            work.expected_crc = Some(seal.chain_crc);
        }
        Ok(())
    }

    /// Takes what can still be read of a range without a valid batch, and reports the rest.
    /// `end_lsn` is the number of the record behind the range, when that is known.
    fn damaged(
        &mut self,
        reading: Reading<'_>,
        work: &mut Progressing,
        range: Range<u64>,
        end_lsn: Option<u64>,
    ) -> io::Result<()> {
        // Whatever was written before the range was durable before the range was written.
        work.apply_all(self.unit);
        let place = BatchPlace {
            offset: range.start,
            ..reading.place
        };
        let first_lsn = work.expected_lsn;
        let repeats = reading.repeats && range.start == FIRST_BATCH_OFFSET;
        let mut next_lsn = first_lsn;
        let state = &mut work.state;
        let lsns = first_lsn..end_lsn.unwrap_or(u64::MAX);
        let found = salvage(reading.file, place, range.end, lsns, &mut |record| {
            next_lsn = record.lsn + 1;
            let is_copy = record.flags & FLAG_MAYBE_DELIVERED != 0;
            if !(repeats && is_copy && record.kind == Some(RecordKind::Message)) {
                state.apply_salvaged(place, record);
            }
        })?;
        let next_lsn = end_lsn.unwrap_or(next_lsn).max(first_lsn);
        self.report.damaged.push(DamagedRange {
            file: segment_name(place.segment),
            offset: range.start,
            bytes: range.end - range.start,
            records: (next_lsn - first_lsn).saturating_sub(found),
        });
        let end = align_up(range.end, self.unit);
        work.state.skip_to(place.segment, end, next_lsn);
        work.expected_lsn = next_lsn;
        work.expected_crc = None;
        Ok(())
    }

    /// Takes one batch: it proves its predecessors durable and waits for its own proof.
    fn take(&mut self, batch: &Batch<'_>, sealed: bool, work: &mut Progressing) {
        if batch.next_lsn() <= work.expected_lsn && batch.count > 0 {
            return;
        }
        let breaks = work
            .expected_crc
            .is_some_and(|expected| expected != batch.previous_crc);
        if batch.first_lsn > work.expected_lsn || breaks {
            self.report.damaged.push(DamagedRange {
                file: segment_name(batch.place.segment),
                offset: batch.place.offset,
                bytes: 0,
                records: batch.first_lsn.saturating_sub(work.expected_lsn),
            });
        }
        work.expected_lsn = batch.next_lsn();
        work.expected_crc = Some(batch.crc);
        work.apply_up_to(batch.durable_lsn, self.unit);
        if batch.count == 0 {
            // A watermark proves what came before it, not that it is durable itself: it holds nothing
            // that would be missed, and a SEAL must not cover what may be gone after the next crash.
            work.apply_up_to(batch.first_lsn.saturating_sub(1), self.unit);
        }
        if sealed {
            work.apply_up_to(batch.first_lsn.saturating_sub(1), self.unit);
            if work.pending.is_empty() {
                work.state.apply_batch(batch);
                return;
            }
        }
        work.pending
            .push_back((batch.place, batch.bytes().to_vec()));
    }

    /// The ends of segments that no readable SEAL tells.
    fn seals(&self, state: &State, read: &[u64]) -> Vec<SealEntry> {
        let void = |segment| SealEntry {
            segment,
            valid_bytes: 0,
            last_lsn: state.position.next_lsn.saturating_sub(1),
            chain_crc: 0,
            references: 0,
        };
        let natural = |segment: u64| {
            let row = read
                .contains(&segment)
                .then(|| state.segments.get(&segment))??;
            if row.has_nothing() {
                // All that it had was copied, and may not survive: nobody is to miss it.
                return Some(void(segment));
            }
            Some(SealEntry {
                segment,
                valid_bytes: row.valid_bytes,
                last_lsn: row.last_lsn,
                chain_crc: row.chain_crc,
                references: row.references,
            })
        };
        let entry = |(number, outline): (u64, &Outline)| match outline.end {
            SegmentEnd::Void | SegmentEnd::Unused => Some(void(number)),
            SegmentEnd::Open => natural(number),
            SegmentEnd::Remembered(seal) => Some(seal),
            SegmentEnd::Unseen
            | SegmentEnd::Footer(_)
            | SegmentEnd::Sealed(_)
            | SegmentEnd::Compacted => None,
        };
        self.outlines.iter().filter_map(entry).collect()
    }

    /// Brings the kinds of segments up to date and drops those that are gone.
    fn settle_kinds(&self, state: &mut State) -> Result<(), OpenError> {
        let mut gone = Vec::new();
        for (number, segment) in &mut state.segments {
            let kind = match self.outlines.get(*number).map(|outline| outline.end) {
                Some(SegmentEnd::Footer(_)) => SegmentKind::Footer,
                Some(SegmentEnd::Sealed(_) | SegmentEnd::Remembered(_)) => SegmentKind::Sealed,
                // The SEAL that is about to be written makes it a sealed one.
                Some(SegmentEnd::Open) => SegmentKind::Open,
                Some(
                    SegmentEnd::Unseen
                    | SegmentEnd::Void
                    | SegmentEnd::Unused
                    | SegmentEnd::Compacted,
                ) => continue,
                None if segment.live == 0 => {
                    gone.push(*number);
                    continue;
                }
                None => {
                    return Err(OpenError::Damaged(format!(
                        "{} with {} waiting messages is missing",
                        segment_name(*number),
                        segment.live
                    )));
                }
            };
            if segment.kind != kind {
                segment.kind = kind;
                state.dirty.segments.insert(*number);
            }
        }
        for number in gone {
            state.forget_segment(number);
        }
        Ok(())
    }

    /// The state of the newest complete snapshot in the log, or of an empty store when the log
    /// reaches back to its beginning.
    pub(crate) fn base_from_log(
        &mut self,
        identity: Identity,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<State, OpenError> {
        let mut parts: SnapshotParts = BTreeMap::new();
        let of = self.bytes_from(0, 0)?;
        let mut done = 0;
        let used: Vec<_> = self.outlines.used_from(0).collect();
        for (number, outline, header) in used.iter().rev() {
            let file = self.open_segment(*number)?;
            let mut step = |offset| {
                let bytes = done + offset;
                progress(Progress::Snapshot { bytes, of });
            };
            done += self
                .collect_snapshots(file.as_ref(), header, outline.end, &mut parts, &mut step)
                .map_err(|source| read_failed(*number, source))?;
            if let Some(state) = newest_complete(&parts, identity) {
                return Ok(state);
            }
        }
        let mut state = State::default();
        state.position.next_lsn = 1;
        match used.first() {
            Some((number, outline, _)) if outline.base_lsn == Some(1) || *number == 1 => {
                state.position.segment = *number;
                state.position.offset = FIRST_BATCH_OFFSET;
                Ok(state)
            }
            Some(_) => Err(OpenError::Damaged(
                "neither a checkpoint nor a complete snapshot can be read".to_owned(),
            )),
            // Only void segments: a first owner died before it owned anything.
            None => Ok(state),
        }
    }

    fn collect_snapshots(
        &self,
        file: &dyn DiskFile,
        header: &SegmentHeader,
        end: SegmentEnd,
        parts: &mut SnapshotParts,
        step: &mut dyn FnMut(u64),
    ) -> io::Result<u64> {
        let limit = end.seal().map_or(u64::MAX, |seal| seal.valid_bytes);
        let place = BatchPlace {
            salt: self.salt,
            epoch: header.epoch,
            segment: header.segment,
            offset: FIRST_BATCH_OFFSET,
        };
        let mut take = |record: &Record<'_>| {
            if record.kind == Some(RecordKind::Snapshot)
                && let Some(part) = SnapshotPart::decode(record.body)
            {
                let key = (part.as_of_segment, part.as_of_offset);
                let value = (part.parts, part.rows.to_vec());
                parts.entry(key).or_default().insert(part.part, value);
            }
        };
        let mut reader = BatchReader::new(file, place, self.unit, limit);
        let mut next_lsn = 0;
        loop {
            if let Ok(batch) = reader.next()? {
                next_lsn = batch.next_lsn();
                batch.records().for_each(|record| take(&record));
                step(reader.offset());
                continue;
            }
            let offset = reader.offset();
            let here = BatchPlace { offset, ..place };
            match look_beyond(file, here, self.unit, limit)? {
                Beyond::Batch {
                    offset: next,
                    first_lsn,
                } => {
                    salvage(file, here, next, next_lsn..first_lsn, &mut take)?;
                    reader.seek(next);
                }
                Beyond::Nothing | Beyond::Garbage { .. } => return Ok(offset),
            }
        }
    }
}

impl Reading<'_> {
    /// A batch of a segment without a known end that its successor has copied: the numbers of its
    /// records were given out again.
    fn belongs_to_next(&self, next_lsn: u64, count: u32) -> bool {
        let end = self.end_lsn().filter(|_| self.seal.is_none());
        count > 0 && end.is_some_and(|end| next_lsn > end)
    }
}

pub(crate) fn newest_complete(parts: &SnapshotParts, identity: Identity) -> Option<State> {
    parts.values().rev().find_map(|snapshot| {
        let count = snapshot.values().next()?.0;
        if snapshot.len() != count as usize || snapshot.values().any(|(of, _)| *of != count) {
            return None;
        }
        let bytes: Vec<u8> = snapshot
            .values()
            .flat_map(|(_, rows)| rows.clone())
            .collect();
        let rows = decode_rows(&bytes)?.into_iter();
        let rows = rows.filter_map(|row| Some((row.table, row.key, row.value?)));
        // The snapshot itself lies behind its position: applying it makes it the one that segments may
        // be deleted for. It must not count before, since it may be in a batch that is cut off.
        let (state, meta) = load(rows).ok()?;
        (meta.identity == identity).then_some(state)
    })
}

fn read_failed(number: u64, source: io::Error) -> OpenError {
    OpenError::io("reading the log failed", &segment_name(number), source)
}
