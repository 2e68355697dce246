//! Addresses, topics, bridges, and what the configuration says of destinations.

use super::*;
use crate::model::{Bridge, Catalogue, DestinationKind, OverflowPolicy, Pattern, Properties};
use crate::proto::Symbol;

pub(super) fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

pub(super) fn topic(name: &str) -> Source {
    Source {
        capabilities: vec![Symbol::from("topic")],
        ..Source::at(name)
    }
}

fn catalogue(entries: &[(&str, Properties)]) -> Catalogue {
    let mut all = Catalogue::default();
    for (name, properties) in entries {
        all.insert(pattern(name), properties.clone());
    }
    all
}

pub(super) fn names(names: &[&str]) -> Catalogue {
    let entries: Vec<_> = names
        .iter()
        .map(|it| (*it, Properties::default()))
        .collect();
    catalogue(&entries)
}

fn limited(messages_max: u64, overflow_policy: OverflowPolicy) -> Properties {
    Properties {
        messages_max,
        overflow_policy,
        ..Properties::default()
    }
}

pub(super) fn bridge(source: &str, targets: &[&str]) -> Bridge {
    let destination = |text: &str| {
        let (kind, name) = text.split_once(':').expect("a kind");
        let kind = match kind {
            "queue" => DestinationKind::Queue,
            _ => DestinationKind::Topic,
        };
        (kind, pattern(name))
    };
    Bridge {
        source: destination(source),
        targets: targets.iter().map(|it| destination(it)).collect(),
    }
}

impl Scene {
    pub(super) fn configure(&mut self, directory: Directory) {
        let now = self.now();
        self.node.set_directory(now, Arc::new(directory));
        self.commit();
    }

    /// A client that subscribes.
    fn subscriber(&mut self, name: &str) -> (usize, LinkId) {
        let client = self.connect();
        let link = self.receiver(client, topic(name), 100);
        self.commit();
        (client, link)
    }

    pub(super) fn topic_publisher(&mut self, name: &str) -> (usize, LinkId) {
        let client = self.connect();
        let target = Target {
            capabilities: vec![Symbol::from("topic")],
            ..Target::at(name)
        };
        (client, self.attach_sender(client, target, "sender"))
    }

    pub(super) fn waiting(&self) -> u64 {
        self.node.store.status().messages
    }
}

#[test]
fn each_subscription_gets_each_message_once_and_it_is_stored_once() {
    let mut scene = Scene::new();
    let first = scene.subscriber("px.ibm");
    let second = scene.subscriber("px.>");
    let other = scene.subscriber("px");
    let to = scene.topic_publisher("px.ibm");
    let bytes_before = scene.node.store.status().message_bytes;
    scene.publish(to, "a");
    scene.publish(to, "b");
    scene.check(to.0, "");
    scene.commit();
    scene.check(to.0, "accepted, accepted");
    scene.check(first.0, "got a, got b");
    scene.check(second.0, "got a, got b");
    scene.check(other.0, "");
    assert_eq!(scene.waiting(), 4, "one reference for each");
    let bytes = scene.node.store.status().message_bytes - bytes_before;
    assert!(bytes < 2 * 100, "two small messages, not four: {bytes}");
    scene.settle(first.0, "a", Outcome::Accepted);
    scene.settle(second.0, "a", Outcome::Accepted);
    scene.settle(second.0, "b", Outcome::Released);
    scene.commit();
    assert_eq!(scene.waiting(), 2, "settled route by route");
    scene.check(second.0, "got b");
}

#[test]
fn check13_a_message_without_subscription_is_confirmed_and_not_stored() {
    let mut scene = Scene::new();
    let to = scene.topic_publisher("news");
    let last = scene.node.store.last_lsn();
    scene.publish(to, "a");
    scene.check(to.0, "accepted");
    assert_eq!(scene.node.store.last_lsn(), last, "nothing was written");
    let from = scene.subscriber("news");
    scene.check(from.0, "");
}

