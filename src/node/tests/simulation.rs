//! Random work with crashes: what was confirmed is delivered, what was settled is not, what may
//! have been delivered is marked, and order holds.

use std::collections::{BTreeSet, VecDeque};

use super::*;

/// What the outside world knows, whatever happens to servers.
#[derive(Default)]
struct Oracle {
    published: u32,
    confirmed: BTreeSet<u32>,
    /// Delivered to a client at least once.
    delivered: BTreeSet<u32>,
    /// Those of them that a server delivered that is dead.
    by_predecessors: BTreeSet<u32>,
    /// Accepted by a client, and the settlement is durable.
    settled: BTreeSet<u32>,
    /// Accepted by a client.
    accepted: BTreeSet<u32>,
    /// Accepted, but nobody has waited for the disk yet.
    settling: BTreeSet<u32>,
}

struct World {
    scene: Scene,
    random: fastrand::Rng,
    oracle: Oracle,
    publisher: (usize, LinkId),
    /// Confirms come in the order of publishing, because all messages are durable.
    unconfirmed: VecDeque<u32>,
    consumers: Vec<(usize, LinkId)>,
    held: Vec<(usize, u32)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut scene = Scene::with(cramped_settings(), store_options());
        let publisher = scene.publisher("orders");
        Self {
            scene,
            random: fastrand::Rng::with_seed(seed),
            oracle: Oracle::default(),
            publisher,
            unconfirmed: VecDeque::new(),
            consumers: Vec::new(),
            held: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.u8(0..24) {
            0..6 => self.publish(),
            6..9 => self.commit(),
            9 if self.consumers.len() < 3 => {
                let credit = self.random.u32(1..20);
                let consumer = self.scene.consumer("orders", credit);
                self.consumers.push(consumer);
            }
            10 if !self.consumers.is_empty() => self.drop_consumer(),
            11 | 12 if !self.consumers.is_empty() => {
                let consumer = self.consumers[self.random.usize(..self.consumers.len())];
                let credit = self.random.u32(1..20);
                self.scene.credit(consumer, credit);
            }
            13 => self.take_over(),
            14 => {
                self.scene.world.advance_ms(30);
            }
            _ if !self.held.is_empty() => self.settle(),
            _ => {}
        }
        self.observe();
    }

    fn publish(&mut self) {
        let (client, link) = self.publisher;
        if self.scene.clients[client].connection.can_send(link) {
            self.oracle.published += 1;
            self.unconfirmed.push_back(self.oracle.published);
            let text = self.oracle.published.to_string();
            self.scene.publish(self.publisher, &text);
        }
    }

    fn commit(&mut self) {
        self.scene.commit();
        let settling = std::mem::take(&mut self.oracle.settling);
        self.oracle.settled.extend(settling);
    }

    fn settle(&mut self) {
        let index = self.random.usize(..self.held.len());
        let (client, number) = self.held.swap_remove(index);
        let outcome = match self.random.u8(0..8) {
            0 => Outcome::Released,
            1 => Outcome::Modified {
                delivery_failed: true,
                undeliverable_here: false,
            },
            _ => {
                self.oracle.settling.insert(number);
                self.oracle.accepted.insert(number);
                Outcome::Accepted
            }
        };
        self.scene.settle(client, &number.to_string(), outcome);
    }

    fn drop_consumer(&mut self) {
        let index = self.random.usize(..self.consumers.len());
        let (client, link) = self.consumers.swap_remove(index);
        self.held.retain(|(it, _)| *it != client);
        if self.random.bool() {
            self.scene.detach((client, link));
        } else {
            self.scene.lose(client);
        }
    }

    /// The process dies, or the machine.
    fn take_over(&mut self) {
        self.observe();
        let fresh = Scene::new();
        let old = std::mem::replace(&mut self.scene, fresh);
        if self.random.bool() {
            old.world.crash(self.random.u64(..));
        }
        self.scene = old.take_over();
        self.oracle.settling.clear();
        self.oracle
            .by_predecessors
            .clone_from(&self.oracle.delivered);
        self.unconfirmed.clear();
        self.consumers.clear();
        self.held.clear();
        self.publisher = self.scene.publisher("orders");
    }

    /// Compares what clients saw with what may be.
    fn observe(&mut self) {
        for line in self.scene.take_log(self.publisher.0) {
            assert_eq!(line, "accepted");
            let number = self.unconfirmed.pop_front().expect("it was published");
            self.oracle.confirmed.insert(number);
        }
        for client in self.consumers.iter().map(|it| it.0).collect::<Vec<_>>() {
            let mut last_first = 0;
            for line in self.scene.take_log(client) {
                let Some(text) = line.strip_prefix("got ") else {
                    panic!("a consumer saw {line}");
                };
                let (number, count) = text.split_once(" x").unwrap_or((text, "0"));
                let number = number.parse().expect("a number");
                self.delivered(number, count != "0", &mut last_first);
                self.held.push((client, number));
            }
        }
    }

    fn delivered(&mut self, number: u32, is_marked: bool, last_first: &mut u32) {
        let oracle = &mut self.oracle;
        assert!(!oracle.settled.contains(&number), "{number} was settled");
        assert!(
            self.held.iter().all(|(_, it)| *it != number),
            "{number} is with another consumer"
        );
        if oracle.delivered.insert(number) {
            assert!(*last_first < number, "first deliveries are in order");
            *last_first = number;
        } else if oracle.by_predecessors.contains(&number) {
            assert!(
                is_marked,
                "{number} comes again after a crash without a mark"
            );
        }
    }

    /// All that was confirmed is settled or comes now.
    fn finish(&mut self) {
        self.take_over();
        self.commit();
        let consumer = self.scene.consumer("orders", 10_000);
        self.consumers.push(consumer);
        let before = self.oracle.delivered.clone();
        self.commit();
        // What clients have that do not come back is kept for them until then.
        self.scene.pass(20_000);
        self.commit();
        self.observe();
        let here: BTreeSet<u32> = self.held.iter().map(|(_, number)| *number).collect();
        for number in &self.oracle.confirmed {
            assert!(
                here.contains(number) || self.oracle.accepted.contains(number),
                "{number} was confirmed and is lost"
            );
        }
        for number in here {
            assert!(
                before.contains(&number) || !self.oracle.accepted.contains(&number),
                "{number} was accepted before it was delivered"
            );
        }
    }
}

#[test]
fn nothing_confirmed_is_lost_under_random_work_and_crashes() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.finish();
    }
}
