//! Commands about sessions, links and messages. All of them do nothing when what they name is gone.

use super::connection::Connection;
use super::link::LinkId;
use super::session::Session;
use super::shared::SessionId;
use super::{
    AttachTarget, ErrorCondition, Outcome, PeerRole, ReceiverSettleMode, SendError,
    SenderSettleMode, Source, Symbol, Value,
};

/// Our side of a link that the peer asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttachReply {
    /// The source that is in effect, for a dynamic one with its address; `None`: the peer's is echoed.
    pub source: Option<Source>,
    /// The target that is in effect, for a dynamic one with its address; `None`: the peer's is echoed.
    pub target: Option<AttachTarget>,
    /// Extensions that the link offers.
    pub offered_capabilities: Vec<Symbol>,
    /// Link properties.
    pub properties: Vec<(Symbol, Value)>,
}

/// A link that we ask for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttachRequest {
    /// Name, unique for the direction on this connection.
    pub name: String,
    /// Where messages come from.
    pub source: Option<Source>,
    /// Where messages go to.
    pub target: Option<AttachTarget>,
    /// Settlement by the sender.
    pub snd_settle_mode: SenderSettleMode,
    /// Settlement by the receiver.
    pub rcv_settle_mode: ReceiverSettleMode,
    /// Extensions that we would like to use.
    pub desired_capabilities: Vec<Symbol>,
    /// Link properties.
    pub properties: Vec<(Symbol, Value)>,
}

impl Connection {
    // ---- sessions ----

    /// Begins a session; [`Event::Begun`](super::Event::Begun) answers. `None` when the channels of either end are
    /// used up or the connection is over.
    pub fn begin(&mut self) -> Option<SessionId> {
        if self.is_closing() {
            return None;
        }
        let id = self.new_session()?;
        let written = self
            .sessions
            .get(usize::from(id.channel))?
            .put_begin(&mut self.shared, None);
        self.fail_unless_written(written);
        Some(id)
    }

    /// Ends a session and its links; [`Event::Ended`](super::Event::Ended) answers.
    pub fn end(&mut self, session: SessionId, error: Option<ErrorCondition>) {
        if self.is_closing() {
            return;
        }
        if let Some(found) = session_mut(&mut self.sessions, session) {
            let written = found.end(&mut self.shared, error.as_ref());
            self.fail_unless_written(written);
        }
    }

    // ---- links ----

    /// Asks for a link on which we send; [`Event::AttachConfirmed`](super::Event::AttachConfirmed) answers. `None`
    /// when the session is gone, its handles are used up, or the name is in use.
    pub fn attach_sender(&mut self, session: SessionId, request: AttachRequest) -> Option<LinkId> {
        self.attach(session, PeerRole::Receiver, &request)
    }

    /// Asks for a link on which we receive; [`Event::AttachConfirmed`](super::Event::AttachConfirmed) answers.
    /// `None` when the session is gone, its handles are used up, or the name is in use.
    pub fn attach_receiver(
        &mut self,
        session: SessionId,
        request: AttachRequest,
    ) -> Option<LinkId> {
        self.attach(session, PeerRole::Sender, &request)
    }

    fn attach(
        &mut self,
        session: SessionId,
        peer_role: PeerRole,
        request: &AttachRequest,
    ) -> Option<LinkId> {
        if self.is_closing() {
            return None;
        }
        session_mut(&mut self.sessions, session)?.attach(&mut self.shared, peer_role, request)
    }

