//! Connections between clients and servers, and links between servers: order is kept, bytes take time,
//! buffers have an end, and any of them may fall silent or break.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use steadfast::node::{ConnectionId, Standby};
use steadfast::role::LinkId;

use super::oracle::PartId;
use super::server::{Hello, Mode};
use super::sim::{Event, Happening, MS, Micros, Sim};

/// What goes through a pipe.
#[derive(Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    /// Nothing follows; all before it arrives.
    Fin,
    /// The connection broke.
    Reset,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    chunks: VecDeque<(Micros, Chunk)>,
    /// Bytes that were written and not read.
    bytes: usize,
    last_at: Micros,
    is_ended: bool,
}

/// What a server does with a connection.
#[derive(Debug)]
pub(super) enum Side {
    /// It has not reached the server.
    Asking,
    /// It waits until it is known who is active.
    Held {
        until: Micros,
    },
    /// It is sent away.
    Refused {
        standby: Box<Standby>,
        until: Micros,
    },
    Served(ConnectionId),
    Gone,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) server: usize,
    /// The process that accepted it.
    pub(super) life: u64,
    pub(super) side: Side,
    pub(super) to_server: Pipe,
    pub(super) to_client: Pipe,
    /// What has come to the server and was not read.
    pub(super) readable: VecDeque<Chunk>,
    pub(super) input: BytesMut,
    /// Bytes that the client has written, and that the server has taken in.
    pub(super) sent: usize,
    pub(super) handled: usize,
    /// Outcomes that end a message, and where in the client's bytes they end.
    pub(super) outcomes: VecDeque<(usize, PartId)>,
    /// The client has done with it.
    pub(super) is_left: bool,
    /// Bytes that fit between writer and reader.
    capacity: usize,
    latency: Micros,
    pub(super) last_output_until: Option<Micros>,
    /// The server has more for it than fits.
    pub(super) is_full: bool,
}

/// A link between two servers, or an attempt to make one.
#[derive(Debug)]
pub(super) struct Link {
    /// Server and process of the caller and of the called.
    pub(super) ends: [(usize, u64); 2],
    /// The number of the link at each end while it is up there.
    pub(super) ids: [Option<LinkId>; 2],
    /// The caller waits for the answer.
    pub(super) is_calling: bool,
    /// What the caller says first.
    pub(super) first: Hello,
    pub(super) lines: [VecDeque<(Micros, Line)>; 2],
    pub(super) last_at: [Micros; 2],
}

#[derive(Clone, Debug)]
pub(super) enum Line {
    Hello(Hello),
    /// The other end has closed it.
    Closed(&'static str),
}

impl Pipe {
    pub(super) fn push(&mut self, at: Micros, chunk: Chunk) -> Micros {
        let at = at.max(self.last_at);
        self.last_at = at;
        self.chunks.push_back((at, chunk));
        at
    }
}

impl Sim {
    // ---- connections of clients ----

    /// A client asks a server for a connection.
    pub(super) fn new_conn(&mut self, client: usize, server: usize) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let capacity = [512, 4 << 10, 64 << 10, 256 << 10][self.random.usize(..4)];
        let latency = self.between(20, 3 * MS);
        let conn = Conn {
            client,
            server,
            life: 0,
            side: Side::Asking,
            to_server: Pipe::default(),
            to_client: Pipe::default(),
            readable: VecDeque::new(),
            input: BytesMut::new(),
            sent: 0,
            handled: 0,
            outcomes: VecDeque::new(),
            is_left: false,
            capacity,
            latency,
            last_output_until: None,
            is_full: false,
        };
        self.conns.insert(id, conn);
        self.after(latency, Event::Dial(id));
        id
    }

    /// The request for a connection comes to the server's host.
    pub(super) fn dial(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (client, server, latency) = (conn.client, conn.server, conn.latency);
        if let Some(until) = self.weather.client_cut(client, server, self.now) {
            return self.at(until + latency, Event::Dial(id));
        }
        match &self.servers[server].process {
            None => {
                let conn = self.conns.get_mut(&id).expect("it was there");
                conn.side = Side::Gone;
                self.send_chunk(id, false, Chunk::Reset);
            }
            Some(_) => {
                let life = self.servers[server].life;
                self.conns.get_mut(&id).expect("it was there").life = life;
                self.tell(server, 0, Happening::Arrive(id));
            }
        }
    }

    /// Puts something into a pipe.
    pub(super) fn send_chunk(&mut self, id: u64, to_server: bool, chunk: Chunk) {
        let jitter = self.random.u64(..200);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let latency = conn.latency;
        let pipe = if to_server {
            &mut conn.to_server
        } else {
            &mut conn.to_client
        };
        if pipe.is_ended {
            return;
        }
        match &chunk {
            Chunk::Data(bytes) => pipe.bytes += bytes.len(),
            Chunk::Fin => pipe.is_ended = true,
            Chunk::Reset => {
                pipe.is_ended = true;
            }
        }
        let at = pipe.push(now + latency + jitter, chunk);
        let conn = id;
        self.at(at, Event::Pipe { conn, to_server });
    }

