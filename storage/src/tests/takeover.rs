//! One server after the other on the same store.

use super::*;
use crate::disk::{FileSystem, OpenMode};
use crate::job::{create, publish};

#[test]
fn a_living_owner_keeps_everybody_else_out() {
    let world = SimWorld::new();
    let mut first = open(&world);
    first.publish(1, "mine");
    first.work();
    assert!(matches!(
        try_open(&world, options()),
        Err(OpenError::Busy(_))
    ));
    // Deleting the lock file does not help an impostor: the segment is locked too.
    first.disk.remove("LOCK").unwrap();
    let Err(OpenError::Busy(why)) = try_open(&world, options()) else {
        panic!("two owners")
    };
    assert!(why.contains(".seg"), "{why}");
    first.publish(1, "still mine");
    first.work();
    assert_eq!(first.texts(1), ["mine", "still mine"]);
    world.kill(&first.disk);
    assert_eq!(open(&world).texts(1), ["mine", "still mine"]);
}

#[test]
fn a_killed_owner_is_followed_with_exact_counts() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let mut published = 0;
    for round in 0..20_u32 {
        for text in numbered(round * 50..(round + 1) * 50) {
            server.publish(1 + round % 2, &text);
            published += 1;
        }
        server.work();
        let settled: Vec<_> = server.read_all(1).into_iter().take(10).collect();
        for (place, _) in settled {
            server.settle(1, place);
            published -= 1;
        }
        server.work();
        let before = contents(&server, 2);
        world.kill(&server.disk);
        server = open(&world);
        assert_eq!(contents(&server, 2), before, "round {round}");
        assert_eq!(server.count(1) + server.count(2), published);
        assert_eq!(server.report.messages, published);
        assert_eq!(server.report.damaged, []);
        assert_eq!(server.report.torn, None);
    }
}

#[test]
fn what_was_written_and_never_covered_by_a_watermark_is_adopted_and_marked() {
    let world = SimWorld::new();
    let mut server = open(&world);
    server.publish(1, "covered");
    server.rest();
    server.publish(1, "last");
    // Durable, but killed before anything later could say so.
    let job = server.step().unwrap();
    server.store.complete(job.run()).unwrap();
    world.kill(&server.disk);
    let mut server = open(&world);
    assert!(server.report.adopted_records >= 1);
    let done = server.store.read_queue(
        QueueId(1),
        Cursor::START,
        ReadLimit {
            messages: 9,
            bytes: 999,
        },
    );
    let messages = done.run().messages;
    let marks: Vec<_> = messages
        .iter()
        .map(|m| (m.body.to_vec(), m.flags.maybe_delivered))
        .collect();
    assert_eq!(
        marks,
        [(b"covered".to_vec(), false), (b"last".to_vec(), true)]
    );
    // And again: what was adopted is adopted once more, not twice.
    world.kill(&server.disk);
    server = open(&world);
    assert_eq!(server.texts(1), ["covered", "last"]);
}

#[test]
fn the_log_alone_rebuilds_everything() {
    for keep_snapshots in [false, true] {
        let world = SimWorld::new();
        let mut server = open(&world);
        let text = "y".repeat(if keep_snapshots { 20_000 } else { 10 });
        for round in 0..40 {
            for queue in 1..=3 {
                for number in 0..3 {
                    server.publish(queue, &format!("{round} {number} {text}"));
                }
            }
            server.store.put_row(7, &[round], b"row").unwrap();
            server.work();
            for (place, _) in server.read_all(2).into_iter().take(2) {
                server.settle(2, place);
            }
            server.rest();
        }
        let before = contents(&server, 3);
        let status = server.store.status();
        world.kill(&server.disk);
        for name in world
            .names()
            .iter()
            .filter(|name| name.starts_with("index."))
        {
            world.process().remove(name).unwrap();
        }
        let server = open(&world);
        assert!(server.report.rebuilt.is_some());
        assert_eq!(contents(&server, 3), before);
        assert_eq!(server.store.status().messages, status.messages);
        assert_eq!(server.store.status().bytes, status.bytes);
        assert_eq!(server.store.rows(7).count(), 40);
    }
}

#[test]
fn a_snapshot_that_was_relied_on_survives_a_takeover_that_cannot_prove_it() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let mut rebuilt = 0;
    for round in 0..12 {
        let text = format!("{round} {}", "z".repeat(30_000));
        let places: Vec<_> = (0..3).map(|_| server.publish(1, &text).0).collect();
        rebuilt += stop_behind_each_job(&mut server);
        places.iter().for_each(|place| server.settle(1, *place));
        rebuilt += stop_behind_each_job(&mut server);
        world.advance_ms(20);
    }
    assert!(rebuilt > 0);
}

/// The last batch may hold a snapshot that no watermark covers, and the next owner may have begun with
/// it. Gives how often that one has removed a part of the log.
fn stop_behind_each_job(server: &mut Server) -> u32 {
    let mut rebuilt = 0;
    while let Some(job) = server.step() {
        server.store.complete(job.run()).unwrap();
        let world = server.disk.world().fork();
        kill_and_remove_checkpoints(&world);
        let before = world.names();
        let mut second = open(&world);
        second.rest();
        rebuilt += u32::from(before.iter().any(|name| !world.names().contains(name)));
        kill_and_remove_checkpoints(&world);
        assert_eq!(open(&world).texts(1), server.texts(1));
    }
    rebuilt
}

