//! Messages for clients, and what becomes of them.

use super::*;
use crate::proto::DistributionMode;

fn failed() -> Outcome {
    Outcome::Modified {
        delivery_failed: true,
        undeliverable_here: false,
    }
}

fn published(scene: &mut Scene, count: u32) -> (usize, LinkId) {
    let to = scene.publisher("orders");
    for number in 1..=count {
        if !scene.clients[to.0].connection.can_send(to.1) {
            scene.commit();
        }
        scene.publish(to, &number.to_string());
    }
    scene.commit();
    to
}

#[test]
fn messages_come_in_order_and_are_settled_away() {
    let mut scene = Scene::new();
    published(&mut scene, 3);
    let from = scene.consumer("orders", 10);
    scene.commit();
    scene.check(from.0, "got 1, got 2, got 3");
    scene.settle(from.0, "1", Outcome::Accepted);
    scene.settle(from.0, "2", Outcome::Rejected(None));
    scene.commit();
    assert_eq!(scene.messages("orders"), 1);
}

#[test]
fn consumers_take_turns() {
    let mut scene = Scene::new();
    let one = scene.consumer("orders", 10);
    let two = scene.consumer("orders", 10);
    published(&mut scene, 4);
    scene.check(one.0, "got 1, got 3");
    scene.check(two.0, "got 2, got 4");
}

#[test]
fn credit_bounds_what_is_sent() {
    let mut scene = Scene::new();
    published(&mut scene, 3);
    let from = scene.consumer("orders", 2);
    scene.commit();
    scene.check(from.0, "got 1, got 2");
    scene.credit(from, 5);
    scene.check(from.0, "got 3");
}

#[test]
fn failed_deliveries_are_counted_for_the_next_consumer() {
    let mut scene = Scene::new();
    published(&mut scene, 2);
    let one = scene.consumer("orders", 2);
    scene.commit();
    scene.check(one.0, "got 1, got 2");
    scene.settle(one.0, "2", Outcome::Released);
    scene.settle(one.0, "1", failed());
    let two = scene.consumer("orders", 10);
    scene.check(two.0, "got 1 x1, got 2");
    scene.settle(two.0, "1", failed());
    scene.check(two.0, "got 1 x2");
}

#[test]
fn a_lost_connection_counts_as_a_failure_and_a_detach_does_not() {
    let mut scene = Scene::new();
    published(&mut scene, 2);
    let one = scene.consumer("orders", 10);
    scene.commit();
    scene.detach(one);
    let two = scene.consumer("orders", 10);
    scene.check(two.0, "got 1, got 2");
    scene.lose(two.0);
    let three = scene.consumer("orders", 10);
    scene.check(three.0, "got 1 x1, got 2 x1");
}

#[test]
fn a_settlement_without_outcome_takes_the_default_of_the_source() {
    let mut scene = Scene::new();
    published(&mut scene, 1);
    let client = scene.connect();
    let source = Source {
        default_outcome: Some(failed()),
        ..Source::at("orders")
    };
    let link = scene.receiver(client, source, 1);
    scene.commit();
    scene.check(client, "got 1");
    scene.detach((client, link));
    let other = scene.consumer("orders", 1);
    scene.check(other.0, "got 1");
}

#[test]
fn a_consumer_of_settled_messages_settles_them_by_receiving() {
    let mut scene = Scene::new();
    published(&mut scene, 2);
    let client = scene.connect();
    scene.receiver_as(client, Source::at("orders"), 10, SenderSettleMode::Settled);
    scene.commit();
    scene.check(client, "got 1 settled, got 2 settled");
    assert_eq!(scene.messages("orders"), 0);
}

#[test]
fn a_drain_is_answered_at_once_also_by_an_empty_queue() {
    let mut scene = Scene::new();
    let from = scene.consumer("orders", 10);
    scene.drain(from);
    scene.check(from.0, "drained");
}

#[test]
fn a_drain_brings_what_is_on_disk_first() {
    let mut scene = Scene::new();
    published(&mut scene, 3);
    let from = scene.consumer("orders", 0);
    scene.clients[from.0].connection.set_credit(from.1, 10);
    scene.clients[from.0].connection.drain(from.1);
    scene.exchange();
    scene.commit();
    scene.check(from.0, "got 1, got 2, got 3, drained");
}

