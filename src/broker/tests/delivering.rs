//! Who gets which message, and how much is in memory meanwhile.

use super::*;

#[test]
fn messages_go_out_in_order_and_in_turn() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.attach(2);
    scene.publish(5);
    scene.check("1<1, 2<2, 1<3, 2<4, 1<5");
    scene.settle(1, 3, Outcome::Accepted);
    scene.settle(2, 2, Outcome::Rejected);
    scene.check("settle 3, settle 2");
    assert_eq!(scene.broker.counters().accepted, 1);
    assert_eq!(scene.broker.counters().rejected, 1);
}

#[test]
fn a_settlement_of_a_message_that_somebody_else_has_is_ignored() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(1);
    scene.settle(2, 1, Outcome::Accepted);
    scene.settle(1, 9, Outcome::Accepted);
    scene.check("1<1");
    scene.settle(1, 1, Outcome::Accepted);
    scene.settle(1, 1, Outcome::Accepted);
    scene.check("settle 1");
}

#[test]
fn messages_wait_on_disk_for_a_consumer() {
    let mut scene = Scene::new(small_limits());
    scene.publish(20);
    assert_eq!(scene.broker.window_bytes(), 0);
    scene.check("");
    scene.attach(1);
    let expected: Vec<String> = (1..=20).map(|lsn| format!("1<{lsn}")).collect();
    scene.check(&expected.join(", "));
}

#[test]
fn a_window_is_bounded_and_what_it_does_not_hold_is_read_later() {
    let mut scene = Scene::new(small_limits());
    scene.attach(1);
    scene.publish(2);
    scene.block(1);
    scene.take_log();
    scene.publish(100);
    let one = message(100).position.cost();
    assert!(scene.broker.window_bytes() <= 8 * one);
    scene.handle(Event::ConsumerReady {
        consumer: consumer(1),
    });
    let expected: Vec<String> = (3..=102).map(|lsn| format!("1<{lsn}")).collect();
    scene.check(&expected.join(", "));
    assert_eq!(scene.broker.window_bytes(), 0);
}

#[test]
fn arrivals_during_a_read_are_neither_lost_nor_doubled() {
    let mut scene = Scene::new(small_limits());
    scene.publish(2);
    scene.automatic = false;
    scene.attach(1);
    let request = scene.reads.pop_front().expect("the window is empty");
    let answer = scene.read(&request);
    scene.publish(2);
    scene.hand_over(answer);
    scene.check("reserve 1002");
    scene.automatic = true;
    scene.handle(Event::Reserved {
        queue: QUEUE,
        up_to: 1002,
    });
    scene.check("1<1, 1<2, 1<3, 1<4");
}

#[test]
fn nothing_is_delivered_beyond_the_durable_reservation() {
    let mut scene = Scene::new(Limits::default());
    scene.automatic = false;
    scene.attach(1);
    assert_eq!(scene.broker.reservation_due(QUEUE, 1), Some(1001));
    assert_eq!(scene.broker.reservation_due(QUEUE, 2), None);
    scene.publish(2);
    scene.check("");
    scene.handle(Event::Reserved {
        queue: QUEUE,
        up_to: 1,
    });
    scene.check("1<1");
    scene.handle(Event::Reserved {
        queue: QUEUE,
        up_to: 1001,
    });
    scene.check("1<2");
    assert_eq!(scene.broker.reservation_due(QUEUE, 502), Some(1502));
}

#[test]
fn an_expired_message_is_dropped_at_its_turn() {
    let mut scene = Scene::new(Limits::default());
    scene.store(2);
    scene.stored[0].expires_at_ms = 1_000;
    scene.stored[1].expires_at_ms = 1_001;
    for it in scene.stored.clone() {
        scene.handle(Event::Arrived {
            queue: QUEUE,
            message: it,
        });
    }
    scene.attach(1);
    scene.check("settle 1, 1<2");
    assert_eq!(scene.broker.counters().expired, 1);
}

#[test]
fn a_consumer_that_settles_nothing_is_stopped_at_the_limit() {
    let mut scene = Scene::new(Limits {
        unsettled_per_consumer: 2,
        ..Limits::default()
    });
    scene.attach(1);
    scene.publish(4);
    scene.check("1<1, 1<2");
    scene.settle(1, 1, Outcome::Accepted);
    scene.check("settle 1, 1<3");
}

#[test]
fn all_consumers_together_are_stopped_at_their_limit() {
    let mut scene = Scene::new(Limits {
        unsettled: 3,
        ..Limits::default()
    });
    scene.attach(1);
    scene.attach(2);
    scene.publish(5);
    scene.check("1<1, 2<2, 1<3");
    scene.settle(2, 2, Outcome::Accepted);
    scene.check("settle 2, 2<4");
    scene.gone(1, Gone::InOrder);
    scene.check("2<1, 2<3");
}

#[test]
fn names_that_no_queue_can_have_are_told_apart() {
    let scene = Scene::new(Limits::default());
    let broker = &scene.broker;
    assert_eq!(broker.route("orders"), Route::Queue(QUEUE));
    assert_eq!(broker.route("other"), Route::Unknown);
    assert_eq!(broker.route(""), Route::Invalid(NameFault::Empty));
    assert_eq!(broker.route("$x"), Route::Invalid(NameFault::Reserved));
    assert_eq!(broker.route("a\nb"), Route::Invalid(NameFault::Control));
    let long = "x".repeat(1025);
    assert_eq!(broker.route(&long), Route::Invalid(NameFault::TooLong));
}
