//! The index of a sealed segment: which queue has messages where.
//!
//! The same bytes stand behind the last batch of a segment that its owner sealed, or in a file
//! beside a segment whose owner died.

use super::payload::{IndexEntry, IndexMap, SealEntry, decode_entries, encode_entries};
use super::{Reader, get_u32, placed_crc, put_u32};

const FOOTER_MAGIC: u32 = 0x5446_4653; // "SFFT"
const TRAILER_MAGIC: u32 = 0x5254_4653; // "SFTR"
/// Length of the fixed part in front of the directory.
pub(crate) const FOOTER_HEADER_BYTES: usize = 56;
/// What a queue takes in the directory, beside its list.
pub(crate) const DIRECTORY_ENTRY_BYTES: usize = 20;
/// The trailer stands in the last bytes of the file, in a sector of its own.
pub(crate) const TRAILER_BYTES: usize = 64;

/// Facts about a sealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    pub(crate) segment: u64,
    pub(crate) epoch: u64,
    pub(crate) footer_offset: u64,
    pub(crate) footer_bytes: u64,
    /// End of the last batch.
    pub(crate) valid_bytes: u64,
    pub(crate) last_lsn: u64,
    pub(crate) chain_crc: u32,
    pub(crate) references: u32,
}

impl Trailer {
    pub(crate) fn encode(&self, salt: u64) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&TRAILER_MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for number in [
            self.segment,
            self.epoch,
            self.footer_offset,
            self.footer_bytes,
            self.valid_bytes,
            self.last_lsn,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.chain_crc.to_le_bytes());
        out.extend_from_slice(&self.references.to_le_bytes());
        let crc = placed_crc(
            salt,
            self.epoch,
            self.segment,
            0,
            out.get(8..).unwrap_or_default(),
        );
        put_u32(&mut out, 4, crc);
        out.try_into().unwrap_or([0; TRAILER_BYTES])
    }

    /// Where the segment ends, in the form that a successor's SEAL has.
    pub(crate) fn facts(&self) -> SealEntry {
        SealEntry {
            segment: self.segment,
            valid_bytes: self.valid_bytes,
            last_lsn: self.last_lsn,
            chain_crc: self.chain_crc,
            references: self.references,
        }
    }

    /// Reads a trailer; `None` when there is none (the segment is not sealed) or it is damaged.
    pub(crate) fn decode(salt: u64, segment: u64, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes.get(..TRAILER_BYTES)?);
        if reader.u32()? != TRAILER_MAGIC {
            return None;
        }
        let crc = reader.u32()?;
        let trailer = Self {
            segment: reader.u64()?,
            epoch: reader.u64()?,
            footer_offset: reader.u64()?,
            footer_bytes: reader.u64()?,
            valid_bytes: reader.u64()?,
            last_lsn: reader.u64()?,
            chain_crc: reader.u32()?,
            references: reader.u32()?,
        };
        let covered = bytes.get(8..TRAILER_BYTES)?;
        let good = placed_crc(salt, trailer.epoch, segment, 0, covered) == crc;
        (good && trailer.segment == segment).then_some(trailer)
    }
}

/// Where the list of one queue stands inside a footer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DirectoryEntry {
    pub(crate) queue: u32,
    /// Offset of the list from the start of the footer.
    pub(crate) start: u32,
    /// Length of the list in bytes.
    pub(crate) bytes: u32,
    pub(crate) count: u32,
    pub(crate) crc: u32,
}

/// The queues of one segment, in order of their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Directory {
    pub(crate) queues: Vec<DirectoryEntry>,
}

impl Directory {
    pub(crate) fn find(&self, queue: u32) -> Option<DirectoryEntry> {
        let at = self
            .queues
            .binary_search_by_key(&queue, |entry| entry.queue)
            .ok()?;
        self.queues.get(at).copied()
    }

    /// Length of header and directory, from the first bytes of a footer.
    pub(crate) fn encoded_bytes(footer_start: &[u8]) -> Option<usize> {
        if get_u32(footer_start.get(..FOOTER_HEADER_BYTES)?, 0) != FOOTER_MAGIC {
            return None;
        }
        let queues = get_u32(footer_start, 8) as usize;
        queues
            .checked_mul(DIRECTORY_ENTRY_BYTES)?
            .checked_add(FOOTER_HEADER_BYTES)
    }

