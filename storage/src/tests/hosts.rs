//! Two hosts that share a store over NFS: who owns it, and what a host that lost it can still do.

use std::thread;

use super::compact::{compacted, roomy, text};
use super::*;
use crate::disk::{Fault, HostSettings, NfsSettings, OpenMode, Operation, SimHost, Turns};
use crate::format::segment::{compact_of, segment_of};
use crate::job::Work;
use crate::survey::{epoch_start, look_at, trailer_of};
use crate::{Canary, Fence, Lane};

/// Longer than a lease.
const LEASE_PASSES_MS: u64 = 25_000;

fn pair_with(settings: NfsSettings, host: HostSettings) -> (SimWorld, SimHost, SimHost) {
    let world = SimWorld::nfs(settings);
    let (first, second) = (world.host(host.clone()), world.host(host));
    (world, first, second)
}

fn pair() -> (SimWorld, SimHost, SimHost) {
    pair_with(NfsSettings::default(), HostSettings::default())
}

fn open_on(host: &SimHost) -> Server {
    try_open_on(host.process(), options()).expect("the store opens")
}

fn is_busy(host: &SimHost) -> bool {
    matches!(
        try_open_on(host.process(), options()),
        Err(OpenError::Busy(_))
    )
}

impl Server {
    /// Does what is there until nothing is or the log fails.
    fn work_until_it_fails(&mut self) -> bool {
        while let Some(job) = self.step() {
            if self.store.complete(job.run()).is_err() {
                return true;
            }
        }
        false
    }

    fn is_lost(&self) -> bool {
        matches!(self.store.fence(self.now()), Fence::Lost(_))
    }

    /// The seals in the first batch of this owner.
    fn seals(&self) -> Vec<crate::format::payload::SealEntry> {
        let found = look_at(&self.disk, self.store.epoch(), None).unwrap();
        let start = epoch_start(&found, &found.header.unwrap()).unwrap();
        start.seals.unwrap()
    }
}

#[test]
fn a_segment_is_never_visible_without_the_lock_of_its_writer() {
    let (world, first, _) = pair();
    world.record();
    let mut server = open_on(&first);
    for text in numbered(0..60) {
        server.publish(1, &text.repeat(1000));
        server.work();
    }
    let mut looked_at = 0;
    for copy in world.recorded() {
        let disk = copy.process();
        for name in copy.names() {
            let Some(segment) = segment_of(&name) else {
                continue;
            };
            let file = disk.open(&name, OpenMode::Read).unwrap();
            let salt = server.store.identity.salt;
            let is_sealed = trailer_of(file.as_ref(), salt, segment).unwrap().is_some();
            assert!(
                is_sealed || file.is_locked_elsewhere().unwrap(),
                "{name} can be written by nobody"
            );
            looked_at += 1;
        }
    }
    assert!(looked_at > 100, "{looked_at}");
}

#[test]
fn the_canary_sings_only_where_segments_are_not_locked() {
    for locks_only_lock in [false, true] {
        let settings = NfsSettings {
            locks_only_lock,
            ..NfsSettings::default()
        };
        let (world, first, second) = pair_with(settings, HostSettings::default());
        let mut server = open_on(&first);
        let standby = second.process();
        let mut canary = Canary::default();
        let mut alarms = 0;
        for round in 0..100 {
            server.publish(1, &format!("{round} {}", "g".repeat(5_000)));
            server.work();
            world.advance_ms(200);
            alarms += u32::from(canary.look(&standby).unwrap().is_some());
        }
        assert_eq!(alarms > 0, locks_only_lock, "{alarms} alarms");
    }
}

#[test]
fn an_ending_owner_that_gives_lock_back_first_is_waited_for() {
    for (lingers_ms, is_taken) in [(20, true), (500, false)] {
        let turns = Arc::new(Turns::new(1));
        let world = SimWorld::nfs(NfsSettings::default()).with_turns(Arc::clone(&turns));
        let (first, second) = (
            world.host(HostSettings::default()),
            world.host(HostSettings::default()),
        );
        let mut server = open_on(&first);
        server.store.lock.take();
        let (ending, next) = (turns.add(&[]), turns.add(&[]));
        let turns = &turns;
        let outcome = thread::scope(|scope| {
            scope.spawn(move || {
                turns.begin(ending);
                turns.sleep_ms(lingers_ms);
                drop(server);
                turns.end(ending);
            });
            let opened = scope.spawn(move || {
                turns.begin(next);
                let opened = try_open_on(second.process(), options()).is_ok();
                turns.end(next);
                opened
            });
            opened.join().unwrap()
        });
        assert_eq!(outcome, is_taken, "it lingers {lingers_ms} ms");
    }
}

