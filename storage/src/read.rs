//! Reading messages back, off the engine's thread. Reading changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::bits::SettledBits;
use crate::disk::{Disk, DiskFile, OpenMode, read_range};
use crate::format::batch::{
    BatchPlace, FLAG_DURABLE, FLAG_MAYBE_DELIVERED, RECORD_HEADER_BYTES, Record, RecordKind,
    claimed_record_len,
};
use crate::format::footer::{Directory, DirectoryEntry, FOOTER_HEADER_BYTES, Trailer, decode_list};
use crate::format::payload::{IndexEntry, IndexMap};
use crate::format::segment::{data_name, side_index_name};
use crate::pairs::Pair;
use crate::scan::{BATCH_BYTES_MAX, SegmentFacts, SegmentLists, load_index};
use crate::survey::trailer_of;
use crate::types::{Cursor, Lsn, MessageFlags, Place, QueueId, ReadLimit, StoredMessage};

/// Open files kept by the reader.
const FILES_MAX: usize = 64;
/// Index entries kept by the reader, over all segments: 8 MiB.
const ENTRIES_MAX: usize = 1 << 20;
/// Records closer together than this are read in one go.
const GAP_BYTES: u64 = 8 << 10;
/// Bytes read in one go at most, unless one record is larger.
const SPAN_BYTES: u64 = 512 << 10;
/// Bytes read for a record of unknown length.
const GUESS_BYTES: u64 = 4 << 10;

/// Where the list of a queue in one segment comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Known already.
    Entries(Vec<IndexEntry>),
    /// The footer of the segment.
    Footer,
    /// A file beside the segment.
    SideIndex,
    /// Neither exists yet: read the segment.
    Scan { last_index: Option<u64> },
}

/// One segment of a read.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPlan {
    pub(crate) facts: SegmentFacts,
    pub(crate) source: Source,
    /// Which file holds it; see [`data_name`].
    pub(crate) generation: u64,
    /// Only these ordinals are wanted, ascending.
    pub(crate) only: Option<Vec<u32>>,
    pub(crate) settled: SettledBits,
}

/// What readers share: open files and lists of places.
#[derive(Debug)]
pub(crate) struct ReadCache {
    pub(crate) disk: Arc<dyn Disk>,
    salt: u64,
    unit: u64,
    /// Files that are read only when they are known to be whole.
    pub(crate) pairs: BTreeMap<u64, Pair>,
    inner: Mutex<Inner>,
    /// Lost references were found that the store has not heard of.
    has_news: AtomicBool,
}

type EntryList = Arc<Vec<IndexEntry>>;

/// A segment and the generation of its file.
type FileKey = (u64, u64);

/// What a list costs, in entries: an empty one is not free, and there may be one for each queue and
/// segment.
fn charge(list: &EntryList) -> usize {
    list.len() + 16
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<FileKey, Arc<dyn DiskFile>>,
    lists: BTreeMap<(FileKey, u32), EntryList>,
    /// References without a list, of segments that have such.
    lost: BTreeMap<u64, Arc<Vec<u32>>>,
    order: VecDeque<(FileKey, u32)>,
    entries: usize,
}

impl ReadCache {
    pub(crate) fn new(disk: Arc<dyn Disk>, salt: u64, unit: u64) -> Self {
        Self {
            disk,
            salt,
            unit,
            pairs: BTreeMap::new(),
            inner: Mutex::new(Inner::default()),
            has_news: AtomicBool::new(false),
        }
    }

    /// The salt of the store: what checksums begin with.
    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes what belongs to a segment that is about to be deleted.
    pub(crate) fn forget(&self, segment: u64) {
        self.with(|inner| {
            inner.files.retain(|key, _| key.0 != segment);
            inner.lost.remove(&segment);
            let Inner { lists, entries, .. } = inner;
            lists.retain(|key, list| {
                if key.0.0 == segment {
                    *entries -= charge(list);
                }
                key.0.0 != segment
            });
            inner.order.retain(|key| key.0.0 != segment);
        });
    }

