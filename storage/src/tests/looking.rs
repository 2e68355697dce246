//! Inspection finds what is wrong and changes nothing.

use super::*;
use crate::inspect;

fn filled() -> (SimWorld, Server) {
    let world = SimWorld::new();
    let mut server = open(&world);
    let text = "t".repeat(3000);
    for round in 0..10 {
        for queue in 1..=3 {
            for number in 0..20 {
                server.publish(queue, &format!("{round} {number} {text}"));
            }
        }
        server.store.put_row(1, &[round], b"row").unwrap();
        server.work();
        for (place, _) in server.read_all(1).into_iter().take(5) {
            server.settle(1, place);
        }
        server.rest();
    }
    (world, server)
}

#[test]
fn a_healthy_store_verifies_beside_its_running_owner_and_stays_as_it_is() {
    let (world, server) = filled();
    let before: Vec<_> = world
        .names()
        .into_iter()
        .map(|name| world.bytes_of(&name))
        .collect();
    let disk = world.process();
    let mut seen = 0;
    let report = inspect::verify(&disk, &mut |_, _| seen += 1).unwrap();
    assert!(seen > 2);
    assert_eq!(report.findings, []);
    let messages: u64 = report.segments.iter().map(|segment| segment.messages).sum();
    assert_eq!(messages, 600);
    let checkpoint = report.checkpoints.last().unwrap();
    let waiting: u64 = checkpoint.queues.iter().map(|queue| queue.1).sum();
    assert_eq!(waiting, server.store.status().messages);
    let scanned = inspect::full_scan(&disk).unwrap();
    assert_eq!(scanned.messages, 600);
    let facts = inspect::stats(&disk).unwrap();
    assert_eq!(facts.segments.len(), report.segments.len());
    let mut lines = Vec::new();
    let name = |queue| format!("q{queue}");
    inspect::dump(&disk, 1, 0, 3, &name, &mut |line| lines.push(line)).unwrap();
    assert!(
        lines.iter().any(|line| line.contains("message to [q1]")),
        "{lines:?}"
    );
    let after: Vec<_> = world
        .names()
        .into_iter()
        .map(|name| world.bytes_of(&name))
        .collect();
    assert!(before == after, "looking changed the store");
}

#[test]
fn every_flipped_byte_of_a_sealed_segment_is_found() {
    let (world, _server) = filled();
    let name = "0000000001.seg";
    let good = world.bytes_of(name).unwrap();
    let disk = world.process();
    let mut unaffected = 0;
    for at in (0..good.len()).step_by(1009) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        world.overwrite(name, bad);
        let report = inspect::verify(&disk, &mut |_, _| ()).unwrap();
        if report.findings.is_empty() {
            // Only bytes that carry nothing: zeros between the parts.
            assert_eq!(good[at], 0, "a flip at {at} went unnoticed");
            unaffected += 1;
        }
    }
    assert!(unaffected < good.len() / 1009);
}

#[test]
fn a_later_owner_is_seen_without_its_locks_and_nobody_else_is_taken_for_one() {
    let (world, server) = filled();
    let (id, epoch) = (server.store.id(), server.store.epoch());
    let newer = |id: [u8; 16], epoch: u64| crate::newer_epoch(&world.process(), id, epoch).unwrap();
    assert_eq!(
        newer(id, epoch),
        None,
        "its own further segments are no owner"
    );
    drop(server);
    let server = open(&world);
    let later = server.store.epoch();
    assert!(later > epoch);
    assert_eq!(newer(id, epoch), Some(later));
    assert_eq!(newer(id, later), None);
    assert_eq!(newer([7; 16], epoch), None, "another store's");
}

