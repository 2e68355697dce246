//! Clients, what they own, and when it goes.

use super::*;
use crate::model::{Pattern, Properties};

fn dynamic() -> Source {
    Source {
        dynamic: true,
        ..Source::default()
    }
}

/// A client of this container.
fn client(scene: &mut Scene, container: &str) -> usize {
    scene.connect_as(container, Settings::default())
}

/// A client with a temporary queue, and its address.
fn owner(scene: &mut Scene, container: &str) -> (usize, String) {
    let client = client(scene, container);
    let link = scene.receiver(client, dynamic(), 0);
    scene.commit();
    (client, scene.clients[client].addresses[&link].clone())
}

/// Expected, returned, expired.
fn reconnect(scene: &Scene) -> (u64, u64, u64) {
    let it = scene.node.status().reconnect;
    (it.expected, it.returned, it.expired)
}

/// Makes durable what there is, and does none of what follows from it.
fn write_only(scene: &mut Scene) {
    while let Some(job) = scene.node.poll_job(scene.now()) {
        scene.node.complete(job.run()).expect("a sound disk");
    }
}

fn is_waiting(scene: &Scene) -> bool {
    let reconnect = scene.node.status().reconnect;
    reconnect.deadline_at_ms.is_some()
}

#[test]
fn a_message_on_its_way_does_not_outlive_a_temporary_queue() {
    let mut scene = Scene::new();
    let (client, address) = owner(&mut scene, "asker");
    let to = scene.publisher(&address);
    scene.commit();
    let now = scene.now();
    scene.publish(to, "reply");
    let job = scene.node.poll_job(now).expect("the batch of the message");
    scene.lose(client);
    assert!(scene.node.complete(job.run()).is_ok());
    // What goes becomes durable before the arrival of the message is looked at.
    write_only(&mut scene);
    // The process dies before more is durable.
    let mut scene = scene.take_over();
    scene.pass(21_000);
    scene.rest();
    assert_eq!(scene.node.status().queues, 0);
    assert_eq!(scene.node.status().store.messages, 0);
}

#[test]
fn any_connection_of_a_client_uses_its_temporary_queue_and_no_other_client_does() {
    let mut scene = Scene::new();
    let (first, address) = owner(&mut scene, "c");
    let second = client(&mut scene, "c");
    scene.receiver(second, Source::at(&*address), 1);
    let to = scene.publisher(&address);
    scene.publish(to, "1");
    scene.commit();
    scene.check(second, "got 1");
    let other = client(&mut scene, "d");
    scene.receiver(other, Source::at(&*address), 1);
    scene.check(other, "detached amqp:not-allowed");
    scene.lose(first);
    scene.commit();
    assert_eq!(scene.node.status().queues, 0);
}

#[test]
fn a_client_that_leaves_a_living_server_is_not_expected_by_the_next() {
    let mut scene = Scene::new();
    let (leaves, _) = owner(&mut scene, "leaves");
    let (breaks, _) = owner(&mut scene, "breaks");
    owner(&mut scene, "stays");
    scene.publisher("orders");
    scene.clients[leaves].connection.close(None);
    scene.exchange();
    scene.lose(breaks);
    scene.commit();
    let scene = scene.take_over();
    assert_eq!(reconnect(&scene), (1, 0, 0));
    assert!(is_waiting(&scene));
}

#[test]
fn nobody_is_expected_where_nobody_owned_anything() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "1");
    scene.commit();
    let scene = scene.take_over();
    assert_eq!(reconnect(&scene), (0, 0, 0));
    assert!(!is_waiting(&scene));
}

#[test]
fn who_does_not_return_in_time_is_removed_once_and_for_good() {
    let mut scene = Scene::new();
    let (_, kept) = owner(&mut scene, "kept");
    let (_, given_up) = owner(&mut scene, "given up");
    let mut scene = scene.take_over();
    assert_eq!(reconnect(&scene), (2, 0, 0));
    scene.pass(10_000);
    let back = client(&mut scene, "kept");
    scene.receiver(back, Source::at(&*kept), 1);
    scene.pass(9_999);
    scene.commit();
    assert_eq!(scene.node.status().queues, 2);
    scene.pass(1);
    assert_eq!(reconnect(&scene), (2, 1, 0), "nothing before it is durable");
    assert_eq!(scene.node.status().queues, 2);
    scene.commit();
    assert_eq!(reconnect(&scene), (2, 1, 1));
    scene.rest();
    let to = scene.publisher(&kept);
    scene.publish(to, "reply");
    scene.commit();
    scene.check(back, "got reply");
    let to = scene.connect();
    scene.sender(to, Some(&given_up));
    scene.check(to, "detached amqp:not-found");

    let scene = scene.take_over();
    assert_eq!(reconnect(&scene), (1, 0, 0));
    assert_eq!(scene.node.status().queues, 1);
}

