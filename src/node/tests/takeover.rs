//! What a successor finds.

use super::*;
use crate::node::LookAt;

#[test]
fn confirmed_messages_are_there_and_settled_ones_are_not() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    for text in ["1", "2", "3", "4"] {
        scene.publish(to, text);
    }
    scene.commit();
    let from = scene.consumer("orders", 2);
    scene.commit();
    scene.check(from.0, "got 1, got 2");
    scene.settle(from.0, "1", Outcome::Accepted);
    scene.commit();

    let mut scene = scene.take_over();
    let from = scene.consumer_as("client 1", "orders", 10);
    scene.commit();
    let log = scene.take_log(from.0);
    // 2 was delivered and must be marked; the others may be.
    assert_eq!(log[0], "got 2 x1");
    assert_eq!(log.len(), 3, "{log:?}");
    let to = scene.publisher("orders");
    scene.publish(to, "5");
    scene.commit();
    scene.check(from.0, "got 5");
}

#[test]
fn messages_of_a_queue_that_nobody_read_are_not_marked() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "1");
    scene.commit();
    scene.rest();
    let mut scene = scene.take_over();
    let from = scene.consumer("orders", 10);
    scene.commit();
    scene.check(from.0, "got 1");
}

#[test]
fn the_mark_is_durable_before_the_delivery() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "1");
    scene.commit();
    let from = scene.consumer("orders", 10);
    scene.check(from.0, "");
    scene.commit();
    scene.check(from.0, "got 1");
}

#[test]
fn delivery_counts_above_one_survive() {
    let failed = Outcome::Modified {
        delivery_failed: true,
        undeliverable_here: false,
    };
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "1");
    let from = scene.consumer("orders", 10);
    scene.commit();
    for _ in 0..3 {
        scene.settle(from.0, "1", failed.clone());
    }
    scene.commit();
    scene.check(from.0, "got 1, got 1 x1, got 1 x2, got 1 x3");
    let mut scene = scene.take_over();
    let from = scene.consumer_as("client 1", "orders", 10);
    scene.commit();
    scene.check(from.0, "got 1 x4");
}

#[test]
fn a_temporary_queue_waits_for_its_owner() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let dynamic = || Target {
        dynamic: true,
        ..Target::default()
    };
    let link = scene.attach_sender(client, dynamic(), "qpid-jms:temp-queue-creator:ID:1:1");
    let address = scene.clients[client].addresses[&link].clone();
    let to = scene.publisher(&address);
    scene.publish(to, "reply");
    scene.commit();
    scene.rest();

    let mut scene = scene.take_over();
    let client = scene.connect();
    let it = &mut scene.clients[client];
    let request = AttachRequest {
        name: format!("qpid-jms:temp-queue-creator:{address}"),
        target: Some(dynamic().into()),
        source: Some(Source::default()),
        ..AttachRequest::default()
    };
    let link = it.connection.attach_sender(it.session, request);
    scene.exchange();
    let link = link.expect("attached");
    assert_eq!(scene.clients[client].addresses[&link], address);
    scene.receiver(client, Source::at(&*address), 10);
    scene.commit();
    scene.check(client, "got reply");
    scene.pass(21_000);
    assert_eq!(scene.node.status().queues, 1);
}

#[test]
fn a_temporary_queue_without_owner_is_given_up_after_a_while() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let dynamic = Source {
        dynamic: true,
        ..Source::default()
    };
    let link = scene.receiver(client, dynamic, 0);
    let address = scene.clients[client].addresses[&link].clone();
    let to = scene.publisher(&address);
    scene.publish(to, "reply");
    scene.commit();
    let mut scene = scene.take_over();
    assert_eq!(scene.node.status().queues, 1);
    scene.pass(21_000);
    scene.rest();
    assert_eq!(scene.node.status().queues, 0);
    assert_eq!(scene.node.store.status().messages, 0);
    let mut scene = scene.take_over();
    assert_eq!(scene.node.status().queues, 0);
    let (_, link) = scene.publisher("new");
    assert!(scene.clients[0].addresses.contains_key(&link));
}

