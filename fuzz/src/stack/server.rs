//! One server: the role, the opener and the engine's glue around them, doing what `net/server.rs`,
//! `net/opener.rs`, `net/engine.rs` and `net/pump.rs` do, in the same order.

use std::collections::{BTreeMap, VecDeque};

use steadfast::node::{ConnectionId, Node, PurgeId, ReadTask, ReadTaskDone};
use steadfast::role::{
    Action, EngineMode, Exit, Input, LockResult, PeerNews, RecoveryResult, Role, Settings, State,
};
use steadfast_storage::{Canary, Job, JobDone, Ownership, RecoveryReport, Store};

use super::disk::{Blow, ProcessDisk};
use super::network::Line;
use super::oracle::PartId;
use super::sim::{Event, Happening, MS, Micros, Mutant, SERVERS, Sim};

/// See `net/engine.rs`.
pub(super) const TICK: Micros = 250 * MS;
pub(super) const STOP_CONFIRMS: Micros = 2_000 * MS;
pub(super) const STOP_SOCKETS: Micros = 1_000 * MS;
pub(super) const STOP_SEAL: Micros = 30_000 * MS;
pub(super) const WATCHDOG_MS: u64 = 5_000;
pub(super) const WATCHDOG_SHORTEST_MS: u64 = 500;
/// The watchdog looks so often.
pub(super) const WATCHDOG_LOOK: Micros = 50 * MS;
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
    /// Purges that are under way, with what must go.
    pub(super) purges: Vec<(PurgeId, Vec<PartId>)>,
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
}
