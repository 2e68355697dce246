//! Two or three servers on two hosts that share a store over NFS, each with everything that goes wrong
//! there: hosts cut off, paused or without power, processes killed or stopped, a server that reboots,
//! bytes that are written long after their process is dead.
//!
//! Only what the store's fence lets out counts as confirmed. Whoever takes over must find it. A takeover
//! with its check is a *crash point*; so is a copy of the world in which everything stops at once, often in
//! the middle of somebody's operation, with a full recovery and the same check.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use steadfast_storage::disk::{Disk, HostSettings, NfsSettings, SimDisk, SimHost, SimWorld, Turns};
use steadfast_storage::{
    Acquire, Canary, Fence, JobDone, OpenError, Store, StoreOptions, Ticket, Warm, WarmUse,
    try_acquire,
};

mod oracle;

use crate::Target;
use crate::crash::{count_point, count_warm};
use crate::workload::{self, Live, options};
use oracle::{Contents, Known, Oracle, Pending};

/// Rows of a life.
const ROWS: u32 = 3;
/// A process ends so long after ownership came in doubt, in ms (`net/engine.rs`).
const WATCHDOG_MS: u64 = 5000;
/// How often a standby looks whether it can see its owner's locks, in ms (`net/opener.rs`).
const CANARY_MS: u64 = 5000;

/// What is wrong with the world on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    None,
    /// Only `LOCK` is really locked.
    OnlyLock,
    /// The fence never lapses, where hosts write on after they have lost their locks.
    NoFence,
}

/// How the world is made.
#[derive(Clone, Debug)]
struct Setting {
    lease_s: u64,
    servers: usize,
    host: HostSettings,
    options: StoreOptions,
    mutant: Mutant,
}

/// What all threads of a life share. Only one of them runs at a time.
struct Scene {
    world: SimWorld,
    turns: Arc<Turns>,
    hosts: Vec<SimHost>,
    setting: Setting,
    oracle: Mutex<Oracle>,
    /// The processes of the servers.
    processes: Mutex<Vec<Option<SimDisk>>>,
    is_over: AtomicBool,
    failure: Mutex<Option<String>>,
    takeovers: Mutex<u32>,
    /// What happened, for the message of a failure.
    story: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.world.kill_all();
        self.turns.thaw_all();
        self.turns.wake();
    }

    fn tell(&self, what: &str) {
        let now_ms = self.turns.now_ms();
        lock(&self.story).push(format!("{now_ms:>7} ms: {what}"));
    }

    fn fail(&self, what: &str) {
        if !self.is_over() {
            lock(&self.failure).get_or_insert(what.to_owned());
            self.end();
        }
    }

    /// Runs a thread of the life from its first turn to its last.
    fn take_part(&self, task: steadfast_storage::disk::TaskId, act: impl FnOnce()) {
        self.turns.begin(task);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
            self.fail(&crate::text_of(panic.as_ref()));
        }
        self.turns.end(task);
    }

    /// Everything stops here, and somebody else recovers: a crash point.
    fn stop(&self, random: &mut fastrand::Rng) {
        let world = self.world.fork();
        world.kill_all();
        if random.bool() {
            world.crash(random.u64(..));
        }
        count_point();
        let disk = world.host(HostSettings::default()).process();
        let checked = open(&disk, &self.setting.options, &mut None)
            .map_err(|error| error.to_string())
            .and_then(|store| Contents::of(&store))
            .and_then(|contents| lock(&self.oracle).check(&contents));
        if let Err(what) = checked {
            let names = world.names().join(" ");
            self.fail(&format!("{what} (after everything stopped, {names})"));
        }
    }
}

/// `warm` is what a standby has kept; it is taken once the lock is owned.
fn open(
    disk: &SimDisk,
    options: &StoreOptions,
    warm: &mut Option<Warm>,
) -> Result<Store, OpenError> {
    let ownership = match try_acquire(Arc::new(disk.clone()), "fuzz")? {
        Acquire::Owned(ownership) => ownership,
        Acquire::Busy(holder) => return Err(OpenError::Busy(holder)),
    };
    let opened = Store::open_warm(ownership, options.clone(), warm.take(), &mut |_| ());
    let (store, report) = opened?;
    if report.warm == WarmUse::Used {
        count_warm();
    }
    if report.damaged.is_empty() {
        return Ok(store);
    }
    Err(OpenError::Damaged(format!(
        "a whole store is called damaged: {:?}",
        report.damaged
    )))
}

