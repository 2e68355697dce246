//! Disks that are full: messages are refused, everything else goes on, and nothing is lost.

use super::*;

use nix::libc::ENOSPC;

use crate::disk::{Fault, FileSystem, Operation};
use crate::{AppendError, Fence};

/// Every server of these tests.
fn crowded() -> StoreOptions {
    StoreOptions {
        segment_bytes: 2 << 20,
        free_bytes_min: 2 << 20,
        ..options()
    }
}

fn is_refused(server: &mut Server) -> bool {
    let message = NewMessage {
        routes: &[QueueId(1)],
        durable: true,
        meta: b"",
        body: &[b"one more"],
    };
    match server.store.append_message(message) {
        Ok(_) => panic!("a full disk takes a message"),
        Err(error) => error == AppendError::Full,
    }
}

/// Publishes until messages are refused; gives what was taken.
fn fill(server: &mut Server) -> Vec<String> {
    let mut texts = Vec::new();
    server.rest();
    while server.store.accepts_messages() {
        let text = format!("{:06} {}", texts.len(), "f".repeat(20_000));
        server.publish(1, &text);
        texts.push(text);
        server.work();
        assert!(texts.len() < 5_000, "the disk never gets full");
    }
    texts
}

impl Server {
    /// Compares without printing long bodies.
    #[track_caller]
    fn finds(&self, expected: &[String]) {
        let number = |text: &String| text.split(' ').next().map(str::to_owned);
        let found = self.texts(1);
        let numbers: Vec<_> = found.iter().map(number).collect();
        assert_eq!(numbers, expected.iter().map(number).collect::<Vec<_>>());
        assert!(found == expected, "a body is another one");
    }
}

/// Somebody else takes all that is left.
fn take_the_rest(world: &SimWorld) {
    world.set_room_bytes(Some(world.used_bytes()));
}

fn full(room_bytes: u64) -> (SimWorld, Server, Vec<String>) {
    let world = SimWorld::new();
    world.set_room_bytes(Some(room_bytes));
    let mut server = try_open(&world, crowded()).expect("the store opens");
    let texts = fill(&mut server);
    assert!(is_refused(&mut server));
    (world, server, texts)
}

/// Settles all but the last, each in a batch of its own.
fn settle_all_but_one(server: &mut Server) {
    let mut all = server.read_all(1);
    let kept = all.pop().expect("something waits").1;
    for (place, _) in all {
        server.settle(1, place);
        server.work();
    }
    server.rest();
    server.finds(&[kept]);
}

#[test]
fn consumers_make_room_on_a_full_disk() {
    let (world, mut server, texts) = full(24 << 20);
    assert!(world.used_bytes() <= 22 << 20, "the reserve was used up");
    server.finds(&texts);
    settle_all_but_one(&mut server);
    assert!(server.store.accepts_messages());
    let again = fill(&mut server);
    assert!(
        again.len() + 100 > texts.len(),
        "{} of {} fit again",
        again.len(),
        texts.len()
    );
}

#[test]
fn settlements_go_on_when_no_byte_is_left() {
    let (world, mut server, texts) = full(24 << 20);
    take_the_rest(&world);
    server.rest();
    server.finds(&texts);
    // Many batches of settlements, more than the segments at hand have room for.
    for round in 0..3_000_u32 {
        server
            .store
            .put_row(1, &(round % 7).to_be_bytes(), &[1; 1000])
            .expect("rows are taken");
        server.work();
    }
    assert!(is_refused(&mut server));
    settle_all_but_one(&mut server);
    assert_eq!(server.store.fence(server.now()), Fence::Held);
    world.set_room_bytes(None);
    server.rest();
    assert!(server.store.accepts_messages());
    server.publish(1, "again");
    server.work();
    assert_eq!(server.texts(1).last().map(String::as_str), Some("again"));
}