#[test]
fn a_kill_before_the_removal_is_durable_starts_the_time_again() {
    let mut scene = Scene::new();
    owner(&mut scene, "c");
    let mut scene = scene.take_over();
    scene.pass(20_000);
    let mut scene = scene.take_over();
    assert_eq!(reconnect(&scene), (1, 0, 0));
    scene.pass(19_999);
    client(&mut scene, "c");
    assert_eq!(reconnect(&scene), (1, 1, 0));
}

#[test]
fn a_kill_behind_the_removal_finds_its_rest_and_removes_it() {
    let mut scene = Scene::new();
    let (_, address) = owner(&mut scene, "c");
    let to = scene.publisher(&address);
    scene.publish(to, "reply");
    scene.commit();
    let mut scene = scene.take_over();
    scene.pass(20_000);
    write_only(&mut scene);
    let mut scene = scene.take_over();
    assert_eq!(reconnect(&scene), (0, 0, 0));
    scene.rest();
    assert_eq!(scene.node.status().queues, 0);
    assert_eq!(scene.node.store.status().messages, 0);
}

#[test]
fn without_a_time_out_clients_are_removed_at_once() {
    let mut scene = Scene::new();
    owner(&mut scene, "c");
    scene.node.settings.reconnect_timeout_ms = 0;
    let mut scene = scene.take_over();
    scene.rest();
    assert_eq!(reconnect(&scene), (1, 0, 1));
    assert_eq!(scene.node.status().queues, 0);
}

#[test]
fn a_server_that_stops_leaves_to_its_successor_what_clients_own() {
    let mut scene = Scene::new();
    let (_, address) = owner(&mut scene, "c");
    let now = scene.now();
    scene.node.begin_stop(now);
    scene.node.close_connections();
    scene.exchange();
    scene.lose(0);
    scene.node.begin_seal();
    scene.commit();
    let mut scene = scene.take_over();
    assert_eq!(reconnect(&scene), (1, 0, 0));
    let back = client(&mut scene, "c");
    scene.receiver(back, Source::at(&*address), 1);
    scene.check(back, "");
    assert_eq!(reconnect(&scene), (1, 1, 0));
}

#[test]
fn too_many_clients_are_served_and_not_expected() {
    let settings = NodeSettings {
        clients_max: 1,
        ..node_settings()
    };
    let mut scene = Scene::with(settings, store_options());
    owner(&mut scene, "first");
    owner(&mut scene, "second");
    owner(&mut scene, "");
    assert_eq!(scene.node.status().queues, 3);
    let mut scene = scene.take_over();
    assert_eq!(reconnect(&scene), (1, 0, 0));
    scene.rest();
    assert_eq!(scene.node.status().queues, 1);
}

/// A queue with messages of which two clients have two each, written down.
fn two_holders() -> Scene {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    for text in ["1", "2", "3", "4", "5"] {
        scene.publish(to, text);
    }
    let a = scene.consumer_as("a", "orders", 2);
    let b = scene.consumer_as("b", "orders", 2);
    scene.commit();
    scene.check(a.0, "got 1, got 3");
    scene.check(b.0, "got 2, got 4");
    scene.rest();
    scene
}

#[test]
fn what_a_client_has_comes_to_it_again_and_to_nobody_else() {
    let mut scene = two_holders().take_over();
    assert_eq!(reconnect(&scene), (2, 0, 0));
    let other = scene.consumer_as("other", "orders", 10);
    scene.rest();
    scene.check(other.0, "got 5 x1");
    let b = scene.consumer_as("b", "orders", 10);
    scene.commit();
    scene.check(b.0, "got 2 x1, got 4 x1");
    let a = scene.consumer_as("a", "orders", 1);
    scene.commit();
    scene.check(a.0, "got 1 x1");
    // In order, before what is behind.
    let to = scene.publisher("orders");
    scene.publish(to, "6");
    scene.commit();
    scene.settle(a.0, "1", Outcome::Accepted);
    scene.credit(a, 1);
    scene.commit();
    scene.check(a.0, "got 3 x1");
    assert_eq!(scene.messages("orders"), 5);
    assert_eq!(reconnect(&scene), (2, 2, 0));
}

