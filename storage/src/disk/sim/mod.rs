//! A disk in memory for tests: what was written and what would survive, faults on demand.
//!
//! Fault model: each file has live bytes (what a reader sees) and durable bytes (what was synced).
//! At a crash of the host every unsynced 512-byte sector survives as new, stays old, or becomes
//! garbage; every name created, renamed or removed since the last [`super::Disk::sync_dir`] survives or
//! not. At the death of a process only its locks go. Faults are injected by operation count.

//!
//! A world has either processes on one host ([`SimWorld::process`]) or hosts that mount it over NFS
//! ([`SimWorld::nfs`], [`SimWorld::host`]), or both: then the first are on the server itself.

mod hosts;
mod local;
mod nfs;
mod pages;
mod state;
mod turns;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::FileSystem;
pub use hosts::SimHost;
pub use local::SimDisk;
pub use nfs::{HostSettings, NfsSettings};
pub use state::{Fault, Operation};
pub use turns::{TaskId, Turns};

use nfs::Nfs;
use pages::Pages;
use state::State;

/// One simulated machine room: a directory that several processes share.
#[derive(Clone, Debug, Default)]
pub struct SimWorld {
    state: Arc<Mutex<State>>,
    /// Who runs, where several threads share the world.
    turns: Option<Arc<Turns>>,
}

impl SimWorld {
    /// An empty directory on a local file system with plenty of space.
    #[must_use]
    pub fn new() -> Self {
        let world = Self::default();
        world.lock().free_bytes = 1 << 40;
        world
    }

    /// An empty directory on an NFS server, for [`Self::host`]s.
    #[must_use]
    pub fn nfs(settings: NfsSettings) -> Self {
        let world = Self::new();
        let mut state = world.lock();
        state.file_system = Some(FileSystem::Nfs {
            lease_s: Some(settings.lease_s),
        });
        state.nfs = Nfs::new(settings);
        drop(state);
        world
    }

    /// A host that mounts the directory over NFS.
    #[must_use]
    pub fn host(&self, settings: HostSettings) -> SimHost {
        SimHost::new(self, settings)
    }

    /// The same world for threads of which one runs at a time. To be called before anybody uses it.
    #[must_use]
    pub fn with_turns(mut self, turns: Arc<Turns>) -> Self {
        self.turns = Some(turns);
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let now_ms = self.turns.as_ref().map(|turns| turns.now_ms());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now_ms) = now_ms {
            state.clock_ms = now_ms;
        }
        state
    }

    /// The time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.lock().clock_ms
    }

    /// Lets time pass; others run meanwhile where [`Turns`] decide.
    pub fn sleep_ms(&self, ms: u64) {
        match &self.turns {
            Some(turns) => turns.sleep_ms(ms),
            None => self.advance_ms(ms),
        }
    }

    /// A process that uses the directory: locks are held by processes.
    #[must_use]
    pub fn process(&self) -> SimDisk {
        let mut state = self.lock();
        state.next_id += 1;
        SimDisk {
            world: self.clone(),
            process: state.next_id,
            host: None,
        }
    }

    /// Ends a process: its locks are free, what it wrote stays visible, its later calls fail.
    pub fn kill(&self, disk: &SimDisk) {
        let mut state = self.lock();
        state.dead.insert(disk.process);
        if disk.host.is_some() {
            state.end_process(disk.process);
            drop(state);
            if let Some(turns) = &self.turns {
                turns.wake();
            }
            return;
        }
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
        state.nfs.forget_hosts();
    }

    /// The NFS server loses its power and starts again: what was not committed may be gone, and for the
    /// time of a lease locks are only given back to those who had them.
    pub fn crash_server(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        self.lock().crash_server(&mut random);
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
        state.nfs.forget_hosts();
        state.forget_all();
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// From now on these bytes of all files whose name contains a text cannot be read: `EIO`.
    pub fn spoil(&self, name_part: &str, bytes: Range<u64>) {
        self.lock().bad.push((name_part.to_owned(), bytes));
    }

    /// Removes all faults.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.bad.clear();
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

    /// Sets what [`super::Disk::free_bytes`] answers.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = bytes;
    }

    /// Gives the disk a size: what all files together take is bounded by it, and
    /// [`super::Disk::free_bytes`] tells the rest. `None` takes the bound away.
    pub fn set_room_bytes(&self, room: Option<u64>) {
        self.lock().room_bytes = room;
    }

    /// Bytes that all files together take, also those that have no name any more and are open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Sets what [`super::Disk::file_system`] answers.
    pub fn set_file_system(&self, kind: FileSystem) {
        self.lock().file_system = Some(kind);
    }

    /// Moves the clock.
    pub fn advance_ms(&self, ms: u64) {
        match &self.turns {
            Some(turns) => turns.advance_ms(ms),
            None => self.lock().clock_ms += ms,
        }
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
            turns: None,
        }
    }

    /// The names of the directory.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode};

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
