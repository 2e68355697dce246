//! The index beside each message in the store: what is needed to send it without looking into it again.
//!
//! All numbers are little endian.
//!
//! ```text
//! short form, 8 bytes, for a message without time to live
//! | 0 version = 2 | 1 flags, priority << 4 | 2 offset of the bare message | 3..8 arrival, ms since 2025 |
//! long form, 32 bytes
//! | 0 version = 1 | 1 flags | 2 priority | 3 0 | 4..8 message format | 8..12 offset of the bare message |
//! | 12..16 time to live, ms, 0 none | 16..24 arrival, ms since 1970 | 24..32 expiry, ms since 1970, 0 never |
//! flags: 1 durable, 2 has a header, 4 has delivery annotations, 8 first acquirer; in the long form 16 the expiry is
//! that of the destination, whatever the header says
//! ```
//!
//! Longer ones are of the future and read the same.

use std::ops::Deref;

use crate::proto::message::{Header, MessageIndex};

const LONG: u8 = 1;
const LONG_BYTES: usize = 32;
const SHORT: u8 = 2;
const SHORT_BYTES: usize = 8;
/// 2025-01-01: the short form counts 34 years from here.
const SHORT_FROM_MS: u64 = 1_735_689_600_000;

const FLAG_DURABLE: u8 = 1;
const FLAG_HEADER: u8 = 2;
const FLAG_ANNOTATIONS: u8 = 4;
const FLAG_FIRST_ACQUIRER: u8 = 8;
const FLAG_OTHER_EXPIRY: u8 = 16;

/// An index as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedMeta {
    bytes: [u8; LONG_BYTES],
    len: usize,
}

impl Deref for EncodedMeta {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The index of a message: what is needed to send it without looking into it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageMeta {
    pub(crate) durable: bool,
    pub(crate) has_header: bool,
    pub(crate) has_delivery_annotations: bool,
    pub(crate) first_acquirer: bool,
    pub(crate) priority: u8,
    pub(crate) message_format: u32,
    /// First byte behind header and delivery annotations.
    pub(crate) bare_offset: u32,
    pub(crate) ttl_ms: u32,
    pub(crate) arrived_at_ms: u64,
    /// 0: never.
    pub(crate) expires_at_ms: u64,
    /// The destination says when the message expires: the time to live in the header does not count.
    pub(crate) has_other_expiry: bool,
}

impl MessageMeta {
    /// The index of an ordinary message that arrived now.
    pub(crate) fn of(index: &MessageIndex, wall_ms: u64) -> Self {
        let ttl_ms = index.ttl_ms.unwrap_or(0);
        // What the sender computed wins over what it left us to compute (part 3.2.4).
        let expires_at_ms = match index.absolute_expiry_ms {
            Some(at) if at > 0 => u64::try_from(at).unwrap_or(0),
            _ if ttl_ms > 0 => wall_ms.saturating_add(u64::from(ttl_ms)),
            _ => 0,
        };
        Self {
            durable: index.durable,
            has_header: index.has_header,
            has_delivery_annotations: index.has_delivery_annotations,
            first_acquirer: index.first_acquirer,
            priority: index.priority,
            message_format: 0,
            bare_offset: u32::try_from(index.bare_offset).unwrap_or(0),
            ttl_ms,
            arrived_at_ms: wall_ms,
            expires_at_ms,
            has_other_expiry: false,
        }
    }

    /// Has the message expire when its destination says so.
    pub(crate) fn expire_at(&mut self, at_ms: u64) {
        self.expires_at_ms = at_ms;
        self.has_other_expiry = true;
    }

    /// The index of a message in a format that we do not know: kept as durable, sent as it came.
    pub(crate) fn opaque(message_format: u32, wall_ms: u64) -> Self {
        Self {
            durable: true,
            has_header: false,
            has_delivery_annotations: false,
            first_acquirer: false,
            priority: 4,
            message_format,
            bare_offset: 0,
            ttl_ms: 0,
            arrived_at_ms: wall_ms,
            expires_at_ms: 0,
            has_other_expiry: false,
        }
    }

