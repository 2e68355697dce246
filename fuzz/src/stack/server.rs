//! One server: the role, the opener and the engine's glue around them, doing what `net/server.rs`,
//! `net/opener.rs`, `net/engine.rs` and `net/pump.rs` do, in the same order.

use std::collections::{BTreeMap, VecDeque};

use steadfast::node::{ConnectionId, Node, Now, ReadTask, ReadTaskDone};
use steadfast::role::{
    Action, EngineMode, Exit, Input, LockResult, PeerNews, RecoveryResult, Role, Settings, State,
};
use steadfast_storage::{Canary, Job, JobDone, Ownership, RecoveryReport, Store};

use super::disk::{Blow, ProcessDisk};
use super::drain;
use super::network::Line;
use super::sim::{Event, Happening, MS, Micros, Mutant, SERVERS, Sim};

/// See `net/engine.rs`.
const TICK: Micros = 250 * MS;
const STOP_CONFIRMS: Micros = 2_000 * MS;
const STOP_SOCKETS: Micros = 1_000 * MS;
const STOP_SEAL: Micros = 30_000 * MS;
const WATCHDOG_MS: u64 = 5_000;
const WATCHDOG_SHORTEST_MS: u64 = 500;
/// The watchdog looks so often.
const WATCHDOG_LOOK: Micros = 50 * MS;
/// Lanes of jobs, and the one of reads.
pub(super) const LANES: usize = 5;
pub(super) const READ_LANE: usize = 4;

/// What a server says of itself on peer links.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) instance: u64,
    pub(super) server: usize,
    pub(super) state: State,
    pub(super) epoch: u64,
    pub(super) beat: u64,
    pub(super) store: Option<[u8; 16]>,
}

impl Hello {
    pub(super) fn news(&self) -> PeerNews {
        PeerNews {
            instance: self.instance.to_string(),
            name: format!("tcp://server-{}:5672", self.server),
            state: self.state,
            epoch: self.epoch,
            beat: self.beat,
        }
    }
}

/// What the opener is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    TryLock,
    Recover,
}

/// The opener's answers.
pub(super) enum Answer {
    Lock(LockResult),
    Recovery(RecoveryResult),
    Opened(Box<Store>, Box<RecoveryReport>),
}

/// What the engine does with clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Refuse,
    Hold,
    Serve,
    Stop,
    Fail,
}

pub(super) enum LaneWork {
    Job(Job),
    Read(ReadTask),
}

pub(super) enum LaneDone {
    Job(JobDone),
    Read(ReadTaskDone),
}

#[derive(Default)]
pub(super) struct LaneState {
    pub(super) queue: VecDeque<LaneWork>,
    pub(super) is_running: bool,
    pub(super) done: Option<LaneDone>,
}

/// What an active server has.
pub(super) struct Work {
    pub(super) node: Node,
    pub(super) conns: BTreeMap<ConnectionId, u64>,
    pub(super) paused: Vec<ConnectionId>,
    pub(super) lanes: [LaneState; LANES],
    pub(super) watchdog_ms: Option<u64>,
    /// After ownership has been in doubt for so long the process ends.
    pub(super) watchdog_after_ms: u64,
    pub(super) was_lapsed: bool,
    pub(super) refused_writes: u64,
    pub(super) next_tick: Micros,
    pub(super) is_flush_due: bool,
}

/// How far an orderly stop has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stopping {
    Confirms(Micros),
    Sockets(Micros),
    Seal(Micros),
}

/// A server process.
pub(super) struct Process {
    pub(super) disk: ProcessDisk,
    pub(super) role: Role,
    pub(super) started: Micros,
    pub(super) mode: Mode,
    pub(super) hello: Hello,
    pub(super) is_hello_new: bool,
    pub(super) ownership: Option<Ownership>,
    pub(super) canary: Canary,
    pub(super) looked_at: Option<Micros>,
    pub(super) answers: VecDeque<Answer>,
    pub(super) opened: Option<Store>,
    pub(super) work: Option<Work>,
    pub(super) stopping: Option<Stopping>,
    pub(super) peer_store: Option<[u8; 16]>,
    pub(super) next_link: u64,
    pub(super) wake_at: Option<Micros>,
    /// A fault has hit one of its disk operations.
    pub(super) is_hurt: bool,
    /// It was stopped, or its disk did not answer, while ownership runs out.
    pub(super) was_late: bool,
    pub(super) was_asked_to_stop: bool,
}

/// A place for server processes.
pub(super) struct Server {
    pub(super) index: usize,
    /// Names the present or last process; grows.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    /// SIGSTOP.
    pub(super) is_stopped: bool,
    deferred: Vec<Happening>,
}

impl Server {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            life: 0,
            process: None,
            is_stopped: false,
            deferred: Vec::new(),
        }
    }
}

impl Sim {
    // ---- processes ----

