//! What a client's connection reports.

use std::sync::Arc;

use crate::auth::Users;
use crate::broker::{Event, Gone};
use crate::proto::condition;
use crate::proto::{self, ErrorCondition, LinkId, RemoteOpen, SaslCode, SessionId, Symbol, Value};

use super::clients::Identity;
use super::peer::{Link, Peer};
use super::sasl::{Answer, Next, Sasl};
use super::{ConnectionId, Node, Now};

/// A client that has been silent for so long may be gone, where no time-out is set.
const SILENCE_MS: u64 = 20_000;

impl Node {
    pub(super) fn on_event(&mut self, now: Now, id: ConnectionId, event: proto::Event) {
        match event {
            proto::Event::Delivery {
                link,
                delivery_id,
                settled,
                message_format,
                payload,
                state,
            } => {
                let delivery = super::publish::Incoming {
                    connection: id,
                    link,
                    delivery_id,
                    is_settled: settled,
                    message_format,
                    payload,
                    state,
                };
                self.publish(now, &delivery);
            }
            proto::Event::Disposition {
                link,
                token,
                delivery_id,
                outcome,
                settled,
            } => self.on_disposition(id, link, token, (delivery_id, outcome, settled)),
            proto::Event::Flow {
                link,
                credit,
                drain,
            } => self.on_flow(id, link, credit, drain),
            proto::Event::WindowOpened { session } => self.offer_all(id, Some(session)),
            proto::Event::CreditRefill { link } => self.refill(id, link),
            proto::Event::Attached(attach) => self.on_attached(now, id, &attach),
            proto::Event::Detached {
                link,
                closed,
                error,
            } => {
                let is_over = closed && error.is_none();
                let subscription = self.closed_with(id, link).filter(|_| is_over);
                self.on_detached(id, link, Gone::InOrder);
                if is_over {
                    self.closed(id, link, subscription);
                }
            }
            proto::Event::SaslInit {
                mechanism,
                response,
                ..
            } => {
                self.on_sasl(id, |sasl, users| {
                    sasl.begin(mechanism, response.as_deref(), users)
                });
            }
            proto::Event::SaslResponse(response) => {
                self.on_sasl(id, |sasl, users| sasl.go_on(Some(&response), users));
            }
            proto::Event::Opened(remote) => self.on_opened(now, id, &remote),
            proto::Event::Closed { error } => {
                let how = if error.is_none() {
                    Gone::InOrder
                } else {
                    Gone::Lost
                };
                if let Some(error) = error {
                    tracing::debug!(connection = id.number(), %error, "connection ended");
                }
                self.connection_over(id, how);
            }
            proto::Event::Begun { .. }
            | proto::Event::Ended { .. }
            | proto::Event::AttachConfirmed(_)
            | proto::Event::Drained { .. } => {}
        }
    }

    fn on_sasl(
        &mut self,
        id: ConnectionId,
        step: impl FnOnce(&mut Sasl, Option<&Arc<Users>>) -> Next,
    ) {
        let users = self.users_asked();
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        match step(&mut peer.sasl, users.as_ref()) {
            Next::Answer(answer) => self.answer_sasl(id, answer),
            Next::Judge(task) => self.logins.push_back((id, task)),
        }
    }

    /// Those who may connect; `None`: everybody.
    pub(super) fn users_asked(&self) -> Option<Arc<Users>> {
        let users = Some(&self.users).filter(|_| self.directory.authorization);
        users.map(Arc::clone)
    }

