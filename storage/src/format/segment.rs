//! The header of a segment and the names of the files.

use thiserror::Error;

use super::{Identity, get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};

/// Length of the header's defined part. The rest up to the first batch is zero.
pub(crate) const HEADER_BYTES: usize = 128;
const MAGIC: &[u8; 8] = b"STFSEG01";
const VERSION: u16 = 2;

/// The first bytes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    /// Its number in the one sequence of segments.
    pub(crate) segment: u64,
    /// Number of the first segment of the owner that wrote it.
    pub(crate) epoch: u64,
    /// The first record in it has this number.
    pub(crate) base_lsn: u64,
    /// Bytes prepared (zeroed) when it was made.
    pub(crate) capacity: u64,
    /// Alignment of batches.
    pub(crate) unit: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        put_u64(&mut out, 8, self.segment);
        put_u64(&mut out, 16, self.epoch);
        put_u64(&mut out, 24, self.base_lsn);
        put_u64(&mut out, 32, self.capacity);
        out[40..56].copy_from_slice(&self.identity.uuid);
        put_u64(&mut out, 56, self.identity.salt);
        put_u16(&mut out, 64, VERSION);
        put_u32(&mut out, 68, self.unit);
        let crc = crc32fast::hash(&out[..HEADER_BYTES - 4]);
        put_u32(&mut out, HEADER_BYTES - 4, crc);
        out
    }

    /// Reads a header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            let zero = bytes.iter().all(|byte| *byte == 0);
            return Err(if zero {
                HeaderFault::Empty
            } else {
                HeaderFault::Short
            });
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(HeaderFault::Empty);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(HeaderFault::Magic);
        }
        let (body, _) = bytes.split_at(HEADER_BYTES - 4);
        if crc32fast::hash(body) != get_u32(bytes, HEADER_BYTES - 4) {
            return Err(HeaderFault::Checksum);
        }
        match get_u16(bytes, 64) {
            VERSION => {}
            version => return Err(HeaderFault::Version(version)),
        }
        Self::claimed(bytes).ok_or(HeaderFault::Unit)
    }

    /// What a header says, its checksum not looked at.
    pub(crate) fn claimed(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let unit = get_u32(bytes, 68);
        if !unit.is_power_of_two() || !(512..=4096).contains(&unit) {
            return None;
        }
        let uuid = bytes
            .get(40..56)
            .and_then(|b| b.try_into().ok())
            .unwrap_or_default();
        Some(Self {
            identity: Identity {
                uuid,
                salt: get_u64(bytes, 56),
            },
            segment: get_u64(bytes, 8),
            epoch: get_u64(bytes, 16),
            base_lsn: get_u64(bytes, 24),
            capacity: get_u64(bytes, 32),
            unit,
        })
    }
}

/// Why bytes are no header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum HeaderFault {
    #[error("header not written yet")]
    Empty,
    #[error("shorter than a segment header")]
    Short,
    #[error("no segment magic")]
    Magic,
    #[error("header checksum differs")]
    Checksum,
    #[error("written by format version {0}, this program knows version {VERSION}")]
    Version(u16),
    #[error("impossible batch alignment")]
    Unit,
}

/// The lock file that queues servers waiting for the store.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// Space that a new owner frees when the disk is full.
pub(crate) const RESERVE_NAME: &str = "RESERVE";

/// `0000000042.seg`
pub(crate) fn segment_name(segment: u64) -> String {
    format!("{segment:010}.seg")
}

/// `0000000042.1.cmp`: what was live of a segment when it was compacted, the first time. Generation 0 is
/// the segment itself.
pub(crate) fn data_name(segment: u64, generation: u64) -> String {
    match generation {
        0 => segment_name(segment),
        _ => format!("{segment:010}.{generation}.cmp"),
    }
}

/// Segment and generation of a compacted file's name.
pub(crate) fn compact_of(name: &str) -> Option<(u64, u64)> {
    let (segment, generation) = name.strip_suffix(".cmp")?.split_once('.')?;
    let generation: u64 = generation.parse().ok()?;
    let segment = number(segment, "", "")?;
    (generation > 0 && data_name(segment, generation) == name).then_some((segment, generation))
}

/// `0000000042.idx`: the index of a segment whose owner died before it could write a footer.
pub(crate) fn side_index_name(segment: u64) -> String {
    format!("{segment:010}.idx")
}

/// `index.0000000042.redb`: the checkpoint of the epoch that began with segment 42.
pub(crate) fn checkpoint_name(epoch: u64) -> String {
    format!("index.{epoch:010}.redb")
}

fn number(name: &str, before: &str, after: &str) -> Option<u64> {
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    (digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// The number in a segment's file name.
pub(crate) fn segment_of(name: &str) -> Option<u64> {
    number(name, "", ".seg")
}

/// The number in a side index's file name.
pub(crate) fn side_index_of(name: &str) -> Option<u64> {
    number(name, "", ".idx")
}

/// The epoch in a checkpoint's file name.
pub(crate) fn checkpoint_of(name: &str) -> Option<u64> {
    number(name, "index.", ".redb")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let identity = Identity {
            uuid: *b"0123456789abcdef",
            salt: 77,
        };
        SegmentHeader {
            identity,
            segment: 42,
            epoch: 40,
            base_lsn: 1000,
            capacity: 1 << 20,
            unit: 512,
        }
    }

    #[test]
    fn a_header_survives_and_every_flipped_byte_is_noticed() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(HeaderFault::Empty));
    }

    #[test]
    fn names_are_read_back_and_strangers_are_not() {
        assert_eq!(segment_of(&segment_name(42)), Some(42));
        assert_eq!(checkpoint_of(&checkpoint_name(7)), Some(7));
        assert_eq!(side_index_of(&side_index_name(9)), Some(9));
        for stranger in [
            "42.seg",
            "x000000042.seg",
            "0000000042.seg.tmp",
            ".nfs0001",
            "0000000042",
        ] {
            assert_eq!(segment_of(stranger), None, "{stranger}");
        }
    }
}
