//! One link (part 2.6): credit, delivery counts and the message that is being received.

use bytes::{Bytes, BytesMut};

use super::error::Fault;
use super::fast::{LinkFlow, Transfer, parse_state};
use super::shared::{SessionId, Shared};
use super::{
    Attach, ErrorCondition, Event, Outcome, Payload, PeerRole, SenderSettleMode, condition,
};

/// Parts of a message below this size are copied together: they would pin a whole receive buffer each.
const SMALL_PART_BYTES: usize = 2048;

/// Names a link of one connection; never reused within it. Commands on a link that is gone do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub(crate) channel: u16,
    pub(crate) handle: u32,
    pub(crate) generation: u32,
}

/// Where a link is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LinkState {
    /// The peer attached; our owner has not answered. Keeps what the answer may have to echo.
    Asked(Box<Attach>),
    /// We attached; the peer has not answered.
    AttachSent,
    /// Both attached.
    Open,
    /// We detached; the peer has not answered. Its frames for the link are dropped.
    DetachSent,
    /// The peer closed; our owner has not answered.
    CloseAsked,
}

/// One end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) session: SessionId,
    pub(crate) name: String,
    pub(crate) peer_role: PeerRole,
    /// Handle of the peer; unknown while our attach is unanswered.
    pub(crate) remote_handle: Option<u32>,
    pub(crate) state: LinkState,
    pub(crate) snd_settle_mode: SenderSettleMode,
    /// The owner knows (or need not know) that the link is gone.
    pub(crate) is_end_reported: bool,
    /// The owner answers when the peer closes it.
    pub(crate) closes_late: bool,
    /// A flow of this link is due at the next flush.
    pub(crate) is_flow_due: bool,
    pub(crate) end: LinkEnd,
}

/// What we do on a link.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    Sending(Sending),
    Receiving(Receiving),
}

/// State of a link that we send on.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// Deliveries sent (and credit returned) since the attach.
    pub(crate) delivery_count: u32,
    /// Deliveries that may still be sent.
    pub(crate) credit: u32,
    /// The receiver drains.
    pub(crate) drain: bool,
    /// Largest message that the receiver takes.
    pub(crate) max_message_bytes: Option<u64>,
}

impl Sending {
    /// Applies the receiver's view (part 2.6.7): what it has not seen yet is taken off its credit.
    pub(crate) fn on_flow(&mut self, flow: &LinkFlow) {
        if let Some(link_credit) = flow.link_credit {
            let unseen = self
                .delivery_count
                .wrapping_sub(flow.delivery_count.unwrap_or(0));
            // More than half of the number range: the receiver claims deliveries that we never sent.
            let unseen = if unseen > u32::MAX / 2 { 0 } else { unseen };
            self.credit = link_credit.saturating_sub(unseen);
        }
        self.drain = flow.drain;
    }

    /// Returns the remaining credit.
    pub(crate) fn use_up_credit(&mut self) {
        self.delivery_count = self.delivery_count.wrapping_add(self.credit);
        self.credit = 0;
    }
}

/// State of a link that we receive on.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    /// Deliveries begun by the sender (and credit that it returned) since the attach.
    pub(crate) delivery_count: u32,
    /// Deliveries that may still come.
    pub(crate) credit: u32,
    /// What was granted last; half of it is the refill mark.
    granted: u32,
    /// The owner was told that credit is low.
    is_refill_reported: bool,
    /// Highest delivery count that any grant of ours allowed: credit that we took back may be in use.
    limit: u32,
    /// We asked the sender to drain and it has not answered.
    pub(crate) is_draining: bool,
    partial: Option<Partial>,
}

/// A message of which frames are missing.
#[derive(Debug)]
struct Partial {
    delivery_id: u32,
    message_format: u32,
    settled: bool,
    state: Option<Box<Outcome>>,
    payload: Payload,
    /// Small parts that are not in `payload` yet.
    small: BytesMut,
    len: u64,
}

impl Partial {
    fn push(&mut self, part: Bytes) {
        self.len += part.len() as u64;
        if part.len() < SMALL_PART_BYTES {
            self.small.extend_from_slice(&part);
        } else {
            self.flush_small();
            self.payload.push(part);
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.payload.push(self.small.split().freeze());
        }
    }

    fn into_payload(mut self) -> Payload {
        self.flush_small();
        self.payload
    }
}

impl Receiving {
    pub(crate) fn with_initial_count(delivery_count: u32) -> Self {
        Self {
            delivery_count,
            limit: delivery_count,
            ..Self::default()
        }
    }

    pub(crate) fn set_credit(&mut self, credit: u32) {
        self.credit = credit;
        self.granted = credit;
        self.is_refill_reported = credit == 0;
        let limit = self.delivery_count.wrapping_add(credit);
        if is_after(limit, self.limit) {
            self.limit = limit;
        }
    }

    /// The peer's answer to our attach says where its count starts.
    pub(crate) fn set_initial_count(&mut self, delivery_count: u32) {
        self.delivery_count = delivery_count;
        self.limit = delivery_count.wrapping_add(self.credit);
    }

