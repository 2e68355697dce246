//! What clients do by themselves: send, settle, give back, leave.

use super::client::Part;
use super::oracle::{CopyId, body_of};
use super::places::{Aim, TOPICS, container_of};
use super::sim::{MS, QUEUES, Sim};
use steadfast::node::Deletion;
use steadfast::proto::Outcome;
use steadfast::proto::message::{Header, SimpleMessage};

impl Sim {
    // ---- what clients do by themselves ----

    pub(super) fn act(&mut self, client: usize) {
        let now = self.now;
        let it = &self.clients[client];
        if it.act_at > now || !it.talk.as_ref().is_some_and(|talk| talk.is_ready) {
            return;
        }
        let is_producer = matches!(it.part, Part::Producer(_));
        if std::mem::take(&mut self.clients[client].wants_link) {
            match self.subscription_of(client) {
                None => return self.detach(client),
                Some(place) if self.places.is_durable(place) => return self.close(client),
                Some(_) => self.restore_credit(client),
            }
        }
        if let Part::Consumer(consumer) = &self.clients[client].part
            && consumer.is_ending
        {
            let has_temporary = self.places.temporary(consumer.place).is_some();
            return match has_temporary {
                true => self.end_with_connection(client),
                false => self.detach(client),
            };
        }
        let pause = self.between(MS, 80 * MS);
        self.clients[client].act_at = now + pause;
        if is_producer {
            self.send_some(client);
        } else {
            self.settle_some(client);
        }
        if self.clients[client].is_finale {
            return;
        }
        match self.random.u8(..200) {
            0 => self.leave(client, false),
            1 => self.close(client),
            2..4 if self.has_temporary(client) => self.close(client),
            2..4 => self.detach(client),
            4..10 if !is_producer => self.change_credit(client),
            _ => {}
        }
    }

    fn send_some(&mut self, client: usize) {
        let index = client;
        let temporary = self.places.named();
        for _ in 0..self.random.u32(1..5) {
            let (is_durable, len) = (self.random.u8(..5) > 0, self.some_len());
            let it = &mut self.clients[client];
            let (Part::Producer(producer), Some(talk)) = (&mut it.part, &mut it.talk) else {
                return;
            };
            let aim = match producer.aim {
                Aim::Relay if self.random.u8(..3) == 0 => Aim::Queue(self.random.usize(..QUEUES)),
                Aim::Relay if self.random.bool() && !temporary.is_empty() => {
                    Aim::Temporary(temporary[self.random.usize(..temporary.len())])
                }
                Aim::Relay => Aim::Topic(self.random.usize(..TOPICS.len())),
                aim => aim,
            };
            let Some(link) = talk.link.filter(|link| talk.proto.can_send(*link)) else {
                return;
            };
            let (number, attempt) = match producer.again.pop_front() {
                Some(next) => next,
                None if producer.next_number < producer.quota => {
                    producer.next_number += 1;
                    (producer.next_number, 1)
                }
                None => {
                    it.act_at = self.now + 200 * MS;
                    return;
                }
            };
            let copy = CopyId {
                producer: index,
                number,
                attempt,
            };
            let body = body_of(copy, len);
            let to = (producer.aim == Aim::Relay).then(|| self.places.address(aim));
            let message = message(&body, is_durable, to).encode();
            let token = u64::from(number) << 32 | u64::from(attempt);
            let conn = talk.conn;
            if talk.proto.send(link, token, 0, &[&message], false).is_err() {
                producer.again.push_front((number, attempt));
                return;
            }
            producer.unconfirmed.insert(number, attempt);
            let life = self.conns.get(&conn).map_or(0, |conn| conn.life);
            let reaches = self.places.reached(aim);
            let sent = &mut self.oracle;
            sent.published(copy, &reaches, (is_durable, len), (conn, life));
            self.trace(|| {
                format!("client {client}: {copy} sent to {aim:?}, durable: {is_durable}")
            });
        }
    }

    fn some_len(&mut self) -> usize {
        match self.random.u8(..40) {
            0 => self.random.usize(..40_000),
            1..8 => self.random.usize(..4_000),
            _ => self.random.usize(..200),
        }
    }

    fn settle_some(&mut self, client: usize) {
        let now = self.now;
        let is_finale = self.clients[client].is_finale;
        let may_return = self.clients[client]
            .place()
            .is_some_and(|it| self.places.is_durable(it));
        let it = &mut self.clients[client];
        let (Part::Consumer(consumer), Some(talk)) = (&mut it.part, &mut it.talk) else {
            return;
        };
        let (mut ends, mut notes) = (Vec::new(), Vec::new());
        let mut kept = Vec::new();
        for held in consumer.held.drain(..) {
            if held.at.is_none_or(|at| at > now) {
                kept.push(held);
                continue;
            }
            let failed = self.random.bool();
            let (outcome, is_end) = match self.random.u8(..100) {
                0..10 if !is_finale => (Outcome::Released, false),
                10..16 if !is_finale => {
                    let modified = Outcome::Modified {
                        delivery_failed: failed,
                        // Nobody else would get it, and the same client only on another link.
                        undeliverable_here: may_return && self.random.u8(..4) == 0,
                    };
                    (modified, false)
                }
                16..22 => (Outcome::Rejected(None), true),
                _ => (Outcome::Accepted, true),
            };
            notes.push(format!("{} {}", held.part, word(&outcome)));
            talk.proto.settle(held.link, held.delivery_id, outcome);
            self.oracle.handed_back(held.part, is_end);
            if is_end {
                ends.push(held.part);
            }
        }
        consumer.held = kept;
        if let Some(next) = consumer.held.iter().filter_map(|held| held.at).min() {
            it.act_at = it.act_at.min(next);
        }
        talk.proto.flush();
        let (conn, unwritten) = (talk.conn, talk.proto.output().len());
        if let Some(conn) = self.conns.get_mut(&conn) {
            let end = conn.sent + unwritten;
            conn.outcomes.extend(ends.iter().map(|part| (end, *part)));
        }
        if !notes.is_empty() {
            self.trace(|| format!("client {client}: {}", notes.join(", ")));
        }
    }

