//! The connection.

use bytes::BytesMut;

use super::{
    AttachTarget, ClientSasl, ErrorCondition, Event, Outcome, ReceiverSettleMode, SaslCode,
    SendError, SenderSettleMode, Settings, Source, Symbol, Value,
};

/// Names a session of one connection; never reused within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    channel: u16,
    generation: u32,
}

/// Names a link of one connection; never reused within it. Commands on a link that is gone do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    channel: u16,
    handle: u32,
    generation: u32,
}

/// Our side of a link that the peer asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttachReply {
    /// The source that is in effect; for a dynamic one with its address.
    pub source: Option<Source>,
    /// The target that is in effect; for a dynamic one with its address.
    pub target: Option<AttachTarget>,
    /// Extensions that the link offers.
    pub offered_capabilities: Vec<Symbol>,
    /// Link properties.
    pub properties: Vec<(Symbol, Value)>,
}

/// A link that we ask for as a client.
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

/// One AMQP connection, server or client end.
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    output: BytesMut,
}

#[allow(unused_variables, reason = "signatures first")]
impl Connection {
    /// The accepting end of a new connection. Time is any monotonic clock in milliseconds.
    pub fn server(settings: Settings, now_ms: u64) -> Self {
        Self {
            settings,
            output: BytesMut::new(),
        }
    }

    /// The connecting end of a new connection; headers, SASL and open go out by themselves, so
    /// `begin` may be called at once.
    pub fn client(settings: Settings, sasl: ClientSasl, now_ms: u64) -> Self {
        Self {
            settings,
            output: BytesMut::new(),
        }
    }

    // ---- what the world did ----

    /// Takes received bytes: consumes what is complete, leaves the rest in `input`. Never fails; a fault
    /// becomes a close frame and [`Event::Closed`]. While an answer to SASL or open is awaited from the owner
    /// nothing more is interpreted.
    pub fn handle_bytes(&mut self, now_ms: u64, input: &mut BytesMut) {}

    /// The peer will send nothing more.
    pub fn handle_eof(&mut self, now_ms: u64) {}

    /// Time passed: sends keep-alives, notices a silent peer. Call at [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now_ms: u64) {}

    // ---- what the owner must do next; in this order: events, flush, output, time ----

    /// The next event. Take all after each `handle_` call.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When [`Self::handle_timeout`] wants to be called, in the clock of `now_ms`.
    pub fn poll_timeout(&self) -> Option<u64> {
        None
    }

    /// Writes coalesced dispositions, credit and windows to the output. Call once for each wake-up, before
    /// writing.
    pub fn flush(&mut self) {}

    /// Bytes for the peer: write them and advance.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    // ---- questions ----

    /// Whether nothing more will happen: write the output, then close the socket.
    pub fn is_finished(&self) -> bool {
        false
    }

    /// Whether the output is above the high-water mark (1 MiB): write before sending more.
    pub fn is_output_full(&self) -> bool {
        false
    }

    /// Whether [`Self::send`] would take a message now: link credit, an open session window, output
    /// below the high-water mark.
    pub fn can_send(&self, link: LinkId) -> bool {
        false
    }

    /// Deliveries that may be sent on a link by its credit alone; 0 for unknown links.
    pub fn credit(&self, link: LinkId) -> u32 {
        0
    }

    // ---- commands: SASL, open, close ----

    /// Server: sends a challenge.
    pub fn sasl_challenge(&mut self, challenge: &[u8]) {}

    /// Server: ends the SASL dialogue. Any code but `Ok` ends the connection.
    pub fn sasl_outcome(&mut self, code: SaslCode, additional_data: Option<&[u8]>) {}

    /// Server: answers [`Event::Opened`].
    pub fn open(&mut self) {}

    /// Server: answers [`Event::Opened`] by an open and a close with this error, then waits for the peer's close.
    pub fn open_refused(&mut self, error: ErrorCondition) {}

    /// Ends the connection in order: sends close, waits a while for the peer's.
    pub fn close(&mut self, error: Option<ErrorCondition>) {}

    /// Ends the connection without waiting: headers and open if they are still owed, close, finished. What a
    /// standby says, and a server that stops.
    pub fn close_now(&mut self, error: Option<ErrorCondition>) {}

    // ---- commands: sessions and links ----

    /// Begins a session. `None` when the peer's or our channel limit is reached or the connection is over.
    pub fn begin(&mut self) -> Option<SessionId> {
        None
    }

    /// Ends a session and its links.
    pub fn end(&mut self, session: SessionId, error: Option<ErrorCondition>) {}

    /// Asks for a link on which we send. `None` when the session is gone or its handles are used up.
    pub fn attach_sender(&mut self, session: SessionId, request: AttachRequest) -> Option<LinkId> {
        None
    }

    /// Asks for a link on which we receive. `None` when the session is gone or its handles are used up.
    pub fn attach_receiver(
        &mut self,
        session: SessionId,
        request: AttachRequest,
    ) -> Option<LinkId> {
        None
    }

    /// Answers [`Event::Attached`]: the link exists.
    pub fn accept_attach(&mut self, link: LinkId, reply: AttachReply) {}

    /// Answers [`Event::Attached`]: attach with a null terminus, then a closing detach with the reason. The
    /// link id is dead afterwards; no `Detached` follows.
    pub fn refuse_attach(&mut self, link: LinkId, error: ErrorCondition) {}

    /// Closes a link from our side (always `closed`: some clients know no other detach from a broker).
    pub fn detach(&mut self, link: LinkId, error: Option<ErrorCondition>) {}

    // ---- commands: receiving ----

    /// Sets the credit of a link that we receive on: deliveries that may still come from now on.
    pub fn set_credit(&mut self, link: LinkId, credit: u32) {}

    /// Asks the sender of a link that we receive on to use or return its credit; [`Event::Drained`] answers.
    pub fn drain(&mut self, link: LinkId) {}

    /// Settles a delivery that we received.
    pub fn settle(&mut self, link: LinkId, delivery_id: u32, outcome: Outcome) {}

    // ---- commands: sending ----

    /// Sends a message given as encoded parts; returns its delivery id. `token` comes back in
    /// [`Event::Disposition`] (not for settled ones).
    pub fn send(
        &mut self,
        link: LinkId,
        token: u64,
        message_format: u32,
        parts: &[&[u8]],
        settled: bool,
    ) -> Result<u32, SendError> {
        Err(SendError::NotAttached)
    }

    /// Answers a disposition that was not settled: the delivery is settled and forgotten.
    pub fn settle_sent(&mut self, link: LinkId, delivery_id: u32) {}

    /// All that could be sent was sent: returns the remaining credit to a receiver that drains.
    pub fn drained(&mut self, link: LinkId) {}
}
