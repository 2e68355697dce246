//! The fault-tolerance role of a server: a state machine without clock, sockets or files.
//!
//! Time, peer news, lock results and recovery results go in through [`Role::handle`]; what the
//! server must do comes out of [`Role::poll_action`]. The same inputs give the same actions, byte
//! for byte, so whole failure histories run in tests with virtual time.
//!
//! ```text
//!             peer is active                    lock owned            ready
//!  starting ────────────────▶ standby ◀─refused─ activating ─▶ recovering ─▶ active
//!     │                          │                  ▲              │            │
//!     └──────────────────────────┼──────────────────┘              │ busy       │ write failed
//!        no active peer          └── peer lost, stopping ──▶       ▼            ▼
//!                                    or the lock was free       standby       fenced
//! ```
//!
//! Rules that everything else follows from:
//!
//! * Only the store's lock makes a server active. What a peer says decides when to *try*, and what
//!   clients are told meanwhile, never who owns the store.
//! * A standby tries for the lock all the time (`store_lock_poll_ms`, randomised), and at once when
//!   a connection to the active server breaks.
//! * Nothing fails back by itself: an active server stays active until it stops.

mod machine;
mod peers;
mod types;

pub use machine::Role;
pub use types::{
    Action, EngineMode, Event, Exit, Failure, FailureKind, Input, LinkId, LockResult, PeerNews,
    RecoveryResult, Settings, State,
};

#[cfg(test)]
mod tests;
