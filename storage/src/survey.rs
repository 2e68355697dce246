//! Looking at a directory that a predecessor left: what is there, who may still write it, which
//! segments are used. Locks what has no owner any more; writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::checkpoint;
use crate::disk::{Disk, DiskFile, OpenMode, read_range};
use crate::error::OpenError;
use crate::format::batch::{Batch, BatchClaim, BatchPlace, Record, RecordKind};
use crate::format::footer::{TRAILER_BYTES, Trailer};
use crate::format::payload::{SealEntry, decode_seals};
use crate::format::segment::{
    HEADER_BYTES, HeaderFault, SegmentHeader, checkpoint_name, checkpoint_of, compact_of,
    segment_name, segment_of, side_index_of,
};
use crate::format::{FIRST_BATCH_OFFSET, Identity, SECTOR_BYTES, is_zero};
use crate::salvage::salvage;
use crate::scan::{BatchReader, Beyond, look_beyond};

/// An ending process gives its segments back within this time after `LOCK`, in ms.
const RELEASE_WAIT_MS: u64 = 50;
/// No segment is made smaller where zeros are written ahead.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// A segment whose header and so many bytes of batches are zero was prepared and never used. Each takeover
/// reads them from a disk that has not seen them yet.
pub(crate) const PREPARED_BYTES: usize = 64 << 10;
/// Bytes read at once behind them.
const CHUNK_BYTES: usize = 1 << 20;

/// Identity of the store and alignment of its batches.
pub(crate) type StoreIdentity = (Identity, u32);

/// A segment as found on disk.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    /// `None`: nothing in the file belongs to the store.
    pub(crate) header: Option<SegmentHeader>,
    /// The header was lost after it had been durable; `header` was derived from the batches.
    pub(crate) is_damaged: bool,
    /// Number of the segment's first record; `None` when it cannot be told any more.
    pub(crate) base_lsn: Option<u64>,
    pub(crate) trailer: Option<Trailer>,
}

/// What the directory holds and what of it is locked.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<u64>,
    pub(crate) checkpoints: Vec<u64>,
    pub(crate) side_indexes: BTreeSet<u64>,
    pub(crate) temporaries: Vec<String>,
    /// Generations of compacted files by segment, ascending.
    pub(crate) compacts: BTreeMap<u64, Vec<u64>>,
    /// The segments that nobody has sealed for sure, in ascending order, locked.
    pub(crate) unsealed: Vec<Found>,
    pub(crate) identity: Option<StoreIdentity>,
}

impl Survey {
    /// The compacted files that stand for their segments: the last of each, also where the segment is
    /// still there. Its owner may be about to remove it, even when that owner has lost the store.
    pub(crate) fn compacted(&self) -> BTreeMap<u64, u64> {
        let stands_for = self.compacts.iter();
        stands_for
            .filter_map(|(segment, generations)| Some((*segment, *generations.last()?)))
            .collect()
    }
}

/// Lists the directory and locks every segment that may still have a living writer.
pub(crate) fn survey(disk: &dyn Disk) -> Result<Survey, OpenError> {
    let mut survey = listing(disk)?;
    survey.identity = find_identity(disk, &survey)?;
    let mut named_by_seal: Option<BTreeSet<u64>> = None;
    for number in survey.segments.iter().rev().copied() {
        if let Some(named) = &mut named_by_seal
            && !named.remove(&number)
        {
            if named.is_empty() {
                break;
            }
            continue;
        }
        let found = look_at(disk, number, survey.identity)?;
        if found.trailer.is_some() {
            // Its owner sealed it, and all that came before it.
            break;
        }
        lock_segment(disk, &found)?;
        // The first batch of an epoch seals all predecessors. It may itself not be final: the
        // segments that it names are locked too.
        if named_by_seal.is_none()
            && let Some(header) = &found.header
            && header.epoch == number
            && let Some(seals) = epoch_start(&found, header)?.seals
        {
            named_by_seal = Some(seals.iter().map(|seal| seal.segment).collect());
        }
        survey.unsealed.push(found);
        if named_by_seal.as_ref().is_some_and(BTreeSet::is_empty) {
            break;
        }
    }
    survey.unsealed.reverse();
    Ok(survey)
}

/// Whose store a directory holds; `None` when there is none yet. Locks nothing.
///
/// # Errors
/// [`OpenError::Io`] when the directory or its newest segment cannot be read.
pub fn store_id(disk: &dyn Disk) -> Result<Option<[u8; 16]>, OpenError> {
    let survey = listing(disk)?;
    let identity = find_identity(disk, &survey)?;
    Ok(identity.map(|(identity, _)| identity.uuid))
}

