//! What `/state` says: a promise to scripts, so fields are added, never renamed.

use serde::Serialize;

/// A snapshot of the server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The server's name.
    pub server: String,
    /// Version of the program.
    pub version: &'static str,
    /// The process id.
    pub process_id: u32,
    /// Identity of this process among its peers.
    pub instance: String,
    /// `starting`, `standby`, `activating`, `recovering`, `active`, `fenced` or `stopping`.
    pub role: &'static str,
    /// The epoch that this server owns or last owned; 0 if none.
    pub epoch: u64,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// Milliseconds since the role last changed.
    pub role_ms: u64,
    /// The real addresses of the listeners, as URLs.
    pub listens: Vec<String>,
    /// The peer in sight; `null` if none.
    pub peer: Option<Peer>,
    /// Why no peer is in sight, as far as that is known; `null` while one is.
    pub peer_trouble: Option<PeerTrouble>,
    /// All peers in sight.
    pub peers: Vec<Peer>,
    /// Servers in sight that share nothing with this one (`unshared_peer`).
    pub unshared_peers: Vec<Peer>,
    /// The recovery that made this server active, or the one under way.
    pub recovery: Recovery,
    /// What a standby keeps of the log; `null` when it keeps nothing.
    pub warm_standby: Option<WarmStandby>,
    /// Clients expected after a takeover.
    pub reconnect: Reconnect,
    /// The store; `null` unless this server owns it.
    pub store: Option<Store>,
    /// Clients and their traffic since the process started.
    pub clients: Clients,
    /// What goes through the server, over the last second or a little more.
    pub rates: Rates,
}

impl Status {
    /// Whether clients are served.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.role == "active"
    }
}

/// A peer in sight.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Peer {
    /// How messages name it.
    pub name: String,
    /// Its `server` parameter.
    pub server: String,
    /// Its role.
    pub role: &'static str,
    /// The epoch that it says it owns or owned.
    pub epoch: u64,
    /// Identity of its process.
    pub instance: String,
    /// Where it listens.
    pub listens: Vec<String>,
    /// What is different in its configuration, one line each; `null` before it was compared.
    pub differences: Option<Vec<String>>,
}

/// Why a peer is not in sight.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerTrouble {
    /// How messages name it, or the URL by which it was called.
    pub peer: String,
    /// `lost`, `refused` or `not reached`.
    pub what: &'static str,
    /// What happened.
    pub reason: String,
    /// Milliseconds since then.
    pub for_ms: u64,
}

/// A recovery.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recovery {
    /// From the moment the lock was obtained until clients are served; `null` until then.
    pub lock_to_ready_ms: Option<f64>,
    /// Bytes of log read behind the checkpoint.
    pub tail_bytes: u64,
    /// Messages waiting when the store was open.
    pub messages: u64,
    /// Bytes of messages waiting when the store was open.
    pub bytes: u64,
    /// Whether the checkpoint was rebuilt from the log.
    pub rebuilt: bool,
    /// What became of what a warm standby had kept: `none`, `used` or `refused`.
    pub warm: &'static str,
    /// Why it was refused.
    pub warm_refused: Option<String>,
    /// How long listing and locking, reading the checkpoint, reading the tail and sealing took.
    pub phases_ms: [u64; 4],
    /// How far a recovery under way has come; `null` when none is.
    pub progress: Option<Progress>,
}

/// How far a recovery has come.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Progress {
    /// What is being done.
    pub phase: String,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 if not known.
    pub total: u64,
    /// Since the recovery began.
    pub elapsed_ms: u64,
    /// Estimate of what the phase still takes; `null` if nobody can tell.
    pub remaining_ms: Option<u64>,
}

/// What a standby keeps of the log of the active server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WarmStandby {
    /// A snapshot was found and the log behind it is followed.
    pub following: bool,
    /// It had come to the end of the log when it looked last.
    pub current: bool,
    /// Segment up to which the log was applied; 0 before the first.
    pub segment: u64,
    /// Offset in that segment.
    pub offset: u64,
    /// Number of the last record that was applied.
    pub applied_lsn: u64,
    /// Records that were read and are not proven durable yet.
    pub lag_records: u64,
    /// How often it had to begin again.
    pub restarts: u64,
    /// Why the last time.
    pub lost: Option<String>,
}

/// Clients expected after a takeover.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reconnect {
    /// Clients whose state was recovered.
    pub expected: u64,
    /// Those that returned.
    pub returned: u64,
    /// Those whose state was removed.
    pub expired: u64,
    /// Clients whose state the next takeover would find.
    pub kept: u64,
    /// Time left until the state of the others is removed; `null` when none is expected.
    pub deadline_ms: Option<u64>,
}

/// The store of an active server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Store {
    /// The owned epoch.
    pub epoch: u64,
    /// Files of the log.
    pub segments: u64,
    /// Message references that are not settled.
    pub messages: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Log bytes that a recovery would have to read now.
    pub tail_bytes: u64,
    /// A checkpoint is taken after so many log bytes.
    pub checkpoint_bytes: u64,
    /// Number of the last record.
    pub last_lsn: u64,
    /// Number of the last durable record.
    pub durable_lsn: u64,
    /// Batches written since the store was opened: one sync each.
    pub batches: u64,
    /// Bytes of those, padding included.
    pub batch_bytes: u64,
    /// Bytes of messages in those.
    pub message_bytes: u64,
    /// Checkpoints taken since the store was opened.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoint_failures: u64,
    /// Damaged messages set aside over the life of the store.
    pub quarantined: u64,
    /// Compacted files that were found damaged while their segment was still there, and were made again from it.
    pub damaged_copies: u64,
    /// Messages that the disk refuses to read, left out until the next start.
    pub unreadable: usize,
    /// Whether publishes are refused because the disk is nearly full.
    pub full: bool,
    /// Free space of the disk; `None` before it was measured.
    pub free_bytes: Option<u64>,
}

/// Things a second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    /// Messages accepted from clients, each second.
    pub messages_in: f64,
    /// Deliveries to clients, each second.
    pub messages_out: f64,
    /// Bytes written to the log, each second.
    pub written_bytes: f64,
}

/// Clients and their traffic.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Clients {
    /// Connections that are open.
    pub connections: u64,
    /// Links that are attached.
    pub links: u64,
    /// Queues that exist.
    pub queues: u64,
    /// Subscriptions to topics.
    pub subscriptions: u64,
    /// Copies that subscriptions did not get because they were full.
    pub skipped: u64,
    /// Messages that went because newer ones needed their room.
    pub discarded: u64,
    /// Messages accepted from clients.
    pub messages_in: u64,
    /// Deliveries to clients.
    pub messages_out: u64,
    /// Deliveries that were marked as possibly seen before.
    pub redelivered: u64,
    /// Logins that were refused: wrong passwords, and certificates of nobody here.
    pub refused_logins: u64,
}
