//! Clients: producers that send again what was not confirmed, consumers that settle, give back and
//! keep; all go on with the other server when theirs does not serve them.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use steadfast::proto::message::{Header, SimpleMessage};
use steadfast::proto::{
    AttachRequest, ClientSasl, Connection, ErrorCondition, Event as ProtoEvent, LinkId, Outcome,
    SessionId, Settings, Source, Target,
};

use super::network::Chunk;
use super::oracle::{CopyId, Got, Oracle, body_of};
use super::sim::{Event, MS, Micros, SERVERS, Sim};

/// A connection that is not open after so long is given up.
const PATIENCE: Micros = 4_000 * MS;

/// A connection as its client sees it.
struct Talk {
    conn: u64,
    proto: Connection,
    session: SessionId,
    link: Option<LinkId>,
    /// The link may be used.
    is_ready: bool,
    is_closing: bool,
    dialled_at: Micros,
    input: BytesMut,
    links: u32,
}

/// A message that a consumer has not settled.
struct Held {
    copy: CopyId,
    link: LinkId,
    delivery_id: u32,
    /// When it settles it; `None`: keeps it.
    at: Option<Micros>,
}

#[derive(Default)]
struct Producer {
    quota: u32,
    next_number: u32,
    /// To be sent again: number and attempt.
    again: VecDeque<(u32, u32)>,
    /// Sent and not confirmed: attempt by number.
    unconfirmed: BTreeMap<u32, u32>,
}

struct Consumer {
    credit: u32,
    /// Of a hundred messages so many are kept.
    keeps: u8,
    held: Vec<Held>,
}

enum Part {
    Producer(Producer),
    Consumer(Consumer),
}

pub(super) struct Client {
    index: usize,
    queue: usize,
    part: Part,
    pub(super) next_server: usize,
    talk: Option<Talk>,
    wake_at: Option<Micros>,
    act_at: Micros,
    is_finale: bool,
    /// It takes a new link: what it did not want comes to it again.
    wants_link: bool,
}

pub(super) fn queue_name(queue: usize) -> String {
    format!("queue-{queue}")
}

impl Client {
    pub(super) fn producer(index: usize, queue: usize, quota: u32) -> Self {
        let producer = Producer {
            quota,
            ..Producer::default()
        };
        Self::new(index, queue, Part::Producer(producer))
    }

    pub(super) fn consumer(index: usize, queue: usize, random: &mut fastrand::Rng) -> Self {
        let consumer = Consumer {
            credit: [1, 3, 10, 100][random.usize(..4)],
            keeps: [0, 5, 50][random.usize(..3)],
            held: Vec::new(),
        };
        Self::new(index, queue, Part::Consumer(consumer))
    }

    fn new(index: usize, queue: usize, part: Part) -> Self {
        Self {
            index,
            queue,
            part,
            next_server: 0,
            talk: None,
            wake_at: None,
            act_at: 0,
            is_finale: false,
            wants_link: false,
        }
    }

    /// The connection that it has.
    pub(super) fn conn(&self) -> Option<u64> {
        self.talk.as_ref().map(|talk| talk.conn)
    }

    /// A server has given up its connection: what was under way to it may come out of order.
    pub(super) fn note_server_left(&self, oracle: &mut Oracle) {
        if let Part::Consumer(_) = self.part {
            oracle.disturbed(self.queue);
        }
    }

    /// No new messages; all that it has is accepted.
    pub(super) fn begin_finale(&mut self) {
        self.is_finale = true;
        self.wants_link = true;
        self.act_at = 0;
        match &mut self.part {
            Part::Producer(producer) => producer.quota = producer.next_number,
            Part::Consumer(consumer) => {
                for held in &mut consumer.held {
                    held.at = Some(0);
                }
            }
        }
    }

    /// Whether it wants nothing more; what is left otherwise.
    pub(super) fn is_done(&self) -> Result<(), String> {
        let index = self.index;
        match &self.part {
            Part::Producer(producer) => {
                let left = producer.again.len() + producer.unconfirmed.len();
                if left > 0 {
                    return Err(format!("client {index} has no confirm for {left} messages"));
                }
            }
            Part::Consumer(consumer) => {
                if !self.talk.as_ref().is_some_and(|talk| talk.is_ready) {
                    return Err(format!("client {index} has no link"));
                }
                if !consumer.held.is_empty() {
                    return Err(format!("client {index} has messages"));
                }
            }
        }
        Ok(())
    }

