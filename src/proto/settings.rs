//! What the owner of a connection chooses.

use super::{Symbol, Value};

/// What we say about ourselves and which limits we set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of our container.
    pub container_id: String,
    /// Client: the host that we believe to talk to. Server: unused.
    pub hostname: Option<String>,
    /// Largest frame that we take, bytes; at least 512.
    pub max_frame_size: u32,
    /// Highest channel number that we take; a bound on sessions.
    pub channel_max: u16,
    /// Highest link handle of a session that we take; a bound on links.
    pub handle_max: u32,
    /// A peer that is silent for so long is given up, milliseconds; half of it is advertised, as the
    /// specification recommends.
    pub idle_timeout_ms: Option<u32>,
    /// Largest message that we take, bytes; advertised and enforced. 0: no limit.
    pub max_message_bytes: u64,
    /// Transfers of a session that we take before it hears of us, frames.
    pub incoming_window: u32,
    /// Extensions that we offer.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions that we would like to use.
    pub desired_capabilities: Vec<Symbol>,
    /// Properties of our open: product, version, `failover-server-list`.
    pub properties: Vec<(Symbol, Value)>,
    /// Server: SASL mechanisms that we offer, best first.
    pub sasl_mechanisms: Vec<String>,
    /// Server: whether a client may open without a SASL layer; it then is anonymous.
    pub allow_without_sasl: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            container_id: String::from("steadfast"),
            hostname: None,
            max_frame_size: 128 * 1024,
            channel_max: 4095,
            handle_max: 8191,
            idle_timeout_ms: Some(60_000),
            max_message_bytes: 64 * 1024 * 1024,
            incoming_window: 8192,
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Vec::new(),
            sasl_mechanisms: vec![String::from("ANONYMOUS")],
            allow_without_sasl: true,
        }
    }
}

/// A mechanism of SASL that a client speaks, or several of which one is chosen.
pub trait ClientDialogue: std::fmt::Debug + Send {
    /// Chooses a mechanism that the server offers; its name and the first response.
    ///
    /// # Errors
    /// Why none will do, in words.
    fn begin(&mut self, offered: &[String]) -> Result<(&'static str, Vec<u8>), String>;

    /// Answers a challenge.
    ///
    /// # Errors
    /// What is wrong with the server, in words.
    fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, String>;

    /// The server says that the client is authenticated, and may add something.
    ///
    /// # Errors
    /// What is wrong with the server, in words.
    fn finish(&mut self, last_word: Option<&[u8]>) -> Result<(), String>;

    /// What the server refuses when it refuses the client.
    fn presented(&self) -> &'static str {
        "the credentials"
    }
}

/// How a client authenticates.
pub enum ClientSasl {
    /// No SASL layer at all.
    None,
    /// Mechanism ANONYMOUS.
    Anonymous,
    /// Mechanism PLAIN.
    Plain {
        /// Name.
        user: String,
        /// Secret; not shown by `Debug`.
        password: String,
    },
    /// Mechanisms that are made elsewhere.
    Dialogue(Box<dyn ClientDialogue>),
}

impl std::fmt::Debug for ClientSasl {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => out.write_str("None"),
            Self::Anonymous => out.write_str("Anonymous"),
            Self::Plain { user, .. } => out
                .debug_struct("Plain")
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Dialogue(dialogue) => dialogue.fmt(out),
        }
    }
}

/// How a SASL dialogue ended (part 5.3.3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslCode {
    /// Authenticated.
    Ok,
    /// Wrong credentials: clients stop trying for good.
    Auth,
    /// System error.
    Sys,
    /// System error that needs an operator.
    SysPerm,
    /// System error that goes away: clients try again.
    SysTemp,
}
