//! Subscriptions: how they begin and end, and what a successor finds of them.

use super::topics::{pattern, topic};
use super::*;
use crate::model::Durable;
use crate::proto::{Durability, ExpiryPolicy, Symbol, Value};

pub(super) fn durable(name: &str) -> Source {
    Source {
        durable: Durability::UnsettledState,
        expiry_policy: ExpiryPolicy::Never,
        // A subscription has a copy of each message: not the same as browsing a queue.
        distribution_mode: Some(proto::DistributionMode::Copy),
        ..topic(name)
    }
}

impl Scene {
    /// Attaches a receiver whose link has this name.
    fn subscribe(&mut self, client: usize, name: &str, source: Source) -> (usize, LinkId) {
        let link = self.attach_receiver(client, name, Some(source));
        self.clients[client].connection.set_credit(link, 100);
        self.exchange();
        self.commit();
        (client, link)
    }

    pub(super) fn attach_receiver(
        &mut self,
        client: usize,
        name: &str,
        source: Option<Source>,
    ) -> LinkId {
        let it = &mut self.clients[client];
        let request = AttachRequest {
            name: name.to_owned(),
            source,
            target: Some(Target::default().into()),
            ..AttachRequest::default()
        };
        let link = it.connection.attach_receiver(it.session, request);
        self.exchange();
        link.expect("the session has handles")
    }

    /// What Qpid JMS does to unsubscribe.
    fn unsubscribe(&mut self, client: usize, name: &str) {
        let link = self.attach_receiver(client, name, None);
        self.detach((client, link));
    }

    fn connect_again(&mut self, container: &str) -> usize {
        self.connect_as(container, Settings::default())
    }

    fn topics(&self) -> Vec<String> {
        let all = self.node.subscription_status();
        all.into_iter().map(|it| it.topic).collect()
    }
}

#[test]
fn a_subscriber_is_answered_when_its_subscription_is_durable() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let link = scene.attach_receiver(client, "s", Some(topic("news")));
    scene.clients[client].connection.set_credit(link, 10);
    scene.exchange();
    assert!(!scene.clients[client].addresses.contains_key(&link));
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.check(client, "");
    scene.commit();
    assert_eq!(scene.clients[client].addresses[&link], "news");
    scene.check(client, "got a");
    // One that goes before it is answered leaves nothing.
    let link = scene.attach_receiver(client, "t", Some(topic("news")));
    scene.detach((client, link));
    scene.rest();
    assert_eq!(scene.node.status().subscriptions, 1);
}

#[test]
fn one_that_comes_again_is_not_answered_earlier() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.attach_receiver(client, "d", Some(durable("news")));
    scene.lose(client);
    let client = scene.connect_again("c1");
    let link = scene.attach_receiver(client, "d", Some(durable("news")));
    assert!(!scene.clients[client].addresses.contains_key(&link));
    scene.commit();
    assert_eq!(scene.clients[client].addresses[&link], "news");
    scene.lose(client);
    let client = scene.connect_again("c1");
    let link = scene.attach_receiver(client, "d", Some(durable("news")));
    assert_eq!(scene.clients[client].addresses[&link], "news");
}

#[test]
fn a_subscription_survives_a_takeover_with_its_backlog_if_its_client_comes_back() {
    let mut scene = Scene::new();
    let client = scene.connect_again("a client");
    scene.subscribe(client, "s", topic("news"));
    let link = scene.attach_receiver(client, "slow", Some(topic("new*")));
    scene.detach((client, link));
    let to = scene.topic_publisher("news");
    for text in ["a", "b"] {
        scene.publish(to, text);
    }
    scene.commit();
    scene.settle(client, "a", Outcome::Accepted);
    scene.commit();

    let mut scene = scene.take_over();
    let to = scene.topic_publisher("news");
    scene.publish(to, "c");
    scene.commit();
    let stranger = scene.connect_again("a stranger");
    scene.subscribe(stranger, "s", topic("news"));
    scene.check(stranger, "");
    let client = scene.connect_again("a client");
    scene.subscribe(client, "s", topic("news"));
    scene.check(client, "got b x1, got c");
    scene.pass(21_000);
    scene.publish(to, "d");
    scene.commit();
    scene.check(client, "got d");
    scene.check(stranger, "got d");
    assert_eq!(scene.node.status().subscriptions, 2);
}