#[test]
fn a_purge_leaves_what_is_kept_and_what_clients_have_and_says_so() {
    let mut scene = two_holders().take_over();
    let a = scene.consumer_as("a", "orders", 1);
    scene.commit();
    scene.check(a.0, "got 1 x1");
    let now = scene.now();
    let all = Pattern::parse(">").expect("a pattern");
    let purge = scene.node.purge_queues(now, &all).expect("a queue");
    let expected = Dropped {
        queues: 1,
        messages: 1,
        kept: 3,
    };
    scene.exchange();
    let state = scene.node.purge_state(now, purge);
    assert_eq!(state, PurgeState::Running(expected), "it is not durable");
    scene.rest();
    let now = scene.now();
    let state = scene.node.purge_state(now, purge);
    assert_eq!(state, PurgeState::Done(expected));
    scene.node.forget_purge(purge);
    assert_eq!(scene.node.purge_state(now, purge), PurgeState::Over);
    assert_eq!(scene.messages("orders"), 4);
    scene.credit(a, 10);
    let b = scene.consumer_as("b", "orders", 10);
    scene.rest();
    scene.check(a.0, "got 3 x1");
    scene.check(b.0, "got 2 x1, got 4 x1");
    let now = scene.now();
    let purge = scene.node.purge_queues(now, &all).expect("a queue");
    let nothing = Dropped {
        queues: 1,
        messages: 0,
        kept: 0,
    };
    let state = scene.node.purge_state(now, purge);
    assert_eq!(state, PurgeState::Done(nothing));
}

#[test]
fn what_nobody_came_for_goes_to_others_when_that_is_durable() {
    let mut scene = two_holders().take_over();
    let other = scene.consumer_as("other", "orders", 10);
    // It returns without a consumer.
    client(&mut scene, "a");
    scene.commit();
    scene.pass(19_999);
    scene.commit();
    scene.check(other.0, "got 5 x1");
    scene.pass(1);
    scene.check(other.0, "");
    scene.commit();
    scene.check(other.0, "got 2 x1, got 4 x1");
    assert_eq!(reconnect(&scene), (2, 1, 1));
    // Who is back has a little longer to come for its own.
    scene.rest();
    scene.check(other.0, "got 1 x1, got 3 x1");
    let mut scene = scene.take_over();
    // The other one has them all, and "a" is connected.
    assert_eq!(reconnect(&scene), (2, 0, 0));
    let a = scene.consumer_as("a", "orders", 10);
    scene.commit();
    scene.check(a.0, "");
}

#[test]
fn a_client_that_is_back_and_leaves_again_gives_up_what_was_kept_for_it() {
    let mut scene = two_holders().take_over();
    let other = scene.consumer_as("other", "orders", 10);
    let a = client(&mut scene, "a");
    let b = scene.consumer_as("b", "orders", 1);
    scene.commit();
    scene.check(b.0, "got 2 x1");
    scene.check(other.0, "got 5 x1");
    scene.lose(a);
    scene.commit();
    scene.check(other.0, "got 1 x1, got 3 x1");
    scene.detach(b);
    scene.commit();
    scene.check(other.0, "got 2 x1, got 4 x1");
}

#[test]
fn each_takeover_counts_for_those_that_had_the_message() {
    let mut scene = two_holders().take_over();
    let a = scene.consumer_as("a", "orders", 10);
    scene.rest();
    scene.check(a.0, "got 1 x1, got 3 x1, got 5 x1");
    let mut scene = scene.take_over();
    let a = scene.consumer_as("a", "orders", 10);
    let b = scene.consumer_as("b", "orders", 10);
    scene.commit();
    // Number 5 was with nobody the first time; the mark may be too much.
    scene.check(a.0, "got 1 x2, got 3 x2, got 5 x2");
    scene.check(b.0, "got 2 x1, got 4 x1");
    scene.settle(a.0, "3", Outcome::Released);
    scene.commit();
    let mut scene = scene.take_over();
    let other = scene.consumer_as("other", "orders", 10);
    scene.pass(20_000);
    scene.rest();
    let log = scene.take_log(other.0);
    assert_eq!(log.len(), 5, "{log:?}");
    assert!(log.contains(&String::from("got 1 x3")), "{log:?}");
}

