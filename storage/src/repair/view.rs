//! The store's directory as a repair reads it: without the files that do not belong, and with zeros
//! where the disk cannot be read any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{Disk, DiskFile, Entry, FileSystem, OpenMode};

/// What a disk reads at once at least: a part that cannot be read loses no more than this.
const BLOCK_BYTES: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    inner: Arc<dyn Disk>,
    /// Files that are not seen.
    pub(super) hidden: BTreeSet<String>,
    /// Files by the name under which they are seen.
    pub(super) renamed: BTreeMap<String, String>,
    /// What the first bytes of a file should be.
    patched: BTreeMap<String, Vec<u8>>,
    unreadable: Arc<Mutex<BTreeSet<(String, u64)>>>,
}

impl View {
    pub(super) fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            hidden: BTreeSet::new(),
            renamed: BTreeMap::new(),
            patched: BTreeMap::new(),
            unreadable: Arc::default(),
        }
    }

    /// The same directory, with further files hidden or renamed.
    pub(super) fn with(&self, hidden: BTreeSet<String>, renamed: BTreeMap<String, String>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            hidden,
            renamed,
            patched: self.patched.clone(),
            unreadable: Arc::clone(&self.unreadable),
        }
    }

    /// Reads `bytes` at the beginning of a file instead of what is there.
    pub(super) fn patch(&mut self, name: String, bytes: Vec<u8>) {
        self.patched.insert(name, bytes);
    }

    /// The blocks that could not be read so far: file and offset.
    pub(super) fn unreadable(&self) -> BTreeSet<(String, u64)> {
        let known = self.unreadable.lock();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn not_found() -> io::Error {
        io::Error::from(io::ErrorKind::NotFound)
    }
}

impl Disk for View {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = self.inner.list()?;
        entries.retain(|entry| !self.hidden.contains(&entry.name));
        for entry in &mut entries {
            let seen = self.renamed.iter().find(|(_, name)| **name == entry.name);
            if let Some((seen, _)) = seen {
                entry.name.clone_from(seen);
            }
        }
        Ok(entries)
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let name = match self.renamed.get(name) {
            Some(name) => name,
            None if self.hidden.contains(name) && !mode.creates() => return Err(Self::not_found()),
            None => name,
        };
        Ok(Arc::new(ViewFile {
            inner: self.inner.open(name, mode)?,
            patch: self.patched.get(name).cloned().unwrap_or_default(),
            name: name.to_owned(),
            unreadable: Arc::clone(&self.unreadable),
        }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn sync_folder(&self, name: &str) -> io::Result<()> {
        self.inner.sync_folder(name)
    }

    fn file_system(&self) -> FileSystem {
        self.inner.file_system()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }

    fn boot_ms(&self) -> u64 {
        self.inner.boot_ms()
    }

    fn pause_ms(&self, ms: u64) {
        self.inner.pause_ms(ms);
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct ViewFile {
    inner: Arc<dyn DiskFile>,
    patch: Vec<u8>,
    name: String,
    unreadable: Arc<Mutex<BTreeSet<(String, u64)>>>,
}

impl ViewFile {
    /// Reads block by block; what cannot be read is zero.
    fn read_blocks(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let left = self.inner.bytes()?.saturating_sub(offset);
        let len = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let out = out.get_mut(..len).unwrap_or_default();
        let mut at = offset;
        for block in out.chunks_mut(BLOCK_BYTES) {
            if self.inner.read_at(at, block).is_err() {
                block.fill(0);
                let mut known = self
                    .unreadable
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                known.insert((self.name.clone(), at));
            }
            at += block.len() as u64;
        }
        Ok(len)
    }
}

impl DiskFile for ViewFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let read = match self.inner.read_at(offset, out) {
            Ok(read) => read,
            Err(_) => self.read_blocks(offset, out)?,
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let patch = self.patch.get(from..).unwrap_or_default();
        for (byte, right) in out.iter_mut().take(read).zip(patch) {
            *byte = *right;
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_bytes(bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }

    fn is_locked_elsewhere(&self) -> io::Result<bool> {
        self.inner.is_locked_elsewhere()
    }

    fn identity(&self) -> io::Result<u64> {
        self.inner.identity()
    }
}
