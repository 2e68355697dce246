//! Messages without decoding them: a one-pass index of the sections (part 3.2), a new header, and a
//! builder for the simple messages of our own load generator.

use std::ops::Range;

use super::Payload;

/// Bytes that are not an AMQP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {reason} at byte {offset}")]
pub struct MalformedMessage {
    /// Where.
    pub offset: usize,
    /// What.
    pub reason: &'static str,
}

/// Where the parts of an encoded message are, and the header's values. Offsets count from the start of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageIndex {
    /// Header: survives a restart. Absent means false.
    pub durable: bool,
    /// Header: 0 to 255, default 4.
    pub priority: u8,
    /// Header: time to live, milliseconds.
    pub ttl_ms: Option<u32>,
    /// Header: not acquired by anybody before.
    pub first_acquirer: bool,
    /// Header: earlier failed deliveries.
    pub delivery_count: u32,
    /// Whether a header section is there.
    pub has_header: bool,
    /// Whether delivery annotations (meant for one hop) are there.
    pub has_delivery_annotations: bool,
    /// First byte after header and delivery annotations: what is forwarded unchanged.
    pub bare_offset: usize,
    /// The value (a map) of the message annotations.
    pub message_annotations: Option<Range<usize>>,
    /// The value (a map) of the application properties.
    pub application_properties: Option<Range<usize>>,
    /// `properties.message-id` as encoded, constructor included.
    pub message_id: Option<Range<usize>>,
    /// `properties.to`: its text.
    pub to: Option<Range<usize>>,
    /// `properties.group-id`: its text.
    pub group_id: Option<Range<usize>>,
    /// `properties.absolute-expiry-time`, milliseconds since 1970.
    pub absolute_expiry_ms: Option<i64>,
    /// First byte of the body's first section; the message's length when there is none.
    pub body_offset: usize,
}

#[allow(unused_variables, reason = "signatures first")]
impl MessageIndex {
    /// Reads the sections before the body of a complete message.
    pub fn scan(message: &[u8]) -> Result<Self, MalformedMessage> {
        Err(MalformedMessage {
            offset: 0,
            reason: "not a message",
        })
    }

    /// The same for a received payload; copies only when the sections before the body span frames.
    pub fn scan_payload(payload: &Payload) -> Result<Self, MalformedMessage> {
        Self::scan(&payload.to_bytes())
    }
}

/// The header section of a message (part 3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Survives a restart.
    pub durable: bool,
    /// 0 to 255; 4 is ordinary.
    pub priority: u8,
    /// Time to live, milliseconds.
    pub ttl_ms: Option<u32>,
    /// Not acquired by anybody before.
    pub first_acquirer: bool,
    /// Earlier failed deliveries.
    pub delivery_count: u32,
}

/// An encoded header section, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct HeaderBytes {
    bytes: [u8; 32],
    len: u8,
}

impl std::ops::Deref for HeaderBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Header {
    /// The section, ready to be sent before the bare message.
    pub fn encode(&self) -> HeaderBytes {
        HeaderBytes {
            bytes: [0; 32],
            len: 0,
        }
    }
}

/// A value of a simple application property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// Text.
    Text(String),
    /// A signed 64-bit number.
    Long(i64),
}

/// A message as our own tools send it: header, message-id, to, some application properties, one data section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimpleMessage {
    /// Header: durable.
    pub durable: bool,
    /// Header: priority; `None` leaves the default of 4.
    pub priority: Option<u8>,
    /// Header: time to live, milliseconds.
    pub ttl_ms: Option<u32>,
    /// Header: earlier failed deliveries.
    pub delivery_count: u32,
    /// Properties: message-id, as text.
    pub message_id: Option<String>,
    /// Properties: to.
    pub to: Option<String>,
    /// Application properties.
    pub properties: Vec<(String, PropertyValue)>,
    /// Content of the data section.
    pub body: Vec<u8>,
}

#[allow(unused_variables, reason = "signatures first")]
impl SimpleMessage {
    /// The encoded message.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads back what [`Self::encode`] made; other properties and sections are skipped.
    pub fn decode(message: &[u8]) -> Result<Self, MalformedMessage> {
        Err(MalformedMessage {
            offset: 0,
            reason: "not a message",
        })
    }
}
