//! Clients, and what outlives their connections.
//!
//! A client is a container id and a user: several connections of one container and user are the same
//! client. A connection without a container id is a client by itself. What a client owns (temporary destinations, messages that it has not settled) goes when its
//! last connection ends. When the
//! server ends first, it is kept for `reconnect_timeout_ms` after the next recovery; then the state of
//! all clients that did not return is made void by one durable step, and removed.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::{ClientId, Event, QueueId};

use super::pending::Item;
use super::records::{
    COUNTER_CLIENTS_FROM, COUNTER_NEXT_CLIENT, ClientRow, KIND_CLIENT, KIND_COUNTER, client_key,
    parse_client_key, parse_long,
};
use super::{ConnectionId, Node, Now};

/// A client that returned in time has this much more, after the time is over, to attach the links for
/// what is kept for it.
const LINKS_MS: u64 = 5_000;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) container: String,
    /// `None`: anonymous.
    pub(crate) user: Option<String>,
}

#[derive(Debug)]
struct Client {
    identity: Identity,
    connections: Vec<ConnectionId>,
    /// It has a row: what it owns survives a takeover.
    is_stored: bool,
    /// A predecessor knew it, and it has not returned.
    is_expected: bool,
}

/// Figures of the clients that a predecessor knew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReconnectStatus {
    /// Clients whose state was recovered.
    pub expected: u64,
    /// Those that returned.
    pub returned: u64,
    /// Those whose state was removed.
    pub expired: u64,
    /// Clients whose state the next takeover would find.
    pub kept: u64,
    /// When the state of the others is removed, in the clock of `monotonic_ms`; `None`: when there is
    /// none, or the time is over.
    pub deadline_at_ms: Option<u64>,
}

/// The clients that are connected or expected.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_id: BTreeMap<ClientId, Client>,
    by_identity: BTreeMap<Identity, ClientId>,
    next: u64,
    /// How many have a row.
    stored: usize,
    /// Temporary queues, topics and subscriptions of a predecessor that no link of their owner has taken up.
    pub(super) unclaimed: BTreeSet<QueueId>,
    reconnect: ReconnectStatus,
    /// Until when those that returned may attach their links.
    links_until_ms: Option<u64>,
    /// That there are too many was said.
    is_full: bool,
}

impl Clients {
    fn insert(&mut self, id: ClientId, client: Client) {
        self.stored += usize::from(client.is_stored);
        // Those without a container id have nothing by which to tell one from another: each connection is a client.
        if !client.identity.container.is_empty() {
            self.by_identity.insert(client.identity.clone(), id);
        }
        self.by_id.insert(id, client);
    }

    fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.by_id.remove(&id)?;
        self.stored -= usize::from(client.is_stored);
        self.by_identity.remove(&client.identity);
        Some(client)
    }

    /// The connections of a client.
    pub(super) fn connections_of(&self, identity: &Identity) -> Vec<ConnectionId> {
        let id = self.by_identity.get(identity);
        let client = id.and_then(|id| self.by_id.get(id));
        client.map_or_else(Vec::new, |client| client.connections.clone())
    }

    pub(super) fn contains(&self, id: ClientId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn identity(&self, id: ClientId) -> Option<&Identity> {
        self.by_id.get(&id).map(|client| &client.identity)
    }

    pub(super) fn reconnect(&self) -> ReconnectStatus {
        ReconnectStatus {
            kept: self.stored as u64,
            ..self.reconnect
        }
    }
}

/// Clients whose state a batch makes void.
#[derive(Debug)]
pub(crate) struct Expiry {
    clients: Vec<(ClientId, Identity)>,
}

impl Node {
    /// The client whose connection it is, once it is open.
    pub(super) fn client_of(&self, id: ConnectionId) -> Option<ClientId> {
        self.peer(id)?.client
    }

    /// Who the client of a connection is.
    pub(super) fn identity_of(&self, id: ConnectionId) -> Identity {
        let peer = self.peer(id);
        Identity {
            container: peer.and_then(|it| it.container.clone()).unwrap_or_default(),
            user: peer.and_then(|it| it.user.clone()),
        }
    }

