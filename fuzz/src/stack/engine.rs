//! An active server: serves the store that was opened, brings out what an event has caused, ends in order. What
//! `net/engine.rs` does, in the same order.

use std::collections::BTreeMap;

use steadfast::node::{ConnectionId, Node, Now};
use steadfast::role::Input;

use super::rows;
use super::server::{
    LaneWork, Mode, READ_LANE, STOP_CONFIRMS, STOP_SEAL, STOP_SOCKETS, Stopping, WATCHDOG_MS,
    WATCHDOG_SHORTEST_MS, Work,
};
use super::sim::{Happening, MS, SERVERS, Sim};

impl Sim {
    // ---- the engine ----

    pub(super) fn clock(&self) -> Now {
        let ms = self.now / MS;
        Now {
            monotonic_ms: ms,
            boot_ms: ms,
            wall_ms: 1_700_000_000_000 + ms,
        }
    }

    pub(super) fn work(&mut self, server: usize) -> Option<&mut Work> {
        self.servers[server].process.as_mut()?.work.as_mut()
    }

    pub(super) fn mode(&self, server: usize) -> Mode {
        let process = self.servers[server].process.as_ref();
        process.map_or(Mode::Fail, |it| it.mode)
    }

    pub(super) fn set_mode(&mut self, server: usize, mode: Mode) {
        if let Some(process) = self.servers[server].process.as_mut() {
            process.mode = mode;
        }
        self.admit_held(server);
    }

    /// Becomes active with the store that was opened.
    pub(super) fn serve(&mut self, server: usize) {
        let now = self.clock();
        let settings = self.settings.clone();
        let mutant = self.mutant;
        let life = self.servers[server].life;
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let Some(mut store) = process.opened.take() else {
            return;
        };
        process.hello.store = Some(store.id());
        let found = rows::read_all(&store, &self.places);
        let epoch = store.epoch();
        rows::spoil(&mut store, mutant);
        let deadline_ms = store.fence_deadline_ms();
        let mut node = Node::new(settings, store, now);
        node.set_directory(now, self.places.directory());
        let subscriptions = self.places.of_server(&node);
        process.work = Some(Work {
            watchdog_after_ms: deadline_ms.map_or(WATCHDOG_MS, |deadline_ms| {
                deadline_ms.clamp(WATCHDOG_SHORTEST_MS, WATCHDOG_MS)
            }),
            node,
            conns: BTreeMap::new(),
            paused: Vec::new(),
            lanes: Default::default(),
            watchdog_ms: None,
            was_lapsed: false,
            refused_writes: 0,
            next_tick: self.now,
            is_flush_due: false,
            purges: Vec::new(),
        });
        self.trace(|| format!("server {server} serves epoch {epoch}"));
        match found.and_then(|found| Ok((found, subscriptions?))) {
            Ok((found, subscriptions)) => {
                self.oracle.took_over(life, epoch, &found, &subscriptions);
            }
            Err(what) => self.oracle.blame(what),
        }
        self.sole_owner(server);
        self.set_mode(server, Mode::Serve);
        self.flush_soon(server);
    }

    /// Nobody else may hold the store.
    pub(super) fn sole_owner(&mut self, server: usize) {
        for other in (0..SERVERS).filter(|it| *it != server) {
            let owns = self
                .work(other)
                .is_some_and(|work| !work.node.is_sealed() && work.node.fatal().is_none());
            if owns {
                let text = format!("server {server} is active while server {other} is");
                self.oracle.blame(text);
            }
        }
    }

    pub(super) fn flush_soon(&mut self, server: usize) {
        let delay = self.random.u64(1..50);
        if let Some(work) = self.work(server)
            && !std::mem::replace(&mut work.is_flush_due, true)
        {
            self.tell(server, delay, Happening::Flush);
        }
    }

    /// Brings out what an event has caused.
    pub(super) fn turn(&mut self, server: usize) {
        if self.mode(server) == Mode::Fail {
            return;
        }
        self.watch_ownership(server);
        while let Some(work) = self.work(server)
            && let Some(task) = work.node.poll_read()
        {
            self.start_lane(server, READ_LANE, LaneWork::Read(task));
        }
        while let Some(work) = self.work(server)
            && let Some(id) = work.node.poll_dirty()
        {
            self.write(server, id);
        }
        self.resume_paused(server);
        let Some(work) = self.work(server) else {
            return;
        };
        let has_open_batch = work.node.has_open_batch();
        let fatal = work.node.fatal().map(ToString::to_string);
        if has_open_batch {
            self.flush_soon(server);
        }
        if let Some(fatal) = fatal {
            self.fail(server, &fatal);
        }
    }

