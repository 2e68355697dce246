//! A store alone, without a broker: writers that append and wait, and threads that do its work.
//!
//! The store is behind one mutex. Whoever completes a job takes out the next ones, so the thread of the log
//! goes from one sync to the next batch without waiting for another thread. It wakes one of those who wait
//! for the batch, and each of them wakes the next. One batch is in flight; what is appended meanwhile is the
//! next one.

mod counted;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use steadfast_storage::disk::{Disk, RealDisk};
use steadfast_storage::{
    Acquire, Job, Lane, NewMessage, Place, QueueId, Store, StoreOptions, StoreStatus, try_acquire,
};

use super::load::latency_histogram;
use crate::cli::tool::ToolError;

use counted::CountedDisk;
pub(super) use counted::{Counts, Roll, Written};

/// The lanes of a store, each with a thread.
const LANES: [(Lane, &str); 4] = [
    (Lane::Log, "log"),
    (Lane::Checkpoint, "checkpoint"),
    (Lane::Prepare, "prepare"),
    (Lane::Compact, "compact"),
];
/// Those who wait for different batches wait at different places: one batch is in flight and one is open.
const PLACES: u64 = 4;
/// How long the log's thread sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(1);
/// What the server stores beside each body, in bytes.
const META: [u8; 8] = [2; 8];

/// How the store behaves.
#[derive(Debug, Clone)]
pub(super) struct EngineOptions {
    pub(super) store: StoreOptions,
    /// No zeros ahead, as on a network file system.
    pub(super) is_network: bool,
    /// Pretend that the disk has so many bytes in all.
    pub(super) budget_bytes: Option<u64>,
}

/// Who writes, and what each writer does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    pub(super) writers: usize,
    /// Threads that the writers live on; the server has one for all its clients.
    pub(super) threads: usize,
    /// Bytes of a body.
    pub(super) size: usize,
    /// Messages that a writer appends before it waits for them.
    pub(super) window: usize,
    /// Settle what is durable, but for one message in so many; `None`: settle nothing.
    pub(super) keep_one_in: Option<u64>,
}

/// A store with its threads. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Engine {
    shared: Arc<Shared>,
    pub(super) counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
    /// How many of them have writers.
    writing_threads: usize,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    durable: [Condvar; PLACES as usize],
    /// The gate has moved.
    opened: Condvar,
    /// A thread with writers has come to the gate, or a job has ended.
    calmer: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Closed,
    Open,
    /// Everybody goes home.
    Ended,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    disk: Arc<dyn Disk>,
    lanes: Vec<Sender<Job>>,
    /// Jobs under way.
    jobs: usize,
    log_is_busy: bool,
    /// No job is begun.
    is_paused: bool,
    gate: Gate,
    at_gate: usize,
    /// Messages that writers appended, and those that they keep.
    appended: u64,
    kept: u64,
    failure: Option<String>,
}

impl Inner {
    /// Gives all work that is due to its threads.
    fn dispatch(&mut self) {
        if self.is_paused || self.failure.is_some() {
            return;
        }
        let now_ms = self.disk.boot_ms();
        while let Some(job) = self.store.poll_job(now_ms) {
            let lane = job.lane();
            self.log_is_busy |= lane == Lane::Log;
            self.jobs += 1;
            let index = LANES.iter().position(|(it, _)| *it == lane);
            let sender = index.and_then(|index| self.lanes.get(index));
            if sender.is_none_or(|sender| sender.send(job).is_err()) {
                self.failure = Some(String::from("a thread of the store has ended"));
                return;
            }
        }
    }