#[test]
fn a_subscriber_that_goes_takes_what_waits_for_it_along() {
    let mut scene = Scene::new();
    let first = scene.subscriber("news");
    let second = scene.subscriber("news");
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    assert_eq!(scene.waiting(), 2);
    scene.publish(to, "b");
    scene.lose(first.0);
    scene.detach(second);
    scene.rest();
    assert_eq!(scene.waiting(), 0);
    assert_eq!(scene.node.status().subscriptions, 0);
    let rows = scene.node.store.rows(records::KIND_SUBSCRIPTION).count();
    assert_eq!(rows, 0, "nothing of them is left in the store");
}

#[test]
fn a_prefix_a_capability_or_the_configuration_makes_a_topic() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        queues: names(&[">", "both"]),
        topics: names(&[">", "both", "news"]),
        ..Directory::default()
    });
    let client = scene.connect();
    for address in ["topic://a", "news", "both", "queue://news", "a"] {
        scene.attach_receiver(client, address, Some(Source::at(address)));
    }
    scene.commit();
    let subscriptions = scene.node.subscription_status();
    let topics: Vec<&str> = subscriptions.iter().map(|it| &*it.topic).collect();
    assert_eq!(topics, ["a", "news"]);
    let queues = scene.node.queue_status();
    let queues: Vec<&str> = queues.iter().map(|it| &*it.name).collect();
    assert_eq!(queues, ["both", "news", "a"]);
    scene.receiver(client, topic("queue://a"), 10);
    scene.check(client, "detached amqp:invalid-field");
}

#[test]
fn relayed_messages_say_themselves_what_they_are_for() {
    let mut scene = Scene::new();
    let from = scene.subscriber("news");
    let client = scene.connect();
    let relay = (client, scene.sender(client, None));
    let to = |address: &str| SimpleMessage {
        to: Some(address.to_owned()),
        ..text_message("a", true)
    };
    for _ in 0..2 {
        scene.publish_message(relay, &to("topic://news"));
    }
    scene.publish_message(relay, &to("topic://news.*"));
    scene.publish_message(relay, &to("news"));
    scene.commit();
    let refused = "rejected amqp:invalid-field";
    scene.check(client, &format!("{refused}, accepted, accepted, accepted"));
    scene.check(from.0, "got a, got a");
    assert_eq!(scene.messages("news"), 1);
}

#[test]
fn patterns_are_for_subscribers_only() {
    let mut scene = Scene::new();
    let client = scene.connect();
    scene.receiver(client, Source::at("px.>"), 1);
    scene.sender(client, Some("px.*"));
    scene.sender(client, Some("topic://px.*"));
    scene.receiver(client, topic("px..a"), 1);
    scene.check(client, &["detached amqp:invalid-field"; 4].join(", "));
    scene.receiver(client, topic("$sys.>"), 1);
    scene.sender(client, Some("topic://$sys.monitor"));
    scene.check(client, &["detached amqp:not-found"; 2].join(", "));
    assert_eq!(scene.node.status().queues, 0);
}

#[test]
fn with_configuration_files_these_say_what_may_be_created() {
    let mut scene = Scene::new();
    let client = scene.connect();
    scene.sender(client, Some("made before"));
    scene.configure(Directory {
        queues: names(&["orders.>", "fixed"]),
        ..Directory::default()
    });
    assert!(
        scene
            .node
            .queue_status()
            .iter()
            .any(|it| it.name == "fixed")
    );
    scene.sender(client, Some("orders.eu"));
    scene.sender(client, Some("made before"));
    scene.receiver(client, topic("px.>"), 1);
    scene.commit();
    scene.check(client, "");
    scene.sender(client, Some("orders"));
    scene.sender(client, Some("topic://px.a"));
    scene.receiver(client, topic("px.a"), 1);
    scene.check(client, &["detached amqp:not-found"; 3].join(", "));
}

