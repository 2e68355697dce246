//! The AMQP 1.0 engine (OASIS standard of 2012), sans-IO: bytes and time in, events and bytes out. No clock, no
//! socket, no broker; the same [`Connection`] is a server's and a client's end.
//!
//! Start at [`Connection`], whose documentation is the manual; [`Event`] says who answers what.
//!
//! | layer | files |
//! |---|---|
//! | bytes | `wire` (values), `frame`, `fast` (transfer, disposition, flow by hand), `performative` (other frames through the library) |
//! | connection | `connection` (life and limits), `handshake`, `sasl`, `dispatch` (bytes to sessions), `timers`, `queue` (events), `commands` |
//! | session | `session` (windows, dispositions), `session_link` (attach to detach), `session_transfer` (messages) |
//! | link | `link` (credit, message in progress), `terminus`, `delivery` |
//! | message | [`message`]: index of sections, new header, simple messages |
//!
//! State is owned top down: a connection owns its sessions, a session its links. What they share (output, events,
//! settings, names) is in `shared` and handed to each method. A fault names what it ends (connection,
//! session or link) and is turned into a frame and an event in one place, `dispatch`.

mod commands;
mod connection;
mod delivery;
mod dispatch;
mod error;
mod event;
mod fast;
mod frame;
mod handshake;
mod link;
pub mod message;
mod performative;
mod queue;
mod sasl;
mod session;
mod session_link;
mod session_transfer;
mod settings;
mod shared;
mod terminus;
mod timers;
mod wire;

#[cfg(test)]
mod tests;

pub use commands::{AttachReply, AttachRequest};
pub use connection::{Connection, ENDED_IN_LOGIN};
pub use delivery::{Outcome, Payload};
pub use error::{ErrorCondition, SendError, condition};
pub use event::{Attach, Event, PeerRole, RemoteOpen};
pub use link::LinkId;
pub use serde_amqp::Value;
pub use serde_amqp::primitives::Symbol;
pub use settings::{ClientDialogue, ClientSasl, SaslCode, Settings};
pub use shared::SessionId;
pub use terminus::{
    AttachTarget, DistributionMode, Durability, ExpiryPolicy, ReceiverSettleMode, SenderSettleMode,
    Source, Target,
};
