//! Scenarios: events in, deliveries and effects out, against a store that is a list.

mod delivering;
mod discarding;
mod draining;
mod exclusive;
mod random;
mod returning;

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
