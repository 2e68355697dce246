//! Listeners: bound in every role, clients and peers on the same port.
//!
//! The first byte tells them apart: an AMQP client begins with `AMQP`, a peer with `STDFAST`.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::engine::Engine;
use super::peer::{Links, MAGIC};
use crate::config::{Config, ListenUrl};

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

/// Bound listeners.
pub(crate) struct Listeners {
    sockets: Vec<TcpListener>,
    /// Their real addresses as URLs, one for each `listen` value.
    pub(crate) urls: Vec<String>,
    /// The same as host and port, `None` for all interfaces.
    pub(crate) places: Vec<(Option<String>, u16)>,
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
            let mut sockets = bind(listen).await.map_err(fault)?;
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
            listeners.places.push((real.host, port));
            listeners.sockets.append(&mut sockets);
        }
        Ok(listeners)
    }

    /// Accepts connections until the process ends; to be called on the engine thread.
    pub(crate) fn accept(self, engine: &Engine, links: &Links, connections_max: u64) {
        let door = Rc::new(Door {
            engine: engine.clone(),
            links: links.clone(),
            connections_max,
            unknown: Cell::new(0),
            callers: Cell::new(0),
            is_full: Cell::new(false),
        });
        for socket in self.sockets {
            spawn_local(accept(Rc::clone(&door), socket));
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
    /// Connections that have not sent their first byte.
    unknown: Cell<u64>,
    callers: Cell<usize>,
    /// Connections are being turned away.
    is_full: Cell<bool>,
}

async fn accept(door: Rc<Door>, socket: TcpListener) {
    let mut is_failing = false;
    loop {
        match socket.accept().await {
            Ok((stream, address)) => {
                is_failing = false;
                admit(&door, stream, address);
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

fn admit(door: &Rc<Door>, stream: TcpStream, address: SocketAddr) {
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
        let first = first_byte(&stream).await;
        door.unknown.set(door.unknown.get().saturating_sub(1));
        match first {
            Some(first) if first == MAGIC[0] => answer_peer(&door, stream, address).await,
            Some(_) => door.engine.accept(stream),
            None => {}
        }
    });
}

/// Looks without taking; `None` when the client went away or stays silent.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut byte = [0];
    match timeout(FIRST_BYTE, stream.peek(&mut byte)).await {
        Ok(Ok(1..)) => Some(byte[0]),
        Ok(Ok(0) | Err(_)) | Err(_) => None,
    }
}

async fn answer_peer(door: &Door, stream: TcpStream, address: SocketAddr) {
    if door.callers.get() >= CALLERS_MAX {
        return;
    }
    door.callers.set(door.callers.get() + 1);
    door.links.clone().answer(stream, address).await;
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
