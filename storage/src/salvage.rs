//! What can still be read where batches are damaged: each record carries a checksum of its own.

use std::io;
use std::ops::Range;

use crate::disk::{DiskFile, read_range};
use crate::format::batch::{BatchPlace, RECORD_HEADER_BYTES, Record};
use crate::scan::BATCH_BYTES_MAX;

/// Checksums are computed over so many times the bytes of a range at most. Bytes that a client
/// chose could otherwise claim one long record behind the other and make this endless.
const EFFORT_MAX: usize = 16;

/// Visits the records between `place.offset` and `end` whose own checksum holds and whose number
/// lies in `lsns`, in order. Gives how many there were.
///
/// Memory is bounded by the longest batch: a longer range is taken in pieces of that size.
pub(crate) fn salvage(
    file: &dyn DiskFile,
    place: BatchPlace,
    end: u64,
    lsns: Range<u64>,
    visit: &mut dyn FnMut(&Record<'_>),
) -> io::Result<u64> {
    let mut found = 0;
    let mut lsns = lsns;
    let mut from = place.offset;
    while from < end {
        let len = usize::try_from(end - from).unwrap_or(usize::MAX);
        let bytes = read_range(file, from, len.min(BATCH_BYTES_MAX))?;
        if bytes.len() < RECORD_HEADER_BYTES {
            break;
        }
        let here = BatchPlace {
            offset: from,
            ..place
        };
        let walked = walk(here, &bytes, &mut lsns, &mut |record| {
            found += 1;
            visit(record);
        });
        from += walked as u64;
    }
    Ok(found)
}

/// Goes over bytes that start at `place`; gives how far it came.
fn walk(
    place: BatchPlace,
    bytes: &[u8],
    lsns: &mut Range<u64>,
    visit: &mut dyn FnMut(&Record<'_>),
) -> usize {
    let mut effort = bytes.len().saturating_mul(EFFORT_MAX);
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && !rest.is_empty()
    {
        let own = BatchPlace {
            offset: place.offset + at as u64,
            ..place
        };
        match candidate(own, rest, lsns, &mut effort) {
            Some(record) => {
                visit(&record);
                lsns.start = record.lsn + 1;
                at += record.len.next_multiple_of(8);
            }
            None => at += 8,
        }
    }
    at.max(8)
}

/// The record at the start of `bytes`, if its numbers are possible and its checksum holds.
fn candidate<'a>(
    place: BatchPlace,
    bytes: &'a [u8],
    lsns: &Range<u64>,
    effort: &mut usize,
) -> Option<Record<'a>> {
    let record = Record::parse(bytes)?;
    if !lsns.contains(&record.lsn) {
        return None;
    }
    *effort = effort.checked_sub(record.len)?;
    Record::parse_verified(place, bytes)
}
