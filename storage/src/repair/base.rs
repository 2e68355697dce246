//! A state to begin with where neither a checkpoint nor a snapshot fits what is left of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::bits::SettledBits;
use crate::checkpoint::{load, load_readable};
use crate::disk::{OpenMode, read_range};
use crate::error::OpenError;
use crate::format::FIRST_BATCH_OFFSET;
use crate::format::batch::{BatchClaim, BatchPlace, Record};
use crate::format::payload::IndexMap;
use crate::format::segment::{
    HEADER_BYTES, SegmentHeader, checkpoint_name, data_name, segment_name,
};
use crate::open::Opening;
use crate::outline::Outlines;
use crate::read::{ReadCache, SegmentPlan, Source, Spans};
use crate::rows::Table;
use crate::scan::{SegmentFacts, load_index};
use crate::state::{QueueState, SegmentKind, SegmentState, State};
use crate::survey::{Survey, trailer_of};

/// What a repair found missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    /// Segments without a file, and how many messages waited in them.
    pub(crate) missing: BTreeMap<u64, u32>,
    /// Messages that queues have less than their counts said: by queue.
    pub(crate) fewer: BTreeMap<u32, u64>,
    /// Why the state had to be made up, where it had to.
    pub(crate) made_up: Option<String>,
}

/// A message that is listed and cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Unreadable {
    pub(super) segment: u64,
    pub(super) generation: u64,
    pub(super) offset: u64,
    pub(super) queue: u32,
    pub(super) ordinal: u32,
}

/// What waits in the segments.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Messages and first segment by queue.
    pub(super) queues: BTreeMap<u32, (u64, u64)>,
    /// References that no list has, by segment: their records are gone.
    pub(super) lost: BTreeMap<u64, Vec<u32>>,
    pub(super) unreadable: Vec<Unreadable>,
}

impl Opening {
    /// The newest checkpoint that can be read, whether it fits the log or not; else as much as the
    /// files tell by themselves.
    pub(crate) fn base_of_what_is_left(
        &mut self,
        survey: &Survey,
        outlines: &mut Outlines,
        why: String,
    ) -> Result<State, OpenError> {
        let store = (self.identity, u32::try_from(self.unit).unwrap_or(512));
        if let Some(losses) = &mut self.losses {
            losses.made_up = Some(why);
        }
        for epoch in survey.checkpoints.iter().rev() {
            let loaded = load(self.disk.as_ref(), &checkpoint_name(*epoch));
            if let Ok((state, meta)) = loaded
                && meta.identity == self.identity
            {
                outlines.complete(self.disk.as_ref(), state.position.segment)?;
                outlines.remember(self.disk.as_ref(), &state, store)?;
                return Ok(state);
            }
        }
        outlines.complete(self.disk.as_ref(), 0)?;
        let mut state = State::default();
        for epoch in survey.checkpoints.iter().rev() {
            let rows = load_readable(self.disk.as_ref(), &checkpoint_name(*epoch));
            let rows = rows.into_iter().filter(|row| row.0 == Table::User);
            for (_, key, value) in rows {
                if let Some((kind, key)) = key.split_first_chunk() {
                    let kind = u16::from_be_bytes(*kind);
                    let rows = state.rows.entry(kind).or_default();
                    rows.entry(key.to_vec()).or_insert(value);
                }
            }
        }
        for (segment, generation) in survey.compacted() {
            let failed =
                |error| OpenError::io("reading failed", &data_name(segment, generation), error);
            let compacted = self.compacted(segment, generation).map_err(failed)?;
            state.segments.insert(segment, compacted);
        }
        state.position.next_lsn = 1;
        if let Some((number, outline, header)) = outlines.used_from(0).next() {
            state.position.segment = number;
            state.position.offset = FIRST_BATCH_OFFSET;
            state.position.next_lsn = outline.base_lsn.unwrap_or(header.base_lsn);
        }
        Ok(state)
    }

    /// A segment of which only a compacted file is left: all in that file waits.
    fn compacted(&self, segment: u64, generation: u64) -> io::Result<SegmentState> {
        let file = self
            .disk
            .open(&data_name(segment, generation), OpenMode::Read)?;
        let start = read_range(file.as_ref(), 0, HEADER_BYTES)?;
        let header = SegmentHeader::decode(&start).ok();
        let batch = read_range(file.as_ref(), FIRST_BATCH_OFFSET, 512)?;
        let claim = BatchClaim::read(&batch);
        let epoch = header.map(|it| it.epoch).or(claim.map(|it| it.epoch));
        let trailer = trailer_of(file.as_ref(), self.identity.salt, segment)?;
        let facts = SegmentFacts {
            segment,
            epoch: epoch.unwrap_or(segment),
            valid_bytes: trailer.map_or(file.bytes()?, |it| it.valid_bytes),
            last_lsn: 0,
            chain_crc: 0,
            references: 0,
        };
        let lists = load_index(file.as_ref(), &facts, self.identity.salt, self.unit, None)?;
        let live: BTreeSet<u32> = lists
            .index
            .values()
            .flatten()
            .map(|it| it.ordinal)
            .collect();
        let listed = live.last().map_or(0, |last| last + 1);
        let references = trailer.map_or(0, |it| it.references).max(listed);
        let mut settled = SettledBits::default();
        for ordinal in (0..references).filter(|it| !live.contains(it)) {
            settled.set(ordinal);
        }
        Ok(SegmentState {
            references,
            live: u32::try_from(live.len()).unwrap_or(u32::MAX),
            valid_bytes: facts.valid_bytes,
            last_lsn: trailer.map_or(0, |it| it.last_lsn),
            kind: SegmentKind::Sealed,
            settled,
            ..SegmentState::new(facts.epoch, header.map_or(0, |it| it.base_lsn))
        })
    }