    pub(super) fn watch_ownership(&mut self, server: usize) {
        let now = self.clock();
        let Some(work) = self.work(server) else {
            return;
        };
        work.node.refresh(now);
        let is_lapsed = work.node.is_lapsed();
        let refused_writes = work.node.refused_writes();
        if refused_writes != work.refused_writes {
            work.refused_writes = refused_writes;
            work.watchdog_ms = None;
        }
        if is_lapsed {
            let at_ms = now.boot_ms + work.watchdog_after_ms;
            work.watchdog_ms.get_or_insert(at_ms);
        } else {
            work.watchdog_ms = None;
        }
        if work.was_lapsed && !is_lapsed {
            let waiting: Vec<ConnectionId> = work.conns.keys().copied().collect();
            for id in waiting {
                self.write(server, id);
            }
        }
        if let Some(work) = self.work(server) {
            work.was_lapsed = is_lapsed;
        }
    }

    /// Lets connections be read again that were not for the disk's sake.
    pub(super) fn resume_paused(&mut self, server: usize) {
        let Some(work) = self.work(server) else {
            return;
        };
        let Work {
            paused,
            node,
            conns,
            ..
        } = work;
        let mut wakes = Vec::new();
        paused.retain(|id| {
            let wants = node.wants_input(*id);
            if wants && let Some(conn) = conns.get(id) {
                wakes.push(*conn);
            }
            !wants
        });
        for conn in wakes {
            self.tell(server, 1, Happening::Readable(conn));
        }
    }

    /// Whether a connection may be read. If not, it is noted to be woken.
    pub(super) fn wants_input(&mut self, server: usize, id: ConnectionId) -> bool {
        if self.mode(server) != Mode::Serve {
            return false;
        }
        let Some(work) = self.work(server) else {
            return false;
        };
        let wants = work.node.wants_input(id);
        if !wants && !work.paused.contains(&id) {
            work.paused.push(id);
        }
        wants
    }

    /// The store is lost: closes all connections as they are.
    pub(super) fn fail(&mut self, server: usize, reason: &str) {
        if self.mode(server) == Mode::Fail {
            return;
        }
        self.trace(|| format!("server {server} fails: {reason}"));
        self.set_mode(server, Mode::Fail);
        let Some(work) = self.work(server) else {
            return;
        };
        let conns: Vec<u64> = work.conns.values().copied().collect();
        for conn in conns {
            self.disconnect(server, conn, false);
        }
        let reason = reason.to_owned();
        self.give(server, Input::StoreFailed { reason });
    }

    // ---- the orderly end ----

    pub(super) fn begin_stop(&mut self, server: usize) {
        if self.mode(server) == Mode::Fail {
            return self.give(server, Input::Stopped);
        }
        self.set_mode(server, Mode::Stop);
        let now = self.clock();
        if let Some(work) = self.work(server) {
            work.node.begin_stop(now);
        }
        self.flush_soon(server);
        let until = self.now + STOP_CONFIRMS;
        if let Some(process) = self.servers[server].process.as_mut() {
            process.stopping = Some(Stopping::Confirms(until));
        }
    }

    pub(super) fn go_on_stopping(&mut self, server: usize) {
        let now = self.now;
        while let Some(process) = self.servers[server].process.as_mut()
            && let Some(stopping) = process.stopping
            && process.mode != Mode::Fail
        {
            let work = process.work.as_mut();
            match stopping {
                Stopping::Confirms(until) => {
                    if now < until && work.is_some_and(|it| it.node.owes_answers()) {
                        return;
                    }
                    process.stopping = Some(Stopping::Sockets(now + STOP_SOCKETS));
                    if let Some(work) = self.work(server) {
                        work.node.close_connections();
                    }
                    self.turn(server);
                    self.pump_all(server);
                }
                Stopping::Sockets(until) => {
                    if now < until && work.is_some_and(|it| !it.conns.is_empty()) {
                        return;
                    }
                    process.stopping = Some(Stopping::Seal(now + STOP_SEAL));
                    if let Some(work) = self.work(server) {
                        work.node.begin_seal();
                    }
                    self.start_jobs(server);
                }
                Stopping::Seal(until) => {
                    if now < until && work.is_some_and(|it| !it.node.is_sealed()) {
                        return;
                    }
                    process.stopping = None;
                    process.work = None;
                    self.give(server, Input::Stopped);
                    return;
                }
            }
        }
    }
}
