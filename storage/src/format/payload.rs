//! Payloads of the records that are no messages.

use std::collections::BTreeMap;

use super::{Reader, put_varint, varint_bytes};

/// Place of a reference inside its segment: ordinal and offset in units of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) ordinal: u32,
    pub(crate) offset: u32,
}

/// Places by queue, in order of ordinals.
pub(crate) type IndexMap = BTreeMap<u32, Vec<IndexEntry>>;

/// A run of references that left their queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SettledRange {
    pub(crate) segment: u64,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The references of one queue that left it in one batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SettledGroup {
    pub(crate) queue: u32,
    /// Their bytes, to keep the queue's size without reading them.
    pub(crate) bytes: u64,
    pub(crate) ranges: Vec<SettledRange>,
}

pub(crate) fn encode_settled(groups: &[SettledGroup]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in groups {
        out.extend_from_slice(&group.queue.to_le_bytes());
        let ranges = u32::try_from(group.ranges.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&ranges.to_le_bytes());
        out.extend_from_slice(&group.bytes.to_le_bytes());
        for range in &group.ranges {
            out.extend_from_slice(&range.segment.to_le_bytes());
            out.extend_from_slice(&range.first.to_le_bytes());
            out.extend_from_slice(&range.count.to_le_bytes());
        }
    }
    out
}

pub(crate) fn decode_settled(bytes: &[u8]) -> Option<Vec<SettledGroup>> {
    let mut reader = Reader::new(bytes);
    let mut groups = Vec::new();
    while !reader.is_empty() {
        let queue = reader.u32()?;
        let count = reader.u32()? as usize;
        let bytes = reader.u64()?;
        if count > reader.left() / 16 {
            return None;
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let range = SettledRange {
                segment: reader.u64()?,
                first: reader.u32()?,
                count: reader.u32()?,
            };
            ranges.push(range);
        }
        groups.push(SettledGroup {
            queue,
            bytes,
            ranges,
        });
    }
    Some(groups)
}

/// A row put (`Some`) or deleted (`None`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RowChange<'a> {
    pub(crate) kind: u16,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

impl<'a> RowChange<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let value = self.value.unwrap_or_default();
        let mut out = Vec::with_capacity(8 + self.key.len() + value.len());
        out.push(u8::from(self.value.is_some()));
        out.push(0);
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(
            &u32::try_from(self.key.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        out.extend_from_slice(self.key);
        out.extend_from_slice(value);
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let put = reader.u8()?;
        reader.u8()?;
        let kind = reader.u16()?;
        let key_len = reader.u32()? as usize;
        let key = reader.take(key_len)?;
        let value = reader.take(reader.left())?;
        match put {
            0 if value.is_empty() => Some(Self {
                kind,
                key,
                value: None,
            }),
            1 => Some(Self {
                kind,
                key,
                value: Some(value),
            }),
            _ => None,
        }
    }
}

/// Where a predecessor's segment ends. Whatever stands behind `valid_bytes` is ignored for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SealEntry {
    pub(crate) segment: u64,
    /// 0: the whole segment is void, its maker died before it owned the store.
    pub(crate) valid_bytes: u64,
    /// Number of the last valid record at that point of the log.
    pub(crate) last_lsn: u64,
    /// Checksum of the last valid batch, the end of the chain.
    pub(crate) chain_crc: u32,
    /// References in the valid part.
    pub(crate) references: u32,
}

const SEAL_ENTRY_BYTES: usize = 32;

pub(crate) fn encode_seals(entries: &[SealEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * SEAL_ENTRY_BYTES);
    for entry in entries {
        out.extend_from_slice(&entry.segment.to_le_bytes());
        out.extend_from_slice(&entry.valid_bytes.to_le_bytes());
        out.extend_from_slice(&entry.last_lsn.to_le_bytes());
        out.extend_from_slice(&entry.chain_crc.to_le_bytes());
        out.extend_from_slice(&entry.references.to_le_bytes());
    }
    out
}

pub(crate) fn decode_seals(bytes: &[u8]) -> Option<Vec<SealEntry>> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(SealEntry {
            segment: reader.u64()?,
            valid_bytes: reader.u64()?,
            last_lsn: reader.u64()?,
            chain_crc: reader.u32()?,
            references: reader.u32()?,
        });
    }
    Some(entries)
}

/// Places of messages since the previous index record of the same segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct IndexRecord {
    /// Offset of the batch that carries the previous one; 0 for the first.
    pub(crate) previous_batch: u64,
    /// First ordinal that it covers.
    pub(crate) from_ordinal: u32,
    /// First ordinal that it does not cover any more.
    pub(crate) to_ordinal: u32,
    /// Offset of the first batch that it does not cover any more.
    pub(crate) scan_from: u64,
    pub(crate) entries: IndexMap,
}