    /// The clients that a predecessor knew. Before the queues, which belong to them.
    pub(super) fn recover_clients(&mut self) {
        let counter = |name| {
            let value = self.store.row(KIND_COUNTER, name);
            value.and_then(parse_long).unwrap_or(0)
        };
        let from_epoch = counter(COUNTER_CLIENTS_FROM);
        self.clients.next = counter(COUNTER_NEXT_CLIENT);
        let mut void = Vec::new();
        for (key, value) in self.store.rows(KIND_CLIENT) {
            let (Some(id), Some(row)) = (parse_client_key(key), ClientRow::decode(value)) else {
                tracing::error!(?key, "a client of the store cannot be read by this version");
                continue;
            };
            self.clients.next = self.clients.next.max(id.0.saturating_add(1));
            if row.epoch < from_epoch {
                void.push(id);
                continue;
            }
            let client = Client {
                identity: row.identity,
                connections: Vec::new(),
                is_stored: true,
                is_expected: true,
            };
            self.clients.insert(id, client);
            self.clients.reconnect.expected += 1;
        }
        for id in void {
            self.delete_client_row(id);
        }
    }

    /// Starts the time in which clients may return; nothing of theirs is given to others before its
    /// end.
    pub(super) fn start_reconnect_time(&mut self, now: Now) {
        if self.clients.reconnect.expected > 0 || !self.clients.unclaimed.is_empty() {
            let until_ms = now.monotonic_ms + self.settings.reconnect_timeout_ms;
            self.clients.reconnect.deadline_at_ms = Some(until_ms);
            self.expire_clients(now);
        }
    }

    /// A connection is open: it is known whose it is.
    pub(super) fn client_connected(&mut self, id: ConnectionId) {
        let identity = self.identity_of(id);
        let client_id = match self.clients.by_identity.get(&identity) {
            Some(&known) => known,
            None => {
                let new = ClientId(self.clients.next);
                self.clients.next += 1;
                let client = Client {
                    identity,
                    connections: Vec::new(),
                    is_stored: false,
                    is_expected: false,
                };
                self.clients.insert(new, client);
                new
            }
        };
        if let Some(peer) = self.peer_mut(id) {
            peer.client = Some(client_id);
        }
        let Some(client) = self.clients.by_id.get_mut(&client_id) else {
            return;
        };
        client.connections.push(id);
        if std::mem::replace(&mut client.is_expected, false) {
            self.clients.reconnect.returned += 1;
            tracing::info!(
                event = "client_returned",
                container = client.identity.container,
                user = client.identity.user,
                "a client of the predecessor is back"
            );
            self.put_client_row(client_id);
        }
    }

    /// A connection of a client is over. With its last one all goes that it owns, unless it is the
    /// server that ends.
    pub(super) fn client_disconnected(&mut self, id: ClientId, connection: ConnectionId) {
        let Some(client) = self.clients.by_id.get_mut(&id) else {
            return;
        };
        client.connections.retain(|it| *it != connection);
        if !client.connections.is_empty() || self.is_stopping {
            return;
        }
        self.delete_queues_of(id);
        self.broker.handle(Event::ClientGone { client: id });
        if self.clients.remove(id).is_some_and(|it| it.is_stored) {
            self.delete_client_row(id);
        }
    }

    /// Lets what a client owns from now on survive a takeover, if its identity can: to be called
    /// before the first row that names it. Whether it can.
    pub(super) fn keep_client(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.by_id.get(&id) else {
            return false;
        };
        if client.is_stored {
            return true;
        }
        if client.identity.container.is_empty() {
            // Nobody could tell it from others.
            return false;
        }
        if self.clients.stored >= self.settings.clients_max {
            if !std::mem::replace(&mut self.clients.is_full, true) {
                tracing::warn!(
                    event = "clients_full",
                    clients = self.clients.stored,
                    "no further client's state is kept over a takeover: what it has not settled then \
                     goes to others at once"
                );
            }
            return false;
        }
        let is_stored = self.put_client_row(id);
        if let Some(client) = self.clients.by_id.get_mut(&id) {
            client.is_stored = is_stored;
            self.clients.stored += usize::from(is_stored);
        }
        is_stored
    }

    /// Writes the row of a client as of now. It may be refused: a container id can be longer than a
    /// row, and a log can be lost or sealed.
    fn put_client_row(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.by_id.get(&id) else {
            return false;
        };
        let row = ClientRow {
            identity: client.identity.clone(),
            epoch: self.store.epoch(),
        };
        let Ok(value) = row.encode() else {
            return false;
        };
        let next = self.clients.next.to_le_bytes();
        self.store
            .put_row(KIND_COUNTER, COUNTER_NEXT_CLIENT, &next)
            .and_then(|_| self.store.put_row(KIND_CLIENT, &client_key(id), &value))
            .is_ok()
    }

