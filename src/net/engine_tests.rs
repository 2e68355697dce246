//! The engine over real sockets: clients of our own protocol engine, stores on real and simulated
//! disks.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use steadfast_storage::disk::{Disk, Fault, Operation, RealDisk, SimWorld};
use steadfast_storage::{Acquire, Store, StoreOptions, try_acquire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use super::clock;
use super::engine::{Engine, EngineSettings};
use crate::proto::message::{Header, SimpleMessage};
use crate::proto::{
    AttachRequest, ClientSasl, Connection, Event, LinkId, Outcome, SessionId, Settings, Source,
    Target,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test like a server: on one thread, tasks that are not `Send`.
fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        timeout(PATIENCE, test())
            .await
            .expect("the test ends in time");
    });
}

fn open_store(disk: Arc<dyn Disk>) -> Store {
    let Ok(Acquire::Owned(ownership)) = try_acquire(disk, "test") else {
        panic!("the store is free");
    };
    let options = StoreOptions {
        segment_bytes: 4 << 20,
        free_bytes_min: 0,
        ..StoreOptions::default()
    };
    let (store, _) = Store::open(ownership, options, &mut |_| ()).expect("the store opens");
    store
}

fn real_disk(dir: &tempfile::TempDir) -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(dir.path(), true).expect("a directory"))
}

/// An engine behind a socket of its own.
async fn listen(settings: EngineSettings) -> (Engine, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let engine = Engine::new(settings);
    let accepting = engine.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepting.accept(stream);
        }
    });
    (engine, address)
}

/// An engine that serves an empty store on a real disk.
async fn serving() -> (Engine, SocketAddr, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, address) = listen(EngineSettings::default()).await;
    engine.serve(open_store(real_disk(&dir)));
    (engine, address, dir)
}

struct Client {
    stream: TcpStream,
    connection: Connection,
    session: SessionId,
    input: BytesMut,
    is_ended: bool,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let now_ms = clock::now().monotonic_ms;
        let mut connection = Connection::client(Settings::default(), ClientSasl::Anonymous, now_ms);
        let session = connection.begin().expect("a new connection has channels");
        Self {
            stream,
            connection,
            session,
            input: BytesMut::new(),
            is_ended: false,
        }
    }

    async fn send_output(&mut self) {
        self.connection.flush();
        let mut output = self.connection.output().split();
        if self.stream.write_all_buf(&mut output).await.is_err() {
            self.is_ended = true;
        }
    }

    /// The next event; `None` when the server has closed the socket.
    async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Some(event);
            }
            self.send_output().await;
            if self.is_ended {
                return None;
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(1..) => {
                    let now_ms = clock::now().monotonic_ms;
                    self.connection.handle_bytes(now_ms, &mut self.input);
                }
                Ok(0) | Err(_) => self.is_ended = true,
            }
        }
    }

    /// Waits for an event that is of interest.
    async fn wait<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> Option<T> {
        while let Some(event) = self.event().await {
            if let Some(found) = pick(event) {
                return Some(found);
            }
        }
        None
    }

    async fn sender(&mut self, queue: &str) -> LinkId {
        let request = AttachRequest {
            name: format!("to {queue}"),
            target: Some(Target::at(queue).into()),
            source: Some(Source::default()),
            ..AttachRequest::default()
        };
        let link = self
            .connection
            .attach_sender(self.session, request)
            .expect("a handle");
        self.wait(|event| matches!(event, Event::Flow { .. }).then_some(()))
            .await
            .expect("credit");
        link
    }

    fn receiver(&mut self, queue: &str, credit: u32) -> LinkId {
        let request = AttachRequest {
            name: format!("from {queue}"),
            source: Some(Source::at(queue)),
            target: Some(Target::default().into()),
            ..AttachRequest::default()
        };
        let link = self
            .connection
            .attach_receiver(self.session, request)
            .expect("a handle");
        self.connection.set_credit(link, credit);
        link
    }

    fn publish(&mut self, link: LinkId, text: &str) {
        let message = message(text);
        self.connection
            .send(link, 0, 0, &[&message], false)
            .expect("there is credit");
    }

    /// The next outcome of a message that was published.
    async fn confirmed(&mut self) -> Option<Outcome> {
        self.wait(|event| match event {
            Event::Disposition { outcome, .. } => outcome,
            _ => None,
        })
        .await
    }

    /// The text of the next message, which is accepted.
    async fn receive(&mut self) -> Option<String> {
        let (link, id, payload) = self
            .wait(|event| match event {
                Event::Delivery {
                    link,
                    delivery_id,
                    payload,
                    ..
                } => Some((link, delivery_id, payload)),
                _ => None,
            })
            .await?;
        self.connection.settle(link, id, Outcome::Accepted);
        let message = SimpleMessage::decode(&payload.to_bytes()).expect("a message of ours");
        Some(String::from_utf8(message.body).expect("text"))
    }

    /// How the server closed the connection.
    async fn closed(&mut self) -> Option<String> {
        self.wait(|event| match event {
            Event::Closed { error } => Some(error.map(|it| it.condition.into_owned())),
            _ => None,
        })
        .await?
    }
}

