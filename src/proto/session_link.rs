//! Links of a session: attach, detach, credit.

use fe2o3_amqp_types::performatives as fep;

use super::error::Fault;
use super::fast::LinkFlow;
use super::frame::FrameKind;
use super::link::{Link, LinkEnd, LinkId, LinkState, Receiving, Sending};
use super::performative::{self, AttachIn, AttachOut, EncodeError, attach_out, error_out};
use super::session::{Session, SessionState};
use super::shared::{LINK_NAME_MAX, LINKS_MAX, Shared};
use super::{
    Attach, AttachReply, AttachRequest, AttachTarget, ErrorCondition, Event, PeerRole,
    ReceiverSettleMode, Source, condition,
};

impl Link {
    /// The link's part of a flow frame; `None` when there is nothing to say in its state.
    pub(crate) fn flow(&self) -> Option<LinkFlow> {
        if matches!(self.state, LinkState::DetachSent | LinkState::CloseAsked) {
            return None;
        }
        let handle = self.id.handle;
        Some(match &self.end {
            LinkEnd::Sending(sending) => LinkFlow {
                handle,
                delivery_count: Some(sending.delivery_count),
                link_credit: Some(sending.credit),
                drain: sending.drain,
            },
            LinkEnd::Receiving(receiving) => LinkFlow {
                handle,
                // The sender's count is not known before its attach.
                delivery_count: (self.state == LinkState::Open).then_some(receiving.delivery_count),
                link_credit: Some(receiving.credit),
                drain: receiving.is_draining,
            },
        })
    }

    /// Gives up name, place and buffers.
    pub(crate) fn release(&self, shared: &mut Shared) {
        self.release_name(shared);
        shared.link_count -= 1;
        if let LinkEnd::Receiving(receiving) = &self.end {
            shared.partial_bytes -= receiving.partial_bytes();
        }
    }

    /// The name may be attached again.
    fn release_name(&self, shared: &mut Shared) {
        let key = (self.peer_role, self.name.clone());
        if shared.names.get(&key) == Some(&self.id) {
            shared.names.remove(&key);
        }
    }

    /// Completes an attach of the peer with our identity of the link.
    fn describe(&self, attach: AttachIn) -> Box<Attach> {
        Box::new(Attach {
            link: self.id,
            session: self.session,
            name: attach.name,
            peer_role: attach.peer_role,
            source: attach.source,
            target: attach.target,
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode: attach.rcv_settle_mode,
            max_message_bytes: attach.max_message_bytes,
            offered_capabilities: attach.offered_capabilities,
            desired_capabilities: attach.desired_capabilities,
            properties: attach.properties,
        })
    }
}

impl Session {
    /// The peer asks for a link that we do not know; its name is free.
    pub(crate) fn on_new_attach(
        &mut self,
        shared: &mut Shared,
        attach: AttachIn,
    ) -> Result<(), Fault> {
        let asked = self.ask(shared, attach)?;
        shared.events.push_back(Event::Attached(asked));
        Ok(())
    }