    fn settings(&self, random: &mut fastrand::Rng) -> Settings {
        Settings {
            container_id: format!("client-{}", self.index),
            max_frame_size: [512, 4 << 10, 128 << 10][random.usize(..3)],
            idle_timeout_ms: Some(random.u32(1_000..5_000)),
            ..Settings::default()
        }
    }

    fn attach(&mut self) {
        let Some(talk) = &mut self.talk else {
            return;
        };
        talk.links += 1;
        talk.is_ready = false;
        let name = format!("link-{}", talk.links);
        let address = queue_name(self.queue);
        talk.link = match &self.part {
            Part::Producer(_) => {
                let request = AttachRequest {
                    name,
                    source: Some(Source::default()),
                    target: Some(Target::at(address).into()),
                    ..AttachRequest::default()
                };
                talk.proto.attach_sender(talk.session, request)
            }
            Part::Consumer(consumer) => {
                let request = AttachRequest {
                    name,
                    source: Some(Source::at(address)),
                    target: Some(Target::default().into()),
                    ..AttachRequest::default()
                };
                let link = talk.proto.attach_receiver(talk.session, request);
                if let Some(link) = link {
                    talk.proto.set_credit(link, consumer.credit);
                }
                link
            }
        };
    }
}

impl Sim {
    pub(super) fn wake_client(&mut self, client: usize, at: Micros) {
        let it = &mut self.clients[client];
        let at = at.max(self.now);
        if it.wake_at.is_none_or(|wake_at| wake_at > at) {
            it.wake_at = Some(at);
            self.at(at, Event::ClientWake(client));
        }
    }

    pub(super) fn client_wake(&mut self, client: usize) {
        let now_ms = self.now / MS;
        let now = self.now;
        let it = &mut self.clients[client];
        if it.wake_at.is_some_and(|at| at > now) {
            // An earlier wish that was overtaken.
            return;
        }
        it.wake_at = None;
        match &mut it.talk {
            None => self.connect(client),
            Some(talk) if !talk.is_ready && now > talk.dialled_at + PATIENCE => {
                self.leave(client, false);
            }
            Some(talk) => {
                talk.proto.handle_timeout(now_ms);
                self.take_events(client);
                self.act(client);
            }
        }
        self.say_all(client);
        self.arm_client(client);
    }

    fn arm_client(&mut self, client: usize) {
        let now = self.now;
        let it = &self.clients[client];
        let at = match &it.talk {
            None => it.act_at.max(now + MS),
            Some(talk) => {
                let timeout = talk.proto.poll_timeout().map(|ms| ms * MS);
                let patience = (!talk.is_ready).then_some(talk.dialled_at + PATIENCE + MS);
                let own = talk.is_ready.then_some(it.act_at);
                let due = [timeout, patience, own].into_iter().flatten().min();
                due.unwrap_or(now + 1_000 * MS).max(now + 100)
            }
        };
        self.wake_client(client, at);
    }

    fn connect(&mut self, client: usize) {
        let now = self.now;
        if self.clients[client].act_at > now {
            return;
        }
        let server = self.clients[client].next_server;
        self.clients[client].next_server = (server + 1) % SERVERS;
        let settings = self.clients[client].settings(&mut self.random);
        let mut proto = Connection::client(settings, ClientSasl::Anonymous, now / MS);
        let Some(session) = proto.begin() else {
            return;
        };
        let conn = self.new_conn(client, server);
        self.trace(|| format!("client {client} dials server {server} (connection {conn})"));
        let it = &mut self.clients[client];
        it.talk = Some(Talk {
            conn,
            proto,
            session,
            link: None,
            is_ready: false,
            is_closing: false,
            dialled_at: now,
            input: BytesMut::new(),
            links: 0,
        });
        it.attach();
    }

    /// Writes what the client has to say.
    fn say_all(&mut self, client: usize) {
        let Some(talk) = &mut self.clients[client].talk else {
            return;
        };
        talk.proto.flush();
        let conn = talk.conn;
        let mut output = talk.proto.output().split();
        self.write_pipe(conn, true, &mut output);
        if let Some(talk) = &mut self.clients[client].talk {
            let rest = talk.proto.output();
            output.unsplit(rest.split());
            *rest = output;
        }
    }

    /// Something came from the server.
    pub(super) fn client_hears(&mut self, client: usize, conn: u64, chunk: Chunk) {
        let now_ms = self.now / MS;
        let Some(talk) = &mut self.clients[client].talk else {
            return;
        };
        if talk.conn != conn {
            return;
        }
        match chunk {
            Chunk::Data(bytes) => {
                talk.input.extend_from_slice(&bytes);
                let mut input = std::mem::take(&mut talk.input);
                talk.proto.handle_bytes(now_ms, &mut input);
                talk.input = input;
                self.take_events(client);
            }
            Chunk::Fin => {
                talk.proto.handle_eof(now_ms);
                self.take_events(client);
                self.leave(client, false);
            }
            Chunk::Reset => self.leave(client, false),
        }
        self.say_all(client);
        self.arm_client(client);
    }

