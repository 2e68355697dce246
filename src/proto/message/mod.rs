//! Messages without decoding them (part 3.2): a one-pass index of the sections before the body, a new
//! header section to be sent before the unchanged rest, and the simple messages of our own tools.
//!
//! ```text
//! header?  delivery-annotations?  message-annotations?  properties?  application-properties?  body  footer?
//! |<-------- per hop ---------->| |<---------- forwarded as received, from `bare_offset` on ------------->|
//! ```

mod outline;
mod simple;
mod valued;

use std::ops::{Deref, Range};

use super::Payload;
use super::wire::{DecodeError, Fields, Reader, TRUNCATED, code};

pub use outline::{Entries, MessageOutline};
pub use simple::{PropertyValue, SimpleMessage};
pub use valued::ValueMessage;

/// Priority of a message whose header names none.
pub const DEFAULT_PRIORITY: u8 = 4;

/// Bytes that are not an AMQP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {reason}, in the section at byte {offset}")]
pub struct MalformedMessage {
    /// Where the section begins that cannot be read.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Where the parts of an encoded message are, and the values of its header. Offsets count from the message's
/// start. Only what the broker needs is looked at; maps and the body are not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageIndex {
    /// Header: the message is to survive the server. Absent means false.
    pub durable: bool,
    /// Header: 0 to 255; absent means 4.
    pub priority: u8,
    /// Header: time to live, milliseconds.
    pub ttl_ms: Option<u32>,
    /// Header: nobody else acquired the message before.
    pub first_acquirer: bool,
    /// Header: earlier failed deliveries.
    pub delivery_count: u32,
    /// Whether there is a header section.
    pub has_header: bool,
    /// Whether there are delivery annotations, which are meant for one hop.
    pub has_delivery_annotations: bool,
    /// First byte behind header and delivery annotations: what is forwarded unchanged.
    pub bare_offset: usize,
    /// The map of the message annotations, constructor included.
    pub message_annotations: Option<Range<usize>>,
    /// The map of the application properties, constructor included.
    pub application_properties: Option<Range<usize>>,
    /// Properties: the message-id, constructor included.
    pub message_id: Option<Range<usize>>,
    /// Properties: the text of `to`; `None` also when it is not a string.
    pub to: Option<Range<usize>>,
    /// Properties: the text of the group-id.
    pub group_id: Option<Range<usize>>,
    /// Properties: absolute-expiry-time, milliseconds since 1970.
    pub absolute_expiry_ms: Option<i64>,
    /// First byte of the body; the message's length when there is none.
    pub body_offset: usize,
}

impl MessageIndex {
    /// Reads the sections before the body of a message.
    pub fn scan(message: &[u8]) -> Result<Self, MalformedMessage> {
        if message.is_empty() {
            return Err(MalformedMessage {
                offset: 0,
                reason: "a message has no bytes",
            });
        }
        Self::empty().scan_sections(message, true)
    }

    /// The same for a received payload. Copies nothing as long as the sections before the body came with the first
    /// frame; otherwise no more than they need.
    pub fn scan_payload(payload: &Payload) -> Result<Self, MalformedMessage> {
        if let Some(message) = payload.as_single() {
            return Self::scan(message);
        }
        if let Ok(index) = Self::empty().scan_sections(payload.first(), false) {
            return Ok(index);
        }
        let mut joined = Vec::new();
        let mut scanned = 0;
        for part in payload.parts() {
            joined.extend_from_slice(part);
            // Doubling keeps the sum of all scans within a factor of the message.
            if joined.len() >= scanned * 2 && joined.len() < payload.len() {
                scanned = joined.len();
                if let Ok(index) = Self::empty().scan_sections(&joined, false) {
                    return Ok(index);
                }
            }
        }
        Self::scan(&joined)
    }

