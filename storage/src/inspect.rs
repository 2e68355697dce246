//! Looking at a store without changing it, beside a running server, going on after errors.

mod beside;
mod dump;
mod rows;

use std::io;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use beside::verify_compacted;
use beside::{end_beside, verify_presence, verify_side_index};
pub use dump::dump;
pub use rows::{UserRows, rows};

use crate::checkpoint;
use crate::disk::{Disk, DiskFile, OpenMode, read_range};
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::batch::{Batch, BatchPlace, Record, RecordKind};
use crate::format::footer::{Directory, TRAILER_BYTES, Trailer, decode_list};
use crate::format::payload::{SealEntry, decode_seals};
use crate::format::segment::{
    HEADER_BYTES, SegmentHeader, checkpoint_name, checkpoint_of, compact_of, segment_name,
    segment_of, side_index_of,
};
use crate::scan::{BatchReader, Beyond, look_beyond};
use crate::state::{SegmentKind, State};
use crate::survey::SEGMENT_BYTES_MIN;

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The queue's number, where it is about one.
    pub queue: Option<u32>,
    /// What is wrong.
    pub what: String,
    /// Damage, as opposed to a tail that is torn or still being written.
    pub is_damage: bool,
}

/// One segment as it stands on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentReport {
    /// Its number.
    pub segment: u64,
    /// The owner that wrote it: number of the first segment of its epoch.
    pub epoch: u64,
    /// Number of its first record.
    pub base_lsn: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// End of its last valid batch.
    pub valid_bytes: u64,
    /// Batches, watermarks included.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Messages.
    pub messages: u64,
    /// References that those make in queues.
    pub references: u64,
    /// Bytes of messages: meta and body.
    pub message_bytes: u64,
    /// How it ends.
    pub end: String,
}

/// What a whole store is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Its segments in order.
    pub segments: Vec<SegmentReport>,
    /// The checkpoint files that can be read.
    pub checkpoints: Vec<CheckpointReport>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether anything is damaged. A torn tail is not damage.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.is_damage)
    }
}

/// What a checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointReport {
    /// The file.
    pub file: String,
    /// The state is the one at this segment and offset.
    pub segment: u64,
    /// See `segment`.
    pub offset: u64,
    /// Number of the last record before it.
    pub last_lsn: u64,
    /// References waiting by queue number: messages and bytes.
    pub queues: Vec<(u32, u64, u64)>,
    /// Rows of the store's user.
    pub rows: u64,
    /// References set aside as damaged over the life of the store.
    pub quarantined: u64,
}

/// Totals of a scan of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScanTotals {
    /// Bytes of batches read.
    pub bytes: u64,
    /// Batches.
    pub batches: u64,
    /// Messages.
    pub messages: u64,
}

/// The numbers of the segments in a store, ascending.
///
/// # Errors
/// When the directory cannot be listed.
pub fn segments(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut segments: Vec<u64> = disk
        .list()?
        .iter()
        .filter_map(|entry| segment_of(&entry.name))
        .collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Reads and verifies every batch of every segment: what a start without checkpoints would cost.
///
/// # Errors
/// When the operating system refuses to read.
pub fn full_scan(disk: &dyn Disk) -> io::Result<ScanTotals> {
    let mut totals = ScanTotals::default();
    for number in segments(disk)? {
        let file = disk.open(&segment_name(number), OpenMode::Read)?;
        let Some(header) = header_of(file.as_ref(), number)? else {
            continue;
        };
        walk(
            file.as_ref(),
            &header,
            FIRST_BATCH_OFFSET..u64::MAX,
            |step| {
                if let Step::Batch(batch) = step {
                    totals.bytes += batch.len() as u64;
                    totals.batches += 1;
                    let is_message = |record: &Record<'_>| record.kind == Some(RecordKind::Message);
                    totals.messages += batch.records().filter(is_message).count() as u64;
                }
            },
        )?;
    }
    Ok(totals)
}

/// Reads everything and names what is wrong. `progress` is told the segment's number and how many
/// there are.
///
/// # Errors
/// When the directory cannot be listed; a file that cannot be read is a finding.
pub fn verify(disk: &dyn Disk, progress: &mut dyn FnMut(u64, usize)) -> io::Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let numbers = segments(disk)?;
    let last = numbers.last().copied().unwrap_or(0);
    let seals = all_seals(disk, &numbers);
    let names = disk.list()?;
    for number in numbers.iter().copied() {
        progress(number, numbers.len());
        let seal = seals
            .iter()
            .find(|seal| seal.segment == number)
            .map(|seal| seal.valid_bytes)
            .or_else(|| end_beside(disk, number));
        let open_end = number == last;
        if let Err(error) = verify_segment(disk, number, seal, open_end, &mut report) {
            report
                .findings
                .push(finding(&segment_name(number), 0, &error.to_string(), true));
        }
    }
    for entry in &names {
        if let Some(epoch) = checkpoint_of(&entry.name) {
            if let Some(state) = verify_checkpoint(disk, epoch, &mut report) {
                verify_presence(disk, &names, &state, &checkpoint_name(epoch), &mut report);
            }
        } else if let Some(segment) = side_index_of(&entry.name) {
            verify_side_index(disk, segment, &mut report);
        } else if let Some((segment, _)) = compact_of(&entry.name)
            && let Err(error) = verify_compacted(disk, segment, &entry.name, &mut report)
        {
            let what = error.to_string();
            report.findings.push(finding(&entry.name, 0, &what, true));
        }
    }
    Ok(report)
}

