//! The files beside the segments.

use std::collections::BTreeSet;
use std::io;

use super::{Finding, Step, VerifyReport, finding, header_of, trailer_of, verify_footer, walk};
use crate::disk::{Disk, Entry, OpenMode};
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::segment::{compact_of, segment_name, side_index_name};
use crate::state::State;

pub(super) fn verify_side_index(disk: &dyn Disk, segment: u64, report: &mut VerifyReport) {
    let name = side_index_name(segment);
    match read_side_index(disk, segment, &name, &mut report.findings) {
        Ok(true) => {}
        Ok(false) => report
            .findings
            .push(finding(&name, 0, "the index cannot be read", true)),
        Err(error) => report
            .findings
            .push(finding(&name, 0, &error.to_string(), true)),
    }
}

/// Whether the file has a valid trailer of a segment that is there.
fn read_side_index(
    disk: &dyn Disk,
    segment: u64,
    name: &str,
    findings: &mut Vec<Finding>,
) -> io::Result<bool> {
    let file = disk.open(name, OpenMode::Read)?;
    let whole = match disk.open(&segment_name(segment), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "its segment is gone; the next owner removes it";
            findings.push(finding(name, 0, what, false));
            return Ok(true);
        }
        whole => whole?,
    };
    let Some(header) = header_of(whole.as_ref(), segment)? else {
        return Ok(false);
    };
    let Some(trailer) = trailer_of(file.as_ref(), header.identity.salt, segment)? else {
        return Ok(false);
    };
    verify_footer(file.as_ref(), &header, &trailer, name, findings)?;
    Ok(true)
}

/// The end of a segment's valid bytes by the index beside it: only a sealed segment has one, and it stays when
/// the segment with the SEAL is gone.
pub(super) fn end_beside(disk: &dyn Disk, segment: u64) -> Option<u64> {
    let whole = disk.open(&segment_name(segment), OpenMode::Read).ok()?;
    let header = header_of(whole.as_ref(), segment).ok()??;
    let index = disk.open(&side_index_name(segment), OpenMode::Read).ok()?;
    let trailer = trailer_of(index.as_ref(), header.identity.salt, segment).ok()??;
    (trailer.epoch == header.epoch).then_some(trailer.valid_bytes)
}

/// Every segment in which messages wait has to be there.
pub(super) fn verify_presence(
    disk: &dyn Disk,
    names: &[Entry],
    state: &State,
    checkpoint: &str,
    report: &mut VerifyReport,
) {
    let compacted: BTreeSet<u64> = names
        .iter()
        .filter_map(|entry| Some(compact_of(&entry.name)?.0))
        .collect();
    let listed: BTreeSet<&str> = names.iter().map(|entry| entry.name.as_str()).collect();
    for (number, row) in &state.segments {
        let name = segment_name(*number);
        if listed.contains(name.as_str()) {
            continue;
        }
        // It may be younger than the list.
        let is_missing = || {
            let open = disk.open(&name, OpenMode::Read);
            open.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        if row.live > 0 && !compacted.contains(number) && is_missing() {
            let what = format!(
                "the file is missing; {} messages wait in it, as {checkpoint} says",
                row.live
            );
            report.findings.push(finding(&name, 0, &what, true));
        }
    }
}

/// A file with the live part of a segment: batches as in a segment, with gaps in their numbers.
pub(crate) fn verify_compacted(
    disk: &dyn Disk,
    segment: u64,
    name: &str,
    report: &mut VerifyReport,
) -> io::Result<()> {
    let file = disk.open(name, OpenMode::Read)?;
    let Some(header) = header_of(file.as_ref(), segment)? else {
        report
            .findings
            .push(finding(name, 0, "the header cannot be read", true));
        return Ok(());
    };
    let Some(trailer) = trailer_of(file.as_ref(), header.identity.salt, segment)? else {
        report.findings.push(finding(
            name,
            file.bytes()?,
            "the trailer cannot be read",
            true,
        ));
        return Ok(());
    };
    let findings = &mut report.findings;
    let range = FIRST_BATCH_OFFSET..trailer.valid_bytes;
    let end = walk(file.as_ref(), &header, range, |step| {
        if let Step::Gap { offset, bytes } = step {
            let what = format!("{bytes} bytes cannot be read, valid batches follow");
            findings.push(finding(name, offset, &what, true));
        }
    })?;
    if end < trailer.valid_bytes {
        let what = format!(
            "batches are missing up to the end at {}",
            trailer.valid_bytes
        );
        findings.push(finding(name, end, &what, true));
    }
    verify_footer(file.as_ref(), &header, &trailer, name, findings)
}
