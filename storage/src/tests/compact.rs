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

/// A compacted file beside its segment.
fn pair_of(world: &SimWorld) -> Option<(String, String)> {
    let names = world.names();
    let of = |copy: &String| Some(format!("{}.seg", copy.split_once('.')?.0));
    compacted(world).into_iter().find_map(|copy| {
        let segment = of(&copy).filter(|it| names.contains(it))?;
        Some((copy, segment))
    })
}

/// A store whose server died between making a compacted file durable and removing its segment. Gives both
/// names and what waits.
fn with_a_pair() -> (SimWorld, String, String, Vec<u32>) {
    let world = SimWorld::new();
    let mut server = try_open(&world, roomy()).expect("the store opens");
    let kept = (0..2_000).filter(|it| it % 100 < 2).collect();
    for number in 0..2_000 {
        let (place, _) = server.publish(1 + number % 2, &text(number));
        server.work();
        if number % 100 >= 2 {
            server.settle(1 + number % 2, place);
        }
    }
    for _ in 0..400 {
        while let Some(job) = server.step() {
            let done = job.run();
            if let Some((copy, segment)) = pair_of(&world) {
                world.kill(&server.disk);
                return (world, copy, segment, kept);
            }
            server.store.complete(done).expect("the store goes on");
        }
        world.advance_ms(25);
    }
    panic!("no segment was compacted");
}

fn is_damaged(world: &SimWorld) -> bool {
    let report = crate::inspect::verify(&world.process(), &mut |_, _| ());
    report.expect("the store can be read").is_damaged()
}

#[test]
fn a_whole_compacted_file_lets_its_segment_go() {
    let (world, copy, segment, kept) = with_a_pair();
    let mut server = try_open(&world, roomy()).expect("the store opens");
    finds(&server, &kept);
    server.rest();
    assert!(world.names().contains(&segment));
    // It goes with the next checkpoint.
    server.publish(3, "something else");
    server.rest();
    assert!(compacted(&world).contains(&copy));
    assert!(!world.names().contains(&segment));
    finds(&server, &kept);
    assert_eq!(server.store.status().damaged_copies, 0);
}

#[test]
fn a_damaged_compacted_file_does_not_stand_for_its_segment() {
    let (world, copy, segment, kept) = with_a_pair();
    let bytes = world.bytes_of(&copy).expect("it is there").len() as u64;
    let flip = |at: u64| move |world: &SimWorld, name: &str| world.flip(name, at, 0x10);
    let cut = |at: u64| move |world: &SimWorld, name: &str| world.truncate(name, at);
    type Damage<'d> = (&'d str, Box<dyn Fn(&SimWorld, &str)>);
    let damages: [Damage<'_>; 8] = [
        ("a record", Box::new(flip(5_000))),
        ("the header", Box::new(flip(20))),
        ("a batch's header", Box::new(flip(4_096 + 20))),
        (
            "the index",
            Box::new(flip(bytes.next_multiple_of(4_096) - 4_096 + 60)),
        ),
        ("the trailer", Box::new(flip(bytes - 20))),
        ("half", Box::new(cut(bytes / 2))),
        ("behind the header", Box::new(cut(4_096))),
        ("all", Box::new(cut(0))),
    ];
    for (what, damage) in damages {
        let world = world.fork();
        damage(&world, &copy);
        assert!(is_damaged(&world), "{what}");
        let mut server = try_open(&world, roomy()).expect("the store opens");
        finds(&server, &kept);
        server.rest();
        finds(&server, &kept);
        // They go with the next checkpoint.
        server.publish(3, "something else");
        server.rest();
        let status = server.store.status();
        assert_eq!(
            (status.quarantined, status.lost_references),
            (0, 0),
            "{what}"
        );
        assert_eq!(status.damaged_copies, 1, "{what}");
        // It was compacted again, and both earlier files are gone.
        let names = world.names();
        assert!(
            !names.contains(&copy) && !names.contains(&segment),
            "{what}"
        );
        world.kill(&server.disk);
        assert!(!is_damaged(&world), "{what}");
        finds(&try_open(&world, roomy()).expect("the store opens"), &kept);
    }
}

#[test]
fn of_two_damaged_files_the_better_one_is_read() {
    let (world, copy, segment, kept) = with_a_pair();
    world.flip(&copy, 5_000, 0x10);
    let left = |world: &SimWorld| {
        let server = try_open(world, roomy()).expect("the store opens");
        let limit = ReadLimit {
            messages: 10_000,
            bytes: usize::MAX,
        };
        let reads = [1, 2].map(|queue| {
            let job = server
                .store
                .read_queue(QueueId(queue), Cursor::START, limit);
            job.run()
        });
        reads.map(|done| (done.messages.len(), done.error))
    };
    let all = |lost: usize| kept.len() / 2 - lost;
    // Nothing is left of the segment: the damaged copy is worth more.
    let other = world.fork();
    other.truncate(&segment, 8_192);
    let sum: usize = left(&other).into_iter().map(|(messages, _)| messages).sum();
    assert_eq!(sum, kept.len() - 1);
    assert!(other.names().contains(&copy) && other.names().contains(&segment));
    assert_eq!(left(&world), [(all(0), None), (all(0), None)]);
}

#[test]
fn a_segment_that_goes_while_it_stands_in_for_its_damaged_copy() {
    let (world, copy, segment, kept) = with_a_pair();
    world.flip(&copy, 5_000, 0x10);
    let server = try_open(&world, roomy()).expect("the store opens");
    finds(&server, &kept);
    // An owner that has lost the store does what it had begun.
    world.process().remove(&segment).expect("it is there");
    let read = |queue: u32| {
        let limit = ReadLimit {
            messages: 10_000,
            bytes: usize::MAX,
        };
        let job = server
            .store
            .read_queue(QueueId(queue), Cursor::START, limit);
        let done = job.run();
        assert_eq!(done.error, None);
        (done.messages.len(), done.quarantined.len())
    };
    let (one, other) = (read(1), read(2));
    assert_eq!((one.0 + other.0, one.1 + other.1), (kept.len() - 1, 1));
}
