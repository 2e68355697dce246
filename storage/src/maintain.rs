//! What happens beside the log: checkpoints, the next segment, footers, deletions, the orderly end.

mod closing;
mod segments;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::checkpoint::CheckpointFile;
use crate::compact::Compacted;
use crate::disk::DiskFile;
use crate::error::FatalError;
use crate::format::batch::RecordKind;
use crate::format::payload::SnapshotPart;
use crate::format::segment::{SegmentHeader, data_name, segment_name, side_index_name};
use crate::job::{Commit, Footer, Job, Outcome, Work};
use crate::options::StoreStatus;
use crate::rows::{TableRow, all_rows, encode_rows, take_dirty};
use crate::state::SegmentKind;
use crate::store::Store;
use crate::types::Ticket;
use crate::writer::SegmentPlanner;

/// Zeros written and synced at once.
const SLICE_BYTES: u64 = 1 << 20;
/// Pause between slices while there is time, in ms.
const SLICE_PAUSE_MS: u64 = 20;
/// Segments at the start of an epoch that are prepared without pauses and before other work.
const URGENT_SEGMENTS: u64 = 5;
/// How soon a failed preparation is tried again, in ms.
const RETRY_MS: u64 = 1000;
/// How soon a batch that found no space is written again, in ms.
const COMMIT_RETRY_MS: u64 = 100;
/// On a full disk a small next segment is made when less than this is left of the present one.
const LOW_BYTES: u64 = 256 << 10;
/// A snapshot is taken when so many empty segments wait for one: without it the log could not rebuild
/// what they say. Many short lives of servers leave many.
const PINNED_SEGMENTS_MAX: usize = 8;
/// At least so many checkpoints are taken while a segment is filled: segments that nothing needs keep their
/// space until the next one.
const CHECKPOINTS_PER_SEGMENT: u64 = 4;
/// Part of a snapshot in one record.
const SNAPSHOT_PART_BYTES: usize = 192 << 10;
/// Size of the file that a new owner may delete on a full disk.
const RESERVE_BYTES: u64 = 4 << 20;

/// The segment that is written next.
#[derive(Debug)]
enum Next {
    Missing,
    Zeroing {
        segment: u64,
        file: Arc<dyn DiskFile>,
        done: u64,
    },
    Publishing {
        segment: u64,
        file: Arc<dyn DiskFile>,
    },
    Ready {
        segment: u64,
        file: Arc<dyn DiskFile>,
    },
}

#[derive(Debug)]
enum CheckpointStep {
    Idle,
    /// The rows may be written when the batch with the index record is durable.
    Waiting {
        ticket: Ticket,
        rows: Vec<TableRow>,
    },
    Running,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    No,
    /// Everything appended becomes durable, the open segment gets its footer.
    Sealing,
    /// The last checkpoint.
    Checkpoint,
    /// Files that nobody needs are removed, then the locks go.
    Removing,
    Done,
}

/// State of the work beside the log.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pub(crate) plan: SegmentPlanner,
    /// Segments are filled with zeros before use.
    zeroed: bool,
    current_segment: u64,
    /// `None` once the locks are released.
    current_file: Option<Arc<dyn DiskFile>>,
    next: Next,
    next_slice_ms: u64,
    prepare_busy: bool,
    /// When a failed preparation, footer or index is tried again.
    prepare_retry_ms: u64,
    footer_retry_ms: u64,
    index_retry_ms: u64,
    /// Something found no space, and there has not been enough since.
    no_space: bool,
    /// A batch that found no space, and when it is written again.
    refused: Option<(Commit, u64)>,
    refused_writes: u64,
    /// A compaction is under way.
    compacting: bool,
    /// There may be segments to compact: something was settled since the last look.
    compact_due: bool,
    compact_retry_ms: u64,
    compactions: u64,
    compacted_bytes: u64,
    /// Files that a compaction made superfluous; those of the second list are removed after the
    /// checkpoint that is under way.
    superseded: Vec<String>,
    superseded_doomed: Vec<String>,
    free_bytes: u64,
    free_bytes_min: u64,
    space_check_ms: u64,
    /// Own segments that were left but whose successor's first batch is not durable yet.
    retiring: BTreeSet<u64>,
    to_seal: VecDeque<u64>,
    /// Segments of dead owners without an index, with their last index record.
    to_index: VecDeque<(u64, Option<u64>)>,
    last_indexes: BTreeMap<u64, u64>,
    /// Files of earlier owners, removed once this owner has a checkpoint.
    pub(crate) leftovers: Vec<String>,
    /// Segments that the coming checkpoint does not name.
    doomed: BTreeSet<u64>,
    /// Segments that the last checkpoint does not name.
    removable: BTreeSet<u64>,
    reserve_done: u64,
    checkpoint_file: Arc<CheckpointFile>,
    checkpoint: CheckpointStep,
    checkpoint_bytes: u64,
    interval_ms: u64,
    bytes_since_checkpoint: u64,
    checkpoint_at_ms: u64,
    all_rows_next: bool,
    checkpoints: u64,
    checkpoint_failures: u64,
    snapshot_due: bool,
    /// Size of the last snapshot, and the log written since.
    snapshot_bytes: u64,
    bytes_since_snapshot: u64,
    closing: Closing,
}

