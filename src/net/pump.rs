//! One task for each connection that moves bytes between its socket and the engine.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use crate::node::{ConnectionId, Now, Standby};

use super::clock;
use super::engine::{Engine, Mode};

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

/// The writing side of a socket, shared by its pump and by whoever has output for it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: OwnedWriteHalf,
    wake: Notify,
    /// The system's buffer is full: the pump waits for it.
    is_full: Cell<bool>,
    is_aborted: Cell<bool>,
    last_progress_ms: Cell<u64>,
}

impl Socket {
    fn new(stream: OwnedWriteHalf, now: Now) -> Self {
        Self {
            stream,
            wake: Notify::new(),
            is_full: Cell::new(false),
            is_aborted: Cell::new(false),
            last_progress_ms: Cell::new(now.monotonic_ms),
        }
    }

    /// Writes as much as the system takes now. Returns whether anything was written.
    pub(super) fn write(&self, now: Now, output: &mut BytesMut) -> bool {
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
pub(super) async fn run(engine: Engine, stream: TcpStream) {
    let _counted = Counted::new(&engine);
    // Without it small answers wait for the client's acknowledgements; failing only costs time.
    let _slower = stream.set_nodelay(true);
    match admission(&engine).await {
        Mode::Serve => serve(&engine, stream).await,
        Mode::Fail => {}
        Mode::Refuse | Mode::Hold | Mode::Stop => {
            let _cut_short = timeout(STANDBY_TALK, turn_away(&engine, stream)).await;
        }
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

async fn serve(engine: &Engine, stream: TcpStream) {
    let (mut reader, writer) = stream.into_split();
    let socket = Rc::new(Socket::new(writer, clock::now()));
    let Some(id) = engine.connect(&socket) else {
        return;
    };
    let is_orderly = pump(engine, &socket, &mut reader, id).await;
    engine.disconnect(id);
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
        if is_finished && is_written {
            return !is_ended;
        }
        if is_finished && last_output_until.is_none() {
            last_output_until = Some(Instant::now() + LAST_OUTPUT);
        }
        let may_read = !is_ended && !is_finished && engine.wants_input(id);
        tokio::select! {
            () = socket.wake.notified() => {}
            _ = socket.stream.writable(), if socket.is_full.get() => engine.writable(id),
            read = read_some(engine, reader, &mut input), if may_read => match read {
                Ok(0) => {
                    is_ended = true;
                    engine.ended(id);
                }
                Ok(bytes) => {
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
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
) -> io::Result<usize> {
    std::future::poll_fn(|context| {
        let mut buffer = engine.0.read_buffer.borrow_mut();
        buffer.clear();
        buffer.reserve(READ_BYTES + input.len());
        buffer.extend_from_slice(input);
        let mut room = (&mut *buffer).limit_to(READ_BYTES);
        let read = pin!(reader.read_buf(&mut room)).poll(context);
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

async fn discard(reader: &mut OwnedReadHalf) {
    let mut sink = [0; 4096];
    while let Ok(1..) = reader.read(&mut sink).await {}
}

/// Tells a client that this server is not active.
async fn turn_away(engine: &Engine, mut stream: TcpStream) {
    let mut standby = Standby::new(&engine.0.settings.node, engine.active(), clock::now());
    let mut input = BytesMut::with_capacity(4096);
    loop {
        let mut output = standby.output().split();
        if stream.write_all_buf(&mut output).await.is_err() {
            return;
        }
        if standby.is_finished() {
            break;
        }
        input.reserve(4096);
        match stream.read_buf(&mut input).await {
            Ok(1..) => standby.handle_bytes(clock::now(), &mut input),
            Ok(0) | Err(_) => return,
        }
    }
    let (mut reader, writer) = stream.into_split();
    drop(writer);
    let _cut_short = timeout(LINGER, discard(&mut reader)).await;
}
