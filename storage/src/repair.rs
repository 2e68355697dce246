//! Repair: the only thing that drops data of a store, and only when it is told to.
//!
//! A repair is a takeover to which nothing is a reason to refuse. It begins with the newest state that
//! can be had, applies what is left of the log, seals it, sets aside what cannot be read, writes a
//! snapshot and a checkpoint, and copies what waits in damaged segments into files of their own, as
//! compaction does. So the repaired store is an ordinary one. Before anything is changed, each file that
//! will go gets a second name in a folder `repair-0001` (or the next free number), with a list of what is
//! dropped; the store never reads it, people may delete it.

mod base;
mod plan;
mod salt;
mod view;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use base::Unreadable;
pub(crate) use base::{Losses, unreadable};

use crate::compact::Compaction;
use crate::disk::{Disk, OpenMode};
use crate::error::OpenError;
use crate::format::segment::{
    LOCK_NAME, compact_of, data_name, segment_name, segment_of, side_index_of,
};
use crate::inspect::{Finding, UserRows, verify};
use crate::open::{Acquire, Means, Ownership, guard, try_acquire};
use crate::options::StoreOptions;
use crate::store::Store;
use crate::types::{Place, QueueId};
use plan::{Plan, plan};

/// The list of what was dropped, in the folder with the copies.
const LIST_NAME: &str = "dropped.txt";
/// A repair that gets no further for this time gives up, in ms.
const PATIENCE_MS: u64 = 60_000;
/// Time between two looks for work that is due later, in ms.
const STEP_MS: u64 = 5;

/// No segment is begun below this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NumberMin(pub(crate) u64);

/// Something that the store has no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The file that it stood in.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// Its length in bytes; 0 where that is not known, or for a whole file.
    pub bytes: u64,
    /// The queue's number, where it is known.
    pub queue: Option<u32>,
    /// Messages that waited in it, as far as known.
    pub messages: u64,
    /// What it was, and why it cannot stay.
    pub what: String,
}

impl Dropped {
    fn of(file: &str, offset: u64, what: String) -> Self {
        Self {
            file: file.to_owned(),
            offset,
            bytes: 0,
            queue: None,
            messages: 0,
            what,
        }
    }

    fn message(one: &Unreadable) -> Self {
        let file = data_name(one.segment, one.generation);
        let what = format!("the message with ordinal {} cannot be read", one.ordinal);
        Self {
            messages: 1,
            queue: Some(one.queue),
            ..Self::of(&file, one.offset, what)
        }
    }

    fn references(segment: u64, lost: &[u32]) -> Self {
        let what = "references whose records are damaged; nobody can tell their queues any more";
        Self {
            messages: lost.len() as u64,
            ..Self::of(&segment_name(segment), 0, what.to_owned())
        }
    }

    /// In one line, with what `queue_name` calls the queue.
    #[must_use]
    pub fn describe(&self, queue_name: &dyn Fn(u32) -> String) -> String {
        let mut text = format!("{} at {}", self.file, self.offset);
        if self.bytes > 0 {
            text += &format!(", {} bytes", self.bytes);
        }
        if let Some(queue) = self.queue {
            text += &format!(", queue {}", queue_name(queue));
        }
        if self.messages > 0 {
            text += &format!(", {} messages", self.messages);
        }
        format!("{text}: {}", self.what)
    }
}

/// Something else that has to be known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The queue's number, where it is about one.
    pub queue: Option<u32>,
    /// What it is; of a queue, that follows its name.
    pub what: String,
}

impl Note {
    /// In one line, with what `queue_name` calls the queue.
    #[must_use]
    pub fn describe(&self, queue_name: &dyn Fn(u32) -> String) -> String {
        match self.queue {
            Some(queue) => format!("queue {} {}", queue_name(queue), self.what),
            None => self.what.clone(),
        }
    }
}

/// What a repair did, or would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Something is damaged; if not, nothing was done and nothing changed.
    pub is_needed: bool,
    /// The store was changed.
    pub is_done: bool,
    /// Why no server opened the store as it was.
    pub refusal: Option<String>,
    /// What was wrong.
    pub findings: Vec<Finding>,
    /// What is served no more.
    pub dropped: Vec<Dropped>,
    /// What else has to be known.
    pub notes: Vec<Note>,
    /// The folder in the store's directory with the copies and the list.
    pub folder: Option<String>,
    /// The files of which copies are there.
    pub kept: Vec<String>,
    /// Messages that wait after the repair, over all queues.
    pub messages: u64,
    /// What is still damaged after the repair; empty unless it was interrupted by a failing disk.
    pub remaining: Vec<Finding>,
    /// The rows of the store's user, as far as they are left.
    pub rows: UserRows,
}

