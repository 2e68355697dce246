//! Reading the batches of a segment one after the other, and what follows from that: the index of
//! a segment, the place of the next good batch behind damage.

use std::io;
use std::ops::Range;

use crate::bits::SettledBits;
use crate::disk::DiskFile;
use crate::format::batch::{Batch, BatchClaim, BatchFault, BatchPlace, Record, RecordKind};
use crate::format::payload::{IndexEntry, IndexMap, IndexRecord};
use crate::format::{FIRST_BATCH_OFFSET, is_zero};
use crate::salvage::salvage;

/// Bytes read at once while scanning.
const CHUNK_BYTES: usize = 1 << 20;
/// No batch is longer: the limit that keeps a damaged length from taking memory.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 20;
/// How far behind a bad batch a good one is looked for, at least.
const LOOK_AHEAD_BYTES: u64 = 4 << 20;

/// What a segment's end is known to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentFacts {
    pub(crate) segment: u64,
    pub(crate) epoch: u64,
    pub(crate) valid_bytes: u64,
    pub(crate) last_lsn: u64,
    pub(crate) chain_crc: u32,
    pub(crate) references: u32,
}

/// Reads verified batches in order.
#[derive(Debug)]
pub(crate) struct BatchReader<'f> {
    file: &'f dyn DiskFile,
    place: BatchPlace,
    unit: u64,
    /// Batches end here at the latest.
    limit: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'f> BatchReader<'f> {
    /// Starts at `place.offset`; ends at `limit` or at the end of the file.
    pub(crate) fn new(file: &'f dyn DiskFile, place: BatchPlace, unit: u64, limit: u64) -> Self {
        let buffer_start = place.offset;
        Self {
            file,
            place,
            unit,
            limit,
            buffer: Vec::new(),
            buffer_start,
        }
    }

    /// Offset of the next batch.
    pub(crate) fn offset(&self) -> u64 {
        self.place.offset
    }

    /// Goes on at another offset.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.place.offset = offset;
    }

    /// The next batch, or why there is none at this offset. Does not move past a fault.
    pub(crate) fn next(&mut self) -> io::Result<Result<Batch<'_>, BatchFault>> {
        let mut need = CHUNK_BYTES.min(4096);
        loop {
            let complete = self.fill(need)?;
            let at = usize::try_from(self.place.offset - self.buffer_start).unwrap_or(0);
            let bytes = self.buffer.get(at..).unwrap_or_default();
            match Batch::parse(self.place, self.unit, bytes) {
                Err(BatchFault::Incomplete(len)) if !complete && len <= BATCH_BYTES_MAX => {
                    need = len
                }
                Err(fault) => return Ok(Err(fault)),
                Ok(batch) => {
                    let len = batch.len();
                    return Ok(self.advance(len));
                }
            }
        }
    }

    /// Parses again (the borrow checker wants a fresh borrow) and moves on.
    fn advance(&mut self, len: usize) -> Result<Batch<'_>, BatchFault> {
        let place = self.place;
        self.place.offset += len as u64;
        let at = usize::try_from(place.offset - self.buffer_start).unwrap_or(0);
        Batch::parse(place, self.unit, self.buffer.get(at..).unwrap_or_default())
    }

    /// Makes at least `need` bytes from the offset available; `true` when no more exist.
    fn fill(&mut self, need: usize) -> io::Result<bool> {
        let offset = self.place.offset;
        let end = self.buffer_start + self.buffer.len() as u64;
        let inside = (self.buffer_start..=end).contains(&offset);
        let have = if inside { end - offset } else { 0 };
        if have >= need as u64 {
            return Ok(false);
        }
        if inside {
            let at = usize::try_from(offset - self.buffer_start).unwrap_or(0);
            self.buffer.drain(..at);
        } else {
            self.buffer.clear();
        }
        self.buffer_start = offset;
        let kept = self.buffer.len();
        let from = offset + kept as u64;
        let room = self.limit.saturating_sub(from);
        let want = need.saturating_sub(kept).max(CHUNK_BYTES);
        let want = want.min(usize::try_from(room).unwrap_or(usize::MAX));
        // No memory is filled for what is not there.
        let left = self.file.bytes()?.saturating_sub(from);
        let space = want.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(kept + space, 0);
        let got = match self.buffer.get_mut(kept..) {
            Some(space) => self.file.read_at(from, space)?,
            None => 0,
        };
        self.buffer.truncate(kept + got);
        Ok(got < want || want as u64 == room)
    }
}

