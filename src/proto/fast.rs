//! The three frames of the message path, read and written by hand: transfer, disposition, flow
//! (part 2.7.4 to 2.7.6), and the delivery states inside of them (part 3.4 and 4.5).

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, FrameKind};
use super::wire::{DecodeError, Fields, NESTING_MAX, Reader, check, code};
use super::{ErrorCondition, Outcome, Symbol, Value};

/// A transfer as received, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer<'a> {
    pub(crate) handle: u32,
    pub(crate) delivery_id: Option<u32>,
    pub(crate) delivery_tag: Option<&'a [u8]>,
    pub(crate) message_format: Option<u32>,
    pub(crate) settled: Option<bool>,
    pub(crate) more: bool,
    /// Encoded delivery state.
    pub(crate) state: Option<&'a [u8]>,
    pub(crate) aborted: bool,
}

impl<'a> Transfer<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let handle = fields
            .uint()?
            .ok_or(DecodeError("a transfer has no handle"))?;
        let delivery_id = fields.uint()?;
        let delivery_tag = fields.binary()?;
        let message_format = fields.uint()?;
        let settled = fields.boolean()?;
        let more = fields.boolean()?.unwrap_or(false);
        fields.ubyte()?; // rcv-settle-mode: we always settle first
        let state = fields.value()?;
        fields.boolean()?; // resume: deliveries are never resumed
        let aborted = fields.boolean()?.unwrap_or(false);
        Ok(Self {
            handle,
            delivery_id,
            delivery_tag,
            message_format,
            settled,
            more,
            state,
            aborted,
        })
    }
}

/// A disposition, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disposition<'a> {
    /// True when the receiver of the deliveries speaks.
    pub(crate) from_receiver: bool,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) settled: bool,
    /// Encoded delivery state.
    pub(crate) state: Option<&'a [u8]>,
}

impl<'a> Disposition<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let from_receiver = fields
            .boolean()?
            .ok_or(DecodeError("a disposition has no role"))?;
        let first = fields
            .uint()?
            .ok_or(DecodeError("a disposition has no first delivery"))?;
        let last = fields.uint()?.unwrap_or(first);
        let settled = fields.boolean()?.unwrap_or(false);
        let state = fields.value()?;
        Ok(Self {
            from_receiver,
            first,
            last,
            settled,
            state,
        })
    }
}

/// A flow; `link` is absent when it is about the session only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) next_incoming_id: Option<u32>,
    pub(crate) incoming_window: u32,
    pub(crate) next_outgoing_id: u32,
    pub(crate) outgoing_window: u32,
    pub(crate) link: Option<LinkFlow>,
    pub(crate) echo: bool,
}

/// The link's part of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkFlow {
    pub(crate) handle: u32,
    pub(crate) delivery_count: Option<u32>,
    pub(crate) link_credit: Option<u32>,
    pub(crate) drain: bool,
}

impl Flow {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        let next_incoming_id = fields.uint()?;
        let incoming_window = fields
            .uint()?
            .ok_or(DecodeError("a flow has no incoming window"))?;
        let next_outgoing_id = fields
            .uint()?
            .ok_or(DecodeError("a flow has no outgoing id"))?;
        let outgoing_window = fields
            .uint()?
            .ok_or(DecodeError("a flow has no outgoing window"))?;
        let handle = fields.uint()?;
        let delivery_count = fields.uint()?;
        let link_credit = fields.uint()?;
        fields.uint()?; // available: not used by a broker that pushes
        let drain = fields.boolean()?.unwrap_or(false);
        let echo = fields.boolean()?.unwrap_or(false);
        let link = handle.map(|handle| LinkFlow {
            handle,
            delivery_count,
            link_credit,
            drain,
        });
        Ok(Self {
            next_incoming_id,
            incoming_window,
            next_outgoing_id,
            outgoing_window,
            link,
            echo,
        })
    }
}

/// What identifies a delivery in its first transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransferStart {
    pub(crate) delivery_id: u32,
    pub(crate) message_format: u32,
    pub(crate) settled: bool,
}