/// Looks for what keeps a store from being whole and, with `accept_data_loss`, repairs it. Without that it
/// changes nothing.
///
/// # Errors
/// [`OpenError::Busy`] while a server owns the store; [`OpenError::Damaged`] for a store of a newer
/// program; [`OpenError::Io`] when the disk fails or is full: where that happened before the copies were
/// complete nothing was changed, and otherwise the repair can be run again.
pub fn repair(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    accept_data_loss: bool,
) -> Result<RepairReport, OpenError> {
    let named = disk.open(LOCK_NAME, OpenMode::Read);
    let is_locked_by_nobody =
        named.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && !accept_data_loss;
    // A look makes no file: without a lock there is no owner.
    let ownership = match is_locked_by_nobody {
        true => None,
        false => match try_acquire(Arc::clone(disk), "")? {
            Acquire::Owned(ownership) => Some(ownership),
            Acquire::Busy(holder) => return Err(OpenError::Busy(holder)),
        },
    };
    guard(disk.as_ref(), options)?;
    let mut plan = plan(disk, options)?;
    let mut report = RepairReport {
        is_needed: plan.is_needed(),
        refusal: plan.refusal.clone(),
        findings: plan.findings.clone(),
        dropped: plan.dropped.clone(),
        notes: plan.notes.clone(),
        messages: plan.messages,
        rows: std::mem::take(&mut plan.rows),
        ..RepairReport::default()
    };
    let Some(ownership) = ownership.filter(|_| report.is_needed && accept_data_loss) else {
        return Ok(report);
    };
    let kept = files_to_keep(disk.as_ref(), &plan)?;
    let folder = keep(disk.as_ref(), &kept, &report).map_err(|error| {
        OpenError::io(
            "keeping copies failed, nothing was changed",
            "repair",
            error,
        )
    })?;
    put_away(disk.as_ref(), &plan)
        .map_err(|error| OpenError::io("putting files away failed", &folder, error))?;
    let mut kept = Kept {
        folder,
        names: kept,
        dropped: Vec::new(),
    };
    report.messages = take_over(ownership, &plan, options, &mut kept)?;
    report.dropped.append(&mut kept.dropped);
    report.kept = kept.names;
    report.folder = Some(kept.folder);
    report.is_done = true;
    let again = verify(disk.as_ref(), &mut |_, _| ())
        .map_err(|error| OpenError::io("reading failed", "the store", error))?;
    let remaining = again
        .findings
        .into_iter()
        .filter(|finding| finding.is_damage);
    report.remaining = remaining.collect();
    Ok(report)
}

/// The files that are damaged or will go: also all checkpoints, which the repair replaces.
fn files_to_keep(disk: &dyn Disk, plan: &Plan) -> Result<Vec<String>, OpenError> {
    let listed = disk
        .list()
        .map_err(|error| OpenError::io("listing failed", "the store", error))?;
    let findings = plan.findings.iter().map(|finding| finding.file.clone());
    let strangers = plan.strangers.iter().map(|it| it.file.clone());
    let mut wanted: BTreeSet<String> = findings.chain(strangers).collect();
    wanted.extend(plan.checkpoints.iter().cloned());
    let is_damaged = |name: &str| {
        let segment = segment_of(name).or_else(|| Some(compact_of(name)?.0));
        let segment = segment.or_else(|| side_index_of(name));
        segment.is_some_and(|segment| plan.damaged.contains(&segment))
    };
    let names = listed.into_iter().map(|entry| entry.name);
    Ok(names
        .filter(|name| wanted.contains(name) || is_damaged(name))
        .collect())
}

/// Gives the files second names in a folder of their own, beside a list of what will be dropped.
fn keep(disk: &dyn Disk, names: &[String], report: &RepairReport) -> io::Result<String> {
    let mut number = 1;
    let folder = loop {
        let folder = format!("repair-{number:04}");
        match disk.open(&format!("{folder}/{LIST_NAME}"), OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break folder,
            _ => number += 1,
        }
    };
    let list = format!("{folder}/{LIST_NAME}");
    let mut made = vec![list.clone()];
    let mut attempt = || -> io::Result<()> {
        let file = disk.open(&list, OpenMode::CreateEmpty)?;
        file.write_at(0, text_of(report).as_bytes())?;
        file.sync()?;
        for name in names {
            let copy = format!("{folder}/{name}");
            disk.link(name, &copy)?;
            made.push(copy);
        }
        disk.sync_folder(&folder)
    };
    if let Err(error) = attempt() {
        for name in made {
            let _ = disk.remove(&name);
        }
        return Err(error);
    }
    Ok(folder)
}

