//! The state as rows: what a checkpoint and a snapshot are made of.
//!
//! | table | key | value |
//! |---|---|---|
//! | meta | empty | identity, position, last index, base of the last snapshot |
//! | segments | number | counts, end, kind, set bits of each chunk |
//! | chunks | segment, chunk | bits of a chunk that is neither empty nor full |
//! | queues | number | messages, bytes, first segment |
//! | user | kind, key | the user's value |

use std::collections::BTreeMap;

use crate::bits::{CHUNK_REFERENCES, ChunkWords, SettledBits, decode_words};
use crate::format::{Identity, Reader};
use crate::state::{LogPosition, QueueState, SegmentKind, SegmentState, State};

/// The tables of a checkpoint. Numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Table {
    Meta = 1,
    Segments = 2,
    Chunks = 3,
    Queues = 4,
    User = 5,
}

/// All tables, in the order in which they are loaded.
pub(crate) const TABLES: [Table; 5] = [
    Table::Meta,
    Table::Segments,
    Table::Chunks,
    Table::Queues,
    Table::User,
];

impl Table {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        TABLES.into_iter().find(|table| *table as u8 == number)
    }
}

/// One change of a table: a value, or `None` for a deleted row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableRow {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// The facts of the meta row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) identity: Identity,
    pub(crate) unit: u32,
    pub(crate) position: LogPosition,
    pub(crate) last_index: (u64, u64),
    pub(crate) snapshot_base: u64,
    pub(crate) quarantined: u64,
}

