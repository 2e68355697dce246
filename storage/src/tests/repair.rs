//! Repair: nothing of a healthy store changes; of a broken one everything that can be read is served.

use super::*;
use crate::disk::{Fault, Operation};
use crate::inspect;
use crate::repair::{RepairReport, repair};

/// Queues of the sample.
const QUEUES: u32 = 3;

fn text(number: u32) -> String {
    format!(
        "message {number} {}",
        "r".repeat(number as usize * 37 % 1500)
    )
}

/// A store of three owners, with segments, footers, side indexes, a snapshot and a checkpoint, dead.
fn broken_world(owners: u32) -> SimWorld {
    let world = SimWorld::new();
    for owner in 0..owners {
        let mut server = open(&world);
        for number in owner * 400..(owner + 1) * 400 {
            let queue = 1 + number % QUEUES;
            let (place, _) = server.publish(queue, &text(number));
            server.work();
            if number % 5 == 0 {
                server.settle(queue, place);
            }
            server
                .store
                .put_row(1, &number.to_be_bytes(), b"row")
                .unwrap();
            if number % 50 == 0 {
                server.rest();
            }
        }
        server.rest();
        world.kill(&server.disk);
    }
    world
}

/// Numbers that wait, by the oracle.
fn waiting(owners: u32) -> Vec<u32> {
    (0..owners * 400).filter(|number| number % 5 != 0).collect()
}

fn all_files(world: &SimWorld) -> BTreeMap<String, Vec<u8>> {
    let names = world.names().into_iter().filter(|name| name != "LOCK");
    names
        .map(|name| (name.clone(), world.bytes_of(&name).unwrap()))
        .collect()
}

fn run(world: &SimWorld, accept: bool) -> Result<RepairReport, OpenError> {
    let disk = world.process();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let result = repair(&shared, &options(), accept);
    world.kill(&disk);
    result
}

/// The numbers of all messages that are served; each is as it was and in the order of its queue.
#[track_caller]
fn served(world: &SimWorld) -> Vec<u32> {
    let server = open(world);
    assert_eq!(server.report.damaged, []);
    let mut numbers = Vec::new();
    for queue in 1..=QUEUES {
        let texts = server.texts(queue);
        assert_eq!(
            server.count(queue),
            texts.len() as u64,
            "count of queue {queue}"
        );
        let mut last = None;
        for body in texts {
            let number: u32 = body.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(body, text(number));
            assert!(last < Some(number), "order of queue {queue}");
            last = Some(number);
            numbers.push(number);
        }
    }
    world.kill(&server.disk);
    numbers.sort_unstable();
    numbers
}

/// Repairs a store that is damaged; gives the report and what is served afterwards.
#[track_caller]
fn repaired(world: &SimWorld) -> (RepairReport, Vec<u32>) {
    let before = all_files(world);
    let look = run(world, false).unwrap();
    assert!(look.is_needed && !look.is_done, "{look:?}");
    assert!(all_files(world) == before, "a look changed the store");
    let report = run(world, true).unwrap();
    assert!(report.is_done);
    assert_eq!(report.remaining, []);
    assert_eq!(
        (&report.dropped, report.messages),
        (&look.dropped, look.messages)
    );
    let folder = report.folder.clone().unwrap();
    for name in &report.kept {
        let copy = world.bytes_of(&format!("{folder}/{name}")).unwrap();
        assert!(
            before.get(name) == Some(&copy),
            "{name} is not kept as it was"
        );
    }
    let after = all_files(world);
    for (name, bytes) in &before {
        let is_same = after.get(name) == Some(bytes);
        let is_normal = name == "RESERVE" || name.ends_with(".tmp");
        assert!(
            is_same || is_normal || report.kept.contains(name) || is_empty(world, name),
            "{name} went without a copy"
        );
    }
    let list = world.bytes_of(&format!("{folder}/dropped.txt")).unwrap();
    assert!(
        String::from_utf8(list)
            .unwrap()
            .contains("Dropped from the store")
    );
    let verified = inspect::verify(&world.process(), &mut |_, _| ()).unwrap();
    assert!(!verified.is_damaged(), "{:?}", verified.findings);
    let numbers = served(world);
    assert_eq!(numbers.len() as u64, report.messages);
    let again = run(world, true).unwrap();
    assert!(!again.is_needed && !again.is_done, "{again:?}");
    (report, numbers)
}