    pub(super) fn tell(&mut self, server: usize, delay: Micros, what: Happening) {
        let life = self.servers[server].life;
        self.after(delay, Event::Server { server, life, what });
    }

    pub(super) fn happen(&mut self, server: usize, life: u64, what: Happening) {
        let it = &mut self.servers[server];
        if it.life != life || it.process.is_none() {
            return;
        }
        if it.is_stopped {
            it.deferred.push(what);
            return;
        }
        match what {
            Happening::Wake => self.wake(server),
            Happening::Flush => {
                if let Some(work) = self.work(server) {
                    work.is_flush_due = false;
                }
                self.start_jobs(server);
            }
            Happening::LaneRun(lane) => self.run_lane(server, lane),
            Happening::LaneDone(lane) => self.lane_done(server, lane),
            Happening::Pay => {
                if let Some(process) = &self.servers[server].process {
                    process.disk.pay();
                }
            }
            Happening::OpenerRun(order) => self.run_opener(server, order),
            Happening::OpenerDone => self.opener_done(server),
            Happening::Arrive(conn) => self.arrive(server, conn),
            Happening::Readable(conn) => self.pump(server, conn),
            Happening::Writable(conn) => self.writable(server, conn),
            Happening::Call(link) => self.answer_call(server, link),
            Happening::Peer(link) => self.peer_due(server, link),
            Happening::CallTimeout(link) => self.call_timeout(server, link),
        }
        self.settle_down(server);
    }

    /// Does what everything that happens to a server may have caused.
    pub(super) fn settle_down(&mut self, server: usize) {
        self.go_on_stopping(server);
        self.notice(server);
        self.arm(server);
    }

    pub(super) fn start(&mut self, server: usize) {
        if self.servers[server].process.is_some() {
            return;
        }
        let life = self.servers.iter().map(|it| it.life).max().unwrap_or(0) + 1;
        let settings = Settings {
            peers: SERVERS - 1,
            heartbeat_ms: self.heartbeat_ms,
            activation_ms: 3 * self.heartbeat_ms,
            lock_poll_ms: 100,
            seed: self.random.u64(..),
        };
        let it = &mut self.servers[server];
        it.life = life;
        it.is_stopped = false;
        it.deferred.clear();
        let disk = ProcessDisk::new(self.world.process(), life, self.mutant == Mutant::NoLocks);
        it.process = Some(Process {
            disk,
            role: Role::new(settings, 0),
            started: self.now,
            mode: Mode::Refuse,
            hello: Hello {
                instance: life,
                server,
                state: State::Starting,
                epoch: 0,
                beat: 0,
                store: None,
            },
            is_hello_new: false,
            ownership: None,
            canary: Canary::default(),
            looked_at: None,
            answers: VecDeque::new(),
            opened: None,
            work: None,
            stopping: None,
            peer_store: None,
            next_link: 0,
            wake_at: None,
            is_hurt: false,
            was_late: false,
            was_asked_to_stop: false,
        });
        self.trace(|| format!("server {server} starts as process {life}"));
        self.perform_all(server);
        self.settle_down(server);
    }

    /// The process goes on after SIGCONT.
    pub(super) fn resume(&mut self, server: usize) {
        let it = &mut self.servers[server];
        if !std::mem::take(&mut it.is_stopped) {
            return;
        }
        if let Some(process) = &mut it.process {
            process.was_late = true;
        }
        let deferred = std::mem::take(&mut it.deferred);
        self.trace(|| format!("server {server} goes on"));
        for what in deferred {
            // Who runs first after a pause is open.
            let delay = self.random.u64(..20);
            let delay = if matches!(what, Happening::Peer(_) | Happening::Readable(_)) {
                20
            } else {
                delay
            };
            self.tell(server, delay, what);
        }
        let delay = self.random.u64(..40);
        self.tell(server, delay, Happening::Wake);
    }

    pub(super) fn kill(&mut self, server: usize) {
        if let Some(process) = &self.servers[server].process {
            self.world.kill(process.disk.sim());
            self.trace(|| format!("server {server} is killed"));
            self.end(server, false);
        }
    }

    /// All processes are gone already.
    pub(super) fn power_lost(&mut self) {
        for server in 0..SERVERS {
            if self.servers[server].process.is_some() {
                self.end(server, false);
            }
        }
    }

