//! Batches, the unit of durability, and the records in them.

use std::ops::Range;

use super::{align_up, get_u16, get_u32, get_u64, placed_crc, put_u16, put_u32, put_u64};

/// Length of a batch's header.
pub(crate) const BATCH_HEADER_BYTES: usize = 80;
/// Length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 32;
const BATCH_MAGIC: u32 = 0x3142_4653; // "SFB1"

/// What a record is. Numbers are part of the format: never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A message and its routes.
    Message = 1,
    /// References that left their queues.
    Settled = 2,
    /// A row put or deleted.
    Row = 3,
    /// The following records were copied from a predecessor's last, unconfirmed batches.
    Adopted = 4,
    /// Where the predecessors' segments end.
    Seal = 5,
    /// Places of messages since the previous index record of the segment.
    Index = 6,
    /// A part of a snapshot of the state.
    Snapshot = 7,
    /// A message copied from an older segment, with its old number (reserved).
    Moved = 8,
    /// A damaged reference was set aside.
    Quarantine = 9,
}

impl RecordKind {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Message,
            2 => Self::Settled,
            3 => Self::Row,
            4 => Self::Adopted,
            5 => Self::Seal,
            6 => Self::Index,
            7 => Self::Snapshot,
            8 => Self::Moved,
            9 => Self::Quarantine,
            _ => return None,
        })
    }
}

/// Record flag: the sender asked for durability.
pub(crate) const FLAG_DURABLE: u8 = 1;
/// Record flag: an earlier owner may have delivered the message.
pub(crate) const FLAG_MAYBE_DELIVERED: u8 = 2;

/// Where a batch stands; enters every checksum in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchPlace {
    pub(crate) salt: u64,
    pub(crate) epoch: u64,
    pub(crate) segment: u64,
    /// Offset of the batch in the segment.
    pub(crate) offset: u64,
}

/// A batch that is being filled.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    place: BatchPlace,
    bytes: Vec<u8>,
    first_lsn: u64,
    count: u32,
    first_ordinal: u32,
    references: u32,
}

/// Where a record went within its batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) lsn: u64,
    pub(crate) ordinal: u32,
    /// Offset of the record in its segment.
    pub(crate) offset: u64,
    pub(crate) meta: Range<usize>,
    pub(crate) body: Range<usize>,
}

/// A message as the format knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageParts<'a> {
    pub(crate) flags: u8,
    pub(crate) routes: &'a [u32],
    pub(crate) meta: &'a [u8],
    pub(crate) body: &'a [&'a [u8]],
}

impl BatchBuilder {
    pub(crate) fn new(
        place: BatchPlace,
        first_lsn: u64,
        first_ordinal: u32,
        mut bytes: Vec<u8>,
    ) -> Self {
        bytes.clear();
        bytes.resize(BATCH_HEADER_BYTES, 0);
        Self {
            place,
            bytes,
            first_lsn,
            count: 0,
            first_ordinal,
            references: 0,
        }
    }

