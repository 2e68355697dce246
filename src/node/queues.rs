//! Queues that come and go.

use std::sync::Arc;

use ring::digest;
use steadfast_storage::Ticket;

use crate::broker::{ClientId, Event, QueueId, QueueKind, QueueOrigin, Reader, Route};
use crate::model::DestinationKind;
use crate::proto::{ErrorCondition, LinkId, condition};

use super::clients::Identity;
use super::peer::Link;
use super::pending::Item;
use super::records::{
    COUNTER_NEXT_QUEUE, KIND_COUNTER, KIND_QUEUE, KIND_RESERVATION, KIND_SUBSCRIPTION, QueueRow,
    queue_key,
};
use super::{ConnectionId, Node};

/// Addresses of temporary destinations begin so.
pub(super) const TEMPORARY_PREFIX: &str = "$TMP$.";

impl Node {
    /// Makes a queue. It may be used at once: what is appended to it stands behind its row in the
    /// log.
    pub(super) fn create_queue(
        &mut self,
        name: &str,
        kind: QueueKind,
    ) -> Result<QueueId, ErrorCondition> {
        self.make_queue(name, kind).map(|(queue, _)| queue)
    }

    /// The same; returns the batch that makes it durable as well.
    pub(super) fn make_queue(
        &mut self,
        name: &str,
        kind: QueueKind,
    ) -> Result<(QueueId, Ticket), ErrorCondition> {
        let queue = self.next_queue_id()?;
        let name: Arc<str> = Arc::from(name);
        let row = QueueRow::of(Arc::clone(&name), kind);
        let failed = |text: String| ErrorCondition::new(condition::INTERNAL_ERROR, text);
        let value = row.encode().map_err(|error| failed(error.to_string()))?;
        if let Some(owner) = kind.owner() {
            self.keep_client(owner);
        }
        let ticket = self
            .store
            .put_row(KIND_QUEUE, &queue_key(queue.0), &value)
            .map_err(|error| failed(error.to_string()))?;
        self.note_release_unsettled(queue, &name);
        self.broker.handle(Event::QueueAdded {
            queue,
            name: Arc::clone(&name),
            kind,
            origin: QueueOrigin::Created,
        });
        self.note_exclusive(queue, &name);
        Ok((queue, ticket))
    }