    /// As it is stored.
    pub(crate) fn encode(&self) -> EncodedMeta {
        let mut bytes = [0; LONG_BYTES];
        let flags = self.flags();
        if let Some((bare_offset, arrival)) = self.short() {
            bytes[0] = SHORT;
            bytes[1] = flags | self.priority << 4;
            bytes[2] = bare_offset;
            bytes[3..SHORT_BYTES].copy_from_slice(&arrival);
            return EncodedMeta {
                bytes,
                len: SHORT_BYTES,
            };
        }
        bytes[0] = LONG;
        bytes[1] = flags;
        if self.has_other_expiry {
            bytes[1] |= FLAG_OTHER_EXPIRY;
        }
        bytes[2] = self.priority;
        bytes[4..8].copy_from_slice(&self.message_format.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bare_offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.ttl_ms.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.arrived_at_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.expires_at_ms.to_le_bytes());
        EncodedMeta {
            bytes,
            len: LONG_BYTES,
        }
    }

    fn flags(&self) -> u8 {
        let flags = [
            (self.durable, FLAG_DURABLE),
            (self.has_header, FLAG_HEADER),
            (self.has_delivery_annotations, FLAG_ANNOTATIONS),
            (self.first_acquirer, FLAG_FIRST_ACQUIRER),
        ];
        let set = flags.iter().filter(|(set, _)| *set);
        set.map(|(_, bit)| bit).sum()
    }

    /// Offset and arrival of a message that the short form can say all of.
    fn short(&self) -> Option<(u8, [u8; 5])> {
        let rest = (self.message_format, self.ttl_ms, self.expires_at_ms);
        if rest != (0, 0, 0) || self.priority > 15 {
            return None;
        }
        let arrival = self.arrived_at_ms.checked_sub(SHORT_FROM_MS)?.to_le_bytes();
        let (arrival, above) = arrival.split_first_chunk::<5>()?;
        let is_near = above.iter().all(|byte| *byte == 0);
        Some((u8::try_from(self.bare_offset).ok()?, *arrival)).filter(|_| is_near)
    }

