//! Clients that misbehave hurt only themselves.

use super::*;

#[test]
fn a_client_that_never_reads_is_sent_no_more_than_the_output_may_hold() {
    let mut scene = Scene::new();
    let from = scene.consumer("orders", 1_000_000);
    let to = scene.publisher("orders");
    scene.clients[from.0].is_deaf = true;
    let message = SimpleMessage {
        body: vec![b'x'; 100_000],
        ..text_message("a", true)
    };
    for _ in 0..40 {
        if !scene.clients[to.0].connection.can_send(to.1) {
            scene.commit();
        }
        scene.publish_message(to, &message);
    }
    scene.commit();
    let id = scene.clients[from.0].id;
    let waiting = scene.node.output(id).expect("connected").len();
    assert!(waiting < 1_400_000, "{waiting} bytes wait for the client");
    assert!(!scene.node.wants_input(id), "and nothing is read from it");
    scene.check(to.0, &["accepted"; 40].join(", "));
    // It reads again and gets the rest.
    scene.clients[from.0].is_deaf = false;
    scene.node.mark_dirty(id);
    scene.exchange();
    assert_eq!(scene.take_log(from.0).len(), 40);
}

#[test]
fn a_client_that_is_not_listened_to_is_not_taken_for_dead() {
    let mut scene = Scene::with(
        NodeSettings {
            backlog_hard_bytes: 0,
            ..node_settings()
        },
        store_options(),
    );
    let to = scene.publisher("orders");
    scene.publish(to, "a");
    let id = scene.clients[to.0].id;
    assert!(!scene.node.wants_input(id), "the disk is behind");
    // It speaks and nobody listens.
    for _ in 0..100 {
        scene.pass(5_000);
    }
    scene.commit();
    scene.publish(to, "b");
    scene.commit();
    scene.check(to.0, "accepted, accepted");
}

#[test]
fn a_client_that_vanished_is_noticed_and_its_messages_go_to_others() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "a");
    scene.commit();
    let gone = scene.consumer("orders", 10);
    scene.commit();
    scene.check(gone.0, "got a");
    scene.clients[gone.0].is_deaf = true;
    let from = scene.consumer("orders", 10);
    for _ in 0..13 {
        scene.pass(5_000);
        let now = scene.now();
        for client in [to.0, from.0] {
            scene.clients[client]
                .connection
                .handle_timeout(now.monotonic_ms);
        }
        scene.exchange();
    }
    scene.check(from.0, "got a x1");
}

#[test]
fn a_container_that_wants_to_be_alone_is_alone() {
    let sole = || Settings {
        desired_capabilities: vec![proto::Symbol::from("sole-connection-for-container")],
        ..Settings::default()
    };
    let mut scene = Scene::new();
    let first = scene.connect_as("jms", sole());
    let second = scene.connect_as("jms", sole());
    scene.check(first, "");
    scene.check(second, "closed amqp:invalid-field");
    // The first is silent for longer than a living client would be: this is the same client again.
    scene.world.advance_ms(25_000);
    let third = scene.connect_as("jms", sole());
    scene.check(third, "");
    scene.check(first, "closed amqp:connection:forced");
    // Others share a name.
    let plain = scene.connect_as("proton", Settings::default());
    let again = scene.connect_as("proton", Settings::default());
    scene.check(plain, "");
    scene.check(again, "");
}

#[test]
fn links_and_queues_are_counted() {
    let settings = NodeSettings {
        links_per_connection_max: 2,
        queues_max: 1,
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    let client = scene.connect();
    scene.sender(client, Some("one"));
    scene.sender(client, Some("two"));
    scene.check(client, "detached amqp:resource-limit-exceeded");
    scene.sender(client, Some("one"));
    scene.sender(client, Some("one"));
    scene.check(client, "detached amqp:resource-limit-exceeded");
}

#[test]
fn garbage_closes_its_connection_and_no_other() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let bad = scene.connect();
    let (now, id) = (scene.now(), scene.clients[bad].id);
    scene.node.handle_bytes(
        now,
        id,
        &mut BytesMut::from(&b"\xff\xff\xff\xff\x02\x00\x00\x00 garbage"[..]),
    );
    scene.exchange();
    assert!(scene.node.is_finished(id));
    scene.publish(to, "a");
    scene.commit();
    scene.check(to.0, "accepted");
}

#[test]
fn a_standby_sends_clients_away_and_redirects_only_those_that_follow() {
    let now = Now::default();
    for (product, expected) in [
        ("other", "amqp:connection:forced"),
        ("QpidJMS", "amqp:connection:redirect"),
    ] {
        let active = ServerAddress {
            host: String::from("west"),
            port: 5672,
            tls: false,
        };
        let mut standby = Standby::new(&node_settings(), Some(active), Default::default(), now);
        let settings = Settings {
            properties: vec![(
                proto::Symbol::from("product"),
                proto::Value::String(product.to_owned()),
            )],
            ..Settings::default()
        };
        let mut client = Connection::client(settings, ClientSasl::Anonymous, 0);
        let mut closed = None;
        for _ in 0..10 {
            client.flush();
            standby.handle_bytes(now, &mut client.output().split());
            client.handle_bytes(0, &mut standby.output().split());
            while let Some(event) = client.poll_event() {
                if let ProtoEvent::Closed { error } = event {
                    closed = error;
                }
            }
        }
        assert_eq!(closed.expect("it was closed").condition, expected);
        assert!(standby.is_finished(), "without waiting for the client");
    }
}