    /// Makes the link that the peer asks for and returns what the owner is to know of it.
    fn ask(&mut self, shared: &mut Shared, attach: AttachIn) -> Result<Box<Attach>, Fault> {
        self.check_new_handle(shared, attach.handle)?;
        let limit = |text: &str| {
            Fault::Session(ErrorCondition::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                text,
            ))
        };
        if attach.name.len() > LINK_NAME_MAX {
            return Err(limit("a link name is longer than 4096 bytes"));
        }
        if shared.link_count >= LINKS_MAX {
            return Err(limit("too many links on this connection"));
        }
        if self.links.vacant_key() as u64 > u64::from(self.peer_handle_max) {
            return Err(limit(
                "the peer's handle-max leaves no handle to answer with",
            ));
        }
        let end = match attach.peer_role {
            PeerRole::Sender => {
                LinkEnd::Receiving(Receiving::with_initial_count(attach.initial_delivery_count))
            }
            PeerRole::Receiver => LinkEnd::Sending(Sending {
                max_message_bytes: attach.max_message_bytes,
                ..Sending::default()
            }),
        };
        let remote_handle = attach.handle;
        let mut link = self.make_link(shared, &attach.name, attach.peer_role, end);
        link.remote_handle = Some(remote_handle);
        link.snd_settle_mode = attach.snd_settle_mode;
        let described = link.describe(attach);
        link.state = LinkState::Asked(described.clone());
        self.map_handle(remote_handle, link.id.handle);
        self.links.insert(link);
        Ok(described)
    }

    /// The peer's attach answers ours.
    pub(crate) fn on_attach_answer(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        attach: AttachIn,
    ) -> Result<(), Fault> {
        self.check_new_handle(shared, attach.handle)?;
        self.map_handle(attach.handle, id.handle);
        self.unanswered_count -= 1;
        let Some(link) = self.link_mut(id) else {
            return Ok(());
        };
        link.remote_handle = Some(attach.handle);
        if link.state != LinkState::AttachSent {
            return Ok(()); // detached by us in the meantime
        }
        link.state = LinkState::Open;
        match &mut link.end {
            LinkEnd::Sending(sending) => sending.max_message_bytes = attach.max_message_bytes,
            LinkEnd::Receiving(receiving) => {
                receiving.set_initial_count(attach.initial_delivery_count);
            }
        }
        let described = link.describe(attach);
        shared.events.push_back(Event::AttachConfirmed(described));
        Ok(())
    }

    /// The link that an attach of the peer answers: the oldest of this name that we attached.
    pub(crate) fn unanswered_link(&self, peer_role: PeerRole, name: &str) -> Option<LinkId> {
        if self.unanswered_count == 0 {
            return None;
        }
        self.links
            .iter()
            .map(|(_, link)| link)
            .filter(|link| link.remote_handle.is_none())
            .filter(|link| link.peer_role == peer_role && link.name == name)
            .map(|link| link.id)
            .min_by_key(|id| id.generation)
    }

    fn check_new_handle(&self, shared: &Shared, handle: u32) -> Result<(), Fault> {
        if handle > shared.settings.handle_max {
            return Err(Fault::Connection(ErrorCondition::new(
                condition::FRAMING_ERROR,
                format!("handle {handle} is above the handle-max of our begin"),
            )));
        }
        if self.local_handle(handle).is_ok() {
            return Err(Fault::Session(ErrorCondition::new(
                condition::HANDLE_IN_USE,
                format!("handle {handle} is attached already"),
            )));
        }
        Ok(())
    }

    fn map_handle(&mut self, remote: u32, local: u32) {
        let at = self
            .remote_handles
            .partition_point(|&(handle, _)| handle < remote);
        self.remote_handles.insert(at, (remote, local));
    }

    /// A link with its own handle and name; the caller puts it into the table.
    fn make_link(
        &mut self,
        shared: &mut Shared,
        name: &str,
        peer_role: PeerRole,
        end: LinkEnd,
    ) -> Link {
        let id = LinkId {
            channel: self.id.channel,
            handle: self.links.vacant_key() as u32,
            generation: shared.next_generation(),
        };
        shared.link_count += 1;
        shared.names.insert((peer_role, String::from(name)), id);
        Link {
            id,
            session: self.id,
            name: String::from(name),
            peer_role,
            remote_handle: None,
            state: LinkState::AttachSent,
            snd_settle_mode: Default::default(),
            is_end_reported: false,
            closes_late: false,
            is_flow_due: false,
            end,
        }
    }

    /// Asks the peer for a link. `None` when there is no handle or the name is in use.
    pub(crate) fn attach(
        &mut self,
        shared: &mut Shared,
        peer_role: PeerRole,
        request: &AttachRequest,
    ) -> Option<LinkId> {
        let is_refused = self.state == SessionState::EndSent
            || shared.link_count >= LINKS_MAX
            || self.links.vacant_key() as u64 > u64::from(self.peer_handle_max)
            || shared
                .names
                .contains_key(&(peer_role, request.name.clone()));
        if is_refused {
            return None;
        }
        let attach = attach_out(&AttachOut {
            name: &request.name,
            handle: self.links.vacant_key() as u32,
            peer_role,
            snd_settle_mode: request.snd_settle_mode,
            rcv_settle_mode: request.rcv_settle_mode,
            source: request.source.as_ref(),
            target: request.target.as_ref(),
            max_message_bytes: shared.settings.max_message_bytes,
            offered_capabilities: &[],
            desired_capabilities: &request.desired_capabilities,
            properties: &request.properties,
        });
        performative::put(
            shared.output.frames(),
            FrameKind::Amqp,
            self.id.channel,
            &attach,
        )
        .ok()?;
        let end = match peer_role {
            PeerRole::Sender => LinkEnd::Receiving(Receiving::default()),
            PeerRole::Receiver => LinkEnd::Sending(Sending::default()),
        };
        let mut link = self.make_link(shared, &request.name, peer_role, end);
        link.snd_settle_mode = request.snd_settle_mode;
        let id = link.id;
        self.unanswered_count += 1;
        self.links.insert(link);
        Some(id)
    }

    /// Answers the peer's attach: the link exists. When the answer cannot be encoded the link is refused.
    pub(crate) fn accept_attach(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        reply: &AttachReply,
    ) -> Result<(), EncodeError> {
        if self.state == SessionState::EndSent {
            return Ok(());
        }
        let Some(link) = self.link_mut(id) else {
            return Ok(());
        };
        let LinkState::Asked(asked) = &link.state else {
            return Ok(());
        };
        let source = reply.source.as_ref().or(asked.source.as_ref());
        let target = reply.target.as_ref().or(asked.target.as_ref());
        if put_attach_answer(shared, id, asked, source, target, reply).is_err() {
            let error = ErrorCondition::new(
                condition::INTERNAL_ERROR,
                "the link's source or target cannot be written",
            );
            return self.refuse_attach(shared, id, &error);
        }
        link.state = LinkState::Open;
        if let LinkEnd::Sending(sending) = &link.end
            && (sending.credit > 0 || sending.drain)
        {
            shared.events.push_back(Event::Flow {
                link: id,
                credit: sending.credit,
                drain: sending.drain,
            });
        }
        Ok(())
    }

    /// Answers the peer's attach: there will be no link (part 2.6.3).
    pub(crate) fn refuse_attach(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        error: &ErrorCondition,
    ) -> Result<(), EncodeError> {
        if self.state == SessionState::EndSent {
            return Ok(());
        }
        let Some(link) = self.link_mut(id) else {
            return Ok(());
        };
        if !matches!(link.state, LinkState::Asked(_)) {
            return Ok(());
        }
        link.is_end_reported = true;
        put_null_attach(shared, link)?;
        self.detach(shared, id, Some(error))
    }

    /// Closes a link from our side. A link that waits for our answer is answered first.
    pub(crate) fn detach(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        error: Option<&ErrorCondition>,
    ) -> Result<(), EncodeError> {
        if self.state == SessionState::EndSent {
            return Ok(());
        }
        let Some(link) = self.link_mut(id) else {
            return Ok(());
        };
        match link.state {
            LinkState::DetachSent => return Ok(()),
            LinkState::CloseAsked => return self.answer_close(shared, id, error),
            LinkState::Asked(_) | LinkState::AttachSent | LinkState::Open => {}
        }
        if matches!(link.state, LinkState::Asked(_)) && !link.is_end_reported {
            put_null_attach(shared, link)?;
        }
        // What was settled on the link goes out before it is gone.
        self.flush(shared);
        self.stop_sending(id.handle);
        let Some(link) = self.link_mut(id) else {
            return Ok(());
        };
        link.state = LinkState::DetachSent;
        link.release_name(shared);
        if let LinkEnd::Receiving(receiving) = &mut link.end {
            receiving.drop_partial(shared);
        }
        put_detach(shared, id, true, error)
    }

    /// The peer closed a link some time ago; it is over now.
    fn answer_close(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        error: Option<&ErrorCondition>,
    ) -> Result<(), EncodeError> {
        if let Some(link) = self.links.try_remove(id.handle as usize) {
            link.release(shared);
        }
        put_detach(shared, id, true, error)
    }

    /// The owner answers when the peer closes this link.
    pub(crate) fn close_late(&mut self, id: LinkId) {
        if let Some(link) = self.link_mut(id) {
            link.closes_late = true;
        }
    }

    /// A fault on a link: closes it and tells the owner.
    pub(crate) fn fail_link(
        &mut self,
        shared: &mut Shared,
        id: LinkId,
        error: ErrorCondition,
    ) -> Result<(), EncodeError> {
        self.detach(shared, id, Some(&error))?;
        if let Some(link) = self.link_mut(id)
            && !link.is_end_reported
        {
            link.is_end_reported = true;
            shared.events.push_back(Event::Detached {
                link: id,
                closed: true,
                error: Some(error),
            });
        }
        Ok(())
    }

    /// The peer detached a link; answers if that is owed. The link is over afterwards.
    pub(crate) fn on_detach(
        &mut self,
        shared: &mut Shared,
        remote_handle: u32,
        closed: bool,
        error: Option<ErrorCondition>,
    ) -> Result<(), Fault> {
        let handle = self.local_handle(remote_handle)?;
        self.remote_handles
            .retain(|&(handle, _)| handle != remote_handle);
        let Some(link) = self.links.get(handle as usize) else {
            return Ok(());
        };
        let id = link.id;
        let is_owed = link.state != LinkState::DetachSent;
        let is_late = is_owed && link.closes_late && closed && error.is_none();
        if is_owed {
            if matches!(link.state, LinkState::Asked(_)) {
                put_null_attach(shared, link)?;
            }
            self.flush(shared);
            if !is_late {
                put_detach(shared, id, closed, None)?;
            }
        }
        self.stop_sending(handle);
        let Some(link) = self.links.get_mut(handle as usize) else {
            return Ok(());
        };
        if !std::mem::replace(&mut link.is_end_reported, true) {
            shared.events.push_back(Event::Detached {
                link: id,
                closed,
                error,
            });
        }
        if is_late {
            link.state = LinkState::CloseAsked;
        } else if let Some(link) = self.links.try_remove(handle as usize) {
            link.release(shared);
        }
        Ok(())
    }

    /// Refuses an attach of which only name, handle and role could be read.
    pub(crate) fn refuse_unreadable_attach(
        &mut self,
        shared: &mut Shared,
        name: String,
        handle: u32,
        peer_role: PeerRole,
    ) -> Result<(), Fault> {
        let attach = AttachIn {
            name,
            handle,
            peer_role,
            snd_settle_mode: Default::default(),
            rcv_settle_mode: Default::default(),
            source: None,
            target: None,
            initial_delivery_count: 0,
            max_message_bytes: None,
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Vec::new(),
        };
        let asked = self.ask(shared, attach)?;
        let error = ErrorCondition::new(
            condition::NOT_IMPLEMENTED,
            "the attach has a source, target or field of a kind that this broker does not know",
        );
        Ok(self.refuse_attach(shared, asked.link, &error)?)
    }

    /// Forgets what was sent on a link and not settled.
    fn stop_sending(&mut self, handle: u32) {
        self.outgoing.unsettled.forget_link(handle);
        if self
            .outgoing
            .stalled
            .as_ref()
            .is_some_and(|stalled| stalled.handle == handle)
        {
            self.outgoing.stalled = None;
        }
    }

    /// Sets the credit of a link that we receive on.
    pub(crate) fn set_credit(&mut self, shared: &mut Shared, id: LinkId, credit: u32) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let LinkEnd::Receiving(receiving) = &mut link.end else {
            return;
        };
        receiving.set_credit(credit);
        self.want_link_flow(shared, id.handle);
    }

    /// Asks the sender of a link to use or return its credit.
    pub(crate) fn drain(&mut self, shared: &mut Shared, id: LinkId) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let LinkEnd::Receiving(receiving) = &mut link.end else {
            return;
        };
        receiving.is_draining = true;
        receiving.report_credit(id, shared);
        self.want_link_flow(shared, id.handle);
    }

    /// Returns the credit of a receiver that drains.
    pub(crate) fn drained(&mut self, shared: &mut Shared, id: LinkId) {
        let Some(link) = self.link_mut(id) else {
            return;
        };
        let LinkEnd::Sending(sending) = &mut link.end else {
            return;
        };
        if sending.drain {
            sending.use_up_credit();
            self.want_link_flow(shared, id.handle);
        }
    }
}

