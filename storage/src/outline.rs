//! What is known of each segment before its batches are read: who wrote it, where it begins and
//! ends.

use std::collections::BTreeMap;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::payload::SealEntry;
use crate::format::segment::{HEADER_BYTES, SegmentHeader, segment_name};
use crate::options::DamagedRange;
use crate::state::{SegmentKind, SegmentState, State};
use crate::survey::{Found, StoreIdentity, Survey, epoch_start, look_at};

/// What is known about the end of a segment before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentEnd {
    /// Not looked at: it lies below everything that is read.
    Unseen,
    /// Nobody sealed it: it ends where its batches end.
    Open,
    /// Its owner sealed it with a footer.
    Footer(SealEntry),
    /// A successor's SEAL.
    Sealed(SealEntry),
    /// A successor's SEAL that can be read no more, as the base remembers it. It is repeated.
    Remembered(SealEntry),
    /// A successor's SEAL says that its maker died before it owned the store.
    Void,
    /// Nothing in it can be read as a part of the store.
    Unused,
    /// Only what was live of it is kept, for reading: the log does not need it.
    Compacted,
}

impl SegmentEnd {
    /// The final facts of a segment that is sealed.
    pub(crate) fn seal(&self) -> Option<SealEntry> {
        match self {
            Self::Footer(seal) | Self::Sealed(seal) | Self::Remembered(seal) => Some(*seal),
            Self::Unseen | Self::Open | Self::Void | Self::Unused | Self::Compacted => None,
        }
    }

    fn of_seal(seal: SealEntry) -> Self {
        match seal.valid_bytes {
            0 => Self::Void,
            _ => Self::Sealed(seal),
        }
    }
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outline {
    /// `None`: not looked at, or nothing in the file belongs to the store.
    pub(crate) header: Option<SegmentHeader>,
    /// Number of its first record; `None` when it cannot be told any more.
    pub(crate) base_lsn: Option<u64>,
    /// The header was lost after it had been durable.
    pub(crate) is_damaged: bool,
    pub(crate) end: SegmentEnd,
}

impl Outline {
    const UNSEEN: Self = Self {
        header: None,
        base_lsn: None,
        is_damaged: false,
        end: SegmentEnd::Unseen,
    };

    /// The header of a segment that has batches to read.
    pub(crate) fn used(&self) -> Option<&SegmentHeader> {
        match self.end {
            SegmentEnd::Unseen | SegmentEnd::Void | SegmentEnd::Unused | SegmentEnd::Compacted => {
                None
            }
            _ => self.header.as_ref(),
        }
    }
}

/// All segments of the directory, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlines {
    segments: BTreeMap<u64, Outline>,
    oldest: Option<u64>,
    identity: Option<StoreIdentity>,
}

impl Outlines {
    /// What the survey found; everything below is not looked at yet.
    pub(crate) fn of(survey: &Survey) -> Result<Self, OpenError> {
        let unseen = survey.segments.iter().map(|it| (*it, Outline::UNSEEN));
        let compacted = Outline {
            end: SegmentEnd::Compacted,
            ..Outline::UNSEEN
        };
        let compacted = survey.compacted().into_keys().map(|it| (it, compacted));
        let mut outlines = Self {
            // A segment that is still there can be read as a part of the log.
            segments: compacted.chain(unseen).collect(),
            oldest: survey.segments.first().copied(),
            identity: survey.identity,
        };
        let mut seals = Vec::new();
        for found in &survey.unsealed {
            outlines.add(found, &mut seals)?;
        }
        outlines.apply_seals(seals);
        Ok(outlines)
    }

    /// Looks at the segments from a number on: as far back as the log is read.
    pub(crate) fn complete(&mut self, disk: &dyn Disk, from: u64) -> Result<(), OpenError> {
        let numbers = self.segments.range(from..).map(|(number, _)| *number);
        self.look_at(disk, numbers.collect())
    }

    fn look_at(&mut self, disk: &dyn Disk, numbers: Vec<u64>) -> Result<(), OpenError> {
        let mut seals = Vec::new();
        for number in numbers {
            // A SEAL may tell the end of a segment before anybody has looked at it.
            let is_unseen = self.segments.get(&number).is_some_and(|it| {
                it.header.is_none() && matches!(it.end, SegmentEnd::Unseen | SegmentEnd::Sealed(_))
            });
            if is_unseen {
                let found = look_at(disk, number, self.identity)?;
                self.add(&found, &mut seals)?;
            }
        }
        self.apply_seals(seals);
        Ok(())
    }

    fn add(&mut self, found: &Found, seals: &mut Vec<SealEntry>) -> Result<(), OpenError> {
        let mut outline = Outline {
            header: found.header,
            base_lsn: found.base_lsn,
            is_damaged: found.is_damaged,
            end: SegmentEnd::Open,
        };
        match (&found.header, &found.trailer) {
            (None, _) => outline.end = SegmentEnd::Unused,
            (Some(_), Some(trailer)) => outline.end = SegmentEnd::Footer(trailer.facts()),
            (Some(_), None) => {}
        }
        if let Some(header) = found.header.filter(|header| header.epoch == found.number) {
            let start = epoch_start(found, &header)?;
            // The first segment of a store has no predecessor to seal. In any other one an owner
            // that has sealed nothing never owned the store.
            if start.seals.is_none() && !start.is_used && self.oldest != Some(found.number) {
                outline.end = SegmentEnd::Unused;
            }
            seals.extend(start.seals.unwrap_or_default());
        }
        if let Some(known) = self.segments.get(&found.number)
            && matches!(known.end, SegmentEnd::Sealed(_))
            && outline.header.is_some()
        {
            outline.end = known.end;
        }
        self.segments.insert(found.number, outline);
        Ok(())
    }

