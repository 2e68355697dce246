//! What clients send, and what people write into files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use steadfast::config::companions::{
    AclEntry, Companion, Destination, Entry, File, Group, Report, Section, User, read_anyway,
};
use steadfast::config::{self, Given, MainFile, Side, differences};
use steadfast::model::{Bridge, Durable};
use steadfast::node::{ConnectionId, Node, NodeSettings, Now};
use steadfast::proto::message::{Header, MessageIndex, MessageOutline, SimpleMessage};
use steadfast::proto::{
    AttachRequest, ClientSasl, Connection, Event, LinkId, Outcome, SessionId, Settings, Source,
    Target as Terminus,
};
use steadfast_storage::disk::{Disk, SimDisk, SimWorld};
use steadfast_storage::{Acquire, Store, StoreOptions, try_acquire};

use crate::Target;
use crate::damage::{damage, noise};

/// Messages of a conversation.
const MESSAGES: u64 = 5;
/// What a server may say to a client that talks nonsense.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

fn durable() -> Header {
    Header {
        durable: true,
        ..Header::default()
    }
}

/// A server in memory.
struct Server {
    disk: SimDisk,
    node: Node,
}

impl Server {
    fn new() -> Self {
        let disk = SimWorld::new().process();
        let Ok(Acquire::Owned(ownership)) = try_acquire(Arc::new(disk.clone()), "fuzz") else {
            panic!("a new store is free");
        };
        let options = StoreOptions {
            segment_bytes: 1 << 20,
            new_identity: *b"the sample of the fuzzer",
            ..StoreOptions::default()
        };
        let (store, _) = Store::open(ownership, options, &mut |_| ()).expect("a new store opens");
        let node = Node::new(NodeSettings::default(), store, now(&disk));
        let mut server = Self { disk, node };
        server.work();
        server
    }

    fn now(&self) -> Now {
        now(&self.disk)
    }

    /// Does everything that the disk has to do.
    fn work(&mut self) {
        let now = self.now();
        loop {
            while let Some(task) = self.node.poll_read() {
                self.node.read_done(now, task.run());
            }
            let Some(job) = self.node.poll_job(now) else {
                break;
            };
            self.node.complete(job.run()).expect("the disk is well");
            self.node.advance(now);
        }
        while self.node.poll_dirty().is_some() {}
    }

    /// What the server has to say to a connection.
    fn output(&mut self, id: ConnectionId) -> BytesMut {
        let Some(output) = self.node.output(id) else {
            return BytesMut::new();
        };
        let bytes = output.split();
        let now = self.now();
        self.node.handle_written(now, id);
        bytes
    }
}

fn now(disk: &SimDisk) -> Now {
    let ms = disk.boot_ms();
    Now {
        monotonic_ms: ms,
        boot_ms: ms,
        wall_ms: 1_000_000 + ms,
    }
}

/// A well-behaved client that sends some messages to a queue and takes them back.
struct Client {
    id: ConnectionId,
    connection: Connection,
    session: SessionId,
    sender: LinkId,
    receiver: LinkId,
    queue: String,
    sent: u64,
    accepted: u64,
    received: u64,
    is_closed: bool,
    /// All that it said.
    said: Vec<u8>,
}

impl Client {
    fn connect(server: &mut Server, queue: &str) -> Self {
        let settings = Settings {
            container_id: queue.to_owned(),
            ..Settings::default()
        };
        let mut connection =
            Connection::client(settings, ClientSasl::Anonymous, server.now().monotonic_ms);
        let session = connection.begin().expect("a new connection has channels");
        let request = |name: &str, source, target: Terminus| AttachRequest {
            name: name.to_owned(),
            source: Some(source),
            target: Some(target.into()),
            ..AttachRequest::default()
        };
        let out = request("out", Source::default(), Terminus::at(queue));
        let back = request("in", Source::at(queue), Terminus::default());
        let sender = connection
            .attach_sender(session, out)
            .expect("a new session has handles");
        let receiver = connection
            .attach_receiver(session, back)
            .expect("a new session has handles");
        connection.set_credit(receiver, 100);
        let id = server.node.connect(server.now());
        Self {
            id,
            connection,
            session,
            sender,
            receiver,
            queue: queue.to_owned(),
            sent: 0,
            accepted: 0,
            received: 0,
            is_closed: false,
            said: Vec::new(),
        }
    }

    /// Talks until both have nothing more to say; gives whether everything went well.
    fn talk(&mut self, server: &mut Server) -> bool {
        for _ in 0..200 {
            let now_ms = server.now().monotonic_ms;
            let mut input = server.output(self.id);
            self.connection.handle_bytes(now_ms, &mut input);
            while let Some(event) = self.connection.poll_event() {
                self.heard(event);
            }
            while self.sent < MESSAGES && self.connection.can_send(self.sender) {
                self.send();
            }
            if self.received == MESSAGES && self.accepted == MESSAGES && !self.is_closed {
                self.connection.detach(self.receiver, None);
                self.connection.end(self.session, None);
                self.connection.close(None);
            }
            self.connection.flush();
            let mut output = self.connection.output().split();
            self.said.extend_from_slice(&output);
            server.node.handle_bytes(server.now(), self.id, &mut output);
            server.work();
            if self.is_closed {
                return self.received == MESSAGES && self.accepted == MESSAGES;
            }
            server.disk.world().advance_ms(1);
        }
        false
    }