    /// The number of a queue that is about to be made; never given out again.
    pub(super) fn next_queue_id(&mut self) -> Result<QueueId, ErrorCondition> {
        let queues_max = self.settings.queues_max;
        if self.broker.queue_count() + self.temporary_topics.len() >= queues_max {
            return Err(ErrorCondition::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                format!("there are {queues_max} queues and subscriptions: delete some"),
            ));
        }
        let next = u64::from(self.next_queue) + 1;
        self.store
            .put_row(KIND_COUNTER, COUNTER_NEXT_QUEUE, &next.to_le_bytes())
            .map_err(|error| ErrorCondition::new(condition::INTERNAL_ERROR, error.to_string()))?;
        let queue = QueueId(self.next_queue);
        self.next_queue += 1;
        Ok(queue)
    }

    /// Makes a temporary queue for a connection, or finds the one that its client had before a
    /// failure.
    pub(super) fn create_temporary(
        &mut self,
        id: ConnectionId,
        link_name: &str,
    ) -> Result<QueueId, ErrorCondition> {
        let owner = self.client_of(id);
        let kind = QueueKind::Temporary { owner };
        let former = former_address(link_name, DestinationKind::Queue);
        let existing = former.and_then(|it| match self.broker.route(it) {
            Route::Queue(queue) => Some((queue, self.broker.queue(queue)?.kind)),
            Route::Unknown | Route::Invalid(_) => None,
        });
        if let Some((queue, QueueKind::Temporary { owner: former })) = existing
            && (former.is_none() || former == owner)
        {
            self.claim_temporary(queue, owner)?;
            return Ok(queue);
        }
        let name = self.temporary_name(&self.identity_of(id), former);
        self.create_queue(&name, kind)
    }

    /// A client takes a temporary queue up again that it had before a failure, or that another of its
    /// connections has.
    fn claim_temporary(
        &mut self,
        queue: QueueId,
        owner: Option<ClientId>,
    ) -> Result<(), ErrorCondition> {
        self.clients.unclaimed.remove(&queue);
        let Some((owner, entry)) = owner.zip(self.broker.queue(queue)) else {
            return Ok(());
        };
        if entry.kind.owner().is_none() {
            let name = Arc::clone(&entry.name);
            let kind = QueueKind::Temporary { owner: Some(owner) };
            self.keep_client(owner);
            let failed = |text: String| ErrorCondition::new(condition::INTERNAL_ERROR, text);
            let value = QueueRow::of(name, kind).encode();
            let value = value.map_err(|error| failed(error.to_string()))?;
            self.store
                .put_row(KIND_QUEUE, &queue_key(queue.0), &value)
                .map_err(|error| failed(error.to_string()))?;
            self.broker.handle(Event::QueueClaimed { queue, owner });
        }
        self.disown(owner, queue);
        Ok(())
    }

    /// The name of a temporary destination that a client makes: the one that it had before, if it is its own and
    /// free, else a new one.
    pub(super) fn temporary_name(&self, client: &Identity, former: Option<&str>) -> String {
        let is_free = |name: &str| {
            !self.temporary_topics.has(name) && !matches!(self.broker.route(name), Route::Queue(_))
        };
        let former = former.filter(|it| self.is_former_name(client, it).unwrap_or(false));
        if let Some(former) = former.filter(|it| is_free(it)) {
            return former.to_owned();
        }
        let mut number = self.next_queue;
        loop {
            let name = self.temporary_name_of(client, self.store.epoch(), number);
            if is_free(&name) {
                return name;
            }
            number = number.wrapping_add(1);
        }
    }

    /// Whether a server of this name gave this name to this client, or would have done so: nobody else has it then.
    fn is_former_name(&self, client: &Identity, name: &str) -> Option<bool> {
        let mut parts = name.rsplitn(4, '.').skip(1);
        let number: u32 = parts.next()?.parse().ok()?;
        let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
        let now = self.store.epoch();
        let is_past = epoch < now || (epoch == now && number < self.next_queue);
        // Clients without a container id cannot be told one from another.
        let is_known = !client.container.is_empty();
        Some(is_past && is_known && name == self.temporary_name_of(client, epoch, number))
    }

    pub(super) fn temporary_name_of(&self, client: &Identity, epoch: u64, number: u32) -> String {
        let (server, mark) = (&self.settings.server, mark_of(client));
        format!("{TEMPORARY_PREFIX}{server}.{epoch:x}.{number}.{mark}")
    }

    /// The links of a client do not delete the queue or topic any more that one of them has made.
    pub(super) fn disown(&mut self, owner: ClientId, queue: QueueId) {
        for (_, peer) in &mut self.peers {
            if peer.client != Some(owner) {
                continue;
            }
            for link in peer.links.values_mut() {
                let owned = match link {
                    Link::Publisher(it) => &mut it.owned_queue,
                    Link::Consumer(it) => &mut it.owned_queue,
                    Link::Lookup(_) => continue,
                };
                if *owned == Some(queue) {
                    *owned = None;
                }
            }
        }
    }

    /// Deletes a queue with all of its messages, or a temporary topic; its consumers are told. Returns the batch
    /// that makes the end of a subscription durable.
    pub(super) fn delete_queue(&mut self, queue: QueueId) -> Option<Ticket> {
        // Also one that is closed already, by its link before its client: its messages wait until that is durable.
        let kind = self.broker.queue(queue).map(|it| it.kind);
        let is_subscription = kind.is_some_and(|it| it.is_subscription());
        self.detach_readers(queue);
        self.clients.unclaimed.remove(&queue);
        if is_subscription {
            // Unless it went with its reader's link.
            return self.close_subscription(queue);
        }
        if self.delete_temporary_topic(queue) {
            return None;
        }
        self.routing.changed();
        self.broker.handle(Event::QueueClosed { queue });
        // Messages on their way to the disk would outlive the rows of their queue: they come first.
        let ticket = self.store.appended_ticket();
        if self.durable.is_empty() && ticket <= self.store.durable_ticket() {
            self.broker.handle(Event::QueueDeleted { queue });
        } else {
            self.pending.push(ticket, Item::Closed { queue });
        }
        None
    }

    /// Ends a permanent queue: nobody finds it any more, its consumers are told, and its messages go when that is
    /// durable, so that no successor finds half of it. Returns the batch that makes it durable; `None` where the
    /// log is lost or sealed: nothing has changed then, and a successor has the queue.
    pub(super) fn close_queue(&mut self, queue: QueueId) -> Option<Ticket> {
        let entry = self.broker.queue(queue)?;
        let row = QueueRow {
            is_deleted: true,
            ..QueueRow::of(Arc::clone(&entry.name), entry.kind)
        };
        let key = queue_key(queue.0);
        let value = row.encode().ok()?;
        let ticket = self.store.put_row(KIND_QUEUE, &key, &value).ok()?;
        self.pending.push(ticket, Item::Closed { queue });
        self.detach_readers(queue);
        self.routing.changed();
        self.broker.handle(Event::QueueClosed { queue });
        Some(ticket)
    }

    fn detach_readers(&mut self, queue: QueueId) {
        for (id, link) in self.readers_of(queue) {
            if let Some(peer) = self.peer_mut(id) {
                let error =
                    ErrorCondition::new(condition::RESOURCE_DELETED, "the queue was deleted");
                peer.connection.detach(link, Some(error));
                self.mark_dirty(id);
            }
            self.on_detached(id, link, crate::broker::Gone::InOrder);
        }
    }

    /// The links that read a queue.
    fn readers_of(&self, queue: QueueId) -> Vec<(ConnectionId, LinkId)> {
        if let Some(subscription) = self.subscriptions.get(queue) {
            return subscription.reader.into_iter().collect();
        }
        let numbers = self.broker.consumers_of(queue).into_iter();
        let links = numbers.filter_map(|number| self.outlets.get(&number).copied());
        links.collect()
    }

    /// The last message of a deleted queue is settled: its rows go behind that.
    pub(super) fn remove_queue(&mut self, queue: QueueId) {
        for kind in [KIND_RESERVATION, KIND_QUEUE, KIND_SUBSCRIPTION] {
            // An error means that the log is lost or sealed; the successor deletes the queue.
            let _lost_or_sealed = self.store.delete_row(kind, &queue_key(queue.0));
        }
        self.cursors.remove(&Reader::Queue(queue));
        self.gauges.forget(queue);
        self.forget_holds(queue);
        self.broker.handle(Event::QueueRemoved { queue });
    }
}