/// What a new owner hands over to [`Maintenance::new`].
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) plan: SegmentPlanner,
    pub(crate) zeroed: bool,
    pub(crate) segment: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) checkpoint_name: String,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) interval_ms: u64,
    pub(crate) free_bytes_min: u64,
    pub(crate) to_index: Vec<(u64, Option<u64>)>,
    pub(crate) leftovers: Vec<String>,
    pub(crate) tail_bytes: u64,
    pub(crate) now_ms: u64,
}

impl Maintenance {
    /// Whether the files lie on a local disk.
    pub(crate) fn is_local(&self) -> bool {
        self.zeroed
    }

    pub(crate) fn new(start: Start) -> Self {
        let last_indexes = start
            .to_index
            .iter()
            .filter_map(|(segment, last)| Some((*segment, (*last)?)))
            .collect();
        let checkpoint_bytes_max = start.plan.segment_bytes_max / CHECKPOINTS_PER_SEGMENT;
        Self {
            plan: start.plan,
            zeroed: start.zeroed,
            current_segment: start.segment,
            current_file: Some(start.file),
            next: Next::Missing,
            next_slice_ms: 0,
            prepare_busy: false,
            prepare_retry_ms: 0,
            footer_retry_ms: 0,
            index_retry_ms: 0,
            no_space: false,
            refused: None,
            refused_writes: 0,
            compacting: false,
            compact_due: false,
            compact_retry_ms: 0,
            compactions: 0,
            compacted_bytes: 0,
            superseded: Vec::new(),
            superseded_doomed: Vec::new(),
            free_bytes: u64::MAX,
            free_bytes_min: start.free_bytes_min,
            space_check_ms: start.now_ms,
            retiring: BTreeSet::new(),
            to_seal: VecDeque::new(),
            to_index: start.to_index.into(),
            last_indexes,
            leftovers: start.leftovers,
            doomed: BTreeSet::new(),
            removable: BTreeSet::new(),
            reserve_done: 0,
            checkpoint_file: Arc::new(CheckpointFile::new(start.checkpoint_name)),
            checkpoint: CheckpointStep::Idle,
            checkpoint_bytes: start.checkpoint_bytes.min(checkpoint_bytes_max),
            interval_ms: start.interval_ms,
            bytes_since_checkpoint: start.tail_bytes,
            checkpoint_at_ms: start.now_ms,
            all_rows_next: true,
            checkpoints: 0,
            checkpoint_failures: 0,
            snapshot_due: false,
            snapshot_bytes: 0,
            bytes_since_snapshot: 0,
            closing: Closing::No,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.no_space || self.free_bytes < self.free_bytes_min
    }

    pub(crate) fn refused_writes(&self) -> u64 {
        self.refused_writes
    }

    /// Whether the next compaction may begin.
    pub(crate) fn may_compact(&self, now_ms: u64) -> bool {
        let is_idle = self.compact_due && !self.compacting && self.closing == Closing::No;
        is_idle && now_ms >= self.compact_retry_ms
    }

    pub(crate) fn compaction_begun(&mut self) {
        self.compacting = true;
    }

    /// There will be something when more was settled.
    pub(crate) fn nothing_to_compact(&mut self) {
        self.compact_due = false;
    }

    pub(crate) fn compaction_ended(&mut self, result: &io::Result<Compacted>, now_ms: u64) {
        self.compacting = false;
        match result {
            Ok(Compacted::Done { bytes, .. }) => {
                self.compactions += 1;
                self.compacted_bytes += bytes;
            }
            Ok(Compacted::Left { .. } | Compacted::Whole { .. }) => {}
            // A full disk, mostly.
            Err(_) => self.compact_retry_ms = now_ms + RETRY_MS,
        }
    }

    /// A file of a segment is not needed any more.
    pub(crate) fn superseded(&mut self, segment: u64, generation: u64) {
        self.superseded.push(data_name(segment, generation));
        if generation == 0 {
            self.superseded.push(side_index_name(segment));
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing != Closing::No
    }

    pub(crate) fn close(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Sealing;
        }
    }

    pub(crate) fn last_index_of(&self, segment: u64) -> Option<u64> {
        self.last_indexes.get(&segment).copied()
    }

    pub(crate) fn batch_durable(&mut self, bytes: u64) {
        self.bytes_since_checkpoint += bytes;
        self.bytes_since_snapshot += bytes;
    }

    pub(crate) fn describe(&self, status: &mut StoreStatus) {
        status.tail_bytes = self.bytes_since_checkpoint;
        status.checkpoint_bytes = self.checkpoint_bytes;
        status.checkpoints = self.checkpoints;
        status.checkpoint_failures = self.checkpoint_failures;
        status.full = self.is_full();
        status.refused_writes = self.refused_writes;
        status.compactions = self.compactions;
        status.compacted_bytes = self.compacted_bytes;
        status.free_bytes = self.free_bytes;
    }
}

impl Store {
    /// A checkpoint should be taken now.
    pub(crate) fn index_is_due(&self) -> bool {
        let maintenance = &self.maintenance;
        if !matches!(maintenance.checkpoint, CheckpointStep::Idle) || self.state.dirty.is_empty() {
            return false;
        }
        match maintenance.closing {
            Closing::No => {
                let waited = self.now_ms.saturating_sub(maintenance.checkpoint_at_ms);
                maintenance.bytes_since_checkpoint >= maintenance.checkpoint_bytes
                    || waited >= maintenance.interval_ms
            }
            _ => false,
        }
    }

