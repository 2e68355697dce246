//! The two-peer harness.

use bytes::{Bytes, BytesMut};

use super::*;

/// Settings of both ends that keep scenarios small.
pub(super) fn settings() -> Settings {
    Settings {
        max_frame_size: 1024,
        max_message_bytes: 100_000,
        ..Settings::default()
    }
}

/// A client and a server, the bytes between them and a clock.
pub(super) struct Pair {
    pub(super) client: Connection,
    pub(super) server: Connection,
    /// What the client's and the server's owner saw and did not answer by itself.
    pub(super) client_events: Vec<Event>,
    pub(super) server_events: Vec<Event>,
    to_client: BytesMut,
    to_server: BytesMut,
    pub(super) now_ms: u64,
    /// Bytes that move at a time.
    pub(super) chunk: usize,
    /// The server's owner accepts links by itself.
    pub(super) accepts_links: bool,
    /// Bytes that went each way.
    pub(super) client_sent: Vec<u8>,
    pub(super) server_sent: Vec<u8>,
}

impl Pair {
    /// Two ends that have not spoken yet.
    pub(super) fn new(client: Settings, server: Settings, sasl: ClientSasl) -> Self {
        Self {
            client: Connection::client(client, sasl, 0),
            server: Connection::server(server, 0),
            client_events: Vec::new(),
            server_events: Vec::new(),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            now_ms: 0,
            chunk: usize::MAX,
            accepts_links: true,
            client_sent: Vec::new(),
            server_sent: Vec::new(),
        }
    }

    /// Two ends with an open connection.
    pub(super) fn open() -> Self {
        Self::open_with(settings(), settings())
    }

    pub(super) fn open_with(client: Settings, server: Settings) -> Self {
        let mut pair = Self::new(client, server, ClientSasl::Anonymous);
        pair.run();
        assert!(matches!(pair.client_events.as_slice(), [Event::Opened(_)]));
        pair.client_events.clear();
        pair
    }

    /// Moves bytes and answers what the server's owner answers by itself, until nothing moves.
    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        let mut moved = false;
        self.answer();
        self.client.flush();
        self.server.flush();
        let out = self.client.output();
        let taken = out.split_to(out.len().min(self.chunk));
        if !taken.is_empty() {
            self.client_sent.extend_from_slice(&taken);
            self.to_server.extend_from_slice(&taken);
            self.server.handle_bytes(self.now_ms, &mut self.to_server);
            moved = true;
        }
        self.answer();
        let out = self.server.output();
        let taken = out.split_to(out.len().min(self.chunk));
        if !taken.is_empty() {
            self.server_sent.extend_from_slice(&taken);
            self.to_client.extend_from_slice(&taken);
            self.client.handle_bytes(self.now_ms, &mut self.to_client);
            moved = true;
        }
        self.answer();
        moved
    }

    fn answer(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.client_events.push(event);
        }
        while let Some(event) = self.server.poll_event() {
            match &event {
                Event::SaslInit { .. } => self.server.sasl_outcome(SaslCode::Ok, None),
                Event::Opened(_) => self.server.open(),
                Event::Attached(attach) if self.accepts_links => {
                    self.server
                        .accept_attach(attach.link, AttachReply::default());
                }
                _ => {}
            }
            if !matches!(
                event,
                Event::SaslInit { .. } | Event::Opened(_) | Event::Begun { .. }
            ) {
                self.server_events.push(event);
            }
        }
    }

    /// Lets time pass for both ends, stopping at each of their deadlines.
    pub(super) fn advance(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let next = [self.client.poll_timeout(), self.server.poll_timeout()];
            let next = next
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(u64::MAX)
                .max(self.now_ms);
            self.now_ms = next.min(end);
            self.client.handle_timeout(self.now_ms);
            self.server.handle_timeout(self.now_ms);
            self.run();
            if self.now_ms == end {
                return;
            }
        }
    }

    /// A session of the client.
    pub(super) fn begin(&mut self) -> SessionId {
        let session = self.client.begin().unwrap();
        self.run();
        assert!(
            self.take_client()
                .iter()
                .any(|event| *event == Event::Begun { session })
        );
        session
    }

    /// A link on which the client sends; returns both ends' ids.
    pub(super) fn sender(&mut self, session: SessionId, name: &str) -> (LinkId, LinkId) {
        let link = self.client.attach_sender(session, to(name)).unwrap();
        self.run();
        (link, self.confirmed_and_attached(link))
    }

    /// A link on which the server sends; returns both ends' ids.
    pub(super) fn receiver(&mut self, session: SessionId, name: &str) -> (LinkId, LinkId) {
        let link = self.client.attach_receiver(session, from(name)).unwrap();
        self.run();
        (link, self.confirmed_and_attached(link))
    }

    fn confirmed_and_attached(&mut self, link: LinkId) -> LinkId {
        let confirmed = self.take_client();
        assert!(
            confirmed.iter().any(
                |event| matches!(event, Event::AttachConfirmed(attach) if attach.link == link)
            )
        );
        self.take_server()
            .into_iter()
            .find_map(|event| match event {
                Event::Attached(attach) => Some(attach.link),
                _ => None,
            })
            .unwrap()
    }

    pub(super) fn take_client(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.client_events)
    }

    pub(super) fn take_server(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.server_events)
    }
}

/// A link to an address of the same name.
pub(super) fn to(name: &str) -> AttachRequest {
    AttachRequest {
        name: String::from(name),
        source: Some(Source::default()),
        target: Some(Target::at(name).into()),
        ..AttachRequest::default()
    }
}

/// A link from an address of the same name.
pub(super) fn from(name: &str) -> AttachRequest {
    AttachRequest {
        name: String::from(name),
        source: Some(Source::at(name)),
        target: Some(Target::default().into()),
        ..AttachRequest::default()
    }
}

/// Ids and payloads of the deliveries among events.
pub(super) fn deliveries(events: &[Event]) -> Vec<(u32, Bytes)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Delivery {
                delivery_id,
                payload,
                ..
            } => Some((*delivery_id, payload.to_bytes())),
            _ => None,
        })
        .collect()
}

/// Tokens of settled dispositions among events, with their outcomes.
pub(super) fn settled_tokens(events: &[Event]) -> Vec<(u64, Option<Outcome>)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Disposition {
                token,
                outcome,
                settled: true,
                ..
            } => Some((*token, outcome.clone())),
            _ => None,
        })
        .collect()
}
