//! Scenarios: events in, deliveries and effects out, against a store that is a list.

mod discarding;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::*;

const QUEUE: QueueId = QueueId(1);

/// A broker with one queue and a list of messages in place of the store.
struct Scene {
    broker: Broker,
    stored: Vec<Message>,
    settled: BTreeSet<u64>,
    cursor: u64,
    reads: VecDeque<ReadRequest>,
    /// Answer reads and reservations at once.
    automatic: bool,
    log: Vec<String>,
    next_lsn: u64,
}

fn consumer(number: u64) -> ConsumerId {
    ConsumerId {
        queue: QUEUE,
        number,
    }
}

fn message(lsn: u64) -> Message {
    Message {
        position: Position {
            lsn,
            segment: 1,
            ordinal: u32::try_from(lsn).expect("small"),
            offset: 0,
            bytes: 10,
        },
        maybe_delivered: false,
        expires_at_ms: 0,
        meta: Bytes::from_static(b"meta"),
        body: Bytes::from(format!("body {lsn}")),
    }
}

fn small_limits() -> Limits {
    Limits {
        window_messages: 8,
        window_bytes: 1 << 20,
        all_windows_bytes: 1 << 20,
        read_messages: 4,
        read_bytes: 1 << 20,
        returned: 6,
        unsettled_per_consumer: 1000,
        unsettled: 1000,
        barred_per_consumer: 1000,
    }
}

impl Scene {
    fn new(limits: Limits) -> Self {
        Self::with_origin(limits, QueueOrigin::Created)
    }

    fn with_origin(limits: Limits, origin: QueueOrigin) -> Self {
        let mut broker = Broker::new(limits);
        broker.handle(Event::QueueAdded {
            queue: QUEUE,
            name: Arc::from("orders"),
            kind: QueueKind::Permanent,
            origin,
        });
        Self {
            broker,
            stored: Vec::new(),
            settled: BTreeSet::new(),
            cursor: 0,
            reads: VecDeque::new(),
            automatic: true,
            log: Vec::new(),
            next_lsn: 1,
        }
    }

    /// Stores messages without telling the broker.
    fn store(&mut self, count: u64) {
        for _ in 0..count {
            self.stored.push(message(self.next_lsn));
            self.next_lsn += 1;
        }
    }

    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            let it = message(self.next_lsn);
            self.next_lsn += 1;
            self.stored.push(it.clone());
            self.handle(Event::Arrived {
                queue: QUEUE,
                message: it,
            });
        }
        self.broker.release_batch();
    }

    fn attach(&mut self, number: u64) {
        self.attach_as(number, ConsumerMode::Take);
    }

    fn attach_as(&mut self, number: u64, mode: ConsumerMode) {
        self.handle(Event::ConsumerAttached {
            consumer: consumer(number),
            mode,
            client: Some(ClientId(number / 10)),
        });
        self.handle(Event::ConsumerReady {
            consumer: consumer(number),
        });
    }

    fn exclusive(&mut self, is_exclusive: bool) {
        self.handle(Event::QueueExclusive {
            queue: QUEUE,
            is_exclusive,
        });
    }

    fn block(&mut self, number: u64) {
        self.handle(Event::ConsumerBlocked {
            consumer: consumer(number),
        });
    }

    fn settle(&mut self, number: u64, lsn: u64, outcome: Outcome) {
        self.handle(Event::Settled {
            consumer: consumer(number),
            lsn,
            outcome,
        });
    }

    fn gone(&mut self, number: u64, how: Gone) {
        self.handle(Event::ConsumerGone {
            consumer: consumer(number),
            how,
        });
    }

    fn handle(&mut self, event: Event) {
        self.broker.handle(event);
        self.run();
    }

    fn run(&mut self) {
        loop {
            while let Some(effect) = self.broker.poll_effect() {
                self.effect(effect);
            }
            if let Some(it) = self.broker.poll_delivery(1_000) {
                self.delivery(&it);
            } else if self.automatic && !self.reads.is_empty() {
                self.answer_read();
            } else if !self.broker.has_effects() {
                break;
            }
        }
    }

    fn delivery(&mut self, it: &Delivery) {
        let settled = if it.settled { " settled" } else { "" };
        let count = match it.delivery_count {
            0 => String::new(),
            count => format!(" x{count}"),
        };
        self.log.push(format!(
            "{}<{}{count}{settled}",
            it.consumer.number, it.message.position.lsn
        ));
        if it.settled {
            self.broker.handle(Event::Settled {
                consumer: it.consumer,
                lsn: it.message.position.lsn,
                outcome: Outcome::Accepted,
            });
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Settle { position, .. } => {
                assert!(
                    self.settled.insert(position.lsn),
                    "settled twice: {}",
                    position.lsn
                );
                self.log.push(format!("settle {}", position.lsn));
            }
            Effect::Read(request) => self.reads.push_back(request),
            Effect::Reserve { queue, up_to } if self.automatic => {
                self.broker.handle(Event::Reserved { queue, up_to });
            }
            Effect::Reserve { up_to, .. } => self.log.push(format!("reserve {up_to}")),
            Effect::Count { lsn, count, .. } => self.log.push(format!("count {lsn}={count}")),
            Effect::Drained { consumer } => self.log.push(format!("{} drained", consumer.number)),
            Effect::Discarded { messages, .. } => self.log.push(format!("{messages} discarded")),
            Effect::QueueEmptied { .. } => self.log.push(String::from("emptied")),
        }
    }

    /// Does the oldest read and hands the answer over.
    fn answer_read(&mut self) {
        let Some(request) = self.reads.pop_front() else {
            return;
        };
        let loaded = self.read(&request);
        self.hand_over(loaded);
    }

    /// Leaves out what was settled meanwhile, as the store's owner does.
    fn hand_over(&mut self, mut loaded: Loaded) {
        loaded
            .messages
            .retain(|it| !self.settled.contains(&it.position.lsn));
        self.handle(Event::Loaded(loaded));
    }

    fn read(&mut self, request: &ReadRequest) -> Loaded {
        let from = match &request.from {
            ReadFrom::Start => 0,
            ReadFrom::Next => self.cursor,
            ReadFrom::After(position) => position.lsn,
            ReadFrom::At(position) => position.lsn - 1,
            ReadFrom::Places(_) => u64::MAX,
        };
        let live = |it: &&Message| !self.settled.contains(&it.position.lsn);
        let messages: Vec<Message> = match &request.from {
            ReadFrom::Places(places) => {
                let wanted = |it: &&Message| places.contains(&it.position);
                self.stored
                    .iter()
                    .filter(live)
                    .filter(wanted)
                    .cloned()
                    .collect()
            }
            _ => {
                let above = |it: &&Message| it.position.lsn > from;
                self.stored
                    .iter()
                    .filter(live)
                    .filter(above)
                    .take(request.messages)
                    .cloned()
                    .collect()
            }
        };
        let last = messages.last().map_or(from, |it| it.position.lsn);
        if !matches!(request.from, ReadFrom::Places(_)) {
            self.cursor = last;
        }
        Loaded {
            reader: request.reader,
            end: !self
                .stored
                .iter()
                .any(|it| it.position.lsn > last && !self.settled.contains(&it.position.lsn)),
            messages,
        }
    }

    fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log).join(", ")
    }

    #[track_caller]
    fn check(&mut self, expected: &str) {
        assert_eq!(self.take_log(), expected);
    }
}

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