#[test]
fn a_store_is_taken_over_on_a_full_disk() {
    let (world, server, mut texts) = full(24 << 20);
    take_the_rest(&world);
    for _ in 0..3 {
        world.crash(5);
        let mut server = try_open(&world, crowded()).expect("the reserve is for this");
        server.rest();
        server.finds(&texts);
        assert!(is_refused(&mut server));
        let (place, _) = server.read_all(1).remove(0);
        server.settle(1, place);
        server.work();
        texts.remove(0);
        server.finds(&texts);
        // The reserve is for one takeover; somebody has to make room for the next one.
        world.set_room_bytes(Some(world.used_bytes() + (8 << 20)));
        server.rest();
        take_the_rest(&world);
    }
    drop(server);
}

#[test]
fn a_store_is_sealed_on_a_full_disk() {
    let (world, mut server, texts) = full(24 << 20);
    take_the_rest(&world);
    server.rest();
    server.shut_down();
    world.set_room_bytes(None);
    try_open(&world, crowded()).unwrap().finds(&texts);
}

/// What a workload has had confirmed.
#[derive(Default)]
struct Confirmed {
    published: BTreeMap<String, Place>,
    settled: Vec<String>,
}

/// Publishes and settles over several segments and checkpoints, with faults on the way.
fn workload(server: &mut Server, confirmed: &mut Confirmed) {
    for number in 0..60_u32 {
        let text = format!("{number} {}", "w".repeat(40_000));
        if server.store.accepts_messages() {
            let (place, ticket) = server.publish(1, &text);
            server.work();
            // A batch that found no space is on its way until there is some.
            for _ in 0..200 {
                if server.store.durable_ticket() >= ticket {
                    break;
                }
                server.disk.world().advance_ms(25);
                server.work();
            }
            assert!(
                server.store.durable_ticket() >= ticket,
                "message {number} is never confirmed"
            );
            confirmed.published.insert(text, place);
        }
        if number % 3 == 0
            && let Some((text, place)) = confirmed.published.pop_first()
        {
            server.settle(1, place);
            server.work();
            confirmed.settled.push(text);
        }
        server.disk.world().advance_ms(30);
        server.work();
    }
    server.rest();
}

fn no_space_at(operation: Operation, skip: u64, file_system: Option<FileSystem>) -> bool {
    let world = SimWorld::new();
    if let Some(kind) = file_system {
        world.set_file_system(kind);
    }
    let mut server = try_open(&world, options()).expect("the store opens");
    world.inject(Fault {
        operation,
        name_part: String::new(),
        skip,
        count: 3,
        errno: ENOSPC,
    });
    let mut confirmed = Confirmed::default();
    workload(&mut server, &mut confirmed);
    let is_hit = world.faults_left() == 0;
    world.heal();
    server.rest();
    let context = format!("{operation:?} {skip} without space");
    assert!(
        !matches!(server.store.fence(server.now()), Fence::Lost(_)),
        "{context}: the log failed"
    );
    assert!(
        server.store.accepts_messages(),
        "{context}: messages are refused for ever"
    );
    let mut expected: Vec<String> = confirmed.published.into_keys().collect();
    expected.sort_by_key(|text| text.split(' ').next().and_then(|it| it.parse::<u32>().ok()));
    server.finds(&expected);
    world.heal();
    world.crash(skip);
    drop(server);
    let server = try_open(&world, options()).expect("the store opens again");
    server.finds(&expected);
    is_hit
}

fn no_space_anywhere(operation: Operation, file_system: Option<&FileSystem>) {
    let mut skip = 0;
    while no_space_at(operation, skip, file_system.cloned()) {
        // Each write of the beginning, then a sample of the rest.
        skip += 1 + skip / 40;
    }
    assert!(skip > 15, "the workload has only {skip} operations");
}

#[test]
fn no_space_at_any_write_loses_nothing_and_goes_away() {
    no_space_anywhere(Operation::Write, None);
}

