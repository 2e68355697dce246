//! The vocabulary of the role: what goes in, what comes out.

use std::fmt;

/// What a server is at a moment, as `/state`, log events and peers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Finding out whether a peer is active.
    Starting,
    /// Another server owns the store; this one polls for its lock.
    Standby,
    /// Trying for the store because no peer is known to own it.
    Activating,
    /// Owns the lock and reads checkpoint and tail.
    Recovering,
    /// Serves clients.
    Active,
    /// Ownership was lost or a write failed; the process ends.
    Fenced,
    /// An orderly stop is under way.
    Stopping,
}

impl State {
    /// The word used in `/state`, log events and on peer links.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Activating => "activating",
            Self::Recovering => "recovering",
            Self::Active => "active",
            Self::Fenced => "fenced",
            Self::Stopping => "stopping",
        }
    }

    /// The state that a word names; `None` for a word of no version that we know.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "starting" => Self::Starting,
            "standby" => Self::Standby,
            "activating" => Self::Activating,
            "recovering" => Self::Recovering,
            "active" => Self::Active,
            "fenced" => Self::Fenced,
            "stopping" => Self::Stopping,
            _ => return None,
        })
    }

    /// Whether a server in this state says that it owns the store.
    #[must_use]
    pub fn owns_store(self) -> bool {
        matches!(self, Self::Recovering | Self::Active)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How a process ends. This is the one place that decides exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed while running.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// The store is damaged; nothing was changed.
    Damaged,
    /// The store belongs to another live server, or its file system is not safe for sharing.
    NotOwner,
    /// Ownership of the store was lost, or a write of the store failed; a restart is safe.
    Fenced,
}

impl Exit {
    /// The process exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damaged => 3,
            Self::NotOwner => 4,
            Self::Fenced => 5,
        }
    }
}

/// What the role needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many peers `ft_active` names; 0 for a standalone server.
    pub peers: usize,
    /// `ft_heartbeat`: also the longest time that reaching a peer at start may take.
    pub heartbeat_ms: u64,
    /// `ft_activation`: a peer silent for so long is lost.
    pub activation_ms: u64,
    /// `store_lock_poll_ms`: how often a standby tries for the lock, before randomisation.
    pub lock_poll_ms: u64,
    /// Seed of the randomised poll times.
    pub seed: u64,
}

/// One connection to a peer, numbered by the caller and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What a peer says of itself in every heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNews {
    /// Identity of the peer's process; a restarted server is a new instance.
    pub instance: String,
    /// How messages name the peer: its URL or address.
    pub name: String,
    /// The peer's state.
    pub state: State,
    /// The epoch of the store that it owns or last owned; 0 if none.
    pub epoch: u64,
    /// Grows with every message of an instance: two links may deliver them in another order.
    pub beat: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed; due after [`Role::poll_timeout`](super::Role::poll_timeout).
    Tick,
    /// A link is up and the peer's first message was read.
    Connected {
        /// The new link.
        link: LinkId,
        /// Which `ft_active` peer was reached; `None` for a link that the peer opened.
        peer: Option<usize>,
        /// What the peer said.
        news: PeerNews,
    },
    /// A later message of a peer: heartbeat or change of state.
    Heard {
        /// The link it came on.
        link: LinkId,
        /// What the peer said.
        news: PeerNews,
    },
    /// A link broke or was closed by the peer.
    LinkLost {
        /// The link.
        link: LinkId,
        /// Why, for the log.
        reason: String,
    },
    /// An attempt of [`Action::Connect`] failed or took too long.
    ConnectFailed {
        /// Which `ft_active` peer.
        peer: usize,
        /// Why, for the log.
        reason: String,
    },
    /// Answer to [`Action::TryLock`].
    Lock(LockResult),
    /// Answer to [`Action::Recover`].
    Recovery(RecoveryResult),
    /// The store failed for good while serving or stopping.
    StoreFailed {
        /// Why, for the log.
        reason: String,
    },
    /// An orderly stop was requested.
    Stop {
        /// By what, for the log.
        reason: String,
    },
    /// Answer to [`Action::StopEngine`]: connections closed, store sealed.
    Stopped,
}