/// Bytes of a transfer frame of ours besides its payload, at most.
pub(crate) const TRANSFER_OVERHEAD_MAX: usize = 48;

/// Begins a transfer frame; the payload and [`frame::finish`] follow. `start` is given for the first
/// transfer of a delivery only. The delivery tag is the delivery id: unique among the unsettled ones.
pub(crate) fn begin_transfer(
    out: &mut BytesMut,
    channel: u16,
    handle: u32,
    start: Option<TransferStart>,
    more: bool,
) -> usize {
    let mut head = TransferHead {
        bytes: [0; TRANSFER_OVERHEAD_MAX],
        len: 0,
    };
    let [channel_high, channel_low] = channel.to_be_bytes();
    head.put([0, 0, 0, 0, 2, 0, channel_high, channel_low]);
    head.put([0x00, 0x53, code::TRANSFER as u8, 0xc0, 0, 0]);
    head.put_uint(handle);
    let mut count = 1;
    if let Some(start) = start {
        head.put_uint(start.delivery_id);
        head.put([0xa0, 4]);
        head.put(start.delivery_id.to_be_bytes());
        head.put_uint(start.message_format);
        head.put([if start.settled { 0x41 } else { 0x42 }]);
        count = 5;
    } else if more {
        head.put([0x40; 4]);
    }
    if more {
        head.put([0x41]);
        count = 6;
    }
    // Size and count of the list; its size includes the count.
    head.bytes[12] = (head.len - 13) as u8;
    head.bytes[13] = count;
    let frame = out.len();
    out.put_slice(head.bytes.get(..head.len).unwrap_or_default());
    frame
}

/// A transfer frame's beginning, put together before it is copied once: the busiest frame of all.
struct TransferHead {
    bytes: [u8; TRANSFER_OVERHEAD_MAX],
    len: usize,
}

impl TransferHead {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + N) {
            room.copy_from_slice(&bytes);
            self.len += N;
        }
    }

    fn put_uint(&mut self, value: u32) {
        let [_, _, _, low] = value.to_be_bytes();
        match value {
            0 => self.put([0x43]),
            1..=0xff => self.put([0x52, low]),
            _ => {
                self.put([0x70]);
                self.put(value.to_be_bytes());
            }
        }
    }
}

/// Writes a disposition for the deliveries `first` to `last`.
pub(crate) fn put_disposition(
    out: &mut BytesMut,
    channel: u16,
    as_receiver: bool,
    first: u32,
    last: u32,
    outcome: Option<&Outcome>,
) {
    let frame = frame::begin(out, FrameKind::Amqp, channel);
    let state_fits_list8 = !matches!(outcome, Some(Outcome::Rejected(Some(_))))
        && !matches!(
            outcome,
            Some(Outcome::Transactional { .. } | Outcome::Declared { .. })
        );
    let list = if state_fits_list8 {
        ListStart::Short(begin_list8(out, code::DISPOSITION as u8))
    } else {
        ListStart::Long(begin_list32(out, code::DISPOSITION as u8))
    };
    put_bool(out, as_receiver);
    put_uint(out, first);
    if first == last {
        out.put_u8(0x40);
    } else {
        put_uint(out, last);
    }
    put_bool(out, true); // settled: we never leave a disposition open
    let mut count = 4;
    if let Some(outcome) = outcome {
        put_outcome(out, outcome);
        count = 5;
    }
    match list {
        ListStart::Short(start) => finish_list8(out, start, count),
        ListStart::Long(start) => finish_list32(out, start, u32::from(count)),
    }
    frame::finish(out, frame);
}

enum ListStart {
    Short(usize),
    Long(usize),
}

/// Writes a flow.
pub(crate) fn put_flow(out: &mut BytesMut, channel: u16, flow: &Flow) {
    let frame = frame::begin(out, FrameKind::Amqp, channel);
    let list = begin_list8(out, code::FLOW as u8);
    put_opt_uint(out, flow.next_incoming_id);
    put_uint(out, flow.incoming_window);
    put_uint(out, flow.next_outgoing_id);
    put_uint(out, flow.outgoing_window);
    let mut count = 4;
    if let Some(link) = &flow.link {
        put_uint(out, link.handle);
        put_opt_uint(out, link.delivery_count);
        put_opt_uint(out, link.link_credit);
        count = 7;
        if link.drain {
            out.put_u8(0x40);
            put_bool(out, true);
            count = 9;
        }
    }
    if flow.echo {
        while count < 9 {
            out.put_u8(0x40);
            count += 1;
        }
        put_bool(out, true);
        count = 10;
    }
    finish_list8(out, list, count);
    frame::finish(out, frame);
}

