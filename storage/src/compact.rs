//! Making a segment small in which little still waits.
//!
//! What is live of a segment is written into a file of its own, `0000000042.40001.cmp`: the same
//! header, the same batches and records with their numbers and ordinals, an index and a trailer. So every
//! reference keeps its address, settlements and cursors stay what they are, and order needs no care.
//! Such a file holds all that was live when it was made. Where both are there it is used, and not the
//! segment: an owner that has lost the store may yet remove that one.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::batch::{BatchBuilder, BatchPlace, Record};
use crate::format::payload::{IndexEntry, IndexMap};
use crate::format::segment::{SegmentHeader, data_name};
use crate::job::{Footer, Job, Work};
use crate::pairs::Verdict;
use crate::read::{ReadCache, SegmentPlan, Spans, is_refused};
use crate::scan::{SegmentFacts, index_record};
use crate::state::SegmentKind;
use crate::store::Store;

/// A segment is made small when less than one part in so many of it is live. Copying then writes at
/// most a third of what it frees.
const LIVE_PARTS: u64 = 4;
/// An owner never compacts a segment so often.
const GENERATIONS: u64 = 1000;
/// Bytes of a batch.
const BATCH_BYTES: usize = 256 << 10;
/// Smaller files are left as they are, in bytes.
const FILE_BYTES_MIN: u64 = 32 << 10;

/// A segment's live part, to be written.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) cache: Arc<ReadCache>,
    pub(crate) plan: SegmentPlan,
    pub(crate) header: SegmentHeader,
    /// Of the file that is made.
    pub(crate) generation: u64,
    /// The segment has other files, which may go if this one is whole; if not, it is made again.
    pub(crate) checks: bool,
    /// The segment is damaged, and what can be read of it is copied however much that is.
    pub(crate) replaces: bool,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compacted {
    /// The file is there and durable.
    Done {
        segment: u64,
        generation: u64,
        bytes: u64,
    },
    /// The newest file was to be checked, and is whole.
    Whole { segment: u64 },
    /// Too much of it is live, or a part of it is damaged: it stays as it is.
    Left { segment: u64 },
}

impl Compaction {
    pub(crate) fn run(&self) -> io::Result<Compacted> {
        let segment = self.plan.facts.segment;
        let left = Compacted::Left { segment };
        let (plan, verdict) = self.cache.chosen(&self.plan)?;
        if self.checks && verdict == Some(Verdict::Whole) {
            return Ok(Compacted::Whole { segment });
        }
        let lists = match self.cache.whole(&plan) {
            Err(error) if is_refused(&error) => return Ok(left),
            other => other?,
        };
        let is_live = |ordinal: u32| !self.plan.settled.is_set(ordinal);
        let is_damaged = !lists.damaged.is_empty() || lists.lost.iter().any(|it| is_live(*it));
        if is_damaged && !self.replaces {
            return Ok(left);
        }
        let (mut all, mut live) = (BTreeSet::new(), BTreeSet::new());
        for entry in lists.index.values().flatten() {
            all.insert(entry.offset);
            if is_live(entry.ordinal) {
                live.insert(entry.offset);
            }
        }
        let file = self.cache.file(segment, plan.generation)?;
        let bytes = file.bytes()?;
        let live_bytes = span_bytes(&all, &live);
        let is_worth = bytes >= FILE_BYTES_MIN && live_bytes.saturating_mul(LIVE_PARTS) <= bytes;
        if !is_worth && !self.replaces && !self.checks {
            return Ok(left);
        }
        let name = data_name(segment, self.generation);
        let temporary = format!("{name}.tmp");
        let written = self.write(file.as_ref(), &live, &temporary);
        let outcome = written.and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(left) };
            self.disk.rename(&temporary, &name)?;
            self.disk.sync_dir()?;
            Ok(Compacted::Done {
                segment,
                generation: self.generation,
                bytes,
            })
        });
        if !matches!(outcome, Ok(Compacted::Done { .. })) {
            let _ = self.disk.remove(&temporary);
        }
        outcome
    }

    /// Gives the length of the file; `None` when a live record cannot be read.
    fn write(
        &self,
        from: &dyn DiskFile,
        live: &BTreeSet<u32>,
        name: &str,
    ) -> io::Result<Option<u64>> {
        let facts = &self.plan.facts;
        let salt = self.header.identity.salt;
        let to = self.disk.open(name, OpenMode::CreateEmpty)?;
        to.write_at(0, &self.header.encode())?;
        let mut out = Output {
            file: to.as_ref(),
            place: BatchPlace {
                salt,
                epoch: facts.epoch,
                segment: facts.segment,
                offset: FIRST_BATCH_OFFSET,
            },
            unit: u64::from(self.header.unit),
            last_lsn: facts.last_lsn,
            chain_crc: 0,
            open: None,
            index: IndexMap::new(),
        };
        let entries = live.iter().map(|&offset| IndexEntry { ordinal: 0, offset });
        let entries: Vec<IndexEntry> = entries.collect();
        let mut spans = Spans::new(from, &entries);
        for offset in live {
            let offset = u64::from(*offset) * 8;
            let raw = match spans.record(offset) {
                // It stays where it is, and the segments after this one have their turn.
                Err(error) if is_refused(&error) => return Ok(None),
                other => other?,
            };
            let place = BatchPlace {
                offset,
                ..out.place
            };
            let Some(record) = Record::parse_verified(place, &raw) else {
                return Ok(None);
            };
            out.copy(&record)?;
        }
        out.close()?;
        let footer = Footer {
            file: Arc::clone(&to),
            salt,
            facts: SegmentFacts {
                valid_bytes: out.place.offset,
                ..*facts
            },
            index: Arc::new(out.index),
        };
        footer.run()?;
        Ok(Some(to.bytes()?))
    }
}