#[test]
fn bytes_that_a_successor_saw_and_the_server_forgets_are_copied() {
    for seed in 0..20 {
        let (world, first, second) = pair();
        let mut owner = open_on(&first);
        owner.publish(1, "kept");
        owner.rest();
        owner.publish(1, "sent and never committed");
        world.inject(Fault {
            operation: Operation::Sync,
            name_part: ".seg".to_owned(),
            skip: 0,
            count: 1,
            errno: nix::libc::EIO,
        });
        assert!(owner.work_until_it_fails());
        world.kill(&owner.disk);
        let successor = open_on(&second);
        assert!(successor.report.adopted_records > 0);
        let seen = successor.texts(1);
        assert_eq!(seen, ["kept", "sent and never committed"]);
        // The predecessor's host has nothing left to send again.
        first.crash();
        world.crash_server(seed);
        world.kill(&successor.disk);
        world.advance_ms(LEASE_PASSES_MS);
        let third = open_on(&second);
        assert_eq!(third.texts(1), seen, "seed {seed}");
        assert_eq!(third.report.damaged, [], "seed {seed}");
    }
}

#[test]
fn a_seal_that_no_watermark_covers_is_repeated_word_for_word() {
    let (world, first, second) = pair();
    let mut server = open_on(&first);
    for text in numbered(0..30) {
        server.publish(1, &text);
        server.work();
    }
    world.kill(&server.disk);
    // It writes its SEAL and dies.
    let second_owner = open_on(&second);
    let sealed = second_owner.seals();
    assert!(!sealed.is_empty());
    world.kill(&second_owner.disk);
    let third_owner = open_on(&first);
    let repeated = third_owner.seals();
    for seal in sealed {
        assert!(repeated.contains(&seal), "{seal:?} is not in {repeated:?}");
    }
    assert_eq!(third_owner.texts(1), numbered(0..30));
}

/// Whether a job removes a segment of which a compacted copy exists.
fn removes_compacted(job: &Job, world: &SimWorld) -> bool {
    let Work::Remove { names, .. } = &job.work else {
        return false;
    };
    let compacted = compacted(world);
    let compacted: Vec<u64> = compacted
        .iter()
        .filter_map(|name| Some(compact_of(name)?.0))
        .collect();
    let mut segments = names.iter().filter_map(|name| segment_of(name));
    segments.any(|segment| compacted.contains(&segment))
}

/// Publishes and settles nearly all until there is a job that is held back, as if the host stood still
/// before it.
fn until(server: &mut Server, holds_back: impl Fn(&Job) -> bool) -> Job {
    for number in 0..4_000 {
        let (place, _) = server.publish(1, &text(number));
        while let Some(job) = server.step() {
            if holds_back(&job) {
                return job;
            }
            server.store.complete(job.run()).unwrap();
        }
        if number % 100 > 1 {
            server.settle(1, place);
        }
        server.disk.world().advance_ms(4);
    }
    panic!("there was no such job");
}

#[test]
fn an_owner_that_lost_the_store_removes_nothing_that_its_successor_needs() {
    let (world, first, second) = pair();
    let mut owner = try_open_on(first.process(), roomy()).unwrap();
    let late = until(&mut owner, |job| removes_compacted(job, &world));
    first.freeze();
    world.advance_ms(LEASE_PASSES_MS);
    let mut successor = try_open_on(second.process(), roomy()).unwrap();
    let texts = successor.texts(1);
    // It clears up what it does not need, and has not compacted anything itself yet.
    for _ in 0..400 {
        while let Some(job) = successor.step() {
            if job.lane() != Lane::Compact {
                successor.store.complete(job.run()).unwrap();
            }
        }
        world.advance_ms(25);
    }
    first.thaw();
    drop(late.run());
    assert!(successor.texts(1) == texts);
    world.kill(&successor.disk);
    let third = try_open_on(second.process(), roomy()).unwrap();
    assert!(third.texts(1) == texts);
    assert_eq!(third.report.damaged, []);
}

