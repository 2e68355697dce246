//! The simulated machine room: one clock, one queue of events, two servers on one disk, the network
//! and the clients. The same seed gives the same history, event for event.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use steadfast::node::NodeSettings;
use steadfast::role::State;
use steadfast_storage::StoreOptions;
use steadfast_storage::disk::{FileSystem, SimWorld};

use super::client::Client;
use super::drain;
use super::faults::Fault;
use super::network::{Conn, Link};
use super::oracle::Oracle;
use super::places::{Aim, Places, TOPICS};
use super::server::{Order, Server};

/// Simulated microseconds since the start.
pub(super) type Micros = u64;

pub(super) const MS: Micros = 1_000;
pub(super) const SERVERS: usize = 2;
pub(super) const QUEUES: usize = 3;
/// After the last fault all must be well within so long.
const RECOVERY: Micros = 60_000 * MS;
/// How often that is looked at.
const LOOK: Micros = 100 * MS;
/// Events at most: a loop without progress in time is a fault.
const EVENTS_MAX: u64 = 3_000_000;

static TRACES: AtomicBool = AtomicBool::new(false);

/// Prints what happens in all lives from now on.
pub(crate) fn trace_on() {
    TRACES.store(true, Ordering::Relaxed);
}

/// Prints a line of a trace.
pub(super) fn trace_line(text: impl FnOnce() -> String) {
    if TRACES.load(Ordering::Relaxed) {
        eprintln!("{}", text());
    }
}

/// A way to break the glue, so that the oracle is seen to notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutant {
    /// None.
    Sound,
    /// A batch is reported written and synced before it is.
    EarlyCompletion,
    /// A successor does not know up to where its predecessor may have delivered.
    NoMarks,
    /// A successor does not know what clients had.
    NoHolds,
    /// The disk's syncs do nothing.
    LyingDisk,
    /// Every server gets every lock.
    NoLocks,
    /// A successor does not know the subscriptions.
    LostSubscription,
    /// A successor does not know that a subscription has ended.
    RevivedSubscription,
    /// A successor does not know that a queue is deleted.
    RevivedQueue,
    /// A purge does nothing.
    NoPurge,
}

/// What happens to a server process; dropped when that has ended, held while it is stopped.
#[derive(Debug)]
pub(super) enum Happening {
    Wake,
    Flush,
    LaneRun(usize),
    LaneDone(usize),
    /// What was reported done is done.
    Pay,
    OpenerRun(Order),
    OpenerDone,
    Arrive(u64),
    Readable(u64),
    Writable(u64),
    /// Another server calls.
    Call(u64),
    /// A link has something to hear.
    Peer(u64),
    /// A call was not answered in time.
    CallTimeout(u64),
}

#[derive(Debug)]
pub(super) enum Event {
    Server {
        server: usize,
        life: u64,
        what: Happening,
    },
    /// Bytes come to their end of a connection.
    Pipe {
        conn: u64,
        to_server: bool,
    },
    /// A client asks for a connection.
    Dial(u64),
    ClientWake(usize),
    /// A message comes to an end of a link between servers.
    Line {
        link: u64,
        end: usize,
    },
    Fault(Fault),
    Start(usize),
    Resume(usize),
    Finale,
    Look,
}

pub(super) struct Sim {
    pub(super) now: Micros,
    sequence: u64,
    queue: BTreeMap<(Micros, u64), Event>,
    pub(super) random: fastrand::Rng,
    pub(super) world: SimWorld,
    world_ms: u64,
    pub(super) options: StoreOptions,
    pub(super) settings: NodeSettings,
    pub(super) servers: Vec<Server>,
    pub(super) clients: Vec<Client>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) next_id: u64,
    pub(super) places: Places,
    pub(super) oracle: Oracle,
    pub(super) weather: super::faults::Weather,
    pub(super) mutant: Mutant,
    /// Every operation of the disk is a crash point.
    pub(super) is_recorded: bool,
    pub(super) is_finale: bool,
    /// All is well, and subscribers end what they have.
    is_ending: bool,
    finale_until: Micros,
    is_done: bool,
    events: u64,
    pub(super) heartbeat_ms: u64,
    /// A digest of the history, to compare two runs.
    pub(super) digest: u64,
}

