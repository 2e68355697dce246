//! The engine thread: all connections, the node, and the hand-over of disk work to the lanes.
//!
//! Everything here runs on one thread, in the tasks of one `LocalSet`: a received message goes from
//! the socket through the node into the store's open batch without a lock, a channel or another
//! task. The *flusher* runs after all tasks that were ready and hands the open batch to the log
//! lane when that is idle; otherwise the batch grows until the lane is done (group commit).

mod manage;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use steadfast_storage::{FatalError, Store, StoreStatus};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use crate::auth::{LoginTask, Users, Verdict};
use crate::model::Directory;
use crate::node::{
    Caller, CertificateUser, ConnectionId, Node, NodeSettings, NodeStatus, Now, QueueStatus,
    ServerAddress,
};

use super::admin::Calls;
use super::clock;
use super::lanes::{LaneDone, Lanes};
use super::logins::Logins;
use super::pump::{self, Incoming, Socket};
use super::watchdog::Watchdog;

pub(super) use manage::{Durability, Purged};

/// How often time-outs are looked at.
const TICK_MS: u64 = 250;
/// How long an orderly end waits for confirms that are under way.
const STOP_CONFIRMS: Duration = Duration::from_secs(2);
/// How long an orderly end waits for clients to take what they are told.
const STOP_SOCKETS: Duration = Duration::from_secs(1);
/// How long an orderly end waits for the store to be sealed.
const STOP_SEAL: Duration = Duration::from_secs(30);

/// Choices of the engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// What clients and the store see.
    pub node: NodeSettings,
    /// How long a client is held while it is open who is active, milliseconds.
    pub hold_ms: u64,
    /// A client that takes nothing of its output for so long is given up, milliseconds.
    pub stuck_ms: u64,
    /// After ownership has been in doubt for so long the process ends, milliseconds. Less where the
    /// store's fence has a deadline that is shorter.
    pub watchdog_ms: u64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            node: NodeSettings::default(),
            hold_ms: 10_000,
            stuck_ms: 60_000,
            watchdog_ms: 5_000,
        }
    }
}

/// Figures of the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineStatus {
    /// Client sockets, also those that are held.
    pub connections: u64,
    /// Links of clients.
    pub links: u64,
    /// Queues.
    pub queues: u64,
    /// Subscriptions to topics.
    pub subscriptions: u64,
    /// Copies that subscriptions did not get because they were full.
    pub skipped: u64,
    /// Messages that went because newer ones needed their room.
    pub discarded: u64,
    /// Messages taken from clients.
    pub messages_in: u64,
    /// Messages sent to clients.
    pub messages_out: u64,
    /// Those of them that were marked as redelivered.
    pub redelivered: u64,
    /// Logins that were refused.
    pub refused_logins: u64,
    /// Figures of the store, once it is ours.
    pub store: Option<StoreStatus>,
    /// All figures of the node, once the server is active.
    pub node: Option<NodeStatus>,
}

/// What the engine does with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Welcome and send away: somebody else is active.
    Refuse,
    /// Let them wait: it is open who is active.
    Hold,
    /// Serve.
    Serve,
    /// Serve no new ones and read nothing more.
    Stop,
    /// The store is lost: say nothing more.
    Fail,
}

/// The engine; clones are the same engine.
#[derive(Debug, Clone)]
pub struct Engine(pub(super) Rc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: EngineSettings,
    mode: watch::Sender<Mode>,
    failed: watch::Sender<Option<FatalError>>,
    active: RefCell<Option<ServerAddress>>,
    directory: RefCell<Arc<Directory>>,
    /// Those of the directory, for clients of a standby; made when one comes.
    users: RefCell<Option<Arc<Users>>>,
    pub(super) logins: Logins,
    /// Where requests to `$management` go.
    calls: RefCell<Option<Calls>>,
    work: RefCell<Option<Work>>,
    /// Wakes the flusher.
    flush: Notify,
    /// Wakes the timer when something is due earlier than it thinks.
    rearm: Notify,
    /// When the timer wakes by itself, in the clock of `boot_ms`.
    timer_ms: Cell<u64>,
    /// A job of the log finished, or a socket was closed.
    progress: Notify,
    /// Something happened: the next event is near.
    stir: Notify,
    is_stirred: Cell<bool>,
    last_heard: Cell<Option<ConnectionId>>,
    company_until: Cell<Option<Instant>>,
    pub(super) sockets_open: Cell<u64>,
    /// Where all sockets are read into.
    pub(super) read_buffer: RefCell<BytesMut>,
    /// Where sockets with TLS are read into.
    pub(super) cipher_buffer: RefCell<Vec<u8>>,
}

