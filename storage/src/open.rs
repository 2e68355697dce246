//! Taking over a store: lock what the predecessor left, read what it wrote, seal it, begin.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use crate::checkpoint;
use crate::disk::{Disk, DiskFile, FileSystem, OpenMode, read_range};
use crate::error::OpenError;
use crate::format::batch::{Batch, BatchBuilder, BatchPlace, RecordKind};
use crate::format::footer::{TRAILER_BYTES, Trailer};
use crate::format::payload::{SealEntry, decode_seals, encode_seals};
use crate::format::segment::{
    HEADER_BYTES, LOCK_NAME, RESERVE_NAME, SegmentHeader, checkpoint_name, checkpoint_of,
    segment_name, segment_of, side_index_of,
};
use crate::format::{FIRST_BATCH_OFFSET, Identity, SECTOR_BYTES};
use crate::job::{create, publish, zero};
use crate::maintain::{Maintenance, Start};
use crate::options::{Progress, RecoveryReport, StoreOptions};
use crate::read::ReadCache;
use crate::replay::{Adoption, Replay, SegmentEnd};
use crate::rows::load;
use crate::scan::BatchReader;
use crate::state::{SegmentKind, SegmentState, State};
use crate::store::Store;
use crate::writer::{SegmentPlanner, Writer};

/// First segment of an epoch: small, so that taking over writes little.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
/// An ending process gives its segments back within this time after `LOCK`, in ms.
const RELEASE_WAIT_MS: u64 = 50;
/// How often a lost race for the next segment number is tried again.
const RACES_MAX: u32 = 16;
/// Longest deadline of the fence where it is not set, in ms.
const FENCE_DEADLINE_MS_MAX: u64 = 5000;

/// The right to open a store: its `LOCK` is held.
#[derive(Debug)]
pub struct Ownership {
    disk: Arc<dyn Disk>,
    lock: Arc<dyn DiskFile>,
}

/// The answer to [`try_acquire`].
#[derive(Debug)]
pub enum Acquire {
    /// `LOCK` is ours; opening may still find a living owner behind a segment's lock.
    Owned(Ownership),
    /// Somebody else holds it; the text names the holder as far as known.
    Busy(String),
}

/// Tries for the lock that queues the servers, without waiting.
///
/// `holder` is written into the file for people to read (host, process, time).
///
/// # Errors
/// [`OpenError::Io`] when the lock file cannot be made or locked.
pub fn try_acquire(disk: Arc<dyn Disk>, holder: &str) -> Result<Acquire, OpenError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| OpenError::Io {
            what,
            file: LOCK_NAME.to_owned(),
            source,
        }
    };
    let lock = disk
        .open(LOCK_NAME, OpenMode::CreateOrWrite)
        .map_err(failed("opening the lock failed"))?;
    if !lock
        .try_lock()
        .map_err(failed("locking failed; the file system must offer locks"))?
    {
        let text = read_range(lock.as_ref(), 0, 256).unwrap_or_default();
        let text = String::from_utf8_lossy(&text)
            .trim_end_matches(['\0', '\n'])
            .to_owned();
        return Ok(Acquire::Busy(if text.is_empty() {
            "unknown holder".to_owned()
        } else {
            text
        }));
    }
    // The name may have been given to another file while we waited for this one.
    let named = disk
        .open(LOCK_NAME, OpenMode::Read)
        .and_then(|named| named.identity());
    let ours = lock
        .identity()
        .map_err(failed("looking at the lock failed"))?;
    if named.map_err(failed("looking at the lock failed"))? != ours {
        return Ok(Acquire::Busy("the lock file was replaced".to_owned()));
    }
    let mut text = holder.as_bytes().to_vec();
    text.truncate(255);
    text.resize(256, b'\n');
    lock.write_at(0, &text)
        .map_err(failed("writing the lock failed"))?;
    Ok(Acquire::Owned(Ownership { disk, lock }))
}

/// A segment as found on disk.
#[derive(Debug)]
struct Found {
    number: u64,
    file: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
    trailer: Option<Trailer>,
}

