//! Links between the servers of a pair.
//!
//! A link is a TCP connection to the other server's listener. The opener sends [`MAGIC`] where an
//! AMQP client sends its protocol header; after that both sides send one JSON object a line: what
//! they are, at once, at each change, and every `ft_heartbeat`. A side that will not talk to the
//! other says why in a line `{"refused": ...}` and closes. Where `ft_active` says `ssl://`, all of
//! this goes through TLS: the opener uses `ft_ssl_*`, the listener `ssl_*`.
//!
//! Nothing that a peer says is trusted beyond what the role makes of it: the lock of the store
//! decides who is active. Lines have a limit, as has their number, and a bad one ends only its
//! link.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::config::PeerUrl;
use crate::role::{LinkId, PeerNews, State};
use crate::tls::{ClientTls, LINK_NAMES, Live, connect_failure, is_tls};

/// What the opener of a link sends first.
pub(crate) const MAGIC: &[u8; 8] = b"STDFAST\x01";
/// Longest line that is read.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most lines in one second: heartbeats come at most a hundred times a second.
const LINES_PER_SECOND_MAX: u32 = 500;

/// A connection of either kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

type Reader = ReadHalf<Box<dyn Duplex>>;
type Writer = WriteHalf<Box<dyn Duplex>>;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The `server` parameter.
    pub(crate) server: String,
    /// Its state, as `/state` names it.
    pub(crate) role: String,
    /// The epoch that it owns or last owned.
    pub(crate) epoch: u64,
    /// Counts what this process says; peers use it to ignore what is out of date.
    #[serde(default)]
    pub(crate) beat: u64,
    /// Identity of the process.
    pub(crate) instance: String,
    /// Its listeners, as URLs.
    pub(crate) listens: Vec<String>,
    /// Identity of the store that it owns, in hexadecimal.
    #[serde(default)]
    pub(crate) store: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Refused { refused: String },
    Hello(Hello),
}

/// What happened to links.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// A link is up.
    Connected {
        link: LinkId,
        /// The `ft_active` peer that was called; `None` if it called us.
        peer: Option<usize>,
        news: PeerNews,
        listens: Vec<String>,
        store: Option<String>,
        /// Notified, it closes the link.
        hang_up: Arc<Notify>,
    },
    /// A peer spoke.
    Heard {
        link: LinkId,
        news: PeerNews,
        listens: Vec<String>,
        store: Option<String>,
    },
    /// A link that was up is gone.
    Lost { link: LinkId, reason: String },
    /// A call did not lead to a link.
    ConnectFailed {
        peer: usize,
        failure: ConnectFailure,
    },
    /// A call of another server was turned down.
    CallRefused { reason: String },
}

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// Nobody answers: what to expect of a server that is down.
    Unreachable(String),
    /// Somebody answers who is not a partner for us, or we are not for it.
    Refused(String),
    /// We called ourselves.
    Itself,
}

/// What all links of a server share.
#[derive(Clone)]
pub(crate) struct Links {
    /// What we say of ourselves; each change goes to every link.
    pub(crate) local: watch::Receiver<Hello>,
    pub(crate) events: mpsc::Sender<PeerEvent>,
    /// `ft_heartbeat`: the longest time that opening a link may take.
    pub(crate) heartbeat: Duration,
    pub(crate) next_link: Arc<AtomicU64>,
    /// For peers whose URL wants TLS.
    pub(crate) tls: Option<Live<ClientTls>>,
}

impl Links {
    /// Calls an `ft_active` peer and keeps the link until it breaks.
    pub(crate) async fn call(self, peer: usize, url: PeerUrl) {
        let failure = match timeout(self.heartbeat, self.open(&url)).await {
            Ok(Ok((link, hello))) => {
                return self.talk(link, Some(peer), url.to_string(), hello).await;
            }
            Ok(Err(failure)) => failure,
            Err(_) => {
                let after_ms = self.heartbeat.as_millis();
                ConnectFailure::Unreachable(format!("no answer within {after_ms} ms"))
            }
        };
        self.tell(PeerEvent::ConnectFailed { peer, failure }).await;
    }

    /// Answers a connection that began with [`MAGIC`] and keeps the link until it breaks.
    pub(crate) async fn answer(self, stream: Box<dyn Duplex>, address: SocketAddr) {
        let reason = match timeout(self.heartbeat, self.accept(stream)).await {
            Ok(Ok((link, hello))) => {
                let name = name_of_caller(&hello, address);
                return self.talk(link, None, name, hello).await;
            }
            Ok(Err(ConnectFailure::Refused(reason))) => reason,
            // A server that calls itself learns it as the caller; a caller that hangs up or says
            // nothing is no news.
            Ok(Err(ConnectFailure::Itself | ConnectFailure::Unreachable(_))) | Err(_) => return,
        };
        self.tell(PeerEvent::CallRefused {
            reason: format!("{address}: {reason}"),
        })
        .await;
    }

