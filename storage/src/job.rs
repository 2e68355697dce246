//! The blocking work of the store, to be run on threads that belong to its user.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::CheckpointFile;
use crate::compact::{Compacted, Compaction};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{FatalError, is_no_space};
use crate::format::footer::{TRAILER_BYTES, Trailer, encode_footer};
use crate::format::payload::IndexMap;
use crate::format::segment::{RESERVE_NAME, SegmentHeader, segment_name, side_index_name};
use crate::format::{FIRST_BATCH_OFFSET, align_up};
use crate::rows::TableRow;
use crate::scan::{SegmentFacts, load_index};
use crate::setaside::{RawRange, Reconcile, Reconciled};
use crate::types::Ticket;

/// Which thread runs a job. At most one job of a lane is under way at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Writing and syncing the log: the path of every confirm.
    Log,
    /// Writing the checkpoint file.
    Checkpoint,
    /// Making, indexing and deleting segments.
    Prepare,
    /// Making segments small of which little is live.
    Compact,
}

/// Blocking work. Run it on a thread of its lane and give the result to
/// [`crate::Store::complete`].
#[derive(Debug)]
pub struct Job {
    pub(crate) work: Work,
}

/// The result of a job.
#[derive(Debug)]
pub struct JobDone {
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Work {
    Commit(Commit),
    Checkpoint {
        disk: Arc<dyn Disk>,
        file: Arc<CheckpointFile>,
        rows: Vec<TableRow>,
    },
    Create {
        disk: Arc<dyn Disk>,
        segment: u64,
        /// Free space without which it is not begun.
        free_bytes_min: u64,
    },
    Zero {
        disk: Arc<dyn Disk>,
        segment: u64,
        file: Arc<dyn DiskFile>,
        from: u64,
        to: u64,
        /// It may have the reserve.
        is_urgent: bool,
    },
    Publish {
        disk: Arc<dyn Disk>,
        segment: u64,
        file: Arc<dyn DiskFile>,
    },
    Footer(Footer),
    SideIndex {
        disk: Arc<dyn Disk>,
        facts: SegmentFacts,
        /// Its salt and unit.
        store: (u64, u64),
        last_index: Option<u64>,
        /// Its epoch tells the file that is being made from that of another owner.
        owner: u64,
    },
    Reconcile(Reconcile),
    Compact(Compaction),
    CopyRaw {
        disk: Arc<dyn Disk>,
        range: RawRange,
    },
    Remove {
        disk: Arc<dyn Disk>,
        names: Vec<String>,
    },
    Reserve {
        disk: Arc<dyn Disk>,
        from: u64,
        to: u64,
    },
    Space {
        disk: Arc<dyn Disk>,
    },
}

/// One batch on its way to the disk.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) segment: u64,
    /// The segment's header, with the first batch in it.
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    pub(crate) ticket: Ticket,
    /// When the job was handed out: the fence counts from here.
    pub(crate) started_ms: u64,
}

/// Sealing a segment that its owner has left.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) salt: u64,
    pub(crate) facts: SegmentFacts,
    pub(crate) index: Arc<IndexMap>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Committed {
        ticket: Ticket,
        bytes: Bytes,
        segment: u64,
        offset: u64,
        started_ms: u64,
    },
    CommitFailed(FatalError),
    /// There is no space for it. Nothing of it is confirmed, so the same bytes may be written again
    /// at the same place.
    CommitRefused(Commit),
    Checkpointed(io::Result<()>),
    Created {
        segment: u64,
        result: io::Result<Arc<dyn DiskFile>>,
    },
    Zeroed {
        to: u64,
        /// The reserve was given up for it.
        took_reserve: bool,
        result: io::Result<()>,
    },
    Published {
        segment: u64,
        result: io::Result<()>,
    },
    Sealed {
        segment: u64,
        result: io::Result<()>,
    },
    SideIndexed {
        segment: u64,
        /// The references that are lost.
        result: io::Result<Vec<u32>>,
    },
    Reconciled(io::Result<Reconciled>),
    Compacted(io::Result<Compacted>),
    CopiedRaw,
    Removed,
    Reserved {
        to: u64,
        result: io::Result<()>,
    },
    Space(u64),
}

