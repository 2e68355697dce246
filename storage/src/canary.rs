//! Looking whether locks mean anything here, while somebody else owns the store.
//!
//! On a network file system two hosts may each be given the same lock, by a mount option or a broken
//! server. A standby can notice before it is too late: whoever writes a segment holds its lock, so a
//! segment that grows while nobody is seen to hold it shows that locks are not seen across hosts. The
//! canary only looks (`F_OFD_GETLK`); it takes no lock that the owner may need.

use std::collections::BTreeMap;
use std::io;

use crate::disk::{Disk, OpenMode};
use crate::format::segment::{segment_name, segment_of};

/// The owner writes the last one or, with the next one prepared, the last but one.
const SEGMENTS: usize = 3;

/// What was seen of the owner's segments. Made for file systems where segments grow as they are written.
#[derive(Debug, Default)]
pub struct Canary {
    /// Length of each segment that nobody was seen to hold.
    unlocked: BTreeMap<u64, u64>,
}

impl Canary {
    /// Looks once; to be called every few seconds while the store belongs to somebody else. The text
    /// says why locks cannot be trusted.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn look(&mut self, disk: &dyn Disk) -> io::Result<Option<String>> {
        let names = disk.names()?;
        let mut segments: Vec<u64> = names.iter().filter_map(|it| segment_of(it)).collect();
        segments.sort_unstable();
        let before = std::mem::take(&mut self.unlocked);
        for segment in segments.into_iter().rev().take(SEGMENTS) {
            let name = segment_name(segment);
            let file = match disk.open(&name, OpenMode::Read) {
                Ok(file) => file,
                // It was reclaimed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let bytes = file.bytes()?;
            if file.is_locked_elsewhere()? {
                continue;
            }
            if before.get(&segment).is_some_and(|before| bytes > *before) {
                return Ok(Some(format!(
                    "{name} grows although nobody is seen to hold its lock: locks do not work across \
                     the hosts that share {}",
                    disk.describe()
                )));
            }
            self.unlocked.insert(segment, bytes);
        }
        Ok(None)
    }
}
