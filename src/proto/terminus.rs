//! Sources and targets of links (part 3.5), as thin structures.

use super::{Outcome, Symbol, Value};

/// What of a terminus survives its link (part 3.5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing.
    #[default]
    None,
    /// The existence and configuration of the terminus.
    Configuration,
    /// Also the unsettled state; JMS durable subscriptions ask for it.
    UnsettledState,
}

/// When the expiry timer of a terminus starts (part 3.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpiryPolicy {
    /// When the link is detached.
    LinkDetach,
    /// When the session ends.
    #[default]
    SessionEnd,
    /// When the connection is closed.
    ConnectionClose,
    /// Never.
    Never,
}

/// What taking a message from a source does to it (part 3.5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DistributionMode {
    /// The message leaves the node.
    Move,
    /// The message stays; on a queue this is a browse.
    Copy,
}

/// Which settlement states the sender uses (part 2.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SenderSettleMode {
    /// All deliveries unsettled.
    Unsettled,
    /// All deliveries settled.
    Settled,
    /// Either.
    #[default]
    Mixed,
}

/// When the receiver settles (part 2.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiverSettleMode {
    /// The receiver settles at once.
    #[default]
    First,
    /// The receiver settles after the sender did.
    Second,
}

/// Where messages of a link come from (part 3.5.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Name of the node; absent with `dynamic` or for an unsubscribe by link name.
    pub address: Option<String>,
    /// What survives the link.
    pub durable: Durability,
    /// When the terminus expires.
    pub expiry_policy: ExpiryPolicy,
    /// Seconds that an expiring terminus is kept.
    pub timeout_s: u32,
    /// The peer asks for a node that is created for it.
    pub dynamic: bool,
    /// Properties of that node, for example `lifetime-policy`.
    pub dynamic_node_properties: Vec<(Symbol, Value)>,
    /// Move or copy.
    pub distribution_mode: Option<DistributionMode>,
    /// Filters by key; a value is described (selector, no-local).
    pub filter: Vec<(Symbol, Value)>,
    /// Outcome of deliveries that are settled without one.
    pub default_outcome: Option<Outcome>,
    /// Symbols of the outcomes that the link may use.
    pub outcomes: Vec<Symbol>,
    /// Extension capabilities, for example `queue`, `topic`, `shared`.
    pub capabilities: Vec<Symbol>,
}

impl Source {
    /// A source at an address, everything else as the specification's defaults.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: Some(address.into()),
            ..Self::default()
        }
    }
}

/// Where messages of a link go to (part 3.5.4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Name of the node; absent with `dynamic` and for the anonymous relay.
    pub address: Option<String>,
    /// What survives the link.
    pub durable: Durability,
    /// When the terminus expires.
    pub expiry_policy: ExpiryPolicy,
    /// Seconds that an expiring terminus is kept.
    pub timeout_s: u32,
    /// The peer asks for a node that is created for it.
    pub dynamic: bool,
    /// Properties of that node, for example `lifetime-policy`.
    pub dynamic_node_properties: Vec<(Symbol, Value)>,
    /// Extension capabilities, for example `queue`, `temporary-queue`.
    pub capabilities: Vec<Symbol>,
}

impl Target {
    /// A target at an address, everything else as the specification's defaults.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: Some(address.into()),
            ..Self::default()
        }
    }
}

/// The two kinds of target that a link may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachTarget {
    /// An ordinary target.
    Node(Target),
    /// A transaction coordinator (part 4.5.1) with its capabilities.
    Coordinator(Vec<Symbol>),
}

impl From<Target> for AttachTarget {
    fn from(target: Target) -> Self {
        Self::Node(target)
    }
}