    /// The client gives its connection up, in order or not.
    fn leave(&mut self, client: usize, is_orderly: bool) {
        let Some(talk) = self.clients[client].talk.take() else {
            return;
        };
        let conn = talk.conn;
        self.trace(|| format!("client {client} leaves connection {conn}, orderly: {is_orderly}"));
        let pause = self.between(MS, 100 * MS);
        let it = &mut self.clients[client];
        it.act_at = self.now + pause;
        let oracle = &mut self.oracle;
        match &mut it.part {
            Part::Producer(producer) => {
                // In their order, before what was never sent.
                let lost = std::mem::take(&mut producer.unconfirmed);
                for (number, attempt) in lost.into_iter().rev() {
                    producer.again.push_front((number, attempt + 1));
                }
            }
            Part::Consumer(consumer) => {
                for held in consumer.held.drain(..) {
                    if is_orderly || talk.is_closing {
                        oracle.let_go(held.copy);
                    } else {
                        oracle.dropped(held.copy);
                    }
                }
                oracle.disturbed(it.queue);
            }
        }
        self.client_leaves(conn, is_orderly);
    }

    fn take_events(&mut self, client: usize) {
        while let Some(talk) = &mut self.clients[client].talk
            && let Some(event) = talk.proto.poll_event()
        {
            self.client_event(client, event);
        }
    }

    fn client_event(&mut self, client: usize, event: ProtoEvent) {
        let it = &mut self.clients[client];
        let Some(talk) = &mut it.talk else {
            return;
        };
        match event {
            ProtoEvent::AttachConfirmed(attach) if Some(attach.link) == talk.link => {
                talk.is_ready = match it.part {
                    Part::Producer(_) => attach.target.is_some(),
                    Part::Consumer(_) => attach.source.is_some(),
                };
                it.act_at = self.now;
            }
            ProtoEvent::Detached { link, error, .. } => {
                self.oracle.has_left(talk.conn);
                self.oracle.disturbed(it.queue);
                if Some(link) == talk.link || talk.link.is_none() {
                    it.attach();
                }
                if let Some(error) = error {
                    self.trace(|| format!("client {client}: detached, {error}"));
                }
            }
            ProtoEvent::Disposition {
                link,
                token,
                delivery_id,
                outcome,
                settled,
            } => {
                if !settled {
                    talk.proto.settle_sent(link, delivery_id);
                }
                self.answered(client, token, outcome);
            }
            ProtoEvent::Delivery {
                link,
                delivery_id,
                payload,
                ..
            } => self.client_got(client, link, delivery_id, &payload.to_bytes()),
            ProtoEvent::CreditRefill { link } => {
                if let Part::Consumer(consumer) = &it.part {
                    talk.proto.set_credit(link, consumer.credit);
                }
            }
            ProtoEvent::Closed { error } => self.closed(client, error),
            _ => {}
        }
    }

    fn closed(&mut self, client: usize, error: Option<ErrorCondition>) {
        self.trace(|| format!("client {client}: closed {error:?}"));
        // What is left to say goes out first.
        self.say_all(client);
        let is_closing = self.clients[client]
            .talk
            .as_ref()
            .is_some_and(|talk| talk.is_closing);
        self.leave(client, is_closing);
    }

    /// A server said what became of a message.
    fn answered(&mut self, client: usize, token: u64, outcome: Option<Outcome>) {
        let (number, attempt) = ((token >> 32) as u32, token as u32);
        let copy = CopyId {
            producer: client,
            number,
            attempt,
        };
        let it = &mut self.clients[client];
        let Part::Producer(producer) = &mut it.part else {
            return;
        };
        if producer.unconfirmed.remove(&number).is_none() {
            self.oracle.blame(format!("{copy} is answered twice"));
            return;
        }
        match outcome {
            Some(Outcome::Accepted) => {
                self.oracle.confirmed(copy);
                self.trace(|| format!("client {client}: {copy} confirmed"));
            }
            other => {
                producer.again.push_back((number, attempt + 1));
                it.act_at = self.now + 50 * MS;
                self.oracle.refused(copy);
                self.trace(|| format!("client {client}: {copy} refused, {other:?}"));
            }
        }
    }

