//! Where messages go: the queue that one is sent to, the subscriptions of its topic, and what bridges
//! lead to. Each message is stored once, with a reference for each of these.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use steadfast_storage::ROUTES_MAX;

use crate::broker::{QueueId, Route};
use crate::model::{DestinationKind, OverflowPolicy, Pattern, Properties};
use crate::proto::{ErrorCondition, condition};

use super::Node;
use super::queues::TEMPORARY_PREFIX;

/// Destinations whose routes are remembered; beyond it all are found anew.
const REMEMBERED_MAX: usize = 10_000;

/// Faults of the targets of bridges that are written down; of further ones nothing is.
const FAULTS_MAX: usize = 100;

/// A queue or a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) kind: DestinationKind,
    pub(crate) name: Arc<str>,
}

impl From<(DestinationKind, &str)> for Destination {
    fn from((kind, name): (DestinationKind, &str)) -> Self {
        let name = Arc::from(name);
        Self { kind, name }
    }
}

/// Where the messages of one destination go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// In the order of their numbers, each once.
    pub(crate) queues: Arc<[QueueId]>,
    /// Some of them do not want what their own client publishes.
    pub(crate) no_local: Vec<QueueId>,
    /// Some of them have limits.
    pub(crate) limits: Vec<Limit>,
    /// Life of the messages, in place of what their sender said; 0: as he said.
    pub(crate) expiration_ms: u64,
}

/// How much may wait in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) queue: QueueId,
    /// 0: any number.
    pub(crate) messages_max: u64,
    /// 0: any number.
    pub(crate) bytes_max: u64,
    pub(crate) beyond: Beyond,
    /// The queue or topic that the limit belongs to.
    pub(crate) destination: Destination,
}

/// What happens beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// The sender gets an error and nobody the message.
    Refuse,
    /// This subscription does not get the message.
    Skip,
    /// The oldest message makes room.
    DiscardOldest,
}

impl Limit {
    /// The limit that the properties of a destination set to one of the queues behind it.
    fn of(destination: &Destination, queue: QueueId, properties: &Properties) -> Option<Self> {
        if properties.messages_max == 0 && properties.bytes_max == 0 {
            return None;
        }
        let beyond = match (properties.overflow_policy, destination.kind) {
            (OverflowPolicy::DiscardOld, _) => Beyond::DiscardOldest,
            (OverflowPolicy::Default, DestinationKind::Topic) => Beyond::Skip,
            (OverflowPolicy::Default | OverflowPolicy::RejectIncoming, _) => Beyond::Refuse,
        };
        Some(Self {
            queue,
            messages_max: properties.messages_max,
            bytes_max: properties.bytes_max,
            beyond,
            destination: destination.clone(),
        })
    }
}

/// A subscription as routing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Its queue.
    pub(crate) queue: QueueId,
    /// It does not want what its own client publishes.
    pub(crate) no_local: bool,
}

/// The subscriptions by what they subscribe to, and the routes that were found.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Grows when routes that were found may be wrong.
    generation: u64,
    exact: HashMap<Box<str>, Vec<Interest>>,
    wildcards: BTreeMap<QueueId, (Pattern, Interest)>,
    remembered: [HashMap<Arc<str>, Arc<Routes>>; 2],
    /// Faults of the targets of bridges that the log has.
    faults: Vec<(Destination, Box<str>)>,
}

impl Routing {
    /// Routes that were found under another number may be wrong.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Queues, subscriptions or bridges are not what they were.
    pub(crate) fn changed(&mut self) {
        self.generation += 1;
        for remembered in &mut self.remembered {
            remembered.clear();
        }
    }

    pub(crate) fn subscribe(&mut self, topic: &Pattern, interest: Interest) {
        if topic.is_wildcard() {
            let entry = (topic.clone(), interest);
            self.wildcards.insert(entry.1.queue, entry);
        } else {
            let all = self.exact.entry(topic.as_str().into()).or_default();
            all.push(interest);
        }
        self.changed();
    }

    pub(crate) fn unsubscribe(&mut self, topic: &Pattern, queue: QueueId) {
        if topic.is_wildcard() {
            self.wildcards.remove(&queue);
        } else if let Some(all) = self.exact.get_mut(topic.as_str()) {
            all.retain(|interest| interest.queue != queue);
            if all.is_empty() {
                self.exact.remove(topic.as_str());
            }
        }
        self.changed();
    }

