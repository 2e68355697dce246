//! The connection: its life from header to close. How input is taken is in [`handshake`](super::handshake)
//! (headers, SASL, open) and [`dispatch`](super::dispatch) (everything after open); commands about sessions,
//! links and messages are in [`commands`](super::commands).

use bytes::BytesMut;
use fe2o3_amqp_types::performatives as fep;
use slab::Slab;

use super::error::Fault;
use super::frame::{self, FrameKind, MIN_MAX_FRAME_SIZE, ProtocolHeader};
use super::performative::{self, EncodeError, error_out, open_out};
use super::sasl;
use super::session::Session;
use super::shared::Shared;
use super::timers::{Due, Timers};
use super::{ClientSasl, ErrorCondition, Event, SaslCode, Settings, Symbol, Value, condition};

/// Input that is kept while the owner's answer is awaited, bytes; more stays with the caller.
const HELD_INPUT_MAX: usize = 64 * 1024;

/// Where a connection is in its life: what may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A protocol header.
    Header { is_sasl_done: bool },
    /// Server: `sasl-init`.
    SaslInit,
    /// Server: `sasl-response`.
    SaslResponse,
    /// Server: the owner's challenge or outcome.
    SaslOwner,
    /// Client: mechanisms, challenges, the outcome.
    SaslClient,
    /// The peer's open.
    AwaitOpen,
    /// Server: the owner's answer to the peer's open.
    OpenOwner,
    /// Anything.
    Open,
    /// The peer's close: ours was sent.
    Closing,
    /// Nothing.
    Finished,
}

/// What a client says when the server ends the stream in the middle of the login.
pub const ENDED_IN_LOGIN: &str = "the server ended the connection during the login, as a standby does that refuses the credentials";

/// One AMQP 1.0 connection, server or client end, without any input or output of its own.
///
/// Its methods come in four families:
///
/// 1. *What happened*: [`handle_bytes`](Self::handle_bytes), [`handle_eof`](Self::handle_eof),
///    [`handle_timeout`](Self::handle_timeout), [`handle_reading_paused`](Self::handle_reading_paused).
/// 2. *What to do next*, asked in this order after each of them: [`poll_event`](Self::poll_event) until `None`,
///    commands in answer to events, [`flush`](Self::flush), [`output`](Self::output) (write and advance),
///    [`poll_timeout`](Self::poll_timeout).
/// 3. *Questions*: [`is_finished`](Self::is_finished), [`can_send`](Self::can_send) and others.
/// 4. *Commands*: plain verbs. A command about a session or link that is gone does nothing, so an owner
///    need not know of a detach that is still under way.
///
/// Time is any monotonic clock in milliseconds. The driver of a socket is:
///
/// ```text
/// loop {
///     select { read -> handle_bytes | eof -> handle_eof | poll_timeout -> handle_timeout | other work }
///     while let Some(event) = poll_event() { ... commands ... }
///     flush(); write(output())
///     if is_finished() && output().is_empty() { shut down writing, read what still comes, close }
/// }
/// ```
///
/// A peer can make this type do nothing but report events and write errors: no input panics, every table
/// and buffer that a peer fills has a limit with a name.
#[derive(Debug)]
pub struct Connection {
    pub(crate) shared: Shared,
    pub(crate) sessions: Slab<Session>,
    /// Local channel by the peer's channel.
    pub(crate) channels: Vec<Option<u16>>,
    pub(crate) phase: Phase,
    /// `None` for a server.
    pub(crate) client: Option<ClientSasl>,
    /// The peer's channel-max.
    pub(crate) peer_channel_max: u16,
    pub(crate) peer_idle_timeout_ms: Option<u32>,
    /// Input that came while the owner's answer was awaited.
    pub(crate) held: BytesMut,
    pub(crate) timers: Timers,
    /// See [`close_now`](Self::close_now).
    pub(crate) stalls_on_close: bool,
    is_close_sent: bool,
}

