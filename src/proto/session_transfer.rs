//! Messages of a session, in both directions.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::delivery::SentState;
use super::error::Fault;
use super::fast::{TRANSFER_OVERHEAD_MAX, Transfer, TransferStart, begin_transfer};
use super::frame;
use super::link::{LinkEnd, LinkId, LinkState, Sending};
use super::session::{Outgoing, Session, SessionState, Stalled};
use super::shared::Shared;
use super::{ErrorCondition, Outcome, SendError, condition};

/// Most deliveries of a session that may be sent and not settled.
const OUTGOING_UNSETTLED_MAX: usize = 131_072;

impl Session {
    /// Takes one transfer frame of the peer.
    pub(crate) fn on_transfer(
        &mut self,
        shared: &mut Shared,
        transfer: &Transfer<'_>,
        payload: Bytes,
    ) -> Result<(), Fault> {
        self.count_transfer(shared)?;
        let handle = self.local_handle(transfer.handle)?;
        let Some(link) = self.links.get_mut(handle as usize) else {
            return Ok(());
        };
        let fault = |text: &str| {
            Err(Fault::Link(
                handle,
                ErrorCondition::new(condition::NOT_ALLOWED, text),
            ))
        };
        match (&link.state, &mut link.end) {
            (LinkState::DetachSent | LinkState::CloseAsked, _) => Ok(()),
            (LinkState::Open, LinkEnd::Receiving(receiving)) => {
                receiving.on_transfer(link.id, shared, transfer, payload)
            }
            (_, LinkEnd::Receiving(_)) => fault("a transfer came before the link was attached"),
            (_, LinkEnd::Sending(_)) => {
                fault("a transfer came on a link that the peer receives on")
            }
        }
    }

    /// Notes the outcome of a received delivery for the next flush.
    pub(crate) fn settle(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        delivery_id: u32,
        outcome: Outcome,
    ) {
        if self
            .link_mut(id)
            .is_some_and(|link| link.state == LinkState::Open)
        {
            self.received.push(delivery_id, Some(outcome));
            self.mark_dirty(shared);
        }
    }

    /// Settles a delivery of ours that the receiver answered without settling.
    pub(crate) fn settle_sent(&mut self, shared: &mut Shared, id: LinkId, delivery_id: u32) {
        let Self {
            outgoing,
            sent: settlements,
            ..
        } = self;
        let mut is_found = false;
        outgoing.unsettled.visit(delivery_id, delivery_id, |sent| {
            if sent.handle == id.handle {
                sent.state = SentState::Gone;
                is_found = true;
            }
        });
        if is_found {
            settlements.push(delivery_id, None);
            self.mark_dirty(shared);
            self.report_window(shared);
        }
    }

    /// Whether [`Self::send`] would take a message on this link.
    pub(crate) fn can_send(&self, id: LinkId) -> bool {
        self.outgoing.is_open() && self.sending(id).is_some_and(|sending| sending.credit > 0)
    }

    /// The sending end of an open link.
    pub(crate) fn sending(&self, id: LinkId) -> Option<&Sending> {
        let link = self.links.get(id.handle as usize)?;
        match &link.end {
            LinkEnd::Sending(sending)
                if link.id == id
                    && link.state == LinkState::Open
                    && self.state == SessionState::Open =>
            {
                Some(sending)
            }
            _ => None,
        }
    }