    /// The subscriptions that get the messages of a topic. Names that begin with `$` are the
    /// server's: patterns that do not begin so stand for none of them.
    pub(crate) fn subscriptions(&self, topic: &str) -> impl Iterator<Item = &Interest> {
        let exact = self.exact.get(topic).into_iter().flatten();
        let is_own = topic.starts_with('$');
        let wild = self.wildcards.values();
        let wild = wild.filter(move |(pattern, _)| {
            pattern.matches(topic) && (!is_own || pattern.as_str().starts_with('$'))
        });
        exact.chain(wild.map(|(_, interest)| interest))
    }

    /// The configuration was read again: what is still wrong is to be said again.
    pub(crate) fn forget_faults(&mut self) {
        self.faults.clear();
    }

    /// Whether this is not known of the target of a bridge, and there is room to know it.
    fn is_new_fault(&mut self, target: &Destination, condition: &str) -> bool {
        let mut known = self.faults.iter();
        let is_known = known.any(|(it, of)| it == target && **of == *condition);
        let is_new = !is_known && self.faults.len() < FAULTS_MAX;
        if is_new {
            self.faults.push((target.clone(), condition.into()));
        }
        is_new
    }

    fn remembered(&self, kind: DestinationKind, name: &str) -> Option<Arc<Routes>> {
        self.remembered[kind as usize].get(name).map(Arc::clone)
    }

    fn remember(&mut self, destination: &Destination, routes: &Arc<Routes>) {
        let remembered = &mut self.remembered[destination.kind as usize];
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(Arc::clone(&destination.name), Arc::clone(routes));
    }
}

impl Node {
    /// Where the messages of a destination go now.
    pub(super) fn routes_to(
        &mut self,
        destination: &Destination,
    ) -> Result<Arc<Routes>, ErrorCondition> {
        if let Some(routes) = self.remembered_routes(destination.kind, &destination.name) {
            return Ok(routes);
        }
        let routes = Arc::new(self.find_routes(destination)?);
        self.routing.remember(destination, &routes);
        Ok(routes)
    }

    /// The same where they were found already.
    pub(super) fn remembered_routes(
        &self,
        kind: DestinationKind,
        name: &str,
    ) -> Option<Arc<Routes>> {
        self.routing.remembered(kind, name)
    }

