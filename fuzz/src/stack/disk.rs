//! The disk as one simulated process sees it: it can die between two operations, and it can be made
//! to break its promises, so that the oracle is seen to notice.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use steadfast_storage::disk::{Disk, DiskFile, Entry, FileSystem, OpenMode, SimDisk};

use super::sim;

/// What happens at a certain operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    /// The process dies.
    Kill,
    /// The host of the disk loses its power; the number chooses what survives.
    Power(u64),
}

/// A write or a sync that was reported done and was not done yet.
#[derive(Debug)]
enum Owed {
    Write(Arc<dyn DiskFile>, u64, Vec<u8>),
    Sync(Arc<dyn DiskFile>),
}

#[derive(Debug, Default)]
struct Control {
    /// So many changing operations still succeed.
    fuse: Option<(u64, Blow)>,
    blown: Option<Blow>,
    /// Writes and syncs are only noted.
    owes: bool,
    owed: Vec<Owed>,
    /// Locks are given to everybody.
    has_no_locks: bool,
}

/// A process's disk.
#[derive(Clone, Debug)]
pub(super) struct ProcessDisk {
    sim: SimDisk,
    life: u64,
    control: Arc<Mutex<Control>>,
}

impl ProcessDisk {
    pub(super) fn new(sim: SimDisk, life: u64, has_no_locks: bool) -> Self {
        let control = Control {
            has_no_locks,
            ..Control::default()
        };
        Self {
            sim,
            life,
            control: Arc::new(Mutex::new(control)),
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process in its world.
    pub(super) fn sim(&self) -> &SimDisk {
        &self.sim
    }

    /// Lets something happen before the changing operation number `skip` from now.
    pub(super) fn blow_after(&self, skip: u64, blow: Blow) {
        self.control().fuse = Some((skip, blow));
    }

    /// What has happened by [`Self::blow_after`].
    pub(super) fn blown(&self) -> Option<Blow> {
        self.control().blown
    }

    /// Whether writes and syncs are reported done before they are.
    pub(super) fn set_owing(&self, owes: bool) {
        self.control().owes = owes;
    }

    /// Does what was reported done.
    pub(super) fn pay(&self) {
        let owed = std::mem::take(&mut self.control().owed);
        for one in owed {
            // Nobody is there any more who could be told of an error.
            let _late = match one {
                Owed::Write(file, offset, data) => file.write_at(offset, &data),
                Owed::Sync(file) => file.sync(),
            };
        }
    }

    fn before_change(&self, what: impl FnOnce() -> String) {
        sim::trace_line(|| format!("{:>12}     disk of process {}: {}", "", self.life, what()));
        let blow = {
            let mut control = self.control();
            match &mut control.fuse {
                Some((0, blow)) => {
                    let blow = *blow;
                    control.fuse = None;
                    control.blown = Some(blow);
                    blow
                }
                Some((left, _)) => {
                    *left -= 1;
                    return;
                }
                None => return,
            }
        };
        match blow {
            Blow::Kill => self.sim.world().kill(&self.sim),
            Blow::Power(seed) => self.sim.world().crash(seed),
        }
    }
}

impl Disk for ProcessDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.sim.list()
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode.creates() {
            self.before_change(|| format!("{mode:?} {name}"));
        }
        Ok(Arc::new(ProcessFile {
            file: self.sim.open(name, mode)?,
            name: name.to_owned(),
            disk: self.clone(),
        }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.before_change(|| format!("link {from} {to}"));
        self.sim.link(from, to)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.before_change(|| format!("rename {from} {to}"));
        self.sim.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.before_change(|| format!("remove {name}"));
        self.sim.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.before_change(|| "sync the directory".to_owned());
        self.sim.sync_dir()
    }

    fn file_system(&self) -> FileSystem {
        self.sim.file_system()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.sim.free_bytes()
    }

    fn boot_ms(&self) -> u64 {
        self.sim.boot_ms()
    }

    fn pause_ms(&self, _ms: u64) {
        // All of a job happens at one moment of simulated time: waiting would change nothing.
    }

    fn describe(&self) -> String {
        self.sim.describe()
    }
}

#[derive(Debug)]
struct ProcessFile {
    file: Arc<dyn DiskFile>,
    name: String,
    disk: ProcessDisk,
}

impl DiskFile for ProcessFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.before_change(|| {
            let (name, bytes) = (&self.name, data.len());
            format!("write {bytes} bytes at {offset} of {name}")
        });
        let mut control = self.disk.control();
        if control.owes {
            let file = Arc::clone(&self.file);
            control.owed.push(Owed::Write(file, offset, data.to_vec()));
            return Ok(());
        }
        drop(control);
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.before_change(|| format!("sync {}", self.name));
        let mut control = self.disk.control();
        if control.owes {
            control.owed.push(Owed::Sync(Arc::clone(&self.file)));
            return Ok(());
        }
        drop(control);
        self.file.sync()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.disk
            .before_change(|| format!("set {} to {bytes} bytes", self.name));
        self.file.set_bytes(bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let is_ours = self.file.try_lock()?;
        Ok(is_ours || self.disk.control().has_no_locks)
    }

    fn is_locked_elsewhere(&self) -> io::Result<bool> {
        self.file.is_locked_elsewhere()
    }

    fn identity(&self) -> io::Result<u64> {
        self.file.identity()
    }
}
