//! What goes wrong, in the words of the AMQP specification (part 2.8 and 3.4).

use std::borrow::Cow;
use std::fmt;

use super::{Symbol, Value};

/// Symbols of the error conditions that AMQP 1.0 defines and that we send.
pub mod condition {
    /// An internal error occurred.
    pub const INTERNAL_ERROR: &str = "amqp:internal-error";
    /// The addressed entity does not exist.
    pub const NOT_FOUND: &str = "amqp:not-found";
    /// The peer may not do this.
    pub const UNAUTHORIZED_ACCESS: &str = "amqp:unauthorized-access";
    /// Bytes that are not valid AMQP.
    pub const DECODE_ERROR: &str = "amqp:decode-error";
    /// A limit of ours was reached.
    pub const RESOURCE_LIMIT_EXCEEDED: &str = "amqp:resource-limit-exceeded";
    /// The operation is not allowed in this state.
    pub const NOT_ALLOWED: &str = "amqp:not-allowed";
    /// A field has a value that is not possible here.
    pub const INVALID_FIELD: &str = "amqp:invalid-field";
    /// A part of AMQP that we do not offer.
    pub const NOT_IMPLEMENTED: &str = "amqp:not-implemented";
    /// Somebody else uses the resource.
    pub const RESOURCE_LOCKED: &str = "amqp:resource-locked";
    /// A precondition of the request does not hold.
    pub const PRECONDITION_FAILED: &str = "amqp:precondition-failed";
    /// The resource was deleted while in use.
    pub const RESOURCE_DELETED: &str = "amqp:resource-deleted";
    /// The state of peer and broker do not fit.
    pub const ILLEGAL_STATE: &str = "amqp:illegal-state";
    /// An operator or a fail-over closed the connection; the client may connect again.
    pub const CONNECTION_FORCED: &str = "amqp:connection:forced";
    /// A frame that cannot be one.
    pub const FRAMING_ERROR: &str = "amqp:connection:framing-error";
    /// The client shall connect to the address in the error's info.
    pub const CONNECTION_REDIRECT: &str = "amqp:connection:redirect";
    /// More transfers than our incoming window had room for.
    pub const WINDOW_VIOLATION: &str = "amqp:session:window-violation";
    /// A frame names a handle without a link.
    pub const UNATTACHED_HANDLE: &str = "amqp:session:unattached-handle";
    /// An attach names a handle with a link.
    pub const HANDLE_IN_USE: &str = "amqp:session:handle-in-use";
    /// More deliveries than the link credit allowed.
    pub const TRANSFER_LIMIT_EXCEEDED: &str = "amqp:link:transfer-limit-exceeded";
    /// A message above our maximum size.
    pub const MESSAGE_SIZE_EXCEEDED: &str = "amqp:link:message-size-exceeded";
    /// An operator or the broker closed the link.
    pub const DETACH_FORCED: &str = "amqp:link:detach-forced";
    /// Another attach took the link over.
    pub const LINK_STOLEN: &str = "amqp:link:stolen";
}

/// The AMQP `error` composite (part 2.8.14): what a close, end, detach or `rejected` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCondition {
    /// Symbol of the condition; see [`condition`] for the defined ones.
    pub condition: Cow<'static, str>,
    /// Text for people.
    pub description: Option<String>,
    /// Further information by key, for example the address of a redirect.
    pub info: Vec<(Symbol, Value)>,
}

impl ErrorCondition {
    /// An error with a condition symbol and a text that tells its reader what to do.
    pub fn new(condition: impl Into<Cow<'static, str>>, description: impl Into<String>) -> Self {
        Self {
            condition: condition.into(),
            description: Some(description.into()),
            info: Vec::new(),
        }
    }

    /// Adds one entry of the info map.
    #[must_use]
    pub fn with_info(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.info.push((Symbol::from(key), value.into()));
        self
    }
}

impl fmt::Display for ErrorCondition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.description {
            Some(text) => write!(out, "{}: {text}", self.condition),
            None => out.write_str(&self.condition),
        }
    }
}

impl std::error::Error for ErrorCondition {}

/// Why [`Connection::send`](super::Connection::send) did not take a message. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is gone, not yet attached, or not one that we send on.
    #[error("the link is not attached for sending")]
    NotAttached,
    /// The receiver has granted no credit.
    #[error("no link credit: wait for Event::Flow")]
    NoCredit,
    /// The session's window is closed, a large message still waits for it, or too many
    /// deliveries of the session are unsettled.
    #[error("the session window is closed: wait for Event::WindowOpened")]
    WindowClosed,
    /// The message is above the peer's maximum message size.
    #[error("the message is larger than the {max_message_bytes} bytes that the peer takes")]
    TooLarge {
        /// What the peer's attach allows.
        max_message_bytes: u64,
    },
}

/// A fault of the peer (or of ours) and what it ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// Ends the connection.
    Connection(ErrorCondition),
    /// Ends the session whose frame it was.
    Session(ErrorCondition),
    /// Detaches the link with this local handle of the session whose frame it was.
    Link(u32, ErrorCondition),
}

impl From<super::wire::DecodeError> for Fault {
    fn from(error: super::wire::DecodeError) -> Self {
        Self::Connection(ErrorCondition::new(condition::DECODE_ERROR, error.0))
    }
}

impl From<super::performative::EncodeError> for Fault {
    fn from(_: super::performative::EncodeError) -> Self {
        Self::Connection(ErrorCondition::new(
            condition::INTERNAL_ERROR,
            "a control frame could not be written",
        ))
    }
}