#[test]
fn an_owner_that_lost_the_store_does_not_write_what_its_successor_writes() {
    let (world, first, second) = pair();
    let mut owner = try_open_on(first.process(), roomy()).unwrap();
    let late = until(&mut owner, |job| job.lane() == Lane::Compact);
    first.freeze();
    world.advance_ms(LEASE_PASSES_MS);
    let mut successor = try_open_on(second.process(), roomy()).unwrap();
    successor.rest();
    assert!(successor.store.status().compactions > 0);
    let texts = successor.texts(1);
    first.thaw();
    drop(late.run());
    // What its host remembers of the files is looked up again.
    world.advance_ms(61_000);
    assert!(successor.texts(1) == texts);
    world.kill(&successor.disk);
    let third = try_open_on(second.process(), roomy()).unwrap();
    assert!(third.texts(1) == texts);
    assert_eq!(third.report.damaged, []);
}

#[test]
fn an_owner_whose_lease_is_over_goes_on_only_if_nobody_took_the_store() {
    for is_courteous in [true, false] {
        for is_taken in [false, true] {
            let settings = NfsSettings {
                is_courteous,
                ..NfsSettings::default()
            };
            let (world, first, second) = pair_with(settings, HostSettings::default());
            let mut owner = open_on(&first);
            owner.publish(1, "before");
            owner.rest();
            first.freeze();
            world.advance_ms(LEASE_PASSES_MS);
            let successor = is_taken.then(|| open_on(&second));
            first.thaw();
            // It holds back what it owes, and forces a write.
            assert_eq!(owner.store.fence(owner.now()), Fence::Lapsed);
            owner.publish(1, "after");
            owner.work_until_it_fails();
            let goes_on = is_courteous && !is_taken;
            assert_eq!(owner.is_lost(), !goes_on);
            if goes_on {
                assert_eq!(owner.store.fence(owner.now()), Fence::Held);
                assert_eq!(owner.texts(1), ["before", "after"]);
            } else {
                world.kill(&owner.disk);
                let successor = successor.unwrap_or_else(|| open_on(&second));
                assert_eq!(successor.texts(1), ["before"]);
            }
        }
    }
}

#[test]
fn a_rebooted_server_gives_the_owner_its_locks_back_and_gets_the_lost_bytes_again() {
    for seed in 0..20 {
        let (world, first, second) = pair();
        let mut owner = open_on(&first);
        owner.publish(1, "before");
        owner.rest();
        owner.publish(1, "sent, then the server reboots");
        let job = loop {
            let job = owner.step().unwrap();
            if job.lane() == Lane::Log {
                break job;
            }
            owner.store.complete(job.run()).unwrap();
        };
        let Work::Commit(commit) = &job.work else {
            panic!("the log's lane writes batches");
        };
        commit.file.write_at(commit.offset, &commit.bytes).unwrap();
        first.write_back();
        world.crash_server(seed);
        owner.store.complete(job.run()).unwrap();
        assert!(is_busy(&second), "the standby came in");
        world.advance_ms(100);
        owner.work();
        assert!(!owner.is_lost());
        world.kill(&owner.disk);
        world.crash_server(seed + 1);
        world.advance_ms(LEASE_PASSES_MS);
        let texts = open_on(&second).texts(1);
        assert_eq!(texts, ["before", "sent, then the server reboots"]);
    }
}

#[test]
fn an_owner_that_misses_the_grace_of_a_rebooted_server_ends() {
    let (world, first, second) = pair();
    let mut owner = open_on(&first);
    owner.publish(1, "before");
    owner.rest();
    first.cut_off();
    world.crash_server(1);
    world.advance_ms(LEASE_PASSES_MS);
    let successor = open_on(&second);
    first.heal();
    owner.publish(1, "after");
    owner.work_until_it_fails();
    assert!(owner.is_lost());
    assert_eq!(successor.texts(1), ["before"]);
}

#[test]
fn a_write_that_hangs_while_its_host_is_cut_off_fails_after_a_takeover() {
    for seed in 0..30 {
        let turns = Arc::new(Turns::new(seed));
        let world = SimWorld::nfs(NfsSettings {
            seed,
            ..NfsSettings::default()
        });
        let world = world.with_turns(Arc::clone(&turns));
        let (first, second) = (
            world.host(HostSettings::default()),
            world.host(HostSettings::default()),
        );
        let mut owner = open_on(&first);
        owner.publish(1, "before");
        owner.work();
        first.cut_off();
        let (writing, taking) = (turns.add(&[]), turns.add(&[]));
        let (turns, world) = (&turns, &world);
        thread::scope(|scope| {
            scope.spawn(move || {
                turns.begin(writing);
                owner.publish(1, "after");
                assert!(owner.work_until_it_fails(), "the write succeeded");
                assert!(world.now_ms() >= LEASE_PASSES_MS, "it did not hang");
                turns.end(writing);
            });
            scope.spawn(move || {
                turns.begin(taking);
                turns.sleep_ms(LEASE_PASSES_MS);
                let successor = open_on(&second);
                first.heal();
                assert_eq!(successor.texts(1), ["before"]);
                turns.sleep_ms(1_000);
                turns.end(taking);
            });
        });
    }
}