#[test]
fn a_queue_that_is_no_longer_configured_goes_when_it_is_empty_and_unused() {
    let mut scene = Scene::new();
    let directory = |queues: &[&str]| Directory {
        queues: names(queues),
        ..Directory::default()
    };
    scene.configure(directory(&["empty", "full", "used"]));
    let to = scene.publisher("full");
    scene.publish(to, "a");
    scene.lose(to.0);
    scene.consumer("used", 1);
    scene.rest();
    scene.configure(directory(&["other"]));
    scene.rest();
    let queues = scene.node.queue_status();
    let queues: Vec<&str> = queues.iter().map(|it| &*it.name).collect();
    assert_eq!(queues, ["full", "used", "other"]);
}

#[test]
fn bridges_copy_in_the_same_step_and_are_not_transitive() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        queues: names(&[">"]),
        topics: names(&[">"]),
        bridges: vec![
            bridge("topic:px.>", &["queue:archive", "topic:copies"]),
            bridge("topic:px.ibm", &["queue:archive"]),
            bridge("topic:copies", &["queue:beyond"]),
            bridge("queue:archive", &["queue:beyond", "topic:px.ibm"]),
            bridge("queue:beyond", &["queue:beyond"]),
        ],
        ..Directory::default()
    });
    let from = scene.subscriber("px.ibm");
    let copies = scene.subscriber("copies");
    let to = scene.topic_publisher("px.ibm");
    scene.publish(to, "a");
    scene.commit();
    scene.check(from.0, "got a");
    scene.check(copies.0, "got a");
    assert_eq!(scene.messages("archive"), 1, "two bridges, one copy");
    assert_eq!(scene.messages("beyond"), 0);
    let queue = scene.publisher("archive");
    scene.publish(queue, "b");
    scene.commit();
    scene.check(from.0, "got b");
    assert_eq!(scene.messages("archive"), 2);
    assert_eq!(scene.messages("beyond"), 1);
    let queue = scene.publisher("beyond");
    scene.publish(queue, "c");
    scene.commit();
    assert_eq!(scene.messages("beyond"), 2, "not to itself again");

    let scene = scene.take_over();
    assert_eq!(scene.messages("archive"), 2);
    assert_eq!(scene.messages("beyond"), 2);
}

#[test]
fn a_full_queue_refuses_and_goes_on_when_there_is_room() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        queues: catalogue(&[("few", limited(2, OverflowPolicy::Default))]),
        ..Directory::default()
    });
    let to = scene.publisher("few");
    for text in ["a", "b", "c"] {
        scene.publish(to, text);
    }
    scene.check(to.0, "rejected amqp:resource-limit-exceeded");
    scene.commit();
    scene.check(to.0, "accepted, accepted");
    let from = scene.consumer("few", 1);
    scene.commit();
    scene.settle(from.0, "a", Outcome::Accepted);
    scene.publish(to, "d");
    scene.publish(to, "e");
    scene.commit();
    scene.check(to.0, "rejected amqp:resource-limit-exceeded, accepted");
    // A successor counts what it finds.
    let mut scene = scene.take_over();
    scene.configure(Directory {
        queues: catalogue(&[("few", limited(2, OverflowPolicy::Default))]),
        ..Directory::default()
    });
    let to = scene.publisher("few");
    scene.publish(to, "f");
    scene.check(to.0, "rejected amqp:resource-limit-exceeded");
}

#[test]
fn a_limit_in_bytes_counts_all_that_is_stored() {
    let mut scene = Scene::new();
    let properties = Properties {
        bytes_max: 1000,
        ..Properties::default()
    };
    scene.configure(Directory {
        queues: catalogue(&[("small", properties)]),
        ..Directory::default()
    });
    let to = scene.publisher("small");
    let message = SimpleMessage {
        body: vec![b'x'; 600],
        ..text_message("a", true)
    };
    scene.publish_message(to, &message);
    scene.publish_message(to, &message);
    scene.commit();
    scene.check(to.0, "rejected amqp:resource-limit-exceeded, accepted");
}