#[test]
fn a_browser_sees_all_and_takes_nothing() {
    let mut scene = Scene::new();
    published(&mut scene, 3);
    let client = scene.connect();
    let source = Source {
        distribution_mode: Some(DistributionMode::Copy),
        ..Source::at("orders")
    };
    let link = scene.receiver_as(client, source, 10, SenderSettleMode::Settled);
    scene.drain((client, link));
    scene.check(
        client,
        "got 1 settled, got 2 settled, got 3 settled, drained",
    );
    assert_eq!(scene.messages("orders"), 3);
    let from = scene.consumer("orders", 10);
    scene.commit();
    scene.check(from.0, "got 1, got 2, got 3");
}

#[test]
fn an_outcome_that_is_not_settled_is_answered_when_the_settlement_is_durable() {
    let mut scene = Scene::new();
    published(&mut scene, 1);
    let from = scene.consumer("orders", 1);
    scene.commit();
    scene.clients[from.0].heard.clear();
    // disposition: receiver, first 0, last 0, not settled, accepted
    let frame = b"\x00\x00\x00\x18\x02\x00\x00\x00\x00\x53\x15\xc0\x0b\x05\x41\x52\x00\x52\x00\x42\x00\x53\x24\x45";
    let (now, id) = (scene.now(), scene.clients[from.0].id);
    scene
        .node
        .handle_bytes(now, id, &mut BytesMut::from(&frame[..]));
    scene.exchange();
    let answered = |scene: &Scene| {
        let heard = &scene.clients[from.0].heard;
        heard.windows(3).any(|it| it == b"\x00\x53\x15")
    };
    assert!(!answered(&scene), "the settlement is not durable");
    scene.commit();
    assert!(answered(&scene));
    assert_eq!(scene.messages("orders"), 0);
}

#[test]
fn an_expired_message_is_not_delivered() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let mut message = text_message("short", true);
    message.header.ttl_ms = Some(1000);
    scene.publish_message(to, &message);
    scene.publish(to, "long");
    scene.commit();
    scene.pass(1001);
    let from = scene.consumer("orders", 10);
    scene.commit();
    scene.check(from.0, "got long");
    assert_eq!(scene.messages("orders"), 1);
    assert_eq!(scene.node.status().broker.expired, 1);
}

#[test]
fn temporary_queues_live_and_die_with_their_link() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let source = Source {
        dynamic: true,
        ..Source::default()
    };
    let link = scene.receiver(client, source, 10);
    let address = scene.clients[client].addresses[&link].clone();
    assert!(address.starts_with("$TMP$.east."), "{address}");
    let to = scene.publisher(&address);
    scene.publish(to, "reply");
    scene.commit();
    scene.check(client, "got reply");
    // Nobody else consumes from it.
    let other = scene.connect();
    scene.receiver(other, Source::at(&*address), 1);
    scene.check(other, "detached amqp:not-allowed");
    scene.detach((client, link));
    scene.commit();
    scene.publish(to, "late");
    scene.check(to.0, "accepted, rejected amqp:not-found");
    assert_eq!(scene.node.status().queues, 0);
    assert_eq!(scene.node.store.status().messages, 0);
}

#[test]
fn a_window_is_refilled_from_disk_for_a_slow_consumer() {
    let settings = NodeSettings {
        limits: broker::Limits {
            window_messages: 8,
            read_messages: 4,
            ..broker::Limits::default()
        },
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    let from = scene.consumer("orders", 1);
    published(&mut scene, 60);
    assert!(scene.node.status().window_bytes < 10 * 400);
    let mut all = Vec::new();
    for number in 1..=60 {
        all.extend(scene.take_log(from.0));
        scene.settle(from.0, &number.to_string(), Outcome::Accepted);
        scene.credit(from, 1);
        scene.commit();
    }
    let expected: Vec<String> = (1..=60).map(|number| format!("got {number}")).collect();
    assert_eq!(all, expected);
    assert_eq!(scene.messages("orders"), 0);
}