#[test]
fn no_space_on_a_disk_without_zeros_loses_nothing_and_goes_away() {
    let network = FileSystem::Nfs { lease_s: Some(600) };
    no_space_anywhere(Operation::Write, Some(&network));
    no_space_anywhere(Operation::Sync, Some(&network));
}

#[test]
fn no_space_for_a_name_loses_nothing_and_goes_away() {
    no_space_anywhere(Operation::Name, None);
    let network = FileSystem::Nfs { lease_s: Some(600) };
    no_space_anywhere(Operation::Name, Some(&network));
}

#[test]
fn a_reserve_that_was_used_is_made_again() {
    let (world, mut server, _) = full(24 << 20);
    assert!(world.bytes_of("RESERVE").is_some());
    take_the_rest(&world);
    for round in 0..6_000_u32 {
        if world.bytes_of("RESERVE").is_none() {
            break;
        }
        server
            .store
            .put_row(1, &(round % 7).to_be_bytes(), &[1; 3000])
            .expect("rows are taken");
        server.work();
        world.advance_ms(5);
    }
    assert_eq!(world.bytes_of("RESERVE"), None);
    world.set_room_bytes(None);
    for number in 0..200 {
        server.rest();
        server.publish(1, &format!("{number} {}", "g".repeat(20_000)));
        server.work();
        if world
            .bytes_of("RESERVE")
            .is_some_and(|it| it.len() == 4 << 20)
        {
            return;
        }
    }
    panic!("the reserve never comes back");
}

#[test]
fn a_full_network_disk_is_taken_over_too() {
    let world = SimWorld::new();
    world.set_file_system(FileSystem::Nfs { lease_s: Some(600) });
    world.set_room_bytes(Some(24 << 20));
    let mut server = try_open(&world, crowded()).expect("the store opens");
    let texts = fill(&mut server);
    server.rest();
    take_the_rest(&world);
    world.kill(&server.disk);
    drop(server);
    let server = try_open(&world, crowded()).expect("the reserve is for this");
    server.finds(&texts);
}

#[test]
fn a_checkpoint_that_fails_leaves_the_last_good_one() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..100) {
        server.publish(1, &text);
    }
    server.rest();
    assert!(server.store.status().checkpoints > 0);
    world.inject(Fault {
        operation: Operation::Write,
        name_part: "redb".to_owned(),
        skip: 0,
        count: u64::MAX / 2,
        errno: ENOSPC,
    });
    for text in numbered(100..200) {
        server.publish(1, &text);
        server.work();
        world.advance_ms(50);
    }
    server.rest();
    assert!(server.store.status().checkpoint_failures > 1);
    world.kill(&server.disk);
    world.heal();
    let server = open(&world);
    assert_eq!(server.report.rebuilt, None, "there was a good checkpoint");
    assert_eq!(server.texts(1), numbered(0..200));
}

#[test]
fn a_log_that_waits_for_a_segment_says_so() {
    let world = SimWorld::new();
    world.set_file_system(FileSystem::Nfs { lease_s: Some(90) });
    let mut server = open(&world);
    world.inject(Fault {
        operation: Operation::Name,
        name_part: ".seg.tmp".to_owned(),
        skip: 0,
        count: u64::MAX / 2,
        errno: ENOSPC,
    });
    for round in 0..400_u32 {
        for _ in 0..10 {
            let row = server.store.put_row(1, &round.to_be_bytes(), &[1; 3000]);
            row.expect("rows are taken");
        }
        server.work();
        world.advance_ms(50);
    }
    assert_eq!(server.store.fence(server.now()), Fence::Lapsed);
    // Else a watchdog would take it for a disk that hangs.
    let before = server.store.refused_writes();
    assert!(before > 0);
    server.rest();
    assert!(server.store.refused_writes() > before);
    world.heal();
    server.rest();
    assert_eq!(server.store.fence(server.now()), Fence::Held);
}
