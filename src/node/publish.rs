//! Messages from clients.

use steadfast_storage::{AppendError, Appended, NewMessage};

use crate::broker::{QueueId, Route};
use crate::proto::message::MessageIndex;
use crate::proto::{ErrorCondition, LinkId, Outcome, Payload, condition};

use super::pending::{Arrival, Item};
use super::records::{KIND_RESERVATION, MessageMeta, queue_key};
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
        let queue = self.target_of(incoming, index.as_ref())?;
        let meta = match &index {
            Some(index) => MessageMeta::of(index, now.wall_ms),
            None => MessageMeta::opaque(incoming.message_format, now.wall_ms),
        };
        self.reserve_before(queue);
        let appended = self.append(queue, &meta, &incoming.payload)?;
        self.note_arrival(queue, &meta, &appended);
        if incoming.is_settled {
            return Ok(());
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
        if meta.durable {
            self.pending.push(appended.ticket, confirm);
        } else if self.holds_store() {
            self.settle(connection, link, delivery_id, Outcome::Accepted);
        } else {
            self.owed.push(confirm);
        }
        Ok(())
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

    fn target_of(
        &mut self,
        incoming: &Incoming,
        index: Option<&MessageIndex>,
    ) -> Result<QueueId, ErrorCondition> {
        let peer = self.peer_mut(incoming.connection);
        let Some(publisher) = peer.and_then(|peer| peer.publisher_mut(incoming.link)) else {
            return Err(ErrorCondition::new(
                condition::NOT_ALLOWED,
                "the link is gone",
            ));
        };
        let Some(queue) = publisher.queue else {
            return self.relay(incoming, index);
        };
        if self.broker.queue(queue).is_none() {
            return Err(ErrorCondition::new(
                condition::NOT_FOUND,
                "the queue was deleted",
            ));
        }
        Ok(queue)
    }

    /// Where a message goes that says so itself.
    fn relay(
        &mut self,
        incoming: &Incoming,
        index: Option<&MessageIndex>,
    ) -> Result<QueueId, ErrorCondition> {
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
        if annotations.is_some_and(translate::is_for_topic) {
            return Err(translate::not_implemented("topics"));
        }
        let address = bytes.get(to).and_then(|it| std::str::from_utf8(it).ok());
        let Some(address) = address else {
            return Err(nowhere("properties.to is not text"));
        };
        if let Route::Queue(queue) = self.broker.route(address) {
            return Ok(queue);
        }
        self.resolve(address)
    }

    fn append(
        &mut self,
        queue: QueueId,
        meta: &MessageMeta,
        payload: &Payload,
    ) -> Result<Appended, ErrorCondition> {
        let routes = [store_queue(queue)];
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
            routes: &routes,
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

    fn note_arrival(&mut self, queue: QueueId, meta: &MessageMeta, appended: &Appended) {
        let arrival = Arrival {
            queue,
            lsn: appended.lsn.0,
            place: appended.first,
            expires_at_ms: meta.expires_at_ms,
            meta: appended.meta.clone(),
            body: appended.body.clone(),
        };
        self.pending.push(appended.ticket, Item::Arrived(arrival));
    }

    /// Lets the delivery reservation of a queue with consumers ride in the same batch as its
    /// message.
    fn reserve_before(&mut self, queue: QueueId) {
        let next_lsn = self.store.last_lsn().0 + 1;
        if let Some(up_to) = self.broker.reservation_due(queue, next_lsn) {
            self.reserve(queue, up_to);
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
