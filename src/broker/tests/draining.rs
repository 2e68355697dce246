//! Consumers that ask for what there is now, and browsers.

use super::*;

#[test]
fn a_drain_is_answered_at_once_when_the_queue_is_empty() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.handle(Event::DrainWanted {
        consumer: consumer(1),
    });
    scene.check("1 drained");
}

#[test]
fn a_drain_is_answered_after_the_read_that_was_under_way() {
    let mut scene = Scene::new(Limits::default());
    scene.publish(3);
    scene.automatic = false;
    scene.attach(1);
    scene.handle(Event::DrainWanted {
        consumer: consumer(1),
    });
    scene.check("");
    scene.automatic = true;
    scene.answer_read();
    scene.check("1<1, 1<2, 1<3, 1 drained");
}

#[test]
fn a_drain_is_answered_when_the_rest_is_for_others() {
    let not_here = Outcome::Modified {
        failed: false,
        not_here: true,
    };
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.attach(2);
    scene.block(2);
    scene.publish(1);
    scene.settle(1, 1, not_here);
    scene.handle(Event::DrainWanted {
        consumer: consumer(1),
    });
    scene.check("1<1, 1 drained");
}

#[test]
fn a_drain_is_answered_when_the_consumer_has_to_settle_first() {
    let mut scene = Scene::new(Limits {
        unsettled_per_consumer: 2,
        ..small_limits()
    });
    // More than a window: part of it is still on disk.
    scene.publish(20);
    scene.attach(1);
    scene.handle(Event::DrainWanted {
        consumer: consumer(1),
    });
    scene.check("1<1, 1<2, 1 drained");
    let mut scene = Scene::new(Limits {
        unsettled: 1,
        ..small_limits()
    });
    scene.publish(3);
    scene.attach(1);
    scene.handle(Event::DrainWanted {
        consumer: consumer(1),
    });
    scene.check("1<1, 1 drained");
}

#[test]
fn a_browser_sees_what_was_there_and_takes_nothing() {
    let mut scene = Scene::new(small_limits());
    scene.publish(6);
    scene.attach_as(7, ConsumerMode::Browse { up_to: 5 });
    scene.handle(Event::DrainWanted {
        consumer: consumer(7),
    });
    scene.check("7<1, 7<2, 7<3, 7<4, 7<5, 7 drained");
    scene.attach(1);
    scene.check("1<1, 1<2, 1<3, 1<4, 1<5, 1<6");
    assert_eq!(scene.broker.consumer_count(QUEUE), 2);
}
