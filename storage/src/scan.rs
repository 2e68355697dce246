//! Reading the batches of a segment one after the other, and what follows from that: the index of
//! a segment, the place of the next good batch behind damage.

use std::io;

use crate::disk::DiskFile;
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::batch::{Batch, BatchFault, BatchPlace, RecordKind};
use crate::format::payload::{IndexEntry, IndexMap, IndexRecord};

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
        self.buffer.resize(kept + want, 0);
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
    while offset < end.min(stop) {
        let chunk = crate::disk::read_range(file, offset, CHUNK_BYTES)?;
        for (sector, bytes) in (0_u64..).zip(chunk.chunks(usize::try_from(unit).unwrap_or(512))) {
            let at = offset + sector * unit;
            let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else {
                continue;
            };
            last_other = Some(at + last as u64 + 1);
            // A long write is followed to its end.
            stop = stop.max(at + LOOK_AHEAD_BYTES);
            if at > place.offset {
                let mut reader = BatchReader::new(
                    file,
                    BatchPlace {
                        offset: at,
                        ..place
                    },
                    unit,
                    limit,
                );
                if crate::format::get_u32(bytes, 0) != 0 && reader.next()?.is_ok() {
                    return Ok(Beyond::Batch { offset: at });
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
    for record in batch
        .records()
        .filter(|record| record.kind == Some(RecordKind::Message))
    {
        let offset = u32::try_from(record.offset / 8).unwrap_or(u32::MAX);
        for (ordinal, queue) in (record.ordinal..).zip(record.routes()) {
            index
                .entry(queue)
                .or_default()
                .push(IndexEntry { ordinal, offset });
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
) -> io::Result<IndexMap> {
    let place = BatchPlace {
        salt,
        epoch: facts.epoch,
        segment: facts.segment,
        offset: FIRST_BATCH_OFFSET,
    };
    if let Some(last) = last_index
        && let Some((mut index, scan_from)) = load_chain(file, place, unit, facts, last)?
    {
        scan_index(
            file,
            BatchPlace {
                offset: scan_from,
                ..place
            },
            unit,
            facts,
            &mut index,
        )?;
        return Ok(index);
    }
    let mut index = IndexMap::new();
    scan_index(file, place, unit, facts, &mut index)?;
    Ok(index)
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
        let mut reader = BatchReader::new(file, place, unit, facts.valid_bytes);
        let found = match reader.next()? {
            Ok(batch) => batch
                .records()
                .find(|record| record.kind == Some(RecordKind::Index))
                .and_then(|record| IndexRecord::decode(record.body)),
            Err(_) => None,
        };
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

/// Indexes the batches from `place` to the segment's valid end, stepping over damage.
fn scan_index(
    file: &dyn DiskFile,
    place: BatchPlace,
    unit: u64,
    facts: &SegmentFacts,
    index: &mut IndexMap,
) -> io::Result<()> {
    let mut reader = BatchReader::new(file, place, unit, facts.valid_bytes);
    while reader.offset() < facts.valid_bytes {
        match reader.next()? {
            Ok(batch) => index_batch(&batch, index),
            Err(_) => {
                let place = BatchPlace {
                    offset: reader.offset(),
                    ..place
                };
                match look_beyond(file, place, unit, facts.valid_bytes)? {
                    Beyond::Batch { offset } => reader.seek(offset),
                    Beyond::Nothing | Beyond::Garbage { .. } => break,
                }
            }
        }
    }
    Ok(())
}