#[test]
fn a_subscription_whose_client_does_not_come_back_is_removed_for_good() {
    let mut scene = Scene::new();
    let client = scene.connect_again("a client");
    scene.subscribe(client, "s", topic("news"));
    scene.subscribe(client, "d", durable("news"));
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    let mut scene = scene.take_over();
    assert_eq!(scene.waiting(), 2);
    scene.pass(21_000);
    scene.commit();
    assert_eq!(scene.node.status().subscriptions, 1);
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(scene.node.status().subscriptions, 1, "the durable one");
    assert_eq!(scene.waiting(), 1);
}

#[test]
fn a_durable_subscription_keeps_messages_for_its_client() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("px.>"));
    scene.lose(client);
    let to = scene.topic_publisher("px.ibm");
    scene.publish(to, "a");
    scene.commit();

    let mut scene = scene.take_over();
    scene.pass(21_000);
    scene.commit();
    let to = scene.topic_publisher("px.ibm");
    scene.publish(to, "b");
    scene.commit();
    let other = scene.connect_again("c2");
    scene.subscribe(other, "d", durable("px.>"));
    scene.check(other, "");
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("px.>"));
    // It had a consumer when the server died: what was there may have been delivered.
    scene.check(client, "got a x1, got b");
}

#[test]
fn a_durable_subscription_has_one_active_consumer() {
    let mut scene = Scene::new();
    let first = scene.connect_again("c1");
    scene.subscribe(first, "d", durable("news"));
    let second = scene.connect_again("c1");
    scene.subscribe(second, "d", durable("news"));
    scene.check(second, "detached amqp:resource-locked");
    scene.unsubscribe(second, "d");
    scene.check(second, "detached amqp:resource-locked");
    scene.check(first, "");
    // A client that has been silent for long is one that is gone.
    scene.pass(25_000);
    let third = scene.connect_again("c1");
    scene.subscribe(third, "d", durable("news"));
    scene.check(first, "closed amqp:connection:forced");
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    scene.check(third, "got a");
    assert_eq!(scene.node.status().subscriptions, 1);
}

#[test]
fn another_topic_makes_another_subscription() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("old"));
    scene.lose(client);
    let to = scene.topic_publisher("old");
    scene.publish(to, "a");
    scene.commit();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("new"));
    scene.rest();
    scene.check(client, "");
    assert_eq!(scene.topics(), ["new"]);
    assert_eq!(scene.waiting(), 0);
}

#[test]
fn unsubscribing_is_done_through_a_link_without_source_or_by_closing() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.unsubscribe(client, "d");
    scene.check(client, "detached amqp:not-found");
    scene.subscribe(client, "d", durable("news"));
    scene.lose(client);
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    let client = scene.connect_again("c1");
    let link = scene.attach_receiver(client, "d", None);
    assert_eq!(scene.clients[client].addresses[&link], "news");
    assert_eq!(scene.topics(), ["news"], "it was only looked up");
    scene.detach((client, link));
    scene.rest();
    assert_eq!((scene.topics().len(), scene.waiting()), (0, 0));
    // Closing the link of a consumer, as opposed to detaching it, unsubscribes too.
    let link = scene.subscribe(client, "d", durable("news"));
    assert_eq!(scene.topics(), ["news"]);
    scene.detach(link);
    assert_eq!(scene.topics().len(), 0);
}

#[test]
fn one_that_comes_again_waits_for_the_batch_on_its_way_and_not_for_the_next() {
    let mut scene = Scene::new();
    let to = scene.publisher("q");
    scene.commit();
    let client = scene.connect_again("c1");
    scene.attach_receiver(client, "d", Some(durable("news")));
    let now = scene.now();
    let job = scene.node.poll_job(now).expect("a batch");
    scene.publish(to, "a");
    scene.lose(client);
    let client = scene.connect_again("c1");
    let link = scene.attach_receiver(client, "d", Some(durable("news")));
    assert!(!scene.clients[client].addresses.contains_key(&link));
    scene.node.complete(job.run()).expect("the disk is well");
    scene.node.advance(now);
    scene.exchange();
    assert_eq!(scene.clients[client].addresses[&link], "news");
    scene.check(to.0, "");
    scene.commit();
    scene.check(to.0, "accepted");
}