    /// Closes the open batch; when a checkpoint is due, its index record goes into that batch and
    /// its rows are those of the state before it.
    pub(crate) fn close_open_batch(&mut self) {
        if self.index_is_due() {
            self.prepare_checkpoint();
        }
        self.writer.close(&self.maintenance.plan);
    }

    pub(crate) fn prepare_checkpoint(&mut self) {
        let place = self.writer.open.place();
        let durable = self.state.position.segment;
        if durable == place.segment
            && let Some(index) = self.indexes.get_mut(&durable)
            && index.is_behind()
            && let Some(record) = index.take_record(place.offset)
        {
            self.state.last_index = (durable, place.offset);
            self.writer.open.record(RecordKind::Index, &record.encode());
        }
        let rows = self.checkpoint_rows();
        self.maintenance.bytes_since_checkpoint = 0;
        self.maintenance.checkpoint = CheckpointStep::Waiting {
            ticket: self.writer.open_ticket(),
            rows,
        };
    }

    fn checkpoint_rows(&mut self) -> Vec<TableRow> {
        // Segments that nothing needs leave the checkpoint first and the disk afterwards.
        for segment in self.state.deletable() {
            self.state.forget_segment(segment);
            self.side_indexes.remove(&segment);
            self.maintenance.doomed.insert(segment);
        }
        // A durable write that begins after the decision proves that the files are still ours.
        let mut superseded = std::mem::take(&mut self.maintenance.superseded);
        self.maintenance.superseded_doomed.append(&mut superseded);
        let unit = u32::try_from(self.unit).unwrap_or(512);
        self.maintenance.snapshot_due |= self.state.pinned() > PINNED_SEGMENTS_MAX;
        let rows = take_dirty(&mut self.state, self.identity, unit);
        if std::mem::take(&mut self.maintenance.all_rows_next) {
            return all_rows(&self.state, self.identity, unit);
        }
        rows
    }

