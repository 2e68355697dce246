//! Messages for clients, and what they do with them.

use steadfast_storage::Ticket;

use crate::broker::{self, ConsumerId, Delivery, Event, QueueId};
use crate::proto::{LinkId, Outcome, SendError};

use super::meta::MessageMeta;
use super::pending::Item;
use super::records::{KIND_COUNT, count_key};
use super::{ConnectionId, Node, Now, translate};

impl Node {
    /// Sends a message to the consumer that the broker chose.
    pub(super) fn deliver(&mut self, now: Now, delivery: Delivery) {
        let Some(&(id, link)) = self.outlets.get(&delivery.consumer.number) else {
            return;
        };
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let is_presettled = peer.consumer_mut(link).is_some_and(|it| it.is_presettled);
        let sent = send(
            &mut peer.connection,
            link,
            &delivery,
            is_presettled,
            now.wall_ms,
        );
        let credit = peer.connection.credit(link);
        self.mark_dirty(id);
        let back = match sent {
            Ok(_) if delivery.settled => Some(broker::Outcome::Accepted),
            Ok(_) => None,
            Err(SendError::TooLarge { .. }) => Some(broker::Outcome::Modified {
                failed: false,
                not_here: true,
            }),
            Err(_) => Some(broker::Outcome::Released),
        };
        if let Some(outcome) = back {
            self.broker.handle(Event::Settled {
                consumer: delivery.consumer,
                lsn: delivery.message.position.lsn,
                outcome,
            });
        }
        if matches!(back, Some(broker::Outcome::Released)) {
            // Whatever the reason, it takes nothing until it gives news.
            self.block(id, link);
            return;
        }
        self.offer(id, link);
        if credit == 0 {
            self.drained(delivery.consumer);
        }
    }

    fn block(&mut self, id: ConnectionId, link: LinkId) {
        let consumer = self.peer_mut(id).and_then(|it| it.consumer_mut(link));
        if let Some(consumer) = consumer {
            consumer.is_ready = false;
            let consumer = consumer.id;
            self.broker.handle(Event::ConsumerBlocked { consumer });
        }
    }

    /// A draining consumer got all there is, or all that it gave credit for.
    pub(super) fn drained(&mut self, consumer: ConsumerId) {
        let Some(&(id, link)) = self.outlets.get(&consumer.number) else {
            return;
        };
        if let Some(peer) = self.peer_mut(id)
            && let Some(it) = peer.consumer_mut(link)
            && std::mem::replace(&mut it.is_draining, false)
        {
            peer.connection.drained(link);
            self.offer(id, link);
            self.mark_dirty(id);
        }
    }

    /// A client said what became of a message. The last argument: delivery id, outcome, whether it
    /// has settled.
    pub(super) fn on_disposition(
        &mut self,
        id: ConnectionId,
        link: LinkId,
        lsn: u64,
        (delivery_id, said, is_settled): (u32, Option<Outcome>, bool),
    ) {
        if said.is_none() && !is_settled {
            return;
        }
        let consumer = self.peer_mut(id).and_then(|it| it.consumer_mut(link));
        let Some(consumer) = consumer else {
            return;
        };
        let number = consumer.id;
        let outcome = translate::outcome(said, consumer.default_outcome.as_ref())
            .unwrap_or(broker::Outcome::Released);
        self.settled_ticket = None;
        self.broker.handle(Event::Settled {
            consumer: number,
            lsn,
            outcome,
        });
        while let Some(effect) = self.broker.poll_effect() {
            self.run_effect(effect);
        }
        if is_settled {
            return;
        }
        let reply = Item::SettleReply {
            connection: id,
            link,
            delivery_id,
        };
        match self.settled_ticket.map(|ticket| self.carrier(ticket)) {
            Some(ticket) if ticket > self.store.durable_ticket() => {
                self.pending.push(ticket, reply);
            }
            _ => self.owed.push(reply),
        }
    }

    /// The batch that carries what was just settled: the one before `ticket` when that is still
    /// empty.
    fn carrier(&self, ticket: Ticket) -> Ticket {
        if self.has_open_batch() {
            ticket
        } else {
            Ticket(ticket.0.saturating_sub(1))
        }
    }

    /// Records how often a delivery failed. Not being able to means that the log is lost.
    pub(super) fn record_count(&mut self, queue: QueueId, lsn: u64, count: u32) {
        let key = count_key(queue.0, lsn);
        let _lost_or_sealed = if count == 0 {
            self.store.delete_row(KIND_COUNT, &key)
        } else {
            self.store.put_row(KIND_COUNT, &key, &count.to_le_bytes())
        };
    }
}

/// Sends stored bytes as they are, or behind a new header (amqp.md 1.5: the bare message never
/// changes).
fn send(
    connection: &mut crate::proto::Connection,
    link: LinkId,
    delivery: &Delivery,
    is_presettled: bool,
    wall_ms: u64,
) -> Result<u32, SendError> {
    let message = &delivery.message;
    let token = message.position.lsn;
    let body = &message.body[..];
    let meta = MessageMeta::decode(&message.meta);
    let bare = meta.and_then(|it| body.get(it.bare_offset as usize..));
    match (meta, bare) {
        (Some(meta), Some(bare)) if !meta.is_sent_unchanged(delivery.delivery_count) => {
            let header = meta.header(delivery.delivery_count, wall_ms).encode();
            connection.send(link, token, 0, &[&header, bare], is_presettled)
        }
        _ => {
            let format = meta.map_or(0, |it| it.message_format);
            connection.send(link, token, format, &[body], is_presettled)
        }
    }
}