/// What headers, trailers and checkpoints say, without reading the messages.
///
/// # Errors
/// When the directory cannot be listed.
pub fn stats(disk: &dyn Disk) -> io::Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut known = State::default();
    for entry in disk.list()? {
        if let Some(epoch) = checkpoint_of(&entry.name)
            && let Some(state) = verify_checkpoint(disk, epoch, &mut report)
        {
            known = state;
        }
        let Some(number) = segment_of(&entry.name) else {
            continue;
        };
        match disk
            .open(&entry.name, OpenMode::Read)
            .and_then(|file| facts_of(file.as_ref(), number))
        {
            Ok(facts) => report.segments.push(facts),
            Err(error) => report
                .findings
                .push(finding(&entry.name, 0, &error.to_string(), true)),
        }
    }
    report.segments.sort_by_key(|segment| segment.segment);
    // What has no trailer of its own may be known from the checkpoint.
    for segment in &mut report.segments {
        if let Some(row) = known.segments.get(&segment.segment)
            && segment.valid_bytes == 0
        {
            segment.valid_bytes = row.valid_bytes;
            segment.records = (row.last_lsn + 1).saturating_sub(row.base_lsn);
            segment.references = u64::from(row.references);
            if row.kind == SegmentKind::Sealed {
                segment.end = format!("SEAL at {}", row.valid_bytes);
            }
        }
    }
    Ok(report)
}

/// What a walk over a segment meets.
enum Step<'a, 'b> {
    Batch(&'a Batch<'b>),
    Gap { offset: u64, bytes: u64 },
    Torn { offset: u64, bytes: u64 },
    End { offset: u64 },
}

/// Goes over the batches of a segment within a range of offsets, stepping over damage.
fn walk(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    range: Range<u64>,
    mut step: impl FnMut(Step<'_, '_>),
) -> io::Result<u64> {
    let unit = u64::from(header.unit);
    let place = BatchPlace {
        salt: header.identity.salt,
        epoch: header.epoch,
        segment: header.segment,
        offset: range.start,
    };
    let limit = range.end;
    let mut reader = BatchReader::new(file, place, unit, limit);
    loop {
        match reader.next()? {
            Ok(batch) => step(Step::Batch(&batch)),
            Err(_) => {
                let offset = reader.offset();
                match look_beyond(file, BatchPlace { offset, ..place }, unit, limit)? {
                    Beyond::Batch { offset: next, .. } => {
                        step(Step::Gap {
                            offset,
                            bytes: next - offset,
                        });
                        reader.seek(next);
                        continue;
                    }
                    Beyond::Garbage { bytes } => step(Step::Torn { offset, bytes }),
                    Beyond::Nothing => step(Step::End { offset }),
                }
                return Ok(offset);
            }
        }
    }
}

fn finding(file: &str, offset: u64, what: &str, is_damage: bool) -> Finding {
    Finding {
        file: file.to_owned(),
        offset,
        queue: None,
        what: what.to_owned(),
        is_damage,
    }
}

fn header_of(file: &dyn DiskFile, number: u64) -> io::Result<Option<SegmentHeader>> {
    let bytes = read_range(file, 0, HEADER_BYTES)?;
    Ok(SegmentHeader::decode(&bytes)
        .ok()
        .filter(|header| header.segment == number))
}

fn trailer_of(file: &dyn DiskFile, salt: u64, number: u64) -> io::Result<Option<Trailer>> {
    let at = file.bytes()?.saturating_sub(TRAILER_BYTES as u64);
    let bytes = read_range(file, at, TRAILER_BYTES)?;
    Ok(Trailer::decode(salt, number, &bytes))
}

/// All SEALs of the log, the first of each segment.
fn all_seals(disk: &dyn Disk, numbers: &[u64]) -> Vec<SealEntry> {
    let mut seals: Vec<SealEntry> = Vec::new();
    for number in numbers {
        for seal in seals_in(disk, *number) {
            if !seals.iter().any(|known| known.segment == seal.segment) {
                seals.push(seal);
            }
        }
    }
    seals
}