    /// Takes the next closed batch to the disk, if its segment is there.
    pub(crate) fn next_commit(&mut self) -> Option<Job> {
        let closed = self.writer.first_closed()?;
        let segment = closed.builder.place().segment;
        if segment != self.maintenance.current_segment && !self.switch_to(segment) {
            return None;
        }
        let file = Arc::clone(self.maintenance.current_file.as_ref()?);
        let closed = self.writer.take_closed()?;
        let place = closed.builder.place();
        let header = closed.is_first.then(|| SegmentHeader {
            identity: self.identity,
            segment,
            epoch: self.epoch,
            base_lsn: closed.builder.next_lsn() - u64::from(closed.builder.count()),
            capacity: self.maintenance.plan.capacity(segment),
            unit: u32::try_from(self.unit).unwrap_or(512),
        });
        let durable = self.durable_lsn().0;
        let (bytes, crc) = closed
            .builder
            .finish(self.unit, durable, self.writer.chain_crc);
        self.writer.chain_crc = crc;
        let commit = Commit {
            file,
            segment,
            header,
            offset: place.offset,
            bytes: bytes.into(),
            ticket: closed.ticket,
            started_ms: self.now_ms,
        };
        Some(Job {
            work: Work::Commit(commit),
        })
    }

    /// Moves to a prepared segment; the one that is left stays locked until it has its footer.
    fn switch_to(&mut self, segment: u64) -> bool {
        if !matches!(self.maintenance.next, Next::Ready { segment: ready, .. } if ready == segment)
        {
            return false;
        }
        let Next::Ready { file, .. } = std::mem::replace(&mut self.maintenance.next, Next::Missing)
        else {
            return false;
        };
        let old = self.maintenance.current_file.replace(file);
        let left = std::mem::replace(&mut self.maintenance.current_segment, segment);
        self.held.extend(old.map(|old| (left, old)));
        self.maintenance.retiring.insert(left);
        true
    }

    /// Called after each durable batch.
    pub(crate) fn after_commit(&mut self, segment: u64) {
        let retired: Vec<u64> = self
            .maintenance
            .retiring
            .range(..segment)
            .copied()
            .collect();
        for left in retired {
            self.maintenance.retiring.remove(&left);
            self.maintenance.to_seal.push_back(left);
            self.maintenance.snapshot_due = true;
        }
        let maintenance = &mut self.maintenance;
        // A snapshot larger than a segment must not be the reason for the next one.
        let is_worth = maintenance.bytes_since_snapshot >= 2 * maintenance.snapshot_bytes;
        if maintenance.snapshot_due && is_worth && !maintenance.is_closing() {
            maintenance.snapshot_due = false;
            maintenance.bytes_since_snapshot = 0;
            self.append_snapshot();
        }
    }

    /// Writes everything that the log must be able to rebuild into the log.
    pub(crate) fn append_snapshot(&mut self) {
        let unit = u32::try_from(self.unit).unwrap_or(512);
        let bytes = encode_rows(&all_rows(&self.state, self.identity, unit));
        self.maintenance.snapshot_bytes = bytes.len() as u64;
        let position = self.state.position;
        let parts = u32::try_from(bytes.chunks(SNAPSHOT_PART_BYTES).count()).unwrap_or(u32::MAX);
        for (part, rows) in (0..).zip(bytes.chunks(SNAPSHOT_PART_BYTES)) {
            let (as_of_segment, as_of_offset) = (position.segment, position.offset);
            let part = SnapshotPart {
                as_of_segment,
                as_of_offset,
                part,
                parts,
                rows,
            };
            self.make_room(rows.len() + 64);
            self.writer
                .open
                .record(RecordKind::Snapshot, &part.encode());
        }
    }

    pub(crate) fn poll_checkpoint(&mut self) -> Option<Job> {
        if self.maintenance.closing == Closing::Checkpoint
            && matches!(self.maintenance.checkpoint, CheckpointStep::Idle)
        {
            let rows = self.checkpoint_rows();
            self.maintenance.bytes_since_checkpoint = 0;
            return Some(self.checkpoint_job(rows));
        }
        let durable = self.writer.durable_ticket;
        if !matches!(&self.maintenance.checkpoint,
            CheckpointStep::Waiting { ticket, .. } if *ticket <= durable)
        {
            return None;
        }
        match std::mem::replace(&mut self.maintenance.checkpoint, CheckpointStep::Idle) {
            CheckpointStep::Waiting { rows, .. } => Some(self.checkpoint_job(rows)),
            CheckpointStep::Idle | CheckpointStep::Running => None,
        }
    }

    fn checkpoint_job(&mut self, rows: Vec<TableRow>) -> Job {
        self.maintenance.checkpoint = CheckpointStep::Running;
        let (disk, file) = (
            Arc::clone(&self.disk),
            Arc::clone(&self.maintenance.checkpoint_file),
        );
        Job {
            work: Work::Checkpoint { disk, file, rows },
        }
    }

