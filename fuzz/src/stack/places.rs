//! Where messages of a life can wait: queues, and the subscriptions that its clients may make. All are
//! known from the start; whether a subscription exists is another matter (`oracle/existence.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use steadfast::model::{Bridge, DestinationKind, Directory, Pattern};
use steadfast::node::{Node, SubscriptionStatus};
use steadfast::proto::{Durability, ExpiryPolicy, Source, Symbol};

use super::sim::QUEUES;

/// Names a place of a life: the queues first.
pub(super) type Place = usize;

pub(super) const TOPICS: [&str; 3] = ["px.a", "px.b", "px.b.x"];
/// What subscriptions are to.
const PATTERNS: [&str; 7] = ["px.a", "px.b", "px.b.x", "px.*", "px.>", "*.b", ">"];
/// Names of temporary destinations begin so.
const TEMPORARY: &str = "$TMP$.";
/// A bridge leads from this topic to that queue, in some lives.
const BRIDGE: (&str, usize) = ("px.b", QUEUES - 1);

/// A subscription or a temporary destination that a client may make.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) client: usize,
    /// Of a temporary destination: a name that nobody uses.
    pub(super) topic: Pattern,
    /// Of its link.
    pub(super) name: String,
    pub(super) is_durable: bool,
    /// It is a temporary queue, or the subscription of a temporary topic.
    pub(super) temporary: Option<DestinationKind>,
}

/// Where a producer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    Queue(usize),
    Topic(usize),
    /// Each message says it.
    Relay,
    /// A temporary queue or topic, by the name that its client knows.
    Temporary(Place),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    subscriptions: Vec<Subscription>,
    has_bridge: bool,
    /// The names of temporary destinations, as their clients were told.
    names: BTreeMap<Place, String>,
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
            has_bridge,
            ..Self::default()
        }
    }

    /// The subscriptions that a client may have, one at a time: a durable one may change its topic.
    pub(super) fn subscriber(&mut self, client: usize, random: &mut fastrand::Rng) -> Vec<Place> {
        let (is_durable, temporary) = match random.u8(..6) {
            0 => (false, Some(DestinationKind::Queue)),
            1 => (false, Some(DestinationKind::Topic)),
            2 => (false, None),
            _ => (true, None),
        };
        let first = QUEUES + self.subscriptions.len();
        let topics = if is_durable && random.bool() { 2 } else { 1 };
        let from = random.usize(..PATTERNS.len());
        for topic in 0..topics {
            let pattern = match temporary {
                Some(_) => "temporary",
                None => PATTERNS[(from + topic) % PATTERNS.len()],
            };
            self.subscriptions.push(Subscription {
                client,
                topic: Pattern::parse(pattern).expect("a pattern"),
                name: format!("subscription-{client}"),
                is_durable,
                temporary,
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
            Aim::Temporary(place) => vec![place],
            Aim::Relay => Vec::new(),
        }
    }

    /// The kind of a temporary destination.
    pub(super) fn temporary(&self, place: Place) -> Option<DestinationKind> {
        self.subscription(place)?.temporary
    }

    /// The name of a temporary destination, as its client was told last.
    pub(super) fn name(&self, place: Place) -> Option<&str> {
        self.names.get(&place).map(String::as_str)
    }

    /// A client is told the name of its temporary destination; whether that is another than before.
    pub(super) fn is_named(&mut self, place: Place, name: &str) -> bool {
        let former = self.names.insert(place, name.to_owned());
        former.is_some_and(|former| former != name)
    }

    /// Temporary destinations whose name is known.
    pub(super) fn named(&self) -> Vec<Place> {
        self.names.keys().copied().collect()
    }

    pub(super) fn address(&self, aim: Aim) -> String {
        match aim {
            Aim::Temporary(place) => {
                let kind = self.temporary(place).unwrap_or(DestinationKind::Queue);
                format!("{kind}://{}", self.name(place).unwrap_or_default())
            }
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
        let address = self.name(place).unwrap_or(it.topic.as_str());
        if it.temporary == Some(DestinationKind::Queue) {
            return Source::at(address);
        }
        let plain = Source {
            capabilities: vec![Symbol::from("topic")],
            ..Source::at(address)
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
        let mut all = QUEUES..self.count();
        all.find(|place| {
            let Some(it) = self.subscription(*place) else {
                return false;
            };
            let is_to = self.name(*place).unwrap_or(it.topic.as_str());
            it.name == name && is_to == topic && container_of(it.client) == container
        })
    }

    /// The temporary queue of this name.
    pub(super) fn find_queue(&self, name: &str) -> Option<Place> {
        let is_queue = |place: &Place| self.temporary(*place) == Some(DestinationKind::Queue);
        let mut all = self.names.iter().filter(|(place, _)| is_queue(place));
        all.find(|(_, it)| *it == name).map(|(place, _)| *place)
    }

    /// Those that a server has; one that it should not know is an error. Temporary destinations of which no client
    /// was told are left out.
    pub(super) fn of_server(&self, node: &Node) -> Result<Vec<Place>, String> {
        let queues = node.queue_status();
        let queues = queues.iter().filter_map(|it| self.find_queue(&it.name));
        let status = node.subscription_status();
        let is_known = |it: &&SubscriptionStatus| {
            let place = self.find(&it.client, &it.name, &it.topic);
            place.is_some() || !it.topic.starts_with(TEMPORARY)
        };
        let place = |it: &SubscriptionStatus| {
            let place = self.find(&it.client, &it.name, &it.topic);
            let place = place.filter(|place| self.is_durable(*place) == it.is_durable);
            place.ok_or_else(|| format!("a subscription was invented: {it:?}"))
        };
        let subscriptions = status.iter().filter(is_known).map(place);
        queues.map(Ok).chain(subscriptions).collect()
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