/// The epoch of somebody who took the store `id` over after `epoch`; `None` when there is nobody. A new
/// owner has a segment of its own before it serves, and can only make it with the locks of all
/// that came before. Locks nothing.
///
/// # Errors
/// The directory or the header of a segment cannot be read.
pub fn newer_epoch(disk: &dyn Disk, id: [u8; 16], epoch: u64) -> Result<Option<u64>, OpenError> {
    let segments = listing(disk)?.segments;
    for number in segments.into_iter().rev().filter(|number| *number > epoch) {
        let file = match disk.open(&segment_name(number), OpenMode::Read) {
            Ok(file) => file,
            // Its owner has removed it since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(number)(error)),
        };
        let bytes = read_range(file.as_ref(), 0, HEADER_BYTES).map_err(failed(number))?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.identity.uuid == id => {
                return Ok(Some(header.epoch).filter(|newer| *newer > epoch));
            }
            // Prepared and not used yet, or not of this store.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

/// The files of a store. Locks nothing.
pub(crate) fn listing(disk: &dyn Disk) -> Result<Survey, OpenError> {
    let names = disk
        .names()
        .map_err(|error| OpenError::io("listing failed", "the store", error))?;
    let mut survey = Survey::default();
    for name in names {
        if let Some(segment) = segment_of(&name) {
            survey.segments.push(segment);
        } else if let Some(epoch) = checkpoint_of(&name) {
            survey.checkpoints.push(epoch);
        } else if let Some(segment) = side_index_of(&name) {
            survey.side_indexes.insert(segment);
        } else if let Some((segment, generation)) = compact_of(&name) {
            survey.compacts.entry(segment).or_default().push(generation);
        } else if name.ends_with(".tmp") {
            survey.temporaries.push(name);
        }
    }
    survey.segments.sort_unstable();
    survey.checkpoints.sort_unstable();
    survey
        .compacts
        .values_mut()
        .for_each(|it| it.sort_unstable());
    Ok(survey)
}

fn failed(number: u64) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::io("reading failed", &segment_name(number), source)
}

/// Whose store this is: from the newest header that can be read, else from a checkpoint, else from
/// a damaged header that a batch proves right. `None` when there is no store yet.
fn find_identity(disk: &dyn Disk, survey: &Survey) -> Result<Option<StoreIdentity>, OpenError> {
    let mut damaged = Vec::new();
    for number in survey.segments.iter().rev().copied() {
        let file = disk
            .open(&segment_name(number), OpenMode::Read)
            .map_err(failed(number))?;
        let bytes = read_range(file.as_ref(), 0, HEADER_BYTES).map_err(failed(number))?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) => return Ok(Some((header.identity, header.unit))),
            Err(_) => damaged.push((number, file, bytes)),
        }
    }
    for epoch in survey.checkpoints.iter().rev() {
        if let Ok((_, meta)) = checkpoint::load(disk, &checkpoint_name(*epoch)) {
            return Ok(Some((meta.identity, meta.unit)));
        }
    }
    let mut used = None;
    for (number, file, bytes) in damaged {
        let claimed = SegmentHeader::claimed(&bytes)
            .map(|header| (header.identity, header.unit))
            .unwrap_or_default();
        let batch = first_batch(file.as_ref(), number, claimed).map_err(failed(number))?;
        if batch.is_some() {
            return Ok(Some(claimed));
        }
        if was_served(file.as_ref(), number).map_err(failed(number))? {
            used.get_or_insert(number);
        }
    }
    match used {
        None => Ok(None),
        Some(number) => Err(OpenError::Damaged(format!(
            "{} holds batches, but no header and no checkpoint tells to which store they belong",
            segment_name(number)
        ))),
    }
}

/// Whether something that looks like a batch stands behind the first one: then an owner got beyond
/// its first write, and its header was durable.
fn was_served(file: &dyn DiskFile, number: u64) -> io::Result<bool> {
    let mut seen = false;
    sectors(file, SECTOR_BYTES, &mut |offset, bytes| {
        let claim = BatchClaim::read(bytes);
        let fits = claim.is_some_and(|claim| claim.segment == number && claim.offset == offset);
        seen |= fits && offset > FIRST_BATCH_OFFSET;
        Ok(!seen)
    })?;
    Ok(seen)
}