    /// The first SEAL of a segment in the order of the log wins, also over a footer: a SEAL is
    /// written only where there was none, so a footer beside it is a dead owner's late write.
    fn apply_seals(&mut self, seals: Vec<SealEntry>) {
        for seal in seals {
            let Some(outline) = self.segments.get_mut(&seal.segment) else {
                continue;
            };
            if matches!(
                outline.end,
                SegmentEnd::Sealed(_) | SegmentEnd::Void | SegmentEnd::Compacted
            ) {
                continue;
            }
            let is_unused = outline.end == SegmentEnd::Unused;
            outline.end = SegmentEnd::of_seal(seal);
            if is_unused && let Some((identity, unit)) = self.identity {
                // It was used once, and nothing of it is left.
                outline.is_damaged = true;
                outline.header = Some(SegmentHeader {
                    identity,
                    segment: seal.segment,
                    epoch: seal.segment,
                    base_lsn: seal.last_lsn + 1,
                    capacity: seal.valid_bytes,
                    unit,
                });
            }
        }
    }

    /// Takes over what only the base remembers: the ends of segments whose SEAL or trailer is
    /// damaged, and that a segment was used in which nothing can be read any more.
    pub(crate) fn remember(
        &mut self,
        disk: &dyn Disk,
        base: &State,
        store: StoreIdentity,
    ) -> Result<(), OpenError> {
        // Those may have been sealed after the base was written.
        let open = base.segments.iter();
        let open = open.filter(|(_, row)| row.kind == SegmentKind::Open);
        self.look_at(disk, open.map(|(number, _)| *number).collect())?;
        for (number, row) in &base.segments {
            let Some(outline) = self.segments.get_mut(number) else {
                continue;
            };
            if outline.end == SegmentEnd::Unused && row.valid_bytes > FIRST_BATCH_OFFSET {
                // As above.
                outline.header = Some(header_of_row(*number, row, store));
                outline.base_lsn = Some(row.base_lsn);
                outline.is_damaged = true;
                outline.end = SegmentEnd::Open;
            }
            // The base lies behind everything that such a segment holds.
            let is_final = row.kind != SegmentKind::Open || *number < base.position.segment;
            if outline.end == SegmentEnd::Open && is_final {
                outline.end = SegmentEnd::Remembered(seal_of_row(*number, row));
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Outline> {
        self.segments.get(&number)
    }

    /// All of them in ascending order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Outline)> {
        self.segments
            .iter()
            .map(|(number, outline)| (*number, outline))
    }

    /// Those with batches to read, from a number on.
    pub(crate) fn used_from(
        &self,
        from: u64,
    ) -> impl Iterator<Item = (u64, &Outline, &SegmentHeader)> {
        self.segments
            .range(from..)
            .filter_map(|(number, outline)| Some((*number, outline, outline.used()?)))
    }

    /// The segments that are read whose header is damaged.
    pub(crate) fn damaged_headers(&self, from: u64) -> impl Iterator<Item = DamagedRange> {
        self.used_from(from)
            .filter(|(_, outline, _)| outline.is_damaged)
            .map(|(number, ..)| DamagedRange {
                file: segment_name(number),
                offset: 0,
                bytes: HEADER_BYTES as u64,
                records: 0,
            })
    }

    /// Whether the log from a segment on is whole: segments may be missing between two others only
    /// if they held no record, and it takes the SEAL of the first one to know. The text names the gap.
    pub(crate) fn check_whole(&self, from: u64) -> Result<(), String> {
        let mut before: Option<(u64, Option<u64>)> = None;
        for (number, outline, _) in self.used_from(from) {
            let is_void = |it: u64| self.get(it).is_some_and(|it| it.end == SegmentEnd::Void);
            if let (Some((left, last_lsn)), Some(base)) = (before, outline.base_lsn)
                && !(left + 1..number).all(is_void)
                && last_lsn.is_none_or(|last_lsn| base > last_lsn + 1)
            {
                return Err(format!(
                    "the log between {} and {} is gone",
                    segment_name(left),
                    segment_name(number)
                ));
            }
            before = Some((number, outline.end.seal().map(|seal| seal.last_lsn)));
        }
        Ok(())
    }
}

fn header_of_row(
    number: u64,
    row: &SegmentState,
    (identity, unit): StoreIdentity,
) -> SegmentHeader {
    SegmentHeader {
        identity,
        segment: number,
        epoch: row.epoch,
        base_lsn: row.base_lsn,
        capacity: row.valid_bytes,
        unit,
    }
}

fn seal_of_row(number: u64, row: &SegmentState) -> SealEntry {
    SealEntry {
        segment: number,
        valid_bytes: row.valid_bytes,
        last_lsn: row.last_lsn,
        chain_crc: row.chain_crc,
        references: row.references,
    }
}