fn dumped(world: &SimWorld, segment: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let name = |queue: u32| queue.to_string();
    let disk = world.process();
    inspect::dump(&disk, segment, 0, 10_000, &name, &mut |line| {
        lines.push(line)
    })
    .unwrap();
    lines
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

/// The last batch of a store that nobody owns any more is cut short.
fn torn_world() -> SimWorld {
    let world = SimWorld::new();
    let rarely = StoreOptions {
        checkpoint_interval_ms: u64::MAX / 4,
        ..options()
    };
    let mut server = try_open(&world, rarely).unwrap();
    server.publish(1, "whole");
    server.rest();
    let (place, _) = server.publish(1, &"torn".repeat(1000));
    server.work();
    world.kill(&server.disk);
    let mut bytes = world.bytes_of("0000000001.seg").unwrap();
    let from = place.offset as usize * 8 + 1024;
    bytes[from..].fill(0);
    world.overwrite("0000000001.seg", bytes);
    world
}

#[test]
fn only_what_nobody_sealed_has_a_torn_tail() {
    let (world, _server) = filled();
    let sealed = dumped(&world, 1);
    for part in [
        "end, sealed by its owner",
        "unused room",
        "index, ",
        "trailer, ",
    ] {
        assert!(has(&sealed, part), "{part} in {:?}", sealed.last());
    }
    assert!(!has(&sealed, "torn"), "{:?}", sealed.last());

    let world = torn_world();
    let open_end = dumped(&world, 1);
    assert!(has(&open_end, "torn tail, "), "{open_end:?}");

    // The next owner seals it; the torn bytes stay.
    let mut server = open(&world);
    server.rest();
    let left = dumped(&world, 1);
    let expected = ["end, sealed by a later owner", "left by a dead owner"];
    for part in expected {
        assert!(has(&left, part), "{part} in {left:?}");
    }
    assert!(!has(&left, "torn"), "{left:?}");
}

#[test]
fn a_sealed_segment_stays_sealed_when_the_one_with_its_seal_is_gone() {
    let world = torn_world();
    let mut server = open(&world);
    server.rest();
    let sealing = format!("{:010}.seg", server.store.epoch());
    let filler = "f".repeat(100_000);
    for _ in 0..60 {
        let (place, _) = server.publish(2, &filler);
        server.work();
        server.settle(2, place);
        server.rest();
    }
    assert!(!world.names().contains(&sealing), "{:?}", world.names());
    let verified = inspect::verify(&world.process(), &mut |_, _| ()).unwrap();
    assert_eq!(verified.findings, []);
    let left = dumped(&world, 1);
    assert!(has(&left, "end, sealed by a later owner"), "{left:?}");
    assert!(!has(&left, "torn"), "{left:?}");
}

#[test]
fn a_sealed_segment_without_its_last_batches_is_damaged() {
    let (world, _server) = filled();
    let good = dumped(&world, 1);
    let last = good.iter().rfind(|line| line.contains("batch of")).unwrap();
    let offset: usize = last.split_whitespace().next().unwrap().parse().unwrap();
    let mut bytes = world.bytes_of("0000000001.seg").unwrap();
    bytes[offset] ^= 0xff;
    world.overwrite("0000000001.seg", bytes);
    let bad = dumped(&world, 1);
    assert!(has(&bad, "bytes up to the sealed end"), "{:?}", bad.last());
    assert!(!has(&bad, "torn"), "{:?}", bad.last());
}

#[test]
fn rows_are_those_of_the_checkpoint_and_of_the_log_behind_it() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for key in [b"kept", b"gone"] {
        server.store.put_row(1, key, b"old").unwrap();
    }
    server.rest();
    assert!(server.store.status().checkpoints > 0);
    server.store.put_row(1, b"kept", b"new").unwrap();
    server.store.delete_row(1, b"gone").unwrap();
    server.store.put_row(2, b"more", b"row").unwrap();
    server.work();
    let rows = inspect::rows(&world.process()).unwrap();
    let row = |key: &[u8], value: &[u8]| BTreeMap::from([(key.to_vec(), value.to_vec())]);
    let expected = BTreeMap::from([(1, row(b"kept", b"new")), (2, row(b"more", b"row"))]);
    assert_eq!(rows, expected);
}
