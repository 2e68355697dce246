//! Queues that come and go.

use std::sync::Arc;

use steadfast_storage::Ticket;

use crate::broker::{ClientId, Event, QueueId, QueueKind, QueueOrigin, Reader, Route};
use crate::model::DestinationKind;
use crate::proto::{ErrorCondition, LinkId, condition};

use super::peer::Link;
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
        let queue = self.next_queue_id()?;
        let name: Arc<str> = Arc::from(name);
        let row = QueueRow {
            name: Arc::clone(&name),
            kind,
        };
        let failed = |text: String| ErrorCondition::new(condition::INTERNAL_ERROR, text);
        let value = row.encode().map_err(|error| failed(error.to_string()))?;
        if let Some(owner) = kind.owner() {
            self.keep_client(owner);
        }
        self.store
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
        Ok(queue)
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
        let Some(former) = former.filter(|it| !self.temporary_topics.has(it)) else {
            let name = self.temporary_name();
            return self.create_queue(&name, kind);
        };
        let existing = match self.broker.route(former) {
            Route::Queue(queue) => self.broker.queue(queue).map(|entry| (queue, entry.kind)),
            Route::Unknown | Route::Invalid(_) => None,
        };
        match existing {
            None => self.create_queue(former, kind),
            Some((queue, QueueKind::Temporary { owner: former }))
                if former.is_none() || former == owner =>
            {
                self.claim_temporary(queue, owner)?;
                Ok(queue)
            }
            Some(_) => {
                let name = self.temporary_name();
                self.create_queue(&name, kind)
            }
        }
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
            let value = QueueRow { name, kind }.encode();
            let value = value.map_err(|error| failed(error.to_string()))?;
            self.store
                .put_row(KIND_QUEUE, &queue_key(queue.0), &value)
                .map_err(|error| failed(error.to_string()))?;
            self.broker.handle(Event::QueueClaimed { queue, owner });
        }
        self.disown(owner, queue);
        Ok(())
    }

    pub(super) fn temporary_name(&self) -> String {
        let (server, epoch) = (&self.settings.server, self.store.epoch());
        format!("{TEMPORARY_PREFIX}{server}.{epoch:x}.{}", self.next_queue)
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
        let is_subscription = self.subscriptions.get(queue).is_some();
        for (id, link) in self.readers_of(queue) {
            if let Some(peer) = self.peer_mut(id) {
                let error =
                    ErrorCondition::new(condition::RESOURCE_DELETED, "the queue was deleted");
                peer.connection.detach(link, Some(error));
                self.mark_dirty(id);
            }
            self.on_detached(id, link, crate::broker::Gone::InOrder);
        }
        self.clients.unclaimed.remove(&queue);
        if is_subscription {
            // Unless it went with its reader's link.
            return self.close_subscription(queue);
        }
        if self.delete_temporary_topic(queue) {
            return None;
        }
        self.routing.changed();
        self.broker.handle(Event::QueueDeleted { queue });
        None
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

/// The address of our format in the name of a link on which Qpid JMS makes a temporary destination anew: it
/// names the link after the address that it had before.
pub(super) fn former_address(link_name: &str, kind: DestinationKind) -> Option<&str> {
    let mark = match kind {
        DestinationKind::Queue => "temp-queue-creator:",
        DestinationKind::Topic => "temp-topic-creator:",
    };
    let (_, address) = link_name.split_once(mark)?;
    let rest = address.strip_prefix(TEMPORARY_PREFIX)?;
    let mut parts = rest.rsplitn(3, '.');
    let (number, epoch, server) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = !server.is_empty()
        && address.len() <= 256
        && !address.chars().any(char::is_control)
        && number.parse::<u32>().is_ok()
        && u64::from_str_radix(epoch, 16).is_ok();
    is_ours.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_address_of_a_temporary_destination_is_found_in_the_link_name() {
        let name = "qpid-jms:temp-queue-creator:$TMP$.east.1f.7";
        assert_eq!(
            former_address(name, DestinationKind::Queue),
            Some("$TMP$.east.1f.7")
        );
        assert_eq!(former_address(name, DestinationKind::Topic), None);
        let name = "qpid-jms:temp-topic-creator:$TMP$.east.1f.7";
        assert_eq!(
            former_address(name, DestinationKind::Topic),
            Some("$TMP$.east.1f.7")
        );
        for name in [
            "qpid-jms:temp-queue-creator:ID:x:1",
            "qpid-jms:temp-queue-creator:$TMP$.east.zz.7",
            "qpid-jms:temp-queue-creator:$TMP$.1f.7",
            "qpid-jms:sender:$TMP$.east.1f.7",
        ] {
            assert_eq!(former_address(name, DestinationKind::Queue), None, "{name}");
        }
    }
}