/// What stands behind a place where no valid batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beyond {
    /// A valid batch: what is in between is damage, not a torn tail.
    Batch {
        /// Its offset.
        offset: u64,
        /// Number of its first record.
        first_lsn: u64,
    },
    /// Only zeros: nothing was written here.
    Nothing,
    /// Other bytes, so many of them: a write that was cut short.
    Garbage {
        /// From the place up to the last byte that is not zero.
        bytes: u64,
    },
}

/// Looks behind a place without a valid batch.
pub(crate) fn look_beyond(
    file: &dyn DiskFile,
    place: BatchPlace,
    unit: u64,
    limit: u64,
) -> io::Result<Beyond> {
    let end = file.bytes()?.min(limit);
    let mut last_other = None;
    let mut offset = place.offset;
    let mut stop = place.offset + LOOK_AHEAD_BYTES;
    if limit != u64::MAX {
        // Batches are known to go on up to the limit.
        stop = end;
    }
    while offset < end.min(stop) {
        let chunk = crate::disk::read_range(file, offset, CHUNK_BYTES)?;
        for (sector, bytes) in (0_u64..).zip(chunk.chunks(usize::try_from(unit).unwrap_or(512))) {
            let at = offset + sector * unit;
            if is_zero(bytes) {
                continue;
            }
            let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else {
                continue;
            };
            last_other = Some(at + last as u64 + 1);
            // A long write is followed to its end.
            stop = stop.max(at + LOOK_AHEAD_BYTES);
            if at > place.offset && BatchClaim::read(bytes).is_some_and(|claim| claim.offset == at)
            {
                let here = BatchPlace {
                    offset: at,
                    ..place
                };
                let mut reader = BatchReader::new(file, here, unit, limit);
                if let Ok(batch) = reader.next()? {
                    let first_lsn = batch.first_lsn;
                    return Ok(Beyond::Batch {
                        offset: at,
                        first_lsn,
                    });
                }
            }
        }
        offset += chunk.len().max(1) as u64;
    }
    Ok(match last_other {
        None => Beyond::Nothing,
        Some(last) => Beyond::Garbage {
            bytes: last - place.offset,
        },
    })
}

/// Adds the messages of a batch to an index.
pub(crate) fn index_batch(batch: &Batch<'_>, index: &mut IndexMap) {
    for record in batch.records() {
        index_record(&record, index);
    }
}

pub(crate) fn index_record(record: &Record<'_>, index: &mut IndexMap) {
    if record.kind != Some(RecordKind::Message) {
        return;
    }
    let offset = u32::try_from(record.offset / 8).unwrap_or(u32::MAX);
    for (ordinal, queue) in (record.ordinal..).zip(record.routes()) {
        index
            .entry(queue)
            .or_default()
            .push(IndexEntry { ordinal, offset });
    }
}

/// The index of a whole segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentLists {
    pub(crate) index: IndexMap,
    /// References that no list has: their records are damaged. Ascending.
    pub(crate) lost: Vec<u32>,
    /// The ranges without a valid batch that were met, whatever could be read in them.
    pub(crate) damaged: Vec<Range<u64>>,
}

impl SegmentLists {
    /// Finds what is missing in an index of a segment with so many references.
    pub(crate) fn new(index: IndexMap, references: u32) -> Self {
        let mut seen = SettledBits::default();
        let mut count = 0;
        for entry in index.values().flatten() {
            if entry.ordinal < references && seen.set(entry.ordinal) {
                count += 1;
            }
        }
        let lost = if count == references {
            Vec::new()
        } else {
            (0..references)
                .filter(|ordinal| !seen.is_set(*ordinal))
                .collect()
        };
        Self {
            index,
            lost,
            damaged: Vec::new(),
        }
    }
}