#[test]
fn unsubscribing_is_answered_when_it_is_durable() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    let closing = scene.subscribe(client, "d", durable("news"));
    scene.detach(closing);
    assert_eq!(scene.clients[client].detached, []);
    // It dies before it has said anything: its successor has the subscription.
    let mut scene = scene.take_over();
    assert_eq!(scene.topics(), ["news"]);
    let client = scene.connect_again("c1");
    let looked_up = scene.attach_receiver(client, "d", None);
    scene.detach((client, looked_up));
    assert_eq!(scene.clients[client].detached, []);
    scene.commit();
    assert_eq!(scene.clients[client].detached, [looked_up]);
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(scene.topics().len(), 0);
    // What is not deleted is answered at once.
    let client = scene.connect_again("c1");
    let (_, first) = scene.subscribe(client, "s", topic("news"));
    scene.detach((client, first));
    assert_eq!(scene.clients[client].detached, [first]);
}

#[test]
fn a_link_that_is_closed_before_it_was_answered_is_answered_when_its_end_is_durable() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    let link = scene.attach_receiver(client, "d", Some(durable("news")));
    scene.detach((client, link));
    assert_eq!(scene.clients[client].detached, []);
    scene.commit();
    assert_eq!(scene.clients[client].detached, [link]);
    assert_eq!(scene.topics().len(), 0);
}

#[test]
fn what_an_administrator_deletes_is_gone_for_good_with_a_batch() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("news"));
    scene.subscribe(client, "e", durable("news"));
    let now = scene.now();
    assert_eq!(
        scene.node.delete_durable(now, "d", "c1", "bob"),
        Deletion::Missing
    );
    let deletion = scene.node.delete_durable(now, "d", "c1", "");
    assert!(matches!(deletion, Deletion::Read(_)), "{deletion:?}");
    scene.lose(client);
    let deleted = scene.node.delete_durable(now, "d", "c1", "ann");
    let Deletion::Deleted(_, Some(ticket)) = deleted else {
        panic!("{deleted:?}");
    };
    assert!(!scene.node.is_safe(now, ticket));
    scene.commit();
    assert!(scene.node.is_safe(now, ticket));
    let (gone, kept, ticket) = scene.node.delete_all_durables(now);
    assert_eq!((gone.queues, kept), (1, 0));
    let ticket = ticket.expect("the log takes it");
    assert!(!scene.node.is_safe(now, ticket));
    scene.commit();
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(scene.topics().len(), 0);
}

#[test]
fn two_users_of_one_container_are_two_clients() {
    let mut scene = Scene::new();
    let connect = |scene: &mut Scene, user| {
        let settings = Settings {
            desired_capabilities: vec![Symbol::from("sole-connection-for-container")],
            ..Settings::default()
        };
        scene.connect_with("c1", settings, plain(user))
    };
    let ann = connect(&mut scene, "ann");
    scene.subscribe(ann, "d", durable("news"));
    scene.pass(25_000);
    // However silent ann is: bob neither displaces her nor reads, nor deletes what is hers.
    let bob = connect(&mut scene, "bob");
    scene.check(ann, "");
    scene.unsubscribe(bob, "d");
    scene.check(bob, "detached amqp:not-found");
    scene.subscribe(bob, "d", durable("news"));
    scene.check(ann, "");
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    scene.check(ann, "got a");
    scene.check(bob, "got a");
    scene.settle(bob, "a", Outcome::Accepted);
    scene.commit();

    let mut scene = scene.take_over();
    let bob = connect(&mut scene, "bob");
    scene.subscribe(bob, "d", durable("news"));
    scene.check(bob, "");
    let ann = connect(&mut scene, "ann");
    scene.subscribe(ann, "d", durable("news"));
    scene.check(ann, "got a x1");
    assert_eq!(scene.topics().len(), 2);
}

#[test]
fn a_silent_reader_gives_way_to_its_own_client_only() {
    let mut scene = Scene::new();
    scene.configure(configured_durable("news"));
    let ann = scene.connect_with("c1", Settings::default(), plain("ann"));
    scene.subscribe(ann, "d", durable("news"));
    scene.pass(25_000);
    let bob = scene.connect_with("c1", Settings::default(), plain("bob"));
    scene.subscribe(bob, "d", durable("news"));
    scene.check(bob, "detached amqp:resource-locked");
    scene.check(ann, "");
    let again = scene.connect_with("c1", Settings::default(), plain("ann"));
    scene.pass(25_000);
    scene.subscribe(again, "d", durable("news"));
    scene.check(ann, "closed amqp:connection:forced");
    scene.check(again, "");
}

