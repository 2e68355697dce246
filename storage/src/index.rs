//! Where the messages of a segment without footer are, kept in memory while it is written.

use crate::bits::SettledBits;
use crate::format::batch::Batch;
use crate::format::footer::DIRECTORY_ENTRY_BYTES;
use crate::format::payload::{Distances, IndexEntry, IndexMap, IndexRecord};
use crate::scan::index_batch;

/// The index of one segment of this owner: 8 bytes of memory for each reference.
#[derive(Debug, Default)]
pub(crate) struct SegmentIndex {
    all: IndexMap,
    /// What the next index record has to bring.
    since: IndexMap,
    /// Batch of the last index record; 0 when there is none.
    last_batch: u64,
    /// First ordinal that no index record covers.
    from_ordinal: u32,
    next_ordinal: u32,
    /// End of the last batch added.
    end: u64,
    footer_bytes: u64,
}

/// How much room the footer of a segment takes as far as its batches are durable.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FooterSize {
    pub(crate) bytes: u64,
    /// References that it covers.
    pub(crate) references: u32,
}

impl SegmentIndex {
    /// Adds a durable batch.
    pub(crate) fn add(&mut self, batch: &Batch<'_>) {
        if batch.references > 0 {
            let mut added = IndexMap::new();
            index_batch(batch, &mut added);
            for (queue, entries) in added {
                self.footer_bytes += self.footer_growth(queue, &entries);
                self.since
                    .entry(queue)
                    .or_default()
                    .extend_from_slice(&entries);
                self.all.entry(queue).or_default().extend(entries);
            }
        }
        self.next_ordinal = batch.first_ordinal + batch.references;
        self.end = batch.place.offset + batch.len() as u64;
    }

    fn footer_growth(&self, queue: u32, entries: &[IndexEntry]) -> u64 {
        let last = self.all.get(&queue).and_then(|list| list.last());
        let mut distances = last.map_or(Distances::from(0), |last| Distances::after(*last));
        let list = entries.iter().map(|entry| distances.measure(*entry));
        let bytes = list.sum::<usize>();
        let directory = if last.is_none() {
            DIRECTORY_ENTRY_BYTES
        } else {
            0
        };
        (directory + bytes) as u64
    }

    pub(crate) fn footer_size(&self) -> FooterSize {
        FooterSize {
            bytes: self.footer_bytes,
            references: self.next_ordinal,
        }
    }

    /// The record that covers what was added since the last one, to go into the batch at `batch`.
    pub(crate) fn take_record(&mut self, batch: u64) -> Option<IndexRecord> {
        if self.since.is_empty() {
            return None;
        }
        let record = IndexRecord {
            previous_batch: self.last_batch,
            from_ordinal: self.from_ordinal,
            to_ordinal: self.next_ordinal,
            scan_from: self.end,
            entries: std::mem::take(&mut self.since),
        };
        self.last_batch = batch;
        self.from_ordinal = self.next_ordinal;
        Some(record)
    }

    /// Whether an index record would bring anything.
    pub(crate) fn is_behind(&self) -> bool {
        !self.since.is_empty()
    }

    /// Up to `limit` places of a queue from an ordinal on, those settled left out.
    pub(crate) fn live_from(
        &self,
        queue: u32,
        ordinal: u32,
        limit: usize,
        settled: Option<&SettledBits>,
    ) -> Vec<IndexEntry> {
        let Some(entries) = self.all.get(&queue) else {
            return Vec::new();
        };
        let start = entries.partition_point(|entry| entry.ordinal < ordinal);
        entries
            .get(start..)
            .unwrap_or_default()
            .iter()
            .filter(|entry| settled.is_none_or(|settled| !settled.is_set(entry.ordinal)))
            .take(limit)
            .copied()
            .collect()
    }

    /// How many places of each queue are not settled.
    pub(crate) fn live_counts(&self, settled: &SettledBits) -> Vec<(u32, u64)> {
        let live = |entry: &&IndexEntry| !settled.is_set(entry.ordinal);
        let count = |(queue, entries): (&u32, &Vec<IndexEntry>)| {
            (*queue, entries.iter().filter(live).count() as u64)
        };
        self.all.iter().map(count).collect()
    }

    /// The whole index, for a footer. Shares nothing, so that a job can work on it.
    pub(crate) fn all(&self) -> IndexMap {
        self.all.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::{BatchBuilder, BatchPlace, FLAG_DURABLE, MessageParts};
    use crate::format::footer::{FOOTER_HEADER_BYTES, encode_footer};

    #[test]
    fn the_size_of_a_footer_is_known_before_it_is_written() {
        let mut index = SegmentIndex::default();
        let mut place = BatchPlace {
            salt: 1,
            epoch: 1,
            segment: 1,
            offset: 4096,
        };
        let (mut lsn, mut ordinal) = (1, 0);
        for turn in 0..50_u32 {
            let mut builder = BatchBuilder::new(place, lsn, ordinal, Vec::new());
            for message in 0..turn % 7 {
                let body = vec![0; 40 * message as usize * turn as usize];
                builder.message(MessageParts {
                    flags: FLAG_DURABLE,
                    routes: &[turn % 3, 1000 + message],
                    meta: b"",
                    body: &[&body],
                });
            }
            (lsn, ordinal) = (builder.next_lsn(), builder.next_ordinal());
            let (bytes, _) = builder.finish(512, 0, 0);
            index.add(&Batch::parse(place, 512, &bytes).unwrap());
            place.offset += bytes.len() as u64;
            let footer = encode_footer(1, 1, 1, &index.all());
            let size = index.footer_size();
            assert_eq!(size.bytes + FOOTER_HEADER_BYTES as u64, footer.len() as u64);
            assert_eq!(size.references, ordinal);
        }
        assert!(index.footer_size().bytes > 500);
    }
}