#[test]
fn the_oldest_messages_make_room_where_that_is_the_policy() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        queues: catalogue(&[("last", limited(2, OverflowPolicy::DiscardOld))]),
        ..Directory::default()
    });
    let to = scene.publisher("last");
    for text in ["a", "b", "c", "d"] {
        scene.publish(to, text);
        scene.commit();
    }
    scene.check(to.0, &["accepted"; 4].join(", "));
    scene.rest();
    assert_eq!(scene.messages("last"), 2);
    let from = scene.consumer("last", 1);
    scene.commit();
    scene.check(from.0, "got c");
    // What a consumer has is not taken from it.
    for text in ["e", "f"] {
        scene.publish(to, text);
        scene.commit();
    }
    scene.rest();
    scene.credit(from, 10);
    scene.settle(from.0, "c", Outcome::Accepted);
    scene.commit();
    scene.check(from.0, "got f");
    assert_eq!(scene.node.status().broker.discarded, 4);
}

#[test]
fn a_full_subscription_is_left_out_or_refuses_for_all() {
    let directory = |policy| Directory {
        topics: catalogue(&[("news", limited(1, policy))]),
        ..Directory::default()
    };
    let mut scene = Scene::new();
    scene.configure(directory(OverflowPolicy::Default));
    let slow = scene.subscriber("news");
    let fast = scene.subscriber("news");
    let to = scene.topic_publisher("news");
    for text in ["a", "b"] {
        scene.publish(to, text);
        scene.commit();
        scene.settle(fast.0, text, Outcome::Accepted);
        scene.commit();
    }
    scene.check(to.0, "accepted, accepted");
    scene.check(slow.0, "got a");
    scene.check(fast.0, "got a, got b");
    assert_eq!(scene.node.status().messages_skipped, 1);
    scene.configure(directory(OverflowPolicy::RejectIncoming));
    scene.publish(to, "c");
    scene.commit();
    scene.check(to.0, "rejected amqp:resource-limit-exceeded");
    scene.check(fast.0, "");
}

#[test]
fn a_message_that_is_refused_was_not_left_out_anywhere() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        topics: catalogue(&[("news", limited(1, OverflowPolicy::Default))]),
        queues: catalogue(&[("archive", limited(2, OverflowPolicy::RejectIncoming))]),
        bridges: vec![bridge("topic:news", &["queue:archive"])],
        ..Directory::default()
    });
    scene.subscriber("news");
    let to = scene.topic_publisher("news");
    for text in ["a", "b", "c"] {
        scene.publish(to, text);
        scene.commit();
    }
    let refused = "rejected amqp:resource-limit-exceeded";
    scene.check(to.0, &format!("accepted, accepted, {refused}"));
    assert_eq!(scene.node.status().messages_skipped, 1, "b, and not c");
}