#[test]
fn a_subscription_of_an_older_version_belongs_to_the_first_user_who_comes_for_it() {
    let mut scene = Scene::new();
    let nobody = scene.connect_with("c1", Settings::default(), ClientSasl::Anonymous);
    scene.subscribe(nobody, "d", durable("news"));
    scene.lose(nobody);
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    let row = |scene: &Scene| {
        let mut rows = scene.node.store.rows(records::KIND_SUBSCRIPTION);
        let (key, value) = rows.next().expect("there is one");
        (key.to_vec(), records::SubscriptionRow::decode(value))
    };
    let (key, decoded) = row(&scene);
    let older = decoded.expect("it can be read").encode_as_first();
    let written = scene
        .node
        .store
        .put_row(records::KIND_SUBSCRIPTION, &key, &older);
    assert!(written.is_ok());
    scene.commit();

    let mut scene = scene.take_over();
    let ann = scene.connect_with("c1", Settings::default(), plain("ann"));
    let link = scene.attach_receiver(ann, "d", Some(durable("news")));
    scene.credit((ann, link), 1);
    assert!(
        !scene.clients[ann].addresses.contains_key(&link),
        "it is hers when that is durable"
    );
    scene.rest();
    scene.check(ann, "got a");
    let user = row(&scene).1.and_then(|row| row.user);
    assert_eq!(user.as_deref(), Some("ann"));
    let mut scene = scene.take_over();
    let bob = scene.connect_with("c1", Settings::default(), plain("bob"));
    scene.subscribe(bob, "d", durable("news"));
    scene.check(bob, "");
    assert_eq!(scene.topics().len(), 2);
}

#[test]
fn connections_without_a_container_id_share_nothing() {
    let mut scene = Scene::new();
    let first = scene.connect_again("");
    let dynamic = Source {
        dynamic: true,
        ..Source::default()
    };
    let link = scene.receiver(first, dynamic, 10);
    let address = scene.clients[first].addresses[&link].clone();
    let second = scene.connect_again("");
    scene.receiver(second, Source::at(&address), 10);
    scene.check(second, "detached amqp:not-allowed");
    // What one publishes is not the other's own.
    let source = Source {
        filter: vec![(
            Symbol::from("no-local"),
            Value::String(String::from("NoLocalFilter{}")),
        )],
        ..topic("news")
    };
    scene.subscribe(first, "s", source);
    let target = Target {
        capabilities: vec![Symbol::from("topic")],
        ..Target::at("news")
    };
    let own = (first, scene.attach_sender(first, target.clone(), "p"));
    let other = (second, scene.attach_sender(second, target, "p"));
    scene.publish(own, "mine");
    scene.publish(other, "theirs");
    scene.commit();
    scene.check(first, "accepted, got theirs");
    // The end of one is not the end of the other's queue.
    scene.lose(second);
    scene.rest();
    let waiting = scene.node.queue_status().into_iter();
    assert_eq!(waiting.filter(|it| it.is_temporary).count(), 1);
}

#[test]
fn the_end_of_a_subscription_is_durable_before_its_messages_go() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("news"));
    let other = scene.connect_again("c2");
    scene.subscribe(other, "d", durable("news"));
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    scene.lose(client);
    let client = scene.connect_again("c1");
    scene.unsubscribe(client, "d");
    let now = scene.now();
    let job = scene.node.poll_job(now).expect("the log has a batch");
    assert!(scene.node.complete(job.run()).is_ok());
    // The process dies before it has removed anything.
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(scene.topics(), ["news"]);
    assert_eq!(scene.node.subscription_status()[0].client, "c2");
    assert_eq!(scene.waiting(), 1);
    let rows = scene.node.store.rows(records::KIND_SUBSCRIPTION).count();
    assert_eq!(rows, 1);
}

#[test]
fn a_message_on_its_way_does_not_outlive_a_subscription_that_goes_with_its_client() {
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "s", topic("news"));
    let to = scene.topic_publisher("news");
    scene.commit();
    let now = scene.now();
    scene.publish(to, "a");
    let job = scene.node.poll_job(now).expect("the batch of the message");
    scene.lose(client);
    while let Some(task) = scene.node.poll_read() {
        scene.node.read_done(now, task.run());
    }
    assert!(scene.node.complete(job.run()).is_ok());
    let next = scene
        .node
        .poll_job(now)
        .expect("the end of the subscription");
    scene.node.advance(now);
    assert!(scene.node.complete(next.run()).is_ok());
    // The process dies before more is durable.
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(scene.topics().len(), 0);
    assert_eq!(scene.node.status().store.messages, 0);
}

