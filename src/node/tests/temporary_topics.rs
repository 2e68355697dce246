//! Temporary topics: whose they are, and when they go.

use super::topics::topic;
use super::*;
use crate::node::clients::Identity;
use crate::node::records::{KIND_TEMPORARY_TOPIC, TemporaryTopicRow, queue_key};
use crate::proto::Symbol;

fn capability() -> Vec<Symbol> {
    vec![Symbol::from("temporary-topic")]
}

/// What Qpid JMS asks for: a link that publishes, and with which the topic goes.
fn wanted() -> Target {
    Target {
        dynamic: true,
        capabilities: capability(),
        ..Target::default()
    }
}

fn client(scene: &mut Scene, container: &str) -> usize {
    scene.connect_as(container, Settings::default())
}

/// A client with a temporary topic; the link that made it, and the address.
fn owner(scene: &mut Scene, container: &str) -> (usize, LinkId, String) {
    let client = client(scene, container);
    let link = scene.attach_sender(client, wanted(), "creator");
    scene.commit();
    (client, link, scene.clients[client].addresses[&link].clone())
}

fn topics(scene: &Scene) -> Vec<String> {
    scene.node.temporary_topic_names()
}

fn reader(scene: &mut Scene, client: usize, address: &str) -> LinkId {
    let link = scene.receiver(client, topic(address), 10);
    scene.commit();
    link
}

/// A client that publishes to what it was told.
fn teller(scene: &mut Scene, address: &str) -> (usize, LinkId) {
    let client = scene.connect();
    let target = Target {
        capabilities: capability(),
        ..Target::at(address)
    };
    (client, scene.attach_sender(client, target, "teller"))
}

#[test]
fn each_subscription_of_its_client_gets_what_anybody_sends() {
    let mut scene = Scene::new();
    let (first, _, address) = owner(&mut scene, "c");
    let second = client(&mut scene, "c");
    reader(&mut scene, first, &address);
    reader(&mut scene, second, &address);
    let to = teller(&mut scene, &address);
    scene.publish(to, "a");
    let plain = scene.connect();
    // Without a word about its kind: a reply to an address that a message named.
    let link = scene.sender(plain, Some(&address));
    scene.publish((plain, link), "b");
    scene.commit();
    scene.check(first, "got a, got b");
    scene.check(second, "got a, got b");
    let other = client(&mut scene, "d");
    reader(&mut scene, other, &address);
    scene.check(other, "detached amqp:not-allowed");
    reader(&mut scene, other, "$TMP$.>");
    scene.check(other, "detached amqp:not-found");
}

#[test]
fn a_temporary_topic_goes_with_its_link_and_takes_its_subscriptions_along() {
    let mut scene = Scene::new();
    let (asks, link, address) = owner(&mut scene, "c");
    let reads = client(&mut scene, "c");
    reader(&mut scene, reads, &address);
    let to = teller(&mut scene, &address);
    scene.publish(to, "1");
    scene.commit();
    scene.check(reads, "got 1");
    scene.check(to.0, "accepted");
    scene.detach((asks, link));
    scene.commit();
    scene.check(reads, "detached amqp:resource-deleted");
    assert!(topics(&scene).is_empty());
    scene.publish(to, "2");
    scene.commit();
    scene.check(to.0, "rejected amqp:not-found");
    let late = teller(&mut scene, &address);
    scene.check(late.0, "detached amqp:not-found");
    let status = scene.node.status();
    assert_eq!((status.subscriptions, status.store.messages), (0, 0));
}

#[test]
fn a_link_that_reads_from_a_new_temporary_topic_owns_it() {
    let mut scene = Scene::new();
    let asks = client(&mut scene, "c");
    let source = Source {
        dynamic: true,
        capabilities: capability(),
        ..Source::default()
    };
    let link = scene.receiver(asks, source, 10);
    scene.commit();
    let address = scene.clients[asks].addresses[&link].clone();
    assert_eq!(topics(&scene), std::slice::from_ref(&address));
    let to = teller(&mut scene, &address);
    scene.publish(to, "1");
    scene.commit();
    scene.check(asks, "got 1");
    scene.detach((asks, link));
    scene.rest();
    let status = scene.node.status();
    assert!(topics(&scene).is_empty());
    assert_eq!((status.subscriptions, status.store.messages), (0, 0));
}

#[test]
fn the_last_connection_of_a_client_takes_its_topics_along_for_good() {
    let mut scene = Scene::new();
    let (first, _, address) = owner(&mut scene, "c");
    let second = client(&mut scene, "c");
    reader(&mut scene, second, &address);
    scene.lose(second);
    scene.commit();
    assert_eq!(topics(&scene).len(), 1);
    scene.lose(first);
    scene.commit();
    assert!(topics(&scene).is_empty());
    let scene = scene.take_over();
    assert!(topics(&scene).is_empty());
    assert_eq!(scene.node.status().reconnect.expected, 0);
}

