//! Clients that want to hear from us more often than ticks come.

use super::{ConnectionId, Node, Now};

/// A client that is more patient than this hears from us twice in its idle time-out with ticks alone, milliseconds.
const PATIENT_MS: u32 = 1_000;
/// At most so many connections are looked at between ticks.
const IMPATIENT_MAX: usize = 256;

impl Node {
    /// A connection opened whose client gives us up after so long.
    pub(super) fn note_patience(&mut self, id: ConnectionId, idle_timeout_ms: Option<u32>) {
        if idle_timeout_ms.is_some_and(|it| it < PATIENT_MS) {
            self.impatient.retain(|id| {
                self.peers
                    .get(id.index as usize)
                    .is_some_and(|it| it.serial == id.serial)
            });
            if self.impatient.len() < IMPATIENT_MAX {
                self.impatient.push(id);
            }
        }
    }

    /// When [`Self::keep_alive`] wants to be called although nothing happens, in the clock of `boot_ms`.
    pub fn next_keep_alive_ms(&self, now: Now) -> Option<u64> {
        let at = self.impatient.iter().filter_map(|id| self.timeout_of(*id));
        let at = at.min()?;
        Some(now.boot_ms + at.saturating_sub(now.monotonic_ms))
    }

    /// Time-outs of the protocol that are due between ticks.
    pub fn keep_alive(&mut self, now: Now) {
        let impatient = self.impatient.iter().copied();
        let due: Vec<ConnectionId> = impatient
            .filter(|id| {
                self.timeout_of(*id)
                    .is_some_and(|at| at <= now.monotonic_ms)
            })
            .collect();
        self.handle_timeouts(now, &due);
    }

    pub(super) fn timeout_of(&self, id: ConnectionId) -> Option<u64> {
        self.peer(id)?.connection.poll_timeout()
    }

    pub(super) fn handle_timeouts(&mut self, now: Now, due: &[ConnectionId]) {
        for &id in due {
            if let Some(peer) = self.peer_mut(id) {
                peer.connection.handle_timeout(now.monotonic_ms);
                self.take_events(now, id);
            }
        }
    }
}
