//! Taking over a store: lock what the predecessor left, read what it wrote, seal it, begin.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use crate::checkpoint;
use crate::disk::{Disk, DiskFile, FileSystem, OpenMode, read_range};
use crate::error::{OpenError, is_no_space};
use crate::format::batch::{Batch, BatchBuilder, BatchPlace, RecordKind};
use crate::format::payload::{SealEntry, encode_seals};
use crate::format::segment::{
    LOCK_NAME, SegmentHeader, checkpoint_name, data_name, segment_name, segment_of, side_index_name,
};
use crate::format::{FIRST_BATCH_OFFSET, Identity, SECTOR_BYTES};
use crate::job::{create, publish, with_reserve, write_zeros};
use crate::maintain::{Maintenance, Start};
use crate::options::{Progress, RecoveryReport, StoreOptions, WarmUse};
use crate::outline::Outlines;
use crate::pairs::{Pair, pairs};
use crate::read::ReadCache;
use crate::repair::{Losses, NumberMin};
use crate::replay::{Recovered, Replay};
use crate::rows::Meta;
use crate::setaside::{RawRange, SetAside};
use crate::state::{SegmentKind, SegmentState, State};
use crate::store::Store;
use crate::survey::{SEGMENT_BYTES_MIN, Survey, survey};
use crate::warm::{Kept, Warm};
use crate::writer::{SegmentPlanner, Writer};

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

impl Ownership {
    /// The same right, the directory seen in another way.
    pub(crate) fn through(self, disk: Arc<dyn Disk>) -> Self {
        Self { disk, ..self }
    }
}

/// What helps to open a store that plain opening has not.
#[derive(Debug, Default)]
pub(crate) struct Means {
    /// What a standby has kept.
    pub(crate) warm: Option<Warm>,
    /// Something may be missing; no file below this number is made.
    pub(crate) repair: Option<NumberMin>,
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
/// `holder` is written into the file for people to read (host, process, time), unless it is empty.
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
            .trim_end_matches(['\0', '\n', ' '])
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
    if !holder.is_empty() {
        let mut text = holder.as_bytes().to_vec();
        text.truncate(255);
        text.resize(255, b' ');
        text.push(b'\n');
        // For people to read; a full disk must not keep a server from taking over.
        let _ = lock.write_at(0, &text);
    }
    Ok(Acquire::Owned(Ownership { disk, lock }))
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
        Self::open_with(ownership, options, Means::default(), progress)
    }

    /// Opens the store like [`Store::open`]. What a standby has kept of the log is used after it was
    /// checked: then only what is new has to be read. The report says whether.
    ///
    /// # Errors
    /// As of [`Store::open`]; what was kept is never a reason for one.
    pub fn open_warm(
        ownership: Ownership,
        options: StoreOptions,
        warm: Option<Warm>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let means = Means { warm, repair: None };
        Self::open_with(ownership, options, means, progress)
    }

    /// As [`Store::open`], with further means.
    pub(crate) fn open_with(
        ownership: Ownership,
        options: StoreOptions,
        Means { warm, repair }: Means,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let disk = Arc::clone(&ownership.disk);
        let (zeroed, lease_s) = guard(disk.as_ref(), &options)?;
        let first_bytes = options.first_segment_bytes.max(SEGMENT_BYTES_MIN);
        let started = disk.boot_ms();
        progress(Progress::Locking);
        let mut races = 0;
        let (survey, number, file) = loop {
            let survey = survey(disk.as_ref())?;
            let number = survey.segments.last().map_or(1, |last| last + 1);
            let number = repair.map_or(number, |least| number.max(least.0));
            match begin_segment(disk.as_ref(), number, zeroed.then_some(first_bytes))? {
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
        let mut opening = Opening::new(disk, &survey, &options);
        opening.losses = repair.map(|_| Losses::default());
        opening.report.epoch = number;
        opening.report.phases_us.locking_ms = opening.since(started);
        let recovered = match opening.recover(&survey, warm, progress) {
            Ok(recovered) => recovered,
            Err(error) => {
                // Nothing was changed: not even an empty segment is left behind.
                let _ = opening.disk.remove(&segment_name(number));
                drop(file);
                return Err(error);
            }
        };
        let sealing = opening.disk.boot_ms();
        progress(Progress::Sealing);
        let lock = Arc::clone(&ownership.lock);
        let begun = opening.begin(Beginning {
            survey,
            number,
            file: Arc::clone(&file),
            recovered,
            options,
            zeroed,
            lease_s,
            lock: ownership.lock,
        });
        let store = begun.inspect_err(|error| {
            // Whatever it holds was confirmed to nobody, and nobody else may look before it is gone.
            // After another error somebody else may have it already: it is left to the next owner.
            if matches!(error, OpenError::Io { source, .. } if is_no_space(source)) {
                let _ = opening.disk.remove(&segment_name(number));
            }
        })?;
        drop((lock, file));
        opening.report.phases_us.sealing_ms = opening.since(sealing);
        let (messages, bytes) = store.state.totals();
        opening.report.messages = messages;
        opening.report.bytes = bytes;
        Ok((store, opening.report))
    }
}

pub(crate) fn new_identity(options: &StoreOptions) -> Identity {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&options.new_identity[..16]);
    Identity {
        uuid,
        salt: crate::format::get_u64(&options.new_identity, 16),
    }
}

