//! The only door to the disk: one small trait with a real and a simulated implementation.
//!
//! A store is one flat directory. What the store asks of the medium is written at each method;
//! `FORMAT.md` lists it as the assumptions about the medium.

mod file;
mod mount;
mod sim;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use file::RealDisk;
pub use sim::{
    Fault, HostSettings, NfsSettings, Operation, SimDisk, SimHost, SimWorld, TaskId, Turns,
};

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; fails when it does not exist. Reads see what another host wrote before.
    Read,
    /// For reading and writing; fails when it does not exist.
    Write,
    /// Creates an empty file for reading and writing, or opens the one that is there.
    CreateOrWrite,
    /// Creates an empty file for reading and writing; an older file of the name is discarded.
    CreateEmpty,
    /// Creates a file for reading and writing; fails when the name is there, whoever was first.
    CreateNew,
}

impl OpenMode {
    /// Whether a name that is not there is made.
    #[must_use]
    pub fn creates(self) -> bool {
        !matches!(self, Self::Read | Self::Write)
    }
}

/// A name in the store's directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The plain file name.
    pub name: String,
    /// Its length in bytes at the time of listing.
    pub bytes: u64,
}

/// What kind of file system holds the store, as far as sharing it is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// Belongs to one host: a lock cannot be lost while its process lives.
    Local {
        /// Its name, such as `ext4`.
        name: String,
        /// Nothing survives power loss (tmpfs).
        volatile: bool,
    },
    /// NFS with locks of version 4.1 or later that the server keeps.
    Nfs {
        /// The server's lease in seconds where the kernel tells it: a lock can be lost after it.
        lease_s: Option<u64>,
    },
    /// Cannot protect a shared store; the text says why and what to do.
    Unsafe(String),
    /// Not known to the project; usable only when the administrator allows it.
    Unknown(String),
}

impl FileSystem {
    /// Whether it belongs to one host. Zeros are written ahead there, and a lock is never lost.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local { .. })
    }
}

/// The directory of one store.
pub trait Disk: Send + Sync + Debug {
    /// The plain files of the directory, in no particular order.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<Entry>>;

    /// The names of the plain files of the directory, in no particular order. Asks for no file's length:
    /// on a cold disk or a network file system that costs a round trip for each.
    ///
    /// # Errors
    /// What the operating system says.
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.list()?.into_iter().map(|entry| entry.name).collect())
    }

    /// Opens a file of the directory.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives the file `from` a second name, atomically and only if `to` does not exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when `to` exists; else what the operating system says.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Renames a file; an existing file `to` is replaced atomically.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names created, renamed and removed so far survive power loss.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self) -> io::Result<()>;
    /// As [`Disk::sync_dir`], for a folder of the directory and the directory itself.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_folder(&self, _name: &str) -> io::Result<()> {
        self.sync_dir()
    }

    /// What the directory lies on.
    fn file_system(&self) -> FileSystem;

    /// Bytes that may still be written.
    ///
    /// # Errors
    /// What the operating system says.
    fn free_bytes(&self) -> io::Result<u64>;

    /// A clock in milliseconds that goes on while the machine is suspended (`CLOCK_BOOTTIME`).
    fn boot_ms(&self) -> u64;

    /// Waits; used only while a predecessor's last lock is about to be released.
    fn pause_ms(&self, ms: u64);

    /// The directory's path, for messages.
    fn describe(&self) -> String;
}

/// An open file. Closing it (dropping the last `Arc`) releases its lock.
pub trait DiskFile: Send + Sync + Debug {
    /// Its length in bytes. Never zero-checked by callers.
    ///
    /// # Errors
    /// What the operating system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads at an offset until `out` is full or the file ends; gives the number of bytes read.
    ///
    /// # Errors
    /// What the operating system says; interrupted and short reads are continued.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `data` at an offset. Not durable before [`DiskFile::sync`].
    ///
    /// # Errors
    /// What the operating system says; some of `data` may have been written then.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything written to this file durable, its length included.
    ///
    /// # Errors
    /// What the operating system says. After an error nothing about the file may be assumed.
    fn sync(&self) -> io::Result<()>;

    /// Sets the length; new bytes are zero.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Takes an exclusive lock on the whole file without waiting: an open-file-description lock,
    /// held until the file is closed. `false` when another holder has it.
    ///
    /// # Errors
    /// What the operating system says, for instance that the file system has no locks.
    fn try_lock(&self) -> io::Result<bool>;

    /// Whether somebody else holds the lock; takes nothing.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_locked_elsewhere(&self) -> io::Result<bool>;

    /// Identity of the file in its file system, to notice that a name was given to another file.
    ///
    /// # Errors
    /// What the operating system says.
    fn identity(&self) -> io::Result<u64>;
}

/// For a longer read the file is asked for its length first: no memory is filled for what is not there.
const ASK_BYTES: usize = 64 << 10;

/// Reads up to `len` bytes at an offset; the result is shorter where the file ends.
///
/// # Errors
/// What the operating system says.
pub(crate) fn read_range(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut len = len;
    if len > ASK_BYTES {
        let left = file.bytes()?.saturating_sub(offset);
        len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
    }
    let mut buffer = vec![0; len];
    let got = file.read_at(offset, &mut buffer)?;
    buffer.truncate(got);
    Ok(buffer)
}