#[test]
fn what_others_get_later_keeps_its_count_over_further_takeovers() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "1");
    let a = scene.consumer_as("a", "orders", 10);
    scene.commit();
    scene.rest();
    scene.check(a.0, "got 1");
    let mut scene = scene.take_over();
    let a = scene.consumer_as("a", "orders", 10);
    scene.rest();
    scene.check(a.0, "got 1 x1");
    // It does not come back, and nobody else comes before the next takeovers.
    let mut scene = scene.take_over();
    scene.pass(21_000);
    scene.rest();
    assert_eq!(reconnect(&scene), (1, 0, 1));
    for _ in 0..2 {
        scene = scene.take_over();
        scene.rest();
        assert_eq!(reconnect(&scene), (0, 0, 0));
    }
    let other = scene.consumer_as("other", "orders", 10);
    scene.rest();
    scene.check(other.0, "got 1 x2");
    scene.settle(other.0, "1", Outcome::Accepted);
    scene.rest();
    assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 0);
}

/// A queue with two messages, each of which one of two clients has for the second time.
fn second_time() -> Scene {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "1");
    scene.publish(to, "2");
    let a = scene.consumer_as("a", "orders", 1);
    let b = scene.consumer_as("b", "orders", 1);
    scene.rest();
    scene.check(a.0, "got 1");
    scene.check(b.0, "got 2");
    let mut scene = scene.take_over();
    let a = scene.consumer_as("a", "orders", 1);
    let b = scene.consumer_as("b", "orders", 1);
    scene.rest();
    scene.check(a.0, "got 1 x1");
    scene.check(b.0, "got 2 x1");
    scene
}

#[test]
fn a_kill_right_behind_the_removal_of_a_client_keeps_the_counts() {
    for is_told in [false, true] {
        let mut scene = second_time().take_over();
        scene.pass(20_000);
        if is_told {
            scene.commit();
            assert_eq!(reconnect(&scene), (2, 0, 2));
        } else {
            write_only(&mut scene);
        }
        let mut scene = scene.take_over();
        assert_eq!(reconnect(&scene), (0, 0, 0));
        assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 2);
        scene.rest();
        // Nobody's, in one row.
        assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 1);
        let mut scene = scene.take_over();
        let other = scene.consumer_as("other", "orders", 10);
        scene.rest();
        scene.check(other.0, "got 1 x2, got 2 x2");
        scene.settle(other.0, "1", Outcome::Accepted);
        scene.settle(other.0, "2", Outcome::Accepted);
        scene.rest();
        assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 0);
    }
}

#[test]
fn what_others_have_is_written_while_a_client_is_removed_and_its_counts_stay() {
    let mut scene = second_time().take_over();
    let b = scene.consumer_as("b", "orders", 1);
    scene.rest();
    scene.check(b.0, "got 2 x2");
    scene.pass(14_000);
    assert!(!is_waiting(&scene));
    assert_eq!(reconnect(&scene), (2, 1, 0), "nothing before it is durable");
    scene.settle(b.0, "2", Outcome::Accepted);
    scene.pass(1_000);
    write_only(&mut scene);
    let mut scene = scene.take_over();
    assert_eq!(reconnect(&scene).0, 1);
    assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 1);
    let other = scene.consumer_as("other", "orders", 10);
    scene.rest();
    scene.check(other.0, "got 1 x2");
}

#[test]
fn what_was_settled_does_not_come_and_rows_do_not_stay() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    for text in ["1", "2", "3"] {
        scene.publish(to, text);
    }
    let a = scene.consumer_as("a", "orders", 10);
    scene.commit();
    scene.rest();
    assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 1);
    for text in ["1", "2", "3"] {
        scene.settle(a.0, text, Outcome::Accepted);
    }
    scene.rest();
    assert_eq!(scene.node.store.rows(held_rows::KIND_HELD).count(), 0);
    let mut scene = scene.take_over();
    let a = scene.consumer_as("a", "orders", 10);
    scene.rest();
    scene.check(a.0, "");
}

#[test]
fn messages_that_are_settled_soon_are_not_written_down() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let a = scene.consumer_as("a", "orders", 100);
    scene.rest();
    let before = scene.node.store.last_lsn();
    for number in 0..20 {
        let text = number.to_string();
        scene.publish(to, &text);
        scene.commit();
        scene.settle(a.0, &text, Outcome::Accepted);
        scene.commit();
    }
    let records = scene.node.store.last_lsn().0 - before.0;
    scene.rest();
    assert!(records < 60, "{records} records for 20 messages");
}