    pub(crate) fn place(&self) -> BatchPlace {
        self.place
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, header included, padding not.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn next_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.count)
    }

    pub(crate) fn next_ordinal(&self) -> u32 {
        self.first_ordinal + self.references
    }

    /// Appends a message; the caller has checked the limits of routes, meta and body.
    pub(crate) fn message(&mut self, message: MessageParts<'_>) -> Slot {
        self.numbered(message, self.next_lsn(), self.next_ordinal())
    }

    fn numbered(&mut self, message: MessageParts<'_>, lsn: u64, ordinal: u32) -> Slot {
        let at = self.bytes.len();
        let more_routes = message.routes.get(1..).unwrap_or_default();
        let mut header = [0; RECORD_HEADER_BYTES];
        put_u16(
            &mut header,
            18,
            u16::try_from(message.meta.len()).unwrap_or(u16::MAX),
        );
        put_u32(
            &mut header,
            20,
            message.routes.first().copied().unwrap_or(0),
        );
        put_u16(
            &mut header,
            24,
            u16::try_from(message.routes.len()).unwrap_or(u16::MAX),
        );
        put_u32(&mut header, 28, ordinal);
        if let [.., kind, flags, _, _] = &mut header[..20] {
            *kind = RecordKind::Message as u8;
            *flags = message.flags;
        }
        self.bytes.extend_from_slice(&header);
        for route in more_routes {
            self.bytes.extend_from_slice(&route.to_le_bytes());
        }
        let meta = self.bytes.len()..self.bytes.len() + message.meta.len();
        self.bytes.extend_from_slice(message.meta);
        for piece in message.body {
            self.bytes.extend_from_slice(piece);
        }
        let body = meta.end..self.bytes.len();
        self.seal_record(at, lsn);
        self.references += u32::try_from(message.routes.len()).unwrap_or(0);
        Slot {
            lsn,
            ordinal,
            offset: self.place.offset + at as u64,
            meta,
            body,
        }
    }

    /// Appends a record that is no message.
    pub(crate) fn record(&mut self, kind: RecordKind, payload: &[u8]) -> u64 {
        let at = self.bytes.len();
        let mut header = [0; RECORD_HEADER_BYTES];
        put_u32(&mut header, 28, self.next_ordinal());
        if let Some(number) = header.get_mut(16) {
            *number = kind as u8;
        }
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(payload);
        let lsn = self.next_lsn();
        self.seal_record(at, lsn);
        lsn
    }

    /// Copies a message with its number and ordinal. The numbers of such a batch have gaps. Gives its
    /// offset in the segment.
    pub(crate) fn copy(&mut self, record: &Record<'_>) -> u64 {
        let routes: Vec<u32> = record.routes().collect();
        let message = MessageParts {
            flags: record.flags,
            routes: &routes,
            meta: record.meta,
            body: &[record.body],
        };
        self.numbered(message, record.lsn, record.ordinal).offset
    }

    /// Fills in length, number and checksum of the record that starts at `at`, and pads.
    fn seal_record(&mut self, at: usize, lsn: u64) {
        let place = self.place;
        let len = self.bytes.len() - at;
        if let Some(record) = self.bytes.get_mut(at..) {
            put_u32(record, 0, u32::try_from(len).unwrap_or(u32::MAX));
            put_u64(record, 8, lsn);
            let offset = place.offset + at as u64;
            let covered = record.get(8..).unwrap_or_default();
            let crc = placed_crc(place.salt, place.epoch, place.segment, offset, covered);
            put_u32(record, 4, crc);
        }
        self.bytes.resize(at + len.next_multiple_of(8), 0);
        self.count += 1;
    }

    /// Completes the batch: header, padding to the unit, checksum. Gives the bytes and their CRC.
    pub(crate) fn finish(
        mut self,
        unit: u64,
        durable_lsn: u64,
        previous_crc: u32,
    ) -> (Vec<u8>, u32) {
        let used = self.bytes.len();
        let len = usize::try_from(align_up(used as u64, unit)).unwrap_or(used);
        self.bytes.resize(len, 0);
        let place = self.place;
        let header = &mut self.bytes;
        put_u32(header, 0, BATCH_MAGIC);
        put_u32(header, 8, u32::try_from(len).unwrap_or(u32::MAX));
        put_u32(header, 12, u32::try_from(used).unwrap_or(u32::MAX));
        put_u32(header, 16, self.count);
        put_u32(header, 20, self.references);
        put_u64(header, 24, place.segment);
        put_u64(header, 32, place.epoch);
        put_u64(header, 40, place.offset);
        put_u64(header, 48, self.first_lsn);
        put_u64(header, 56, durable_lsn);
        put_u32(header, 64, self.first_ordinal);
        put_u32(header, 68, previous_crc);
        let covered = header.get(8..).unwrap_or_default();
        let crc = placed_crc(
            place.salt,
            place.epoch,
            place.segment,
            place.offset,
            covered,
        );
        put_u32(header, 4, crc);
        (self.bytes, crc)
    }
}

/// What the header of a batch says, its checksum not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchClaim {
    pub(crate) segment: u64,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) first_lsn: u64,
    pub(crate) count: u32,
}

impl BatchClaim {
    /// Reads the fields when the bytes start like a batch.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..BATCH_HEADER_BYTES)?;
        (get_u32(header, 0) == BATCH_MAGIC).then(|| Self {
            segment: get_u64(header, 24),
            epoch: get_u64(header, 32),
            offset: get_u64(header, 40),
            first_lsn: get_u64(header, 48),
            count: get_u32(header, 16),
        })
    }
}

/// Why bytes are no batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BatchFault {
    /// Nothing was written here: the sector is zero, or the file ends.
    Empty,
    /// The header is plausible but needs this many bytes.
    Incomplete(usize),
    /// Something else stands here.
    Invalid(&'static str),
}