/// The SEALs that the first batch of an owner's first segment has; of another segment, nothing.
fn seals_in(disk: &dyn Disk, number: u64) -> Vec<SealEntry> {
    let mut seals = Vec::new();
    let Ok(file) = disk.open(&segment_name(number), OpenMode::Read) else {
        return seals;
    };
    let Ok(Some(header)) = header_of(file.as_ref(), number) else {
        return seals;
    };
    if header.epoch != number {
        return seals;
    }
    let place = BatchPlace {
        salt: header.identity.salt,
        epoch: header.epoch,
        segment: number,
        offset: FIRST_BATCH_OFFSET,
    };
    let mut reader = BatchReader::new(file.as_ref(), place, u64::from(header.unit), u64::MAX);
    let Ok(Ok(batch)) = reader.next() else {
        return seals;
    };
    let of_seals = |record: &Record<'_>| record.kind == Some(RecordKind::Seal);
    for record in batch.records().filter(of_seals) {
        seals.extend(decode_seals(record.body).unwrap_or_default());
    }
    seals
}

fn verify_segment(
    disk: &dyn Disk,
    number: u64,
    seal: Option<u64>,
    open_end: bool,
    report: &mut VerifyReport,
) -> io::Result<()> {
    let name = segment_name(number);
    let file = disk.open(&name, OpenMode::Read)?;
    let mut segment = SegmentReport {
        segment: number,
        file_bytes: file.bytes()?,
        ..SegmentReport::default()
    };
    let bytes = read_range(file.as_ref(), 0, HEADER_BYTES)?;
    let what = match SegmentHeader::decode(&bytes) {
        Ok(header) if header.segment == number => Ok(header),
        _ if seal == Some(0) || bytes.iter().all(|byte| *byte == 0) => {
            note_prepared(disk, segment, report);
            return Ok(());
        }
        Ok(_) => Err("the header names another segment".to_owned()),
        Err(what) => Err(what.to_string()),
    };
    let header = match what {
        Ok(header) => header,
        Err(what) => {
            report.findings.push(finding(&name, 0, &what, true));
            return Ok(());
        }
    };
    segment.epoch = header.epoch;
    segment.base_lsn = header.base_lsn;
    let trailer = trailer_of(file.as_ref(), header.identity.salt, number)?;
    let sealed = trailer.as_ref().map(|trailer| trailer.valid_bytes).or(seal);
    let findings = &mut report.findings;
    if sealed.is_none() {
        findings.extend(cut_short(disk, &header, segment.file_bytes));
    }
    let mut chain: Option<(u64, u32)> = None;
    let end = walk(
        file.as_ref(),
        &header,
        FIRST_BATCH_OFFSET..sealed.unwrap_or(u64::MAX),
        |step| match step {
            Step::Batch(batch) => {
                verify_batch(batch, &name, &mut chain, findings);
                segment.batches += 1;
                segment.records += u64::from(batch.count);
                segment.references += u64::from(batch.references);
                for record in batch
                    .records()
                    .filter(|record| record.kind == Some(RecordKind::Message))
                {
                    segment.messages += 1;
                    segment.message_bytes += u64::from(record.counted_bytes());
                }
                segment.valid_bytes = batch.place.offset + batch.len() as u64;
            }
            Step::Gap { offset, bytes } => {
                let what = format!("{bytes} bytes cannot be read, valid batches follow");
                findings.push(finding(&name, offset, &what, true));
            }
            Step::Torn { offset, bytes } if sealed.is_none() => {
                let what = if open_end {
                    format!("{bytes} bytes of a batch that is torn or being written")
                } else {
                    format!("{bytes} bytes of a torn batch")
                };
                findings.push(finding(&name, offset, &what, false));
            }
            Step::Torn { .. } | Step::End { .. } => {}
        },
    )?;
    if let Some(valid) = sealed
        && end < valid
    {
        let what = format!("batches are missing up to the segment's end at {valid}");
        findings.push(finding(&name, end, &what, true));
    }
    segment.end = match (&trailer, seal) {
        (Some(trailer), _) => {
            verify_footer(file.as_ref(), &header, trailer, &name, findings)?;
            "footer".to_owned()
        }
        (None, Some(valid)) => format!("SEAL at {valid}"),
        (None, None) => "open".to_owned(),
    };
    report.segments.push(segment);
    Ok(())
}