/// The index of a segment without a footer: from the chain of index records where it holds, else
/// from reading everything.
pub(crate) fn load_index(
    file: &dyn DiskFile,
    facts: &SegmentFacts,
    salt: u64,
    unit: u64,
    last_index: Option<u64>,
) -> io::Result<SegmentLists> {
    let place = BatchPlace {
        salt,
        epoch: facts.epoch,
        segment: facts.segment,
        offset: FIRST_BATCH_OFFSET,
    };
    let mut index = IndexMap::new();
    let mut scan_from = FIRST_BATCH_OFFSET;
    if let Some(last) = last_index
        && let Some((chain, offset)) = load_chain(file, place, unit, facts, last)?
    {
        index = chain;
        scan_from = offset;
    }
    let place = BatchPlace {
        offset: scan_from,
        ..place
    };
    let damaged = scan_index(file, place, unit, facts, &mut index)?;
    Ok(SegmentLists {
        damaged,
        ..SegmentLists::new(index, facts.references)
    })
}

/// Follows the index records backwards. `None` when a link does not hold.
fn load_chain(
    file: &dyn DiskFile,
    place: BatchPlace,
    unit: u64,
    facts: &SegmentFacts,
    last: u64,
) -> io::Result<Option<(IndexMap, u64)>> {
    let mut parts = Vec::new();
    let mut scan_from = None;
    let mut offset = last;
    let mut below = u32::MAX;
    while offset != 0 {
        if offset >= facts.valid_bytes {
            return Ok(None);
        }
        let place = BatchPlace { offset, ..place };
        let found = index_record_at(file, place, unit, facts.valid_bytes)?;
        let Some(record) = found else { return Ok(None) };
        let joins = below == u32::MAX || record.to_ordinal == below;
        if !joins || record.previous_batch >= offset {
            return Ok(None);
        }
        scan_from.get_or_insert(record.scan_from);
        below = record.from_ordinal;
        offset = record.previous_batch;
        parts.push(record);
    }
    if below != 0 {
        return Ok(None);
    }
    let mut index = IndexMap::new();
    for part in parts.into_iter().rev() {
        for (queue, entries) in part.entries {
            index.entry(queue).or_default().extend(entries);
        }
    }
    Ok(scan_from.map(|offset| (index, offset)))
}

/// The index record of the batch at a place; in a damaged batch the record itself may be well.
fn index_record_at(
    file: &dyn DiskFile,
    place: BatchPlace,
    unit: u64,
    limit: u64,
) -> io::Result<Option<IndexRecord>> {
    let mut found = None;
    let mut take = |record: &Record<'_>| {
        if record.kind == Some(RecordKind::Index) && found.is_none() {
            found = IndexRecord::decode(record.body);
        }
    };
    let mut reader = BatchReader::new(file, place, unit, limit);
    match reader.next()? {
        Ok(batch) => batch.records().for_each(|record| take(&record)),
        Err(_) => {
            let (end, lsns) = match look_beyond(file, place, unit, limit)? {
                Beyond::Batch { offset, first_lsn } => (offset, 0..first_lsn),
                Beyond::Nothing | Beyond::Garbage { .. } => (limit, 0..u64::MAX),
            };
            salvage(file, place, end, lsns, &mut take)?;
        }
    }
    Ok(found)
}

/// Indexes the batches from `place` to the segment's valid end, and in damaged ones the records
/// that can still be read. Gives the damaged ranges.
fn scan_index(
    file: &dyn DiskFile,
    place: BatchPlace,
    unit: u64,
    facts: &SegmentFacts,
    index: &mut IndexMap,
) -> io::Result<Vec<Range<u64>>> {
    let mut damaged = Vec::new();
    let limit = facts.valid_bytes;
    let mut reader = BatchReader::new(file, place, unit, limit);
    let mut next_lsn = 0;
    while reader.offset() < limit {
        if let Ok(batch) = reader.next()? {
            next_lsn = batch.next_lsn();
            index_batch(&batch, index);
            continue;
        }
        let offset = reader.offset();
        let here = BatchPlace { offset, ..place };
        let (end, lsns) = match look_beyond(file, here, unit, limit)? {
            Beyond::Batch { offset, first_lsn } => (offset, next_lsn..first_lsn),
            Beyond::Nothing | Beyond::Garbage { .. } => (limit, next_lsn..u64::MAX),
        };
        salvage(file, here, end, lsns, &mut |record| {
            index_record(record, index);
        })?;
        damaged.push(offset..end);
        reader.seek(end);
    }
    Ok(damaged)
}
