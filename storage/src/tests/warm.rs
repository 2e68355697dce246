//! A standby that follows the log, and the takeover that uses what it has kept.

use super::*;
use crate::{Warm, WarmUse};

/// Follows the log to its end.
fn follow(world: &SimWorld, warm: &mut Warm) {
    let world = world.fork();
    world.record();
    let disk = world.process();
    let is_more = |_: &u32| warm.poll(&disk).expect("the log can be read");
    assert!((0..10_000).take_while(is_more).count() < 10_000, "no end");
    assert!(world.recorded().is_empty(), "following changed the store");
}

fn take_over(world: &SimWorld, warm: Warm) -> Server {
    let disk = world.process();
    let Ok(Acquire::Owned(ownership)) = try_acquire(Arc::new(disk.clone()), "standby") else {
        panic!("the lock is free");
    };
    let opened = Store::open_warm(ownership, options(), Some(warm), &mut |_| ());
    let (store, report) = opened.expect("the store opens");
    Server {
        disk,
        store,
        report,
    }
}

/// The same crash with and without the follower.
fn agree(world: &SimWorld, warm: &Warm) -> RecoveryReport {
    let cold = world.fork();
    let warm = take_over(&world.fork(), warm.clone());
    let cold = open(&cold);
    let facts = |server: &Server| -> Vec<_> {
        let segments = server.store.state.segments.iter();
        let fact = |(number, it): (&u64, &crate::state::SegmentState)| {
            let begin = (*number, it.epoch, it.base_lsn);
            (begin, it.references, it.live, it.last_lsn, it.kind)
        };
        segments.map(fact).collect()
    };
    assert_eq!(facts(&warm), facts(&cold));
    let expected = contents(&cold, 2);
    assert_eq!(contents(&warm, 2), expected);
    assert_eq!(warm.report.messages, cold.report.messages);
    assert_eq!(warm.report.bytes, cold.report.bytes);
    assert_eq!(cold.report.warm, WarmUse::None);
    warm.report
}

fn busy(server: &mut Server, from: u32, count: u32) {
    for (round, text) in (0..).zip(numbered(from..from + count)) {
        server.publish(1 + round % 2, &format!("{text} {}", "x".repeat(900)));
        if round % 20 == 0 {
            server.work();
        }
    }
    server.work();
    let settled: Vec<_> = server.read_all(1).into_iter().step_by(3).collect();
    for (place, _) in settled {
        server.settle(1, place);
    }
    server.work();
}

#[test]
fn a_takeover_reads_only_what_its_follower_has_not_seen() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let mut warm = Warm::default();
    for round in 0..8 {
        busy(&mut server, round * 500, 500);
        follow(&world, &mut warm);
    }
    assert!(warm.status().is_current && warm.status().is_following);
    server.publish(2, "the last one");
    server.work();
    world.crash(7);
    let report = agree(&world, &warm);
    assert_eq!(report.warm, WarmUse::Used);
    assert!(report.tail_bytes < 64 << 10, "{}", report.tail_bytes);
    assert_eq!(report.rebuilt, None);
}

#[test]
fn a_follower_that_comes_late_begins_at_a_snapshot() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for round in 0..8 {
        busy(&mut server, round * 500, 500);
        server.rest();
    }
    assert!(
        !world.names().contains(&"0000000001.seg".to_owned()) || server.store.status().segments > 3
    );
    let mut warm = Warm::default();
    follow(&world, &mut warm);
    assert!(warm.status().is_following, "{:?}", warm.status());
    busy(&mut server, 9_000, 100);
    follow(&world, &mut warm);
    world.crash(1);
    assert_eq!(agree(&world, &warm).warm, WarmUse::Used);
}

#[test]
fn a_follower_goes_on_over_takeovers_of_others() {
    let world = SimWorld::new();
    let mut warm = Warm::default();
    for round in 0..6 {
        let mut server = open(&world);
        assert_eq!(server.report.damaged, []);
        busy(&mut server, round * 300, 300);
        follow(&world, &mut warm);
        server.publish(1, "perhaps lost");
        if round % 2 == 0 {
            // Written, seen and never synced.
            if let Some(job) = server.step() {
                world.record();
                drop(job.run());
                let seen = world.recorded().pop().expect("a write before its sync");
                follow(&seen, &mut warm);
            }
            world.crash(u64::from(round));
        } else {
            server.work();
            world.kill(&server.disk);
        }
        assert_eq!(agree(&world, &warm).warm, WarmUse::Used, "round {round}");
    }
    assert_eq!(warm.status().restarts, 0);
    assert_eq!(warm.status().lost, None);
}

#[test]
fn what_was_kept_is_refused_when_the_log_is_another_one() {
    let world = SimWorld::new();
    let mut server = open(&world);
    busy(&mut server, 0, 300);
    let early = world.fork();
    let mut warm = Warm::default();
    busy(&mut server, 300, 300);
    server.rest();
    follow(&world, &mut warm);
    let kept = warm.status();
    // The disk comes back as it was earlier, and somebody goes on from there.
    early.kill_all();
    let mut other = open(&early);
    busy(&mut other, 5_000, 400);
    other.rest();
    early.kill(&other.disk);
    let expected = contents(&open(&early.fork()), 2);
    let server = take_over(&early, warm.clone());
    assert!(
        matches!(&server.report.warm, WarmUse::Refused(_)),
        "{:?}",
        server.report.warm
    );
    assert_eq!(contents(&server, 2), expected);
    // One changed byte in the batch that is looked at is enough.
    world.kill_all();
    let name = crate::format::segment::segment_name(kept.segment);
    world.flip(&name, kept.offset - 512, 1);
    let report = agree(&world, &warm);
    assert!(matches!(report.warm, WarmUse::Refused(_)), "{report:?}");
}

#[test]
fn a_follower_that_loses_the_log_begins_again_behind_the_next_snapshot() {
    let world = SimWorld::new();
    let mut server = open(&world);
    busy(&mut server, 0, 300);
    let mut warm = Warm::default();
    follow(&world, &mut warm);
    // It sleeps while the log goes on so far that its segment is compacted or removed.
    for round in 1..12 {
        busy(&mut server, round * 500, 500);
        for queue in 1..=2 {
            for (place, _) in server.read_all(queue) {
                server.settle(queue, place);
            }
        }
        server.rest();
    }
    follow(&world, &mut warm);
    assert_eq!(warm.status().restarts, 1, "{:?}", warm.status());
    assert!(warm.status().is_current, "{:?}", warm.status());
    world.crash(3);
    assert_eq!(agree(&world, &warm).warm, WarmUse::Used);
}

#[test]
fn a_follower_keeps_no_more_than_an_owner_has() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let mut warm = Warm::default();
    for round in 0..20 {
        busy(&mut server, round * 500, 500);
        for queue in 1..=2 {
            for (place, _) in server.read_all(queue) {
                server.settle(queue, place);
            }
        }
        for _ in 0..100 {
            server.work();
            follow(&world, &mut warm);
            world.advance_ms(25);
        }
    }
    assert!(warm.status().is_current, "{:?}", warm.status());
    let Ok(kept) = warm.kept() else {
        panic!("nothing is kept")
    };
    let owned = &server.store.state;
    assert_eq!(
        kept.state.segments.keys().collect::<Vec<_>>(),
        owned.segments.keys().collect::<Vec<_>>()
    );
    assert_eq!(kept.state.queues, owned.queues);
    assert!(kept.state.dirty.is_empty());
}
