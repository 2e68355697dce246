//! Hosts that use the disk over NFS, and their processes.
//!
//! What a host answers from its own memory never blocks. Everything else speaks to the server: while the
//! host is cut off it blocks until that is over (`hard`, with [`Turns`]) or fails (`soft`).

use std::io;
use std::sync::{Arc, MutexGuard};

use nix::libc;

use super::nfs::HostSettings;
use super::pages::PAGE_BYTES;
use super::state::{Operation, State};
use super::{SimDisk, SimWorld, Turns};
use crate::disk::{DiskFile, Entry, OpenMode};

/// A host that mounts the directory of a [`SimWorld`] over NFS.
#[derive(Clone, Debug)]
pub struct SimHost {
    world: SimWorld,
    id: u64,
}

impl SimHost {
    pub(super) fn new(world: &SimWorld, settings: HostSettings) -> Self {
        let mut state = world.lock();
        state.next_id += 1;
        let id = state.next_id;
        let now_ms = state.clock_ms;
        state.nfs.add_host(id, settings, now_ms);
        Self {
            world: world.clone(),
            id,
        }
    }

    /// A process on this host.
    #[must_use]
    pub fn process(&self) -> SimDisk {
        let disk = SimDisk {
            host: Some(self.id),
            ..self.world.process()
        };
        self.world.lock().nfs.add_process(self.id, disk.process);
        disk
    }

    /// Its number, for [`Turns`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Separates it from the server.
    pub fn cut_off(&self) {
        self.world.lock().cut_off(self.id, true);
    }

    /// Joins it to the server again.
    pub fn heal(&self) {
        self.world.lock().cut_off(self.id, false);
        self.wake();
    }

    /// Stops it for a while with all that runs on it, as when a virtual machine is paused. Its processes
    /// stand still only where [`Turns`] decide who runs.
    pub fn freeze(&self) {
        self.set_frozen(true);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.set_frozen(false);
        self.wake();
    }

    fn set_frozen(&self, is_frozen: bool) {
        self.world.lock().freeze_host(self.id, is_frozen);
        match (&self.world.turns, is_frozen) {
            (Some(turns), true) => turns.freeze(self.id),
            (Some(turns), false) => turns.thaw(self.id),
            (None, _) => {}
        }
    }

    /// It loses its power and starts again: its processes are dead, and what was not sent is gone.
    pub fn crash(&self) {
        self.world.lock().crash_host(self.id);
        self.wake();
    }

    /// Sends some of what is written and not synced, also by processes that are dead.
    pub fn write_back(&self) {
        self.world.lock().write_back(self.id);
    }

    fn wake(&self) {
        if let Some(turns) = &self.world.turns {
            turns.wake();
        }
    }
}

/// The directory as a process on a host sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mount<'a> {
    pub(super) world: &'a SimWorld,
    pub(super) process: u64,
    pub(super) host: u64,
}

impl<'a> Mount<'a> {
    /// Waits until the server can be spoken to, and speaks.
    fn speak(&self) -> io::Result<MutexGuard<'a, State>> {
        let turns = self.world.turns.as_deref();
        turns.map(Turns::pause);
        loop {
            let mut state = self.world.lock();
            state.check_alive(self.process)?;
            if state.nfs.can_speak(self.host) {
                state.contact(self.host);
                return Ok(state);
            }
            if state.nfs.is_soft(self.host) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            drop(state);
            match turns {
                Some(turns) => turns.wait(),
                // Nobody else runs who could end this.
                None => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
    }

    /// The server has done it, but its answer arrives only when the host can hear it.
    fn hear<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        match self.speak() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error),
            _ => answer,
        }
    }

    /// After a reboot the server grants nothing new for a while.
    fn speak_after_grace(&self) -> io::Result<MutexGuard<'a, State>> {
        loop {
            let state = self.speak()?;
            let wait_ms = state.nfs.grace_until_ms.saturating_sub(state.clock_ms);
            if wait_ms == 0 {
                return Ok(state);
            }
            drop(state);
            self.world.sleep_ms(wait_ms);
        }
    }

    pub(super) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.speak()?;
        state.operate(self.process, Operation::Read, "")?;
        state.directory_seen(self.host);
        let names: Vec<(String, u64)> = state
            .names
            .iter()
            .map(|(name, inode)| (name.clone(), *inode))
            .collect();
        let entry = |(name, inode)| Entry {
            name,
            bytes: state.listed_len(self.host, inode) as u64,
        };
        Ok(names.into_iter().map(entry).collect())
    }

    pub(super) fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if !mode.creates() {
            let state = self.world.lock();
            state.check_alive(self.process)?;
            if state.is_known_missing(self.host, name) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
        }
        let mut state = self.speak_after_grace()?;
        let operation = match mode {
            OpenMode::CreateEmpty | OpenMode::CreateNew => Operation::Name,
            _ => Operation::Read,
        };
        state.operate(self.process, operation, name)?;
        let known = state.names.get(name).copied();
        if known.is_none() && !mode.creates() {
            state.note_missing(self.host, name);
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        if known.is_some() && mode == OpenMode::CreateNew {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let inode = known.unwrap_or_else(|| {
            let inode = state.new_inode(name);
            state.directory_changed(self.host, None);
            inode
        });
        if let Some(it) = state.inodes.get_mut(&inode) {
            it.handles += 1;
        }
        let handle = state.new_handle(self.process);
        state.opened(self.host, inode, handle);
        if known.is_some() && mode == OpenMode::CreateEmpty {
            state.set_len(self.host, inode, handle, 0)?;
        }
        drop(state);
        Ok(Arc::new(NfsFile {
            world: self.world.clone(),
            process: self.process,
            host: self.host,
            inode,
            handle,
            name: name.to_owned(),
        }))
    }

    pub(super) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.speak()?;
        state.operate(self.process, Operation::Name, to)?;
        let linked = if state.names.contains_key(to) {
            Err(io::Error::from(io::ErrorKind::AlreadyExists))
        } else {
            state.id_of(from).map(|inode| {
                state.names.insert(to.to_owned(), inode);
            })
        };
        state.directory_changed(self.host, None);
        drop(state);
        self.hear(linked)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.speak()?;
        state.operate(self.process, Operation::Name, to)?;
        let inode = state.id_of(from)?;
        state.names.remove(from);
        let replaced = state.names.insert(to.to_owned(), inode);
        state.directory_changed(self.host, replaced);
        drop(state);
        self.hear(Ok(()))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.speak()?;
        state.operate(self.process, Operation::Name, name)?;
        let inode = state.id_of(name)?;
        state.names.remove(name);
        state.directory_changed(self.host, Some(inode));
        drop(state);
        self.hear(Ok(()))
    }

    /// Names are durable when the server has answered.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        self.speak()?.operate(self.process, Operation::Name, "")
    }
}