    /// The sender's view: it may have returned credit.
    pub(crate) fn on_flow(&mut self, flow: &LinkFlow) {
        let Some(count) = flow.delivery_count else {
            return;
        };
        if is_after(count, self.delivery_count) {
            let skipped = count.wrapping_sub(self.delivery_count);
            self.delivery_count = count;
            self.credit = self.credit.saturating_sub(skipped);
        }
    }

    /// Bytes that the message in progress keeps.
    pub(crate) fn partial_bytes(&self) -> u64 {
        self.partial.as_ref().map_or(0, |partial| partial.len)
    }

    /// Forgets the message in progress.
    pub(crate) fn drop_partial(&mut self, shared: &mut Shared) {
        shared.partial_bytes -= self.partial_bytes();
        self.partial = None;
    }

    /// Takes one transfer frame.
    pub(crate) fn on_transfer(
        &mut self,
        link: LinkId,
        shared: &mut Shared,
        transfer: &Transfer<'_>,
        payload: Bytes,
    ) -> Result<(), Fault> {
        let fault = |condition, text: &str| {
            Err(Fault::Link(
                link.handle,
                ErrorCondition::new(condition, text),
            ))
        };
        if let Some(partial) = &self.partial {
            if transfer
                .delivery_id
                .is_some_and(|id| id != partial.delivery_id)
            {
                return fault(
                    condition::NOT_ALLOWED,
                    "a delivery began before the one before it was complete",
                );
            }
        } else {
            if transfer.delivery_id.is_none() {
                return fault(condition::INVALID_FIELD, "a delivery began without an id");
            }
            if !is_after(self.limit, self.delivery_count) {
                return fault(
                    condition::TRANSFER_LIMIT_EXCEEDED,
                    "a delivery came without link credit",
                );
            }
            self.delivery_count = self.delivery_count.wrapping_add(1);
            self.credit = self.credit.saturating_sub(1);
        }
        if transfer.aborted {
            self.drop_partial(shared);
            self.report_credit(link, shared);
            return Ok(());
        }
        let size = self.partial_bytes() + payload.len() as u64;
        let size_max = shared.settings.max_message_bytes;
        if size_max > 0 && size > size_max {
            return fault(
                condition::MESSAGE_SIZE_EXCEEDED,
                &format!("a message is larger than the {size_max} bytes that this broker takes"),
            );
        }
        let state = transfer
            .state
            .map(parse_state)
            .transpose()?
            .flatten()
            .map(Box::new);
        if transfer.more {
            return self.on_part(link, shared, transfer, payload, state);
        }
        self.complete(link, shared, transfer, payload, state);
        self.report_credit(link, shared);
        Ok(())
    }

    /// Keeps a part of a message whose end is to come.
    fn on_part(
        &mut self,
        link: LinkId,
        shared: &mut Shared,
        transfer: &Transfer<'_>,
        payload: Bytes,
        state: Option<Box<Outcome>>,
    ) -> Result<(), Fault> {
        if !shared.has_room_for_partial(payload.len() as u64) {
            return Err(Fault::Link(
                link.handle,
                ErrorCondition::new(
                    condition::RESOURCE_LIMIT_EXCEEDED,
                    "too many incomplete messages on this connection: complete one before the next",
                ),
            ));
        }
        shared.partial_bytes += payload.len() as u64;
        let partial = self.partial.get_or_insert_with(|| Partial {
            delivery_id: transfer.delivery_id.unwrap_or_default(),
            message_format: transfer.message_format.unwrap_or_default(),
            settled: false,
            state: None,
            payload: Payload::default(),
            small: BytesMut::new(),
            len: 0,
        });
        partial.settled |= transfer.settled.unwrap_or(false);
        partial.state = state.or_else(|| partial.state.take());
        partial.push(payload);
        Ok(())
    }

    /// The last frame of a message is there.
    fn complete(
        &mut self,
        link: LinkId,
        shared: &mut Shared,
        transfer: &Transfer<'_>,
        payload: Bytes,
        state: Option<Box<Outcome>>,
    ) {
        let settled = transfer.settled.unwrap_or(false);
        shared.partial_bytes -= self.partial_bytes();
        let event = match self.partial.take() {
            None => Event::Delivery {
                link,
                delivery_id: transfer.delivery_id.unwrap_or_default(),
                settled,
                message_format: transfer.message_format.unwrap_or_default(),
                payload: Payload::from(payload),
                state,
            },
            Some(mut partial) => {
                partial.push(payload);
                Event::Delivery {
                    link,
                    delivery_id: partial.delivery_id,
                    settled: settled || partial.settled,
                    message_format: partial.message_format,
                    state: state.or_else(|| partial.state.take()),
                    payload: partial.into_payload(),
                }
            }
        };
        shared.events.push_back(event);
    }

    /// Tells the owner that credit is low or, while draining, used up.
    pub(crate) fn report_credit(&mut self, link: LinkId, shared: &mut Shared) {
        if self.is_draining && self.credit == 0 {
            self.is_draining = false;
            shared.events.push_back(Event::Drained { link });
        }
        if !self.is_refill_reported && self.credit <= self.granted / 2 {
            self.is_refill_reported = true;
            shared.events.push_back(Event::CreditRefill { link });
        }
    }
}

/// Whether serial number `a` comes after `b` (RFC 1982): numbers wrap around.
pub(crate) fn is_after(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance <= u32::MAX / 2
}