fn message(text: &str) -> Vec<u8> {
    let message = SimpleMessage {
        header: Header {
            durable: true,
            ..Header::default()
        },
        body: text.as_bytes().to_vec(),
        ..SimpleMessage::default()
    };
    message.encode()
}

#[test]
fn a_message_goes_from_a_publisher_to_a_consumer() {
    run(|| async {
        let (engine, address, _dir) = serving().await;
        let mut publisher = Client::connect(address).await;
        let link = publisher.sender("orders").await;
        publisher.publish(link, "hello");
        assert_eq!(publisher.confirmed().await, Some(Outcome::Accepted));
        let mut consumer = Client::connect(address).await;
        consumer.receiver("orders", 10);
        assert_eq!(consumer.receive().await.as_deref(), Some("hello"));
        consumer.send_output().await;
        let status = engine.status();
        assert_eq!((status.connections, status.links), (2, 2));
        assert_eq!((status.messages_in, status.messages_out), (1, 1));
        assert!(status.store.is_some());
    });
}

#[test]
fn synchronous_publishers_share_the_commits() {
    run(|| async {
        const CLIENTS: usize = 16;
        const MESSAGES: usize = 50;
        let (engine, address, _dir) = serving().await;
        let done = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        for number in 0..CLIENTS {
            let done = Rc::clone(&done);
            tasks.push(spawn_local(async move {
                let mut client = Client::connect(address).await;
                let link = client.sender("orders").await;
                for message in 0..MESSAGES {
                    client.publish(link, &format!("{number}.{message}"));
                    assert_eq!(client.confirmed().await, Some(Outcome::Accepted));
                    done.set(done.get() + 1);
                }
            }));
        }
        for task in tasks {
            task.await.expect("no client fails");
        }
        assert_eq!(done.get(), CLIENTS * MESSAGES);
        let store = engine.status().store.expect("active");
        assert_eq!(store.messages, (CLIENTS * MESSAGES) as u64);
        let mut consumer = Client::connect(address).await;
        consumer.receiver("orders", 10_000);
        let mut next = [0; CLIENTS];
        for _ in 0..CLIENTS * MESSAGES {
            let text = consumer.receive().await.expect("all are there");
            let (number, message) = text.split_once('.').expect("ours");
            let expected = &mut next[number.parse::<usize>().expect("a number")];
            assert_eq!(
                message,
                expected.to_string(),
                "each publisher's order is kept"
            );
            *expected += 1;
        }
    });
}

#[test]
fn a_standby_sends_clients_away_at_once() {
    run(|| async {
        let (_engine, address) = listen(EngineSettings::default()).await;
        let mut client = Client::connect(address).await;
        let closed = client.closed().await;
        assert_eq!(closed.as_deref(), Some("amqp:connection:forced"));
        assert!(
            client.wait(|_| None::<()>).await.is_none(),
            "and ends the socket"
        );
    });
}

#[test]
fn clients_that_are_held_are_served_when_the_store_is_ours() {
    run(|| async {
        let (engine, address) = listen(EngineSettings::default()).await;
        engine.hold();
        let mut client = Client::connect(address).await;
        let quiet = timeout(Duration::from_millis(50), client.event()).await;
        assert!(quiet.is_err(), "nothing is said meanwhile");
        let dir = tempfile::tempdir().expect("a directory");
        engine.serve(open_store(real_disk(&dir)));
        let link = client.sender("orders").await;
        client.publish(link, "hello");
        assert_eq!(client.confirmed().await, Some(Outcome::Accepted));
    });
}