    fn send(&mut self) {
        let large = if self.sent == 3 { 200_000 } else { 20 };
        let message = SimpleMessage {
            to: Some(self.queue.clone()),
            header: durable(),
            body: vec![7; large],
            ..SimpleMessage::default()
        };
        let bytes = message.encode();
        let sent = self
            .connection
            .send(self.sender, self.sent, 0, &[&bytes], false);
        sent.expect("the link has credit");
        self.sent += 1;
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Disposition {
                outcome: Some(Outcome::Accepted),
                ..
            } => self.accepted += 1,
            Event::Delivery {
                link, delivery_id, ..
            } => {
                self.received += 1;
                self.connection.settle(link, delivery_id, Outcome::Accepted);
            }
            Event::Closed { .. } => self.is_closed = true,
            _ => {}
        }
    }
}

/// Everything that a client says in an ordinary conversation.
static CONVERSATION: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut server = Server::new();
    let mut client = Client::connect(&mut server, "recorded");
    assert!(
        client.talk(&mut server),
        "the recorded conversation goes well"
    );
    client.said
});

fn conversation(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = CONVERSATION.clone();
    // Most of it is the body of the large message: aims at the frames around it.
    let (head, tail) = (1200.min(bytes.len()), bytes.len().saturating_sub(1200));
    let mut part = match random.u8(0..3) {
        0 => bytes.split_off(tail),
        1 => bytes.drain(..head).collect(),
        _ => std::mem::take(&mut bytes),
    };
    let is_head = tail != bytes.len();
    damage(&mut part, random);
    if is_head {
        part.append(&mut bytes);
        part
    } else {
        bytes.append(&mut part);
        bytes
    }
}

/// A client says something broken, in pieces; another one must not notice.
fn client(input: &[u8]) {
    let mut server = Server::new();
    let id = server.node.connect(server.now());
    let mut sizes = fastrand::Rng::with_seed(input.len() as u64);
    let (mut rest, mut said) = (input, 0);
    let mut pending = BytesMut::new();
    while !rest.is_empty() {
        let len = sizes.usize(1..=20_000).min(rest.len());
        let (piece, behind) = rest.split_at(len);
        rest = behind;
        pending.extend_from_slice(piece);
        server.node.handle_bytes(server.now(), id, &mut pending);
        server.work();
        said += server.output(id).len();
        server.disk.world().advance_ms(10);
    }
    assert!(said <= OUTPUT_BYTES_MAX, "{said} bytes of answers");
    let mut neighbour = Client::connect(&mut server, "neighbour");
    assert!(neighbour.talk(&mut server), "the neighbour is disturbed");
    server.node.handle_eof(server.now(), id);
    server.work();
    assert!(server.node.fatal().is_none(), "the store failed");
}

/// Both ends of the protocol engine hear something broken.
fn frames(input: &[u8]) {
    let ends = [
        Connection::server(Settings::default(), 0),
        Connection::client(Settings::default(), ClientSasl::Anonymous, 0),
    ];
    for mut end in ends {
        let mut bytes = BytesMut::from(input);
        end.handle_bytes(1, &mut bytes);
        for _ in 0..10_000 {
            match end.poll_event() {
                Some(Event::Opened(_)) => end.open(),
                Some(Event::SaslInit { .. }) => {
                    end.sasl_outcome(steadfast::proto::SaslCode::Ok, None);
                }
                Some(_) => {}
                None => break,
            }
            end.handle_bytes(1, &mut bytes);
        }
        end.handle_timeout(1_000_000);
        end.flush();
        let said = end.output().len();
        assert!(said <= OUTPUT_BYTES_MAX, "{said} bytes of answers");
    }
}

/// A message of a client: its sections lie inside of it.
fn message(input: &[u8]) {
    if let Ok(index) = MessageIndex::scan(input) {
        let _ = (index.to_text(input), index.message_id_text(input));
        let _ = index.header().encode();
    }
    let _ = SimpleMessage::decode(input);
    let outline = MessageOutline::read(input);
    assert!(outline.body_bytes <= input.len() as u64, "{outline:?}");
}

fn sample_message(random: &mut fastrand::Rng) -> Vec<u8> {
    let message = SimpleMessage {
        to: Some("orders".to_owned()),
        header: durable(),
        body: vec![7; 40],
        ..SimpleMessage::default()
    };
    let mut bytes = message.encode();
    damage(&mut bytes, random);
    bytes
}