fn note_prepared(disk: &dyn Disk, mut segment: SegmentReport, report: &mut VerifyReport) {
    let is_zeroed = disk.file_system().is_local();
    if is_zeroed && segment.file_bytes < SEGMENT_BYTES_MIN {
        let what = "the file is cut short; whether anything stood in it cannot be told";
        let name = segment_name(segment.segment);
        let cut = finding(&name, segment.file_bytes, what, false);
        report.findings.push(cut);
    }
    segment.end = "prepared, not used".to_owned();
    report.segments.push(segment);
}

/// Where zeros are written ahead, a segment is made with all its bytes.
fn cut_short(disk: &dyn Disk, header: &SegmentHeader, file_bytes: u64) -> Option<Finding> {
    let is_zeroed = disk.file_system().is_local();
    (is_zeroed && file_bytes < header.capacity).then(|| {
        let what = format!(
            "the file was made with {} bytes and is cut short",
            header.capacity
        );
        finding(&segment_name(header.segment), file_bytes, &what, true)
    })
}

fn verify_batch(
    batch: &Batch<'_>,
    name: &str,
    chain: &mut Option<(u64, u32)>,
    findings: &mut Vec<Finding>,
) {
    let offset = batch.place.offset;
    if let Some((lsn, crc)) = chain {
        if batch.first_lsn != *lsn {
            let what = format!("record {} follows where {lsn} is expected", batch.first_lsn);
            findings.push(finding(name, offset, &what, true));
        } else if batch.previous_crc != *crc {
            findings.push(finding(
                name,
                offset,
                "the chain of checksums is broken",
                true,
            ));
        }
    }
    let records = batch.records().count() as u64;
    if records != u64::from(batch.count) {
        let what = format!("{records} records where the header says {}", batch.count);
        findings.push(finding(name, offset, &what, true));
    }
    *chain = Some((batch.next_lsn(), batch.crc));
}

fn verify_footer(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    trailer: &Trailer,
    name: &str,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    let len = usize::try_from(trailer.footer_bytes)
        .unwrap_or(usize::MAX)
        .min(1 << 30);
    let bytes = read_range(file, trailer.footer_offset, len)?;
    let salt = header.identity.salt;
    let Some(directory) = Directory::decode(salt, trailer.epoch, trailer.segment, &bytes) else {
        findings.push(finding(
            name,
            trailer.footer_offset,
            "the index cannot be read",
            true,
        ));
        return Ok(());
    };
    for entry in &directory.queues {
        let list = bytes.get(entry.start as usize..).unwrap_or_default();
        if decode_list(salt, trailer.epoch, trailer.segment, *entry, list).is_none() {
            let offset = trailer.footer_offset + u64::from(entry.start);
            findings.push(Finding {
                queue: Some(entry.queue),
                ..finding(name, offset, "the index of this queue cannot be read", true)
            });
        }
    }
    Ok(())
}

fn verify_checkpoint(disk: &dyn Disk, epoch: u64, report: &mut VerifyReport) -> Option<State> {
    let name = checkpoint_name(epoch);
    let (state, meta) = match checkpoint::load(disk, &name) {
        Ok(loaded) => loaded,
        // The log can rebuild it; a copy taken while it was written looks the same.
        Err(what) => {
            report.findings.push(finding(&name, 0, &what, false));
            return None;
        }
    };
    report.checkpoints.push(CheckpointReport {
        file: name,
        segment: meta.position.segment,
        offset: meta.position.offset,
        last_lsn: meta.position.next_lsn.saturating_sub(1),
        queues: state
            .queues
            .iter()
            .map(|(number, queue)| (*number, queue.messages, queue.bytes))
            .collect(),
        rows: state.rows.values().map(|rows| rows.len() as u64).sum(),
        quarantined: meta.quarantined,
    });
    Some(state)
}

fn facts_of(file: &dyn DiskFile, number: u64) -> io::Result<SegmentReport> {
    let mut report = SegmentReport {
        segment: number,
        file_bytes: file.bytes()?,
        ..SegmentReport::default()
    };
    let Some(header) = header_of(file, number)? else {
        report.end = "prepared, not used".to_owned();
        return Ok(report);
    };
    report.epoch = header.epoch;
    report.base_lsn = header.base_lsn;
    match trailer_of(file, header.identity.salt, number)? {
        Some(trailer) => {
            report.valid_bytes = trailer.valid_bytes;
            report.records = (trailer.last_lsn + 1).saturating_sub(header.base_lsn);
            report.references = u64::from(trailer.references);
            report.end = "footer".to_owned();
        }
        None => report.end = "open".to_owned(),
    }
    Ok(report)
}

/// Opens a directory of real files for inspection; creates nothing.
///
/// # Errors
/// When it is not a directory or cannot be read.
pub fn open_directory(path: &std::path::Path) -> io::Result<Arc<dyn Disk>> {
    Ok(Arc::new(crate::disk::RealDisk::open(path, false)?))
}