    /// The text of `to` in the message that was scanned.
    pub fn to_text<'a>(&self, message: &'a [u8]) -> Option<&'a str> {
        text_at(message, self.to.as_ref())
    }

    /// The text of the message-id, when it is a string, in the message that was scanned.
    pub fn message_id_text<'a>(&self, message: &'a [u8]) -> Option<&'a str> {
        let value = message.get(self.message_id.clone()?)?;
        text_at(message, text_range(message, value).as_ref())
    }

    /// The header that was read, or the defaults.
    pub fn header(&self) -> Header {
        Header {
            durable: self.durable,
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            first_acquirer: self.first_acquirer,
            delivery_count: self.delivery_count,
        }
    }

    fn empty() -> Self {
        Self {
            durable: false,
            priority: DEFAULT_PRIORITY,
            ttl_ms: None,
            first_acquirer: false,
            delivery_count: 0,
            has_header: false,
            has_delivery_annotations: false,
            bare_offset: 0,
            message_annotations: None,
            application_properties: None,
            message_id: None,
            to: None,
            group_id: None,
            absolute_expiry_ms: None,
            body_offset: 0,
        }
    }

    /// Walks the sections up to the body. `is_complete` says whether more bytes may follow; if so, the body
    /// must be reached.
    fn scan_sections(
        mut self,
        message: &[u8],
        is_complete: bool,
    ) -> Result<Self, MalformedMessage> {
        let mut reader = Reader::new(message);
        let mut last = 0;
        loop {
            let offset = message.len() - reader.rest().len();
            let malformed = |error: DecodeError| MalformedMessage {
                offset,
                reason: error.0,
            };
            self.body_offset = offset;
            if reader.is_empty() {
                return if is_complete {
                    Ok(self)
                } else {
                    Err(malformed(TRUNCATED))
                };
            }
            let section = reader.descriptor().map_err(malformed)?;
            match section {
                code::DATA | code::AMQP_SEQUENCE | code::AMQP_VALUE | code::FOOTER => {
                    return Ok(self);
                }
                code::HEADER..=code::APPLICATION_PROPERTIES if section > last => {}
                _ => return Err(malformed(DecodeError("unknown section or wrong order"))),
            }
            last = section;
            self.on_section(message, section, &mut reader)
                .map_err(malformed)?;
            if section <= code::DELIVERY_ANNOTATIONS {
                self.bare_offset = message.len() - reader.rest().len();
            }
        }
    }

    fn on_section(
        &mut self,
        message: &[u8],
        section: u64,
        reader: &mut Reader<'_>,
    ) -> Result<(), DecodeError> {
        match section {
            code::HEADER => self.on_header(reader.list()?)?,
            code::PROPERTIES => self.on_properties(message, reader.list()?)?,
            code::DELIVERY_ANNOTATIONS => {
                reader.value()?;
                self.has_delivery_annotations = true;
            }
            code::MESSAGE_ANNOTATIONS => {
                self.message_annotations = Some(range_of(message, reader.value()?));
            }
            _ => self.application_properties = Some(range_of(message, reader.value()?)),
        }
        Ok(())
    }

    fn on_header(&mut self, mut fields: Fields<'_>) -> Result<(), DecodeError> {
        self.has_header = true;
        self.durable = fields.boolean()?.unwrap_or(false);
        self.priority = fields.ubyte()?.unwrap_or(DEFAULT_PRIORITY);
        self.ttl_ms = fields.uint()?;
        self.first_acquirer = fields.boolean()?.unwrap_or(false);
        self.delivery_count = fields.uint()?.unwrap_or(0);
        Ok(())
    }

    fn on_properties(&mut self, message: &[u8], mut fields: Fields<'_>) -> Result<(), DecodeError> {
        self.message_id = fields.value()?.map(|value| range_of(message, value));
        fields.value()?; // user-id
        self.to = fields.value()?.and_then(|value| text_range(message, value));
        for _ in 0..5 {
            fields.value()?; // subject, reply-to, correlation-id, content-type, content-encoding
        }
        self.absolute_expiry_ms = fields.timestamp()?;
        fields.value()?; // creation-time
        self.group_id = fields.value()?.and_then(|value| text_range(message, value));
        Ok(())
    }
}

/// Where a slice of the message is in it.
fn range_of(message: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(message.as_ptr() as usize);
    start..start + part.len()
}

/// Where the characters of an encoded string are; `None` for other types and for what is not UTF-8.
fn text_range(message: &[u8], value: &[u8]) -> Option<Range<usize>> {
    let head = match value.first()? {
        0xa1 => 2,
        0xb1 => 5,
        _ => return None,
    };
    let text = value.get(head..)?;
    std::str::from_utf8(text).ok()?;
    Some(range_of(message, text))
}

fn text_at<'a>(message: &'a [u8], range: Option<&Range<usize>>) -> Option<&'a str> {
    std::str::from_utf8(message.get(range?.clone())?).ok()
}

/// The header section of a message (part 3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message is to survive the server.
    pub durable: bool,
    /// 0 to 255; 4 is ordinary.
    pub priority: u8,
    /// Time to live, milliseconds.
    pub ttl_ms: Option<u32>,
    /// Nobody else acquired the message before.
    pub first_acquirer: bool,
    /// Earlier failed deliveries.
    pub delivery_count: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            durable: false,
            priority: DEFAULT_PRIORITY,
            ttl_ms: None,
            first_acquirer: false,
            delivery_count: 0,
        }
    }
}

impl Header {
    /// The section, to be sent as the first part before `message[bare_offset..]`. Allocates nothing.
    pub fn encode(&self) -> HeaderBytes {
        let mut out = HeaderBytes {
            bytes: [0; HEADER_BYTES_MAX],
            len: 0,
        };
        out.push(&[0x00, 0x53, code::HEADER as u8, 0xc0, 0, 5]);
        out.push(&[if self.durable { 0x41 } else { 0x42 }, 0x50, self.priority]);
        match self.ttl_ms {
            Some(ttl_ms) => out.push_uint(ttl_ms),
            None => out.push(&[0x40]),
        }
        out.push(&[if self.first_acquirer { 0x41 } else { 0x42 }]);
        out.push_uint(self.delivery_count);
        let list_size = out.len - 5;
        out.bytes[4] = list_size;
        out
    }
}

/// Bytes of the longest header section: 6 before the fields and 1 + 2 + 5 + 1 + 5 for them.
const HEADER_BYTES_MAX: usize = 20;

/// An encoded header section, without allocation; dereferences to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct HeaderBytes {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl HeaderBytes {
    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        if let Some(room) = self.bytes.get_mut(start..start + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len() as u8;
        }
    }

    fn push_uint(&mut self, value: u32) {
        let [_, _, _, low] = value.to_be_bytes();
        match value {
            0 => self.push(&[0x43]),
            1..=0xff => self.push(&[0x52, low]),
            _ => {
                self.push(&[0x70]);
                self.push(&value.to_be_bytes());
            }
        }
    }
}

impl Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
