//! Whole lives of a store on a simulated disk, stopped before every single operation of that disk.
//!
//! A *crash point* is a copy of the world as it was before one write, sync or change of a name, with
//! the power lost (each unsynced sector new, old or garbage, each unsynced name there or not) or all
//! processes dead; then a full recovery, and the check of everything against what had been confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_storage::disk::{Disk, FileSystem, SimDisk, SimWorld};
use steadfast_storage::{
    Acquire, QueueId, RecoveryReport, Store, StoreOptions, Ticket, Warm, WarmUse, try_acquire,
};

use crate::Target;
use crate::workload::{self, Live, QUEUES, options, read, row};

/// Rows of a life.
const ROWS: u32 = 5;
/// Crash points so far, over all lives.
static POINTS: AtomicU64 = AtomicU64::new(0);
/// Recoveries that used what a standby had kept.
static WARM: AtomicU64 = AtomicU64::new(0);

/// Crash points that this process has checked.
pub(crate) fn points() -> u64 {
    POINTS.load(Ordering::Relaxed)
}

/// Counts one more.
pub(crate) fn count_point() {
    POINTS.fetch_add(1, Ordering::Relaxed);
}

/// Counts a recovery that used what a standby had kept of the log.
pub(crate) fn count_warm() {
    WARM.fetch_add(1, Ordering::Relaxed);
}

/// Such recoveries of this process.
pub(crate) fn warm_points() -> u64 {
    WARM.load(Ordering::Relaxed)
}

/// What is known of one reference: a message in a queue.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    is_durable: bool,
    is_settling: bool,
    is_settled: bool,
}

/// What the world was told.
#[derive(Clone, Default)]
struct Oracle {
    /// By queue and number of the message.
    references: BTreeMap<(u32, u32), Known>,
    /// By key: what the row may be, the last durable value first.
    rows: BTreeMap<u32, Vec<Option<u32>>>,
}

/// Something appended and not durable.
enum Pending {
    Message(u32, u32),
    Settled(u32, u32),
    /// So many values of a row are superseded by the one that is durable then.
    Row(u32),
}

struct Life {
    world: SimWorld,
    disk: SimDisk,
    store: Store,
    options: StoreOptions,
    /// A standby that follows the log, in some lives.
    warm: Option<Warm>,
    random: fastrand::Rng,
    oracle: Oracle,
    pending: Vec<(Ticket, Pending)>,
    live: Vec<Live>,
    next_number: u32,
    /// How the story went, for the message of a failure.
    seed: u64,
    step: u32,
}

fn open(
    world: &SimWorld,
    options: &StoreOptions,
    warm: Option<Warm>,
) -> Result<(SimDisk, Store, RecoveryReport), String> {
    let disk = world.process();
    let acquired = try_acquire(Arc::new(disk.clone()), "fuzz");
    let Acquire::Owned(ownership) = acquired.map_err(|error| error.to_string())? else {
        return Err("somebody else has the lock".to_owned());
    };
    let opened = Store::open_warm(ownership, options.clone(), warm, &mut |_| ());
    let (store, report) = opened.map_err(|error| error.to_string())?;
    Ok((disk, store, report))
}

/// All that a user can see of a store: messages by queue, rows, totals. Not their places: a standby may
/// have seen the proof of a batch that is adopted without it.
type Summary = (Vec<Vec<u32>>, Vec<Option<u32>>, [u64; 3]);

fn summary(store: &Store) -> Result<Summary, String> {
    let queue = |queue| -> Result<Vec<u32>, String> {
        let found = read(store, queue)?.into_iter();
        Ok(found.map(|it| it.number).collect())
    };
    let queues = (1..=QUEUES).map(queue).collect::<Result<_, _>>()?;
    let rows = (0..ROWS)
        .map(|key| row(store, key))
        .collect::<Result<_, _>>()?;
    let status = store.status();
    let numbers = [status.messages, status.bytes, status.quarantined];
    Ok((queues, rows, numbers))
}