    pub(super) fn answer_sasl(&mut self, id: ConnectionId, answer: Answer) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        match answer {
            Answer::Challenge(text) => peer.connection.sasl_challenge(&text),
            Answer::Welcome {
                user,
                is_verified,
                last_word,
            } => {
                peer.user = user;
                peer.is_verified = is_verified;
                peer.connection
                    .sasl_outcome(SaslCode::Ok, last_word.as_deref());
            }
            Answer::Refused(code) => peer.connection.sasl_outcome(code, None),
        }
    }

    /// Whether the user of a connection is known as well as this server wants it. Authorization may have been
    /// enabled, or the user removed, since the client was asked.
    fn is_welcome(&self, id: ConnectionId) -> bool {
        let is_known = |peer: &Peer| {
            let user = peer.user.as_deref();
            peer.is_verified && user.is_some_and(|user| self.users.has(user))
        };
        !self.directory.authorization || self.peer(id).is_some_and(is_known)
    }

    fn on_opened(&mut self, now: Now, id: ConnectionId, remote: &RemoteOpen) {
        if !self.is_welcome(id) {
            let error = ErrorCondition::new(
                condition::UNAUTHORIZED_ACCESS,
                "connect with user and password",
            );
            if let Some(peer) = self.peer_mut(id) {
                peer.connection.open_refused(error);
            }
            return;
        }
        let wants_sole = |it: &Symbol| it.as_str() == "sole-connection-for-container";
        let is_sole = remote.desired_capabilities.iter().any(wants_sole);
        let client = Identity {
            container: remote.container_id.clone(),
            user: self.peer(id).and_then(|peer| peer.user.clone()),
        };
        if !self.make_way(now, &client, is_sole) {
            let error = ErrorCondition::new(
                condition::INVALID_FIELD,
                format!("container id {:?} is in use", remote.container_id),
            )
            .with_info("invalid-field", Value::Symbol(Symbol::from("container-id")));
            if let Some(peer) = self.peer_mut(id) {
                peer.connection.open_refused(error);
            }
            return;
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.container = Some(client.container);
            peer.is_sole = is_sole;
            peer.is_open = true;
            peer.connection.open();
        }
        self.note_patience(id, remote.idle_timeout_ms);
        self.client_connected(id);
    }

    /// Whether a connection of this client may open. Where one has to be the only one, an older
    /// one that has been silent for longer than a living client is goes away: its client is the one
    /// that comes now.
    fn make_way(&mut self, now: Now, client: &Identity, is_sole: bool) -> bool {
        let others = self.clients.connections_of(client);
        let mut silent = Vec::new();
        for other in others {
            let Some(peer) = self.peer(other) else {
                continue;
            };
            if !is_sole && !peer.is_sole {
                continue;
            }
            if !self.is_silent(now, other) {
                return false;
            }
            silent.push(other);
        }
        for other in silent {
            self.displace(
                now,
                other,
                "another connection of the same container took over",
            );
        }
        true
    }

    /// Whether a connection has been silent for longer than a living client is.
    pub(super) fn is_silent(&self, now: Now, id: ConnectionId) -> bool {
        let silence_ms = match self.settings.idle_timeout_ms {
            0 => SILENCE_MS,
            timeout_ms => u64::from(timeout_ms / 3),
        };
        self.peer(id)
            .is_none_or(|peer| now.monotonic_ms.saturating_sub(peer.last_heard_ms) > silence_ms)
    }

    /// Closes the connection of a client that is taken for gone.
    pub(super) fn displace(&mut self, now: Now, id: ConnectionId, why: &'static str) {
        if let Some(peer) = self.peer_mut(id) {
            let error = ErrorCondition::new(condition::CONNECTION_FORCED, why);
            peer.connection.close_now(Some(error));
            self.take_events(now, id);
        }
    }

    pub(super) fn on_flow(&mut self, id: ConnectionId, link: LinkId, credit: u32, drain: bool) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let Some(consumer) = peer.consumer_mut(link) else {
            return;
        };
        consumer.is_draining = drain;
        let consumer = consumer.id;
        self.offer(id, link);
        if !drain {
            return;
        }
        if credit == 0 {
            self.drained(consumer);
        } else {
            self.broker.handle(Event::DrainWanted { consumer });
        }
    }

    /// Tells the broker whether a consumer takes messages now.
    pub(super) fn offer(&mut self, id: ConnectionId, link: LinkId) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let can_send = peer.connection.can_send(link);
        peer.waits_for_output |= peer.connection.is_output_full();
        let Some(consumer) = peer.consumer_mut(link) else {
            return;
        };
        let changed = consumer.is_ready != can_send;
        consumer.is_ready = can_send;
        let consumer = consumer.id;
        if changed && can_send {
            self.broker.handle(Event::ConsumerReady { consumer });
        } else if changed {
            self.broker.handle(Event::ConsumerBlocked { consumer });
        }
    }

    /// The same for all consumers of a connection, or of one of its sessions.
    pub(super) fn offer_all(&mut self, id: ConnectionId, session: Option<SessionId>) {
        let Some(peer) = self.peer(id) else {
            return;
        };
        let in_session = |link: &Link| match link {
            Link::Consumer(it) => session.is_none_or(|session| it.session == session),
            Link::Publisher(_) | Link::Lookup(_) => false,
        };
        let links: Vec<LinkId> = peer
            .links
            .iter()
            .filter(|(_, link)| in_session(link))
            .map(|(&id, _)| id)
            .collect();
        for link in links {
            self.offer(id, link);
        }
    }

    /// A link is gone.
    pub(super) fn on_detached(&mut self, id: ConnectionId, link: LinkId, how: Gone) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        let owned = match peer.links.remove(&link) {
            None => return,
            Some(Link::Publisher(publisher)) => {
                peer.publishers -= 1;
                publisher.owned_queue
            }
            Some(Link::Consumer(consumer)) => {
                self.outlets.remove(&consumer.id.number);
                self.broker.handle(Event::ConsumerGone {
                    consumer: consumer.id,
                    how,
                });
                self.forget_browser(consumer.id);
                self.reader_gone(consumer.id.queue);
                consumer.owned_queue
            }
            Some(Link::Lookup(_)) => None,
        };
        // A server that stops leaves to its successor what clients own.
        if let Some(queue) = owned
            && !self.is_stopping
        {
            self.delete_queue(queue);
        }
    }

    /// A connection is over: its links go, and all that it owns.
    pub(super) fn connection_over(&mut self, id: ConnectionId, how: Gone) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        if std::mem::replace(&mut peer.is_over, true) {
            return;
        }
        let links: Vec<LinkId> = peer.links.keys().copied().collect();
        let client = peer.client.take();
        for link in links {
            self.on_detached(id, link, how);
        }
        if let Some(client) = client {
            self.client_disconnected(client, id);
        }
        self.mark_dirty(id);
    }
}
