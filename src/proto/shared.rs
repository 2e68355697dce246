//! What all sessions and links of a connection share: settings, output, events, names, budgets.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::frame::MIN_MAX_FRAME_SIZE;
use super::queue::EventQueue;
use super::{LinkId, PeerRole, Settings};

/// Output above which no more messages are to be sent until it was written, bytes.
pub(crate) const OUTPUT_HIGH_WATER: usize = 1024 * 1024;
/// Most links of a connection.
pub(crate) const LINKS_MAX: usize = 16_384;
/// Longest link name, bytes.
pub(crate) const LINK_NAME_MAX: usize = 4096;
/// Bytes of incomplete messages that a connection may keep when messages have no maximum size.
const PARTIAL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Names a session of one connection; never reused within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    pub(crate) channel: u16,
    pub(crate) generation: u32,
}

/// State beside the sessions, handed to each of their methods.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) events: EventQueue,
    /// Links by what identifies them within a connection: a sender and a receiver may share a name.
    pub(crate) names: BTreeMap<(PeerRole, String), LinkId>,
    /// Sessions with something to flush.
    pub(crate) dirty: Vec<u16>,
    /// Links that exist, of all sessions.
    pub(crate) link_count: usize,
    /// Bytes of messages of which frames are missing.
    pub(crate) partial_bytes: u64,
    /// Largest frame that the peer takes.
    pub(crate) peer_max_frame_size: usize,
    generation: u32,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            output: Output::default(),
            events: EventQueue::default(),
            names: BTreeMap::new(),
            dirty: Vec::new(),
            link_count: 0,
            partial_bytes: 0,
            peer_max_frame_size: MIN_MAX_FRAME_SIZE as usize,
            generation: 0,
        }
    }

    /// Makes ids of sessions and links unique over the life of the connection.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Gives back what a burst of traffic left behind; for quiet times.
    pub(crate) fn shrink(&mut self) {
        if self.output.ready.is_empty() {
            self.output.ready = BytesMut::new();
        }
        self.events.shrink();
        self.dirty.shrink_to_fit();
    }

    /// Whether incomplete messages may grow by so many bytes.
    pub(crate) fn has_room_for_partial(&self, bytes: u64) -> bool {
        let max = match self.settings.max_message_bytes {
            0 => PARTIAL_BYTES_MAX,
            max_message_bytes => max_message_bytes.saturating_mul(2),
        };
        self.partial_bytes.saturating_add(bytes) <= max
    }
}

/// Bytes for the peer. Frames that a client writes before its open may leave wait behind it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) ready: BytesMut,
    staged: BytesMut,
    pub(crate) is_open_sent: bool,
}

impl Output {
    /// Where frames of sessions go.
    pub(crate) fn frames(&mut self) -> &mut BytesMut {
        if self.is_open_sent {
            &mut self.ready
        } else {
            &mut self.staged
        }
    }

    /// The open was written: what waited for it follows.
    pub(crate) fn open_was_sent(&mut self) {
        self.is_open_sent = true;
        self.ready.extend_from_slice(&self.staged);
        self.staged = BytesMut::new();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.ready.len() >= OUTPUT_HIGH_WATER
    }
}