impl Oracle {
    /// Holds a store that has just been recovered against what was confirmed.
    fn check(&self, store: &Store, report: &RecoveryReport) -> Result<(), String> {
        if !report.damaged.is_empty() {
            return Err(format!("a whole store is called damaged: {report:?}"));
        }
        for queue in 1..=QUEUES {
            let found = read(store, queue)?;
            let counted = store.queue_stats(QueueId(queue)).messages;
            if counted != found.len() as u64 {
                return Err(format!("queue {queue} counts {counted} of {}", found.len()));
            }
            let numbers: Vec<u32> = found.iter().map(|it| it.number).collect();
            if !numbers.is_sorted_by(|a, b| a < b) {
                return Err(format!("queue {queue} is doubled or out of order"));
            }
            let set: BTreeSet<u32> = numbers.into_iter().collect();
            let known = self.references.range((queue, 0)..=(queue, u32::MAX));
            for ((_, number), known) in known {
                let is_there = set.contains(number);
                if known.is_durable && !known.is_settling && !is_there {
                    return Err(format!("message {number} of queue {queue} is lost"));
                }
                if known.is_settled && is_there {
                    return Err(format!("settled message {number} of queue {queue} is back"));
                }
            }
            for number in set {
                if !self.references.contains_key(&(queue, number)) {
                    return Err(format!("message {number} of queue {queue} is invented"));
                }
            }
        }
        for key in 0..ROWS {
            let value = row(store, key)?;
            let allowed = self.rows.get(&key).map_or(&[None][..], Vec::as_slice);
            if !allowed.contains(&value) {
                return Err(format!("row {key} is {value:?}, not one of {allowed:?}"));
            }
        }
        Ok(())
    }
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = SimWorld::new();
        if random.u8(..4) == 0 {
            world.set_file_system(FileSystem::Nfs { lease_s: Some(600) });
        }
        let options = options(&mut random);
        let warm = random.bool().then(Warm::default);
        let (disk, store, _) = open(&world, &options, None).expect("a new store opens");
        Self {
            world,
            disk,
            store,
            options,
            warm,
            random,
            oracle: Oracle::default(),
            pending: Vec::new(),
            live: Vec::new(),
            next_number: 0,
            seed,
            step: 0,
        }
    }

    fn publish(&mut self) {
        let number = self.next_number;
        self.next_number += 1;
        let published = workload::publish(&mut self.store, &mut self.random, number, 60_000);
        let published = published.expect("an open store takes messages");
        for (queue, place) in published.places {
            let key = (queue, number);
            self.oracle.references.insert(key, Known::default());
            self.live.push((queue, number, place));
            let pending = Pending::Message(queue, number);
            self.pending.push((published.ticket, pending));
        }
    }

    fn settle(&mut self) {
        let settled = workload::settle(&mut self.store, &mut self.random, &mut self.live);
        let Some((queue, number, ticket)) = settled else {
            return;
        };
        let ticket = ticket.expect("an open store takes settlements");
        if let Some(known) = self.oracle.references.get_mut(&(queue, number)) {
            known.is_settling = true;
        }
        self.pending.push((ticket, Pending::Settled(queue, number)));
    }

    fn change_row(&mut self) {
        let key = self.random.u32(..ROWS);
        let value = (self.random.u8(..3) > 0).then(|| self.random.u32(..));
        let ticket = workload::change_row(&mut self.store, key, value);
        let ticket = ticket.expect("an open store takes rows");
        let values = self.oracle.rows.entry(key).or_insert_with(|| vec![None]);
        values.push(value);
        self.pending.push((ticket, Pending::Row(key)));
    }

    /// What became durable.
    fn confirm(&mut self) {
        let durable = self.store.durable_ticket();
        let oracle = &mut self.oracle;
        self.pending.retain(|(ticket, what)| {
            if *ticket > durable {
                return true;
            }
            match what {
                Pending::Message(queue, number) => {
                    if let Some(known) = oracle.references.get_mut(&(*queue, *number)) {
                        known.is_durable = true;
                    }
                }
                Pending::Settled(queue, number) => {
                    if let Some(known) = oracle.references.get_mut(&(*queue, *number)) {
                        known.is_settled = true;
                    }
                }
                Pending::Row(key) => {
                    if let Some(values) = oracle.rows.get_mut(key) {
                        values.remove(0);
                    }
                }
            }
            false
        });
    }

    /// Does all jobs that are there, and stops the world before each of their operations.
    fn work(&mut self) {
        while let Some(job) = self.store.poll_job(self.disk.boot_ms()) {
            let done = job.run();
            for copy in self.world.recorded() {
                self.stop(copy);
            }
            if let Err(fatal) = self.store.complete(done) {
                self.fail(&fatal.to_string());
            }
            self.confirm();
            if self.random.u8(..3) == 0 {
                let world = self.world.clone();
                let mut warm = self.warm.take();
                self.follow(warm.as_mut(), &world);
                self.warm = warm;
            }
        }
    }

    /// Lets a standby look at the log as it is now.
    fn follow(&self, warm: Option<&mut Warm>, world: &SimWorld) {
        let Some(warm) = warm else { return };
        let world = world.fork();
        world.record();
        if let Err(error) = warm.poll(&world.process()) {
            self.fail(&format!("the log cannot be followed: {error}"));
        }
        if !world.recorded().is_empty() {
            self.fail("a standby changed the store that it follows");
        }
    }

    /// One crash point; some recoveries are stopped in their middle too.
    fn stop(&mut self, copy: SimWorld) {
        // What it sees here was written and never synced.
        let mut warm = self.warm.clone().filter(|_| self.random.bool());
        if self.random.bool() {
            self.follow(warm.as_mut(), &copy);
        }
        self.crash(&copy);
        if warm.is_some() {
            self.agree(&copy.fork(), warm, &copy.fork());
        }
        let again = self.random.u8(..10) == 0;
        if again {
            copy.record();
        }
        self.recovers(&copy);
        let mut middles = if again { copy.recorded() } else { Vec::new() };
        if !middles.is_empty() {
            let middle = middles.swap_remove(self.random.usize(..middles.len()));
            self.crash(&middle);
            self.recovers(&middle);
        }
    }

    fn crash(&mut self, world: &SimWorld) {
        if self.random.u8(..4) == 0 {
            world.kill_all();
        } else {
            world.crash(self.random.u64(..));
        }
    }

    fn recovers(&self, world: &SimWorld) {
        count_point();
        let checked = open(world, &self.options, None)
            .and_then(|(_, store, report)| self.oracle.check(&store, &report));
        if let Err(what) = checked {
            self.fail(&what);
        }
    }

    /// A recovery with what a standby has kept gives what one without it gives.
    fn agree(&self, world: &SimWorld, warm: Option<Warm>, cold: &SimWorld) {
        let both = open(world, &self.options, warm).and_then(|(_, warm, report)| {
            if report.warm == WarmUse::Used {
                count_warm();
            }
            self.oracle.check(&warm, &report)?;
            let (_, cold, _) = open(cold, &self.options, None)?;
            Ok((summary(&warm)?, summary(&cold)?))
        });
        match both {
            Ok((warm, cold)) if warm != cold => self.fail(&format!(
                "a standby makes another store of it: {warm:?} instead of {cold:?}"
            )),
            Ok(_) => {}
            Err(what) => self.fail(&format!("with a standby: {what}")),
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what} (life {}, step {})", self.seed, self.step);
    }

    /// The server ends or dies, and another one takes over for real.
    fn take_over(&mut self) {
        if self.random.bool() {
            self.store.begin_shutdown();
            for _ in 0..2_000 {
                self.work();
                if self.store.is_shut_down() {
                    break;
                }
                self.world.advance_ms(5);
            }
            if !self.store.is_shut_down() {
                self.fail("the store is never sealed");
            }
        } else if self.random.bool() {
            self.world.kill(&self.disk);
        } else {
            self.world.crash(self.random.u64(..));
        }
        // Another standby goes on following.
        let warm = self.warm.clone().filter(|_| self.random.bool());
        let (disk, store, report) = match open(&self.world, &self.options, warm) {
            Ok(opened) => opened,
            Err(what) => self.fail(&what),
        };
        drop(self.world.recorded());
        if let Err(what) = self.oracle.check(&store, &report) {
            self.fail(&what);
        }
        (self.disk, self.store) = (disk, store);
        self.pending.clear();
        self.live.clear();
        self.oracle.references.clear();
        for queue in 1..=QUEUES {
            for found in read(&self.store, queue).unwrap_or_default() {
                let known = Known {
                    is_durable: true,
                    ..Known::default()
                };
                self.oracle.references.insert((queue, found.number), known);
                self.live.push((queue, found.number, found.place));
            }
        }
        for key in 0..ROWS {
            let value = row(&self.store, key).unwrap_or_default();
            self.oracle.rows.insert(key, vec![value]);
        }
    }
}

