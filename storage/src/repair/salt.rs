//! Whose store this is when no header and no checkpoint tells.
//!
//! Every checksum of the log begins with the salt, so a batch that is whole gives away what the salt did
//! to the checksum: the CRC is run backwards from its result over all that follows the salt. Many salts do
//! the same, and any of them serves; a second batch tells whether the first one was whole.

use std::io;

use crate::disk::{DiskFile, read_range};
use crate::format::batch::{Batch, BatchClaim, BatchPlace};
use crate::format::segment::SegmentHeader;
use crate::format::{FIRST_BATCH_OFFSET, Identity, SECTOR_BYTES, get_u32};
use crate::scan::BATCH_BYTES_MAX;

/// The reversed polynomial of CRC-32.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// Bytes of a segment that are looked through.
const SEARCH_BYTES: usize = 8 << 20;

/// A header for a segment whose own is lost: found from two batches of it. `identity` is the store's, if
/// anything tells it; else it becomes `new`, with a salt that fits.
pub(super) fn header_from_batches(
    file: &dyn DiskFile,
    segment: u64,
    identity: Option<Identity>,
    new: Identity,
) -> io::Result<Option<SegmentHeader>> {
    let bytes = read_range(file, FIRST_BATCH_OFFSET, SEARCH_BYTES)?;
    let sector = usize::try_from(SECTOR_BYTES).unwrap_or(512);
    let mut claims = Vec::new();
    for (at, start) in bytes.chunks(sector).enumerate() {
        let offset = FIRST_BATCH_OFFSET + (at * sector) as u64;
        if let Some(claim) = BatchClaim::read(start)
            && claim.segment == segment
            && claim.offset == offset
        {
            claims.push((claim, bytes.get(at * sector..).unwrap_or_default()));
        }
    }
    let Some((first, _)) = claims.first() else {
        return Ok(None);
    };
    let unit = claims.iter().fold(4096, |unit, (claim, _)| {
        unit.min(1_u64 << claim.offset.trailing_zeros().min(12))
    });
    let verifies = |salt: u64, claim: &BatchClaim, bytes: &[u8]| {
        let place = BatchPlace {
            salt,
            epoch: claim.epoch,
            segment,
            offset: claim.offset,
        };
        Batch::parse(place, unit, bytes).is_ok()
    };
    let known = identity.map(|it| it.salt);
    let guesses = claims
        .iter()
        .filter_map(|(claim, bytes)| salt_of(claim, bytes));
    let salt = known.into_iter().chain(guesses).find(|salt| {
        let good = claims
            .iter()
            .filter(|(claim, bytes)| verifies(*salt, claim, bytes));
        good.take(2).count() == 2
    });
    Ok(salt.map(|salt| SegmentHeader {
        identity: Identity {
            salt,
            ..identity.unwrap_or(new)
        },
        segment,
        epoch: first.epoch,
        base_lsn: first.first_lsn,
        capacity: file.bytes().unwrap_or(0),
        unit: u32::try_from(unit).unwrap_or(512),
    }))
}

/// A salt with which the batch would be whole.
fn salt_of(claim: &BatchClaim, bytes: &[u8]) -> Option<u64> {
    let len = get_u32(bytes, 8) as usize;
    if len > BATCH_BYTES_MAX {
        return None;
    }
    let covered = bytes.get(8..len)?;
    let mut behind = Vec::with_capacity(24 + covered.len());
    for number in [claim.epoch, claim.segment, claim.offset] {
        behind.extend_from_slice(&number.to_le_bytes());
    }
    behind.extend_from_slice(covered);
    let table = table();
    // The state after the salt, then the one before its last four bytes if those were zero: what has to be
    // there instead of zeros is the difference to the state that four zero bytes lead to.
    let after_salt = backwards(&table, !get_u32(bytes, 4), &behind);
    let before = forwards(&table, u32::MAX, &[0; 4]);
    let wanted = backwards(&table, after_salt, &[0; 4]);
    Some(u64::from(wanted ^ before) << 32)
}

fn table() -> [u32; 256] {
    let mut table = [0; 256];
    for (byte, entry) in (0_u32..).zip(table.iter_mut()) {
        *entry = (0..8).fold(byte, |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ POLYNOMIAL,
            _ => crc >> 1,
        });
    }
    table
}

fn entry(table: &[u32; 256], at: u32) -> u32 {
    table.get(at as usize & 0xff).copied().unwrap_or(0)
}

fn forwards(table: &[u32; 256], crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (crc >> 8) ^ entry(table, (crc & 0xff) ^ u32::from(*byte))
    })
}

/// The state from which `bytes` lead to `crc`. The high byte of each entry of the table is unique.
fn backwards(table: &[u32; 256], crc: u32, bytes: &[u8]) -> u32 {
    let mut by_high = [0_u32; 256];
    for (at, entry) in (0_u32..).zip(table) {
        if let Some(slot) = by_high.get_mut((entry >> 24) as usize) {
            *slot = at;
        }
    }
    bytes.iter().rev().fold(crc, |crc, byte| {
        let at = by_high.get((crc >> 24) as usize).copied().unwrap_or(0);
        ((crc ^ entry(table, at)) << 8) | (at ^ u32::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::{BatchBuilder, RecordKind};

    #[test]
    fn a_salt_that_does_the_same_is_found_from_one_batch() {
        let place = BatchPlace {
            salt: 0x1234_5678_9abc_def0,
            epoch: 3,
            segment: 5,
            offset: 4096,
        };
        let batch = |place: BatchPlace, text: &[u8]| {
            let mut builder = BatchBuilder::new(place, 7, 0, Vec::new());
            builder.record(RecordKind::Row, text);
            builder.finish(512, 6, 99).0
        };
        let bytes = batch(place, b"one");
        let claim = BatchClaim::read(&bytes).unwrap();
        let salt = salt_of(&claim, &bytes).unwrap();
        assert_ne!(salt, place.salt);
        let other = BatchPlace {
            offset: 8192,
            ..place
        };
        let elsewhere = batch(other, &[7; 3000]);
        let guessed = BatchPlace { salt, ..other };
        assert!(Batch::parse(guessed, 512, &elsewhere).is_ok());
        assert_eq!(!forwards(&table(), u32::MAX, b"123456789"), 0xcbf4_3926);
    }
}
