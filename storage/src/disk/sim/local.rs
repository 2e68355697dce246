//! A process on the host that owns the disk.

use std::io;
use std::sync::Arc;

use super::SimWorld;
use super::hosts::Mount;
use super::state::{Inode, Operation};
use crate::disk::{Disk, DiskFile, Entry, FileSystem, OpenMode};

/// The directory as one simulated process sees it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    pub(super) world: SimWorld,
    pub(super) process: u64,
    /// The host that mounts the directory; `None` where the disk is its own.
    pub(super) host: Option<u64>,
}

impl SimDisk {
    /// The world that this process lives in.
    #[must_use]
    pub fn world(&self) -> &SimWorld {
        &self.world
    }

    /// Number of the process, for [`super::Turns`].
    #[must_use]
    pub fn process_id(&self) -> u64 {
        self.process
    }

    /// Whether the process was killed or its host has lost its power.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.world.lock().is_dead(self.process)
    }

    fn mount(&self) -> Option<Mount<'_>> {
        self.host.map(|host| Mount {
            world: &self.world,
            process: self.process,
            host,
        })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        if let Some(mount) = self.mount() {
            return mount.list();
        }
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
        if let Some(mount) = self.mount() {
            return mount.open(name, mode);
        }
        let mut state = self.world.lock();
        let operation = match mode {
            OpenMode::CreateEmpty | OpenMode::CreateNew => Operation::Name,
            _ => Operation::Read,
        };
        state.operate(self.process, operation, name)?;
        let known = state.names.get(name).copied();
        let inode = match (known, mode) {
            (Some(id), OpenMode::Read | OpenMode::Write | OpenMode::CreateOrWrite) => id,
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            (Some(_), OpenMode::CreateNew) => {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            _ => state.new_inode(name),
        };
        if let Some(inode) = state.inodes.get_mut(&inode) {
            inode.handles += 1;
        }
        let handle = state.new_handle(self.process);
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
        if let Some(mount) = self.mount() {
            return mount.link(from, to);
        }
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
        if let Some(mount) = self.mount() {
            return mount.rename(from, to);
        }
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Name, to)?;
        let id = state.id_of(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if let Some(mount) = self.mount() {
            return mount.remove(name);
        }
        let mut state = self.world.lock();
        state.operate(self.process, Operation::Name, name)?;
        state.id_of(name)?;
        state.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        if let Some(mount) = self.mount() {
            return mount.sync_dir();
        }
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
        self.world.now_ms()
    }

    fn pause_ms(&self, ms: u64) {
        self.world.sleep_ms(ms);
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
        let (name, len) = (&self.name, out.len());
        self.world.lock().check_readable(name, offset, len)?;
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
