//! Frames (part 2.3): where they begin and end, and how ours are written.
//!
//! ```text
//!  0        4     5     6        8                 4 * doff
//! +--------+-----+-----+---------+------------------+------------------------+
//! | size   |doff |type | channel | extended header  | performative, payload  |
//! +--------+-----+-----+---------+------------------+------------------------+
//! ```
//! `size` counts everything, itself included; `type` is 0 for AMQP and 1 for SASL; a frame with
//! nothing behind the header keeps a connection alive.

use bytes::{BufMut, BytesMut};

use super::wire::DecodeError;

/// Bytes of a frame header.
pub(crate) const HEADER_LEN: usize = 8;
/// Smallest maximum frame size that a peer may ask for (part 2.8.11).
pub(crate) const MIN_MAX_FRAME_SIZE: u32 = 512;
/// Largest frame that we take before open. The specification says 512 for both SASL frames and the open;
/// tokens and wordy open properties of real clients need a little more.
pub(crate) const FRAME_BEFORE_OPEN_MAX: usize = 4096;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Amqp,
    Sasl,
}

/// A frame header that was found sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the whole frame.
    pub(crate) size: usize,
    /// Where the performative begins.
    pub(crate) body: usize,
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
}

/// Reads the header of the frame at the front; `None` while it is not complete.
pub(crate) fn parse_header(
    input: &[u8],
    size_max: usize,
) -> Result<Option<FrameHeader>, DecodeError> {
    let Some(&[s0, s1, s2, s3, doff, kind, c0, c1]) = input.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let body = usize::from(doff) * 4;
    if size > size_max {
        return Err(DecodeError("a frame is larger than the maximum frame size"));
    }
    if body < HEADER_LEN || body > size {
        return Err(DecodeError("a frame's data offset is outside of the frame"));
    }
    let kind = match kind {
        0 => FrameKind::Amqp,
        1 => FrameKind::Sasl,
        _ => return Err(DecodeError("unknown frame type")),
    };
    Ok(Some(FrameHeader {
        size,
        body,
        kind,
        channel: u16::from_be_bytes([c0, c1]),
    }))
}

/// A protocol header (part 2.2): which layer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProtocolHeader {
    Amqp,
    Sasl,
}

impl ProtocolHeader {
    pub(crate) const LEN: usize = 8;

    pub(crate) fn bytes(self) -> &'static [u8; Self::LEN] {
        match self {
            Self::Amqp => b"AMQP\x00\x01\x00\x00",
            Self::Sasl => b"AMQP\x03\x01\x00\x00",
        }
    }

    /// `None` for another protocol, layer (TLS) or version.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        [Self::Amqp, Self::Sasl]
            .into_iter()
            .find(|header| header.bytes() == bytes)
    }

    /// Whether the bytes received so far can still become one of the two headers.
    pub(crate) fn may_begin_with(bytes: &[u8]) -> bool {
        [Self::Amqp, Self::Sasl]
            .iter()
            .any(|header| header.bytes().starts_with(bytes))
    }
}

/// Writes a frame header with an open size; [`finish`] closes it.
pub(crate) fn begin(out: &mut BytesMut, kind: FrameKind, channel: u16) -> usize {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(2);
    out.put_u8(match kind {
        FrameKind::Amqp => 0,
        FrameKind::Sasl => 1,
    });
    out.put_u16(channel);
    start
}

/// Sets the size of the frame that began at `start` and ends here.
pub(crate) fn finish(out: &mut BytesMut, start: usize) {
    let size = (out.len() - start) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&size.to_be_bytes());
    }
}

/// Writes a frame that only shows that we are alive.
pub(crate) fn put_empty(out: &mut BytesMut) {
    let start = begin(out, FrameKind::Amqp, 0);
    finish(out, start);
}