/// One server on a host: its process is started again whenever it ends.
struct Server<'scene, 'env> {
    scene: &'env Scene,
    scope: &'scene Scope<'scene, 'env>,
    number: usize,
    random: fastrand::Rng,
    canary: Canary,
    looked_at_ms: u64,
    /// What it follows the store with while that belongs to somebody else.
    warm: Option<Warm>,
}

impl<'scene, 'env> Server<'scene, 'env> {
    fn run(&mut self) {
        let scene = self.scene;
        let host = &scene.hosts[self.number % scene.hosts.len()];
        while !scene.is_over() {
            let disk = host.process();
            let groups = [host.id(), disk.process_id()];
            scene.turns.move_to(&groups);
            lock(&scene.processes)[self.number] = Some(disk.clone());
            self.canary = Canary::default();
            self.warm = self.random.bool().then(Warm::default);
            if let Some(store) = self.stand_by(&disk) {
                scene.tell(&format!(
                    "server {} has opened epoch {}",
                    self.number,
                    store.epoch()
                ));
                let mut active = Active::new(self, &disk, store);
                let ended = active.serve(groups);
                scene.tell(&format!("server {} ends", self.number));
                // Its files are closed because it ends, not before.
                scene.world.kill(&disk);
                if let Err(what) = ended {
                    scene.fail(&what);
                }
            }
            scene.world.kill(&disk);
            scene.turns.sleep_ms(self.random.u64(100..2000));
        }
    }

    /// Tries for the store until it is open; `None` when the process ends.
    fn stand_by(&mut self, disk: &SimDisk) -> Option<Store> {
        let scene = self.scene;
        while !scene.is_over() && !disk.is_dead() {
            let epoch = lock(&scene.oracle).epoch;
            match open(disk, &scene.setting.options, &mut self.warm) {
                Ok(store) => return Some(store),
                Err(OpenError::Busy(_)) => {
                    self.look(disk);
                    self.follow(disk);
                }
                // Whoever was overtaken while it opened may read what a successor removes.
                Err(error @ OpenError::Damaged(_)) => {
                    if !disk.is_dead() && lock(&scene.oracle).epoch == epoch {
                        scene.fail(&error.to_string());
                    }
                    return None;
                }
                Err(_) => return None,
            }
            scene.turns.sleep_ms(self.random.u64(50..150));
        }
        None
    }

    /// Reads what its owner has written since, as far as this host sees it.
    fn follow(&mut self, disk: &SimDisk) {
        let Some(warm) = &mut self.warm else { return };
        for _ in 0..self.random.u32(..8) {
            // A host that is cut off reads nothing; what was kept stays.
            let Ok(true) = warm.poll(disk) else { return };
        }
    }

    /// The canary must never sing where locks work.
    fn look(&mut self, disk: &SimDisk) {
        let now_ms = disk.boot_ms();
        if now_ms.saturating_sub(self.looked_at_ms) < CANARY_MS
            || self.scene.setting.mutant == Mutant::OnlyLock
        {
            return;
        }
        self.looked_at_ms = now_ms;
        if let Ok(Some(why)) = self.canary.look(disk) {
            self.scene.fail(&why);
        }
    }
}

/// A server that owns the store, as far as it knows.
struct Active<'a, 'scene, 'env> {
    scene: &'env Scene,
    scope: &'scene Scope<'scene, 'env>,
    random: &'a mut fastrand::Rng,
    disk: &'a SimDisk,
    store: Store,
    done: Arc<Mutex<Vec<JobDone>>>,
    pending: Vec<(Ticket, Pending)>,
    live: Vec<Live>,
}

impl<'a, 'scene, 'env> Active<'a, 'scene, 'env> {
    fn new(server: &'a mut Server<'scene, 'env>, disk: &'a SimDisk, store: Store) -> Self {
        Self {
            scene: server.scene,
            scope: server.scope,
            random: &mut server.random,
            disk,
            store,
            done: Arc::default(),
            pending: Vec::new(),
            live: Vec::new(),
        }
    }

