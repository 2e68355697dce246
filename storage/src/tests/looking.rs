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
    inspect::dump(&disk, 1, 0, 3, &mut |line| lines.push(line)).unwrap();
    assert!(
        lines.iter().any(|line| line.contains("message to [1]")),
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