#[test]
fn a_subscriber_need_not_get_what_it_publishes_itself() {
    let no_local = |source: Source| Source {
        filter: vec![(
            Symbol::from("no-local"),
            Value::String(String::from("NoLocalFilter{}")),
        )],
        ..source
    };
    let mut scene = Scene::new();
    let client = scene.connect_again("c1");
    scene.subscribe(client, "s", no_local(topic("news")));
    scene.subscribe(client, "d", no_local(durable("news")));
    let target = Target {
        capabilities: vec![Symbol::from("topic")],
        ..Target::at("news")
    };
    let own = (client, scene.attach_sender(client, target, "p"));
    let other = scene.topic_publisher("news");
    scene.publish(own, "mine");
    scene.publish(other, "theirs");
    scene.commit();
    scene.check(client, "accepted, got theirs, got theirs");
    assert_eq!(scene.waiting(), 2);
    scene.lose(client);
    // Another filter makes another subscription, as another topic does.
    let client = scene.connect_again("c1");
    scene.subscribe(client, "d", durable("news"));
    scene.rest();
    scene.check(client, "");
    assert_eq!(scene.topics().len(), 1);
}

#[test]
fn configured_durables_exist_from_the_start() {
    let entry = |topic: &str, name: &str, client: &str| Durable {
        topic: pattern(topic),
        name: name.to_owned(),
        client_id: client.to_owned(),
        no_local: false,
        is_route: false,
    };
    let directory = |durables| Directory {
        durables,
        ..Directory::default()
    };
    let all = vec![entry("px.>", "d1", "c1"), entry("px.ibm", "d2", "")];
    let mut scene = Scene::new();
    scene.configure(directory(all.clone()));
    let to = scene.topic_publisher("px.ibm");
    scene.publish(to, "a");
    scene.commit();
    scene.rest();
    assert_eq!(scene.waiting(), 2);

    let mut scene = scene.take_over();
    scene.configure(directory(all));
    assert_eq!(scene.topics(), ["px.>", "px.ibm"]);
    let client = scene.connect_again("c1");
    let link = scene.subscribe(client, "d1", durable("px.>"));
    scene.check(client, "got a");
    scene.settle(client, "a", Outcome::Accepted);
    scene.detach(link);
    assert_eq!(scene.topics().len(), 2, "closing a link does not remove it");
    scene.subscribe(client, "d1", durable("other"));
    scene.unsubscribe(client, "d1");
    let refused = ["detached amqp:not-allowed"; 2].join(", ");
    scene.check(client, &refused);
    let anybody = scene.connect_again("anybody");
    scene.subscribe(anybody, "d2", durable("px.ibm"));
    scene.check(anybody, "got a");
    // Without its line it is one like others.
    scene.configure(directory(Vec::new()));
    assert_eq!(scene.topics().len(), 2);
    scene.unsubscribe(client, "d1");
    scene.rest();
    assert_eq!(scene.topics(), ["px.ibm"]);
}

#[test]
fn a_durable_subscription_needs_a_client_id() {
    let mut scene = Scene::new();
    let nobody = scene.connect_again("");
    scene.subscribe(nobody, "d", durable("news"));
    scene.check(nobody, "detached amqp:not-allowed");
    scene.subscribe(nobody, "s", topic("news"));
    scene.check(nobody, "");
    assert_eq!(scene.topics().len(), 1);
}

#[test]
fn a_client_that_returns_in_the_last_moment_finds_its_state_when_it_attaches() {
    let mut scene = Scene::new();
    let client = scene.connect_again("a client");
    scene.subscribe(client, "s", topic("news"));
    let link = scene.attach_receiver(client, "q", Some(Source::at("orders")));
    scene.credit((client, link), 1);
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    let orders = scene.publisher("orders");
    scene.publish(orders, "b");
    scene.commit();
    scene.rest();
    scene.check(client, "got a, got b");

    let mut scene = scene.take_over();
    scene.pass(19_999);
    let other = scene.consumer("orders", 10);
    let client = scene.connect_again("a client");
    scene.pass(1);
    scene.commit();
    scene.check(other.0, "");
    scene.subscribe(client, "s", topic("news"));
    let link = scene.attach_receiver(client, "q", Some(Source::at("orders")));
    scene.credit((client, link), 1);
    scene.commit();
    scene.check(client, "got a x1, got b x1");
}