impl Job {
    /// The thread that it belongs to.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self.work {
            Work::Commit(_) => Lane::Log,
            Work::Checkpoint { .. } => Lane::Checkpoint,
            Work::Compact(_) => Lane::Compact,
            _ => Lane::Prepare,
        }
    }

    /// Does the work. Blocks as long as the disk takes; never panics.
    #[must_use]
    pub fn run(self) -> JobDone {
        let outcome = match self.work {
            Work::Commit(commit) => commit.run(),
            Work::Checkpoint { disk, file, rows } => {
                Outcome::Checkpointed(file.write(disk.as_ref(), &rows))
            }
            Work::Create {
                disk,
                segment,
                free_bytes_min,
            } => Outcome::Created {
                segment,
                result: create_if_free(disk.as_ref(), segment, free_bytes_min),
            },
            Work::Zero {
                disk,
                segment,
                file,
                from,
                to,
                is_urgent,
            } => {
                let attempt = || zero(file.as_ref(), from, to);
                let (result, took_reserve) = match is_urgent {
                    true => with_reserve(disk.as_ref(), attempt),
                    false => (attempt(), false),
                };
                if result.is_err() {
                    // Half a segment helps nobody and takes space.
                    let _ = disk.remove(&temporary_name(segment));
                }
                Outcome::Zeroed {
                    to,
                    took_reserve,
                    result,
                }
            }
            Work::Publish {
                disk,
                segment,
                file,
            } => {
                let name = temporary_name(segment);
                let result = publish(disk.as_ref(), &name, segment, file.as_ref());
                let result = result.and_then(|()| disk.sync_dir());
                Outcome::Published { segment, result }
            }
            Work::Footer(footer) => footer.outcome(),
            Work::SideIndex {
                disk,
                facts,
                store,
                last_index,
                owner,
            } => Outcome::SideIndexed {
                segment: facts.segment,
                result: write_side_index(disk.as_ref(), &facts, store, last_index, owner),
            },
            Work::Reconcile(reconcile) => Outcome::Reconciled(reconcile.run()),
            Work::Compact(compaction) => Outcome::Compacted(compaction.run()),
            Work::CopyRaw { disk, range } => {
                // The bytes are for people; the store does not need them.
                let _ = range.copy(disk.as_ref());
                Outcome::CopiedRaw
            }
            Work::Remove { disk, names } => {
                // What cannot be removed now is found again by the next owner.
                names.iter().for_each(|name| drop(disk.remove(name)));
                Outcome::Removed
            }
            Work::Reserve { disk, from, to } => {
                let file = disk.open(RESERVE_NAME, OpenMode::CreateOrWrite);
                let result = file.and_then(|file| zero(file.as_ref(), from, to));
                Outcome::Reserved { to, result }
            }
            Work::Space { disk } => Outcome::Space(disk.free_bytes().unwrap_or(u64::MAX)),
        };
        JobDone { outcome }
    }
}

impl Commit {
    fn run(self) -> Outcome {
        if let Err((what, error)) = self.write() {
            if is_no_space(&error) {
                return Outcome::CommitRefused(self);
            }
            let file = segment_name(self.segment);
            return Outcome::CommitFailed(FatalError::io(what, &file, &error));
        }
        Outcome::Committed {
            ticket: self.ticket,
            bytes: self.bytes,
            segment: self.segment,
            offset: self.offset,
            started_ms: self.started_ms,
        }
    }

    fn write(&self) -> Result<(), (&'static str, io::Error)> {
        if let Some(header) = &self.header {
            let written = self.file.write_at(0, &header.encode());
            written.map_err(|error| ("writing the header of a segment failed", error))?;
        }
        let written = self.file.write_at(self.offset, &self.bytes);
        written.map_err(|error| ("writing to the log failed", error))?;
        let synced = self.file.sync();
        synced.map_err(|error| ("syncing the log failed", error))
    }
}

/// The name under which a segment is made, before anybody can see it.
pub(crate) fn temporary_name(segment: u64) -> String {
    format!("{segment:010}.seg.tmp")
}

/// Creates a segment under a temporary name and locks it.
pub(crate) fn create(disk: &dyn Disk, name: &str) -> io::Result<Arc<dyn DiskFile>> {
    // A leftover of somebody who died may still be open elsewhere: never write into it. Nor into the file of
    // somebody who makes the same segment now, where locks do not exclude.
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(name, OpenMode::CreateNew)?;
    if file.try_lock()? {
        return Ok(file);
    }
    Err(io::Error::other("another server makes the same segment"))
}