/// Whether a segment went because nothing waited in it, or because it was only prepared.
fn is_empty(world: &SimWorld, name: &str) -> bool {
    name.ends_with(".seg") && world.bytes_of(name).is_none() || name.ends_with(".idx")
}

fn segments_of(world: &SimWorld) -> Vec<String> {
    let mut names: Vec<String> = world
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".seg"))
        .collect();
    names.sort();
    names
}

fn remove(world: &SimWorld, part: &str) {
    let disk = world.process();
    for name in world.names().iter().filter(|name| name.contains(part)) {
        disk.remove(name).unwrap();
    }
    disk.sync_dir().unwrap();
}

/// The numbers of the messages that stand in a file.
fn within(world: &SimWorld, name: &str) -> Vec<u32> {
    let bytes = world.bytes_of(name).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let numbers = text.split("message ").skip(1);
    numbers
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect()
}

/// The second segment with messages.
fn second(world: &SimWorld) -> String {
    let mut used = segments_of(world)
        .into_iter()
        .filter(|name| !within(world, name).is_empty());
    used.nth(1).expect("two segments are used")
}

#[test]
fn a_healthy_store_stays_as_it_is() {
    let world = broken_world(2);
    let before = all_files(&world);
    for accept in [false, true] {
        let report = run(&world, accept).unwrap();
        assert!(!report.is_needed && !report.is_done, "{report:?}");
        assert_eq!(report.dropped, []);
    }
    assert!(all_files(&world) == before, "a healthy store was changed");
    assert_eq!(served(&world), waiting(2));
}

#[test]
fn a_look_at_a_store_without_a_lock_makes_no_file() {
    let world = broken_world(1);
    world.flip(&segments_of(&world).remove(0), 4096 + 40, 1);
    remove(&world, "LOCK");
    let names = world.names();
    let look = run(&world, false).unwrap();
    assert!(look.is_needed && !look.is_done, "{look:?}");
    assert_eq!(world.names(), names);
}

#[test]
fn a_damaged_copy_goes_where_its_segment_is_still_there() {
    let world = SimWorld::new();
    let mut server = try_open(&world, compact::roomy()).unwrap();
    let mut before = BTreeMap::new();
    let mut number = 0;
    while compact::compacted(&world).is_empty() {
        before.extend(all_files(&world));
        for _ in 0..20 {
            let (place, _) = server.publish(1 + number % 2, &text(number));
            server.work();
            if number % 100 > 1 {
                server.settle(1 + number % 2, place);
            }
            number += 1;
        }
        world.advance_ms(100);
        server.work();
        assert!(number < 20_000, "nothing was compacted");
    }
    server.rest();
    world.kill(&server.disk);
    let expected: Vec<u32> = (0..number).filter(|number| number % 100 < 2).collect();
    let copy = compact::compacted(&world).pop_first().unwrap();
    let segment = format!("{}.seg", copy.split('.').next().unwrap());
    // Its owner died before the segment was removed.
    if world.bytes_of(&segment).is_none() {
        let disk = world.process();
        disk.open(&segment, OpenMode::CreateEmpty).unwrap();
        world.overwrite(&segment, before[&segment].clone());
        disk.sync_dir().unwrap();
    }
    let bytes = world.bytes_of(&copy).unwrap();
    let at = bytes.windows(8).position(|it| it == b"message ").unwrap();
    world.flip(&copy, at as u64 + 3, 1);
    let (report, numbers) = repaired(&world);
    assert_eq!(numbers, expected);
    assert!(report.kept.contains(&copy), "{report:?}");
    assert_eq!(report.dropped.iter().map(|it| it.messages).sum::<u64>(), 0);
}

#[test]
fn in_doubt_the_newest_file_tells_whose_store_it_is() {
    let world = SimWorld::new();
    let mut server = open(&world);
    server.publish(1, &text(1));
    server.work();
    world.kill(&server.disk);
    remove(&world, ".redb");
    for name in segments_of(&world).into_iter().skip(1) {
        remove(&world, &name);
    }
    let mut stranger = world.bytes_of("0000000001.seg").unwrap();
    let header = crate::format::segment::SegmentHeader::decode(&stranger).unwrap();
    for uuid in [[0; 16], [0xff; 16]] {
        let identity = crate::format::Identity {
            uuid,
            ..header.identity
        };
        let older = crate::format::segment::SegmentHeader { identity, ..header };
        let encoded = older.encode();
        stranger[..encoded.len()].copy_from_slice(&encoded);
        let world = world.fork();
        let disk = world.process();
        disk.open("0000000000.seg", OpenMode::CreateEmpty).unwrap();
        world.overwrite("0000000000.seg", stranger.clone());
        disk.sync_dir().unwrap();
        let report = run(&world, true).unwrap();
        let gone: Vec<&str> = report.dropped.iter().map(|it| it.file.as_str()).collect();
        assert_eq!(gone, ["0000000000.seg"], "{report:?}");
        assert_eq!(served(&world), [1]);
    }
}