#[test]
fn c17_a_client_that_returns_has_its_temporary_topic_under_the_same_name() {
    let mut scene = Scene::new();
    let (_, _, address) = owner(&mut scene, "c");
    let mut scene = scene.take_over();
    assert_eq!(topics(&scene), std::slice::from_ref(&address));
    // Others may send while its client is on its way; nobody has subscribed.
    let to = teller(&mut scene, &address);
    scene.publish(to, "early");
    scene.commit();
    scene.check(to.0, "accepted");
    let back = client(&mut scene, "c");
    let name = format!("qpid-jms:temp-topic-creator:{address}");
    let link = scene.attach_sender_named(back, wanted(), &name);
    scene.commit();
    assert_eq!(scene.clients[back].addresses[&link], address);
    reader(&mut scene, back, &address);
    scene.publish(to, "reply");
    scene.commit();
    scene.check(back, "got reply");
    scene.pass(20_000);
    scene.rest();
    assert_eq!(
        topics(&scene),
        std::slice::from_ref(&address),
        "its link stands for it"
    );
    scene.detach((back, link));
    scene.commit();
    assert!(topics(&scene).is_empty());
}

#[test]
fn nobody_takes_up_the_temporary_topic_of_another_client() {
    let mut scene = Scene::new();
    let (_, _, address) = owner(&mut scene, "c");
    let mut scene = scene.take_over();
    let thief = client(&mut scene, "d");
    let name = format!("qpid-jms:temp-topic-creator:{address}");
    let link = scene.attach_sender_named(thief, wanted(), &name);
    scene.commit();
    assert_ne!(scene.clients[thief].addresses[&link], address);
    assert_eq!(topics(&scene).len(), 2);
    let name = format!("qpid-jms:temp-queue-creator:{address}");
    let queue = Target {
        dynamic: true,
        ..Target::default()
    };
    let link = scene.attach_sender_named(thief, queue, &name);
    scene.commit();
    assert_ne!(
        scene.clients[thief].addresses[&link], address,
        "nor as a queue"
    );
}

#[test]
fn c19_the_temporary_topic_of_a_client_that_does_not_return_is_removed_once_and_for_good() {
    let mut scene = Scene::new();
    let (reads, _, address) = owner(&mut scene, "c");
    reader(&mut scene, reads, &address);
    let to = teller(&mut scene, &address);
    scene.publish(to, "1");
    scene.commit();
    // A client that returns and does not come for its topic.
    let (_, _, other) = owner(&mut scene, "forgets");
    let mut scene = scene.take_over();
    client(&mut scene, "forgets");
    scene.pass(19_999);
    scene.commit();
    assert_eq!(topics(&scene).len(), 2);
    scene.pass(1);
    scene.commit();
    assert_eq!(topics(&scene), [other], "its client has a little longer");
    scene.rest();
    assert!(topics(&scene).is_empty());
    let status = scene.node.status();
    assert_eq!((status.subscriptions, status.store.messages), (0, 0));
    let scene = scene.take_over();
    assert!(topics(&scene).is_empty());
}

#[test]
fn a_takeover_in_the_middle_of_the_removal_finishes_it() {
    let mut scene = Scene::new();
    let (reads, _, address) = owner(&mut scene, "c");
    reader(&mut scene, reads, &address);
    let to = teller(&mut scene, &address);
    scene.publish(to, "1");
    scene.commit();
    let mut scene = scene.take_over();
    scene.pass(20_000);
    // The state is void with this batch, and what goes behind it is lost.
    let now = scene.now();
    let job = scene.node.poll_job(now).expect("a batch");
    scene.node.complete(job.run()).expect("the disk works");
    let mut scene = scene.take_over();
    scene.commit();
    assert!(topics(&scene).is_empty());
    let status = scene.node.status();
    assert_eq!((status.subscriptions, status.store.messages), (0, 0));
}

fn queue_wanted() -> Target {
    Target {
        dynamic: true,
        ..Target::default()
    }
}

/// A client makes a temporary destination of which it says that it had it before; returns where it is.
fn made_again(scene: &mut Scene, client: usize, target: Target, former: &str) -> String {
    let kind = match target.capabilities.is_empty() {
        true => "queue",
        false => "topic",
    };
    let name = format!("qpid-jms:temp-{kind}-creator:{former}");
    let link = scene.attach_sender_named(client, target, &name);
    scene.commit();
    scene.clients[client].addresses[&link].clone()
}

fn victims() -> impl Iterator<Item = String> {
    (0..20).map(|number| format!("victim {number}"))
}

fn identity(container: &str) -> Identity {
    Identity {
        container: container.to_owned(),
        user: Some("ann".to_owned()),
    }
}

