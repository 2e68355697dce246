//! One server: the role, the opener and the engine's glue around them, doing what `net/server.rs`,
//! `net/opener.rs`, `net/engine.rs` and `net/pump.rs` do, in the same order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use steadfast::node::{ConnectionId, Node, Now, ReadTask, ReadTaskDone};
use steadfast::role::{
    Action, EngineMode, Exit, Failure, FailureKind, Input, LinkId, LockResult, PeerNews,
    RecoveryResult, Role, Settings, State,
};
use steadfast_storage::disk::{Disk, SimWorld};
use steadfast_storage::{
    Acquire, Canary, Job, JobDone, Lane, OpenError, Ownership, RecoveryReport, Store, store_id,
    try_acquire,
};

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
/// The watchdog looks so often.
const WATCHDOG_LOOK: Micros = 50 * MS;
/// See `net/opener.rs`.
const CANARY_PAUSE: Micros = 5_000 * MS;
/// Lanes of jobs, and the one of reads.
pub(super) const LANES: usize = 5;
const READ_LANE: usize = 4;

/// What a server says of itself on peer links.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) instance: u64,
    server: usize,
    state: State,
    epoch: u64,
    beat: u64,
    store: Option<[u8; 16]>,
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
    queue: VecDeque<LaneWork>,
    is_running: bool,
    done: Option<LaneDone>,
}

/// What an active server has.
pub(super) struct Work {
    pub(super) node: Node,
    pub(super) conns: BTreeMap<ConnectionId, u64>,
    paused: Vec<ConnectionId>,
    lanes: [LaneState; LANES],
    watchdog_ms: Option<u64>,
    was_lapsed: bool,
    refused_writes: u64,
    next_tick: Micros,
    is_flush_due: bool,
}

/// How far an orderly stop has come.
#[derive(Clone, Copy, Debug)]
enum Stopping {
    Confirms(Micros),
    Sockets(Micros),
    Seal(Micros),
}

/// A server process.
pub(super) struct Process {
    pub(super) disk: ProcessDisk,
    pub(super) role: Role,
    started: Micros,
    pub(super) mode: Mode,
    pub(super) hello: Hello,
    is_hello_new: bool,
    ownership: Option<Ownership>,
    canary: Canary,
    looked_at: Option<Micros>,
    answers: VecDeque<Answer>,
    opened: Option<Store>,
    pub(super) work: Option<Work>,
    stopping: Option<Stopping>,
    peer_store: Option<[u8; 16]>,
    pub(super) next_link: u64,
    wake_at: Option<Micros>,
    /// A fault has hit one of its disk operations.
    is_hurt: bool,
    /// It was stopped, or its disk did not answer, while ownership runs out.
    was_late: bool,
    was_asked_to_stop: bool,
}