impl Connection {
    /// The accepting end of a new connection.
    pub fn server(settings: Settings, now_ms: u64) -> Self {
        Self::new(settings, None, now_ms)
    }

    /// The connecting end of a new connection. Headers, SASL and open go out by themselves, and
    /// [`begin`](Self::begin) and what follows it may be called at once.
    pub fn client(settings: Settings, sasl: ClientSasl, now_ms: u64) -> Self {
        let has_layer = sasl.has_layer();
        let mut connection = Self::new(settings, Some(sasl), now_ms);
        if has_layer {
            connection.put_header(ProtocolHeader::Sasl);
        } else {
            connection.put_header(ProtocolHeader::Amqp);
            connection.put_open();
        }
        connection
    }

    fn new(mut settings: Settings, client: Option<ClientSasl>, now_ms: u64) -> Self {
        settings.max_frame_size = settings.max_frame_size.max(MIN_MAX_FRAME_SIZE);
        Self {
            shared: Shared::new(settings),
            sessions: Slab::new(),
            channels: Vec::new(),
            phase: Phase::Header {
                is_sasl_done: false,
            },
            client,
            peer_channel_max: u16::MAX,
            peer_idle_timeout_ms: None,
            held: BytesMut::new(),
            timers: Timers::new(now_ms),
            stalls_on_close: false,
            is_close_sent: false,
        }
    }

    // ---- what happened ----

    /// Takes received bytes: consumes what is complete and leaves the rest in `input`, to which more is to be
    /// appended. Never fails: a fault of the peer becomes a close frame and [`Event::Closed`].
    ///
    /// While an answer of the owner to SASL or open is awaited, input is kept and not interpreted. After such an
    /// answer call this again if `input` is not empty.
    pub fn handle_bytes(&mut self, now_ms: u64, input: &mut BytesMut) {
        self.timers.set_now(now_ms);
        if !input.is_empty() {
            self.timers.on_received();
        }
        if !self.held.is_empty() && !self.is_waiting_for_owner() {
            // Rare: a handshake in many pieces. Goes on with one contiguous buffer.
            let mut held = std::mem::take(&mut self.held);
            held.unsplit(input.split());
            std::mem::swap(input, &mut held);
        }
        self.process(input);
        if self.is_waiting_for_owner() {
            let room = HELD_INPUT_MAX.saturating_sub(self.held.len());
            let taken = input.split_to(input.len().min(room));
            self.held.unsplit(taken);
        }
    }

    /// The peer will send nothing more. Without a close before it this is a fault.
    pub fn handle_eof(&mut self, now_ms: u64) {
        self.timers.set_now(now_ms);
        let text = match self.phase {
            Phase::Closing => return self.finish(None),
            Phase::SaslClient => ENDED_IN_LOGIN,
            _ => "the peer ended the stream without closing the connection",
        };
        self.finish(Some(ErrorCondition::new(
            condition::CONNECTION_FORCED,
            text,
        )));
    }