/// Random work with consumers that come, go, fail and release: at the end every message was settled
/// exactly once (the scene asserts "not twice"), and none was delivered to two consumers at a time.
#[test]
fn nothing_is_lost_or_doubled_under_random_work() {
    for seed in 0..300 {
        random_work(seed);
    }
}

fn random_work(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new(small_limits());
    let mut attached: Vec<u64> = Vec::new();
    let mut held: Vec<(u64, u64)> = Vec::new();
    let mut next_consumer = 1;
    for _ in 0..300 {
        scene.automatic = random.u8(0..3) > 0;
        match random.u8(0..13) {
            0..4 => scene.publish(random.u64(1..6)),
            4 if attached.len() < 4 => {
                scene.attach(next_consumer);
                attached.push(next_consumer);
                next_consumer += 1;
            }
            5 if !attached.is_empty() && random.bool() => {
                let number = attached.swap_remove(random.usize(..attached.len()));
                held.retain(|(owner, _)| *owner != number);
                let how = if random.bool() {
                    Gone::Lost
                } else {
                    Gone::InOrder
                };
                scene.gone(number, how);
            }
            6 if !attached.is_empty() => scene.block(attached[random.usize(..attached.len())]),
            7 if !attached.is_empty() => {
                let it = consumer(attached[random.usize(..attached.len())]);
                scene.handle(Event::ConsumerReady { consumer: it });
            }
            8 => scene.answer_read(),
            12 => scene.exclusive(random.bool()),
            _ if !held.is_empty() => {
                let (number, lsn) = held.swap_remove(random.usize(..held.len()));
                let outcome = match random.u8(0..6) {
                    0 => Outcome::Released,
                    1 => Outcome::Modified {
                        failed: true,
                        not_here: random.bool(),
                    },
                    _ => Outcome::Accepted,
                };
                scene.settle(number, lsn, outcome);
            }
            _ => {}
        }
        note_deliveries(&mut scene, &mut held);
    }
    scene.automatic = true;
    while !scene.reads.is_empty() {
        scene.answer_read();
    }
    for number in attached {
        held.retain(|(owner, _)| *owner != number);
        scene.gone(number, Gone::InOrder);
    }
    scene.attach_as(next_consumer, ConsumerMode::TakeSettled);
    scene.handle(Event::Reserved {
        queue: QUEUE,
        up_to: u64::MAX,
    });
    assert_eq!(
        scene.settled.len() as u64,
        scene.next_lsn - 1,
        "seed {seed}: messages are lost"
    );
    assert_eq!(scene.broker.window_bytes(), 0, "seed {seed}");
}

fn note_deliveries(scene: &mut Scene, held: &mut Vec<(u64, u64)>) {
    for line in std::mem::take(&mut scene.log) {
        if let Some(up_to) = line.strip_prefix("reserve ") {
            let up_to = up_to.parse().expect("a number");
            scene.handle(Event::Reserved {
                queue: QUEUE,
                up_to,
            });
        }
        if let Some((number, rest)) = line.split_once('<') {
            let lsn = rest.split(' ').next().expect("one").parse().expect("lsn");
            assert!(
                held.iter().all(|(_, it)| *it != lsn),
                "{lsn} is delivered twice at a time"
            );
            held.push((number.parse().expect("a number"), lsn));
        }
    }
    if !scene.log.is_empty() {
        note_deliveries(scene, held);
    }
}