fn kill_and_remove_checkpoints(world: &SimWorld) {
    world.kill_all();
    for name in world.names() {
        if name.starts_with("index.") {
            world.process().remove(&name).unwrap();
        }
    }
}

#[test]
fn a_damaged_checkpoint_leads_to_a_rebuild_not_to_a_loss() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..200) {
        server.publish(1, &text);
    }
    server.rest();
    world.kill(&server.disk);
    let name = world
        .names()
        .into_iter()
        .find(|name| name.starts_with("index."))
        .unwrap();
    let good = world.bytes_of(&name).unwrap();
    for at in [0, 9, 64, 300, 4096, good.len() / 2] {
        let mut bad = good.clone();
        for byte in &mut bad[at..at + 8] {
            *byte ^= 0xff;
        }
        let copy = SimWorld::new();
        let disk = copy.process();
        for name in world.names() {
            disk.open(&name, OpenMode::CreateEmpty).unwrap();
            copy.overwrite(&name, world.bytes_of(&name).unwrap());
        }
        copy.overwrite(&name, bad);
        assert_eq!(open(&copy).texts(1), numbered(0..200), "at {at}");
    }
}

#[test]
fn damage_in_the_tail_is_reported_and_the_rest_is_served() {
    let world = SimWorld::new();
    let mut server = try_open(
        &world,
        StoreOptions {
            checkpoint_interval_ms: u64::MAX / 4,
            ..options()
        },
    )
    .unwrap();
    for text in numbered(0..30) {
        server.publish(1, &text);
        server.work();
    }
    world.kill(&server.disk);
    let name = "0000000001.seg";
    let mut bytes = world.bytes_of(name).unwrap();
    let at = bytes
        .windows(10)
        .position(|window| window == b"message 15")
        .unwrap();
    bytes[at] ^= 1;
    world.overwrite(name, bytes);
    let server = open(&world);
    assert_eq!(server.report.damaged.len(), 1, "{:?}", server.report);
    assert_eq!(server.report.damaged[0].records, 1);
    let mut expected = numbered(0..30);
    expected.remove(15);
    assert_eq!(server.texts(1), expected);
}

#[test]
fn a_torn_tail_is_cut_off_and_reported() {
    let world = SimWorld::new();
    let mut server = try_open(
        &world,
        StoreOptions {
            checkpoint_interval_ms: u64::MAX / 4,
            ..options()
        },
    )
    .unwrap();
    server.publish(1, "whole");
    server.rest();
    let (place, _) = server.publish(1, &"torn".repeat(1000));
    server.work();
    world.kill(&server.disk);
    let name = "0000000001.seg";
    let mut bytes = world.bytes_of(name).unwrap();
    let from = place.offset as usize * 8 + 1024;
    let end = bytes.len();
    bytes[from..end].fill(0);
    world.overwrite(name, bytes);
    let server = open(&world);
    let torn = server.report.torn.clone().unwrap();
    assert_eq!((torn.file.as_str(), torn.bytes > 0), (name, true));
    assert_eq!(server.report.damaged, []);
    assert_eq!(server.texts(1), ["whole"]);
}

#[test]
fn one_damaged_message_is_found_on_reading_and_set_aside() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..10) {
        server.publish(1, &text);
    }
    server.rest();
    let mut bytes = world.bytes_of("0000000001.seg").unwrap();
    let at = bytes
        .windows(9)
        .position(|window| window == b"message 4")
        .unwrap();
    bytes[at] ^= 1;
    world.overwrite("0000000001.seg", bytes);
    let limit = ReadLimit {
        messages: 100,
        bytes: 1 << 20,
    };
    let done = server
        .store
        .read_queue(QueueId(1), Cursor::START, limit)
        .run();
    assert_eq!(done.messages.len(), 9);
    let [bad] = done.quarantined[..] else {
        panic!("{:?}", done.quarantined)
    };
    server.store.quarantine(QueueId(1), bad).unwrap();
    server.work();
    assert_eq!((server.count(1), server.store.status().quarantined), (9, 1));
    world.kill(&server.disk);
    let server = open(&world);
    assert_eq!((server.count(1), server.store.status().quarantined), (9, 1));
    assert_eq!(server.texts(1).len(), 9);
}

#[test]
fn an_owner_that_died_while_taking_over_leaves_a_void_segment() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..10) {
        server.publish(1, &text);
    }
    server.work();
    world.kill(&server.disk);
    // The next owner gets as far as making its segment, but not to the SEAL.
    for number in [3, 4] {
        let disk = world.process();
        let file = create(&disk, "made.tmp").unwrap();
        crate::job::zero(file.as_ref(), 0, 8192).unwrap();
        publish(&disk, "made.tmp", number, file.as_ref()).unwrap();
        world.kill(&disk);
    }
    let mut server = open(&world);
    assert_eq!(server.report.epoch, 5);
    assert_eq!(server.texts(1), numbered(0..10));
    server.rest();
    assert!(
        !world.names().contains(&"0000000004.seg".to_owned()),
        "{:?}",
        world.names()
    );
}