/// Here nobody knows how the store's user calls its queues.
fn by_number(queue: u32) -> String {
    queue.to_string()
}

/// The list for people.
fn text_of(report: &RepairReport) -> String {
    let mut text = "Dropped from the store by `steadfast store repair --accept-data-loss`.\n\
        The files beside this list are those that were damaged, as they were.\n\n"
        .to_owned();
    let dropped = report.dropped.iter().map(|it| it.describe(&by_number));
    for line in dropped.chain(report.notes.iter().map(|it| it.describe(&by_number))) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Lets what does not belong to the store go, now that there is a copy.
fn put_away(disk: &dyn Disk, plan: &Plan) -> io::Result<()> {
    for stranger in &plan.strangers {
        if let Some(name) = &stranger.belongs_to {
            match disk.link(&stranger.file, name) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        disk.remove(&stranger.file)?;
    }
    if plan.strangers.is_empty() {
        return Ok(());
    }
    disk.sync_dir()
}

/// The folder with the copies, and what is in it.
struct Kept {
    folder: String,
    names: Vec<String>,
    /// What the plan did not know of.
    dropped: Vec<Dropped>,
}

impl Kept {
    /// Gives further files second names.
    fn add(&mut self, disk: &dyn Disk, names: Vec<String>) -> io::Result<()> {
        for name in names {
            if self.names.contains(&name) {
                continue;
            }
            match disk.link(&name, &format!("{}/{name}", self.folder)) {
                // An old checkpoint names it, and it is missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                linked => {
                    linked?;
                    self.names.push(name);
                }
            }
        }
        disk.sync_folder(&self.folder)
    }

    /// Adds to the list what is about to be dropped, too.
    fn drop_too(&mut self, disk: &dyn Disk, dropped: Vec<Dropped>) -> io::Result<()> {
        if dropped.is_empty() {
            return Ok(());
        }
        let text: String = dropped
            .iter()
            .map(|it| it.describe(&by_number) + "\n")
            .collect();
        let list = disk.open(&format!("{}/{LIST_NAME}", self.folder), OpenMode::Write)?;
        list.write_at(list.bytes()?, text.as_bytes())?;
        list.sync()?;
        self.dropped.extend(dropped);
        Ok(())
    }
}

/// The segments that are damaged now that each has its end: a checkpoint may have proven that one had been
/// longer than it seemed. Copies of them are kept.
fn damaged_now(disk: &dyn Disk, plan: &Plan, kept: &mut Kept) -> Result<BTreeSet<u64>, OpenError> {
    let failed = |error| OpenError::io("looking again failed; repair again", "the store", error);
    let looked = verify(disk, &mut |_, _| ()).map_err(failed)?;
    let mut names = Vec::new();
    let mut damaged = plan.damaged.clone();
    for finding in looked
        .findings
        .into_iter()
        .filter(|finding| finding.is_damage)
    {
        let segment = segment_of(&finding.file).or_else(|| Some(compact_of(&finding.file)?.0));
        if let Some(segment) = segment {
            damaged.insert(segment);
            names.push(finding.file);
        }
    }
    kept.add(disk, names).map_err(failed)?;
    Ok(damaged)
}

/// Opens the store, sets aside what cannot be read, and ends it in order. Gives the messages that wait.
fn take_over(
    ownership: Ownership,
    plan: &Plan,
    options: &StoreOptions,
    kept: &mut Kept,
) -> Result<u64, OpenError> {
    // Through the view, for a disk that cannot read everything.
    let ownership = ownership.through(Arc::new(
        plan.view.with(BTreeSet::new(), Default::default()),
    ));
    let means = Means {
        repair: Some(NumberMin(plan.number_min)),
        ..Means::default()
    };
    let (store, _) = Store::open_with(ownership, options.clone(), means, &mut |_| ())?;
    let mut work = Work { store };
    let own = work.store.epoch();
    work.set_aside(&plan.waiting.unreadable)?;
    for (segment, lost) in &plan.waiting.lost {
        work.store.found_lost(*segment, lost);
    }
    work.until("setting damage aside", |store| {
        store.set_aside.deadline_ms().is_none() && is_written(store)
    })?;
    work.store.append_snapshot();
    work.until("writing a snapshot", |store| {
        store.state.snapshot_base >= own
    })?;
    let disk = Arc::clone(&work.store.disk);
    for segment in damaged_now(disk.as_ref(), plan, kept)? {
        work.replace(segment, kept)?;
    }
    let messages = work.store.status().messages;
    work.store.begin_shutdown();
    work.until("ending in order", Store::is_shut_down)?;
    match work.store.status().checkpoints {
        0 => Err(OpenError::Io {
            what: "the last checkpoint failed; free space and repair again".to_owned(),
            file: "the store".to_owned(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        }),
        _ => Ok(messages),
    }
}

/// Whether everything appended is durable.
fn is_written(store: &Store) -> bool {
    let writer = &store.writer;
    writer.open_is_empty() && !writer.has_closed() && !writer.is_in_flight()
}

struct Work {
    store: Store,
}

impl Work {
    /// Does the store's work until something is reached.
    fn until(&mut self, what: &str, is_reached: impl Fn(&Store) -> bool) -> Result<(), OpenError> {
        let disk = Arc::clone(&self.store.disk);
        let failed =
            |source| OpenError::io(&format!("{what} failed; repair again"), "the store", source);
        let mut idle_ms = 0;
        loop {
            while let Some(job) = self.store.poll_job(disk.boot_ms()) {
                let is_retry = self.store.refused_writes() > 0;
                let done = self.store.complete(job.run());
                done.map_err(|fatal| failed(io::Error::other(fatal.to_string())))?;
                if is_retry {
                    break;
                }
            }
            if is_reached(&self.store) {
                return Ok(());
            }
            if idle_ms > PATIENCE_MS {
                return Err(failed(io::Error::from(io::ErrorKind::StorageFull)));
            }
            disk.pause_ms(STEP_MS);
            idle_ms += STEP_MS;
        }
    }

    fn set_aside(&mut self, unreadable: &[Unreadable]) -> Result<(), OpenError> {
        for one in unreadable {
            let place = Place {
                segment: one.segment,
                ordinal: one.ordinal,
                offset: u32::try_from(one.offset / 8).unwrap_or(u32::MAX),
                bytes: 0,
            };
            let taken = self.store.quarantine(QueueId(one.queue), place);
            taken.map_err(|error| OpenError::Damaged(error.to_string()))?;
        }
        Ok(())
    }

    /// Sets aside what the lists that the store itself made name and what cannot be read.
    fn look_again(&mut self, segment: u64, kept: &mut Kept) -> Result<(), OpenError> {
        let Some(Compaction {
            disk, cache, plan, ..
        }) = self.store.compaction_of(segment)
        else {
            return Ok(());
        };
        let failed = |source| {
            OpenError::io(
                "reading failed",
                &data_name(segment, plan.generation),
                source,
            )
        };
        let mut lists = cache.whole(&plan).map_err(failed)?;
        for entries in lists.index.values_mut() {
            entries.retain(|entry| !plan.settled.is_set(entry.ordinal));
        }
        let found = unreadable(&cache, &plan, &lists.index).map_err(failed)?;
        lists.lost.retain(|ordinal| !plan.settled.is_set(*ordinal));
        let mut dropped: Vec<_> = found.iter().map(Dropped::message).collect();
        if !lists.lost.is_empty() {
            dropped.push(Dropped::references(segment, &lists.lost));
        }
        kept.drop_too(disk.as_ref(), dropped).map_err(failed)?;
        self.set_aside(&found)?;
        self.store.found_lost(segment, &lists.lost);
        self.until("setting damage aside", |store| {
            store.set_aside.deadline_ms().is_none() && is_written(store)
        })
    }

    /// Writes what waits in a segment into a file that stands for it.
    fn replace(&mut self, segment: u64, kept: &mut Kept) -> Result<(), OpenError> {
        let state = self.store.state.segments.get(&segment);
        if state.is_none_or(|state| state.live == 0) {
            // It goes by itself.
            return Ok(());
        }
        self.look_again(segment, kept)?;
        let Some(compaction) = self.store.compaction_of(segment) else {
            return Ok(());
        };
        let name = data_name(segment, compaction.generation);
        let result = Compaction {
            replaces: true,
            ..compaction
        }
        .run();
        let done =
            result.map_err(|error| OpenError::io("writing failed; repair again", &name, error))?;
        self.store.compacted(Ok(done));
        Ok(())
    }
}
