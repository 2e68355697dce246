//! The thread that does the handshakes of TLS listeners.
//!
//! A handshake costs up to a millisecond of computing and waits for a stranger. Neither may hold up
//! the engine thread, so both happen here. Time and number are bounded: when there are too many, the
//! oldest is given up, so that those who dawdle never keep out those who do not.

use std::collections::VecDeque;
use std::io;
use std::thread::Builder;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{Live, accept_failure, common_name};

/// Handshakes under way.
const HANDSHAKES_MAX: usize = 256;
/// Connections that wait for the thread to take them.
const WAITING_MAX: usize = 64;
/// From the first byte of the handshake to the first byte behind it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a caller that was refused may take to read why; closing with unread input would make
/// the system take back the alert.
const LINGER: Duration = Duration::from_secs(1);

/// A connection with TLS, from which nothing behind the handshake was taken yet.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The first byte that was sent through it.
    pub(crate) first: u8,
    /// The common name of the client's certificate, which was verified.
    pub(crate) certificate_name: Option<String>,
}

struct Order {
    stream: std::net::TcpStream,
    reply: oneshot::Sender<Result<Secured, String>>,
}

/// The engine thread's end; clones are the same thread.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    orders: mpsc::Sender<Order>,
}

impl Handshakes {
    /// Starts the thread; it ends when the last clone is dropped.
    ///
    /// # Errors
    /// When thread or runtime cannot be made.
    pub(crate) fn start(config: Live<ServerConfig>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, receiver) = mpsc::channel(WAITING_MAX);
        Builder::new()
            .name("tls-handshakes".to_owned())
            .spawn(move || runtime.block_on(run(config, receiver)))?;
        Ok(Self { orders })
    }

    /// Does the handshake of a connection. `None`: the client went away, said nothing in time, or
    /// others crowded it out.
    ///
    /// # Errors
    /// Why there is no agreement.
    pub(crate) async fn secure(&self, stream: TcpStream) -> Option<Result<Secured, String>> {
        let stream = stream.into_std().ok()?;
        let (reply, answer) = oneshot::channel();
        let order = Order { stream, reply };
        timeout(HANDSHAKE, self.orders.send(order))
            .await
            .ok()?
            .ok()?;
        answer.await.ok()
    }
}

async fn run(config: Live<ServerConfig>, mut orders: mpsc::Receiver<Order>) {
    let mut tasks = JoinSet::new();
    let mut running: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(Order { stream, mut reply }) = order else {
                    break;
                };
                running.retain(|task| !task.is_finished());
                if running.len() >= HANDSHAKES_MAX
                    && let Some(oldest) = running.pop_front()
                {
                    oldest.abort();
                }
                let acceptor = TlsAcceptor::from(config.get());
                running.push_back(tasks.spawn(async move {
                    let answered = tokio::select! {
                        answered = timeout(HANDSHAKE, shake(acceptor, stream)) => answered,
                        () = reply.closed() => return,
                    };
                    if let Ok(Some(answer)) = answered {
                        // The server may be about to end.
                        let _ = reply.send(answer);
                    }
                }));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
    // Sockets of this runtime are in use as long as the server lives.
    while tasks.join_next().await.is_some() {}
}

/// One handshake, and the look at what follows it.
async fn shake(
    acceptor: TlsAcceptor,
    stream: std::net::TcpStream,
) -> Option<Result<Secured, String>> {
    let stream = TcpStream::from_std(stream).ok()?;
    // Failing only costs time.
    let _slower = stream.set_nodelay(true);
    let mut stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            let _cut_short = timeout(LINGER, read_out(stream)).await;
            return Some(Err(accept_failure(&error)));
        }
    };
    let first = match stream.fill_buf().await {
        Ok(bytes) => *bytes.first()?,
        Err(error) if crate::tls::is_tls(&error) => return Some(Err(accept_failure(&error))),
        Err(_) => return None,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate_name = certificates
        .and_then(|chain| chain.first())
        .and_then(common_name);
    Some(Ok(Secured {
        stream,
        first,
        certificate_name,
    }))
}

/// Takes what the other side still sends, until it has seen the end.
async fn read_out(mut stream: TcpStream) {
    // It may be gone.
    let _ = stream.shutdown().await;
    let mut sink = [0; 1024];
    while let Ok(1..) = stream.read(&mut sink).await {}
}