#[test]
fn clients_are_not_held_for_ever() {
    run(|| async {
        let settings = EngineSettings {
            hold_ms: 30,
            ..EngineSettings::default()
        };
        let (engine, address) = listen(settings).await;
        engine.hold();
        let mut client = Client::connect(address).await;
        let closed = client.closed().await;
        assert_eq!(closed.as_deref(), Some("amqp:connection:forced"));
    });
}

#[test]
fn held_clients_are_sent_away_when_the_store_belongs_to_another() {
    run(|| async {
        let (engine, address) = listen(EngineSettings::default()).await;
        engine.hold();
        let mut client = Client::connect(address).await;
        let quiet = timeout(Duration::from_millis(20), client.event()).await;
        assert!(quiet.is_err());
        engine.refuse();
        let closed = client.closed().await;
        assert_eq!(closed.as_deref(), Some("amqp:connection:forced"));
    });
}

#[test]
fn an_orderly_stop_tells_clients_and_leaves_the_store_to_others() {
    run(|| async {
        let (engine, address, dir) = serving().await;
        let mut client = Client::connect(address).await;
        let link = client.sender("orders").await;
        client.publish(link, "hello");
        assert_eq!(client.confirmed().await, Some(Outcome::Accepted));
        let stopping = engine.clone();
        let stop = spawn_local(async move { stopping.stop().await });
        let closed = client.closed().await;
        assert_eq!(closed.as_deref(), Some("amqp:connection:forced"));
        stop.await.expect("it stops");

        let (engine, address) = listen(EngineSettings::default()).await;
        engine.serve(open_store(real_disk(&dir)));
        let mut client = Client::connect(address).await;
        client.receiver("orders", 1);
        assert_eq!(client.receive().await.as_deref(), Some("hello"));
    });
}

#[test]
fn a_failed_sync_ends_everything_without_a_confirm() {
    run(|| async {
        let world = SimWorld::new();
        let (engine, address) = listen(EngineSettings::default()).await;
        engine.serve(open_store(Arc::new(world.process())));
        let mut client = Client::connect(address).await;
        let link = client.sender("orders").await;
        client.publish(link, "fine");
        assert_eq!(client.confirmed().await, Some(Outcome::Accepted));
        world.inject(Fault {
            operation: Operation::Sync,
            name_part: String::from(".seg"),
            skip: 0,
            count: u64::MAX,
            errno: 5,
        });
        client.publish(link, "lost");
        assert_eq!(client.confirmed().await, None, "the socket is closed");
        let fatal = engine.failed().await;
        assert!(fatal.to_string().contains("sync"), "{fatal}");
    });
}

#[test]
fn garbage_and_abandoned_sockets_disturb_nobody() {
    run(|| async {
        let (engine, address, _dir) = serving().await;
        let mut client = Client::connect(address).await;
        let link = client.sender("orders").await;
        let mut garbage = TcpStream::connect(address).await.expect("somebody listens");
        garbage.write_all(&[0xff; 4096]).await.expect("it is sent");
        let mut answer = Vec::new();
        let _reset = garbage.read_to_end(&mut answer).await;
        let mut gone = Client::connect(address).await;
        gone.sender("orders").await;
        drop(gone);
        client.publish(link, "hello");
        assert_eq!(client.confirmed().await, Some(Outcome::Accepted));
        while engine.connections() > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(engine.status().links, 1);
    });
}

#[test]
fn a_client_that_never_reads_is_given_up_and_others_go_on() {
    run(|| async {
        let settings = EngineSettings {
            stuck_ms: 500,
            ..EngineSettings::default()
        };
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, address) = listen(settings).await;
        engine.serve(open_store(real_disk(&dir)));
        let mut deaf = Client::connect(address).await;
        deaf.receiver("orders", 100_000);
        deaf.wait(|event| matches!(event, Event::AttachConfirmed(_)).then_some(()))
            .await
            .expect("attached");
        deaf.send_output().await;
        let mut client = Client::connect(address).await;
        let link = client.sender("orders").await;
        let text = "x".repeat(100_000);
        let mut published = 0;
        while engine.connections() > 1 {
            if client.connection.can_send(link) && published < 200 {
                published += 1;
                client.publish(link, &text);
                assert_eq!(client.confirmed().await, Some(Outcome::Accepted));
            }
            tokio::task::yield_now().await;
        }
        let mut consumer = Client::connect(address).await;
        consumer.receiver("orders", 1000);
        for _ in 0..published {
            assert_eq!(consumer.receive().await.map(|it| it.len()), Some(100_000));
        }
    });
}