/// Decodes a delivery state. `received` and states that we do not know are no outcome.
pub(crate) fn parse_state(bytes: &[u8]) -> Result<Option<Outcome>, DecodeError> {
    if bytes == [0x00, 0x53, 0x24, 0x45] {
        return Ok(Some(Outcome::Accepted));
    }
    parse_state_within(bytes, NESTING_MAX)
}

fn parse_state_within(bytes: &[u8], depth: usize) -> Result<Option<Outcome>, DecodeError> {
    let depth = depth
        .checked_sub(1)
        .ok_or(DecodeError("values are nested too deeply"))?;
    let mut reader = Reader::new(bytes);
    let descriptor = reader.descriptor()?;
    Ok(Some(match descriptor {
        code::ACCEPTED => {
            reader.list()?;
            Outcome::Accepted
        }
        code::REJECTED => Outcome::Rejected(reader.list()?.value()?.map(parse_error).transpose()?),
        code::RELEASED => {
            reader.list()?;
            Outcome::Released
        }
        code::MODIFIED => {
            let mut fields = reader.list()?;
            Outcome::Modified {
                delivery_failed: fields.boolean()?.unwrap_or(false),
                undeliverable_here: fields.boolean()?.unwrap_or(false),
            }
        }
        code::DECLARED => Outcome::Declared {
            txn_id: txn_id(&mut reader.list()?)?,
        },
        code::TRANSACTIONAL => {
            let mut fields = reader.list()?;
            let txn_id = txn_id(&mut fields)?;
            let outcome = match fields.value()? {
                Some(bytes) => parse_state_within(bytes, depth)?.map(Box::new),
                None => None,
            };
            Outcome::Transactional { txn_id, outcome }
        }
        _ => return Ok(None),
    }))
}

fn txn_id(fields: &mut Fields<'_>) -> Result<Bytes, DecodeError> {
    let id = fields
        .binary()?
        .ok_or(DecodeError("a transactional state has no transaction id"))?;
    Ok(Bytes::copy_from_slice(id))
}

/// Decodes an error composite. One disposition may name an error for very many deliveries, so its text is
/// cut off and its info map left out above [`ERROR_BYTES_MAX`], and an info map that cannot be read as well.
pub(crate) fn parse_error(bytes: &[u8]) -> Result<ErrorCondition, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.descriptor()? != code::ERROR {
        return Err(DecodeError("an error was expected"));
    }
    let mut fields = reader.list()?;
    let condition = cut(fields
        .symbol()?
        .ok_or(DecodeError("an error has no condition"))?);
    let description = fields.string()?.map(|text| String::from(cut(text)));
    let info = fields.value()?.and_then(parse_info).unwrap_or_default();
    Ok(ErrorCondition {
        condition: String::from(condition).into(),
        description,
        info,
    })
}

/// Longest text and largest info map of an error inside a delivery state, bytes.
const ERROR_BYTES_MAX: usize = 4096;

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ERROR_BYTES_MAX))
        .unwrap_or_default()
}

fn parse_info(bytes: &[u8]) -> Option<Vec<(Symbol, Value)>> {
    if bytes.len() > ERROR_BYTES_MAX {
        return None;
    }
    check(bytes, INFO_VALUES_MAX).ok()?;
    let map: serde_amqp::primitives::OrderedMap<Symbol, Value> =
        serde_amqp::from_slice(bytes).ok()?;
    Some(map.into_iter().collect())
}

/// Most values in the info map of an error.
const INFO_VALUES_MAX: usize = 256;

