//! Caches, and reading a store as a whole.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use steadfast_storage::inspect;

use crate::cli::own_server::files_of;
use crate::cli::tool::ToolError;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// Makes the operating system forget what it keeps of these files. Returns what was done.
pub(super) fn drop_caches(files: &[PathBuf]) -> Result<&'static str, ToolError> {
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            // A server at work gives its next segment its name, and removes what it needs no more.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(ToolError::file("opening", path)(error)),
        };
        // Only clean pages are dropped.
        file.sync_all().map_err(ToolError::file("syncing", path))?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(std::io::Error::from)
            .map_err(ToolError::file("dropping the cache of", path))?;
    }
    // Only root may; it also drops names and attributes of files.
    match std::fs::write("/proc/sys/vm/drop_caches", "3") {
        Ok(()) => Ok("posix_fadvise and drop_caches"),
        Err(_) => Ok("posix_fadvise"),
    }
}

/// Reads and checks every batch of every segment.
pub(super) fn full_scan(directory: &Path) -> Result<u64, ToolError> {
    let disk = inspect::open_directory(directory).map_err(ToolError::file("opening", directory))?;
    let totals =
        inspect::full_scan(disk.as_ref()).map_err(ToolError::file("scanning", directory))?;
    Ok(totals.bytes)
}

/// Reads every byte and looks at none.
pub(super) fn raw_read(directory: &Path) -> Result<u64, ToolError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    for path in files_of(directory)? {
        let mut file = File::open(&path).map_err(ToolError::file("opening", &path))?;
        loop {
            let read = file
                .read(&mut buffer)
                .map_err(ToolError::file("reading", &path))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::cli::own_server::files_of;

    #[test]
    fn caches_of_a_directory_can_be_dropped_and_its_bytes_read() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("d")).expect("a directory");
        fs::write(directory.path().join("d/a"), [1; 3000]).expect("a file");
        fs::write(directory.path().join("b"), [1; 70]).expect("a file");
        let files = files_of(directory.path()).expect("a list");
        assert_eq!(files.len(), 2);
        let how = super::drop_caches(&files).expect("dropped");
        assert!(how.starts_with("posix_fadvise"));
        assert_eq!(super::raw_read(directory.path()).expect("read"), 3070);
    }
}
