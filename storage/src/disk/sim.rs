//! A disk in memory for tests: what was written and what would survive, faults on demand.
//!
//! Fault model: each file has live bytes (what a reader sees) and durable bytes (what was synced).
//! At a crash of the host every unsynced 512-byte sector survives as new, stays old, or becomes
//! garbage; every name created, renamed or removed since the last [`Disk::sync_dir`] survives or
//! not. At the death of a process only its locks go. Faults are injected by operation count.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Entry, FileSystem, OpenMode};

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

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
struct Inode {
    live: Pages,
    durable: Pages,
    dirty: BTreeSet<usize>,
    locked_by: Option<u64>,
    /// How many have it open, dead processes included until they let go.
    handles: u32,
}

#[derive(Debug, Default, Clone)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    next_id: u64,
    clock_ms: u64,
    operations: u64,
    faults: Vec<Fault>,
    free_bytes: u64,
    /// Bytes that all files together may have; beyond that writes fail with `ENOSPC`.
    room_bytes: Option<u64>,
    file_system: Option<FileSystem>,
    dead: BTreeSet<u64>,
    /// All processes up to this one are dead.
    dead_up_to: u64,
    /// Syncs succeed and do nothing.
    lies: bool,
    /// Nobody sees the locks of others.
    hides_locks: bool,
    /// Copies of the world, one before each operation that changes it, while somebody records.
    recording: Option<Vec<Self>>,
}

/// One simulated machine room: a directory that several processes share.
#[derive(Clone, Debug, Default)]
pub struct SimWorld {
    state: Arc<Mutex<State>>,
}

impl SimWorld {
    /// An empty directory on a local file system with plenty of space.
    #[must_use]
    pub fn new() -> Self {
        let world = Self::default();
        world.lock().free_bytes = 1 << 40;
        world
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that uses the directory: locks are held by processes.
    #[must_use]
    pub fn process(&self) -> SimDisk {
        let mut state = self.lock();
        state.next_id += 1;
        SimDisk {
            world: self.clone(),
            process: state.next_id,
        }
    }

    /// Ends a process: its locks are free, what it wrote stays visible, its later calls fail.
    pub fn kill(&self, disk: &SimDisk) {
        let mut state = self.lock();
        state.dead.insert(disk.process);
        for inode in state.inodes.values_mut() {
            if inode
                .locked_by
                .is_some_and(|holder| holder >> 32 == disk.process)
            {
                inode.locked_by = None;
            }
        }
    }

    /// Ends all processes, as [`Self::kill`] does one.
    pub fn kill_all(&self) {
        let mut state = self.lock();
        state.dead_up_to = state.next_id;
        for inode in state.inodes.values_mut() {
            inode.locked_by = None;
        }
    }

    /// Power loss: all processes die, unsynced sectors and names survive by the seed's choice.
    pub fn crash(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = self.lock();
        state.dead_up_to = state.next_id;
        let mut names = state.durable_names.clone();
        let all: BTreeSet<String> = state.names.keys().chain(names.keys()).cloned().collect();
        for name in all {
            if state.names.get(&name) != names.get(&name) && random.bool() {
                match state.names.get(&name).copied() {
                    Some(inode) => names.insert(name, inode),
                    None => names.remove(&name),
                };
            }
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        for inode in state.inodes.values_mut() {
            inode.crash(&mut random);
        }
        state.forget_all();
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// From now on syncs succeed and do nothing, as on some disks: a check of what survives must
    /// notice.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// From now on nobody sees who holds a lock, as between hosts that lock for themselves.
    pub fn hide_locks(&self) {
        self.lock().hides_locks = true;
    }

    /// Begins to keep a copy of the world before each operation that changes it.
    pub fn record(&self) {
        self.lock().recording = Some(Vec::new());
    }

    /// The copies since the last call. Each is a world of its own, as it would be if the machine
    /// stopped there.
    #[must_use]
    pub fn recorded(&self) -> Vec<Self> {
        let mut state = self.lock();
        let recorded = state.recording.as_mut().map(std::mem::take);
        recorded
            .unwrap_or_default()
            .into_iter()
            .map(Self::copied)
            .collect()
    }

    /// How many errors of the injected faults have not struck yet.
    #[must_use]
    pub fn faults_left(&self) -> u64 {
        self.lock()
            .faults
            .iter()
            .map(|fault| fault.skip + fault.count)
            .sum()
    }

    /// Sets what [`Disk::free_bytes`] answers.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = bytes;
    }

    /// Gives the disk a size: what all files together take is bounded by it, and
    /// [`Disk::free_bytes`] tells the rest. `None` takes the bound away.
    pub fn set_room_bytes(&self, room: Option<u64>) {
        self.lock().room_bytes = room;
    }

    /// Bytes that all files together take, also those that have no name any more and are open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Sets what [`Disk::file_system`] answers.
    pub fn set_file_system(&self, kind: FileSystem) {
        self.lock().file_system = Some(kind);
    }

    /// Moves the clock.
    pub fn advance_ms(&self, ms: u64) {
        self.lock().clock_ms += ms;
    }

    /// Number of operations so far, to aim faults and crashes.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The live bytes of a file, for tests that look or damage.
    #[must_use]
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = state.names.get(name)?;
        Some(state.inodes.get(inode)?.live.to_vec())
    }

    /// Replaces the bytes of a file, live and durable: bit rot.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        if let Some(id) = state.names.get(name).copied()
            && let Some(inode) = state.inodes.get_mut(&id)
        {
            inode.live = Pages::from_slice(&bytes);
            inode.durable = inode.live.clone();
            inode.dirty.clear();
        }
    }