    fn client_got(&mut self, client: usize, link: LinkId, delivery_id: u32, bytes: &[u8]) {
        let (queue, is_finale) = (Some(self.clients[client].queue), self.is_finale);
        let Some(conn) = self.clients[client].conn() else {
            return;
        };
        let message = match SimpleMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => return self.oracle.blame(format!("a message was spoilt: {error}")),
        };
        let got = Got {
            body: message.body,
            queue,
            count: message.header.delivery_count,
            is_late: false,
        };
        let life = self.conns.get(&conn).map_or(0, |conn| conn.life);
        if self.waits_for_clients(life) {
            self.oracle.comes_early(&got, client, life);
        }
        let Some(copy) = self.oracle.delivered(&got, conn, life) else {
            return;
        };
        let count = got.count;
        self.trace(|| format!("client {client}: {copy} came, count {count}"));
        let delay = self.between(0, 300 * MS);
        let dice = self.random.u8(..100);
        let it = &mut self.clients[client];
        let Part::Consumer(consumer) = &mut it.part else {
            return;
        };
        if it.talk.as_ref().and_then(|talk| talk.link) != Some(link) {
            // The link is being left.
            return self.oracle.let_go(copy);
        }
        let at = if is_finale {
            Some(self.now)
        } else {
            (dice >= consumer.keeps).then_some(self.now + delay)
        };
        consumer.held.push(Held {
            copy,
            link,
            delivery_id,
            at,
        });
        if let Some(at) = at {
            it.act_at = it.act_at.min(at);
        }
    }

    // ---- what clients do by themselves ----

    fn act(&mut self, client: usize) {
        let now = self.now;
        let it = &self.clients[client];
        if it.act_at > now || !it.talk.as_ref().is_some_and(|talk| talk.is_ready) {
            return;
        }
        let is_producer = matches!(it.part, Part::Producer(_));
        if std::mem::take(&mut self.clients[client].wants_link) {
            return self.detach(client);
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
            2..4 => self.detach(client),
            4..10 if !is_producer => self.change_credit(client),
            _ => {}
        }
    }

    fn send_some(&mut self, client: usize) {
        let index = client;
        for _ in 0..self.random.u32(1..5) {
            let (is_durable, len) = (self.random.u8(..5) > 0, self.some_len());
            let it = &mut self.clients[client];
            let (Part::Producer(producer), Some(talk)) = (&mut it.part, &mut it.talk) else {
                return;
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
            let message = message(&body, is_durable).encode();
            let token = u64::from(number) << 32 | u64::from(attempt);
            let conn = talk.conn;
            if talk.proto.send(link, token, 0, &[&message], false).is_err() {
                producer.again.push_front((number, attempt));
                return;
            }
            producer.unconfirmed.insert(number, attempt);
            let queue = it.queue;
            let life = self.conns.get(&conn).map_or(0, |conn| conn.life);
            self.oracle
                .published(copy, queue, is_durable, len, conn, life);
            self.trace(|| format!("client {client}: {copy} sent, durable: {is_durable}"));
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
                        undeliverable_here: self.random.u8(..4) == 0,
                    };
                    (modified, false)
                }
                16..22 => (Outcome::Rejected(None), true),
                _ => (Outcome::Accepted, true),
            };
            notes.push(format!("{} {}", held.copy, word(&outcome)));
            talk.proto.settle(held.link, held.delivery_id, outcome);
            self.oracle.handed_back(held.copy, is_end);
            if is_end {
                ends.push(held.copy);
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
            conn.outcomes.extend(ends.iter().map(|copy| (end, *copy)));
        }
        if !notes.is_empty() {
            self.trace(|| format!("client {client}: {}", notes.join(", ")));
        }
    }

    fn close(&mut self, client: usize) {
        if let Some(talk) = &mut self.clients[client].talk {
            talk.is_closing = true;
            talk.proto.close(None);
            self.let_all_go(client);
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
        }
    }

    /// The client leaves a link in order: what it has goes back.
    fn let_all_go(&mut self, client: usize) {
        let it = &mut self.clients[client];
        match &mut it.part {
            Part::Consumer(consumer) => {
                for held in consumer.held.drain(..) {
                    self.oracle.let_go(held.copy);
                }
                self.oracle.gives_up(client);
                if let Some(talk) = &it.talk {
                    self.oracle.leaves(talk.conn, it.queue);
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
fn message(body: &str, is_durable: bool) -> SimpleMessage {
    SimpleMessage {
        header: Header {
            durable: is_durable,
            ..Header::default()
        },
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
