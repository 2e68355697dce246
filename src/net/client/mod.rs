//! A small AMQP 1.0 client for our own tools and tests.
//!
//! It is made to cost little: on a small machine a load generator takes from the server what it uses
//! itself. A [`Client`] is one connection with one session on a tokio runtime of the current thread. All
//! events of one read are handed out before anything is written, so that a wake-up costs one read and
//! one write whatever it is about; message bytes are not copied on arrival.

mod connect;
mod error;
mod login;
#[cfg(test)]
mod tests;
mod url;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::clock;
use super::session::TlsSession;
use crate::proto::{
    Connection, ErrorCondition, Event, LinkId, Outcome, SendError, SessionId, Symbol, Value,
};

use crate::tls::{TOOL_NAMES, connect_failure, is_tls};

pub use connect::{ClientOptions, Failover};
pub use error::{ClientError, LoginKind};
pub use url::{Credentials, ServerUrl};

/// Room for one read.
const READ_BYTES: usize = 128 << 10;
/// How long the timer sleeps when nothing is due.
const IDLE_TIMER: Duration = Duration::from_secs(3600);

/// What a client was woken up for.
#[derive(Debug)]
pub enum Wake {
    /// Something happened. `Opened`, `Begun`, `AttachConfirmed` and `Closed` do not come: they are answers
    /// of the methods.
    Event(Event),
    /// Output that was above its limit has left: [`Client::can_send`] may be true again.
    Writable,
}

/// TLS and the room for one read of it.
#[derive(Debug)]
struct Tls {
    session: Box<TlsSession>,
    cipher: Vec<u8>,
}

/// A connection with one session to a server.
#[derive(Debug)]
pub struct Client {
    url: ServerUrl,
    login: LoginKind,
    stream: TcpStream,
    tls: Option<Tls>,
    connection: Connection,
    session: SessionId,
    /// What the server said of itself when it opened.
    properties: Vec<(Symbol, Value)>,
    answer_timeout: Duration,
    input: BytesMut,
    /// Events that came while an answer was awaited.
    early: VecDeque<Event>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires, in the clock of `clock::now`.
    timer_ms: u64,
    was_full: bool,
    link_number: u64,
}

impl Client {
    /// The server that this client is connected to.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// How it logged in.
    pub fn login(&self) -> LoginKind {
        self.login
    }

    /// A text that the server said of itself when the connection opened.
    pub fn server_property(&self, name: &str) -> Option<&str> {
        let mut properties = self.properties.iter();
        properties.find_map(|(key, value)| match value {
            Value::String(text) if key.as_str() == name => Some(text.as_str()),
            _ => None,
        })
    }

    // ---- what happens ----

    /// Waits for the next thing that happens. What was sent, settled and granted since the last call goes
    /// out once all events that have already arrived were handed out.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection is over; the client is of no use any more.
    pub async fn next(&mut self) -> Result<Wake, ClientError> {
        loop {
            if let Some(event) = self.early.pop_front() {
                return Ok(Wake::Event(event));
            }
            if let Some(event) = self.poll()? {
                return Ok(Wake::Event(event));
            }
            if self.exchange().await? {
                return Ok(Wake::Writable);
            }
        }
    }