    /// Changes bits of one byte of a file, live and durable.
    pub fn flip(&self, name: &str, offset: u64, bits: u8) {
        self.change(name, |bytes| {
            let at = usize::try_from(offset).unwrap_or(usize::MAX);
            let mut byte = [0];
            if at < bytes.len() {
                bytes.read(at, &mut byte);
                bytes.write(at, &[byte[0] ^ bits]);
            }
        });
    }

    /// Cuts a file off, live and durable.
    pub fn truncate(&self, name: &str, bytes: u64) {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.change(name, |bytes| bytes.resize(len.min(bytes.len())));
    }

    fn change(&self, name: &str, act: impl FnOnce(&mut Pages)) {
        let mut state = self.lock();
        if let Some(id) = state.names.get(name).copied()
            && let Some(inode) = state.inodes.get_mut(&id)
        {
            act(&mut inode.live);
            inode.durable = inode.live.clone();
            inode.dirty.clear();
        }
    }

    /// A copy that shares nothing with this world but memory.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::copied(self.lock().clone())
    }

    fn copied(mut state: State) -> Self {
        // Those who have files open there are in the original world.
        state
            .inodes
            .values_mut()
            .for_each(|inode| inode.handles = 0);
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The names of the directory.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }
}

/// The bytes of a file in pages that copies share; a page of zeros takes no memory.
#[derive(Debug, Default, Clone)]
struct Pages {
    pages: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    len: usize,
}

impl Pages {
    fn from_slice(bytes: &[u8]) -> Self {
        let mut pages = Self::default();
        pages.resize(bytes.len());
        pages.write(0, bytes);
        pages
    }

    fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    fn len(&self) -> usize {
        self.len
    }

    /// New bytes are zero.
    fn resize(&mut self, len: usize) {
        if len < self.len
            && let Some(Some(page)) = self.pages.get_mut(len / PAGE_BYTES)
        {
            Arc::make_mut(page)[len % PAGE_BYTES..].fill(0);
        }
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
        self.len = len;
    }

    /// The part of each page that a range covers: page, offset in it, length.
    fn parts(from: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let rest = (from + len).checked_sub(at).filter(|rest| *rest > 0)?;
            let offset = at % PAGE_BYTES;
            let part = (at / PAGE_BYTES, offset, rest.min(PAGE_BYTES - offset));
            at += part.2;
            Some(part)
        })
    }

    /// The range lies within the file.
    fn read(&self, from: usize, mut out: &mut [u8]) {
        for (page, offset, len) in Self::parts(from, out.len()) {
            let (head, rest) = out.split_at_mut(len);
            match self.pages.get(page) {
                Some(Some(page)) => head.copy_from_slice(&page[offset..offset + len]),
                _ => head.fill(0),
            }
            out = rest;
        }
    }

    /// The range lies within the file.
    fn write(&mut self, from: usize, mut data: &[u8]) {
        for (number, offset, len) in Self::parts(from, data.len()) {
            let (head, rest) = data.split_at(len);
            data = rest;
            let Some(page) = self.pages.get_mut(number) else {
                return;
            };
            if page.is_none() && crate::format::is_zero(head) {
                continue;
            }
            let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[offset..offset + len].copy_from_slice(head);
        }
    }
}

