//! A store's life without accidents.

use super::*;
use crate::disk::{Fault, Operation};
use crate::{AppendError, Fence};

#[test]
fn messages_are_read_back_in_order_and_leave_when_settled() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..100) {
        server.publish(1, &text);
    }
    assert_eq!(server.count(1), 0, "nothing counts before it is durable");
    server.work();
    assert_eq!(server.texts(1), numbered(0..100));
    for (place, _) in server.read_all(1).into_iter().step_by(2) {
        assert!(server.store.is_live(place));
        server.settle(1, place);
        assert!(!server.store.is_live(place), "gone at once for its owner");
        server.settle(1, place);
    }
    server.work();
    assert_eq!(server.count(1), 50);
    let odd: Vec<_> = numbered(0..100).into_iter().skip(1).step_by(2).collect();
    assert_eq!(server.texts(1), odd);
}

#[test]
fn a_message_with_several_routes_is_stored_once_and_lives_until_the_last_is_settled() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let routes = [QueueId(1), QueueId(2), QueueId(3)];
    let body = [&b"shared"[..], b" body"];
    let before = server.store.status().message_bytes;
    let message = NewMessage {
        routes: &routes,
        durable: true,
        meta: b"m",
        body: &body,
    };
    let first = server.store.append_message(message).unwrap().first;
    assert_eq!(server.store.status().message_bytes - before, 12);
    server.work();
    for (route, queue) in (0..).zip(1..=3) {
        let found = server.read_all(queue);
        assert_eq!(
            found,
            [(
                Place {
                    ordinal: first.ordinal + route,
                    ..first
                },
                "shared body".to_owned()
            )]
        );
    }
    server.settle(2, server.read_all(2)[0].0);
    server.work();
    assert_eq!(
        (server.count(1), server.count(2), server.count(3)),
        (1, 0, 1)
    );
}

#[test]
fn ranges_of_an_append_point_into_the_durable_bytes() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let message = NewMessage {
        routes: &[QueueId(1)],
        durable: true,
        meta: b"meta",
        body: &[b"body"],
    };
    let appended = server.store.append_message(message).unwrap();
    let mut found = false;
    while let Some(job) = server.step() {
        for batch in server.store.complete(job.run()).unwrap() {
            if batch.ticket == appended.ticket {
                assert_eq!(&batch.bytes[appended.meta.clone()], b"meta");
                assert_eq!(&batch.bytes[appended.body.clone()], b"body");
                found = true;
            }
        }
    }
    assert!(found);
}

#[test]
fn rows_survive_and_deleted_rows_do_not_come_back() {
    let world = SimWorld::new();
    let mut server = open(&world);
    server.store.put_row(1, b"a", b"1").unwrap();
    server.store.put_row(1, b"b", b"2").unwrap();
    server.store.put_row(2, b"a", b"3").unwrap();
    server.rest();
    server.store.delete_row(1, b"a").unwrap();
    server.store.put_row(1, b"b", b"4").unwrap();
    server.work();
    for _ in 0..3 {
        world.kill(&server.disk);
        server = open(&world);
        let rows: Vec<_> = server.store.rows(1).collect();
        assert_eq!(rows, [(&b"b"[..], &b"4"[..])]);
        assert_eq!(server.store.row(2, b"a"), Some(&b"3"[..]));
        assert_eq!(server.store.row(1, b"a"), None);
    }
    let long = vec![0; 4096];
    assert!(matches!(
        server.store.put_row(1, b"k", &long),
        Err(AppendError::TooLarge { .. })
    ));
}

#[test]
fn segments_roll_get_footers_and_are_deleted_when_nothing_lives_in_them() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let text = "x".repeat(10_000);
    for round in 0..60 {
        for _ in 0..10 {
            server.publish(1 + round % 3, &text);
        }
        server.work();
    }
    server.rest();
    let segments = server.store.status().segments;
    assert!(segments >= 6, "{segments}");
    assert_eq!(
        contents(&server, 3).values().map(Vec::len).sum::<usize>(),
        600
    );
    for queue in 1..=3 {
        for (place, _) in server.read_all(queue) {
            server.settle(queue, place);
        }
    }
    server.rest();
    assert_eq!(server.store.status().messages, 0);
    // What remains is the segment being written and those since the last snapshot.
    let left = server.store.status().segments;
    assert!(left <= 2, "{left} of {segments} segments are still there");
    let files = world
        .names()
        .iter()
        .filter(|name| name.ends_with(".seg"))
        .count();
    assert!(files <= 4, "{:?}", world.names());
}

#[test]
fn an_orderly_end_leaves_nothing_to_recover() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..50) {
        server.publish(1, &text);
    }
    server.shut_down();
    let server = open(&world);
    assert_eq!(server.report.tail_bytes, 0);
    assert_eq!(server.report.rebuilt, None);
    assert_eq!(server.report.messages, 50);
    assert_eq!(server.texts(1), numbered(0..50));
}

