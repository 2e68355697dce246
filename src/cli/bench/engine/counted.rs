//! A disk that counts what the store writes, by what it is for, and times the log.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use steadfast_storage::disk::{Disk, DiskFile, Entry, FileSystem, OpenMode};

/// Bytes written for each purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli::bench) struct Written {
    /// Batches of the log with their padding; index records and snapshots are in them.
    pub(in crate::cli::bench) log: u64,
    /// Zeros that a segment is filled with before it is used.
    pub(in crate::cli::bench) zeros: u64,
    /// Headers, footers and trailers of segments, and indexes beside segments.
    pub(in crate::cli::bench) footers: u64,
    /// The checkpoint file.
    pub(in crate::cli::bench) checkpoint: u64,
    /// Files that stand for segments of which little was live.
    pub(in crate::cli::bench) compaction: u64,
    /// The file that a full disk is survived with.
    pub(in crate::cli::bench) reserve: u64,
    /// Anything else.
    pub(in crate::cli::bench) other: u64,
}

impl Written {
    /// All of it.
    pub(in crate::cli::bench) fn total(&self) -> u64 {
        self.without_zeros() + self.zeros
    }

    /// What would be written without zeros.
    pub(in crate::cli::bench) fn without_zeros(&self) -> u64 {
        self.log + self.beside_log()
    }

    /// What is neither log nor zeros.
    pub(in crate::cli::bench) fn beside_log(&self) -> u64 {
        self.footers + self.checkpoint + self.compaction + self.reserve + self.other
    }

    /// Both together.
    pub(in crate::cli::bench) fn plus(&self, other: &Self) -> Self {
        Self {
            log: self.log + other.log,
            zeros: self.zeros + other.zeros,
            footers: self.footers + other.footers,
            checkpoint: self.checkpoint + other.checkpoint,
            compaction: self.compaction + other.compaction,
            reserve: self.reserve + other.reserve,
            other: self.other + other.other,
        }
    }

    /// What was written after `earlier` was taken.
    pub(in crate::cli::bench) fn since(&self, earlier: &Self) -> Self {
        Self {
            log: self.log - earlier.log,
            zeros: self.zeros - earlier.zeros,
            footers: self.footers - earlier.footers,
            checkpoint: self.checkpoint - earlier.checkpoint,
            compaction: self.compaction - earlier.compaction,
            reserve: self.reserve - earlier.reserve,
            other: self.other - earlier.other,
        }
    }
}

/// What was counted when the log moved to a segment.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli::bench) struct Roll {
    /// Bytes prepared for the segment; 0 where none are.
    pub(in crate::cli::bench) capacity: u64,
    /// Body bytes appended until then.
    pub(in crate::cli::bench) body: u64,
    pub(in crate::cli::bench) written: Written,
}

/// The writes of the log.
#[derive(Debug)]
pub(in crate::cli::bench) struct LogTimes {
    /// Bytes of each write, in order.
    pub(in crate::cli::bench) sizes: Vec<u32>,
    /// Time of each write with its sync, in us.
    pub(in crate::cli::bench) took_us: Histogram<u64>,
    /// All of them together.
    pub(in crate::cli::bench) busy: Duration,
    /// Time from the end of each to the beginning of the next, in us.
    pub(in crate::cli::bench) gap_us: Histogram<u64>,
    ended: Option<Instant>,
}

/// Counters that the disk and whoever looks at it share.
#[derive(Debug)]
pub(in crate::cli::bench) struct Counts {
    written: Mutex<Written>,
    rolls: Mutex<Vec<Roll>>,
    log: Mutex<LogTimes>,
    /// Body bytes of the messages appended, counted by whoever appends.
    pub(in crate::cli::bench) body: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogTimes {
    /// Counts from here.
    pub(in crate::cli::bench) fn reset(&mut self) {
        self.sizes.clear();
        self.took_us.reset();
        self.busy = Duration::ZERO;
        self.gap_us.reset();
        self.ended = None;
    }

    fn begins(&self, now: Instant) -> Option<u64> {
        let gap = now.duration_since(self.ended?);
        Some(u64::try_from(gap.as_micros()).unwrap_or(u64::MAX))
    }

    fn record(&mut self, began: Instant, gap_us: Option<u64>, bytes: u32) {
        let now = Instant::now();
        let took = now.duration_since(began);
        self.sizes.push(bytes);
        self.busy += took;
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took_us.saturating_record(took_us);
        if let Some(gap_us) = gap_us {
            self.gap_us.saturating_record(gap_us);
        }
        self.ended = Some(now);
    }
}

impl Counts {
    pub(super) fn new(none: Histogram<u64>) -> Self {
        Self {
            written: Mutex::default(),
            rolls: Mutex::default(),
            log: Mutex::new(LogTimes {
                sizes: Vec::new(),
                took_us: none.clone(),
                busy: Duration::ZERO,
                gap_us: none,
                ended: None,
            }),
            body: AtomicU64::new(0),
        }
    }