/// A batch whose checksum and place were verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) place: BatchPlace,
    pub(crate) crc: u32,
    pub(crate) previous_crc: u32,
    pub(crate) first_lsn: u64,
    pub(crate) count: u32,
    pub(crate) first_ordinal: u32,
    pub(crate) references: u32,
    /// Everything up to this number was durable when the batch was written.
    pub(crate) durable_lsn: u64,
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Batch<'a> {
    /// Reads the batch at the start of `bytes`. The epoch is the one of the segment's header.
    pub(crate) fn parse(place: BatchPlace, unit: u64, bytes: &'a [u8]) -> Result<Self, BatchFault> {
        let Some(header) = bytes.get(..BATCH_HEADER_BYTES) else {
            let zero = bytes.iter().all(|byte| *byte == 0);
            return Err(if zero {
                BatchFault::Empty
            } else {
                BatchFault::Incomplete(BATCH_HEADER_BYTES)
            });
        };
        if get_u32(header, 0) != BATCH_MAGIC {
            let zero = header.iter().all(|byte| *byte == 0);
            return Err(if zero {
                BatchFault::Empty
            } else {
                BatchFault::Invalid("no batch magic")
            });
        }
        if get_u64(header, 24) != place.segment
            || get_u64(header, 32) != place.epoch
            || get_u64(header, 40) != place.offset
        {
            return Err(BatchFault::Invalid("batch of another place"));
        }
        let len = get_u32(header, 8) as usize;
        let used = get_u32(header, 12) as usize;
        if !(len as u64).is_multiple_of(unit) || used > len || used < BATCH_HEADER_BYTES {
            return Err(BatchFault::Invalid("impossible batch length"));
        }
        let Some(whole) = bytes.get(..len) else {
            return Err(BatchFault::Incomplete(len));
        };
        let crc = get_u32(header, 4);
        let covered = whole.get(8..).unwrap_or_default();
        if placed_crc(
            place.salt,
            place.epoch,
            place.segment,
            place.offset,
            covered,
        ) != crc
        {
            return Err(BatchFault::Invalid("batch checksum differs"));
        }
        Ok(Self {
            place,
            crc,
            previous_crc: get_u32(header, 68),
            first_lsn: get_u64(header, 48),
            count: get_u32(header, 16),
            first_ordinal: get_u32(header, 64),
            references: get_u32(header, 20),
            durable_lsn: get_u64(header, 56),
            bytes: whole,
            used,
        })
    }

    /// Length in the segment, padding included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All its bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number that the record after this batch gets.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.count)
    }

    /// The records in order. Ends early where a record does not fit; the checksum makes that
    /// impossible but for a fault of the writer.
    pub(crate) fn records(&self) -> Records<'a> {
        Records {
            batch: *self,
            at: BATCH_HEADER_BYTES,
            left: self.count,
        }
    }
}

/// Iterator over the records of a verified batch.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    batch: Batch<'a>,
    at: usize,
    left: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.left == 0 {
            return None;
        }
        let bytes = self.batch.bytes.get(self.at..self.batch.used)?;
        let record = Record::parse(bytes)?;
        let at = self.at;
        self.at += record.len.next_multiple_of(8);
        self.left -= 1;
        Some(Record {
            offset: self.batch.place.offset + at as u64,
            ..record
        })
    }
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) lsn: u64,
    /// `None` for a kind that this version does not know.
    pub(crate) kind: Option<RecordKind>,
    pub(crate) flags: u8,
    /// First ordinal of its references.
    pub(crate) ordinal: u32,
    /// Offset in the segment.
    pub(crate) offset: u64,
    /// Length without padding.
    pub(crate) len: usize,
    first_route: u32,
    route_count: u16,
    more_routes: &'a [u8],
    pub(crate) meta: &'a [u8],
    /// The message's body, or the payload of another kind.
    pub(crate) body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The same record at another offset.
    pub(crate) fn moved(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// Takes a record apart without verifying its checksum.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let len = get_u32(bytes, 0) as usize;
        if len < RECORD_HEADER_BYTES {
            return None;
        }
        let whole = bytes.get(..len)?;
        let route_count = get_u16(whole, 24);
        let routes_len = usize::from(route_count).saturating_sub(1) * 4;
        let rest = whole.get(RECORD_HEADER_BYTES..)?;
        let (more_routes, rest) = rest.split_at_checked(routes_len)?;
        let (meta, body) = rest.split_at_checked(usize::from(get_u16(whole, 18)))?;
        Some(Self {
            lsn: get_u64(whole, 8),
            kind: RecordKind::from_number(*whole.get(16)?),
            flags: *whole.get(17)?,
            ordinal: get_u32(whole, 28),
            offset: 0,
            len,
            first_route: get_u32(whole, 20),
            route_count,
            more_routes,
            meta,
            body,
        })
    }

    /// Takes a record apart whose batch was not verified: its own checksum decides.
    pub(crate) fn parse_verified(place: BatchPlace, bytes: &'a [u8]) -> Option<Self> {
        let record = Self::parse(bytes)?;
        let covered = bytes.get(8..record.len)?;
        let crc = placed_crc(
            place.salt,
            place.epoch,
            place.segment,
            place.offset,
            covered,
        );
        (crc == get_u32(bytes, 4)).then_some(Self {
            offset: place.offset,
            ..record
        })
    }

    /// Number of references that the record makes.
    pub(crate) fn references(&self) -> u32 {
        u32::from(self.route_count)
    }

    /// Queue of the `i`-th reference.
    pub(crate) fn routes(&self) -> impl Iterator<Item = u32> + '_ {
        let first = (self.route_count > 0).then_some(self.first_route);
        first.into_iter().chain(
            self.more_routes
                .chunks_exact(4)
                .map(|chunk| get_u32(chunk, 0)),
        )
    }

    /// Bytes that count for the size of a queue.
    pub(crate) fn counted_bytes(&self) -> u32 {
        u32::try_from(self.meta.len() + self.body.len()).unwrap_or(u32::MAX)
    }
}

