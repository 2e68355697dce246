//! One task for each connection that moves bytes between its socket and the engine.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::node::{Caller, CertificateUser, ConnectionId, Now, Standby};

use super::clock;
use super::engine::{Engine, Mode};
use super::reception;
use super::session::TlsSession;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Input up to this size is copied out of the buffer that all sockets share.
const COPIED_BYTES: usize = 16 << 10;
/// How long a closed connection may take to take its last output.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// How long a client may take to end its side after us; what it sends meanwhile is dropped. Closing
/// with unread input would make the system take back output that the client has not read.
const LINGER: Duration = Duration::from_secs(1);
/// How long a standby talks with a client.
const STANDBY_TALK: Duration = Duration::from_secs(10);

/// A client's connection, from which nothing was taken yet.
#[derive(Debug)]
pub(super) enum Incoming {
    Plain(TcpStream),
    /// The handshake of TLS is over.
    Secure {
        stream: Box<TlsStream<TcpStream>>,
        /// What the client's certificate says.
        user: Option<CertificateUser>,
    },
}

/// The writing side of a socket, shared by its pump and by whoever has output for it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: OwnedWriteHalf,
    /// For both directions.
    tls: Option<Box<RefCell<TlsSession>>>,
    wake: Notify,
    /// The system's buffer is full: the pump waits for it.
    is_full: Cell<bool>,
    is_aborted: Cell<bool>,
    last_progress_ms: Cell<u64>,
}

impl Socket {
    fn new(stream: OwnedWriteHalf, tls: Option<TlsSession>, now: Now) -> Self {
        Self {
            stream,
            tls: tls.map(|tls| Box::new(RefCell::new(tls))),
            wake: Notify::new(),
            is_full: Cell::new(false),
            is_aborted: Cell::new(false),
            last_progress_ms: Cell::new(now.monotonic_ms),
        }
    }

    /// Where the client is.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Writes as much as the system takes now. Returns whether anything was written.
    pub(super) fn write(&self, now: Now, output: &mut BytesMut) -> bool {
        if let Some(tls) = &self.tls {
            return self.write_tls(&mut tls.borrow_mut(), now, output);
        }
        let before = output.len();
        self.is_full.set(false);
        while !output.is_empty() && !self.is_aborted.get() {
            match self.stream.try_write(output) {
                Ok(written) => output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_full.set(true);
                    self.wake();
                    break;
                }
                Err(_) => self.abort(),
            }
        }
        if before == 0 || output.len() < before {
            self.last_progress_ms.set(now.monotonic_ms);
        }
        output.len() < before
    }

    fn write_tls(&self, tls: &mut TlsSession, now: Now, output: &mut BytesMut) -> bool {
        let before = output.len();
        self.is_full.set(false);
        if self.is_aborted.get() {
            return false;
        }
        match tls.write(self.stream.as_ref(), output) {
            Ok(written) => {
                if written.is_full {
                    self.is_full.set(true);
                    self.wake();
                }
                if written.is_progress || !written.is_full {
                    self.last_progress_ms.set(now.monotonic_ms);
                }
            }
            Err(_) => self.abort(),
        }
        output.len() < before
    }

    /// Whether output that was taken waits here for the system.
    pub(super) fn has_output(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.borrow().has_output())
    }

    /// Nothing is to be written for now, however ready the system is.
    pub(super) fn rest(&self) {
        self.is_full.set(false);
    }

    /// Lets the pump look at the connection.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the connection without another word.
    pub(super) fn abort(&self) {
        self.is_aborted.set(true);
        self.wake();
    }

    /// Whether the client has taken nothing for so long although there is something.
    pub(super) fn is_stuck(&self, now: Now, stuck_ms: u64) -> bool {
        self.is_full.get()
            && now.monotonic_ms.saturating_sub(self.last_progress_ms.get()) > stuck_ms
    }
}

/// Counts open sockets.
struct Counted<'a>(&'a Engine);

impl<'a> Counted<'a> {
    fn new(engine: &'a Engine) -> Self {
        let open = &engine.0.sockets_open;
        open.set(open.get() + 1);
        Self(engine)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let open = &self.0.0.sockets_open;
        open.set(open.get().saturating_sub(1));
    }
}