/// Visits the units of a segment behind its header, until told to stop. A segment that begins with
/// nothing but zeros counts as ended there.
fn sectors(
    file: &dyn DiskFile,
    unit: u64,
    visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut chunk_bytes = PREPARED_BYTES;
    let mut offset = FIRST_BATCH_OFFSET;
    let mut zero = true;
    loop {
        let chunk = read_range(file, offset, chunk_bytes)?;
        for (sector, bytes) in (0_u64..).zip(chunk.chunks(usize::try_from(unit).unwrap_or(512))) {
            if is_zero(bytes) {
                continue;
            }
            zero = false;
            if !visit(offset + sector * unit, bytes)? {
                return Ok(());
            }
        }
        if zero || chunk.len() < chunk_bytes {
            return Ok(());
        }
        offset += chunk.len() as u64;
        chunk_bytes = CHUNK_BYTES;
    }
}

/// The first batch that verifies.
#[derive(Clone, Copy, Debug)]
struct FirstBatch {
    offset: u64,
    end: u64,
    epoch: u64,
    first_lsn: u64,
}

/// Looks for a batch that verifies, whatever its epoch. A segment has one writer for all of its
/// life, so the epoch in a batch that verifies is the segment's.
fn first_batch(
    file: &dyn DiskFile,
    number: u64,
    (identity, unit): StoreIdentity,
) -> io::Result<Option<FirstBatch>> {
    let mut found = None;
    let unit = u64::from(unit).max(SECTOR_BYTES);
    sectors(file, unit, &mut |offset, bytes| {
        let Some(claim) = BatchClaim::read(bytes) else {
            return Ok(true);
        };
        let ours = claim.segment == number && claim.offset == offset;
        if !ours || !(1..=number).contains(&claim.epoch) {
            return Ok(true);
        }
        let place = BatchPlace {
            salt: identity.salt,
            epoch: claim.epoch,
            segment: number,
            offset,
        };
        let mut reader = BatchReader::new(file, place, unit, u64::MAX);
        found = reader.next()?.ok().map(|batch| FirstBatch {
            offset,
            end: offset + batch.len() as u64,
            epoch: claim.epoch,
            first_lsn: batch.first_lsn,
        });
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// Reads header and trailer of a segment. A header that cannot be read is derived from the
/// segment's batches when one of them verifies.
pub(crate) fn look_at(
    disk: &dyn Disk,
    number: u64,
    identity: Option<StoreIdentity>,
) -> Result<Found, OpenError> {
    let name = segment_name(number);
    let file = disk.open(&name, OpenMode::Write).map_err(failed(number))?;
    let bytes = read_range(file.as_ref(), 0, HEADER_BYTES).map_err(failed(number))?;
    let strange = |what: String| Err(OpenError::Damaged(format!("{name}: {what}")));
    let mut found = Found {
        number,
        file,
        header: None,
        is_damaged: false,
        base_lsn: None,
        trailer: None,
    };
    match SegmentHeader::decode(&bytes) {
        Ok(header) if header.segment != number => {
            return strange(format!(
                "its header says that it is segment {}",
                header.segment
            ));
        }
        Ok(header) if identity.is_some_and(|(identity, _)| header.identity != identity) => {
            return strange("it belongs to another store".to_owned());
        }
        Err(fault @ HeaderFault::Version(_)) => return strange(fault.to_string()),
        Ok(header) => {
            found.header = Some(header);
            found.base_lsn = Some(header.base_lsn);
        }
        Err(_) => {
            if let Some(identity) = identity {
                derive_header(&mut found, identity).map_err(failed(number))?;
            }
        }
    }
    if let Some(header) = &found.header {
        found.trailer = trailer_of(found.file.as_ref(), header.identity.salt, number)
            .map_err(failed(number))?;
    }
    Ok(found)
}

/// The trailer in the last bytes of a file, if there is a valid one.
pub(crate) fn trailer_of(
    file: &dyn DiskFile,
    salt: u64,
    segment: u64,
) -> io::Result<Option<Trailer>> {
    let at = file.bytes()?.saturating_sub(TRAILER_BYTES as u64);
    let bytes = read_range(file, at, TRAILER_BYTES)?;
    Ok(Trailer::decode(salt, segment, &bytes))
}

fn derive_header(found: &mut Found, store: StoreIdentity) -> io::Result<()> {
    let (identity, unit) = store;
    let file = found.file.as_ref();
    let Some(first) = first_batch(file, found.number, store)? else {
        return Ok(());
    };
    let place = BatchPlace {
        salt: identity.salt,
        epoch: first.epoch,
        segment: found.number,
        offset: FIRST_BATCH_OFFSET,
    };
    found.base_lsn = first_lsn_of(file, place, &first)?;
    found.header = Some(SegmentHeader {
        identity,
        segment: found.number,
        epoch: first.epoch,
        base_lsn: found.base_lsn.unwrap_or(first.first_lsn),
        capacity: file.bytes()?,
        unit,
    });
    // Header and first batch are made durable together: without a further batch nobody can tell a
    // lost header from one that never reached the disk, and nothing in the segment was confirmed.
    let behind = BatchPlace {
        offset: first.end,
        ..place
    };
    let mut reader = BatchReader::new(file, behind, u64::from(unit), u64::MAX);
    found.is_damaged = first.offset != FIRST_BATCH_OFFSET
        || reader.next()?.is_ok()
        || matches!(
            look_beyond(file, behind, u64::from(unit), u64::MAX)?,
            Beyond::Batch { .. }
        );
    Ok(())
}

/// Number of a segment's first record when its header is lost.
fn first_lsn_of(
    file: &dyn DiskFile,
    place: BatchPlace,
    first: &FirstBatch,
) -> io::Result<Option<u64>> {
    if first.offset == place.offset {
        return Ok(Some(first.first_lsn));
    }
    // The header of the damaged first batch may be well: then it joins the batch behind it.
    let bytes = read_range(file, place.offset, 512)?;
    if let Some(claim) = BatchClaim::read(&bytes)
        && claim.first_lsn.checked_add(u64::from(claim.count)) == Some(first.first_lsn)
    {
        return Ok(Some(claim.first_lsn));
    }
    // The first batch of an epoch begins with a SEAL, and the note of what was adopted follows it.
    let mut base = None;
    let mut is_first = true;
    let lsns = 0..first.first_lsn;
    salvage(file, place, first.offset, lsns, &mut |record| {
        if std::mem::take(&mut is_first) {
            base = match record.kind {
                Some(RecordKind::Seal) => Some(record.lsn),
                Some(RecordKind::Adopted) => record.lsn.checked_sub(1),
                _ => None,
            };
        }
    })?;
    Ok(base)
}

fn lock_segment(disk: &dyn Disk, found: &Found) -> Result<(), OpenError> {
    let name = segment_name(found.number);
    let mut waited = 0;
    loop {
        match found.file.try_lock() {
            Ok(true) => return Ok(()),
            Ok(false) if waited < RELEASE_WAIT_MS => {
                disk.pause_ms(1);
                waited += 1;
            }
            Ok(false) => {
                return Err(OpenError::Busy(format!(
                    "{name} is locked by the server that writes it"
                )));
            }
            Err(error) => return Err(OpenError::io("locking failed", &name, error)),
        }
    }
}

/// How an epoch began.
#[derive(Debug, Default)]
pub(crate) struct EpochStart {
    /// The seals in its first batch; `None` when no SEAL can be read there.
    pub(crate) seals: Option<Vec<SealEntry>>,
    /// A batch can be read in its first segment, so that its owner got beyond sealing.
    pub(crate) is_used: bool,
}

/// Reads the first batch of an epoch, and what is left of it when it is damaged.
pub(crate) fn epoch_start(found: &Found, header: &SegmentHeader) -> Result<EpochStart, OpenError> {
    read_epoch_start(found.file.as_ref(), header).map_err(failed(found.number))
}

/// See [`epoch_start`].
pub(crate) fn read_epoch_start(
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> io::Result<EpochStart> {
    let place = BatchPlace {
        salt: header.identity.salt,
        epoch: header.epoch,
        segment: header.segment,
        offset: FIRST_BATCH_OFFSET,
    };
    let unit = u64::from(header.unit);
    let mut start = EpochStart::default();
    let mut take = |record: &Record<'_>| {
        if record.kind == Some(RecordKind::Seal) {
            let seals = decode_seals(record.body).unwrap_or_default();
            start.seals.get_or_insert_default().extend(seals);
        }
    };
    let mut reader = BatchReader::new(file, place, unit, u64::MAX);
    if let Ok(batch) = reader.next()? {
        Batch::records(&batch).for_each(|record| take(&record));
        start.is_used = true;
    } else if let Beyond::Batch { offset, first_lsn } = look_beyond(file, place, unit, u64::MAX)? {
        salvage(file, place, offset, 0..first_lsn, &mut take)?;
        start.is_used = true;
    }
    Ok(start)
}