impl Inode {
    fn mark(&mut self, from: usize, to: usize) {
        self.dirty
            .extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }

    fn crash(&mut self, random: &mut fastrand::Rng) {
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
    fn operate(&mut self, process: u64, operation: Operation, name: &str) -> io::Result<()> {
        self.operations += 1;
        if operation != Operation::Read
            && let Some(mut recording) = self.recording.take()
        {
            recording.push(self.clone());
            self.recording = Some(recording);
        }
        if process <= self.dead_up_to || self.dead.contains(&process) {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the simulated process is dead",
            ));
        }
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

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let used = |(id, inode): &(&u64, &Inode)| inode.handles > 0 || named.contains(id);
        let inodes = self.inodes.iter().filter(used);
        inodes.map(|(_, inode)| inode.live.len() as u64).sum()
    }

    /// Frees what has no name, lives on no disk and is not open.
    fn forget(&mut self, id: u64) {
        let is_open = self.inodes.get(&id).is_some_and(|inode| inode.handles > 0);
        let names = self.names.values().chain(self.durable_names.values());
        if !is_open && !names.copied().any(|named| named == id) {
            self.inodes.remove(&id);
        }
    }

    fn forget_all(&mut self) {
        let all: Vec<u64> = self.inodes.keys().copied().collect();
        for id in all {
            self.forget(id);
        }
    }

    fn free_bytes(&self) -> u64 {
        match self.room_bytes {
            Some(room) => room.saturating_sub(self.used_bytes()),
            None => self.free_bytes,
        }
    }

    /// Whether a file of `old` bytes may have `new` bytes.
    fn may_grow(&self, old: usize, new: usize) -> io::Result<()> {
        if self.room_bytes.is_some() && new > old && (new - old) as u64 > self.free_bytes() {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        Ok(())
    }

    fn id_of(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// The directory as one simulated process sees it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: SimWorld,
    process: u64,
}

impl SimDisk {
    /// The world that this process lives in.
    #[must_use]
    pub fn world(&self) -> &SimWorld {
        &self.world
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Read, "")?;
        let entry = |(name, id): (&String, &u64)| {
            let bytes = state
                .inodes
                .get(id)
                .map_or(0, |inode| inode.live.len() as u64);
            Entry {
                name: name.clone(),
                bytes,
            }
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.world.lock();
        let operation = if mode == OpenMode::CreateEmpty {
            Operation::Name
        } else {
            Operation::Read
        };
        state.operate(self.process, operation, name)?;
        let known = state.names.get(name).copied();
        let inode = match (known, mode) {
            (Some(id), OpenMode::Read | OpenMode::Write | OpenMode::CreateOrWrite) => id,
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            _ => {
                state.next_id += 1;
                let id = state.next_id;
                state.inodes.insert(id, Inode::default());
                state.names.insert(name.to_owned(), id);
                id
            }
        };
        if let Some(inode) = state.inodes.get_mut(&inode) {
            inode.handles += 1;
        }
        state.next_id += 1;
        let handle = (self.process << 32) | (state.next_id & 0xffff_ffff);
        let world = self.world.clone();
        Ok(Arc::new(SimFile {
            world,
            process: self.process,
            inode,
            handle,
            name: name.to_owned(),
        }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Name, to)?;
        if state.names.contains_key(to) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let id = state.id_of(from)?;
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Name, to)?;
        let id = state.id_of(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Name, name)?;
        state.id_of(name)?;
        state.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Name, "")?;
        state.durable_names = state.names.clone();
        state.forget_all();
        Ok(())
    }

    fn file_system(&self) -> FileSystem {
        let local = FileSystem::Local {
            name: "sim".to_owned(),
            volatile: false,
        };
        self.world.lock().file_system.clone().unwrap_or(local)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.world.lock().free_bytes())
    }

    fn boot_ms(&self) -> u64 {
        self.world.lock().clock_ms
    }

    fn pause_ms(&self, ms: u64) {
        self.world.advance_ms(ms);
    }

    fn describe(&self) -> String {
        "simulated directory".to_owned()
    }
}