    /// The whole life as the owner; the error is a broken promise.
    fn serve(&mut self, groups: [u64; 2]) -> Result<(), String> {
        if !self.take_over()? {
            return Ok(());
        }
        let mut watchdog_ms = None;
        let pause_ms = [20, 100, 400][self.random.usize(..3)];
        while !self.scene.is_over() && !self.disk.is_dead() {
            let now_ms = self.disk.boot_ms();
            // After a freeze either thread may be the first.
            if watchdog_ms.is_some_and(|at_ms| now_ms >= at_ms) && self.random.bool() {
                return Ok(());
            }
            self.use_it();
            while let Some(job) = self.store.poll_job(self.disk.boot_ms()) {
                let (scene, done) = (self.scene, Arc::clone(&self.done));
                let task = scene.turns.add(&groups);
                self.scope.spawn(move || {
                    scene.take_part(task, || {
                        let result = job.run();
                        lock(&done).push(result);
                    });
                });
            }
            for done in std::mem::take(&mut *lock(&self.done)) {
                if self.store.complete(done).is_err() {
                    return Ok(());
                }
            }
            let now_ms = self.disk.boot_ms();
            match self.store.fence(now_ms) {
                Fence::Held => {
                    watchdog_ms = None;
                    self.confirm()?;
                }
                Fence::Lapsed if watchdog_ms.is_some_and(|at_ms| now_ms >= at_ms) => return Ok(()),
                Fence::Lapsed => {
                    watchdog_ms.get_or_insert(now_ms + WATCHDOG_MS);
                }
                Fence::Lost(_) => return Ok(()),
            }
            self.scene.turns.sleep_ms(self.random.u64(..pause_ms));
        }
        Ok(())
    }

    /// Checks what was found; `false` when it could not be read or a later owner serves already.
    fn take_over(&mut self) -> Result<bool, String> {
        let epoch = self.store.epoch();
        // A process that was cut off, overtaken or killed reads nothing.
        let Ok(contents) = Contents::of(&self.store) else {
            return Ok(false);
        };
        let mut oracle = lock(&self.scene.oracle);
        if self.scene.is_over() || self.disk.is_dead() || epoch < oracle.epoch {
            return Ok(false);
        }
        count_point();
        *lock(&self.scene.takeovers) += 1;
        let found = contents.keys().len();
        self.scene
            .tell(&format!("epoch {epoch} serves {found} messages"));
        oracle.check(&contents)?;
        oracle.begin(epoch, &contents);
        for (queue, found) in contents.found {
            let live = found.into_iter().map(|it| (queue, it.number, it.place));
            self.live.extend(live);
        }
        Ok(true)
    }

    /// What clients do.
    fn use_it(&mut self) {
        for _ in 0..self.random.u32(..4) {
            self.publish();
        }
        for _ in 0..self.random.u32(..5) {
            self.settle();
        }
        if self.random.u8(..4) == 0 {
            self.change_row();
        }
    }

    fn publish(&mut self) {
        let mut oracle = lock(&self.scene.oracle);
        let number = oracle.number();
        let published = workload::publish(&mut self.store, self.random, number, 30_000);
        let Ok(published) = published else { return };
        for (queue, place) in published.places {
            oracle.references.insert((queue, number), Known::default());
            self.live.push((queue, number, place));
            let pending = Pending::Message(queue, number);
            self.pending.push((published.ticket, pending));
        }
    }

    fn settle(&mut self) {
        let settled = workload::settle(&mut self.store, self.random, &mut self.live);
        let Some((queue, number, Ok(ticket))) = settled else {
            return;
        };
        let mut oracle = lock(&self.scene.oracle);
        // An owner that was followed settles for itself only.
        if self.store.epoch() == oracle.epoch
            && let Some(known) = oracle.references.get_mut(&(queue, number))
        {
            known.is_settling = true;
        }
        self.pending.push((ticket, Pending::Settled(queue, number)));
    }

    fn change_row(&mut self) {
        let mut oracle = lock(&self.scene.oracle);
        let key = self.random.u32(..ROWS);
        let value = oracle.number();
        let ticket = workload::change_row(&mut self.store, key, Some(value));
        let Ok(ticket) = ticket else { return };
        oracle.rows.entry(key).or_default().0.insert(value);
        self.pending.push((ticket, Pending::Row(key, value)));
    }

