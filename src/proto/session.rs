//! One session (part 2.5): windows, delivery ids, and the links in it. Frames and commands about links
//! are in [`session_link`](super::session_link), messages in [`session_transfer`](super::session_transfer).

use bytes::Bytes;
use fe2o3_amqp_types::performatives as fep;
use slab::Slab;

use super::delivery::{SentState, Settlements, Unsettled};
use super::error::Fault;
use super::fast::{self, Disposition, Flow, LinkFlow, TransferStart, parse_state};
use super::frame::FrameKind;
use super::link::{Link, LinkEnd, LinkId, LinkState};
use super::performative::{self, EncodeError, error_out};
use super::queue::{Covered, Verdict};
use super::shared::{SessionId, Shared};
use super::{ErrorCondition, Event, condition};

/// What we announce as our outgoing window: we never send more than the peer's incoming window.
const OUTGOING_WINDOW: u32 = i32::MAX as u32;

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// We began; the peer has not answered.
    BeginSent,
    Open,
    /// We ended; the peer has not answered. Its frames for the session are dropped.
    EndSent,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) state: SessionState,
    /// A channel of the peer leads here.
    pub(crate) is_mapped: bool,
    /// The owner knows that the session is gone.
    pub(crate) is_end_reported: bool,
    /// Highest handle that the peer takes.
    pub(crate) peer_handle_max: u32,
    pub(crate) links: Slab<Link>,
    /// Links that we attached and the peer has not.
    pub(crate) unanswered_count: usize,
    /// Local handles by the peer's, sorted. The peer's are dense as a rule: the position is the handle.
    pub(crate) remote_handles: Vec<(u32, u32)>,
    pub(crate) outgoing: Outgoing,
    incoming: Incoming,
    /// Outcomes of deliveries that we received.
    pub(crate) received: Settlements,
    /// Settlements of deliveries that we sent and that the peer answered without settling.
    pub(crate) sent: Settlements,
    /// Links with a flow to be sent.
    pub(crate) flow_due: Vec<u32>,
    is_dirty: bool,
}

/// The sending direction.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Number of the next transfer frame.
    pub(crate) next_id: u32,
    pub(crate) next_delivery_id: u32,
    /// Transfer frames that the peer takes now.
    pub(crate) window: u32,
    pub(crate) unsettled: Unsettled,
    /// The end of a message that found the window closed.
    pub(crate) stalled: Option<Stalled>,
    /// The window was closed since the owner was told that it is open.
    pub(crate) was_closed: bool,
}

/// The end of a message that waits for the session window.
#[derive(Debug)]
pub(crate) struct Stalled {
    pub(crate) handle: u32,
    pub(crate) start: Option<TransferStart>,
    pub(crate) rest: Bytes,
}

/// The receiving direction.
#[derive(Debug, Default)]
struct Incoming {
    /// Number of the next transfer frame; unknown until the peer's begin.
    next_id: Option<u32>,
    /// Transfer frames that may come before we must send a flow.
    left: u32,
    is_flow_due: bool,
}

impl Session {
    /// A session that nobody has begun yet: [`Self::put_begin`] and [`Self::on_begin`] follow.
    pub(crate) fn new(id: SessionId, shared: &Shared) -> Self {
        Self {
            id,
            state: SessionState::BeginSent,
            is_mapped: false,
            is_end_reported: false,
            peer_handle_max: u32::MAX,
            links: Slab::new(),
            unanswered_count: 0,
            remote_handles: Vec::new(),
            outgoing: Outgoing {
                was_closed: true,
                ..Outgoing::default()
            },
            incoming: Incoming {
                left: shared.settings.incoming_window.max(1),
                ..Incoming::default()
            },
            received: Settlements::default(),
            sent: Settlements::default(),
            flow_due: Vec::new(),
            is_dirty: false,
        }
    }

