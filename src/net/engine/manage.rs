//! The engine for administrators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use steadfast_storage::Ticket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{Engine, Mode, STOP_SOCKETS, Work};
use crate::model::Directory;
use crate::net::admin::{Call, Calls, ReplyTo};
use crate::net::clock;
use crate::node::{
    ConnectionId, Dropped, ManagementReply, Node, Now, PurgeId, PurgeState, RequestId,
    SubscriptionStatus,
};

/// Whether it is certain that what was appended stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Durability {
    /// It is.
    Durable,
    /// The log finds no space: it is when there is some, unless the server ends before.
    Full,
    /// The server ends before that is known.
    Ends,
}

/// What became of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Purged {
    /// It is over, and durable.
    Done(Dropped),
    /// It goes on.
    GoesOn,
    /// It is not certain how much of it is durable.
    Unsure(Durability),
}

impl Engine {
    /// Destinations and permissions as they are.
    pub(in crate::net) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.0.directory.borrow())
    }

    /// Where requests to `$management` go from now on.
    pub(in crate::net) fn set_calls(&self, calls: Calls) {
        self.0.calls.replace(Some(calls));
    }

    /// Hands a request over, or refuses it when too many wait.
    pub(in crate::net) fn call(&self, call: Call) {
        let calls = self.0.calls.borrow().clone();
        let refused = match calls {
            Some(calls) => calls.try_send(call).err().map(TrySendError::into_inner),
            None => Some(call),
        };
        if let Some(call) = refused {
            call.refuse();
        }
    }

    /// Answers a request that came to the node.
    pub(in crate::net) fn reply(&self, id: RequestId, reply: ManagementReply) {
        let now = clock::now();
        self.with_node(|node| node.reply(now, id, reply));
        self.turn(now);
    }

    /// Waits until clients have taken what they are told, for a moment at most.
    pub(in crate::net) async fn settle_output(&self) {
        self.turn(clock::now());
        let is_written = |work: &mut Work| {
            let mut ids = work.sockets.keys().copied();
            ids.all(|id| work.node.output(id).is_none_or(|output| output.is_empty()))
        };
        let _late = timeout(STOP_SOCKETS, async {
            while !self.with(is_written).unwrap_or(true) {
                yield_now().await;
            }
        })
        .await;
        yield_now().await;
    }

    /// Does something with the node, if there is one.
    pub(in crate::net) fn administer<T>(&self, act: impl FnOnce(&mut Node, Now) -> T) -> Option<T> {
        let now = clock::now();
        let result = self.with_node(|node| act(node, now));
        self.turn(now);
        self.0.flush.notify_one();
        result
    }

    /// Waits until a batch is durable and the store is known to be ours, or nobody can tell when it will be.
    pub(in crate::net) async fn durability(&self, ticket: Ticket) -> Durability {
        let refused = self.refused_writes();
        let is_safe = |work: &mut Work| work.node.is_safe(clock::now(), ticket);
        self.until(|work| is_safe(work) || work.node.refused_writes() > refused)
            .await;
        let is_durable = self.with(is_safe).unwrap_or(false);
        self.turn(clock::now());
        match is_durable {
            true => Durability::Durable,
            false if self.is_ending() => Durability::Ends,
            false => Durability::Full,
        }
    }

    /// Waits until a purge is over and durable, for so long at most, or until nobody can tell when it will be.
    /// Returns what it has dropped.
    pub(in crate::net) async fn purged(&self, id: PurgeId, limit: Duration) -> Purged {
        let refused = self.refused_writes();
        let state = |work: &mut Work| work.node.purge_state(clock::now(), id);
        let is_over = |work: &mut Work| {
            !matches!(state(work), PurgeState::Running(_))
                || work.node.is_stopping()
                || work.node.refused_writes() > refused
        };
        let is_late = timeout(limit, self.until(is_over)).await.is_err();
        let state = self.with(state).unwrap_or(PurgeState::Over);
        self.with_node(|node| node.forget_purge(id));
        self.turn(clock::now());
        match state {
            PurgeState::Done(dropped) => Purged::Done(dropped),
            PurgeState::Over => Purged::Unsure(Durability::Ends),
            PurgeState::Running(_) if is_late => Purged::GoesOn,
            PurgeState::Running(_) if self.is_ending() => Purged::Unsure(Durability::Ends),
            PurgeState::Running(_) => Purged::Unsure(Durability::Full),
        }
    }

    /// Writes of the log that found no space so far.
    fn refused_writes(&self) -> u64 {
        let refused = self.with_node(|node| node.refused_writes());
        refused.unwrap_or_default()
    }

    fn is_ending(&self) -> bool {
        let is_stopping = self.with_node(|node| node.is_stopping()).unwrap_or(true);
        is_stopping || *self.0.mode.borrow() == Mode::Fail
    }

    /// The address of a client.
    pub(in crate::net) fn address(&self, id: ConnectionId) -> Option<SocketAddr> {
        let socket = self.with(|work| work.sockets.get(&id).cloned());
        socket.flatten().and_then(|socket| socket.address())
    }

    /// Figures of all subscriptions; empty unless active.
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        self.with_node(|node| node.subscription_status())
            .unwrap_or_default()
    }

    /// The names of temporary topics.
    pub fn temporary_topics(&self) -> Vec<String> {
        self.with_node(|node| node.temporary_topic_names())
            .unwrap_or_default()
    }

    /// Hands over what clients ask of `$management`.
    pub(super) fn hand_over_requests(&self) {
        let mut requests = Vec::new();
        self.with_node(|node| {
            while let Some(request) = node.poll_request() {
                requests.push(request);
            }
        });
        for request in requests {
            let address = self.address(request.id.connection());
            let call = Call {
                user: request.user,
                is_verified: request.is_verified,
                address: address.map(|address| address.ip()),
                message: request.message,
                reply_to: ReplyTo::Node(self.clone(), request.id),
            };
            self.call(call);
        }
    }
}