#[derive(Debug)]
struct SimFile {
    world: SimWorld,
    process: u64,
    inode: u64,
    /// Process in the upper, open file in the lower half: who holds a lock.
    handle: u64,
    name: String,
}

impl SimFile {
    fn with<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut Inode) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.world.lock();
        state.operate(self.process, operation, &self.name)?;
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        act(state.inodes.get_mut(&self.inode).ok_or_else(gone)?)
    }

    /// Refuses what does not fit the disk.
    fn grow(&self, to: usize) -> io::Result<()> {
        let state = self.world.lock();
        let old = state
            .inodes
            .get(&self.inode)
            .map_or(0, |inode| inode.live.len());
        state.may_grow(old, to)
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.with(Operation::Read, |inode| Ok(inode.live.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.with(Operation::Read, |inode| {
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(inode.live.len());
            let n = out.len().min(inode.live.len() - from);
            inode.live.read(from, out.get_mut(..n).unwrap_or_default());
            Ok(n)
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let to = from.saturating_add(data.len());
        self.grow(to)?;
        self.with(Operation::Write, |inode| {
            if inode.live.len() < to {
                let old = inode.live.len();
                inode.live.resize(to);
                inode.mark(old, to);
            }
            inode.live.write(from, data);
            inode.mark(from, to);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let lies = self.world.lock().lies;
        self.with(Operation::Sync, |inode| {
            if lies {
                return Ok(());
            }
            // Whatever is not dirty is the same already.
            inode.durable = inode.live.clone();
            inode.dirty.clear();
            Ok(())
        })
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.grow(bytes)?;
        self.with(Operation::Write, |inode| {
            let old = inode.live.len();
            inode.live.resize(bytes);
            let new = inode.live.len();
            inode.mark(old.min(new), old.max(new));
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        let handle = self.handle;
        self.with(Operation::Read, |inode| {
            let free = inode.locked_by.is_none_or(|holder| holder == handle);
            if free {
                inode.locked_by = Some(handle);
            }
            Ok(free)
        })
    }

    fn is_locked_elsewhere(&self) -> io::Result<bool> {
        let handle = self.handle;
        let hides = self.world.lock().hides_locks;
        self.with(Operation::Read, |inode| {
            Ok(!hides && inode.locked_by.is_some_and(|holder| holder != handle))
        })
    }

    fn identity(&self) -> io::Result<u64> {
        Ok(self.inode)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.world.lock();
        if let Some(inode) = state.inodes.get_mut(&self.inode)
            && inode.locked_by == Some(self.handle)
        {
            inode.locked_by = None;
        }
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        state.forget(self.inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_lose_the_rest() {
        let mut lost = 0;
        for seed in 0..50 {
            let world = SimWorld::new();
            let disk = world.process();
            let file = disk.open("a", OpenMode::CreateEmpty).unwrap();
            file.write_at(0, &[1; 1024]).unwrap();
            file.sync().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(1024, &[2; 512]).unwrap();
            world.crash(seed);
            assert!(
                file.write_at(0, b"x").is_err(),
                "a dead process writes no more"
            );
            let bytes = world.bytes_of("a").unwrap();
            assert_eq!(&bytes[..1024], &[1; 1024]);
            lost += usize::from(bytes.get(1024..) != Some(&[2; 512][..]));
        }
        assert!(lost > 5, "unsynced data survived every crash");
    }

    #[test]
    fn faults_hit_the_operations_they_name() {
        let world = SimWorld::new();
        let disk = world.process();
        let file = disk.open("a", OpenMode::CreateEmpty).unwrap();
        let errno = nix::libc::EIO;
        let name_part = "a".to_owned();
        world.inject(Fault {
            operation: Operation::Sync,
            name_part,
            skip: 1,
            count: 1,
            errno,
        });
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(errno));
        file.sync().unwrap();
    }
}
