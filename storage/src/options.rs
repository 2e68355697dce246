//! Settings and reports of a store.

/// Settings of a store. The defaults suit a local disk; [`crate::Store::open`] adapts what is not
/// set to the file system it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Size of a full-grown segment in bytes; the first ones of an epoch are smaller.
    pub segment_bytes: u64,
    /// Size of the first segment of an epoch in bytes, at least 64 KiB; each further one doubles up to
    /// `segment_bytes`. Taking over writes it full of zeros.
    pub first_segment_bytes: u64,
    /// A checkpoint is taken after so many bytes of log; `None`: 12 MiB on a local disk, 4 MiB on NFS. Never
    /// more than a quarter of `segment_bytes`.
    pub checkpoint_bytes: Option<u64>,
    /// A checkpoint is taken after this time when anything changed, in ms.
    pub checkpoint_interval_ms: u64,
    /// The open batch is closed when it reaches this size in bytes.
    pub batch_bytes: usize,
    /// Confirms are suspended when the last durable write is older than this, in ms. `None`: off
    /// on a local file system, below half of the lease on NFS.
    pub fence_deadline_ms: Option<u64>,
    /// Messages are refused when the disk has less free space than this, or when the next segment
    /// would leave less, in bytes. What is below it is for settlements and for the store's own files.
    pub free_bytes_min: u64,
    /// Use a file system that the project does not know.
    pub allow_unverified_locking: bool,
    /// Identity of the store when it is made new; random.
    pub new_identity: [u8; 24],
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            first_segment_bytes: 256 << 10,
            checkpoint_bytes: None,
            checkpoint_interval_ms: 1000,
            batch_bytes: 1 << 20,
            fence_deadline_ms: None,
            free_bytes_min: 64 << 20,
            allow_unverified_locking: false,
            new_identity: [0; 24],
        }
    }
}

/// What recovery is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Locking what the predecessor left.
    Locking,
    /// Reading the checkpoint.
    Checkpoint,
    /// Looking for a snapshot in the log, because no checkpoint can be used.
    Snapshot {
        /// Bytes read so far.
        bytes: u64,
        /// Bytes to read at most.
        of: u64,
    },
    /// Reading the log behind the checkpoint.
    Tail {
        /// Bytes read so far.
        bytes: u64,
        /// Bytes to read, as far as known.
        of: u64,
    },
    /// Sealing the predecessor's segments.
    Sealing,
}

/// A write that was cut short at the end of the log: cut off, reported, not corruption.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The segment's file name.
    pub file: String,
    /// Where the valid log ends.
    pub offset: u64,
    /// Bytes behind it that are ignored.
    pub bytes: u64,
}

/// A part of the log that cannot be read although later parts can: corruption.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// The segment's file name.
    pub file: String,
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Record numbers that are missing.
    pub records: u64,
}

/// Whether recovery used what a standby had kept of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum WarmUse {
    /// There was nothing.
    #[default]
    None,
    /// It was checked against the log and used: only what is new was read.
    Used,
    /// It was not used; the text says why. Checkpoint and tail were read instead.
    Refused(String),
}

impl WarmUse {
    /// What it is called in logs and in `/state`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Used => "used",
            Self::Refused(_) => "refused",
        }
    }
}

/// What recovery found and how long it took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Number of the new owner's first segment.
    pub epoch: u64,
    /// Bytes of log behind the checkpoint that were read.
    pub tail_bytes: u64,
    /// References waiting in all queues.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records copied from the predecessor's last batch.
    pub adopted_records: u64,
    /// Whether what a standby had kept was used.
    pub warm: WarmUse,
    /// Why the checkpoint was not used and the log was read instead.
    pub rebuilt: Option<String>,
    /// The torn tail that was cut off.
    pub torn: Option<TornTail>,
    /// Ranges that could not be read.
    pub damaged: Vec<DamagedRange>,
    /// Duration of all of it, in microseconds by the caller's clock, or 0 when it has none.
    pub phases_us: Phases,
}

/// How long the steps of recovery took, in ms of the disk's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    /// Listing and locking.
    pub locking_ms: u64,
    /// Reading the checkpoint.
    pub checkpoint_ms: u64,
    /// Reading the tail.
    pub tail_ms: u64,
    /// Making the new segment and sealing.
    pub sealing_ms: u64,
}

/// Whether this process may confirm and deliver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fence {
    /// Yes.
    Held,
    /// Not now: the last durable write is too old; one is being forced. Hold confirms and
    /// deliveries until it is `Held` again.
    Lapsed,
    /// Never again: the log failed.
    Lost(crate::FatalError),
}

/// Figures of a running store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreStatus {
    /// Number of this owner's first segment.
    pub epoch: u64,
    /// Segments on disk.
    pub segments: u64,
    /// References waiting in all queues, as far as durable.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Log behind the last checkpoint, in bytes.
    pub tail_bytes: u64,
    /// A checkpoint is taken after so many bytes.
    pub checkpoint_bytes: u64,
    /// Number of the last record.
    pub last_lsn: u64,
    /// Number of the last durable record.
    pub durable_lsn: u64,
    /// Batches written by this owner.
    pub batches: u64,
    /// Their bytes, padding included.
    pub batch_bytes: u64,
    /// Bytes of messages (meta and body) in them.
    pub message_bytes: u64,
    /// Checkpoints taken by this owner.
    pub checkpoints: u64,
    /// Checkpoints that failed; the log grows until one succeeds.
    pub checkpoint_failures: u64,
    /// References set aside as damaged over the life of the store.
    pub quarantined: u64,
    /// References found by this owner to be damaged so badly that not even their queue can be
    /// told. They are set aside too, once it is known which queues miss them.
    pub lost_references: u64,
    /// Messages are refused for lack of space.
    pub full: bool,
    /// Writes of the log that found no space; each is tried again until it succeeds.
    pub refused_writes: u64,
    /// Segments made small by this owner because little of them was live.
    pub compactions: u64,
    /// Bytes written for that.
    pub compacted_bytes: u64,
    /// Compacted files that were found damaged while an earlier file of their segment was still there: that
    /// one was read instead, and compacted again.
    pub damaged_copies: u64,
    /// Free space of the disk when it was last asked, in bytes.
    pub free_bytes: u64,
}