    /// How long the log's thread may sleep.
    fn idle(&self) -> Duration {
        let due = self.store.next_deadline_ms().filter(|_| !self.is_paused);
        due.map_or(IDLE, |due_ms| {
            Duration::from_millis(due_ms.saturating_sub(self.disk.boot_ms()).max(1)).min(IDLE)
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, place: &Condvar, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        place.wait(inner).unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self, ticket: u64) -> &Condvar {
        let [first, ..] = &self.durable;
        let place = usize::try_from(ticket % PLACES).unwrap_or(0);
        self.durable.get(place).unwrap_or(first)
    }

    fn wake_all(&self) {
        self.durable.iter().for_each(Condvar::notify_all);
        self.opened.notify_all();
        self.calmer.notify_all();
    }

    /// The life of a lane's thread.
    fn run_lane(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            self.run_job(job);
        }
    }

    /// The life of the log's thread, which also watches the store's deadlines.
    fn run_log(&self, jobs: &Receiver<Job>) {
        loop {
            let next = jobs.try_recv().or_else(|_| {
                let idle = self.lock().idle();
                jobs.recv_timeout(idle)
            });
            match next {
                Ok(job) => self.run_job(job),
                Err(RecvTimeoutError::Timeout) => self.lock().dispatch(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn run_job(&self, job: Job) {
        let is_log = job.lane() == Lane::Log;
        let done = job.run();
        let mut inner = self.lock();
        inner.jobs -= 1;
        if is_log {
            inner.log_is_busy = false;
        }
        let before = inner.store.durable_ticket().0;
        if let Err(fatal) = inner.store.complete(done) {
            inner.failure.get_or_insert(fatal.to_string());
        }
        inner.dispatch();
        let is_calmer = inner.is_paused;
        let is_over = inner.failure.is_some();
        let durable = inner.store.durable_ticket().0;
        drop(inner);
        for ticket in before + 1..=durable {
            self.durable(ticket).notify_one();
        }
        if is_calmer {
            self.calmer.notify_all();
        }
        if is_over {
            self.wake_all();
        }
    }

    /// The life of a thread with writers: each of them appends, waits until that is durable, settles most of it.
    fn write(&self, writers: &mut [Writer], writing: Writing, counts: &Counts) {
        let mut inner = self.lock();
        loop {
            let durable = inner.store.durable_ticket().0;
            let mut oldest = None;
            for writer in writers.iter_mut() {
                if writer.ticket <= durable {
                    writer.settle(&mut inner, writing);
                    if inner.gate == Gate::Open && inner.failure.is_none() {
                        writer.append(&mut inner, writing, counts);
                    }
                }
                if writer.ticket > durable {
                    oldest = Some(oldest.unwrap_or(u64::MAX).min(writer.ticket));
                }
            }
            if inner.gate == Gate::Ended || inner.failure.is_some() {
                drop(inner);
                return self.wake_all();
            }
            let Some(oldest) = oldest else {
                inner = self.wait_at_gate(inner);
                continue;
            };
            while inner.store.durable_ticket().0 < oldest && inner.failure.is_none() {
                inner = self.wait(self.durable(oldest), inner);
            }
            self.durable(oldest).notify_one();
        }
    }

    fn wait_at_gate<'a>(&self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        inner.at_gate += 1;
        self.calmer.notify_all();
        while inner.gate == Gate::Closed && inner.failure.is_none() {
            inner = self.wait(&self.opened, inner);
        }
        inner.at_gate -= 1;
        inner
    }
}

/// One who appends and waits.
#[derive(Debug)]
struct Writer {
    queue: QueueId,
    body: Vec<u8>,
    /// What it appended and did not settle yet.
    places: Vec<Place>,
    /// What it waits for.
    ticket: u64,
}

impl Writer {
    fn new(writing: Writing) -> Self {
        Self {
            queue: QueueId(1),
            body: std::iter::repeat_with(|| fastrand::u8(..))
                .take(writing.size)
                .collect(),
            places: Vec::with_capacity(writing.window),
            ticket: 0,
        }
    }

    fn append(&mut self, inner: &mut Inner, writing: Writing, counts: &Counts) {
        for _ in 0..writing.window {
            let message = NewMessage {
                routes: &[self.queue],
                durable: true,
                meta: &META,
                body: &[&self.body],
            };
            match inner.store.append_message(message) {
                Ok(appended) => {
                    self.ticket = appended.ticket.0;
                    self.places.push(appended.first);
                }
                Err(error) => {
                    inner.failure = Some(format!("a message was not taken: {error}"));
                    return;
                }
            }
        }
        let body = (writing.size * writing.window) as u64;
        counts.body.fetch_add(body, Ordering::Relaxed);
        if !inner.log_is_busy {
            inner.dispatch();
        }
    }

    fn settle(&mut self, inner: &mut Inner, writing: Writing) {
        for place in self.places.drain(..) {
            inner.appended += 1;
            match writing.keep_one_in {
                Some(keep) if inner.appended.is_multiple_of(keep) => inner.kept += 1,
                // Settlements are never refused; a failure shows at the next append.
                Some(_) => drop(inner.store.append_settled(self.queue, place)),
                None => {}
            }
        }
    }
}

impl Engine {
    /// Opens a store in a directory of its own and starts its threads and writers; they wait for
    /// [`Engine::open_gate`].
    pub(super) fn start(
        directory: &Path,
        options: EngineOptions,
        writing: Writing,
    ) -> Result<Self, ToolError> {
        let counts = Arc::new(Counts::new(latency_histogram()?));
        let disk =
            RealDisk::open(directory, true).map_err(ToolError::file("opening", directory))?;
        let disk: Arc<dyn Disk> = Arc::new(CountedDisk {
            disk: Arc::new(disk),
            counts: Arc::clone(&counts),
            is_network: options.is_network,
            budget_bytes: options.budget_bytes,
        });
        let fault = |error: &dyn std::fmt::Display| {
            ToolError::Other(format!("the store in {}: {error}", directory.display()))
        };
        let owned = match try_acquire(Arc::clone(&disk), "bench").map_err(|error| fault(&error))? {
            Acquire::Owned(owned) => owned,
            Acquire::Busy(holder) => return Err(fault(&format!("it belongs to {holder}"))),
        };
        let (store, _) =
            Store::open(owned, options.store, &mut |_| ()).map_err(|error| fault(&error))?;
        let (lanes, receivers): (Vec<_>, Vec<_>) = LANES.iter().map(|_| channel()).unzip();
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                store,
                disk,
                lanes,
                jobs: 0,
                log_is_busy: false,
                is_paused: false,
                gate: Gate::Closed,
                at_gate: 0,
                appended: 0,
                kept: 0,
                failure: None,
            }),
            durable: Default::default(),
            opened: Condvar::new(),
            calmer: Condvar::new(),
        });
        let mut engine = Self {
            shared,
            counts,
            threads: Vec::new(),
            writing_threads: writing.threads.min(writing.writers),
        };
        for ((lane, name), jobs) in LANES.iter().zip(receivers) {
            engine.thread(name, move |shared, _| match lane {
                Lane::Log => shared.run_log(&jobs),
                _ => shared.run_lane(&jobs),
            })?;
        }
        for thread in 0..engine.writing_threads {
            let of_thread = (thread..writing.writers).step_by(engine.writing_threads);
            let mut writers: Vec<_> = of_thread.map(|_| Writer::new(writing)).collect();
            engine.thread("writer", move |shared, counts| {
                shared.write(&mut writers, writing, counts);
            })?;
        }
        engine.shared.lock().dispatch();
        engine.at_rest()?;
        Ok(engine)
    }