    /// Tells a caller, which did not use TLS, why there is no link.
    pub(crate) async fn refuse(&self, mut stream: TcpStream, refused: &str) {
        let refused = refused.to_owned();
        let Ok(line) = encode(&Line::Refused { refused }) else {
            return;
        };
        let told = async {
            // Closing with unread input would make the system take back what was said.
            stream.write_all(&line).await?;
            stream.shutdown().await?;
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _best_effort = timeout(self.heartbeat, told).await;
    }

    async fn open(&self, url: &PeerUrl) -> Result<(Stream, Hello), ConnectFailure> {
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = stream.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        if !url.is_tls {
            return self.begin(Box::new(stream)).await;
        }
        // It was prepared for every URL that wants it.
        let Some(tls) = self.tls.as_ref().map(Live::get) else {
            let reason = format!("{}: there is none", LINK_NAMES.trusted);
            return Err(ConnectFailure::Refused(reason));
        };
        let name = tls
            .server_name(&url.host)
            .map_err(ConnectFailure::Refused)?;
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        match connector.connect(name.clone(), stream).await {
            // With TLS 1.3 the other side judges our certificate after our handshake is over.
            Ok(stream) => self.begin(Box::new(stream)).await,
            Err(error) if is_tls(&error) => {
                let reason = connect_failure(&error, &LINK_NAMES, &name.to_str());
                Err(ConnectFailure::Refused(reason))
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    async fn begin(&self, stream: Box<dyn Duplex>) -> Result<(Stream, Hello), ConnectFailure> {
        let mut link = Stream::new(stream);
        link.writer.write_all(MAGIC).await.map_err(unreachable)?;
        let hello = self.greet(&mut link).await?;
        Ok((link, hello))
    }

    async fn accept(&self, stream: Box<dyn Duplex>) -> Result<(Stream, Hello), ConnectFailure> {
        let mut link = Stream::new(stream);
        let mut magic = [0; MAGIC.len()];
        link.reader
            .read_exact(&mut magic)
            .await
            .map_err(unreachable)?;
        if magic != *MAGIC {
            let reason = "it speaks another version of the peer protocol".to_owned();
            return Err(ConnectFailure::Refused(reason));
        }
        let hello = self.greet(&mut link).await?;
        Ok((link, hello))
    }

    /// Both sides say who they are.
    async fn greet(&self, link: &mut Stream) -> Result<Hello, ConnectFailure> {
        let local = self.local.borrow().clone();
        link.write(&Line::Hello(local.clone()))
            .await
            .map_err(unreachable)?;
        let hello = match link.read().await {
            Ok(Line::Hello(hello)) => hello,
            Ok(Line::Refused { refused }) => return Err(ConnectFailure::Refused(refused)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData && !is_tls(&error) => {
                return Err(ConnectFailure::Refused(format!(
                    "no Steadfast server: {error}"
                )));
            }
            Err(error) => return Err(unreachable(error)),
        };
        if hello.instance == local.instance {
            return Err(ConnectFailure::Itself);
        }
        if hello.server != local.server {
            let reason = format!(
                "`server` differs: {:?} here, {:?} there; both servers of a pair have the same",
                clip(&local.server),
                clip(&hello.server)
            );
            let refused = format!(
                "`server` differs: {:?} here, {:?} there; both servers of a pair have the same",
                clip(&hello.server),
                clip(&local.server)
            );
            // Best effort: the reason stands in our own log as well.
            let _ = link.write(&Line::Refused { refused }).await;
            return Err(ConnectFailure::Refused(reason));
        }
        Ok(hello)
    }

    async fn talk(&self, stream: Stream, peer: Option<usize>, name: String, hello: Hello) {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let store = hello.store.clone();
        let (news, listens) = split(hello, &name);
        let hang_up = Arc::new(Notify::new());
        let handle = Arc::clone(&hang_up);
        self.tell(PeerEvent::Connected {
            link,
            peer,
            news,
            listens,
            store,
            hang_up: handle,
        })
        .await;
        let Stream {
            mut reader,
            mut writer,
            mut buffer,
        } = stream;
        let result = tokio::select! {
            result = self.listen(link, &name, &mut reader, &mut buffer) => result,
            result = self.speak(&mut writer) => result,
            () = hang_up.notified() => return,
        };
        let reason = match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the connection was closed".to_owned()
            }
            Err(error) => error.to_string(),
            Ok(never) => match never {},
        };
        self.tell(PeerEvent::Lost { link, reason }).await;
    }

    async fn listen(
        &self,
        link: LinkId,
        name: &str,
        reader: &mut Reader,
        buffer: &mut BytesMut,
    ) -> io::Result<std::convert::Infallible> {
        let mut second = Instant::now();
        let mut lines = 0;
        loop {
            let line = read_line(reader, buffer).await?;
            if second.elapsed() >= Duration::from_secs(1) {
                (second, lines) = (Instant::now(), 0);
            }
            lines += 1;
            if lines > LINES_PER_SECOND_MAX {
                return Err(invalid("it sends too many messages"));
            }
            match line {
                Line::Hello(hello) => {
                    if hello.server != self.local.borrow().server {
                        return Err(invalid("its `server` name changed"));
                    }
                    let store = hello.store.clone();
                    let (news, listens) = split(hello, name);
                    self.tell(PeerEvent::Heard {
                        link,
                        news,
                        listens,
                        store,
                    })
                    .await;
                }
                Line::Refused { refused } => {
                    return Err(invalid(&format!("it refuses: {}", clip(&refused))));
                }
            }
        }
    }

    async fn speak(&self, writer: &mut Writer) -> io::Result<std::convert::Infallible> {
        let mut local = self.local.clone();
        loop {
            // The sender lives as long as the server.
            if local.changed().await.is_err() {
                return Err(invalid("this server ends"));
            }
            let hello = local.borrow_and_update().clone();
            writer.write_all(&encode(&Line::Hello(hello))?).await?;
        }
    }

    async fn tell(&self, event: PeerEvent) {
        // Nobody listens only while the process ends.
        let _ = self.events.send(event).await;
    }
}

struct Stream {
    reader: Reader,
    writer: Writer,
    buffer: BytesMut,
}

impl Stream {
    fn new(stream: Box<dyn Duplex>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            buffer: BytesMut::new(),
        }
    }

    async fn read(&mut self) -> io::Result<Line> {
        read_line(&mut self.reader, &mut self.buffer).await
    }

    async fn write(&mut self, line: &Line) -> io::Result<()> {
        self.writer.write_all(&encode(line)?).await
    }
}

fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

async fn read_line(reader: &mut Reader, buffer: &mut BytesMut) -> io::Result<Line> {
    let mut searched = 0;
    loop {
        let rest = buffer.get(searched..).unwrap_or_default();
        if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(searched + at);
            buffer.advance(1);
            return serde_json::from_slice(&line).map_err(|error| invalid(&error.to_string()));
        }
        searched = buffer.len();
        if searched >= LINE_BYTES_MAX {
            return Err(invalid(&format!(
                "a message is longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        buffer.reserve(1024);
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn split(hello: Hello, name: &str) -> (PeerNews, Vec<String>) {
    // A word of a later version is no claim that we could act on.
    let state = State::from_word(&hello.role).unwrap_or(State::Starting);
    let news = PeerNews {
        instance: hello.instance,
        name: name.to_owned(),
        state,
        epoch: hello.epoch,
        beat: hello.beat,
    };
    (news, hello.listens)
}

/// A caller is named by where it listens, as far as that says more than the port it called from.
fn name_of_caller(hello: &Hello, address: SocketAddr) -> String {
    let Some(first) = hello.listens.first().map(|url| clip(url)) else {
        return address.to_string();
    };
    let port = first.rsplit_once(':').map(|(_, port)| port);
    let scheme = first.split_once("://").map_or("tcp", |(scheme, _)| scheme);
    match port {
        Some(port) if first.contains("://[::]") || first.contains("://0.0.0.0") => {
            let host = address.ip().to_canonical();
            if host.is_ipv6() {
                format!("{scheme}://[{host}]:{port}")
            } else {
                format!("{scheme}://{host}:{port}")
            }
        }
        _ => first,
    }
}

/// What a peer sent, short enough for a log line.
fn clip(text: &str) -> String {
    text.chars().take(255).collect()
}

fn unreachable(error: io::Error) -> ConnectFailure {
    if is_tls(&error) {
        return ConnectFailure::Refused(connect_failure(&error, &LINK_NAMES, ""));
    }
    ConnectFailure::Unreachable(error.to_string())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