/// By what a name says whose it is, when no row does any more: nobody finds another client with the same one.
fn mark_of(client: &Identity) -> String {
    let mut text = format!("{}:{}", client.container.len(), client.container);
    if let Some(user) = &client.user {
        text.extend([":", user]);
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    format!("{:024x}", u128::from_be_bytes(first) >> 32)
}

/// The address in the name of a link on which Qpid JMS makes a temporary destination anew: it names the link after
/// the address that it had before. It is only said, by whoever likes.
pub(super) fn former_address(link_name: &str, kind: DestinationKind) -> Option<&str> {
    let mark = match kind {
        DestinationKind::Queue => "temp-queue-creator:",
        DestinationKind::Topic => "temp-topic-creator:",
    };
    let (_, address) = link_name.split_once(mark)?;
    address.starts_with(TEMPORARY_PREFIX).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_address_of_a_temporary_destination_is_found_in_the_link_name() {
        let name = "qpid-jms:temp-queue-creator:$TMP$.east.1f.7.a0";
        assert_eq!(
            former_address(name, DestinationKind::Queue),
            Some("$TMP$.east.1f.7.a0")
        );
        assert_eq!(former_address(name, DestinationKind::Topic), None);
        let name = "qpid-jms:temp-topic-creator:$TMP$.east.1f.7.a0";
        assert_eq!(
            former_address(name, DestinationKind::Topic),
            Some("$TMP$.east.1f.7.a0")
        );
        for name in [
            "qpid-jms:temp-queue-creator:ID:x:1",
            "qpid-jms:sender:$TMP$.east.1f.7.a0",
        ] {
            assert_eq!(former_address(name, DestinationKind::Queue), None, "{name}");
        }
    }

    #[test]
    fn no_two_clients_have_the_same_mark() {
        let identity = |container: &str, user: Option<&str>| Identity {
            container: container.to_owned(),
            user: user.map(str::to_owned),
        };
        let marks = [
            identity("c", None),
            identity("c", Some("")),
            identity("c", Some("ann")),
            identity("c:ann", None),
            identity("c", Some("bob")),
            identity("d", Some("ann")),
        ]
        .map(|it| mark_of(&it));
        for (index, mark) in marks.iter().enumerate() {
            assert_eq!(mark.len(), 24);
            assert!(!marks[..index].contains(mark), "{mark}");
        }
    }
}
