//! A server's connections: admission, reading, writing, the end.

use bytes::BytesMut;
use steadfast::node::{ConnectionId, Standby};

use super::network::{Chunk, Side};
use super::server::Mode;
use super::sim::{Happening, MS, Micros, Sim};

/// See `net/engine.rs` and `net/pump.rs`.
const HOLD: Micros = 10_000 * MS;
const LAST_OUTPUT: Micros = 5_000 * MS;
const STANDBY_TALK: Micros = 10_000 * MS;

impl Sim {
    /// A connection reaches the server.
    pub(super) fn arrive(&mut self, server: usize, id: u64) {
        let until = self.now + HOLD;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.side = Side::Held { until };
            self.admit(server, id);
        }
    }

    /// The mode has changed.
    pub(super) fn admit_held(&mut self, server: usize) {
        let life = self.servers[server].life;
        let held: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.life == life && matches!(conn.side, Side::Held { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            self.admit(server, id);
        }
    }

    fn admit(&mut self, server: usize, id: u64) {
        let now = self.clock();
        match self.mode(server) {
            Mode::Hold => {}
            Mode::Refuse | Mode::Stop => self.turn_away(server, id),
            Mode::Fail => self.server_leaves(id, false),
            Mode::Serve => {
                let Some(work) = self.work(server) else {
                    return;
                };
                let number = work.node.connect(now);
                work.conns.insert(number, id);
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.side = Side::Served(number);
                }
                self.turn(server);
                self.tell(server, 1, Happening::Readable(id));
            }
        }
    }

    fn turn_away(&mut self, server: usize, id: u64) {
        let standby = Standby::new(&self.settings, None, Default::default(), self.clock());
        let until = self.now + STANDBY_TALK;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.side = Side::Refused {
                standby: Box::new(standby),
                until,
            };
        }
        self.tell(server, 1, Happening::Readable(id));
    }

    /// Looks at a connection: something has come, or changed.
    pub(super) fn pump(&mut self, server: usize, id: u64) {
        loop {
            let Some(conn) = self.conns.get(&id) else {
                return;
            };
            let goes_on = match conn.side {
                Side::Served(number) => self.pump_served(server, id, number),
                Side::Refused { .. } => self.pump_refused(id),
                _ => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// One step of a connection that is served; whether there may be another.
    fn pump_served(&mut self, server: usize, id: u64, number: ConnectionId) -> bool {
        let now = self.clock();
        let last_output = self.now + LAST_OUTPUT;
        let Some(work) = self.work(server) else {
            return false;
        };
        let is_finished = work.node.is_finished(number);
        let is_written = work.node.output(number).is_none_or(|it| it.is_empty());
        if is_finished && is_written {
            self.disconnect(server, id, true);
            return false;
        }
        if is_finished {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.last_output_until.get_or_insert(last_output);
            }
            return false;
        }
        if !self.wants_input(server, number) {
            return false;
        }
        match self.read_conn(id) {
            None => return false,
            Some(Chunk::Reset) => {
                self.disconnect(server, id, false);
                return false;
            }
            Some(Chunk::Fin) => {
                if let Some(work) = self.work(server) {
                    work.node.handle_eof(now, number);
                }
                self.turn(server);
            }
            Some(Chunk::Data(bytes)) => self.received(server, id, number, &bytes),
        }
        true
    }

    fn received(&mut self, server: usize, id: u64, number: ConnectionId, bytes: &[u8]) {
        let now = self.clock();
        let life = self.servers[server].life;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let mut input = std::mem::take(&mut conn.input);
        input.extend_from_slice(bytes);
        let before = input.len();
        let Some(work) = self.work(server) else {
            return;
        };
        work.node.handle_bytes(now, number, &mut input);
        let is_well = !work.node.is_finished(number) && work.node.fatal().is_none();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.handled += before - input.len();
            conn.input = BytesMut::from(&input[..]);
            while let Some((end, copy)) = conn.outcomes.front().copied()
                && end <= conn.handled
            {
                conn.outcomes.pop_front();
                if is_well {
                    self.oracle.outcome_read(copy, life);
                }
            }
        }
        self.turn(server);
    }

    /// One step of a connection that is sent away.
    fn pump_refused(&mut self, id: u64) -> bool {
        let now = self.clock();
        let Some(conn) = self.conns.get_mut(&id) else {
            return false;
        };
        let Side::Refused { standby, .. } = &mut conn.side else {
            return false;
        };
        let mut output = standby.output().split();
        let is_finished = standby.is_finished();
        self.write_pipe(id, false, &mut output);
        if is_finished {
            self.server_leaves(id, true);
            return false;
        }
        match self.read_conn(id) {
            None => false,
            Some(Chunk::Fin | Chunk::Reset) => {
                self.server_leaves(id, false);
                false
            }
            Some(Chunk::Data(bytes)) => {
                if let Some(conn) = self.conns.get_mut(&id)
                    && let Side::Refused { standby, .. } = &mut conn.side
                {
                    conn.input.extend_from_slice(&bytes);
                    standby.handle_bytes(now, &mut conn.input);
                }
                true
            }
        }
    }

    /// Writes what a connection has to say, as far as it fits; nothing while ownership is in doubt.
    pub(super) fn write(&mut self, server: usize, number: ConnectionId) {
        let now = self.clock();
        let Some(work) = self.work(server) else {
            return;
        };
        let Some(&id) = work.conns.get(&number) else {
            return;
        };
        if work.node.is_lapsed() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.is_full = false;
            }
            return;
        }
        let Some(output) = work.node.output(number) else {
            return;
        };
        let mut bytes = output.split();
        let is_written = self.write_pipe(id, false, &mut bytes);
        let is_full = !bytes.is_empty();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.is_full = is_full;
        }
        let Some(work) = self.work(server) else {
            return;
        };
        if is_full && let Some(output) = work.node.output(number) {
            output.unsplit(bytes);
        }
        if !is_full && work.node.is_finished(number) {
            self.tell(server, 1, Happening::Readable(id));
        }
        if is_written && let Some(work) = self.work(server) {
            work.node.handle_written(now, number);
        }
    }

    /// The client has read: there is room again.
    pub(super) fn writable(&mut self, server: usize, id: u64) {
        let now = self.clock();
        if let Some(conn) = self.conns.get(&id)
            && let Side::Served(number) = conn.side
            && let Some(work) = self.work(server)
        {
            work.node.refresh(now);
            self.write(server, number);
            self.turn(server);
        }
    }

    /// The server has done with a connection.
    pub(super) fn disconnect(&mut self, server: usize, id: u64, is_orderly: bool) {
        let now = self.clock();
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let client = conn.client;
        if let Side::Served(number) = conn.side
            && let Some(work) = self.work(server)
        {
            work.conns.remove(&number);
            work.node.disconnect(now, number);
        }
        self.oracle.has_left(id);
        self.clients[client].note_server_left(&mut self.oracle);
        self.server_leaves(id, is_orderly);
        self.turn(server);
    }

    pub(super) fn pump_all(&mut self, server: usize) {
        let all: Vec<u64> = self
            .work(server)
            .map(|work| work.conns.values().copied().collect())
            .unwrap_or_default();
        for id in all {
            self.pump(server, id);
        }
    }

    /// Gives up what has taken too long.
    pub(super) fn time_out_conns(&mut self, server: usize) {
        let (now, life) = (self.now, self.servers[server].life);
        let conns = self.conns.iter().filter(|(_, conn)| conn.life == life);
        let due: Vec<u64> = conns
            .filter(|(_, conn)| conn.deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            match self.conns.get(&id).map(|conn| &conn.side) {
                Some(Side::Held { .. }) => self.turn_away(server, id),
                Some(Side::Served(_)) => self.disconnect(server, id, false),
                _ => self.server_leaves(id, false),
            }
        }
    }

    pub(super) fn conn_deadline(&self, server: usize) -> Option<Micros> {
        let life = self.servers[server].life;
        let conns = self.conns.values().filter(|conn| conn.life == life);
        conns.filter_map(super::network::Conn::deadline).min()
    }
}

impl super::network::Conn {
    /// When the server gives it up.
    fn deadline(&self) -> Option<Micros> {
        match self.side {
            Side::Held { until } | Side::Refused { until, .. } => Some(until),
            Side::Served(_) => self.last_output_until,
            Side::Asking | Side::Gone => None,
        }
    }
}
