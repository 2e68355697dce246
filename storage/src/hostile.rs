//! Entry points for bytes that nobody vouches for: what a fuzzer feeds. Each returns whether the
//! bytes were taken for valid; none may panic or take memory beyond the input's size.

use crate::checkpoint;
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::batch::{Batch, BatchPlace, Record};
use crate::format::footer::{Directory, TRAILER_BYTES, Trailer, decode_list};
use crate::format::payload::{
    Adopted, IndexRecord, Quarantined, RowChange, SnapshotPart, decode_seals, decode_settled,
};
use crate::format::segment::SegmentHeader;
use crate::rows::{decode_rows, load};

/// The header of a segment.
#[must_use]
pub fn segment_header(bytes: &[u8]) -> bool {
    SegmentHeader::decode(bytes).is_ok()
}

/// A batch at a fixed place, with its records and their payloads.
#[must_use]
pub fn batch(bytes: &[u8]) -> bool {
    let place = BatchPlace {
        salt: 1,
        epoch: 2,
        segment: 3,
        offset: 4096,
    };
    let Ok(batch) = Batch::parse(place, 512, bytes) else {
        return false;
    };
    batch
        .records()
        .all(|record| payload(record.body) || record.kind.is_some())
}

/// A single record.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    Record::parse(bytes).is_some_and(|record| record.routes().count() <= usize::from(u16::MAX))
}

/// The payload of any record, tried as each kind.
#[must_use]
pub fn payload(bytes: &[u8]) -> bool {
    [
        decode_settled(bytes).is_some(),
        RowChange::decode(bytes).is_some(),
        decode_seals(bytes).is_some(),
        IndexRecord::decode(bytes).is_some(),
        Adopted::decode(bytes).is_some(),
        Quarantined::decode(bytes).is_some(),
        SnapshotPart::decode(bytes).is_some(),
    ]
    .contains(&true)
}

/// Footer and trailer of a segment.
#[must_use]
pub fn footer(bytes: &[u8]) -> bool {
    let trailer = Trailer::decode(1, 3, bytes).is_some();
    let needed = Directory::encoded_bytes(bytes).is_some();
    let Some(directory) = Directory::decode(1, 2, 3, bytes) else {
        return trailer || needed;
    };
    directory.queues.iter().all(|entry| {
        let list = bytes.get(entry.start as usize..).unwrap_or_default();
        decode_list(1, 2, 3, *entry, list).is_some()
    })
}

/// What a segment is made of, for a fuzzer to damage: the payload of each record with its kind's number, and
/// the footer with its trailer, as far as they can be read.
#[must_use]
pub fn parts(segment: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let Ok(header) = SegmentHeader::decode(segment) else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    let mut place = BatchPlace {
        salt: header.identity.salt,
        epoch: header.epoch,
        segment: header.segment,
        offset: FIRST_BATCH_OFFSET,
    };
    let from = |offset: u64| segment.get(usize::try_from(offset).unwrap_or(usize::MAX)..);
    while let Some(rest) = from(place.offset)
        && let Ok(batch) = Batch::parse(place, u64::from(header.unit), rest)
    {
        for record in batch.records() {
            let kind = record.kind.map_or(0, |kind| kind as u8);
            parts.push((kind, record.body.to_vec()));
        }
        place.offset += batch.len() as u64;
    }
    let trailer_at = segment.len().saturating_sub(TRAILER_BYTES) as u64;
    let trailer = from(trailer_at).unwrap_or_default();
    if let Some(trailer) = Trailer::decode(place.salt, place.segment, trailer)
        && let Some(footer) = from(trailer.footer_offset)
    {
        parts.push((0, footer.to_vec()));
    }
    parts
}

/// The rows of a snapshot.
#[must_use]
pub fn snapshot_rows(bytes: &[u8]) -> bool {
    let Some(rows) = decode_rows(bytes) else {
        return false;
    };
    load(
        rows.into_iter()
            .filter_map(|row| Some((row.table, row.key, row.value?))),
    )
    .is_ok()
}

/// A whole checkpoint file.
#[must_use]
pub fn checkpoint_file(bytes: &[u8]) -> bool {
    checkpoint::load_bytes(bytes.to_vec()).is_ok()
}
