//! Clients: producers that send again what was not confirmed, consumers of queues and subscriptions that settle,
//! give back and keep; all go on with the other server when theirs does not serve them.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use steadfast::model::DestinationKind;
use steadfast::proto::{
    AttachRequest, ClientSasl, Connection, ErrorCondition, Event as ProtoEvent, LinkId, Outcome,
    SessionId, Settings, Source, Symbol, Target,
};

use super::network::Chunk;
use super::oracle::{CopyId, Oracle, PartId};
use super::places::{Aim, Place, Places, container_of};
use super::rows;
use super::server::Mode;
use super::sim::{Event, MS, Micros, SERVERS, Sim};

/// A connection that is not open after so long is given up.
const PATIENCE: Micros = 4_000 * MS;
/// A subscriber may be away for so long.
const ABSENCE: Micros = 8_000 * MS;
/// A subscription that was refused is asked for again after so long.
const ASK_AGAIN: Micros = 200 * MS;

/// A connection as its client sees it.
pub(super) struct Talk {
    pub(super) conn: u64,
    pub(super) proto: Connection,
    session: SessionId,
    pub(super) link: Option<LinkId>,
    /// The link may be used.
    pub(super) is_ready: bool,
    pub(super) is_closing: bool,
    pub(super) dialled_at: Micros,
    /// When the link is asked for again.
    attach_at: Option<Micros>,
    /// The link with which a temporary destination goes; it is there.
    creator: Option<LinkId>,
    has_creator: bool,
    input: BytesMut,
    links: u32,
}

/// A message that a consumer has not settled.
pub(super) struct Held {
    pub(super) part: PartId,
    pub(super) link: LinkId,
    pub(super) delivery_id: u32,
    /// When it settles it; `None`: keeps it.
    pub(super) at: Option<Micros>,
}

pub(super) struct Producer {
    pub(super) aim: Aim,
    pub(super) quota: u32,
    pub(super) next_number: u32,
    /// To be sent again: number and attempt.
    pub(super) again: VecDeque<(u32, u32)>,
    /// Sent and not confirmed: attempt by number.
    pub(super) unconfirmed: BTreeMap<u32, u32>,
}

pub(super) struct Consumer {
    /// What it may read: a queue, or a subscription with one of these topics.
    own: Vec<Place>,
    pub(super) place: Place,
    pub(super) credit: u32,
    /// Of a hundred messages so many are kept.
    pub(super) keeps: u8,
    pub(super) held: Vec<Held>,
    /// It ends its subscription, and has done so.
    pub(super) is_ending: bool,
    pub(super) has_ended: bool,
}

pub(super) enum Part {
    Producer(Producer),
    Consumer(Consumer),
}

pub(super) struct Client {
    index: usize,
    pub(super) part: Part,
    pub(super) next_server: usize,
    pub(super) talk: Option<Talk>,
    wake_at: Option<Micros>,
    pub(super) act_at: Micros,
    pub(super) is_finale: bool,
    /// It takes a new link: what it did not want comes to it again.
    pub(super) wants_link: bool,
}

impl Client {
    pub(super) fn producer(index: usize, aim: Aim, quota: u32) -> Self {
        let producer = Producer {
            aim,
            quota,
            next_number: 0,
            again: VecDeque::new(),
            unconfirmed: BTreeMap::new(),
        };
        Self::new(index, Part::Producer(producer))
    }

    /// A consumer of a queue, or of a subscription that may be to any of these.
    pub(super) fn consumer(index: usize, own: Vec<Place>, random: &mut fastrand::Rng) -> Self {
        let consumer = Consumer {
            place: own[0],
            own,
            credit: [1, 3, 10, 100][random.usize(..4)],
            keeps: [0, 5, 50][random.usize(..3)],
            held: Vec::new(),
            is_ending: false,
            has_ended: false,
        };
        Self::new(index, Part::Consumer(consumer))
    }