    /// Lets out what is durable.
    fn confirm(&mut self) -> Result<(), String> {
        let durable = self.store.durable_ticket();
        let epoch = self.store.epoch();
        let mut oracle = lock(&self.scene.oracle);
        for (_, pending) in self
            .pending
            .extract_if(.., |(ticket, _)| *ticket <= durable)
        {
            oracle.confirm(epoch, &pending)?;
        }
        Ok(())
    }
}

/// Whatever happens to machines.
struct Weather<'env> {
    scene: &'env Scene,
    random: fastrand::Rng,
    /// What will be well again, and when.
    repairs: Vec<(u64, Repair)>,
}

enum Repair {
    Heal(usize),
    Thaw(usize),
    Continue(u64),
}

impl Weather<'_> {
    fn run(&mut self) {
        let lease_ms = self.scene.setting.lease_s * 1000;
        for _ in 0..self.random.u32(2..10) {
            let calm_ms = match self.random.u8(..4) {
                0 => self.random.u64(..300),
                1 => self.random.u64(..lease_ms * 2),
                _ => self.random.u64(..lease_ms / 2),
            };
            self.pass(calm_ms);
            self.strike(lease_ms);
        }
        let calm_ms = self.repairs.iter().map(|(at_ms, _)| *at_ms).max();
        let now_ms = self.scene.turns.now_ms();
        self.pass(calm_ms.unwrap_or(0).saturating_sub(now_ms) + 1);
        // Two leases after the last trouble somebody serves.
        self.pass(lease_ms * 3 + 5000);
        if !self.scene.is_over() {
            self.scene.stop(&mut self.random);
            self.scene.end();
        }
    }

    /// Lets time pass; repairs what is due.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.scene.turns.now_ms() + ms;
        while !self.scene.is_over() {
            let now_ms = self.scene.turns.now_ms();
            for (_, repair) in self.repairs.extract_if(.., |(at_ms, _)| *at_ms <= now_ms) {
                match repair {
                    Repair::Heal(host) => self.scene.hosts[host].heal(),
                    Repair::Thaw(host) => self.scene.hosts[host].thaw(),
                    Repair::Continue(process) => self.scene.turns.thaw(process),
                }
            }
            if now_ms >= end_ms {
                return;
            }
            match self.random.u8(..16) {
                0 => self.look_closely(),
                1..=3 => self.scene.stop(&mut self.random),
                4..=6 => {
                    let host = self.random.usize(..self.scene.hosts.len());
                    self.scene.hosts[host].write_back();
                }
                _ => {}
            }
            let step_ms = self.random.u64(1..1000).min(end_ms - now_ms);
            self.scene.turns.sleep_ms(step_ms);
        }
    }

    /// Stops the world again and again for a short while, wherever the servers are.
    fn look_closely(&mut self) {
        for _ in 0..self.random.u32(..60) {
            if !self.scene.is_over() {
                self.scene.stop(&mut self.random);
                self.scene.turns.sleep_ms(self.random.u64(..3));
            }
        }
    }

    fn strike(&mut self, lease_ms: u64) {
        let scene = self.scene;
        if scene.is_over() {
            return;
        }
        let host = self.random.usize(..scene.hosts.len());
        let server = self.random.usize(..scene.setting.servers);
        let process = lock(&scene.processes)[server].clone();
        let until_ms = scene.turns.now_ms() + self.random.u64(..lease_ms * 3);
        // Where hosts write on after they have lost a lock, a process that stands still is not safe: only
        // time tells it to end, and it does not see the time.
        let may_freeze = !scene.setting.host.ignores_lost_locks;
        match self.random.u8(..12) {
            0..=3 => {
                scene.tell(&format!("host {host} is cut off until {until_ms}"));
                scene.hosts[host].cut_off();
                self.repairs.push((until_ms, Repair::Heal(host)));
            }
            4 | 5 if may_freeze => {
                scene.tell(&format!("host {host} is paused until {until_ms}"));
                scene.hosts[host].freeze();
                self.repairs.push((until_ms, Repair::Thaw(host)));
            }
            6 if may_freeze => {
                let Some(process) = process else { return };
                scene.tell(&format!("server {server} is stopped until {until_ms}"));
                scene.turns.freeze(process.process_id());
                let process = process.process_id();
                self.repairs.push((until_ms, Repair::Continue(process)));
            }
            7 | 8 => {
                if let Some(process) = process {
                    scene.tell(&format!("server {server} is killed"));
                    scene.world.kill(&process);
                }
            }
            9 => {
                scene.tell(&format!("host {host} loses its power"));
                scene.hosts[host].crash();
            }
            _ => {
                scene.tell("the NFS server reboots");
                scene.world.crash_server(self.random.u64(..));
            }
        }
    }
}