#[test]
fn a_store_that_somebody_owns_is_not_repaired() {
    let world = broken_world(1);
    let server = open(&world);
    assert!(matches!(run(&world, true), Err(OpenError::Busy(_))));
    drop(server);
}

#[test]
fn a_missing_segment_costs_what_stood_in_it_and_nothing_else() {
    let world = broken_world(2);
    let gone = second(&world);
    let lost = within(&world, &gone);
    remove(&world, &gone);
    assert!(matches!(
        try_open(&world, options()),
        Err(OpenError::Damaged(_))
    ));
    let (report, numbers) = repaired(&world);
    assert!(report.refusal.is_some());
    let expected: Vec<u32> = waiting(2)
        .into_iter()
        .filter(|it| !lost.contains(it))
        .collect();
    assert_eq!(numbers, expected);
    let missing = report.dropped.iter().find(|it| it.file == gone).unwrap();
    let live = lost.iter().filter(|it| *it % 5 != 0).count() as u64;
    assert_eq!(missing.messages, live);
}

#[test]
fn without_any_header_and_checkpoint_the_batches_tell_whose_they_are() {
    for keeps_snapshot in [true, false] {
        let world = broken_world(2);
        remove(&world, ".redb");
        for name in segments_of(&world) {
            for offset in 0..128 {
                world.flip(&name, offset, 0x5a);
            }
        }
        if !keeps_snapshot {
            let first = segments_of(&world).remove(0);
            remove(&world, &first);
        }
        assert!(matches!(
            try_open(&world, options()),
            Err(OpenError::Damaged(_))
        ));
        let (_, numbers) = repaired(&world);
        if keeps_snapshot {
            assert_eq!(numbers, waiting(2));
        } else {
            assert!(numbers.len() > 100, "{}", numbers.len());
        }
    }
}

#[test]
fn without_checkpoint_snapshot_and_beginning_the_rest_is_served() {
    let world = broken_world(3);
    remove(&world, ".redb");
    let first = segments_of(&world).remove(0);
    let lost = within(&world, &first);
    remove(&world, &first);
    // Every snapshot loses its first record.
    for name in segments_of(&world) {
        let bytes = world.bytes_of(&name).unwrap();
        for at in (0..bytes.len()).step_by(8) {
            let is_snapshot =
                bytes.get(at + 16) == Some(&7) && bytes.get(at + 4..at + 8) != Some(&[0; 4]);
            let lsn = bytes
                .get(at + 8..at + 16)
                .map(|it| it.iter().skip(3).all(|byte| *byte == 0));
            if is_snapshot && lsn == Some(true) && at > 4096 {
                world.flip(&name, at as u64 + 4, 0xff);
            }
        }
    }
    if try_open(&world, options()).is_ok() {
        panic!("there is still something to begin with");
    }
    let (report, numbers) = repaired(&world);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.what.contains("may come back")),
        "{report:?}"
    );
    let missing: Vec<u32> = waiting(3)
        .into_iter()
        .filter(|it| !numbers.contains(it))
        .collect();
    assert!(missing.iter().all(|it| lost.contains(it)), "{missing:?}");
}

#[test]
fn damaged_messages_are_dropped_one_by_one_and_their_segments_become_whole() {
    let world = broken_world(2);
    let name = segments_of(&world).remove(0);
    let bytes = world.bytes_of(&name).unwrap();
    let hit: Vec<u32> = vec![101, 202, 303];
    for number in &hit {
        let pattern = format!("message {number} ");
        let at = bytes
            .windows(pattern.len())
            .position(|it| it == pattern.as_bytes())
            .unwrap();
        world.flip(&name, at as u64 + 3, 1);
    }
    let (report, numbers) = repaired(&world);
    let expected: Vec<u32> = waiting(2)
        .into_iter()
        .filter(|it| !hit.contains(it))
        .collect();
    assert_eq!(numbers, expected);
    let dropped: Vec<_> = report
        .dropped
        .iter()
        .filter(|it| it.queue.is_some())
        .collect();
    assert_eq!(dropped.len(), 3);
    assert!(
        dropped
            .iter()
            .all(|it| it.file == name && it.offset > 4096 && it.messages == 1)
    );
    assert!(report.kept.contains(&name));
}

