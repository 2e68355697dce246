//! Bounds for the monitor's connections: few at a time, none idle for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::tls::Live;

/// Connections at a time; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
/// Longer than Prometheus scrapes are apart, so that its connection stays.
const IDLE: Duration = Duration::from_secs(90);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are ready to be served. Handshakes go on beside each other.
pub(super) struct Bounded {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    address: io::Result<SocketAddr>,
}

impl Bounded {
    /// Accepts in a task of its own.
    pub(super) fn start(listener: TcpListener, tls: Option<Live<ServerConfig>>) -> Self {
        let (sender, ready) = mpsc::channel(1);
        let address = listener.local_addr();
        tokio::spawn(accept(listener, tls, sender));
        Self { ready, address }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Live<ServerConfig>>,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Ok((stream, address)) = listener.accept().await else {
            // Out of descriptors, or the client is gone again.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let acceptor = tls.as_ref().map(|live| TlsAcceptor::from(live.get()));
        let ready = ready.clone();
        tokio::spawn(async move {
            let Some(stream) = secure(stream, acceptor).await else {
                return;
            };
            let connection = Connection {
                stream,
                idle: Box::pin(sleep(IDLE)),
                _permit: permit,
            };
            // Nobody takes it only while the process ends.
            let _ = ready.send((connection, address)).await;
        });
    }
}

async fn secure(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> Option<Box<dyn Duplex>> {
    let Some(acceptor) = acceptor else {
        return Some(Box::new(stream));
    };
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await;
    Some(Box::new(stream.ok()?.ok()?))
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}

/// A connection of either kind.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that ends when nothing is read from it for [`IDLE`].
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if result.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return result;
        }
        if self.idle.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
