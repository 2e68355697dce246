//! Messages from clients.

use std::sync::Arc;

use bytes::Bytes;
use steadfast_storage::{AppendError, Appended, NewMessage, Ticket};

use crate::broker::QueueId;
use crate::proto::message::MessageIndex;
use crate::proto::{ErrorCondition, LinkId, Outcome, Payload, condition};

use super::meta::MessageMeta;
use super::pending::{Arrival, Item};
use super::records::{KIND_RESERVATION, queue_key};
use super::routing::Routes;
use super::translate::{self, store_queue};
use super::{ConnectionId, Node, Now};

/// A message as it came from a client.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) connection: ConnectionId,
    pub(super) link: LinkId,
    pub(super) delivery_id: u32,
    pub(super) is_settled: bool,
    pub(super) message_format: u32,
    pub(super) payload: Payload,
    pub(super) state: Option<Box<Outcome>>,
}

impl Node {
    /// Stores a message; the confirm follows when it is durable, at once when the sender does not
    /// ask for durability. What cannot be stored is rejected with the reason, and the connection
    /// lives on.
    pub(super) fn publish(&mut self, now: Now, incoming: &Incoming) {
        if self.is_stopping {
            return;
        }
        let result = self.try_publish(now, incoming);
        match result {
            Ok(()) => self.counters.published += 1,
            Err(error) => {
                self.counters.refused += 1;
                tracing::debug!(connection = incoming.connection.number(), %error, "message refused");
                if !incoming.is_settled {
                    let rejected = Outcome::Rejected(Some(error));
                    let Incoming {
                        connection,
                        link,
                        delivery_id,
                        ..
                    } = *incoming;
                    self.settle(connection, link, delivery_id, rejected);
                }
            }
        }
    }

    fn try_publish(&mut self, now: Now, incoming: &Incoming) -> Result<(), ErrorCondition> {
        if matches!(
            incoming.state.as_deref(),
            Some(Outcome::Transactional { .. })
        ) {
            return Err(translate::not_implemented("transactions"));
        }
        let index = self.index_of(incoming)?;
        let routes = self.routes_of(incoming, index.as_ref())?;
        let admitted = self.admit(&routes, incoming.connection, incoming.payload.len())?;
        let queues = admitted.chosen.as_deref().unwrap_or(&routes.queues);
        let mut meta = match &index {
            Some(index) => MessageMeta::of(index, now.wall_ms),
            None => MessageMeta::opaque(incoming.message_format, now.wall_ms),
        };
        if routes.expiration_ms > 0 {
            meta.expire_at(now.wall_ms.saturating_add(routes.expiration_ms));
        }
        if queues.is_empty() {
            // Nobody gets it: a message of a topic without subscriptions is not stored.
            self.counters.skipped += admitted.skipped;
            self.confirm(incoming, None);
            return Ok(());
        }
        self.reserve_before(queues);
        let appended = self.append(queues, &meta, &incoming.payload)?;
        self.counters.skipped += admitted.skipped;
        self.note_arrival(queues, &routes, &meta, &appended);
        self.confirm(incoming, meta.durable.then_some(appended.ticket));
        Ok(())
    }

    /// Confirms a message when the batch `ticket` is durable; without one as soon as the store is
    /// known to be ours.
    fn confirm(&mut self, incoming: &Incoming, ticket: Option<Ticket>) {
        if incoming.is_settled {
            return;
        }
        let Incoming {
            connection,
            link,
            delivery_id,
            ..
        } = *incoming;
        let confirm = Item::Confirm {
            connection,
            link,
            delivery_id,
        };
        if let Some(ticket) = ticket {
            self.pending.push(ticket, confirm);
        } else if self.holds_store() {
            self.settle(connection, link, delivery_id, Outcome::Accepted);
        } else {
            self.owed.push(confirm);
        }
    }

    /// Stores a message of the server itself, which nobody waits to be confirmed.
    pub(super) fn publish_own(&mut self, now: Now, queue: QueueId, message: Bytes) {
        let Ok(index) = MessageIndex::scan(&message) else {
            return;
        };
        let meta = MessageMeta::of(&index, now.wall_ms);
        let queues = [queue];
        self.reserve_before(&queues);
        // A store without space takes it no more than a client's.
        if let Ok(appended) = self.append(&queues, &meta, &Payload::from(message)) {
            let routes = Routes {
                queues: Arc::from(queues),
                ..Routes::default()
            };
            self.note_arrival(&queues, &routes, &meta, &appended);
        }
    }

    /// Reads the sections before the body; `None` for formats that are not ours to read.
    fn index_of(&self, incoming: &Incoming) -> Result<Option<MessageIndex>, ErrorCondition> {
        if incoming.message_format != 0 {
            return Ok(None);
        }
        match MessageIndex::scan_payload(&incoming.payload) {
            Ok(index) => Ok(Some(index)),
            Err(error) => Err(ErrorCondition::new(
                condition::DECODE_ERROR,
                error.to_string(),
            )),
        }
    }