#[test]
fn a_failed_sync_is_final_and_never_tried_again() {
    let world = SimWorld::new();
    let mut server = open(&world);
    server.rest();
    let name_part = ".seg".to_owned();
    let errno = nix::libc::EIO;
    world.inject(Fault {
        operation: Operation::Sync,
        name_part,
        skip: 0,
        count: 1,
        errno,
    });
    let (_, ticket) = server.publish(1, "lost or not, never confirmed");
    let job = server.step().unwrap();
    let fatal = server.store.complete(job.run()).unwrap_err();
    assert!(
        fatal.to_string().contains("syncing the log failed"),
        "{fatal}"
    );
    assert!(server.store.durable_ticket() < ticket);
    assert!(matches!(server.store.fence(server.now()), Fence::Lost(_)));
    assert!(
        server.step().is_none(),
        "nothing is written after a failure"
    );
    let message = NewMessage {
        routes: &[QueueId(1)],
        durable: true,
        meta: b"",
        body: &[],
    };
    assert!(matches!(
        server.store.append_message(message),
        Err(AppendError::Closed(_))
    ));
}

#[test]
fn a_lapsed_fence_is_healed_by_a_durable_write() {
    let world = SimWorld::new();
    let mut server = try_open(
        &world,
        StoreOptions {
            fence_deadline_ms: Some(1000),
            ..options()
        },
    )
    .unwrap();
    server.rest();
    assert_eq!(server.store.fence(server.now()), Fence::Held);
    world.advance_ms(1500);
    assert_eq!(server.store.fence(server.now()), Fence::Lapsed);
    server.work();
    assert_eq!(server.store.fence(server.now()), Fence::Held);
}

#[test]
fn a_full_disk_refuses_messages_takes_settlements_and_recovers() {
    let world = SimWorld::new();
    let mut server = open(&world);
    for text in numbered(0..20) {
        server.publish(1, &text);
    }
    server.rest();
    world.set_free_bytes(1 << 20);
    server.rest();
    let message = NewMessage {
        routes: &[QueueId(1)],
        durable: true,
        meta: b"",
        body: &[b"x"],
    };
    assert_eq!(
        server.store.append_message(message).unwrap_err(),
        AppendError::Full
    );
    assert!(!server.store.accepts_messages());
    for (place, _) in server.read_all(1) {
        server.settle(1, place);
    }
    server.work();
    assert_eq!(server.count(1), 0);
    world.set_free_bytes(1 << 40);
    server.rest();
    assert!(server.store.accepts_messages());
    server.publish(1, "again");
    server.work();
    assert_eq!(server.texts(1), ["again"]);
}

#[test]
fn no_space_for_the_next_segment_is_not_final() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let name_part = "0000000002.seg.tmp".to_owned();
    let errno = nix::libc::ENOSPC;
    world.inject(Fault {
        operation: Operation::Write,
        name_part,
        skip: 0,
        count: u64::MAX,
        errno,
    });
    server.rest();
    assert!(!server.store.accepts_messages());
    assert!(matches!(server.store.fence(server.now()), Fence::Held));
    world.heal();
    server.rest();
    assert!(server.store.accepts_messages());
}

#[test]
fn a_large_message_fits_any_segment() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let large = "l".repeat(5 << 20);
    server.publish(1, "before");
    server.publish(1, &large);
    server.publish(1, "after");
    server.rest();
    assert_eq!(
        server.texts(1),
        ["before".to_owned(), large.clone(), "after".to_owned()]
    );
    world.kill(&server.disk);
    let server = open(&world);
    assert_eq!(
        server.texts(1),
        ["before".to_owned(), large, "after".to_owned()]
    );
}

#[test]
fn known_places_are_read_again_unless_settled() {
    let world = SimWorld::new();
    let mut server = open(&world);
    let places: Vec<_> = numbered(0..10)
        .iter()
        .map(|text| server.publish(1, text).0)
        .collect();
    server.work();
    server.settle(1, places[3]);
    let done = server
        .store
        .read_places(QueueId(1), &[places[3], places[2], places[7]])
        .run();
    let found: Vec<_> = done.messages.iter().map(|message| message.place).collect();
    assert_eq!(found, [places[2], places[7]]);
}

#[test]
fn checkpoints_are_taken_under_overload_too() {
    let world = SimWorld::new();
    let mut server = try_open(
        &world,
        StoreOptions {
            batch_bytes: 8192,
            ..options()
        },
    )
    .unwrap();
    let text = "o".repeat(3000);
    let mut number = 0;
    for _ in 0..300 {
        // More than one batch always waits, as far as a bounded backlog allows.
        while server.store.backlog_bytes() < 40_000 {
            server.publish(1, &format!("{number} {text}"));
            number += 1;
        }
        // One job of each lane at a time, as on threads.
        let jobs: Vec<_> = std::iter::from_fn(|| server.step()).collect();
        for job in jobs {
            server.store.complete(job.run()).unwrap();
        }
    }
    let status = server.store.status();
    assert!(status.checkpoints >= 2, "{status:?}");
    server.rest();
    let before = server.texts(1);
    assert_eq!(before.len(), number);
    world.kill(&server.disk);
    assert_eq!(open(&world).texts(1), before);
}