    /// Time passed: keeps the connection alive, gives up a silent peer. To be called at
    /// [`poll_timeout`](Self::poll_timeout); earlier or later does no harm.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.timers.set_now(now_ms);
        while let Some(due) = self.timers.poll() {
            match due {
                Due::Close => self.finish(None),
                Due::Handshake => self.fail(ErrorCondition::new(
                    condition::RESOURCE_LIMIT_EXCEEDED,
                    "the connection was not opened in time",
                )),
                Due::Idle => self.fail(ErrorCondition::new(
                    condition::RESOURCE_LIMIT_EXCEEDED,
                    "the peer was silent for longer than the idle time-out",
                )),
                Due::KeepAlive => {
                    if self.phase == Phase::Open && self.shared.output.ready.is_empty() {
                        self.shared.shrink();
                        frame::put_empty(&mut self.shared.output.ready);
                    }
                }
            }
        }
    }

    /// The owner does not read from the peer at present, because of its own limits: until now the peer was not silent.
    /// To be called from time to time while that lasts, or an idle time-out would punish a healthy peer.
    pub fn handle_reading_paused(&mut self, now_ms: u64) {
        self.timers.set_now(now_ms);
        self.timers.on_received();
    }

    // ---- what to do next ----

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// Writes dispositions, credit and windows, which were held together, to the output. To be called once for
    /// each wake-up before the output is written.
    pub fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.shared.dirty);
        for channel in dirty.drain(..) {
            if let Some(session) = self.sessions.get_mut(usize::from(channel)) {
                session.flush(&mut self.shared);
            }
        }
        // Flushing marks nothing, so the emptied vector can serve again.
        if self.shared.dirty.is_empty() {
            self.shared.dirty = dirty;
        }
    }

    /// Bytes for the peer: write them and advance.
    pub fn output(&mut self) -> &mut BytesMut {
        if !self.shared.output.ready.is_empty() {
            self.timers.on_written();
        }
        &mut self.shared.output.ready
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, in the clock of `now_ms`.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next()
    }

    // ---- questions ----

    /// Whether nothing more will happen: write the output, then close the socket.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Whether the output is above its high-water mark (1 MiB): write before sending more.
    pub fn is_output_full(&self) -> bool {
        self.shared.output.is_full()
    }

    pub(crate) fn is_waiting_for_owner(&self) -> bool {
        matches!(self.phase, Phase::SaslOwner | Phase::OpenOwner)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Finished)
    }

    /// Highest channel that we may use.
    pub(crate) fn channel_max(&self) -> u16 {
        self.shared.settings.channel_max.min(self.peer_channel_max)
    }

    // ---- commands: SASL, open, close ----

    /// Server: answers [`Event::SaslInit`] or [`Event::SaslResponse`] by a challenge.
    pub fn sasl_challenge(&mut self, challenge: &[u8]) {
        if self.phase != Phase::SaslOwner {
            return;
        }
        let written = sasl::put_challenge(&mut self.shared.output.ready, challenge);
        self.phase = Phase::SaslResponse;
        self.timers.resume_handshake();
        self.fail_unless_written(written);
        self.resume();
    }

    /// Server: ends the SASL dialogue. Any code but [`SaslCode::Ok`] ends the connection too.
    pub fn sasl_outcome(&mut self, code: SaslCode, additional_data: Option<&[u8]>) {
        if self.phase != Phase::SaslOwner {
            return;
        }
        let written = sasl::put_outcome(&mut self.shared.output.ready, code, additional_data);
        if code == SaslCode::Ok {
            self.phase = Phase::Header { is_sasl_done: true };
            self.timers.resume_handshake();
            self.fail_unless_written(written);
            self.resume();
        } else {
            self.finish(Some(ErrorCondition::new(
                condition::UNAUTHORIZED_ACCESS,
                "the client was not authenticated",
            )));
        }
    }

    /// Server: answers [`Event::Opened`] with our open.
    pub fn open(&mut self) {
        if self.phase != Phase::OpenOwner {
            return;
        }
        self.put_open();
        if self.phase == Phase::OpenOwner {
            self.phase = Phase::Open;
            self.timers.on_open(
                self.shared.settings.idle_timeout_ms,
                self.peer_idle_timeout_ms,
            );
            self.resume();
        }
    }

    /// Server: answers [`Event::Opened`] with our open and a close for this reason. The open says that a close
    /// follows, so that clients do not take the connection for established.
    pub fn open_refused(&mut self, error: ErrorCondition) {
        if self.phase == Phase::OpenOwner {
            let failed = Symbol::from("amqp:connection-establishment-failed");
            let properties = &mut self.shared.settings.properties;
            properties.push((failed, Value::Bool(true)));
            self.close(Some(error));
        }
    }

    /// Ends the connection in order: sends what is held, then close, and waits a while for the peer's.
    pub fn close(&mut self, error: Option<ErrorCondition>) {
        match self.phase {
            Phase::Closing | Phase::Finished => {}
            Phase::AwaitOpen | Phase::OpenOwner | Phase::Open => {
                self.flush();
                self.put_close(error.as_ref());
                if self.phase != Phase::Finished {
                    self.phase = Phase::Closing;
                    self.timers.on_close();
                    self.held.clear();
                }
            }
            Phase::Header { .. }
            | Phase::SaslInit
            | Phase::SaslResponse
            | Phase::SaslOwner
            | Phase::SaslClient => self.finish(None),
        }
    }

    /// Ends the connection without waiting for the peer: header and open if they are still owed, then close. What a
    /// standby says, and a server that stops.
    ///
    /// A client on Qpid Proton gets no close and no open, only the end of the stream. Measured with
    /// python-qpid-proton 0.40: after a close with `amqp:connection:forced` it neither closes nor reads any more,
    /// does not see the end of the stream, and never reconnects; and an open makes it begin its list of servers
    /// anew, so that it would never come to the second one.
    pub fn close_now(&mut self, error: Option<ErrorCondition>) {
        if self.stalls_on_close {
            self.flush();
            self.finish(None);
            return;
        }
        if self.phase == (Phase::Header { is_sasl_done: true }) && self.client.is_none() {
            self.put_header(ProtocolHeader::Amqp);
            self.phase = Phase::AwaitOpen;
        }
        self.close(error);
        self.finish(None);
    }

    // ---- faults and the end ----

    /// Ends the connection because a control frame could not be encoded.
    pub(crate) fn fail_unless_written(&mut self, written: Result<(), EncodeError>) {
        if let (Err(error), false) = (written, self.phase == Phase::Finished)
            && let Fault::Connection(error) = Fault::from(error)
        {
            self.fail(error);
        }
    }

    /// Ends the connection for a fault: tells the peer if it can be told, waits for nothing.
    pub(crate) fn fail(&mut self, error: ErrorCondition) {
        if matches!(
            self.phase,
            Phase::AwaitOpen | Phase::OpenOwner | Phase::Open
        ) {
            self.put_close(Some(&error));
        }
        self.finish(Some(error));
    }

    /// The end: gives up all state and tells the owner once.
    pub(crate) fn finish(&mut self, error: Option<ErrorCondition>) {
        if self.phase == Phase::Finished {
            return;
        }
        self.phase = Phase::Finished;
        self.timers.stop();
        self.sessions.clear();
        self.channels.clear();
        self.shared.names.clear();
        self.shared.dirty.clear();
        self.held.clear();
        self.shared.events.push_back(Event::Closed { error });
    }

    pub(crate) fn put_header(&mut self, header: ProtocolHeader) {
        self.shared.output.ready.extend_from_slice(header.bytes());
    }

    pub(crate) fn put_open(&mut self) {
        let Shared {
            settings, output, ..
        } = &mut self.shared;
        let written = performative::put(&mut output.ready, FrameKind::Amqp, 0, &open_out(settings));
        output.open_was_sent();
        if written.is_err() {
            self.finish(Some(ErrorCondition::new(
                condition::INTERNAL_ERROR,
                "our open frame could not be written",
            )));
        }
    }

    /// Writes our close, once, behind our open, which is written first if it was not.
    pub(crate) fn put_close(&mut self, error: Option<&ErrorCondition>) {
        if self.is_close_sent {
            return;
        }
        self.is_close_sent = true;
        if !self.shared.output.is_open_sent {
            self.put_open();
        }
        let close = fep::Close {
            error: error.map(error_out),
        };
        let out = self.shared.output.frames();
        if performative::put(out, FrameKind::Amqp, 0, &close).is_err() {
            // Without its error the close cannot fail to be written.
            let _ = performative::put(out, FrameKind::Amqp, 0, &fep::Close { error: None });
        }
    }
}
