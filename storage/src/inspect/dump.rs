//! What stands in one segment, batch by batch, for people.

use std::io;

use super::beside::end_beside;
use super::{Step, seals_in, segments, trailer_of, walk};
use crate::disk::{Disk, DiskFile, OpenMode, read_range};
use crate::format::batch::{Batch, Record, RecordKind};
use crate::format::footer::{TRAILER_BYTES, Trailer};
use crate::format::payload::{
    Adopted, IndexRecord, Quarantined, RowChange, SnapshotPart, decode_seals, decode_settled,
};
use crate::format::segment::{HEADER_BYTES, SegmentHeader, segment_name};
use crate::format::{FIRST_BATCH_OFFSET, is_zero};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What to call the queue of a number.
type QueueName<'a> = &'a dyn Fn(u32) -> String;

/// Takes a line of the output.
type Line<'a> = dyn FnMut(String) + 'a;

/// What says where a segment ends.
pub(super) enum SealedBy {
    /// Its owner.
    Footer(Trailer),
    /// A later owner, which found so many valid bytes; 0: the segment is void.
    Seal(u64),
}

impl SealedBy {
    /// End of the last batch that counts.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Footer(trailer) => trailer.valid_bytes,
            Self::Seal(valid_bytes) => (*valid_bytes).max(FIRST_BATCH_OFFSET),
        }
    }
}

/// Writes what a segment holds, batch by batch and record by record, from an offset on. `queue_name` says
/// what to call the queue of a number.
///
/// # Errors
/// When the segment cannot be opened or read, or its header is not valid.
pub fn dump(
    disk: &dyn Disk,
    segment: u64,
    from: u64,
    batches_max: usize,
    queue_name: &dyn Fn(u32) -> String,
    line: &mut dyn FnMut(String),
) -> io::Result<()> {
    let name = segment_name(segment);
    let file = disk.open(&name, OpenMode::Read)?;
    let bytes = read_range(file.as_ref(), 0, HEADER_BYTES)?;
    let header = SegmentHeader::decode(&bytes)
        .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {what}")))?;
    line(format!(
        "{name}: epoch {}, first record {}, {} bytes prepared, batches on {} bytes",
        header.epoch, header.base_lsn, header.capacity, header.unit
    ));
    let sealed = sealed_by(disk, file.as_ref(), &header)?;
    let limit = sealed.as_ref().map_or(u64::MAX, SealedBy::end);
    let mut shown = 0;
    let mut show = |batch: &Batch<'_>, line: &mut Line<'_>| {
        if batch.place.offset + batch.len() as u64 > from {
            if shown < batches_max {
                describe_batch(batch, queue_name, line);
            }
            shown += 1;
        }
    };
    let range = FIRST_BATCH_OFFSET..limit;
    let reached = walk(file.as_ref(), &header, range, |step| match step {
        Step::Batch(batch) => show(batch, line),
        Step::Gap { offset, bytes } => line(format!("{offset:>12}  damaged, {bytes} bytes")),
        // It has no tail.
        Step::Torn { .. } | Step::End { .. } if sealed.is_some() => {}
        Step::Torn { offset, bytes } => line(format!("{offset:>12}  torn tail, {bytes} bytes")),
        Step::End { offset } => line(format!("{offset:>12}  end")),
    })?;
    if let Some(missing) = limit.checked_sub(reached)
        && missing > 0
        && sealed.is_some()
    {
        line(format!(
            "{reached:>12}  damaged, {missing} bytes up to the sealed end"
        ));
    }
    match &sealed {
        Some(SealedBy::Footer(trailer)) => {
            describe_footer(file.as_ref(), trailer, line)?;
        }
        Some(SealedBy::Seal(valid_bytes)) => {
            let what = match valid_bytes {
                0 => "void, as a later owner's SEAL says",
                _ => "end, sealed by a later owner",
            };
            line(format!("{limit:>12}  {what}"));
            describe_left(file.as_ref(), &header, limit, &mut show, line)?;
        }
        None => {}
    }
    if shown > batches_max {
        line(format!("... {} more batches", shown - batches_max));
    }
    Ok(())
}