/// Where the bytes of a message stand: the file and the range.
fn place_of(world: &SimWorld, text: &str) -> (String, std::ops::Range<u64>) {
    let find = |name: String| {
        let bytes = world.bytes_of(&name)?;
        let at = bytes
            .windows(text.len())
            .position(|it| it == text.as_bytes())? as u64;
        Some((name, at..at + text.len() as u64))
    };
    let mut segments = world.names().into_iter().filter(|it| it.ends_with(".seg"));
    segments.find_map(find).expect("it is stored")
}

/// A queue of four of which the disk does not give the second, after a takeover.
fn spoilt() -> Scene {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    for text in ["first", "second", "third", "fourth"] {
        scene.publish(to, text);
        scene.commit();
    }
    scene.rest();
    let scene = scene.take_over();
    let (file, range) = place_of(&scene.world, "second");
    scene.world.spoil(&file, range);
    scene
}

#[test]
fn a_bad_sector_costs_its_message_only_and_that_one_until_the_disk_is_mended() {
    let mut scene = spoilt();
    let from = scene.consumer("orders", 10);
    scene.commit();
    // What stands before it is there at once.
    scene.check(from.0, "got first");
    scene.rest();
    scene.check(from.0, "got third, got fourth");
    assert_eq!(
        (scene.messages("orders"), scene.node.status().unreadable),
        (4, 1)
    );
    for text in ["first", "third", "fourth"] {
        scene.settle(from.0, text, Outcome::Accepted);
    }
    scene.commit();
    scene.world.heal();

    let mut scene = scene.take_over();
    assert_eq!(scene.node.status().unreadable, 0);
    let from = scene.consumer("orders", 10);
    scene.commit();
    let log = scene.take_log(from.0);
    assert!(log.iter().any(|it| it.starts_with("got second")), "{log:?}");
    assert_eq!(log.len(), 1, "{log:?}");
}

#[test]
fn the_next_consumer_does_not_wait_for_a_bad_sector_again() {
    let mut scene = spoilt();
    let from = scene.consumer("orders", 10);
    scene.rest();
    scene.check(from.0, "got first, got third, got fourth");
    scene.detach(from);
    scene.commit();
    let from = scene.consumer("orders", 10);
    scene.pass(250);
    scene.commit();
    scene.check(from.0, "got first, got third, got fourth");
}

#[test]
fn a_queue_that_goes_takes_what_cannot_be_read_along() {
    let mut scene = spoilt();
    let now = scene.now();
    scene.node.delete_all_queues(now);
    scene.rest();
    scene.rest();
    assert_eq!(scene.node.status().queues, 0);
    scene.world.heal();
    let mut scene = scene.take_over();
    scene.rest();
    let status = scene.node.status();
    assert_eq!((status.queues, status.store.messages), (0, 0));
}

#[test]
fn an_administrator_sees_what_stands_beside_a_bad_sector() {
    let scene = spoilt();
    let from = scene.node.look_from(LookAt::Queue("orders"), None);
    let look = scene.node.look(from.expect("it is there"), 10);
    let seen = scene.node.looked(look.run()).expect("the disk reads");
    assert_eq!((seen.messages.len(), seen.unreadable.len()), (3, 1));
    assert!(seen.next.is_none());
    let look = scene.node.look_at(seen.unreadable[0]).expect("it is there");
    let seen = scene.node.looked(look.run()).expect("the disk reads");
    assert_eq!(seen.unreadable.len(), 1);
}

#[test]
fn a_read_that_fails_for_a_moment_costs_nothing() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "first");
    scene.publish(to, "second");
    scene.commit();
    scene.rest();
    let mut scene = scene.take_over();
    let (file, range) = place_of(&scene.world, "first");
    scene.world.spoil(&file, range);
    let from = scene.consumer("orders", 10);
    scene.pass(250);
    scene.check(from.0, "");
    scene.world.heal();
    scene.pass(250);
    scene.commit();
    scene.check(from.0, "got first, got second");
}
