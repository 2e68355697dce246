//! The crash-safe append log of Steadfast.
//!
//! A store is a directory on a disk that two or more servers share. The truth is a sequence of
//! append-only segments; a lock on the segment that is being written is the fence; a checkpoint
//! file makes recovery independent of the backlog. The store knows records, references and rows,
//! nothing of AMQP and nothing of a queue's policy. It has no threads: it hands out [`Job`]s.

mod bits;
mod canary;
mod checkpoint;
mod compact;
pub mod disk;
pub mod envelope;
mod error;
mod format;
pub mod hostile;
mod index;
pub mod inspect;
mod job;
mod maintain;
mod open;
mod options;
mod outline;
mod pairs;
mod read;
pub mod repair;
mod replay;
mod rows;
mod salvage;
mod scan;
mod setaside;
mod state;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod types;
mod warm;
mod writer;

pub use canary::Canary;
pub use error::{AppendError, FatalError, OpenError};
pub use job::{Job, JobDone, Lane};
pub use open::{Acquire, Ownership, try_acquire};
pub use options::{
    DamagedRange, Fence, Phases, Progress, RecoveryReport, StoreOptions, StoreStatus, TornTail,
    WarmUse,
};
pub use read::{LeftOut, ReadDone, ReadJob};
pub use store::Store;
pub use survey::{newer_epoch, store_id};
pub use types::{
    Appended, Cursor, DurableBatch, Lsn, MessageFlags, NewMessage, Place, QueueId, QueueStats,
    ReadLimit, StoredMessage, Ticket,
};
pub use warm::{Warm, WarmStatus};

/// A message goes to at most this many queues and subscriptions at once.
pub const ROUTES_MAX: usize = 4096;
/// Meta bytes of a message at most.
pub const META_BYTES_MAX: usize = 60 * 1024;
/// Key of a row at most.
pub const ROW_KEY_BYTES_MAX: usize = 512;
/// Value of a row at most: rows are stored in pages of 4 KiB.
pub const ROW_VALUE_BYTES_MAX: usize = 3 * 1024;