    pub(crate) fn poll_prepare(&mut self) -> Option<Job> {
        if self.maintenance.prepare_busy {
            return None;
        }
        let job = match self.maintenance.closing {
            Closing::No => self
                .poll_space()
                .or_else(|| self.poll_left_behind())
                .or_else(|| self.poll_next_segment())
                // The log must never wait for the next segment behind other work.
                .or_else(|| {
                    if self.next_is_urgent() {
                        None
                    } else {
                        self.poll_other()
                    }
                }),
            _ => self.poll_closing(),
        };
        self.maintenance.prepare_busy = job.is_some();
        job
    }

    /// The next segment is made in many steps, one after the other. What gives space back must not wait for
    /// all of them: it is short, and there is little of it for each segment.
    fn poll_left_behind(&mut self) -> Option<Job> {
        if self.next_is_urgent() {
            return None;
        }
        self.poll_footer().or_else(|| self.poll_remove())
    }

    fn poll_other(&mut self) -> Option<Job> {
        self.poll_footer()
            .or_else(|| self.poll_side_index())
            .or_else(|| self.poll_set_aside())
            .or_else(|| self.poll_remove())
            .or_else(|| self.poll_reserve())
    }

    fn poll_footer(&mut self) -> Option<Job> {
        if self.now_ms < self.maintenance.footer_retry_ms {
            return None;
        }
        let segment = *self.maintenance.to_seal.front()?;
        let file = self.held.get(&segment)?;
        let index = self.indexes.get(&segment)?;
        let footer = Footer {
            file: Arc::clone(file),
            salt: self.identity.salt,
            facts: self.facts_of(segment),
            index: Arc::new(index.all()),
        };
        Some(Job {
            work: Work::Footer(footer),
        })
    }

    fn poll_side_index(&mut self) -> Option<Job> {
        // It is a second copy of what the log says: not worth the last bytes.
        if self.now_ms < self.maintenance.index_retry_ms || self.maintenance.is_full() {
            return None;
        }
        let (segment, last_index) = *self.maintenance.to_index.front()?;
        let facts = self.facts_of(segment);
        let store = (self.identity.salt, self.unit);
        let disk = Arc::clone(&self.disk);
        Some(Job {
            work: Work::SideIndex {
                disk,
                facts,
                store,
                last_index,
                owner: self.epoch,
            },
        })
    }

    /// Removes files that the last checkpoint does not name any more.
    fn poll_remove(&mut self) -> Option<Job> {
        let names = self.take_removable();
        if names.is_empty() {
            return None;
        }
        Some(Job {
            work: Work::Remove {
                disk: Arc::clone(&self.disk),
                names,
            },
        })
    }

    /// The names of what the last checkpoint of this owner does not need.
    fn take_removable(&mut self) -> Vec<String> {
        if self.maintenance.checkpoints == 0 {
            return Vec::new();
        }
        let mut names = std::mem::take(&mut self.maintenance.leftovers);
        for segment in std::mem::take(&mut self.maintenance.removable) {
            self.held.remove(&segment);
            self.cache.forget(segment);
            names.push(segment_name(segment));
            names.push(side_index_name(segment));
            self.looked_at.remove(&segment);
            if let Some(generation) = self.compacts.remove(&segment) {
                names.push(data_name(segment, generation));
            }
        }
        names
    }

