//! `$management`: requests are handed to the owner of the node, and its replies go where the client
//! wants them. The node itself decides and does nothing that concerns the whole server.

use bytes::Bytes;

use crate::broker::{QueueKind, Route};
use crate::proto::message::ValueMessage;
use crate::proto::{Event, Value};

use super::desk::{Asked, Desk, is_management};
use super::{ConnectionId, ManagementReply, Node, Now};

/// Requests of all connections that may wait to be taken.
const WAITING_MAX: usize = 256;

/// Names a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    pub(super) connection: ConnectionId,
    pub(super) number: u64,
}

impl RequestId {
    /// The connection that it came on.
    pub fn connection(self) -> ConnectionId {
        self.connection
    }
}

/// What a client wants of the server.
#[derive(Debug)]
pub struct ManagementRequest {
    /// For [`Node::reply`].
    pub id: RequestId,
    /// The user of the connection; `None` for anonymous clients.
    pub user: Option<String>,
    /// The user was proved.
    pub is_verified: bool,
    /// The request itself.
    pub message: ValueMessage,
}

impl Node {
    /// Takes what is about `$management`; gives back any other event.
    pub(super) fn divert(&mut self, now: Now, id: ConnectionId, event: Event) -> Option<Event> {
        let peer = self.peer_mut(id)?;
        let is_new = matches!(&event, Event::Attached(attach) if is_management(attach));
        if !is_new && peer.desk.is_none() {
            return Some(event);
        }
        let desk = peer.desk.get_or_insert_default();
        if is_new && let Event::Attached(attach) = &event {
            desk.attach(&mut peer.connection, attach);
            return None;
        }
        let asked = match desk.take(&mut peer.connection, event) {
            Ok(asked) => asked,
            Err(event) => return Some(event),
        };
        let (user, is_verified) = (peer.user.clone(), peer.is_verified);
        if let Some(Asked { number, message }) = asked {
            let id = RequestId {
                connection: id,
                number,
            };
            if self.requests.len() < WAITING_MAX && !self.is_stopping {
                self.requests.push_back(ManagementRequest {
                    id,
                    user,
                    is_verified,
                    message,
                });
            } else {
                self.reply(now, id, busy());
            }
        }
        None
    }

    /// The next request; to be answered with [`Self::reply`].
    pub fn poll_request(&mut self) -> Option<ManagementRequest> {
        self.requests.pop_front()
    }

    /// Answers a request. A client that is gone, or that named no place for its reply, gets none.
    pub fn reply(&mut self, now: Now, id: RequestId, reply: ManagementReply) {
        let Some(peer) = self.peer_mut(id.connection) else {
            return;
        };
        let desk: &mut Desk = peer.desk.get_or_insert_default();
        let elsewhere = desk.reply(&mut peer.connection, id.number, reply);
        self.mark_dirty(id.connection);
        let Some((address, bytes)) = elsewhere else {
            return;
        };
        // Only where a client waits for replies: a request writes into no other queue.
        let Route::Queue(queue) = self.broker.route(&address) else {
            return;
        };
        let kind = self.broker.queue(queue).map(|entry| entry.kind);
        if matches!(kind, Some(QueueKind::Temporary { .. })) && !self.is_stopping {
            self.publish_own(now, queue, Bytes::from(bytes));
            self.work(now);
        }
    }
}

fn busy() -> ManagementReply {
    ManagementReply {
        status: 503,
        description: String::from("the server has too many requests to answer: try again"),
        body: Value::Null,
    }
}
