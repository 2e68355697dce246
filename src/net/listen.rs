//! Listeners: bound in every role, clients and peers on the same port.
//!
//! The first byte tells them apart: an AMQP client begins with `AMQP`, a peer with `STDFAST`. On a
//! listener with TLS it is the first byte behind the handshake.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::engine::Engine;
use super::handshakes::Handshakes;
use super::peer::{Duplex, Links, MAGIC};
use crate::config::{Config, ListenUrl, TlsFiles};
use crate::node::CertificateUser;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// A client that has not sent a byte for so long is closed.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Pause after an error of accept: mostly "too many open files", which takes time to heal.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Links that peers may have opened at a time.
const CALLERS_MAX: usize = 16;
/// Open files that are not client connections: segments, checkpoint, log, monitor, peers.
const FILES_RESERVED: u64 = 160;
/// What a TLS handshake begins with.
const TLS_HANDSHAKE: u8 = 22;
/// The same refusal is logged again after so long.
const REFUSAL_REPEAT: Duration = Duration::from_secs(600);
/// Different refusals are at least so far apart in the log.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// Bound listeners.
pub(crate) struct Listeners {
    /// Each with whether it speaks TLS.
    sockets: Vec<(TcpListener, bool)>,
    /// Their real addresses as URLs, one for each `listen` value.
    pub(crate) urls: Vec<String>,
    /// The same, as values.
    pub(crate) places: Vec<ListenUrl>,
}

/// Who guards the door of the listeners with TLS.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) handshakes: Handshakes,
    is_name_forced: bool,
    name_request: Option<String>,
}

impl Guard {
    pub(crate) fn new(handshakes: Handshakes, files: &TlsFiles) -> Self {
        Self {
            handshakes,
            is_name_forced: files.use_cert_username,
            name_request: files.cert_user_specname.clone(),
        }
    }

    fn user(&self, name: String) -> CertificateUser {
        CertificateUser {
            name,
            is_forced: self.is_name_forced,
            request: self.name_request.clone(),
        }
    }
}

impl Listeners {
    /// Binds all `listen` values.
    ///
    /// # Errors
    /// A message that names the parameter and the value.
    pub(crate) async fn bind(config: &Config) -> Result<Self, String> {
        let mut listeners = Self {
            sockets: Vec::new(),
            urls: Vec::new(),
            places: Vec::new(),
        };
        for listen in &config.listens {
            let fault = |error: io::Error| {
                format!("listen: {listen}: {error}; stop what uses it, or choose another port")
            };
            let sockets = bind(listen).await.map_err(fault)?;
            let first = sockets
                .first()
                .ok_or_else(|| fault(io::ErrorKind::NotFound.into()))?;
            let port = first.local_addr().map_err(fault)?.port();
            let real = ListenUrl {
                port,
                ..listen.clone()
            };
            // Clients are shown a form that any URL parser takes.
            let url = real.to_string().replace("//*:", "//0.0.0.0:");
            listeners.urls.push(url);
            listeners.places.push(real);
            let sockets = sockets.into_iter().map(|socket| (socket, listen.is_tls));
            listeners.sockets.extend(sockets);
        }
        Ok(listeners)
    }

    /// Accepts connections until the process ends; to be called on the engine thread.
    pub(crate) fn accept(
        self,
        engine: &Engine,
        links: &Links,
        connections_max: u64,
        guard: Option<Guard>,
    ) {
        let door = Rc::new(Door {
            engine: engine.clone(),
            links: links.clone(),
            connections_max,
            guard,
            unknown: Cell::new(0),
            callers: Cell::new(0),
            is_full: Cell::new(false),
            refusal: RefCell::new(None),
        });
        for (socket, is_tls) in self.sockets {
            spawn_local(accept(Rc::clone(&door), socket, is_tls));
        }
    }
}

/// All addresses of a listener; the first must succeed, later ones need not exist on this host.
async fn bind(listen: &ListenUrl) -> io::Result<Vec<TcpListener>> {
    let Some(host) = &listen.host else {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, listen.port));
        // Without IPv6 on this host, IPv4 is all.
        let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port));
        return Ok(vec![bind_one(all).or_else(|_| bind_one(all_v4))?]);
    };
    let mut sockets: Vec<TcpListener> = Vec::new();
    for mut address in lookup_host((host.as_str(), listen.port)).await? {
        if let Some(first) = sockets.first() {
            address.set_port(first.local_addr()?.port());
        }
        match bind_one(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if sockets.is_empty() => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(_) if listen.port == 0 => {}
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the host has no address",
        ));
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted server must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What the accept loops share.
struct Door {
    engine: Engine,
    links: Links,
    connections_max: u64,
    /// Present when a listener speaks TLS.
    guard: Option<Guard>,
    /// Connections that have not sent their first byte.
    unknown: Cell<u64>,
    callers: Cell<usize>,
    /// Connections are being turned away.
    is_full: Cell<bool>,
    /// The last handshake that failed, as it was logged.
    refusal: RefCell<Option<(Instant, String)>>,
}