    /// Answers [`Event::Attached`](super::Event::Attached): the link exists. Credit that the peer granted already
    /// is reported by [`Event::Flow`](super::Event::Flow) afterwards.
    pub fn accept_attach(&mut self, link: LinkId, reply: AttachReply) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            let written = session.accept_attach(&mut self.shared, link, &reply);
            self.fail_unless_written(written);
        }
    }

    /// Answers [`Event::Attached`](super::Event::Attached) by an attach without our terminus and a closing detach with
    /// the reason. The id is dead afterwards; no `Detached` follows.
    pub fn refuse_attach(&mut self, link: LinkId, error: ErrorCondition) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            let written = session.refuse_attach(&mut self.shared, link, &error);
            self.fail_unless_written(written);
        }
    }

    /// Closes a link from our side; outcomes given to [`settle`](Self::settle) before go out first. The detach always
    /// says `closed`: some clients understand no other from a broker.
    /// [`Event::Detached`](super::Event::Detached) follows when the peer answered.
    pub fn detach(&mut self, link: LinkId, error: Option<ErrorCondition>) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            let written = session.detach(&mut self.shared, link, error.as_ref());
            session.report_window(&mut self.shared);
            self.fail_unless_written(written);
        }
    }

    /// From now on a peer that closes this link (without an error) is answered by [`detach`](Self::detach), to be
    /// called some time after [`Event::Detached`](super::Event::Detached): when what closing means has happened.
    pub fn close_late(&mut self, link: LinkId) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            session.close_late(link);
        }
    }

    // ---- receiving ----

    /// Sets the credit of a link that we receive on: so many deliveries may come from now on. Smaller than before
    /// is possible, but what is under way is still taken.
    pub fn set_credit(&mut self, link: LinkId, credit: u32) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            session.set_credit(&mut self.shared, link, credit);
        }
    }

    /// Asks the sender of a link that we receive on to use or return its credit;
    /// [`Event::Drained`](super::Event::Drained) answers.
    pub fn drain(&mut self, link: LinkId) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            session.drain(&mut self.shared, link);
        }
    }

    /// Settles a delivery that we received. Consecutive ids of a session with equal outcomes become one
    /// disposition at the next [`flush`](Self::flush), whatever links they came on.
    pub fn settle(&mut self, link: LinkId, delivery_id: u32, outcome: Outcome) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            session.settle(&mut self.shared, link, delivery_id, outcome);
        }
    }

    // ---- sending ----

    /// Whether [`send`](Self::send) would take a message now and should be called: link credit, an open session
    /// window, output below the high-water mark.
    pub fn can_send(&self, link: LinkId) -> bool {
        !self.is_output_full()
            && self.is_open()
            && self
                .sessions
                .get(usize::from(link.channel))
                .is_some_and(|session| session.can_send(link))
    }

    /// Deliveries that the receiver of a link would still take; 0 for links that are gone.
    pub fn credit(&self, link: LinkId) -> u32 {
        self.sessions
            .get(usize::from(link.channel))
            .and_then(|session| session.sending(link))
            .map_or(0, |sending| sending.credit)
    }

    /// Sends a message, given as parts of its encoding that are concatenated, and returns its delivery id. A message
    /// that is larger than the peer's frames is split; what the session window does not take now is
    /// copied and follows by itself. `token` comes back in [`Event::Disposition`](super::Event::Disposition),
    /// unless `settled`. Does not look at the output's size: see [`can_send`](Self::can_send).
    pub fn send(
        &mut self,
        link: LinkId,
        token: u64,
        message_format: u32,
        parts: &[&[u8]],
        settled: bool,
    ) -> Result<u32, SendError> {
        if !self.is_open() {
            return Err(SendError::NotAttached);
        }
        let session = session_with(&mut self.sessions, link).ok_or(SendError::NotAttached)?;
        session.send(
            &mut self.shared,
            link,
            token,
            message_format,
            parts,
            settled,
        )
    }

    /// Answers an [`Event::Disposition`](super::Event::Disposition) that was not settled: the delivery is settled and
    /// forgotten. Consecutive ids become one disposition.
    pub fn settle_sent(&mut self, link: LinkId, delivery_id: u32) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            session.settle_sent(&mut self.shared, link, delivery_id);
        }
    }

    /// Everything that could be sent was sent: returns the remaining credit to a receiver that drains. Does nothing
    /// when it does not.
    pub fn drained(&mut self, link: LinkId) {
        if let Some(session) = session_with(&mut self.sessions, link) {
            session.drained(&mut self.shared, link);
        }
    }
}

/// The session of an id, unless it is gone.
fn session_mut(sessions: &mut slab::Slab<Session>, id: SessionId) -> Option<&mut Session> {
    sessions
        .get_mut(usize::from(id.channel))
        .filter(|session| session.id == id)
}

/// The session on the channel of a link; the link itself may be gone.
fn session_with(sessions: &mut slab::Slab<Session>, link: LinkId) -> Option<&mut Session> {
    sessions.get_mut(usize::from(link.channel))
}