impl IndexRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.previous_batch.to_le_bytes());
        out.extend_from_slice(&self.from_ordinal.to_le_bytes());
        out.extend_from_slice(&self.to_ordinal.to_le_bytes());
        out.extend_from_slice(&self.scan_from.to_le_bytes());
        for (queue, entries) in &self.entries {
            put_varint(&mut out, u64::from(*queue));
            put_varint(&mut out, entries.len() as u64);
            encode_entries(entries, self.from_ordinal, &mut out);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let previous_batch = reader.u64()?;
        let (from_ordinal, to_ordinal) = (reader.u32()?, reader.u32()?);
        let scan_from = reader.u64()?;
        let mut entries = IndexMap::new();
        while !reader.is_empty() {
            let queue = reader.varint_u32()?;
            let count = reader.varint_u32()?;
            entries.insert(queue, decode_entries(&mut reader, count, from_ordinal)?);
        }
        Some(Self {
            previous_batch,
            from_ordinal,
            to_ordinal,
            scan_from,
            entries,
        })
    }
}

/// What the next entry of a list is told from: in a queue of its own a message takes 2 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distances {
    expected: u32,
    offset: u32,
}

impl Distances {
    /// At the start of a list.
    pub(crate) fn from(ordinal: u32) -> Self {
        Self {
            expected: ordinal,
            offset: 0,
        }
    }

    /// Behind an entry.
    pub(crate) fn after(entry: IndexEntry) -> Self {
        Self {
            expected: entry.ordinal.wrapping_add(1),
            offset: entry.offset,
        }
    }

    fn put(&mut self, entry: IndexEntry, out: &mut Vec<u8>) {
        let (first, gap) = self.numbers(entry);
        put_varint(out, first);
        if let Some(gap) = gap {
            put_varint(out, gap);
        }
        *self = Self::after(entry);
    }

    /// What the entry will take, in bytes; the next one is told from it.
    pub(crate) fn measure(&mut self, entry: IndexEntry) -> usize {
        let (first, gap) = self.numbers(entry);
        *self = Self::after(entry);
        varint_bytes(first) + gap.map_or(0, varint_bytes)
    }

    /// The distance of offsets with a bit for a gap, and the gap.
    fn numbers(self, entry: IndexEntry) -> (u64, Option<u64>) {
        let gap = entry.ordinal.wrapping_sub(self.expected);
        let distance = zigzag(entry.offset.wrapping_sub(self.offset));
        let first = u64::from(distance) << 1 | u64::from(gap != 0);
        (first, (gap != 0).then_some(u64::from(gap)))
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Option<IndexEntry> {
        let first = reader.varint()?;
        let gap = match first & 1 {
            0 => 0,
            _ => reader.varint_u32().filter(|gap| *gap != 0)?,
        };
        let distance = unzigzag(u32::try_from(first >> 1).ok()?);
        let entry = IndexEntry {
            ordinal: self.expected.wrapping_add(gap),
            offset: self.offset.wrapping_add(distance),
        };
        *self = Self::after(entry);
        Some(entry)
    }
}

/// Encodes a list that counts from `from_ordinal`.
pub(crate) fn encode_entries(entries: &[IndexEntry], from_ordinal: u32, out: &mut Vec<u8>) {
    let mut distances = Distances::from(from_ordinal);
    entries.iter().for_each(|entry| distances.put(*entry, out));
}

/// Takes so many entries off the reader; `None` when they are not there.
pub(crate) fn decode_entries(
    reader: &mut Reader<'_>,
    count: u32,
    from_ordinal: u32,
) -> Option<Vec<IndexEntry>> {
    // Each takes a byte at least.
    let count = usize::try_from(count)
        .ok()
        .filter(|it| *it <= reader.left())?;
    let mut distances = Distances::from(from_ordinal);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(distances.take(reader)?);
    }
    Some(entries)
}

/// Makes a short distance, forwards or backwards, a small number.
fn zigzag(distance: u32) -> u32 {
    (distance << 1) ^ (distance >> 31).wrapping_neg()
}

fn unzigzag(number: u32) -> u32 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// What was copied from a predecessor's last batches, because nobody can prove that they are
/// durable: the `count` records that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Adopted {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) first_lsn: u64,
    pub(crate) count: u32,
}

impl Adopted {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.first_lsn.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            segment: reader.u64()?,
            offset: reader.u64()?,
            first_lsn: reader.u64()?,
            count: reader.u32()?,
        })
    }
}

/// A damaged reference that was set aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quarantined {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) queue: u32,
    pub(crate) ordinal: u32,
}

impl Quarantined {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.queue.to_le_bytes());
        out.extend_from_slice(&self.ordinal.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            segment: reader.u64()?,
            offset: reader.u64()?,
            bytes: reader.u32()?,
            queue: reader.u32()?,
            ordinal: reader.u32()?,
        })
    }
}

/// A part of a snapshot: everything that the log alone must be able to rebuild.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotPart<'a> {
    /// The state is the one after the batch that ends here.
    pub(crate) as_of_segment: u64,
    /// See `as_of_segment`.
    pub(crate) as_of_offset: u64,
    /// Number of this part, from 0.
    pub(crate) part: u32,
    /// Number of parts.
    pub(crate) parts: u32,
    pub(crate) rows: &'a [u8],
}