/// How long the engine looks for the next event before it sleeps. Waking a sleeping thread costs as
/// much as half a sync of a fast disk, and after each event the next one is near: the end of the
/// sync, or the client's next message. Idle servers sleep; a slow disk is not waited for like this,
/// nor is there need when several clients keep the thread awake anyway.
const LINGER: Duration = Duration::from_micros(250);
/// After input from another client the thread does not linger for so long.
const COMPANY: Duration = Duration::from_millis(20);

/// What an active server has.
#[derive(Debug)]
struct Work {
    node: Node,
    sockets: BTreeMap<ConnectionId, Rc<Socket>>,
    /// Sockets that are not read because of back-pressure.
    paused: Vec<ConnectionId>,
    lanes: Lanes,
    watchdog: Watchdog,
    /// After ownership has been in doubt for so long the process ends.
    watchdog_ms: u64,
    /// Ownership was in doubt at the last turn: sockets have output that waits.
    was_lapsed: bool,
    /// Messages were refused for lack of space at the last turn.
    was_full: bool,
    /// Writes of the log that had found no space at the last turn.
    refused_writes: u64,
}

impl Engine {
    /// An engine that refuses clients until it is told otherwise. To be used within a `LocalSet` of
    /// a runtime that runs on the current thread.
    pub fn new(settings: EngineSettings) -> Self {
        Self(Rc::new(Shared {
            settings,
            mode: watch::Sender::new(Mode::Refuse),
            failed: watch::Sender::new(None),
            active: RefCell::new(None),
            directory: RefCell::default(),
            users: RefCell::default(),
            logins: Logins::default(),
            calls: RefCell::default(),
            work: RefCell::new(None),
            flush: Notify::new(),
            rearm: Notify::new(),
            timer_ms: Cell::new(0),
            progress: Notify::new(),
            stir: Notify::new(),
            is_stirred: Cell::new(false),
            last_heard: Cell::new(None),
            company_until: Cell::new(None),
            sockets_open: Cell::new(0),
            read_buffer: RefCell::new(BytesMut::new()),
            cipher_buffer: RefCell::new(Vec::new()),
        }))
    }

    /// Takes a new client connection, from which nothing was read yet.
    pub fn accept(&self, stream: TcpStream) {
        spawn_local(pump::run(self.clone(), Incoming::Plain(stream)));
    }

    /// Takes a new client connection whose TLS handshake is over; `user` is what the client's
    /// certificate says, which was verified.
    pub(super) fn accept_secure(
        &self,
        stream: TlsStream<TcpStream>,
        user: Option<CertificateUser>,
    ) {
        let stream = Box::new(stream);
        let incoming = Incoming::Secure { stream, user };
        spawn_local(pump::run(self.clone(), incoming));
    }

    /// Standby: welcomes clients and sends them away, those that are held as well.
    pub fn refuse(&self) {
        self.0.mode.send_replace(Mode::Refuse);
    }

    /// Where clients that follow redirects are sent by a standby.
    pub fn set_active(&self, active: Option<ServerAddress>) {
        self.0.active.replace(active);
    }

    /// Destinations and permissions from now on.
    pub fn set_directory(&self, directory: Arc<Directory>) {
        self.0.directory.replace(Arc::clone(&directory));
        self.0.users.replace(None);
        self.with_node(|node| node.set_directory(clock::now(), directory));
        self.0.flush.notify_one();
    }

    /// Lets clients wait, each for the configured time at most, then as [`Self::refuse`].
    pub fn hold(&self) {
        self.0.mode.send_replace(Mode::Hold);
    }