#[test]
fn a_file_of_another_store_and_one_with_a_wrong_name_are_put_where_they_belong() {
    let world = broken_world(2);
    let other = SimWorld::new();
    let disk = other.process();
    let Acquire::Owned(ownership) = try_acquire(Arc::new(disk.clone()), "other").unwrap() else {
        panic!("free");
    };
    let different = StoreOptions {
        new_identity: *b"another store altogether",
        ..options()
    };
    drop(Store::open(ownership, different, &mut |_| ()).unwrap());
    let stranger = other.bytes_of("0000000001.seg").unwrap();
    let disk = world.process();
    disk.open("0000000099.seg", OpenMode::CreateEmpty).unwrap();
    world.overwrite("0000000099.seg", stranger);
    let moved = segments_of(&world).remove(1);
    disk.rename(&moved, "0000000077.seg").unwrap();
    disk.sync_dir().unwrap();
    let (_, numbers) = repaired(&world);
    assert_eq!(numbers, waiting(2));
    assert!(world.bytes_of("0000000099.seg").is_none());
}

use crate::disk::OpenMode;

#[test]
fn what_the_disk_cannot_read_any_more_is_dropped_and_the_rest_is_served() {
    let world = broken_world(2);
    let name = segments_of(&world).remove(0);
    let lost = within(&world, &name);
    world.inject(Fault {
        operation: Operation::Read,
        name_part: name.clone(),
        skip: 0,
        count: u64::MAX / 2,
        errno: 5,
    });
    let report = run(&world, true).unwrap();
    world.heal();
    assert!(report.is_done);
    let numbers = served(&world);
    let expected: Vec<u32> = waiting(2)
        .into_iter()
        .filter(|it| !lost.contains(it))
        .collect();
    assert_eq!(numbers, expected);
}

/// A broken store to be interrupted: a segment is missing, one is damaged.
fn twice_broken() -> (SimWorld, Vec<u32>) {
    let world = broken_world(2);
    let names = segments_of(&world);
    let gone = second(&world);
    let lost = within(&world, &gone);
    let bytes = world.bytes_of(&names[0]).unwrap();
    let at = bytes
        .windows(12)
        .position(|it| it == b"message 101 ")
        .unwrap();
    world.flip(&names[0], at as u64 + 3, 1);
    remove(&world, &gone);
    let expected = waiting(2)
        .into_iter()
        .filter(|it| !lost.contains(it) && *it != 101);
    (world, expected.collect())
}

#[test]
fn a_repair_that_is_interrupted_anywhere_is_repeated() {
    let (world, expected) = twice_broken();
    let clean = world.fork();
    assert_eq!(repaired(&clean).1, expected);
    world.record();
    run(&world, true).unwrap();
    let stops = world.recorded();
    assert!(stops.len() > 50, "{} stops", stops.len());
    for (number, stop) in stops.into_iter().enumerate() {
        match number % 3 {
            0 => stop.kill_all(),
            seed => stop.crash(seed as u64 * 1000 + number as u64),
        }
        let report = run(&stop, true).unwrap_or_else(|error| panic!("stop {number}: {error}"));
        assert_eq!(report.remaining, [], "stop {number}");
        assert_eq!(served(&stop), expected, "stop {number}");
    }
}

#[test]
fn a_full_disk_stops_a_repair_and_a_later_one_ends_it() {
    let (world, expected) = twice_broken();
    let before = all_files(&world);
    let mut stopped = 0;
    for skip in 0..400 {
        let full = world.fork();
        full.inject(Fault {
            operation: Operation::Write,
            name_part: String::new(),
            skip,
            count: u64::MAX / 2,
            errno: 28,
        });
        let outcome = run(&full, true);
        if skip == 0 {
            assert!(outcome.is_err());
            assert!(
                all_files(&full) == before,
                "something was changed without a copy"
            );
        }
        full.heal();
        if outcome.is_err() {
            stopped += 1;
            assert_eq!(
                run(&full, true).unwrap().remaining,
                [],
                "after {skip} writes"
            );
        }
        assert_eq!(served(&full), expected, "after {skip} writes");
        if full.faults_left() > 0 && outcome.is_ok() {
            break;
        }
    }
    assert!(stopped > 5, "{stopped}");
}