    /// Reads an index back; `None` for one that this version cannot read.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes.first()? {
            SHORT => Self::decode_short(bytes.first_chunk()?),
            LONG => Self::decode_long(bytes.first_chunk()?),
            _ => None,
        }
    }

    fn decode_short(bytes: &[u8; SHORT_BYTES]) -> Option<Self> {
        let &[_, flags, bare_offset, a, b, c, d, e] = bytes;
        let arrival = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
        let mut meta = Self::opaque(0, SHORT_FROM_MS.checked_add(arrival)?);
        meta.set_flags(flags);
        meta.priority = flags >> 4;
        meta.bare_offset = u32::from(bare_offset);
        Some(meta)
    }

    fn decode_long(bytes: &[u8; LONG_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let mut meta = Self {
            priority: bytes[2],
            bare_offset: word(8),
            ttl_ms: word(12),
            expires_at_ms: long(24),
            has_other_expiry: bytes[1] & FLAG_OTHER_EXPIRY != 0,
            ..Self::opaque(word(4), long(16))
        };
        meta.set_flags(bytes[1]);
        Some(meta)
    }

    fn set_flags(&mut self, flags: u8) {
        self.durable = flags & FLAG_DURABLE != 0;
        self.has_header = flags & FLAG_HEADER != 0;
        self.has_delivery_annotations = flags & FLAG_ANNOTATIONS != 0;
        self.first_acquirer = flags & FLAG_FIRST_ACQUIRER != 0;
    }

    /// Whether the stored bytes can be sent as they are.
    pub(crate) fn is_sent_unchanged(&self, delivery_count: u32) -> bool {
        let has_other_ttl = self.has_other_expiry && self.ttl_ms > 0;
        self.message_format != 0
            || (delivery_count == 0 && !self.has_delivery_annotations && !has_other_ttl)
    }

    /// The header that replaces the received one.
    pub(crate) fn header(&self, delivery_count: u32, wall_ms: u64) -> Header {
        let waited_ms = wall_ms.saturating_sub(self.arrived_at_ms);
        let left_ms = u64::from(self.ttl_ms).saturating_sub(waited_ms).max(1);
        let has_ttl = self.ttl_ms > 0 && !self.has_other_expiry;
        Header {
            durable: self.durable,
            priority: self.priority,
            ttl_ms: has_ttl.then_some(u32::try_from(left_ms).unwrap_or(u32::MAX)),
            first_acquirer: self.first_acquirer && delivery_count == 0,
            delivery_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> MessageMeta {
        MessageMeta {
            durable: true,
            has_header: true,
            has_delivery_annotations: false,
            first_acquirer: true,
            priority: 7,
            message_format: 0,
            bare_offset: 19,
            ttl_ms: 5_000,
            arrived_at_ms: 1_000_000,
            expires_at_ms: 1_005_000,
            has_other_expiry: false,
        }
    }

    #[test]
    fn a_message_index_survives_the_store() {
        let bytes = meta().encode();
        assert_eq!(bytes.len(), LONG_BYTES);
        assert_eq!(MessageMeta::decode(&bytes), Some(meta()));
        assert_eq!(MessageMeta::decode(&bytes[..31]), None);
        let mut unknown = bytes.to_vec();
        unknown[0] = 3;
        assert_eq!(MessageMeta::decode(&unknown), None);
        assert_eq!(MessageMeta::decode(&[]), None);
    }

    #[test]
    fn an_ordinary_message_has_a_short_index_and_any_other_a_long_one() {
        let ordinary = MessageMeta {
            ttl_ms: 0,
            expires_at_ms: 0,
            arrived_at_ms: SHORT_FROM_MS + 0x12_3456_789a,
            ..meta()
        };
        let bytes = ordinary.encode();
        assert_eq!(bytes.len(), SHORT_BYTES);
        assert_eq!(MessageMeta::decode(&bytes), Some(ordinary));
        assert_eq!(MessageMeta::decode(&bytes[..7]), None);
        let other = |change: &dyn Fn(&mut MessageMeta)| {
            let mut meta = ordinary;
            change(&mut meta);
            let bytes = meta.encode();
            assert_eq!(bytes.len(), LONG_BYTES, "{meta:?}");
            assert_eq!(MessageMeta::decode(&bytes), Some(meta));
        };
        other(&|it| it.ttl_ms = 1);
        other(&|it| it.expires_at_ms = 1);
        other(&|it| it.message_format = 1);
        other(&|it| it.priority = 16);
        other(&|it| it.bare_offset = 256);
        other(&|it| it.arrived_at_ms = SHORT_FROM_MS - 1);
        other(&|it| it.arrived_at_ms = SHORT_FROM_MS + (1 << 40));
    }

    #[test]
    fn a_new_header_counts_deliveries_and_the_time_that_is_left() {
        let header = meta().header(2, 1_003_000);
        assert_eq!(header.delivery_count, 2);
        assert_eq!(header.ttl_ms, Some(2_000));
        assert!(header.durable && !header.first_acquirer);
        assert_eq!(meta().header(0, 9_000_000).ttl_ms, Some(1));
        // Of one whose destination says when it expires nothing is said that does not hold.
        let mut other = meta();
        assert!(other.is_sent_unchanged(0));
        other.expire_at(2_000_000);
        assert_eq!(MessageMeta::decode(&other.encode()), Some(other));
        assert!(!other.is_sent_unchanged(0));
        assert_eq!(other.header(0, 1_003_000).ttl_ms, None);
    }
}