    /// Becomes active with an open store; clients that are held are served.
    pub fn serve(&self, store: Store) {
        let (done, finished) = unbounded_channel();
        let threads = Lanes::start(&done).and_then(|lanes| Ok((lanes, Watchdog::start()?)));
        let (lanes, watchdog) = match threads {
            Ok(threads) => threads,
            Err(error) => {
                self.fail(FatalError {
                    what: String::from("starting the store's threads failed"),
                    file: String::new(),
                    reason: error.to_string(),
                });
                return;
            }
        };
        let watchdog_ms = watchdog_ms(self.0.settings.watchdog_ms, store.fence_deadline_ms());
        let mut node = Node::new(self.0.settings.node.clone(), store, clock::now());
        node.set_directory(clock::now(), Arc::clone(&self.0.directory.borrow()));
        self.0.work.replace(Some(Work {
            node,
            sockets: BTreeMap::new(),
            paused: Vec::new(),
            lanes,
            watchdog,
            watchdog_ms,
            was_lapsed: false,
            was_full: false,
            refused_writes: 0,
        }));
        spawn_local(flush_batches(self.clone()));
        spawn_local(take_results(self.clone(), finished));
        spawn_local(watch_time(self.clone()));
        spawn_local(linger(self.clone()));
        self.0.mode.send_replace(Mode::Serve);
        self.0.flush.notify_one();
    }

    /// Proves by a durable write that the store is still ours; losing it shows in [`Self::failed`].
    pub fn verify_ownership(&self) {
        self.with_node(|node| node.prove_ownership(clock::now()));
        self.0.flush.notify_one();
    }

    /// Ends in order: deliveries stop and nothing is read any more, confirms that are under way
    /// leave, connections are closed so that their clients try elsewhere, and the store is sealed.
    pub async fn stop(&self) {
        if *self.0.mode.borrow() == Mode::Fail {
            return;
        }
        self.0.mode.send_replace(Mode::Stop);
        self.with_node(|node| node.begin_stop(clock::now()));
        self.0.progress.notify_waiters();
        self.0.flush.notify_one();
        let confirmed = self.until(|work| !work.node.owes_answers());
        let _late = timeout(STOP_CONFIRMS, confirmed).await;
        self.with_node(Node::close_connections);
        self.turn(clock::now());
        let told = self.until(|work| work.sockets.is_empty());
        let _late = timeout(STOP_SOCKETS, told).await;
        self.with_node(Node::begin_seal);
        self.start_jobs();
        let sealed = self.until(|work| work.node.is_sealed());
        if timeout(STOP_SEAL, sealed).await.is_err() {
            tracing::warn!("the store could not be sealed in time; the next start recovers it");
        }
        self.0.work.replace(None);
        self.0.progress.notify_waiters();
    }

    /// Waits until the log fails. All sockets are closed then, without further confirms; the
    /// process shall end with exit code 5.
    pub async fn failed(&self) -> FatalError {
        let mut failed = self.0.failed.subscribe();
        loop {
            if let Some(fatal) = failed.borrow_and_update().clone() {
                return fatal;
            }
            failed
                .changed()
                .await
                .expect("the engine holds the sender and is borrowed here");
        }
    }

    /// Number of client sockets.
    pub fn connections(&self) -> u64 {
        self.0.sockets_open.get()
    }

    /// Figures for the monitor.
    pub fn status(&self) -> EngineStatus {
        let node = self.with_node(|node| node.status());
        let mut status = EngineStatus {
            connections: self.connections(),
            refused_logins: self.0.logins.refused(),
            ..EngineStatus::default()
        };
        if let Some(node) = node {
            status.links = (node.publishers + node.consumers) as u64;
            status.queues = node.queues as u64;
            status.subscriptions = node.subscriptions as u64;
            status.skipped = node.messages_skipped;
            status.discarded = node.broker.discarded;
            status.messages_in = node.messages_in;
            status.messages_out = node.broker.delivered;
            status.redelivered = node.broker.redelivered;
            status.store = Some(node.store.clone());
            status.node = Some(node);
        }
        status
    }

    /// Figures of all queues; empty unless active.
    pub fn queues(&self) -> Vec<QueueStatus> {
        self.with_node(|node| node.queue_status())
            .unwrap_or_default()
    }

    // ---- for the pumps ----

    pub(super) fn mode(&self) -> watch::Receiver<Mode> {
        self.0.mode.subscribe()
    }

    pub(super) fn active(&self) -> Option<ServerAddress> {
        self.0.active.borrow().clone()
    }

