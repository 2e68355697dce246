//! Damage that was found while the store is open: the bytes are kept for people, the references
//! leave their queues, and the counts of the queues come right.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, OpenMode, read_range};
use crate::format::batch::{RECORD_HEADER_BYTES, RecordKind, claimed_record_len};
use crate::format::payload::Quarantined;
use crate::format::segment::data_name;
use crate::job::{Job, Work};
use crate::read::{ReadCache, SegmentPlan, Source};
use crate::store::Store;
use crate::types::{Place, QueueId};

/// Where raw bytes of damaged parts are kept: `quarantine/0000000003-4096.raw`.
const DIRECTORY: &str = "quarantine";
/// Bytes copied for a record whose length cannot be told.
const GUESS_BYTES: u64 = 4096;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Damaged parts that wait to be copied, at most: more are counted but not kept.
const COPIES_MAX: usize = 4096;

/// Bytes of a segment to keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RawRange {
    pub(crate) segment: u64,
    /// Which file holds the segment.
    pub(crate) generation: u64,
    pub(crate) offset: u64,
    /// `None`: the record that starts there, as long as it says.
    pub(crate) bytes: Option<u64>,
}

impl RawRange {
    /// Copies the bytes into a file of their own.
    pub(crate) fn copy(&self, disk: &dyn Disk) -> io::Result<()> {
        let from = disk.open(&data_name(self.segment, self.generation), OpenMode::Read)?;
        let bytes = match self.bytes {
            Some(bytes) => bytes,
            None => {
                let header = read_range(from.as_ref(), self.offset, RECORD_HEADER_BYTES)?;
                let claimed = claimed_record_len(&header) as u64;
                let rest = from.bytes()?.saturating_sub(self.offset);
                let sound = (RECORD_HEADER_BYTES as u64..=rest).contains(&claimed);
                if sound { claimed } else { GUESS_BYTES }
            }
        };
        let name = format!("{DIRECTORY}/{:010}-{}.raw", self.segment, self.offset);
        let to = disk.open(&name, OpenMode::CreateEmpty)?;
        let mut done = 0;
        while done < bytes {
            let len = usize::try_from(bytes - done).unwrap_or(CHUNK_BYTES);
            let chunk = read_range(from.as_ref(), self.offset + done, len.min(CHUNK_BYTES))?;
            if chunk.is_empty() {
                break;
            }
            to.write_at(done, &chunk)?;
            done += chunk.len() as u64;
        }
        to.sync()
    }
}

/// Finds out which queues miss the references that no index has any more.
///
/// A queue's count says how many references it has, the lists say which: the difference is lost.
#[derive(Debug)]
pub(crate) struct Reconcile {
    cache: Arc<ReadCache>,
    /// The segments of earlier owners and the sealed ones of this owner.
    plans: Vec<SegmentPlan>,
    /// Live references in the other ones, by queue.
    own: BTreeMap<u32, u64>,
    /// What each queue should have.
    queues: BTreeMap<u32, u64>,
}

/// What [`Reconcile`] found.
#[derive(Debug)]
pub(crate) struct Reconciled {
    /// References without a list.
    lost: Vec<(u64, u32)>,
    /// How many of them each queue misses.
    missing: BTreeMap<u32, u64>,
    /// The bytes where they were.
    damaged: Vec<RawRange>,
}

impl Reconcile {
    pub(crate) fn run(self) -> io::Result<Reconciled> {
        let mut listed = self.own;
        let (mut lost, mut damaged) = (Vec::new(), Vec::new());
        for plan in &self.plans {
            let (plan, _) = self.cache.chosen(plan)?;
            let segment = plan.facts.segment;
            let lists = self.cache.whole(&plan)?;
            for (queue, entries) in &lists.index {
                let live = entries
                    .iter()
                    .filter(|entry| !plan.settled.is_set(entry.ordinal));
                *listed.entry(*queue).or_default() += live.count() as u64;
            }
            let live = lists.lost.iter().filter(|it| !plan.settled.is_set(**it));
            let before = lost.len();
            lost.extend(live.map(|ordinal| (segment, *ordinal)));
            if lost.len() > before {
                damaged.extend(lists.damaged.iter().map(|range| RawRange {
                    segment,
                    generation: plan.generation,
                    offset: range.start,
                    bytes: Some(range.end - range.start),
                }));
            }
        }
        let missing = self.queues.into_iter().filter_map(|(queue, messages)| {
            let listed = listed.get(&queue).copied().unwrap_or(0);
            (messages > listed).then(|| (queue, messages - listed))
        });
        Ok(Reconciled {
            lost,
            missing: missing.collect(),
            damaged,
        })
    }
}

/// What waits to be set aside.
#[derive(Debug, Default)]
pub(crate) struct SetAside {
    copies: VecDeque<RawRange>,
    /// Lost references that were found, by segment.
    found: BTreeMap<u64, u64>,
    is_due: bool,
    retry_at_ms: u64,
}

impl SetAside {
    pub(crate) fn new(damaged: Vec<RawRange>) -> Self {
        Self {
            copies: damaged.into(),
            ..Self::default()
        }
    }