impl Meta {
    pub(crate) fn of(state: &State, identity: Identity, unit: u32) -> Self {
        Self {
            identity,
            unit,
            position: state.position,
            last_index: state.last_index,
            snapshot_base: state.snapshot_base,
            quarantined: state.quarantined,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.identity.uuid.to_vec();
        for number in [
            self.identity.salt,
            self.position.segment,
            self.position.offset,
            self.position.next_lsn,
            self.last_index.0,
            self.last_index.1,
            self.snapshot_base,
            self.quarantined,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [
            self.position.next_ordinal,
            self.position.chain_crc,
            self.unit,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let uuid = reader.take(16)?.try_into().ok()?;
        let salt = reader.u64()?;
        let (segment, offset, next_lsn) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let last_index = (reader.u64()?, reader.u64()?);
        let (snapshot_base, quarantined) = (reader.u64()?, reader.u64()?);
        let (next_ordinal, chain_crc) = (reader.u32()?, reader.u32()?);
        let unit = reader.u32()?;
        let position = LogPosition {
            segment,
            offset,
            next_lsn,
            next_ordinal,
            chain_crc,
        };
        let identity = Identity { uuid, salt };
        Some(Self {
            identity,
            unit,
            position,
            last_index,
            snapshot_base,
            quarantined,
        })
    }

    pub(crate) fn row(&self) -> TableRow {
        TableRow {
            table: Table::Meta,
            key: Vec::new(),
            value: Some(self.encode()),
        }
    }
}

fn segment_row(number: u64, state: Option<&SegmentState>) -> TableRow {
    let key = number.to_be_bytes().to_vec();
    let value = state.map(|state| {
        let mut out = Vec::new();
        for number in [
            state.epoch,
            state.base_lsn,
            state.valid_bytes,
            state.last_lsn,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [state.references, state.live, state.chain_crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(match state.kind {
            SegmentKind::Open => 0,
            SegmentKind::Footer => 1,
            SegmentKind::Sealed => 2,
        });
        out.extend_from_slice(&[0; 3]);
        for set in state.settled.counts() {
            out.extend_from_slice(&u16::try_from(set).unwrap_or(u16::MAX).to_le_bytes());
        }
        out
    });
    TableRow {
        table: Table::Segments,
        key,
        value,
    }
}

/// Reads a segment's row; the bits are still empty, their counts come along.
fn decode_segment(value: &[u8]) -> Option<(SegmentState, Vec<u32>)> {
    let mut reader = Reader::new(value);
    let (epoch, base_lsn) = (reader.u64()?, reader.u64()?);
    let (valid_bytes, last_lsn) = (reader.u64()?, reader.u64()?);
    let (references, live, chain_crc) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let kind = match reader.u8()? {
        0 => SegmentKind::Open,
        1 => SegmentKind::Footer,
        2 => SegmentKind::Sealed,
        _ => return None,
    };
    reader.take(3)?;
    let mut counts = Vec::with_capacity(reader.left() / 2);
    while !reader.is_empty() {
        counts.push(u32::from(reader.u16()?));
    }
    if counts.len() > references.div_ceil(CHUNK_REFERENCES) as usize || live > references {
        return None;
    }
    let settled = SettledBits::default();
    let state = SegmentState {
        epoch,
        base_lsn,
        references,
        live,
        valid_bytes,
        last_lsn,
        chain_crc,
        kind,
        settled,
    };
    Some((state, counts))
}

fn chunk_key(segment: u64, chunk: u32) -> Vec<u8> {
    let mut key = segment.to_be_bytes().to_vec();
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

fn queue_row(number: u32, state: Option<&QueueState>) -> TableRow {
    let value = state.map(|state| {
        let numbers = [state.messages, state.bytes, state.first_segment];
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    });
    TableRow {
        table: Table::Queues,
        key: number.to_be_bytes().to_vec(),
        value,
    }
}

fn user_row(kind: u16, key: &[u8], value: Option<&Vec<u8>>) -> TableRow {
    let mut full = kind.to_be_bytes().to_vec();
    full.extend_from_slice(key);
    TableRow {
        table: Table::User,
        key: full,
        value: value.cloned(),
    }
}

/// The rows that changed since the last call, the meta row last.
pub(crate) fn take_dirty(state: &mut State, identity: Identity, unit: u32) -> Vec<TableRow> {
    // Batches that change nothing else move the segment's end: position and row must agree.
    if state.segments.contains_key(&state.position.segment) {
        state.dirty.segments.insert(state.position.segment);
    }
    let dirty = std::mem::take(&mut state.dirty);
    let mut rows = Vec::new();
    for segment in &dirty.segments {
        rows.push(segment_row(*segment, state.segments.get(segment)));
    }
    for (segment, chunk) in &dirty.chunks {
        let settled = state.segments.get(segment).map(|state| &state.settled);
        let value = settled.and_then(|settled| settled.encode_chunk(*chunk));
        rows.push(TableRow {
            table: Table::Chunks,
            key: chunk_key(*segment, *chunk),
            value,
        });
    }
    for queue in &dirty.queues {
        rows.push(queue_row(*queue, state.queues.get(queue)));
    }
    for (kind, key) in &dirty.rows {
        let value = state.rows.get(kind).and_then(|rows| rows.get(key));
        rows.push(user_row(*kind, key, value));
    }
    rows.push(Meta::of(state, identity, unit).row());
    rows
}

/// All rows of a state: a snapshot.
pub(crate) fn all_rows(state: &State, identity: Identity, unit: u32) -> Vec<TableRow> {
    let mut rows = vec![Meta::of(state, identity, unit).row()];
    for (number, segment) in &state.segments {
        rows.push(segment_row(*number, Some(segment)));
        for (chunk, _) in (0..).zip(segment.settled.counts()) {
            if let Some(value) = segment.settled.encode_chunk(chunk) {
                let key = chunk_key(*number, chunk);
                rows.push(TableRow {
                    table: Table::Chunks,
                    key,
                    value: Some(value),
                });
            }
        }
    }
    for (number, queue) in &state.queues {
        rows.push(queue_row(*number, Some(queue)));
    }
    for (kind, user) in &state.rows {
        for (key, value) in user {
            rows.push(user_row(*kind, key, Some(value)));
        }
    }
    rows
}

/// Encodes rows one after the other, for a snapshot.
pub(crate) fn encode_rows(rows: &[TableRow]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        let value = row.value.as_deref().unwrap_or_default();
        out.push(row.table as u8);
        out.push(0);
        out.extend_from_slice(
            &u16::try_from(row.key.len())
                .unwrap_or(u16::MAX)
                .to_le_bytes(),
        );
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&row.key);
        out.extend_from_slice(value);
    }
    out
}

/// Reads what [`encode_rows`] wrote.
pub(crate) fn decode_rows(bytes: &[u8]) -> Option<Vec<TableRow>> {
    let mut reader = Reader::new(bytes);
    let mut rows = Vec::new();
    while !reader.is_empty() {
        let table = Table::from_number(reader.u8()?)?;
        reader.u8()?;
        let key_len = usize::from(reader.u16()?);
        let value_len = reader.u32()? as usize;
        let key = reader.take(key_len)?.to_vec();
        let value = Some(reader.take(value_len)?.to_vec());
        rows.push(TableRow { table, key, value });
    }
    Some(rows)
}

/// The segments of a snapshot that are sealed, and how; of bytes that are none, nothing.
pub(crate) fn segment_kinds(bytes: &[u8]) -> Vec<(u64, SegmentKind)> {
    let rows = decode_rows(bytes).unwrap_or_default().into_iter();
    let segments = rows.filter(|row| row.table == Table::Segments);
    let kinds = segments.filter_map(|row| {
        let number = be_u64(&mut Reader::new(&row.key))?;
        let (segment, _) = decode_segment(&row.value?)?;
        Some((number, segment.kind))
    });
    kinds
        .filter(|(_, kind)| *kind != SegmentKind::Open)
        .collect()
}

/// Rebuilds a state from rows in any order; the texts of its errors say what does not fit.
#[derive(Debug, Default)]
pub(crate) struct Loader {
    state: State,
    meta: Option<Meta>,
    counts: BTreeMap<u64, Vec<u32>>,
    chunks: BTreeMap<(u64, u32), ChunkWords>,
}

impl Loader {
    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.take(table, key, value)
            .ok_or_else(|| format!("row of table {table:?} with key {key:02x?} cannot be read"))
    }

    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<()> {
        let mut reader = Reader::new(key);
        match table {
            Table::Meta => self.meta = Some(Meta::decode(value)?),
            Table::Segments => {
                let number = be_u64(&mut reader)?;
                let (segment, set) = decode_segment(value)?;
                self.counts.insert(number, set);
                self.state.segments.insert(number, segment);
            }
            Table::Chunks => {
                let chunk = (be_u64(&mut reader)?, be_u32(&mut reader)?);
                self.chunks.insert(chunk, decode_words(value)?);
            }
            Table::Queues => {
                let number = be_u32(&mut reader)?;
                let mut value = Reader::new(value);
                let queue = QueueState {
                    messages: value.u64()?,
                    bytes: value.u64()?,
                    first_segment: value.u64()?,
                };
                self.state.queues.insert(number, queue);
            }
            Table::User => {
                let kind = u16::from_be_bytes(reader.take(2)?.try_into().ok()?);
                let rest = reader.take(reader.left())?.to_vec();
                let rows = self.state.rows.entry(kind).or_default();
                rows.insert(rest, value.to_vec());
            }
        }
        Some(())
    }

    pub(crate) fn finish(self) -> Result<(State, Meta), String> {
        let Self {
            mut state,
            meta,
            counts,
            mut chunks,
        } = self;
        for (number, set) in counts {
            let bits = SettledBits::decode(&set, |chunk| chunks.remove(&(number, chunk)))
                .ok_or_else(|| format!("the bits of segment {number} do not agree with its row"))?;
            if let Some(segment) = state.segments.get_mut(&number) {
                segment.settled = bits;
            }
        }
        let meta = meta.ok_or("the meta row is missing")?;
        state.position = meta.position;
        state.last_index = meta.last_index;
        state.snapshot_base = meta.snapshot_base;
        state.quarantined = meta.quarantined;
        Ok((state, meta))
    }
}

/// Rebuilds a state from rows that are in memory.
pub(crate) fn load(
    rows: impl IntoIterator<Item = (Table, Vec<u8>, Vec<u8>)>,
) -> Result<(State, Meta), String> {
    let mut loader = Loader::default();
    for (table, key, value) in rows {
        loader.add(table, &key, &value)?;
    }
    loader.finish()
}

fn be_u64(reader: &mut Reader<'_>) -> Option<u64> {
    Some(u64::from_be_bytes(reader.take(8)?.try_into().ok()?))
}

fn be_u32(reader: &mut Reader<'_>) -> Option<u32> {
    Some(u32::from_be_bytes(reader.take(4)?.try_into().ok()?))
}