    /// For a repair: forgets the segments that the base names and that have no file.
    pub(crate) fn without_what_is_missing(
        &mut self,
        mut base: State,
        outlines: &Outlines,
    ) -> State {
        let Some(losses) = &mut self.losses else {
            return base;
        };
        let gone = base
            .segments
            .iter()
            .filter(|(number, _)| outlines.get(**number).is_none());
        let gone: Vec<(u64, u32)> = gone.map(|(number, it)| (*number, it.live)).collect();
        for (number, live) in gone {
            base.forget_segment(number);
            if live > 0 {
                losses.missing.insert(number, live);
            }
        }
        base
    }

    /// For a repair: brings the counts of the queues to what their segments list.
    pub(crate) fn count_again(
        &mut self,
        survey: &Survey,
        state: &mut State,
    ) -> Result<(), OpenError> {
        if self.losses.is_none() {
            return Ok(());
        }
        let waiting = self.waiting(survey, state, false)?;
        let numbers: BTreeSet<u32> = state
            .queues
            .keys()
            .chain(waiting.queues.keys())
            .copied()
            .collect();
        for number in numbers {
            let (messages, first_segment) =
                waiting.queues.get(&number).copied().unwrap_or_default();
            let before = state.queues.get(&number).copied().unwrap_or_default();
            if messages == before.messages {
                continue;
            }
            if let Some(losses) = &mut self.losses
                && before.messages > messages
            {
                losses.fewer.insert(number, before.messages - messages);
            }
            // Nobody can tell the size of what is gone.
            let bytes = u128::from(before.bytes) * u128::from(messages)
                / u128::from(before.messages.max(1));
            state.queues.insert(
                number,
                QueueState {
                    messages,
                    bytes: u64::try_from(bytes).unwrap_or(before.bytes),
                    first_segment,
                },
            );
            state.dirty.queues.insert(number);
        }
        Ok(())
    }

    /// Lists what waits in each segment, and tries to read all of it if `reads`.
    pub(super) fn waiting(
        &self,
        survey: &Survey,
        state: &State,
        reads: bool,
    ) -> Result<Waiting, OpenError> {
        let cache = ReadCache::new(Arc::clone(&self.disk), self.identity.salt, self.unit);
        let compacted = survey.compacted();
        let mut waiting = Waiting::default();
        for (number, segment) in state.segments.iter().filter(|(_, it)| it.live > 0) {
            let failed = |source| OpenError::io("reading failed", &segment_name(*number), source);
            let generation = compacted.get(number).copied().unwrap_or(0);
            let is_footer = generation > 0 || segment.kind == SegmentKind::Footer;
            let plan = SegmentPlan {
                facts: facts_of(*number, segment),
                source: match survey.side_indexes.contains(number) {
                    _ if is_footer => Source::Footer,
                    true => Source::SideIndex,
                    false => Source::Scan {
                        last_index: (state.last_index.0 == *number && state.last_index.1 != 0)
                            .then_some(state.last_index.1),
                    },
                },
                generation,
                only: None,
                settled: segment.settled.clone(),
            };
            let mut lists = cache.whole(&plan).map_err(failed)?;
            lists
                .lost
                .retain(|ordinal| !segment.settled.is_set(*ordinal));
            if !lists.lost.is_empty() {
                waiting.lost.insert(*number, lists.lost);
            }
            for entries in lists.index.values_mut() {
                entries.retain(|it| {
                    it.ordinal < segment.references && !segment.settled.is_set(it.ordinal)
                });
            }
            for (queue, entries) in lists
                .index
                .iter()
                .filter(|(_, entries)| !entries.is_empty())
            {
                waiting.queues.entry(*queue).or_insert((0, *number)).0 += entries.len() as u64;
            }
            if reads {
                let found = unreadable(&cache, &plan, &lists.index).map_err(failed)?;
                waiting.unreadable.extend(found);
            }
        }
        Ok(waiting)
    }
}

fn facts_of(number: u64, state: &SegmentState) -> SegmentFacts {
    SegmentFacts {
        segment: number,
        epoch: state.epoch,
        valid_bytes: state.valid_bytes,
        last_lsn: state.last_lsn,
        chain_crc: state.chain_crc,
        references: state.references,
    }
}

/// Those of the listed messages that cannot be read.
pub(crate) fn unreadable(
    cache: &ReadCache,
    plan: &SegmentPlan,
    index: &IndexMap,
) -> io::Result<Vec<Unreadable>> {
    let facts = &plan.facts;
    let mut entries: Vec<_> = index
        .iter()
        .flat_map(|(queue, entries)| entries.iter().map(|entry| (*entry, *queue)))
        .collect();
    entries.sort_unstable_by_key(|(entry, _)| (entry.offset, entry.ordinal));
    let file = cache.file(facts.segment, plan.generation)?;
    let offsets: Vec<_> = entries.iter().map(|(entry, _)| *entry).collect();
    let mut spans = Spans::new(file.as_ref(), &offsets);
    let mut found = Vec::new();
    for (entry, queue) in entries {
        let offset = u64::from(entry.offset) * 8;
        let place = BatchPlace {
            salt: cache.salt(),
            epoch: facts.epoch,
            segment: facts.segment,
            offset,
        };
        let raw = spans.record(offset)?;
        if Record::parse_verified(place, &raw).is_none() {
            found.push(Unreadable {
                segment: facts.segment,
                generation: plan.generation,
                offset,
                queue,
                ordinal: entry.ordinal,
            });
        }
    }
    Ok(found)
}
