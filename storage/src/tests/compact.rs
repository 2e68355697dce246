//! Segments of which little is live are made small, and nothing else changes.

use super::*;

use std::collections::BTreeSet;

pub(super) fn roomy() -> StoreOptions {
    StoreOptions {
        segment_bytes: 1 << 20,
        ..options()
    }
}

/// A text that tells its number and queue.
pub(super) fn text(number: u32) -> String {
    format!("{number} {}", "c".repeat(3_000))
}

/// Publishes into two queues and settles all but each hundredth message. Gives what is left.
fn flow(server: &mut Server, from: u32, to: u32) -> Vec<u32> {
    let mut kept = Vec::new();
    for number in from..to {
        let (place, _) = server.publish(1 + number % 2, &text(number));
        server.work();
        if number % 100 < 2 {
            kept.push(number);
        } else {
            server.settle(1 + number % 2, place);
        }
        if number % 50 == 0 {
            server.disk.world().advance_ms(200);
            server.work();
        }
    }
    server.rest();
    kept
}

#[track_caller]
fn finds(server: &Server, kept: &[u32]) {
    for queue in 1..=2 {
        let expected = kept.iter().filter(|number| 1 + *number % 2 == queue);
        let expected: Vec<String> = expected.map(|number| text(*number)).collect();
        assert!(server.texts(queue) == expected, "queue {queue} differs");
        assert_eq!(server.count(queue), expected.len() as u64);
    }
}

pub(super) fn compacted(world: &SimWorld) -> BTreeSet<String> {
    let names = world.names().into_iter();
    names.filter(|name| name.ends_with(".cmp")).collect()
}

#[test]
fn sparse_segments_are_made_small_and_read_the_same() {
    let world = SimWorld::new();
    let mut server = try_open(&world, roomy()).unwrap();
    let kept = flow(&mut server, 0, 4_000);
    finds(&server, &kept);
    let status = server.store.status();
    assert!(status.compactions >= 5, "{status:?}");
    let live: u64 = kept.len() as u64 * 3_000;
    let used = world.used_bytes();
    // Beside what is live: the present segment, the next one, the reserve and the checkpoint.
    assert!(used < 4 * live + (9 << 20), "{used} bytes for {live}");
    assert!(
        status.compacted_bytes * 3 < status.batch_bytes,
        "{status:?}"
    );
    assert!(!compacted(&world).is_empty());
    // The next owner finds them, settles some, and they go.
    world.kill(&server.disk);
    let mut server = try_open(&world, roomy()).unwrap();
    finds(&server, &kept);
    server.rest();
    for queue in 1..=2 {
        for (place, _) in server.read_all(queue) {
            server.settle(queue, place);
        }
    }
    server.rest();
    assert_eq!(compacted(&world), BTreeSet::new());
    finds(&server, &[]);
}

#[test]
fn a_compacted_segment_is_compacted_again() {
    let world = SimWorld::new();
    let options = StoreOptions {
        segment_bytes: 4 << 20,
        ..options()
    };
    let mut server = try_open(&world, options).unwrap();
    let mut places = Vec::new();
    for number in 0..3_000_u32 {
        let (place, _) = server.publish(1, &format!("{number} {}", "c".repeat(20_000)));
        places.push(place);
        server.work();
        // Each fifth stays at first, each hundredth for ever.
        if number % 5 != 0 {
            server.settle(1, place);
        }
    }
    server.rest();
    let before = world.used_bytes();
    assert!(
        compacted(&world)
            .iter()
            .any(|name| name.contains(".1001.cmp"))
    );
    for number in (0..3_000).filter(|number| number % 5 == 0 && number % 100 != 0) {
        server.settle(1, places[number]);
        server.work();
    }
    server.rest();
    assert!(
        compacted(&world)
            .iter()
            .any(|name| name.contains(".1002.cmp"))
    );
    assert!(world.used_bytes() + (8 << 20) < before);
    let numbers: Vec<String> = (0..30).map(|it| (it * 100).to_string()).collect();
    let found = server.texts(1);
    let found: Vec<&str> = found.iter().filter_map(|it| it.split(' ').next()).collect();
    assert_eq!(found, numbers);
    // Places that were taken before still lead to their messages.
    let again: Vec<Place> = (0..30).map(|it| places[it * 100]).collect();
    let done = server.store.read_places(QueueId(1), &again).run();
    assert_eq!((done.messages.len(), done.error), (30, None));
    assert_eq!(done.quarantined, []);
}

#[test]
fn the_log_alone_rebuilds_a_store_with_compacted_segments() {
    let world = SimWorld::new();
    let mut server = try_open(&world, roomy()).unwrap();
    let kept = flow(&mut server, 0, 4_000);
    assert!(!compacted(&world).is_empty());
    world.kill(&server.disk);
    let disk = world.process();
    for name in world.names() {
        if name.ends_with(".redb") {
            disk.remove(&name).unwrap();
        }
    }
    let server = try_open(&world, roomy()).unwrap();
    assert!(server.report.rebuilt.is_some());
    finds(&server, &kept);
}

#[test]
fn what_a_looker_sees_of_compacted_segments() {
    let world = SimWorld::new();
    let mut server = try_open(&world, roomy()).unwrap();
    flow(&mut server, 0, 4_000);
    let disk = world.process();
    let report = crate::inspect::verify(&disk, &mut |_, _| ()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let name = compacted(&world).pop_first().unwrap();
    world.flip(&name, 5_000, 0xff);
    let report = crate::inspect::verify(&disk, &mut |_, _| ()).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|it| it.file == name && it.is_damage)
    );
}

#[test]
fn a_bad_sector_keeps_its_own_segment_and_no_other_from_being_compacted() {
    let world = SimWorld::new();
    let mut server = try_open(&world, roomy()).expect("the store opens");
    flow(&mut server, 0, 20);
    let wanted = text(0);
    let find = |name: String| {
        let bytes = world.bytes_of(&name)?;
        let mut parts = bytes.windows(wanted.len());
        let at = parts.position(|it| it == wanted.as_bytes())? as u64;
        Some((name, at))
    };
    let mut segments = world.names().into_iter().filter(|it| it.ends_with(".seg"));
    let (name, at) = segments.find_map(find).expect("it is stored");
    world.spoil(&name, at..at + 100);
    flow(&mut server, 20, 8_000);
    let status = server.store.status();
    // 29 without the bad sector.
    assert!(status.compactions > 20, "{status:?}");
}