    /// Joins a socket to the node.
    pub(super) fn connect(&self, socket: &Rc<Socket>, caller: Caller) -> Option<ConnectionId> {
        let now = clock::now();
        let id = self.with(|work| {
            let id = work.node.connect_as(now, caller);
            work.sockets.insert(id, Rc::clone(socket));
            id
        });
        self.turn(now);
        id
    }

    pub(super) fn received(&self, id: ConnectionId, input: &mut BytesMut) {
        let now = clock::now();
        self.with_node(|node| node.handle_bytes(now, id, input));
        self.stirred(Some(id));
        self.turn(now);
    }

    pub(super) fn ended(&self, id: ConnectionId) {
        let now = clock::now();
        self.with_node(|node| node.handle_eof(now, id));
        self.turn(now);
    }

    /// The socket takes output again.
    pub(super) fn writable(&self, id: ConnectionId) {
        let now = clock::now();
        // After a pause of the machine ownership is looked at before anything leaves.
        self.with(|work| {
            work.node.refresh(now);
            work.write(now, id);
        });
        self.turn(now);
    }

    /// Whether the socket may be read. If not, its pump is woken when it may.
    pub(super) fn wants_input(&self, id: ConnectionId) -> bool {
        if *self.0.mode.borrow() != Mode::Serve {
            return false;
        }
        let wants = self.with(|work| {
            let wants = work.node.wants_input(id);
            if !wants && !work.paused.contains(&id) {
                work.paused.push(id);
            }
            wants
        });
        wants.unwrap_or(false)
    }

    /// Whether a connection has said all that it will say.
    pub(super) fn is_finished(&self, id: ConnectionId) -> (bool, bool) {
        let state = self.with(|work| {
            let is_written = work.node.output(id).is_none_or(|output| output.is_empty());
            (work.node.is_finished(id), is_written)
        });
        state.unwrap_or((true, true))
    }

    pub(super) fn disconnect(&self, id: ConnectionId) {
        let now = clock::now();
        self.with(|work| {
            work.sockets.remove(&id);
            work.node.disconnect(now, id);
        });
        self.0.progress.notify_waiters();
        self.turn(now);
    }

    /// Who may connect; `None`: everybody.
    pub(super) fn users(&self) -> Option<Arc<Users>> {
        let directory = self.0.directory.borrow();
        let mut users = self.0.users.borrow_mut();
        directory.authorization.then(|| {
            let users = users.get_or_insert_with(|| Arc::new(Users::new(&directory.users)));
            Arc::clone(users)
        })
    }

    /// Judges a password as that of a login, which may take its time.
    pub(super) async fn judge_password(&self, task: LoginTask) -> Verdict {
        self.0.logins.judge(task).await.1
    }

    /// Has a login judged, which may take its time.
    fn judge(&self, id: ConnectionId, task: LoginTask) {
        let engine = self.clone();
        spawn_local(async move {
            let judgement = engine.0.logins.judge(task).await;
            let now = clock::now();
            engine.with_node(|node| node.login_done(now, id, judgement));
            engine.turn(now);
        });
    }

    // ---- inside ----

    fn with<T>(&self, act: impl FnOnce(&mut Work) -> T) -> Option<T> {
        self.0.work.borrow_mut().as_mut().map(act)
    }

    fn with_node<T>(&self, act: impl FnOnce(&mut Node) -> T) -> Option<T> {
        self.with(|work| act(&mut work.node))
    }

    /// Brings out what an event has caused: reads, output, a wake-up of the flusher. Once for each
    /// wake-up.
    fn turn(&self, now: Now) {
        let is_failed = *self.0.mode.borrow() == Mode::Fail;
        let fatal = self.with(|work| {
            if is_failed {
                return None;
            }
            work.watch_ownership(now);
            work.watch_space();
            while let Some(task) = work.node.poll_read() {
                work.lanes.start_read(task);
            }
            while let Some((id, task)) = work.node.poll_login() {
                self.judge(id, task);
            }
            work.write_dirty(now);
            work.resume();
            if work.node.has_open_batch() {
                self.0.flush.notify_one();
            }
            let due = work.next_due_ms(now);
            if due.is_some_and(|due| due < self.0.timer_ms.get()) {
                self.0.rearm.notify_one();
            }
            work.node.fatal().cloned()
        });
        if let Some(fatal) = fatal.flatten() {
            self.fail(fatal);
            return;
        }
        self.hand_over_requests();
    }

