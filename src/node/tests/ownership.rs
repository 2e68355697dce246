//! Nothing leaves while it is open whether the store is ours.

use steadfast_storage::disk::{Fault, Operation};

use super::*;

fn lapsing() -> Scene {
    let options = StoreOptions {
        fence_deadline_ms: Some(1000),
        ..store_options()
    };
    Scene::with(node_settings(), options)
}

#[test]
fn a_lapse_holds_confirms_and_deliveries_until_a_write_succeeds() {
    let mut scene = lapsing();
    let to = scene.publisher("orders");
    let from = scene.consumer("orders", 10);
    scene.publish(to, "a");
    scene.commit();
    scene.check(to.0, "accepted");
    scene.check(from.0, "got a");

    scene.publish(to, "b");
    scene.publish_message(to, &text_message("c", false));
    scene.check(to.0, "accepted");
    let now = scene.now();
    let job = scene.node.poll_job(now).expect("a batch is open");
    // The write takes too long.
    scene.world.advance_ms(1500);
    let done = job.run();
    scene.node.complete(done).expect("the disk is well");
    let now = scene.now();
    scene.node.advance(now);
    scene.publish_message(to, &text_message("d", false));
    scene.exchange();
    assert!(scene.node.is_lapsed());
    scene.check(to.0, "");
    scene.check(from.0, "");

    scene.commit();
    assert!(!scene.node.is_lapsed());
    scene.check(to.0, "accepted, accepted");
    scene.check(from.0, "got b, got c, got d");
}

#[test]
fn after_a_failed_sync_no_confirm_leaves() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    scene.publish(to, "a");
    scene.world.inject(Fault {
        operation: Operation::Sync,
        name_part: String::from(".seg"),
        skip: 0,
        count: 1,
        errno: 5,
    });
    scene.commit();
    scene.publish_message(to, &text_message("b", false));
    scene.commit();
    let log = scene.take_log(to.0).join(", ");
    assert!(!log.contains("accepted"), "{log}");
    assert!(scene.node.fatal().is_some());
}

#[test]
fn a_proof_of_ownership_is_a_durable_write() {
    let mut scene = Scene::new();
    let before = scene.node.store.durable_lsn();
    let now = scene.now();
    scene.node.prove_ownership(now);
    assert!(scene.node.has_open_batch());
    scene.commit();
    assert!(scene.node.store.durable_lsn() > before);
}

#[test]
fn an_orderly_stop_confirms_what_is_under_way_and_seals_the_store() {
    let mut scene = Scene::new();
    let to = scene.publisher("orders");
    let from = scene.consumer("orders", 10);
    scene.publish(to, "a");
    let now = scene.now();
    scene.node.begin_stop(now);
    assert!(scene.node.owes_answers());
    scene.commit();
    assert!(!scene.node.owes_answers());
    scene.node.close_connections();
    scene.exchange();
    scene.check(to.0, "accepted, closed amqp:connection:forced");
    scene.check(from.0, "closed amqp:connection:forced");
    scene.node.begin_seal();
    for _ in 0..100 {
        scene.commit();
        scene.world.advance_ms(25);
    }
    assert!(scene.node.is_sealed());
}
