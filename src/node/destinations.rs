//! What addresses of clients mean, which destinations may come into being, and those that the
//! configuration names.

use std::sync::Arc;

use crate::auth::Users;
use crate::broker::{Event, NameFault, QueueId, QueueKind, Route};
use crate::model::{DestinationKind, Directory, Pattern, Properties};
use crate::proto::{ErrorCondition, condition};

use super::peer::Link;
use super::routing::Destination;
use super::{Node, Now, translate};

/// Beginnings of addresses that say what kind of destination they mean.
const PREFIXES: [(&str, DestinationKind); 2] = [
    ("queue://", DestinationKind::Queue),
    ("topic://", DestinationKind::Topic),
];

impl Node {
    /// Destinations, users and permissions from now on. Links and connections that are not allowed any
    /// more are closed. Queues and durable subscriptions that it names come
    /// into being; queues that only the one before named go if nobody uses them and they are empty.
    pub fn set_directory(&mut self, now: Now, directory: Arc<Directory>) {
        if directory.users != self.directory.users {
            self.users = Arc::new(Users::new(&directory.users));
        }
        let former = std::mem::replace(&mut self.directory, directory);
        self.enforce(now, !former.authorization);
        self.routing.changed();
        self.routing.forget_faults();
        self.gauges.clear();
        let directory = Arc::clone(&self.directory);
        for (name, _) in former.queues.entries() {
            if !directory.queues.is_static(name) {
                self.drop_unused_queue(name);
            }
        }
        for (name, _) in directory.queues.entries() {
            if !name.is_wildcard() {
                self.make_configured_queue(name);
            }
        }
        for bridge in &directory.bridges {
            for (kind, target) in &bridge.targets {
                if *kind == DestinationKind::Queue {
                    self.make_configured_queue(target);
                }
            }
        }
        self.apply_durables(&directory.durables);
        self.apply_release_unsettled();
        self.apply_exclusive();
        self.work(now);
    }

    fn apply_exclusive(&mut self) {
        let queues = self.broker.queues();
        let queues = queues.filter(|(_, entry)| !entry.kind.is_subscription());
        let queues = queues.map(|(queue, entry)| (queue, Arc::clone(&entry.name)));
        let queues: Vec<(QueueId, Arc<str>)> = queues.collect();
        for (queue, name) in queues {
            self.note_exclusive(queue, &name);
        }
    }

    /// A queue is new, or its properties may be.
    pub(super) fn note_exclusive(&mut self, queue: QueueId, name: &str) {
        let properties = self.directory.queues.effective(name);
        self.broker.handle(Event::QueueExclusive {
            queue,
            is_exclusive: properties.is_some_and(|it| it.exclusive),
        });
    }

    fn make_configured_queue(&mut self, name: &Pattern) {
        if let Err(error) = self.configured_queue(name.as_str()) {
            tracing::error!(queue = name.as_str(), %error, "a configured queue cannot be made");
        }
    }

    /// A queue that the configuration names.
    pub(super) fn configured_queue(&mut self, name: &str) -> Result<QueueId, ErrorCondition> {
        match self.broker.route(name) {
            Route::Queue(queue) => Ok(queue),
            Route::Invalid(fault) => Err(translate::name_refused(name, fault)),
            Route::Unknown => self.create_queue(name, QueueKind::Permanent),
        }
    }

    fn drop_unused_queue(&mut self, name: &Pattern) {
        let Route::Queue(queue) = self.broker.route(name.as_str()) else {
            return;
        };
        let publishes = |link: &Link| match link {
            Link::Publisher(publisher) => publisher
                .destination
                .as_ref()
                .is_some_and(|it| it.kind == DestinationKind::Queue && *it.name == *name.as_str()),
            Link::Consumer(_) | Link::Lookup(_) => false,
        };
        let mut links = self.peers.iter().flat_map(|(_, peer)| peer.links.values());
        let is_used = self.broker.consumer_count(queue) > 0 || links.any(publishes);
        let stats = self.store.queue_stats(super::store_queue(queue));
        // A message on its way to the disk might be for this queue.
        let is_empty = stats.messages == 0 && self.store.backlog_bytes() == 0;
        if is_empty && !is_used && !self.owes_answers() {
            self.delete_queue(queue);
        }
    }

