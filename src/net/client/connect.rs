//! The dialogues: connecting, links, the end, and going on with another server.

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::login::{CertificateLogin, Login};
use super::{Client, ClientError, LoginKind, ServerUrl, Tls};
use crate::net::clock;
use crate::net::session::TlsSession;
use crate::proto::{
    AttachRequest, AttachTarget, ClientSasl, Connection, Event, LinkId, PeerRole, Settings, Source,
    Symbol, Target,
};
use crate::tls::{ClientTls, TOOL_NAMES, TRUSTED_ADVICE, connect_failure, is_tls};

/// Pause after all servers of a list were tried in vain.
const ROUND_PAUSE: Duration = Duration::from_millis(5);
/// How long the server may take to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Choices of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Name of the container; servers show it.
    pub container_id: String,
    /// How long an answer to connect, attach or detach may take. A standby that is about to take
    /// over holds its clients for up to 10 s.
    pub answer_timeout: Duration,
    /// For URLs that want TLS.
    pub tls: Option<ClientTls>,
    /// What is asked of the server when the connection opens.
    pub desired_capabilities: Vec<String>,
}

impl ClientOptions {
    /// Defaults with a name.
    pub fn named(container_id: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            answer_timeout: Duration::from_secs(30),
            tls: None,
            desired_capabilities: Vec::new(),
        }
    }
}

impl Client {
    /// Connects, authenticates and begins a session.
    ///
    /// # Errors
    /// No connection, or the server does not take us.
    pub async fn connect(url: &ServerUrl, options: &ClientOptions) -> Result<Self, ClientError> {
        let opening = Self::open(url, options);
        within(url, "the connection", options.answer_timeout, opening).await
    }

    async fn open(url: &ServerUrl, options: &ClientOptions) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect {
            url: url.to_string(),
            source,
        };
        let stream = TcpStream::connect((url.host.as_str(), url.port))
            .await
            .map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (stream, tls) = if url.is_tls {
            let (stream, tls) = secure(url, options, stream).await?;
            (stream, Some(tls))
        } else {
            (stream, None)
        };
        let settings = Settings {
            container_id: options.container_id.clone(),
            hostname: Some(url.host.clone()),
            // Sixteen frames of an ordinary load in one: fewer frames, and large messages whole.
            max_frame_size: 1 << 20,
            desired_capabilities: options
                .desired_capabilities
                .iter()
                .map(Symbol::new)
                .collect(),
            incoming_window: 65_536,
            ..Settings::default()
        };
        let has_certificate = options.tls.as_ref().is_some_and(|tls| tls.has_identity);
        let (login, sasl) = match url.credentials.clone() {
            None if url.is_tls && has_certificate => {
                let sasl = ClientSasl::Dialogue(Box::new(CertificateLogin));
                (LoginKind::Certificate, sasl)
            }
            None => (LoginKind::Anonymous, ClientSasl::Anonymous),
            Some(credentials) => {
                let peer = stream.peer_addr().map_err(connect)?.ip().to_canonical();
                let is_private = url.is_tls || peer.is_loopback();
                let sasl = ClientSasl::Dialogue(Box::new(Login::new(credentials, is_private)));
                (LoginKind::Password, sasl)
            }
        };
        let mut connection = Connection::client(settings, sasl, clock::now().monotonic_ms);
        let Some(session) = connection.begin() else {
            return Err(ClientError::Closed {
                url: url.to_string(),
                error: None,
                login,
            });
        };
        let mut client = Self {
            url: url.clone(),
            login,
            stream,
            tls,
            connection,
            session,
            properties: Vec::new(),
            answer_timeout: options.answer_timeout,
            input: BytesMut::new(),
            early: std::collections::VecDeque::new(),
            timer: Self::new_timer(),
            timer_ms: 0,
            was_full: false,
            link_number: 0,
        };
        let begun = client.answer(|event| matches!(event, Event::Begun { .. }));
        match begun.await {
            Ok(_) => Ok(client),
            Err(ClientError::Broken { url: name, source }) if !url.is_tls => {
                Err(ClientError::Silent { url: name, source })
            }
            Err(error) => Err(error),
        }
    }

    /// A link to send on. Its credit comes as [`Event::Flow`].
    ///
    /// # Errors
    /// The server refuses it, does not answer, or is gone.
    pub async fn attach_sender(&mut self, address: &str) -> Result<LinkId, ClientError> {
        let name = self.link_name(address);
        let request = AttachRequest {
            name,
            source: Some(Source::default()),
            target: Some(AttachTarget::Node(Target::at(address))),
            ..AttachRequest::default()
        };
        let link = self.connection.attach_sender(self.session, request);
        self.attached(link, format!("a sender to {address}")).await
    }

    /// A link to receive on, with its first credit.
    ///
    /// # Errors
    /// The server refuses it, does not answer, or is gone.
    pub async fn attach_receiver(
        &mut self,
        address: &str,
        credit: u32,
    ) -> Result<LinkId, ClientError> {
        let name = self.link_name(address);
        let request = AttachRequest {
            name,
            source: Some(Source::at(address)),
            target: Some(AttachTarget::Node(Target::default())),
            ..AttachRequest::default()
        };
        let link = self.connection.attach_receiver(self.session, request);
        if let Some(link) = link {
            self.connection.set_credit(link, credit);
        }
        self.attached(link, format!("a receiver from {address}"))
            .await
    }

    fn link_name(&mut self, address: &str) -> String {
        self.link_number += 1;
        format!("{address}-{}", self.link_number)
    }

    async fn attached(
        &mut self,
        link: Option<LinkId>,
        what: String,
    ) -> Result<LinkId, ClientError> {
        let Some(link) = link else {
            return Err(self.refused(&what, None));
        };
        let (url, limit) = (self.url.clone(), self.answer_timeout);
        let answered = self.answer(|event| match event {
            // A null terminus announces a refusal; the reason follows with the detach.
            Event::AttachConfirmed(attach) if attach.link == link => match attach.peer_role {
                PeerRole::Receiver => attach.target.is_some(),
                PeerRole::Sender => attach.source.is_some(),
            },
            Event::Detached { link: gone, .. } => *gone == link,
            _ => false,
        });
        match within(&url, &what, limit, answered).await? {
            Event::Detached { error, .. } => Err(self.refused(&what, error)),
            _ => Ok(link),
        }
    }

    /// Closes a link; messages that are not settled go back to their queue. What still comes on the link
    /// until the server has answered is dropped.
    ///
    /// # Errors
    /// The server does not answer or is gone.
    pub async fn detach(&mut self, link: LinkId) -> Result<(), ClientError> {
        self.connection.detach(link, None);
        let (url, limit) = (self.url.clone(), self.answer_timeout);
        let answered = self
            .answer(|event| matches!(event, Event::Detached { link: gone, .. } if *gone == link));
        within(&url, "a detach", limit, answered).await?;
        self.early.retain(|event| !is_about(event, link));
        Ok(())
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        self.connection.close(None);
        let closed = async { while self.next().await.is_ok() {} };
        // The server will notice in any case.
        let _late = timeout(CLOSE_TIMEOUT, closed).await;
    }

    /// Waits for an event; what else happens is handed out by `next` later.
    async fn answer(&mut self, is_answer: impl Fn(&Event) -> bool) -> Result<Event, ClientError> {
        loop {
            while let Some(mut event) = self.poll()? {
                if let Event::Opened(open) = &mut event {
                    self.properties = std::mem::take(&mut open.properties);
                }
                if is_answer(&event) {
                    return Ok(event);
                }
                if !matches!(event, Event::Opened(_) | Event::AttachConfirmed(_)) {
                    self.early.push_back(event);
                }
            }
            self.exchange().await?;
        }
    }
}

