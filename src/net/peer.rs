//! Links between the servers of a pair.
//!
//! A link is a TCP connection to the other server's listener. The opener sends [`MAGIC`] where an
//! AMQP client sends its protocol header; after that both sides send one JSON object a line. The
//! opener says who calls, the listener answers; where `authorization` is enabled, each then proves to the
//! other that it knows the password ([`pair_login`](super::pair_login)). Only after that do both say what they are, at once, at each
//! change, and every `ft_heartbeat`, and compare their configurations
//! ([`super::comparison`]). A side that will not talk to the other says why in a line
//! `{"refused": ...}` and closes. Where the URL says `ssl://`, all of this goes through TLS: the
//! opener uses `ft_ssl_*`, the listener `ssl_*`.
//!
//! Servers of a pair (`ft_active`) share a store, and the role hears what they say. Others
//! (`unshared_peer`) only compare their configurations.
//!
//! Nothing that a peer says is trusted beyond what the role makes of it: the lock of the store
//! decides who is active. Lines have a limit, as has their number, and a bad one ends only its
//! link.

mod agree;
mod line;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::comparison::{self, Incoming, Told};
use super::pair_login::Login;
use crate::config::{Facts, PeerUrl};
use crate::role::{LinkId, PeerNews, State};
use crate::tls::{ClientTls, Live};

use agree::Agreed;
pub(crate) use line::{Duplex, Hello, MAGIC, Relation};
use line::{LINE_BYTES_MAX, Line, Reader, Stream, Writer, clip, encode, invalid, read_line};

/// Longest pause before the next call of a server that shares nothing with this one.
const UNSHARED_PAUSE: Duration = Duration::from_secs(1);
/// Heartbeats after which such a server that says nothing is gone.
const UNSHARED_SILENCE: u32 = 4;
/// Most lines in one second: heartbeats come at most a hundred times a second.
const LINES_PER_SECOND_MAX: u32 = 500;

/// What happened to links.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// A link is up.
    Connected {
        link: LinkId,
        /// The `ft_active` peer that was called; `None` if it called us.
        peer: Option<usize>,
        relation: Relation,
        /// The `server` parameter of the peer.
        server: String,
        news: PeerNews,
        listens: Vec<String>,
        /// Identity of the store that the peer owns; `None` also where a caller may be anybody: a server ends
        /// for this word, so it is taken only from who was called at its configured address or has logged in.
        store: Option<String>,
        /// Notified, it closes the link.
        hang_up: Arc<Notify>,
    },
    /// A peer spoke.
    Heard {
        link: LinkId,
        news: PeerNews,
        listens: Vec<String>,
        /// As above.
        store: Option<String>,
    },
    /// The configurations of the two servers were compared.
    Compared {
        link: LinkId,
        differences: Vec<String>,
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
    /// How to log in and be logged in to.
    pub(crate) login: watch::Receiver<Arc<Login>>,
    /// What is compared with the other server; `None` until it is gathered.
    pub(crate) facts: watch::Receiver<Option<Arc<Facts>>>,
    /// Whether calls of servers that share nothing with this one are taken.
    pub(crate) has_unshared: bool,
}

impl Links {
    /// Calls an `ft_active` peer and keeps the link until it breaks.
    pub(crate) async fn call(self, peer: usize, url: PeerUrl) {
        match self.reach(&url, Relation::Pair).await {
            Ok(agreed) => self.talk(agreed, Some(peer), url.to_string()).await,
            Err(failure) => self.tell(PeerEvent::ConnectFailed { peer, failure }).await,
        }
    }

    /// Calls a server that shares nothing with this one, again and again as long as this one lives.
    pub(crate) async fn keep_calling(self, url: PeerUrl) {
        loop {
            match self.reach(&url, Relation::Unshared).await {
                Ok(agreed) => self.talk(agreed, None, url.to_string()).await,
                // It is down, which is for its own clients to notice.
                Err(ConnectFailure::Unreachable(_)) => {}
                Err(ConnectFailure::Itself) => {
                    let reason = format!("unshared_peer: {url} is this server itself; remove it");
                    self.tell(PeerEvent::CallRefused { reason }).await;
                    return;
                }
                Err(ConnectFailure::Refused(reason)) => {
                    let reason = format!("unshared_peer: {url}: {reason}");
                    self.tell(PeerEvent::CallRefused { reason }).await;
                }
            }
            sleep(self.heartbeat.min(UNSHARED_PAUSE)).await;
        }
    }

