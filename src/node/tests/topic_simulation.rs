//! Random work on topics with crashes: each subscription, and each queue that a bridge leads to, gets
//! what was confirmed while it existed; what it settled does not come again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::subscriptions::durable;
use super::topics::{bridge, names, topic};
use super::*;

/// A subscription, or a queue that a bridge leads to, as the outside world knows it.
struct Target {
    name: String,
    source: Source,
    /// Its topic matches these.
    topics: &'static [&'static str],
    /// It stays when its consumer goes.
    is_lasting: bool,
    consumer: Option<(usize, LinkId)>,
    /// Published while it existed.
    published: BTreeSet<u32>,
    held: BTreeSet<u32>,
    delivered: BTreeSet<u32>,
    /// Came back, or may have come to a consumer that is gone.
    may_come_again: BTreeSet<u32>,
    /// Of these, those that must be marked: a server died meanwhile.
    must_be_marked: BTreeSet<u32>,
    /// Accepted, and the settlement may not be durable.
    settling: BTreeSet<u32>,
    accepted: BTreeSet<u32>,
    settled: BTreeSet<u32>,
}

impl Target {
    fn new(name: &str, source: Source, topics: &'static [&'static str], is_lasting: bool) -> Self {
        Self {
            name: name.to_owned(),
            source,
            topics,
            is_lasting,
            consumer: None,
            published: BTreeSet::new(),
            held: BTreeSet::new(),
            delivered: BTreeSet::new(),
            may_come_again: BTreeSet::new(),
            must_be_marked: BTreeSet::new(),
            settling: BTreeSet::new(),
            accepted: BTreeSet::new(),
            settled: BTreeSet::new(),
        }
    }

    fn got(&mut self, number: u32, is_marked: bool) {
        let name = &self.name;
        assert!(
            self.published.contains(&number),
            "{name}: {number} is not for it"
        );
        assert!(
            !self.settled.contains(&number),
            "{name}: {number} was settled"
        );
        assert!(self.held.insert(number), "{name}: {number} came twice");
        if !self.delivered.insert(number) {
            assert!(
                self.may_come_again.remove(&number),
                "{name}: {number} came again without a reason"
            );
            assert!(
                is_marked || !self.must_be_marked.contains(&number),
                "{name}: {number} came again without a mark"
            );
        }
    }

    /// Its consumer is gone with what it had not settled.
    fn lost(&mut self) {
        self.consumer = None;
        self.may_come_again.append(&mut self.held);
        if !self.is_lasting {
            // The end of the subscription may not be durable: its name is not used again.
            let name = format!("{}'", self.name);
            *self = Self::new(&name, self.source.clone(), self.topics, false);
        }
    }
}

struct World {
    scene: Scene,
    random: fastrand::Rng,
    published: u32,
    confirmed: BTreeSet<u32>,
    /// By topic.
    publishers: BTreeMap<&'static str, (usize, LinkId)>,
    /// What each publisher has no answer for, in its order.
    unconfirmed: BTreeMap<&'static str, VecDeque<u32>>,
    targets: Vec<Target>,
}