async fn accept(door: Rc<Door>, socket: TcpListener, is_tls: bool) {
    let mut is_failing = false;
    loop {
        match socket.accept().await {
            Ok((stream, address)) => {
                is_failing = false;
                admit(&door, stream, address, is_tls);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(event = "accept_failed", %error, "no connection can be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(door: &Rc<Door>, stream: TcpStream, address: SocketAddr, is_tls: bool) {
    let connections = door.engine.connections().saturating_add(door.unknown.get());
    let is_full = connections >= door.connections_max;
    if is_full && !door.is_full.get() {
        tracing::warn!(
            event = "connections_full",
            connections,
            "max_connections (or the limit on open files) is reached; further clients are closed"
        );
    }
    door.is_full.set(is_full);
    if is_full {
        return;
    }
    let door = Rc::clone(door);
    door.unknown.set(door.unknown.get() + 1);
    spawn_local(async move {
        if is_tls {
            greet_by_tls(&door, stream, address).await;
        } else {
            greet(&door, stream, address).await;
        }
    });
}

async fn greet(door: &Door, stream: TcpStream, address: SocketAddr) {
    let first = first_byte(&stream).await;
    door.known();
    match first {
        Some(first) if first == MAGIC[0] => {
            // Failing only costs time.
            let _slower = stream.set_nodelay(true);
            answer_peer(door, stream, address).await;
        }
        Some(TLS_HANDSHAKE) => {
            let reason = "it speaks TLS at a listener without TLS; have it write tcp:// or amqp://, \
                          or listen on ssl:// here";
            door.log_refusal(address, reason);
            // An answer in AMQP tells it.
            door.engine.accept(stream);
        }
        Some(_) => door.engine.accept(stream),
        None => {}
    }
}

async fn greet_by_tls(door: &Door, stream: TcpStream, address: SocketAddr) {
    let first = first_byte(&stream).await;
    let guard = door.guard.as_ref();
    let (Some(first), Some(guard)) = (first, guard) else {
        door.known();
        return;
    };
    if first == MAGIC[0] {
        let reason = "a peer calls without TLS; its ft_active must be ssl://...";
        door.log_refusal(address, reason);
        // The other server reads this in its own log.
        let refused = "this listener speaks TLS; write ft_active = ssl://...";
        door.links.refuse(stream, refused).await;
        door.known();
        return;
    }
    if first != TLS_HANDSHAKE {
        door.known();
        door.log_refusal(
            address,
            "it does not speak TLS, and this listener does nothing else",
        );
        return;
    }
    let secured = guard.handshakes.secure(stream).await;
    door.known();
    match secured {
        Some(Ok(secured)) if secured.first == MAGIC[0] => {
            answer_peer(door, secured.stream, address).await;
        }
        Some(Ok(secured)) => {
            let user = secured.certificate_name.map(|name| guard.user(name));
            door.engine.accept_secure(secured.stream, user);
        }
        Some(Err(reason)) => door.log_refusal(address, &reason),
        None => {}
    }
}

impl Door {
    /// A connection has shown what it is, or has gone.
    fn known(&self) {
        self.unknown.set(self.unknown.get().saturating_sub(1));
    }

    /// Strangers may try as often as they like: not each try is logged.
    fn log_refusal(&self, address: SocketAddr, reason: &str) {
        let host = address.ip().to_canonical();
        let text = format!("{host}: {reason}");
        let mut last = self.refusal.borrow_mut();
        if let Some((at, last)) = last.as_ref() {
            let is_same = *last == text;
            let pause = if is_same {
                REFUSAL_REPEAT
            } else {
                REFUSAL_PAUSE
            };
            if at.elapsed() < pause {
                return;
            }
        }
        tracing::warn!(
            event = "tls_refused",
            reason = text,
            "no connection with TLS"
        );
        *last = Some((Instant::now(), text));
    }
}

/// Looks without taking; `None` when the client went away or stays silent.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut byte = [0];
    match timeout(FIRST_BYTE, stream.peek(&mut byte)).await {
        Ok(Ok(1..)) => Some(byte[0]),
        Ok(Ok(0) | Err(_)) | Err(_) => None,
    }
}

async fn answer_peer(door: &Door, stream: impl Duplex + 'static, address: SocketAddr) {
    if door.callers.get() >= CALLERS_MAX {
        return;
    }
    door.callers.set(door.callers.get() + 1);
    door.links.clone().answer(Box::new(stream), address).await;
    door.callers.set(door.callers.get().saturating_sub(1));
}

/// How many clients there is room for: `max_connections`, within the process's limit on open
/// files, which is raised as far as the system allows.
pub(crate) fn connections_max(wanted: Option<u64>) -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted.unwrap_or(FILES_RESERVED);
    };
    let files = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    let room = files.saturating_sub(FILES_RESERVED).max(1);
    wanted.map_or(room, |wanted| wanted.min(room))
}