/// Does the handshake of TLS.
async fn secure(
    url: &ServerUrl,
    options: &ClientOptions,
    stream: TcpStream,
) -> Result<(TcpStream, Tls), ClientError> {
    let fault = |reason: String| ClientError::Tls {
        url: url.to_string(),
        reason,
    };
    let Some(tls) = &options.tls else {
        let reason = format!("{}: not set; {TRUSTED_ADVICE}", TOOL_NAMES.trusted);
        return Err(fault(reason));
    };
    let name = tls.server_name(&url.host).map_err(fault)?;
    let connector = TlsConnector::from(std::sync::Arc::clone(&tls.config));
    let connected = connector.connect(name.clone(), stream).await;
    let (stream, session) = connected
        .map_err(|error| match is_tls(&error) {
            true => fault(connect_failure(&error, &tls.names, &name.to_str())),
            false => ClientError::Broken {
                url: url.to_string(),
                source: error,
            },
        })?
        .into_inner();
    let tls = Tls {
        session: Box::new(TlsSession::new(session)),
        cipher: Vec::new(),
    };
    Ok((stream, tls))
}

/// Whether an event is about a link that is gone.
fn is_about(event: &Event, gone: LinkId) -> bool {
    match event {
        Event::Delivery { link, .. }
        | Event::Disposition { link, .. }
        | Event::Flow { link, .. }
        | Event::CreditRefill { link }
        | Event::Drained { link } => *link == gone,
        _ => false,
    }
}

async fn within<T>(
    url: &ServerUrl,
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Late {
            url: url.to_string(),
            what: String::from(what),
            after: limit,
        }),
    }
}

/// The servers of a fault-tolerant pair, tried in turn until one serves.
#[derive(Debug, Clone)]
pub struct Failover {
    servers: Vec<ServerUrl>,
    next: usize,
    /// How long to go on trying.
    patience: Duration,
}

impl Failover {
    /// Tries the servers in this order, for `patience` at most each time.
    pub fn new(servers: Vec<ServerUrl>, patience: Duration) -> Self {
        Self {
            servers,
            next: 0,
            patience,
        }
    }

    /// Connects to a server that serves: one on which `ready` succeeds, such as an attach. A standby
    /// welcomes its clients before it sends them away, so a connection alone proves nothing.
    ///
    /// # Errors
    /// The last error when no server served in time, or at once one that would come again.
    pub async fn connect<T>(
        &mut self,
        options: &ClientOptions,
        ready: impl AsyncFn(&mut Client) -> Result<T, ClientError>,
    ) -> Result<(Client, T), ClientError> {
        let deadline = Instant::now() + self.patience;
        let mut failures = 0;
        loop {
            let url = self.servers.get(self.next % self.servers.len().max(1));
            let Some(url) = url.cloned() else {
                return Err(ClientError::Url {
                    text: String::new(),
                    reason: String::from("no server was named"),
                });
            };
            let attempt = async {
                let mut client = Client::connect(&url, options).await?;
                let made = ready(&mut client).await?;
                Ok((client, made))
            };
            let result = match timeout_at(deadline, attempt).await {
                Ok(result) => result,
                Err(_) => Err(ClientError::Late {
                    url: url.to_string(),
                    what: String::from("the connection"),
                    after: self.patience,
                }),
            };
            match result {
                Ok(made) => return Ok(made),
                Err(error) if !error.is_passing() || Instant::now() >= deadline => {
                    return Err(error);
                }
                Err(_) => {}
            }
            self.next += 1;
            failures += 1;
            if failures % self.servers.len() == 0 {
                sleep(ROUND_PAUSE).await;
            }
        }
    }
}
