//! Temporary topics: names that the server gives to a client, and that go with it as its temporary queues do.
//!
//! Such a topic has a row and a number of the same sequence as queues, so that links and clients own it as
//! they own a temporary queue. There is no queue of that number: messages wait in the subscriptions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::broker::{ClientId, QueueId};
use crate::model::{DestinationKind, Pattern};
use crate::proto::{ErrorCondition, condition};

use super::queues::former_address;
use super::records::{KIND_TEMPORARY_TOPIC, TemporaryTopicRow, parse_queue_key, queue_key};
use super::routing::Destination;
use super::{ConnectionId, Node, destinations};

/// All temporary topics.
#[derive(Debug, Default)]
pub(super) struct TemporaryTopics {
    by_number: BTreeMap<QueueId, TemporaryTopicRow>,
    by_name: HashMap<Arc<str>, QueueId>,
}

impl TemporaryTopics {
    /// Returns whether its name leads to it: not where another one has that already.
    fn add(&mut self, number: QueueId, topic: TemporaryTopicRow) -> bool {
        let leads_to = *self
            .by_name
            .entry(Arc::clone(&topic.name))
            .or_insert(number);
        self.by_number.insert(number, topic);
        leads_to == number
    }

    fn remove(&mut self, number: QueueId) -> Option<TemporaryTopicRow> {
        let topic = self.by_number.remove(&number)?;
        if self.by_name.get(&topic.name) == Some(&number) {
            self.by_name.remove(&topic.name);
        }
        Some(topic)
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The one with a number: its name and whose it is.
    pub(super) fn get(&self, number: QueueId) -> Option<&TemporaryTopicRow> {
        self.by_number.get(&number)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_number.values().map(|it| &*it.name)
    }

    fn owner(&self, number: QueueId) -> Option<ClientId> {
        self.get(number)?.owner
    }

    /// Those of a client.
    pub(super) fn of(&self, client: ClientId) -> impl Iterator<Item = QueueId> {
        let all = self.by_number.iter();
        all.filter(move |(_, it)| it.owner == Some(client))
            .map(|(&number, _)| number)
    }
}

impl Node {
    /// Makes a temporary topic for a connection, or finds the one that its client had before a failure.
    pub(super) fn create_temporary_topic(
        &mut self,
        id: ConnectionId,
        link_name: &str,
    ) -> Result<QueueId, ErrorCondition> {
        let owner = self.client_of(id);
        let former = former_address(link_name, DestinationKind::Topic);
        let existing = former.and_then(|it| self.temporary_topics.by_name.get(it).copied());
        if let Some(number) = existing
            && self.temporary_topics.owner(number) == owner
        {
            self.clients.unclaimed.remove(&number);
            if let Some(owner) = owner {
                self.disown(owner, number);
            }
            return Ok(number);
        }
        let name = self.temporary_name(&self.identity_of(id), former);
        self.add_temporary_topic(&name, owner)
    }

    fn add_temporary_topic(
        &mut self,
        name: &str,
        owner: Option<ClientId>,
    ) -> Result<QueueId, ErrorCondition> {
        let failed = |text: String| ErrorCondition::new(condition::INTERNAL_ERROR, text);
        literal(name)?;
        let number = self.next_queue_id()?;
        let topic = TemporaryTopicRow {
            name: Arc::from(name),
            owner,
        };
        let value = topic.encode().map_err(|error| failed(error.to_string()))?;
        if let Some(owner) = owner {
            self.keep_client(owner);
        }
        self.store
            .put_row(KIND_TEMPORARY_TOPIC, &queue_key(number.0), &value)
            .map_err(|error| failed(error.to_string()))?;
        self.temporary_topics.add(number, topic);
        Ok(number)
    }

    /// Deletes a temporary topic with its subscriptions, whose readers are told. Returns whether the number is
    /// that of one.
    pub(super) fn delete_temporary_topic(&mut self, number: QueueId) -> bool {
        let Some(topic) = self.temporary_topics.remove(number) else {
            return false;
        };
        let subscriptions: Vec<QueueId> = self.subscriptions_to(&topic.name).collect();
        for queue in subscriptions {
            self.delete_queue(queue);
        }
        // An error means that the log is lost or sealed: a successor has the topic, and its client is gone.
        let key = queue_key(number.0);
        let _lost_or_sealed = self.store.delete_row(KIND_TEMPORARY_TOPIC, &key);
        self.routing.changed();
        true
    }

    fn subscriptions_to(&self, name: &str) -> impl Iterator<Item = QueueId> {
        let all = self.subscriptions.iter();
        all.filter(move |(_, it)| it.topic.as_str() == name)
            .map(|(queue, _)| queue)
    }

    /// Whether somebody receives from a temporary topic.
    pub(super) fn is_temporary_topic_read(&self, number: QueueId) -> bool {
        let name = self.temporary_topics.get(number).map(|it| &*it.name);
        let mut all = self.subscriptions.iter();
        all.any(|(_, it)| it.reader.is_some() && name == Some(it.topic.as_str()))
    }

    /// The temporary topics that a predecessor left. Returned are those whose clients are not expected.
    pub(super) fn recover_temporary_topics(&mut self) -> Vec<QueueId> {
        let mut void = Vec::new();
        for (key, value) in self.store.rows(KIND_TEMPORARY_TOPIC) {
            let row = parse_queue_key(key).zip(TemporaryTopicRow::decode(value));
            let Some((number, topic)) = row else {
                tracing::error!(
                    ?key,
                    "a temporary topic of the store cannot be read by this version"
                );
                continue;
            };
            let queue = QueueId(number);
            self.next_queue = self.next_queue.max(number.saturating_add(1));
            self.clients.unclaimed.insert(queue);
            let owner = topic.owner;
            let is_void = owner.is_none_or(|owner| !self.clients.contains(owner));
            // Two of one name would get each other's messages; older versions could be led to make them.
            if !self.temporary_topics.add(queue, topic) || is_void {
                void.push(queue);
            }
        }
        void
    }

    /// What a link may subscribe to: a temporary topic of its own client, or a name or pattern of others.
    pub(super) fn topic_to_read(
        &self,
        id: ConnectionId,
        destination: &Destination,
    ) -> Result<Pattern, ErrorCondition> {
        let Some(&number) = self.temporary_topics.by_name.get(&destination.name) else {
            let topic = destinations::topic_name(&destination.name)?;
            if !topic.is_wildcard() {
                self.may_create(destination)?;
            }
            return Ok(topic);
        };
        let owner = self.temporary_topics.owner(number);
        if owner.is_none() || owner != self.client_of(id) {
            return Err(ErrorCondition::new(
                condition::NOT_ALLOWED,
                "only the client that made a temporary topic may subscribe to it",
            ));
        }
        literal(&destination.name)
    }

    /// The names of all temporary topics in the order of their making.
    pub fn temporary_topic_names(&self) -> Vec<String> {
        self.temporary_topics.names().map(str::to_owned).collect()
    }
}

/// A name of ours as a subscription has it. The name of the server is part of it.
fn literal(name: &str) -> Result<Pattern, ErrorCondition> {
    let fault = match Pattern::parse(name) {
        Ok(topic) if !topic.is_wildcard() => return Ok(topic),
        Ok(_) => String::from("it has a wildcard"),
        Err(fault) => fault,
    };
    Err(ErrorCondition::new(
        condition::INTERNAL_ERROR,
        format!(
            "no topic can be named {name:?} after the server: {fault}; change the parameter `server`"
        ),
    ))
}