/// What the directory holds and what of it is locked.
#[derive(Debug, Default)]
struct Survey {
    segments: Vec<u64>,
    checkpoints: Vec<u64>,
    side_indexes: BTreeSet<u64>,
    temporaries: Vec<String>,
    /// The segments that nobody has sealed for sure, in ascending order, locked.
    unsealed: Vec<Found>,
    identity: Option<(Identity, u32)>,
}

impl Store {
    /// Opens the store: recovers what the predecessor wrote and begins a new segment.
    ///
    /// The work is bounded by the log behind the last checkpoint, not by what waits in the queues.
    ///
    /// # Errors
    /// See [`OpenError`]; only [`OpenError::Busy`] is worth another try.
    pub fn open(
        ownership: Ownership,
        options: StoreOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let disk = Arc::clone(&ownership.disk);
        let (zeroed, lease_s) = guard(disk.as_ref(), &options)?;
        let started = disk.boot_ms();
        progress(Progress::Locking);
        let mut races = 0;
        let (survey, number, file) = loop {
            let survey = survey(disk.as_ref())?;
            let number = survey.segments.last().map_or(1, |last| last + 1);
            match begin_segment(disk.as_ref(), number, zeroed)? {
                Some(file) => break (survey, number, file),
                // A predecessor that still lives has rolled: look again, and meet its lock.
                None if races < RACES_MAX => races += 1,
                None => {
                    return Err(OpenError::Busy(
                        "another server makes new segments".to_owned(),
                    ));
                }
            }
        };
        let mut opening = Opening {
            disk,
            identity: survey
                .identity
                .map_or_else(|| new_identity(&options), |found| found.0),
            unit: survey
                .identity
                .map_or(SECTOR_BYTES, |found| u64::from(found.1)),
            report: RecoveryReport {
                epoch: number,
                ..RecoveryReport::default()
            },
        };
        opening.report.phases_us.locking_ms = opening.since(started);
        let (state, adoption, seals, tail_index) = opening.recover(&survey, progress)?;
        let sealing = opening.disk.boot_ms();
        progress(Progress::Sealing);
        let store = opening.begin(Beginning {
            survey,
            number,
            file,
            state,
            adoption,
            seals,
            tail_index,
            options,
            zeroed,
            lease_s,
            lock: ownership.lock,
        })?;
        opening.report.phases_us.sealing_ms = opening.since(sealing);
        let (messages, bytes) = store.state.totals();
        opening.report.messages = messages;
        opening.report.bytes = bytes;
        Ok((store, opening.report))
    }
}

fn new_identity(options: &StoreOptions) -> Identity {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&options.new_identity[..16]);
    Identity {
        uuid,
        salt: crate::format::get_u64(&options.new_identity, 16),
    }
}

/// Refuses file systems that cannot protect a shared store. Gives whether segments are zeroed
/// ahead, and the lease after which a lock can be lost.
fn guard(disk: &dyn Disk, options: &StoreOptions) -> Result<(bool, Option<u64>), OpenError> {
    match disk.file_system() {
        FileSystem::Local { .. } => Ok((true, None)),
        FileSystem::Nfs { lease_s } => Ok((false, Some(lease_s.unwrap_or(90)))),
        FileSystem::Unsafe(why) if !options.allow_unverified_locking => {
            Err(OpenError::UnsafeFileSystem(format!(
                "the file system of {} is not safe for a shared store: {why}",
                disk.describe()
            )))
        }
        FileSystem::Unknown(name) if !options.allow_unverified_locking => {
            Err(OpenError::UnsafeFileSystem(format!(
                "{} lies on a file system ({name}) whose locks the project has not verified: run \
                 `steadfast fscheck`, then set store_allow_unverified_locking = yes",
                disk.describe()
            )))
        }
        FileSystem::Unsafe(_) | FileSystem::Unknown(_) => Ok((false, Some(90))),
    }
}