    pub(crate) fn file(&self, segment: u64, generation: u64) -> io::Result<Arc<dyn DiskFile>> {
        let key = (segment, generation);
        if let Some(file) = self.with(|inner| inner.files.get(&key).cloned()) {
            return Ok(file);
        }
        let name = data_name(segment, generation);
        let file = self.disk.open(&name, OpenMode::Read)?;
        self.with(|inner| {
            if inner.files.len() >= FILES_MAX {
                inner.files.pop_first();
            }
            inner.files.insert(key, Arc::clone(&file));
        });
        Ok(file)
    }

    fn keep(&self, file: FileKey, queue: u32, list: &EntryList) {
        self.with(|inner| {
            inner.entries += charge(list);
            if let Some(old) = inner.lists.insert((file, queue), Arc::clone(list)) {
                inner.entries -= charge(&old);
            }
            inner.order.push_back((file, queue));
            while inner.entries > ENTRIES_MAX
                && let Some(key) = inner.order.pop_front()
            {
                if key != (file, queue)
                    && let Some(old) = inner.lists.remove(&key)
                {
                    inner.entries -= charge(&old);
                }
            }
        });
    }

    /// The places of a queue in a segment, in order.
    fn list(&self, queue: u32, plan: &SegmentPlan) -> io::Result<EntryList> {
        if let Source::Entries(entries) = &plan.source {
            return Ok(Arc::new(entries.clone()));
        }
        let list = self.whole_list(queue, plan)?;
        let Some(only) = &plan.only else {
            return Ok(list);
        };
        let wanted = |entry: &&IndexEntry| only.binary_search(&entry.ordinal).is_ok();
        Ok(Arc::new(list.iter().filter(wanted).copied().collect()))
    }

    fn whole_list(&self, queue: u32, plan: &SegmentPlan) -> io::Result<EntryList> {
        let segment = plan.facts.segment;
        let file = (segment, plan.generation);
        if let Some(list) = self.with(|inner| inner.lists.get(&(file, queue)).cloned()) {
            return Ok(list);
        }
        let indexed = match &plan.source {
            Source::Footer => self.list_of_index(queue, plan, &data_name(segment, plan.generation)),
            Source::SideIndex => self.list_of_index(queue, plan, &side_index_name(segment)),
            Source::Entries(_) | Source::Scan { .. } => Ok(None),
        };
        // A damaged or missing index is derived again from the log.
        if let Ok(Some(list)) = indexed {
            let list = Arc::new(list);
            self.keep(file, queue, &list);
            return Ok(list);
        }
        let SegmentLists { index, lost, .. } = self.scan(plan)?;
        self.found_lost(segment, lost);
        let mut found = Arc::default();
        for (number, entries) in index {
            let list = Arc::new(entries);
            self.keep(file, number, &list);
            if number == queue {
                found = list;
            }
        }
        self.keep(file, queue, &found);
        Ok(found)
    }

    /// Derives the index of a segment from its batches.
    fn scan(&self, plan: &SegmentPlan) -> io::Result<SegmentLists> {
        let last_index = match plan.source {
            Source::Scan { last_index } => last_index,
            _ => None,
        };
        let file = self.file(plan.facts.segment, plan.generation)?;
        let mut facts = plan.facts;
        if plan.generation > 0 {
            // It ends where its own trailer says, or where it can be read no more.
            let trailer = trailer_of(file.as_ref(), self.salt, facts.segment)?;
            facts.valid_bytes = match trailer {
                Some(trailer) => trailer.valid_bytes,
                None => file.bytes()?,
            };
        }
        load_index(file.as_ref(), &facts, self.salt, self.unit, last_index)
    }