    /// Writes our begin, as the answer to the peer's when its channel is given.
    pub(crate) fn put_begin(
        &self,
        shared: &mut Shared,
        remote_channel: Option<u16>,
    ) -> Result<(), EncodeError> {
        let begin = fep::Begin {
            remote_channel,
            next_outgoing_id: self.outgoing.next_id,
            incoming_window: shared.settings.incoming_window.max(1),
            outgoing_window: OUTGOING_WINDOW,
            handle_max: shared.settings.handle_max.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        performative::put(
            shared.output.frames(),
            FrameKind::Amqp,
            self.id.channel,
            &begin,
        )
    }

    /// Takes the peer's begin.
    pub(crate) fn on_begin(&mut self, shared: &mut Shared, begin: &fep::Begin) {
        self.is_mapped = true;
        if self.state == SessionState::EndSent {
            return;
        }
        self.state = SessionState::Open;
        self.peer_handle_max = begin.handle_max.0;
        self.incoming.next_id = Some(begin.next_outgoing_id);
        self.outgoing.window = begin.incoming_window;
        self.outgoing.was_closed = begin.incoming_window == 0;
        shared.events.push_back(Event::Begun { session: self.id });
    }

    /// Counts an arrived transfer frame against our window.
    pub(crate) fn count_transfer(&mut self, shared: &mut Shared) -> Result<(), Fault> {
        let Some(left) = self.incoming.left.checked_sub(1) else {
            return Err(Fault::Session(ErrorCondition::new(
                condition::WINDOW_VIOLATION,
                "more transfers than the session's incoming window",
            )));
        };
        self.incoming.left = left;
        self.incoming.next_id = self.incoming.next_id.map(|id| id.wrapping_add(1));
        if left <= shared.settings.incoming_window / 2 && !self.incoming.is_flow_due {
            self.incoming.is_flow_due = true;
            self.mark_dirty(shared);
        }
        Ok(())
    }

    /// Takes a flow of the peer.
    pub(crate) fn on_flow(&mut self, shared: &mut Shared, flow: &Flow) -> Result<(), Fault> {
        // Transfers that the peer has not seen yet are taken off its window (part 2.5.6).
        let unseen = self
            .outgoing
            .next_id
            .wrapping_sub(flow.next_incoming_id.unwrap_or(0));
        let unseen = if unseen > u32::MAX / 2 { 0 } else { unseen };
        self.outgoing.window = flow.incoming_window.saturating_sub(unseen);
        self.resume_stalled(shared);
        match &flow.link {
            Some(link_flow) => self.on_link_flow(shared, link_flow, flow.echo)?,
            None if flow.echo => {
                self.incoming.is_flow_due = true;
                self.mark_dirty(shared);
            }
            None => {}
        }
        self.report_window(shared);
        Ok(())
    }

    /// Tells the owner that a closed window is open again.
    pub(crate) fn report_window(&mut self, shared: &mut Shared) {
        if self.outgoing.was_closed && self.outgoing.is_open() {
            self.outgoing.was_closed = false;
            shared
                .events
                .push_back(Event::WindowOpened { session: self.id });
        }
    }

    fn on_link_flow(
        &mut self,
        shared: &mut Shared,
        flow: &LinkFlow,
        echo: bool,
    ) -> Result<(), Fault> {
        let handle = self.local_handle(flow.handle)?;
        let Some(link) = self.links.get_mut(handle as usize) else {
            return Ok(());
        };
        if matches!(link.state, LinkState::DetachSent | LinkState::CloseAsked) {
            return Ok(());
        }
        let id = link.id;
        match &mut link.end {
            LinkEnd::Sending(sending) => {
                sending.on_flow(flow);
                // While the owner has not answered the attach it cannot send: it is told afterwards.
                if link.state == LinkState::Open {
                    shared.events.push_back(Event::Flow {
                        link: id,
                        credit: sending.credit,
                        drain: sending.drain,
                    });
                }
            }
            LinkEnd::Receiving(receiving) => {
                receiving.on_flow(flow);
                receiving.report_credit(id, shared);
            }
        }
        if echo {
            self.want_link_flow(shared, handle);
        }
        Ok(())
    }

    /// Takes what the receiver of our deliveries says. What a sender says about its own is of no interest: we
    /// settle first.
    pub(crate) fn on_disposition(
        &mut self,
        shared: &mut Shared,
        disposition: &Disposition<'_>,
    ) -> Result<(), Fault> {
        if !disposition.from_receiver {
            return Ok(());
        }
        let outcome = disposition.state.map(parse_state).transpose()?.flatten();
        if outcome.is_none() && !disposition.settled {
            return Ok(());
        }
        let verdict = Verdict {
            outcome,
            settled: disposition.settled,
        };
        let (mut first, mut others) = (None, Vec::new());
        let Self {
            outgoing, links, ..
        } = self;
        outgoing
            .unsettled
            .visit(disposition.first, disposition.last, |sent| {
                let was_answered = sent.state == SentState::Answered;
                sent.state = if verdict.settled {
                    SentState::Gone
                } else {
                    SentState::Answered
                };
                let Some(link) = links.get(sent.handle as usize) else {
                    return;
                };
                if was_answered && !verdict.settled {
                    return;
                }
                let covered = Covered {
                    link: link.id,
                    token: sent.token,
                    delivery_id: sent.delivery_id,
                };
                // The usual disposition covers one delivery and allocates nothing.
                if first.is_none() {
                    first = Some(covered);
                } else {
                    others.push(covered);
                }
            });
        if let Some(first) = first {
            shared.events.push_back(verdict.on(first));
        }
        if !others.is_empty() {
            shared.events.push_dispositions(verdict, others);
        }
        self.report_window(shared);
        Ok(())
    }

    /// Ends the session from our side.
    pub(crate) fn end(
        &mut self,
        shared: &mut Shared,
        error: Option<&ErrorCondition>,
    ) -> Result<(), EncodeError> {
        if self.state == SessionState::EndSent {
            return Ok(());
        }
        self.flush(shared);
        self.state = SessionState::EndSent;
        self.put_end(shared, error)
    }

    fn put_end(
        &self,
        shared: &mut Shared,
        error: Option<&ErrorCondition>,
    ) -> Result<(), EncodeError> {
        let end = fep::End {
            error: error.map(error_out),
        };
        performative::put(
            shared.output.frames(),
            FrameKind::Amqp,
            self.id.channel,
            &end,
        )
    }

    /// The peer ended the session; answers if that is owed. The session is over afterwards.
    pub(crate) fn on_end(
        &mut self,
        shared: &mut Shared,
        error: Option<ErrorCondition>,
    ) -> Result<(), EncodeError> {
        let answered = match self.state {
            SessionState::EndSent => Ok(()),
            SessionState::BeginSent | SessionState::Open => {
                self.flush(shared);
                self.put_end(shared, None)
            }
        };
        self.report_end(shared, error);
        answered
    }

    /// Tells the owner that the links and the session are gone and gives up what they hold.
    pub(crate) fn report_end(&mut self, shared: &mut Shared, error: Option<ErrorCondition>) {
        for link in self.links.drain().collect::<Vec<_>>() {
            link.release(shared);
            if !link.is_end_reported {
                shared.events.push_back(Event::Detached {
                    link: link.id,
                    closed: false,
                    error: error.clone(),
                });
            }
        }
        self.remote_handles.clear();
        self.outgoing.stalled = None;
        if !self.is_end_reported {
            self.is_end_reported = true;
            shared.events.push_back(Event::Ended {
                session: self.id,
                error,
            });
        }
    }

    /// Writes what was held together: dispositions, then flows.
    pub(crate) fn flush(&mut self, shared: &mut Shared) {
        self.is_dirty = false;
        if self.state == SessionState::EndSent {
            return;
        }
        let channel = self.id.channel;
        let out = shared.output.frames();
        self.received.drain(|run| {
            fast::put_disposition(
                out,
                channel,
                true,
                run.first,
                run.last,
                run.outcome.as_ref(),
            );
        });
        self.sent.drain(|run| {
            fast::put_disposition(
                out,
                channel,
                false,
                run.first,
                run.last,
                run.outcome.as_ref(),
            );
        });
        self.flush_flows(shared);
    }

    fn flush_flows(&mut self, shared: &mut Shared) {
        let due = std::mem::take(&mut self.flow_due);
        for &handle in &due {
            let Some(link) = self.links.get_mut(handle as usize) else {
                continue;
            };
            link.is_flow_due = false;
            let Some(link_flow) = link.flow() else {
                continue;
            };
            let flow = self.flow(shared, Some(link_flow));
            fast::put_flow(shared.output.frames(), self.id.channel, &flow);
        }
        self.flow_due = due;
        self.flow_due.clear();
        if self.incoming.is_flow_due {
            let flow = self.flow(shared, None);
            fast::put_flow(shared.output.frames(), self.id.channel, &flow);
        }
    }

    /// A flow with the session's present state; it renews our incoming window.
    fn flow(&mut self, shared: &Shared, link: Option<LinkFlow>) -> Flow {
        self.incoming.left = shared.settings.incoming_window.max(1);
        self.incoming.is_flow_due = false;
        Flow {
            next_incoming_id: self.incoming.next_id,
            incoming_window: self.incoming.left,
            next_outgoing_id: self.outgoing.next_id,
            outgoing_window: OUTGOING_WINDOW,
            link,
            echo: false,
        }
    }

    /// Marks a flow of a link as due at the next flush.
    pub(crate) fn want_link_flow(&mut self, shared: &mut Shared, handle: u32) {
        if let Some(link) = self.links.get_mut(handle as usize)
            && !link.is_flow_due
        {
            link.is_flow_due = true;
            self.flow_due.push(handle);
        }
        self.mark_dirty(shared);
    }

    /// Has the connection flush this session.
    pub(crate) fn mark_dirty(&mut self, shared: &mut Shared) {
        if !self.is_dirty {
            self.is_dirty = true;
            shared.dirty.push(self.id.channel);
        }
    }

    /// The local handle of a link that the peer names by its own.
    pub(crate) fn local_handle(&self, remote: u32) -> Result<u32, Fault> {
        let found = match self.remote_handles.get(remote as usize) {
            Some(&(handle, local)) if handle == remote => Some(local),
            _ => self
                .remote_handles
                .binary_search_by_key(&remote, |&(handle, _)| handle)
                .ok()
                .and_then(|index| self.remote_handles.get(index))
                .map(|&(_, local)| local),
        };
        found.ok_or_else(|| {
            Fault::Session(ErrorCondition::new(
                condition::UNATTACHED_HANDLE,
                format!("no link is attached with handle {remote}"),
            ))
        })
    }

    /// The link of an id, unless it is gone.
    pub(crate) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links
            .get_mut(id.handle as usize)
            .filter(|link| link.id == id)
    }
}
