//! What the owner of a node chooses.

use std::fmt;
use std::net::IpAddr;

use crate::broker;
use crate::proto::{self, Symbol, Value};

/// The present, as the operating system's clocks tell it. Read once for each wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// A monotonic clock: protocol time-outs. Milliseconds.
    pub monotonic_ms: u64,
    /// A monotonic clock that also runs while the machine sleeps: ownership of the store.
    /// Milliseconds.
    pub boot_ms: u64,
    /// Time since 1970: expiry of messages. Milliseconds.
    pub wall_ms: u64,
}

/// What the verified certificate of a client says of its user, and how far that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateUser {
    /// The common name.
    pub name: String,
    /// It is the user whatever the client says (`ssl_use_cert_username`).
    pub is_forced: bool,
    /// The user name with which a client asks for it (`ssl_cert_user_specname`).
    pub request: Option<String>,
}

/// Who connects, as far as the socket tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// Where the client is.
    pub address: Option<IpAddr>,
    /// What its certificate says, which was verified.
    pub certificate: Option<CertificateUser>,
}

/// A server that clients may turn to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name or address of the host.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether it speaks TLS there.
    pub tls: bool,
}

impl ServerAddress {
    /// As in the URLs of clients.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "amqps" } else { "amqp" }
    }
}

/// As a URL.
impl fmt::Display for ServerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = (self.scheme(), self.port);
        match self.host.contains(':') {
            true => write!(out, "{scheme}://[{}]:{port}", self.host),
            false => write!(out, "{scheme}://{}:{port}", self.host),
        }
    }
}

/// Choices of a server that clients and the store see.
#[derive(Clone)]
pub struct NodeSettings {
    /// Name of the server: its AMQP container, and part of the addresses of temporary queues.
    pub server: String,
    /// Largest message, bytes; 0: no limit.
    pub max_message_bytes: u64,
    /// Whether a queue comes into being when a client names it.
    pub auto_create_queues: bool,
    /// A client that is silent for so long is given up, milliseconds; half of it is advertised. 0:
    /// never.
    pub idle_timeout_ms: u32,
    /// All servers of the pair, this one included: clients go on with them after a failure.
    pub failover: Vec<ServerAddress>,
    /// Credit of a publisher, messages.
    pub publisher_credit: u32,
    /// Above so many bytes that wait for the disk publishers get no more credit.
    pub backlog_soft_bytes: usize,
    /// Above so many bytes that wait for the disk nothing is read from publishers.
    pub backlog_hard_bytes: usize,
    /// Queues at most.
    pub queues_max: usize,
    /// Links of one connection at most.
    pub links_per_connection_max: usize,
    /// After a takeover the state of clients is kept for so long until they return, milliseconds;
    /// 0: not at all.
    pub reconnect_timeout_ms: u64,
    /// Clients at most whose state survives a takeover.
    pub clients_max: usize,
    /// Bounds of the broker's memory.
    pub limits: broker::Limits,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            server: String::from("steadfast"),
            max_message_bytes: 16 << 20,
            auto_create_queues: true,
            idle_timeout_ms: 60_000,
            failover: Vec::new(),
            publisher_credit: 1000,
            backlog_soft_bytes: 16 << 20,
            backlog_hard_bytes: 48 << 20,
            queues_max: 50_000,
            links_per_connection_max: 8192,
            reconnect_timeout_ms: 60_000,
            clients_max: 50_000,
            limits: broker::Limits::default(),
        }
    }
}

impl fmt::Debug for NodeSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NodeSettings")
            .field("server", &self.server)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("auto_create_queues", &self.auto_create_queues)
            .field("failover", &self.failover)
            .finish_non_exhaustive()
    }
}

impl NodeSettings {
    /// What a connection tells its client about us. `epoch`: that of the store, once we own it;
    /// `authorization`: clients say who they are, and prove it.
    pub(crate) fn proto_settings(
        &self,
        epoch: Option<u64>,
        authorization: bool,
    ) -> proto::Settings {
        let text = |text: &str| Value::String(text.to_owned());
        let mut properties = vec![
            (Symbol::from("product"), text("steadfast")),
            (Symbol::from("version"), text(env!("CARGO_PKG_VERSION"))),
            (Symbol::from("server"), text(&self.server)),
        ];
        if let Some(epoch) = epoch {
            properties.push((Symbol::from("epoch"), Value::Ulong(epoch)));
        }
        // Not from a standby: Qpid JMS would put the server that it hears this from first, and come back for ever.
        if epoch.is_some() && !self.failover.is_empty() {
            let list = self.failover.iter().map(server_value).collect();
            properties.push((Symbol::from("failover-server-list"), Value::List(list)));
        }
        let mechanisms = if authorization {
            &["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"][..]
        } else {
            &["PLAIN", "ANONYMOUS"]
        };
        proto::Settings {
            container_id: self.server.clone(),
            max_frame_size: 128 << 10,
            idle_timeout_ms: (self.idle_timeout_ms > 0).then_some(self.idle_timeout_ms),
            max_message_bytes: self.max_message_bytes,
            offered_capabilities: vec![
                Symbol::from("ANONYMOUS-RELAY"),
                Symbol::from("sole-connection-for-container"),
            ],
            properties,
            sasl_mechanisms: mechanisms.iter().map(|&name| name.to_owned()).collect(),
            allow_without_sasl: !authorization,
            ..proto::Settings::default()
        }
    }
}

/// The settings for a client with a certificate: it need not say more.
pub(crate) fn offer_external(settings: &mut proto::Settings) {
    settings.sasl_mechanisms.insert(0, String::from("EXTERNAL"));
}

fn server_value(server: &ServerAddress) -> Value {
    let entries = [
        ("network-host", Value::String(server.host.clone())),
        ("port", Value::Int(i32::from(server.port))),
        ("scheme", Value::String(server.scheme().to_owned())),
    ];
    let map = entries
        .into_iter()
        .map(|(key, value)| (Value::Symbol(Symbol::from(key)), value));
    Value::Map(map.collect())
}