fn create_if_free(disk: &dyn Disk, segment: u64, free_min: u64) -> io::Result<Arc<dyn DiskFile>> {
    if disk.free_bytes().is_ok_and(|free| free < free_min) {
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    create(disk, &temporary_name(segment))
}

/// Writes zeros and makes them durable.
pub(crate) fn zero(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    write_zeros(file, from, to)?;
    file.sync()
}

/// Writes zeros.
pub(crate) fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let n = (to - at).min(ZEROS.len() as u64);
        let slice = usize::try_from(n)
            .ok()
            .and_then(|n| ZEROS.get(..n))
            .unwrap_or(&ZEROS);
        file.write_at(at, slice)?;
        at += n;
    }
    Ok(())
}

/// Where there is no space, gives up the reserve and tries again; says whether it did. This is what the
/// reserve was made for.
pub(crate) fn with_reserve<T>(
    disk: &dyn Disk,
    attempt: impl Fn() -> io::Result<T>,
) -> (io::Result<T>, bool) {
    match attempt() {
        Err(error) if is_no_space(&error) => {
            let _ = disk.remove(RESERVE_NAME);
            (attempt(), true)
        }
        result => (result, false),
    }
}

/// Gives a prepared segment its number; fails when somebody else has taken it. May be repeated. The
/// name is durable once the directory is synced.
pub(crate) fn publish(
    disk: &dyn Disk,
    temporary: &str,
    segment: u64,
    file: &dyn DiskFile,
) -> io::Result<()> {
    let name = segment_name(segment);
    let is_ours = || -> io::Result<bool> {
        let named = disk.open(&name, OpenMode::Read)?;
        Ok(named.identity()? == file.identity()?)
    };
    match disk.link(temporary, &name) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
            ) && is_ours().unwrap_or(false) => {}
        linked => linked?,
    }
    // Somebody else may have put a file of his own under the temporary name, and that is what was linked.
    if !is_ours()? {
        let what = "another server makes the same segment";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    // A second name does no harm; the next owner removes it.
    let _ = disk.remove(temporary);
    Ok(())
}

impl Footer {
    fn outcome(&self) -> Outcome {
        Outcome::Sealed {
            segment: self.facts.segment,
            result: self.run(),
        }
    }

    pub(crate) fn run(&self) -> io::Result<()> {
        let facts = &self.facts;
        let bytes = encode_footer(self.salt, facts.epoch, facts.segment, &self.index);
        let offset = align_up(facts.valid_bytes, FIRST_BATCH_OFFSET);
        // The trailer gets a sector of its own in the last bytes of the file.
        let end = align_up(offset + bytes.len() as u64, 512) + 512;
        let end = end.max(self.file.bytes()?);
        self.file.write_at(offset, &bytes)?;
        self.file.sync()?;
        let trailer = facts.trailer(offset, bytes.len() as u64).encode(self.salt);
        self.file.write_at(end - TRAILER_BYTES as u64, &trailer)?;
        self.file.sync()
    }
}

impl SegmentFacts {
    fn trailer(&self, footer_offset: u64, footer_bytes: u64) -> Trailer {
        Trailer {
            segment: self.segment,
            epoch: self.epoch,
            footer_offset,
            footer_bytes,
            valid_bytes: self.valid_bytes,
            last_lsn: self.last_lsn,
            chain_crc: self.chain_crc,
            references: self.references,
        }
    }
}

/// Indexes a segment whose owner died, into a file beside it. Gives the references that are lost.
fn write_side_index(
    disk: &dyn Disk,
    facts: &SegmentFacts,
    (salt, unit): (u64, u64),
    last_index: Option<u64>,
    owner: u64,
) -> io::Result<Vec<u32>> {
    let file = disk.open(&segment_name(facts.segment), OpenMode::Read)?;
    let lists = load_index(file.as_ref(), facts, salt, unit, last_index)?;
    let bytes = encode_footer(salt, facts.epoch, facts.segment, &lists.index);
    let trailer = facts.trailer(0, bytes.len() as u64).encode(salt);
    let name = side_index_name(facts.segment);
    let temporary = format!("{name}.{owner}.tmp");
    let write = || -> io::Result<()> {
        let file = disk.open(&temporary, OpenMode::CreateEmpty)?;
        file.write_at(0, &bytes)?;
        file.write_at(bytes.len() as u64, &trailer)?;
        file.sync()?;
        disk.rename(&temporary, &name)?;
        disk.sync_dir()
    };
    write().inspect_err(|_| {
        let _ = disk.remove(&temporary);
    })?;
    Ok(lists.lost)
}