    /// Moves output into a pipe as far as it takes it; whether anything moved.
    pub(super) fn write_pipe(&mut self, id: u64, to_server: bool, output: &mut BytesMut) -> bool {
        let Some(conn) = self.conns.get(&id) else {
            output.clear();
            return false;
        };
        let pipe = if to_server {
            &conn.to_server
        } else {
            &conn.to_client
        };
        if pipe.is_ended {
            output.clear();
            return false;
        }
        let room = conn.capacity.saturating_sub(pipe.bytes);
        let taken = output.split_to(output.len().min(room)).freeze();
        if taken.is_empty() {
            return false;
        }
        if to_server && let Some(conn) = self.conns.get_mut(&id) {
            conn.sent += taken.len();
        }
        // A network does not keep the borders of writes.
        let cut = if self.random.u8(..4) == 0 {
            self.random.usize(..=taken.len())
        } else {
            taken.len()
        };
        for part in [taken.slice(..cut), taken.slice(cut..)] {
            if !part.is_empty() {
                self.send_chunk(id, to_server, Chunk::Data(part));
            }
        }
        true
    }

    /// Something has come to the end of a pipe.
    pub(super) fn pipe_due(&mut self, id: u64, to_server: bool) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (client, server) = (conn.client, conn.server);
        if let Some(until) = self.weather.client_cut(client, server, self.now) {
            let conn = id;
            return self.at(until + MS, Event::Pipe { conn, to_server });
        }
        let now = self.now;
        let conn = self.conns.get_mut(&id).expect("it was there");
        if to_server && matches!(conn.side, Side::Asking) && conn.life == 0 {
            // It follows the request.
            self.after(
                MS,
                Event::Pipe {
                    conn: id,
                    to_server,
                },
            );
            return;
        }
        let pipe = if to_server {
            &mut conn.to_server
        } else {
            &mut conn.to_client
        };
        let mut due = Vec::new();
        while let Some((at, _)) = pipe.chunks.front()
            && *at <= now
            && let Some((_, chunk)) = pipe.chunks.pop_front()
        {
            due.push(chunk);
        }
        if due.is_empty() {
            return;
        }
        if to_server {
            conn.readable.extend(due);
            self.tell(server, 0, Happening::Readable(id));
        } else {
            let was_full = conn.is_full;
            for chunk in &due {
                if let Chunk::Data(bytes) = chunk {
                    conn.to_client.bytes -= bytes.len();
                }
            }
            if was_full {
                self.tell(server, 0, Happening::Writable(id));
            }
            for chunk in due {
                self.client_hears(client, id, chunk);
            }
            self.forget_conn(id);
        }
    }

    /// The server reads what has come.
    pub(super) fn read_conn(&mut self, id: u64) -> Option<Chunk> {
        let conn = self.conns.get_mut(&id)?;
        let chunk = conn.readable.pop_front()?;
        if let Chunk::Data(bytes) = &chunk {
            conn.to_server.bytes -= bytes.len();
            if !conn.is_left {
                let client = conn.client;
                self.wake_client(client, self.now);
            }
        }
        Some(chunk)
    }

    /// The client's end is closed: in order all that it wrote arrives, else some of it may not.
    pub(super) fn client_leaves(&mut self, id: u64, is_orderly: bool) {
        let cut = self.random.usize(..3);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.is_left = true;
        if is_orderly || cut == 0 {
            self.send_chunk(id, true, Chunk::Fin);
        } else {
            let keep = if cut == 1 {
                conn.to_server.chunks.len() / 2
            } else {
                0
            };
            for (_, chunk) in conn.to_server.chunks.drain(keep..) {
                if let Chunk::Data(bytes) = chunk {
                    conn.to_server.bytes -= bytes.len();
                }
            }
            conn.to_server.last_at = conn.to_server.last_at.min(now);
            self.send_chunk(id, true, Chunk::Reset);
        }
        self.forget_conn(id);
    }

    /// The server's end is closed.
    pub(super) fn server_leaves(&mut self, id: u64, is_orderly: bool) {
        let cut = self.random.u8(..3);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if matches!(conn.side, Side::Gone) {
            return;
        }
        conn.side = Side::Gone;
        conn.readable.clear();
        let (life, client) = (conn.life, conn.client);
        self.oracle.left(id);
        let runs = |it: &super::server::Server| it.life == life && it.process.is_some();
        if let Some(server) = self.servers.iter().position(runs) {
            self.oracle.gives_up(client);
            // A server that stops leaves to its successor what clients own.
            if self.mode(server) != Mode::Stop {
                self.oracle.gives_up_connection(id, life);
            }
        }
        if !is_orderly
            && cut == 0
            && let Some(conn) = self.conns.get_mut(&id)
        {
            // What the client has not read may be gone.
            conn.to_client.chunks.clear();
            conn.to_client.last_at = 0;
        }
        let end = if is_orderly || cut == 1 {
            Chunk::Fin
        } else {
            Chunk::Reset
        };
        self.send_chunk(id, false, end);
        self.forget_conn(id);
    }

    pub(super) fn forget_conn(&mut self, id: u64) {
        let is_over = |conn: &Conn| conn.is_left && matches!(conn.side, Side::Gone);
        if self.conns.get(&id).is_some_and(is_over) {
            self.conns.remove(&id);
        }
    }
}
