//! Scenarios: real protocol ends in memory on one side, the store on a simulated disk on the other.

mod clients;
mod consuming;
mod impatience;
mod limits;
mod look;
mod ownership;
mod permits;
mod publishing;
mod purges;
mod simulation;
mod subscriptions;
mod takeover;
mod temporary_topics;
mod topic_simulation;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use steadfast_storage::disk::{Disk, SimDisk, SimWorld};
use steadfast_storage::{Acquire, StoreOptions, try_acquire};

use super::*;
use crate::proto::message::{Header, SimpleMessage};
use crate::proto::{
    AttachRequest, ClientSasl, Event as ProtoEvent, SenderSettleMode, SessionId, Settings, Source,
    Target,
};

/// A client: a protocol end, and what it saw in words.
struct Client {
    connection: Connection,
    id: ConnectionId,
    session: SessionId,
    to_client: BytesMut,
    /// Everything that the server said, for tests that look at frames.
    heard: Vec<u8>,
    log: Vec<String>,
    /// Deliveries by the text of their body.
    deliveries: BTreeMap<String, (LinkId, u32)>,
    /// Addresses that the server named, by link.
    addresses: BTreeMap<LinkId, String>,
    credit: BTreeMap<LinkId, u32>,
    /// Links that are gone without an error.
    detached: Vec<LinkId>,
    /// The client takes nothing from its socket.
    is_deaf: bool,
}

struct Scene {
    world: SimWorld,
    disk: SimDisk,
    node: Node,
    clients: Vec<Client>,
}

fn store_options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 1 << 20,
        new_identity: *b"a store made for a test!",
        ..StoreOptions::default()
    }
}

fn node_settings() -> NodeSettings {
    NodeSettings {
        server: String::from("east"),
        publisher_credit: 10,
        reconnect_timeout_ms: 20_000,
        ..NodeSettings::default()
    }
}

/// Limits that a simulation reaches all the time.
fn cramped_settings() -> NodeSettings {
    NodeSettings {
        limits: broker::Limits {
            window_messages: 6,
            read_messages: 4,
            returned: 5,
            ..broker::Limits::default()
        },
        publisher_credit: 50,
        ..node_settings()
    }
}

impl Scene {
    fn new() -> Self {
        Self::with(node_settings(), store_options())
    }

    fn with(settings: NodeSettings, options: StoreOptions) -> Self {
        Self::open(SimWorld::new(), settings, options)
    }

    fn open(world: SimWorld, settings: NodeSettings, options: StoreOptions) -> Self {
        let disk = world.process();
        let Ok(Acquire::Owned(ownership)) = try_acquire(Arc::new(disk.clone()), "test") else {
            panic!("the store is free");
        };
        let (store, _) = Store::open(ownership, options, &mut |_| ()).expect("the store opens");
        let node = Node::new(settings, store, now_of(&disk));
        let mut scene = Self {
            world,
            disk,
            node,
            clients: Vec::new(),
        };
        scene.commit();
        scene
    }

    /// The process dies, another takes over.
    fn take_over(self) -> Self {
        let settings = self.node.settings.clone();
        self.world.kill(&self.disk);
        drop(self.node);
        Self::open(self.world, settings, store_options())
    }

    fn now(&self) -> Now {
        now_of(&self.disk)
    }

    fn connect(&mut self) -> usize {
        let container = format!("client {}", self.clients.len());
        self.connect_as(&container, Settings::default())
    }

    fn connect_as(&mut self, container: &str, settings: Settings) -> usize {
        self.connect_with(container, settings, plain("ann"))
    }

    fn connect_as_user(&mut self, user: &str) -> usize {
        self.connect_with(user, Settings::default(), plain(user))
    }

    fn connect_with(&mut self, container: &str, settings: Settings, sasl: ClientSasl) -> usize {
        self.connect_from(Caller::default(), container, settings, sasl)
    }

    fn connect_from(
        &mut self,
        caller: Caller,
        container: &str,
        settings: Settings,
        sasl: ClientSasl,
    ) -> usize {
        let settings = Settings {
            container_id: container.to_owned(),
            ..settings
        };
        let now = self.now();
        let mut connection = Connection::client(settings, sasl, now.monotonic_ms);
        let session = connection.begin().expect("a new connection has channels");
        self.clients.push(Client {
            connection,
            id: self.node.connect_as(now, caller),
            session,
            to_client: BytesMut::new(),
            heard: Vec::new(),
            log: Vec::new(),
            deliveries: BTreeMap::new(),
            addresses: BTreeMap::new(),
            credit: BTreeMap::new(),
            detached: Vec::new(),
            is_deaf: false,
        });
        self.exchange();
        self.clients.len() - 1
    }

    /// A client that publishes to a queue, and its link.
    fn publisher(&mut self, queue: &str) -> (usize, LinkId) {
        let client = self.connect();
        (client, self.sender(client, Some(queue)))
    }

    /// A client that consumes from a queue, and its link.
    fn consumer(&mut self, queue: &str, credit: u32) -> (usize, LinkId) {
        let client = self.connect();
        (client, self.receiver(client, Source::at(queue), credit))
    }

