//! Time limits of a connection: the handshake, a silent peer, our own keep-alive, the peer's close.

/// A connection must be open after so long, milliseconds. Time that the owner takes does not count.
const HANDSHAKE_MS_MAX: u64 = 30_000;
/// The peer must answer a close within so long, milliseconds.
const CLOSE_MS_MAX: u64 = 2_000;
/// Shortest pause between keep-alive frames, milliseconds, however impatient the peer is.
const KEEPALIVE_MS_MIN: u64 = 10;

/// What a time limit that passed asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The handshake took too long.
    Handshake,
    /// The peer was silent for too long.
    Idle,
    /// The peer did not answer our close.
    Close,
    /// Show the peer that we are alive.
    KeepAlive,
}

/// Deadlines in the clock of the owner's `now_ms`.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The last time that the owner told.
    now_ms: u64,
    handshake_at: Option<u64>,
    idle_ms: Option<u64>,
    idle_at: Option<u64>,
    keepalive_ms: Option<u64>,
    keepalive_at: Option<u64>,
    close_at: Option<u64>,
    /// Something was written since the last keep-alive deadline.
    has_written: bool,
}

impl Timers {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            handshake_at: Some(now_ms + HANDSHAKE_MS_MAX),
            idle_ms: None,
            idle_at: None,
            keepalive_ms: None,
            keepalive_at: None,
            close_at: None,
            has_written: false,
        }
    }

    pub(crate) fn set_now(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Bytes of the peer arrived.
    pub(crate) fn on_received(&mut self) {
        self.idle_at = self.idle_ms.map(|idle_ms| self.now_ms + idle_ms);
    }

    /// The owner looks at output that is not empty: it is about to be written.
    pub(crate) fn on_written(&mut self) {
        self.has_written = true;
    }

    /// The handshake waits for the owner.
    pub(crate) fn pause_handshake(&mut self) {
        self.handshake_at = None;
    }

    /// The owner answered; the peer is to go on.
    pub(crate) fn resume_handshake(&mut self) {
        self.handshake_at = Some(self.now_ms + HANDSHAKE_MS_MAX);
    }

    /// The connection is open: `ours_ms` limits the peer's silence, `peer_ms` ours.
    pub(crate) fn on_open(&mut self, ours_ms: Option<u32>, peer_ms: Option<u32>) {
        self.handshake_at = None;
        self.idle_ms = ours_ms.filter(|&idle_ms| idle_ms > 0).map(u64::from);
        // A check sees only that something was written since the one before it: a quarter of the peer's
        // patience between checks keeps every pause below half of it.
        self.keepalive_ms = peer_ms.map(|peer_ms| (u64::from(peer_ms) / 4).max(KEEPALIVE_MS_MIN));
        self.keepalive_at = self
            .keepalive_ms
            .map(|keepalive_ms| self.now_ms + keepalive_ms);
        self.on_received();
    }

    /// Our close was written.
    pub(crate) fn on_close(&mut self) {
        self.handshake_at = None;
        self.idle_at = None;
        self.idle_ms = None;
        self.keepalive_at = None;
        self.close_at = Some(self.now_ms + CLOSE_MS_MAX);
    }

    /// Nothing is to be waited for any more.
    pub(crate) fn stop(&mut self) {
        self.on_close();
        self.close_at = None;
    }

    /// When the next limit passes.
    pub(crate) fn next(&self) -> Option<u64> {
        [
            self.handshake_at,
            self.idle_at,
            self.keepalive_at,
            self.close_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// One limit that has passed; ask until `None`. Limits that end the connection come first.
    pub(crate) fn poll(&mut self) -> Option<Due> {
        let has_passed = |at: Option<u64>| at.is_some_and(|at| at <= self.now_ms);
        if has_passed(self.close_at) {
            self.close_at = None;
            Some(Due::Close)
        } else if has_passed(self.handshake_at) {
            self.handshake_at = None;
            Some(Due::Handshake)
        } else if has_passed(self.idle_at) {
            self.idle_at = None;
            Some(Due::Idle)
        } else if has_passed(self.keepalive_at) {
            self.keepalive_at = self
                .keepalive_ms
                .map(|keepalive_ms| self.now_ms + keepalive_ms);
            let was_written = std::mem::take(&mut self.has_written);
            (!was_written).then_some(Due::KeepAlive)
        } else {
            None
        }
    }
}
