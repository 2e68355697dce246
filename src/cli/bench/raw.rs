//! The disk alone: what write and sync cost without a broker.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::tool::ToolError;

/// Size of the file; writing goes round in it.
const FILE_BYTES: u64 = 64 << 20;
/// Writes begin at multiples of this, as the store's batches do.
const ALIGNMENT: u64 = 512;

/// A file of zeros that exists on disk in full, so that a write to it changes no metadata: the best
/// that a log can do. Removed when dropped.
#[derive(Debug)]
pub(super) struct RawFile {
    file: File,
    path: PathBuf,
    offset: u64,
    record: Vec<u8>,
}

impl RawFile {
    /// Makes the file in a directory and waits until it is on disk.
    pub(super) fn create(directory: &Path) -> Result<Self, ToolError> {
        let path = directory.join(format!("steadfast-raw-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(ToolError::file("creating", &path))?;
        let raw = Self {
            file,
            path,
            offset: 0,
            record: Vec::new(),
        };
        let zeros = vec![0; 1 << 20];
        let fault = || ToolError::file("writing", &raw.path);
        for block in 0..FILE_BYTES / zeros.len() as u64 {
            let offset = block * zeros.len() as u64;
            raw.file.write_all_at(&zeros, offset).map_err(fault())?;
        }
        raw.file.sync_all().map_err(fault())?;
        Ok(raw)
    }

    /// Writes one record and waits until it is durable. Returns how long that took.
    pub(super) fn write_synced(&mut self, bytes: usize) -> Result<Duration, ToolError> {
        if self.record.len() < bytes {
            // Nothing that a disk could store smaller.
            self.record = std::iter::repeat_with(|| fastrand::u8(..))
                .take(bytes)
                .collect();
        }
        let record = self.record.get(..bytes).unwrap_or_default();
        let length = (bytes as u64).next_multiple_of(ALIGNMENT);
        if self.offset + length > FILE_BYTES {
            self.offset = 0;
        }
        let started = Instant::now();
        self.file
            .write_all_at(record, self.offset)
            .and_then(|()| self.file.sync_data())
            .map_err(ToolError::file("writing", &self.path))?;
        let took = started.elapsed();
        self.offset += length;
        Ok(took)
    }

    /// Writes records of a size for so long. Returns how many and the time that it took.
    pub(super) fn write_for(
        &mut self,
        bytes: usize,
        time: Duration,
    ) -> Result<(u64, Duration), ToolError> {
        let started = Instant::now();
        let mut records = 0;
        loop {
            self.write_synced(bytes)?;
            records += 1;
            let elapsed = started.elapsed();
            if elapsed >= time {
                return Ok((records, elapsed));
            }
        }
    }
}

impl Drop for RawFile {
    fn drop(&mut self) {
        // Whoever removes the directory removes it otherwise.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FILE_BYTES, RawFile};

    #[test]
    fn the_raw_file_goes_round_and_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut raw = RawFile::create(directory.path()).expect("a raw file");
        raw.offset = FILE_BYTES - 512;
        raw.write_synced(1000).expect("a write");
        assert_eq!(raw.offset, 1024);
        let (records, elapsed) = raw.write_for(1, Duration::ZERO).expect("writes");
        assert!(records == 1 && elapsed > Duration::ZERO);
        drop(raw);
        let left = std::fs::read_dir(directory.path()).expect("a directory");
        assert_eq!(left.count(), 0);
    }
}