    /// Hands all work that is due to the lanes.
    fn start_jobs(&self) {
        let now = clock::now();
        self.with(|work| {
            while let Some(job) = work.node.poll_job(now) {
                work.lanes.start_job(job);
            }
        });
    }

    /// Notes an event after which the next one is near.
    fn stirred(&self, heard: Option<ConnectionId>) {
        let shared = &self.0;
        if heard.is_some() && shared.last_heard.replace(heard) != heard {
            shared.company_until.set(Some(Instant::now() + COMPANY));
        }
        shared.is_stirred.set(true);
        shared.stir.notify_one();
    }

    fn has_company(&self) -> bool {
        self.0
            .company_until
            .get()
            .is_some_and(|until| Instant::now() < until)
    }

    fn finished(&self, done: LaneDone) {
        let now = clock::now();
        self.stirred(None);
        match done {
            LaneDone::Read(read) => {
                self.with_node(|node| node.read_done(now, read));
                self.0.progress.notify_waiters();
            }
            LaneDone::Job(job) => {
                let result = self.with_node(|node| node.complete(job));
                if let Some(Err(fatal)) = result {
                    self.fail(fatal);
                    return;
                }
                // The disk is busy again before anything else is done.
                self.start_jobs();
                self.with_node(|node| node.advance(now));
                self.0.progress.notify_waiters();
            }
        }
        self.turn(now);
    }

    /// The store is lost: closes all sockets as they are.
    fn fail(&self, fatal: FatalError) {
        self.0.mode.send_replace(Mode::Fail);
        self.with(|work| {
            for socket in work.sockets.values() {
                socket.abort();
            }
        });
        self.0.failed.send_replace(Some(fatal));
        self.0.progress.notify_waiters();
    }

    /// Waits until something holds; gives up when the store fails or is gone.
    async fn until(&self, holds: impl Fn(&mut Work) -> bool) {
        loop {
            let progress = self.0.progress.notified();
            let is_failed = *self.0.mode.borrow() == Mode::Fail;
            if is_failed || self.with(&holds).unwrap_or(true) {
                return;
            }
            progress.await;
        }
    }
}

impl Work {
    /// When the timer has to wake, in the clock of `boot_ms`.
    fn next_due_ms(&self, now: Now) -> Option<u64> {
        let (jobs, clients) = (
            self.node.next_job_deadline_ms(),
            self.node.next_keep_alive_ms(now),
        );
        jobs.into_iter().chain(clients).min()
    }

    fn write_dirty(&mut self, now: Now) {
        while let Some(id) = self.node.poll_dirty() {
            self.write(now, id);
        }
    }

    /// Writes what a connection has to say, as far as its socket takes it; nothing while ownership
    /// is in doubt.
    fn write(&mut self, now: Now, id: ConnectionId) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        if self.node.is_lapsed() {
            socket.rest();
            return;
        }
        let Some(output) = self.node.output(id) else {
            return;
        };
        let is_written = socket.write(now, output);
        if output.is_empty() && self.node.is_finished(id) {
            // It was the last that the connection had to say.
            socket.wake();
        }
        if is_written {
            self.node.handle_written(now, id);
        }
    }

    /// Wakes the pumps of sockets that may be read again.
    fn resume(&mut self) {
        let Self {
            paused,
            node,
            sockets,
            ..
        } = self;
        paused.retain(|id| {
            let wants = node.wants_input(*id);
            if wants && let Some(socket) = sockets.get(id) {
                socket.wake();
            }
            !wants
        });
    }

    /// Looks whether the store is ours. While that is in doubt the watchdog waits for the end.
    fn watch_ownership(&mut self, now: Now) {
        self.node.refresh(now);
        let is_lapsed = self.node.is_lapsed();
        let refused_writes = self.node.refused_writes();
        if refused_writes != self.refused_writes {
            // The disk answers, it is only full: the watchdog is for writes that never end.
            self.refused_writes = refused_writes;
            self.watchdog.disarm();
        }
        if is_lapsed {
            self.watchdog.arm(now.boot_ms + self.watchdog_ms);
        } else {
            self.watchdog.disarm();
        }
        if self.was_lapsed && !is_lapsed {
            let waiting: Vec<ConnectionId> = self.sockets.keys().copied().collect();
            for id in waiting {
                self.write(now, id);
            }
        }
        self.was_lapsed = is_lapsed;
    }

    /// Says when messages begin to be refused for lack of space, and when that ends.
    fn watch_space(&mut self) {
        let is_full = !self.node.accepts_messages();
        if is_full == self.was_full {
            return;
        }
        self.was_full = is_full;
        let free_bytes = self.node.status().store.free_bytes;
        if is_full {
            tracing::warn!(
                event = "store_full",
                free_bytes,
                "the disk of the store is nearly full: messages are refused while consuming and \
                 settling go on; consume messages or free space on that disk"
            );
        } else {
            tracing::info!(
                event = "store_has_space",
                free_bytes,
                "the disk of the store has space again: messages are taken"
            );
        }
    }

    /// Gives up clients that take nothing.
    fn abort_stuck(&self, now: Now, stuck_ms: u64) {
        for socket in self.sockets.values() {
            if socket.is_stuck(now, stuck_ms) {
                socket.abort();
            }
        }
    }
}