#[test]
fn whoever_is_overtaken_while_it_takes_over_gets_nowhere() {
    let mut overtaken = 0;
    for seed in 0..60_u64 {
        let turns = Arc::new(Turns::new(seed));
        let world = SimWorld::nfs(NfsSettings::default()).with_turns(Arc::clone(&turns));
        let hosts = [(); 2].map(|()| world.host(HostSettings::default()));
        let [first, second] = &hosts;
        let mut owner = open_on(first);
        for text in numbered(0..20) {
            owner.publish(1, &text);
        }
        owner.work();
        world.kill(&owner.disk);
        let (slow, fast) = (turns.add(&[]), turns.add(&[]));
        let turns = &turns;
        let (opened, successor) = thread::scope(|scope| {
            let slow = scope.spawn(move || {
                turns.begin(slow);
                let opened = try_open_on(second.process(), options());
                turns.end(slow);
                opened
            });
            let fast = scope.spawn(move || {
                turns.begin(fast);
                (0..seed % 12).for_each(|_| turns.sleep_ms(0));
                second.cut_off();
                turns.sleep_ms(LEASE_PASSES_MS);
                let successor = open_on(first);
                second.heal();
                turns.sleep_ms(1_000);
                turns.end(fast);
                successor
            });
            (slow.join().unwrap(), fast.join().unwrap())
        });
        overtaken += u32::from(opened.is_err());
        assert_eq!(successor.texts(1), numbered(0..20), "seed {seed}");
        world.kill(&successor.disk);
        drop(opened);
        let third = open_on(second);
        assert_eq!(third.texts(1), numbered(0..20), "seed {seed}");
        assert_eq!(third.report.damaged, [], "seed {seed}");
    }
    assert!(overtaken > 10, "{overtaken}");
}

#[test]
fn two_hosts_that_are_one_client_to_the_server_do_not_both_write() {
    let host = HostSettings {
        shared_identity: 1,
        ..HostSettings::default()
    };
    let (world, first, second) = pair_with(NfsSettings::default(), host);
    let mut owner = open_on(&first);
    owner.publish(1, "before");
    owner.rest();
    // The first words of the second host cost the first one its locks.
    let successor = open_on(&second);
    assert_eq!(successor.texts(1), ["before"]);
    owner.publish(1, "after");
    owner.work_until_it_fails();
    assert!(owner.is_lost());
    world.kill(&owner.disk);
    world.kill(&successor.disk);
    assert_eq!(open_on(&second).texts(1), ["before"]);
}

#[test]
fn what_a_host_writes_long_after_its_process_died_changes_nothing() {
    let mut late = 0;
    for seed in 0..40 {
        let settings = NfsSettings {
            seed,
            ..NfsSettings::default()
        };
        let (world, first, second) = pair_with(settings, HostSettings::default());
        let mut owner = open_on(&first);
        owner.publish(1, "durable");
        owner.rest();
        owner.publish(1, &"never synced ".repeat(2_000));
        // The batch is in the host's memory when the process dies.
        while let Some(job) = owner.step() {
            if let Work::Commit(commit) = &job.work {
                commit.file.write_at(commit.offset, &commit.bytes).unwrap();
                break;
            }
            owner.store.complete(job.run()).unwrap();
        }
        world.kill(&owner.disk);
        let mut successor = open_on(&second);
        successor.publish(1, "next");
        successor.rest();
        let texts = successor.texts(1);
        let names: Vec<_> = world
            .names()
            .iter()
            .map(|name| world.bytes_of(name))
            .collect();
        for _ in 0..20 {
            first.write_back();
        }
        let after: Vec<_> = world
            .names()
            .iter()
            .map(|name| world.bytes_of(name))
            .collect();
        late += u32::from(names != after);
        assert_eq!(successor.texts(1), texts);
        world.kill(&successor.disk);
        let third = open_on(&first);
        assert_eq!(third.texts(1), texts, "seed {seed}");
        assert_eq!(third.report.damaged, [], "seed {seed}");
    }
    assert!(late > 5, "nothing was written late");
}