/// Serves a connection to its end.
pub(super) async fn run(engine: Engine, incoming: Incoming) {
    let _counted = Counted::new(&engine);
    if let Incoming::Plain(stream) = &incoming {
        // Without it small answers wait for the client's acknowledgements; failing only costs time.
        let _slower = stream.set_nodelay(true);
    }
    match (admission(&engine).await, incoming) {
        (Mode::Serve, incoming) => serve(&engine, incoming).await,
        (Mode::Fail, _) => {}
        (Mode::Refuse | Mode::Hold | Mode::Stop, Incoming::Plain(stream)) => {
            let caller = caller(&stream, None);
            turn_away(&engine, stream, caller).await;
        }
        (Mode::Refuse | Mode::Hold | Mode::Stop, Incoming::Secure { stream, user }) => {
            let caller = caller(stream.get_ref().0, user);
            turn_away(&engine, stream, caller).await;
        }
    }
}

/// What is known of a client before it speaks.
fn caller(stream: &TcpStream, certificate: Option<CertificateUser>) -> Caller {
    let address = stream.peer_addr().ok();
    Caller {
        address: address.map(|address| address.ip().to_canonical()),
        certificate,
    }
}

/// Waits while the connection is held.
async fn admission(engine: &Engine) -> Mode {
    let mut mode = engine.mode();
    let hold = Duration::from_millis(engine.0.settings.hold_ms);
    let decided = mode.wait_for(|mode| *mode != Mode::Hold);
    match timeout(hold, decided).await {
        Ok(Ok(mode)) => *mode,
        Ok(Err(_)) | Err(_) => Mode::Hold,
    }
}

async fn serve(engine: &Engine, incoming: Incoming) {
    let (stream, tls, user) = match incoming {
        Incoming::Plain(stream) => (stream, None, None),
        Incoming::Secure { stream, user } => {
            let (stream, tls) = stream.into_inner();
            // Until now the socket belonged to the thread of the handshakes.
            let Ok(stream) = stream.into_std().and_then(TcpStream::from_std) else {
                return;
            };
            (stream, Some(TlsSession::new(tls)), user)
        }
    };
    let caller = caller(&stream, user);
    let (mut reader, writer) = stream.into_split();
    let socket = Rc::new(Socket::new(writer, tls, clock::now()));
    let Some(id) = engine.connect(&socket, caller) else {
        return;
    };
    let is_orderly = pump(engine, &socket, &mut reader, id).await;
    engine.disconnect(id);
    if let Some(tls) = &socket.tls {
        tls.borrow_mut().end(socket.stream.as_ref());
    }
    // The last owner of the writing side: dropping it sends FIN.
    drop(socket);
    if is_orderly {
        let _cut_short = timeout(LINGER, discard(&mut reader)).await;
    }
}

/// Moves bytes until the connection is over. Returns whether it ended by agreement.
async fn pump(
    engine: &Engine,
    socket: &Socket,
    reader: &mut OwnedReadHalf,
    id: ConnectionId,
) -> bool {
    let mut input = BytesMut::new();
    let mut is_ended = false;
    let mut last_output_until = None;
    loop {
        if socket.is_aborted.get() {
            return false;
        }
        let (is_finished, is_written) = engine.is_finished(id);
        if is_finished && is_written && !socket.has_output() {
            return !is_ended;
        }
        if is_finished && last_output_until.is_none() {
            last_output_until = Some(Instant::now() + LAST_OUTPUT);
        }
        let may_read = !is_ended && !is_finished && engine.wants_input(id);
        tokio::select! {
            () = socket.wake.notified() => {}
            _ = socket.stream.writable(), if socket.is_full.get() => engine.writable(id),
            read = read_some(engine, socket, reader, &mut input), if may_read => match read {
                Ok(0) => {
                    is_ended = true;
                    engine.ended(id);
                }
                Ok(bytes) => {
                    if socket.has_output() {
                        // TLS itself may have something to answer.
                        socket.is_full.set(true);
                    }
                    take_input(engine, id, &mut input);
                    if bytes >= READ_BYTES {
                        // There is more: others come first.
                        yield_now().await;
                    }
                }
                Err(_) => return false,
            },
            () = sleep_until(last_output_until.unwrap_or_else(Instant::now)),
                if last_output_until.is_some() => return false,
        }
    }
}