/// Whether all is well at the end; what is missing otherwise.
type Verdict = Result<(), String>;

impl Sim {
    pub(super) fn new(seed: u64, mutant: Mutant, is_recorded: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = SimWorld::new();
        if random.u8(..4) == 0 {
            world.set_file_system(FileSystem::Nfs { lease_s: Some(20) });
        }
        if mutant == Mutant::LyingDisk {
            world.lie();
        }
        let options = StoreOptions {
            segment_bytes: 64 << random.u32(10..13),
            first_segment_bytes: 64 << 10,
            checkpoint_bytes: Some(1 << random.u32(12..17)),
            batch_bytes: 1 << random.u32(10..16),
            free_bytes_min: 1 << 20,
            new_identity: *b"the sample of the fuzzer",
            ..StoreOptions::default()
        };
        let settings = drain::node_settings(&mut random);
        let heartbeat_ms = [100, 300, 1_000][random.usize(..3)];
        let mut sim = Self {
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            world,
            world_ms: 0,
            options,
            settings,
            servers: (0..SERVERS).map(Server::new).collect(),
            clients: Vec::new(),
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            next_id: 0,
            places: Places::default(),
            oracle: Oracle::default(),
            weather: super::faults::Weather::default(),
            mutant,
            is_recorded,
            is_finale: false,
            is_ending: false,
            finale_until: 0,
            is_done: false,
            events: 0,
            heartbeat_ms,
            digest: 0,
            random,
        };
        sim.plan();
        sim
    }

    /// The clients, the faults, and when they end.
    fn plan(&mut self) {
        let producers = self.random.usize(1..4);
        let consumers = QUEUES + self.random.usize(..3);
        let quota = if self.is_recorded {
            self.random.u32(2..8)
        } else {
            self.random.u32(10..80)
        };
        let subscribers = self.random.usize(..4);
        let mut places = Places::new(self.random.bool());
        for index in 0..producers {
            let aim = match self.random.u8(..5) {
                0..2 if subscribers > 0 => Aim::Topic(self.random.usize(..TOPICS.len())),
                2 if subscribers > 0 => Aim::Relay,
                _ => Aim::Queue(self.random.usize(..QUEUES)),
            };
            let quota = self.random.u32(1..=quota);
            self.clients.push(Client::producer(index, aim, quota));
        }
        for index in 0..consumers {
            let own = vec![index % QUEUES];
            let client = Client::consumer(producers + index, own, &mut self.random);
            self.clients.push(client);
        }
        for index in 0..subscribers {
            let index = producers + consumers + index;
            let own = places.subscriber(index, &mut self.random);
            let client = Client::consumer(index, own, &mut self.random);
            self.clients.push(client);
        }
        self.oracle = Oracle::new(places.clone(), self.settings.reconnect_timeout_ms > 0);
        self.places = places;
        for client in 0..self.clients.len() {
            let at = self.random.u64(..200 * MS);
            self.clients[client].next_server = self.random.usize(..SERVERS);
            self.at(at, Event::ClientWake(client));
        }
        for server in 0..SERVERS {
            let at = self.random.u64(..100 * MS);
            self.at(at, Event::Start(server));
        }
        if self.is_recorded {
            self.world.record();
        }
        let end = self.plan_faults();
        self.at(end, Event::Finale);
    }

    // ---- time ----

    pub(super) fn at(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        let at = at.max(self.now);
        self.queue.insert((at, self.sequence), event);
    }

    pub(super) fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    /// A number between two, more often near the lower one.
    pub(super) fn between(&mut self, low: Micros, high: Micros) -> Micros {
        let span = (high - low).max(1);
        let reach = self.random.u64(1..=span);
        low + self.random.u64(..reach)
    }

    pub(super) fn trace(&self, text: impl FnOnce() -> String) {
        trace_line(|| format!("{:>12.3} ms  {}", self.now as f64 / MS as f64, text()));
    }