    /// The properties of a destination; none for one that the configuration does not name.
    pub(super) fn properties_of(&self, destination: &Destination) -> Properties {
        let catalogue = self.directory.catalogue(destination.kind);
        catalogue.effective(&destination.name).unwrap_or_default()
    }

    /// What an address means: `said` (by a capability or an annotation) or a prefix name the kind,
    /// otherwise it is a queue unless only a topic of that name is configured.
    pub(super) fn meaning_of<'a>(
        &self,
        address: &'a str,
        said: Option<DestinationKind>,
    ) -> Result<(DestinationKind, &'a str), ErrorCondition> {
        let prefixed = PREFIXES.iter().find_map(|(prefix, kind)| {
            let name = address.strip_prefix(prefix)?;
            Some((name, *kind))
        });
        match (prefixed, said) {
            (Some((_, kind)), Some(said)) if kind != said => Err(ErrorCondition::new(
                condition::INVALID_FIELD,
                format!("the address {address:?} means a {kind}, but a {said} is asked for"),
            )),
            (Some((name, kind)), _) => Ok((kind, name)),
            (None, Some(kind)) => Ok((kind, address)),
            (None, None) => Ok((self.kind_of_plain(address), address)),
        }
    }

    fn kind_of_plain(&self, name: &str) -> DestinationKind {
        if self.temporary_topics.has(name) {
            return DestinationKind::Topic;
        }
        if matches!(self.broker.route(name), Route::Queue(_)) {
            return DestinationKind::Queue;
        }
        let directory = &self.directory;
        let is_topic = Pattern::parse(name)
            .is_ok_and(|it| directory.topics.is_static(&it) && !directory.queues.is_static(&it));
        if is_topic {
            DestinationKind::Topic
        } else {
            DestinationKind::Queue
        }
    }

    /// Whether a destination that nobody has made may come into being because a client names it.
    /// With configuration files these say so: one of their entries has to match.
    pub(super) fn may_create(&self, destination: &Destination) -> Result<(), ErrorCondition> {
        let (kind, name) = (destination.kind, &*destination.name);
        let not_found = |text| Err(ErrorCondition::new(condition::NOT_FOUND, text));
        let directory = &self.directory;
        let catalogue = directory.catalogue(kind);
        let is_static = Pattern::parse(name).is_ok_and(|name| catalogue.is_static(&name));
        if is_static {
            return Ok(());
        }
        if !self.settings.auto_create_queues {
            return not_found(format!(
                "there is no {kind} {name:?}, and {kind}s are not created on use"
            ));
        }
        let mut named = directory.queues.entries().chain(directory.topics.entries());
        if named.next().is_some() && catalogue.effective(name).is_none() {
            return not_found(format!(
                "there is no {kind} {name:?}, and no line of {kind}s.conf matches it: add it, or a \
                 pattern such as `>`"
            ));
        }
        Ok(())
    }

    /// A topic that messages are to be published to. Topics are only names: there is nothing to
    /// make.
    pub(super) fn check_topic(&self, destination: &Destination) -> Result<(), ErrorCondition> {
        if self.temporary_topics.has(&destination.name) {
            return Ok(());
        }
        let name = topic_name(&destination.name)?;
        if name.is_wildcard() {
            return Err(ErrorCondition::new(
                condition::INVALID_FIELD,
                format!("messages cannot be published to the pattern {name}, only to one topic"),
            ));
        }
        self.may_create(destination)
    }
}

/// A name or pattern of topics. Those that begin with `$` are given by the server.
pub(super) fn topic_name(text: &str) -> Result<Pattern, ErrorCondition> {
    if text.starts_with('$') {
        return Err(translate::name_refused(text, NameFault::Reserved));
    }
    Pattern::parse(text).map_err(|fault| {
        let fault = format!("topic: {fault}");
        ErrorCondition::new(condition::INVALID_FIELD, fault)
    })
}