/// Refuses file systems that cannot protect a shared store. Gives whether segments are zeroed
/// ahead, and the lease after which a lock can be lost.
pub(crate) fn guard(
    disk: &dyn Disk,
    options: &StoreOptions,
) -> Result<(bool, Option<u64>), OpenError> {
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

/// Makes the new owner's first segment; `None` when the number was taken meanwhile.
fn begin_segment(
    disk: &dyn Disk,
    number: u64,
    zeroed_bytes: Option<u64>,
) -> Result<Option<Arc<dyn DiskFile>>, OpenError> {
    // The predecessor may have left one of its own that is large, and removing that takes long.
    let temporary = format!("{}.first.tmp", segment_name(number));
    let attempt = || -> io::Result<Arc<dyn DiskFile>> {
        let file = create(disk, &temporary)?;
        // Nothing is confirmed before the first batch, and its sync covers the zeros too.
        write_zeros(file.as_ref(), 0, zeroed_bytes.unwrap_or(FIRST_BATCH_OFFSET))?;
        publish(disk, &temporary, number, file.as_ref())?;
        Ok(file)
    };
    let (outcome, _) = with_reserve(disk, attempt);
    if outcome.is_err() {
        let _ = disk.remove(&temporary);
    }
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

fn load_checkpoint(disk: &dyn Disk, epoch: u64) -> Result<(State, Meta), String> {
    let name = checkpoint_name(epoch);
    checkpoint::load(disk, &name)
}

/// A store on its way from the files to [`Store`].
pub(crate) struct Opening {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) identity: Identity,
    pub(crate) unit: u64,
    pub(crate) report: RecoveryReport,
    /// A repair: what is missing is noted here, and no reason to refuse.
    pub(crate) losses: Option<Losses>,
    /// All records below this one were durable, as checkpoints say that do not fit the log.
    proven_lsn: u64,
}

/// What `begin` needs.
struct Beginning {
    survey: Survey,
    number: u64,
    file: Arc<dyn DiskFile>,
    recovered: Recovered,
    options: StoreOptions,
    zeroed: bool,
    lease_s: Option<u64>,
    lock: Arc<dyn DiskFile>,
}

impl Opening {
    pub(crate) fn new(disk: Arc<dyn Disk>, survey: &Survey, options: &StoreOptions) -> Self {
        let known = survey.identity;
        Self {
            disk,
            identity: known.map_or_else(|| new_identity(options), |found| found.0),
            unit: known.map_or(SECTOR_BYTES, |found| u64::from(found.1)),
            report: RecoveryReport::default(),
            losses: None,
            proven_lsn: 0,
        }
    }

    fn since(&self, start_ms: u64) -> u64 {
        self.disk.boot_ms().saturating_sub(start_ms)
    }

    /// Reads checkpoint and tail.
    pub(crate) fn recover(
        &mut self,
        survey: &Survey,
        warm: Option<Warm>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovered, OpenError> {
        if survey.segments.is_empty() {
            let mut state = State::default();
            state.position.next_lsn = 1;
            return Ok(Recovered {
                state,
                ..Recovered::default()
            });
        }
        let started = self.disk.boot_ms();
        progress(Progress::Checkpoint);
        let mut outlines = Outlines::of(survey)?;
        let base = match warm.map(|warm| self.warm_base(warm, &mut outlines)) {
            Some(Ok(state)) => {
                self.report.warm = WarmUse::Used;
                state
            }
            refused => {
                if let Some(Err(why)) = refused {
                    self.report.warm = WarmUse::Refused(why);
                }
                match self.load_base(survey, &mut outlines, progress) {
                    Err(OpenError::Damaged(why)) if self.losses.is_some() => {
                        self.base_of_what_is_left(survey, &mut outlines, why)?
                    }
                    base => base?,
                }
            }
        };
        let base = self.without_what_is_missing(base, &outlines);
        self.report.phases_us.checkpoint_ms = self.since(started);
        let started = self.disk.boot_ms();
        let mut recovered = self.replay(&outlines).run(base, progress)?;
        if let Err(why) = self.reaches_checkpoints(&recovered.state) {
            if self.losses.is_none() {
                return Err(OpenError::Damaged(why));
            }
            (self.report.damaged, self.report.torn) = (Vec::new(), None);
            let base = self.base_of_what_is_left(survey, &mut outlines, why)?;
            let base = self.without_what_is_missing(base, &outlines);
            recovered = self.replay(&outlines).run(base, progress)?;
        }
        self.count_again(survey, &mut recovered.state)?;
        self.report.phases_us.tail_ms = self.since(started);
        Ok(recovered)
    }

    fn replay<'a>(&'a mut self, outlines: &'a Outlines) -> Replay<'a> {
        Replay {
            disk: self.disk.as_ref(),
            salt: self.identity.salt,
            unit: self.unit,
            outlines,
            report: &mut self.report,
        }
    }

    /// The newest checkpoint that fits the log, else the newest snapshot in the log, else nothing.
    fn load_base(
        &mut self,
        survey: &Survey,
        outlines: &mut Outlines,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<State, OpenError> {
        let store = (self.identity, u32::try_from(self.unit).unwrap_or(512));
        let mut reasons = Vec::new();
        let mut second_best = None;
        for epoch in survey.checkpoints.iter().rev() {
            let name = checkpoint_name(*epoch);
            let (state, meta) = match load_checkpoint(self.disk.as_ref(), *epoch) {
                Ok(loaded) => loaded,
                Err(reason) => {
                    reasons.push(reason);
                    continue;
                }
            };
            let mut completed = outlines.clone();
            completed.complete(self.disk.as_ref(), meta.position.segment)?;
            completed.remember(self.disk.as_ref(), &state, store)?;
            if let Err(reason) = self.check_checkpoint(&state, &meta, &completed) {
                if meta.identity == self.identity {
                    self.proven_lsn = self.proven_lsn.max(meta.position.next_lsn);
                }
                reasons.push(format!("{name}: {reason}"));
            } else if let Err(reason) = completed.check_whole(meta.position.segment) {
                // A segment that a later checkpoint did not need any more is no loss: a snapshot
                // behind the gap is the better base.
                reasons.push(format!("{name}: {reason}"));
                second_best.get_or_insert((state, completed));
            } else {
                *outlines = completed;
                return Ok(state);
            }
        }
        outlines.complete(self.disk.as_ref(), 0)?;
        if reasons.is_empty() {
            reasons.push("there is no checkpoint yet".to_owned());
        }
        self.report.rebuilt = Some(reasons.join("; "));
        let identity = self.identity;
        let base = match (
            self.replay(outlines).base_from_log(identity, progress),
            second_best,
        ) {
            (Err(OpenError::Damaged(_)), Some((state, completed))) => {
                *outlines = completed;
                return Ok(state);
            }
            (base, _) => base?,
        };
        outlines.remember(self.disk.as_ref(), &base, store)?;
        Ok(base)
    }

    /// What a standby has kept, if the log is what it was then: everything is looked at again, now that
    /// nobody else can write. The text says what does not fit.
    fn warm_base(&self, warm: Warm, outlines: &mut Outlines) -> Result<State, String> {
        let text = |error: OpenError| error.to_string();
        let Kept { state, last } = warm.kept()?;
        let unit = u32::try_from(self.unit).unwrap_or(512);
        let position = state.position;
        last.check(self.disk.as_ref(), self.unit)?;
        let mut completed = outlines.clone();
        completed
            .complete(self.disk.as_ref(), position.segment)
            .map_err(text)?;
        completed
            .remember(self.disk.as_ref(), &state, (self.identity, unit))
            .map_err(text)?;
        let meta = Meta::of(&state, self.identity, unit);
        self.check_checkpoint(&state, &meta, &completed)?;
        completed.check_whole(position.segment)?;
        let seal = completed.get(position.segment).and_then(|it| it.end.seal());
        if let Some(seal) = seal.filter(|seal| seal.valid_bytes == position.offset)
            && (seal.chain_crc, seal.last_lsn + 1) != (position.chain_crc, position.next_lsn)
        {
            return Err("its segment ends with another batch".to_owned());
        }
        *outlines = completed;
        Ok(state)
    }

    /// A checkpoint names only what was durable. Where the log ends before that, its end is gone.
    fn reaches_checkpoints(&self, state: &State) -> Result<(), String> {
        let (proven, found) = (self.proven_lsn, state.position.next_lsn);
        if found >= proven {
            return Ok(());
        }
        let rebuilt = self.report.rebuilt.as_deref().unwrap_or_default();
        Err(format!(
            "the log ends before record {found}, and a checkpoint proves that there were records up to {}: {rebuilt}",
            proven - 1
        ))
    }

    fn check_checkpoint(
        &self,
        state: &State,
        meta: &Meta,
        outlines: &Outlines,
    ) -> Result<(), String> {
        if meta.identity != self.identity {
            return Err("it belongs to another store".to_owned());
        }
        let position = meta.position;
        match outlines.get(position.segment) {
            None => return Err(format!("segment {} is gone", position.segment)),
            Some(outline) if outline.used().is_none() => {
                return Err("its segment is void".to_owned());
            }
            Some(outline) => {
                let seal = outline.end.seal();
                if seal.is_some_and(|seal| seal.valid_bytes < position.offset) {
                    return Err("it lies beyond the end of its segment".to_owned());
                }
            }
        }
        for (number, segment) in &state.segments {
            if segment.live > 0 && outlines.get(*number).is_none() {
                return Err(format!("{} is missing", segment_name(*number)));
            }
        }
        Ok(())
    }

    /// The compacted files that are used, and the segments of which there are other files too: those are no
    /// leftovers yet.
    fn take_compacts(
        &self,
        survey: &mut Survey,
        state: &State,
    ) -> (BTreeMap<u64, u64>, BTreeMap<u64, Pair>) {
        let mut compacts = survey.compacted();
        compacts.retain(|segment, _| state.segments.contains_key(segment));
        let pairs = match self.losses {
            None => pairs(survey, state),
            // A repair has read all files.
            Some(_) => BTreeMap::new(),
        };
        survey.compacts.retain(|it, _| !pairs.contains_key(it));
        (compacts, pairs)
    }

    /// Writes the first batch of the new epoch and puts the store together.
    fn begin(&mut self, beginning: Beginning) -> Result<Store, OpenError> {
        let Beginning {
            mut survey,
            number,
            file,
            recovered,
            ..
        } = beginning;
        let Recovered {
            mut state,
            adoption,
            seals,
        } = recovered;
        let tail_index = state.last_index;
        let name = segment_name(number);
        let place = BatchPlace {
            salt: self.identity.salt,
            epoch: number,
            segment: number,
            offset: FIRST_BATCH_OFFSET,
        };
        let next_lsn = state.position.next_lsn;
        let base_segment = state.position.segment;
        let mut builder = BatchBuilder::new(place, next_lsn, 0, Vec::new());
        builder.record(RecordKind::Seal, &encode_seals(&seals));
        self.report.adopted_records = adoption.append_to(&mut builder);
        let (bytes, crc) = builder.finish(
            self.unit,
            next_lsn.saturating_sub(1),
            state.position.chain_crc,
        );
        let first_bytes = beginning.options.first_segment_bytes;
        let first_bytes = first_bytes.max(SEGMENT_BYTES_MIN);
        let plan = SegmentPlanner {
            epoch: number,
            segment_bytes_max: beginning.options.segment_bytes.max(first_bytes),
            first_bytes,
            small: BTreeSet::new(),
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
            file.sync().and_then(|()| self.disk.sync_dir())
        };
        let (written, _) = with_reserve(self.disk.as_ref(), write);
        written.map_err(|error| OpenError::io("sealing the predecessor failed", &name, error))?;
        let to_index = index_later(&state, &survey, tail_index);
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
        let (compacts, pairs) = self.take_compacts(&mut survey, &state);
        let leftovers = leftovers(&survey, &state, base_segment, &seals);
        let options = beginning.options;
        let local = beginning.zeroed;
        let checkpoint_bytes =
            options
                .checkpoint_bytes
                .unwrap_or(if local { 12 << 20 } else { 4 << 20 });
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
        let mut cache = ReadCache::new(Arc::clone(&self.disk), self.identity.salt, self.unit);
        cache.pairs = pairs;
        let held = survey.unsealed.into_iter();
        let held = held.map(|found| (found.number, found.file)).collect();
        Ok(Store {
            disk: Arc::clone(&self.disk),
            identity: self.identity,
            unit: self.unit,
            epoch: number,
            state,
            writer,
            maintenance,
            set_aside: SetAside::new(raw_ranges(&self.report)),
            indexes: BTreeMap::from([(number, index)]),
            compacts,
            unchecked: cache.pairs.keys().copied().collect(),
            damaged_copies: 0,
            looked_at: BTreeMap::new(),
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

/// The damaged parts of the log whose bytes are kept for people.
fn raw_ranges(report: &RecoveryReport) -> Vec<RawRange> {
    let damaged = report.damaged.iter().filter(|range| range.bytes > 0);
    let raw = damaged.filter_map(|range| {
        Some(RawRange {
            segment: segment_of(&range.file)?,
            generation: 0,
            offset: range.offset,
            bytes: Some(range.bytes),
        })
    });
    raw.collect()
}

/// The files of earlier owners that nobody needs once this owner has a checkpoint.
fn leftovers(survey: &Survey, state: &State, below: u64, seals: &[SealEntry]) -> Vec<String> {
    // Forgotten in a checkpoint, and not removed any more.
    let is_forgotten = |number: &&u64| **number < below && !state.segments.contains_key(number);
    let forgotten = survey.segments.iter().filter(is_forgotten);
    let has_no_segment = |number: &&u64| survey.segments.binary_search(number).is_err();
    let orphans = survey.side_indexes.iter();
    let orphans = orphans.filter(|number| is_forgotten(number) || has_no_segment(number));
    let void = seals.iter().filter(|seal| seal.valid_bytes == 0);
    let mut names = survey.temporaries.clone();
    names.extend(forgotten.map(|number| segment_name(*number)));
    names.extend(orphans.map(|number| side_index_name(*number)));
    names.extend(
        survey
            .checkpoints
            .iter()
            .map(|epoch| checkpoint_name(*epoch)),
    );
    names.extend(void.map(|seal| segment_name(seal.segment)));
    let used = survey.compacted();
    for (segment, generations) in &survey.compacts {
        let used = used
            .get(segment)
            .filter(|_| state.segments.contains_key(segment));
        let unused = generations.iter().filter(|it| Some(*it) != used);
        names.extend(unused.map(|generation| data_name(*segment, *generation)));
        // The log may still need it, as far as this owner knows.
        if used.is_some() && *segment < state.snapshot_base.min(below) {
            names.extend([segment_name(*segment), side_index_name(*segment)]);
        }
    }
    names
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
        let is_indexed =
            survey.side_indexes.contains(number) || survey.compacts.contains_key(number);
        let open = segment.kind != SegmentKind::Footer && !is_indexed;
        let last = (tail_index.0 == *number && tail_index.1 != 0).then_some(tail_index.1);
        (open && segment.live > 0).then_some((*number, last))
    };
    state.segments.iter().filter_map(needs).collect()
}