    /// Lives to the end; gives the first thing that must not be.
    pub(super) fn run(&mut self) -> Verdict {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            let ms = at / MS;
            self.world.advance_ms(ms - self.world_ms);
            self.world_ms = ms;
            self.events += 1;
            if self.events > EVENTS_MAX {
                return Err(self.told("it goes on for ever"));
            }
            let kind = std::mem::discriminant(&event);
            self.note(kind);
            self.handle(event);
            if let Some(what) = self.oracle.violation() {
                let what = what.to_owned();
                return Err(self.told(&what));
            }
            if self.is_done {
                return Ok(());
            }
        }
        Err(self.told("nothing happens any more"))
    }

    fn note(&mut self, kind: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, self.now).hash(&mut hasher);
        kind.hash(&mut hasher);
        self.digest = hasher.finish();
    }

    fn told(&self, what: &str) -> String {
        format!("{what} (at {} ms)", self.now / MS)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Server { server, life, what } => self.happen(server, life, what),
            Event::Pipe { conn, to_server } => self.pipe_due(conn, to_server),
            Event::Dial(conn) => self.dial(conn),
            Event::ClientWake(client) => self.client_wake(client),
            Event::Line { link, end } => self.line_due(link, end),
            Event::Fault(fault) => self.strike(fault),
            Event::Start(server) => self.start(server),
            Event::Resume(server) => self.resume(server),
            Event::Finale => self.begin_finale(),
            Event::Look => self.look(),
        }
    }

    // ---- the end ----

    /// No fault any more: from now on all must become well.
    fn begin_finale(&mut self) {
        self.trace(|| "finale".to_owned());
        self.is_finale = true;
        self.finale_until = self.now + RECOVERY;
        self.heal();
        for client in 0..self.clients.len() {
            self.clients[client].begin_finale();
            self.wake_client(client, self.now);
        }
        self.after(LOOK, Event::Look);
    }

    fn look(&mut self) {
        match self.is_well() {
            Ok(()) if self.is_ending => self.is_done = true,
            Ok(()) => {
                self.oracle.finish();
                self.begin_ending();
                self.after(LOOK, Event::Look);
            }
            Err(what) if self.now > self.finale_until => {
                self.oracle
                    .blame(format!("60 s after the last fault: {what}"));
            }
            Err(_) => self.after(LOOK, Event::Look),
        }
    }

    /// Subscribers end what they have: nothing may be left in the store, also of what others have left behind.
    fn begin_ending(&mut self) {
        self.trace(|| "ending".to_owned());
        self.is_ending = true;
        let reconnect = self.settings.reconnect_timeout_ms * MS;
        self.finale_until = self.now + RECOVERY + reconnect;
        for client in 0..self.clients.len() {
            self.clients[client].begin_ending(&self.places);
            self.wake_client(client, self.now);
        }
    }

    fn is_well(&mut self) -> Verdict {
        self.servers_are_well()?;
        for client in &self.clients {
            client.is_done()?;
        }
        Ok(())
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
                    let all = work.node.queue_status();
                    let queues = all.iter().filter(|it| !it.is_temporary || it.consumers > 0);
                    let queues: u64 = queues.map(|it| it.messages).sum();
                    let temporary = all.iter().filter(|it| it.is_temporary).count();
                    let temporary = temporary + work.node.temporary_topic_names().len();
                    let subscriptions = work.node.subscription_status();
                    // Others may wait for somebody who does not return.
                    let read = subscriptions.iter().filter(|it| it.is_active);
                    let left = queues + read.map(|it| it.messages).sum::<u64>();
                    if left > 0 {
                        return Err(format!("{left} messages are left"));
                    }
                    let kept = subscriptions.len() + temporary;
                    let stored = work.node.status().store.messages;
                    if self.is_ending && kept as u64 + stored > 0 {
                        return Err(format!(
                            "without subscribers there are {kept} subscriptions or temporary destinations, and {stored} messages"
                        ));
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
