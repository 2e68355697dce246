//! The open batch, the batches that wait for the disk, and the one in flight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::format::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchPlace, RECORD_HEADER_BYTES, RecordKind,
};
use crate::format::payload::{SettledGroup, SettledRange, encode_settled};
use crate::format::{FIRST_BATCH_OFFSET, align_up};
use crate::index::FooterSize;
use crate::types::{Place, Ticket};

/// An entry of a footer for a message that is not durable yet.
const ENTRY_BYTES_LIKELY: u64 = 5;
/// Header of a footer, the page on which it begins, its last sector and the trailer's.
const FOOTER_SLACK_BYTES: u64 = 8192;

/// How large the segments of this epoch are.
#[derive(Clone, Debug)]
pub(crate) struct SegmentPlanner {
    pub(crate) epoch: u64,
    pub(crate) segment_bytes_max: u64,
    /// Size of the epoch's first segment; each further one doubles.
    pub(crate) first_bytes: u64,
    /// Segments made on a full disk, as small as the first one.
    pub(crate) small: BTreeSet<u64>,
}

impl SegmentPlanner {
    /// Bytes prepared for a segment.
    pub(crate) fn capacity(&self, segment: u64) -> u64 {
        if self.small.contains(&segment) {
            return self.first_bytes;
        }
        let doublings = u32::try_from(segment.saturating_sub(self.epoch))
            .unwrap_or(63)
            .min(40);
        (self.first_bytes << doublings).min(self.segment_bytes_max.max(self.first_bytes))
    }
}

/// A batch that waits for the disk.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) ticket: Ticket,
    pub(crate) builder: BatchBuilder,
    /// It is the first of its segment.
    pub(crate) is_first: bool,
}

/// References by segment and ordinal.
type Keys = Vec<(u64, u32)>;

/// Everything appended and not durable.
#[derive(Debug)]
pub(crate) struct Writer {
    unit: u64,
    pub(crate) open: BatchBuilder,
    open_is_first: bool,
    open_ticket: Ticket,
    /// References settled in the open batch: they become one record when it is closed.
    open_settled: BTreeMap<u32, (u64, Keys)>,
    open_settled_count: usize,
    closed: VecDeque<Closed>,
    closed_bytes: usize,
    /// References settled in closed batches, by ticket.
    settled: VecDeque<(Ticket, Keys)>,
    in_flight: Option<(Ticket, usize)>,
    pub(crate) durable_ticket: Ticket,
    /// Checksum of the last batch handed out: the next one names it.
    pub(crate) chain_crc: u32,
    /// When something was last appended or became durable.
    pub(crate) last_activity_ms: u64,
    /// The last durable batch is not covered by a watermark yet.
    watermark_needed: bool,
    /// What is known of the footer of the segment that the last durable batch is in.
    footer: (u64, FooterSize),
    pub(crate) batches: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) message_bytes: u64,
}

impl Writer {
    /// Starts behind the batch that a new owner has written.
    pub(crate) fn new(
        place: BatchPlace,
        unit: u64,
        next_lsn: u64,
        next_ordinal: u32,
        chain_crc: u32,
    ) -> Self {
        Self {
            unit,
            open: BatchBuilder::new(place, next_lsn, next_ordinal, Vec::new()),
            open_is_first: place.offset == FIRST_BATCH_OFFSET,
            open_ticket: Ticket(1),
            open_settled: BTreeMap::new(),
            open_settled_count: 0,
            closed: VecDeque::new(),
            closed_bytes: 0,
            settled: VecDeque::new(),
            in_flight: None,
            durable_ticket: Ticket(0),
            chain_crc,
            last_activity_ms: 0,
            watermark_needed: true,
            footer: (0, FooterSize::default()),
            batches: 0,
            batch_bytes: 0,
            message_bytes: 0,
        }
    }

    /// The segment of the open batch.
    pub(crate) fn segment(&self) -> u64 {
        self.open.place().segment
    }

    pub(crate) fn open_ticket(&self) -> Ticket {
        self.open_ticket
    }

    pub(crate) fn open_is_empty(&self) -> bool {
        self.open.is_empty() && self.open_settled_count == 0
    }

    pub(crate) fn open_bytes(&self) -> usize {
        if self.open_is_empty() {
            0
        } else {
            self.open.len() + self.settled_bytes()
        }
    }

    pub(crate) fn closed_bytes(&self) -> usize {
        self.closed_bytes + self.in_flight.map_or(0, |(_, bytes)| bytes)
    }

    pub(crate) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(crate) fn watermark_pending(&self) -> bool {
        self.watermark_needed
            && self.in_flight.is_none()
            && self.closed.is_empty()
            && self.open_is_empty()
    }

    /// Upper bound of the record that the open batch's settled references become.
    fn settled_bytes(&self) -> usize {
        if self.open_settled_count == 0 {
            return 0;
        }
        RECORD_HEADER_BYTES + self.open_settled_count * 16 + self.open_settled.len() * 16 + 8
    }

    pub(crate) fn settle(&mut self, queue: u32, place: Place) {
        let group = self.open_settled.entry(queue).or_default();
        group.0 += u64::from(place.bytes);
        group.1.push((place.segment, place.ordinal));
        self.open_settled_count += 1;
    }

    /// The footer of a segment as far as it is known.
    pub(crate) fn set_footer(&mut self, segment: u64, size: FooterSize) {
        self.footer = (segment, size);
    }

    /// Where batches of a segment should end, so that its footer fits behind them. A footer that does not fit
    /// makes the file longer, which does no harm.
    fn limit(&self, plan: &SegmentPlanner, segment: u64, references: u32) -> u64 {
        let known = match self.footer {
            (of, size) if of == segment => size,
            _ => FooterSize::default(),
        };
        let unknown = u64::from(references.saturating_sub(known.references));
        let footer = known.bytes + unknown * ENTRY_BYTES_LIKELY + FOOTER_SLACK_BYTES;
        plan.capacity(segment)
            .saturating_sub(footer)
            .max(FIRST_BATCH_OFFSET)
    }

