//! What a standby keeps of a living owner's log, so that a takeover reads only what is new.
//!
//! A follower reads, holds no lock and changes nothing. It starts from a snapshot in the log, never
//! from the owner's checkpoint file, and applies a batch only when a later batch says that it was
//! durable: what was seen before that may be lost, cut off by a successor, or numbered anew. Whoever
//! takes over holds the locks when it looks again for the last batch applied. That batch's checksum
//! covers its predecessor's, and so on: if it is still there, the log below is what was read.
//!
//! Only a log without a flaw is followed. At anything odd the follower forgets what it has and begins
//! again behind the next snapshot; without it a takeover is what it would be without a follower.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode, read_range};
use crate::error::OpenError;
use crate::format::batch::{Batch, BatchClaim, BatchPlace, RecordKind};
use crate::format::payload::{SealEntry, SnapshotPart, decode_seals};
use crate::format::segment::{HEADER_BYTES, SegmentHeader, segment_name};
use crate::format::{FIRST_BATCH_OFFSET, Identity};
use crate::replay::{SnapshotParts, newest_complete};
use crate::rows::segment_kinds;
use crate::scan::BatchReader;
use crate::state::{SegmentKind, SegmentState, State};
use crate::survey::{PREPARED_BYTES, Survey, listing};

/// Log that one poll reads at most, but for a single batch that is longer: whoever polls has to be
/// ready for a lock at any time.
const POLL_BYTES: u64 = 4 << 20;
/// Batches that no later batch has proven durable. An owner has one on its way.
const PENDING_MAX: usize = 16;
/// So many polls in a row may find that the log goes on where it does not join what was read: the owner
/// may have written to both ends in between.
const STUCK_MAX: u32 = 8;
/// So many polls in a row may leave something unread before a checkpoint is the shorter way.
const BEHIND_MAX: u32 = 4;
/// A follower that lost the log looks again after so many polls, or when there is a new segment.
const REST_POLLS: u32 = 300;

/// A follower of a store that belongs to somebody else.
#[derive(Clone, Debug, Default)]
pub struct Warm {
    work: Work,
    /// Polls in a row that did not come to the end of the log.
    behind: u32,
    restarts: u64,
    lost: Option<String>,
    /// No polls until then: so many, or until a segment above this one.
    rest: Option<(u32, u64)>,
}

/// What a follower has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WarmStatus {
    /// A base was found and the log behind it is followed.
    pub is_following: bool,
    /// The last poll came to the end of the log.
    pub is_current: bool,
    /// Segment up to which the log was applied; 0 while there is no base.
    pub segment: u64,
    /// Offset in it.
    pub offset: u64,
    /// Number of the last record that was applied.
    pub applied_lsn: u64,
    /// Number of the last record that was read.
    pub read_lsn: u64,
    /// How often it began again.
    pub restarts: u64,
    /// Why it began again the last time.
    pub lost: Option<String>,
}

#[derive(Clone, Debug)]
enum Work {
    Searching(Search),
    Following(Box<Follower>),
}

impl Default for Work {
    fn default() -> Self {
        Self::Searching(Search::default())
    }
}

