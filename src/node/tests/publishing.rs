//! Messages from clients: confirmed when durable, refused with a reason.

use super::*;

#[test]
fn a_durable_message_is_confirmed_after_its_sync_and_not_before() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "a");
    scene.publish(to, "b");
    scene.check(to.0, "");
    scene.commit();
    scene.check(to.0, "accepted, accepted");
    assert_eq!(scene.messages("orders"), 2);
}

#[test]
fn a_message_that_is_not_durable_is_confirmed_at_once_but_delivered_when_it_is() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let from = scene.consumer("orders", 10);
    scene.publish_message(to, &text_message("a", false));
    scene.check(to.0, "accepted");
    scene.check(from.0, "");
    scene.commit();
    scene.check(from.0, "got a");
}

#[test]
fn the_first_delivery_has_the_bytes_that_were_sent() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let from = scene.consumer("orders", 10);
    let mut bytes = text_message("a", true).encode();
    scene.publish_bytes(to, &bytes, 0, false);
    scene.commit();
    let heard = &scene.clients[from.0].heard;
    assert!(heard.windows(bytes.len()).any(|it| it == bytes));
    // Other formats are not looked into.
    bytes.truncate(3);
    scene.clients[from.0].is_deaf = true;
    scene.publish_bytes(to, &bytes, 99, false);
    scene.commit();
    scene.check(to.0, "accepted, accepted");
}

#[test]
fn a_settled_message_is_stored_without_an_answer() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish_bytes(to, &text_message("a", true).encode(), 0, true);
    scene.commit();
    scene.check(to.0, "");
    assert_eq!(scene.messages("orders"), 1);
}

#[test]
fn a_malformed_message_is_rejected_and_the_connection_lives() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish_bytes(to, b"\x00\x53\x70garbage", 0, false);
    scene.publish(to, "a");
    scene.commit();
    scene.check(to.0, "rejected amqp:decode-error, accepted");
    assert_eq!(scene.messages("orders"), 1);
}

#[test]
fn the_relay_goes_by_the_address_in_the_message() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let relay = (client, scene.sender(client, None));
    let to = |to: Option<&str>| SimpleMessage {
        to: to.map(str::to_owned),
        ..text_message("a", true)
    };
    scene.publish_message(relay, &to(Some("orders")));
    scene.publish_message(relay, &to(Some("orders")));
    scene.publish_message(relay, &to(None));
    scene.publish_message(relay, &to(Some("$nowhere")));
    scene.commit();
    scene.check(
        client,
        "rejected amqp:not-found, rejected amqp:not-found, accepted, accepted",
    );
    assert_eq!(scene.messages("orders"), 2);
}

#[test]
fn queues_are_not_created_when_that_is_off() {
    let settings = NodeSettings {
        auto_create_queues: false,
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    let client = scene.connect();
    scene.sender(client, Some("orders"));
    scene.receiver(client, Source::at("orders"), 1);
    scene.check(client, "detached amqp:not-found, detached amqp:not-found");
}

#[test]
fn shared_subscriptions_transactions_and_selectors_are_refused_clearly() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let topic = Source {
        capabilities: vec![proto::Symbol::from("topic"), proto::Symbol::from("shared")],
        ..Source::at("news")
    };
    scene.receiver(client, topic, 1);
    let selected = Source {
        filter: vec![(
            proto::Symbol::from("jms-selector"),
            proto::Value::String(String::from("a = 1")),
        )],
        ..Source::at("orders")
    };
    scene.receiver(client, selected, 1);
    let it = &mut scene.clients[client];
    let coordinator = AttachRequest {
        name: String::from("coordinator"),
        target: Some(proto::AttachTarget::Coordinator(Vec::new())),
        source: Some(Source::default()),
        ..AttachRequest::default()
    };
    it.connection.attach_sender(it.session, coordinator);
    scene.exchange();
    let refused = "detached amqp:not-implemented";
    scene.check(client, &[refused; 3].join(", "));
}

#[test]
fn a_full_disk_refuses_messages_and_withholds_credit_until_there_is_space() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.meet_a_full_disk(to);
    scene.world.set_free_bytes(1 << 40);
    scene.rest();
    assert!(
        scene.clients[to.0].connection.can_send(to.1),
        "credit came back"
    );
    scene.publish(to, "c");
    scene.commit();
    scene.check(to.0, "accepted");
}

#[test]
fn credit_is_granted_in_bulk_and_withheld_while_the_disk_is_behind() {
    let settings = NodeSettings {
        backlog_soft_bytes: 2000,
        backlog_hard_bytes: 4000,
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    let to = scene.publisher("orders");
    for _ in 0..10 {
        let message = SimpleMessage {
            body: vec![b'x'; 500],
            ..text_message("a", true)
        };
        scene.publish_message(to, &message);
    }
    assert!(!scene.clients[to.0].connection.can_send(to.1));
    assert!(!scene.node.wants_input(scene.clients[to.0].id));
    scene.commit();
    assert!(scene.node.wants_input(scene.clients[to.0].id));
    assert_eq!(scene.clients[to.0].credit[&to.1], 10);
    scene.check(to.0, &["accepted"; 10].join(", "));
}

#[test]
fn large_messages_go_through_in_many_frames() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let from = scene.consumer("orders", 10);
    let message = SimpleMessage {
        body: vec![b'y'; 700_000],
        ..text_message("large", true)
    };
    scene.publish_message(to, &message);
    scene.commit();
    scene.check(to.0, "accepted");
    let log = scene.take_log(from.0);
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].len(), "got ".len() + 700_000);
}