#[test]
fn a_queue_with_release_unsettled_keeps_nothing() {
    let mut directory = Directory::default();
    let properties = Properties {
        release_unsettled: true,
        ..Properties::default()
    };
    let name = Pattern::parse("orders").expect("a name");
    directory.queues.insert(name, properties);
    let directory = Arc::new(directory);
    // The successor alone says so, then the predecessor too.
    let mut scene = two_holders().take_over();
    let now = scene.now();
    scene.node.set_directory(now, directory);
    let other = scene.consumer_as("other", "orders", 10);
    scene.commit();
    scene.check(other.0, "got 1 x1, got 2 x1, got 3 x1, got 4 x1, got 5 x1");
    scene.rest();
    let mut scene = scene.take_over();
    let another = scene.consumer_as("another", "orders", 10);
    scene.commit();
    assert_eq!(scene.take_log(another.0).len(), 5);
}

fn exclusive(is_exclusive: bool) -> Arc<Directory> {
    let mut directory = Directory::default();
    let properties = Properties {
        exclusive: is_exclusive,
        ..Properties::default()
    };
    let name = Pattern::parse(">").expect("a pattern");
    directory.queues.insert(name, properties);
    Arc::new(directory)
}

#[test]
fn an_exclusive_queue_is_served_to_one_client_also_after_a_takeover() {
    let mut scene = Scene::new();
    let now = scene.now();
    scene.node.set_directory(now, exclusive(true));
    let to = scene.publisher("orders");
    let a = scene.consumer_as("a", "orders", 2);
    let b = scene.consumer_as("b", "orders", 10);
    for text in ["1", "2", "3", "4"] {
        scene.publish(to, text);
    }
    scene.rest();
    scene.check(a.0, "got 1, got 2");
    scene.check(b.0, "");
    let served: Vec<bool> = scene
        .node
        .consumer_status()
        .iter()
        .map(|it| it.is_served)
        .collect();
    assert_eq!(served, [true, false]);

    // The other one is there sooner, and the queue waits for the one.
    let mut scene = scene.take_over();
    let now = scene.now();
    scene.node.set_directory(now, exclusive(true));
    let b = scene.consumer_as("b", "orders", 10);
    scene.commit();
    scene.check(b.0, "");
    let a = scene.consumer_as("a", "orders", 3);
    scene.commit();
    scene.check(a.0, "got 1 x1, got 2 x1, got 3 x1");
    scene.rest();
    scene.check(b.0, "");
    // It does not come the next time.
    let mut scene = scene.take_over();
    let now = scene.now();
    scene.node.set_directory(now, exclusive(true));
    let b = scene.consumer_as("b", "orders", 10);
    scene.pass(19_999);
    scene.commit();
    scene.check(b.0, "");
    scene.pass(1);
    scene.commit();
    scene.check(b.0, "got 1 x2, got 2 x2, got 3 x2, got 4 x1");
    let c = scene.consumer_as("c", "orders", 10);
    let now = scene.now();
    scene.node.set_directory(now, exclusive(false));
    let to = scene.publisher("orders");
    scene.publish(to, "5");
    scene.publish(to, "6");
    scene.commit();
    assert_eq!(scene.take_log(b.0).len() + scene.take_log(c.0).len(), 2);
}

#[test]
fn a_client_with_more_messages_than_credit_gets_all_and_does_not_stop_others() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.commit();
    for number in 0..200 {
        scene.publish(to, &format!("{number:03}"));
        if number % 8 == 7 {
            scene.commit();
        }
    }
    let a = scene.consumer_as("a", "orders", 100);
    scene.commit();
    scene.rest();
    assert_eq!(scene.take_log(a.0).len(), 100);
    let mut scene = scene.take_over();
    let a = scene.consumer_as("a", "orders", 1);
    let other = scene.consumer_as("other", "orders", 1000);
    scene.commit();
    let log = scene.take_log(other.0);
    assert_eq!(log.len(), 100, "{log:?}");
    assert_eq!(log[0], "got 100 x1");
    for number in 0..100 {
        let text = format!("{number:03}");
        scene.check(a.0, &format!("got {text} x1"));
        scene.settle(a.0, &text, Outcome::Accepted);
        scene.credit(a, 1);
        scene.commit();
    }
    scene.check(a.0, "");
    assert_eq!(scene.messages("orders"), 100);
}