    fn delete_client_row(&mut self, id: ClientId) {
        // An error means that the log is lost or sealed; the successor waits for the client in vain.
        let _lost_or_sealed = self.store.delete_row(KIND_CLIENT, &client_key(id));
    }

    fn delete_queues_of(&mut self, id: ClientId) -> usize {
        // Subscriptions before the temporary topics that they are to.
        let queues = self.broker.queues_of(id);
        let queues: Vec<QueueId> = queues.chain(self.temporary_topics.of(id)).collect();
        for &queue in &queues {
            self.delete_queue(queue);
        }
        queues.len()
    }

    /// At the end of the time for it, makes the state of all clients void that did not return. Rows of what they
    /// had stay until others may have it: a successor takes the delivery counts from them. Later what
    /// the others did not come for goes as well.
    pub(super) fn expire_clients(&mut self, now: Now) {
        self.end_link_time(now);
        let deadline_at_ms = self.clients.reconnect.deadline_at_ms;
        if deadline_at_ms.is_none_or(|at| now.monotonic_ms < at) || self.is_stopping {
            return;
        }
        self.clients.reconnect.deadline_at_ms = None;
        let epoch = self.store.epoch().to_le_bytes();
        // An error means that the log is lost or sealed: the successor starts the clock again.
        let Ok(ticket) = self
            .store
            .put_row(KIND_COUNTER, COUNTER_CLIENTS_FROM, &epoch)
        else {
            return;
        };
        let expected = self.clients.by_id.iter().filter(|(_, it)| it.is_expected);
        let ids: Vec<ClientId> = expected.map(|(&id, _)| id).collect();
        let mut clients = Vec::new();
        for id in ids {
            // Who comes from now on comes too late, and is another client.
            if let Some(client) = self.clients.remove(id) {
                clients.push((id, client.identity));
            }
        }
        let rows: Vec<ClientId> = clients.iter().map(|(id, _)| *id).collect();
        self.pending.push(ticket, Item::Expired(Expiry { clients }));
        for id in rows {
            self.delete_client_row(id);
        }
    }

    /// It is durable that the state of clients is void.
    pub(super) fn expired(&mut self, now: Now, expiry: Expiry) {
        let mut released: BTreeMap<ClientId, u64> = BTreeMap::new();
        for (_, client, messages) in self.broker.waiting_holdings() {
            *released.entry(client).or_default() += messages;
        }
        for (id, identity) in expiry.clients {
            self.broker.handle(Event::ClientGone { client: id });
            let destinations = self.delete_queues_of(id);
            self.clients.reconnect.expired += 1;
            tracing::info!(
                event = "client_state_expired",
                container = identity.container,
                user = identity.user,
                messages = released.get(&id).copied().unwrap_or(0),
                destinations,
                "a client did not return in time: its state is removed, and others get its messages"
            );
        }
        self.delete_unclaimed(|owner_is_here| !owner_is_here);
        self.clients.links_until_ms = Some(now.monotonic_ms + LINKS_MS);
    }

    /// Some time after that, what no link was attached for goes also where its client is here.
    fn end_link_time(&mut self, now: Now) {
        let until_ms = self.clients.links_until_ms;
        if until_ms.is_none_or(|at| now.monotonic_ms < at) || self.is_stopping {
            return;
        }
        self.clients.links_until_ms = None;
        self.broker.handle(Event::HoldsOver);
        self.delete_unclaimed(|_| true);
    }

    /// Deletes queues of a predecessor that nobody uses, if they are to go; the argument of `goes` is
    /// whether their owner is here.
    fn delete_unclaimed(&mut self, goes: impl Fn(bool) -> bool) {
        for queue in self.clients.unclaimed.clone() {
            let topic = self.temporary_topics.get(queue);
            let owner = match topic {
                Some(topic) => topic.owner,
                None => self.broker.queue(queue).and_then(|it| it.kind.owner()),
            };
            if !goes(owner.is_some_and(|owner| self.clients.contains(owner))) {
                continue;
            }
            let is_read =
                self.broker.consumer_count(queue) > 0 || self.is_temporary_topic_read(queue);
            // A subscription may have gone with its topic.
            if self.clients.unclaimed.remove(&queue) && !is_read {
                self.delete_queue(queue);
            }
        }
    }
}
