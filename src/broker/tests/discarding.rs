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