fn directory() -> Directory {
    Directory {
        queues: names(&[">", "archive"]),
        topics: names(&[">"]),
        bridges: vec![bridge("topic:px.a", &["queue:archive"])],
        ..Directory::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let both = &["px.a", "px.b"];
        let targets = vec![
            Target::new("d1", durable("px.>"), both, true),
            Target::new("d2", durable("px.b"), &["px.b"], true),
            Target::new("n1", topic("px.*"), both, false),
            Target::new("n2", topic("px.a"), &["px.a"], false),
            Target::new("archive", Source::at("archive"), &["px.a"], true),
        ];
        let mut world = Self {
            scene: Scene::with(cramped_settings(), store_options()),
            random: fastrand::Rng::with_seed(seed),
            published: 0,
            confirmed: BTreeSet::new(),
            publishers: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            targets,
        };
        world.begin();
        for index in 0..world.targets.len() {
            world.attach(index);
        }
        world
    }

    /// What happens when a server begins to serve.
    fn begin(&mut self) {
        self.scene.configure(directory());
        for topic in ["px.a", "px.b"] {
            let publisher = self.scene.topic_publisher(topic);
            self.publishers.insert(topic, publisher);
        }
        self.unconfirmed.clear();
    }

    fn attach(&mut self, index: usize) {
        let target = &self.targets[index];
        let container = format!("client of {}", target.name);
        let client = self.scene.connect_as(&container, Settings::default());
        let (name, source) = (target.name.clone(), target.source.clone());
        let link = self.scene.attach_receiver(client, &name, Some(source));
        let credit = self.random.u32(1..20);
        self.targets[index].consumer = Some((client, link));
        self.scene.credit((client, link), credit);
        self.commit();
        assert!(
            self.scene.clients[client].addresses.contains_key(&link),
            "{name} was not answered"
        );
    }

    fn step(&mut self) {
        let index = self.random.usize(..self.targets.len());
        match (self.random.u8(0..24), self.targets[index].consumer) {
            (0..6, _) => self.publish(),
            (6..9, _) => self.commit(),
            (9..12, None) => self.attach(index),
            (9, Some((client, _))) => {
                self.scene.lose(client);
                self.observe();
                self.targets[index].lost();
            }
            (10 | 11, Some(consumer)) => {
                let credit = self.random.u32(1..20);
                self.scene.credit(consumer, credit);
            }
            (12, _) => self.take_over(),
            (13, _) => self.scene.world.advance_ms(30),
            (_, Some((client, _))) => self.settle(index, client),
            _ => {}
        }
        self.observe();
    }

    fn publish(&mut self) {
        let topic = if self.random.bool() { "px.a" } else { "px.b" };
        let (client, link) = self.publishers[topic];
        if !self.scene.clients[client].connection.can_send(link) {
            return;
        }
        self.published += 1;
        let waiting = self.unconfirmed.entry(topic).or_default();
        waiting.push_back(self.published);
        for target in &mut self.targets {
            let exists = target.is_lasting || target.consumer.is_some();
            if exists && target.topics.contains(&topic) {
                target.published.insert(self.published);
            }
        }
        let text = self.published.to_string();
        self.scene.publish((client, link), &text);
    }

    fn commit(&mut self) {
        self.scene.commit();
        for target in &mut self.targets {
            let mut settling = std::mem::take(&mut target.settling);
            target.settled.append(&mut settling);
        }
    }

    fn settle(&mut self, index: usize, client: usize) {
        let target = &mut self.targets[index];
        let held: Vec<u32> = target.held.iter().copied().collect();
        let Some(&number) = held.get(self.random.usize(..held.len().max(1))) else {
            return;
        };
        target.held.remove(&number);
        let outcome = if self.random.u8(0..6) == 0 {
            target.may_come_again.insert(number);
            Outcome::Released
        } else {
            target.settling.insert(number);
            target.accepted.insert(number);
            Outcome::Accepted
        };
        self.scene.settle(client, &number.to_string(), outcome);
    }

    /// The process dies, or the machine. The clients of subscriptions that are not durable come back in
    /// time.
    fn take_over(&mut self) {
        self.observe();
        let old = std::mem::replace(&mut self.scene, Scene::new());
        if self.random.bool() {
            old.world.crash(self.random.u64(..));
        }
        self.scene = old.take_over();
        let mut returning = Vec::new();
        for (index, target) in self.targets.iter_mut().enumerate() {
            if target.consumer.take().is_some() && !target.is_lasting {
                returning.push(index);
            }
            target.may_come_again.append(&mut target.held);
            target.may_come_again.append(&mut target.settling);
            target.must_be_marked.clone_from(&target.delivered);
        }
        self.begin();
        for index in returning {
            self.attach(index);
        }
    }

    /// Compares what clients saw with what may be.
    fn observe(&mut self) {
        for (topic, (client, _)) in &self.publishers {
            for line in self.scene.take_log(*client) {
                assert_eq!(line, "accepted");
                let waiting = self.unconfirmed.get_mut(topic);
                let number = waiting.and_then(VecDeque::pop_front);
                self.confirmed.insert(number.expect("it was published"));
            }
        }
        for target in &mut self.targets {
            let Some((client, _)) = target.consumer else {
                continue;
            };
            for line in self.scene.take_log(client) {
                let Some(text) = line.strip_prefix("got ") else {
                    panic!("{} saw {line}", target.name);
                };
                let (number, count) = text.split_once(" x").unwrap_or((text, "0"));
                target.got(number.parse().expect("a number"), count != "0");
            }
        }
    }

    /// All that was confirmed is settled or comes now, and nothing is left when it is accepted.
    fn finish(&mut self) {
        self.take_over();
        for index in 0..self.targets.len() {
            if self.targets[index].consumer.is_none() {
                self.attach(index);
            }
            let consumer = self.targets[index].consumer.expect("it was attached");
            self.scene.credit(consumer, 10_000);
        }
        // What nobody takes up goes.
        self.scene.pass(21_000);
        self.scene.rest();
        self.observe();
        for target in &self.targets {
            for number in self.confirmed.intersection(&target.published) {
                assert!(
                    target.held.contains(number) || target.accepted.contains(number),
                    "{}: {number} was confirmed and is lost",
                    target.name
                );
            }
        }
        for index in 0..self.targets.len() {
            let (client, _) = self.targets[index].consumer.expect("it was attached");
            for number in std::mem::take(&mut self.targets[index].held) {
                let text = number.to_string();
                self.scene.settle(client, &text, Outcome::Accepted);
            }
        }
        self.scene.rest();
        assert_eq!(self.scene.waiting(), 0, "all is settled");
        assert_eq!(self.scene.node.status().subscriptions, 4);
    }
}

#[test]
fn each_subscription_gets_what_was_confirmed_under_random_work_and_crashes() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.finish();
    }
}
