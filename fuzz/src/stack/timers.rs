//! A server's timer, and what the oracle sees of a server whenever something has happened to it.

use steadfast::role::{Exit, Input};

use super::network::Side;
use super::server::{Mode, Stopping, TICK, WATCHDOG_LOOK};
use super::sim::{Happening, MS, Sim};

impl Sim {
    // ---- time ----

    pub(super) fn wake(&mut self, server: usize) {
        let (now, clock, role_ms) = (self.now, self.clock(), self.role_ms(server));
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        process.wake_at = None;
        let is_role_due = process.role.poll_timeout().is_some_and(|at| at <= role_ms);
        if let Some(work) = process.work.as_mut() {
            if work.watchdog_ms.is_some_and(|at| at <= clock.boot_ms) {
                return self.exit(server, Exit::Fenced, "ownership is in doubt for too long");
            }
            if process.mode != Mode::Fail {
                if now >= work.next_tick {
                    work.next_tick = now + TICK;
                    work.node.tick(clock);
                }
                self.start_jobs(server);
                self.turn(server);
            }
        }
        self.time_out_conns(server);
        if is_role_due {
            self.give(server, Input::Tick);
        }
    }

    /// Sets the timer to what is due next.
    pub(super) fn arm(&mut self, server: usize) {
        let now = self.now;
        let conns = self.conn_deadline(server);
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let role = process
            .role
            .poll_timeout()
            .map(|ms| process.started + ms * MS);
        let stopping = match process.stopping {
            Some(Stopping::Confirms(until) | Stopping::Sockets(until) | Stopping::Seal(until)) => {
                Some(until)
            }
            None => None,
        };
        let mut due = [role, stopping, conns].into_iter().flatten().min();
        if let Some(work) = &process.work
            && process.mode != Mode::Fail
        {
            let job = work.node.next_job_deadline_ms().map(|ms| ms * MS);
            let watchdog = work.watchdog_ms.map(|ms| ms * MS + WATCHDOG_LOOK / 2);
            let own = [Some(work.next_tick), job, watchdog];
            due = due.into_iter().chain(own.into_iter().flatten()).min();
        }
        let Some(due) = due else {
            return;
        };
        let due = due.max(now + MS);
        if process.wake_at.is_none_or(|at| at > due || at <= now) {
            process.wake_at = Some(due);
            self.tell(server, due - now, Happening::Wake);
        }
    }

    /// Tells the oracle what it can see of a server.
    pub(super) fn notice(&mut self, server: usize) {
        let life = self.servers[server].life;
        let keeps = self.settings.reconnect_timeout_ms > 0;
        let stops = self.mode(server) == Mode::Stop;
        let Some(work) = self.work(server) else {
            return;
        };
        if work.node.fatal().is_some() {
            return;
        }
        if !work.purges.is_empty() {
            self.look_at_purges(server);
        }
        let Some(work) = self.work(server) else {
            return;
        };
        let status = work.node.status();
        let over: Vec<u64> = work
            .conns
            .iter()
            .filter(|(id, _)| work.node.is_finished(**id))
            .map(|(_, conn)| *conn)
            .collect();
        let is_written_down = keeps && !work.node.owes_holds();
        let waits_no_more = status.reconnect.deadline_at_ms.is_none();
        if waits_no_more {
            let conns = &self.conns;
            self.oracle.waits_no_more(life, |client| {
                let mut all = conns.values();
                all.any(|conn| {
                    let is_open = !matches!(conn.side, Side::Gone);
                    conn.client == client && conn.life == life && is_open
                })
            });
        }
        if status.backlog_bytes == 0 {
            self.oracle.quiet(life);
            if is_written_down {
                let conns = &self.conns;
                let client_of = |id| conns.get(&id).map(|conn| conn.client);
                self.oracle.written_down(life, client_of);
            }
        }
        if status.store.quarantined + status.store.lost_references > 0 {
            self.oracle
                .blame("a message of a whole store is called damaged".to_owned());
        }
        for conn in over {
            self.oracle.left(conn);
            self.client_is_given_up(conn);
            if !stops {
                self.oracle.gives_up_connection(conn, life);
            }
        }
    }

    /// A living server has given a connection up: what its client had may go to others.
    pub(super) fn client_is_given_up(&mut self, conn: u64) {
        if let Some(conn) = self.conns.get(&conn) {
            self.oracle.gives_up(conn.client);
        }
    }

    /// Whether a process runs that waits for clients of its predecessors.
    pub(super) fn waits_for_clients(&self, life: u64) -> bool {
        let server = self.servers.iter().find(|it| it.life == life);
        let process = server.and_then(|it| it.process.as_ref());
        let work = process.and_then(|it| it.work.as_ref());
        work.is_some_and(|work| work.node.reconnect().deadline_at_ms.is_some())
    }
}