    /// The lists of all queues, from wherever they can be had.
    pub(crate) fn whole(&self, plan: &SegmentPlan) -> io::Result<SegmentLists> {
        let segment = plan.facts.segment;
        let name = match &plan.source {
            Source::Footer => data_name(segment, plan.generation),
            Source::SideIndex => side_index_name(segment),
            Source::Entries(_) | Source::Scan { .. } => return self.scan(plan),
        };
        match self.whole_index(plan, &name) {
            Ok(Some(index)) => Ok(SegmentLists::new(index, plan.facts.references)),
            Ok(None) | Err(_) => self.scan(plan),
        }
    }

    fn whole_index(&self, plan: &SegmentPlan, name: &str) -> io::Result<Option<IndexMap>> {
        let file = self.disk.open(name, OpenMode::Read)?;
        let segment = plan.facts.segment;
        let Some((trailer, directory)) = self.directory_of(file.as_ref(), segment)? else {
            return Ok(None);
        };
        let mut index = IndexMap::new();
        for entry in directory.queues {
            match self.list_at(file.as_ref(), &trailer, entry)? {
                Some(list) => index.insert(entry.queue, list),
                None => return Ok(None),
            };
        }
        Ok(Some(index))
    }

    fn found_lost(&self, segment: u64, lost: Vec<u32>) {
        if !lost.is_empty() {
            self.with(|inner| inner.lost.insert(segment, Arc::new(lost)));
            self.has_news.store(true, Ordering::Release);
        }
    }

    /// References of a segment that no list has.
    fn lost(&self, segment: u64) -> Option<Arc<Vec<u32>>> {
        self.with(|inner| inner.lost.get(&segment).cloned())
    }

    /// The segments in which references were found lost since the last call.
    pub(crate) fn take_lost(&self) -> BTreeMap<u64, Arc<Vec<u32>>> {
        if !self.has_news.swap(false, Ordering::AcqRel) {
            return BTreeMap::new();
        }
        self.with(|inner| inner.lost.clone())
    }

    fn list_of_index(
        &self,
        queue: u32,
        plan: &SegmentPlan,
        name: &str,
    ) -> io::Result<Option<Vec<IndexEntry>>> {
        let file = self.disk.open(name, OpenMode::Read)?;
        let segment = plan.facts.segment;
        let Some((trailer, directory)) = self.directory_of(file.as_ref(), segment)? else {
            return Ok(None);
        };
        match directory.find(queue) {
            Some(entry) => self.list_at(file.as_ref(), &trailer, entry),
            None => Ok(Some(Vec::new())),
        }
    }

    fn list_at(
        &self,
        file: &dyn DiskFile,
        trailer: &Trailer,
        entry: DirectoryEntry,
    ) -> io::Result<Option<Vec<IndexEntry>>> {
        let DirectoryEntry { start, bytes, .. } = entry;
        if u64::from(start) + u64::from(bytes) > trailer.footer_bytes {
            return Ok(None);
        }
        let from = trailer.footer_offset + u64::from(start);
        let list = read_range(file, from, bytes as usize)?;
        let (epoch, segment) = (trailer.epoch, trailer.segment);
        Ok(decode_list(self.salt, epoch, segment, entry, &list))
    }

    fn directory_of(
        &self,
        file: &dyn DiskFile,
        segment: u64,
    ) -> io::Result<Option<(Trailer, Directory)>> {
        let Some(trailer) = trailer_of(file, self.salt, segment)? else {
            return Ok(None);
        };
        let directory = self.directory(file, &trailer)?;
        Ok(directory.map(|directory| (trailer, directory)))
    }

    fn directory(&self, file: &dyn DiskFile, trailer: &Trailer) -> io::Result<Option<Directory>> {
        let mut start = read_range(file, trailer.footer_offset, 4096)?;
        let Some(len) = Directory::encoded_bytes(&start) else {
            return Ok(None);
        };
        if len as u64 > trailer.footer_bytes.max(FOOTER_HEADER_BYTES as u64) {
            return Ok(None);
        }
        if start.len() < len {
            start = read_range(file, trailer.footer_offset, len)?;
        }
        Ok(Directory::decode(
            self.salt,
            trailer.epoch,
            trailer.segment,
            &start,
        ))
    }
}