/// Temporary destinations that do not exist yet, as their owners will have them and as somebody else guesses.
fn future_names(scene: &Scene) -> Vec<String> {
    let numbers = || scene.node.next_queue..scene.node.next_queue + 200;
    let (node, epoch) = (&scene.node, scene.node.store.epoch());
    let names = victims().flat_map(|client| {
        let client = identity(&client);
        numbers()
            .step_by(7)
            .map(move |number| node.temporary_name_of(&client, epoch, number))
    });
    let unmarked = numbers().map(|number| format!("$TMP$.east.{epoch:x}.{number}"));
    names.chain(unmarked).collect()
}

#[test]
fn nobody_gets_what_is_sent_to_a_temporary_topic_whose_name_it_guessed() {
    let mut scene = Scene::new();
    let mallory = client(&mut scene, "mallory");
    let (number, epoch) = (scene.node.next_queue + 50, scene.node.store.epoch());
    let mut names = future_names(&scene);
    names.insert(
        0,
        scene
            .node
            .temporary_name_of(&identity("mallory"), epoch, number),
    );
    for name in names.iter().step_by(5) {
        let got = made_again(&mut scene, mallory, wanted(), name);
        assert_ne!(got, *name);
        reader(&mut scene, mallory, &got);
    }
    for victim in victims() {
        let (owner, _, private) = owner(&mut scene, &victim);
        reader(&mut scene, owner, &private);
        let to = teller(&mut scene, &private);
        scene.publish(to, &victim);
        scene.commit();
        scene.check(owner, &format!("got {victim}"));
    }
    scene.check(mallory, "");
}

#[test]
fn the_temporary_queues_of_others_are_reached_whatever_names_somebody_guessed() {
    let mut scene = Scene::new();
    let mallory = client(&mut scene, "mallory");
    let names = future_names(&scene);
    for (index, name) in names.iter().step_by(5).enumerate() {
        let target = if index % 2 == 0 {
            queue_wanted()
        } else {
            wanted()
        };
        let got = made_again(&mut scene, mallory, target, name);
        assert_ne!(got, *name);
    }
    let mut owners = Vec::new();
    for victim in victims() {
        let owner = client(&mut scene, &victim);
        let private = made_again(&mut scene, owner, queue_wanted(), "ID:1:1");
        scene.receiver(owner, Source::at(&*private), 10);
        owners.push((owner, private));
    }
    for said in ["before", "after"] {
        for (owner, private) in &owners {
            let to = scene.publisher(private);
            scene.publish(to, said);
            scene.commit();
            scene.check(*owner, &format!("got {said}"));
        }
        scene.lose(mallory);
        scene.rest();
    }
}

#[test]
fn the_former_address_of_a_client_that_is_gone_is_for_nobody_else() {
    for target in [queue_wanted, wanted] {
        let mut scene = Scene::new();
        let first = client(&mut scene, "c");
        let address = made_again(&mut scene, first, target(), "ID:1:1");
        scene.lose(first);
        scene.rest();
        let thief = client(&mut scene, "d");
        assert_ne!(made_again(&mut scene, thief, target(), &address), address);
        let nameless = client(&mut scene, "");
        assert_ne!(
            made_again(&mut scene, nameless, target(), &address),
            address
        );
        let back = client(&mut scene, "c");
        assert_eq!(made_again(&mut scene, back, target(), &address), address);
        // Nor when its state is not kept any more.
        let mut scene = scene.take_over();
        scene.pass(20_000);
        scene.rest();
        let thief = client(&mut scene, "d");
        assert_ne!(made_again(&mut scene, thief, target(), &address), address);
        let back = client(&mut scene, "c");
        assert_eq!(made_again(&mut scene, back, target(), &address), address);
        let other_spelling = address.replace("east.1.", "east.01.");
        let again = made_again(&mut scene, back, target(), &other_spelling);
        assert!(again != address && again != other_spelling);
    }
}

#[test]
fn of_two_temporary_topics_with_one_name_in_the_store_one_is_left_without_readers() {
    let mut scene = Scene::new();
    let (first, _, address) = owner(&mut scene, "c");
    let (second, _, _) = owner(&mut scene, "d");
    reader(&mut scene, first, &address);
    let owner = scene.node.client_of(scene.clients[second].id).unwrap();
    let number = scene.node.temporary_topics.of(owner).next().unwrap();
    let row = TemporaryTopicRow {
        name: Arc::from(&*address),
        owner: Some(owner),
    };
    let (key, value) = (queue_key(number.0), row.encode().unwrap());
    let put = scene.node.store.put_row(KIND_TEMPORARY_TOPIC, &key, &value);
    assert!(put.is_ok());
    scene.commit();
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(topics(&scene), std::slice::from_ref(&address));
    assert_eq!(scene.node.status().subscriptions, 0);
    let second = client(&mut scene, "d");
    reader(&mut scene, second, &address);
    scene.check(second, "detached amqp:not-allowed");
    let first = client(&mut scene, "c");
    reader(&mut scene, first, &address);
    let to = teller(&mut scene, &address);
    scene.publish(to, "a");
    scene.commit();
    scene.check(first, "got a");
}