/// An open file on a host.
#[derive(Debug)]
struct NfsFile {
    world: SimWorld,
    process: u64,
    host: u64,
    inode: u64,
    handle: u64,
    name: String,
}

impl NfsFile {
    fn speak(&self) -> io::Result<MutexGuard<'_, State>> {
        self.mount().speak()
    }

    fn mount(&self) -> Mount<'_> {
        Mount {
            world: &self.world,
            process: self.process,
            host: self.host,
        }
    }

    /// The state, where the host knows this part of the file.
    fn knowing(&self, from: usize, len: usize) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.world.lock();
        state.check_alive(self.process)?;
        if !state.knows(self.host, self.inode, from, len) {
            drop(state);
            state = self.speak()?;
            state.operate(self.process, Operation::Read, &self.name)?;
            let range = from..from.saturating_add(len);
            state.fetch(self.host, self.inode, self.handle, range)?;
        }
        Ok(state)
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl DiskFile for NfsFile {
    fn bytes(&self) -> io::Result<u64> {
        let mut state = self.knowing(0, 0)?;
        Ok(state.known_len(self.host, self.inode) as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let from = position(offset);
        let mut state = self.knowing(from, out.len())?;
        Ok(state.read_known(self.host, self.inode, from, out))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = position(offset);
        let to = from.saturating_add(data.len());
        // The host must know the pages that are written in part.
        drop(self.knowing(from / PAGE_BYTES * PAGE_BYTES, from % PAGE_BYTES)?);
        let mut state = self.knowing(to, usize::from(!to.is_multiple_of(PAGE_BYTES)))?;
        state.check_alive(self.process)?;
        state.write_known(self.host, self.inode, self.handle, from, data);
        if state.nfs.random.u8(..16) == 0 {
            state.write_back(self.host);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        loop {
            let mut state = self.speak()?;
            state.check_written(self.host, self.inode, self.handle)?;
            state.operate(self.process, Operation::Write, &self.name)?;
            if !state.send(self.host, self.inode)? {
                state.operate(self.process, Operation::Sync, &self.name)?;
                state.commit(self.host, self.inode)?;
                drop(state);
                return self.mount().hear(Ok(()));
            }
        }
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let len = position(bytes);
        let mut state = self.speak()?;
        state.operate(self.process, Operation::Write, &self.name)?;
        state.set_len(self.host, self.inode, self.handle, len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.mount().speak_after_grace()?;
        state.operate(self.process, Operation::Read, &self.name)?;
        let is_lock = self.name == crate::format::segment::LOCK_NAME;
        state.lock_file(self.handle, is_lock)
    }

    fn is_locked_elsewhere(&self) -> io::Result<bool> {
        let mut state = self.mount().speak_after_grace()?;
        state.operate(self.process, Operation::Read, &self.name)?;
        Ok(state.is_locked_by_other(self.handle, self.inode))
    }

    fn identity(&self) -> io::Result<u64> {
        Ok(self.inode)
    }
}

impl Drop for NfsFile {
    fn drop(&mut self) {
        let mut state = self.world.lock();
        state.close(self.handle);
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        state.forget(self.inode);
    }
}