/// References by segment and ordinal.
pub type LeftOut = Arc<BTreeSet<(u64, u32)>>;

/// A read, to be run on a thread that may block.
#[derive(Debug)]
pub struct ReadJob {
    pub(crate) cache: Arc<ReadCache>,
    pub(crate) queue: QueueId,
    pub(crate) from: Cursor,
    pub(crate) limit: ReadLimit,
    pub(crate) plans: Vec<SegmentPlan>,
    /// Where reading goes on behind the planned segments.
    pub(crate) beyond: Cursor,
    /// Nothing lies behind the planned segments.
    pub(crate) last: bool,
    /// A record that cannot be read is left out.
    pub(crate) skips_unreadable: bool,
    /// Records that are not even tried, by segment and ordinal.
    pub(crate) left_out: LeftOut,
    /// What was read in front of a record that cannot be read is given, and the cursor tells the rest.
    pub(crate) is_by_cursor: bool,
}

/// The result of a read.
#[derive(Clone, Debug)]
pub struct ReadDone {
    /// The queue that was read.
    pub queue: QueueId,
    /// Live messages in order of arrival.
    pub messages: Vec<StoredMessage>,
    /// Where to go on.
    pub next: Cursor,
    /// Nothing further was there when the read was asked for.
    pub end: bool,
    /// References whose record the operating system refuses to read, if the job skips such.
    pub unreadable: Vec<Place>,
    /// References whose record is damaged; give them to [`crate::Store::quarantine`].
    pub quarantined: Vec<Place>,
    /// References in the segments that were read that belong to no queue any more, because their
    /// records are damaged so badly. The store sets them aside by itself as soon as it has found
    /// out which queues miss them; until then they count in their queues.
    pub lost_references: u64,
    /// Says where references were lost, for an administrator.
    pub lost_text: Option<String>,
    /// The operating system refused to read; the same read may be tried again.
    pub error: Option<String>,
}

impl ReadDone {
    fn has_any(&self) -> bool {
        !(self.messages.is_empty() && self.quarantined.is_empty() && self.unreadable.is_empty())
    }
}

impl ReadJob {
    /// Reads on behind a record that the operating system refuses to read (`EIO`), and names it in
    /// [`ReadDone::unreadable`], instead of ending with an error. For a disk with a bad sector, after some
    /// tries; a network file system that is away refuses everything.
    #[must_use]
    pub fn skipping_unreadable(mut self) -> Self {
        self.skips_unreadable = true;
        self
    }

    /// Does not try to read these; they are named in [`ReadDone::unreadable`] as well.
    #[must_use]
    pub fn leaving_out(mut self, known: LeftOut) -> Self {
        self.left_out = known;
        self
    }

    /// Reads. Blocks as long as the disk takes; never panics.
    #[must_use]
    pub fn run(self) -> ReadDone {
        let mut done = ReadDone {
            queue: self.queue,
            messages: Vec::new(),
            next: self.from,
            end: false,
            unreadable: Vec::new(),
            quarantined: Vec::new(),
            lost_references: 0,
            lost_text: None,
            error: None,
        };
        let mut bytes = 0;
        for plan in &self.plans {
            let chosen = self.cache.chosen(plan);
            match chosen.and_then(|(plan, _)| self.read_segment(&plan, &mut done, &mut bytes)) {
                Ok(true) => {
                    done.next = Cursor {
                        segment: plan.facts.segment + 1,
                        ordinal: 0,
                    }
                }
                Ok(false) => return done,
                Err(error) => {
                    let name = data_name(plan.facts.segment, plan.generation);
                    done.error = Some(format!("reading {name} failed: {error}"));
                    return done;
                }
            }
        }
        done.next = self.beyond.max(done.next.min(self.beyond));
        done.end = self.last;
        done
    }