    /// Sends a message, or as much of it as the window takes and the rest when it opens.
    pub(crate) fn send(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        token: u64,
        message_format: u32,
        parts: &[&[u8]],
        settled: bool,
    ) -> Result<u32, SendError> {
        let Some(&Sending {
            credit,
            max_message_bytes,
            ..
        }) = self.sending(id)
        else {
            return Err(SendError::NotAttached);
        };
        if credit == 0 {
            return Err(SendError::NoCredit);
        }
        if !self.outgoing.is_open() {
            self.outgoing.was_closed = true;
            return Err(SendError::WindowClosed);
        }
        let mut rest = Parts::new(parts);
        if let Some(max_message_bytes) = max_message_bytes
            && rest.remaining as u64 > max_message_bytes
        {
            return Err(SendError::TooLarge { max_message_bytes });
        }
        let Some(LinkEnd::Sending(sending)) = self
            .links
            .get_mut(id.handle as usize)
            .map(|link| &mut link.end)
        else {
            return Err(SendError::NotAttached);
        };
        sending.credit -= 1;
        sending.delivery_count = sending.delivery_count.wrapping_add(1);
        let outgoing = &mut self.outgoing;
        let delivery_id = outgoing.next_delivery_id;
        outgoing.next_delivery_id = delivery_id.wrapping_add(1);
        if !settled {
            outgoing.unsettled.push(delivery_id, id.handle, token);
        }
        let mut start = Some(TransferStart {
            delivery_id,
            message_format,
            settled,
        });
        if !outgoing.put_transfers(shared, id.channel, id.handle, &mut start, &mut rest) {
            outgoing.stalled = Some(Stalled {
                handle: id.handle,
                start,
                rest: rest.copy_to_bytes(),
            });
        }
        outgoing.was_closed |= !outgoing.is_open();
        Ok(delivery_id)
    }

    /// The window opened: goes on with the message that waits.
    pub(crate) fn resume_stalled(&mut self, shared: &mut Shared) {
        let Some(mut stalled) = self.outgoing.stalled.take() else {
            return;
        };
        let bytes: &[u8] = &stalled.rest;
        let parts = [bytes];
        let mut rest = Parts::new(&parts);
        let handle = stalled.handle;
        let is_complete = self.outgoing.put_transfers(
            shared,
            self.id.channel,
            handle,
            &mut stalled.start,
            &mut rest,
        );
        if !is_complete {
            let sent = stalled.rest.len() - rest.remaining;
            stalled.rest.advance(sent);
            self.outgoing.stalled = Some(stalled);
        }
    }
}

impl Outgoing {
    /// Whether another message may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.window > 0 && self.stalled.is_none() && self.unsettled.len() < OUTGOING_UNSETTLED_MAX
    }

    /// Writes transfer frames until the message ends (true) or the window closes (false).
    fn put_transfers(
        &mut self,
        shared: &mut Shared,
        channel: u16,
        handle: u32,
        start: &mut Option<TransferStart>,
        rest: &mut Parts<'_>,
    ) -> bool {
        let size_max = shared.peer_max_frame_size;
        let out = shared.output.frames();
        while self.window > 0 {
            self.window -= 1;
            self.next_id = self.next_id.wrapping_add(1);
            out.reserve(rest.remaining.min(size_max) + TRANSFER_OVERHEAD_MAX);
            let start = start.take();
            let mut frame = begin_transfer(out, channel, handle, start, false);
            let more = rest.remaining > size_max - (out.len() - frame);
            if more {
                out.truncate(frame);
                frame = begin_transfer(out, channel, handle, start, true);
            }
            rest.write(rest.remaining.min(size_max - (out.len() - frame)), out);
            frame::finish(out, frame);
            if !more {
                return true;
            }
        }
        false
    }
}

/// A message given in parts, read front to back.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    /// Bytes of the first part that are read already.
    offset: usize,
    remaining: usize,
}

impl<'a> Parts<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Self {
        Self {
            parts,
            offset: 0,
            remaining: parts.iter().map(|part| part.len()).sum(),
        }
    }

    fn write(&mut self, mut len: usize, out: &mut BytesMut) {
        self.remaining -= len;
        while let Some((first, others)) = self.parts.split_first() {
            let unread = first.get(self.offset..).unwrap_or_default();
            if unread.len() > len {
                out.put_slice(unread.get(..len).unwrap_or_default());
                self.offset += len;
                return;
            }
            out.put_slice(unread);
            len -= unread.len();
            self.parts = others;
            self.offset = 0;
        }
    }

    fn copy_to_bytes(&mut self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.remaining);
        self.write(self.remaining, &mut bytes);
        bytes.freeze()
    }
}