    /// The queues that a message is for.
    fn routes_of(
        &mut self,
        incoming: &Incoming,
        index: Option<&MessageIndex>,
    ) -> Result<Arc<Routes>, ErrorCondition> {
        let generation = self.routing.generation();
        let peer = self.peer_mut(incoming.connection);
        let Some(publisher) = peer.and_then(|peer| peer.publisher_mut(incoming.link)) else {
            return Err(ErrorCondition::new(
                condition::NOT_ALLOWED,
                "the link is gone",
            ));
        };
        if let Some((found_at, routes)) = &publisher.routes
            && *found_at == generation
        {
            return Ok(Arc::clone(routes));
        }
        let Some(destination) = publisher.destination.clone() else {
            return self.relay(incoming, index);
        };
        let routes = self.routes_to(&destination)?;
        // Finding them may have made queues.
        let found = Some((self.routing.generation(), Arc::clone(&routes)));
        let peer = self.peer_mut(incoming.connection);
        if let Some(publisher) = peer.and_then(|peer| peer.publisher_mut(incoming.link)) {
            publisher.routes = found;
        }
        Ok(routes)
    }

    /// Where a message goes that says so itself.
    fn relay(
        &mut self,
        incoming: &Incoming,
        index: Option<&MessageIndex>,
    ) -> Result<Arc<Routes>, ErrorCondition> {
        let nowhere = |why: &str| ErrorCondition::new(condition::NOT_FOUND, why.to_owned());
        let Some((index, to)) = index.and_then(|index| Some((index, index.to.clone()?))) else {
            return Err(nowhere(
                "a message through the anonymous relay needs an address in properties.to",
            ));
        };
        // The sections before the body are nearly always in the first frame.
        let bytes = if index.body_offset <= incoming.payload.first().len() {
            incoming.payload.first().clone()
        } else {
            incoming.payload.to_bytes()
        };
        let annotations = index
            .message_annotations
            .clone()
            .and_then(|it| bytes.get(it));
        let said = annotations.and_then(translate::relayed_kind);
        let address = bytes.get(to).and_then(|it| std::str::from_utf8(it).ok());
        let Some(address) = address else {
            return Err(nowhere("properties.to is not text"));
        };
        let (kind, name) = self.meaning_of(address, said)?;
        self.permits_message(incoming.connection, incoming.link, (kind, name))?;
        if let Some(routes) = self.remembered_routes(kind, name) {
            return Ok(routes);
        }
        let destination = self.open_destination(kind, name)?;
        self.routes_to(&destination)
    }

    fn append(
        &mut self,
        queues: &[QueueId],
        meta: &MessageMeta,
        payload: &Payload,
    ) -> Result<Appended, ErrorCondition> {
        let (one, many);
        let routes: &[_] = if let [queue] = queues {
            one = [store_queue(*queue)];
            &one
        } else {
            many = queues.iter().copied().map(store_queue).collect::<Vec<_>>();
            &many
        };
        let meta_bytes = meta.encode();
        let parts: Vec<&[u8]>;
        let single;
        let body: &[&[u8]] = if let Some(bytes) = payload.as_single() {
            single = [&bytes[..]];
            &single
        } else {
            parts = payload.parts().map(|it| &it[..]).collect();
            &parts
        };
        let message = NewMessage {
            routes,
            durable: meta.durable,
            meta: &meta_bytes,
            body,
        };
        self.store.append_message(message).map_err(|error| {
            let condition = match error {
                AppendError::Full => condition::RESOURCE_LIMIT_EXCEEDED,
                AppendError::TooLarge { .. } => condition::MESSAGE_SIZE_EXCEEDED,
                _ => condition::INTERNAL_ERROR,
            };
            ErrorCondition::new(condition, error.to_string())
        })
    }

    fn note_arrival(
        &mut self,
        queues: &[QueueId],
        routes: &Routes,
        meta: &MessageMeta,
        appended: &Appended,
    ) {
        let Some(&first) = queues.first() else {
            return;
        };
        let arrival = Arrival {
            queue: first,
            lsn: appended.lsn.0,
            place: appended.first,
            expires_at_ms: meta.expires_at_ms,
            meta: appended.meta.clone(),
            body: appended.body.clone(),
        };
        let item = if queues.len() == 1 {
            Item::Arrived(arrival)
        } else if queues.len() == routes.queues.len() {
            Item::Copies(Box::new((arrival, Arc::clone(&routes.queues))))
        } else {
            Item::Copies(Box::new((arrival, Arc::from(queues))))
        };
        self.pending.push(appended.ticket, item);
        if !self.gauges.is_empty() {
            for &queue in queues {
                self.gauges.appended(queue, appended.first.bytes);
            }
            self.discard_excess(&routes.limits);
        }
    }

    /// Lets the delivery reservations of queues with consumers ride in the same batch as their
    /// message.
    fn reserve_before(&mut self, queues: &[QueueId]) {
        // Each reservation takes a number too.
        let next_lsn = self.store.last_lsn().0 + queues.len() as u64;
        for &queue in queues {
            if let Some(up_to) = self.broker.reservation_due(queue, next_lsn) {
                self.reserve(queue, up_to);
            }
        }
    }

    /// Records up to where a queue may deliver.
    pub(super) fn reserve(&mut self, queue: QueueId, up_to: u64) {
        let key = queue_key(queue.0);
        // An error means that the log is lost or sealed: nothing is delivered any more.
        if let Ok(ticket) = self
            .store
            .put_row(KIND_RESERVATION, &key, &up_to.to_le_bytes())
        {
            self.pending.push(ticket, Item::Reserved { queue, up_to });
        }
    }
}