    /// Reads one segment's references; `false` when the limit was reached.
    fn read_segment(
        &self,
        plan: &SegmentPlan,
        done: &mut ReadDone,
        bytes: &mut usize,
    ) -> io::Result<bool> {
        let segment = plan.facts.segment;
        let list = self.cache.list(self.queue.0, plan)?;
        self.report_lost(plan, done);
        let from = if self.from.segment == segment {
            self.from.ordinal
        } else {
            0
        };
        let start = list.partition_point(|entry| entry.ordinal < from);
        let wanted = self.limit.messages.saturating_sub(done.messages.len()) + 1;
        let live: Vec<IndexEntry> = list
            .get(start..)
            .unwrap_or_default()
            .iter()
            .filter(|entry| !plan.settled.is_set(entry.ordinal))
            .take(wanted)
            .copied()
            .collect();
        if live.is_empty() {
            return Ok(true);
        }
        let file = self.cache.file(segment, plan.generation)?;
        let mut spans = Spans::new(file.as_ref(), &live);
        for entry in &live {
            if done.messages.len() >= self.limit.messages || *bytes >= self.limit.bytes {
                done.next = Cursor {
                    segment,
                    ordinal: entry.ordinal,
                };
                return Ok(false);
            }
            if self.left_out.contains(&(segment, entry.ordinal)) {
                spans.pass();
                done.unreadable.push(place_of(segment, *entry));
                continue;
            }
            match self.read_entry(plan, *entry, &mut spans) {
                Ok(Ok(message)) => {
                    *bytes += message.meta.len() + message.body.len();
                    done.messages.push(message);
                }
                Ok(Err(place)) => done.quarantined.push(place),
                Err(error) if self.skips_unreadable && is_refused(&error) => {
                    done.unreadable.push(place_of(segment, *entry));
                }
                Err(_) if self.is_by_cursor && done.has_any() => {
                    done.next = Cursor {
                        segment,
                        ordinal: entry.ordinal,
                    };
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        match live.last() {
            // Damaged ones took places of those that follow.
            Some(last) if live.len() == wanted => {
                done.next = Cursor {
                    segment,
                    ordinal: last.ordinal + 1,
                };
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn report_lost(&self, plan: &SegmentPlan, done: &mut ReadDone) {
        let segment = plan.facts.segment;
        let Some(lost) = self.cache.lost(segment) else {
            return;
        };
        let live = lost.iter().filter(|it| !plan.settled.is_set(**it)).count();
        if live > 0 {
            done.lost_references += live as u64;
            let name = data_name(segment, plan.generation);
            let text =
                format!("{name}: {live} references cannot be read, damage hides their queues");
            let all = done
                .lost_text
                .take()
                .map(|before| format!("{before}; {text}"));
            done.lost_text = Some(all.unwrap_or(text));
        }
    }

    fn read_entry(
        &self,
        plan: &SegmentPlan,
        entry: IndexEntry,
        spans: &mut Spans<'_>,
    ) -> io::Result<Result<StoredMessage, Place>> {
        let facts = &plan.facts;
        let offset = u64::from(entry.offset) * 8;
        let raw = spans.record(offset)?;
        let place = BatchPlace {
            salt: self.cache.salt,
            epoch: facts.epoch,
            segment: facts.segment,
            offset,
        };
        let ordinal = entry.ordinal;
        let mut found = place_of(facts.segment, entry);
        let Some(record) = Record::parse_verified(place, &raw) else {
            return Ok(Err(found));
        };
        let ours = ordinal
            .checked_sub(record.ordinal)
            .map(|route| route as usize);
        let queue = ours.and_then(|route| record.routes().nth(route));
        if record.kind != Some(RecordKind::Message) || queue != Some(self.queue.0) {
            return Ok(Err(found));
        }
        found.bytes = record.counted_bytes();
        let range = |part: &[u8]| {
            let at = part.as_ptr() as usize - raw.as_ptr() as usize;
            raw.slice(at..at + part.len())
        };
        Ok(Ok(StoredMessage {
            lsn: Lsn(record.lsn),
            place: found,
            queue: self.queue,
            flags: MessageFlags {
                durable: record.flags & FLAG_DURABLE != 0,
                maybe_delivered: record.flags & FLAG_MAYBE_DELIVERED != 0,
            },
            meta: range(record.meta),
            body: range(record.body),
        }))
    }
}

/// The place of a record that is not read yet.
fn place_of(segment: u64, entry: IndexEntry) -> Place {
    Place {
        segment,
        ordinal: entry.ordinal,
        offset: entry.offset,
        bytes: 0,
    }
}

/// Whether a disk cannot read what stands there.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EIO)
}

/// Reads records of one file, neighbours in one go.
pub(crate) struct Spans<'f> {
    file: &'f dyn DiskFile,
    /// Reads nothing but the record that is wanted: the disk refused more.
    is_narrow: bool,
    offsets: Vec<u64>,
    at: usize,
    start: u64,
    bytes: Bytes,
}

impl<'f> Spans<'f> {
    pub(crate) fn new(file: &'f dyn DiskFile, entries: &[IndexEntry]) -> Self {
        let offsets = entries
            .iter()
            .map(|entry| u64::from(entry.offset) * 8)
            .collect();
        Self {
            file,
            is_narrow: false,
            offsets,
            at: 0,
            start: 0,
            bytes: Bytes::new(),
        }
    }

    /// The bytes of the record at an offset; offsets come in the order given to `new`.
    pub(crate) fn record(&mut self, offset: u64) -> io::Result<Bytes> {
        if let Some(record) = self.within(offset) {
            self.at += 1;
            return Ok(record);
        }
        match self.load_span(offset) {
            // A bad sector must not cost what stands beside it.
            Err(error) if is_refused(&error) => self.is_narrow = true,
            other => other?,
        }
        self.at += 1;
        if self.is_narrow {
            self.load(offset, offset + RECORD_HEADER_BYTES as u64)?;
            let len = claimed_record_len(&self.bytes).min(BATCH_BYTES_MAX);
            self.load(offset, offset + len.max(RECORD_HEADER_BYTES) as u64)?;
        }
        // A record that claims more than the file holds fails its check.
        Ok(self.within(offset).unwrap_or_else(|| self.bytes.clone()))
    }

    /// Goes on to the next record.
    fn pass(&mut self) {
        self.at += 1;
    }

    /// Reads a record, and its neighbours if they are close.
    fn load_span(&mut self, offset: u64) -> io::Result<()> {
        if self.is_narrow {
            return Ok(());
        }
        let mut end = offset + GUESS_BYTES;
        for next in self.offsets.get(self.at + 1..).unwrap_or_default() {
            if *next > end + GAP_BYTES || *next < offset || next + GUESS_BYTES > offset + SPAN_BYTES
            {
                break;
            }
            end = end.max(next + GUESS_BYTES);
        }
        self.load(offset, end)?;
        if self.within(offset).is_none() {
            let len = claimed_record_len(&self.bytes).min(BATCH_BYTES_MAX);
            if len > RECORD_HEADER_BYTES {
                self.load(offset, offset + len as u64)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, from: u64, to: u64) -> io::Result<()> {
        let len = usize::try_from(to - from).unwrap_or(0);
        self.bytes = Bytes::from(read_range(self.file, from, len)?);
        self.start = from;
        Ok(())
    }

    fn within(&self, offset: u64) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let rest = self.bytes.get(at..)?;
        let len = claimed_record_len(rest);
        (len >= RECORD_HEADER_BYTES && len <= rest.len()).then(|| self.bytes.slice(at..at + len))
    }
}