/// Input: the seed of a life, 8 bytes.
fn live(input: &[u8]) {
    let seed = input.try_into().map_or(0, u64::from_le_bytes);
    run(Life::new(seed));
}

fn run(mut life: Life) {
    life.world.record();
    // Few messages stay in some lives, so that segments are compacted.
    let settles = [4, 8][life.random.usize(..2)];
    for step in 0..life.random.u32(10..50) {
        life.step = step;
        for _ in 0..life.random.u32(..5) {
            life.publish();
        }
        for _ in 0..life.random.u32(..settles) {
            life.settle();
        }
        if life.random.u8(..3) == 0 {
            life.change_row();
        }
        life.work();
        life.world.advance_ms(match life.random.u8(..8) {
            0 => 1_200,
            1 => 30,
            _ => life.random.u64(..5),
        });
        life.work();
        if life.random.u8(..12) == 0 {
            life.take_over();
        }
    }
}

pub(crate) fn targets() -> Vec<Target> {
    vec![Target {
        name: "crashes",
        about: "a store's life, stopped before every operation of its disk: nothing confirmed is lost",
        sample: |random| random.u64(..).to_le_bytes().to_vec(),
        feed: live,
        brief: 20,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_whose_syncs_do_nothing_is_noticed() {
        let noticed = (0..10).any(|seed| {
            let life = Life::new(seed);
            life.world.lie();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(life))).is_err()
        });
        assert!(noticed);
    }
}
