//! What the protocol engine costs a message: client and server ends, joined in memory.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use steadfast::proto::message::{Header, MessageIndex, SimpleMessage};
use steadfast::proto::{
    AttachReply, AttachRequest, AttachTarget, ClientSasl, Connection, Event, LinkId, Outcome,
    Settings, Source, Target,
};

/// Messages of one exchange.
const MESSAGES: u32 = 100;
const BODY_BYTES: usize = 1024;

/// Two ends of a connection with one link from the client to the server.
struct Pair {
    client: Connection,
    server: Connection,
    link: LinkId,
    to_server: BytesMut,
    to_client: BytesMut,
}

impl Pair {
    fn new() -> Self {
        let mut client = Connection::client(Settings::default(), ClientSasl::None, 0);
        let session = client.begin().expect("a channel is free");
        let request = AttachRequest {
            name: String::from("link"),
            source: Some(Source::default()),
            target: Some(AttachTarget::Node(Target::at("queue"))),
            ..AttachRequest::default()
        };
        let link = client
            .attach_sender(session, request)
            .expect("a handle is free");
        let mut pair = Self {
            client,
            server: Connection::server(Settings::default(), 0),
            link,
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
        };
        while !pair.client.can_send(link) {
            pair.exchange();
        }
        pair
    }

    /// Moves what there is in both directions; the server accepts everything.
    fn exchange(&mut self) -> u32 {
        self.client.flush();
        self.to_server.unsplit(self.client.output().split());
        self.server.handle_bytes(0, &mut self.to_server);
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Opened(_) => {
                    self.server.open();
                    self.server.handle_bytes(0, &mut self.to_server);
                }
                Event::Attached(attach) => {
                    self.server
                        .accept_attach(attach.link, AttachReply::default());
                    self.server.set_credit(attach.link, 4 * MESSAGES);
                }
                Event::CreditRefill { link } => self.server.set_credit(link, 4 * MESSAGES),
                Event::Delivery {
                    link,
                    delivery_id,
                    payload,
                    ..
                } => {
                    black_box(&payload);
                    self.server.settle(link, delivery_id, Outcome::Accepted);
                }
                _ => {}
            }
        }
        self.server.flush();
        self.to_client.unsplit(self.server.output().split());
        self.client.handle_bytes(0, &mut self.to_client);
        let mut confirmed = 0;
        while let Some(event) = self.client.poll_event() {
            confirmed += u32::from(matches!(event, Event::Disposition { .. }));
        }
        confirmed
    }
}

fn message() -> Vec<u8> {
    SimpleMessage {
        header: Header {
            durable: true,
            ..Header::default()
        },
        message_id: Some(String::from("ID:producer-1:1")),
        to: Some(String::from("queue")),
        body: vec![7; BODY_BYTES],
        ..SimpleMessage::default()
    }
    .encode()
}

/// Encoding and decoding of transfers, one range disposition for all of them.
fn transfers(criterion: &mut Criterion) {
    let message = message();
    let mut pair = Pair::new();
    let mut group = criterion.benchmark_group("protocol");
    group.throughput(Throughput::Elements(u64::from(MESSAGES)));
    group.bench_function("100 transfers of 1 KiB and their range disposition", |it| {
        it.iter(|| {
            for token in 0..MESSAGES {
                pair.client
                    .send(pair.link, token.into(), 0, &[&message], false)
                    .expect("there is credit");
            }
            let mut confirmed = 0;
            while confirmed < MESSAGES {
                confirmed += pair.exchange();
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one transfer of 1 KiB and its disposition", |it| {
        it.iter(|| {
            pair.client
                .send(pair.link, 0, 0, &[&message], false)
                .expect("there is credit");
            while pair.exchange() == 0 {}
        });
    });
    group.finish();
}

/// The one pass over the sections before the body.
fn message_index(criterion: &mut Criterion) {
    let message = message();
    let mut group = criterion.benchmark_group("message");
    group.throughput(Throughput::Elements(1));
    group.bench_function("index of a 1 KiB message", |it| {
        it.iter(|| MessageIndex::scan(black_box(&message)).expect("it is well-formed"));
    });
    group.bench_function("new header of a message that is delivered again", |it| {
        let header = Header {
            durable: true,
            delivery_count: 1,
            ..Header::default()
        };
        it.iter(|| black_box(&header).encode());
    });
    group.finish();
}

criterion_group!(benches, transfers, message_index);
criterion_main!(benches);
