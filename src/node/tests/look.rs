//! Messages as an administrator sees them, and the removal of one.

use super::subscriptions::durable;
use super::topics::names;
use super::*;

impl Scene {
    /// All messages, seen in parts of so many.
    fn look(&self, at: LookAt<'_>, after: Option<MessageId>, part: usize) -> Vec<SeenMessage> {
        let mut next = self.node.look_from(at, after);
        assert!(next.is_some(), "{at:?}");
        let mut seen = Vec::new();
        while let Some(from) = next {
            let looked = self.node.look(from, part).run();
            let looked = self.node.looked(looked).expect("a sound disk");
            assert!(looked.messages.len() <= part);
            seen.extend(looked.messages);
            next = looked.next;
        }
        seen
    }

    /// Text, delivery count and holder of each message of a queue.
    fn seen(&self, queue: &str) -> String {
        let seen = self.look(LookAt::Queue(queue), None, 2);
        let words = seen.iter().map(|it| {
            let holder = match &it.holder {
                Holder::Nobody => "-",
                Holder::Consumer { container, .. } => container,
                Holder::Client { container, .. } => &format!("({container})"),
            };
            format!("{}:{}:{holder}", text(it), it.delivery_count)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn find(&self, queue: &str, wanted: &str) -> SeenMessage {
        let mut seen = self.look(LookAt::Queue(queue), None, 10).into_iter();
        seen.find(|it| text(it) == wanted).expect("it is there")
    }
}

fn text(seen: &SeenMessage) -> String {
    let message = SimpleMessage::decode(&seen.message.body).expect("a message of ours");
    String::from_utf8_lossy(&message.body).into_owned()
}

/// Ten messages of which client "a" has the first two.
fn scene() -> Scene {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    for number in 1..=10 {
        scene.publish(to, &number.to_string());
    }
    scene.commit();
    scene.consumer_as("a", "orders", 2);
    scene.rest();
    scene
}

#[test]
fn a_look_in_parts_sees_each_message_once_and_who_has_it() {
    let scene = scene();
    let rest = |count| {
        let rest = (3..=10).map(|number| format!("{number}:{count}:-"));
        rest.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(scene.seen("orders"), format!("1:0:a, 2:0:a, {}", rest(0)));
    let fourth = scene.find("orders", "4");
    assert!(fourth.is_durable && fourth.arrived_at_ms > 0);
    let behind = scene.look(LookAt::Queue("orders"), Some(fourth.id), 100);
    assert_eq!(behind.iter().map(text).collect::<String>(), "5678910");
    assert!(
        scene
            .node
            .look_from(LookAt::Queue("nowhere"), None)
            .is_none()
    );
    assert!(scene.node.look_from(LookAt::Queue("a.>"), None).is_none());

    // A takeover changes no id; what was reserved may have been delivered.
    let scene = scene.take_over();
    assert_eq!(
        scene.seen("orders"),
        format!("1:1:(a), 2:1:(a), {}", rest(1))
    );
    assert_eq!(scene.find("orders", "4").id, fourth.id);
    let looked = scene.node.look_at(fourth.id).expect("it is there").run();
    let seen = scene.node.looked(looked).expect("a sound disk").messages;
    assert_eq!((seen.len(), text(&seen[0])), (1, "4".to_owned()));
    assert_eq!(scene.node.place_of(fourth.id), "queue orders");
    assert_eq!(scene.node.queue_status()[0].held, 2);
}

#[test]
fn only_a_message_that_nobody_has_is_removed_and_that_lasts() {
    let mut scene = scene();
    let (taken, free) = (scene.find("orders", "1"), scene.find("orders", "5"));
    let now = scene.now();
    let refused = scene.node.discard_message(now, &taken);
    let is_of_a = |it: &Undiscarded| matches!(it, Undiscarded::Held(Holder::Consumer { container, .. }) if container == "a");
    assert!(refused.as_ref().is_err_and(is_of_a), "{refused:?}");
    let ticket = scene.node.discard_message(now, &free).expect("it waits");
    assert!(!scene.node.is_safe(now, ticket));
    assert_eq!(
        scene.node.discard_message(now, &free),
        Err(Undiscarded::Gone)
    );
    assert!(scene.node.look_at(free.id).is_none());
    scene.commit();
    assert!(scene.node.is_safe(now, ticket));

    let mut scene = scene.take_over();
    assert!(scene.node.look_at(free.id).is_none());
    let now = scene.now();
    let refused = scene.node.discard_message(now, &taken);
    let is_kept = |it: &Undiscarded| matches!(it, Undiscarded::Held(Holder::Client { container, .. }) if container == "a");
    assert!(refused.as_ref().is_err_and(is_kept), "{refused:?}");
    // Others go on around the hole.
    let other = scene.consumer_as("other", "orders", 3);
    scene.commit();
    scene.check(other.0, "got 3 x1, got 4 x1, got 6 x1");
    let gone = scene.find("orders", "7");
    scene
        .node
        .discard_message(now, &gone)
        .expect("it waits in memory");
    scene.credit(other, 1);
    scene.commit();
    scene.check(other.0, "got 8 x1");
}

#[test]
fn a_removal_that_is_not_durable_is_undone_by_a_takeover() {
    let mut scene = scene();
    let seen = scene.find("orders", "9");
    let now = scene.now();
    let ticket = scene.node.discard_message(now, &seen).expect("it waits");
    assert!(!scene.node.is_safe(now, ticket));
    let scene = scene.take_over();
    assert_eq!(scene.find("orders", "9").id, seen.id);
}

#[test]
fn the_messages_of_a_durable_subscription_are_its_own() {
    let mut scene = Scene::new();
    scene.configure(Directory {
        topics: names(&["news"]),
        ..Directory::default()
    });
    for container in ["c1", "c2"] {
        let client = scene.connect_as(container, Settings::default());
        scene.attach_receiver(client, "d", Some(durable("news")));
        scene.commit();
        scene.lose(client);
    }
    let to = scene.publisher("news");
    scene.publish(to, "1");
    scene.publish(to, "2");
    scene.commit();
    let at = |client| LookAt::Durable {
        name: "d",
        client,
        user: "",
    };
    assert!(
        scene.node.look_from(at(""), None).is_none(),
        "which of both?"
    );
    let seen = scene.look(at("c1"), None, 10);
    assert_eq!(seen.iter().map(text).collect::<String>(), "12");
    let place = scene.node.place_of(seen[0].id);
    assert!(
        place.contains("\"d\"") && place.contains("\"c1\""),
        "{place}"
    );
    let other = scene.node.look_from(at("c2"), None).expect("it is there");
    assert!(!scene.node.is_of(seen[0].id, other));
    let now = scene.now();
    scene.node.discard_message(now, &seen[0]).expect("it waits");
    scene.commit();
    assert_eq!(scene.look(at("c1"), None, 10).len(), 1);
    assert_eq!(scene.look(at("c2"), None, 10).len(), 2);
}