    fn new(index: usize, part: Part) -> Self {
        Self {
            index,
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
        if let Part::Consumer(consumer) = &self.part {
            oracle.disturbed(consumer.place);
        }
    }

    /// The place that it reads.
    pub(super) fn place(&self) -> Option<Place> {
        match &self.part {
            Part::Producer(_) => None,
            Part::Consumer(consumer) => Some(consumer.place),
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

    /// A subscriber ends its subscription.
    pub(super) fn begin_ending(&mut self, places: &Places) {
        self.act_at = 0;
        if let Part::Consumer(consumer) = &mut self.part {
            consumer.is_ending = places.subscription(consumer.place).is_some();
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
                let is_gone = consumer.has_ended && self.talk.is_none();
                if !is_gone && !self.talk.as_ref().is_some_and(|talk| talk.is_ready) {
                    return Err(format!("client {index} has no link"));
                }
                if !consumer.held.is_empty() {
                    return Err(format!("client {index} has messages"));
                }
                if consumer.is_ending && !consumer.has_ended {
                    return Err(format!("client {index} has a subscription"));
                }
            }
        }
        Ok(())
    }

    /// Asks for a temporary destination, by the name that it had, as clients of Qpid do.
    fn create(&mut self, kind: DestinationKind, former: Option<&str>) {
        let Some(talk) = &mut self.talk else {
            return;
        };
        (talk.is_ready, talk.attach_at) = (false, None);
        let former = former.unwrap_or("none");
        let word = match kind {
            DestinationKind::Queue => "temp-queue-creator",
            DestinationKind::Topic => "temp-topic-creator",
        };
        let target = Target {
            dynamic: true,
            capabilities: vec![Symbol::from(match kind {
                DestinationKind::Queue => "temporary-queue",
                DestinationKind::Topic => "temporary-topic",
            })],
            ..Target::default()
        };
        let request = AttachRequest {
            name: format!("fuzz:{word}:{former}"),
            source: Some(Source::default()),
            target: Some(target.into()),
            ..AttachRequest::default()
        };
        talk.creator = talk.proto.attach_sender(talk.session, request);
    }

    fn settings(&self, random: &mut fastrand::Rng) -> Settings {
        Settings {
            container_id: container_of(self.index),
            max_frame_size: [512, 4 << 10, 128 << 10][random.usize(..3)],
            idle_timeout_ms: Some(random.u32(1_000..5_000)),
            ..Settings::default()
        }
    }

    /// Asks for its link.
    fn attach(&mut self, places: &Places) {
        let Some(talk) = &mut self.talk else {
            return;
        };
        talk.links += 1;
        talk.is_ready = false;
        talk.attach_at = None;
        let name = format!("link-{}", talk.links);
        talk.link = match &self.part {
            Part::Producer(producer) => {
                let target = match producer.aim {
                    Aim::Relay => Target::default(),
                    aim => Target::at(places.address(aim)),
                };
                let request = AttachRequest {
                    name,
                    source: Some(Source::default()),
                    target: Some(target.into()),
                    ..AttachRequest::default()
                };
                talk.proto.attach_sender(talk.session, request)
            }
            Part::Consumer(consumer) => {
                let subscription = places.subscription(consumer.place);
                let request = AttachRequest {
                    name: subscription.map_or(name, |it| it.name.clone()),
                    source: Some(places.source(consumer.place)),
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
                let attaches = talk.attach_at.is_some_and(|at| at <= now);
                self.take_events(client);
                if attaches {
                    self.attach(client);
                }
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
            None if matches!(&it.part, Part::Consumer(it) if it.has_ended) => now + 1_000 * MS,
            None => it.act_at.max(now + MS),
            Some(talk) => {
                let timeout = talk.proto.poll_timeout().map(|ms| ms * MS);
                let patience = (!talk.is_ready).then_some(talk.dialled_at + PATIENCE + MS);
                let own = talk.is_ready.then_some(it.act_at);
                let due = [timeout, patience, own, talk.attach_at]
                    .into_iter()
                    .flatten()
                    .min();
                due.unwrap_or(now + 1_000 * MS).max(now + 100)
            }
        };
        self.wake_client(client, at);
    }

    fn connect(&mut self, client: usize) {
        let now = self.now;
        let it = &self.clients[client];
        let has_ended = matches!(&it.part, Part::Consumer(consumer) if consumer.has_ended);
        if it.act_at > now || has_ended {
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
            attach_at: None,
            creator: None,
            has_creator: false,
            input: BytesMut::new(),
            links: 0,
        });
        self.attach(client);
    }

    /// A client asks for its link; a subscriber may change its topic, which ends the subscription that it had.
    fn attach(&mut self, client: usize) {
        let dice = self.random.usize(..16);
        let it = &mut self.clients[client];
        let (is_finale, Some(talk)) = (it.is_finale, &mut it.talk) else {
            return;
        };
        if let Part::Consumer(consumer) = &mut it.part {
            if consumer.has_ended {
                (talk.is_ready, talk.attach_at) = (true, None);
                return;
            }
            if let Some(place) = consumer.own.get(dice).filter(|_| !is_finale) {
                consumer.place = *place;
            }
        }
        let (conn, has_creator) = (talk.conn, talk.has_creator);
        let place = it.place();
        let kind = place.and_then(|place| self.places.temporary(place));
        match (kind, place) {
            (Some(kind), Some(place)) if !has_creator => {
                it.create(kind, self.places.name(place));
            }
            _ => it.attach(&self.places),
        }
        let server = self.conns.get(&conn).map_or(0, |conn| conn.server);
        let life = self.servers[server].life;
        if let Some(place) = self.subscription_of(client) {
            self.trace(|| format!("client {client} asks for subscription {place}"));
            self.oracle.asks(place, conn, life);
        }
    }

    /// The subscription that a client reads, if it does.
    pub(super) fn subscription_of(&self, client: usize) -> Option<Place> {
        let place = self.clients[client].place()?;
        self.places.subscription(place).map(|_| place)
    }

    /// A client is told the name of its temporary destination.
    fn named(&mut self, client: usize, name: &str) {
        let Some(place) = self.subscription_of(client) else {
            return;
        };
        self.trace(|| format!("client {client} has place {place} as {name}"));
        if self.places.is_named(place, name) {
            self.oracle.renamed(place);
        }
        if let Some(talk) = &mut self.clients[client].talk {
            talk.has_creator = true;
        }
        self.attach(client);
    }

    /// A subscriber is told that its link exists.
    fn granted(&mut self, client: usize, conn: u64) {
        let life = self.conns.get(&conn).map_or(0, |conn| conn.life);
        let waits = self.waits_for_clients(life);
        if let Some(place) = self.subscription_of(client) {
            self.trace(|| format!("client {client} has subscription {place}, waits: {waits}"));
            self.oracle.granted(place, conn, life, waits);
        }
    }

    /// A subscriber is told that its link does not exist.
    fn denied(&mut self, client: usize, place: Place, error: Option<ErrorCondition>) {
        let pause = self.between(0, 500 * MS);
        let now = self.now;
        let it = &mut self.clients[client];
        let Some(talk) = &mut it.talk else {
            return;
        };
        let has_asked = talk.link.take().is_none();
        (talk.is_ready, talk.dialled_at) = (false, now);
        let conn = talk.conn;
        if let Some(error) = error {
            if self.places.temporary(place).is_some() {
                return self.leave(client, false);
            }
            talk.attach_at = Some(now + ASK_AGAIN);
            return self.trace(|| format!("client {client}: detached, {error}"));
        }
        talk.attach_at = Some(now + pause);
        if let Part::Consumer(consumer) = &mut it.part {
            consumer.has_ended = consumer.is_ending;
        }
        let Some(conn) = self.conns.get(&conn).filter(|_| has_asked) else {
            return;
        };
        let (life, server) = (conn.life, conn.server);
        if self.places.is_durable(place) {
            // It is told when that is durable.
            self.oracle.ends_for_good(place);
        } else if self.servers[server].life == life && self.mode(server) == Mode::Serve {
            self.oracle.ends(place, life);
        }
        self.trace(|| format!("client {client} is rid of subscription {place}"));
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
    pub(super) fn leave(&mut self, client: usize, is_orderly: bool) {
        let Some(talk) = self.clients[client].talk.take() else {
            return;
        };
        let conn = talk.conn;
        self.trace(|| format!("client {client} leaves connection {conn}, orderly: {is_orderly}"));
        let is_subscriber = self.subscription_of(client).is_some();
        let is_away = is_subscriber && !self.is_finale && self.random.bool();
        let longest = if is_away { ABSENCE } else { 100 * MS };
        let pause = self.between(MS, longest);
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
                        oracle.let_go(held.part);
                    } else {
                        oracle.dropped(held.part);
                    }
                }
                oracle.disturbed(consumer.place);
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
            ProtoEvent::AttachConfirmed(attach) if Some(attach.link) == talk.creator => {
                let name = attach.target_node().and_then(|it| it.address.clone());
                if let Some(name) = name {
                    self.named(client, &name);
                }
            }
            ProtoEvent::AttachConfirmed(attach) if Some(attach.link) == talk.link => {
                talk.is_ready = match it.part {
                    Part::Producer(_) => attach.target.is_some(),
                    Part::Consumer(_) => attach.source.is_some(),
                };
                it.act_at = self.now;
                let (is_ready, conn) = (talk.is_ready, talk.conn);
                if is_ready {
                    self.granted(client, conn);
                }
            }
            ProtoEvent::Detached { link, error, .. } => {
                self.oracle.has_left(talk.conn);
                let is_own = Some(link) == talk.link || talk.link.is_none();
                if let Some(place) = it.place() {
                    self.oracle.disturbed(place);
                }
                if !is_own {
                    return;
                }
                self.lose_link(client, link);
                if let Some(place) = self.subscription_of(client) {
                    return self.denied(client, place, error);
                }
                self.attach(client);
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

    /// A link is over: its server has back what came over it.
    fn lose_link(&mut self, client: usize, link: LinkId) {
        let it = &mut self.clients[client];
        let (Part::Consumer(consumer), Some(talk)) = (&mut it.part, &it.talk) else {
            return;
        };
        self.oracle.has_stopped_reading(talk.conn, consumer.place);
        let (lost, held) = consumer
            .held
            .drain(..)
            .partition(|it: &Held| it.link == link);
        consumer.held = held;
        for held in lost {
            self.oracle.let_go(held.part);
        }
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
                // Its queue is deleted: another link makes another one.
                it.wants_link |= matches!(producer.aim, Aim::Queue(_));
                it.act_at = self.now + 50 * MS;
                self.oracle.refused(copy);
                self.trace(|| format!("client {client}: {copy} refused, {other:?}"));
            }
        }
    }

    fn client_got(&mut self, client: usize, link: LinkId, delivery_id: u32, bytes: &[u8]) {
        let is_finale = self.is_finale;
        let it = &self.clients[client];
        let Some((conn, place)) = it.conn().zip(it.place()) else {
            return;
        };
        let got = match rows::got(bytes, place) {
            Ok(got) => got,
            Err(error) => return self.oracle.blame(format!("a message was spoilt: {error}")),
        };
        let life = self.conns.get(&conn).map_or(0, |conn| conn.life);
        if self.waits_for_clients(life) {
            self.oracle.comes_early(&got, client, life);
        }
        let Some(part) = self.oracle.delivered(&got, conn, life) else {
            return;
        };
        let count = got.count;
        self.trace(|| format!("client {client}: {part} came, count {count}"));
        let delay = self.between(0, 300 * MS);
        let dice = self.random.u8(..100);
        let it = &mut self.clients[client];
        let Part::Consumer(consumer) = &mut it.part else {
            return;
        };
        if it.talk.as_ref().and_then(|talk| talk.link) != Some(link) {
            // The link is being left.
            return self.oracle.let_go(part);
        }
        let at = if is_finale {
            Some(self.now)
        } else {
            (dice >= consumer.keeps).then_some(self.now + delay)
        };
        consumer.held.push(Held {
            part,
            link,
            delivery_id,
            at,
        });
        if let Some(at) = at {
            it.act_at = it.act_at.min(at);
        }
    }
}
