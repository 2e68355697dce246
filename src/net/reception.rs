//! An administrator's connection to a server that does not serve clients.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::admin::{Call, ReplyTo};
use super::clock;
use super::engine::{Engine, Mode};
use crate::node::{ManagementReply, Standby};

/// Connections of administrators at a time.
const MANAGERS_MAX: usize = 16;
/// Answers of one connection that may wait to be written.
const ANSWERS_MAX: usize = 32;
/// How long an administrator's side may take what it is sent.
const WRITE: Duration = Duration::from_secs(30);
/// How often idle time-outs are looked at when none is due.
const IDLE: Duration = Duration::from_secs(60);
/// Room for one read.
const READ_BYTES: usize = 16 << 10;

thread_local! {
    /// Administrators' connections on this thread, which is the engine's.
    static MANAGERS: Cell<usize> = const { Cell::new(0) };
}

struct Counted;

impl Counted {
    fn new() -> Option<Self> {
        let open = MANAGERS.get();
        (open < MANAGERS_MAX).then(|| {
            MANAGERS.set(open + 1);
            Self
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        MANAGERS.set(MANAGERS.get().saturating_sub(1));
    }
}

/// Serves until either side ends the connection, or the server becomes active.
pub(super) async fn serve(
    engine: &Engine,
    standby: &mut Standby,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: Option<IpAddr>,
    input: &mut BytesMut,
) {
    let Some(_counted) = Counted::new() else {
        standby.close();
        let _gone = write(standby, stream).await;
        return;
    };
    let (sender, mut answers) = mpsc::channel::<(u64, ManagementReply)>(ANSWERS_MAX);
    let mut mode = engine.mode();
    loop {
        while let Some((number, message)) = standby.poll_request() {
            let call = Call {
                user: standby.user().map(str::to_owned),
                is_verified: standby.user().is_some(),
                address,
                message,
                reply_to: ReplyTo::Standby(sender.clone(), number),
            };
            engine.call(call);
        }
        if !write(standby, stream).await || standby.is_finished() {
            return;
        }
        let due = standby.poll_timeout();
        let wait = due.map_or(IDLE, |due| {
            Duration::from_millis(due.saturating_sub(clock::now().monotonic_ms))
                .max(Duration::from_millis(1))
        });
        input.reserve(READ_BYTES);
        tokio::select! {
            read = stream.read_buf(input) => match read {
                Ok(1..) => standby.handle_bytes(clock::now(), input),
                Ok(0) | Err(_) => return,
            },
            Some((number, reply)) = answers.recv() => standby.reply(number, reply),
            () = sleep(wait) => standby.handle_timeout(clock::now()),
            changed = mode.wait_for(|mode| !matches!(mode, Mode::Refuse | Mode::Hold)) => {
                // The last word of a server that stops is its answer to `shutdown`.
                drop(changed);
                while let Ok((number, reply)) = answers.try_recv() {
                    standby.reply(number, reply);
                }
                standby.close();
                write(standby, stream).await;
                return;
            }
        }
    }
}

/// Writes what there is; false when the client is gone.
async fn write(standby: &mut Standby, stream: &mut (impl AsyncWrite + Unpin)) -> bool {
    let mut output = standby.output().split();
    let written = async {
        stream.write_all_buf(&mut output).await?;
        stream.flush().await
    };
    matches!(timeout(WRITE, written).await, Ok(Ok(())))
}