/// Lists the directory and locks every segment that may still have a living writer.
fn survey(disk: &dyn Disk) -> Result<Survey, OpenError> {
    let names = disk
        .list()
        .map_err(|error| OpenError::io("listing failed", "the store", error))?;
    let mut survey = Survey::default();
    for entry in names {
        let name = entry.name;
        if let Some(segment) = segment_of(&name) {
            survey.segments.push(segment);
        } else if let Some(epoch) = checkpoint_of(&name) {
            survey.checkpoints.push(epoch);
        } else if let Some(segment) = side_index_of(&name) {
            survey.side_indexes.insert(segment);
        } else if name.ends_with(".tmp") {
            survey.temporaries.push(name);
        }
    }
    survey.segments.sort_unstable();
    survey.checkpoints.sort_unstable();
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
        let found = look_at(disk, number)?;
        if let Some(header) = &found.header {
            survey.identity = Some((header.identity, header.unit));
        }
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
            && let Some(seals) = seals_of(&found, header)?
        {
            named_by_seal = Some(seals.iter().map(|seal| seal.segment).collect());
        }
        survey.unsealed.push(found);
        if named_by_seal.as_ref().is_some_and(BTreeSet::is_empty) {
            break;
        }
    }
    survey.unsealed.reverse();
    if survey.identity.is_none() {
        survey.identity = identity_below(disk, &survey)?;
    }
    Ok(survey)
}

/// The identity when none of the unsealed segments has a header.
fn identity_below(disk: &dyn Disk, survey: &Survey) -> Result<Option<(Identity, u32)>, OpenError> {
    for number in survey.segments.iter().rev().copied() {
        if let Some(header) = look_at(disk, number)?.header {
            return Ok(Some((header.identity, header.unit)));
        }
    }
    Ok(None)
}

fn look_at(disk: &dyn Disk, number: u64) -> Result<Found, OpenError> {
    let name = segment_name(number);
    let failed = |source| OpenError::Io {
        what: "reading failed".to_owned(),
        file: name.clone(),
        source,
    };
    let file = disk.open(&name, OpenMode::Write).map_err(failed)?;
    let header = read_range(file.as_ref(), 0, HEADER_BYTES).map_err(failed)?;
    let header = SegmentHeader::decode(&header)
        .ok()
        .filter(|header| header.segment == number);
    let mut trailer = None;
    if let Some(header) = &header {
        let at = file
            .bytes()
            .map_err(failed)?
            .saturating_sub(TRAILER_BYTES as u64);
        let bytes = read_range(file.as_ref(), at, TRAILER_BYTES).map_err(failed)?;
        trailer = Trailer::decode(header.identity.salt, number, &bytes);
    }
    Ok(Found {
        number,
        file,
        header,
        trailer,
    })
}