    /// Reads header and directory.
    pub(crate) fn decode(salt: u64, epoch: u64, segment: u64, bytes: &[u8]) -> Option<Self> {
        let len = Self::encoded_bytes(bytes)?;
        let whole = bytes.get(..len)?;
        let crc = get_u32(whole, 4);
        if placed_crc(salt, epoch, segment, 0, whole.get(8..)?) != crc {
            return None;
        }
        let mut reader = Reader::new(whole.get(FOOTER_HEADER_BYTES..)?);
        let mut queues = Vec::with_capacity(reader.left() / DIRECTORY_ENTRY_BYTES);
        while !reader.is_empty() {
            queues.push(DirectoryEntry {
                queue: reader.u32()?,
                start: reader.u32()?,
                bytes: reader.u32()?,
                count: reader.u32()?,
                crc: reader.u32()?,
            });
        }
        Some(Self { queues })
    }
}

/// Encodes a footer: header, directory, one list for each queue.
pub(crate) fn encode_footer(salt: u64, epoch: u64, segment: u64, index: &IndexMap) -> Vec<u8> {
    let queues: Vec<_> = index
        .iter()
        .filter(|(_, entries)| !entries.is_empty())
        .collect();
    let lists_start = FOOTER_HEADER_BYTES + queues.len() * DIRECTORY_ENTRY_BYTES;
    let mut directory = Vec::with_capacity(queues.len() * DIRECTORY_ENTRY_BYTES);
    let mut lists = Vec::new();
    for (queue, entries) in &queues {
        let start = lists_start + lists.len();
        let from = lists.len();
        encode_entries(entries, 0, &mut lists);
        let list = lists.get(from..).unwrap_or_default();
        for number in [
            **queue,
            u32::try_from(start).unwrap_or(u32::MAX),
            u32::try_from(list.len()).unwrap_or(u32::MAX),
            u32::try_from(entries.len()).unwrap_or(u32::MAX),
            placed_crc(salt, epoch, segment, u64::from(**queue), list),
        ] {
            directory.extend_from_slice(&number.to_le_bytes());
        }
    }
    let mut out = vec![0; FOOTER_HEADER_BYTES];
    put_u32(&mut out, 0, FOOTER_MAGIC);
    put_u32(&mut out, 8, u32::try_from(queues.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(&directory);
    let crc = placed_crc(salt, epoch, segment, 0, out.get(8..).unwrap_or_default());
    put_u32(&mut out, 4, crc);
    out.extend_from_slice(&lists);
    out
}

/// Reads and verifies the list of one queue.
pub(crate) fn decode_list(
    salt: u64,
    epoch: u64,
    segment: u64,
    entry: DirectoryEntry,
    bytes: &[u8],
) -> Option<Vec<IndexEntry>> {
    let list = bytes.get(..entry.bytes as usize)?;
    let crc = placed_crc(salt, epoch, segment, u64::from(entry.queue), list);
    if crc != entry.crc {
        return None;
    }
    let mut reader = Reader::new(list);
    let entries = decode_entries(&mut reader, entry.count, 0)?;
    reader.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_gives_each_queue_its_list_and_notices_flips() {
        let entry = |ordinal| IndexEntry {
            ordinal,
            offset: ordinal * 10,
        };
        let index = IndexMap::from([(3, vec![entry(0), entry(2)]), (9, vec![entry(1)])]);
        let bytes = encode_footer(1, 2, 3, &index);
        let directory = Directory::decode(1, 2, 3, &bytes).unwrap();
        assert_eq!(directory.queues.len(), 2);
        assert!(directory.find(4).is_none());
        for (queue, list) in &index {
            let found = directory.find(*queue).unwrap();
            let at = found.start as usize;
            assert_eq!(
                decode_list(1, 2, 3, found, &bytes[at..]).as_ref(),
                Some(list)
            );
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            let good = Directory::decode(1, 2, 3, &bad).is_some_and(|directory| {
                directory.queues.iter().all(|entry| {
                    let list = bad.get(entry.start as usize..).unwrap_or_default();
                    decode_list(1, 2, 3, *entry, list).is_some()
                })
            });
            assert!(!good, "byte {at}");
        }
    }

    #[test]
    fn a_trailer_is_bound_to_its_segment() {
        let trailer = Trailer {
            segment: 5,
            epoch: 4,
            footer_offset: 100,
            footer_bytes: 200,
            valid_bytes: 90,
            last_lsn: 7,
            chain_crc: 8,
            references: 9,
        };
        let bytes = trailer.encode(1);
        assert_eq!(Trailer::decode(1, 5, &bytes), Some(trailer));
        assert_eq!(Trailer::decode(1, 6, &bytes), None);
        assert_eq!(Trailer::decode(2, 5, &bytes), None);
        assert_eq!(Trailer::decode(1, 5, &[0; 64]), None);
    }
}