/// Writes a delivery state.
pub(crate) fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Accepted => out.put_slice(&[0x00, 0x53, code::ACCEPTED as u8, 0x45]),
        Outcome::Released => out.put_slice(&[0x00, 0x53, code::RELEASED as u8, 0x45]),
        Outcome::Rejected(None) => out.put_slice(&[0x00, 0x53, code::REJECTED as u8, 0x45]),
        Outcome::Rejected(Some(error)) => {
            let list = begin_list32(out, code::REJECTED as u8);
            put_error(out, error);
            finish_list32(out, list, 1);
        }
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
        } => {
            let list = begin_list8(out, code::MODIFIED as u8);
            put_bool(out, *delivery_failed);
            put_bool(out, *undeliverable_here);
            finish_list8(out, list, 2);
        }
        Outcome::Declared { txn_id } => {
            let list = begin_list32(out, code::DECLARED as u8);
            put_variable(out, 0xa0, txn_id);
            finish_list32(out, list, 1);
        }
        Outcome::Transactional { txn_id, outcome } => {
            let list = begin_list32(out, code::TRANSACTIONAL as u8);
            put_variable(out, 0xa0, txn_id);
            match outcome {
                Some(outcome) => put_outcome(out, outcome),
                None => out.put_u8(0x40),
            }
            finish_list32(out, list, 2);
        }
    }
}

fn put_error(out: &mut BytesMut, error: &ErrorCondition) {
    let list = begin_list32(out, code::ERROR as u8);
    put_variable(out, 0xa3, error.condition.as_bytes());
    let mut count = 1;
    if let Some(description) = &error.description {
        put_variable(out, 0xa1, description.as_bytes());
        count = 2;
    }
    let info: serde_amqp::primitives::OrderedMap<Symbol, Value> =
        error.info.iter().cloned().collect();
    // An info map that the library cannot write is left out: the condition matters more.
    if let (false, Ok(encoded)) = (info.is_empty(), serde_amqp::to_vec(&info)) {
        if count == 1 {
            out.put_u8(0x40);
        }
        out.put_slice(&encoded);
        count = 3;
    }
    finish_list32(out, list, count);
}

/// Begins a described list of fewer than 254 bytes; returns where its size stands.
pub(crate) fn begin_list8(out: &mut BytesMut, descriptor: u8) -> usize {
    out.put_slice(&[0x00, 0x53, descriptor, 0xc0, 0, 0]);
    out.len() - 2
}

pub(crate) fn finish_list8(out: &mut BytesMut, start: usize, count: u8) {
    let size = (out.len() - start - 1) as u8;
    if let Some(head) = out.get_mut(start..start + 2) {
        head.copy_from_slice(&[size, count]);
    }
}

/// Begins a described list of any size; returns where its size stands.
pub(crate) fn begin_list32(out: &mut BytesMut, descriptor: u8) -> usize {
    out.put_slice(&[0x00, 0x53, descriptor, 0xd0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.len() - 8
}

pub(crate) fn finish_list32(out: &mut BytesMut, start: usize, count: u32) {
    let size = (out.len() - start - 4) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&size.to_be_bytes());
    }
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&count.to_be_bytes());
    }
}

pub(crate) fn put_uint(out: &mut BytesMut, value: u32) {
    match value {
        0 => out.put_u8(0x43),
        1..=0xff => {
            out.put_u8(0x52);
            out.put_u8(value as u8);
        }
        _ => {
            out.put_u8(0x70);
            out.put_u32(value);
        }
    }
}

fn put_opt_uint(out: &mut BytesMut, value: Option<u32>) {
    match value {
        Some(value) => put_uint(out, value),
        None => out.put_u8(0x40),
    }
}

pub(crate) fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(if value { 0x41 } else { 0x42 });
}

/// Writes a binary (`0xa0`), string (`0xa1`) or symbol (`0xa3`) in its shorter form.
pub(crate) fn put_variable(out: &mut BytesMut, short: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(len) => {
            out.put_u8(short);
            out.put_u8(len);
        }
        Err(_) => {
            out.put_u8(short + 0x10);
            out.put_u32(bytes.len() as u32);
        }
    }
    out.put_slice(bytes);
}