fn take_input(engine: &Engine, id: ConnectionId, input: &mut BytesMut) {
    engine.received(id, input);
    // What is left of a frame must not keep the shared buffer.
    *input = if input.is_empty() {
        BytesMut::new()
    } else {
        BytesMut::from(&input[..])
    };
}

/// Reads behind what is left in `input`, through the buffer that all sockets share: idle
/// connections hold no memory.
async fn read_some(
    engine: &Engine,
    socket: &Socket,
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
) -> io::Result<usize> {
    std::future::poll_fn(|context| {
        let mut buffer = engine.0.read_buffer.borrow_mut();
        buffer.clear();
        buffer.reserve(READ_BYTES + input.len());
        buffer.extend_from_slice(input);
        let read = if let Some(tls) = &socket.tls {
            let mut cipher = engine.0.cipher_buffer.borrow_mut();
            let stream: &TcpStream = reader.as_ref();
            tls.borrow_mut()
                .poll_read(context, stream, &mut cipher, &mut buffer)
        } else {
            let mut room = (&mut *buffer).limit_to(READ_BYTES);
            pin!(reader.read_buf(&mut room)).poll(context)
        };
        if let Poll::Ready(Ok(1..)) = read {
            // Parts of an unfinished message keep the buffer that they were read into: little input
            // must not keep a large one.
            *input = if buffer.len() <= COPIED_BYTES {
                BytesMut::from(&buffer[..])
            } else {
                buffer.split()
            };
        }
        read
    })
    .await
}

/// Bounds how much is read into a buffer.
trait LimitTo: Sized {
    fn limit_to(self, bytes: usize) -> bytes::buf::Limit<Self>;
}

impl LimitTo for &mut BytesMut {
    fn limit_to(self, bytes: usize) -> bytes::buf::Limit<Self> {
        bytes::BufMut::limit(self, bytes)
    }
}

async fn discard(reader: &mut (impl AsyncRead + Unpin)) {
    let mut sink = [0; 4096];
    while let Ok(1..) = reader.read(&mut sink).await {}
}

/// Tells a client that this server is not active; an administrator may stay.
async fn turn_away(
    engine: &Engine,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    caller: Caller,
) {
    let settings = &engine.0.settings.node;
    let address = caller.address;
    let who = (caller, engine.users());
    let mut standby = Standby::new(settings, engine.active(), who, clock::now());
    let mut input = BytesMut::with_capacity(4096);
    let talk = talk(engine, &mut standby, &mut stream, &mut input);
    match timeout(STANDBY_TALK, talk).await {
        Ok(true) => {}
        Ok(false) | Err(_) => return,
    }
    if standby.is_manager() {
        reception::serve(engine, &mut standby, &mut stream, address, &mut input).await;
    }
    if stream.shutdown().await.is_ok() {
        let _cut_short = timeout(LINGER, discard(&mut stream)).await;
    }
}

/// Talks until all is said, or an administrator was let in. False when the client is gone.
async fn talk(
    engine: &Engine,
    standby: &mut Standby,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    input: &mut BytesMut,
) -> bool {
    loop {
        while let Some(task) = standby.poll_login() {
            let judgement = engine.0.logins.judge(task).await;
            standby.login_done(judgement, engine.users().as_ref());
        }
        let mut output = standby.output().split();
        let written = stream.write_all_buf(&mut output).await;
        if written.is_err() || stream.flush().await.is_err() {
            return false;
        }
        if standby.is_finished() || standby.is_manager() {
            return true;
        }
        input.reserve(4096);
        match stream.read_buf(input).await {
            Ok(1..) => standby.handle_bytes(clock::now(), input),
            Ok(0) | Err(_) => return false,
        }
    }
}