    fn thread(
        &mut self,
        name: &str,
        work: impl FnOnce(&Shared, &Counts) + Send + 'static,
    ) -> Result<(), ToolError> {
        let (shared, counts) = (Arc::clone(&self.shared), Arc::clone(&self.counts));
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&shared, &counts))
            .map_err(|error| ToolError::Other(format!("no thread: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    fn failed(inner: &Inner) -> Result<(), ToolError> {
        match &inner.failure {
            Some(failure) => Err(ToolError::Other(failure.clone())),
            None => Ok(()),
        }
    }

    /// Lets the store and its writers work.
    pub(super) fn open_gate(&self) {
        let mut inner = self.shared.lock();
        inner.is_paused = false;
        inner.gate = Gate::Open;
        inner.dispatch();
        drop(inner);
        self.shared.opened.notify_all();
    }

    /// Stops the writers when what they wait for is durable, and then all of the store's work where it is.
    pub(super) fn close_gate(&self) -> Result<(), ToolError> {
        self.shared.lock().gate = Gate::Closed;
        self.at_rest()
    }

    /// Waits until all writers are at the gate and no job is under way, and lets none begin.
    fn at_rest(&self) -> Result<(), ToolError> {
        let mut inner = self.shared.lock();
        while inner.at_gate < self.writing_threads && inner.failure.is_none() {
            inner = self.shared.wait(&self.shared.calmer, inner);
        }
        inner.is_paused = true;
        while inner.jobs > 0 && inner.failure.is_none() {
            inner = self.shared.wait(&self.shared.calmer, inner);
        }
        Self::failed(&inner)
    }

    /// Lets the store do what it does when nobody writes, for so long.
    pub(super) fn rest(&self, time: Duration) -> Result<(), ToolError> {
        let mut inner = self.shared.lock();
        inner.is_paused = false;
        inner.dispatch();
        drop(inner);
        std::thread::sleep(time);
        self.at_rest()
    }

    /// Figures of the store.
    pub(super) fn status(&self) -> Result<StoreStatus, ToolError> {
        let inner = self.shared.lock();
        Self::failed(&inner)?;
        Ok(inner.store.status())
    }

    /// Messages appended and durable so far, and those of them that are kept.
    pub(super) fn appended(&self) -> (u64, u64) {
        let inner = self.shared.lock();
        (inner.appended, inner.kept)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.gate = Gate::Ended;
        inner
            .failure
            .get_or_insert_with(|| String::from("the measurement is over"));
        inner.lanes.clear();
        drop(inner);
        self.shared.wake_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
