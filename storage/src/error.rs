//! What can go wrong, sorted by what the reader of the message should do.

use std::io;

use thiserror::Error;

/// An append was refused; the log itself is well.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// No space is left for messages. Settlements are still taken. Goes away when space returns.
    #[error("the store has no space for new messages: free space on its disk or consume messages")]
    Full,
    /// The record is larger than the format allows.
    #[error("a record of {bytes} bytes is larger than the limit of {bytes_max} bytes")]
    TooLarge {
        /// Size that was asked for.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The log has failed or is shut down; nothing more can be appended by this process.
    #[error("the log takes no more records: {0}")]
    Closed(String),
}

/// The log's own write or sync failed, or ownership was lost: final for this process.
///
/// Nothing may be confirmed any more; the process ends with exit code 5. A restart is safe.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{what} ({file}): {reason}; no confirm leaves any more, a restart is safe")]
pub struct FatalError {
    /// The operation that failed.
    pub what: String,
    /// The file it was about.
    pub file: String,
    /// The operating system's reason.
    pub reason: String,
}

impl FatalError {
    pub(crate) fn io(what: &str, file: &str, error: &io::Error) -> Self {
        Self {
            what: what.to_owned(),
            file: file.to_owned(),
            reason: error.to_string(),
        }
    }
}

/// Opening a store failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another live server holds a part of the store. Go back to standby and try again.
    #[error("the store belongs to another live server: {0}")]
    Busy(String),
    /// The store cannot be read; nothing was changed.
    #[error(
        "the store is damaged and nothing was changed: {0}; `steadfast store repair` tells what can be saved"
    )]
    Damaged(String),
    /// The file system cannot protect a shared store.
    #[error("{0}")]
    UnsafeFileSystem(String),
    /// The operating system refused; the message names the file.
    #[error("{what} ({file}): {source}")]
    Io {
        /// The operation.
        what: String,
        /// The file.
        file: String,
        /// The cause.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(what: &str, file: &str, source: io::Error) -> Self {
        Self::Io {
            what: what.to_owned(),
            file: file.to_owned(),
            source,
        }
    }
}

/// Errors that go away when somebody frees space.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
