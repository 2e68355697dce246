//! Bytes of the store: pure values in, bytes out, and back. No I/O.
//!
//! Everything is little endian, and of fixed width but for index entries. The drawings are in `FORMAT.md`.

pub(crate) mod batch;
pub(crate) mod footer;
pub(crate) mod payload;
pub(crate) mod segment;

/// A batch starts on a multiple of this unless the store was made with another unit: the amount
/// that the medium writes as a whole, so that a torn batch cannot harm its predecessor.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Where the first batch of a segment starts: behind its header, on any allowed unit.
pub(crate) const FIRST_BATCH_OFFSET: u64 = 4096;

/// What ties all files of one store together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Identity {
    /// Identity of the store, chosen when it was made.
    pub(crate) uuid: [u8; 16],
    /// Enters every checksum, so that bytes inside a message never pass for a batch.
    pub(crate) salt: u64,
}

/// A checksum bound to a place: store, epoch, segment and offset.
pub(crate) fn placed_crc(salt: u64, epoch: u64, segment: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut place = [0; 32];
    put_u64(&mut place, 0, salt);
    put_u64(&mut place, 8, epoch);
    put_u64(&mut place, 16, segment);
    put_u64(&mut place, 24, offset);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place);
    hasher.update(bytes);
    hasher.finalize()
}

/// Whether all bytes are zero. Compared in blocks: most of what is looked at is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 512] = [0; 512];
    let mut blocks = bytes.chunks(ZEROS.len());
    blocks.all(|block| ZEROS.starts_with(block))
}

/// Reads a number; bytes beyond the end count as zero (callers check lengths first).
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

/// See [`get_u16`].
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// See [`get_u16`].
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Writes a number into bytes that are there; outside of them nothing happens.
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(to) = bytes.get_mut(at..at + 2) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// See [`put_u16`].
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// See [`put_u16`].
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(to) = bytes.get_mut(at..at + 8) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// Appends a number in groups of 7 bits, the lowest first; all bytes but the last have their highest bit set.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What [`put_varint`] writes, in bytes.
pub(crate) fn varint_bytes(value: u64) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

/// Rounds up to a multiple of a power of two.
pub(crate) fn align_up(value: u64, unit: u64) -> u64 {
    value.div_ceil(unit) * unit
}

/// Takes numbers off the front of bytes that came from a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A number of up to 64 bits as [`put_varint`] writes it; in no other form.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits << shift;
            if byte < 0x80 {
                let is_shortest = bits != 0 || shift == 0;
                return (is_shortest && value >> shift == bits).then_some(value);
            }
        }
        None
    }

    /// See [`Reader::varint`].
    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }
}
