//! What the disk holds: files and names, live and durable, and the faults that it is to show.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::nfs::Nfs;
use super::pages::Pages;
use crate::disk::FileSystem;

pub(super) const SECTOR_BYTES: usize = 512;

/// The operations that a [`Fault`] can hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Writing bytes, or setting a length.
    Write,
    /// Syncing a file.
    Sync,
    /// Reading bytes.
    Read,
    /// Creating, linking, renaming or removing a name, or syncing the directory.
    Name,
}

/// An error that the next matching operations return.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operations.
    pub operation: Operation,
    /// Only files whose name contains this text; empty for all.
    pub name_part: String,
    /// How many matching operations succeed first.
    pub skip: u64,
    /// How many fail then.
    pub count: u64,
    /// The error number, such as `EIO` or `ENOSPC`.
    pub errno: i32,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Inode {
    pub(super) live: Pages,
    pub(super) durable: Pages,
    pub(super) dirty: BTreeSet<usize>,
    pub(super) locked_by: Option<u64>,
    /// How many have it open, dead processes included until they let go.
    pub(super) handles: u32,
}

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) next_id: u64,
    pub(super) clock_ms: u64,
    pub(super) operations: u64,
    pub(super) faults: Vec<Fault>,
    /// Bytes of files that cannot be read, by a part of the name.
    pub(super) bad: Vec<(String, Range<u64>)>,
    pub(super) free_bytes: u64,
    /// Bytes that all files together may have; beyond that writes fail with `ENOSPC`.
    pub(super) room_bytes: Option<u64>,
    pub(super) file_system: Option<FileSystem>,
    pub(super) dead: BTreeSet<u64>,
    /// All processes up to this one are dead.
    pub(super) dead_up_to: u64,
    /// Syncs succeed and do nothing.
    pub(super) lies: bool,
    /// Nobody sees the locks of others.
    pub(super) hides_locks: bool,
    /// Those who use the disk over a network.
    pub(super) nfs: Nfs,
    /// Copies of the world, one before each operation that changes it, while somebody records.
    pub(super) recording: Option<Vec<Self>>,
}

impl Inode {
    pub(super) fn mark(&mut self, from: usize, to: usize) {
        self.dirty
            .extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }

    pub(super) fn crash(&mut self, random: &mut fastrand::Rng) {
        self.locked_by = None;
        let live_len = self.live.len();
        if live_len != self.durable.len() && random.bool() {
            self.durable.resize(live_len);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.durable.len());
            if from >= to {
                continue;
            }
            let mut bytes = [0; SECTOR_BYTES];
            let bytes = bytes.get_mut(..to - from).unwrap_or_default();
            match random.u8(0..8) {
                0..=3 => self.live.read(from, bytes),
                4..=6 => continue,
                _ => bytes.fill_with(|| random.u8(..)),
            }
            self.durable.write(from, bytes);
        }
        self.live = self.durable.clone();
    }
}

impl State {
    pub(super) fn operate(
        &mut self,
        process: u64,
        operation: Operation,
        name: &str,
    ) -> io::Result<()> {
        self.operations += 1;
        if operation != Operation::Read
            && let Some(mut recording) = self.recording.take()
        {
            recording.push(self.clone());
            self.recording = Some(recording);
        }
        self.check_alive(process)?;
        for fault in &mut self.faults {
            if fault.operation != operation || !name.contains(&fault.name_part) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.count > 0 {
                fault.count -= 1;
                return Err(io::Error::from_raw_os_error(fault.errno));
            }
        }
        Ok(())
    }

    /// Fails where bytes are bad.
    pub(super) fn check_readable(&self, name: &str, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.saturating_add(len as u64);
        let is_hit = |(part, bad): &(String, Range<u64>)| {
            name.contains(part.as_str()) && bad.start < end && offset < bad.end
        };
        if self.bad.iter().any(is_hit) {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        Ok(())
    }

    pub(super) fn is_dead(&self, process: u64) -> bool {
        process <= self.dead_up_to || self.dead.contains(&process)
    }

    pub(super) fn check_alive(&self, process: u64) -> io::Result<()> {
        if self.is_dead(process) {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the simulated process is dead",
            ));
        }
        Ok(())
    }

    pub(super) fn new_inode(&mut self, name: &str) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.inodes.insert(id, Inode::default());
        self.names.insert(name.to_owned(), id);
        id
    }

    /// Process in the upper, open file in the lower half: who holds a lock.
    pub(super) fn new_handle(&mut self, process: u64) -> u64 {
        self.next_id += 1;
        (process << 32) | (self.next_id & 0xffff_ffff)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let used = |(id, inode): &(&u64, &Inode)| inode.handles > 0 || named.contains(id);
        let inodes = self.inodes.iter().filter(used);
        inodes.map(|(_, inode)| inode.live.len() as u64).sum()
    }

    /// Frees what has no name, lives on no disk and is not open.
    pub(super) fn forget(&mut self, id: u64) {
        let is_open = self.inodes.get(&id).is_some_and(|inode| inode.handles > 0);
        let names = self.names.values().chain(self.durable_names.values());
        if !is_open && !names.copied().any(|named| named == id) {
            self.inodes.remove(&id);
        }
    }

    pub(super) fn forget_all(&mut self) {
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        for id in all {
            self.forget(id);
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        match self.room_bytes {
            Some(room) => room.saturating_sub(self.used_bytes()),
            None => self.free_bytes,
        }
    }

    /// Whether a file of `old` bytes may have `new` bytes.
    pub(super) fn may_grow(&self, old: usize, new: usize) -> io::Result<()> {
        if self.room_bytes.is_some() && new > old && (new - old) as u64 > self.free_bytes() {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        Ok(())
    }

    pub(super) fn id_of(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}
