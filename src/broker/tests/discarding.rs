//! What goes although nobody takes it, and what is given up because nobody comes for it.

use super::*;

const NOT_HERE: Outcome = Outcome::Modified {
    failed: false,
    not_here: true,
};

fn held(client: u64, first: u64, last: u64) -> Holding {
    Holding {
        client: ClientId(client),
        messages: last - first + 1,
        runs: vec![HeldRun {
            first,
            last,
            count: 0,
        }],
    }
}

fn recovered(held: Vec<Holding>) -> QueueOrigin {
    QueueOrigin::Recovered {
        maybe_delivered_up_to: 0,
        reserved_up_to: 0,
        counts: Vec::new(),
        held,
    }
}

impl Scene {
    fn over_limit(&mut self, messages: u64) {
        self.handle(Event::OverLimit {
            queue: QUEUE,
            messages,
            bytes: 0,
        });
    }

    fn discard(&mut self, up_to: u64) {
        self.handle(Event::Discard {
            queue: QUEUE,
            up_to,
        });
    }
}

#[test]
fn what_no_consumer_wants_makes_room_before_newer_messages() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(2);
    scene.settle(1, 1, NOT_HERE);
    scene.settle(1, 2, NOT_HERE);
    scene.block(1);
    scene.publish(2);
    scene.check("1<1, 1<2");
    scene.over_limit(1);
    scene.check("settle 1");
    scene.over_limit(2);
    scene.check("settle 2, settle 3");
}

#[test]
fn emptying_a_queue_takes_what_no_consumer_wants_along() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(3);
    scene.settle(1, 2, NOT_HERE);
    scene.publish(1);
    scene.check("1<1, 1<2, 1<3, 1<4");
    scene.discard(4);
    scene.check("settle 2, 1 discarded");
}

#[test]
fn what_is_kept_for_a_client_does_not_make_room_before_it_is_given_up() {
    let mut scene = Scene::with_origin(small_limits(), recovered(vec![held(5, 1, 2)]));
    scene.store(4);
    scene.over_limit(3);
    scene.check("settle 3, settle 4");
    scene.handle(Event::ClientGone {
        client: ClientId(5),
    });
    scene.check("settle 1");
    scene.attach(10);
    scene.check("10<2 x1");
}

#[test]
fn a_count_that_a_client_had_outlives_that_it_gives_the_message_back() {
    let mut two = held(5, 1, 2);
    two.runs[0].count = 2;
    let mut scene = Scene::with_origin(small_limits(), recovered(vec![two]));
    scene.store(2);
    scene.attach(50);
    scene.check("50<1 x3, 50<2 x3");
    scene.block(50);
    scene.settle(50, 1, Outcome::Released);
    scene.check("count 1=3");
    scene.handle(Event::ConsumerReady {
        consumer: consumer(50),
    });
    scene.settle(50, 1, Outcome::Released);
    scene.check("50<1 x3, 50<1 x3");
    scene.gone(50, Gone::Lost);
    scene.check("count 1=4, count 2=4");
}

#[test]
fn the_end_of_a_client_is_nothing_to_queues_that_kept_nothing_for_it() {
    let mut scene = Scene::with_origin(small_limits(), recovered(vec![held(5, 1, 2)]));
    scene.store(3);
    scene.attach(10);
    scene.check("10<3");
    scene.broker.handle(Event::ClientGone {
        client: ClientId(6),
    });
    assert!(!scene.broker.is_busy());
    scene.handle(Event::ClientGone {
        client: ClientId(5),
    });
    scene.check("10<1 x1, 10<2 x1");
}

#[test]
fn deleting_a_queue_settles_all_of_its_messages() {
    let mut scene = Scene::new(small_limits());
    scene.attach(1);
    scene.publish(10);
    scene.settle(1, 1, Outcome::Accepted);
    scene.gone(1, Gone::InOrder);
    scene.take_log();
    scene.handle(Event::QueueDeleted { queue: QUEUE });
    let expected: Vec<String> = (2..=10).map(|lsn| format!("settle {lsn}")).collect();
    scene.check(&format!("{}, emptied", expected.join(", ")));
    assert_eq!(scene.broker.route("orders"), Route::Unknown);
    scene.handle(Event::QueueRemoved { queue: QUEUE });
    scene.publish(1);
    scene.check("settle 11");
}

#[test]
fn an_emptied_queue_keeps_what_consumers_have_and_what_comes_later() {
    let mut scene = Scene::new(Limits::default());
    scene.attach(1);
    scene.publish(3);
    scene.block(1);
    scene.publish(30);
    scene.handle(Event::Discard {
        queue: QUEUE,
        up_to: 32,
    });
    let expected: BTreeSet<u64> = (4..=32).collect();
    assert_eq!(scene.settled, expected);
    assert_eq!(scene.broker.in_flight_count(QUEUE), 3);
    scene.publish(1);
    assert_eq!(scene.settled, expected);
}

#[test]
fn a_queue_without_consumers_is_emptied_too() {
    let mut scene = Scene::with_origin(Limits::default(), QueueOrigin::Created);
    scene.publish(5);
    scene.handle(Event::Discard {
        queue: QUEUE,
        up_to: 5,
    });
    assert_eq!(scene.settled.len(), 5, "{:?}", scene.settled);
    scene.publish(2);
    assert_eq!(scene.settled.len(), 5, "{:?}", scene.settled);
}

#[test]
fn one_message_goes_wherever_it_waits_but_not_from_a_consumer() {
    let mut scene = Scene::new(small_limits());
    scene.attach(1);
    scene.publish(3);
    scene.block(1);
    scene.publish(30);
    for lsn in [1, 4, 33] {
        let position = Position {
            lsn,
            segment: 1,
            ordinal: lsn as u32,
            offset: 0,
            bytes: 1,
        };
        scene.handle(Event::DiscardOne {
            queue: QUEUE,
            position,
        });
    }
    // The consumer has the first one.
    assert_eq!(scene.settled, BTreeSet::from([4, 33]));
}

#[test]
fn what_is_kept_for_a_client_is_not_removed_and_loses_no_count() {
    let run = HeldRun {
        first: 1,
        last: 3,
        count: 1,
    };
    let holding = Holding {
        client: ClientId(7),
        messages: 3,
        runs: vec![run],
    };
    let mut scene = Scene::with_origin(
        Limits::default(),
        QueueOrigin::Recovered {
            maybe_delivered_up_to: 3,
            reserved_up_to: 3,
            counts: Vec::new(),
            held: vec![holding],
        },
    );
    scene.store(4);
    let discard = |lsn: u64| Event::DiscardOne {
        queue: QUEUE,
        position: Position {
            lsn,
            segment: 1,
            ordinal: lsn as u32,
            offset: 0,
            bytes: 1,
        },
    };
    scene.handle(discard(2));
    scene.handle(discard(4));
    assert_eq!(scene.settled, BTreeSet::from([4]));
    assert_eq!(scene.broker.held_count(QUEUE), 3);
    scene.handle(Event::ClientGone {
        client: ClientId(7),
    });
    assert_eq!(scene.broker.held_count(QUEUE), 0);
    scene.handle(discard(2));
    assert_eq!(scene.settled, BTreeSet::from([2, 4]));
    scene.take_log();
    scene.attach(1);
    scene.check("1<1 x2, 1<3 x2");
}