/// Answer to [`Action::TryLock`].
#[derive(Clone, Debug)]
pub enum LockResult {
    /// The lock is ours.
    Owned,
    /// Another server has it.
    Busy {
        /// Who has it, as far as known.
        reason: String,
    },
    /// Trying was not possible.
    Failed(Failure),
}

/// Answer to [`Action::Recover`].
#[derive(Clone, Debug)]
pub enum RecoveryResult {
    /// The store is open and ready to serve.
    Ready {
        /// The epoch that this server now owns.
        epoch: u64,
    },
    /// A segment belongs to a living server after all.
    Busy {
        /// Who has it, as far as known.
        reason: String,
    },
    /// The store cannot be opened.
    Failed(Failure),
}

/// Why a store cannot be used.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of trouble it is: decides the exit code.
    pub kind: FailureKind,
    /// The whole message for the operator.
    pub reason: String,
}

/// The kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// An operation of the file system failed.
    Io,
    /// The store is damaged.
    Damaged,
    /// The file system is not safe for sharing.
    UnsafeFileSystem,
    /// The directory does not hold the store of the active peer.
    OtherStore,
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self.kind {
            FailureKind::Io => Exit::Failed,
            FailureKind::Damaged => Exit::Damaged,
            FailureKind::UnsafeFileSystem | FailureKind::OtherStore => Exit::NotOwner,
        }
    }
}

/// What clients are told (amqp.md section 5 of the design notes, in short: a standby sends clients
/// on, a server that may soon be active keeps them waiting).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineMode {
    /// Answer and close with `amqp:connection:forced`.
    Refuse,
    /// Accept sockets and let them wait.
    Hold,
    /// Serve, with the store that recovery opened.
    Serve,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a link to this `ft_active` peer; answer with `Connected` or `ConnectFailed` within
    /// `ft_heartbeat`.
    Connect {
        /// Which peer.
        peer: usize,
    },
    /// Close this link; no answer is expected.
    Drop(LinkId),
    /// Try for the store's lock; answer with `Input::Lock`. Never two at a time.
    TryLock,
    /// Open the store with the lock that was obtained; answer with `Input::Recovery`.
    Recover,
    /// Change what clients are told.
    Engine(EngineMode),
    /// Tell every linked peer our state and epoch: a heartbeat.
    Beat {
        /// Our state.
        state: State,
        /// Our epoch; 0 if we never owned the store.
        epoch: u64,
    },
    /// Write to the log.
    Log(Event),
    /// Prove the ownership of the store by a durable write.
    VerifyOwnership,
    /// Stop confirms and deliveries, close connections, seal the store; answer with `Stopped`.
    StopEngine,
    /// End the process; nothing follows.
    Exit {
        /// How.
        exit: Exit,
        /// The message for the operator; empty for an orderly end.
        reason: String,
    },
}

/// What the log tells. Each is an event of the surface of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process works and looks for its peers.
    Starting,
    /// The server stands by.
    Standby {
        /// Why.
        reason: String,
    },
    /// The server tries for the store.
    Activating {
        /// Why.
        reason: String,
    },
    /// The server owns the lock and recovers.
    Recovering,
    /// The server serves.
    Active {
        /// The epoch it owns.
        epoch: u64,
    },
    /// The store belongs to another server although no peer that owns it is in sight.
    LockRefused {
        /// Who has it, as far as known.
        reason: String,
    },
    /// A peer is in sight for the first time.
    PeerConnected {
        /// Its name.
        peer: String,
        /// Its state.
        state: State,
    },
    /// A peer is gone: its links broke or it was silent for `ft_activation`.
    PeerLost {
        /// Its name.
        peer: String,
        /// The last state that it told.
        state: State,
        /// How it was lost.
        reason: String,
    },
    /// A peer is in sight again after one was lost.
    PeerBack {
        /// Its name.
        peer: String,
        /// Its state.
        state: State,
    },
    /// A peer claims to be active while this server is.
    DualActive {
        /// Its name.
        peer: String,
        /// The epoch that it claims.
        peer_epoch: u64,
        /// The epoch that this server owns.
        epoch: u64,
    },
    /// Ownership was lost or a write failed.
    Fenced {
        /// What happened.
        reason: String,
    },
    /// An orderly stop begins.
    Stopping {
        /// Who asked for it.
        reason: String,
    },
}