#[test]
fn a_zombie_that_comes_back_finds_its_next_segment_taken() {
    let world = SimWorld::new();
    let mut zombie = open(&world);
    zombie.publish(1, "before");
    zombie.work();
    // A successor has made the number that the zombie is about to make.
    let next = zombie.store.status().segments + 2;
    let disk = world.process();
    let file = create(&disk, "made.tmp").unwrap();
    publish(&disk, "made.tmp", next, file.as_ref()).unwrap();
    drop(file);
    let text = "z".repeat(30_000);
    let mut fatal = None;
    'outer: for _ in 0..200 {
        zombie.publish(1, &text);
        while let Some(job) = zombie.step() {
            if let Err(error) = zombie.store.complete(job.run()) {
                fatal = Some(error);
                break 'outer;
            }
        }
        world.advance_ms(25);
    }
    assert!(fatal.unwrap().to_string().contains("taken over"));
}

#[test]
fn unsafe_and_unknown_file_systems_are_refused_unless_allowed() {
    for kind in [
        FileSystem::Unsafe("no locks".to_owned()),
        FileSystem::Unknown("fuse.x".to_owned()),
    ] {
        let world = SimWorld::new();
        world.set_file_system(kind);
        assert!(matches!(
            try_open(&world, options()),
            Err(OpenError::UnsafeFileSystem(_))
        ));
        let allowed = StoreOptions {
            allow_unverified_locking: true,
            ..options()
        };
        let mut server = try_open(&world, allowed).unwrap();
        server.publish(1, "x");
        server.work();
        assert!(
            server.store.fence_deadline_ms().is_some(),
            "a lock can be lost there"
        );
    }
}

#[test]
fn on_nfs_the_fence_deadline_is_below_half_of_the_lease() {
    let world = SimWorld::new();
    world.set_file_system(FileSystem::Nfs { lease_s: Some(10) });
    let server = open(&world);
    assert_eq!(server.store.fence_deadline_ms(), Some(4000));
}

#[test]
fn many_takeovers_of_an_empty_store_leave_few_files() {
    let world = SimWorld::new();
    for _ in 0..60 {
        let mut server = open(&world);
        server.rest();
        world.kill(&server.disk);
    }
    let segments = world.names();
    let segments = segments.iter().filter(|name| name.ends_with(".seg"));
    assert!(segments.count() <= 16);
    let mut server = open(&world);
    server.publish(1, "x");
    server.work();
    world.kill(&server.disk);
    // The log alone tells all that the deleted ones said.
    let disk = world.process();
    for name in world.names() {
        if name.ends_with(".redb") {
            disk.remove(&name).unwrap();
        }
    }
    assert_eq!(open(&world).texts(1), ["x"]);
}

#[test]
fn a_standby_notices_that_locks_are_not_seen_across_hosts() {
    for is_broken in [false, true] {
        let world = SimWorld::new();
        world.set_file_system(FileSystem::Nfs { lease_s: Some(90) });
        if is_broken {
            world.hide_locks();
        }
        let mut server = open(&world);
        let standby = world.process();
        let mut canary = crate::Canary::default();
        let mut alarms = 0;
        for round in 0..200 {
            server.publish(1, &format!("{round} {}", "g".repeat(20_000)));
            server.work();
            world.advance_ms(20);
            alarms += u32::from(canary.look(&standby).unwrap().is_some());
        }
        assert_eq!(alarms > 0, is_broken, "{alarms} alarms");
        // What nobody writes any more is no reason for an alarm.
        world.kill(&server.disk);
        canary.look(&standby).unwrap();
        assert_eq!(canary.look(&standby).unwrap(), None);
    }
}

/// Where locks do not exclude, only one of two servers that make the same segment may believe that it has it.
#[test]
fn two_that_make_the_same_segment_at_once_do_not_both_get_it() {
    let world = SimWorld::new();
    let (first, second) = (world.process(), world.process());
    let temporary = "0000000001.seg.first.tmp";
    let files = [&first, &second].map(|disk| create(disk, temporary).unwrap());
    assert_ne!(files[0].identity().unwrap(), files[1].identity().unwrap());
    // What has the name now is the file of the second.
    let lost = publish(&first, temporary, 1, files[0].as_ref()).unwrap_err();
    assert_eq!(lost.kind(), std::io::ErrorKind::AlreadyExists);
    publish(&second, temporary, 1, files[1].as_ref()).unwrap();
    let third = first.open(temporary, OpenMode::CreateNew).unwrap();
    let again = second.open(temporary, OpenMode::CreateNew);
    assert_eq!(
        again.unwrap_err().kind(),
        std::io::ErrorKind::AlreadyExists,
        "nobody shares a file that is new"
    );
    drop(third);
}