/// What says where the segment ends, where anything does.
pub(super) fn sealed_by(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> io::Result<Option<SealedBy>> {
    let segment = header.segment;
    if let Some(trailer) = trailer_of(file, header.identity.salt, segment)? {
        return Ok(Some(SealedBy::Footer(trailer)));
    }
    let later = segments(disk)?
        .into_iter()
        .filter(|number| *number > segment);
    let mut seals = later.flat_map(|number| seals_in(disk, number));
    let seal = seals.find(|seal| seal.segment == segment);
    let end = seal.map(|seal| seal.valid_bytes);
    Ok(end
        .or_else(|| end_beside(disk, segment))
        .map(SealedBy::Seal))
}

/// What stands behind the last batch of a segment that its owner sealed.
fn describe_footer(file: &dyn DiskFile, trailer: &Trailer, line: &mut Line<'_>) -> io::Result<()> {
    let (start, bytes) = (trailer.footer_offset, trailer.footer_bytes);
    line(format!(
        "{:>12}  end, sealed by its owner",
        trailer.valid_bytes
    ));
    describe_room(file, trailer.valid_bytes, start, line)?;
    line(format!("{start:>12}  index, {bytes} bytes"));
    let last = file.bytes()?.saturating_sub(TRAILER_BYTES as u64);
    describe_room(file, start.saturating_add(bytes), last, line)?;
    line(format!("{last:>12}  trailer, {TRAILER_BYTES} bytes"));
    Ok(())
}

/// What stands between the parts of a sealed segment.
fn describe_room(file: &dyn DiskFile, from: u64, to: u64, line: &mut Line<'_>) -> io::Result<()> {
    let mut offset = from;
    let mut what = "unused room";
    while offset < to {
        let len = usize::try_from(to - offset).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        if !is_zero(&read_range(file, offset, len)?) {
            what = "room with bytes that count for nothing";
        }
        offset += len as u64;
    }
    if offset > from {
        line(format!("{from:>12}  {what}, {} bytes", offset - from));
    }
    Ok(())
}

/// What stands behind the end that a later owner's SEAL names: nothing of it counts.
fn describe_left(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    from: u64,
    show: &mut dyn FnMut(&Batch<'_>, &mut Line<'_>),
    line: &mut Line<'_>,
) -> io::Result<()> {
    let file_bytes = file.bytes()?;
    let left = "left by a dead owner behind the sealed end, counts for nothing";
    let mut is_first = true;
    walk(file, header, from..u64::MAX, |step| match step {
        Step::Batch(batch) => {
            if is_first {
                line(format!("{:>12}  batches {left}:", batch.place.offset));
            }
            is_first = false;
            show(batch, line);
        }
        Step::Gap { offset, bytes } | Step::Torn { offset, bytes } => {
            line(format!("{offset:>12}  {bytes} bytes {left}"));
        }
        Step::End { offset } => {
            let bytes = file_bytes.saturating_sub(offset);
            line(format!("{offset:>12}  unused room, {bytes} bytes"));
        }
    })?;
    Ok(())
}

fn describe_batch(batch: &Batch<'_>, queue_name: QueueName<'_>, line: &mut Line<'_>) {
    line(format!(
        "{:>12}  batch of {} bytes: {} records from {}, {} references from {}, durable up to {}",
        batch.place.offset,
        batch.len(),
        batch.count,
        batch.first_lsn,
        batch.references,
        batch.first_ordinal,
        batch.durable_lsn
    ));
    for record in batch.records() {
        line(format!(
            "{:>12}    {} {}",
            record.offset,
            record.lsn,
            describe_record(&record, queue_name)
        ));
    }
}

fn describe_record(record: &Record<'_>, queue_name: QueueName<'_>) -> String {
    let unreadable = || format!("{:?} that cannot be read", record.kind);
    match record.kind {
        Some(RecordKind::Message) => {
            let queues: Vec<String> = record.routes().map(queue_name).collect();
            format!(
                "message to [{}], ordinal {}, flags {:#x}, {} + {} bytes",
                queues.join(", "),
                record.ordinal,
                record.flags,
                record.meta.len(),
                record.body.len()
            )
        }
        Some(RecordKind::Settled) => match decode_settled(record.body) {
            Some(groups) => {
                let count: u32 = groups
                    .iter()
                    .flat_map(|group| &group.ranges)
                    .map(|range| range.count)
                    .sum();
                format!("settled {count} references of {} queues", groups.len())
            }
            None => unreadable(),
        },
        Some(RecordKind::Row) => match RowChange::decode(record.body) {
            Some(change) => {
                let verb = if change.value.is_some() {
                    "put"
                } else {
                    "deleted"
                };
                let key = readable(change.key);
                format!("row of kind {} {verb}, key {key}", change.kind)
            }
            None => unreadable(),
        },
        Some(RecordKind::Seal) => match decode_seals(record.body) {
            Some(seals) => {
                let ends: Vec<_> = seals
                    .iter()
                    .map(|seal| (seal.segment, seal.valid_bytes))
                    .collect();
                format!("SEAL of (segment, valid bytes) {ends:?}")
            }
            None => unreadable(),
        },
        Some(RecordKind::Adopted) => match Adopted::decode(record.body) {
            Some(note) => format!(
                "adopted from segment {} at {}: {} records from {}",
                note.segment, note.offset, note.count, note.first_lsn
            ),
            None => unreadable(),
        },
        Some(RecordKind::Index) => match IndexRecord::decode(record.body) {
            Some(index) => format!(
                "index of ordinals {} to {}, previous at {}",
                index.from_ordinal, index.to_ordinal, index.previous_batch
            ),
            None => unreadable(),
        },
        Some(RecordKind::Snapshot) => match SnapshotPart::decode(record.body) {
            Some(part) => format!(
                "snapshot of {}:{}, part {} of {}",
                part.as_of_segment,
                part.as_of_offset,
                part.part + 1,
                part.parts
            ),
            None => unreadable(),
        },
        Some(RecordKind::Quarantine) => match Quarantined::decode(record.body) {
            Some(bad) => format!("set aside segment {} at {}", bad.segment, bad.offset),
            None => unreadable(),
        },
        Some(RecordKind::Moved) => "moved message".to_owned(),
        None => "record of an unknown kind".to_owned(),
    }
}

/// Text where it is text, else hexadecimal digits.
fn readable(bytes: &[u8]) -> String {
    let is_plain = |text: &&str| !text.is_empty() && !text.contains(char::is_control);
    match std::str::from_utf8(bytes).ok().filter(is_plain) {
        Some(text) => format!("{text:?}"),
        None => bytes
            .iter()
            .fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}
