//! Where messages of a life can wait: queues, and the subscriptions that its clients may make. All are
//! known from the start; whether a subscription exists is another matter (`oracle/existence.rs`).

use std::sync::Arc;

use steadfast::model::{Bridge, DestinationKind, Directory, Pattern};
use steadfast::node::SubscriptionStatus;
use steadfast::proto::{Durability, ExpiryPolicy, Source, Symbol};

use super::sim::QUEUES;

/// Names a place of a life: the queues first.
pub(super) type Place = usize;

pub(super) const TOPICS: [&str; 3] = ["px.a", "px.b", "px.b.x"];
/// What subscriptions are to.
const PATTERNS: [&str; 7] = ["px.a", "px.b", "px.b.x", "px.*", "px.>", "*.b", ">"];
/// A bridge leads from this topic to that queue, in some lives.
const BRIDGE: (&str, usize) = ("px.b", QUEUES - 1);

/// A subscription that a client may make.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) client: usize,
    pub(super) topic: Pattern,
    /// Of its link.
    pub(super) name: String,
    pub(super) is_durable: bool,
}

/// Where a producer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    Queue(usize),
    Topic(usize),
    /// Each message says it.
    Relay,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    subscriptions: Vec<Subscription>,
    has_bridge: bool,
}

pub(super) fn queue_name(queue: usize) -> String {
    format!("queue-{queue}")
}

pub(super) fn container_of(client: usize) -> String {
    format!("client-{client}")
}

impl Places {
    pub(super) fn new(has_bridge: bool) -> Self {
        Self {
            subscriptions: Vec::new(),
            has_bridge,
        }
    }

    /// The subscriptions that a client may have, one at a time: a durable one may change its topic.
    pub(super) fn subscriber(&mut self, client: usize, random: &mut fastrand::Rng) -> Vec<Place> {
        let is_durable = random.u8(..3) > 0;
        let first = QUEUES + self.subscriptions.len();
        let topics = if is_durable && random.bool() { 2 } else { 1 };
        let from = random.usize(..PATTERNS.len());
        for topic in 0..topics {
            let pattern = PATTERNS[(from + topic) % PATTERNS.len()];
            self.subscriptions.push(Subscription {
                client,
                topic: Pattern::parse(pattern).expect("a pattern"),
                name: format!("subscription-{client}"),
                is_durable,
            });
        }
        (first..first + topics).collect()
    }

    pub(super) fn count(&self) -> usize {
        QUEUES + self.subscriptions.len()
    }

    /// `None`: it is a queue.
    pub(super) fn subscription(&self, place: Place) -> Option<&Subscription> {
        self.subscriptions.get(place.checked_sub(QUEUES)?)
    }

    pub(super) fn is_durable(&self, place: Place) -> bool {
        self.subscription(place).is_none_or(|it| it.is_durable)
    }

    /// Other subscriptions of the same name: at most one of them exists.
    pub(super) fn rivals(&self, place: Place) -> impl Iterator<Item = Place> {
        let name = self.subscription(place).map(|it| it.name.as_str());
        let all = QUEUES..self.count();
        all.filter(move |it| {
            *it != place && self.subscription(*it).map(|it| it.name.as_str()) == name
        })
    }

    /// Where the messages of a queue or topic may go.
    pub(super) fn reached(&self, aim: Aim) -> Vec<Place> {
        match aim {
            Aim::Queue(queue) => vec![queue],
            Aim::Topic(topic) => {
                let matches = |it: &Subscription| it.topic.matches(TOPICS[topic]);
                let all = self.subscriptions.iter().zip(QUEUES..);
                let all = all.filter(|(it, _)| matches(it));
                let bridged = self.has_bridge && TOPICS[topic] == BRIDGE.0;
                let bridged = bridged.then_some(BRIDGE.1);
                bridged
                    .into_iter()
                    .chain(all.map(|(_, place)| place))
                    .collect()
            }
            Aim::Relay => Vec::new(),
        }
    }

    pub(super) fn address(aim: Aim) -> String {
        match aim {
            Aim::Queue(queue) => format!("queue://{}", queue_name(queue)),
            Aim::Topic(topic) => format!("topic://{}", TOPICS[topic]),
            Aim::Relay => String::new(),
        }
    }

    /// What a consumer asks for.
    pub(super) fn source(&self, place: Place) -> Source {
        let Some(it) = self.subscription(place) else {
            return Source::at(queue_name(place));
        };
        let plain = Source {
            capabilities: vec![Symbol::from("topic")],
            ..Source::at(it.topic.as_str())
        };
        if !it.is_durable {
            return plain;
        }
        Source {
            durable: Durability::UnsettledState,
            expiry_policy: ExpiryPolicy::Never,
            ..plain
        }
    }

    /// The one of this client, name and topic.
    pub(super) fn find(&self, container: &str, name: &str, topic: &str) -> Option<Place> {
        let is = |it: &Subscription| {
            it.name == name && it.topic.as_str() == topic && container_of(it.client) == container
        };
        Some(QUEUES + self.subscriptions.iter().position(is)?)
    }

    /// Those that a server has; one that it should not know is an error.
    pub(super) fn of_server(&self, status: &[SubscriptionStatus]) -> Result<Vec<Place>, String> {
        let place = |it: &SubscriptionStatus| {
            let place = self.find(&it.client, &it.name, &it.topic);
            let place = place.filter(|place| self.is_durable(*place) == it.is_durable);
            place.ok_or_else(|| format!("a subscription was invented: {it:?}"))
        };
        status.iter().map(place).collect()
    }

    /// What the configuration says.
    pub(super) fn directory(&self) -> Arc<Directory> {
        let pattern = |text: &str| Pattern::parse(text).expect("a name");
        let bridge = Bridge {
            source: (DestinationKind::Topic, pattern(BRIDGE.0)),
            targets: vec![(DestinationKind::Queue, pattern(&queue_name(BRIDGE.1)))],
        };
        Arc::new(Directory {
            bridges: self.has_bridge.then_some(bridge).into_iter().collect(),
            ..Directory::default()
        })
    }
}