    /// Answers a connection that began with [`MAGIC`] and keeps the link until it breaks.
    pub(crate) async fn answer(self, stream: Box<dyn Duplex>, address: SocketAddr) {
        let reason = match self.accept(stream).await {
            Ok(agreed) => {
                let name = name_of_caller(&agreed.hello, address);
                return self.talk(agreed, None, name).await;
            }
            Err(ConnectFailure::Refused(reason)) => reason,
            // A server that calls itself learns it as the caller; a caller that hangs up or says
            // nothing is no news.
            Err(ConnectFailure::Itself | ConnectFailure::Unreachable(_)) => return,
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

    async fn talk(&self, agreed: Agreed, peer: Option<usize>, name: String) {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let Agreed {
            stream,
            hello,
            relation,
            has_logged_in,
        } = agreed;
        let is_known = peer.is_some() || has_logged_in;
        let store = hello.store.clone().filter(|_| is_known);
        let server = hello.server.clone();
        let (news, listens) = split(hello, &name);
        let hang_up = Arc::new(Notify::new());
        let handle = Arc::clone(&hang_up);
        self.tell(PeerEvent::Connected {
            link,
            peer,
            relation,
            server: server.clone(),
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
        let ear = Ear {
            links: self,
            link,
            name: &name,
            server: &server,
            relation,
            is_known,
        };
        let result = tokio::select! {
            result = ear.listen(&mut reader, &mut buffer) => result,
            result = self.speak(&mut writer) => result,
            () = self.login_is_missing(has_logged_in) => {
                Err(invalid("authorization is enabled here now: the peer has to log in"))
            }
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

    /// Comes to an end when the other side has to log in and has not.
    async fn login_is_missing(&self, has_logged_in: bool) {
        let mut login = self.login.clone();
        let waited = login.wait_for(|login| login.is_required && !has_logged_in);
        if waited.await.is_err() {
            // This server ends.
            std::future::pending::<()>().await;
        }
    }

    async fn speak(&self, writer: &mut Writer) -> io::Result<std::convert::Infallible> {
        let (mut local, mut facts) = (self.local.clone(), self.facts.clone());
        let ends = |_| invalid("this server ends");
        facts.mark_changed();
        loop {
            // Both senders live as long as the server.
            tokio::select! {
                changed = local.changed() => {
                    changed.map_err(ends)?;
                    let hello = local.borrow_and_update().clone();
                    writer.write_all(&encode(&Line::Hello(hello))?).await?;
                }
                changed = facts.changed() => {
                    changed.map_err(ends)?;
                    let Some(facts) = facts.borrow_and_update().clone() else {
                        continue;
                    };
                    let parts = spawn_blocking(move || comparison::parts(&facts)).await;
                    for facts in parts.map_err(io::Error::other)? {
                        writer.write_all(&encode(&Line::Facts { facts })?).await?;
                    }
                }
            }
        }
    }

    async fn tell(&self, event: PeerEvent) {
        // Nobody listens only while the process ends.
        let _ = self.events.send(event).await;
    }
}

/// What listens to one link that is up.
struct Ear<'a> {
    links: &'a Links,
    link: LinkId,
    name: &'a str,
    /// The `server` parameter of the peer.
    server: &'a str,
    relation: Relation,
    /// Whether the peer is who it says: this server called it at its configured address, or it has logged in.
    is_known: bool,
}

impl Ear<'_> {
    async fn listen(
        &self,
        reader: &mut Reader,
        buffer: &mut BytesMut,
    ) -> io::Result<std::convert::Infallible> {
        let mut facts = self.links.facts.clone();
        let (mut incoming, mut told) = (Incoming::default(), None);
        let mut second = Instant::now();
        let mut lines = 0;
        // The role looks after the servers of a pair.
        let silence = self.links.heartbeat.max(UNSHARED_PAUSE) * UNSHARED_SILENCE;
        loop {
            let line = tokio::select! {
                line = read_line(reader, buffer, LINE_BYTES_MAX) => line?,
                Ok(()) = facts.changed() => {
                    self.compare(&facts, told.as_ref()).await?;
                    continue;
                }
                () = sleep_until(Instant::now() + silence), if self.relation == Relation::Unshared => {
                    return Err(invalid("it says nothing any more"));
                }
            };
            if second.elapsed() >= Duration::from_secs(1) {
                (second, lines) = (Instant::now(), 0);
            }
            lines += 1;
            if lines > LINES_PER_SECOND_MAX {
                return Err(invalid("it sends too many messages"));
            }
            match line {
                Line::Hello(hello) => self.heard(hello).await?,
                Line::Facts { facts: part } => {
                    if let Some(whole) = incoming.take(part).map_err(invalid)? {
                        told = Some(Arc::new(whole));
                        self.compare(&facts, told.as_ref()).await?;
                    }
                }
                Line::Refused { refused } => {
                    return Err(invalid(&format!("it refuses: {}", clip(&refused))));
                }
                Line::Call { .. } | Line::Answer { .. } | Line::Login { .. } => {
                    return Err(invalid("it says something out of place"));
                }
            }
        }
    }

    async fn heard(&self, hello: Hello) -> io::Result<()> {
        if hello.server != self.server {
            return Err(invalid("its `server` name changed"));
        }
        let store = hello.store.clone().filter(|_| self.is_known);
        let (news, listens) = split(hello, self.name);
        let link = self.link;
        self.links
            .tell(PeerEvent::Heard {
                link,
                news,
                listens,
                store,
            })
            .await;
        Ok(())
    }

    /// Says what differs, as far as both are known.
    async fn compare(
        &self,
        facts: &watch::Receiver<Option<Arc<Facts>>>,
        told: Option<&Arc<Told>>,
    ) -> io::Result<()> {
        let facts = facts.borrow().clone();
        let (Some(facts), Some(told)) = (facts, told.cloned()) else {
            return Ok(());
        };
        let is_shared = self.relation == Relation::Pair;
        let compared = spawn_blocking(move || comparison::compare(&facts, &told, is_shared)).await;
        let differences = compared.map_err(io::Error::other)?;
        let link = self.link;
        let event = PeerEvent::Compared { link, differences };
        self.links.tell(event).await;
        Ok(())
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

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