fn setting(random: &mut fastrand::Rng, mutant: Mutant) -> Setting {
    let ignores_lost_locks = match mutant {
        Mutant::None => random.u8(..4) == 0,
        Mutant::OnlyLock => false,
        Mutant::NoFence => true,
    };
    let lease_s = if ignores_lost_locks {
        // A process ends itself before its lease does.
        random.u64(12..=20)
    } else {
        random.u64(2..=15)
    };
    let options = StoreOptions {
        fence_deadline_ms: (mutant == Mutant::NoFence).then_some(0),
        ..options(random)
    };
    Setting {
        lease_s,
        servers: random.usize(2..=3),
        host: HostSettings {
            is_soft: random.u8(..4) == 0,
            ignores_lost_locks,
            shared_identity: u64::from(!ignores_lost_locks && random.u8(..8) == 0),
        },
        options,
        mutant,
    }
}

/// One life; the error is a broken promise.
fn live(seed: u64, mutant: Mutant) -> Result<u32, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let setting = setting(&mut random, mutant);
    let turns = Arc::new(Turns::new(random.u64(..)));
    let world = SimWorld::nfs(NfsSettings {
        lease_s: setting.lease_s,
        is_courteous: random.bool(),
        locks_only_lock: mutant == Mutant::OnlyLock,
        seed: random.u64(..),
    });
    let world = world.with_turns(Arc::clone(&turns));
    let hosts = (0..2).map(|_| world.host(setting.host.clone())).collect();
    let servers = setting.servers;
    let scene = Scene {
        world,
        turns,
        hosts,
        setting,
        oracle: Mutex::default(),
        processes: Mutex::new(vec![None; servers]),
        is_over: AtomicBool::new(false),
        failure: Mutex::default(),
        takeovers: Mutex::default(),
        story: Mutex::default(),
    };
    let scene = &scene;
    // All are there before the first begins.
    let tasks: Vec<_> = (0..=servers)
        .map(|_| (scene.turns.add(&[]), random.fork()))
        .collect();
    std::thread::scope(|scope| {
        for (number, (task, random)) in tasks.into_iter().enumerate() {
            scope.spawn(move || {
                scene.take_part(task, || {
                    if number == servers {
                        let repairs = Vec::new();
                        Weather {
                            scene,
                            random,
                            repairs,
                        }
                        .run();
                    } else {
                        let mut server = Server {
                            scene,
                            scope,
                            number,
                            random,
                            canary: Canary::default(),
                            looked_at_ms: 0,
                            warm: None,
                        };
                        server.run();
                    }
                });
            });
        }
    });
    match lock(&scene.failure).take() {
        Some(failure) => Err(format!("{failure}\n{}", lock(&scene.story).join("\n"))),
        None => Ok(*lock(&scene.takeovers)),
    }
}

/// Input: the seed of a life, 8 bytes.
fn feed(input: &[u8]) {
    let seed = input.try_into().map_or(0, u64::from_le_bytes);
    if let Err(what) = live(seed, Mutant::None) {
        panic!("{what} (life {seed})");
    }
}

pub(crate) fn targets() -> Vec<Target> {
    vec![Target {
        name: "hosts",
        about: "servers on two hosts over NFS, cut off, paused and killed: nothing confirmed is lost",
        sample: |random| random.u64(..).to_le_bytes().to_vec(),
        feed,
        brief: 10,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_noticed(mutant: Mutant, lives: u64) -> bool {
        (0..lives).any(|seed| live(seed, mutant).is_err())
    }

    #[test]
    fn locking_nothing_but_lock_is_noticed() {
        assert!(is_noticed(Mutant::OnlyLock, 30));
    }

    #[test]
    fn a_fence_that_never_lapses_is_noticed_where_hosts_write_on_without_their_locks() {
        assert!(is_noticed(Mutant::NoFence, 60));
    }

    #[test]
    fn a_life_is_repeated_by_its_seed_and_has_takeovers() {
        let takeovers = live(3, Mutant::None).unwrap();
        assert!(takeovers > 1, "{takeovers}");
        assert_eq!(live(3, Mutant::None), Ok(takeovers));
    }
}
