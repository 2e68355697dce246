//! One client connection as the node sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;

use crate::broker::{ClientId, ConsumerId, QueueId};
use crate::proto::{Connection, LinkId, Outcome, SessionId};

use super::desk::Desk;
use super::permits::{Permit, Relayed};
use super::routing::{Destination, Routes};
use super::sasl::Sasl;

/// An idle connection keeps at most so much memory for its output.
const IDLE_OUTPUT_BYTES: usize = 16 << 10;

/// Names a client connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

impl ConnectionId {
    /// The number that people know it by.
    pub fn serial(self) -> u32 {
        self.serial
    }

    /// One number for it.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.index)
    }
}

/// A link of a client.
#[derive(Debug)]
pub(crate) enum Link {
    Publisher(Publisher),
    Consumer(Consumer),
    /// A link without source: the client looks a durable subscription up, to close it.
    Lookup(QueueId),
}

/// A link on which the client publishes.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Where messages go; `None`: each message says it (the anonymous relay).
    pub(crate) destination: Option<Destination>,
    /// What that meant when the routing had this generation.
    pub(crate) routes: Option<(u64, Arc<Routes>)>,
    /// Temporary queue that lives as long as the link.
    pub(crate) owned_queue: Option<QueueId>,
    /// It waits for credit until publishing is possible again.
    pub(crate) is_starved: bool,
    pub(crate) permit: Permit,
    /// Where an anonymous relay has sent to.
    pub(crate) relayed: Relayed,
}

/// A link on which the client consumes or browses.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) session: SessionId,
    /// Temporary queue that lives as long as the link.
    pub(crate) owned_queue: Option<QueueId>,
    /// Deliveries are sent settled.
    pub(crate) is_presettled: bool,
    /// The client waits for the answer to its drain.
    pub(crate) is_draining: bool,
    /// The broker was told that it takes messages.
    pub(crate) is_ready: bool,
    /// What it means when the client settles without saying what it did.
    pub(crate) default_outcome: Option<Outcome>,
    pub(crate) permit: Permit,
}

impl Link {
    /// What was permitted.
    pub(crate) fn permit(&self) -> Option<&Permit> {
        match self {
            Self::Publisher(publisher) => Some(&publisher.permit),
            Self::Consumer(consumer) => Some(&consumer.permit),
            Self::Lookup(_) => None,
        }
    }
}

/// A client connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) serial: u32,
    pub(crate) connection: Connection,
    pub(crate) container: Option<String>,
    /// It wants to be the only connection of its container.
    pub(crate) is_sole: bool,
    /// The client opened the connection and we did.
    pub(crate) is_open: bool,
    /// `Closed` was seen: all links are gone.
    pub(crate) is_over: bool,
    pub(crate) user: Option<String>,
    /// The client whose connection it is, once it is open.
    pub(crate) client: Option<ClientId>,
    /// The user was proved, by a password or a certificate.
    pub(crate) is_verified: bool,
    pub(crate) sasl: Sasl,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) publishers: usize,
    /// Its links of `$management`, once it had one.
    pub(crate) desk: Option<Box<Desk>>,
    /// It stands in the list of connections with output.
    pub(crate) is_dirty: bool,
    /// Consumers wait until output has been written.
    pub(crate) waits_for_output: bool,
    pub(crate) last_heard_ms: u64,
    /// When it came.
    pub(crate) since_ms: u64,
}

impl Peer {
    /// Whether its input may be read now, with so many bytes waiting for the disk. Consumers may go
    /// on for longer than publishers: what they settle makes room.
    pub(crate) fn wants_input(&self, backlog_bytes: usize, bytes_max: usize) -> bool {
        let factor = if self.publishers == 0 { 2 } else { 1 };
        !self.connection.is_output_full() && backlog_bytes <= bytes_max.saturating_mul(factor)
    }

    pub(crate) fn new(serial: u32, connection: Connection, now_ms: u64) -> Self {
        Self {
            serial,
            connection,
            container: None,
            is_sole: false,
            is_open: false,
            is_over: false,
            user: None,
            client: None,
            is_verified: false,
            sasl: Sasl::default(),
            links: BTreeMap::new(),
            publishers: 0,
            desk: None,
            is_dirty: false,
            waits_for_output: false,
            last_heard_ms: now_ms,
            since_ms: now_ms,
        }
    }

    /// Gives back what a burst of output has left behind.
    pub(crate) fn release_memory(&mut self) {
        let output = self.connection.output();
        if output.is_empty() && output.capacity() > IDLE_OUTPUT_BYTES {
            *output = BytesMut::new();
        }
    }

    pub(crate) fn consumer_mut(&mut self, link: LinkId) -> Option<&mut Consumer> {
        match self.links.get_mut(&link) {
            Some(Link::Consumer(consumer)) => Some(consumer),
            _ => None,
        }
    }

    pub(crate) fn publisher_mut(&mut self, link: LinkId) -> Option<&mut Publisher> {
        match self.links.get_mut(&link) {
            Some(Link::Publisher(publisher)) => Some(publisher),
            _ => None,
        }
    }
}
