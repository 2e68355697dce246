//! What one consumer gets alone.

use super::*;

#[test]
fn one_consumer_of_an_exclusive_queue_gets_all_and_the_next_takes_over_when_it_leaves() {
    let mut scene = Scene::new(Limits::default());
    scene.exclusive(true);
    scene.attach(1);
    scene.attach(2);
    scene.attach(3);
    scene.publish(3);
    scene.check("1<1, 1<2, 1<3");
    assert!(scene.broker.is_served(consumer(1)) && !scene.broker.is_served(consumer(2)));
    // That it takes no more is no reason for others to get some.
    scene.block(1);
    scene.publish(1);
    scene.settle(1, 1, Outcome::Accepted);
    scene.check("settle 1");
    scene.gone(3, Gone::InOrder);
    scene.attach(4);
    scene.gone(1, Gone::Lost);
    scene.check("2<2 x1, 2<3 x1, 2<4");
    scene.gone(2, Gone::InOrder);
    scene.check("4<2 x1, 4<3 x1, 4<4");
}

#[test]
fn a_queue_becomes_exclusive_and_shared_again_under_its_consumers() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.attach(2);
    scene.publish(2);
    scene.check("1<1, 2<2");
    scene.exclusive(true);
    scene.publish(2);
    scene.check("1<3, 1<4");
    // What another one has already it settles.
    scene.settle(2, 2, Outcome::Accepted);
    scene.settle(1, 3, Outcome::Released);
    scene.check("settle 2, 1<3");
    scene.exclusive(false);
    scene.publish(2);
    scene.check("1<5, 2<6");
}

#[test]
fn who_waits_for_an_exclusive_queue_is_told_that_there_is_nothing_for_it() {
    let mut scene = Scene::new(Limits::default());
    scene.exclusive(true);
    scene.attach(1);
    scene.block(1);
    scene.attach(2);
    scene.publish(1);
    scene.handle(Event::DrainWanted {
        consumer: consumer(2),
    });
    scene.check("2 drained");
    // And what the one refuses is for the next.
    scene.handle(Event::ConsumerReady {
        consumer: consumer(1),
    });
    let not_here = Outcome::Modified {
        failed: false,
        not_here: true,
    };
    scene.settle(1, 1, not_here);
    scene.publish(1);
    scene.check("1<1, 1<2");
    scene.gone(1, Gone::InOrder);
    scene.check("2<1, 2<2");
}

#[test]
fn an_exclusive_queue_waits_for_the_client_that_had_its_messages() {
    let held = || {
        let run = HeldRun {
            first: 1,
            last: 2,
            count: 0,
        };
        vec![Holding {
            client: ClientId(1),
            messages: 2,
            runs: vec![run],
        }]
    };
    let recovered = || QueueOrigin::Recovered {
        maybe_delivered_up_to: 2,
        reserved_up_to: 100,
        counts: Vec::new(),
        held: held(),
    };
    let scene = || {
        let mut scene = Scene::with_origin(Limits::default(), recovered());
        scene.exclusive(true);
        scene.store(4);
        scene.attach(20);
        scene.check("");
        scene
    };
    let mut returns = scene();
    returns.attach(10);
    returns.check("10<1 x1, 10<2 x1, 10<3, 10<4");
    returns.gone(10, Gone::Lost);
    returns.check("count 1=2, count 2=2, 20<1 x2, 20<2 x2, 20<3 x1, 20<4 x1");
    let mut stays_away = scene();
    stays_away.handle(Event::ClientGone {
        client: ClientId(1),
    });
    stays_away.check("20<1 x1, 20<2 x1, 20<3, 20<4");
}