    /// An event that has already arrived.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn try_next(&mut self) -> Result<Option<Event>, ClientError> {
        match self.early.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.poll(),
        }
    }

    fn poll(&mut self) -> Result<Option<Event>, ClientError> {
        match self.connection.poll_event() {
            Some(Event::Closed { error }) => {
                // Our answer to a close; if it does not get through, the server sees our end.
                let _ = self.write();
                Err(ClientError::Closed {
                    url: self.url.to_string(),
                    error,
                    login: self.login,
                })
            }
            Some(Event::Ended { error, .. }) => Err(self.refused("the session", error)),
            other => Ok(other),
        }
    }

    /// Writes what there is and waits until something arrives or time passes. True when output that was
    /// above its limit has left.
    async fn exchange(&mut self) -> Result<bool, ClientError> {
        self.connection.flush();
        if self.write()? {
            return Ok(true);
        }
        self.arm_timer();
        if self.input.capacity() - self.input.len() < READ_BYTES / 2 {
            self.input.reserve(READ_BYTES);
        }
        let has_output = !self.connection.output().is_empty()
            || self
                .tls
                .as_ref()
                .is_some_and(|tls| tls.session.has_output());
        let Self {
            stream, tls, input, ..
        } = self;
        tokio::select! {
            biased;
            read = read_some(stream, tls.as_mut(), input) => {
                let now_ms = clock::now().monotonic_ms;
                match read {
                    Ok(0) => self.connection.handle_eof(now_ms),
                    Ok(_) => self.connection.handle_bytes(now_ms, &mut self.input),
                    Err(error) => return Err(self.broken(error)),
                }
            }
            ready = stream.writable(), if has_output => {
                ready.map_err(|error| self.broken(error))?;
            }
            () = self.timer.as_mut() => {
                self.timer_ms = 0;
                self.connection.handle_timeout(clock::now().monotonic_ms);
            }
        }
        Ok(false)
    }

    /// Writes as much as the system takes now.
    fn write(&mut self) -> Result<bool, ClientError> {
        let output = self.connection.output();
        let written = match &mut self.tls {
            Some(tls) => tls.session.write(&self.stream, output).map(drop),
            None => write_plain(&self.stream, output),
        };
        match written {
            Ok(()) => {}
            // What the server said before it went must still be read.
            Err(_) if !self.connection.is_finished() => self.connection.output().clear(),
            Err(error) => return Err(self.broken(error)),
        }
        let is_full = self.connection.is_output_full();
        let has_room_again = self.was_full && !is_full;
        self.was_full = is_full;
        Ok(has_room_again)
    }

    /// Deadlines mostly move away: the timer is only set again when it would fire too late.
    fn arm_timer(&mut self) {
        let due_ms = self.connection.poll_timeout().unwrap_or(u64::MAX);
        if self.timer_ms != 0 && self.timer_ms <= due_ms {
            return;
        }
        let wait = match due_ms {
            u64::MAX => IDLE_TIMER,
            _ => Duration::from_millis(due_ms.saturating_sub(clock::now().monotonic_ms)),
        };
        self.timer.as_mut().reset(Instant::now() + wait);
        self.timer_ms = due_ms;
    }

    fn broken(&self, source: io::Error) -> ClientError {
        if is_tls(&source) {
            // With TLS 1.3 a server judges our certificate after the handshake.
            return ClientError::Tls {
                url: self.url.to_string(),
                reason: connect_failure(&source, &TOOL_NAMES, &self.url.host),
            };
        }
        ClientError::Broken {
            url: self.url.to_string(),
            source,
        }
    }

    fn refused(&self, what: &str, error: Option<ErrorCondition>) -> ClientError {
        ClientError::Refused {
            url: self.url.to_string(),
            what: String::from(what),
            error,
        }
    }

    // ---- what to do; goes out with the next call of `next` ----

    /// Whether [`Self::send`] would take a message now and its output is not yet too much.
    pub fn can_send(&self, link: LinkId) -> bool {
        self.connection.can_send(link)
    }

    /// Sends an encoded message; the outcome comes as [`Event::Disposition`] with the same token.
    ///
    /// # Errors
    /// There is no credit or no window, or the message is larger than the server takes.
    pub fn send(&mut self, link: LinkId, token: u64, message: &[u8]) -> Result<(), SendError> {
        self.connection
            .send(link, token, 0, &[message], false)
            .map(drop)
    }

    /// Answers a disposition that was not settled.
    pub fn settle_sent(&mut self, link: LinkId, delivery_id: u32) {
        self.connection.settle_sent(link, delivery_id);
    }

    /// Settles a message that was received.
    pub fn settle(&mut self, link: LinkId, delivery_id: u32, outcome: Outcome) {
        self.connection.settle(link, delivery_id, outcome);
    }

    /// Lets so many messages come on a link from now on.
    pub fn set_credit(&mut self, link: LinkId, credit: u32) {
        self.connection.set_credit(link, credit);
    }

    /// Writes what waits for the next call of [`Self::next`] as far as the system takes it now.
    ///
    /// # Errors
    /// The connection is over.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.connection.flush();
        self.write().map(drop)
    }

    /// A timer that is set when it is first needed.
    fn new_timer() -> Pin<Box<Sleep>> {
        Box::pin(sleep(IDLE_TIMER))
    }
}

fn write_plain(stream: &TcpStream, output: &mut BytesMut) -> io::Result<()> {
    while !output.is_empty() {
        match stream.try_write(output) {
            Ok(written) => output.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads behind what is in `input`. Dropping the future loses nothing.
async fn read_some(
    stream: &TcpStream,
    tls: Option<&mut Tls>,
    input: &mut BytesMut,
) -> io::Result<usize> {
    if let Some(Tls { session, cipher }) = tls {
        return poll_fn(|context| session.poll_read(context, stream, cipher, input)).await;
    }
    loop {
        match stream.try_read_buf(input) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            result => return result,
        }
    }
}
