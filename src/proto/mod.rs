//! The AMQP 1.0 engine, sans-IO: bytes and time in, events and bytes out.

mod connection;
mod delivery;
mod error;
mod event;
pub mod message;
mod settings;
mod terminus;

pub use connection::{AttachReply, AttachRequest, Connection, LinkId, SessionId};
pub use delivery::{Outcome, Payload};
pub use error::{ErrorCondition, SendError, condition};
pub use event::{Attach, Event, PeerRole, RemoteOpen};
pub use serde_amqp::Value;
pub use serde_amqp::primitives::Symbol;
pub use settings::{ClientSasl, SaslCode, Settings};
pub use terminus::{
    AttachTarget, DistributionMode, Durability, ExpiryPolicy, ReceiverSettleMode, SenderSettleMode,
    Source, Target,
};