    /// The same as the client of a container.
    fn consumer_as(&mut self, container: &str, queue: &str, credit: u32) -> (usize, LinkId) {
        let client = self.connect_as(container, Settings::default());
        (client, self.receiver(client, Source::at(queue), credit))
    }

    fn sender(&mut self, client: usize, address: Option<&str>) -> LinkId {
        let target = address.map_or_else(Target::default, Target::at);
        self.attach_sender(client, target, "sender")
    }

    fn attach_sender(&mut self, client: usize, target: Target, name: &str) -> LinkId {
        let name = format!("{name}{}", self.clients[client].addresses.len());
        self.attach_sender_named(client, target, &name)
    }

    fn attach_sender_named(&mut self, client: usize, target: Target, name: &str) -> LinkId {
        let it = &mut self.clients[client];
        let request = AttachRequest {
            name: name.to_owned(),
            target: Some(target.into()),
            source: Some(Source::default()),
            ..AttachRequest::default()
        };
        let link = it.connection.attach_sender(it.session, request);
        self.exchange();
        link.expect("the session has handles")
    }

    fn receiver(&mut self, client: usize, source: Source, credit: u32) -> LinkId {
        self.receiver_as(client, source, credit, SenderSettleMode::Unsettled)
    }

    fn receiver_as(
        &mut self,
        client: usize,
        source: Source,
        credit: u32,
        mode: SenderSettleMode,
    ) -> LinkId {
        let it = &mut self.clients[client];
        let request = AttachRequest {
            name: format!("receiver{}", it.addresses.len() + it.credit.len()),
            source: Some(source),
            target: Some(Target::default().into()),
            snd_settle_mode: mode,
            ..AttachRequest::default()
        };
        let link = it.connection.attach_receiver(it.session, request);
        let link = link.expect("the session has handles");
        it.connection.set_credit(link, credit);
        self.exchange();
        link
    }

    fn credit(&mut self, (client, link): (usize, LinkId), credit: u32) {
        self.clients[client].connection.set_credit(link, credit);
        self.exchange();
    }

    fn drain(&mut self, (client, link): (usize, LinkId)) {
        self.clients[client].connection.drain(link);
        self.exchange();
    }

    /// Publishes a durable message with this text, which also names it in the log.
    fn publish(&mut self, to: (usize, LinkId), text: &str) {
        self.publish_message(to, &text_message(text, true));
    }

    fn publish_message(&mut self, to: (usize, LinkId), message: &SimpleMessage) {
        self.publish_bytes(to, &message.encode(), 0, false);
    }

    fn publish_bytes(
        &mut self,
        (client, link): (usize, LinkId),
        bytes: &[u8],
        format: u32,
        settled: bool,
    ) {
        let connection = &mut self.clients[client].connection;
        connection
            .send(link, 7, format, &[bytes], settled)
            .expect("the publisher has credit");
        self.exchange();
    }

    /// Has one message taken, and none any more when the disk is full, for as long as there is credit.
    fn meet_a_full_disk(&mut self, to: (usize, LinkId)) {
        self.publish(to, "a");
        self.commit();
        self.check(to.0, "accepted");
        self.world.set_free_bytes(0);
        self.rest();
        assert!(!self.node.store.accepts_messages(), "the disk is full");
        self.take_log(to.0);
        while self.clients[to.0].connection.can_send(to.1) {
            self.publish(to, "b");
            self.check(to.0, "rejected amqp:resource-limit-exceeded");
        }
    }

    fn settle(&mut self, client: usize, text: &str, outcome: Outcome) {
        let it = &mut self.clients[client];
        let (link, delivery_id) = it.deliveries.remove(text).expect("it was delivered");
        it.connection.settle(link, delivery_id, outcome);
        self.exchange();
    }

    fn detach(&mut self, (client, link): (usize, LinkId)) {
        self.clients[client].connection.detach(link, None);
        self.exchange();
    }

    /// The connection breaks.
    fn lose(&mut self, client: usize) {
        let now = self.now();
        let id = self.clients[client].id;
        self.node.disconnect(now, id);
        self.exchange();
    }

    /// Moves bytes and reads until nobody has anything to say. The disk's log does nothing.
    fn exchange(&mut self) {
        let now = self.now();
        for _ in 0..10_000 {
            let mut is_quiet = true;
            while let Some(task) = self.node.poll_read() {
                self.node.read_done(now, task.run());
                is_quiet = false;
            }
            while let Some((id, task)) = self.node.poll_login() {
                self.node.login_done(now, id, task.run());
                is_quiet = false;
            }
            while let Some(id) = self.node.poll_dirty() {
                is_quiet &= !self.carry(now, id);
            }
            for index in 0..self.clients.len() {
                is_quiet &= !self.listen(now, index);
            }
            if is_quiet {
                return;
            }
        }
        panic!("they never stop talking");
    }