    /// Forgets a process that has ended.
    pub(super) fn end(&mut self, server: usize, is_orderly: bool) {
        let it = &mut self.servers[server];
        let Some(process) = it.process.take() else {
            return;
        };
        let life = it.life;
        it.is_stopped = false;
        it.deferred.clear();
        let disk = process.disk.clone();
        self.world.kill(disk.sim());
        drop(process);
        let blown = disk.blown();
        self.oracle.ended(life, is_orderly && blown.is_none());
        let conns: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.life == life)
            .map(|(id, _)| *id)
            .collect();
        for conn in conns {
            self.server_leaves(conn, false);
        }
        self.close_links(server, "the process ended");
        let pause = self.between(50 * MS, 3_000 * MS);
        self.after(pause, Event::Start(server));
        // It may have met this on its way out, where nobody looks after its disk.
        if matches!(blown, Some(Blow::Power(_))) {
            self.trace(|| "power is lost while a process ends".to_owned());
            self.power_lost();
        }
    }

    /// The process ends by itself.
    pub(super) fn exit(&mut self, server: usize, exit: Exit, reason: &str) {
        self.trace(|| format!("server {server} exits with {exit:?}: {reason}"));
        let is_full = self.weather.is_full;
        let Some(process) = &self.servers[server].process else {
            return;
        };
        let is_explained = match exit {
            Exit::Done => process.was_asked_to_stop,
            Exit::Fenced => process.is_hurt || process.was_late,
            Exit::Failed => process.is_hurt || is_full,
            Exit::NotOwner | Exit::Damaged | Exit::Usage => false,
        };
        if !is_explained {
            self.oracle.blame(format!(
                "server {server} ends with code {} for no fault: {reason}",
                exit.code()
            ));
        }
        self.end(server, exit == Exit::Done);
    }

    // ---- the role ----

    pub(super) fn role_ms(&self, server: usize) -> u64 {
        let started = self.servers[server].process.as_ref();
        started.map_or(0, |it| (self.now - it.started) / MS)
    }

    /// Gives the role an input and does what it wants.
    pub(super) fn give(&mut self, server: usize, input: Input) {
        let now_ms = self.role_ms(server);
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        process.was_asked_to_stop |= matches!(input, Input::Stop { .. });
        process.role.handle(now_ms, input);
        self.perform_all(server);
        self.settle_down(server);
    }

    pub(super) fn perform_all(&mut self, server: usize) {
        while let Some(process) = self.servers[server].process.as_mut()
            && let Some(action) = process.role.poll_action()
        {
            self.perform(server, action);
        }
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        if std::mem::take(&mut process.is_hello_new) {
            let hello = process.hello.clone();
            let life = self.servers[server].life;
            let up: Vec<(u64, usize)> = self
                .links
                .iter()
                .filter_map(|(id, link)| {
                    let end = link.ends.iter().position(|it| *it == (server, life))?;
                    link.ids[end].map(|_| (*id, end))
                })
                .collect();
            for (link, end) in up {
                self.say(link, end, Line::Hello(hello.clone()));
            }
        }
    }

    pub(super) fn perform(&mut self, server: usize, action: Action) {
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        match action {
            Action::Connect { .. } => self.call(server),
            Action::Drop(link) => self.drop_link(server, link),
            Action::TryLock => {
                let delay = self.random.u64(10..500);
                self.tell(server, delay, Happening::OpenerRun(Order::TryLock));
            }
            Action::Recover => {
                let delay = self.random.u64(10..500);
                self.tell(server, delay, Happening::OpenerRun(Order::Recover));
            }
            Action::Engine(EngineMode::Refuse) => self.set_mode(server, Mode::Refuse),
            Action::Engine(EngineMode::Hold) => self.set_mode(server, Mode::Hold),
            Action::Engine(EngineMode::Serve) => self.serve(server),
            Action::Beat { state, epoch } => {
                process.hello.state = state;
                process.hello.epoch = epoch;
                process.hello.beat += 1;
                process.is_hello_new = true;
            }
            Action::Log(event) => self.trace(|| format!("server {server}: {event:?}")),
            Action::VerifyOwnership => {
                let now = self.clock();
                if let Some(work) = self.work(server) {
                    work.node.prove_ownership(now);
                }
                self.flush_soon(server);
            }
            Action::StopEngine => self.begin_stop(server),
            Action::Exit { exit, reason } => self.exit(server, exit, &reason),
        }
    }

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
        let found = drain::read_all(&store);
        let epoch = store.epoch();
        if mutant == Mutant::NoMarks {
            drain::forget_reservations(&mut store);
        }
        if mutant == Mutant::NoHolds {
            drain::forget_holds(&mut store);
        }
        let deadline_ms = store.fence_deadline_ms();
        process.work = Some(Work {
            watchdog_after_ms: deadline_ms.map_or(WATCHDOG_MS, |deadline_ms| {
                deadline_ms.clamp(WATCHDOG_SHORTEST_MS, WATCHDOG_MS)
            }),
            node: Node::new(settings, store, now),
            conns: BTreeMap::new(),
            paused: Vec::new(),
            lanes: Default::default(),
            watchdog_ms: None,
            was_lapsed: false,
            refused_writes: 0,
            next_tick: self.now,
            is_flush_due: false,
        });
        self.trace(|| format!("server {server} serves epoch {epoch}"));
        match found {
            Ok(found) => self.oracle.took_over(life, epoch, &found),
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
        let Some(work) = self.work(server) else {
            return;
        };
        if work.node.fatal().is_some() {
            return;
        }
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
            self.oracle.waits_no_more(life);
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