#[test]
fn where_a_bridge_leads_to_is_not_told_to_senders() {
    let settings = NodeSettings {
        queues_max: 1,
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    let to = scene.publisher("orders");
    // No queue is left for the other end.
    scene.configure(Directory {
        bridges: vec![bridge("queue:orders", &["queue:hidden"])],
        ..Directory::default()
    });
    scene.publish(to, "a");
    let refused = scene.take_log(to.0).join(", ");
    assert!(
        refused.contains("amqp:resource-limit-exceeded"),
        "{refused}"
    );
    let heard = scene.heard(to.0);
    assert!(heard.contains("a destination that a bridge leads to"));
    assert!(!heard.contains("hidden") && !heard.contains("there are"));
}

#[test]
fn the_expiration_of_a_destination_wins_over_that_of_the_sender() {
    let mut scene = Scene::new();
    let properties = Properties {
        expiration_ms: 1000,
        ..Properties::default()
    };
    scene.configure(Directory {
        queues: catalogue(&[("brief", properties)]),
        ..Directory::default()
    });
    let to = scene.publisher("brief");
    scene.publish(to, "a");
    scene.commit();
    scene.pass(1500);
    let mut longer = text_message("b", true);
    longer.header.ttl_ms = Some(77_777);
    scene.publish_message(to, &longer);
    scene.commit();
    let from = scene.consumer("brief", 10);
    scene.commit();
    scene.check(from.0, "got b");
    // The receiver is not told what does not hold.
    let ttl = 77_777_u32.to_be_bytes();
    let heard = &scene.clients[from.0].heard;
    assert!(!heard.windows(4).any(|bytes| bytes == ttl));
}

#[test]
fn more_subscriptions_than_a_message_can_have_routes_are_an_ordinary_error() {
    let limit = steadfast_storage::ROUTES_MAX;
    let mut scene = Scene::new();
    let client = scene.connect();
    for number in 0..=limit {
        let it = &mut scene.clients[client];
        let request = AttachRequest {
            name: format!("s{number}"),
            source: Some(topic("news")),
            target: Some(Target::default().into()),
            ..AttachRequest::default()
        };
        it.connection.attach_receiver(it.session, request);
    }
    scene.exchange();
    scene.commit();
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.check(to.0, "rejected amqp:resource-limit-exceeded");
    let heard = scene.heard(to.0);
    assert!(heard.contains("more places than one message can (4096)"));
    assert!(
        !heard.contains("4097"),
        "how many there are is nobody's business"
    );
    let other = scene.publisher("orders");
    scene.publish(other, "b");
    scene.commit();
    scene.check(other.0, "accepted");
}

#[test]
fn a_full_disk_refuses_a_message_to_many_subscriptions_as_a_whole() {
    const SUBSCRIBERS: usize = 200;
    let mut scene = Scene::new();
    let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| scene.subscriber("news")).collect();
    let to = scene.topic_publisher("news");
    scene.meet_a_full_disk(to);
    scene.rest();
    assert_eq!(scene.waiting(), SUBSCRIBERS as u64);
    // Settling goes on without space.
    for (client, _) in &subscribers {
        scene.check(*client, "got a");
        scene.settle(*client, "a", Outcome::Accepted);
    }
    scene.commit();
    assert_eq!(scene.waiting(), 0);
    scene.world.set_free_bytes(1 << 40);
    scene.rest();
    scene.publish(to, "c");
    scene.commit();
    scene.check(to.0, "accepted");
    for (client, _) in &subscribers {
        scene.check(*client, "got c");
    }
    let scene = scene.take_over();
    assert_eq!(scene.waiting(), SUBSCRIBERS as u64);
}

#[test]
fn subscriptions_with_limits_that_are_gone_leave_nothing() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        topics: catalogue(&[("news", limited(10, OverflowPolicy::Default))]),
        ..Directory::default()
    });
    let to = scene.topic_publisher("news");
    for _ in 0..3 {
        let (client, _) = scene.subscriber("news");
        scene.publish(to, "a");
        scene.commit();
        scene.lose(client);
        scene.rest();
    }
    assert!(scene.node.gauges.is_empty());
}

/// What is logged meanwhile.
fn logged(act: impl FnOnce()) -> String {
    let (sender, lines) = std::sync::mpsc::channel();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || Lines(sender.clone()))
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes: Vec<u8> = lines.try_iter().flatten().collect();
    String::from_utf8(bytes).expect("the log is text")
}

struct Lines(std::sync::mpsc::Sender<Vec<u8>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_says_once_why_a_bridge_does_not_lead_to_its_target() {
    let settings = NodeSettings {
        queues_max: 1,
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    let to = scene.publisher("letters");
    let bridges = Directory {
        bridges: vec![bridge("queue:letters", &["queue:archive"])],
        ..Directory::default()
    };
    scene.configure(bridges.clone());
    let log = logged(|| {
        for text in ["a", "b"] {
            scene.publish(to, text);
            scene.commit();
        }
    });
    let refused = ["rejected amqp:resource-limit-exceeded"; 2].join(", ");
    scene.check(to.0, &refused);
    assert_eq!(log.matches("bridge_target_unusable").count(), 1, "{log}");
    assert!(log.contains("archive") && log.contains("letters"), "{log}");
    assert!(log.contains("there are 1 queues"), "{log}");
    scene.configure(bridges);
    let log = logged(|| {
        scene.publish(to, "c");
        scene.commit();
    });
    assert_eq!(log.matches("bridge_target_unusable").count(), 1, "{log}");
}
