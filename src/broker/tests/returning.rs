//! Messages that come back: to whom they go again, and how that is counted.

use super::*;

#[test]
fn released_messages_come_back_first_and_unmarked() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(4);
    scene.block(1);
    scene.publish(1);
    scene.take_log();
    for lsn in [3, 2] {
        scene.settle(1, lsn, Outcome::Released);
    }
    scene.attach(2);
    scene.check("2<2, 2<3, 2<5");
    assert_eq!(scene.broker.counters().returned, 2);
}

#[test]
fn failed_deliveries_are_counted_and_recorded_from_the_second_on() {
    let failed = Outcome::Modified {
        failed: true,
        not_here: false,
    };
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(1);
    scene.settle(1, 1, failed);
    scene.settle(1, 1, failed);
    scene.settle(1, 1, Outcome::Released);
    scene.settle(1, 1, Outcome::Accepted);
    scene.check("1<1, 1<1 x1, count 1=2, 1<1 x2, 1<1 x2, count 1=0, settle 1");
}

#[test]
fn a_lost_connection_counts_and_an_orderly_detach_does_not() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(2);
    scene.gone(1, Gone::InOrder);
    scene.attach(2);
    scene.gone(2, Gone::Lost);
    scene.attach(3);
    scene.check("1<1, 1<2, 2<1, 2<2, 3<1 x1, 3<2 x1");
}

#[test]
fn undeliverable_here_means_not_to_this_consumer_again() {
    let not_here = Outcome::Modified {
        failed: false,
        not_here: true,
    };
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(2);
    scene.settle(1, 1, not_here);
    scene.publish(1);
    scene.check("1<1, 1<2, 1<3");
    scene.attach(2);
    scene.check("2<1");
    scene.settle(2, 1, not_here);
    scene.check("");
    scene.gone(1, Gone::InOrder);
    scene.check("2<2, 2<3");
    scene.attach(3);
    scene.check("3<1");
}

#[test]
fn many_returned_messages_are_found_again_by_reading() {
    let mut scene = Scene::new(small_limits());
    scene.attach(1);
    scene.attach(2);
    scene.publish(40);
    scene.take_log();
    scene.settle(2, 4, Outcome::Accepted);
    scene.block(2);
    scene.gone(1, Gone::InOrder);
    scene.check("settle 4");
    scene.attach(3);
    let expected: Vec<String> = (1..=39).step_by(2).map(|lsn| format!("3<{lsn}")).collect();
    scene.check(&expected.join(", "));
    scene.gone(2, Gone::Lost);
    let expected: Vec<String> = (2..=40)
        .step_by(2)
        .filter(|lsn| *lsn != 4)
        .map(|lsn| format!("3<{lsn} x1"))
        .collect();
    scene.check(&expected.join(", "));
}

#[test]
fn a_message_settled_while_it_is_read_again_is_not_delivered_again() {
    let mut scene = Scene::new(small_limits());
    scene.attach(1);
    scene.attach(2);
    scene.publish(16);
    scene.take_log();
    scene.automatic = false;
    scene.gone(1, Gone::InOrder);
    let onwards = scene.reads.pop_front().expect("the window was rewound");
    let answer = scene.read(&onwards);
    assert!(answer.messages.iter().any(|it| it.position.lsn == 2));
    scene.settle(2, 2, Outcome::Accepted);
    scene.automatic = true;
    scene.hand_over(answer);
    let log = scene.take_log();
    assert!(!log.contains("2<2,"), "{log}");
    assert!(log.contains("2<3,"), "{log}");
}

#[test]
fn a_consumer_that_takes_settled_messages_never_sees_them_again() {
    let mut scene = Scene::new(Limits::default());
    scene.attach_as(1, ConsumerMode::TakeSettled);
    scene.publish(2);
    scene.check("1<1 settled, settle 1, 1<2 settled, settle 2");
    scene.gone(1, Gone::Lost);
    scene.attach(2);
    scene.check("");
}

#[test]
fn messages_that_a_predecessor_may_have_delivered_are_marked() {
    let mut scene = Scene::with_origin(
        Limits::default(),
        QueueOrigin::Recovered {
            held: Vec::new(),
            maybe_delivered_up_to: 2,
            reserved_up_to: 100,
            counts: vec![(1, 4)],
        },
    );
    scene.store(3);
    scene.stored[2].maybe_delivered = true;
    scene.store(1);
    scene.attach(1);
    scene.check("1<1 x4, 1<2 x1, 1<3 x1, 1<4");
    scene.settle(1, 1, Outcome::Accepted);
    scene.check("count 1=0, settle 1");
}

#[test]
fn a_consumer_that_refuses_everything_for_itself_is_stopped_until_others_take_it() {
    let not_here = Outcome::Modified {
        failed: false,
        not_here: true,
    };
    let mut scene = Scene::new(Limits {
        barred_per_consumer: 2,
        ..Limits::default()
    });
    scene.attach(1);
    scene.publish(1);
    scene.settle(1, 1, not_here);
    scene.publish(1);
    scene.settle(1, 2, not_here);
    scene.publish(1);
    scene.check("1<1, 1<2");
    scene.attach(2);
    scene.check("2<1, 2<2, 2<3");
    scene.settle(2, 1, Outcome::Accepted);
    scene.publish(2);
    scene.check("settle 1, 2<4, 1<5");
}

#[test]
fn a_damaged_message_is_passed_over() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(3);
    scene.block(1);
    scene.stored.remove(1);
    scene.settle(1, 2, Outcome::Released);
    scene.attach(2);
    scene.check("1<1, 1<2, 1<3");
    scene.publish(1);
    scene.check("2<4");
}
