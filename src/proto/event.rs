//! What a connection reports to its owner.

use bytes::Bytes;

use super::{
    AttachTarget, ErrorCondition, LinkId, Outcome, Payload, ReceiverSettleMode, SenderSettleMode,
    SessionId, Source, Symbol, Target, Value,
};

/// What happened on a connection; see [`Connection`](super::Connection) for who answers what.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Server: the client chose a mechanism. Answer with `sasl_challenge` or `sasl_outcome`; input is
    /// held back until then.
    SaslInit {
        /// Name of the mechanism; it may be one that was not offered.
        mechanism: String,
        /// Initial response, if sent.
        response: Option<Bytes>,
        /// Host that the client believes to talk to.
        hostname: Option<String>,
    },
    /// Server: the client answered a challenge. Answer with `sasl_challenge` or `sasl_outcome`.
    SaslResponse(Bytes),
    /// The peer's open arrived. A server answers with `open`, `open_refused` or `close_now`; input is held
    /// back until then. For a client the connection is now open.
    Opened(Box<RemoteOpen>),
    /// Server: the peer began a session; the answer was sent. Client: our session was answered.
    Begun {
        /// The session.
        session: SessionId,
    },
    /// A session is gone for good; its links were reported by `Detached` before. Comes once for each
    /// session, also after our own `end`.
    Ended {
        /// The session; its id is dead.
        session: SessionId,
        /// Why, if it was an error of the peer or of the protocol.
        error: Option<ErrorCondition>,
    },
    /// The peer wants a link. Answer with `accept_attach` or `refuse_attach`, now or later.
    Attached(Box<Attach>),
    /// The peer answered our attach. A null source (sending peer) or target (receiving peer) announces
    /// a refusal: `Detached` with the reason follows.
    AttachConfirmed(Box<Attach>),
    /// A complete message arrived.
    Delivery {
        /// The link.
        link: LinkId,
        /// To be named in `settle` unless `settled`.
        delivery_id: u32,
        /// The sender does not wait for an outcome.
        settled: bool,
        /// 0 for an ordinary AMQP message.
        message_format: u32,
        /// The encoded message.
        payload: Payload,
        /// Transactional state, if the sender named one.
        state: Option<Box<Outcome>>,
    },
    /// The receiver said what became of one delivery that we sent. When `settled`, the engine has forgotten
    /// the delivery; otherwise answer with `settle_sent`.
    Disposition {
        /// The link that we sent on.
        link: LinkId,
        /// What `send` was given.
        token: u64,
        /// What `send` returned.
        delivery_id: u32,
        /// The outcome; `None`: settled without one (the source's default outcome holds).
        outcome: Option<Outcome>,
        /// Whether the receiver has settled.
        settled: bool,
    },
    /// A link that we send on has news of its receiver.
    Flow {
        /// The link.
        link: LinkId,
        /// Deliveries that we may send now.
        credit: u32,
        /// The receiver wants everything now: send what there is, then call `drained`.
        drain: bool,
    },
    /// The window of a session that was closed has room again: links of the session may send.
    WindowOpened {
        /// The session.
        session: SessionId,
    },
    /// The credit that we granted on a link that we receive on fell to half (or less) of what
    /// `set_credit` granted last. Comes once for each `set_credit`.
    CreditRefill {
        /// The link.
        link: LinkId,
    },
    /// A link that we receive on answered our `drain`: no credit is left.
    Drained {
        /// The link.
        link: LinkId,
    },
    /// A link is gone. Comes once for each link that was announced by `Attached` or made by us and that
    /// was not refused by us, also after our own `detach`, and for all links of an ended session;
    /// not for the links of a closed connection. The peer's detach was answered, unless `close_late` was
    /// called for the link.
    Detached {
        /// The link; its id is dead.
        link: LinkId,
        /// The terminus is to go too (as opposed to: suspended, part 2.6.4).
        closed: bool,
        /// Why, if it was an error of the peer or of the protocol.
        error: Option<ErrorCondition>,
    },
    /// The connection is over: the peer closed it, a protocol fault, idle time-out, or end of file.
    /// Nothing follows; comes exactly once, also after our own `close`.
    Closed {
        /// Why; `None` for an orderly close.
        error: Option<ErrorCondition>,
    },
}

/// What the peer's open frame said (part 2.7.1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RemoteOpen {
    /// Name of the peer's container; the JMS client id.
    pub container_id: String,
    /// Host that the peer believes to talk to.
    pub hostname: Option<String>,
    /// Largest frame that the peer takes, bytes.
    pub max_frame_size: u32,
    /// Highest channel number that the peer takes.
    pub channel_max: u16,
    /// The peer closes a connection that is silent for so long, milliseconds.
    pub idle_timeout_ms: Option<u32>,
    /// Extensions that the peer offers.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions that the peer would like to use.
    pub desired_capabilities: Vec<Symbol>,
    /// Product, version and others.
    pub properties: Vec<(Symbol, Value)>,
}

impl RemoteOpen {
    /// Whether the peer is a client on Qpid Proton, as far as one can see: Proton always says this
    /// channel-max, as Qpid JMS does, and unlike Qpid JMS names no product.
    pub(crate) fn is_proton(&self) -> bool {
        const CHANNEL_MAX: u16 = 32_767;
        let names_product = self
            .properties
            .iter()
            .any(|(key, _)| key.as_str() == "product");
        self.channel_max == CHANNEL_MAX && !names_product
    }
}

/// What the other end of a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerRole {
    /// The peer sends, we receive.
    Sender,
    /// The peer receives, we send.
    Receiver,
}

/// What the peer's attach frame said (part 2.7.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Attach {
    /// The link.
    pub link: LinkId,
    /// Its session.
    pub session: SessionId,
    /// Its name, unique for a direction and a pair of containers.
    pub name: String,
    /// What the peer does.
    pub peer_role: PeerRole,
    /// Where messages come from; `None` is the specification's null.
    pub source: Option<Source>,
    /// Where messages go to; `None` is the specification's null.
    pub target: Option<AttachTarget>,
    /// Settlement by the sender.
    pub snd_settle_mode: SenderSettleMode,
    /// Settlement by the receiver.
    pub rcv_settle_mode: ReceiverSettleMode,
    /// Largest message that the peer takes, bytes; `None`: no limit.
    pub max_message_bytes: Option<u64>,
    /// Extensions that the peer offers.
    pub offered_capabilities: Vec<Symbol>,
    /// Extensions that the peer would like to use.
    pub desired_capabilities: Vec<Symbol>,
    /// Link properties.
    pub properties: Vec<(Symbol, Value)>,
}

impl Attach {
    /// The target, when it is an ordinary one.
    pub fn target_node(&self) -> Option<&Target> {
        match &self.target {
            Some(AttachTarget::Node(target)) => Some(target),
            _ => None,
        }
    }

    /// Whether the peer wants a transaction coordinator.
    pub fn is_coordinator(&self) -> bool {
        matches!(self.target, Some(AttachTarget::Coordinator(_)))
    }
}