fn lock_segment(disk: &dyn Disk, found: &Found) -> Result<(), OpenError> {
    let name = segment_name(found.number);
    let mut waited = 0;
    loop {
        match found.file.try_lock() {
            Ok(true) => return Ok(()),
            Ok(false) if waited < RELEASE_WAIT_MS => {
                disk.pause_ms(5);
                waited += 5;
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

/// The seals in the first batch of an epoch's first segment; `None` when there is no valid one.
fn seals_of(found: &Found, header: &SegmentHeader) -> Result<Option<Vec<SealEntry>>, OpenError> {
    let place = BatchPlace {
        salt: header.identity.salt,
        epoch: header.epoch,
        segment: found.number,
        offset: FIRST_BATCH_OFFSET,
    };
    let mut reader = BatchReader::new(found.file.as_ref(), place, u64::from(header.unit), u64::MAX);
    let batch = reader
        .next()
        .map_err(|error| OpenError::io("reading failed", &segment_name(found.number), error))?;
    let Ok(batch) = batch else { return Ok(None) };
    let mut seals = Vec::new();
    let mut any = false;
    for record in batch
        .records()
        .filter(|record| record.kind == Some(RecordKind::Seal))
    {
        any = true;
        seals.extend(decode_seals(record.body).unwrap_or_default());
    }
    Ok(any.then_some(seals))
}

/// Makes the new owner's first segment; `None` when the number was taken meanwhile.
fn begin_segment(
    disk: &dyn Disk,
    number: u64,
    zeroed: bool,
) -> Result<Option<Arc<dyn DiskFile>>, OpenError> {
    let attempt = || -> io::Result<Arc<dyn DiskFile>> {
        let file = create(disk, number)?;
        let bytes = if zeroed {
            FIRST_SEGMENT_BYTES
        } else {
            FIRST_BATCH_OFFSET
        };
        zero(file.as_ref(), 0, bytes)?;
        publish(disk, number)?;
        Ok(file)
    };
    let outcome = match attempt() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            // This is what the reserve was made for.
            let _ = disk.remove(RESERVE_NAME);
            attempt()
        }
        outcome => outcome,
    };
    match outcome {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(OpenError::io(
            "making a segment failed",
            &segment_name(number),
            error,
        )),
    }
}

struct Opening {
    disk: Arc<dyn Disk>,
    identity: Identity,
    unit: u64,
    report: RecoveryReport,
}

/// What `begin` needs.
struct Beginning {
    survey: Survey,
    number: u64,
    file: Arc<dyn DiskFile>,
    state: State,
    adoption: Adoption,
    seals: Vec<SealEntry>,
    tail_index: (u64, u64),
    options: StoreOptions,
    zeroed: bool,
    lease_s: Option<u64>,
    lock: Arc<dyn DiskFile>,
}

impl Opening {
    fn since(&self, start_ms: u64) -> u64 {
        self.disk.boot_ms().saturating_sub(start_ms)
    }

    /// Reads checkpoint and tail. Gives the state, what must be adopted, and the seals to write.
    #[allow(
        clippy::type_complexity,
        reason = "the parts of one result, taken apart at once"
    )]
    fn recover(
        &mut self,
        survey: &Survey,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(State, Adoption, Vec<SealEntry>, (u64, u64)), OpenError> {
        if survey.segments.is_empty() {
            let mut state = State::default();
            state.position.next_lsn = 1;
            return Ok((state, Adoption::default(), Vec::new(), (0, 0)));
        }
        let started = self.disk.boot_ms();
        progress(Progress::Checkpoint);
        let mut ends = self.ends_of(survey)?;
        let base = self.load_base(survey, &mut ends)?;
        self.report.phases_us.checkpoint_ms = self.since(started);
        let started = self.disk.boot_ms();
        let mut replay = Replay {
            disk: self.disk.as_ref(),
            salt: self.identity.salt,
            unit: self.unit,
            ends: &ends,
            report: &mut self.report,
        };
        let (state, adoption, seals) = replay.run(base, progress)?;
        self.report.phases_us.tail_ms = self.since(started);
        let tail_index = state.last_index;
        Ok((state, adoption, seals, tail_index))
    }

    /// How each segment ends, as far as its own trailer or a successor's SEAL tells.
    fn ends_of(&self, survey: &Survey) -> Result<BTreeMap<u64, SegmentEnd>, OpenError> {
        let mut ends = BTreeMap::new();
        for number in &survey.segments {
            ends.insert(*number, SegmentEnd::Known);
        }
        let mut seals: BTreeMap<u64, SealEntry> = BTreeMap::new();
        let oldest = survey.segments.first().copied();
        for found in &survey.unsealed {
            let Some(header) = &found.header else {
                ends.insert(found.number, SegmentEnd::Void);
                continue;
            };
            let mut end = SegmentEnd::Open;
            if header.epoch == found.number {
                match seals_of(found, header)? {
                    Some(list) => {
                        for seal in list {
                            seals.entry(seal.segment).or_insert(seal);
                        }
                    }
                    // The first segment of a store needs no SEAL; any other one without is void.
                    None if Some(found.number) == oldest => {}
                    None => end = SegmentEnd::Void,
                }
            }
            ends.insert(found.number, end);
        }
        for (number, seal) in seals {
            if let Some(end) = ends.get_mut(&number) {
                *end = if seal.valid_bytes == 0 {
                    SegmentEnd::Void
                } else {
                    SegmentEnd::At(seal)
                };
            }
        }
        Ok(ends)
    }

    /// The newest checkpoint that fits the log, else the newest snapshot in the log, else nothing.
    fn load_base(
        &mut self,
        survey: &Survey,
        ends: &mut BTreeMap<u64, SegmentEnd>,
    ) -> Result<State, OpenError> {
        let mut reasons = Vec::new();
        for epoch in survey.checkpoints.iter().rev() {
            let name = checkpoint_name(*epoch);
            let rows = checkpoint::load(self.disk.as_ref(), &name);
            match rows.and_then(|rows| load(rows).map_err(|reason| format!("{name}: {reason}"))) {
                Ok((state, meta)) => {
                    self.complete_ends(ends, meta.position.segment)?;
                    match self.check_checkpoint(&name, &state, &meta, ends) {
                        Ok(()) => return Ok(state),
                        Err(reason) => reasons.push(reason),
                    }
                }
                Err(reason) => reasons.push(reason),
            }
        }
        self.complete_ends(ends, 0)?;
        if reasons.is_empty() {
            reasons.push("there is no checkpoint yet".to_owned());
        }
        self.report.rebuilt = Some(reasons.join("; "));
        let mut replay = Replay {
            disk: self.disk.as_ref(),
            salt: self.identity.salt,
            unit: self.unit,
            ends,
            report: &mut self.report,
        };
        replay.base_from_log(self.identity)
    }

    /// Adds the ends of segments that were sealed by an older epoch than the last one: needed only
    /// as far back as the log is read.
    fn complete_ends(
        &self,
        ends: &mut BTreeMap<u64, SegmentEnd>,
        from: u64,
    ) -> Result<(), OpenError> {
        let numbers: Vec<u64> = ends.range(from..).map(|(number, _)| *number).collect();
        for number in numbers {
            let found = look_at(self.disk.as_ref(), number)?;
            let Some(header) = found.header.filter(|header| header.epoch == number) else {
                continue;
            };
            for seal in seals_of(&found, &header)?.unwrap_or_default() {
                // The first SEAL in the order of the log wins.
                if let Some(end) = ends.get_mut(&seal.segment)
                    && *end == SegmentEnd::Known
                {
                    let void = seal.valid_bytes == 0;
                    *end = if void {
                        SegmentEnd::Void
                    } else {
                        SegmentEnd::At(seal)
                    };
                }
            }
        }
        Ok(())
    }

    fn check_checkpoint(
        &self,
        name: &str,
        state: &State,
        meta: &crate::rows::Meta,
        ends: &BTreeMap<u64, SegmentEnd>,
    ) -> Result<(), String> {
        if meta.identity != self.identity {
            return Err(format!("{name}: it belongs to another store"));
        }
        let position = meta.position;
        match ends.get(&position.segment) {
            None => return Err(format!("{name}: segment {} is gone", position.segment)),
            Some(SegmentEnd::Void) => return Err(format!("{name}: its segment is void")),
            Some(SegmentEnd::At(seal)) if seal.valid_bytes < position.offset => {
                return Err(format!("{name}: it lies beyond the SEAL of its segment"));
            }
            Some(_) => {}
        }
        for (number, segment) in &state.segments {
            if segment.live > 0 && !ends.contains_key(number) {
                return Err(format!("{name}: {} is missing", segment_name(*number)));
            }
        }
        Ok(())
    }

    /// Writes the first batch of the new epoch and puts the store together.
    fn begin(&mut self, beginning: Beginning) -> Result<Store, OpenError> {
        let Beginning {
            survey,
            number,
            file,
            mut state,
            adoption,
            seals,
            ..
        } = beginning;
        let name = segment_name(number);
        let place = BatchPlace {
            salt: self.identity.salt,
            epoch: number,
            segment: number,
            offset: FIRST_BATCH_OFFSET,
        };
        let next_lsn = state.position.next_lsn;
        let mut builder = BatchBuilder::new(place, next_lsn, 0, Vec::new());
        builder.record(RecordKind::Seal, &encode_seals(&seals));
        self.report.adopted_records = adoption.append_to(&mut builder);
        let (bytes, crc) = builder.finish(
            self.unit,
            next_lsn.saturating_sub(1),
            state.position.chain_crc,
        );
        let plan = SegmentPlanner {
            epoch: number,
            segment_bytes_max: beginning.options.segment_bytes.max(FIRST_SEGMENT_BYTES),
            first_bytes: FIRST_SEGMENT_BYTES,
            is_full: false,
        };
        let header = SegmentHeader {
            identity: self.identity,
            segment: number,
            epoch: number,
            base_lsn: next_lsn,
            capacity: plan.capacity(number),
            unit: u32::try_from(self.unit).unwrap_or(512),
        };
        let started = self.disk.boot_ms();
        let write = || -> io::Result<()> {
            file.write_at(0, &header.encode())?;
            file.write_at(FIRST_BATCH_OFFSET, &bytes)?;
            file.sync()
        };
        write().map_err(|error| OpenError::io("sealing the predecessor failed", &name, error))?;
        let to_index = index_later(&state, &survey, beginning.tail_index);
        let batch = Batch::parse(place, self.unit, &bytes)
            .map_err(|fault| OpenError::Damaged(format!("the batch just made: {fault:?}")))?;
        // A SEAL makes its segments known even if they held nothing since the checkpoint.
        state
            .segments
            .insert(number, SegmentState::new(number, next_lsn));
        state.apply_batch(&batch);
        let mut index = crate::index::SegmentIndex::default();
        index.add(&batch);
        let position = state.position;
        let open = BatchPlace {
            offset: position.offset,
            ..place
        };
        let writer = Writer::new(
            open,
            self.unit,
            position.next_lsn,
            position.next_ordinal,
            crc,
        );
        let mut leftovers = survey.temporaries;
        leftovers.extend(
            survey
                .checkpoints
                .iter()
                .map(|epoch| checkpoint_name(*epoch)),
        );
        let void = seals.iter().filter(|seal| seal.valid_bytes == 0);
        leftovers.extend(void.map(|seal| segment_name(seal.segment)));
        let options = beginning.options;
        let local = beginning.zeroed;
        let checkpoint_bytes =
            options
                .checkpoint_bytes
                .unwrap_or(if local { 8 << 20 } else { 4 << 20 });
        let maintenance = Maintenance::new(Start {
            plan,
            zeroed: beginning.zeroed,
            segment: number,
            file,
            checkpoint_name: checkpoint_name(number),
            checkpoint_bytes,
            interval_ms: options.checkpoint_interval_ms,
            free_bytes_min: options.free_bytes_min,
            to_index,
            leftovers,
            tail_bytes: self.report.tail_bytes,
            now_ms: started,
        });
        let cache = ReadCache::new(Arc::clone(&self.disk), self.identity.salt, self.unit);
        let held = survey
            .unsealed
            .into_iter()
            .map(|found| (found.number, found.file))
            .collect();
        Ok(Store {
            disk: Arc::clone(&self.disk),
            identity: self.identity,
            unit: self.unit,
            epoch: number,
            state,
            writer,
            maintenance,
            indexes: BTreeMap::from([(number, index)]),
            side_indexes: survey.side_indexes,
            cache: Arc::new(cache),
            settled_early: HashSet::new(),
            fatal: None,
            durable_at_ms: started,
            now_ms: started,
            fence_deadline_ms: deadline(&options, beginning.lease_s),
            options,
            lock: Some(beginning.lock),
            held,
        })
    }
}

/// Below half of the lease, so that a lost lock is noticed before somebody else can have it.
fn deadline(options: &StoreOptions, lease_s: Option<u64>) -> Option<u64> {
    let lease_ms =
        lease_s.map(|seconds| (seconds * 1000 * 2 / 5).clamp(500, FENCE_DEADLINE_MS_MAX));
    match options.fence_deadline_ms {
        Some(0) => None,
        Some(set) => Some(set),
        None => lease_ms,
    }
}

/// The segments of dead owners that still need an index beside them.
fn index_later(state: &State, survey: &Survey, tail_index: (u64, u64)) -> Vec<(u64, Option<u64>)> {
    let needs = |(number, segment): (&u64, &SegmentState)| {
        let open = segment.kind != SegmentKind::Footer && !survey.side_indexes.contains(number);
        let last = (tail_index.0 == *number && tail_index.1 != 0).then_some(tail_index.1);
        (open && segment.live > 0).then_some((*number, last))
    };
    state.segments.iter().filter_map(needs).collect()
}