    pub(crate) fn maintenance_deadline_ms(&self) -> Option<u64> {
        let maintenance = &self.maintenance;
        let dirty = !self.state.dirty.is_empty();
        let idle = matches!(maintenance.checkpoint, CheckpointStep::Idle);
        let checkpoint =
            (dirty && idle).then_some(maintenance.checkpoint_at_ms + maintenance.interval_ms);
        let busy = maintenance.prepare_busy;
        let preparing = !busy && !matches!(maintenance.next, Next::Ready { .. });
        let reserving = !busy && maintenance.reserve_done < RESERVE_BYTES;
        let is_open = maintenance.closing == Closing::No;
        let slice = ((preparing || reserving) && is_open && !maintenance.is_full())
            .then(|| maintenance.next_slice_ms.max(maintenance.prepare_retry_ms));
        let footer =
            (!busy && !maintenance.to_seal.is_empty()).then_some(maintenance.footer_retry_ms);
        let index = (!busy && !maintenance.to_index.is_empty() && !maintenance.is_full())
            .then_some(maintenance.index_retry_ms);
        let space = (!busy && is_open).then_some(maintenance.space_check_ms);
        let refused = maintenance.refused.as_ref().map(|(_, at_ms)| *at_ms);
        [checkpoint, slice, footer, index, space, refused]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes the result of a job that is no commit.
    pub(crate) fn maintenance_done(&mut self, outcome: Outcome) -> Result<(), FatalError> {
        let now_ms = self.now_ms;
        if !matches!(outcome, Outcome::Checkpointed(_) | Outcome::Compacted(_)) {
            self.maintenance.prepare_busy = false;
        }
        match outcome {
            Outcome::Checkpointed(result) => self.checkpoint_done(result.is_ok()),
            Outcome::Created { segment, result } => match result {
                Ok(file) if self.maintenance.zeroed => {
                    self.maintenance.next = Next::Zeroing {
                        segment,
                        file,
                        done: 0,
                    };
                }
                Ok(file) => self.maintenance.next = Next::Publishing { segment, file },
                Err(error) => self.preparation_failed(&error),
            },
            Outcome::Zeroed {
                to,
                took_reserve,
                result,
            } => self.zeroed(to, took_reserve, result),
            Outcome::Published { segment, result } => return self.published(segment, result),
            Outcome::Sealed { segment, result } => match result {
                Ok(()) => self.sealed(segment),
                // The next owner makes the index of a segment without a footer.
                Err(_) if self.maintenance.is_closing() => {
                    self.maintenance.to_seal.pop_front();
                }
                Err(_) => self.maintenance.footer_retry_ms = now_ms + RETRY_MS,
            },
            Outcome::SideIndexed { segment, result } => self.side_indexed(segment, result),
            Outcome::Compacted(result) => self.compacted(result),
            Outcome::Reconciled(Ok(found)) => self.reconciled(found),
            Outcome::Reconciled(Err(_)) => self.set_aside.failed(now_ms + RETRY_MS),
            Outcome::Removed => {
                if self.maintenance.closing == Closing::Removing {
                    self.release();
                }
            }
            Outcome::Reserved { to, result } => {
                // Without a reserve the store works; it is tried again by the next owner.
                self.maintenance.reserve_done = if result.is_ok() { to } else { RESERVE_BYTES };
            }
            Outcome::Space(free) => self.maintenance.space_found(free),
            Outcome::Committed { .. }
            | Outcome::CommitFailed(_)
            | Outcome::CommitRefused(_)
            | Outcome::CopiedRaw => {}
        }
        Ok(())
    }

    fn side_indexed(&mut self, segment: u64, result: io::Result<Vec<u32>>) {
        self.maintenance.to_index.pop_front();
        match result {
            Ok(lost) => {
                self.side_indexes.insert(segment);
                self.found_lost(segment, &lost);
            }
            // What was deleted meanwhile needs no index.
            Err(_) if !self.state.segments.contains_key(&segment) => {}
            Err(_) => {
                let last = self.maintenance.last_index_of(segment);
                self.maintenance.to_index.push_back((segment, last));
                self.maintenance.index_retry_ms = self.now_ms + RETRY_MS;
            }
        }
    }

    fn checkpoint_done(&mut self, good: bool) {
        let maintenance = &mut self.maintenance;
        maintenance.checkpoint = CheckpointStep::Idle;
        maintenance.checkpoint_at_ms = self.now_ms;
        if good {
            maintenance.checkpoints += 1;
            maintenance.compact_due = true;
            maintenance.removable.append(&mut maintenance.doomed);
            let superseded = std::mem::take(&mut maintenance.superseded_doomed);
            maintenance.leftovers.extend(superseded);
        } else {
            maintenance.checkpoint_failures += 1;
            maintenance.all_rows_next = true;
            let name = maintenance.checkpoint_file.name().to_owned();
            maintenance.checkpoint_file = Arc::new(CheckpointFile::new(name));
        }
        if maintenance.closing == Closing::Checkpoint {
            maintenance.closing = Closing::Removing;
        }
    }

    fn sealed(&mut self, segment: u64) {
        self.maintenance.to_seal.pop_front();
        if let Some(state) = self.state.segments.get_mut(&segment) {
            state.kind = SegmentKind::Footer;
            self.state.dirty.segments.insert(segment);
        }
        self.indexes.remove(&segment);
        if segment != self.maintenance.current_segment {
            self.held.remove(&segment);
        }
    }
}