/// A place for server processes.
pub(super) struct Server {
    index: usize,
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
    fn settle_down(&mut self, server: usize) {
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
    fn end(&mut self, server: usize, is_orderly: bool) {
        let it = &mut self.servers[server];
        let Some(process) = it.process.take() else {
            return;
        };
        let life = it.life;
        it.is_stopped = false;
        it.deferred.clear();
        self.world.kill(process.disk.sim());
        drop(process);
        self.oracle.ended(life, is_orderly);
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
    }

    /// The process ends by itself.
    fn exit(&mut self, server: usize, exit: Exit, reason: &str) {
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

    fn role_ms(&self, server: usize) -> u64 {
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

    fn perform_all(&mut self, server: usize) {
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

    fn perform(&mut self, server: usize, action: Action) {
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

    fn drop_link(&mut self, server: usize, number: LinkId) {
        let life = self.servers[server].life;
        let found = self.links.iter().find_map(|(id, link)| {
            let end = link.ends.iter().position(|it| *it == (server, life))?;
            (link.ids[end] == Some(number)).then_some((*id, end))
        });
        if let Some((id, end)) = found {
            self.hang_up(id, end, "the peer hung up");
        }
    }

    fn answer_call(&mut self, server: usize, id: u64) {
        let Some(process) = &self.servers[server].process else {
            return;
        };
        let hello = process.hello.clone();
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let first = link.first.clone();
        self.say(id, 1, Line::Hello(hello));
        // The caller still waits for the answer.
        self.link_up(server, id, 1, &first);
        if let Some(link) = self.links.get_mut(&id) {
            link.is_calling = link.ids[0].is_none();
        }
    }

    fn call_timeout(&mut self, server: usize, id: u64) {
        match self.links.get(&id) {
            Some(link) if link.is_calling => {
                if link.ids[1].is_some() {
                    self.hang_up(id, 0, "the caller gave up");
                    if let Some(link) = self.links.get_mut(&id) {
                        link.is_calling = false;
                    }
                } else {
                    self.links.remove(&id);
                }
                self.call_failed(server, "no answer in time");
            }
            Some(_) => {}
            None => {}
        }
    }

    /// Two servers of a pair that are active on two stores: the one with the shorter history ends. False
    /// when that is this one.
    pub(super) fn weigh_store(&mut self, server: usize, hello: &Hello) -> bool {
        let Some(theirs) = hello.store.filter(|_| hello.state.owns_store()) else {
            return true;
        };
        let Some(process) = self.servers[server].process.as_mut() else {
            return false;
        };
        let ends = match process.hello.store {
            Some(own) if process.role.state() == State::Active && own != theirs => {
                (process.role.epoch(), own) < (hello.epoch, theirs)
            }
            _ => false,
        };
        process.peer_store = Some(theirs);
        if ends {
            self.exit(server, Exit::NotOwner, "another store");
        }
        !ends
    }

    // ---- the opener ----

    fn run_opener(&mut self, server: usize, order: Order) {
        let now = self.now;
        let options = self.options.clone();
        let faults = self.world.faults_left();
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let answer = match order {
            Order::TryLock => Answer::Lock(process.try_lock(now)),
            Order::Recover => process.recover(options),
        };
        process.answers.push_back(answer);
        if self.after_disk(server, faults) {
            let slow = self.weather.slowness(self.now);
            let delay = self.between(100, 30 * MS) * slow.min(10);
            let hang = self.weather.hang_until.saturating_sub(self.now);
            self.tell(server, delay.max(hang), Happening::OpenerDone);
        }
    }

    fn opener_done(&mut self, server: usize) {
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let input = match process.answers.pop_front() {
            None => return,
            Some(Answer::Lock(result)) => Input::Lock(result),
            Some(Answer::Recovery(result)) => Input::Recovery(result),
            Some(Answer::Opened(store, report)) => {
                process.opened = Some(*store);
                if !report.damaged.is_empty() {
                    let what = format!("a whole store is called damaged: {:?}", report.damaged);
                    self.oracle.blame(what);
                }
                let epoch = report.epoch;
                Input::Recovery(RecoveryResult::Ready { epoch })
            }
        };
        self.give(server, input);
    }

    /// Looks what work on the disk has done to the world: crash points, deaths, faults. Whether the
    /// process lives.
    fn after_disk(&mut self, server: usize, faults_before: u64) -> bool {
        if self.is_recorded {
            for copy in self.world.recorded() {
                self.crash_point(&copy);
            }
        }
        let is_hurt = self.world.faults_left() != faults_before;
        let Some(process) = self.servers[server].process.as_mut() else {
            return false;
        };
        process.is_hurt |= is_hurt;
        match process.disk.blown() {
            None => true,
            Some(Blow::Kill) => {
                self.trace(|| format!("server {server} dies between two operations"));
                self.end(server, false);
                false
            }
            Some(Blow::Power(_)) => {
                self.trace(|| "power is lost between two operations".to_owned());
                self.power_lost();
                false
            }
        }
    }

    fn crash_point(&mut self, copy: &SimWorld) {
        if self.random.u8(..4) == 0 {
            copy.kill_all();
        } else {
            copy.crash(self.random.u64(..));
        }
        self.check_copy(copy);
    }

    /// A crash now, in a copy of the world.
    pub(super) fn check_copy(&mut self, copy: &SimWorld) {
        copy.heal();
        copy.set_room_bytes(None);
        let drained = drain::recover_and_drain(copy, &self.options, &self.settings, self.mutant);
        let judged = drained.and_then(|found| self.oracle.judge(&found, true));
        if let Err(what) = judged {
            self.oracle.blame(format!("after a crash here: {what}"));
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

    fn set_mode(&mut self, server: usize, mode: Mode) {
        if let Some(process) = self.servers[server].process.as_mut() {
            process.mode = mode;
        }
        self.admit_held(server);
    }

    /// Becomes active with the store that was opened.
    fn serve(&mut self, server: usize) {
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
        process.work = Some(Work {
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
    fn sole_owner(&mut self, server: usize) {
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

    fn start_jobs(&mut self, server: usize) {
        let now = self.clock();
        while let Some(work) = self.work(server)
            && let Some(job) = work.node.poll_job(now)
        {
            let lane = match job.lane() {
                Lane::Log => 0,
                Lane::Checkpoint => 1,
                Lane::Prepare => 2,
                Lane::Compact => 3,
            };
            self.start_lane(server, lane, LaneWork::Job(job));
        }
    }

    fn start_lane(&mut self, server: usize, lane: usize, one: LaneWork) {
        if let Some(work) = self.work(server) {
            work.lanes[lane].queue.push_back(one);
        }
        self.next_of_lane(server, lane);
    }

    fn next_of_lane(&mut self, server: usize, lane: usize) {
        let slow = self.weather.slowness(self.now);
        let delay = self.between(5, 2 * MS) * slow;
        // What the disk does may happen early or late in the time that it takes.
        let delay = if self.random.bool() { delay } else { 5 };
        if let Some(work) = self.work(server) {
            let state = &mut work.lanes[lane];
            if !state.is_running && !state.queue.is_empty() {
                state.is_running = true;
                self.tell(server, delay, Happening::LaneRun(lane));
            }
        }
    }

    fn run_lane(&mut self, server: usize, lane: usize) {
        let faults = self.world.faults_left();
        let owes = self.mutant == Mutant::EarlyCompletion && lane == 0;
        let Some(process) = self.servers[server].process.as_mut() else {
            return;
        };
        let Some(work) = process.work.as_mut() else {
            return;
        };
        let Some(one) = work.lanes[lane].queue.pop_front() else {
            return;
        };
        process.disk.set_owing(owes);
        let done = match one {
            LaneWork::Job(job) => LaneDone::Job(job.run()),
            LaneWork::Read(task) => LaneDone::Read(task.run()),
        };
        process.disk.set_owing(false);
        work.lanes[lane].done = Some(done);
        if owes {
            let delay = self.random.u64(..20 * MS);
            self.tell(server, delay, Happening::Pay);
        }
        if self.after_disk(server, faults) {
            let slow = self.weather.slowness(self.now);
            let hang = self.weather.hang_until.saturating_sub(self.now);
            if let Some(process) = self.servers[server].process.as_mut() {
                process.was_late |= hang > 0 || slow > 1;
            }
            let delay = self.between(5, 2 * MS) * slow;
            self.tell(server, delay.max(hang), Happening::LaneDone(lane));
        }
    }

    fn lane_done(&mut self, server: usize, lane: usize) {
        let now = self.clock();
        let Some(work) = self.work(server) else {
            return;
        };
        work.lanes[lane].is_running = false;
        let Some(done) = work.lanes[lane].done.take() else {
            return;
        };
        self.next_of_lane(server, lane);
        let Some(work) = self.work(server) else {
            return;
        };
        match done {
            LaneDone::Read(read) => work.node.read_done(now, read),
            LaneDone::Job(job) => {
                if let Err(fatal) = work.node.complete(job) {
                    return self.fail(server, &fatal.to_string());
                }
                // The disk is busy again before anything else is done.
                self.start_jobs(server);
                if let Some(work) = self.work(server) {
                    work.node.advance(now);
                }
            }
        }
        self.turn(server);
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

    fn watch_ownership(&mut self, server: usize) {
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
            work.watchdog_ms.get_or_insert(now.boot_ms + WATCHDOG_MS);
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
    fn resume_paused(&mut self, server: usize) {
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

    fn begin_stop(&mut self, server: usize) {
        if self.mode(server) == Mode::Fail {
            return self.give(server, Input::Stopped);
        }
        self.set_mode(server, Mode::Stop);
        if let Some(work) = self.work(server) {
            work.node.begin_stop();
        }
        self.flush_soon(server);
        let until = self.now + STOP_CONFIRMS;
        if let Some(process) = self.servers[server].process.as_mut() {
            process.stopping = Some(Stopping::Confirms(until));
        }
    }

    fn go_on_stopping(&mut self, server: usize) {
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

    fn wake(&mut self, server: usize) {
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
    fn arm(&mut self, server: usize) {
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
    fn notice(&mut self, server: usize) {
        let life = self.servers[server].life;
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
        if status.backlog_bytes == 0 {
            self.oracle.quiet(life);
        }
        if status.store.quarantined + status.store.lost_references > 0 {
            self.oracle
                .blame("a message of a whole store is called damaged".to_owned());
        }
        for conn in over {
            self.oracle.left(conn);
        }
    }

    /// Whether exactly one server is active, the others stand by, and nothing is left in the queues.
    pub(super) fn servers_are_well(&self) -> Result<(), String> {
        let mut active = 0;
        for server in &self.servers {
            let Some(process) = &server.process else {
                return Err(format!("server {} does not run", server.index));
            };
            match (process.role.state(), &process.work) {
                (State::Active, Some(work)) => {
                    active += 1;
                    let left: u64 = work.node.queue_status().iter().map(|it| it.messages).sum();
                    if left > 0 {
                        return Err(format!("{left} messages are left"));
                    }
                }
                (State::Standby, _) => {}
                (state, _) => return Err(format!("server {} is {state}", server.index)),
            }
        }
        if active == 1 {
            Ok(())
        } else {
            Err(format!("{active} servers are active"))
        }
    }
}

impl Process {
    fn try_lock(&mut self, now: Micros) -> LockResult {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        match try_acquire(Arc::clone(&disk), "a simulated server") {
            Ok(Acquire::Owned(_))
                if let Some(theirs) = self.peer_store
                    && store_id(disk.as_ref()).is_ok_and(|own| own != Some(theirs)) =>
            {
                LockResult::Failed(Failure {
                    kind: FailureKind::OtherStore,
                    reason: "another store".to_owned(),
                })
            }
            Ok(Acquire::Owned(ownership)) => {
                self.ownership = Some(ownership);
                LockResult::Owned
            }
            Ok(Acquire::Busy(reason)) => match self.broken_locks(disk.as_ref(), now) {
                Some(failure) => LockResult::Failed(failure),
                None => LockResult::Busy { reason },
            },
            Err(error) => match failure(error) {
                Ok(failure) => LockResult::Failed(failure),
                Err(reason) => LockResult::Busy { reason },
            },
        }
    }

    fn broken_locks(&mut self, disk: &dyn Disk, now: Micros) -> Option<Failure> {
        let is_recent = self.looked_at.is_some_and(|at| now - at < CANARY_PAUSE);
        if disk.file_system().is_local() || is_recent {
            return None;
        }
        self.looked_at = Some(now);
        let reason = self.canary.look(disk).ok().flatten()?;
        Some(Failure {
            kind: FailureKind::UnsafeFileSystem,
            reason,
        })
    }

    fn recover(&mut self, options: steadfast_storage::StoreOptions) -> Answer {
        let Some(ownership) = self.ownership.take() else {
            let reason = "the lock is not held".to_owned();
            return Answer::Recovery(RecoveryResult::Busy { reason });
        };
        match Store::open(ownership, options, &mut |_| ()) {
            Ok((store, report)) => Answer::Opened(Box::new(store), Box::new(report)),
            Err(error) => Answer::Recovery(match failure(error) {
                Ok(failure) => RecoveryResult::Failed(failure),
                Err(reason) => RecoveryResult::Busy { reason },
            }),
        }
    }
}

/// Why the store cannot be used; `Err` when it is merely somebody else's.
fn failure(error: OpenError) -> Result<Failure, String> {
    let kind = match &error {
        OpenError::Busy(holder) => return Err(holder.clone()),
        OpenError::Damaged(_) => FailureKind::Damaged,
        OpenError::UnsafeFileSystem(_) => FailureKind::UnsafeFileSystem,
        _ => FailureKind::Io,
    };
    let reason = error.to_string();
    Ok(Failure { kind, reason })
}
