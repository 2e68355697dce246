//! Applying the log behind a base: the tail behind a checkpoint, or everything behind a snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::disk::{Disk, DiskFile, OpenMode, read_range};
use crate::error::OpenError;
use crate::format::batch::FLAG_MAYBE_DELIVERED;
use crate::format::batch::{Batch, BatchBuilder, BatchPlace, MessageParts, RecordKind};
use crate::format::footer::{TRAILER_BYTES, Trailer};
use crate::format::payload::{Adopted, SealEntry, SnapshotPart};
use crate::format::segment::{HEADER_BYTES, SegmentHeader, segment_name};
use crate::format::{FIRST_BATCH_OFFSET, Identity};
use crate::options::{DamagedRange, Progress, RecoveryReport, TornTail};
use crate::rows::{decode_rows, load};
use crate::scan::{BatchReader, Beyond, look_beyond};
use crate::state::{SegmentKind, SegmentState, State};

/// What is known about the end of a segment before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentEnd {
    /// Sealed long ago: by its trailer, or by a SEAL that the base knows.
    Known,
    /// Nobody sealed it: it ends where its batches end.
    Open,
    /// A successor's SEAL.
    At(SealEntry),
    /// Its maker died before it owned the store.
    Void,
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
                        | RecordKind::Quarantine),
                    ) => {
                        builder.record(kind, record.body);
                    }
                    // Those speak of the old segment only.
                    Some(RecordKind::Adopted | RecordKind::Index | RecordKind::Snapshot) | None => {
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
type SnapshotParts = BTreeMap<(u64, u64), BTreeMap<u32, (u32, Vec<u8>)>>;

/// Reads the log.
pub(crate) struct Replay<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) salt: u64,
    pub(crate) unit: u64,
    pub(crate) ends: &'a BTreeMap<u64, SegmentEnd>,
    pub(crate) report: &'a mut RecoveryReport,
}

/// What is read of a segment and not applied yet.
struct Progressing {
    state: State,
    /// Batches that no watermark covers yet.
    pending: VecDeque<(BatchPlace, Vec<u8>)>,
    expected_lsn: u64,
    /// Checksum that the next batch must name as its predecessor's.
    expected_crc: u32,
}

impl Progressing {
    /// Applies what is durable for sure.
    fn apply_up_to(&mut self, durable_lsn: u64, unit: u64) {
        while let Some((place, bytes)) = self.pending.front() {
            let Ok(batch) = Batch::parse(*place, unit, bytes) else {
                break;
            };
            if batch.next_lsn() > durable_lsn + 1 {
                break;
            }
            self.state.apply_batch(&batch);
            self.pending.pop_front();
        }
    }
}