    fn find_routes(&mut self, destination: &Destination) -> Result<Routes, ErrorCondition> {
        let mut routes = Routes::default();
        let mut queues = Vec::new();
        let properties = self.properties_of(destination);
        routes.expiration_ms = properties.expiration_ms;
        self.add_routes(destination, &properties, &mut routes, &mut queues)?;
        // Bridges are not transitive: those of a target do not count.
        for target in self.bridge_targets(destination) {
            let properties = self.properties_of(&target);
            let made = match target.kind {
                DestinationKind::Queue => self.configured_queue(&target.name).map(drop),
                DestinationKind::Topic => Ok(()),
            };
            let added =
                made.and_then(|()| self.add_routes(&target, &properties, &mut routes, &mut queues));
            if let Err(error) = added {
                return Err(self.behind_bridge(destination, &target, &error));
            }
        }
        queues.sort_unstable();
        queues.dedup();
        if queues.len() > ROUTES_MAX {
            return Err(ErrorCondition::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                format!(
                    "a message to {} {} would go to more places than one message can \
                     ({ROUTES_MAX}); an administrator can say which",
                    destination.kind, destination.name,
                ),
            ));
        }
        routes.queues = queues.into();
        for limit in &routes.limits {
            let stats = self.store.queue_stats(super::store_queue(limit.queue));
            self.gauges.watch(limit.queue, stats);
        }
        Ok(routes)
    }

    fn add_routes(
        &self,
        destination: &Destination,
        properties: &Properties,
        routes: &mut Routes,
        queues: &mut Vec<QueueId>,
    ) -> Result<(), ErrorCondition> {
        let mut add = |routes: &mut Routes, queue| {
            if let Some(limit) = Limit::of(destination, queue, properties)
                && !queues.contains(&queue)
            {
                routes.limits.push(limit);
            }
            queues.push(queue);
        };
        match destination.kind {
            DestinationKind::Queue => match self.broker.route(&destination.name) {
                Route::Queue(queue) => add(routes, queue),
                Route::Unknown | Route::Invalid(_) => {
                    return Err(ErrorCondition::new(
                        condition::NOT_FOUND,
                        format!("the queue {} was deleted", destination.name),
                    ));
                }
            },
            DestinationKind::Topic => {
                let name = &*destination.name;
                if name.starts_with(TEMPORARY_PREFIX) && !self.temporary_topics.has(name) {
                    return Err(ErrorCondition::new(
                        condition::NOT_FOUND,
                        format!("the temporary topic {name} was deleted"),
                    ));
                }
                for interest in self.routing.subscriptions(&destination.name) {
                    add(routes, interest.queue);
                    if interest.no_local {
                        routes.no_local.push(interest.queue);
                    }
                }
            }
        }
        Ok(())
    }

    fn bridge_targets(&self, source: &Destination) -> Vec<Destination> {
        let bridges = self.directory.bridges.iter();
        let bridges = bridges.filter(|bridge| {
            bridge.source.0 == source.kind && bridge.source.1.matches(&source.name)
        });
        let targets = bridges.flat_map(|bridge| &bridge.targets);
        let targets = targets.map(|(kind, name)| Destination::from((*kind, name.as_str())));
        targets.filter(|target| target != source).collect()
    }

    /// What a sender is told of a fault at the end of a bridge: it need not know that there is one, or where it
    /// leads.
    fn behind_bridge(
        &mut self,
        source: &Destination,
        target: &Destination,
        error: &ErrorCondition,
    ) -> ErrorCondition {
        if self.routing.is_new_fault(target, &error.condition) {
            tracing::warn!(
                event = "bridge_target_unusable",
                source = %source.name,
                target = %target.name,
                %error,
                "a bridge leads to a {} that cannot be used: messages to the {} {} are refused until it can, or until \
                 the line is taken out of bridges.conf (said once for each target and reason)",
                target.kind,
                source.kind,
                source.name
            );
        }
        let text = "a destination that a bridge leads to cannot be used; the server's log says why";
        ErrorCondition::new(error.condition.clone(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn interest(queue: u32) -> Interest {
        Interest {
            queue: QueueId(queue),
            no_local: false,
        }
    }

    fn found(routing: &Routing, topic: &str) -> Vec<u32> {
        let mut queues: Vec<u32> = routing.subscriptions(topic).map(|it| it.queue.0).collect();
        queues.sort_unstable();
        queues
    }

    #[test]
    fn a_topic_reaches_its_name_and_all_patterns_that_match() {
        let mut routing = Routing::default();
        for (queue, topic) in [(1, "px.ibm"), (2, "px.*"), (3, "px.>"), (4, ">"), (5, "px")] {
            routing.subscribe(&pattern(topic), interest(queue));
        }
        assert_eq!(found(&routing, "px.ibm"), [1, 2, 3, 4]);
        assert_eq!(found(&routing, "px.ibm.last"), [3, 4]);
        assert_eq!(found(&routing, "px"), [4, 5]);
        assert!(found(&routing, "$sys.monitor").is_empty());
        assert_eq!(found(&routing, "other"), [4]);
        routing.unsubscribe(&pattern(">"), QueueId(4));
        routing.unsubscribe(&pattern("px.ibm"), QueueId(1));
        assert_eq!(found(&routing, "px.ibm"), [2, 3]);
        assert!(found(&routing, "other").is_empty());
    }

    #[test]
    fn what_was_remembered_is_forgotten_with_each_change() {
        let mut routing = Routing::default();
        let topic = Destination {
            kind: DestinationKind::Topic,
            name: Arc::from("a"),
        };
        routing.remember(&topic, &Arc::default());
        let generation = routing.generation();
        assert!(routing.remembered(DestinationKind::Topic, "a").is_some());
        assert!(routing.remembered(DestinationKind::Queue, "a").is_none());
        routing.subscribe(&pattern("a"), interest(1));
        assert!(routing.remembered(DestinationKind::Topic, "a").is_none());
        assert!(routing.generation() > generation);
    }
}
