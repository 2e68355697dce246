//! The rows of the store's user, as far as they can be read beside a running owner.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;

use super::dump::sealed_by;
use super::{Step, header_of, segments, walk};
use crate::checkpoint::load;
use crate::disk::{Disk, OpenMode};
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::batch::{Record, RecordKind};
use crate::format::payload::RowChange;
use crate::format::segment::{checkpoint_name, checkpoint_of, segment_name};

/// The rows of the store's user: values by key, by kind.
pub type UserRows = BTreeMap<u16, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The rows of the newest checkpoint that can be read, with what the log says behind it. Takes no locks: beside
/// a running owner, and where the store is damaged, rows may be missing.
///
/// # Errors
/// When the directory cannot be listed; a file that cannot be read is passed over.
pub fn rows(disk: &dyn Disk) -> io::Result<UserRows> {
    let listed = disk.list()?;
    let mut epochs: Vec<u64> = listed
        .iter()
        .filter_map(|entry| checkpoint_of(&entry.name))
        .collect();
    epochs.sort_unstable();
    let mut newest_first = epochs.into_iter().rev().map(checkpoint_name);
    let newest = newest_first.find_map(|name| load(disk, &name).ok());
    let (mut rows, position) = newest.map_or_else(Default::default, |(state, meta)| {
        (state.rows, meta.position)
    });
    for number in segments(disk)? {
        let from = match number.cmp(&position.segment) {
            Ordering::Less => continue,
            Ordering::Equal => position.offset,
            Ordering::Greater => FIRST_BATCH_OFFSET,
        };
        // Its owner may just be removing it.
        let _ = add_changes(disk, number, from, &mut rows);
    }
    Ok(rows)
}

/// Applies the changes of rows that a segment has from an offset on.
fn add_changes(disk: &dyn Disk, number: u64, from: u64, rows: &mut UserRows) -> io::Result<()> {
    let file = disk.open(&segment_name(number), OpenMode::Read)?;
    let Some(header) = header_of(file.as_ref(), number)? else {
        return Ok(());
    };
    let sealed = sealed_by(disk, file.as_ref(), &header)?;
    let limit = sealed.map_or(u64::MAX, |by| by.end());
    walk(file.as_ref(), &header, from..limit, |step| {
        let Step::Batch(batch) = step else { return };
        let is_row = |record: &Record<'_>| record.kind == Some(RecordKind::Row);
        for record in batch.records().filter(is_row) {
            let Some(change) = RowChange::decode(record.body) else {
                continue;
            };
            let of_kind = rows.entry(change.kind).or_default();
            match change.value {
                Some(value) => of_kind.insert(change.key.to_vec(), value.to_vec()),
                None => of_kind.remove(change.key),
            };
        }
    })?;
    Ok(())
}