impl Replay<'_> {
    /// Applies everything behind the base. Gives the state, the batches to adopt, and the seals
    /// that end the predecessors' segments.
    pub(crate) fn run(
        &mut self,
        base: State,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(State, Adoption, Vec<SealEntry>), OpenError> {
        let first = base.position.segment;
        let expected_lsn = base.position.next_lsn;
        let expected_crc = base.position.chain_crc;
        let pending = VecDeque::new();
        let mut work = Progressing {
            state: base,
            pending,
            expected_lsn,
            expected_crc,
        };
        let ends = self.ends;
        let mut open_ends = Vec::new();
        for (number, end) in ends.range(first..) {
            if *end == SegmentEnd::Void {
                continue;
            }
            let file = self.open_segment(*number)?;
            let from = match work.state.position {
                at if at.segment == *number => at.offset,
                _ => FIRST_BATCH_OFFSET,
            };
            let failed = |source| read_failed(*number, source);
            let Some(header) = header_of(file.as_ref(), *number).map_err(failed)? else {
                continue;
            };
            let place = BatchPlace {
                salt: self.salt,
                epoch: header.epoch,
                segment: *number,
                offset: from,
            };
            work.state
                .segments
                .entry(*number)
                .or_insert_with(|| SegmentState::new(header.epoch, header.base_lsn))
                .epoch = header.epoch;
            let limit = self
                .limit_of(file.as_ref(), *number, *end)
                .map_err(failed)?;
            self.read_segment(file.as_ref(), place, limit, &mut work, progress)
                .map_err(failed)?;
            if *end == SegmentEnd::Open {
                open_ends.push(*number);
            }
        }
        let unit = self.unit;
        let adopted = work
            .pending
            .into_iter()
            .map(|(place, bytes)| (place, unit, bytes))
            .collect();
        let mut state = work.state;
        let seals = self.seals(&state, &open_ends);
        self.settle_kinds(&mut state)?;
        Ok((state, Adoption { batches: adopted }, seals))
    }

    fn open_segment(&self, number: u64) -> Result<std::sync::Arc<dyn DiskFile>, OpenError> {
        self.disk
            .open(&segment_name(number), OpenMode::Read)
            .map_err(|source| read_failed(number, source))
    }

    /// Where batches of a segment end at the latest; `None` when only reading can tell.
    fn limit_of(
        &self,
        file: &dyn DiskFile,
        number: u64,
        end: SegmentEnd,
    ) -> io::Result<Option<u64>> {
        Ok(match end {
            SegmentEnd::At(seal) => Some(seal.valid_bytes),
            SegmentEnd::Known => {
                let at = file.bytes()?.saturating_sub(TRAILER_BYTES as u64);
                let bytes = read_range(file, at, TRAILER_BYTES)?;
                Trailer::decode(self.salt, number, &bytes).map(|trailer| trailer.valid_bytes)
            }
            SegmentEnd::Open | SegmentEnd::Void => None,
        })
    }

    fn read_segment(
        &mut self,
        file: &dyn DiskFile,
        place: BatchPlace,
        limit: Option<u64>,
        work: &mut Progressing,
        progress: &mut dyn FnMut(Progress),
    ) -> io::Result<()> {
        let sealed = limit.is_some();
        let limit = limit.unwrap_or(u64::MAX);
        let size = file.bytes()?.min(limit);
        let mut reader = BatchReader::new(file, place, self.unit, limit);
        while reader.offset() < size {
            let offset = reader.offset();
            let fault = match reader.next()? {
                Ok(batch) => {
                    self.report.tail_bytes += batch.len() as u64;
                    self.take(&batch, sealed, work);
                    let of = size.saturating_sub(place.offset);
                    progress(Progress::Tail {
                        bytes: self.report.tail_bytes,
                        of,
                    });
                    continue;
                }
                Err(fault) => fault,
            };
            let here = BatchPlace { offset, ..place };
            let (bytes, resume) = match look_beyond(file, here, self.unit, limit)? {
                Beyond::Batch { offset: next } => (next - offset, Some(next)),
                // A sealed segment has batches up to its end: what is missing is damage.
                _ if sealed => (size - offset, None),
                Beyond::Garbage { bytes } => {
                    let _ = fault;
                    let file = segment_name(place.segment);
                    self.report.torn = Some(TornTail {
                        file,
                        offset,
                        bytes,
                    });
                    break;
                }
                Beyond::Nothing => break,
            };
            let file = segment_name(place.segment);
            self.report.damaged.push(DamagedRange {
                file,
                offset,
                bytes,
                records: 0,
            });
            match resume {
                Some(next) => reader.seek(next),
                None => break,
            }
        }
        if sealed {
            work.apply_up_to(u64::MAX - 1, self.unit);
        }
        Ok(())
    }

    /// Takes one batch: it proves its predecessors durable and waits for its own proof.
    fn take(&mut self, batch: &Batch<'_>, sealed: bool, work: &mut Progressing) {
        if batch.next_lsn() <= work.expected_lsn && batch.count > 0 {
            return;
        }
        if batch.first_lsn > work.expected_lsn || batch.previous_crc != work.expected_crc {
            let missing = batch.first_lsn.saturating_sub(work.expected_lsn);
            match self.report.damaged.last_mut() {
                Some(range) if range.records == 0 => range.records = missing,
                _ => self.report.damaged.push(DamagedRange {
                    file: segment_name(batch.place.segment),
                    offset: batch.place.offset,
                    bytes: 0,
                    records: missing,
                }),
            }
        }
        work.expected_lsn = batch.next_lsn();
        work.expected_crc = batch.crc;
        work.apply_up_to(batch.durable_lsn, self.unit);
        if sealed || batch.count == 0 {
            work.apply_up_to(batch.first_lsn.saturating_sub(1), self.unit);
            if work.pending.is_empty() {
                work.state.apply_batch(batch);
                return;
            }
        }
        work.pending
            .push_back((batch.place, batch.bytes().to_vec()));
    }

    fn seals(&self, state: &State, open_ends: &[u64]) -> Vec<SealEntry> {
        let mut seals = Vec::new();
        for (number, end) in self.ends {
            match end {
                SegmentEnd::Void => seals.push(SealEntry {
                    segment: *number,
                    valid_bytes: 0,
                    last_lsn: state.position.next_lsn.saturating_sub(1),
                    chain_crc: 0,
                    references: 0,
                }),
                SegmentEnd::Open if open_ends.contains(number) => {
                    if let Some(segment) = state.segments.get(number) {
                        seals.push(SealEntry {
                            segment: *number,
                            valid_bytes: segment.valid_bytes,
                            last_lsn: segment.last_lsn,
                            chain_crc: segment.chain_crc,
                            references: segment.references,
                        });
                    }
                }
                _ => {}
            }
        }
        seals
    }

    /// Brings the kinds of segments up to date and drops those that are gone.
    fn settle_kinds(&self, state: &mut State) -> Result<(), OpenError> {
        let mut gone = Vec::new();
        for (number, segment) in &mut state.segments {
            match self.ends.get(number) {
                Some(SegmentEnd::Known) if segment.kind == SegmentKind::Open => {
                    segment.kind = SegmentKind::Footer;
                    state.dirty.segments.insert(*number);
                }
                Some(SegmentEnd::At(_)) => {
                    segment.kind = SegmentKind::Sealed;
                    state.dirty.segments.insert(*number);
                }
                None if segment.live == 0 => gone.push(*number),
                None => {
                    return Err(OpenError::Damaged(format!(
                        "{} with {} waiting messages is missing",
                        segment_name(*number),
                        segment.live
                    )));
                }
                _ => {}
            }
        }
        for number in gone {
            state.forget_segment(number);
        }
        Ok(())
    }

    /// The state of the newest complete snapshot in the log, or of an empty store when the log
    /// reaches back to its beginning.
    pub(crate) fn base_from_log(&mut self, identity: Identity) -> Result<State, OpenError> {
        let mut parts: SnapshotParts = BTreeMap::new();
        let mut oldest = None;
        for (number, end) in self.ends.iter().rev() {
            if *end == SegmentEnd::Void {
                continue;
            }
            let file = self.open_segment(*number)?;
            let failed = |source| read_failed(*number, source);
            let Some(header) = header_of(file.as_ref(), *number).map_err(failed)? else {
                continue;
            };
            oldest = Some((*number, header));
            self.collect_snapshots(file.as_ref(), &header, *end, &mut parts)
                .map_err(failed)?;
            if let Some(state) = newest_complete(&parts, identity) {
                return Ok(state);
            }
        }
        match oldest {
            Some((number, header)) if header.base_lsn == 1 => {
                let mut state = State::default();
                state.position.segment = number;
                state.position.offset = FIRST_BATCH_OFFSET;
                state.position.next_lsn = 1;
                Ok(state)
            }
            Some(_) => Err(OpenError::Damaged(
                "neither a checkpoint nor a complete snapshot can be read".to_owned(),
            )),
            // Only void segments: a first owner died before it owned anything.
            None => {
                let mut state = State::default();
                state.position.next_lsn = 1;
                Ok(state)
            }
        }
    }

    fn collect_snapshots(
        &self,
        file: &dyn DiskFile,
        header: &SegmentHeader,
        end: SegmentEnd,
        parts: &mut SnapshotParts,
    ) -> io::Result<()> {
        let number = header.segment;
        let limit = self.limit_of(file, number, end)?.unwrap_or(u64::MAX);
        let place = BatchPlace {
            salt: self.salt,
            epoch: header.epoch,
            segment: number,
            offset: FIRST_BATCH_OFFSET,
        };
        let mut reader = BatchReader::new(file, place, self.unit, limit);
        loop {
            match reader.next()? {
                Ok(batch) => {
                    for record in batch.records() {
                        if record.kind == Some(RecordKind::Snapshot)
                            && let Some(part) = SnapshotPart::decode(record.body)
                        {
                            let key = (part.as_of_segment, part.as_of_offset);
                            let value = (part.parts, part.rows.to_vec());
                            parts.entry(key).or_default().insert(part.part, value);
                        }
                    }
                }
                Err(_) => {
                    let here = BatchPlace {
                        offset: reader.offset(),
                        ..place
                    };
                    match look_beyond(file, here, self.unit, limit)? {
                        Beyond::Batch { offset } => reader.seek(offset),
                        Beyond::Nothing | Beyond::Garbage { .. } => return Ok(()),
                    }
                }
            }
        }
    }
}

fn newest_complete(parts: &SnapshotParts, identity: Identity) -> Option<State> {
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
        let (mut state, meta) = load(rows).ok()?;
        if meta.identity != identity {
            return None;
        }
        state.snapshot_base = state.snapshot_base.max(state.position.segment);
        Some(state)
    })
}

fn read_failed(number: u64, source: io::Error) -> OpenError {
    OpenError::io("reading the log failed", &segment_name(number), source)
}

fn header_of(file: &dyn DiskFile, number: u64) -> io::Result<Option<SegmentHeader>> {
    let bytes = read_range(file, 0, HEADER_BYTES)?;
    Ok(SegmentHeader::decode(&bytes)
        .ok()
        .filter(|header| header.segment == number))
}
