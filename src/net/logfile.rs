//! The log file, and how it is rotated: the file so far gets the next number behind its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the log goes and how much is kept.
#[derive(Clone, Debug)]
pub struct LogFileOptions {
    /// The file.
    pub path: PathBuf,
    /// It is rotated when it has so many bytes; 0: only when an administrator asks for it.
    pub bytes_max: u64,
    /// Files that are kept, the present one included; 0: all.
    pub count_max: u64,
}

/// The log file of this process.
static LOG: Mutex<Option<LogFile>> = Mutex::new(None);

#[derive(Debug)]
struct LogFile {
    options: LogFileOptions,
    file: File,
    bytes: u64,
    /// Rotating failed at this size: it is not tried for each line.
    failed_at: u64,
}

/// Writes to the log file of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer;

/// Opens the log file.
pub(super) fn open(options: LogFileOptions) -> io::Result<()> {
    let log = LogFile::open(options)?;
    lock().replace(log);
    Ok(())
}

/// Begins a new log file; gives the name of the old one. `None` when the log goes to standard error.
pub(crate) fn rotate() -> io::Result<Option<PathBuf>> {
    lock().as_mut().map(LogFile::rotate).transpose()
}

fn lock() -> MutexGuard<'static, Option<LogFile>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match lock().as_mut() {
            Some(log) => log.write(line),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile {
    fn open(options: LogFileOptions) -> io::Result<Self> {
        let file = append_to(&options.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            options,
            file,
            bytes,
            failed_at: 0,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes_max = self.options.bytes_max;
        let is_full = bytes_max > 0 && self.bytes.saturating_add(line.len() as u64) > bytes_max;
        // A log that cannot be rotated grows: that is better than to lose lines.
        if is_full && self.bytes >= self.failed_at && self.bytes > 0 && self.rotate().is_err() {
            self.failed_at = self.bytes.saturating_add(bytes_max);
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn rotate(&mut self) -> io::Result<PathBuf> {
        let path = &self.options.path;
        let mut numbers = numbers(path)?;
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let kept = numbered(path, next);
        fs::rename(path, &kept)?;
        numbers.push(next);
        self.file = append_to(path)?;
        self.bytes = 0;
        let keep = usize::try_from(self.options.count_max.saturating_sub(1)).unwrap_or(usize::MAX);
        if self.options.count_max > 0 && numbers.len() > keep {
            for number in numbers.iter().take(numbers.len() - keep) {
                // One that somebody else has removed.
                let _absent = fs::remove_file(numbered(path, *number));
            }
        }
        Ok(kept)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The numbers behind the name of the file, sorted.
fn numbers(path: &Path) -> io::Result<Vec<u64>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begin = format!("{name}.");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let digits = name.strip_prefix(&begin);
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_gets_a_number_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = LogFile::open(LogFileOptions {
            path: path.clone(),
            bytes_max: 10,
            count_max: 3,
        })
        .expect("it can be opened");
        for number in 0..6 {
            let line = format!("line {number}\n");
            log.write(line.as_bytes()).expect("it is written");
        }
        let read = |path: &Path| fs::read_to_string(path).expect("it is there");
        assert_eq!(read(&path), "line 5\n");
        assert_eq!(numbers(&path).expect("a list"), [4, 5]);
        assert_eq!(read(&numbered(&path, 5)), "line 4\n");
        assert_eq!(log.rotate().expect("it is rotated"), numbered(&path, 6));
        assert_eq!(read(&path), "");
    }
}
