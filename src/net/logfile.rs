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

/// The last number that a file gets; dates without separators are larger.
const NUMBER_MAX: u64 = 9_999_999;

/// The log file of this process.
static LOG: Mutex<Option<LogFile>> = Mutex::new(None);

#[derive(Debug)]
struct LogFile {
    options: LogFileOptions,
    file: File,
    bytes: u64,
    /// Rotating failed at this size: it is not tried for each line.
    failed_at: u64,
    /// The file was renamed and no new one could be opened: lines go to the renamed one until one can.
    is_detached: bool,
    /// What is to be said about the log.
    report: Option<Report>,
}

/// What is to be said about the log, as an event when its lock is free.
#[derive(Debug)]
enum Report {
    Failed(io::Error),
    Back,
}

impl Report {
    fn log(&self) {
        match self {
            Self::Failed(error) => tracing::error!(
                event = "logfile_failed",
                %error,
                "the log file cannot be rotated; lines go on into the old one, and it is tried again"
            ),
            Self::Back => tracing::warn!(
                event = "logfile_back",
                "the log file could be opened again; the lines before stand in the last numbered file"
            ),
        }
    }
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
        let (written, report) = match lock().as_mut() {
            Some(log) => (log.write(line), log.report.take()),
            None => (io::stderr().write(line), None),
        };
        if let Some(report) = report {
            report.log();
        }
        written
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
            is_detached: false,
            report: None,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_detached {
            // Each line tries: the log would not be found where people look for it.
            let _said_when_it_began = self.reopen();
        }
        let bytes_max = self.options.bytes_max;
        let is_full = bytes_max > 0 && self.bytes.saturating_add(line.len() as u64) > bytes_max;
        if is_full
            && !self.is_detached
            && self.bytes >= self.failed_at
            && self.bytes > 0
            && let Err(error) = self.rotate()
        {
            // A log that cannot be rotated grows: that is better than to lose lines.
            self.failed_at = self.bytes.saturating_add(bytes_max);
            self.report = Some(Report::Failed(error));
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    /// Opens the file where the last one was renamed.
    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.options.path)?;
        self.bytes = self.file.metadata()?.len();
        self.is_detached = false;
        self.report = Some(Report::Back);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<PathBuf> {
        let path = self.options.path.clone();
        let path = path.as_path();
        let mut numbers = numbers(path)?;
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let kept = numbered(path, next);
        if self.is_detached {
            // The old one has its number already.
            self.reopen()?;
            let last = numbers.last().copied().unwrap_or(next);
            return Ok(numbered(path, last));
        }
        if next > NUMBER_MAX {
            let text = format!(
                "{} has the last number: remove it",
                numbered(path, NUMBER_MAX).display()
            );
            return Err(io::Error::other(text));
        }
        fs::rename(path, &kept)?;
        numbers.push(next);
        self.is_detached = true;
        self.file = append_to(path)?;
        self.is_detached = false;
        self.failed_at = 0;
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
        numbers.extend(digits.and_then(own_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A number as [`numbered`] writes it: files that others have put beside the log are not touched, such as those
/// with a date behind its name.
fn own_number(digits: &str) -> Option<u64> {
    let number: u64 = digits.parse().ok()?;
    ((1..=NUMBER_MAX).contains(&number) && number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of which each file has about one line.
    fn opened(path: &Path, count_max: u64) -> LogFile {
        LogFile::open(LogFileOptions {
            path: path.to_owned(),
            bytes_max: 10,
            count_max,
        })
        .expect("it can be opened")
    }

    #[test]
    fn files_with_other_names_are_not_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let others = [
            "log.0",
            "log.007",
            "log.+3",
            "log.20261122",
            "log.1.gz",
            "log2",
        ];
        for other in others {
            fs::write(directory.path().join(other), "theirs").expect("it is written");
        }
        let mut log = opened(&path, 2);
        for number in 0..6 {
            let line = format!("line {number}\n");
            log.write(line.as_bytes()).expect("it is written");
        }
        assert_eq!(numbers(&path).expect("a list"), [5]);
        for other in others {
            let text = fs::read_to_string(directory.path().join(other));
            assert_eq!(text.expect("it is there"), "theirs", "{other}");
        }
        fs::write(numbered(&path, NUMBER_MAX), "the last one").expect("it is written");
        assert!(log.rotate().is_err(), "no file is written over");
    }

    #[test]
    fn a_file_that_could_not_be_opened_is_tried_again_with_each_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = opened(&path, 0);
        log.write(b"line 0\n").expect("it is written");
        // The state in which an open that failed after the renaming leaves it, and something in its way.
        fs::rename(&path, numbered(&path, 1)).expect("it is renamed");
        fs::create_dir(&path).expect("a directory");
        log.is_detached = true;
        log.write(b"line 1\n").expect("it is written");
        assert!(log.rotate().is_err());
        let read = |path: &Path| fs::read_to_string(path).expect("it is there");
        assert_eq!(read(&numbered(&path, 1)), "line 0\nline 1\n");
        fs::remove_dir(&path).expect("it is empty");
        log.write(b"line 2\n").expect("it is written");
        assert_eq!(read(&path), "line 2\n");
        assert!(matches!(log.report, Some(Report::Back)));
        assert_eq!(read(&numbered(&path, 1)), "line 0\nline 1\n");
    }

    #[test]
    fn a_rotation_that_fails_is_reported_and_costs_no_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = opened(&path, 0);
        log.write(b"line 0\n").expect("it is written");
        // Somebody removed it.
        fs::rename(&path, directory.path().join("elsewhere")).expect("it is renamed");
        log.write(b"line 1\n").expect("it is written");
        let text = fs::read_to_string(directory.path().join("elsewhere")).expect("it is there");
        assert_eq!(text, "line 0\nline 1\n");
        assert!(matches!(log.report, Some(Report::Failed(_))));
    }

    #[test]
    fn a_full_file_gets_a_number_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = opened(&path, 3);
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
