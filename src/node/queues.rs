//! Queues that come and go.

use std::sync::Arc;

use crate::broker::{Event, QueueId, QueueKind, QueueOrigin, Reader, Route};
use crate::proto::{ErrorCondition, condition};

use super::peer::Link;
use super::records::{
    COUNTER_NEXT_QUEUE, KIND_COUNTER, KIND_QUEUE, KIND_RESERVATION, QueueRow, queue_key,
};
use super::{ConnectionId, Node, Now};

/// Addresses of temporary queues begin so.
const TEMPORARY_PREFIX: &str = "$TMP$.";
/// Qpid JMS names the link on which it asks for a temporary queue after the address that it had
/// before.
const CREATOR_MARK: &str = "temp-queue-creator:";

impl Node {
    /// Makes a queue. It may be used at once: what is appended to it stands behind its row in the
    /// log.
    pub(super) fn create_queue(
        &mut self,
        name: &str,
        kind: QueueKind,
    ) -> Result<QueueId, ErrorCondition> {
        if self.broker.queue_count() >= self.settings.queues_max {
            return Err(ErrorCondition::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                format!("there are {} queues: delete some", self.settings.queues_max),
            ));
        }
        let queue = QueueId(self.next_queue);
        let name: Arc<str> = Arc::from(name);
        let row = QueueRow {
            name: Arc::clone(&name),
            is_temporary: matches!(kind, QueueKind::Temporary { .. }),
        };
        let failed = |text: String| ErrorCondition::new(condition::INTERNAL_ERROR, text);
        let value = row.encode().map_err(|error| failed(error.to_string()))?;
        let next = u64::from(self.next_queue) + 1;
        self.store
            .put_row(KIND_COUNTER, COUNTER_NEXT_QUEUE, &next.to_le_bytes())
            .and_then(|_| self.store.put_row(KIND_QUEUE, &queue_key(queue.0), &value))
            .map_err(|error| failed(error.to_string()))?;
        self.next_queue += 1;
        self.broker.handle(Event::QueueAdded {
            queue,
            name,
            kind,
            origin: QueueOrigin::Created,
        });
        Ok(queue)
    }

    /// Makes a temporary queue for a connection, or finds the one that its client had before a
    /// failure.
    pub(super) fn create_temporary(
        &mut self,
        id: ConnectionId,
        link_name: &str,
    ) -> Result<QueueId, ErrorCondition> {
        let kind = QueueKind::Temporary {
            owner: Some(id.number()),
        };
        let Some(former) = former_address(link_name) else {
            let name = self.temporary_name();
            return self.create_queue(&name, kind);
        };
        let existing = match self.broker.route(former) {
            Route::Queue(queue) => self.broker.queue(queue).map(|entry| (queue, entry.kind)),
            Route::Unknown | Route::Invalid(_) => None,
        };
        match existing {
            None => self.create_queue(former, kind),
            Some((queue, QueueKind::Temporary { owner })) if self.may_claim(id, owner) => {
                self.broker.handle(Event::QueueClaimed {
                    queue,
                    owner: id.number(),
                });
                if let Some(owner) = owner {
                    self.disown(owner, queue);
                }
                Ok(queue)
            }
            Some(_) => {
                let name = self.temporary_name();
                self.create_queue(&name, kind)
            }
        }
    }

    fn temporary_name(&self) -> String {
        let (server, epoch) = (&self.settings.server, self.store.epoch());
        format!("{TEMPORARY_PREFIX}{server}.{epoch:x}.{}", self.next_queue)
    }

    /// A temporary queue belongs to nobody after a takeover; otherwise only another connection of
    /// the same container may take it over, which is the same client.
    fn may_claim(&self, id: ConnectionId, owner: Option<u64>) -> bool {
        let Some(owner) = owner else {
            return true;
        };
        let container = self.peer(id).and_then(|it| it.container.as_ref());
        let owner = self
            .peers
            .iter()
            .find(|(index, peer)| super::connection_id(*index, peer).number() == owner);
        owner.is_none_or(|(_, peer)| {
            peer.container.is_some() && peer.container.as_ref() == container
        })
    }

    /// The former owner's links do not delete the queue any more.
    fn disown(&mut self, owner: u64, queue: QueueId) {
        for (index, peer) in &mut self.peers {
            if super::connection_id(index, peer).number() != owner {
                continue;
            }
            for link in peer.links.values_mut() {
                let owned = match link {
                    Link::Publisher(it) => &mut it.owned_queue,
                    Link::Consumer(it) => &mut it.owned_queue,
                };
                if *owned == Some(queue) {
                    *owned = None;
                }
            }
        }
    }

    /// Deletes a queue with all of its messages; its consumers are told.
    pub(super) fn delete_queue(&mut self, queue: QueueId) {
        let mut links = Vec::new();
        for (index, peer) in &self.peers {
            for (&link, it) in &peer.links {
                if matches!(it, Link::Consumer(it) if it.id.queue == queue) {
                    links.push((super::connection_id(index, peer), link));
                }
            }
        }
        for (id, link) in links {
            if let Some(peer) = self.peer_mut(id) {
                let error =
                    ErrorCondition::new(condition::RESOURCE_DELETED, "the queue was deleted");
                peer.connection.detach(link, Some(error));
                self.mark_dirty(id);
            }
            self.on_detached(id, link, crate::broker::Gone::InOrder);
        }
        self.broker.handle(Event::QueueDeleted { queue });
    }

    /// The last message of a deleted queue is settled: its rows go behind that.
    pub(super) fn remove_queue(&mut self, queue: QueueId) {
        for kind in [KIND_RESERVATION, KIND_QUEUE] {
            // An error means that the log is lost or sealed; the successor deletes the queue.
            let _lost_or_sealed = self.store.delete_row(kind, &queue_key(queue.0));
        }
        self.cursors.remove(&Reader::Queue(queue));
        self.broker.handle(Event::QueueRemoved { queue });
    }

    /// Deletes the temporary queues whose owners did not come back after a takeover.
    pub(super) fn give_up_orphans(&mut self, now: Now) {
        if self
            .orphans_until_ms
            .is_none_or(|until| now.monotonic_ms < until)
        {
            return;
        }
        self.orphans_until_ms = None;
        let orphans: Vec<QueueId> = self
            .broker
            .queues()
            .filter(|(_, entry)| entry.kind == QueueKind::Temporary { owner: None })
            .map(|(queue, _)| queue)
            .collect();
        for queue in orphans {
            self.delete_queue(queue);
        }
    }
}

/// The address of our format in the name of a link on which Qpid JMS makes a temporary queue anew.
fn former_address(link_name: &str) -> Option<&str> {
    let (_, address) = link_name.split_once(CREATOR_MARK)?;
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
    use super::former_address;

    #[test]
    fn the_former_address_of_a_temporary_queue_is_found_in_the_link_name() {
        let name = "qpid-jms:temp-queue-creator:$TMP$.east.1f.7";
        assert_eq!(former_address(name), Some("$TMP$.east.1f.7"));
        for name in [
            "qpid-jms:temp-queue-creator:ID:x:1",
            "qpid-jms:temp-queue-creator:$TMP$.east.zz.7",
            "qpid-jms:temp-queue-creator:$TMP$.1f.7",
            "qpid-jms:sender:$TMP$.east.1f.7",
        ] {
            assert_eq!(former_address(name), None, "{name}");
        }
    }
}