    /// References that were found to belong to no queue any more.
    pub(crate) fn lost_references(&self) -> u64 {
        self.found.values().sum()
    }

    fn keep(&mut self, range: RawRange) {
        if self.copies.len() < COPIES_MAX && !self.copies.contains(&range) {
            self.copies.push_back(range);
        }
    }

    /// A failed attempt is repeated later.
    pub(crate) fn failed(&mut self, retry_at_ms: u64) {
        self.is_due = true;
        self.retry_at_ms = retry_at_ms;
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        (self.is_due || !self.copies.is_empty()).then_some(self.retry_at_ms)
    }
}

impl Store {
    /// Sets a damaged reference aside: it leaves its queue, the damage is counted, the bytes are
    /// copied to the directory `quarantine`.
    ///
    /// # Errors
    /// [`crate::AppendError::Closed`] after a failure or shutdown.
    pub fn quarantine(
        &mut self,
        queue: QueueId,
        place: Place,
    ) -> Result<crate::Ticket, crate::AppendError> {
        self.open_for_append()?;
        if self.is_live(place) {
            let offset = u64::from(place.offset) * 8;
            // A record that cannot be read does not tell its size either.
            let bytes = match place.bytes {
                0 => self.average_bytes(queue.0),
                bytes => bytes,
            };
            self.set_aside.keep(RawRange {
                segment: place.segment,
                generation: self.generation_of(place.segment),
                offset,
                bytes: None,
            });
            self.append_quarantined(&Quarantined {
                segment: place.segment,
                offset,
                bytes,
                queue: queue.0,
                ordinal: place.ordinal,
            });
        }
        Ok(self.writer.open_ticket())
    }

    /// Size of a queue's messages on average.
    fn average_bytes(&self, queue: u32) -> u32 {
        let row = self.state.queues.get(&queue);
        let bytes = row.map_or(0, |row| row.bytes / row.messages.max(1));
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    fn append_quarantined(&mut self, bad: &Quarantined) {
        self.settled_early.insert((bad.segment, bad.ordinal));
        self.make_room(64);
        self.writer
            .open
            .record(RecordKind::Quarantine, &bad.encode());
    }

    /// Takes note of references that an index misses.
    pub(crate) fn found_lost(&mut self, segment: u64, lost: &[u32]) {
        let live = lost.iter();
        let live = live.filter(|ordinal| self.is_live_reference(segment, **ordinal));
        let live = live.count() as u64;
        if live > 0 {
            let found = self.set_aside.found.entry(segment).or_default();
            *found = live.max(*found);
            self.set_aside.is_due = true;
        }
    }

    /// Copies damaged bytes, and finds out what lost references mean for the queues.
    pub(crate) fn poll_set_aside(&mut self) -> Option<Job> {
        for (segment, lost) in self.cache.take_lost() {
            self.found_lost(segment, &lost);
        }
        if self.now_ms < self.set_aside.retry_at_ms {
            return None;
        }
        if self.maintenance.is_full() {
            // The bytes stay where they are; there is no space for a second copy.
            self.set_aside.copies.clear();
        }
        if let Some(range) = self.set_aside.copies.pop_front() {
            let disk = Arc::clone(&self.disk);
            return Some(Job {
                work: Work::CopyRaw { disk, range },
            });
        }
        if !std::mem::take(&mut self.set_aside.is_due) {
            return None;
        }
        Some(Job {
            work: Work::Reconcile(self.reconcile()),
        })
    }

    fn reconcile(&self) -> Reconcile {
        let mut plans = Vec::new();
        let mut own: BTreeMap<u32, u64> = BTreeMap::new();
        for (number, segment) in &self.state.segments {
            if segment.live == 0 {
                continue;
            }
            if let Some(index) = self.indexes.get(number) {
                for (queue, live) in index.live_counts(&segment.settled) {
                    *own.entry(queue).or_default() += live;
                }
                continue;
            }
            plans.push(SegmentPlan {
                facts: self.facts_of(*number),
                source: self
                    .sealed_source(*number)
                    .unwrap_or(Source::Scan { last_index: None }),
                generation: self.generation_of(*number),
                only: None,
                settled: segment.settled.clone(),
            });
        }
        let queues = self.state.queues.iter();
        Reconcile {
            cache: Arc::clone(&self.cache),
            plans,
            own,
            queues: queues.map(|(queue, it)| (*queue, it.messages)).collect(),
        }
    }

    /// Lets the lost references leave the queues that miss them.
    pub(crate) fn reconciled(&mut self, found: Reconciled) {
        if self.open_for_append().is_err() {
            return;
        }
        for range in found.damaged {
            self.set_aside.keep(range);
        }
        let mut missing = found.missing;
        for (segment, ordinal) in found.lost {
            if !self.is_live_reference(segment, ordinal) {
                continue;
            }
            let queue = missing.first_entry().map_or(0, |mut entry| {
                *entry.get_mut() -= 1;
                match *entry.get() {
                    0 => entry.remove_entry().0,
                    _ => *entry.key(),
                }
            });
            self.append_quarantined(&Quarantined {
                segment,
                // Nobody can tell any more.
                offset: 0,
                bytes: self.average_bytes(queue),
                queue,
                ordinal,
            });
        }
    }
}
