//! Real files. The only module of the store that talks to the operating system.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the real implementation behind the disk trait"
)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::{Disk, DiskFile, Entry, FileSystem, OpenMode, mount};

/// A directory of real files.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
}

impl RealDisk {
    /// Opens a directory, creating it (with its parents) when `create` is set.
    ///
    /// # Errors
    /// When it does not exist, is no directory or cannot be created.
    pub fn open(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            fs::create_dir_all(path)?;
        }
        let path = path.canonicalize()?;
        if !path.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "not a directory",
            ));
        }
        Ok(Self { path })
    }
}

fn from_errno(errno: nix::errno::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A file may vanish between listing and looking at it: then it is not there.
            let Ok(meta) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                entries.push(Entry {
                    name,
                    bytes: meta.len(),
                });
            }
        }
        Ok(entries)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateOrWrite => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::CreateEmpty => {
                options.write(true).create(true).truncate(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let path = self.path.join(name);
        if let Some(parent) = path.parent()
            && matches!(mode, OpenMode::CreateEmpty)
            && name.contains('/')
        {
            fs::create_dir_all(parent)?;
        }
        Ok(Arc::new(RealFile {
            file: options.open(path)?,
        }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path.join(from), self.path.join(to))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn sync_folder(&self, name: &str) -> io::Result<()> {
        File::open(self.path.join(name))?.sync_all()?;
        self.sync_dir()
    }

    fn file_system(&self) -> FileSystem {
        mount::detect(&self.path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.path).map_err(from_errno)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    fn boot_ms(&self) -> u64 {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
            let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
            let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
            seconds * 1000 + nanos / 1_000_000
        })
    }

    fn pause_ms(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

/// An exclusive lock on the whole file. `l_pid` must be 0 for open-file-description locks.
fn whole_file_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&whole_file_lock())) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
            Err(errno) => Err(from_errno(errno)),
        }
    }

    fn is_locked_elsewhere(&self) -> io::Result<bool> {
        let mut lock = whole_file_lock();
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(from_errno)?;
        Ok(lock.l_type != libc::F_UNLCK as i16)
    }

    fn identity(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_file_is_refused_to_a_second_opener_until_the_first_closes_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), false).unwrap();
        let first = disk.open("LOCK", OpenMode::CreateOrWrite).unwrap();
        let second = disk.open("LOCK", OpenMode::CreateOrWrite).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        assert!(second.is_locked_elsewhere().unwrap());
        assert!(
            !first.is_locked_elsewhere().unwrap(),
            "one's own lock is not another's"
        );
        drop(first);
        assert!(!second.is_locked_elsewhere().unwrap());
        assert!(second.try_lock().unwrap());
    }

    #[test]
    fn a_link_to_an_existing_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), false).unwrap();
        disk.open("a", OpenMode::CreateEmpty).unwrap();
        disk.link("a", "b").unwrap();
        assert_eq!(
            disk.link("a", "b").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn the_boot_clock_advances_and_the_temp_directory_has_a_known_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), false).unwrap();
        let before = disk.boot_ms();
        disk.pause_ms(2);
        assert!(disk.boot_ms() > before);
        assert!(
            matches!(disk.file_system(), FileSystem::Local { .. }),
            "{:?}",
            disk.file_system()
        );
        assert!(disk.free_bytes().unwrap() > 0);
    }
}