/// Why a follower cannot go on.
enum Trouble {
    /// The disk says so; the next poll may be luckier.
    Io(io::Error),
    /// The owner has removed what was to be read: the log went on without the follower.
    Gone,
    /// What is there does not fit.
    Odd(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

impl Warm {
    /// Reads what is new, but no more than 4 MiB. `true` when there is more to read now.
    ///
    /// # Errors
    /// What the operating system says. Nothing is forgotten then.
    pub fn poll(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        let survey = match listing(disk) {
            Ok(survey) => survey,
            Err(OpenError::Io { source, .. }) => return Err(source),
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        let newest = survey.segments.last().copied().unwrap_or(0);
        if let Some((polls, above)) = &mut self.rest {
            *polls = polls.saturating_sub(1);
            if *polls > 0 && newest <= *above {
                return Ok(false);
            }
            self.rest = None;
        }
        if newest == 0 {
            return Ok(false);
        }
        let done = match &mut self.work {
            Work::Searching(search) => search.step(disk, &survey).map(|found| {
                if let Some(follower) = found {
                    self.work = Work::Following(Box::new(follower));
                }
                true
            }),
            Work::Following(follower) => follower.step(disk, &survey),
        };
        self.behind = match &done {
            Ok(false) => 0,
            _ => self.behind.saturating_add(1),
        };
        match done {
            Ok(is_more) => Ok(is_more),
            Err(Trouble::Io(error)) => Err(error),
            Err(Trouble::Gone) => Ok(self.restart("its segment was removed".to_owned(), None)),
            Err(Trouble::Odd(why)) => Ok(self.restart(why, Some((REST_POLLS, newest)))),
        }
    }

    /// Forgets everything; gives whether there is more to read now.
    fn restart(&mut self, why: String, rest: Option<(u32, u64)>) -> bool {
        *self = Self {
            restarts: self.restarts + 1,
            lost: Some(why),
            rest,
            ..Self::default()
        };
        rest.is_none()
    }

    /// What it has.
    #[must_use]
    pub fn status(&self) -> WarmStatus {
        let status = WarmStatus {
            restarts: self.restarts,
            lost: self.lost.clone(),
            ..WarmStatus::default()
        };
        match &self.work {
            Work::Searching(_) => status,
            Work::Following(follower) => {
                let position = follower.state.position;
                WarmStatus {
                    is_following: true,
                    is_current: self.behind == 0,
                    segment: position.segment,
                    offset: position.offset,
                    applied_lsn: position.next_lsn.saturating_sub(1),
                    read_lsn: follower.expected_lsn.saturating_sub(1),
                    ..status
                }
            }
        }
    }

    /// What a new owner may check and use; the text says why there is nothing.
    pub(crate) fn kept(self) -> Result<Kept, String> {
        let Work::Following(follower) = self.work else {
            return Err(match self.lost {
                Some(why) => format!("the log could not be followed: {why}"),
                None => "no snapshot had been found yet".to_owned(),
            });
        };
        if self.behind > BEHIND_MAX {
            return Err("it had not caught up with the log".to_owned());
        }
        match follower.last {
            Some(last) => Ok(Kept {
                state: follower.state,
                last,
            }),
            None => Err("nothing of the log had been applied yet".to_owned()),
        }
    }
}

/// What a follower leaves to a new owner.
pub(crate) struct Kept {
    pub(crate) state: State,
    pub(crate) last: Mark,
}

/// A batch by which a log is known again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    place: BatchPlace,
    crc: u32,
}

impl Mark {
    /// Whether the batch is there, by a fresh read. The text says what is there instead.
    pub(crate) fn check(&self, disk: &dyn Disk, unit: u64) -> Result<(), String> {
        let name = segment_name(self.place.segment);
        let file = disk
            .open(&name, OpenMode::Read)
            .map_err(|error| format!("{name}: {error}"))?;
        let mut reader = BatchReader::new(file.as_ref(), self.place, unit, u64::MAX);
        match reader.next() {
            Ok(Ok(batch)) if batch.crc == self.crc => Ok(()),
            Ok(_) => Err(format!(
                "{name} holds another batch at {}",
                self.place.offset
            )),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }
}

/// A segment of the store that its owner has begun to use.
struct Used {
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
}

impl Used {
    /// `None` when its header is not written, or is not of this store.
    fn open(
        disk: &dyn Disk,
        number: u64,
        identity: Option<Identity>,
    ) -> Result<Option<Self>, Trouble> {
        let file = disk.open(&segment_name(number), OpenMode::Read)?;
        let bytes = read_range(file.as_ref(), 0, HEADER_BYTES)?;
        let header = SegmentHeader::decode(&bytes).ok().filter(|header| {
            header.segment == number && identity.is_none_or(|it| it == header.identity)
        });
        Ok(header.map(|header| Self { file, header }))
    }

    fn place(&self) -> BatchPlace {
        BatchPlace {
            salt: self.header.identity.salt,
            epoch: self.header.epoch,
            segment: self.header.segment,
            offset: FIRST_BATCH_OFFSET,
        }
    }
}

/// Looking for a base: through the segments from the newest one down, each from its beginning.
#[derive(Clone, Debug, Default)]
struct Search {
    /// Where it reads.
    reading: Option<(SegmentHeader, BatchPlace)>,
    /// The segments from this one on were read.
    below: Option<u64>,
    parts: SnapshotParts,
}

impl Search {
    fn step(&mut self, disk: &dyn Disk, survey: &Survey) -> Result<Option<Follower>, Trouble> {
        let (used, place) = match self.reading {
            Some((header, place)) => {
                let used = Used::open(disk, header.segment, Some(header.identity))?;
                let used = used.ok_or_else(|| Trouble::Odd("a segment was replaced".to_owned()))?;
                (used, place)
            }
            None => {
                let below = self.below.unwrap_or(u64::MAX);
                let next = survey.segments.iter().rev().find(|it| **it < below);
                let number = *next.ok_or_else(|| {
                    Trouble::Odd("there is no complete snapshot in the log yet".to_owned())
                })?;
                self.below = Some(number);
                let Some(used) = Used::open(disk, number, None)? else {
                    return Ok(None);
                };
                let place = used.place();
                (used, place)
            }
        };
        let header = used.header;
        let unit = u64::from(header.unit);
        let mut reader = BatchReader::new(used.file.as_ref(), place, unit, u64::MAX);
        while reader.offset() < place.offset + POLL_BYTES {
            let Ok(batch) = reader.next()? else {
                self.reading = None;
                let is_first = survey.segments.first() == Some(&header.segment);
                let is_beginning = is_first && (header.base_lsn == 1 || header.segment == 1);
                return Ok(is_beginning.then(|| Follower::from_beginning(header)));
            };
            if let Some(state) = self.take(&batch, header.identity) {
                return Follower::from_snapshot(disk, state, header.identity).map(Some);
            }
        }
        self.reading = Some((
            header,
            BatchPlace {
                offset: reader.offset(),
                ..place
            },
        ));
        Ok(None)
    }

    /// Collects the parts of snapshots in a batch; gives the state when one is complete.
    fn take(&mut self, batch: &Batch<'_>, identity: Identity) -> Option<State> {
        for record in batch.records() {
            if record.kind == Some(RecordKind::Snapshot)
                && let Some(part) = SnapshotPart::decode(record.body)
            {
                let key = (part.as_of_segment, part.as_of_offset);
                let parts = self.parts.entry(key).or_default();
                parts.insert(part.part, (part.parts, part.rows.to_vec()));
                if parts.len() == part.parts as usize {
                    return newest_complete(&self.parts, identity);
                }
            }
        }
        None
    }
}

/// What comes after the last batch that can be read in a segment.
enum Successor {
    /// Nothing yet.
    None,
    /// A segment that joins it; it is read now.
    Joined,
    /// The log goes on in segments that do not join it.
    Elsewhere,
}

#[derive(Clone, Debug)]
struct Follower {
    identity: Identity,
    unit: u64,
    /// What is durable for sure.
    state: State,
    /// The last batch of that.
    last: Option<Mark>,
    /// What was read behind it.
    pending: VecDeque<(BatchPlace, Vec<u8>)>,
    /// Where the next batch is read.
    reading: BatchPlace,
    expected_lsn: u64,
    expected_crc: u32,
    /// The parts of a snapshot that is passing by.
    snapshot: Vec<u8>,
    stuck: u32,
    /// The newest segment whose unused beginning it has looked at.
    looked_at: u64,
}

impl Follower {
    fn new(state: State, header: SegmentHeader) -> Self {
        let position = state.position;
        Self {
            identity: header.identity,
            unit: u64::from(header.unit),
            last: None,
            pending: VecDeque::new(),
            reading: BatchPlace {
                salt: header.identity.salt,
                epoch: header.epoch,
                segment: position.segment,
                offset: position.offset,
            },
            expected_lsn: position.next_lsn,
            expected_crc: position.chain_crc,
            snapshot: Vec::new(),
            stuck: 0,
            looked_at: 0,
            state,
        }
    }

    fn from_beginning(header: SegmentHeader) -> Self {
        let mut state = State::default();
        state.position.segment = header.segment;
        state.position.offset = FIRST_BATCH_OFFSET;
        state.position.next_lsn = 1;
        Self::new(state, header)
    }

    fn from_snapshot(disk: &dyn Disk, state: State, identity: Identity) -> Result<Self, Trouble> {
        let used = Used::open(disk, state.position.segment, Some(identity))?;
        let used = used.ok_or_else(|| Trouble::Odd("a snapshot's segment is gone".to_owned()))?;
        Ok(Self::new(state, used.header))
    }

    /// `true` when there is more to read now.
    fn step(&mut self, disk: &dyn Disk, survey: &Survey) -> Result<bool, Trouble> {
        let mut left = POLL_BYTES;
        let is_more = loop {
            // A fresh open: a network file system shows what was written elsewhere to those who open.
            let name = segment_name(self.reading.segment);
            let file = disk.open(&name, OpenMode::Read)?;
            if !self.read(file.as_ref(), &mut left)? {
                break true;
            }
            match self.successor(disk, survey)? {
                Successor::Joined => self.stuck = 0,
                Successor::None => {
                    self.stuck = 0;
                    break false;
                }
                Successor::Elsewhere if self.stuck < STUCK_MAX => {
                    self.stuck += 1;
                    break true;
                }
                Successor::Elsewhere => {
                    return Err(Trouble::Odd(format!(
                        "the log goes on elsewhere than behind {} in {name}",
                        self.reading.offset
                    )));
                }
            }
        };
        self.forget(survey);
        Ok(is_more)
    }

    /// Reads the batches of a segment; `true` when there is no further one now.
    fn read(&mut self, file: &dyn DiskFile, left: &mut u64) -> Result<bool, Trouble> {
        let start = read_range(file, self.reading.offset, 512)?;
        if BatchClaim::read(&start).is_none() {
            return Ok(true);
        }
        let mut reader = BatchReader::new(file, self.reading, self.unit, u64::MAX);
        while *left > 0 {
            let Ok(batch) = reader.next()? else {
                return Ok(true);
            };
            if (batch.first_lsn, batch.previous_crc) != (self.expected_lsn, self.expected_crc) {
                return Err(Trouble::Odd(format!(
                    "a batch in {} at {} does not join its predecessor",
                    segment_name(batch.place.segment),
                    batch.place.offset
                )));
            }
            *left = left.saturating_sub(batch.len() as u64);
            self.stuck = 0;
            self.take(&batch)?;
        }
        Ok(false)
    }

    fn take(&mut self, batch: &Batch<'_>) -> Result<(), Trouble> {
        while let Some((place, bytes)) = self.pending.front() {
            let proven = Batch::parse(*place, self.unit, bytes).ok();
            let proven = proven.filter(|it| it.next_lsn() <= batch.durable_lsn.saturating_add(1));
            if proven.is_none() {
                break;
            }
            self.apply_first();
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(Trouble::Odd("nothing proves what was read".to_owned()));
        }
        self.expected_lsn = batch.next_lsn();
        self.expected_crc = batch.crc;
        self.reading.offset = batch.place.offset + batch.len() as u64;
        self.pending
            .push_back((batch.place, batch.bytes().to_vec()));
        Ok(())
    }

    /// Applies the first of the pending batches.
    fn apply_first(&mut self) {
        let Some((place, bytes)) = self.pending.pop_front() else {
            return;
        };
        let Ok(batch) = Batch::parse(place, self.unit, &bytes) else {
            return;
        };
        // A segment begins with its first batch.
        self.state
            .segments
            .entry(place.segment)
            .or_insert_with(|| SegmentState::new(place.epoch, batch.first_lsn));
        self.state.apply_batch(&batch);
        for record in batch.records() {
            if record.kind == Some(RecordKind::Snapshot)
                && let Some(part) = SnapshotPart::decode(record.body)
            {
                self.learn(&part);
            }
        }
        self.last = Some(Mark {
            place,
            crc: batch.crc,
        });
    }

    /// Only snapshots tell of footers: those are not in the log.
    fn learn(&mut self, part: &SnapshotPart<'_>) {
        if part.part == 0 {
            self.snapshot.clear();
        }
        self.snapshot.extend_from_slice(part.rows);
        if part.part + 1 < part.parts {
            return;
        }
        for (number, kind) in segment_kinds(&std::mem::take(&mut self.snapshot)) {
            if let Some(segment) = self.state.segments.get_mut(&number)
                && segment.kind == SegmentKind::Open
            {
                segment.kind = kind;
            }
        }
    }

    /// Looks for the segment behind the one whose last batch was read.
    fn successor(&mut self, disk: &dyn Disk, survey: &Survey) -> Result<Successor, Trouble> {
        let mut outcome = Successor::None;
        let read = self.reading.segment;
        for number in survey.segments.iter().filter(|it| **it > read) {
            let Some(used) = Used::open(disk, *number, Some(self.identity))? else {
                self.look_at_prepared(disk, *number);
                continue;
            };
            let place = used.place();
            let mut reader = BatchReader::new(used.file.as_ref(), place, self.unit, u64::MAX);
            let Ok(first) = reader.next()? else { continue };
            let join = (first.first_lsn, first.previous_crc);
            if place.epoch == self.reading.epoch {
                if join == (self.expected_lsn, self.expected_crc) {
                    self.reading = place;
                    return Ok(Successor::Joined);
                }
                return Ok(Successor::Elsewhere);
            }
            if place.epoch == *number {
                let seals = seals_of(&first);
                let (crc, next_lsn) = (first.crc, first.next_lsn());
                // Until then the new owner has served nobody, and it may yet be void.
                let Ok(second) = reader.next()? else { continue };
                if second.previous_crc != crc || second.durable_lsn + 1 < next_lsn {
                    continue;
                }
                if self.cut_to(join) {
                    self.check_seals(&seals)?;
                    self.reading = place;
                    return Ok(Successor::Joined);
                }
            }
            outcome = Successor::Elsewhere;
        }
        Ok(outcome)
    }

    /// A takeover asks whether a prepared segment was used. Its first bytes come from memory then, where they
    /// would be a slow disk's first answer.
    fn look_at_prepared(&mut self, disk: &dyn Disk, number: u64) {
        if number > self.looked_at {
            self.looked_at = number;
            let file = disk.open(&segment_name(number), OpenMode::Read);
            // Nothing depends on it.
            drop(
                file.and_then(|file| read_range(file.as_ref(), FIRST_BATCH_OFFSET, PREPARED_BYTES)),
            );
        }
    }

    /// A new owner goes on behind one of the batches that were read: what comes after that one is not
    /// part of the log.
    fn cut_to(&mut self, join: (u64, u32)) -> bool {
        let position = self.state.position;
        let mut keep = 0;
        if join != (position.next_lsn, position.chain_crc) {
            let found = self.pending.iter().position(|(place, bytes)| {
                let batch = Batch::parse(*place, self.unit, bytes);
                batch.is_ok_and(|batch| (batch.next_lsn(), batch.crc) == join)
            });
            let Some(at) = found else { return false };
            keep = at + 1;
        }
        for _ in 0..keep {
            self.apply_first();
        }
        self.pending.clear();
        (self.expected_lsn, self.expected_crc) = join;
        true
    }

    fn check_seals(&self, seals: &[SealEntry]) -> Result<(), Trouble> {
        let position = self.state.position;
        let seal = seals.iter().find(|seal| seal.segment == position.segment);
        let references = self.state.segments.get(&position.segment);
        let references = references.map_or(0, |segment| segment.references);
        let agrees = seal.is_none_or(|seal| {
            (seal.valid_bytes, seal.chain_crc, seal.references)
                == (position.offset, position.chain_crc, references)
        });
        match agrees {
            true => Ok(()),
            false => Err(Trouble::Odd(format!(
                "the SEAL of {} does not fit what was read",
                segment_name(position.segment)
            ))),
        }
    }

    /// Segments go without a word in the log. What became dirty is of no use here.
    fn forget(&mut self, survey: &Survey) {
        let position = self.state.position.segment;
        self.state.segments.retain(|number, segment| {
            segment.live > 0
                || *number >= position
                || survey.segments.binary_search(number).is_ok()
                || survey.compacts.contains_key(number)
        });
        self.state.dirty = crate::state::Dirty::default();
    }
}

fn seals_of(batch: &Batch<'_>) -> Vec<SealEntry> {
    let seals = batch.records();
    let seals = seals.filter(|record| record.kind == Some(RecordKind::Seal));
    seals
        .flat_map(|record| decode_seals(record.body).unwrap_or_default())
        .collect()
}