const CONF: &str = "# a pair\nserver = EMS-SERVER\nlisten = tcp://127.0.0.1:7222\nft_active = tcp://b:7222\n\
    ft_heartbeat = 3\nft_activation = 10\nstore = /tmp/shared\nauthorization = disabled\n\
    max_msg_memory = 512MB\nlogfile = \"a file.log\"\n";
const JSON: &str = r#"{"tibemsd": {"server": "EMS-SERVER", "primary_listens": [{"url": "tcp://a:7222"}],
    "secondary_listens": [{"url": "tcp://b:7222"}], "store": "/tmp/shared", "ft_heartbeat": 3}}"#;

/// The companion files, one after the other: each parser also reads what is not for it.
const COMPANIONS: &str = "# files\nadmin:\"a:b\":\"The # one\"\neng:\n  bob ; first\n\
    QUEUE=orders.> GROUP=\"a b\" PERM=receive, browse\nADMIN USER=bob PERM=view-all\n\
    orders.> secure,store=$sys.failsafe , maxbytes=1GB,import=\"a,b\"\npx.* d1 clientid=c1,nolocal\n\
    [topic:px.>]\n  queue=px.archive\n[F]\n  type = generic\n  url = tcp://h1:1,tcp://h2:2\n\
    [$sys.meta]\n mode=async\r\n file_minimum = 8MB";
const JSON_SECTIONS: &str = r#"{"tibemsd": {}, "users": [{"name": "a", "password": "b"}],
    "groups": [{"name": "g", "members": [{"name": "a"}, "b"]}], "queues": [{"name": ">", "secure": true}],
    "acls": [{"queue": "a", "user": "a", "permissions": ["send"]}, {"admin": true, "user": "b", "permissions": "all"}],
    "durables": [{"topic": "t", "name": "d", "clientid": null}], "stores": [{"name": "s", "file": "f"}],
    "bridges": [{"source": {"type": "topic", "name": "t"}, "targets": [{"type": "queue", "name": "q"}]}],
    "factories": [{"name": "F", "type": "generic", "url": "tcp://h:1", "ssl": {"x": 1}}]}"#;

fn sample_file(random: &mut fastrand::Rng) -> Vec<u8> {
    let texts = [CONF, JSON, COMPANIONS, JSON_SECTIONS];
    let mut bytes = texts[random.usize(..texts.len())].as_bytes().to_vec();
    damage(&mut bytes, random);
    bytes
}

/// A file is written as it was read, and what was read can be written.
fn companion<E: Entry>(which: Companion, text: &str) {
    let mut report = Report::default();
    let file: File<E> = File::parse(which, Path::new("x.conf"), text, &mut report);
    assert_eq!(file.to_string(), text, "{which:?}");
    for entry in file.entries() {
        let mut changed = file.clone();
        assert!(changed.remove(&entry.key()), "{which:?}: it was there");
        // Not everything that can be read from a damaged file has a spelling of its own.
        let _ = changed.set(entry);
    }
}

/// Every fault has words, and names a line that exists.
fn file(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    companion::<User>(Companion::Users, &text);
    companion::<Group>(Companion::Groups, &text);
    companion::<AclEntry>(Companion::Acl, &text);
    companion::<Destination>(Companion::Queues, &text);
    companion::<Destination>(Companion::Topics, &text);
    companion::<Durable>(Companion::Durables, &text);
    companion::<Bridge>(Companion::Bridges, &text);
    companion::<Section>(Companion::Factories, &text);
    companion::<Section>(Companion::Stores, &text);
    companion::<Section>(Companion::Routes, &text);
    for name in ["main.conf", "main.json"] {
        let given = Given {
            file: Some(MainFile {
                path: PathBuf::from(name),
                text: text.clone(),
            }),
            ..Given::default()
        };
        if let Err(faults) = config::load(&given) {
            assert!(!faults.faults.is_empty(), "refused without a fault");
            assert!(!faults.to_string().is_empty(), "a fault without words");
        }
        let (config, _) = config::load_anyway(&given);
        let (companions, _) = read_anyway(&config, &|_| Ok(input.to_vec()));
        let side = Side {
            config: &config,
            companions: &companions,
        };
        let found = differences(side, side, &|_| Ok(Vec::new()));
        assert!(
            !found.iter().any(|line| line.contains("missing in")),
            "a server has what it has: {found:?}"
        );
    }
}

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target::new(
            "client",
            "a client's conversation with a server, damaged: no panic, and a neighbour is not disturbed",
            conversation,
            client,
            200,
        ),
        Target::new(
            "frames",
            "the protocol engine at both ends",
            conversation,
            frames,
            3_000,
        ),
        Target::new(
            "noise",
            "the protocol engine at both ends, on bytes without structure",
            noise,
            frames,
            20_000,
        ),
        Target::new(
            "message",
            "the sections of a message",
            sample_message,
            message,
            50_000,
        ),
        Target::new(
            "config",
            "the main file in both grammars, and the companion files",
            sample_file,
            file,
            2_000,
        ),
    ]
}