    /// Whether the segment of the open batch has no room for so many bytes more.
    pub(crate) fn is_at_limit(&self, plan: &SegmentPlanner, bytes: u64) -> bool {
        let place = self.open.place();
        place.offset + bytes > self.limit(plan, place.segment, self.open.next_ordinal())
    }

    /// See `Store::make_room`.
    pub(crate) fn make_room(&mut self, bytes: usize, batch_bytes: usize, plan: &SegmentPlanner) {
        let need = RECORD_HEADER_BYTES + bytes.next_multiple_of(8) + 8;
        let place = self.open.place();
        let end = place.offset + (self.open.len() + self.settled_bytes() + need) as u64;
        let full = end > self.limit(plan, place.segment, self.open.next_ordinal());
        let long = self.open.len() + self.settled_bytes() + need > batch_bytes;
        if self.open_is_empty() {
            if full && place.offset > FIRST_BATCH_OFFSET {
                self.start(place.segment + 1, FIRST_BATCH_OFFSET, 0);
            }
        } else if full || long {
            self.close(plan);
            // The batch that follows may have to start in the next segment.
            let place = self.open.place();
            let end = place.offset + (BATCH_HEADER_BYTES + need) as u64;
            if end > self.limit(plan, place.segment, self.open.next_ordinal())
                && place.offset > FIRST_BATCH_OFFSET
            {
                self.start(place.segment + 1, FIRST_BATCH_OFFSET, 0);
            }
        }
    }

    /// Puts an empty open batch somewhere else.
    fn start(&mut self, segment: u64, offset: u64, ordinal: u32) {
        let place = BatchPlace {
            segment,
            offset,
            ..self.open.place()
        };
        let lsn = self.open.next_lsn();
        self.open = BatchBuilder::new(place, lsn, ordinal, Vec::new());
        self.open_is_first = offset == FIRST_BATCH_OFFSET;
    }

    /// Closes the open batch and starts the next one behind it.
    pub(crate) fn close(&mut self, plan: &SegmentPlanner) {
        let mut keys = Keys::new();
        if self.open_settled_count > 0 {
            let mut groups = Vec::with_capacity(self.open_settled.len());
            for (queue, (bytes, mut group)) in std::mem::take(&mut self.open_settled) {
                group.sort_unstable();
                groups.push(SettledGroup {
                    queue,
                    bytes,
                    ranges: ranges_of(&group),
                });
                keys.append(&mut group);
            }
            self.open_settled_count = 0;
            self.open
                .record(RecordKind::Settled, &encode_settled(&groups));
        }
        let place = self.open.place();
        let len = align_up(self.open.len() as u64, self.unit);
        let lsn = self.open.next_lsn();
        let mut next = BatchPlace {
            offset: place.offset + len,
            ..place
        };
        let mut ordinal = self.open.next_ordinal();
        // Nothing fits behind a batch that fills its segment.
        if next.offset + 4096 > self.limit(plan, place.segment, ordinal) {
            next = BatchPlace {
                segment: place.segment + 1,
                offset: FIRST_BATCH_OFFSET,
                ..place
            };
            ordinal = 0;
        }
        // The new batch will likely grow like this one.
        let buffer = Vec::with_capacity(self.open.len().min(256 << 10));
        let fresh = BatchBuilder::new(next, lsn, ordinal, buffer);
        let builder = std::mem::replace(&mut self.open, fresh);
        let is_first = std::mem::replace(&mut self.open_is_first, next.segment != place.segment);
        self.closed_bytes += builder.len();
        self.settled.push_back((self.open_ticket, keys));
        self.closed.push_back(Closed {
            ticket: self.open_ticket,
            builder,
            is_first,
        });
        self.open_ticket.0 += 1;
    }

    /// The first closed batch, to look at.
    pub(crate) fn first_closed(&self) -> Option<&Closed> {
        self.closed.front()
    }

    /// Takes the first closed batch for writing.
    pub(crate) fn take_closed(&mut self) -> Option<Closed> {
        let closed = self.closed.pop_front()?;
        let bytes = closed.builder.len();
        self.closed_bytes -= bytes;
        self.in_flight = Some((closed.ticket, bytes));
        Some(closed)
    }

    /// A batch is durable. Every durable batch covers its predecessors with its watermark; one
    /// without records needs no further one.
    pub(crate) fn completed(&mut self, ticket: Ticket, has_records: bool, now_ms: u64) {
        self.in_flight = None;
        self.durable_ticket = ticket;
        self.watermark_needed = has_records;
        self.last_activity_ms = now_ms;
    }

    /// The references settled in a batch that has become durable.
    pub(crate) fn take_settled(&mut self, ticket: Ticket) -> Keys {
        match self.settled.front() {
            Some((front, _)) if *front == ticket => self
                .settled
                .pop_front()
                .map(|(_, keys)| keys)
                .unwrap_or_default(),
            _ => Keys::new(),
        }
    }
}

/// Sorted references as runs.
fn ranges_of(keys: &[(u64, u32)]) -> Vec<SettledRange> {
    let mut ranges: Vec<SettledRange> = Vec::new();
    for (segment, ordinal) in keys {
        match ranges.last_mut() {
            Some(last) if last.segment == *segment && last.first + last.count == *ordinal => {
                last.count += 1;
            }
            _ => ranges.push(SettledRange {
                segment: *segment,
                first: *ordinal,
                count: 1,
            }),
        }
    }
    ranges
}