impl<'a> SnapshotPart<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.rows.len());
        out.extend_from_slice(&self.as_of_segment.to_le_bytes());
        out.extend_from_slice(&self.as_of_offset.to_le_bytes());
        out.extend_from_slice(&self.part.to_le_bytes());
        out.extend_from_slice(&self.parts.to_le_bytes());
        out.extend_from_slice(self.rows);
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            as_of_segment: reader.u64()?,
            as_of_offset: reader.u64()?,
            part: reader.u32()?,
            parts: reader.u32()?,
            rows: reader.take(reader.left())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_survives_its_encoding() {
        let group = SettledGroup {
            queue: 3,
            bytes: 999,
            ranges: vec![SettledRange {
                segment: 1,
                first: 2,
                count: 3,
            }],
        };
        let groups = vec![group.clone(), SettledGroup { queue: 4, ..group }];
        assert_eq!(decode_settled(&encode_settled(&groups)), Some(groups));
        for value in [None, Some(&b"value"[..]), Some(&b""[..])] {
            let row = RowChange {
                kind: 7,
                key: b"key",
                value,
            };
            assert_eq!(RowChange::decode(&row.encode()), Some(row));
        }
        let seal = SealEntry {
            segment: 1,
            valid_bytes: 2,
            last_lsn: 3,
            chain_crc: 4,
            references: 5,
        };
        assert_eq!(
            decode_seals(&encode_seals(&[seal, seal])),
            Some(vec![seal, seal])
        );
        let entry = IndexEntry {
            ordinal: 1,
            offset: 2,
        };
        let entries = IndexMap::from([(1, vec![entry]), (2, vec![entry, entry])]);
        let (previous_batch, scan_from) = (4096, 8192);
        let index = IndexRecord {
            previous_batch,
            from_ordinal: 0,
            to_ordinal: 3,
            scan_from,
            entries,
        };
        assert_eq!(IndexRecord::decode(&index.encode()), Some(index));
        let adopted = Adopted {
            segment: 1,
            offset: 2,
            first_lsn: 3,
            count: 4,
        };
        assert_eq!(Adopted::decode(&adopted.encode()), Some(adopted));
        let bad = Quarantined {
            segment: 1,
            offset: 2,
            bytes: 3,
            queue: 4,
            ordinal: 5,
        };
        assert_eq!(Quarantined::decode(&bad.encode()), Some(bad));
        let part = SnapshotPart {
            as_of_segment: 1,
            as_of_offset: 2,
            part: 0,
            parts: 1,
            rows: b"rows",
        };
        assert_eq!(SnapshotPart::decode(&part.encode()), Some(part));
    }

    fn entry(ordinal: u32, offset: u32) -> IndexEntry {
        IndexEntry { ordinal, offset }
    }

    #[test]
    fn neighbours_take_two_bytes_each_and_any_list_survives() {
        let mut out = Vec::new();
        let neighbours: Vec<_> = (0..100).map(|i| entry(7 + i, 512 + i * 134)).collect();
        encode_entries(&neighbours, 7, &mut out);
        assert_eq!(out.len(), 200);
        let lists = [
            neighbours,
            vec![entry(u32::MAX, u32::MAX), entry(0, 0), entry(u32::MAX, 1)],
            vec![
                entry(5, 9),
                entry(9, 9),
                entry(10, 3),
                entry(2_000_000, 1 << 31),
            ],
            vec![],
        ];
        for list in lists {
            for from in [0, 7, u32::MAX] {
                let mut out = Vec::new();
                encode_entries(&list, from, &mut out);
                let count = u32::try_from(list.len()).unwrap();
                let mut reader = Reader::new(&out);
                assert_eq!(
                    decode_entries(&mut reader, count, from).as_ref(),
                    Some(&list)
                );
                assert!(reader.is_empty());
                for cut in 0..out.len() {
                    let mut reader = Reader::new(&out[..cut]);
                    assert_eq!(
                        decode_entries(&mut reader, count, from),
                        None,
                        "cut at {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn numbers_of_any_size_survive_and_have_one_form() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0x3fff,
            0x4000,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Some(value));
            assert!(reader.is_empty());
        }
        let long = [0x80, 0x00];
        let wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        let endless = [0xff; 11];
        for bad in [&long[..], &wide, &endless, &[0x80]] {
            assert_eq!(Reader::new(bad).varint(), None, "{bad:?}");
        }
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint_u32(),
            None
        );
    }

    #[test]
    fn a_count_beyond_the_bytes_takes_no_memory() {
        assert_eq!(decode_entries(&mut Reader::new(&[0; 9]), u32::MAX, 0), None);
    }

    #[test]
    fn hostile_counts_and_cut_payloads_are_refused() {
        let mut huge = encode_settled(&[SettledGroup {
            queue: 1,
            bytes: 0,
            ranges: vec![],
        }]);
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_settled(&huge), None);
        assert_eq!(decode_seals(&[1; 33]), None);
        assert_eq!(RowChange::decode(&[1, 0, 1]), None);
        assert_eq!(IndexRecord::decode(&[0xff; 32]), None);
    }
}