    fn has_temporary(&self, client: usize) -> bool {
        let place = self.subscription_of(client);
        place.is_some_and(|place| self.places.temporary(place).is_some())
    }

    /// A temporary destination ends with the connection of its client, who does not come again.
    fn end_with_connection(&mut self, client: usize) {
        if let Part::Consumer(consumer) = &mut self.clients[client].part {
            consumer.has_ended = true;
        }
        self.close(client);
    }

    fn close(&mut self, client: usize) {
        if let Some(talk) = &mut self.clients[client].talk {
            talk.is_closing = true;
            talk.proto.close(None);
            self.let_all_go(client);
            if let Some(place) = self.subscription_of(client)
                && !self.places.is_durable(place)
            {
                self.oracle.owes_no_more(place);
            }
        }
    }

    fn detach(&mut self, client: usize) {
        if let Some(talk) = &mut self.clients[client].talk
            && let Some(link) = talk.link.take()
        {
            talk.is_ready = false;
            talk.dialled_at = self.now;
            talk.proto.detach(link, None);
            let conn = talk.conn;
            self.trace(|| format!("client {client} leaves its link on connection {conn}"));
            self.let_all_go(client);
            if let Some(place) = self.subscription_of(client) {
                self.oracle.owes_no_more(place);
            }
        }
    }

    /// The client leaves a link in order: what it has goes back.
    fn let_all_go(&mut self, client: usize) {
        let it = &mut self.clients[client];
        match &mut it.part {
            Part::Consumer(consumer) => {
                for held in consumer.held.drain(..) {
                    self.oracle.let_go(held.part);
                }
                self.oracle.gives_up(client);
                if let Some(talk) = &it.talk {
                    self.oracle.leaves(talk.conn, consumer.place);
                }
            }
            Part::Producer(producer) => {
                let lost = std::mem::take(&mut producer.unconfirmed);
                for (number, attempt) in lost.into_iter().rev() {
                    producer.again.push_front((number, attempt + 1));
                }
            }
        }
    }

    /// An administrator deletes a durable subscription.
    pub(super) fn delete_durable(&mut self, client: usize) {
        let Some(place) = self.subscription_of(client) else {
            return;
        };
        let Some(name) = self.places.subscription(place).map(|it| it.name.clone()) else {
            return;
        };
        let now = self.clock();
        let Some(server) = self.serving() else {
            return;
        };
        let life = self.servers[server].life;
        let Some(work) = self.work(server) else {
            return;
        };
        let deletion = work
            .node
            .delete_durable(now, &name, &container_of(client), "");
        self.trace(|| format!("subscription {name} is deleted: {deletion:?}"));
        if let Deletion::Deleted(status, ticket) = deletion {
            let place = self
                .places
                .find(&status.client, &status.name, &status.topic);
            match (place, ticket) {
                (Some(place), Some(_)) => self.oracle.ends(place, life),
                (Some(place), None) => self.oracle.owes_no_more(place),
                (None, _) => self
                    .oracle
                    .blame(format!("a subscription was invented: {status:?}")),
            }
        }
        self.turn(server);
        self.settle_down(server);
    }

    fn restore_credit(&mut self, client: usize) {
        let it = &mut self.clients[client];
        if let (Part::Consumer(consumer), Some(talk)) = (&it.part, &mut it.talk)
            && let Some(link) = talk.link
        {
            talk.proto.set_credit(link, consumer.credit);
        }
    }

    fn change_credit(&mut self, client: usize) {
        let dice = self.random.u8(..3);
        let it = &mut self.clients[client];
        let (Part::Consumer(consumer), Some(talk)) = (&mut it.part, &mut it.talk) else {
            return;
        };
        let Some(link) = talk.link else {
            return;
        };
        match dice {
            0 => talk.proto.drain(link),
            1 => talk.proto.set_credit(link, 0),
            _ => talk.proto.set_credit(link, consumer.credit),
        }
    }
}

/// A message of ours.
fn message(body: &str, is_durable: bool, to: Option<String>) -> SimpleMessage {
    SimpleMessage {
        header: Header {
            durable: is_durable,
            ..Header::default()
        },
        to,
        body: body.as_bytes().to_vec(),
        ..SimpleMessage::default()
    }
}

/// An outcome for the trace.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Rejected(_) => "rejected",
        Outcome::Released => "released",
        Outcome::Modified {
            undeliverable_here: true,
            ..
        } => "not wanted here",
        _ => "modified",
    }
}
