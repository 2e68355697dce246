//! Clients, what they own, and when it goes.

use super::*;

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

fn is_waiting(scene: &Scene) -> bool {
    let reconnect = scene.node.status().reconnect;
    reconnect.deadline_at_ms.is_some()
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
    // One batch, and none of what follows from it.
    while let Some(job) = scene.node.poll_job(scene.now()) {
        scene.node.complete(job.run()).expect("a sound disk");
    }
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
    scene.node.begin_stop();
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