#[test]
fn what_a_returned_client_does_not_come_for_goes_a_little_later() {
    let mut scene = Scene::new();
    let client = scene.connect_again("a client");
    scene.subscribe(client, "s", topic("news"));
    scene.attach_receiver(client, "q", Some(Source::at("orders")));
    let link = scene.attach_receiver(client, "r", Some(Source::at("orders")));
    scene.credit((client, link), 1);
    let orders = scene.publisher("orders");
    scene.publish(orders, "b");
    scene.commit();
    scene.rest();

    let mut scene = scene.take_over();
    scene.connect_again("a client");
    let other = scene.consumer("orders", 10);
    scene.pass(20_000);
    scene.commit();
    scene.pass(4_000);
    scene.check(other.0, "");
    assert_eq!(scene.topics().len(), 1);
    scene.pass(2_000);
    scene.commit();
    scene.check(other.0, "got b x1");
    assert_eq!(scene.topics().len(), 0);
}

/// A configuration with the durable subscription `d` of the client `c1`.
fn configured_durable(topic: &str) -> Directory {
    Directory {
        durables: vec![Durable {
            topic: pattern(topic),
            name: "d".to_owned(),
            client_id: "c1".to_owned(),
            no_local: false,
            is_route: false,
        }],
        ..Directory::default()
    }
}

/// Topics, users and whether the configuration names them, of those who have one.
fn of_users(scene: &Scene) -> Vec<(String, Option<String>, bool)> {
    let all = scene.node.subscription_status().into_iter();
    all.map(|it| (it.topic, it.user, it.is_static)).collect()
}

#[test]
fn a_configured_durable_takes_nothing_from_the_users_of_its_client() {
    let mut scene = Scene::new();
    let ann = scene.connect_with("c1", Settings::default(), plain("ann"));
    scene.subscribe(ann, "d", durable("news"));
    let to = scene.topic_publisher("news");
    scene.publish(to, "a");
    scene.commit();
    scene.check(ann, "got a");
    let has = |topic: &str, user: &str, is_static| {
        let user = (!user.is_empty()).then(|| user.to_owned());
        (topic.to_owned(), user, is_static)
    };
    // The only one of its name, but to another topic, and read.
    scene.configure(configured_durable("px.ibm"));
    let both = [has("news", "ann", false), has("px.ibm", "", true)];
    assert_eq!(of_users(&scene), both);
    scene.check(ann, "");
    scene.lose(ann);
    scene.rest();
    assert_eq!(scene.waiting(), 1);
    let mut scene = scene.take_over();
    scene.configure(configured_durable("px.ibm"));
    assert_eq!(of_users(&scene), both);
    // The file's own may be to another topic: then it is another one.
    scene.configure(configured_durable("px.>"));
    let both = [has("news", "ann", false), has("px.>", "", true)];
    assert_eq!(of_users(&scene), both);
    let bob = scene.connect_with("c1", Settings::default(), plain("bob"));
    scene.subscribe(bob, "d", durable("px.>"));
    let ann = scene.connect_with("c1", Settings::default(), plain("ann"));
    scene.subscribe(ann, "d", durable("news"));
    let to = scene.topic_publisher("px.sun");
    scene.publish(to, "b");
    scene.commit();
    scene.check(ann, "got a x1");
    scene.check(bob, "got b");
}

#[test]
fn the_only_durable_of_a_users_client_becomes_the_configured_one_and_stays_it() {
    let mut scene = Scene::new();
    let ann = scene.connect_with("c1", Settings::default(), plain("ann"));
    scene.subscribe(ann, "d", durable("news"));
    scene.configure(configured_durable("news"));
    let user = |name: &str| Some(name.to_owned());
    let adopted = ("news".to_owned(), user("ann"), true);
    assert_eq!(of_users(&scene), std::slice::from_ref(&adopted));
    let bob = scene.connect_with("c1", Settings::default(), plain("bob"));
    scene.subscribe(bob, "d", durable("news"));
    scene.configure(configured_durable("news"));
    let others = ("news".to_owned(), user("bob"), false);
    assert_eq!(of_users(&scene), [adopted, others]);
    // Of two none can be meant.
    scene.configure(Directory::default());
    scene.configure(configured_durable("news"));
    let all = of_users(&scene);
    assert_eq!(all[2], ("news".to_owned(), None, true), "{all:?}");
    assert!(!all[0].2 && !all[1].2, "{all:?}");
}