    /// Moves output of the server to a client.
    fn carry(&mut self, now: Now, id: ConnectionId) -> bool {
        let Some(client) = self.clients.iter_mut().find(|it| it.id == id) else {
            return false;
        };
        let Some(output) = self.node.output(id) else {
            return false;
        };
        if client.is_deaf || output.is_empty() {
            return false;
        }
        let bytes = output.split();
        client.heard.extend_from_slice(&bytes);
        client.to_client.extend_from_slice(&bytes);
        self.node.handle_written(now, id);
        true
    }

    /// Lets a client hear and speak.
    fn listen(&mut self, now: Now, index: usize) -> bool {
        let client = &mut self.clients[index];
        let heard = !client.to_client.is_empty();
        if heard {
            let Client {
                connection,
                to_client,
                ..
            } = client;
            connection.handle_bytes(now.monotonic_ms, to_client);
        }
        while let Some(event) = client.connection.poll_event() {
            client.note(event);
        }
        client.connection.flush();
        let mut output = client.connection.output().split();
        let spoke = !output.is_empty();
        if spoke {
            let id = client.id;
            self.node.handle_bytes(now, id, &mut output);
            assert!(output.is_empty(), "frames are whole");
        }
        heard || spoke
    }

    /// Does all that the store has to do now, and lets out what became durable.
    fn commit(&mut self) {
        loop {
            let now = self.now();
            let Some(job) = self.node.poll_job(now) else {
                break;
            };
            if self.node.complete(job.run()).is_err() {
                break;
            }
            self.node.advance(now);
        }
        self.exchange();
    }

    fn pass(&mut self, ms: u64) {
        self.world.advance_ms(ms);
        let now = self.now();
        self.node.tick(now);
        self.exchange();
    }

    /// Lets time pass until the store has nothing to do.
    fn rest(&mut self) {
        for _ in 0..60 {
            self.pass(100);
            self.commit();
        }
    }

    #[track_caller]
    fn check(&mut self, client: usize, expected: &str) {
        let log = std::mem::take(&mut self.clients[client].log).join(", ");
        assert_eq!(log, expected, "what client {client} saw");
    }

    /// All that a client was told, as far as it is text.
    fn heard(&self, client: usize) -> String {
        String::from_utf8_lossy(&self.clients[client].heard).into_owned()
    }

    fn take_log(&mut self, client: usize) -> Vec<String> {
        std::mem::take(&mut self.clients[client].log)
    }

    fn messages(&self, queue: &str) -> u64 {
        let all = self.node.queue_status();
        let found = all.iter().find(|it| it.name == queue);
        found.map_or(0, |it| it.messages)
    }
}

impl Client {
    fn note(&mut self, event: ProtoEvent) {
        let line = match event {
            ProtoEvent::Delivery {
                link,
                delivery_id,
                settled,
                payload,
                ..
            } => {
                let message =
                    SimpleMessage::decode(&payload.to_bytes()).expect("a message of ours");
                let text = String::from_utf8_lossy(&message.body).into_owned();
                let count = match message.header.delivery_count {
                    0 => String::new(),
                    count => format!(" x{count}"),
                };
                let settled = if settled { " settled" } else { "" };
                self.deliveries.insert(text.clone(), (link, delivery_id));
                format!("got {text}{count}{settled}")
            }
            ProtoEvent::Disposition { outcome, .. } => match outcome {
                Some(Outcome::Accepted) => String::from("accepted"),
                Some(Outcome::Rejected(error)) => {
                    let condition = error.map(|it| it.condition.into_owned());
                    format!("rejected {}", condition.unwrap_or_default())
                }
                other => format!("{other:?}"),
            },
            ProtoEvent::Flow { link, credit, .. } => {
                self.credit.insert(link, credit);
                return;
            }
            ProtoEvent::AttachConfirmed(attach) => {
                let target = attach.target_node().and_then(|it| it.address.clone());
                let source = attach.source.as_ref().and_then(|it| it.address.clone());
                let address = target.or(source).unwrap_or_default();
                self.addresses.insert(attach.link, address);
                return;
            }
            ProtoEvent::Drained { .. } => String::from("drained"),
            ProtoEvent::Detached {
                error: Some(error), ..
            } => format!("detached {}", error.condition),
            ProtoEvent::Detached {
                link, error: None, ..
            } => {
                self.detached.push(link);
                return;
            }
            ProtoEvent::Closed { error } => match error {
                Some(error) => format!("closed {}", error.condition),
                None => String::from("closed"),
            },
            _ => return,
        };
        self.log.push(line);
    }
}

fn plain(user: &str) -> ClientSasl {
    ClientSasl::Plain {
        user: user.to_owned(),
        password: String::from("secret"),
    }
}

fn now_of(disk: &SimDisk) -> Now {
    let boot_ms = disk.boot_ms();
    Now {
        monotonic_ms: boot_ms,
        boot_ms,
        wall_ms: 1_700_000_000_000 + boot_ms,
    }
}

fn text_message(text: &str, durable: bool) -> SimpleMessage {
    SimpleMessage {
        header: Header {
            durable,
            ..Header::default()
        },
        message_id: Some(text.to_owned()),
        body: text.as_bytes().to_vec(),
        ..SimpleMessage::default()
    }
}