    /// What was written so far.
    pub(in crate::cli::bench) fn written(&self) -> Written {
        *locked(&self.written)
    }

    /// The moves of the log to further segments so far.
    pub(in crate::cli::bench) fn rolls(&self) -> Vec<Roll> {
        locked(&self.rolls).clone()
    }

    /// The writes of the log, to read and to reset.
    pub(in crate::cli::bench) fn log(&self) -> MutexGuard<'_, LogTimes> {
        locked(&self.log)
    }

    fn count(&self, purpose: Purpose, data: &[u8]) {
        let bytes = data.len() as u64;
        let mut written = locked(&self.written);
        match purpose {
            Purpose::Segment if data.starts_with(b"SFB1") => written.log += bytes,
            Purpose::Segment if data.iter().all(|byte| *byte == 0) => written.zeros += bytes,
            Purpose::Segment if data.starts_with(b"STFSEG01") => {
                let capacity = data.get(32..40).and_then(|bytes| bytes.try_into().ok());
                locked(&self.rolls).push(Roll {
                    capacity: capacity.map_or(0, u64::from_le_bytes),
                    body: self.body.load(Ordering::Relaxed),
                    written: *written,
                });
                written.footers += bytes;
            }
            Purpose::Segment | Purpose::SideIndex => written.footers += bytes,
            Purpose::Checkpoint => written.checkpoint += bytes,
            Purpose::Compaction => written.compaction += bytes,
            Purpose::Reserve => written.reserve += bytes,
            Purpose::Other => written.other += bytes,
        }
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Segment,
    SideIndex,
    Checkpoint,
    Compaction,
    Reserve,
    Other,
}

impl Purpose {
    fn of(name: &str) -> Self {
        let plain = name.strip_suffix(".tmp").unwrap_or(name);
        match plain.rsplit('.').next() {
            Some("seg" | "first") => Self::Segment,
            Some("idx") => Self::SideIndex,
            Some("redb") => Self::Checkpoint,
            Some("cmp") => Self::Compaction,
            Some("RESERVE") => Self::Reserve,
            _ => Self::Other,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct CountedDisk {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) counts: Arc<Counts>,
    /// Behave as on a network file system: no zeros ahead.
    pub(super) is_network: bool,
    /// Pretend that the disk has so many bytes in all.
    pub(super) budget_bytes: Option<u64>,
}

impl Disk for CountedDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.disk.list()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountedFile {
            file: self.disk.open(name, mode)?,
            purpose: Purpose::of(name),
            counts: Arc::clone(&self.counts),
            log_began: Mutex::new(None),
        }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn file_system(&self) -> FileSystem {
        match self.is_network {
            true => FileSystem::Nfs { lease_s: None },
            false => self.disk.file_system(),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let Some(budget) = self.budget_bytes else {
            return self.disk.free_bytes();
        };
        let used: u64 = self.disk.list()?.iter().map(|entry| entry.bytes).sum();
        Ok(budget.saturating_sub(used))
    }

    fn boot_ms(&self) -> u64 {
        self.disk.boot_ms()
    }

    fn pause_ms(&self, ms: u64) {
        self.disk.pause_ms(ms);
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn DiskFile>,
    purpose: Purpose,
    counts: Arc<Counts>,
    /// When the batch was written that waits for its sync, how long after the last one, and its length.
    log_began: Mutex<Option<(Instant, Option<u64>, u32)>>,
}

impl DiskFile for CountedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counts.count(self.purpose, data);
        if self.purpose == Purpose::Segment && data.starts_with(b"SFB1") {
            let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let now = Instant::now();
            *locked(&self.log_began) = Some((now, self.counts.log().begins(now), bytes));
        }
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.file.sync();
        if let Some((began, gap_us, bytes)) = locked(&self.log_began).take() {
            self.counts.log().record(began, gap_us, bytes);
        }
        synced
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_bytes(bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn is_locked_elsewhere(&self) -> io::Result<bool> {
        self.file.is_locked_elsewhere()
    }

    fn identity(&self) -> io::Result<u64> {
        self.file.identity()
    }
}

#[cfg(test)]
mod tests {
    use super::Purpose;

    #[test]
    fn each_file_has_its_purpose() {
        for (name, purpose) in [
            ("0000000042.seg", Purpose::Segment),
            ("0000000042.seg.tmp", Purpose::Segment),
            ("0000000042.seg.first.tmp", Purpose::Segment),
            ("0000000042.idx.tmp", Purpose::SideIndex),
            ("0000000042.1.cmp.tmp", Purpose::Compaction),
            ("index.0000000040.redb.tmp", Purpose::Checkpoint),
            ("index.0000000040.redb", Purpose::Checkpoint),
            ("RESERVE", Purpose::Reserve),
            ("LOCK", Purpose::Other),
        ] {
            assert_eq!(Purpose::of(name), purpose, "{name}");
        }
    }
}