fn put_attach_answer(
    shared: &mut Shared,
    id: LinkId,
    asked: &Attach,
    source: Option<&Source>,
    target: Option<&AttachTarget>,
    reply: &AttachReply,
) -> Result<(), EncodeError> {
    let attach = attach_out(&AttachOut {
        name: &asked.name,
        handle: id.handle,
        peer_role: asked.peer_role,
        snd_settle_mode: asked.snd_settle_mode,
        rcv_settle_mode: ReceiverSettleMode::First,
        source,
        target,
        max_message_bytes: shared.settings.max_message_bytes,
        offered_capabilities: &reply.offered_capabilities,
        desired_capabilities: &[],
        properties: &reply.properties,
    });
    performative::put(shared.output.frames(), FrameKind::Amqp, id.channel, &attach)
}

/// Answers an attach without the terminus that would be ours: the link is refused. The peer's own is
/// echoed if it can be written.
fn put_null_attach(shared: &mut Shared, link: &Link) -> Result<(), EncodeError> {
    let (source, target) = match (&link.state, link.peer_role) {
        (LinkState::Asked(asked), PeerRole::Sender) => (asked.source.as_ref(), None),
        (LinkState::Asked(asked), PeerRole::Receiver) => (None, asked.target.as_ref()),
        _ => (None, None),
    };
    let max_message_bytes = shared.settings.max_message_bytes;
    let out = shared.output.frames();
    let mut put = |source, target| {
        let attach = attach_out(&AttachOut {
            name: &link.name,
            handle: link.id.handle,
            peer_role: link.peer_role,
            snd_settle_mode: link.snd_settle_mode,
            rcv_settle_mode: ReceiverSettleMode::First,
            source,
            target,
            max_message_bytes,
            offered_capabilities: &[],
            desired_capabilities: &[],
            properties: &[],
        });
        performative::put(out, FrameKind::Amqp, link.id.channel, &attach)
    };
    put(source, target).or_else(|_| put(None, None))
}

fn put_detach(
    shared: &mut Shared,
    id: LinkId,
    closed: bool,
    error: Option<&ErrorCondition>,
) -> Result<(), EncodeError> {
    let detach = fep::Detach {
        handle: id.handle.into(),
        closed,
        error: error.map(error_out),
    };
    performative::put(shared.output.frames(), FrameKind::Amqp, id.channel, &detach)
}