/// Bytes from each live record to the next record, of whichever kind.
fn span_bytes(all: &BTreeSet<u32>, live: &BTreeSet<u32>) -> u64 {
    let ends = all.iter().skip(1).copied();
    let spans = all.iter().zip(ends);
    // Nobody knows how long the last one is; the copy will tell.
    spans
        .filter(|(start, _)| live.contains(start))
        .map(|(start, end)| u64::from(end - start) * 8)
        .sum()
}

/// The batches of the new file.
struct Output<'f> {
    file: &'f dyn DiskFile,
    /// Where the open batch goes.
    place: BatchPlace,
    unit: u64,
    last_lsn: u64,
    chain_crc: u32,
    open: Option<BatchBuilder>,
    index: IndexMap,
}

impl Output<'_> {
    fn copy(&mut self, record: &Record<'_>) -> io::Result<()> {
        let full = |open: &BatchBuilder| open.len() + record.len > BATCH_BYTES && !open.is_empty();
        if self.open.as_ref().is_some_and(full) {
            self.close()?;
        }
        let place = self.place;
        let open = self.open.get_or_insert_with(|| {
            BatchBuilder::new(place, record.lsn, record.ordinal, Vec::new())
        });
        let offset = open.copy(record);
        index_record(&record.moved(offset), &mut self.index);
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let (bytes, crc) = open.finish(self.unit, self.last_lsn, self.chain_crc);
        self.file.write_at(self.place.offset, &bytes)?;
        self.place.offset += bytes.len() as u64;
        self.chain_crc = crc;
        Ok(())
    }
}

impl Store {
    /// The next segment of which little is live, if it is time to look.
    pub(crate) fn poll_compact(&mut self) -> Option<Job> {
        if !self.maintenance.may_compact(self.now_ms) {
            return None;
        }
        let Some(segment) = self.sparse_segment() else {
            self.maintenance.nothing_to_compact();
            return None;
        };
        let compaction = self.compaction_of(segment)?;
        self.maintenance.compaction_begun();
        Some(Job {
            work: Work::Compact(compaction),
        })
    }

    /// The work of writing what is live of a sealed segment into a file of its own.
    pub(crate) fn compaction_of(&self, segment: u64) -> Option<Compaction> {
        let state = self.state.segments.get(&segment)?;
        let generation = self.generation_of(segment);
        Some(Compaction {
            disk: Arc::clone(&self.disk),
            cache: Arc::clone(&self.cache),
            plan: SegmentPlan {
                facts: self.facts_of(segment),
                source: self.sealed_source(segment)?,
                generation,
                only: None,
                settled: state.settled.clone(),
            },
            header: SegmentHeader {
                identity: self.identity,
                segment,
                epoch: state.epoch,
                base_lsn: state.base_lsn,
                capacity: 0,
                unit: u32::try_from(self.unit).unwrap_or(512),
            },
            // No two owners ever write the same file, whatever an earlier one is still doing.
            generation: (generation + 1).max(self.epoch * GENERATIONS + 1),
            checks: self.unchecked.contains(&segment),
            replaces: false,
        })
    }

    /// A segment that the log does not need any more and of which less than a part is live, by what was
    /// live when that was last looked at.
    fn sparse_segment(&self) -> Option<u64> {
        let below = self.state.snapshot_base.min(self.state.position.segment);
        let sealed = self.state.segments.range(..below);
        let mut sealed = sealed.filter(|(_, it)| it.live > 0 && it.kind != SegmentKind::Open);
        sealed.find_map(|(number, state)| {
            if self.unchecked.contains(number) {
                return Some(*number);
            }
            let before = self.looked_at.get(number).copied();
            let before = u64::from(before.unwrap_or(state.references));
            (u64::from(state.live) * LIVE_PARTS < before).then_some(*number)
        })
    }

    /// Takes the result of a compaction: from now on the new file is read.
    pub(crate) fn compacted(&mut self, result: io::Result<Compacted>) {
        self.maintenance.compaction_ended(&result, self.now_ms);
        let Ok(outcome) = result else { return };
        let (Compacted::Done { segment, .. }
        | Compacted::Whole { segment }
        | Compacted::Left { segment }) = outcome;
        let Some(state) = self.state.segments.get(&segment) else {
            // It went away meanwhile, and so must its copy.
            if let Compacted::Done { generation, .. } = outcome {
                self.maintenance.superseded(segment, generation);
            }
            return;
        };
        self.looked_at.insert(segment, state.live);
        if self.unchecked.remove(&segment) {
            let is_whole = matches!(outcome, Compacted::Whole { .. });
            self.damaged_copies += u64::from(!is_whole);
            let is_left = matches!(outcome, Compacted::Left { .. });
            let pair = self.cache.pairs.get(&segment).filter(|_| !is_left);
            for generation in pair.into_iter().flat_map(|pair| &pair.others) {
                self.maintenance.superseded(segment, *generation);
            }
        }
        if let Compacted::Done { generation, .. } = outcome {
            let old = self.compacts.insert(segment, generation).unwrap_or(0);
            self.cache.forget(segment);
            self.held.remove(&segment);
            self.maintenance.superseded(segment, old);
        }
    }

    /// Which file holds a segment: 0 is the segment itself.
    pub(crate) fn generation_of(&self, segment: u64) -> u64 {
        self.compacts.get(&segment).copied().unwrap_or(0)
    }
}