/// The fence lapses at two fifths of a lease. As much time again, and the process ends while the lease
/// still stands; the store never makes a deadline of its own shorter than half a second.
fn watchdog_ms(longest_ms: u64, fence_deadline_ms: Option<u64>) -> u64 {
    const SHORTEST_MS: u64 = 500;
    fence_deadline_ms.map_or(longest_ms, |deadline_ms| {
        deadline_ms.max(SHORTEST_MS).min(longest_ms)
    })
}

/// Hands the open batch over after all tasks that are ready have added to it.
async fn flush_batches(engine: Engine) {
    loop {
        engine.0.flush.notified().await;
        // Runs behind what is ready now and what the next look at the sockets makes ready.
        yield_now().await;
        engine.start_jobs();
    }
}

/// Keeps the thread from sleeping for a moment after each event.
async fn linger(engine: Engine) {
    loop {
        engine.0.stir.notified().await;
        let mut until = Instant::now() + LINGER;
        while Instant::now() < until && !engine.has_company() {
            // Other tasks run, and the sockets are looked at.
            yield_now().await;
            if engine.0.is_stirred.take() {
                until = Instant::now() + LINGER;
            }
        }
    }
}

async fn take_results(engine: Engine, mut finished: UnboundedReceiver<LaneDone>) {
    while let Some(done) = finished.recv().await {
        engine.finished(done);
    }
}

/// Ticks, and calls for the store's jobs that become due by time.
async fn watch_time(engine: Engine) {
    let shared = &engine.0;
    let mut next_tick_ms = 0;
    while *shared.mode.borrow() != Mode::Fail && shared.work.borrow().is_some() {
        let now = clock::now();
        if now.boot_ms >= next_tick_ms {
            next_tick_ms = now.boot_ms + TICK_MS;
            engine.with(|work| {
                work.node.tick(now);
                work.abort_stuck(now, shared.settings.stuck_ms);
            });
            shared.progress.notify_waiters();
        }
        engine.with_node(|node| node.keep_alive(now));
        engine.start_jobs();
        let due = engine.with(|work| work.next_due_ms(now)).flatten();
        let until_ms = due.map_or(next_tick_ms, |due| due.min(next_tick_ms));
        shared.timer_ms.set(until_ms);
        engine.turn(now);
        let pause = Duration::from_millis(until_ms.saturating_sub(now.boot_ms).max(1));
        // Either end of the wait is a reason to look again.
        let _woken = timeout(pause, shared.rearm.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::watchdog_ms;

    #[test]
    fn the_process_ends_before_the_lease_does_when_no_write_comes_back() {
        assert_eq!(watchdog_ms(5_000, None), 5_000);
        for lease_ms in [2_000, 5_000, 8_000, 10_000, 90_000] {
            // As the store derives it.
            let deadline_ms = lease_ms * 2 / 5;
            let ends_ms = deadline_ms + watchdog_ms(5_000, Some(deadline_ms));
            assert!(ends_ms < lease_ms, "{ends_ms} of {lease_ms}");
        }
        assert_eq!(watchdog_ms(5_000, Some(100)), 500);
    }
}