/// The length that the record header at the start of `bytes` claims.
pub(crate) fn claimed_record_len(bytes: &[u8]) -> usize {
    get_u32(bytes, 0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> BatchPlace {
        BatchPlace {
            salt: 9,
            epoch: 3,
            segment: 4,
            offset: 8192,
        }
    }

    fn sample() -> Vec<u8> {
        let mut builder = BatchBuilder::new(place(), 100, 7, Vec::new());
        let message = MessageParts {
            flags: FLAG_DURABLE,
            routes: &[5, 6],
            meta: b"meta",
            body: &[b"bo", b"dy"],
        };
        let slot = builder.message(message);
        assert_eq!((slot.lsn, slot.ordinal, slot.offset), (100, 7, 8192 + 80));
        assert_eq!(builder.record(RecordKind::Row, b"row"), 101);
        assert_eq!((builder.next_lsn(), builder.next_ordinal()), (102, 9));
        let (bytes, _) = builder.finish(512, 99, 1234);
        assert_eq!(&bytes[slot.body], b"body");
        assert_eq!(&bytes[slot.meta], b"meta");
        bytes
    }

    #[test]
    fn a_batch_is_read_back_as_written() {
        let bytes = sample();
        assert_eq!(bytes.len() % 512, 0);
        let batch = Batch::parse(place(), 512, &bytes).unwrap();
        assert_eq!(
            (batch.first_lsn, batch.count, batch.references),
            (100, 2, 2)
        );
        assert_eq!(
            (batch.durable_lsn, batch.previous_crc, batch.next_lsn()),
            (99, 1234, 102)
        );
        let records: Vec<_> = batch.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].routes().collect::<Vec<_>>(), [5, 6]);
        assert_eq!(
            (records[0].meta, records[0].body),
            (&b"meta"[..], &b"body"[..])
        );
        assert_eq!(records[0].flags, FLAG_DURABLE);
        assert_eq!(
            (records[1].kind, records[1].body),
            (Some(RecordKind::Row), &b"row"[..])
        );
        let own = BatchPlace {
            offset: records[0].offset,
            ..place()
        };
        assert!(Record::parse_verified(own, &bytes[80..]).is_some());
        assert!(
            Record::parse_verified(place(), &bytes[80..]).is_none(),
            "another offset"
        );
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_noticed() {
        let bytes = sample();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Batch::parse(place(), 512, &bad).is_err(), "byte {at}");
            assert!(
                Batch::parse(place(), 512, &bytes[..at]).is_err(),
                "length {at}"
            );
        }
    }

    #[test]
    fn a_batch_counts_only_at_its_own_place() {
        let bytes = sample();
        for other in [
            BatchPlace { salt: 8, ..place() },
            BatchPlace {
                epoch: 4,
                ..place()
            },
            BatchPlace {
                segment: 5,
                ..place()
            },
            BatchPlace {
                offset: 4096,
                ..place()
            },
        ] {
            assert!(Batch::parse(other, 512, &bytes).is_err(), "{other:?}");
        }
        assert_eq!(
            Batch::parse(place(), 512, &[0; 4096]).unwrap_err(),
            BatchFault::Empty
        );
    }
}
